//! A stream between an agent and the broker: bytes arrive in order, late or never.

use std::collections::VecDeque;

use castra_core::id::ConnId;
use castra_core::time::Time;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The other end closed.
    End,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    parcels: VecDeque<(Time, Parcel)>,
    /// Nothing arrives before.
    pub(crate) held_until: Time,
}

impl Lane {
    /// Puts a parcel on its way; a stream keeps its order.
    pub(crate) fn push(&mut self, arrives: Time, parcel: Parcel) {
        let last = self.parcels.back().map_or(Time::ZERO, |(at, _)| *at);
        self.parcels.push_back((arrives.max(last), parcel));
    }

    /// When the next parcel arrives.
    pub(crate) fn next(&self) -> Option<Time> {
        self.parcels.front().map(|(at, _)| (*at).max(self.held_until))
    }

    /// Takes the parcel that has arrived.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Parcel> {
        if self.next()? > now {
            return None;
        }
        self.parcels.pop_front().map(|(_, parcel)| parcel)
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Its id at the broker and at the agent.
    pub(crate) id: ConnId,
    /// Which guest dialled it.
    pub(crate) guest: usize,
    /// Which life of that guest.
    pub(crate) life: u32,
    /// Which life of the broker accepted it.
    pub(crate) broker_life: u32,
    pub(crate) to_broker: Lane,
    pub(crate) to_guest: Lane,
}
