//! How processes begin.

use std::rc::Rc;
use std::time::Duration;

use castra_core::auth::Key;
use castra_core::boundary::{Transport, Via};
use castra_core::config::{AgentConfig, BrokerConfig, Identity};
use castra_core::entropy::Entropy;
use castra_core::peers::Pair;
use castra_core::{Agent, Broker, Sizes};
use castra_driver::address::ConnectAddress;
use castra_driver::net::ListenerId;
use castra_driver::shell::{Shell, ShellOptions};

use super::clients::Command;
use super::inboxes::peer_settings;
use super::managing::{MANAGER, manager_settings};
use super::scripts::Script;
use super::{Body, Process, Schedule, Todo, World, name};
use crate::choice::Choice;
use crate::chronicle::MarkKind;
use crate::disk::SimWork;
use crate::net::{Door, Node, NodeId, SimNet};
use crate::plan::{Ask, By, Carrier, GuestKind, Plan};
use crate::watched::Watched;
use crate::witness::BROKER;
use crate::witness::peers::Peers;
use castra_core::time::Time;

/// Where the broker, and agents, listen for commands; and the broker for links.
pub(super) const CONTROL: Door = ListenerId(0);
const LINKS: [(Door, Transport); 4] = [
    (ListenerId(1), Transport::Tcp),
    (ListenerId(2), Transport::Unix),
    (ListenerId(3), Transport::Vsock),
    (ListenerId(4), Transport::Serial),
];

fn door(carrier: Carrier) -> Door {
    match carrier {
        Carrier::Tcp => ListenerId(1),
        Carrier::Unix => ListenerId(2),
        Carrier::Vsock => ListenerId(3),
        Carrier::Serial => ListenerId(4),
    }
}

/// The broker of a plan. Small tables in some, so that their bounds are met.
pub(super) fn broker_config(plan: &Plan) -> BrokerConfig {
    let mut config = BrokerConfig {
        window: plan.window(),
        interval: plan.interval(),
        accept_unproven: plan.accept_unproven,
        identity: Identity { uid: 1000, ..Identity::default() },
        peers: peer_settings(plan),
        manager: manager_settings(plan),
        ..BrokerConfig::default()
    };
    if plan.only_known {
        config.only_known = true;
        config.guests = (0..plan.guests.len()).step_by(2).map(name).collect();
    }
    if plan.small_tables {
        config.session_linger = Duration::ZERO;
        config.half_open_max = 2;
        config.max_guests = plan.guests.len().max(2);
        config.control_clients_max = 2;
        config.event_ring = 16;
    }
    config
}

/// What the broker's tables may grow to.
pub(super) fn bounds(plan: &Plan) -> Sizes {
    let config = broker_config(plan);
    let pairs = plan.guests.len() * plan.guests.len().saturating_sub(1) / 2;
    let revocations = plan.clients.iter().filter(|client| client.asks == Ask::TokenRevoke).count();
    let serial = plan.guests.iter().filter(|guest| guest.carrier == Carrier::Serial).count();
    Sizes {
        // A name that loses its token counts from then on, and waits for the next new one to make room.
        guests: config.max_guests + revocations,
        links: usize::MAX,
        // A serial stream that shakes hands again was let in before.
        half_open: config.half_open_max + serial,
        clients: config.control_clients_max,
        timers: usize::MAX,
        // Each is reckoned to take some bytes.
        messages: usize::MAX,
        message_bytes: config.peers.mail_bytes_max,
        streams: config.tunnel.streams_max,
        stream_bytes: config.tunnel.bytes_max(),
        peer_operations: pairs * (config.peers.operations_max + config.peers.operations_max.min(64)),
        attachments: config.manager.attachments_max,
        actions: config.manager.attachments_max * config.manager.queue_max,
        http_clients: config.manager.connections_max,
    }
}

