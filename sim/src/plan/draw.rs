//! Draws plans.

use core::time::Duration;

use super::{Ask, Carrier, Client, Fault, FaultKind, Guest, GuestKind, Network, Plan, Way, act, attach};
use crate::choice::Choice;

/// What a generator may draw from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most guests; at least one is drawn.
    pub guests: usize,
    /// Most commands on the host.
    pub clients: usize,
    /// What clients may ask; what stands here twice is asked twice as often.
    pub asks: Vec<Ask>,
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
    /// Most acts about peers; 0: nobody knows of peers.
    pub acts: usize,
    /// Most steps of managed attach; 0: nobody knows of it.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            guests: 5,
            clients: 12,
            asks: ASKS.to_vec(),
            faults: FaultKind::ALL.to_vec(),
            faults_max: 40,
            times: None,
            network: None,
            chaos: Duration::from_secs(120),
            honest: false,
            tcp_only: false,
            acts: 24,
            steps: 24,
        }
    }
}

/// What clients ask, the plainest first.
const ASKS: [Ask; 17] = [
    Ask::Status,
    Ask::Status,
    Ask::Status,
    Ask::Wait,
    Ask::Wait,
    Ask::Wait,
    Ask::Ping,
    Ask::Ping,
    Ask::Info,
    Ask::Events,
    Ask::TokenIssue,
    Ask::TokenList,
    Ask::TokenRevoke,
    Ask::Forget,
    Ask::Shutdown,
    Ask::Flood,
    Ask::Half,
];

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
        let mut guests: Vec<_> = (0..count).map(|index| guest(choice, limits, index, chaos_ms)).collect();
        let most = if limits.asks.is_empty() { 0 } else { limits.clients };
        let clients = choice.below(bound(most + 1));
        let clients = (0..clients).map(|_| client(choice, limits, count, chaos_ms, window_ms)).collect();
        let faults = faults(choice, limits, count, chaos_ms, window_ms);
        let network = limits.network.clone().unwrap_or_else(|| network(choice));
        let [logs, accept_unproven, only_known, small_tables] = [4, 4, 8, 4].map(|odds| choice.once_in(odds));
        let (couples, acts) = act::draw(choice, &mut guests, limits.acts, (chaos_ms, window_ms));
        let attach = attach::draw(choice, &mut guests, limits.steps, (chaos_ms, window_ms), &network);
        Self {
            window_ms,
            interval_ms,
            network,
            guests,
            clients,
            faults,
            chaos_ms,
            logs,
            accept_unproven,
            only_known,
            small_tables,
            couples,
            acts,
            attach,
        }
    }
}

fn guest(choice: &mut impl Choice, limits: &Limits, index: usize, chaos_ms: u64) -> Guest {
    use GuestKind::{Agent, Drip, Forger, Garbage, Impostor, Legacy, Mute, NeverReads, OneShot};
    // Guest 0 is always an agent: without one there is nothing to be wrong about.
    let kind = if limits.honest || index == 0 {
        Agent
    } else {
        choice.pick(&[
            Agent, Agent, Agent, Agent, OneShot, OneShot, Legacy, Impostor, Forger, Drip, Garbage, Mute,
            NeverReads,
        ])
    };
    let carrier = match kind {
        _ if limits.tcp_only => Carrier::Tcp,
        Agent => choice.pick(&[Carrier::Tcp, Carrier::Tcp, Carrier::Unix, Carrier::Vsock, Carrier::Serial]),
        OneShot | Legacy | Drip | Garbage | Impostor | Mute | NeverReads | Forger => {
            choice.pick(&[Carrier::Tcp, Carrier::Unix])
        }
    };
    let keyed = matches!(kind, Agent) && choice.once_in(3);
    let starts_ms = if choice.once_in(3) { choice.between(0, chaos_ms / 2) } else { 0 };
    Guest { kind, carrier, keyed, starts_ms, core: !choice.once_in(4), inbox: None }
}

fn client(choice: &mut impl Choice, limits: &Limits, guests: usize, chaos_ms: u64, window_ms: u64) -> Client {
    Client {
        at_ms: choice.between(0, chaos_ms),
        asks: choice.pick(&limits.asks),
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

/// Short against the window, about as long, long, or (rarely) longer than any session lingers.
fn duration(choice: &mut impl Choice, window_ms: u64) -> u64 {
    let (short, long) = (window_ms / 8, window_ms * 4);
    let most =
        choice.pick(&[short, short, window_ms, window_ms * 3 / 2, window_ms * 3 / 2, long, window_ms * 25]);
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
            assert!(plan.acts.len() <= 27 && plan.acts.iter().all(|act| act.guest < plan.guests.len()));
            assert!(plan.window_ms >= 3 * plan.interval_ms);
            assert!(plan.faults.iter().all(|fault| fault.guest < plan.guests.len()));
        }
    }
}
