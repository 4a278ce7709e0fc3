//! How long to wait before the next try: full jitter, which the caller draws.
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>

use core::time::Duration;

/// Counts failures in a row. Each wait is to be drawn from `[0, range)`, and the
/// range doubles from `first` to `most`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure: the range of the wait.
    pub(crate) fn next(&mut self, first: Duration, most: Duration) -> Duration {
        let range = self.range(first, most);
        self.failures = self.failures.saturating_add(1);
        range
    }

    /// The range of the next wait.
    pub(crate) fn range(&self, first: Duration, most: Duration) -> Duration {
        first.saturating_mul(2u32.saturating_pow(self.failures)).min(most)
    }

    /// What was tried has worked for long enough.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}