impl World {
    /// Everybody that the plan names.
    pub(super) fn populate(&mut self) {
        self.add(None, false);
        self.prepare_peers();
        for guest in 0..self.plan.guests.len() {
            let node = self.add(Some(guest), false);
            if self.plan.guests[guest].keyed {
                let key = key_of(guest);
                self.disk.borrow_mut().provision(name(guest), key.clone());
                self.processes[node].key = Some(key);
            }
            self.add_inbox(node, guest, None);
            let starts = self.plan.guests[guest].starts_ms;
            self.after(starts, Todo::Boot(node));
        }
        if self.plan.guests.iter().any(|guest| guest.kind == GuestKind::Impostor) {
            self.hub.borrow_mut().tap = Some((BROKER + 1, Vec::new()));
        }
        self.disk.borrow_mut().latency = Duration::from_millis(2);
        self.collect_mail();
        self.prepare_managing();
        self.boot(BROKER);
        for index in 0..self.plan.clients.len() {
            self.after(self.plan.clients[index].at_ms, Todo::Client(index));
        }
        for index in 0..self.plan.faults.len() {
            self.after(self.plan.faults[index].at_ms, Todo::Fault(index));
        }
        for index in 0..self.plan.acts.len() {
            self.after(self.plan.acts[index].at_ms, Todo::Act(index));
        }
    }

    /// In a world in which somebody takes part in peers' life, that is looked at.
    fn prepare_peers(&self) {
        let plan = &self.plan;
        let mut witness = self.witness.borrow_mut();
        let host = |by| by == By::Host;
        if !plan.acts.is_empty() || !plan.couples.is_empty() {
            self.disk.borrow_mut().journal = Some(Vec::new());
            let origins = plan.acts.iter().map(|act| (name(act.guest), host(act.by))).collect();
            witness.peers = Some(Box::new(Peers::new(origins, peer_settings(plan).peers_max)));
            let pairs = plan.couples.iter().filter_map(|[one, other]| Pair::new(name(*one), name(*other)));
            pairs.for_each(|pair| self.disk.borrow_mut().provision_peers(pair));
        }
    }

    /// A process that does not run yet.
    pub(super) fn add(&mut self, guest: Option<usize>, twin: bool) -> NodeId {
        let mut hub = self.hub.borrow_mut();
        hub.nodes.push(Node::default());
        self.schedule.push(Schedule { wake: Time::MAX, frozen_until: Time::ZERO });
        let claims = guest.map(|guest| match self.plan.guests[guest].kind {
            GuestKind::Impostor => name(0),
            _ => name(guest),
        });
        self.witness.borrow_mut().claims.push(claims);
        let outside = self.outside(guest);
        self.processes.push(Process {
            body: Body::Gone,
            guest,
            stopping: false,
            twin,
            key: None,
            running_key: None,
            inside: None,
            steady: Time::MAX,
            outside,
        });
        self.processes.len() - 1
    }

