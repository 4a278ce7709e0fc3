//! How long to wait before the next try: full jitter.
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>

use core::time::Duration;

use crate::entropy::Entropy;

/// Counts failures in a row. Each wait is drawn from `[0, range)`, and the range
/// doubles from `first` to `most`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure: how long to wait.
    pub(crate) fn next(&mut self, first: Duration, most: Duration, entropy: &mut Entropy) -> Duration {
        let range = first.saturating_mul(2u32.saturating_pow(self.failures)).min(most);
        self.failures = self.failures.saturating_add(1);
        entropy.jitter(range)
    }

    /// What was tried has worked for long enough.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}
