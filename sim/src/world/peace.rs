//! The faults end for a chosen core, and last for ever for the others: does the
//! broker come to say what is true?

use std::time::Duration;

use castra_core::config::AgentConfig;
use castra_core::id::{ConnId, GuestName};
use castra_core::peers::MessageId;
use castra_core::status::State;

use super::inboxes::peer_settings;
use super::{Body, Todo, World, name};
use crate::choice::Choice;
use crate::chronicle::MarkKind;
use crate::plan::GuestKind;
use crate::violation::Violation;
use crate::witness::{BROKER, number};

impl World {
    pub(super) fn make_peace(&mut self) -> Result<(), Violation> {
        self.peaceful = true;
        self.mark(None, None, MarkKind::Note, "the faults end");
        self.heal_host();
        for node in 1..self.processes.len() {
            let Some(guest) = self.processes[node].guest else { continue };
            if self.processes[node].twin || !self.is_core(guest) {
                self.leave_behind(node);
                self.left[guest] |= !self.processes[node].twin;
            } else {
                self.heal_guest(node, guest);
            }
        }
        let began = self.now;
        let widowed = self.hub.borrow().widowed(BROKER);
        // The dead: a window, and nobody may be called reachable who is gone.
        self.run_until(began + self.plan.window() + Duration::from_millis(1))?;
        for guest in (0..self.plan.guests.len()).filter(|guest| self.left[*guest]) {
            let row = self.witness.borrow().rows[guest];
            if row.state == Some(State::Reachable) && row.proven {
                self.broken(guest, "is gone for good, and still called reachable")?;
            }
        }
        self.run_until(began + self.recovery())?;
        for guest in (0..self.plan.guests.len()).filter(|guest| self.is_core(*guest)) {
            let row = self.witness.borrow().rows[guest];
            if row.reachable_at.is_none_or(|at| at <= began) {
                let text = format!(
                    "lives and is connected, and was not reachable within {} s ({:?})",
                    self.recovery().as_secs(),
                    row.reason
                );
                self.broken(guest, &text)?;
            }
        }
        self.deliver_all()?;
        self.attach_all()?;
        self.is_tidy(&widowed)
    }

    /// P3: whoever takes messages has them, and the broker knows.
    fn deliver_all(&mut self) -> Result<(), Violation> {
        if self.witness.borrow().peers.is_none() {
            return Ok(());
        }
        // A message that found no room, or whose end could not be written, comes again.
        let pause = peer_settings(&self.plan).redelivery * 3 + Duration::from_secs(5);
        let (mut until, mut left) = (self.now + pause, usize::MAX);
        while let Some((count, id, to)) = self.owed() {
            if count < left {
                (until, left) = (self.now + pause, count);
            }
            if self.now >= until {
                let mut witness = self.witness.borrow_mut();
                witness.at(self.clocks());
                let text = format!("{id} waits for {to}, which is there and takes messages");
                witness.blame("P3", number(&to), text);
                return witness.violation.take().map_or(Ok(()), Err);
            }
            self.run_until((self.now + Duration::from_secs(1)).min(until))?;
        }
        let mut witness = self.witness.borrow_mut();
        witness.at(self.clocks());
        if self.disk.borrow().queued() == 0 {
            witness.of_peers(|peers| peers.rests());
        }
        witness.violation.take().map_or(Ok(()), Err)
    }

    /// Messages that have to be delivered yet: how many, and the first.
    fn owed(&self) -> Option<(usize, MessageId, GuestName)> {
        let witness = self.witness.borrow();
        let takes = |guest: &GuestName| number(guest).is_some_and(|guest| self.takes_mail(guest));
        let mut owed = witness.peers.as_ref()?.owed(takes);
        let (id, to) = owed.next()?;
        Some((1 + owed.count(), id, to))
    }

    /// S6: nothing is kept of those who had left when the faults ended.
    fn is_tidy(&self, widowed: &[ConnId]) -> Result<(), Violation> {
        let left = self.hub.borrow().widowed(BROKER).into_iter().find(|conn| widowed.contains(conn));
        let Some(conn) = left else { return Ok(()) };
        let peer = self.hub.borrow().peer(BROKER, conn);
        let peer = peer.map_or_else(|| "somebody".to_owned(), |peer| self.introduce(peer.node).0);
        let mut witness = self.witness.borrow_mut();
        witness.at(self.clocks());
        let text = format!("{conn:?} is kept, and its other end ({peer}) left before the faults ended");
        witness.blame("S6", None, text);
        witness.violation.take().map_or(Ok(()), Err)
    }

