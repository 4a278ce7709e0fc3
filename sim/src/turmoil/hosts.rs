//! The broker and its agents as turmoil hosts: restartable, with their durable
//! state outside.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use castra_core::RestoredAgent;
use castra_core::auth::Key;
use castra_core::boundary::{PeerCred, Transport, Via};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::entropy::Entropy;
use castra_core::time::Time;
use castra_core::{Agent, Broker};
use castra_driver::address::ConnectAddress;
use castra_driver::shell::{Shell, ShellOptions};

use super::clock::Clock;
use super::drive::{Process, drive};
use super::net::TurmoilNet;
use super::traced::{Trace, Traced};
use super::truth::{Truth, name_of};
use crate::choice::{Choice, Seeded};
use crate::disk::{Disk, SimWork};
use crate::outcome::Counts;
use crate::plan::Plan;
use crate::violation::Violation;

pub(crate) const BROKER: &str = "broker";
/// Where the clients run.
pub(crate) const DESK: &str = "desk";
const LINK_PORT: u16 = 7000;
pub(crate) const CONTROL_PORT: u16 = 7001;
/// Longest ordinary time of a piece of work.
const DISK: Duration = Duration::from_millis(40);
/// The user whom everybody on the host is said to be.
const UID: u32 = 1000;

/// Everything that outlives a host.
pub(crate) struct Stage {
    pub(crate) plan: Plan,
    pub(crate) clock: Rc<Clock>,
    pub(crate) trace: Rc<RefCell<Trace>>,
    /// The broker's state directory.
    pub(crate) disk: Rc<RefCell<Disk>>,
    pub(crate) truth: RefCell<Truth>,
    pub(crate) broker: Process<Traced<Broker>>,
    pub(crate) guests: Vec<Guest>,
    /// Checks of the broker's status.
    pub(crate) checks: Cell<u64>,
    /// What commands got.
    pub(crate) replies: RefCell<Counts>,
    /// The first promise that a host saw broken.
    pub(crate) violation: RefCell<Option<Violation>>,
    seed: u64,
    lives: Cell<u64>,
}

/// One guest.
#[derive(Default)]
pub(crate) struct Guest {
    pub(crate) process: Process<Traced<Agent>>,
    /// The token it was given last: it reads it when it starts.
    pub(crate) token: RefCell<Option<Key>>,
    /// The token that it runs with.
    pub(crate) key: RefCell<Option<Key>>,
}

impl Stage {
    pub(crate) fn new(plan: &Plan, seed: u64) -> Self {
        let stage = Self {
            plan: plan.clone(),
            clock: Rc::default(),
            trace: Rc::default(),
            disk: Rc::default(),
            truth: RefCell::new(Truth::new(plan.guests.len(), plan.window())),
            broker: Process::default(),
            guests: plan.guests.iter().map(|_| Guest::default()).collect(),
            checks: Cell::new(0),
            replies: RefCell::default(),
            violation: RefCell::new(None),
            seed,
            lives: Cell::new(0),
        };
        stage.disk.borrow_mut().latency = stage.choices().span(DISK);
        for (index, _) in plan.guests.iter().enumerate().filter(|(_, guest)| guest.keyed) {
            let key = Key::from_bytes([index as u8; 32]);
            stage.guests[index].token.replace(Some(key.clone()));
            stage.disk.borrow_mut().provision(name_of(index), key);
        }
        stage
    }

