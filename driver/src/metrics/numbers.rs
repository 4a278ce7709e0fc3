//! What is counted as it happens. Every label has a fixed set of values.

use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::event::{Event, Fact, Failure, SessionEnd, Storage};
use castra_core::peers::Expiry;
use castra_core::status::{Reason, State};

/// Labels, by name.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Counts, by their labels. Only the loop's thread counts, so there is no lock that it
/// could wait for; a snapshot has a copy.
#[derive(Clone, Debug)]
pub(super) struct Counts<const N: usize>(pub(super) BTreeMap<Labels<N>, u64>);

impl<const N: usize> Counts<N> {
    /// All at zero.
    pub(super) fn of(labels: impl IntoIterator<Item = Labels<N>>) -> Self {
        Self(labels.into_iter().map(|labels| (labels, 0)).collect())
    }

    pub(super) fn add(&mut self, labels: Labels<N>) {
        *self.0.entry(labels).or_default() += 1;
    }

    #[cfg(test)]
    pub(super) fn get(&self, labels: Labels<N>) -> u64 {
        self.0.get(&labels).copied().unwrap_or(0)
    }
}

/// How many values were at most each of some bounds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// For each bound those above the one before, and at the end those above all.
    counts: Vec<u64>,
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(super) fn observe(&mut self, took: Duration) {
        let value = took.as_secs_f64();
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bound with what is counted for it alone.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied()).collect()
    }
}

/// Of a turn of the loop, and of its lateness: 100 µs to 10 s.
const LOOP: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];
/// Of a handshake: two round trips.
const HANDSHAKE: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0];
/// Of what a worker does.
pub(super) const EFFECT: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Of a session: seconds to a week.
const SESSION: [f64; 10] = [1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0, 604_800.0];

/// Reasons for which a broker calls a guest waiting.
pub(super) const REASONS: [Reason; 11] = [
    Reason::NeverSeen,
    Reason::Handshaking,
    Reason::Stale,
    Reason::Disconnected,
    Reason::Goodbye,
    Reason::Refused,
    Reason::Unproven,
    Reason::BrokerStarted,
    Reason::BrokerStalled,
    Reason::ClockJumped,
    Reason::NameConflict,
];

const FAILURES: [Failure; 11] = [
    Failure::BadLine,
    Failure::BadName,
    Failure::UnknownName,
    Failure::TokenRequired,
    Failure::BadProof,
    Failure::NameInUse,
    Failure::Busy,
    Failure::Timeout,
    Failure::Disconnected,
    Failure::Evicted,
    Failure::Shutdown,
];

const ENDS: [SessionEnd; 14] = [
    SessionEnd::Goodbye,
    SessionEnd::Disconnected,
    SessionEnd::Superseded,
    SessionEnd::Strikes,
    SessionEnd::BadMac,
    SessionEnd::BadFrame,
    SessionEnd::Stale,
    SessionEnd::Slow,
    SessionEnd::TokenChanged,
    SessionEnd::Forgotten,
    SessionEnd::HeartbeatTimeout,
    SessionEnd::Shutdown,
    SessionEnd::Replaced,
    SessionEnd::Resynchronised,
];

const PROOFS: [&str; 3] = ["keyed", "echoed", "none"];
const STALLS: [&str; 2] = ["stalled", "clock_jumped"];
const EXPIRIES: [&str; 6] = ["ttl", "unlinked", "policy", "forgotten", "not_queued", "refused"];

/// The jobs that a broker has for its workers.
pub(super) const JOBS: [&str; 6] = ["persist", "write_record", "remove_record", "append", "reopen", "start"];
pub(super) const OUTCOMES: [&str; 2] = ["ok", "error"];

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(super) begun: u64,
    pub(super) completed: Counts<1>,
    pub(super) failed: Counts<1>,
    pub(super) handshakes: Histogram,
    pub(super) ended: Counts<1>,
    pub(super) sessions: Histogram,
    pub(super) verdicts: Counts<3>,
    pub(super) conflicts: u64,
    pub(super) stalls: Counts<1>,
    /// In milliseconds.
    pub(super) stalled: BTreeMap<Labels<1>, u64>,
    pub(super) storage: Stores,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) expired: Counts<1>,
    pub(super) events: Counts<1>,
    pub(super) turns: Histogram,
    pub(super) lags: Histogram,
}

/// What could not be written.
#[derive(Clone, Debug)]
pub(super) struct Stores {
    pub(super) failures: Counts<1>,
    /// The newest attempt failed.
    pub(super) failing: BTreeMap<Labels<1>, bool>,
}

impl Stores {
    pub(super) fn of(stores: &[Storage]) -> Self {
        let labels = || stores.iter().map(|what| [("what", what.as_str())]);
        Self { failures: Counts::of(labels()), failing: labels().map(|labels| (labels, false)).collect() }
    }

    /// Something could not be written, or can be again.
    pub(super) fn note(&mut self, what: Storage, works: bool) {
        let labels = [("what", what.as_str())];
        self.failing.insert(labels, !works);
        if !works {
            self.failures.add(labels);
        }
    }
}

