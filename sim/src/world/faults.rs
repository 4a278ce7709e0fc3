//! What goes wrong.

use std::time::Duration;

use castra_core::time::Time;

use super::{Body, Todo, World, birth};
use crate::choice::Choice;
use crate::chronicle::MarkKind;
use crate::net::NodeId;
use crate::outcome::count;
use crate::plan::{Fault, FaultKind, Scope, Way};
use crate::witness::BROKER;

impl World {
    pub(super) fn inject(&mut self, index: usize) {
        if self.peaceful {
            return;
        }
        let fault = self.plan.faults[index].clone();
        // Who does not run takes no signal before it does.
        let told = match fault.kind {
            FaultKind::DrainBroker | FaultKind::Reload => Some(BROKER),
            FaultKind::Leave => Some(fault.guest + 1),
            _ => None,
        };
        let runs_again = told.map(|node| self.schedule[node].frozen_until.max(self.suspended_until));
        if let Some(at) = runs_again.filter(|at| *at > self.now) {
            return self.later(at, Todo::Fault(index));
        }
        let began = self.now;
        if self.happens(&fault) {
            count(&mut self.witness.borrow_mut().outcome.faults, fault.kind.as_str());
            let (node, lasts) = match fault.kind.scope() {
                Scope::Guest => (Some(fault.guest + 1), true),
                Scope::GuestAtOnce => (Some(fault.guest + 1), false),
                Scope::Broker => (Some(BROKER), true),
                Scope::BrokerAtOnce => (Some(BROKER), false),
                Scope::World => (None, true),
            };
            let until = lasts.then(|| began + Duration::from_millis(fault.for_ms));
            let way = if matches!(fault.kind, FaultKind::Hold | FaultKind::Partition) {
                fault.way.as_str()
            } else {
                ""
            };
            self.mark(node, until, MarkKind::from(fault.kind), format!("{}{way}", fault.kind.told()));
        }
    }

    /// False: in this state of things it can't.
    fn happens(&mut self, fault: &Fault) -> bool {
        let node = fault.guest + 1;
        let lasts = Duration::from_millis(fault.for_ms);
        let until = self.now + lasts;
        let guest_runs = !matches!(self.processes[node].body, Body::Gone);
        let broker_runs = matches!(self.processes[BROKER].body, Body::Broker(_));
        match fault.kind {
            FaultKind::Hold => self.hold(node, fault.way, until),
            FaultKind::Partition => {
                self.hub.borrow_mut().nodes[node].cut_until = until;
                self.hold(node, fault.way, until);
                true
            }
            FaultKind::Reset => self.each_end(node, |hub, end| hub.reset(end)),
            FaultKind::HalfClose => self.each_end(node, |hub, end| {
                hub.finish(if fault.way == Way::ToGuest { end.other() } else { end });
            }),
            FaultKind::Death if guest_runs => {
                self.kill_guest(node, true);
                self.later(until, Todo::Boot(node));
                true
            }
            FaultKind::Crash if guest_runs => {
                self.kill_guest(node, false);
                self.later(until, Todo::Boot(node));
                true
            }
            FaultKind::Freeze if guest_runs => {
                self.freeze(node, until);
                true
            }
            FaultKind::Leave => self.take_leave(node, until),
            FaultKind::Corrupt => {
                let to_guest = fault.way == Way::ToGuest;
                self.each_end(node, |hub, end| {
                    if let Some(end) = hub.end(if to_guest { end } else { end.other() }) {
                        end.corrupted = true;
                    }
                })
            }
            FaultKind::Twin => self.start_twin(fault.guest, until),
            FaultKind::Replug => {
                let mut hub = self.hub.borrow_mut();
                let device = hub.nodes[node].device.is_some();
                hub.replug(node);
                device
            }
            FaultKind::Suspend => {
                self.suspend(lasts);
                true
            }
            FaultKind::WallStep => {
                let step = i64::try_from(fault.for_ms).unwrap_or(0) * 1000;
                self.witness.borrow_mut().of_attach(|attach| {
                    attach.wall_was_set = true;
                    Ok(())
                });
                self.wall_offset_ms += if fault.way == Way::ToGuest { -step } else { step };
                true
            }
            FaultKind::DiskFull => {
                self.disks_of(fault).iter().for_each(|disk| disk.borrow_mut().full_until = until);
                true
            }
            FaultKind::CommitFails => {
                self.disks_of(fault).iter().for_each(|disk| disk.borrow_mut().commits_fail_until = until);
                true
            }
            FaultKind::SlowDisk => {
                self.disks_of(fault).iter().for_each(|disk| disk.borrow_mut().slow_until = until);
                true
            }
            _ if !broker_runs => false,
            _ => self.broker_fault(fault, until),
        }
    }

