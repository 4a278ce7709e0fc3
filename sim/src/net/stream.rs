//! A stream: two ends, and in each direction bytes that are under way or have arrived.

use std::collections::VecDeque;

use castra_core::id::ConnId;
use castra_core::time::Time;

use super::{Door, NodeId};

/// One end of one stream; the generation makes an old one harmless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct EndId {
    pub(crate) stream: u32,
    pub(crate) generation: u32,
    /// 0 dialled, 1 was dialled.
    pub(crate) side: u8,
}

impl EndId {
    pub(crate) const fn other(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

/// Who holds an end: a process, and which of its lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Owner {
    pub(crate) node: NodeId,
    pub(crate) life: u32,
}

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The dial is on its way.
    Dialling(Door),
    /// In the listener's queue, or accepted.
    Open,
    /// The dial was turned away.
    Refused,
    /// Nobody has it any more.
    Free,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) ends: [End; 2],
    /// The stream's bytes pass the guest's link to the host: partitions hold it.
    pub(crate) remote: bool,
}

/// One end, and what travels to it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) owner: Owner,
    /// What its shell calls it, once it has it.
    pub(crate) conn: Option<ConnId>,
    /// Under way and arrived, oldest first.
    pub(crate) bytes: VecDeque<u8>,
    /// How many of them have arrived.
    pub(crate) arrived: usize,
    /// How many were read before them.
    pub(crate) read: u64,
    pub(crate) flight: VecDeque<Segment>,
    /// Nothing arrives before.
    pub(crate) held_until: Time,
    /// The other end will send no more, and this one has been told.
    pub(crate) finished: bool,
    pub(crate) reset: bool,
    /// This end closed; the kernel forgets it once the other one knows.
    pub(crate) closed: bool,
    /// The machine behind this end is gone: nothing answers, not even a kernel.
    pub(crate) void: bool,
    pub(crate) wants_write: bool,
    /// The other end is a closed unix socket: that it finished is a hangup.
    pub(crate) hangs_up: bool,
    /// Its owner said that it will send no more.
    pub(crate) said_finished: bool,
    /// The next write to this end is damaged on its way.
    pub(crate) corrupted: bool,
    /// Whoever is here answers no challenge truthfully that was sent later.
    pub(crate) lies_from: Option<Time>,
    /// A device in the guest: the stream is the hypervisor's, and outlives whoever opens it.
    pub(crate) device: bool,
}

/// What travels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) arrives: Time,
    pub(crate) what: Cargo,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cargo {
    Bytes(usize),
    Finish,
    Reset,
}

impl End {
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            owner,
            conn: None,
            bytes: VecDeque::new(),
            arrived: 0,
            read: 0,
            flight: VecDeque::new(),
            held_until: Time::ZERO,
            finished: false,
            reset: false,
            closed: false,
            void: false,
            wants_write: false,
            hangs_up: false,
            said_finished: false,
            corrupted: false,
            lies_from: None,
            device: false,
        }
    }

    /// Takes over the memory of an end that is gone.
    pub(crate) fn inherit(&mut self, former: &mut Self) {
        (self.bytes, self.flight) = (std::mem::take(&mut former.bytes), std::mem::take(&mut former.flight));
        self.bytes.clear();
        self.flight.clear();
    }

    /// Puts something on its way; a stream keeps its order. Returns its arrival.
    pub(crate) fn push(&mut self, arrives: Time, what: Cargo) -> Time {
        let arrives = self.flight.back().map_or(arrives, |last| last.arrives.max(arrives));
        if let (Some(last), Cargo::Bytes(more)) = (self.flight.back_mut(), what)
            && last.arrives == arrives
            && let Cargo::Bytes(length) = &mut last.what
        {
            *length += more;
            return arrives;
        }
        self.flight.push_back(Segment { arrives, what });
        arrives
    }

    /// Lets everything in that is due. Returns whether anything was.
    pub(crate) fn arrive(&mut self, now: Time, mut each: impl FnMut(Segment)) -> bool {
        let mut any = false;
        while self.held_until <= now
            && let Some(segment) = self.flight.front().filter(|segment| segment.arrives <= now).copied()
        {
            self.flight.pop_front();
            any = true;
            match segment.what {
                Cargo::Bytes(length) => self.arrived += length,
                // The hypervisor hears of it; the guest does not.
                Cargo::Finish | Cargo::Reset if self.device => self.closed = true,
                Cargo::Finish => self.finished = true,
                Cargo::Reset => {
                    // What arrived before can still be read, as from Linux.
                    self.reset = true;
                    self.bytes.truncate(self.arrived);
                    self.flight.clear();
                }
            }
            each(segment);
        }
        any
    }

    /// Takes up to `buffer.len()` arrived bytes.
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.arrived.min(buffer.len());
        let (front, back) = self.bytes.as_slices();
        let split = front.len().min(count);
        buffer[..split].copy_from_slice(&front[..split]);
        if split < count {
            buffer[split..count].copy_from_slice(&back[..count - split]);
        }
        self.bytes.drain(..count);
        self.arrived -= count;
        self.read += count as u64;
        count
    }
}
