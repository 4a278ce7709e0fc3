//! One local client's connection: request lines in, reply lines out, within the
//! room that the shell has for them. Knows nothing of what the lines mean.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::reply::{ErrorBody, ErrorCode};
use super::request::LINE_MAX;
use crate::id::{ConnId, RequestId};
use crate::link::inbox::{Inbox, LineTooLong};
use crate::link::message::append_json;
use crate::queue::Outbox;
use crate::sender::Sender;

/// A control connection. While replies wait for room ([`Client::is_blocked`]) no
/// line is handled: the backlog is bounded by the replies already promised.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    sender: Sender,
    inbox: Inbox,
    unread: Vec<u8>,
    finished: bool,
}

#[derive(Serialize)]
struct Line<'a, D> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RequestId>,
    event: &'a str,
    data: D,
}

impl Client {
    pub(crate) fn new(conn: ConnId, room: usize) -> Self {
        Self { sender: Sender::new(conn, room), inbox: Inbox::default(), unread: Vec::new(), finished: false }
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.sender.conn()
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

    /// The connection serves something else from now on: its room, and whether the
    /// client will send no more.
    pub(crate) fn into_parts(self) -> (usize, bool) {
        (self.sender.room(), self.finished)
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
        self.sender.send(out, write);
    }

    /// Sends one line: `{"id":…,"event":…,"data":…}`.
    pub(crate) fn reply(
        &mut self,
        out: &mut Outbox,
        id: Option<&RequestId>,
        event: &str,
        data: impl Serialize,
    ) {
        self.send(out, |bytes| {
            append_json(bytes, &Line { id, event, data });
            bytes.push(b'\n');
        });
    }

    /// Sends one `error` line.
    pub(crate) fn error(
        &mut self,
        out: &mut Outbox,
        id: Option<&RequestId>,
        code: ErrorCode,
        message: impl Into<String>,
    ) {
        self.reply(out, id, "error", ErrorBody { code, message: message.into() });
    }

    /// The shell has `room` bytes free. If that unblocks the client, what it
    /// said meanwhile is to be handled: [`Client::take_unread`].
    pub(crate) fn writable(&mut self, out: &mut Outbox, room: usize) {
        self.sender.writable(out, room);
    }

    /// Whether replies wait for room.
    pub(crate) fn is_blocked(&self) -> bool {
        self.sender.is_blocked()
    }

    /// The client will send no more.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether nothing is left to read or to write: once every request is
    /// answered, too, the connection can be closed.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished && !self.is_blocked() && self.unread.is_empty()
    }
}
