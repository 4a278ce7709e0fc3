//! Many agents as one engine.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use castra_core::Agent;
use castra_core::RestoredAgent;
use castra_core::auth::Key;
use castra_core::boundary::{CloseReason, Deadline, Effect, Engine, Input, Origin, Output, Source, Wakeup};
use castra_core::config::AgentConfig;
use castra_core::entropy::Entropy;
use castra_core::event::Fact;
use castra_core::id::{ConnId, EffectId, GuestName};
use castra_core::time::{Now, Time};

use super::{Load, LoadOptions, Tally};

/// The engine: routes each input to one agent, and all their outputs to the shell.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) tally: Tally,
    load: Load,
    guests: Vec<(GuestName, Option<Key>)>,
    seed: [u8; 32],
    now: Now,
    members: Vec<Member>,
    /// Members that were spoken to and are drained before anybody else is.
    awake: VecDeque<usize>,
    /// Members without a handshake, where a rate says when the next begins.
    idle: Vec<usize>,
    /// Which handshakes begin when: how many did, and since when they are counted.
    due: Schedule,
    dialling: usize,
    concurrency: usize,
    /// Holding: guests that were not started yet.
    unborn: usize,
    deadlines: BTreeSet<(Time, usize)>,
    conns: Vec<Option<(u32, usize)>>,
    effects: HashMap<EffectId, (usize, EffectId)>,
    next_effect: u64,
    bytes: Vec<u8>,
}

/// A place for one agent at a time.
#[derive(Debug)]
struct Member {
    agent: Option<Box<Agent>>,
    guest: usize,
    since: Time,
    conn: Option<ConnId>,
    deadline: Option<Time>,
    up: bool,
    /// Churning: it is proven and hangs up.
    finished: bool,
}

#[derive(Debug)]
struct Schedule {
    began: Time,
    begun: u64,
}

/// One output of a member, in the fleet's numbers.
enum Act {
    Transmit(ConnId),
    Discard(ConnId),
    Read(Source, usize),
    Close(ConnId, CloseReason),
    Effect(EffectId, Effect),
    Cancel(EffectId),
    Nothing,
}

impl Fleet {
    pub(super) fn new(options: LoadOptions, seed: [u8; 32], now: Now) -> Self {
        let LoadOptions { load, guests, concurrency, .. } = options;
        let concurrency = concurrency.clamp(1, guests.len());
        let places = match load {
            Load::Churn { .. } => concurrency,
            Load::Hold => guests.len(),
        };
        let member = |guest| Member {
            agent: None,
            guest,
            since: now.boot,
            conn: None,
            deadline: None,
            up: false,
            finished: false,
        };
        let mut fleet = Self {
            tally: Tally::default(),
            load,
            guests,
            seed,
            now,
            members: (0..places).map(member).collect(),
            awake: VecDeque::new(),
            idle: (0..places).rev().collect(),
            due: Schedule { began: now.boot, begun: 0 },
            dialling: 0,
            concurrency,
            unborn: 0,
            deadlines: BTreeSet::new(),
            conns: Vec::new(),
            effects: HashMap::new(),
            next_effect: 0,
            bytes: Vec::new(),
        };
        if load == Load::Hold {
            fleet.unborn = places;
        }
        fleet.begin_what_is_due();
        fleet
    }

    /// Starts agents as the load asks for.
    fn begin_what_is_due(&mut self) {
        match self.load {
            Load::Hold => {
                while self.unborn > 0 && self.dialling < self.concurrency {
                    self.unborn -= 1;
                    let Some(member) = self.idle.pop() else { return };
                    self.begin(member, self.now.boot);
                }
            }
            Load::Churn { per_second: None } => {
                while let Some(member) = self.idle.pop() {
                    self.begin(member, self.now.boot);
                }
            }
            Load::Churn { per_second: Some(rate) } => {
                while let Some(at) = self.next_arrival(rate).filter(|at| *at <= self.now.boot) {
                    let Some(member) = self.idle.pop() else { return };
                    self.due.begun += 1;
                    self.begin(member, at);
                }
            }
        }
    }

