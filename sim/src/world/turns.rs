//! A process gets its turn.

use std::time::Duration;

use castra_core::boundary::Engine;
use castra_driver::net::Net;
use castra_driver::shell::{Next, Shell};

use super::{Body, Todo, World};
use crate::boundary::BOUNDARY;
use crate::chronicle::MarkKind;
use crate::disk::SimWork;
use crate::net::{NodeId, SimNet};
use crate::watched::{Observe, Watched};
use crate::witness::BROKER;
use castra_core::time::{Now, Time};
use castra_driver::net::Ready;
use castra_driver::work::Done;

/// How long a process waits for its last bytes and lines.
const SETTLE: Duration = Duration::from_secs(1);

impl World {
    pub(super) fn turn(&mut self, node: NodeId) {
        let clocks = self.clocks();
        let mut edges = std::mem::take(&mut self.edges);
        edges.clear();
        {
            let mut hub = self.hub.borrow_mut();
            let held = &mut hub.nodes[node];
            held.stirred = false;
            std::mem::swap(&mut held.edges, &mut edges);
        }
        if node == BROKER {
            self.wake_broker(clocks);
        }
        let mut body = std::mem::replace(&mut self.processes[node].body, Body::Gone);
        let (mut ended, mut stopping) = (false, false);
        let next = match &mut body {
            Body::Gone => Next { deadline: None, more: false },
            Body::Broker(shell) => {
                let done = std::mem::take(&mut self.done);
                let next = turn(shell, clocks, &edges, &done);
                self.done = done;
                self.done.clear();
                ended = shell.settled();
                stopping = shell.stopped();
                let mut witness = self.witness.borrow_mut();
                witness.at(clocks);
                witness.leftovers(shell.engine().engine.sizes(), self.hub.borrow().nodes[BROKER].open);
                next
            }
            Body::Agent(shell) => {
                self.go_on_outside(node);
                let done = self.take_done(node);
                let mut next = turn(shell, clocks, &edges, &done);
                ended = shell.settled();
                // What it asked for just now begins at once; of an end it is told in its next turn.
                let wake = self.go_on_outside(node);
                next.deadline = [next.deadline, wake].into_iter().flatten().min();
                next
            }
            Body::Script(script) => {
                let owner = self.owner(node);
                Next { deadline: script.turn(&mut self.hub.borrow_mut(), owner), more: false }
            }
            Body::Command(command) => {
                let owner = self.owner(node);
                let calm = self.calm.filter(|_| !self.plan.small_tables);
                let mut witness = self.witness.borrow_mut();
                witness.at(clocks);
                let wake = command.turn(&mut self.hub.borrow_mut(), owner, &mut witness, calm);
                ended = command.over;
                Next { deadline: wake, more: false }
            }
            Body::Task(task) => {
                let owner = self.owner(node);
                let calm = self.calm_for(node);
                let mut witness = self.witness.borrow_mut();
                witness.at(clocks);
                let wake = task.turn(&mut self.hub.borrow_mut(), owner, &mut witness, calm);
                ended = task.over;
                Next { deadline: wake, more: false }
            }
            Body::StandIn(manager) => {
                Next { deadline: manager.turn(&mut self.hub.borrow_mut(), node), more: false }
            }
            Body::Errand(errand) => {
                let owner = self.owner(node);
                let calm = self.calm_for(node);
                let mut witness = self.witness.borrow_mut();
                witness.at(clocks);
                let wake = errand.turn(&mut self.hub.borrow_mut(), owner, &mut witness, calm);
                ended = errand.over;
                Next { deadline: wake, more: false }
            }
        };
        self.edges = edges;
        self.listen_in(clocks);
        if ended {
            drop(body);
            self.hub.borrow_mut().hang_up(node);
            self.schedule[node].wake = Time::MAX;
            self.mark(Some(node), None, MarkKind::End, "leaves");
            if node == BROKER {
                self.broker_ended();
            } else if self.processes[node].guest.is_some() {
                let owner = self.owner(node);
                self.mark(Some(node), None, MarkKind::End, "ends");
                self.close_inbox(node);
                self.close_outside(node);
                self.stopped(owner);
                if self.peaceful {
                    // Told to leave before the faults ended, and started again like everybody.
                    self.later(self.now, Todo::Boot(node));
                }
            }
            return;
        }
        if stopping && !std::mem::replace(&mut self.processes[node].stopping, true) {
            // Whatever is still unwritten, the process doesn't wait longer for it.
            let life = self.owner(node).life;
            self.later(self.now + SETTLE, Todo::Drained(life));
        }
        self.processes[node].body = body;
        self.schedule[node].wake = if next.more { self.now } else { next.deadline.unwrap_or(Time::MAX) };
        if node == BROKER {
            self.watch_expiries();
        }
    }

    /// What leaves on a stream is what was said.
    fn listen_in(&self, now: Now) {
        if let Some((node, conn)) = self.hub.borrow_mut().garbled.take() {
            let (name, _) = self.introduce(node);
            let mut witness = self.witness.borrow_mut();
            witness.at(now);
            witness.blame(BOUNDARY, None, format!("{name}: not what the engine said leaves on {conn:?}"));
        }
    }

    pub(super) fn wake_broker(&self, now: Now) {
        let threshold = Duration::from_secs(1).max(self.plan.interval() / 2);
        let slumber = &mut self.witness.borrow_mut().truth.broker;
        slumber.wakes(now.boot, threshold, self.plan.interval());
        if self.now < self.suspended_until {
            // The last thing that it does before the host sleeps.
            slumber.sleeps(now.boot);
        }
    }

    /// A look at the broker although nothing happened: time alone changes verdicts.
    pub(super) fn look(&mut self) {
        let clocks = self.clocks();
        let Body::Broker(shell) = &mut self.processes[BROKER].body else { return };
        shell.engine().look(clocks);
    }

    /// A look at the first moment at which each guest's newest proof is too old.
    fn watch_expiries(&mut self) {
        for guest in 0..self.plan.guests.len() {
            let expiry = self.witness.borrow_mut().unwatched_expiry(guest);
            if let Some(at) = expiry {
                self.later(at.max(self.now), Todo::Expiry(guest));
            }
        }
    }

    pub(super) fn expire(&mut self, guest: usize) {
        self.look();
        let next = self.witness.borrow_mut().next_expiry(guest, self.now);
        if let Some(at) = next {
            self.later(at, Todo::Expiry(guest));
        }
    }
}

fn turn<E>(shell: &mut Shell<Watched<E>, SimNet, SimWork>, now: Now, edges: &[Ready], done: &[Done]) -> Next
where
    E: Observe,
    SimNet: Net,
    Watched<E>: Engine,
{
    let next = shell.turn(now, edges, done);
    shell.engine().settle();
    next
}
