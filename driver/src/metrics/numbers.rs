//! What is counted as it happens. Every label has a fixed set of values.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use castra_core::event::{Event, Fact, Failure, SessionEnd, Storage};
use castra_core::peers::Expiry;
use castra_core::status::{Reason, State};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Labels, by name.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counts<const N: usize> = Family<Labels<N>, Counter>;
type Histograms = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// Of a turn of the loop, and of its lateness: 100 µs to 10 s.
const LOOP: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0];
/// Of a handshake: two round trips.
const HANDSHAKE: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0];
/// Of what a worker does.
const EFFECT: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
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

const STORES: [Storage; 3] = [Storage::Database, Storage::Records, Storage::Log];
const PROOFS: [&str; 3] = ["keyed", "echoed", "none"];
const STALLS: [&str; 2] = ["stalled", "clock_jumped"];
const EXPIRIES: [&str; 6] = ["ttl", "unlinked", "policy", "forgotten", "not_queued", "refused"];

/// The jobs that a broker has for its workers.
pub(super) const JOBS: [&str; 6] = ["persist", "write_record", "remove_record", "append", "reopen", "start"];
pub(super) const OUTCOMES: [&str; 2] = ["ok", "error"];

/// All of them; a clone counts into the same.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    begun: Counter,
    completed: Counts<1>,
    failed: Counts<1>,
    handshakes: Histogram,
    ended: Counts<1>,
    sessions: Histogram,
    verdicts: Counts<3>,
    conflicts: Counter,
    stalls: Counts<1>,
    stalled: Family<Labels<1>, Counter<f64, AtomicU64>>,
    storage_failures: Counts<1>,
    storage_failing: Family<Labels<1>, Gauge>,
    sent: Counter,
    delivered: Counter,
    expired: Counts<1>,
    events: Counts<1>,
    turns: Histogram,
    lags: Histogram,
    pub(super) effects: Counts<2>,
    pub(super) effect_times: Histograms,
    pub(super) in_flight: Family<Labels<1>, Gauge>,
}

impl Numbers {
    /// All at zero. What may happen has its series from the start, so that a first
    /// refusal is a rise from 0 and not a series out of nowhere.
    pub(crate) fn new() -> Self {
        let effect_times: fn() -> Histogram = || Histogram::new(EFFECT);
        let numbers = Self {
            begun: Counter::default(),
            completed: Family::default(),
            failed: Family::default(),
            handshakes: Histogram::new(HANDSHAKE),
            ended: Family::default(),
            sessions: Histogram::new(SESSION),
            verdicts: Family::default(),
            conflicts: Counter::default(),
            stalls: Family::default(),
            stalled: Family::default(),
            storage_failures: Family::default(),
            storage_failing: Family::default(),
            sent: Counter::default(),
            delivered: Counter::default(),
            expired: Family::default(),
            events: Family::default(),
            turns: Histogram::new(LOOP),
            lags: Histogram::new(LOOP),
            effects: Family::default(),
            effect_times: Family::new_with_constructor(effect_times),
            in_flight: Family::default(),
        };
        PROOFS.iter().for_each(|word| drop(numbers.completed.get_or_create(&[("proof", word)])));
        FAILURES.iter().for_each(|code| drop(numbers.failed.get_or_create(&[("code", code.as_str())])));
        ENDS.iter().for_each(|end| drop(numbers.ended.get_or_create(&[("reason", end.as_str())])));
        EXPIRIES.iter().for_each(|why| drop(numbers.expired.get_or_create(&[("reason", why)])));
        for cause in STALLS {
            drop(numbers.stalls.get_or_create(&[("cause", cause)]));
            drop(numbers.stalled.get_or_create(&[("cause", cause)]));
        }
        for what in STORES {
            drop(numbers.storage_failures.get_or_create(&[("what", what.as_str())]));
            drop(numbers.storage_failing.get_or_create(&[("what", what.as_str())]));
        }
        for job in JOBS {
            drop(numbers.effect_times.get_or_create(&[("kind", job)]));
            drop(numbers.in_flight.get_or_create(&[("kind", job)]));
            OUTCOMES.iter().for_each(|outcome| {
                drop(numbers.effects.get_or_create(&[("kind", job), ("outcome", outcome)]));
            });
        }
        let reachable = State::Reachable;
        drop(numbers.verdicts.get_or_create(&change(State::Waiting, reachable, None)));
        for reason in REASONS {
            drop(numbers.verdicts.get_or_create(&change(reachable, State::Waiting, Some(reason))));
        }
        numbers
    }

