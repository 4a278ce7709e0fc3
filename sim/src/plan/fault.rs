//! What can go wrong.

use serde::{Deserialize, Serialize};

/// Something that goes wrong at a moment, or for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub kind: FaultKind,
    /// To which guest, if to one.
    pub guest: usize,
    /// In which direction, if in one.
    pub way: Way,
    /// For how long, in milliseconds, if for a while.
    pub for_ms: u64,
}

/// Directions of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Both.
    Both,
    /// From the guest to the broker.
    ToBroker,
    /// From the broker to the guest.
    ToGuest,
}

impl Way {
    /// As it follows a fault's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "",
            Self::ToBroker => " towards the broker",
            Self::ToGuest => " towards the guest",
        }
    }
}

/// What a fault befalls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A guest, for a while.
    Guest,
    /// A guest, at one moment.
    GuestAtOnce,
    /// The broker, for a while.
    Broker,
    /// The broker, at one moment.
    BrokerAtOnce,
    /// Everybody, for a while.
    World,
}

/// Kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing passes on the guest's connections for a while; then everything does.
    Hold,
    /// The guest's host can't be reached: as a hold, and dials hang, too.
    Partition,
    /// The guest's connections are reset.
    Reset,
    /// One end says that it will send no more.
    HalfClose,
    /// The guest dies without a word to anybody and boots again after a while.
    Death,
    /// The guest's process ends, its kernel closes the streams; started again after a while.
    Crash,
    /// The guest does not run for a while (`SIGSTOP`); its kernel does.
    Freeze,
    /// A second guest starts as an exact copy of this one, and both run.
    Twin,
    /// The broker does not run for a while.
    FreezeBroker,
    /// The host is suspended: nothing runs, and only the boot clock goes on.
    Suspend,
    /// The wall clock is set forward or back.
    WallStep,
    /// The broker is killed and started again on what it had committed.
    RestartBroker,
    /// The broker is killed and started again on an empty state directory.
    LoseState,
    /// The broker leaves in good order and is started again.
    DrainBroker,
    /// The configuration is read again.
    Reload,
    /// The broker's process gets no more descriptors for a while.
    Descriptors,
    /// Commits fail for a while.
    CommitFails,
    /// The broker is killed between a commit and the word of it.
    TornCommit,
    /// No file can be written for a while.
    DiskFull,
    /// Work takes long for a while.
    SlowDisk,
    /// The serial stream's other end comes and goes, the guest runs on.
    Replug,
    /// The guest takes leave in good order, and comes back after a while.
    Leave,
    /// A byte of the guest's connections is damaged on its way.
    Corrupt,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Hold,
        Self::Partition,
        Self::Reset,
        Self::HalfClose,
        Self::Death,
        Self::Crash,
        Self::Freeze,
        Self::Twin,
        Self::FreezeBroker,
        Self::Suspend,
        Self::WallStep,
        Self::RestartBroker,
        Self::LoseState,
        Self::DrainBroker,
        Self::Reload,
        Self::Descriptors,
        Self::CommitFails,
        Self::TornCommit,
        Self::DiskFull,
        Self::SlowDisk,
        Self::Replug,
        Self::Leave,
        Self::Corrupt,
    ];

    /// What it befalls.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::Hold | Self::Partition | Self::Death | Self::Crash | Self::Freeze | Self::Twin => {
                Scope::Guest
            }
            Self::Reset | Self::HalfClose | Self::Replug | Self::Leave | Self::Corrupt => Scope::GuestAtOnce,
            Self::FreezeBroker
            | Self::RestartBroker
            | Self::LoseState
            | Self::TornCommit
            | Self::Descriptors
            | Self::CommitFails
            | Self::DiskFull
            | Self::SlowDisk => Scope::Broker,
            Self::DrainBroker | Self::Reload | Self::WallStep => Scope::BrokerAtOnce,
            Self::Suspend => Scope::World,
        }
    }

    /// What it does, for people.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Hold => "its streams are held",
            Self::Partition => "cut off",
            Self::Reset => "its connections are reset",
            Self::HalfClose => "one side says that it is done",
            Self::Death => "dead",
            Self::Crash => "crashed",
            Self::Freeze | Self::FreezeBroker => "frozen",
            Self::Twin => "an exact copy runs, too",
            Self::Suspend => "the host is suspended",
            Self::WallStep => "the wall clock is set",
            Self::RestartBroker => "killed",
            Self::LoseState => "killed, its state is lost",
            Self::DrainBroker => "told to leave",
            Self::Reload => "reads its configuration again",
            Self::Descriptors => "no more descriptors",
            Self::CommitFails => "commits fail",
            Self::TornCommit => "killed after a commit, before the word of it",
            Self::DiskFull => "the disk is full",
            Self::SlowDisk => "the disk is slow",
            Self::Replug => "its serial line is plugged again",
            Self::Leave => "told to leave",
            Self::Corrupt => "a byte is damaged on its way",
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Partition => "partition",
            Self::Reset => "reset",
            Self::HalfClose => "half_close",
            Self::Death => "death",
            Self::Crash => "crash",
            Self::Freeze => "freeze",
            Self::Twin => "twin",
            Self::FreezeBroker => "freeze_broker",
            Self::Suspend => "suspend",
            Self::WallStep => "wall_step",
            Self::RestartBroker => "restart_broker",
            Self::LoseState => "lose_state",
            Self::DrainBroker => "drain_broker",
            Self::Reload => "reload",
            Self::Descriptors => "descriptors",
            Self::CommitFails => "commit_fails",
            Self::TornCommit => "torn_commit",
            Self::DiskFull => "disk_full",
            Self::SlowDisk => "slow_disk",
            Self::Replug => "replug",
            Self::Leave => "leave",
            Self::Corrupt => "corrupt",
        }
    }
}