    fn broker_fault(&mut self, fault: &Fault, until: Time) -> bool {
        let clocks = self.clocks();
        match fault.kind {
            FaultKind::FreezeBroker => {
                self.trouble(until);
                self.freeze(BROKER, until);
            }
            FaultKind::RestartBroker => self.kill_broker(0, until),
            FaultKind::TornCommit => {
                let queued = self.disk.borrow().queued() as u32;
                let torn = self.hub.borrow_mut().chooser.0.below(queued + 1);
                self.kill_broker(torn as usize, until);
                return queued > 0;
            }
            FaultKind::LoseState => {
                self.disk.borrow_mut().lose();
                self.witness.borrow_mut().of_peers(|peers| {
                    peers.loses();
                    Ok(())
                });
                self.witness.borrow_mut().of_attach(|attach| {
                    attach.loses();
                    Ok(())
                });
                self.state_lost = true;
                self.kill_broker(0, until);
            }
            FaultKind::DrainBroker => {
                self.trouble(until + Duration::from_secs(4));
                if let Body::Broker(shell) = &mut self.processes[BROKER].body {
                    shell.drain(clocks, clocks.boot + Duration::from_secs(2));
                    shell.engine().settle();
                }
                self.hub.borrow_mut().stir(BROKER);
            }
            FaultKind::Reload => {
                let config = birth::broker_config(&self.plan);
                if let Body::Broker(shell) = &mut self.processes[BROKER].body {
                    shell.reload(clocks, Some(config));
                    shell.engine().settle();
                }
                self.hub.borrow_mut().stir(BROKER);
            }
            FaultKind::Descriptors => {
                self.trouble(until);
                let mut hub = self.hub.borrow_mut();
                let open = hub.nodes[BROKER].open;
                hub.nodes[BROKER].descriptors = Some(open);
                drop(hub);
                self.later(until, Todo::Descriptors);
            }
            _ => return false,
        }
        true
    }

    /// Something keeps the broker from answering until then.
    pub(super) fn trouble(&mut self, until: Time) {
        self.troubles += 1;
        self.calm = None;
        self.later(until, Todo::Calm);
    }

    pub(super) fn calm_down(&mut self) {
        self.troubles -= 1;
        if self.troubles == 0 {
            self.calm = Some(self.now);
        }
    }

    /// The guest's agent is told to stop, and started again later.
    fn take_leave(&mut self, node: NodeId, until: Time) -> bool {
        let clocks = self.clocks();
        let Body::Agent(shell) = &mut self.processes[node].body else { return false };
        shell.drain(clocks, clocks.boot + Duration::from_secs(2));
        shell.engine().settle();
        self.processes[node].steady = Time::MAX;
        self.hub.borrow_mut().stir(node);
        self.later(until.max(self.now + Duration::from_secs(3)), Todo::Boot(node));
        true
    }

    fn hold(&self, node: NodeId, way: Way, until: Time) -> bool {
        self.each_end(node, |hub, end| {
            if way != Way::ToGuest {
                hub.hold(end.other(), until);
            }
            if way != Way::ToBroker {
                hub.hold(end, until);
            }
        })
    }

    fn each_end(&self, node: NodeId, mut act: impl FnMut(&mut crate::net::Hub, crate::net::EndId)) -> bool {
        let mut hub = self.hub.borrow_mut();
        // Processes on the same machine go on talking to each other.
        let mut ends = hub.ends_of(node);
        ends.retain(|end| end.side == 0);
        for end in &ends {
            act(&mut hub, *end);
        }
        !ends.is_empty()
    }

    pub(super) fn kill_guest(&mut self, node: NodeId, silently: bool) {
        let owner = self.owner(node);
        self.processes[node].body = Body::Gone;
        self.schedule[node].wake = Time::MAX;
        self.close_inbox(node);
        self.close_outside(node);
        if silently {
            self.end_insiders(node);
        }
        let mut hub = self.hub.borrow_mut();
        if silently {
            // Whether its machine, once it is back, disowns what it had, or the host's end just hangs.
            hub.vanish(node);
        } else {
            hub.hang_up(node);
        }
        drop(hub);
        self.mark(Some(node), None, MarkKind::End, if silently { "dies without a word" } else { "ends" });
        self.stopped(owner);
    }

