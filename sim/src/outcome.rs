//! What a run came to, in numbers that add up over runs.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

/// Counts by name.
pub type Counts = BTreeMap<&'static str, u64>;

/// What a run, or many, came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Worlds.
    pub runs: u64,
    /// Calls of an engine's `handle`.
    pub events: u64,
    /// Time that passed in the worlds.
    pub simulated: Duration,
    /// Times that a row of the broker was held against the truth.
    pub checks: u64,
    /// Of those, times that it was called reachable.
    pub reachable: u64,
    /// Sessions and one-shot proofs.
    pub sessions: u64,
    /// Faults that happened, by kind.
    pub faults: Counts,
    /// Reasons that were given for a guest that is not reachable.
    pub reasons: Counts,
    /// Refused handshakes, by code.
    pub refusals: Counts,
    /// Ends of sessions, by reason.
    pub ends: Counts,
    /// Deadlines for which an engine was woken, by obligation.
    pub wakeups: Counts,
    /// What clients got, by reply or error code.
    pub replies: Counts,
    /// What was done about peers, by kind.
    pub acts: Counts,
    /// What those who did it were told.
    pub told: Counts,
    /// What happened to messages.
    pub mail: Counts,
    /// What was done about managed attach, and what those who did it were told.
    pub steps: Counts,
    /// What happened to attachments and their actions.
    pub attach: Counts,
    /// Fingerprint of everything that went into engines and came out, in order.
    pub digest: u64,
}

/// Counts one more.
pub(crate) fn count(counts: &mut Counts, name: &'static str) {
    *counts.entry(name).or_default() += 1;
}

impl AddAssign<&Self> for Outcome {
    fn add_assign(&mut self, other: &Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.simulated += other.simulated;
        self.checks += other.checks;
        self.reachable += other.reachable;
        self.sessions += other.sessions;
        let pairs = [
            (&mut self.faults, &other.faults),
            (&mut self.reasons, &other.reasons),
            (&mut self.refusals, &other.refusals),
            (&mut self.ends, &other.ends),
            (&mut self.wakeups, &other.wakeups),
            (&mut self.replies, &other.replies),
            (&mut self.acts, &other.acts),
            (&mut self.told, &other.told),
            (&mut self.mail, &other.mail),
            (&mut self.steps, &other.steps),
            (&mut self.attach, &other.attach),
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
