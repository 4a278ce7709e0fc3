//! Agents that take part in peers' life, and what they keep.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use castra_core::config::AgentConfig;
use castra_core::id::GuestName;
use castra_core::peers::{InboxSettings, PeerSettings, Policy};
use castra_core::time::Time;
use castra_driver::work::Done;

use super::errands::Errand;
use super::{Body, World, name};
use crate::choice::Choice;
use crate::chronicle::MarkKind;
use crate::disk::Disk;
use crate::net::NodeId;
use crate::outcome::count;
use crate::plan::{By, Fault, Plan, Way};

/// An agent's disk, which outlives its lives.
#[derive(Debug)]
pub(super) struct InboxDisk {
    pub(super) node: NodeId,
    pub(super) disk: Rc<RefCell<Disk>>,
    /// Work that ended, and of which the agent was not told.
    pub(super) done: Vec<Done>,
}

/// The bounds of peers and their messages. Small in some, so that they are met.
pub(super) fn peer_settings(plan: &Plan) -> PeerSettings {
    if !plan.small_tables {
        return PeerSettings::default();
    }
    PeerSettings {
        peers_max: 2,
        registrations_per_minute: 4,
        operations_max: 2,
        queue_messages: 3,
        queue_bytes: 4096,
        message_ttl: Duration::from_secs(20),
        history_messages: 1,
        mail_bytes_max: 16_384,
        unacknowledged_max: 2,
        redelivery: Duration::from_secs(3),
        ..PeerSettings::default()
    }
}

/// How long an agent remembers ids: longer than all that clocks are set by in a world.
const REMEMBER: Duration = Duration::from_secs(400 * 24 * 3600);

impl World {
    /// What an agent is told to do about peers in its life number `life`.
    pub(super) fn inbox_settings(&self, guest: usize, life: u32) -> Option<InboxSettings> {
        let inbox = self.plan.guests[guest].inbox.as_ref()?;
        let policy = inbox.policies[(life as usize - 1) % inbox.policies.len()];
        let settings = InboxSettings {
            policy,
            require_authenticated: inbox.require_authenticated,
            remember: REMEMBER,
            ..InboxSettings::default()
        };
        Some(match self.plan.small_tables {
            true => InboxSettings { messages_max: 3, bytes_max: 4096, event_ring: 8, ..settings },
            false => settings,
        })
    }

    /// A process gets a disk for its inbox; a twin's has on it what its original's has.
    pub(super) fn add_inbox(&mut self, node: NodeId, guest: usize, original: Option<NodeId>) {
        let Some(settings) = self.inbox_settings(guest, 1) else { return };
        let copied = original.and_then(|original| self.inbox_of(original));
        let disk = match copied {
            Some(disk) => disk.borrow().copy_inbox(),
            None => Disk::of_inbox(),
        };
        let disk = Rc::new(RefCell::new(disk));
        disk.borrow_mut().now = self.now;
        if self.witness.borrow().peers.is_none() {
            disk.borrow_mut().journal = None;
        }
        if self.plan.small_tables {
            // So that many are ended while they write.
            disk.borrow_mut().latency = Duration::from_millis(300);
        }
        self.inboxes.push(InboxDisk { node, disk, done: Vec::new() });
        let kept = (settings.messages_max, settings.require_authenticated);
        self.witness.borrow_mut().of_peers(|peers| {
            peers.add_inbox(node, name(guest), kept, original);
            Ok(())
        });
    }

    pub(super) fn inbox_of(&self, node: NodeId) -> Option<Rc<RefCell<Disk>>> {
        self.inboxes.iter().find(|inbox| inbox.node == node).map(|inbox| Rc::clone(&inbox.disk))
    }

    /// Work on agents' disks that is due ends.
    pub(super) fn finish_inboxes(&mut self) {
        for InboxDisk { node, disk, done } in &mut self.inboxes {
            disk.borrow_mut().finish(done);
            if !done.is_empty() {
                self.hub.borrow_mut().stir(*node);
            }
        }
    }

    /// What the agent has to be told.
    pub(super) fn take_done(&mut self, node: NodeId) -> Vec<Done> {
        let inbox = self.inboxes.iter_mut().find(|inbox| inbox.node == node);
        let mut done = inbox.map_or_else(Vec::new, |inbox| std::mem::take(&mut inbox.done));
        if let Some(outside) = &self.processes[node].outside {
            done.append(&mut outside.borrow_mut().take_done());
        }
        done
    }

