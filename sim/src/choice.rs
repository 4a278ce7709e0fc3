//! The one source of choices.

use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Where a world's choices come from.
pub trait Choice {
    /// A number below `bound`, which is at least 1.
    fn below(&mut self, bound: u32) -> u32;

    /// True once in `odds`.
    fn once_in(&mut self, odds: u32) -> bool {
        self.below(odds) == 0
    }

    /// A duration up to `most`, in microseconds.
    fn span(&mut self, most: Duration) -> Duration {
        let micros = u32::try_from(most.as_micros()).unwrap_or(u32::MAX - 1);
        Duration::from_micros(u64::from(self.below(micros + 1)))
    }
}

/// A seeded generator: the same seed makes the same choices.
#[derive(Clone, Debug)]
pub struct Seeded(ChaCha8Rng);

impl Seeded {
    /// The generator of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }
}

impl Choice for Seeded {
    fn below(&mut self, bound: u32) -> u32 {
        // Multiply-shift (Lemire 2019) without its correction: a bias under 2⁻³² is nothing here.
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }
}