    /// Whether it must be reachable in the end. A boot script has no key: a name
    /// that was given a token meanwhile is not its own any more.
    pub(super) fn is_core(&self, guest: usize) -> bool {
        let plan = &self.plan.guests[guest];
        let disk = self.disk.borrow();
        let key = disk.token(&name(guest));
        let admitted = !self.plan.only_known || guest.is_multiple_of(2) || key.is_some();
        plan.core
            && !self.left[guest]
            && admitted
            && !disk.is_revoked(&name(guest))
            && match plan.kind {
                GuestKind::Agent => true,
                GuestKind::OneShot => key.is_none(),
                _ => false,
            }
    }

    /// From the end of the faults to reachable: the agent notices that its link
    /// is dead, waits its longest backoff, dials and shakes hands, with a second
    /// chance for each if the first met the last of the chaos.
    fn recovery(&self) -> Duration {
        let agent = AgentConfig::new(name(0));
        let silence = self.plan.interval() * agent.silent_intervals * 2;
        let latency = Duration::from_micros(self.plan.network.latency_max_us) * 12;
        let attempt = agent.backoff_most + agent.dial_timeout + agent.handshake_timeout;
        silence + attempt * 2 + latency + Duration::from_secs(5) + self.plan.window()
    }

    fn heal_host(&mut self) {
        let lost = std::mem::take(&mut self.state_lost);
        self.disk.borrow_mut().heal();
        self.heal_inboxes();
        {
            let mut hub = self.hub.borrow_mut();
            hub.release_all();
            hub.nodes[BROKER].descriptors = None;
        }
        for node in 0..self.processes.len() {
            self.schedule[node].frozen_until = self.now;
            self.thaw(node);
        }
        for guest in 0..self.plan.guests.len() {
            let token = self.disk.borrow().token(&name(guest)).cloned();
            let key = &mut self.processes[guest + 1].key;
            match token {
                None if lost && key.is_some() => {
                    let key = key.clone().unwrap_or_else(|| unreachable!("it has one"));
                    self.disk.borrow_mut().provision(name(guest), key);
                }
                // The operator gives everybody the token that the broker knows now.
                token => *key = token,
            }
        }
        if lost && !matches!(self.processes[BROKER].body, Body::Gone) {
            self.end_broker(0);
        }
        self.boot(BROKER);
    }

    /// Gone for good, one way or another.
    fn leave_behind(&mut self, node: usize) {
        if matches!(self.processes[node].body, Body::Gone) {
            // A reboot that was still to come must not.
            self.forget_boot(node);
            return;
        }
        let silently = self.hub.borrow_mut().chooser.0.once_in(2);
        self.kill_guest(node, silently);
        self.forget_boot(node);
    }

    fn forget_boot(&mut self, node: usize) {
        let kept = std::mem::take(&mut self.agenda);
        self.agenda = kept.into_iter().filter(|entry| entry.0.2 != Todo::Boot(node)).collect();
    }

    fn heal_guest(&mut self, node: usize, guest: usize) {
        // A token that changed reaches the guest with its next start.
        let rekeyed = self.plan.guests[guest].kind == GuestKind::Agent && self.processes[node].is_rekeyed();
        if rekeyed && !matches!(self.processes[node].body, Body::Gone) {
            self.kill_guest(node, false);
        }
        self.boot(node);
    }

    /// The operator brings a guest its new token.
    pub(super) fn hand_out_token(&mut self, guest: usize) {
        self.processes[guest + 1].key = self.disk.borrow().token(&name(guest)).cloned();
        if self.is_core(guest) {
            self.heal_guest(guest + 1, guest);
        }
    }

    fn broken(&self, guest: usize, text: &str) -> Result<(), Violation> {
        let mut witness = self.witness.borrow_mut();
        witness.at(self.clocks());
        witness.blame("L3", Some(guest), format!("guest-{guest} {text}"));
        witness.violation.take().map_or(Ok(()), Err)
    }
}
