//! Managed attach in a world: who listens where, what is configured, and what agents
//! have done outside of themselves.

pub(super) mod stand_in;
pub(super) mod tasks;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use castra_core::attach::{AttachSettings, Hint, ManagerSettings, ManagerUrl, Origin};
use castra_core::config::AgentConfig;
use castra_core::id::GuestName;
use castra_core::time::Time;
use castra_driver::net::ListenerId;

use super::{Body, World, birth, name};
use crate::chronicle::MarkKind;
use crate::net::{Door as Listener, NodeId};
use crate::outcome::count;
use crate::outside::Outside;
use crate::plan::attach::{Attach, Door, Task};
use crate::plan::{GuestKind, Plan};
use crate::violation::Violation;
use crate::witness::attach::Managing;
use crate::witness::{BROKER, number};
use stand_in::StandIn;
use tasks::Tasking;

/// Where the broker listens as a manager, and where the other manager does.
pub(super) const MANAGER: Listener = ListenerId(5);
const OTHER: Listener = ListenerId(1);

/// Their addresses: as the operator says it, as links are accepted, and the other one's.
const ADVERTISED: &str = "http://broker.test:7171";
const ACCEPTED: &str = "http://127.0.0.1:7171";
const OTHERS: &str = "http://manager.test:9000";

/// The broker as a manager.
pub(super) fn manager_settings(plan: &Plan) -> ManagerSettings {
    let Some(attach) = &plan.attach else { return ManagerSettings::default() };
    let settings = ManagerSettings {
        http: (attach.door != Door::Link).then(|| ([0, 0, 0, 0], 7171).into()),
        advertise: (attach.door == Door::Advertised).then(|| url(ADVERTISED)),
        code_ttl: Duration::from_millis(attach.code_ms),
        lease_ttl: Duration::from_millis(attach.lease_ms),
        poll_max: Duration::from_millis(attach.poll_ms),
        // A connection whose end was lost is gone before the peace is over.
        idle_timeout: Duration::from_secs(10),
        ..ManagerSettings::default()
    };
    match plan.small_tables {
        true => ManagerSettings { queue_max: 3, in_flight_max: 1, attachments_max: 2, ..settings },
        false => settings,
    }
}

/// The agent of a guest.
fn attach_settings(attach: &Attach, guest: usize) -> AttachSettings {
    let hint = hint(attach, guest);
    AttachSettings {
        managers: hint.iter().map(|hint| hint.manager.clone()).collect(),
        hint,
        request_timeout: Duration::from_millis(attach.request_ms),
        poll_timeout: Duration::from_millis(attach.poll_ms) + Duration::from_secs(5),
        ..AttachSettings::default()
    }
}

/// What a guest's environment says.
pub(super) fn hint(attach: &Attach, guest: usize) -> Option<Hint> {
    let hinted = attach.guests.get(guest).is_some_and(|managed| managed.hinted);
    hinted.then(|| Hint {
        manager: url(OTHERS),
        beach: text("others-beach"),
        code: text(&format!("others-code-{guest}")),
        token: text(&format!("others-token-{guest}")),
    })
}

fn url(address: &str) -> ManagerUrl {
    text(address)
}

fn text<T: std::str::FromStr>(text: &str) -> T {
    match text.parse() {
        Ok(parsed) => parsed,
        Err(_) => unreachable!("it is one"),
    }
}

impl World {
    /// What managed attach needs before anything runs.
    pub(super) fn prepare_managing(&mut self) {
        let Some(attach) = &self.plan.attach else { return };
        self.disk.borrow_mut().attach_journal = Some(Vec::new());
        let steps = attach.steps.iter().map(|step| name(step.guest)).collect();
        let queue_max = manager_settings(&self.plan).queue_max;
        self.witness.borrow_mut().attach = Some(Box::new(Managing::new(steps, queue_max)));
        let odd = attach.odd_manager;
        let hinted = attach.guests.iter().any(|managed| managed.hinted);
        for index in 0..self.plan.attach.as_ref().map_or(0, |attach| attach.steps.len()) {
            let at = self.plan.attach.as_ref().map_or(0, |attach| attach.steps[index].at_ms);
            self.after(at, super::Todo::Step(index));
        }
        if hinted {
            let node = self.passer_by();
            self.hub.borrow_mut().nodes[node].doors = vec![(OTHER, Default::default())];
            self.processes[node].body = Body::StandIn(Box::new(StandIn::new(OTHER, odd)));
            self.other_manager = Some(node);
        }
    }

