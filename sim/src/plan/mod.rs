//! The one generator of worlds: who is there, what they do, and which faults
//! come when. Every runner plays plans; nothing else makes them.
//!
//! A plan is data: it can be written down, shrunk and played again. What stays
//! open (delays, cuts of streams) is chosen while it is played.

mod act;
pub mod attach;
mod draw;
mod fault;

use core::time::Duration;

use castra_core::boundary::Transport;
use serde::{Deserialize, Serialize};

pub use act::{Act, By, Deed, Inbox};
pub use draw::Limits;
pub use fault::{Fault, FaultKind, Scope, Way};

/// A world before anything happened in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The broker's window, in milliseconds.
    pub window_ms: u64,
    /// The broker's interval, in milliseconds.
    pub interval_ms: u64,
    /// How the streams behave without any fault.
    pub network: Network,
    /// Who dials the broker. Number `i` is called `guest-i` unless it claims another's name.
    pub guests: Vec<Guest>,
    /// Commands on the host.
    pub clients: Vec<Client>,
    /// What goes wrong, in the order of time.
    pub faults: Vec<Fault>,
    /// How long things go wrong; then the faults end.
    pub chaos_ms: u64,
    /// Whether the broker writes its log files, too.
    pub logs: bool,
    /// Whether the broker believes guests that prove nothing.
    pub accept_unproven: bool,
    /// Whether the broker admits only names that it knows: every other guest's, and keyed ones.
    pub only_known: bool,
    /// Whether the broker's tables are so small that their bounds are met.
    pub small_tables: bool,
    /// Guests that are peers from the start.
    #[serde(default)]
    pub couples: Vec<[usize; 2]>,
    /// What is done about peers, in the order of time.
    #[serde(default)]
    pub acts: Vec<Act>,
    /// Managed attach; `None`: nobody knows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<attach::Attach>,
}

/// How streams behave by themselves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Shortest delay of a segment, in microseconds.
    pub latency_min_us: u64,
    /// Longest, in microseconds.
    pub latency_max_us: u64,
    /// A write is cut into segments once in so many; 0: never.
    pub cut: u32,
    /// A segment waits for the next one once in so many; 0: never.
    pub join: u32,
    /// A read brings less than is there once in so many; 0: never.
    pub short_read: u32,
    /// An edge is told that is none, or late, once in so many; 0: never.
    pub spurious: u32,
    /// Bytes that one direction of a stream holds.
    pub buffer: u32,
    /// Connections that wait to be accepted; more are turned away.
    pub backlog: u32,
}

/// Somebody who dials the broker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// What it is.
    pub kind: GuestKind,
    /// What carries its link.
    pub carrier: Carrier,
    /// Whether it has a token that the broker knows.
    pub keyed: bool,
    /// When it starts, in milliseconds.
    pub starts_ms: u64,
    /// Alive when the faults end: it must become reachable. The others are
    /// then gone for good, and must be waiting.
    pub core: bool,
    /// An agent's inbox; `None`: it has nothing to do with peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<Inbox>,
}

/// What a guest is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestKind {
    /// castra's agent.
    Agent,
    /// A boot script that proves itself once, and again every so often.
    OneShot,
    /// A guest of castra 0.1.
    Legacy,
    /// One byte at a time.
    Drip,
    /// Bytes without sense.
    Garbage,
    /// Connects and says nothing, again and again.
    Mute,
    /// Claims the name of guest 0 without its key, or replays what guest 0 once said.
    Impostor,
    /// Proves itself, and then never reads again.
    NeverReads,
    /// Proves itself, and then answers with wrong proofs or with no frames at all.
    Forger,
}

/// What carries a link in a plan: [`Transport`], in words that can be written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// TCP on the loopback.
    Tcp,
    /// A unix socket.
    Unix,
    /// A VM socket.
    Vsock,
    /// A character device in the guest, a unix socket of the VM's on the host:
    /// the stream survives the guest's reboots.
    Serial,
}

impl Carrier {
    /// The core's word for it.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::Tcp => Transport::Tcp,
            Self::Unix => Transport::Unix,
            Self::Vsock => Transport::Vsock,
            Self::Serial => Transport::Serial,
        }
    }
}

/// A command on the host: connects, asks, and leaves with the answer or without.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Client {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What it asks.
    pub asks: Ask,
    /// Of which guest, if of one.
    pub guest: usize,
    /// How long the broker may take, in milliseconds (`wait`, `ping`).
    pub timeout_ms: u64,
    /// Reads a few bytes at a time, if at all.
    pub slow: bool,
}

/// What a client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// `castra status`.
    Status,
    /// `castra wait`.
    Wait,
    /// `castra ping`.
    Ping,
    /// `castra info`.
    Info,
    /// `castra events`, followed.
    Events,
    /// `castra token issue`.
    TokenIssue,
    /// `castra token revoke`.
    TokenRevoke,
    /// `castra token list`.
    TokenList,
    /// `castra forget`.
    Forget,
    /// `castra down`.
    Shutdown,
    /// Many requests at once, and no reading.
    Flood,
    /// Half a request, and no more.
    Half,
}

impl Plan {
    /// The broker's window.
    #[must_use]
    pub const fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }

    /// The broker's interval.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
}