    fn next_arrival(&self, rate: f64) -> Option<Time> {
        let after = Duration::try_from_secs_f64(self.due.begun as f64 / rate).ok()?;
        Some(self.due.began + after)
    }

    /// `since`: when the handshake was to begin.
    fn begin(&mut self, index: usize, since: Time) {
        self.dialling += 1;
        self.next_effect += 1;
        let mut seed = self.seed;
        for (byte, count) in seed.iter_mut().zip(self.next_effect.to_le_bytes()) {
            *byte ^= count;
        }
        let member = &mut self.members[index];
        let (name, token) = &self.guests[member.guest];
        let mut config = AgentConfig::new(*name);
        config.token.clone_from(token);
        config.boot.copy_from_slice(&seed[..16]);
        member.agent =
            Some(Box::new(Agent::new(config, RestoredAgent::default(), Entropy::seeded(seed), self.now)));
        member.since = since;
        self.awake.push_back(index);
    }

    /// The next name that nobody else at this place's turn has.
    fn retire(&mut self, index: usize) -> Option<ConnId> {
        let places = self.members.len();
        let member = &mut self.members[index];
        member.agent = None;
        member.finished = false;
        member.guest = if member.guest + places < self.guests.len() { member.guest + places } else { index };
        let conn = member.conn.take();
        self.set_deadline(index, None);
        self.set_up(index, false);
        self.idle.push(index);
        if let Some(conn) = conn {
            self.conns[conn.index as usize] = None;
        }
        conn
    }

    fn set_deadline(&mut self, index: usize, deadline: Option<Time>) {
        let member = &mut self.members[index];
        if member.deadline == deadline {
            return;
        }
        if let Some(old) = member.deadline.take() {
            self.deadlines.remove(&(old, index));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, index));
        }
        self.members[index].deadline = deadline;
    }

    fn set_up(&mut self, index: usize, up: bool) {
        if std::mem::replace(&mut self.members[index].up, up) != up {
            self.tally.up = if up { self.tally.up + 1 } else { self.tally.up - 1 };
        }
    }

    fn member_of(&self, conn: ConnId) -> Option<usize> {
        let (generation, member) = (*self.conns.get(conn.index as usize)?)?;
        (generation == conn.generation).then_some(member)
    }

    fn tell(&mut self, index: usize, input: Input<'_, AgentConfig>) {
        if let Some(agent) = &mut self.members[index].agent {
            agent.handle(self.now, input);
            self.awake.push_back(index);
        }
    }

    fn on_opened(&mut self, input: Input<'_, AgentConfig>) {
        let Input::Opened { conn, via, origin: Origin::Dialled(effect), remote, peer_cred, room, .. } = input
        else {
            return;
        };
        let Some((index, local)) = self.effects.remove(&effect) else { return };
        let slot = conn.index as usize;
        if self.conns.len() <= slot {
            self.conns.resize(slot + 1, None);
        }
        self.conns[slot] = Some((conn.generation, index));
        self.members[index].conn = Some(conn);
        let origin = Origin::Dialled(local);
        self.tell(index, Input::Opened { conn, via, origin, local: None, remote, peer_cred, room });
    }

    fn tick(&mut self) {
        while let Some(&(at, index)) = self.deadlines.first() {
            if at > self.now.boot {
                break;
            }
            self.set_deadline(index, None);
            self.tell(index, Input::Tick);
        }
    }

    /// Takes the next output of the first member that was spoken to.
    fn step(&mut self) -> Option<Act> {
        let &index = self.awake.front()?;
        let member = &mut self.members[index];
        let Some(agent) = &mut member.agent else {
            self.awake.pop_front();
            return Some(Act::Nothing);
        };
        Some(match agent.poll_output() {
            Output::Transmit { conn, bytes } => {
                self.bytes.clear();
                self.bytes.extend_from_slice(bytes);
                self.tally.proofs += u64::from(member.up);
                Act::Transmit(conn)
            }
            Output::Discard { conn } => Act::Discard(conn),
            Output::Read { source, credit } => Act::Read(source, credit),
            Output::Close { conn, why } => {
                if member.conn == Some(conn) {
                    member.conn = None;
                    self.conns[conn.index as usize] = None;
                }
                Act::Close(conn, why)
            }
            Output::Effect { id, effect } => {
                self.next_effect += 1;
                let outer = EffectId(self.next_effect);
                self.effects.insert(outer, (index, id));
                let paced = matches!(self.load, Load::Churn { per_second: Some(_) });
                if !paced && matches!(effect, Effect::Dial { .. }) {
                    member.since = self.now.boot;
                }
                Act::Effect(outer, effect)
            }
            Output::Cancel { effect } => {
                let outer = self.effects.iter().find(|(_, inner)| **inner == (index, effect));
                outer.map_or(Act::Nothing, |(outer, _)| Act::Cancel(*outer))
            }
            Output::Event(event) => {
                self.on_fact(index, &event.fact);
                Act::Nothing
            }
            Output::Wait(deadline) => {
                self.awake.pop_front();
                self.set_deadline(index, deadline.map(|deadline| deadline.at));
                let finished = self.members[index].finished;
                let hung_up = if finished { self.retire(index) } else { None };
                self.begin_what_is_due();
                hung_up.map_or(Act::Nothing, |conn| Act::Close(conn, CloseReason::Finished))
            }
            // An agent stops only when it is told to.
            _ => Act::Nothing,
        })
    }

    fn on_fact(&mut self, index: usize, fact: &Fact) {
        let reason = match fact {
            Fact::LinkUp { .. } => {
                self.tally.proven += 1;
                self.tally.latencies.push(self.now.boot.since(self.members[index].since));
                self.dialling = self.dialling.saturating_sub(1);
                self.set_up(index, true);
                self.members[index].finished = self.load != Load::Hold;
                return;
            }
            Fact::LinkDown { reason, .. } => format!("{reason:?}").to_lowercase(),
            Fact::LinkRefused { code, .. } => code.clone(),
            Fact::BrokerUnproven { .. } => "broker_unproven".to_owned(),
            _ => return,
        };
        if self.members[index].up {
            // It dials again by itself.
            self.dialling += 1;
            self.set_up(index, false);
        }
        *self.tally.failures.entry(reason).or_default() += 1;
    }
}