    /// The agent's process is over: of what it had still to write, some was on the disk already.
    pub(super) fn close_inbox(&mut self, node: NodeId) {
        let Some(inbox) = self.inboxes.iter_mut().find(|inbox| inbox.node == node) else { return };
        let untold = inbox.done.len();
        inbox.done.clear();
        let queued = inbox.disk.borrow().queued() as u32;
        if queued > 0 {
            let written = self.hub.borrow_mut().chooser.0.below(queued + 1);
            inbox.disk.borrow_mut().kill(written as usize);
        }
        let torn = untold > 0 || queued > 0;
        if torn {
            self.tell_of_mail("agent_torn");
        }
        self.collect_mail();
    }

    pub(super) fn tell_of_mail(&self, word: &'static str) {
        self.witness.borrow_mut().of_peers(|peers| {
            count(&mut peers.counts, word);
            Ok(())
        });
    }

    /// Takes notice of what became durable about peers, and about attachments.
    pub(super) fn collect_mail(&self) {
        self.collect_attachments();
        let mut witness = self.witness.borrow_mut();
        if witness.peers.is_none() {
            return;
        }
        let mut disk = self.disk.borrow_mut();
        if let Some(journal) = disk.journal.as_mut().filter(|journal| !journal.is_empty()) {
            let changes = std::mem::take(journal);
            witness.at(self.clocks());
            self.hub.borrow_mut().overhear(&changes);
            changes.iter().for_each(|change| witness.of_peers(|peers| peers.durable(change)));
        }
        for InboxDisk { node, disk, .. } in &self.inboxes {
            let mut disk = disk.borrow_mut();
            if let Some(journal) = disk.journal.as_mut().filter(|journal| !journal.is_empty()) {
                let changes = std::mem::take(journal);
                witness.at(self.clocks());
                witness.of_peers(|peers| peers.received(*node, &changes));
            }
        }
    }

    /// The disks that a fault of a disk befalls: the broker's, the guest's, or both.
    pub(super) fn disks_of(&self, fault: &Fault) -> Vec<Rc<RefCell<Disk>>> {
        let inbox = self.inbox_of(fault.guest + 1);
        let broker = fault.way != Way::ToGuest || inbox.is_none();
        let mut disks: Vec<_> = inbox.into_iter().filter(|_| fault.way != Way::ToBroker).collect();
        disks.extend(broker.then(|| Rc::clone(&self.disk)));
        disks
    }

    /// Somebody does something about peers.
    pub(super) fn start_act(&mut self, index: usize) {
        let act = self.plan.acts[index].clone();
        let agent = (act.by == By::Guest).then_some(act.guest + 1);
        if agent.is_some_and(|node| !self.hub.borrow().nodes[node].exists) {
            return;
        }
        let node = self.passer_by();
        count(&mut self.witness.borrow_mut().outcome.acts, act.deed.as_str());
        let count = self.plan.guests.len();
        let other: Option<GuestName> = (act.other <= count).then(|| name(act.other));
        self.processes[node].inside = agent;
        let names = (name(act.guest), other);
        self.processes[node].body = Body::Errand(Box::new(Errand::new(act, index, names, agent, self.now)));
        self.enrol(node);
        self.mark(Some(node), None, MarkKind::Start, "asks");
    }

    /// A machine is gone, and with it every process on it.
    pub(super) fn end_insiders(&mut self, machine: NodeId) {
        for node in 0..self.processes.len() {
            if self.processes[node].inside == Some(machine)
                && !matches!(self.processes[node].body, Body::Gone)
            {
                self.processes[node].body = Body::Gone;
                self.schedule[node].wake = Time::MAX;
                self.hub.borrow_mut().hang_up(node);
            }
        }
    }

    /// Since when nothing keeps a process's agent, or the broker, from answering it.
    pub(super) fn calm_for(&self, node: NodeId) -> Option<Time> {
        match self.processes[node].inside {
            None => self.calm.filter(|_| !self.plan.small_tables),
            Some(agent) => {
                let serves = matches!(self.processes[agent].body, Body::Agent(_));
                (serves && !self.processes[agent].stopping).then_some(self.processes[agent].steady)
            }
        }
    }

    /// The faults end for agents' disks, too.
    pub(super) fn heal_inboxes(&self) {
        for inbox in &self.inboxes {
            inbox.disk.borrow_mut().heal();
        }
    }

    /// Where the network is slower than an agent is patient, no session lasts.
    pub(super) fn keeps_sessions(&self) -> bool {
        let silence = self.plan.interval() * AgentConfig::new(name(0)).silent_intervals;
        silence > Duration::from_micros(self.plan.network.latency_max_us) * 4
    }

    /// Whether a guest takes the messages that wait for it, now that nothing keeps it from
    /// that but the network.
    pub(super) fn takes_mail(&self, guest: usize) -> bool {
        let life = self.owner(guest + 1).life;
        let takes = |inbox: InboxSettings| inbox.policy != Policy::Deny;
        self.keeps_sessions() && self.is_core(guest) && self.inbox_settings(guest, life).is_some_and(takes)
    }
}
