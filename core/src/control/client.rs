//! One local client's connection: request lines in, reply lines out, within the
//! room that the shell has for them. Knows nothing of what the lines mean.

use alloc::vec::Vec;

use super::request::LINE_MAX;
use crate::boundary::Source;
use crate::id::ConnId;
use crate::link::inbox::{Inbox, LineTooLong};
use crate::queue::Outbox;

/// A client that reads its replies is read from at this pace, in bytes per turn.
pub(crate) const READ_CREDIT: usize = 64 * 1024;

/// A control connection. What doesn't fit the shell's room waits here, and while
/// it does nothing more is read from the client: the backlog is bounded by the
/// replies that were already promised.
#[derive(Debug)]
pub(crate) struct Client {
    conn: ConnId,
    room: usize,
    inbox: Inbox,
    backlog: Vec<u8>,
    unread: Vec<u8>,
    finished: bool,
}

impl Client {
    pub(crate) fn new(conn: ConnId, room: usize) -> Self {
        Self { conn, room, inbox: Inbox::default(), backlog: Vec::new(), unread: Vec::new(), finished: false }
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }

    /// The next whole line, without its end. `input` moves past what was taken.
    /// Not to be asked while [`Client::is_blocked`]: [`Client::keep`] the rest then.
    ///
    /// # Errors
    /// A line over [`LINE_MAX`]: say so and close.
    pub(crate) fn line<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
    ) -> Result<Option<&'a [u8]>, LineTooLong> {
        self.inbox.line(input, LINE_MAX)
    }

    /// Keeps input that can't be handled while the client is blocked.
    pub(crate) fn keep(&mut self, input: &[u8]) {
        self.unread.extend_from_slice(input);
    }

    /// What was kept, once the client is no longer blocked.
    pub(crate) fn take_unread(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.unread)
    }

    /// Sends what `write` appends, now or as soon as there is room.
    pub(crate) fn send(&mut self, out: &mut Outbox, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_blocked() {
            write(&mut self.backlog);
            return;
        }
        self.room -= out.transmit_within(self.conn, self.room, &mut self.backlog, write);
        if self.is_blocked() {
            out.read(Source::Conn(self.conn), 0);
        }
    }

    /// The shell has `room` bytes free.
    pub(crate) fn writable(&mut self, out: &mut Outbox, room: usize) {
        self.room = room;
        if !self.is_blocked() {
            return;
        }
        let fits = room.min(self.backlog.len());
        self.room -= out.transmit(self.conn, |bytes| bytes.extend(self.backlog.drain(..fits)));
        if !self.is_blocked() {
            self.backlog = Vec::new();
            out.read(Source::Conn(self.conn), READ_CREDIT);
        }
    }

    /// Whether replies wait for room.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Free bytes in the shell's send buffer, when nothing waits.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// The client will send no more.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether nothing is left to read or to write: once every request is
    /// answered, too, the connection can be closed.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished && self.backlog.is_empty() && self.unread.is_empty()
    }
}
