//! What a process does with an end: write, read, close.

use std::io;

use super::stream::{Cargo, Phase};
use super::{EndId, Happening, Hub};
use crate::choice::Choice;

impl Hub {
    /// Writes what fits.
    pub(crate) fn write(&mut self, id: EndId, bytes: &[u8]) -> io::Result<usize> {
        let buffer = self.network.buffer as usize;
        let (now, cut) = (self.now, self.network.cut);
        let Some(stream) = self.stream(id) else { return Err(io::ErrorKind::NotConnected.into()) };
        let remote = stream.remote;
        let [own, other] = stream.pair(id.side);
        if own.reset || own.closed || own.said_finished {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let fits = bytes.len().min(buffer.saturating_sub(other.bytes.len()));
        if fits == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if other.closed {
            // The first word to nobody is taken; the answer to it is a reset.
            let arrives = now + self.latency(remote);
            if let Some(own) = self.end(id) {
                let arrives = own.push(arrives, Cargo::Reset);
                self.at(arrives, Happening::Deliver(id));
            }
            return Ok(bytes.len());
        }
        other.bytes.extend(&bytes[..fits]);
        let corrupted = fits > 0 && std::mem::take(&mut other.corrupted);
        let (from, to) = (own.owner.node, other.owner.node);
        if let Some((node, tap)) = &mut self.tap
            && *node == from
            && tap.len() < 4096
        {
            tap.extend_from_slice(&bytes[..fits]);
        }
        if let Some(scribe) = &mut self.scribe {
            scribe.wrote(now, from, to, id.other(), &bytes[..fits]);
        }
        if corrupted {
            self.corrupt(id.other(), fits);
        }
        let mut left = fits;
        while left > 0 {
            let mut part = left;
            if cut > 0 && left > 1 && self.chooser.0.once_in(cut) {
                part = 1 + self.chooser.0.below(left as u32 - 1) as usize;
            }
            let mut latency = self.latency(remote);
            if self.network.join > 0 && self.chooser.0.once_in(self.network.join) {
                latency += self.latency(remote);
            }
            left -= part;
            if let Some(other) = self.end(id.other()) {
                let arrives = other.push(now + latency, Cargo::Bytes(part));
                self.at(arrives, Happening::Deliver(id.other()));
            }
        }
        Ok(fits)
    }

    /// Damages one of the last `fits` bytes: it isn't text any more, so that it
    /// never makes another name.
    fn corrupt(&mut self, id: EndId, fits: usize) {
        let back = self.chooser.0.below(fits as u32) as usize;
        let Some(end) = self.end(id) else { return };
        let at = end.bytes.len() - 1 - back;
        if let Some(byte) = end.bytes.get_mut(at) {
            *byte ^= 0x80;
        }
    }

    /// Reads what has arrived; 0 is the end.
    pub(crate) fn read(&mut self, id: EndId, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let (short, capacity) = (self.network.short_read, self.network.buffer as usize);
        let Some(end) = self.end(id) else { return Err(io::ErrorKind::NotConnected.into()) };
        if end.arrived == 0 && end.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if end.arrived == 0 {
            return if end.finished { Ok((0, true)) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut limit = end.arrived.min(buffer.len());
        if short > 0 && limit > 1 && self.chooser.0.once_in(short) {
            limit = 1 + self.chooser.0.below(limit as u32 - 1) as usize;
        }
        let Some(stream) = self.stream(id) else { return Err(io::ErrorKind::NotConnected.into()) };
        let [own, other] = stream.pair(id.side);
        let was_full = own.bytes.len() >= capacity;
        let count = own.take(&mut buffer[..limit]);
        let drained = own.arrived == 0;
        if other.wants_write && (was_full || own.bytes.len() + count >= capacity / 2) {
            self.edge(id.other(), true);
        }
        Ok((count, drained))
    }

    /// Closes an end as a kernel does for a process: unread bytes make it a reset.
    pub(crate) fn close(&mut self, id: EndId) {
        let Some(end) = self.end(id) else { return };
        if end.closed {
            return;
        }
        end.closed = true;
        end.conn = None;
        // What is still under way will be answered with a reset when it comes.
        let rude = end.arrived > 0;
        let (reset, half) = (end.reset, end.said_finished && !rude);
        end.bytes.drain(..end.arrived);
        end.arrived = 0;
        let unix = self.stream(id).is_some_and(|stream| !stream.remote);
        if let Some(other) = self.end(id.other()).filter(|other| unix && !other.device) {
            other.hangs_up = true;
        }
        // A unix socket's other end hears of a half-close, and of the close after it.
        if !reset && (!half || unix) {
            self.send(id, if rude { Cargo::Reset } else { Cargo::Finish });
        }
        self.bury(id);
    }

    /// Half-closes; a device can't.
    pub(crate) fn finish(&mut self, id: EndId) {
        if let Some(end) = self.end(id).filter(|end| !end.said_finished && !end.reset && !end.device) {
            end.said_finished = true;
            self.send(id, Cargo::Finish);
        }
    }

    /// Whether a dial was turned away.
    pub(crate) fn is_refused(&mut self, id: EndId) -> bool {
        self.stream(id).is_none_or(|stream| stream.phase == Phase::Refused)
    }

    /// Whether a dial has no answer yet.
    pub(crate) fn is_dialling(&mut self, id: EndId) -> bool {
        self.stream(id).is_some_and(|stream| matches!(stream.phase, Phase::Dialling(_)))
    }

    /// Whether a write would make progress.
    pub(crate) fn has_room(&mut self, id: EndId) -> bool {
        let buffer = self.network.buffer as usize;
        self.end(id.other()).is_some_and(|end| end.bytes.len() < buffer)
    }
}
