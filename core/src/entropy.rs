//! Where the core's randomness comes from: the shell, once, as a seed.

use core::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::id::Nonce;

/// The core's only source of choices.
#[derive(Clone, Debug)]
pub struct Entropy(Source);

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one in an engine")]
enum Source {
    Seeded(ChaCha20Rng),
    Chosen { next: u64, fraction: u32 },
}

impl core::fmt::Debug for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The generator's state predicts every future nonce and token.
        f.write_str(match self {
            Self::Seeded(_) => "Seeded",
            Self::Chosen { .. } => "Chosen",
        })
    }
}

impl Entropy {
    /// A ChaCha20 generator: the shell draws `seed` from the operating system.
    #[must_use]
    pub fn seeded(seed: [u8; 32]) -> Self {
        Self(Source::Seeded(ChaCha20Rng::from_seed(seed)))
    }

    /// For exploration and readable tests: nonces are counted from 1 and every
    /// jitter is `fraction` / 2³² of its range.
    #[must_use]
    pub const fn chosen(fraction: u32) -> Self {
        Self(Source::Chosen { next: 1, fraction })
    }

    /// A fresh nonce.
    pub fn nonce(&mut self) -> Nonce {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        Nonce(bytes)
    }

    /// Fills `bytes` with fresh bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        match &mut self.0 {
            Source::Seeded(generator) => generator.fill_bytes(bytes),
            Source::Chosen { next, .. } => {
                bytes.fill(0);
                let number = next.to_be_bytes();
                let take = number.len().min(bytes.len());
                let start = bytes.len() - take;
                bytes[start..].copy_from_slice(&number[8 - take..]);
                *next += 1;
            }
        }
    }

    /// A duration in `[0, bound)`.
    pub fn jitter(&mut self, bound: Duration) -> Duration {
        let fraction = match &mut self.0 {
            Source::Seeded(generator) => generator.next_u32(),
            Source::Chosen { fraction, .. } => *fraction,
        };
        let nanos = (u128::from(crate::time::nanos(bound)) * u128::from(fraction)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
