//! The one generator of worlds of terminals: which programs there are, who asks for
//! them and watches them, and what goes wrong when.

use crate::choice::Choice;
use crate::plan::Network;

/// A world before anything happened in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// How the clients' streams behave without any fault.
    pub network: Network,
    /// What can be started; a launch's first argument names one.
    pub programs: Vec<Program>,
    /// Who comes to the daemon's socket.
    pub clients: Vec<Client>,
    /// What goes wrong, in the order of time.
    pub faults: Vec<Fault>,
    /// How long things go wrong; then the faults end.
    pub chaos_ms: u64,
    /// The host of the pseudo-terminals.
    pub host: Host,
    /// Bytes of output that the daemon keeps of each terminal.
    pub kept: usize,
    /// Whether the daemon's tables are so small that their bounds are met.
    pub small_tables: bool,
}

/// The host of the pseudo-terminals: holder and porter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// Bytes of a terminal's ring.
    pub ring: u64,
    /// Longest delay of a deed or of news, in microseconds.
    pub delay_us: u64,
    /// Size of a snapshot, in bytes.
    pub snapshot: usize,
}

/// What runs on a terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// Why it can't be started, if it can't.
    pub fails: Option<SpawnFailure>,
    /// What it does, one after the other; then it waits to be ended.
    pub steps: Vec<Step>,
    /// Whether it answers input with as many bytes.
    pub echoes: bool,
    /// Whether it never reads its input.
    pub deaf: bool,
    /// Whether only a kill ends it.
    pub stubborn: bool,
    /// For how long something in the background holds the terminal after its end, in
    /// milliseconds.
    pub lingers_ms: u64,
}

/// Why a program can't be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnFailure {
    /// Its directory isn't there.
    Directory,
    /// It isn't there.
    Program,
    /// It may not be used.
    Permission,
    /// There is no terminal to be had.
    Terminal,
}

/// A step of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Waits, in milliseconds.
    Pause(u64),
    /// Writes so many bytes; waits while nobody takes them.
    Write(u64),
    /// Asks the terminal something.
    Query,
    /// Goes to another directory.
    Chdir,
    /// Ends, with this code.
    Exit(i32),
    /// Is ended by this signal.
    Raise(i32),
}

/// Somebody who comes to the socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// Who.
    pub kind: Kind,
    /// What it calls itself: clients may share a name.
    pub name: u8,
    /// When it comes, in milliseconds.
    pub starts_ms: u64,
    /// What it does.
    pub acts: Vec<Act>,
    /// How it reads.
    pub reads: Reading,
    /// Whether it says that it knows owned `kill_all`.
    pub modern: bool,
}

/// What a client is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// One connection for everything.
    Control,
    /// One connection, that may only look.
    Stream,
    /// A connection for requests, and one for output.
    Dual,
    /// Comes with another token.
    WrongToken,
    /// Asks before it says who it is.
    Rude,
    /// Sends bytes without sense.
    Garbage,
    /// Sends half a frame, and no more.
    Half,
    /// Says nothing.
    Mute,
    /// Speaks the wire of before `client_id` and `role`.
    Old,
}

/// How a client reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// What there is.
    Freely,
    /// At most so many bytes each 10 ms.
    Slowly(usize),
}

/// Something that a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    /// How long after the one before, in milliseconds.
    pub after_ms: u64,
    /// What.
    pub deed: Deed,
    /// To which terminal, among those that anybody knows of; or which key.
    pub which: u32,
}

