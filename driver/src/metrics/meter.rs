//! The loop's side: what happens is counted, and who asks is answered between two turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use castra_core::Broker;
use castra_core::boundary::Remote;
use castra_core::config::BrokerConfig;
use castra_core::event::{Event, Fact};
use castra_core::id::GuestName;
use castra_core::time::Time;
use castra_core::trace::Recorded;

use super::desk::{Alive, Desk, Wish};
use super::numbers::Numbers;
use super::snapshot::{Bounds, Snapshot};
use crate::clock;
use crate::mio_net::MioNet;
use crate::service::{Turn, Watcher};
use crate::shell::Shell;
use crate::threads::ThreadWork;

/// Guests that are looked at between two turns: some hundred microseconds.
const SLICE: usize = 128;

/// Most handshakes whose beginning is remembered. There are no more at once than
/// half-open connections, so the bound is for what ends without a word.
const HANDSHAKES_MAX: usize = 65_536;

/// Counts, and answers. Dropped, it lets go of everybody who waits.
#[derive(Debug)]
pub(crate) struct Meter {
    numbers: Numbers,
    desk: Arc<Desk>,
    guests_max: usize,
    connections_max: usize,
    bounds: Bounds,
    draining: bool,
    handshakes: HashMap<(GuestName, Remote), Time>,
    walk: Option<Walk>,
    /// Who asked while a walk was under way: it began before they did.
    next: Vec<SyncSender<Arc<Snapshot>>>,
}

/// A snapshot that is being taken.
#[derive(Debug)]
struct Walk {
    snapshot: Snapshot,
    last: Option<GuestName>,
    for_whom: Vec<SyncSender<Arc<Snapshot>>>,
}

impl Meter {
    /// Nothing has happened yet.
    pub(crate) fn new(
        desk: Arc<Desk>,
        guests_max: usize,
        connections_max: usize,
        config: &BrokerConfig,
    ) -> Self {
        Self {
            numbers: Numbers::new(),
            desk,
            guests_max,
            connections_max,
            bounds: Bounds::of(config),
            draining: false,
            handshakes: HashMap::new(),
            walk: None,
            next: Vec::new(),
        }
    }

    /// How long a handshake took, from its hello.
    fn time_handshake(&mut self, now: Time, event: &Event) {
        let Some(guest) = event.guest else { return };
        match &event.fact {
            Fact::HandshakeStart { remote, .. } => {
                if self.handshakes.len() >= HANDSHAKES_MAX {
                    self.handshakes.clear();
                }
                self.handshakes.insert((guest, *remote), now);
            }
            Fact::HandshakeSuccess { remote, .. } => {
                if let Some(began) = self.handshakes.remove(&(guest, *remote)) {
                    self.numbers.handshake(now.since(began));
                }
            }
            Fact::HandshakeFailure { remote, .. } => drop(self.handshakes.remove(&(guest, *remote))),
            _ => {}
        }
    }

    /// Answers whoever only wants to know that the loop turns, and notes the others.
    fn hear(&mut self) {
        for wish in self.desk.take() {
            match wish {
                // Whoever gave up meanwhile has no ear left.
                Wish::Alive(sender) => drop(sender.try_send(Alive { draining: self.draining })),
                Wish::Snapshot(sender) => self.next.push(sender),
            }
        }
    }

    /// Goes on with a snapshot by one slice; true: there is more to do.
    fn step(&mut self, shell: &mut Shell<Recorded<Broker>, MioNet, ThreadWork>) -> bool {
        if self.walk.is_none() && !self.next.is_empty() {
            let for_whom = std::mem::take(&mut self.next);
            let snapshot = Snapshot::begin(self.guests_max > 0);
            self.walk = Some(Walk { snapshot, last: None, for_whom });
        }
        let Some(walk) = &mut self.walk else { return false };
        let (mut count, mut last) = (0, None);
        let broker = shell.engine().engine();
        for status in broker.status_after(clock::now(), walk.last.as_ref()).take(SLICE) {
            walk.snapshot.add(&status, self.guests_max);
            (count, last) = (count + 1, Some(status.name));
        }
        if count == SLICE {
            walk.last = last;
            return true;
        }
        if let Some(Walk { mut snapshot, for_whom, .. }) = self.walk.take() {
            (snapshot.sizes, snapshot.statistics) = (broker.sizes(), broker.statistics());
            (snapshot.counters, snapshot.connections) = (shell.counters(), shell.connections());
            (snapshot.bounds, snapshot.connections_max) = (self.bounds, self.connections_max);
            snapshot.numbers = self.numbers.clone();
            if let Some(effects) = shell.work().counted() {
                snapshot.effects = effects.clone();
            }
            let snapshot = Arc::new(snapshot);
            for sender in for_whom {
                let _ = sender.try_send(Arc::clone(&snapshot));
            }
        }
        !self.next.is_empty()
    }
}

impl Watcher<Recorded<Broker>> for Meter {
    fn event(&mut self, now: Time, event: &Event) {
        self.draining |= event.fact == Fact::BrokerStopping;
        self.time_handshake(now, event);
        self.numbers.event(event);
    }

    fn configured(&mut self, config: &BrokerConfig) {
        self.bounds = Bounds::of(config);
    }

    fn turned(&mut self, shell: &mut Shell<Recorded<Broker>, MioNet, ThreadWork>) -> bool {
        self.hear();
        self.step(shell)
    }

    fn waits(&mut self, turn: Turn) {
        self.numbers.turn(turn.took, turn.late);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.desk.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::time::WallTime;

    #[test]
    fn a_loop_that_takes_leave_says_so_and_turns_all_the_same() {
        let desk = Arc::new(Desk::new(Arc::new(|| {})));
        let mut meter = Meter::new(Arc::clone(&desk), 0, 1, &BrokerConfig::default());
        let ask = |meter: &mut Meter| {
            let desk = Arc::clone(&desk);
            let asks = std::thread::spawn(move || desk.alive(std::time::Duration::from_secs(30)));
            while !asks.is_finished() {
                meter.hear();
            }
            asks.join().expect("an answer")
        };
        assert_eq!(ask(&mut meter), Some(Alive { draining: false }));
        let cursor = "1-1".parse().expect("a cursor");
        let at = WallTime::from_unix_millis(0);
        meter.event(Time::ZERO, &Event { cursor, at, guest: None, fact: Fact::BrokerStopping });
        assert_eq!(ask(&mut meter), Some(Alive { draining: true }));
    }
}
