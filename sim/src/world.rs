//! A broker and its agents on one virtual clock.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fmt;

use castra_core::boundary::{
    CloseCause, Effect, EffectError, EffectErrorKind, Origin, Remote, Transport, Via,
};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::entropy::Entropy;
use castra_core::event::Event;
use castra_core::id::{ConnId, EffectId, GuestName};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Agent, Broker, Engine, Input, Output, Restored};

use crate::choice::Choice;
use crate::truth::Truth;
use crate::wire::{Parcel, Wire};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many guests.
    pub guests: usize,
    /// The broker's window.
    pub window: Duration,
    /// The broker's interval.
    pub interval: Duration,
    /// How long faults go on.
    pub chaos: Duration,
    /// Mean time between two faults.
    pub fault_every: Duration,
    /// Longest ordinary delay of a parcel.
    pub latency: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            guests: 3,
            window: Duration::from_secs(3),
            interval: Duration::from_secs(1),
            chaos: Duration::from_secs(60),
            fault_every: Duration::from_secs(2),
            latency: Duration::from_millis(50),
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Engine calls.
    pub events: u64,
    /// Faults injected.
    pub faults: u64,
    /// Sessions established.
    pub sessions: u64,
    /// Events whose checks met a reachable guest.
    pub reachable_seen: u64,
    /// Fingerprint of all events, in order.
    pub digest: u64,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// S1: called reachable although it did not run within the window.
    FalseReachable {
        /// Who.
        guest: usize,
        /// When.
        at: Time,
    },
    /// L3: alive, connected, and not reachable within the bound.
    NotConverged {
        /// Who.
        guest: usize,
    },
    /// L2: woken for a deadline, it did nothing and asked for no later one.
    Spin {
        /// When.
        at: Time,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FalseReachable { guest, at } => {
                write!(
                    f,
                    "S1: guest {guest} is called reachable at {} ms, and is not",
                    at.as_nanos() / 1_000_000
                )
            }
            Self::NotConverged { guest } => write!(f, "L3: guest {guest} lives and is not reachable in time"),
            Self::Spin { at } => write!(f, "L2: no progress at {} ms", at.as_nanos() / 1_000_000),
        }
    }
}

/// A broker, its agents, the streams between them, and the truth about them.
pub struct World<C> {
    settings: Settings,
    choice: C,
    now: Time,
    broker: Node<Broker>,
    guests: Vec<Node<Agent>>,
    wires: BTreeMap<u32, Wire>,
    next_wire: u32,
    truth: Truth,
    outcome: Outcome,
}

struct Node<E> {
    engine: E,
    life: u32,
    deadline: Option<Time>,
    running: bool,
}

impl<C: Choice> World<C> {
    /// A world in which nothing happened yet.
    pub fn new(settings: Settings, choice: C) -> Self {
        let now = Time::from_millis(1_000_000);
        let guests = (0..settings.guests).map(|guest| Node::new(agent(guest, 0, now))).collect();
        let mut world = Self {
            broker: Node::new(broker(&settings, 1, now)),
            guests,
            wires: BTreeMap::new(),
            next_wire: 0,
            truth: Truth::new(settings.guests),
            outcome: Outcome::default(),
            settings,
            choice,
            now,
        };
        for guest in 0..world.guests.len() {
            world.truth.start(guest);
            world.drain_guest(guest);
        }
        world.drain_broker();
        world
    }