    /// An agent's configuration, and its hands and feet.
    pub(super) fn prepare_agent(&self, node: NodeId, guest: usize, config: AgentConfig) -> AgentConfig {
        let Some(attach) = &self.plan.attach else { return config };
        let Some(managed) = attach.guests.get(guest) else { return config };
        let trusting = managed.trusts || config.token.is_some();
        self.witness.borrow_mut().of_attach(|witness| {
            witness.begins(node, name(guest), trusting, hint(attach, guest));
            Ok(())
        });
        if let Some(outside) = &self.processes[node].outside {
            let origin = |address: &str| url(address).origin().cloned();
            let way = |address, node, door| origin(address).map(|origin: Origin| (origin, node, door));
            let mut outside = outside.borrow_mut();
            outside.managed = managed.clone();
            outside.routes = [
                way(ADVERTISED, BROKER, MANAGER),
                way(ACCEPTED, BROKER, MANAGER),
                self.other_manager.and_then(|other| way(OTHERS, other, OTHER)),
            ]
            .into_iter()
            .flatten()
            .collect();
        }
        AgentConfig { trust_unkeyed_broker: managed.trusts, attach: attach_settings(attach, guest), ..config }
    }

    /// What a guest's agent may have done outside; `None`: nothing.
    pub(super) fn outside(&self, guest: Option<usize>) -> Option<crate::outside::SharedOutside> {
        let agent = guest.is_some_and(|guest| self.plan.guests[guest].kind == GuestKind::Agent);
        (agent && self.plan.attach.is_some()).then(|| Rc::new(RefCell::new(Outside::default())))
    }

    /// Goes on with what an agent has done outside; says when to come back.
    pub(super) fn go_on_outside(&self, node: NodeId) -> Option<Time> {
        let outside = self.processes[node].outside.as_ref()?;
        let owner = self.owner(node);
        let mut witness = self.witness.borrow_mut();
        witness.at(self.clocks());
        outside.borrow_mut().turn(&mut self.hub.borrow_mut(), owner, &mut witness)
    }

    /// The agent's process is over.
    pub(super) fn close_outside(&self, node: NodeId) {
        let Some(outside) = &self.processes[node].outside else { return };
        let mut witness = self.witness.borrow_mut();
        witness.at(self.clocks());
        outside.borrow_mut().end(&mut self.hub.borrow_mut(), node, &mut witness);
        witness.of_attach(|attach| {
            attach.ends(node);
            Ok(())
        });
    }

    /// Takes notice of what became durable about attachments.
    pub(super) fn collect_attachments(&self) {
        let mut disk = self.disk.borrow_mut();
        let Some(journal) = disk.attach_journal.as_mut().filter(|journal| !journal.is_empty()) else {
            return;
        };
        let changes = std::mem::take(journal);
        let mut witness = self.witness.borrow_mut();
        witness.at(self.clocks());
        changes.iter().for_each(|change| witness.of_attach(|attach| attach.durable(change)));
    }

    /// Somebody does something about managed attach.
    pub(super) fn start_step(&mut self, index: usize) {
        let Some(step) = self.plan.attach.as_ref().map(|attach| attach.steps[index].clone()) else { return };
        let agent = (step.task == Task::Look).then_some(step.guest + 1);
        if agent.is_some_and(|node| !self.hub.borrow().nodes[node].exists) {
            return;
        }
        let node = self.passer_by();
        count(&mut self.witness.borrow_mut().outcome.steps, step.task.as_str());
        self.processes[node].inside = agent;
        let tasking = Tasking::new(step, index, agent, self.now);
        self.processes[node].body = Body::Task(Box::new(tasking));
        self.enrol(node);
        self.mark(Some(node), None, MarkKind::Start, "asks");
    }

    /// L3 for attachments: whoever is adopted, is there and trusts its broker is attached,
    /// and nothing waits for it.
    pub(super) fn attach_all(&mut self) -> Result<(), Violation> {
        let Some(attach) = self.plan.attach.as_ref() else { return Ok(()) };
        if self.plan.small_tables && attach.door != Door::Link {
            // There is not a connection for everybody.
            return Ok(());
        }
        let latency = self.plan.network.latency_max_us / 1000;
        if attach.code_ms.min(attach.request_ms) < latency * 20 {
            // No code and no request lives long enough.
            return Ok(());
        }
        let settings = attach_settings(attach, 0);
        let attempts = (settings.request_timeout + settings.backoff_most * 2) * settings.attempts_max;
        let pause = Duration::from_millis(attach.code_ms) + attempts * 2 + self.plan.window() * 2;
        let (mut until, mut left) = (self.now + pause, usize::MAX);
        while let Some((count, text)) = self.unattached() {
            if count < left {
                (until, left) = (self.now + pause, count);
            }
            if self.now >= until {
                let mut witness = self.witness.borrow_mut();
                witness.at(self.clocks());
                witness.blame("L3", None, text);
                return witness.violation.take().map_or(Ok(()), Err);
            }
            self.run_until((self.now + Duration::from_secs(1)).min(until))?;
        }
        Ok(())
    }

    fn unattached(&self) -> Option<(usize, String)> {
        let witness = self.witness.borrow();
        let takes = |guest: &GuestName| {
            let guest = number(guest)?;
            let agent = self.plan.guests.get(guest)?.kind == GuestKind::Agent;
            (agent && self.is_core(guest) && self.keeps_sessions()).then_some(guest + 1)
        };
        witness.attach.as_ref()?.owed(takes)
    }

    /// The broker's listeners.
    pub(super) fn manager_listens(&self) -> bool {
        birth::broker_config(&self.plan).manager.http.is_some()
    }
}
