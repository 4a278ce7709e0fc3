//! The engine's ordered stream of outputs.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::boundary::{CloseReason, Deadline, Effect, Output, Source};
use crate::event::Event;
use crate::id::{ConnId, EffectId};

/// Outputs in order. The bytes of all transmits lie in one buffer that is
/// emptied when the drain ends, so a warm engine doesn't allocate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    items: VecDeque<Item>,
    bytes: Vec<u8>,
    next_effect: u64,
}

#[derive(Clone, Debug)]
enum Item {
    Transmit { conn: ConnId, range: Range<usize> },
    Discard(ConnId),
    Read(Source, usize),
    Finish(ConnId),
    Close(ConnId, CloseReason),
    Effect(EffectId, Effect),
    Cancel(EffectId),
    Event(Event),
    Stopped,
}

/// Room that stays allocated between drains.
const KEPT_BYTES: usize = 256 * 1024;

impl Outbox {
    /// Writes a message for `conn` through `write`; returns its length. Neighbouring
    /// messages of one connection leave as one [`Output::Transmit`].
    pub(crate) fn transmit(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        match self.items.back_mut() {
            Some(Item::Transmit { conn: last, range }) if *last == conn => range.end = end,
            _ if start == end => {}
            _ => self.items.push_back(Item::Transmit { conn, range: start..end }),
        }
        end - start
    }

    /// As [`Outbox::transmit`], but what goes beyond `room` is appended to `spill`.
    /// Returns how much is transmitted.
    pub(crate) fn transmit_within(
        &mut self,
        conn: ConnId,
        room: usize,
        spill: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        self.transmit(conn, |bytes| {
            let start = bytes.len();
            write(bytes);
            let end = bytes.len().min(start.saturating_add(room));
            spill.extend_from_slice(&bytes[end..]);
            bytes.truncate(end);
        })
    }

    pub(crate) fn discard(&mut self, conn: ConnId) {
        self.items.push_back(Item::Discard(conn));
    }

    pub(crate) fn read(&mut self, source: Source, credit: usize) {
        self.items.push_back(Item::Read(source, credit));
    }

    pub(crate) fn finish(&mut self, conn: ConnId) {
        self.items.push_back(Item::Finish(conn));
    }

    pub(crate) fn close(&mut self, conn: ConnId, why: CloseReason) {
        self.items.push_back(Item::Close(conn, why));
    }

    pub(crate) fn effect(&mut self, effect: Effect) -> EffectId {
        self.next_effect += 1;
        let id = EffectId(self.next_effect);
        self.items.push_back(Item::Effect(id, effect));
        id
    }

    pub(crate) fn cancel(&mut self, effect: EffectId) {
        self.items.push_back(Item::Cancel(effect));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.items.push_back(Item::Event(event));
    }

    pub(crate) fn stopped(&mut self) {
        self.items.push_back(Item::Stopped);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The next output; `wait` is asked once the queue is empty.
    pub(crate) fn poll(&mut self, wait: impl FnOnce() -> Option<Deadline>) -> Output<'_> {
        let Some(item) = self.items.pop_front() else {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            return Output::Wait(wait());
        };
        match item {
            Item::Transmit { conn, range } => Output::Transmit { conn, bytes: &self.bytes[range] },
            Item::Discard(conn) => Output::Discard { conn },
            Item::Read(source, credit) => Output::Read { source, credit },
            Item::Finish(conn) => Output::Finish { conn },
            Item::Close(conn, why) => Output::Close { conn, why },
            Item::Effect(id, effect) => Output::Effect { id, effect },
            Item::Cancel(effect) => Output::Cancel { effect },
            Item::Event(event) => Output::Event(event),
            Item::Stopped => Output::Stopped,
        }
    }
}