    /// A source of choices for somebody's next life.
    pub(crate) fn choices(&self) -> Seeded {
        self.lives.set(self.lives.get() + 1);
        Seeded::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.lives.get()))
    }

    fn entropy(&self) -> Entropy {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&self.lives.get().to_be_bytes());
        Entropy::seeded(seed)
    }

    fn net(&self) -> TurmoilNet {
        TurmoilNet::new(self.choices(), self.plan.network.short_read, self.plan.network.spurious)
    }

    fn overhear<E>(&self, engine: E, who: String, spoke: Rc<Cell<Option<Time>>>) -> Traced<E> {
        Traced::new(engine, who, Rc::clone(&self.trace), spoke)
    }

    /// Keeps the first violation, and ends the host with it.
    pub(crate) fn report(&self, outcome: Result<(), Violation>) -> turmoil::Result {
        if let Err(violation) = outcome {
            self.violation.borrow_mut().get_or_insert_with(|| violation.clone());
            return Err(violation.to_string().into());
        }
        Ok(())
    }

    pub(crate) fn broker_config(&self) -> BrokerConfig {
        let mut config = BrokerConfig {
            window: self.plan.window(),
            interval: self.plan.interval(),
            // The least there is: twenty windows.
            session_linger: Duration::ZERO,
            ..BrokerConfig::default()
        };
        config.identity.uid = UID;
        config
    }

    /// The broker's process, from its first instruction to its last.
    pub(crate) async fn run_broker(self: Rc<Self>) -> turmoil::Result {
        // turmoil sets a host's clock at its first tick, not at its start.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut net = self.net();
        let links = net.listen(LINK_PORT, None).await?;
        let control = net.listen(CONTROL_PORT, Some(PeerCred { uid: UID, gid: UID, pid: 1 })).await?;
        let now = self.clock.now();
        let restored = {
            let mut disk = self.disk.borrow_mut();
            disk.now = now.boot;
            // What the last process had not done is not done.
            disk.kill(0);
            disk.restore()
        };
        let engine = Broker::new(self.broker_config(), restored, self.entropy(), now);
        let options = ShellOptions {
            doors: vec![(links, Via::Link(Transport::Tcp)), (control, Via::Control)],
            connections_max: 1000,
            log_prefix: self.plan.logs.then_some("host-broker"),
            ..ShellOptions::default()
        };
        let engine = self.overhear(engine, BROKER.to_owned(), Rc::default());
        let shell = Shell::new(engine, net, SimWork::new(Rc::clone(&self.disk), None), options);
        self.truth.borrow_mut().broker_started(now.boot);
        let outcome = drive(
            &self.broker,
            &self.clock,
            shell,
            || Some(self.broker_config()),
            |shell| self.check(shell.engine()),
        )
        .await;
        self.truth.borrow_mut().serving_since = None;
        self.report(outcome)
    }

    /// Guest number `index`, from boot to death.
    pub(crate) async fn run_guest(self: Rc<Self>, index: usize, broker: IpAddr) -> turmoil::Result {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let starts = Duration::from_millis(self.plan.guests[index].starts_ms);
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        tokio::time::sleep(starts.saturating_sub(elapsed)).await;
        let guest = &self.guests[index];
        guest.key.replace(guest.token.borrow().clone());
        let mut config = AgentConfig::new(name_of(index));
        config.token.clone_from(&guest.key.borrow());
        let net = self.net();
        config.boot[..8].copy_from_slice(&self.lives.get().to_be_bytes());
        let engine = Agent::new(config, RestoredAgent::default(), self.entropy(), self.clock.now());
        let spoke = Rc::clone(&self.truth.borrow().spoke[index]);
        let engine = self.overhear(engine, name_of(index).as_str().to_owned(), spoke);
        let dial = Some(ConnectAddress::Tcp { host: broker.to_string(), port: LINK_PORT });
        // An agent has nothing to write.
        let work = SimWork::new(Rc::default(), None);
        let shell = Shell::new(engine, net, work, ShellOptions { dial, ..ShellOptions::default() });
        let outcome = drive(
            &guest.process,
            &self.clock,
            shell,
            || None,
            |shell| {
                let mut truth = self.truth.borrow_mut();
                shell.engine().heard.drain(..).for_each(|event| truth.note_end(&event));
                Ok(())
            },
        )
        .await;
        self.report(outcome)
    }

    /// S1, S3 and S5, now.
    pub(crate) fn check(&self, broker: &mut Traced<Broker>) -> Result<(), Violation> {
        let now = self.clock.now();
        let mut truth = self.truth.borrow_mut();
        for event in broker.heard.drain(..) {
            truth.heard(now.boot, &event)?;
        }
        for row in broker.engine.status(now) {
            self.checks.set(self.checks.get() + 1);
            truth.check(now.boot, &row)?;
        }
        Ok(())
    }
}