    /// Chaos, then peace: nobody is ever falsely reachable, and everybody who
    /// lives is reachable in the end.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(mut self) -> Result<Outcome, Violation> {
        let chaos_ends = self.now + self.settings.chaos;
        let mut next_fault = self.now + self.settings.fault_every;
        while self.now < chaos_ends {
            let until = next_fault.min(chaos_ends);
            self.run_until(until)?;
            if self.now >= next_fault {
                self.inject();
                next_fault = self.now + self.choice.span(self.settings.fault_every * 2);
            }
        }
        self.heal();
        // Longest backoff, dial and handshake bounds, the conflict's, and some latency.
        self.run_until(self.now + Duration::from_secs(10 + 5 + 2 + 1) + self.settings.window)?;
        let status: Vec<_> = self.broker.engine.status(now(self.now)).collect();
        for guest in 0..self.guests.len() {
            let row = status.iter().find(|row| row.name == name(guest));
            if !row.is_some_and(|row| row.reachable) {
                return Err(Violation::NotConverged { guest });
            }
        }
        Ok(self.outcome)
    }

    fn run_until(&mut self, end: Time) -> Result<(), Violation> {
        let mut idle = 0;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            idle = if at > self.now { 0 } else { idle + 1 };
            if idle > 10_000 {
                return Err(Violation::Spin { at });
            }
            self.now = self.now.max(at);
            self.step();
            self.check()?;
        }
        self.now = self.now.max(end);
        self.check()
    }

    fn next_event(&self) -> Option<Time> {
        let guests = self.guests.iter().filter_map(Node::wants);
        let wires = self.wires.values().flat_map(|wire| {
            let to_broker = wire.to_broker.next().filter(|_| self.broker.running);
            let to_guest = wire.to_guest.next().filter(|_| self.guests[wire.guest].running);
            [to_broker, to_guest].into_iter().flatten()
        });
        guests.chain(wires).chain(self.broker.wants()).min()
    }

    /// One thing that is due: a parcel, or else a deadline.
    fn step(&mut self) {
        let now = self.now;
        for key in self.wires.keys().copied().collect::<Vec<_>>() {
            let Some(wire) = self.wires.get_mut(&key) else { continue };
            let (id, guest, life, broker_life) = (wire.id, wire.guest, wire.life, wire.broker_life);
            if self.broker.running
                && let Some(parcel) = wire.to_broker.pop(now)
            {
                if broker_life == self.broker.life {
                    self.feed_broker(id, &parcel);
                }
                return;
            }
            if self.guests[guest].running
                && let Some(parcel) = wire.to_guest.pop(now)
            {
                if life == self.guests[guest].life {
                    self.feed_guest(guest, id, &parcel);
                }
                return;
            }
        }
        if self.broker.wants().is_some_and(|at| at <= now) {
            return self.handle_broker(Input::Tick);
        }
        for guest in 0..self.guests.len() {
            if self.guests[guest].wants().is_some_and(|at| at <= now) {
                return self.handle_guest(guest, Input::Tick);
            }
        }
    }

    fn feed_broker(&mut self, conn: ConnId, parcel: &Parcel) {
        match parcel {
            Parcel::Bytes(bytes) => self.handle_broker(Input::Bytes { conn, bytes }),
            Parcel::End => self.handle_broker(Input::Closed { conn, why: CloseCause::Eof }),
        }
    }

    fn feed_guest(&mut self, guest: usize, conn: ConnId, parcel: &Parcel) {
        match parcel {
            Parcel::Bytes(bytes) => self.handle_guest(guest, Input::Bytes { conn, bytes }),
            Parcel::End => self.handle_guest(guest, Input::Closed { conn, why: CloseCause::Eof }),
        }
    }

    fn handle_broker(&mut self, input: Input<'_, BrokerConfig>) {
        self.outcome.events += 1;
        self.broker.engine.handle(now(self.now), input);
        self.drain_broker();
    }

    fn handle_guest(&mut self, guest: usize, input: Input<'_, AgentConfig>) {
        self.outcome.events += 1;
        self.guests[guest].engine.handle(now(self.now), input);
        self.drain_guest(guest);
    }

    fn drain_broker(&mut self) {
        let mut done: Vec<EffectId> = Vec::new();
        let mut rooms = Vec::new();
        loop {
            match self.broker.engine.poll_output() {
                Output::Transmit { conn, bytes } => {
                    let arrives = self.now + self.choice.span(self.settings.latency);
                    if let Some(wire) = self.wires.get_mut(&conn.index) {
                        wire.to_guest.push(arrives, Parcel::Bytes(bytes.to_vec()));
                        rooms.push(conn);
                    }
                }
                Output::Close { conn, .. } => {
                    let arrives = self.now + self.choice.span(self.settings.latency);
                    if let Some(wire) = self.wires.get_mut(&conn.index) {
                        wire.to_guest.push(arrives, Parcel::End);
                    }
                }
                Output::Effect { id, .. } => done.push(id),
                Output::Event(event) => note(&mut self.outcome, &event),
                Output::Wait(deadline) => {
                    self.broker.deadline = deadline.map(|deadline| deadline.at);
                    break;
                }
                _ => {}
            }
        }
        for effect in done {
            self.handle_broker(Input::Done { effect, result: Ok(()) });
        }
        for conn in rooms {
            self.broker.engine.handle(now(self.now), Input::Writable { conn, room: ROOM });
            self.drain_broker();
        }
    }

    fn drain_guest(&mut self, guest: usize) {
        let mut dials = Vec::new();
        let mut rooms = Vec::new();
        loop {
            match self.guests[guest].engine.poll_output() {
                Output::Transmit { conn, bytes } => {
                    let arrives = self.now + self.choice.span(self.settings.latency);
                    if let Some(wire) = self.wires.get_mut(&conn.index) {
                        wire.to_broker.push(arrives, Parcel::Bytes(bytes.to_vec()));
                        rooms.push(conn);
                    }
                }
                Output::Close { conn, .. } => {
                    let arrives = self.now + self.choice.span(self.settings.latency);
                    if let Some(wire) = self.wires.get_mut(&conn.index) {
                        wire.to_broker.push(arrives, Parcel::End);
                    }
                }
                Output::Effect { id, effect: Effect::Dial { .. } } => dials.push(id),
                Output::Wait(deadline) => {
                    self.guests[guest].deadline = deadline.map(|deadline| deadline.at);
                    break;
                }
                _ => {}
            }
        }
        for conn in rooms {
            self.guests[guest].engine.handle(now(self.now), Input::Writable { conn, room: ROOM });
            self.drain_guest(guest);
        }
        for effect in dials {
            self.dial(guest, effect);
        }
    }

    fn dial(&mut self, guest: usize, effect: EffectId) {
        if !self.broker.running {
            let error = EffectError { kind: EffectErrorKind::Unreachable, message: "nobody listens".into() };
            return self.handle_guest(guest, Input::Done { effect, result: Err(error) });
        }
        self.next_wire += 1;
        let id = ConnId { index: self.next_wire, generation: 0 };
        let wire = Wire {
            id,
            guest,
            life: self.guests[guest].life,
            broker_life: self.broker.life,
            to_broker: crate::wire::Lane::default(),
            to_guest: crate::wire::Lane::default(),
        };
        self.wires.insert(id.index, wire);
        let opened = |origin| (Via::Link(Transport::Tcp), origin);
        let (via, origin) = opened(Origin::Accepted);
        let remote = Remote::Unknown;
        self.handle_broker(Input::Opened { conn: id, via, origin, remote, peer_cred: None, room: ROOM });
        let (via, origin) = opened(Origin::Dialled(effect));
        self.handle_guest(
            guest,
            Input::Opened { conn: id, via, origin, remote, peer_cred: None, room: ROOM },
        );
    }

    fn inject(&mut self) {
        self.outcome.faults += 1;
        let guest = self.choice.below(self.guests.len() as u32) as usize;
        let wires: Vec<u32> = self.wires.keys().rev().take(2 * self.guests.len()).copied().collect();
        let hold = self.choice.span(self.settings.window * 3);
        match self.choice.below(9) {
            // A freeze: its streams stay as they are.
            0 | 1 if self.truth.is_running(guest) => {
                self.guests[guest].running = false;
                self.truth.stop(guest, self.now);
            }
            0..=2 => self.thaw(guest),
            // A silent death, and a new life at once.
            3 => self.reincarnate(guest),
            4 if !wires.is_empty() => {
                let key = wires[self.choice.below(wires.len() as u32) as usize];
                let back = self.choice.once_in(2);
                if let Some(wire) = self.wires.get_mut(&key) {
                    let lane = if back { &mut wire.to_guest } else { &mut wire.to_broker };
                    lane.held_until = self.now + hold;
                }
            }
            5 if !wires.is_empty() => {
                let key = wires[self.choice.below(wires.len() as u32) as usize];
                if let Some(wire) = self.wires.get_mut(&key) {
                    wire.to_broker.push(self.now, Parcel::End);
                    wire.to_guest.push(self.now, Parcel::End);
                }
            }
            // The broker itself freezes, or goes on as if nothing had been.
            6 | 7 => self.broker.running = !self.broker.running,
            _ => self.restart_broker(),
        }
    }

    fn thaw(&mut self, guest: usize) {
        self.guests[guest].running = true;
        self.truth.start(guest);
    }

    fn reincarnate(&mut self, guest: usize) {
        self.truth.stop(guest, self.now);
        let life = self.guests[guest].life + 1;
        self.guests[guest] = Node { life, ..Node::new(agent(guest, life, self.now)) };
        self.truth.start(guest);
        self.drain_guest(guest);
    }

    fn restart_broker(&mut self) {
        let life = self.broker.life + 1;
        self.broker = Node { life, ..Node::new(broker(&self.settings, life + 1, self.now)) };
        for wire in self.wires.values_mut() {
            wire.to_guest.push(self.now, Parcel::End);
        }
        self.drain_broker();
    }

    fn heal(&mut self) {
        self.broker.running = true;
        for guest in 0..self.guests.len() {
            self.thaw(guest);
        }
        for wire in self.wires.values_mut() {
            wire.to_broker.held_until = Time::ZERO;
            wire.to_guest.held_until = Time::ZERO;
        }
    }

    fn check(&mut self) -> Result<(), Violation> {
        let status: Vec<_> = self.broker.engine.status(now(self.now)).collect();
        for row in status.iter().filter(|row| row.reachable) {
            self.outcome.reachable_seen += 1;
            let Some(guest) = (0..self.guests.len()).find(|guest| name(*guest) == row.name) else { continue };
            if !self.truth.ran_within(guest, self.settings.window, self.now) {
                return Err(Violation::FalseReachable { guest, at: self.now });
            }
        }
        Ok(())
    }
}

