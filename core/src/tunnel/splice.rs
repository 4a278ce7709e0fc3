//! Two connections of one process, joined: a client inside the guest and the
//! terminals there. No link lies between, so nothing but room paces them.

use alloc::vec::Vec;

use super::end::End;
use crate::boundary::CloseReason;
use crate::id::ConnId;
use crate::queue::Outbox;
use crate::time::Time;

/// Two joined connections. What one says waits here only if the other has no room,
/// and while it waits the one isn't read from.
#[derive(Clone, Debug)]
pub(crate) struct Splice {
    ends: [Option<End>; 2],
    /// Said all it had to say.
    finished: [bool; 2],
    /// The last bytes must have been taken by then.
    pub(crate) deadline: Option<Time>,
}

impl Splice {
    /// Joins two. `said` is what the first one said before, `finished` whether it will
    /// say more.
    pub(crate) fn new(out: &mut Outbox, first: End, second: End, said: &[u8], finished: bool) -> Self {
        let mut splice = Self { ends: [Some(first), Some(second)], finished: [false; 2], deadline: None };
        splice.give(out, 0, said);
        if finished {
            splice.finish(out, 0);
        }
        splice
    }

    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.side(conn).is_some()
    }

    pub(crate) fn on_bytes(&mut self, out: &mut Outbox, conn: ConnId, bytes: &[u8]) {
        if let Some(from) = self.side(conn) {
            self.give(out, from, bytes);
        }
    }

    pub(crate) fn on_writable(&mut self, out: &mut Outbox, conn: ConnId, room: usize, until: Time) {
        let Some(to) = self.side(conn) else { return };
        let Some(end) = &mut self.ends[to] else { return };
        let taken = end.on_writable(out, room);
        if taken > 0 && self.deadline.is_some() {
            self.deadline = Some(until);
        }
        if let (0, Some(from)) = (end.waiting(), &mut self.ends[1 - to]) {
            from.read(out, true);
        }
    }

    pub(crate) fn on_finished(&mut self, out: &mut Outbox, conn: ConnId, until: Time) {
        if let Some(from) = self.side(conn) {
            self.finish(out, from);
            if self.finished == [true; 2] {
                self.deadline = Some(until);
            }
        }
    }

    /// One is gone: the other still gets what the one said.
    pub(crate) fn on_closed(&mut self, conn: ConnId, until: Time) {
        if let Some(side) = self.side(conn) {
            self.ends[side] = None;
            self.deadline = Some(until);
        }
    }

    /// Whether nothing is left to be said, or nobody to say it.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        let idle = self.ends.iter().flatten().all(|end| end.waiting() == 0);
        let ended = self.finished == [true; 2] || self.ends.iter().any(Option::is_none);
        (idle && ended) || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(crate) fn close(self, out: &mut Outbox, why: CloseReason) {
        for end in self.ends.into_iter().flatten() {
            end.close(out, why);
        }
    }

    fn side(&self, conn: ConnId) -> Option<usize> {
        self.ends.iter().position(|end| end.as_ref().is_some_and(|end| end.conn() == conn))
    }

    fn give(&mut self, out: &mut Outbox, from: usize, bytes: &[u8]) {
        let Some(to) = &mut self.ends[1 - from] else { return };
        to.give(out, bytes);
        if to.waiting() > 0
            && let Some(from) = &mut self.ends[from]
        {
            from.read(out, false);
        }
    }

    fn finish(&mut self, out: &mut Outbox, from: usize) {
        self.finished[from] = true;
        if let Some(to) = &mut self.ends[1 - from] {
            to.finish(out);
        }
    }
}

/// A client whose terminals are being dialled.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) conn: ConnId,
    pub(crate) room: usize,
    pub(crate) id: Option<crate::id::RequestId>,
    /// What it said meanwhile.
    pub(crate) said: Vec<u8>,
    pub(crate) finished: bool,
    pub(crate) deadline: Time,
}
