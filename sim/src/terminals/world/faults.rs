//! What goes wrong.

use std::time::Duration;

use castra_core::time::Time;

use super::World;
use crate::choice::Choice;
use crate::outcome::count;
use crate::terminals::plan::{Fault, FaultKind};
use crate::terminals::witness::DAEMON;

/// How long a daemon that is told to leave has.
const DRAIN: Duration = Duration::from_secs(5);
/// Before a daemon that ended is started again, at most.
const AGAIN: Duration = Duration::from_secs(3);

impl World {
    /// Everything of the world's own that is due.
    pub(super) fn happen(&mut self) {
        while let Some(fault) = self
            .plan
            .faults
            .get(self.next_fault)
            .copied()
            .filter(|fault| !self.peaceful && self.start + Duration::from_millis(fault.at_ms) <= self.now)
        {
            self.next_fault += 1;
            if self.inject(fault) {
                count(&mut self.witness.borrow_mut().outcome.faults, fault.kind.as_str());
            }
        }
        if self.leaves_by.is_some_and(|at| at <= self.now) {
            self.kill_daemon();
        }
        if self.descriptors_until <= self.now && self.descriptors_until > Time::ZERO {
            self.descriptors_until = Time::ZERO;
            self.hub.borrow_mut().nodes[DAEMON].descriptors = None;
        }
        if self.boots_at.is_some_and(|at| at <= self.now) {
            self.boot();
        }
    }

    /// False: in this state of things it can't.
    fn inject(&mut self, fault: Fault) -> bool {
        let lasts = Duration::from_millis(fault.for_ms);
        let until = self.now + lasts;
        match fault.kind {
            FaultKind::Hold => {
                let client = &mut self.clients[fault.client];
                client.steady = client.steady.max(until);
                let mut hub = self.hub.borrow_mut();
                for end in client.ends() {
                    hub.hold(end, until);
                    hub.hold(end.other(), until);
                }
            }
            FaultKind::Reset => {
                let mut hub = self.hub.borrow_mut();
                for end in self.clients[fault.client].ends() {
                    hub.reset(end);
                }
            }
            FaultKind::KillDaemon => {
                if self.daemon.is_none() {
                    return false;
                }
                self.kill_daemon();
            }
            FaultKind::DrainDaemon => {
                let deadline = self.now + DRAIN;
                let clocks = self.clocks();
                let Some(shell) = self.daemon.as_mut().filter(|shell| !shell.stopped()) else { return false };
                if self.leaves_by.is_some() || self.now < self.frozen_until {
                    return false;
                }
                shell.drain(clocks, deadline);
                shell.engine().settle();
                self.leaves_by = Some(deadline + Duration::from_secs(2));
                self.wakes[DAEMON] = self.now;
                self.disturb(DRAIN);
            }
            FaultKind::FreezeDaemon => {
                self.frozen_until = self.frozen_until.max(until);
                self.disturb(lasts);
            }
            FaultKind::Descriptors => {
                let mut hub = self.hub.borrow_mut();
                let open = hub.nodes[DAEMON].open;
                hub.nodes[DAEMON].descriptors = Some(open);
                drop(hub);
                self.descriptors_until = until;
                self.disturb(lasts + Duration::from_millis(100));
            }
            FaultKind::KillHolder => self.host.borrow_mut().holder_dies(),
            FaultKind::Reboot => {
                self.host.borrow_mut().holder_dies();
                self.kill_daemon();
                self.host.borrow_mut().reboot();
            }
            FaultKind::CommitFails => {
                self.host.borrow_mut().journal.fails_until = until;
                self.disturb(lasts);
            }
            FaultKind::SlowDisk => {
                self.host.borrow_mut().journal.slow_until = until;
                self.disturb(lasts + Duration::from_secs(5));
            }
            FaultKind::SlowHost => {
                self.host.borrow_mut().slow_until = until;
                self.disturb(lasts + Duration::from_secs(12));
            }
        }
        true
    }

    /// The daemon is gone, and is started again.
    pub(super) fn kill_daemon(&mut self) {
        if self.daemon.take().is_some() {
            self.daemon_ended();
        }
    }

    pub(super) fn daemon_ended(&mut self) {
        self.host.borrow_mut().daemon_dies();
        self.hub.borrow_mut().hang_up(DAEMON);
        self.done.clear();
        self.leaves_by = None;
        let rest = if self.peaceful { Duration::ZERO } else { self.hub.borrow_mut().chooser.0.span(AGAIN) };
        self.boots_at = Some(self.now + rest);
        self.disturb(rest);
    }
}