    /// A process begins its next life, unless it runs.
    pub(super) fn boot(&mut self, node: NodeId) {
        if !matches!(self.processes[node].body, Body::Gone) {
            return;
        }
        {
            let mut hub = self.hub.borrow_mut();
            let held = &mut hub.nodes[node];
            held.life += 1;
            held.exists = true;
        }
        let owner = self.owner(node);
        let clocks = self.clocks();
        let mut witness = self.witness.borrow_mut();
        witness.at(clocks);
        witness.truth.born(owner, self.now);
        drop(witness);
        self.processes[node].running_key = self.processes[node].key.clone();
        if let Some(guest) = self.processes[node].guest.filter(|_| self.processes[node].key.is_some()) {
            self.witness.borrow_mut().of_peers(|peers| {
                peers.keyed.insert(name(guest));
                Ok(())
            });
        }
        if let Some(guest) = self.processes[node].guest
            && let Some(holders) = &mut self.witness.borrow_mut().keyholders[guest]
        {
            // Only a key that is still the right one makes it a holder.
            holders.retain(|holder| *holder != node);
            if self.processes[node].holds(self.disk.borrow().token(&name(guest))) {
                holders.push(node);
            }
        }
        // What a machine had open when it died is foreign to it when it is back; or the
        // host's end hangs on for ever.
        if owner.life > 1 && node != BROKER && self.hub.borrow_mut().chooser.0.once_in(2) {
            self.hub.borrow_mut().disown(node);
        }
        self.mark(Some(node), None, MarkKind::Start, format!("starts (life {})", owner.life));
        self.processes[node].stopping = false;
        self.processes[node].steady = self.now;
        self.schedule[node] = Schedule { wake: self.now, frozen_until: Time::ZERO };
        self.processes[node].body = match self.processes[node].guest {
            None => self.broker(owner.life),
            Some(guest) => match self.plan.guests[guest].kind {
                GuestKind::Agent => self.agent(node, guest, owner.life),
                kind => {
                    let victim = if kind == GuestKind::Impostor { name(0) } else { name(guest) };
                    let door = door(self.plan.guests[guest].carrier);
                    Body::Script(Box::new(Script::new(kind, name(guest), victim, door, self.plan.window())))
                }
            },
        };
    }

