//! A broken promise.

use std::fmt;

use castra_core::time::Time;

/// The names of all promises that a world is held to.
pub const PROMISES: [&str; 23] = [
    "S1",
    "S2",
    "S3",
    "S4",
    "S5",
    "S6",
    "L1",
    "L2",
    "L3",
    "L4",
    "L5",
    "P1",
    "P2",
    "P3",
    "A1",
    "A2",
    "A3",
    "A4",
    "A5",
    "rule 1",
    "rule 4",
    "4.1",
    crate::play::NO_PANIC,
];

/// A promise of the design that a run broke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The promise's name in the design: `S1`.
    pub promise: &'static str,
    /// When, from the start of the world.
    pub at: Time,
    /// Which guest it concerns, by its number in the plan.
    pub guest: Option<usize>,
    /// In words.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_nanos();
        write!(
            f,
            "{} broken at {}.{:06} s: {}",
            self.promise,
            at / 1_000_000_000,
            at / 1000 % 1_000_000,
            self.text
        )
    }
}
