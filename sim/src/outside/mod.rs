//! What an agent has done outside of itself, other than on its disk: HTTP requests over
//! the simulated network, and typing into its machine's terminals.

mod answer;
mod exchange;
mod typist;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use castra_core::attach::Origin;
use castra_core::boundary::{EffectError, EffectErrorKind};
use castra_core::time::Time;
use castra_driver::work::{Done, Job, JobId, Outcome};

use crate::choice::Choice;
use crate::net::{Door, EndId, Hub, NodeId, Owner};
use crate::plan::attach::Managed;
use crate::witness::Witness;

use exchange::{Exchange, Progress};
use typist::Typing;

/// Where the requests of one machine go, and what they and its terminals are doing.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// Who listens at which address.
    pub(crate) routes: Vec<(Origin, NodeId, Door)>,
    pub(crate) managed: Managed,
    submitted: VecDeque<(JobId, Job)>,
    cancelled: Vec<JobId>,
    exchanges: Vec<Exchange>,
    typing: Vec<Typing>,
    /// A connection that may be used again.
    idle: Option<(Origin, EndId)>,
    done: Vec<Done>,
}

/// Shared by an agent's workers and the world.
pub(crate) type SharedOutside = Rc<RefCell<Outside>>;

impl Outside {
    pub(crate) fn submit(&mut self, id: JobId, job: Job) {
        self.submitted.push_back((id, job));
    }

    pub(crate) fn cancel(&mut self, id: JobId) {
        self.cancelled.push(id);
    }

    /// What the agent has to be told.
    pub(crate) fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    /// The agent's process is over: what was being typed was typed, or was not.
    pub(crate) fn end(&mut self, hub: &mut Hub, node: NodeId, witness: &mut Witness) {
        for typing in std::mem::take(&mut self.typing) {
            typing.cut_off(hub, node, witness);
        }
        let (routes, managed) = (std::mem::take(&mut self.routes), self.managed.clone());
        *self = Self { routes, managed, ..Self::default() };
    }

    /// Does what can be done now; says when to come back.
    pub(crate) fn turn(&mut self, hub: &mut Hub, owner: Owner, witness: &mut Witness) -> Option<Time> {
        while let Some((id, job)) = self.submitted.pop_front() {
            self.begin(hub, owner, witness, id, job);
        }
        for id in std::mem::take(&mut self.cancelled) {
            self.withdraw(hub, owner, witness, id);
        }
        self.go_on(hub, owner, witness);
        let now = hub.now;
        for typing in self.typing.extract_if(.., |typing| typing.ends_at() <= now) {
            witness.of_attach(|attach| attach.ends_typing(owner.node));
            let (job, outcome) = typing.end(hub, owner.node, witness);
            self.done.push(Done { job, outcome });
        }
        if !self.done.is_empty() {
            hub.stir(owner.node);
        }
        let exchanges = self.exchanges.iter().map(|exchange| exchange.deadline);
        exchanges.chain(self.typing.iter().map(Typing::ends_at)).min()
    }

    fn begin(&mut self, hub: &mut Hub, owner: Owner, witness: &mut Witness, id: JobId, job: Job) {
        match job {
            Job::Http { request, patience } => {
                let end = self.way_to(hub, owner, &request.to);
                let deadline = hub.now + patience;
                self.exchanges.push(Exchange::new(id, request, deadline, end));
            }
            Job::Type { terminal, bytes, patience } => {
                witness.of_attach(|attach| attach.begins_typing(owner.node));
                self.typing.push(Typing::new(hub, &self.managed, id, &terminal, bytes, patience));
            }
            _ => {}
        }
    }

    /// A connection to whoever is at that address: the one that is idle, or a new one.
    fn way_to(&mut self, hub: &mut Hub, owner: Owner, to: &Origin) -> Option<EndId> {
        if let Some((_, end)) = self.idle.take_if(|(origin, _)| origin == to) {
            return Some(end);
        }
        let (_, node, door) = self.routes.iter().find(|(origin, ..)| origin == to)?;
        Some(hub.dial(owner, *node, *door, true))
    }

    /// The result does not matter any more.
    fn withdraw(&mut self, hub: &mut Hub, owner: Owner, witness: &mut Witness, id: JobId) {
        for exchange in self.exchanges.extract_if(.., |exchange| exchange.job == id) {
            exchange.end.into_iter().for_each(|end| hub.close(end));
            witness.of_attach(|attach| attach.has_no_answer(owner.node, id));
            let outcome = failed(EffectErrorKind::Cancelled, "cancelled");
            self.done.push(Done { job: id, outcome });
        }
        for typing in self.typing.extract_if(.., |typing| typing.job == id) {
            witness.of_attach(|attach| attach.ends_typing(owner.node));
            typing.cut_off(hub, owner.node, witness);
            let outcome = failed(EffectErrorKind::Cancelled, "cancelled");
            self.done.push(Done { job: id, outcome });
        }
    }

    fn go_on(&mut self, hub: &mut Hub, owner: Owner, witness: &mut Witness) {
        let mut at = 0;
        while let Some(exchange) = self.exchanges.get_mut(at) {
            let Some(progress) = exchange.turn(hub) else {
                at += 1;
                continue;
            };
            let exchange = self.exchanges.swap_remove(at);
            let (job, node) = (exchange.job, owner.node);
            let outcome = match progress {
                Progress::Answered { answer, reusable } => {
                    let reusable = reusable && hub.chooser.0.once_in(2);
                    match exchange.end {
                        Some(end) if reusable => {
                            let idle = (exchange.request.to.clone(), end);
                            let before = self.idle.replace(idle);
                            before.into_iter().for_each(|(_, end)| hub.close(end));
                        }
                        end => end.into_iter().for_each(|end| hub.close(end)),
                    }
                    witness
                        .of_attach(|attach| attach.is_answered(node, job, answer.status, answer.retry_after));
                    let answer::Answer { status, retry_after, body, .. } = answer;
                    Outcome::Answered { status, retry_after, body }
                }
                Progress::Failed(kind, why) => {
                    exchange.end.into_iter().for_each(|end| hub.close(end));
                    witness.of_attach(|attach| attach.has_no_answer(node, job));
                    failed(kind, why)
                }
            };
            self.done.push(Done { job, outcome });
        }
    }
}

fn failed(kind: EffectErrorKind, message: &str) -> Outcome {
    Outcome::Finished(Err(EffectError { kind, message: message.to_owned() }))
}