    /// An event of the engine.
    pub(super) fn event(&self, event: &Event) {
        self.events.get_or_create(&[("kind", event.fact.kind())]).inc();
        match &event.fact {
            Fact::HandshakeStart { .. } => {
                self.begun.inc();
            }
            Fact::HandshakeSuccess { proven, authenticated, .. } => {
                let proof = match (proven, authenticated) {
                    (true, true) => "keyed",
                    (true, false) => "echoed",
                    (false, _) => "none",
                };
                self.completed.get_or_create(&[("proof", proof)]).inc();
            }
            Fact::HandshakeFailure { reason, .. } => {
                self.failed.get_or_create(&[("code", reason.as_str())]).inc();
            }
            Fact::SessionClosed { reason, lasted_ms, .. } => {
                self.ended.get_or_create(&[("reason", reason.as_str())]).inc();
                self.sessions.observe(seconds(*lasted_ms));
            }
            Fact::VerdictChanged { from, to, reason, .. } => {
                self.verdicts.get_or_create(&change(*from, *to, *reason)).inc();
            }
            Fact::NameConflict { .. } => {
                self.conflicts.inc();
            }
            Fact::BrokerStalled { late_ms } => self.stall("stalled", *late_ms),
            Fact::ClockJumped { late_ms, .. } => self.stall("clock_jumped", *late_ms),
            Fact::StorageFailed { what, .. } => self.storage(*what, false),
            Fact::StorageRecovered { what } => self.storage(*what, true),
            Fact::MessageSent { .. } => {
                self.sent.inc();
            }
            Fact::MessageDelivered { .. } => {
                self.delivered.inc();
            }
            Fact::MessageExpired { reason, .. } => {
                let reason = reason.map_or("refused", Expiry::as_str);
                self.expired.get_or_create(&[("reason", reason)]).inc();
            }
            _ => {}
        }
    }

    /// From a hello to the `ok`.
    pub(super) fn handshake(&self, took: Duration) {
        self.handshakes.observe(took.as_secs_f64());
    }

    /// A turn of the loop; `late`: its deadline was over for so long when it began.
    pub(super) fn turn(&self, took: Duration, late: Option<Duration>) {
        self.turns.observe(took.as_secs_f64());
        if let Some(late) = late {
            self.lags.observe(late.as_secs_f64());
        }
    }

    /// Something could not be written, or can be again.
    pub(super) fn storage(&self, what: Storage, works: bool) {
        let labels = [("what", what.as_str())];
        self.storage_failing.get_or_create(&labels).set(i64::from(!works));
        if !works {
            self.storage_failures.get_or_create(&labels).inc();
        }
    }

    #[cfg(test)]
    pub(super) fn is_failing(&self, what: Storage) -> bool {
        self.storage_failing.get_or_create(&[("what", what.as_str())]).get() == 1
    }

    fn stall(&self, cause: &'static str, late_ms: u64) {
        self.stalls.get_or_create(&[("cause", cause)]).inc();
        self.stalled.get_or_create(&[("cause", cause)]).inc_by(seconds(late_ms));
    }