const ROOM: usize = 128 * 1024;

impl<E> Node<E> {
    const fn new(engine: E) -> Self {
        Self { engine, life: 0, deadline: None, running: true }
    }

    fn wants(&self) -> Option<Time> {
        self.deadline.filter(|_| self.running)
    }
}

fn note(outcome: &mut Outcome, event: &Event) {
    if event.fact.kind() == "handshake.success" {
        outcome.sessions += 1;
    }
    // FNV-1a over the log form: equal runs, equal digests.
    for byte in event.to_string().bytes() {
        outcome.digest = (outcome.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

fn name(guest: usize) -> GuestName {
    match format!("guest-{guest}").parse() {
        Ok(name) => name,
        Err(_) => unreachable!("guest-N is a name"),
    }
}

fn now(at: Time) -> Now {
    let millis = i64::try_from(at.as_nanos() / 1_000_000).unwrap_or(i64::MAX);
    Now { boot: at, suspended: Duration::ZERO, wall: WallTime::from_unix_millis(millis) }
}

fn broker(settings: &Settings, incarnation: u32, at: Time) -> Broker {
    let config =
        BrokerConfig { window: settings.window, interval: settings.interval, ..BrokerConfig::default() };
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&incarnation.to_be_bytes());
    let restored = Restored { incarnation, ..Restored::default() };
    Broker::new(config, restored, Entropy::seeded(seed), now(at))
}

fn agent(guest: usize, life: u32, at: Time) -> Agent {
    let mut seed = [1; 32];
    seed[..4].copy_from_slice(&life.to_be_bytes());
    seed[4..12].copy_from_slice(&(guest as u64).to_be_bytes());
    Agent::new(AgentConfig::new(name(guest)), Entropy::seeded(seed), now(at))
}
