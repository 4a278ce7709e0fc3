//! The table of connections: slots and generations.

use castra_core::boundary::{CloseReason, Via};
use castra_core::id::ConnId;

/// Bytes that one connection's send buffer may hold.
pub(crate) const SEND_BUFFER: usize = 128 * 1024;

/// Sent bytes up to this number stay in a buffer that is not empty: moving the
/// rest to its front costs more.
const SENT_KEPT: usize = 4 * 1024;

/// Send buffers up to this size are kept for the next connection that needs one.
const SPARE_BYTES: usize = 4 * 1024;
const SPARE_COUNT: usize = 64;

/// One connection. They are many and most are idle: those hold no buffer.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) stage: Stage,
    pub(crate) flags: Flags,
    /// Bytes the engine wants per turn.
    pub(crate) credit: u32,
    /// Free room in the send buffer that the engine knows of.
    pub(crate) room: u32,
    out: Option<Box<Buffer>>,
}

/// What the engine transmitted to a connection.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// So many of them the kernel has taken.
    sent: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Free,
    Connecting,
    Open(Via),
    /// The engine is done with it; what is buffered still leaves.
    Closing(Via, CloseReason),
}

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Flags {
    /// An edge was told and not yet read to its end.
    pub(crate) readable: bool,
    /// No more edges will come for reading: read to the end.
    pub(crate) finished: bool,
    /// Both directions ended.
    pub(crate) hangup: bool,
    /// The end of the stream was read.
    pub(crate) read_done: bool,
    /// The last write did not take everything.
    pub(crate) blocked: bool,
    /// Writable edges are asked for.
    pub(crate) wants_write: bool,
    /// On the ready list.
    pub(crate) queued: bool,
    /// On the list of connections to flush.
    pub(crate) dirty: bool,
    /// What concerns its end.
    pub(crate) end: End,
}

/// What of it is so, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct End(u8);

impl End {
    /// It has a closing deadline.
    pub(crate) const LINGERS: Self = Self(1);
    /// Its last bytes are wanted, however late: it was dialled for them.
    pub(crate) const PRECIOUS: Self = Self(2);
    /// Our direction is to end once everything is sent, …
    pub(crate) const FINISHING: Self = Self(4);
    /// … and did.
    pub(crate) const FINISHED: Self = Self(8);

    pub(crate) const fn is(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    /// Whether it was so before.
    pub(crate) const fn set(&mut self, what: Self) -> bool {
        let before = self.is(what);
        self.0 |= what.0;
        before
    }
}

impl Slot {
    const fn free(generation: u32) -> Self {
        Self {
            generation,
            stage: Stage::Free,
            flags: Flags {
                readable: false,
                finished: false,
                hangup: false,
                read_done: false,
                blocked: false,
                wants_write: false,
                queued: false,
                dirty: false,
                end: End(0),
            },
            credit: u32::MAX,
            room: SEND_BUFFER as u32,
            out: None,
        }
    }

    /// Bytes not yet taken by the kernel.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.out.as_deref().map_or(&[], |out| &out.bytes[out.sent..])
    }