impl Engine for Fleet {
    type Config = AgentConfig;

    fn handle(&mut self, now: Now, input: Input<'_, AgentConfig>) {
        self.now = now;
        match input {
            Input::Opened { .. } => self.on_opened(input),
            Input::Bytes { conn, .. } | Input::Finished { conn } | Input::Writable { conn, .. } => {
                if let Some(index) = self.member_of(conn) {
                    self.tell(index, input);
                }
            }
            Input::Closed { conn, .. } => {
                if let Some(index) = self.member_of(conn) {
                    self.conns[conn.index as usize] = None;
                    self.members[index].conn = None;
                    self.tell(index, input);
                }
            }
            Input::Done { effect, result } => {
                if let Some((index, effect)) = self.effects.remove(&effect) {
                    self.tell(index, Input::Done { effect, result });
                }
            }
            Input::Tick => self.tick(),
            _ => {}
        }
        self.begin_what_is_due();
    }

    fn poll_output(&mut self) -> Output<'_> {
        loop {
            match self.step() {
                None => break,
                Some(Act::Nothing) => {}
                Some(Act::Transmit(conn)) => return Output::Transmit { conn, bytes: &self.bytes },
                Some(Act::Discard(conn)) => return Output::Discard { conn },
                Some(Act::Read(source, credit)) => return Output::Read { source, credit },
                Some(Act::Close(conn, why)) => return Output::Close { conn, why },
                Some(Act::Effect(id, effect)) => return Output::Effect { id, effect },
                Some(Act::Cancel(effect)) => return Output::Cancel { effect },
            }
        }
        let arrival = match self.load {
            Load::Churn { per_second: Some(rate) } if !self.idle.is_empty() => self.next_arrival(rate),
            _ => None,
        };
        let first = self.deadlines.first().map(|(at, _)| *at);
        let at = first.into_iter().chain(arrival).min();
        Output::Wait(at.map(|at| Deadline { at, why: Wakeup::More }))
    }
}
