//! The newest events, kept in memory that is allocated once.

use alloc::vec::Vec;

use crate::event::Event;

/// A ring of events numbered from 1.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    events: Vec<Event>,
    capacity: usize,
    newest: u64,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { events: Vec::with_capacity(capacity), capacity, newest: 0 }
    }

    /// The number the next event gets.
    pub(crate) const fn next_number(&self) -> u64 {
        self.newest + 1
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.newest += 1;
        let slot = self.slot(self.newest);
        if slot < self.events.len() {
            self.events[slot] = event;
        } else {
            self.events.push(event);
        }
    }

    /// The newest event's number; 0 if there was none.
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// The oldest kept event's number; one above the newest if none is kept.
    pub(crate) const fn oldest(&self) -> u64 {
        self.newest + 1 - self.events.len() as u64
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Event> {
        (self.oldest()..=self.newest).contains(&number).then(|| &self.events[self.slot(number)])
    }

    const fn slot(&self, number: u64) -> usize {
        ((number - 1) % self.capacity as u64) as usize
    }
}