    /// The kernel took so many of them.
    pub(crate) fn took(&mut self, count: usize) {
        if let Some(out) = &mut self.out {
            out.sent += count;
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }
}

impl Buffer {
    /// Lets go of what the kernel has taken, before it outweighs what is to
    /// come: a reader that never quite catches up would keep every byte it ever got.
    fn forget_sent(&mut self) {
        if self.sent >= SENT_KEPT.max(self.bytes.len() - self.sent) {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    #[expect(clippy::vec_box, reason = "slots take them as they are")]
    spare: Vec<Box<Buffer>>,
    links: usize,
    controls: usize,
    #[cfg(feature = "planted")]
    pub(crate) planted: Option<castra_core::planted::Bug>,
}

impl Slots {
    /// The id that the next connection gets; unchanged until [`Slots::occupy`].
    pub(crate) fn next_id(&mut self) -> ConnId {
        if self.vacant.is_empty() {
            self.vacant.push(self.slots.len() as u32);
            self.slots.push(Slot::free(0));
        }
        let index = self.vacant[self.vacant.len() - 1];
        ConnId { index, generation: self.slots[index as usize].generation }
    }

    /// Fills the slot that [`Slots::next_id`] named.
    pub(crate) fn occupy(&mut self, conn: ConnId, stage: Stage) {
        debug_assert_eq!(self.vacant.last(), Some(&conn.index));
        self.vacant.pop();
        let slot = &mut self.slots[conn.index as usize];
        *slot = Slot { stage, ..Slot::free(conn.generation) };
        self.count(stage, 1);
    }

    /// A connection that still exists.
    pub(crate) fn get(&mut self, conn: ConnId) -> Option<&mut Slot> {
        find(&mut self.slots, conn)
    }

    /// A connection changes its stage.
    pub(crate) fn set_stage(&mut self, conn: ConnId, stage: Stage) {
        if let Some(slot) = self.get(conn) {
            let before = std::mem::replace(&mut slot.stage, stage);
            self.count(before, -1);
            self.count(stage, 1);
        }
    }

    /// Empties a slot; its id is dead.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        let older = u32::from(!planted!(self, SlotWithoutGeneration));
        let Some(slot) = self.get(conn) else { return };
        let stage = slot.stage;
        let out = slot.out.take();
        *slot = Slot::free(conn.generation.wrapping_add(older));
        self.count(stage, -1);
        self.vacant.push(conn.index);
        self.recycle(out);
    }

    /// Appends to a connection's send buffer.
    pub(crate) fn append(&mut self, conn: ConnId, bytes: &[u8]) {
        let Self { slots, spare, .. } = self;
        let Some(slot) = find(slots, conn) else { return };
        let out = slot.out.get_or_insert_with(|| spare.pop().unwrap_or_default());
        out.forget_sent();
        out.bytes.extend_from_slice(bytes);
    }

    /// Everything is sent: the buffer goes back.
    pub(crate) fn emptied(&mut self, conn: ConnId) {
        if let Some(slot) = self.get(conn) {
            let out = slot.out.take();
            self.recycle(out);
        }
    }

    /// Links and dials, then control connections; closing ones included.
    pub(crate) const fn counts(&self) -> (usize, usize) {
        (self.links, self.controls)
    }

    /// The ids of all connections.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.stage != Stage::Free)
            .map(|(index, slot)| ConnId { index: index as u32, generation: slot.generation })
    }

    fn recycle(&mut self, buffer: Option<Box<Buffer>>) {
        let Some(mut buffer) = buffer else { return };
        if buffer.bytes.capacity() <= SPARE_BYTES && self.spare.len() < SPARE_COUNT {
            buffer.bytes.clear();
            buffer.sent = 0;
            self.spare.push(buffer);
        }
    }

    const fn count(&mut self, stage: Stage, change: isize) {
        let count = match stage {
            Stage::Free => return,
            Stage::Connecting
            | Stage::Open(Via::Link(_) | Via::Manager)
            | Stage::Closing(Via::Link(_) | Via::Manager, _) => &mut self.links,
            Stage::Open(Via::Control | Via::Terminals) | Stage::Closing(Via::Control | Via::Terminals, _) => {
                &mut self.controls
            }
        };
        *count = count.wrapping_add_signed(change);
    }
}

fn find(slots: &mut [Slot], conn: ConnId) -> Option<&mut Slot> {
    slots
        .get_mut(conn.index as usize)
        .filter(|slot| slot.generation == conn.generation && slot.stage != Stage::Free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_dies_with_its_connection() {
        let mut slots = Slots::default();
        let first = slots.next_id();
        assert_eq!(first, slots.next_id());
        slots.occupy(first, Stage::Open(Via::Control));
        slots.append(first, b"x");
        assert_eq!(slots.counts(), (0, 1));
        slots.remove(first);
        slots.remove(first);
        assert_eq!(slots.counts(), (0, 0));
        let second = slots.next_id();
        assert_eq!(second.index, first.index);
        assert_ne!(second.generation, first.generation);
        slots.occupy(second, Stage::Connecting);
        assert!(slots.get(first).is_none());
        slots.append(first, b"stale");
        assert_eq!(slots.get(second).map(|slot| slot.unsent().len()), Some(0));
        assert_eq!(slots.counts(), (1, 0));
    }

    #[test]
    fn a_reader_that_never_catches_up_costs_no_more_than_its_buffer() {
        let mut slots = Slots::default();
        let conn = slots.next_id();
        slots.occupy(conn, Stage::Open(Via::Control));
        let mut expected = 0_u8;
        slots.append(conn, &[0; 1000]);
        for round in 1..=10_000_u32 {
            slots.append(conn, &[round as u8; 1000]);
            let slot = slots.get(conn).expect("a slot");
            // Never all of it.
            assert_eq!(slot.unsent()[..1000], [expected; 1000]);
            expected = expected.wrapping_add(1);
            slot.took(1000);
            assert_eq!(slot.unsent().len(), 1000);
            let capacity = slot.out.as_ref().expect("a buffer").bytes.capacity();
            assert!(capacity <= 2 * SEND_BUFFER, "{capacity} in round {round}");
        }
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 32, "{}", size_of::<Slot>());
    }
}
