//! A world of terminals on one virtual clock: the daemon's engine in its real shell,
//! the host of the pseudo-terminals, clients, a network, and faults.

mod faults;
mod peace;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use castra_core::boundary::Via;
use castra_core::config::Identity;
use castra_core::entropy::Entropy;
use castra_core::terminals::{Terminals, TerminalsConfig, Token};
use castra_core::time::{Now, Time, WallTime};
use castra_driver::net::Ready;
use castra_driver::shell::{Shell, ShellOptions};
use castra_driver::work::Done;

use super::client::{Around, Client, DOOR};
use super::draws::Draws;
use super::host::{self, Host, HostWork};
use super::outcome::{Failure, Outcome};
use super::plan::Plan;
use super::witness::{self, DAEMON, Watched, Witness};
use crate::choice::Choice;
use crate::net::{self, Hub, Node, NodeId, Owner, SimNet};
use crate::violation::Violation;

/// What every client has to know.
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Turns of all processes at one instant before it counts as a spin.
const TURNS_AT_ONCE: u32 = 50_000;

/// 2026-01-01T00:00:00Z.
const WALL: i64 = 1_767_225_600_000;

/// A world that can be run once.
pub(super) struct World {
    plan: Plan,
    hub: net::Shared,
    host: host::Shared,
    witness: witness::Shared,
    daemon: Option<Box<Shell<Watched, SimNet, HostWork>>>,
    clients: Vec<Client>,
    /// When each process gets its turn; the daemon first.
    wakes: Vec<Time>,
    frozen_until: Time,
    /// When the daemon is started again.
    boots_at: Option<Time>,
    /// When a daemon that was told to leave has had its time.
    leaves_by: Option<Time>,
    descriptors_until: Time,
    next_fault: usize,
    now: Time,
    start: Time,
    /// Since when nothing keeps the daemon from answering.
    calm: Option<Time>,
    troubled_until: Time,
    turns_at_once: u32,
    edges: Vec<Ready>,
    done: Vec<Done>,
    peaceful: bool,
    #[cfg(feature = "planted")]
    planted: Option<castra_core::planted::Bug>,
}

impl World {
    pub(super) fn new(plan: &Plan, choice: Box<dyn Choice>) -> Self {
        let draws = Draws::new(choice);
        let start = Time::from_millis(1_000_000);
        let mut hub = Hub::new(plan.network.clone(), Box::new(draws.clone()), start);
        hub.slow_locally = true;
        let hub = Rc::new(RefCell::new(hub));
        let host = Host::new(plan.host, plan.programs.clone(), draws, start);
        let host = Rc::new(RefCell::new(host));
        let witness = Witness::new(Rc::clone(&hub), Rc::clone(&host));
        let mut world = Self {
            plan: plan.clone(),
            hub,
            host,
            witness: Rc::new(RefCell::new(witness)),
            daemon: None,
            clients: Vec::new(),
            wakes: Vec::new(),
            frozen_until: Time::ZERO,
            boots_at: Some(start),
            leaves_by: None,
            descriptors_until: Time::ZERO,
            next_fault: 0,
            now: start,
            start,
            calm: None,
            troubled_until: Time::ZERO,
            turns_at_once: 0,
            edges: Vec::new(),
            done: Vec::new(),
            peaceful: false,
            #[cfg(feature = "planted")]
            planted: None,
        };
        world.add_node();
        for (index, client) in plan.clients.iter().enumerate() {
            world.come(client.clone(), index);
        }
        world
    }

    /// A bug on purpose in every engine and shell.
    #[cfg(feature = "planted")]
    pub(super) fn planted(self, planted: Option<castra_core::planted::Bug>) -> Self {
        Self { planted, ..self }
    }

    fn add_node(&mut self) -> Owner {
        let mut hub = self.hub.borrow_mut();
        let mut node = Node::default();
        (node.exists, node.life) = (true, 1);
        hub.nodes.push(node);
        let node = hub.nodes.len() - 1;
        self.wakes.push(self.now);
        Owner { node, life: 1 }
    }

    /// A client that comes when it wants to.
    fn come(&mut self, client: super::plan::Client, index: usize) {
        let owner = self.add_node();
        self.clients.push(Client::new(client, index, owner, self.now));
    }

