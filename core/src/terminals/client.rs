//! One connection: what waits to be sent on it, what it watches.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::wire::{Event, Frames, Level, OUTPUT_OVERHEAD, Role, append_event};
use crate::boundary::Source;
use crate::id::{ConnId, TerminalId};
use crate::queue::Outbox;
use crate::sender::READ_CREDIT;
use crate::time::Time;
use crate::timers::TimerId;

/// Room that output leaves for replies, so that a flood doesn't delay them.
const RESERVE: usize = 4096;

/// Output doesn't leave in pieces smaller than this, unless there is no more of it.
const PIECE_MIN: usize = 4096;

#[derive(Clone)]
pub(super) struct Client {
    pub(super) conn: ConnId,
    /// The later it came, the higher.
    pub(super) number: u64,
    pub(super) timer: TimerId,
    /// The kernel says that it is this process.
    pub(super) vouched: bool,
    pub(super) stage: Stage,
    pub(super) frames: Frames,
    /// Requests that have to wait until others are answered.
    pub(super) held: Vec<u8>,
    /// Requests without an answer.
    pub(super) open: usize,
    pub(super) watches: Vec<Watch>,
    /// Who is next among `watches`.
    turn: usize,
    pub(super) hungry: bool,
    pub(super) finished: bool,
    /// The terminal of the last denial that was written down.
    pub(super) denied: Option<TerminalId>,
    /// A handshake of it was refused, and that is written down.
    refused: bool,
    room: usize,
    capacity: usize,
    backlog: Vec<u8>,
    /// How much of `backlog` is sent.
    sent: usize,
    reading: bool,
}

/// What it sends and is sent may be anything.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("conn", &self.conn)
            .field("stage", &self.stage)
            .field("open", &self.open)
            .field("watches", &self.watches)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Nobody knows who it is.
    Greeting {
        /// When it has to be known at the latest.
        #[cfg_attr(not(feature = "model"), expect(dead_code, reason = "its timer knows; the checker asks"))]
        by: Time,
    },
    Known(Known),
}

/// Who a client said it is.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: Box<str>,
    pub(super) role: Role,
    pub(super) dual: bool,
    /// `kill_all` means its own.
    pub(super) modest: bool,
}

/// A place in a terminal's output.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) terminal: TerminalId,
    /// The next byte to be sent.
    pub(super) next: u64,
    pub(super) level: Level,
    /// Asked for what the screen shows, in place of what it lost.
    pub(super) looking: bool,
}

impl Client {
    pub(super) fn new(conn: ConnId, timer: TimerId, vouched: bool, by: Time, room: usize) -> Self {
        Self {
            conn,
            number: 0,
            timer,
            vouched,
            stage: Stage::Greeting { by },
            frames: Frames::default(),
            held: Vec::new(),
            open: 0,
            watches: Vec::new(),
            turn: 0,
            hungry: false,
            finished: false,
            denied: None,
            refused: false,
            room,
            capacity: room,
            backlog: Vec::new(),
            sent: 0,
            reading: true,
        }
    }

    pub(super) const fn known(&self) -> Option<&Known> {
        match &self.stage {
            Stage::Known(known) => Some(known),
            Stage::Greeting { .. } => None,
        }
    }

    /// Whether this is the first refusal.
    pub(super) const fn note_refusal(&mut self) -> bool {
        !core::mem::replace(&mut self.refused, true)
    }

    pub(super) fn watch(&mut self, terminal: TerminalId) -> Option<&mut Watch> {
        self.watches.iter_mut().find(|watch| watch.terminal == terminal)
    }

    /// Bytes that wait for room.
    pub(super) const fn waiting(&self) -> usize {
        self.backlog.len() - self.sent
    }

    /// Sends what `write` appends, now or as soon as there is room.
    pub(super) fn send(&mut self, out: &mut Outbox, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting() > 0 {
            return write(&mut self.backlog);
        }
        self.room -= out.transmit_within(self.conn, self.room, &mut self.backlog, write);
    }

    pub(super) fn writable(&mut self, out: &mut Outbox, room: usize) {
        self.room = room;
        let fits = room.min(self.waiting());
        self.room -= out
            .transmit(self.conn, |bytes| bytes.extend_from_slice(&self.backlog[self.sent..self.sent + fits]));
        self.sent += fits;
        if self.waiting() == 0 {
            self.backlog.clear();
            self.backlog.shrink_to(READ_CREDIT);
            self.sent = 0;
        }
    }

    /// Whether it has taken what it was sent, so that a whole screen may follow.
    pub(super) const fn has_drained(&self) -> bool {
        self.waiting() == 0 && self.room >= self.capacity / 2
    }

    /// How much output of `left` bytes may leave now; 0: it has to wait.
    fn piece(&self, left: u64, most: usize) -> usize {
        if self.waiting() > 0 {
            return 0;
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        let reserve = RESERVE.min(self.capacity / 8);
        let piece = left.min(self.room.saturating_sub(reserve + OUTPUT_OVERHEAD));
        if piece < left.min(PIECE_MIN).min(self.capacity / 4) { 0 } else { piece }
    }

    /// Sends the next frame of a watch from `bytes`, of which there are `left` in
    /// all; false: there is no room.
    pub(super) fn output(
        &mut self,
        out: &mut Outbox,
        place: usize,
        bytes: &[u8],
        left: u64,
        most: usize,
    ) -> bool {
        let piece = self.piece(left.min(bytes.len() as u64), most);
        let Some(watch) = self.watches.get_mut(place).filter(|_| piece > 0) else { return false };
        let data = &bytes[..piece];
        let event = Event::Output { session: watch.terminal.0, data, offset: Some(watch.next) };
        watch.next += piece as u64;
        self.send(out, |out| append_event(&event, out));
        true
    }

    /// The watch whose turn it is among those at `step` from the last one.
    pub(super) fn turn(&self, step: usize) -> usize {
        (self.turn + step) % self.watches.len().max(1)
    }

    pub(super) fn end_turn(&mut self, place: usize) {
        self.turn = place + 1;
    }

    /// Whether a request may be taken now.
    pub(super) const fn may_ask(&self, most: usize) -> bool {
        self.waiting() == 0 && self.open < most
    }

    /// Reads on, or stops.
    pub(super) fn pace(&mut self, out: &mut Outbox, most: usize) {
        let reading = self.may_ask(most) && self.held.is_empty();
        if reading != self.reading {
            self.reading = reading;
            out.read(Source::Conn(self.conn), if reading { READ_CREDIT } else { 0 });
        }
    }

    /// Whether everything that it will hear is said.
    pub(super) fn is_done(&self) -> bool {
        self.finished
            && self.open == 0
            && self.waiting() == 0
            && self.held.is_empty()
            && self.watches.is_empty()
    }
}
