//! What is sent on one connection, within the room that the shell has for it.

use alloc::vec::Vec;

use crate::boundary::Source;
use crate::id::ConnId;
use crate::queue::Outbox;

/// A peer that takes what it is sent is read from at this pace, in bytes per turn.
pub(crate) const READ_CREDIT: usize = 64 * 1024;

/// The sending side of a connection. What doesn't fit the room waits here, and
/// while it does nothing more is read from the peer: it can't make the backlog
/// grow beyond the answers to what it already sent.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    conn: ConnId,
    room: usize,
    /// The most there ever is: what the shell said first.
    capacity: usize,
    backlog: Vec<u8>,
}

impl Sender {
    pub(crate) fn new(conn: ConnId, room: usize) -> Self {
        Self { conn, room, capacity: room, backlog: Vec::new() }
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.conn
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
            self.unblock(out);
        }
    }

    /// How many bytes of streams one frame may carry now, without holding up
    /// anything else.
    pub(crate) fn data_room(&self) -> usize {
        if self.is_blocked() { 0 } else { crate::tunnel::data_room(self.room, self.capacity) }
    }

    /// Free bytes in the shell's send buffer.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// The most there ever is of it.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Drops what neither we nor the shell handed on yet.
    pub(crate) fn discard(&mut self, out: &mut Outbox) {
        out.discard(self.conn);
        if self.is_blocked() {
            self.unblock(out);
        }
    }

    /// Whether something waits for room.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// How many bytes wait for room.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len()
    }

    fn unblock(&mut self, out: &mut Outbox) {
        self.backlog = Vec::new();
        out.read(Source::Conn(self.conn), READ_CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::Sender;
    use crate::boundary::Output;
    use crate::id::ConnId;
    use crate::queue::Outbox;

    /// What leaves: bytes, and credits in between.
    fn left(out: &mut Outbox) -> (Vec<u8>, Vec<usize>) {
        let (mut sent, mut credits) = (Vec::new(), Vec::new());
        loop {
            match out.poll(|| None) {
                Output::Transmit { bytes, .. } => sent.extend_from_slice(bytes),
                Output::Read { credit, .. } => credits.push(credit),
                _ => return (sent, credits),
            }
        }
    }

    #[test]
    fn no_more_leaves_than_there_is_room_for_and_nothing_is_lost_or_doubled() {
        let mut out = Outbox::default();
        let mut sender = Sender::new(ConnId { index: 0, generation: 0 }, 4);
        sender.send(&mut out, |bytes| bytes.extend_from_slice(b"abc"));
        assert_eq!(left(&mut out), (b"abc".to_vec(), Vec::new()));
        sender.send(&mut out, |bytes| bytes.extend_from_slice(b"defgh"));
        assert_eq!(left(&mut out), (b"d".to_vec(), [0].to_vec()));
        assert_eq!((sender.is_blocked(), sender.waiting()), (true, 4));
        sender.send(&mut out, |bytes| bytes.extend_from_slice(b"i"));
        sender.writable(&mut out, 2);
        assert_eq!((left(&mut out), sender.waiting()), ((b"ef".to_vec(), Vec::new()), 3));
        sender.writable(&mut out, 5);
        assert_eq!(left(&mut out), (b"ghi".to_vec(), [super::READ_CREDIT].to_vec()));
        // Two of the five are left.
        sender.send(&mut out, |bytes| bytes.extend_from_slice(b"jkl"));
        assert_eq!((left(&mut out).0, sender.waiting()), (b"jk".to_vec(), 1));
    }
}