impl Numbers {
    /// All at zero. What may happen has its series from the start, so that a first
    /// refusal is a rise from 0 and not a series out of nowhere.
    pub(crate) fn new() -> Self {
        let lost = REASONS.map(|reason| change(State::Reachable, State::Waiting, Some(reason)));
        let found = change(State::Waiting, State::Reachable, None);
        Self {
            begun: 0,
            completed: Counts::of(PROOFS.map(|word| [("proof", word)])),
            failed: Counts::of(FAILURES.map(|code| [("code", code.as_str())])),
            handshakes: Histogram::new(&HANDSHAKE),
            ended: Counts::of(ENDS.map(|end| [("reason", end.as_str())])),
            sessions: Histogram::new(&SESSION),
            verdicts: Counts::of(lost.into_iter().chain([found])),
            conflicts: 0,
            stalls: Counts::of(STALLS.map(|cause| [("cause", cause)])),
            stalled: STALLS.map(|cause| ([("cause", cause)], 0)).into(),
            storage: Stores::of(&[Storage::Database, Storage::Records]),
            sent: 0,
            delivered: 0,
            expired: Counts::of(EXPIRIES.map(|why| [("reason", why)])),
            events: Counts::of([]),
            turns: Histogram::new(&LOOP),
            lags: Histogram::new(&LOOP),
        }
    }

    /// An event of the engine.
    pub(super) fn event(&mut self, event: &Event) {
        self.events.add([("kind", event.fact.kind())]);
        match &event.fact {
            Fact::HandshakeStart { .. } => {
                self.begun += 1;
            }
            Fact::HandshakeSuccess { proven, authenticated, .. } => {
                let proof = match (proven, authenticated) {
                    (true, true) => "keyed",
                    (true, false) => "echoed",
                    (false, _) => "none",
                };
                self.completed.add([("proof", proof)]);
            }
            Fact::HandshakeFailure { reason, .. } => {
                self.failed.add([("code", reason.as_str())]);
            }
            Fact::SessionClosed { reason, lasted_ms, .. } => {
                self.ended.add([("reason", reason.as_str())]);
                self.sessions.observe(Duration::from_millis(*lasted_ms));
            }
            Fact::VerdictChanged { from, to, reason, .. } => {
                self.verdicts.add(change(*from, *to, *reason));
            }
            Fact::NameConflict { .. } => {
                self.conflicts += 1;
            }
            Fact::BrokerStalled { late_ms } => self.stall("stalled", *late_ms),
            Fact::ClockJumped { late_ms, .. } => self.stall("clock_jumped", *late_ms),
            Fact::StorageFailed { what, .. } => self.storage.note(*what, false),
            Fact::StorageRecovered { what } => self.storage.note(*what, true),
            Fact::MessageSent { .. } => {
                self.sent += 1;
            }
            Fact::MessageDelivered { .. } => {
                self.delivered += 1;
            }
            Fact::MessageExpired { reason, .. } => {
                let reason = reason.map_or("refused", Expiry::as_str);
                self.expired.add([("reason", reason)]);
            }
            _ => {}
        }
    }

    /// From a hello to the `ok`.
    pub(super) fn handshake(&mut self, took: Duration) {
        self.handshakes.observe(took);
    }

    /// A turn of the loop; `late`: its deadline was over for so long when it began.
    pub(super) fn turn(&mut self, took: Duration, late: Option<Duration>) {
        self.turns.observe(took);
        if let Some(late) = late {
            self.lags.observe(late);
        }
    }

    fn stall(&mut self, cause: &'static str, late_ms: u64) {
        self.stalls.add([("cause", cause)]);
        *self.stalled.entry([("cause", cause)]).or_default() += late_ms;
    }
}

/// The labels of a change; a reachable guest has no reason.
fn change(from: State, to: State, reason: Option<Reason>) -> Labels<3> {
    [("from", from.as_str()), ("to", to.as_str()), ("reason", reason.map_or("", Reason::as_str))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::peers::MessageId;
    use castra_core::time::WallTime;

    #[test]
    fn what_goes_wrong_is_counted_and_what_is_mended_is_failing_no_more() {
        let mut numbers = Numbers::new();
        let mut say = |fact| {
            let cursor = "1-1".parse().expect("a cursor");
            numbers.event(&Event { cursor, at: WallTime::from_unix_millis(0), guest: None, fact });
            numbers.clone()
        };
        let what = Storage::Database;
        let database = [("what", "database")];
        let after = say(Fact::StorageFailed { what, message: "no space left".to_owned() });
        assert_eq!((after.storage.failing[&database], after.storage.failures.get(database)), (true, 1));
        assert!(!after.storage.failing[&[("what", "records")]]);
        assert_eq!(after.events.get([("kind", "storage.failed")]), 1);
        let after = say(Fact::StorageRecovered { what });
        assert_eq!((after.storage.failing[&database], after.storage.failures.get(database)), (false, 1));

        let after = say(Fact::ClockJumped { late_ms: 2500, suspended_ms: 2400 });
        let causes = [[("cause", "clock_jumped")], [("cause", "stalled")]];
        assert_eq!(causes.map(|cause| after.stalls.get(cause)), [1, 0]);
        assert_eq!(causes.map(|cause| after.stalled[&cause]), [2500, 0]);
        let (id, to) = (MessageId([0; 16]), "b".parse().expect("a name"));
        let after = say(Fact::MessageExpired { id, to, reason: None });
        assert_eq!(after.expired.get([("reason", "refused")]), 1);
    }

    #[test]
    fn a_value_is_counted_for_the_first_bound_that_it_does_not_exceed() {
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        [250, 500, 750, 1000, 5000].into_iter().for_each(|it| histogram.observe(Duration::from_millis(it)));
        assert_eq!(histogram.buckets(), [(0.5, 2), (1.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((histogram.count(), histogram.sum), (5, 7.5));
    }
}
