//! The link's connection: what both phases read from and write to.

use alloc::vec::Vec;

use super::Context;
use crate::auth::{Direction, SessionKey, TAG_DIGITS};
use crate::id::ConnId;
use crate::link::inbox::{FRAME_MAX, Inbox, RESYNC, SERIAL_FRAME_MAX, append_frame};
use crate::sender::Sender;

/// A connection to the broker.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) sender: Sender,
    pub(super) inbox: Inbox,
    /// It is a stream without connections.
    pub(super) serial: bool,
}

/// A keyed session's key, and the number of frames each way.
#[derive(Clone, Debug)]
pub(super) struct Tags {
    pub(super) key: SessionKey,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Wire {
    pub(super) fn new(conn: ConnId, room: usize, serial: bool) -> Self {
        Self { sender: Sender::new(conn, room), inbox: Inbox::default(), serial }
    }

    pub(super) fn conn(&self) -> ConnId {
        self.sender.conn()
    }

    pub(super) fn send(&mut self, cx: &mut Context<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        self.sender.send(cx.out, write);
    }

    /// Serial: tells the broker to drop what is unfinished, and to greet.
    pub(super) fn resynchronise(&mut self, cx: &mut Context<'_>) {
        self.inbox.clear();
        self.send(cx, |bytes| bytes.extend_from_slice(&[RESYNC, b'\n']));
    }

    /// Sends the JSON that `write` appends as a frame; at most
    /// [`Wire::json_max`] bytes.
    pub(super) fn send_frame(
        &mut self,
        cx: &mut Context<'_>,
        tags: Option<&mut Tags>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let serial = self.serial;
        self.sender.send(cx.out, |bytes| match tags {
            None => append_frame(bytes, serial, 0, write, |_, _| {}),
            Some(tags) => {
                append_frame(bytes, serial, TAG_DIGITS, write, |bytes, json| {
                    tags.key.append_tag(Direction::ToBroker, tags.sent, json, bytes);
                });
                tags.sent += 1;
            }
        });
    }

    /// Longest JSON of a frame, in bytes.
    pub(super) fn json_max(&self, keyed: bool) -> usize {
        let frame = if self.serial { SERIAL_FRAME_MAX } else { FRAME_MAX };
        frame - if keyed { TAG_DIGITS } else { 0 }
    }
}
