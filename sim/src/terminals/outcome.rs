//! What a run came to, in numbers that add up over runs.

use std::ops::AddAssign;
use std::time::Duration;

use castra_core::time::Time;

use crate::outcome::Counts;
use crate::violation::Violation;

/// What a run, or many, came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Worlds.
    pub runs: u64,
    /// Calls of the engine's `handle`.
    pub events: u64,
    /// Time that passed in the worlds.
    pub simulated: Duration,
    /// Bytes of output that clients got, all of them held against what was written.
    pub bytes: u64,
    /// Bytes that they were told to be left out.
    pub skipped: u64,
    /// Faults that happened, by kind.
    pub faults: Counts,
    /// What clients did, by kind.
    pub deeds: Counts,
    /// What they were told: replies by kind, errors by code, events by kind.
    pub told: Counts,
    /// What happened to owners.
    pub owners: Counts,
    /// What happened at the host of the terminals.
    pub host: Counts,
    /// Deadlines for which the engine was woken, by obligation.
    pub wakeups: Counts,
    /// Fingerprint of everything that went into engines and came out, in order.
    pub digest: u64,
}

impl AddAssign<&Self> for Outcome {
    fn add_assign(&mut self, other: &Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.simulated += other.simulated;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        let pairs = [
            (&mut self.faults, &other.faults),
            (&mut self.deeds, &other.deeds),
            (&mut self.told, &other.told),
            (&mut self.owners, &other.owners),
            (&mut self.host, &other.host),
            (&mut self.wakeups, &other.wakeups),
        ];
        for (mine, theirs) in pairs {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
        // Order counts within a run, not among runs.
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// What it has in common with worlds of guests, for whoever sums up both.
impl From<Outcome> for crate::Outcome {
    fn from(outcome: Outcome) -> Self {
        let Outcome { runs, events, simulated, faults, deeds, told, wakeups, digest, .. } = outcome;
        Self { runs, events, simulated, faults, acts: deeds, told, wakeups, digest, ..Self::default() }
    }
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The promise.
    pub violation: Violation,
    /// What happened until then.
    pub outcome: Outcome,
}

/// Notes the first broken promise.
#[derive(Debug, Default)]
pub(super) struct Blame(pub(super) Option<Violation>);

impl Blame {
    pub(super) fn put(&mut self, promise: &'static str, at: Time, text: String) {
        self.0.get_or_insert(Violation { promise, at, guest: None, text });
    }
}
