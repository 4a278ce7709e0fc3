//! Writing: at most one write per connection and turn, last words, and their bound.

use std::io;

use castra_core::boundary::{CloseCause, CloseReason, Engine};
use castra_core::id::ConnId;
use castra_core::time::Now;

use super::slots::{End, Stage};
use super::{READ_MAX, Shell, WRITES_PER_TURN};
use crate::net::{Net, Received};
use crate::work::Work;

/// Reads that a closing connection's unread bytes are worth.
const LAST_READS: usize = 4;

impl<E: Engine, N: Net, W: Work> Shell<E, N, W> {
    /// One write for each connection that has something to say, as far as this turn goes.
    pub(super) fn flush(&mut self, now: Now) {
        for _ in 0..self.ports.dirty.len().min(WRITES_PER_TURN) {
            let Some(conn) = self.ports.dirty.pop_front() else { break };
            self.flush_one(now, conn);
        }
        while self.ports.closing.front().is_some_and(|(until, _)| *until <= now.boot) {
            if let Some((_, conn)) = self.ports.closing.pop_front() {
                self.drop_closing(conn);
            }
        }
        while let Some(&(_, conn)) = self.ports.closing.front() {
            if self.ports.slots.get(conn).is_some() {
                break;
            }
            self.ports.closing.pop_front();
        }
    }

    fn flush_one(&mut self, now: Now, conn: ConnId) {
        let Some(slot) = self.ports.slots.get(conn) else { return };
        slot.flags.dirty = false;
        let open = slot.is_open();
        if slot.flags.blocked {
            if !open {
                self.ports.linger(conn, now.boot);
            }
            return;
        }
        if !slot.unsent().is_empty() {
            match self.ports.net.write(conn, slot.unsent()) {
                Ok(_) if planted!(self.ports, ShortWriteLoses) => slot.took(slot.unsent().len()),
                Ok(written) => {
                    slot.took(written);
                    self.ports.counters.sent += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.ports.soil(conn),
                Err(_) if open => return self.broken(now, conn),
                Err(_) => return self.drop_closing(conn),
            }
        }
        let wants_write = !slot.unsent().is_empty();
        slot.flags.blocked = wants_write;
        if wants_write != slot.flags.wants_write {
            slot.flags.wants_write = wants_write;
            if !planted!(self.ports, WriteInterestForgotten)
                && self.ports.net.want_write(conn, wants_write).is_err()
            {
                return if open { self.broken(now, conn) } else { self.drop_closing(conn) };
            }
        }
        if !wants_write {
            if open && slot.flags.end.is(End::FINISHING) && !slot.flags.end.set(End::FINISHED) {
                self.ports.net.finish(conn);
            }
            self.ports.slots.emptied(conn);
        }
        match (open, wants_write) {
            (true, _) => self.ports.offer_room(conn),
            (false, true) => self.ports.linger(conn, now.boot),
            (false, false) => self.farewell(conn),
        }
    }

    /// Closes a connection whose last byte is on its way. Unread bytes would
    /// turn the close into a reset that can overtake the last words.
    fn farewell(&mut self, conn: ConnId) {
        if let Some(slot) = self.ports.slots.get(conn) {
            let refused = matches!(slot.stage, Stage::Closing(_, CloseReason::Refused));
            if !slot.flags.read_done && (refused || slot.flags.readable) {
                self.ports.net.finish(conn);
                for _ in 0..LAST_READS {
                    match self.ports.net.read(conn, &mut self.buffer) {
                        Ok(Received { bytes, drained: false }) if bytes > 0 => {}
                        _ => break,
                    }
                }
            }
        }
        self.drop_closing(conn);
    }

    fn drop_closing(&mut self, conn: ConnId) {
        if self.ports.slots.get(conn).is_some() {
            self.ports.net.close(conn);
            self.ports.slots.remove(conn);
        }
    }

    /// A write failed: what the other end said before is still heard, once.
    fn broken(&mut self, now: Now, conn: ConnId) {
        if let Some(slot) = self.ports.slots.get(conn)
            && slot.credit > 0
            && !slot.flags.read_done
        {
            let limit = READ_MAX.min(slot.credit as usize);
            let last = self.ports.net.read(conn, &mut self.buffer[..limit]);
            if let Ok(Received { bytes: bytes @ 1.., .. }) = last {
                self.hand_over(now, conn, bytes);
            }
        }
        self.gone(now, conn, CloseCause::Reset);
    }
}
