//! The daemon's side of a terminal: what it was told so far, and what waits.

use castra_core::time::Time;
use castra_driver::work::JobId;

/// What one life of the daemon has of a terminal.
#[derive(Debug)]
pub(super) struct Porter {
    /// Held, and not yet adopted.
    pub(super) aside: bool,
    /// What it told of the output.
    pub(super) next: u64,
    /// The screen model has seen what comes before this.
    pub(super) seen: u64,
    /// Where the newest stored snapshot ends.
    pub(super) stored: u64,
    pub(super) grant: Option<usize>,
    /// Snapshots that wait until the output has caught up with the model.
    pub(super) snapshots: Vec<(JobId, u32)>,
    /// Whether the end was told.
    pub(super) told: bool,
    /// The last deed is done then.
    pub(super) deeds_until: Time,
    /// The last news are told then.
    pub(super) news_until: Time,
}

impl Porter {
    pub(super) fn new(next: u64, seen: u64, aside: bool) -> Self {
        Self {
            aside,
            next,
            seen,
            stored: seen,
            grant: None,
            snapshots: Vec::new(),
            told: false,
            deeds_until: Time::ZERO,
            news_until: Time::ZERO,
        }
    }

    /// Whether the model has seen exactly what was told.
    pub(super) const fn is_level(&self) -> bool {
        self.seen <= self.next
    }

    /// What the next daemon needs no more, if that is worth a word: a snapshot is
    /// stored every half ring, and a quarter stays behind it.
    pub(super) fn let_go(&mut self, ring: u64, floor: u64) -> Option<u64> {
        if self.is_level() && self.next - self.stored >= ring / 2 {
            self.stored = self.next;
        }
        let new = self.stored.min(self.next).saturating_sub(ring / 4);
        (new >= floor + ring / 8).then_some(new)
    }
}
