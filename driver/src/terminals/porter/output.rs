//! A terminal's output on its way from the ring to whoever asked, and to the screen
//! model; and what is stored and let go behind it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use castra_core::terminals::Snapshot;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::Link;
use super::memory;
use super::model::Model;
use crate::terminals::holder::ring::View;
use crate::terminals::holder::wire::Request;

/// Most bytes brought at once.
const CHUNK: usize = 64 * 1024;

pub(super) struct Output {
    terminal: u32,
    view: View,
    counter: OwnedFd,
    ring: u64,
    /// The next byte to bring.
    next: u64,
    /// Where what is known to be there ends.
    counted: u64,
    /// What the holder was last told to keep.
    floor: u64,
    /// Where the newest stored snapshot ends.
    stored: u64,
    model: Option<Box<dyn Model>>,
    /// The model has seen what comes before this.
    seen: u64,
    stored_history: u32,
    scratch: Vec<u8>,
}

/// Where output stands at first.
pub(super) struct Start {
    pub(super) first: u64,
    pub(super) end: u64,
    /// See [`Output::seen`]; at least `first`.
    pub(super) seen: u64,
}

impl Output {
    pub(super) fn new(
        terminal: u32,
        (view, counter): (View, OwnedFd),
        ring: u64,
        start: &Start,
        model: Option<Box<dyn Model>>,
        stored_history: u32,
    ) -> Self {
        Self {
            terminal,
            view,
            counter,
            ring,
            next: start.first,
            counted: start.end,
            floor: start.first,
            stored: start.seen,
            model,
            seen: start.seen,
            stored_history,
            scratch: Vec::new(),
        }
    }

    /// Readable when there is more; `None` while some is known to be there.
    pub(super) fn counter(&self) -> Option<BorrowedFd<'_>> {
        (self.next == self.counted).then(|| self.counter.as_fd())
    }

    /// Learns how much more there is; blocks unless the counter is readable.
    pub(super) fn count(&mut self) {
        let mut count = [0; 8];
        if rustix::io::read(&self.counter, &mut count) == Ok(8) {
            self.counted += u64::from_ne_bytes(count);
        }
    }

    /// Learns what there is without waiting, when nothing more will come.
    pub(super) fn count_last(&mut self) {
        let mut fds = [PollFd::new(&self.counter, PollFlags::IN)];
        if matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1)) {
            self.count();
        }
    }

    /// Nothing more can be brought.
    pub(super) const fn give_up(&mut self) {
        self.counted = self.next;
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) const fn has_more(&self) -> bool {
        self.next < self.counted
    }

    /// Whether the model has seen exactly what was brought.
    pub(super) const fn is_level(&self) -> bool {
        self.seen <= self.next
    }

    /// The next bytes, at most `most`, and where they begin.
    ///
    /// # Errors
    /// The ring can't be read.
    pub(super) fn bring(&mut self, most: usize) -> io::Result<(u64, Vec<u8>)> {
        let there = usize::try_from(self.counted - self.next).unwrap_or(usize::MAX);
        let count = most.clamp(1, CHUNK).min(there);
        self.scratch.resize(count, 0);
        self.view.read(self.next, &mut self.scratch)?;
        let offset = self.next;
        self.next += count as u64;
        Ok((offset, self.scratch.clone()))
    }

    /// Shows the model what was just brought; what it answers to that.
    pub(super) fn feed(&mut self) -> Vec<u8> {
        let Some(model) = &mut self.model else {
            self.seen = self.seen.max(self.next);
            return Vec::new();
        };
        let from = self.next - self.scratch.len() as u64;
        let known = usize::try_from(self.seen.saturating_sub(from)).unwrap_or(usize::MAX);
        if let Some(news) = self.scratch.get(known..).filter(|news| !news.is_empty()) {
            model.feed(news);
            self.seen = self.next;
        }
        model.take_replies()
    }

    /// Stores what the screen shows at every quarter of the ring, and lets go what the
    /// next daemon needs no more. Half of the ring stays behind that, for clients that
    /// have not received it yet: more than an owner lags that brakes its program, and
    /// the buffers on the way to it.
    pub(super) fn let_go(&mut self, link: &Link) -> io::Result<()> {
        if self.model.is_none() {
            self.stored = self.next;
        } else if self.is_level() && self.next - self.stored >= self.ring / 4 {
            self.store(link)?;
        }
        let floor = self.stored.min(self.next).saturating_sub(self.ring / 2);
        if floor >= self.floor + self.ring / 8 {
            link.send(&Request::Floor { terminal: self.terminal, offset: floor }, Vec::new())?;
            self.floor = floor;
        }
        Ok(())
    }

    fn store(&mut self, link: &Link) -> io::Result<()> {
        let Some(snapshot) = self.snapshot(self.stored_history) else { return Ok(()) };
        let (terminal, offset) = (self.terminal, snapshot.offset);
        link.send(&Request::Snapshot { terminal, offset }, vec![memory::write(&snapshot)?])?;
        self.stored = offset;
        Ok(())
    }

    /// What the screen shows; `None` without a model.
    pub(super) fn snapshot(&mut self, history_lines: u32) -> Option<Snapshot> {
        let model = self.model.as_mut()?;
        let snapshot = model.snapshot(history_lines);
        // What isn't whole yet is not in it: output from its offset on brings that again.
        let offset = self.seen.saturating_sub(model.unsettled() as u64);
        Some(Snapshot { offset, ..snapshot })
    }

    pub(super) fn resize(&mut self, cols: u16, rows: u16) {
        if let Some(model) = &mut self.model {
            model.resize(cols, rows);
        }
    }

    pub(super) fn clear_scrollback(&mut self) {
        if let Some(model) = &mut self.model {
            model.clear_scrollback();
        }
    }
}
