//! The one generator of worlds: who is there, what they do, and which faults
//! come when. Every runner plays plans; nothing else makes them.
//!
//! A plan is data: it can be written down, shrunk and played again. What stays
//! open (delays, cuts of streams) is chosen while it is played.

use core::time::Duration;

use castra_core::boundary::Transport;
use serde::{Deserialize, Serialize};

use crate::choice::Choice;
pub use crate::fault::{Fault, FaultKind, Scope, Way};

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
    /// Whether the broker's tables are so small that their bounds are met.
    pub small_tables: bool,
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
    /// `castra token list`.
    TokenList,
    /// Many requests at once, and no reading.
    Flood,
    /// Half a request, and no more.
    Half,
}

/// What a generator may draw from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most guests; at least one is drawn.
    pub guests: usize,
    /// Most commands on the host.
    pub clients: usize,
    /// The faults that may come.
    pub faults: Vec<FaultKind>,
    /// Most faults.
    pub faults_max: usize,
    /// The window and the interval; `None`: drawn, too.
    pub times: Option<(Duration, Duration)>,
    /// The network; `None`: drawn, too.
    pub network: Option<Network>,
    /// Longest chaos.
    pub chaos: Duration,
    /// Only castra's own agents.
    pub honest: bool,
    /// Only TCP.
    pub tcp_only: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            guests: 5,
            clients: 12,
            faults: FaultKind::ALL.to_vec(),
            faults_max: 40,
            times: None,
            network: None,
            chaos: Duration::from_secs(120),
            honest: false,
            tcp_only: false,
        }
    }
}

/// Windows and intervals, in milliseconds.
const TIMES: [(u64, u64); 6] =
    [(3000, 1000), (15_000, 5000), (900, 300), (1500, 500), (10_000, 1000), (3000, 50)];