    /// Puts all of them under their names.
    pub(super) fn register(self, to: &mut Registry) {
        to.register("castra_handshakes_begun", "Valid hellos", self.begun);
        to.register("castra_handshakes_completed", "Handshakes that succeeded, by proof", self.completed);
        to.register("castra_handshakes_failed", "Handshakes that came to nothing, by code", self.failed);
        let help = "From a guest's hello to its ok";
        to.register_with_unit("castra_handshake", help, Unit::Seconds, self.handshakes);
        to.register("castra_sessions_ended", "Sessions that ended, by reason", self.ended);
        let help = "How long sessions lasted that ended";
        to.register_with_unit("castra_session", help, Unit::Seconds, self.sessions);
        to.register("castra_verdict_changes", "Changes of a guest's verdict", self.verdicts);
        to.register("castra_name_conflicts", "Connections that claimed a name in use", self.conflicts);
        to.register("castra_stalls", "Times the broker itself was not running, by cause", self.stalls);
        let help = "How long the broker itself was not running, by cause";
        to.register_with_unit("castra_stalled", help, Unit::Seconds, self.stalled);
        let help = "Failures to write, by what could not be written";
        to.register("castra_storage_failures", help, self.storage_failures);
        let help = "Whether the newest attempt to write failed, by what was to be written";
        to.register("castra_storage_failing", help, self.storage_failing);
        to.register("castra_messages_sent", "Messages between peers that were taken", self.sent);
        to.register("castra_messages_delivered", "Messages that are in their inbox", self.delivered);
        let help = "Messages that will not be delivered, by reason";
        to.register("castra_messages_expired", help, self.expired);
        to.register("castra_events", "Events, by kind", self.events);
        let help = "How long the loop was busy between two waits";
        to.register_with_unit("castra_loop_turn", help, Unit::Seconds, self.turns);
        let help = "How late a turn began that had a deadline";
        to.register_with_unit("castra_loop_lag", help, Unit::Seconds, self.lags);
        to.register("castra_effects", "Jobs of worker threads that ended", self.effects);
        let help = "From a job's order to its end, by kind";
        to.register_with_unit("castra_effect", help, Unit::Seconds, self.effect_times);
        let help = "Jobs of worker threads that wait or are being done, by kind";
        to.register("castra_effects_in_flight", help, self.in_flight);
    }
}

/// The labels of a change; a reachable guest has no reason.
fn change(from: State, to: State, reason: Option<Reason>) -> Labels<3> {
    [("from", from.as_str()), ("to", to.as_str()), ("reason", reason.map_or("", Reason::as_str))]
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::peers::MessageId;
    use castra_core::time::WallTime;
    use prometheus_client::encoding::text::encode;

    fn text(numbers: &Numbers) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        numbers.clone().register(&mut registry);
        encode(&mut text, &registry).expect("a text takes it");
        text
    }

    #[test]
    fn what_goes_wrong_is_counted_and_what_is_mended_is_failing_no_more() {
        let numbers = Numbers::new();
        let say = |fact| {
            let cursor = "1-1".parse().expect("a cursor");
            numbers.event(&Event { cursor, at: WallTime::from_unix_millis(0), guest: None, fact });
        };
        let what = Storage::Database;
        say(Fact::StorageFailed { what, message: "no space left".to_owned() });
        say(Fact::ClockJumped { late_ms: 2500, suspended_ms: 2400 });
        let (id, to) = (MessageId([0; 16]), "b".parse().expect("a name"));
        say(Fact::MessageExpired { id, to, reason: None });
        let after = text(&numbers);
        for line in [
            "castra_storage_failing{what=\"database\"} 1",
            "castra_storage_failing{what=\"log\"} 0",
            "castra_storage_failures_total{what=\"database\"} 1",
            "castra_stalls_total{cause=\"clock_jumped\"} 1",
            "castra_stalls_total{cause=\"stalled\"} 0",
            "castra_stalled_seconds_total{cause=\"clock_jumped\"} 2.5",
            "castra_messages_expired_total{reason=\"refused\"} 1",
            "castra_events_total{kind=\"storage.failed\"} 1",
        ] {
            assert!(after.lines().any(|found| found == line), "no {line} in {after}");
        }
        say(Fact::StorageRecovered { what });
        let after = text(&numbers);
        assert!(after.contains("castra_storage_failing{what=\"database\"} 0\n"), "{after}");
        assert!(after.contains("castra_storage_failures_total{what=\"database\"} 1\n"), "{after}");
    }
}
