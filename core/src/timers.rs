//! Deadlines in order: an indexed binary heap, one entry a timer.

use alloc::vec::Vec;

use crate::boundary::{Deadline, Wakeup};
use crate::pages::Pages;
use crate::time::Time;

/// A timer's place; valid until [`Timers::remove`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId(u32);

/// Timers of kind `K`. A warm set doesn't allocate; equal deadlines fire in an
/// order that depends on the calls alone.
#[derive(Clone, Debug)]
pub(crate) struct Timers<K> {
    heap: Vec<Entry>,
    slots: Pages<Slot<K>>,
    free: Vec<u32>,
}

/// Armed timers. The times lie here: to compare two is to look nowhere else.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Time,
    slot: u32,
    why: Wakeup,
}

#[derive(Clone, Debug)]
struct Slot<K> {
    position: u32,
    key: K,
}

const UNARMED: u32 = u32::MAX;

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: Vec::new(), slots: Pages::default(), free: Vec::new() }
    }
}

impl<K: Copy> Timers<K> {
    /// A new timer, not armed.
    pub(crate) fn insert(&mut self, key: K) -> TimerId {
        let slot = Slot { position: UNARMED, key };
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            return TimerId(index);
        }
        self.slots.push(slot);
        // Connections, rows and commands are bounded far below 2³².
        TimerId((self.slots.len() - 1) as u32)
    }

    /// Ends a timer; its id may be given out again.
    pub(crate) fn remove(&mut self, id: TimerId) {
        self.disarm(id);
        self.free.push(id.0);
    }

    /// Fires at `at`, whatever was set before.
    pub(crate) fn arm(&mut self, id: TimerId, at: Time, why: Wakeup) {
        let entry = Entry { at, slot: id.0, why };
        let position = self.slots[id.0 as usize].position;
        if position == UNARMED {
            if self.heap.len() == self.heap.capacity() {
                // By an eighth: a heap that doubles would be half empty.
                self.heap.reserve_exact(self.heap.len() / 8 + 16);
            }
            self.heap.push(entry);
            return self.rise(self.heap.len() - 1);
        }
        let before = core::mem::replace(&mut self.heap[position as usize], entry);
        if at < before.at {
            self.rise(position as usize);
        } else {
            self.sink(position as usize);
        }
    }

    /// Fires at `at` or earlier: an earlier deadline stays, and whoever is woken
    /// by it arms again. This is what makes a refreshed deadline free.
    pub(crate) fn arm_by(&mut self, id: TimerId, at: Time, why: Wakeup) {
        let position = self.slots[id.0 as usize].position;
        if position == UNARMED || at < self.heap[position as usize].at {
            self.arm(id, at, why);
        }
    }

    pub(crate) fn disarm(&mut self, id: TimerId) {
        let position = core::mem::replace(&mut self.slots[id.0 as usize].position, UNARMED);
        if position == UNARMED {
            return;
        }
        let position = position as usize;
        self.heap.swap_remove(position);
        if let Some(&moved) = self.heap.get(position) {
            self.rise(position);
            self.sink(self.slots[moved.slot as usize].position as usize);
        }
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Deadline> {
        let Entry { at, why, .. } = *self.heap.first()?;
        Some(Deadline { at, why })
    }

    /// Takes the earliest timer that is due, leaving it unarmed.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<K> {
        let due = self.heap.first().filter(|entry| entry.at <= now)?.slot;
        let key = self.slots[due as usize].key;
        self.disarm(TimerId(due));
        Some(key)
    }

    /// When a timer fires; `None`: it isn't armed.
    /// When it fires.
    pub(crate) fn armed(&self, id: TimerId) -> Option<Time> {
        let position = self.slots[id.0 as usize].position;
        self.heap.get(position as usize).map(|entry| entry.at)
    }

    /// What is armed, as it lies in the heap.
    #[cfg(feature = "model")]
    pub(crate) fn heap(&self) -> impl Iterator<Item = (K, Time)> {
        self.heap.iter().map(|entry| (self.slots[entry.slot as usize].key, entry.at))
    }

    /// How many exist, armed or not.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Moves the entry at `position` up to its place. The entries between move
    /// down by one: each is written once.
    fn rise(&mut self, mut position: usize) {
        let entry = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].at <= entry.at {
                break;
            }
            self.put(position, self.heap[parent]);
            position = parent;
        }
        self.put(position, entry);
    }

    /// Moves the entry at `position` down to its place.
    fn sink(&mut self, mut position: usize) {
        let entry = self.heap[position];
        loop {
            let left = 2 * position + 1;
            let Some(mut child) = self.heap.get(left).copied() else { break };
            let mut place = left;
            if let Some(right) = self.heap.get(left + 1)
                && right.at < child.at
            {
                (child, place) = (*right, left + 1);
            }
            if child.at >= entry.at {
                break;
            }
            self.put(position, child);
            position = place;
        }
        self.put(position, entry);
    }

    fn put(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        self.slots[entry.slot as usize].position = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::{TimerId, Timers};
    use crate::boundary::Wakeup;
    use crate::time::Time;
    use alloc::vec::Vec;

    fn drain(timers: &mut Timers<u32>, now: u64) -> Vec<u32> {
        core::iter::from_fn(|| timers.pop_due(Time::from_nanos(now))).collect()
    }

    #[test]
    fn timers_fire_in_order_of_their_deadlines_after_any_changes() {
        let mut timers = Timers::default();
        let ids: Vec<TimerId> = (0..200).map(|key| timers.insert(key)).collect();
        // A fixed scramble: every number below 211 once, the prime keeps it even.
        for (key, id) in ids.iter().enumerate() {
            timers.arm(*id, Time::from_nanos(key as u64 * 97 % 211), Wakeup::Session);
        }
        for id in ids.iter().step_by(3) {
            timers.disarm(*id);
        }
        for id in ids.iter().skip(1).step_by(3) {
            timers.arm(*id, Time::from_nanos(500), Wakeup::Session);
        }
        let early: Vec<u64> = drain(&mut timers, 499).iter().map(|key| u64::from(*key) * 97 % 211).collect();
        assert_eq!(early.len(), 66);
        assert!(early.is_sorted());
        assert_eq!(drain(&mut timers, 500).len(), 67);
        assert_eq!(timers.next(), None);
    }

    /// What a set of timers owes, without an order of its own.
    #[test]
    fn any_calls_leave_the_deadlines_that_were_asked_for() {
        let mut timers = Timers::default();
        let mut owed: Vec<(TimerId, u32, Option<u64>)> = Vec::new();
        let mut state = 1u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for step in 0..5000u32 {
            let at = draw(500);
            let chosen = draw(owed.len().max(1) as u64) as usize;
            match (draw(10), owed.get_mut(chosen)) {
                (0 | 1, _) | (_, None) => owed.push((timers.insert(step), step, None)),
                (2, Some((id, ..))) => {
                    timers.remove(*id);
                    owed.swap_remove(chosen);
                }
                (3, Some((id, _, due))) => {
                    timers.disarm(*id);
                    *due = None;
                }
                (4 | 5, Some((id, _, due))) => {
                    timers.arm_by(*id, Time::from_nanos(at), Wakeup::Session);
                    *due = Some(due.map_or(at, |before| before.min(at)));
                }
                (6, _) => {
                    let popped = timers.pop_due(Time::from_nanos(at / 8));
                    let earliest = owed.iter().filter_map(|(.., due)| *due).min();
                    assert_eq!(popped.is_some(), earliest.is_some_and(|earliest| earliest <= at / 8));
                    if let Some(key) = popped {
                        let (.., due) = owed.iter_mut().find(|(_, other, _)| *other == key).unwrap();
                        assert_eq!(due.take(), earliest);
                    }
                }
                (_, Some((id, _, due))) => {
                    timers.arm(*id, Time::from_nanos(at), Wakeup::Session);
                    *due = Some(at);
                }
            }
            let earliest = owed.iter().filter_map(|(.., due)| *due).min().map(Time::from_nanos);
            assert_eq!(timers.next().map(|next| next.at), earliest, "after step {step}");
            assert_eq!(timers.len(), owed.len());
        }
        assert!(owed.len() > 100, "{} timers try no depth", owed.len());
    }

    #[test]
    fn a_deadline_keeps_its_latest_reason() {
        let mut timers = Timers::default();
        let id = timers.insert(7);
        timers.arm(id, Time::from_nanos(10), Wakeup::Session);
        timers.arm_by(id, Time::from_nanos(10), Wakeup::Handshake);
        assert_eq!(timers.next().map(|next| next.why), Some(Wakeup::Session));
        timers.arm(id, Time::from_nanos(10), Wakeup::Handshake);
        assert_eq!(timers.next().map(|next| next.why), Some(Wakeup::Handshake));
    }

    #[test]
    fn arm_by_keeps_an_earlier_deadline() {
        let mut timers = Timers::default();
        let id = timers.insert(7);
        timers.arm_by(id, Time::from_nanos(10), Wakeup::Session);
        timers.arm_by(id, Time::from_nanos(20), Wakeup::Session);
        assert_eq!(drain(&mut timers, 10), [7]);
        assert!(drain(&mut timers, 100).is_empty());
        timers.remove(id);
        assert_eq!(timers.len(), 0);
    }
}
