//! Where a program is now. Looked at after output, at most once a second.

use std::time::{Duration, Instant};

use crate::terminals::holder::Stat;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Directory {
    pid: u32,
    start_time: u64,
    known: Option<String>,
    looked: Option<Instant>,
    due: Option<Instant>,
}

impl Directory {
    pub(super) const fn new(pid: u32, start_time: u64) -> Self {
        Self { pid, start_time, known: None, looked: None, due: None }
    }

    /// The program wrote something: it may have moved.
    pub(super) fn on_output(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = Some(self.looked.map_or(now, |looked| now.max(looked + PAUSE)));
        }
    }

    /// When to look next, if at all.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Where it was last seen.
    pub(super) fn known(&self) -> Option<&str> {
        self.known.as_deref()
    }

    /// Looks, if it is time: where it is, if that is new.
    pub(super) fn look(&mut self, now: Instant) -> Option<String> {
        self.due.filter(|due| *due <= now)?;
        (self.due, self.looked) = (None, Some(now));
        let path = std::fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()?;
        // Another process may have its number by now.
        if Stat::of(self.pid.cast_signed())?.start_time != self.start_time || !path.exists() {
            return None;
        }
        let path = path.to_str()?.to_owned();
        if self.known.as_ref() == Some(&path) {
            return None;
        }
        self.known = Some(path.clone());
        Some(path)
    }

    /// It ended.
    pub(super) const fn stop(&mut self) {
        self.due = None;
    }
}