    fn config(&self) -> TerminalsConfig {
        let kept = self.plan.kept;
        let mut config = TerminalsConfig {
            token: Some(Token::new(TOKEN.to_owned())),
            identity: Identity { uid: 1000, pid: 77, ..Identity::default() },
            ring: kept,
            grant: (kept / 8).max(4096),
            frame_data: (kept / 32).max(512),
            yellow: kept as u64 / 4,
            red: kept as u64 / 2,
            handshake_timeout: Duration::from_secs(5),
            ..TerminalsConfig::default()
        };
        if self.plan.small_tables {
            config.sessions_max = 3;
            config.exited_max = 2;
            config.connections_max = 3;
            config.requests_max = 4;
            config.input_max = 100_000;
        }
        config
    }

    /// The daemon begins a life.
    fn boot(&mut self) {
        let life = {
            let mut hub = self.hub.borrow_mut();
            let node = &mut hub.nodes[DAEMON];
            node.life += 1;
            node.exists = true;
            node.doors = vec![(DOOR, Default::default())];
            node.life
        };
        self.done.clear();
        let restored = self.host.borrow_mut().restore();
        self.witness.borrow_mut().daemon_begins(restored.held.len());
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&life.to_be_bytes());
        let config = self.config();
        #[cfg(feature = "planted")]
        let config = TerminalsConfig { planted: self.planted, ..config };
        let engine = Terminals::new(config.clone(), restored, Entropy::seeded(seed), self.clocks());
        let engine = Watched::new(engine, config, Rc::clone(&self.witness));
        let net = SimNet::listener(Rc::clone(&self.hub), DAEMON, DOOR, Vec::new());
        let options = ShellOptions {
            doors: vec![(DOOR, Via::Terminals)],
            #[cfg(feature = "planted")]
            planted: self.planted,
            ..ShellOptions::default()
        };
        let work = HostWork(Rc::clone(&self.host));
        self.daemon = Some(Box::new(Shell::new(engine, net, work, options)));
        self.wakes[DAEMON] = self.now;
        self.boots_at = None;
        self.disturb(Duration::ZERO);
    }

    /// Something keeps the daemon from answering for a while.
    fn disturb(&mut self, lasts: Duration) {
        self.troubled_until = self.troubled_until.max(self.now + lasts);
        self.calm = None;
    }

    fn clocks(&self) -> Now {
        let millis = self.now.since(self.start).as_millis() as i64;
        Now { boot: self.now, suspended: Duration::ZERO, wall: WallTime::from_unix_millis(WALL + millis) }
    }

    /// Plays it to its end.
    pub(super) fn run(mut self) -> Result<Outcome, Box<Failure>> {
        let end = self.start + Duration::from_millis(self.plan.chaos_ms);
        let result = self.run_until(end, |_| false).and_then(|()| self.make_peace());
        let mut witness = self.witness.borrow_mut();
        witness.outcome.simulated = self.now.since(self.start);
        let mut outcome = std::mem::take(&mut witness.outcome);
        let host = self.host.borrow();
        for (name, count) in &host.counts {
            *outcome.host.entry(name).or_default() += count;
        }
        outcome.host.insert("commits", host.journal.commits);
        outcome.host.insert("commit_failures", host.journal.failures);
        match result {
            Ok(()) => Ok(outcome),
            Err(violation) => Err(Box::new(Failure { violation, outcome })),
        }
    }

    /// Everything until `end`, or until `enough`.
    fn run_until(&mut self, end: Time, mut enough: impl FnMut(&mut Self) -> bool) -> Result<(), Violation> {
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.advance(at);
            self.step();
            if let Some(violation) = self.witness.borrow_mut().blame.0.take() {
                return Err(violation);
            }
            if enough(self) {
                return Ok(());
            }
        }
        self.advance(end);
        Ok(())
    }

    /// When something happens next.
    fn next(&self) -> Option<Time> {
        let hub = self.hub.borrow();
        if hub.stirring {
            return Some(self.now);
        }
        let fault = self.plan.faults.get(self.next_fault).filter(|_| !self.peaceful);
        let mut next = fault.map_or(Time::MAX, |fault| self.start + Duration::from_millis(fault.at_ms));
        let host = self.host.borrow();
        for other in [hub.next(), host.next(), self.boots_at, self.leaves_by].into_iter().flatten() {
            next = next.min(other);
        }
        if self.descriptors_until > self.now {
            next = next.min(self.descriptors_until);
        }
        if self.daemon.is_some() {
            next = next.min(self.wakes[DAEMON].max(self.frozen_until));
        }
        for wake in &self.wakes[1..] {
            next = next.min(*wake);
        }
        (next < Time::MAX).then_some(next)
    }

    fn advance(&mut self, at: Time) {
        let at = at.max(self.now);
        if at > self.now {
            self.turns_at_once = 0;
        }
        self.now = at;
        self.hub.borrow_mut().now = at;
        self.host.borrow_mut().now = at;
        let mut witness = self.witness.borrow_mut();
        witness.now.boot = witness.now.boot.max(at);
    }

    /// Everything that is due now, once.
    fn step(&mut self) {
        self.hub.borrow_mut().run();
        let before = self.done.len();
        self.host.borrow_mut().run(&mut self.done);
        if self.daemon.is_none() {
            self.done.clear();
        } else if self.done.len() > before {
            self.wakes[DAEMON] = self.wakes[DAEMON].min(self.now);
        }
        self.witness.borrow_mut().arrivals();
        self.happen();
        if self.calm.is_none() && self.daemon.is_some() && self.now >= self.troubled_until {
            self.calm = Some(self.now);
        }
        let stirred: Vec<NodeId> = {
            let mut hub = self.hub.borrow_mut();
            hub.stirring = false;
            hub.nodes.iter().enumerate().filter(|(_, node)| node.stirred).map(|(node, _)| node).collect()
        };
        for node in stirred {
            // If it is frozen, then when it thaws.
            self.wakes[node] = self.wakes[node].min(self.now);
        }
        for node in 0..self.wakes.len() {
            let frozen = node == DAEMON && self.now < self.frozen_until;
            if self.wakes[node] <= self.now && !frozen {
                self.turns_at_once += 1;
                self.turn(node);
            }
        }
        if self.turns_at_once > TURNS_AT_ONCE {
            self.witness.borrow_mut().blame("L2", format!("{TURNS_AT_ONCE} turns at one instant"));
        }
    }

    fn turn(&mut self, node: NodeId) {
        if node == DAEMON {
            return self.daemon_turn();
        }
        let mut hub = self.hub.borrow_mut();
        hub.nodes[node].stirred = false;
        hub.nodes[node].edges.clear();
        let mut witness = self.witness.borrow_mut();
        let mut around = Around {
            hub: &mut hub,
            witness: &mut witness,
            token: TOKEN,
            // A request that has to wait for four others is not late.
            calm: self.calm.filter(|_| !self.plan.small_tables),
            peaceful: self.peaceful,
        };
        let wake = self.clients[node - 1].turn(&mut around);
        self.wakes[node] = wake.unwrap_or(Time::MAX);
    }

    fn daemon_turn(&mut self) {
        let mut edges = std::mem::take(&mut self.edges);
        edges.clear();
        {
            let mut hub = self.hub.borrow_mut();
            let held = &mut hub.nodes[DAEMON];
            held.stirred = false;
            std::mem::swap(&mut held.edges, &mut edges);
        }
        let Some(mut shell) = self.daemon.take() else {
            self.wakes[DAEMON] = Time::MAX;
            self.edges = edges;
            return;
        };
        let done = std::mem::take(&mut self.done);
        let next = shell.turn(self.clocks(), &edges, &done);
        shell.engine().settle();
        self.edges = edges;
        if let Some((_, conn)) = self.hub.borrow_mut().garbled.take() {
            let text = format!("not what the engine said leaves on {conn:?}");
            self.witness.borrow_mut().blame(crate::boundary::BOUNDARY, text);
        }
        self.witness.borrow_mut().leftovers(&shell.engine().engine);
        let counters = shell.counters();
        if counters.overruns > 0 || counters.unknown_outputs > 0 {
            self.witness.borrow_mut().blame(crate::boundary::BOUNDARY, format!("{counters:?}"));
        }
        if shell.settled() {
            drop(shell);
            return self.daemon_ended();
        }
        self.wakes[DAEMON] = if next.more { self.now } else { next.deadline.unwrap_or(Time::MAX) };
        self.daemon = Some(shell);
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).field("now", &self.now).finish_non_exhaustive()
    }
}