macro_rules! words {
    ($(#[$about:meta])* $kind:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $kind { $($(#[$doc])* $variant,)* }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// Deeds of clients.
    Deed {
        /// A new terminal.
        Create = "create",
        /// That of a key, new or not.
        CreateOrAttach = "create_or_attach",
        /// A new one of a key that must be free.
        CreateExclusive = "create_exclusive",
        /// Watches, and claims what nobody owns.
        Attach = "attach",
        /// Watches only.
        Observe = "observe",
        /// Watches on from where it stopped.
        Resume = "resume",
        /// Watches no more.
        Detach = "detach",
        /// Writes a little.
        Input = "input",
        /// Writes much.
        Paste = "paste",
        /// Writes nothing.
        EmptyInput = "empty_input",
        /// Gives it another size.
        Resize = "resize",
        /// Sends a signal.
        Signal = "signal",
        /// Clears its history.
        Clear = "clear_scrollback",
        /// Ends it.
        Kill = "kill",
        /// Ends those that it owns.
        KillOwned = "kill_owned",
        /// Ends all.
        KillAll = "kill_all",
        /// Owns it from now on.
        Takeover = "takeover",
        /// Asks for a list.
        List = "list",
        /// Asks what it shows.
        Snapshot = "snapshot",
        /// Asks for counters.
        Metrics = "metrics",
        /// Asks for many lists at once.
        Flood = "flood",
        /// Asks about a terminal that never was.
        Nobody = "nobody",
        /// Doesn't read for a while.
        Pause = "pause",
        /// Says that it will send no more.
        HalfClose = "half_close",
        /// Closes, and comes again later.
        Leave = "leave",
        /// Leaves its streams open, never touches them again, and comes with new ones.
        Abandon = "abandon",
    }
}

/// Something that goes wrong at a moment, or for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub kind: FaultKind,
    /// To which client, if to one.
    pub client: usize,
    /// For how long, in milliseconds, if for a while.
    pub for_ms: u64,
}

words! {
    /// Kinds of faults.
    FaultKind {
        /// Nothing passes on a client's streams for a while.
        Hold = "hold",
        /// A client's streams are reset.
        Reset = "reset",
        /// The daemon is killed, and started again.
        KillDaemon = "kill_daemon",
        /// The daemon is told to leave, and started again.
        DrainDaemon = "drain_daemon",
        /// The daemon does not run for a while.
        FreezeDaemon = "freeze_daemon",
        /// The daemon gets no more descriptors for a while.
        Descriptors = "descriptors",
        /// The holder is killed, and every program with it.
        KillHolder = "kill_holder",
        /// The machine starts again: daemon, holder and programs are gone.
        Reboot = "reboot",
        /// Commits fail for a while.
        CommitFails = "commit_fails",
        /// Commits take seconds for a while.
        SlowDisk = "slow_disk",
        /// Deeds take up to twelve seconds for a while.
        SlowHost = "slow_host",
    }
}

/// Most faults of a world.
const FAULTS_MOST: u64 = 12;

impl Plan {
    /// Draws a world.
    pub fn draw(choice: &mut impl Choice) -> Self {
        let chaos_ms = choice.between(1, 20) * 1000;
        let programs: Vec<_> = (0..choice.between(1, 4)).map(|_| program(choice)).collect();
        let clients: Vec<_> =
            (0..choice.between(1, 6)).map(|index| client(choice, index, chaos_ms)).collect();
        let faults = faults(choice, clients.len(), chaos_ms);
        Self {
            network: network(choice),
            programs,
            clients,
            faults,
            chaos_ms,
            host: Host {
                ring: choice.pick(&[65_536, 8192, 262_144]),
                delay_us: choice.pick(&[50, 2000, 100_000]),
                snapshot: choice.pick(&[100, 3000, 100_000, 300_000]),
            },
            kept: choice.pick(&[65_536, 16_384, 1 << 20]),
            small_tables: choice.once_in(5),
        }
    }
}

fn program(choice: &mut impl Choice) -> Program {
    let fails = choice.once_in(8).then(|| {
        choice.pick(&[
            SpawnFailure::Directory,
            SpawnFailure::Program,
            SpawnFailure::Permission,
            SpawnFailure::Terminal,
        ])
    });
    let mut steps: Vec<_> = (0..choice.between(0, 10)).map(|_| step(choice)).collect();
    if choice.once_in(2) {
        let signal = choice.pick(&[6, 11, 15]);
        steps.push(if choice.once_in(3) {
            Step::Raise(signal)
        } else {
            Step::Exit(choice.pick(&[0, 1, 77]))
        });
    }
    Program {
        fails,
        steps,
        echoes: !choice.once_in(3),
        deaf: choice.once_in(6),
        stubborn: choice.once_in(4),
        lingers_ms: choice.pick(&[0, 0, 0, 300, 2000]),
    }
}

fn step(choice: &mut impl Choice) -> Step {
    match choice.below(10) {
        0..=3 => {
            let most = choice.pick(&[20, 400, 3000]);
            Step::Pause(choice.between(0, most))
        }
        4..=6 => {
            let most = choice.pick(&[200, 5000]);
            Step::Write(choice.between(1, most))
        }
        7 => {
            let most = choice.pick(&[100_000, 400_000]);
            Step::Write(choice.between(1, most))
        }
        // Much, to those who read slowly.
        8 if choice.once_in(2) => Step::Write(choice.between(1, 1_500_000)),
        8 => Step::Query,
        _ => Step::Chdir,
    }
}

fn client(choice: &mut impl Choice, index: u64, chaos_ms: u64) -> Client {
    let kind = match choice.below(20) {
        0..=9 => Kind::Control,
        10..=11 => Kind::Stream,
        12..=13 => Kind::Dual,
        14 => Kind::WrongToken,
        15 => Kind::Rude,
        16 => Kind::Garbage,
        17 => Kind::Half,
        18 => Kind::Mute,
        _ => Kind::Old,
    };
    // The first one always does something worth watching.
    let kind = if index == 0 && !matches!(kind, Kind::Dual) { Kind::Control } else { kind };
    let deeds: Vec<Deed> = deeds(choice);
    let count = choice.between(2, 25);
    let acts = (0..count)
        .map(|number| {
            let most = choice.pick(&[0, 20, 300, 2000]);
            // Without a terminal there is nothing to do to one.
            let begins = number == 0 && !matches!(kind, Kind::Stream);
            let deed = if begins {
                choice.pick(&[Deed::Create, Deed::CreateOrAttach])
            } else if number == 1 {
                choice.pick(&[Deed::Attach, Deed::Attach, Deed::Observe])
            } else {
                choice.pick(&deeds)
            };
            Act { after_ms: choice.between(0, most), deed, which: choice.below(4) }
        })
        .collect();
    Client {
        kind,
        // Where output of a dual client goes is a matter of its name.
        name: if choice.once_in(4) && kind != Kind::Dual { 0 } else { index as u8 + 1 },
        starts_ms: choice.between(0, chaos_ms / 3),
        acts,
        reads: if choice.once_in(4) {
            Reading::Slowly(choice.pick(&[4000, 300, 40_000]))
        } else {
            Reading::Freely
        },
        modern: choice.once_in(2),
    }
}

/// Which deeds a client knows, a common one more often (swarm testing).
fn deeds(choice: &mut impl Choice) -> Vec<Deed> {
    let common = [Deed::Input, Deed::Input, Deed::Attach, Deed::List, Deed::Resize, Deed::Observe];
    let mut deeds = common.to_vec();
    deeds.extend(Deed::ALL.iter().copied().filter(|_| choice.once_in(3)));
    deeds
}

fn faults(choice: &mut impl Choice, clients: usize, chaos_ms: u64) -> Vec<Fault> {
    let kinds: Vec<_> = FaultKind::ALL.iter().copied().filter(|_| choice.once_in(3)).collect();
    let count = choice.between(0, FAULTS_MOST);
    if kinds.is_empty() {
        return Vec::new();
    }
    let mut faults: Vec<_> = (0..count)
        .map(|_| {
            let most = choice.pick(&[50, 500, 4000]);
            Fault {
                at_ms: choice.between(0, chaos_ms),
                kind: choice.pick(&kinds),
                client: choice.below(clients as u32) as usize,
                for_ms: choice.between(0, most),
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn network(choice: &mut impl Choice) -> Network {
    let latency_max_us = choice.pick(&[20, 200, 5000, 50_000]);
    Network {
        latency_min_us: choice.between(0, latency_max_us / 2),
        latency_max_us,
        cut: choice.pick(&[0, 0, 50, 4]),
        join: choice.pick(&[0, 0, 20]),
        short_read: choice.pick(&[0, 0, 50, 4]),
        spurious: choice.pick(&[0, 0, 50]),
        buffer: choice.pick(&[65_536, 200_000, 4096]),
        backlog: choice.pick(&[128, 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::{Bytes, Replayed};

    #[test]
    fn the_plainest_plan_has_one_client_and_no_faults() {
        let plan = Plan::draw(&mut Replayed::default());
        assert_eq!((plan.clients.len(), plan.faults.len(), plan.programs.len()), (1, 0, 1));
        assert_eq!((plan.clients[0].kind, plan.programs[0].fails), (Kind::Control, None));
    }

    #[test]
    fn any_bytes_make_a_plan_within_its_limits() {
        for seed in 0..200_u64 {
            let bytes: Vec<u8> = (0..2000).map(|i| (seed.wrapping_mul(i * 31 + 7) >> 3) as u8).collect();
            let plan = Plan::draw(&mut Bytes::new(&bytes));
            assert!((1..=6).contains(&plan.clients.len()) && plan.faults.len() <= FAULTS_MOST as usize);
            assert!(plan.faults.iter().all(|fault| fault.client < plan.clients.len()));
            assert!(plan.faults.is_sorted_by_key(|fault| fault.at_ms));
        }
    }
}