impl Plan {
    /// Draws a plan. Swarm style: which kinds of faults exist in it, and how
    /// often, is drawn first (Groce et al., "Swarm Testing", ISSTA 2012).
    pub fn draw(choice: &mut impl Choice, limits: &Limits) -> Self {
        let (window_ms, interval_ms) = limits
            .times
            .map_or_else(|| choice.pick(&TIMES), |(window, interval)| (millis(window), millis(interval)));
        let chaos_ms = choice.between(1, 6) * millis(limits.chaos) / 6;
        let count = 1 + choice.below(bound(limits.guests)) as usize;
        let guests: Vec<_> = (0..count).map(|index| guest(choice, limits, index, chaos_ms)).collect();
        let clients = choice.below(bound(limits.clients + 1));
        let clients = (0..clients).map(|_| client(choice, count, chaos_ms, window_ms)).collect();
        let faults = faults(choice, limits, count, chaos_ms, window_ms);
        Self {
            window_ms,
            interval_ms,
            network: limits.network.clone().unwrap_or_else(|| network(choice)),
            guests,
            clients,
            faults,
            chaos_ms,
            logs: choice.once_in(4),
            accept_unproven: choice.once_in(4),
            small_tables: choice.once_in(4),
        }
    }

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

fn guest(choice: &mut impl Choice, limits: &Limits, index: usize, chaos_ms: u64) -> Guest {
    use GuestKind::{Agent, Drip, Garbage, Impostor, Legacy, Mute, NeverReads, OneShot};
    // Guest 0 is always an agent: without one there is nothing to be wrong about.
    let kind = if limits.honest || index == 0 {
        Agent
    } else {
        choice.pick(&[Agent, Agent, Agent, OneShot, Legacy, Impostor, Drip, Garbage, Mute, NeverReads])
    };
    let carrier = match kind {
        _ if limits.tcp_only => Carrier::Tcp,
        Agent => choice.pick(&[Carrier::Tcp, Carrier::Tcp, Carrier::Unix, Carrier::Vsock, Carrier::Serial]),
        OneShot | Legacy | Drip | Garbage | Impostor | Mute | NeverReads => {
            choice.pick(&[Carrier::Tcp, Carrier::Unix])
        }
    };
    let keyed = matches!(kind, Agent) && choice.once_in(3);
    let starts_ms = if choice.once_in(3) { choice.between(0, chaos_ms / 2) } else { 0 };
    Guest { kind, carrier, keyed, starts_ms, core: !choice.once_in(4) }
}

fn client(choice: &mut impl Choice, guests: usize, chaos_ms: u64, window_ms: u64) -> Client {
    use Ask::{Events, Flood, Half, Info, Ping, Status, TokenIssue, TokenList, Wait};
    Client {
        at_ms: choice.between(0, chaos_ms),
        asks: choice
            .pick(&[Status, Status, Wait, Wait, Ping, Info, Events, TokenIssue, TokenList, Flood, Half]),
        guest: choice.below(bound(guests)) as usize,
        timeout_ms: choice.between(1, window_ms * 3),
        slow: choice.once_in(5),
    }
}

fn faults(
    choice: &mut impl Choice,
    limits: &Limits,
    guests: usize,
    chaos_ms: u64,
    window_ms: u64,
) -> Vec<Fault> {
    // Weights 0 (does not exist here), 1, 2 or 4.
    let mut kinds = Vec::new();
    for kind in &limits.faults {
        let weight = choice.pick(&[0, 0, 1, 1, 2, 4]);
        kinds.extend(core::iter::repeat_n(*kind, weight));
    }
    let count = choice.below(bound(limits.faults_max + 1));
    if kinds.is_empty() {
        return Vec::new();
    }
    let mut faults: Vec<_> = (0..count)
        .map(|_| Fault {
            at_ms: choice.between(0, chaos_ms),
            kind: choice.pick(&kinds),
            guest: choice.below(bound(guests)) as usize,
            way: choice.pick(&[Way::Both, Way::ToBroker, Way::ToGuest]),
            for_ms: duration(choice, window_ms),
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// Short against the window, about as long, or long.
fn duration(choice: &mut impl Choice, window_ms: u64) -> u64 {
    let most = choice.pick(&[window_ms / 8, window_ms, window_ms * 3 / 2, window_ms * 4]);
    choice.between(0, most)
}

fn network(choice: &mut impl Choice) -> Network {
    let latency_max_us = choice.pick(&[200, 2000, 50_000, 400_000]);
    Network {
        latency_min_us: choice.between(0, latency_max_us / 2),
        latency_max_us,
        cut: choice.pick(&[0, 0, 50, 4]),
        join: choice.pick(&[0, 0, 20]),
        short_read: choice.pick(&[0, 0, 50, 4]),
        spurious: choice.pick(&[0, 0, 50]),
        buffer: choice.pick(&[65_536, 4096, 300]),
        backlog: choice.pick(&[128, 2]),
    }
}

fn bound(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::{Bytes, Replayed, Seeded};

    #[test]
    fn the_plainest_plan_has_one_guest_and_no_faults() {
        let plan = Plan::draw(&mut Replayed::default(), &Limits::default());
        assert_eq!((plan.guests.len(), plan.clients.len(), plan.faults.len()), (1, 0, 0));
        assert_eq!(plan.guests[0].kind, GuestKind::Agent);
    }

    #[test]
    fn a_plan_can_be_written_down() {
        for seed in 0..50 {
            let plan = Plan::draw(&mut Seeded::new(seed), &Limits::default());
            let text = serde_json::to_string(&plan).expect("plain data");
            assert_eq!(serde_json::from_str::<Plan>(&text).expect("what was written"), plan);
        }
    }

    #[test]
    fn any_bytes_make_a_plan_within_its_limits() {
        for seed in 0..200_u64 {
            let bytes: Vec<u8> = (0..300).map(|i| (seed.wrapping_mul(i * 31 + 7) >> 3) as u8).collect();
            let plan = Plan::draw(&mut Bytes::new(&bytes), &Limits::default());
            assert!(plan.guests.len() <= 5 && plan.faults.len() <= 40 && plan.clients.len() <= 12);
            assert!(plan.window_ms >= 3 * plan.interval_ms);
            assert!(plan.faults.iter().all(|fault| fault.guest < plan.guests.len()));
        }
    }
}
