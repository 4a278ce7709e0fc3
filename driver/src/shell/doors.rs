//! The listeners: batches, credit, and what to do when descriptors run out.

use std::io;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use castra_core::boundary::Via;
use castra_core::time::Time;

use crate::net::ListenerId;

/// Most connections taken from one listener per turn.
pub(super) const BATCH: usize = 16;
/// How long a listener rests after an error that trying again at once can't cure.
const REST: Duration = Duration::from_millis(100);
/// Connections kept free for local clients, so that a flood of links never
/// keeps a person from asking what is going on.
const CONTROL_RESERVE: usize = 32;

#[derive(Debug)]
pub(crate) struct Doors {
    doors: Vec<Door>,
    connections_max: usize,
    /// Connections the engine takes per turn.
    pub(crate) link_credit: usize,
    pub(crate) control_credit: usize,
    pub(crate) terminal_credit: usize,
    pub(crate) manager_credit: usize,
    #[cfg(feature = "planted")]
    pub(crate) planted: Option<castra_core::planted::Bug>,
}

#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) id: ListenerId,
    pub(crate) via: Via,
    /// An edge was told and nobody found that nobody waits.
    pub(crate) ready: bool,
    rests_until: Option<Time>,
    failing: bool,
    closed: bool,
    /// Taken in this turn.
    taken: usize,
}

/// What an error on accept means.
pub(crate) enum Trouble {
    /// Nobody waits. `again`: the door had been failing. The kernel looks for a descriptor
    /// first, so there is one.
    Empty { again: bool },
    /// That one is gone; the next may be there.
    Next,
    /// Out of descriptors or memory, or worse. `first`: it went well before.
    Rest { first: bool },
}

impl Doors {
    pub(crate) fn new(doors: &[(ListenerId, Via)], connections_max: usize) -> Self {
        let doors = doors
            .iter()
            .map(|&(id, via)| Door {
                id,
                via,
                ready: true,
                rests_until: None,
                failing: false,
                closed: false,
                taken: 0,
            })
            .collect();
        Self {
            doors,
            connections_max,
            link_credit: usize::MAX,
            control_credit: usize::MAX,
            terminal_credit: usize::MAX,
            manager_credit: usize::MAX,
            #[cfg(feature = "planted")]
            planted: None,
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.doors.len()
    }

    pub(crate) fn notice(&mut self, listener: ListenerId) {
        for door in self.doors.iter_mut().filter(|door| door.id == listener) {
            door.ready = true;
        }
    }

    pub(crate) fn begin_turn(&mut self, now: Time) {
        for door in &mut self.doors {
            door.taken = 0;
            if door.rests_until.is_some_and(|until| until <= now) {
                door.rests_until = None;
            }
        }
    }

    /// The door, if one more connection may be taken through it in this turn.
    pub(crate) fn may_accept(&self, index: usize, counts: (usize, usize)) -> Option<(ListenerId, Via)> {
        let door = &self.doors[index];
        if !self.is_open(door, counts) || door.taken >= BATCH {
            return None;
        }
        let alike = |other: &&Door| kind(other) == kind(door);
        let taken: usize = self.doors.iter().filter(alike).map(|other| other.taken).sum();
        (taken < self.credit(door)).then_some((door.id, door.via))
    }

    /// Whether somebody may be waiting whom the next turn can take.
    pub(crate) fn has_more(&self, counts: (usize, usize)) -> bool {
        self.doors.iter().any(|door| self.is_open(door, counts))
    }

    /// When the first resting door opens again.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.doors.iter().filter(|door| door.ready && !door.closed).filter_map(|door| door.rests_until).min()
    }

    /// A connection was taken. That is no end of a failure: it may have had the last descriptor.
    pub(crate) fn accepted(&mut self, index: usize) {
        self.doors[index].taken += 1;
    }

    /// Accepting failed.
    pub(crate) fn failed(&mut self, index: usize, now: Time, error: &io::Error) -> Trouble {
        let door = &mut self.doors[index];
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                door.ready = false;
                Trouble::Empty { again: std::mem::take(&mut door.failing) }
            }
            // accept(2): errors of the connection that is no more.
            io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => {
                door.taken += 1;
                Trouble::Next
            }
            _ => {
                door.closed = planted!(self, AcceptEndsOnEmfile);
                door.rests_until = Some(now + REST);
                Trouble::Rest { first: !std::mem::replace(&mut door.failing, true) }
            }
        }
    }

    /// Closes the doors that lead in from elsewhere; yields their listeners.
    pub(crate) fn close_links(&mut self) -> impl Iterator<Item = ListenerId> + '_ {
        self.doors.iter_mut().filter(|door| is_link(door) && !door.closed).map(|door| {
            door.closed = true;
            door.id
        })
    }

    fn is_open(&self, door: &Door, (links, controls): (usize, usize)) -> bool {
        let most = if is_link(door) {
            self.connections_max.saturating_sub(CONTROL_RESERVE.min(self.connections_max / 8))
        } else {
            self.connections_max
        };
        door.ready
            && !door.closed
            && door.rests_until.is_none()
            && self.credit(door) > 0
            && links + controls < most
    }

    const fn credit(&self, door: &Door) -> usize {
        match door.via {
            Via::Link(_) => self.link_credit,
            Via::Control => self.control_credit,
            Via::Terminals => self.terminal_credit,
            Via::Manager => self.manager_credit,
        }
    }
}

/// Doors of one kind share a credit, whatever carries their links.
fn kind(door: &Door) -> Discriminant<Via> {
    discriminant(&door.via)
}

/// Whether it leads in from elsewhere: guests' links, and the manager's clients.
const fn is_link(door: &Door) -> bool {
    matches!(door.via, Via::Link(_) | Via::Manager)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_come_one_at_a_time_are_one_failure_until_nobody_waits() {
        let mut doors = Doors::new(&[(ListenerId(0), Via::Control)], 100);
        let error = || io::Error::from_raw_os_error(24);
        let first = |doors: &mut Doors| {
            matches!(doors.failed(0, Time::ZERO, &error()), Trouble::Rest { first: true })
        };
        assert!(first(&mut doors), "it is said");
        for _ in 0..3 {
            // Somebody left, somebody took the place, and there is none for the next.
            doors.accepted(0);
            assert!(!first(&mut doors), "not again");
        }
        let empty = io::Error::from(io::ErrorKind::WouldBlock);
        assert!(matches!(doors.failed(0, Time::ZERO, &empty), Trouble::Empty { again: true }));
        assert!(first(&mut doors), "the next one is said");
    }
}
