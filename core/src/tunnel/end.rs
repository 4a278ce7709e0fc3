//! The local connection at the end of a stream.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::boundary::{CloseReason, Source};
use crate::id::ConnId;
use crate::queue::Outbox;
use crate::sender::READ_CREDIT;

/// A connection, what waits for room in its send buffer, and whether it is read from.
#[derive(Clone, Debug)]
pub(crate) struct End {
    conn: ConnId,
    room: usize,
    waiting: VecDeque<u8>,
    reading: bool,
    finish: Finish,
}

/// Whether it is told that nothing more will come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finish {
    No,
    /// Once everything that waits is said.
    Wanted,
    Told,
}

impl End {
    /// A connection that is read from, with so much room.
    pub(crate) const fn new(conn: ConnId, room: usize) -> Self {
        Self { conn, room, waiting: VecDeque::new(), reading: true, finish: Finish::No }
    }

    pub(crate) const fn conn(&self) -> ConnId {
        self.conn
    }

    /// How many bytes wait for room.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Hands bytes on, now or as soon as there is room; how many left now.
    pub(crate) fn give(&mut self, out: &mut Outbox, bytes: &[u8]) -> usize {
        if !self.waiting.is_empty() {
            self.waiting.extend(bytes);
            return 0;
        }
        let (now, later) = bytes.split_at(bytes.len().min(self.room));
        self.room -= out.transmit(self.conn, |buffer| buffer.extend_from_slice(now));
        self.waiting.extend(later);
        now.len()
    }

    /// There is so much room; how many bytes that waited left.
    pub(crate) fn on_writable(&mut self, out: &mut Outbox, room: usize) -> usize {
        self.room = room;
        let count = self.waiting.len().min(room);
        self.room -= out.transmit(self.conn, |buffer| take(&mut self.waiting, count, buffer));
        if self.waiting.is_empty() && self.finish == Finish::Wanted {
            self.finish(out);
        }
        count
    }

    /// Nothing more will be given: says so after everything that waits.
    pub(crate) fn finish(&mut self, out: &mut Outbox) {
        if self.finish == Finish::Told {
            return;
        }
        self.finish = if self.waiting.is_empty() { Finish::Told } else { Finish::Wanted };
        if self.finish == Finish::Told {
            out.finish(self.conn);
        }
    }

    /// Whether its bytes are wanted.
    pub(crate) fn read(&mut self, out: &mut Outbox, wanted: bool) {
        if core::mem::replace(&mut self.reading, wanted) != wanted {
            out.read(Source::Conn(self.conn), if wanted { READ_CREDIT } else { 0 });
        }
    }

    /// Whatever was said before about reading from it: its bytes are wanted.
    pub(crate) fn reread(&mut self, out: &mut Outbox) {
        self.reading = true;
        out.read(Source::Conn(self.conn), READ_CREDIT);
    }

    pub(crate) fn close(self, out: &mut Outbox, why: CloseReason) {
        out.close(self.conn, why);
    }
}

/// Moves the first `count` bytes of a queue.
fn take(queue: &mut VecDeque<u8>, count: usize, into: &mut Vec<u8>) {
    let (head, tail) = queue.as_slices();
    let first = head.len().min(count);
    into.extend_from_slice(&head[..first]);
    into.extend_from_slice(&tail[..count - first]);
    queue.drain(..count);
}