    /// From now on the process doesn't run: its verdict must fall within the window.
    pub(super) fn stopped(&mut self, owner: crate::net::Owner) {
        self.witness.borrow_mut().truth.stopped(owner, self.now);
        self.later(self.now + self.plan.window() + Duration::from_nanos(1), Todo::Look);
    }

    fn freeze(&mut self, node: NodeId, until: Time) {
        let owner = self.owner(node);
        self.schedule[node].frozen_until = self.schedule[node].frozen_until.max(until);
        self.processes[node].steady = self.schedule[node].frozen_until;
        if node == BROKER {
            self.witness.borrow_mut().truth.broker.sleeps(self.now);
        } else {
            self.stopped(owner);
        }
        self.later(until, Todo::Thaw(node));
    }

    pub(super) fn thaw(&self, node: NodeId) {
        if self.schedule[node].frozen_until <= self.now && !matches!(self.processes[node].body, Body::Gone) {
            let owner = self.owner(node);
            self.witness.borrow_mut().truth.resumed(owner);
            if node == BROKER {
                // Though it may have nothing to do for long.
                self.wake_broker(self.clocks());
            }
        }
    }

    fn suspend(&mut self, lasts: Duration) {
        self.trouble(self.now + lasts);
        self.witness.borrow_mut().truth.broker.sleeps(self.now);
        self.suspended += lasts;
        self.suspended_until = self.now + lasts;
        // Guests are on this host, too.
        for node in 1..self.processes.len() {
            if self.schedule[node].frozen_until <= self.now
                && !matches!(self.processes[node].body, Body::Gone)
            {
                self.freeze(node, self.suspended_until);
            }
        }
    }

    fn start_twin(&mut self, guest: usize, until: Time) -> bool {
        let original = guest + 1;
        if !matches!(self.processes[original].body, Body::Agent(_)) {
            return false;
        }
        let node = self.add(Some(guest), true);
        self.processes[node].key = self.processes[original].key.clone();
        self.add_inbox(node, guest, Some(original));
        let life = self.hub.borrow().nodes[original].life;
        self.hub.borrow_mut().nodes[node].life = life - 1;
        self.enrol(node);
        self.boot(node);
        self.later(until, Todo::EndTwin(node));
        true
    }

    pub(super) fn end_twin(&mut self, node: NodeId) {
        if !matches!(self.processes[node].body, Body::Gone) {
            self.kill_guest(node, false);
        }
    }

    pub(super) fn drained(&mut self, life: u32) {
        if self.owner(BROKER).life == life && matches!(self.processes[BROKER].body, Body::Broker(_)) {
            self.end_broker(0);
            self.broker_ended();
        }
    }

    fn kill_broker(&mut self, torn: usize, until: Time) {
        self.trouble(until);
        self.end_broker(torn);
        self.later(until, Todo::Boot(BROKER));
    }

    pub(super) fn end_broker(&mut self, torn: usize) {
        self.processes[BROKER].body = Body::Gone;
        self.schedule[BROKER].wake = Time::MAX;
        self.hub.borrow_mut().hang_up(BROKER);
        self.disk.borrow_mut().kill(torn);
        self.collect_mail();
        self.mark(Some(BROKER), None, MarkKind::End, "ends");
        self.broker_left();
    }

    /// The broker ended by itself: its supervisor starts it again.
    pub(super) fn broker_ended(&mut self) {
        let again = self.now + Duration::from_secs(1);
        // Of what it had still to write, some was on the disk already.
        let queued = self.disk.borrow().queued() as u32;
        let written = self.hub.borrow_mut().chooser.0.below(queued + 1);
        self.disk.borrow_mut().kill(written as usize);
        self.collect_mail();
        self.trouble(again);
        self.broker_left();
        self.later(again, Todo::Boot(BROKER));
    }

    /// The broker's process is over; whatever it knew of reachability is, too.
    pub(super) fn broker_left(&mut self) {
        self.done.clear();
        // No worker outlives its process.
        self.disk.borrow_mut().kill(0);
        let (lost, clocks) = (self.state_lost, self.clocks());
        self.witness.borrow_mut().broker_restarted(clocks, lost);
    }
}