    fn broker(&self, life: u32) -> Body {
        let mut hub = self.hub.borrow_mut();
        let manager = self.manager_listens().then_some(MANAGER);
        let doors = LINKS.iter().map(|(door, _)| *door).chain([CONTROL]).chain(manager);
        hub.nodes[BROKER].doors = doors.map(|door| (door, Default::default())).collect();
        drop(hub);
        self.witness.borrow_mut().truth.broker.begins(self.now);
        if self.now < self.suspended_until {
            self.witness.borrow_mut().truth.broker.sleeps(self.now);
        }
        let restored = self.disk.borrow_mut().restore();
        self.witness.borrow_mut().of_peers(|peers| {
            peers.begins();
            Ok(())
        });
        self.witness.borrow_mut().of_attach(|attach| {
            attach.restarts();
            Ok(())
        });
        self.update_keyholders();
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&life.to_be_bytes());
        #[cfg_attr(not(feature = "planted"), expect(unused_mut, reason = "bugs are planted in it"))]
        let mut config = broker_config(&self.plan);
        #[cfg(feature = "planted")]
        {
            config.planted = self.planted;
        }
        let engine = Broker::new(config, restored, Entropy::seeded(seed), self.clocks());
        let engine = Watched::new(engine, BROKER, Rc::clone(&self.witness));
        let transports = LINKS.into_iter().chain(manager.map(|door| (door, Transport::Tcp))).collect();
        let net = SimNet::listener(Rc::clone(&self.hub), BROKER, CONTROL, transports);
        let net = net.looks(manager.is_some());
        let mut doors: Vec<_> =
            LINKS.iter().map(|(door, transport)| (*door, Via::Link(*transport))).collect();
        doors.push((CONTROL, Via::Control));
        doors.extend(manager.map(|door| (door, Via::Manager)));
        let options = ShellOptions {
            doors,
            connections_max: if self.plan.small_tables { 12 } else { 1000 },
            log_prefix: self.plan.logs.then_some("host-broker"),
            #[cfg(feature = "planted")]
            planted: self.planted,
            ..ShellOptions::default()
        };
        Body::Broker(Box::new(Shell::new(engine, net, SimWork::new(Rc::clone(&self.disk), None), options)))
    }

    fn agent(&self, node: NodeId, guest: usize, life: u32) -> Body {
        let carrier = if self.processes[node].twin { Carrier::Tcp } else { self.plan.guests[guest].carrier };
        let door = door(carrier);
        if carrier == Carrier::Serial && life == 1 {
            self.hub.borrow_mut().add_device(node, BROKER, door);
        }
        // A twin is what its original was at its start: the same machine, to the bit.
        let mut seed = [1; 32];
        seed[4..12].copy_from_slice(&(guest as u64).to_be_bytes());
        seed[..4].copy_from_slice(&life.to_be_bytes());
        let mut boot = [0; 16];
        boot[..12].copy_from_slice(&seed[..12]);
        let inbox = self.inbox_settings(guest, life);
        let disk = self.inbox_of(node).unwrap_or_default();
        let restored = disk.borrow().restore_inbox();
        let local = inbox.is_some();
        if local {
            self.hub.borrow_mut().nodes[node].doors = vec![(CONTROL, Default::default())];
        }
        let config = AgentConfig {
            inbox,
            identity: Identity { uid: 1000, ..Identity::default() },
            token: self.processes[node].running_key.clone(),
            boot,
            serial: carrier == Carrier::Serial,
            #[cfg(feature = "planted")]
            planted: self.planted,
            ..AgentConfig::new(name(guest))
        };
        let config = self.prepare_agent(node, guest, config);
        let engine = Agent::new(config, restored, Entropy::seeded(seed), self.clocks());
        let engine = Watched::new(engine, node, Rc::clone(&self.witness));
        let net = SimNet::dialler(Rc::clone(&self.hub), node, BROKER, door, true);
        let net = if local { net.with_control(CONTROL) } else { net };
        let dial = match carrier {
            Carrier::Tcp => ConnectAddress::Tcp { host: "127.0.0.1".to_owned(), port: 7070 },
            Carrier::Unix => ConnectAddress::Unix { path: "/run/castra/link.sock".into() },
            Carrier::Vsock => ConnectAddress::Vsock { cid: 2, port: 7070 },
            Carrier::Serial => ConnectAddress::Serial { device: "/dev/virtio-ports/castra.0".into() },
        };
        let options = ShellOptions {
            dial: Some(dial),
            doors: if local { vec![(CONTROL, Via::Control)] } else { Vec::new() },
            #[cfg(feature = "planted")]
            planted: self.planted,
            ..ShellOptions::default()
        };
        let work = SimWork::new(disk, self.processes[node].outside.clone());
        Body::Agent(Box::new(Shell::new(engine, net, work, options)))
    }

    /// A process that lives once, from now on.
    pub(super) fn passer_by(&mut self) -> NodeId {
        let node = self.add(None, false);
        {
            let mut hub = self.hub.borrow_mut();
            hub.nodes[node].exists = true;
            hub.stir(node);
        }
        let owner = self.owner(node);
        let clocks = self.clocks();
        let mut witness = self.witness.borrow_mut();
        witness.at(clocks);
        witness.truth.born(owner, self.now);
        node
    }

    pub(super) fn start_client(&mut self, index: usize) {
        let node = self.passer_by();
        let plan = self.plan.clients[index].clone();
        if plan.asks == Ask::Shutdown {
            self.trouble(self.now + Duration::from_secs(6));
        }
        self.processes[node].body = Body::Command(Box::new(Command::new(plan, CONTROL, self.now)));
        self.enrol(node);
        self.mark(Some(node), None, MarkKind::Start, "asks");
    }

    /// Somebody who comes later gets a column, too.
    pub(super) fn enrol(&self, node: NodeId) {
        let (name, role) = self.introduce(node);
        if let Some(scribe) = &mut self.hub.borrow_mut().scribe {
            scribe.process(node, name, role);
        }
    }

    /// Who has the key that a name needs, as a broker that starts now knows it.
    fn update_keyholders(&self) {
        let disk = self.disk.borrow();
        let mut witness = self.witness.borrow_mut();
        for guest in 0..self.plan.guests.len() {
            witness.keyholders[guest] = disk.token(&name(guest)).map(|key| {
                let holds = |process: &Process| process.guest == Some(guest) && process.holds(Some(key));
                (0..self.processes.len()).filter(|node| holds(&self.processes[*node])).collect()
            });
        }
    }
}

fn key_of(guest: usize) -> Key {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&(guest as u64).to_be_bytes());
    Key::from_bytes(bytes)
}
