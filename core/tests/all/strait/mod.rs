//! A broker and an agent on one virtual clock, a link between them, clients before
//! them, and terminals that are played by bytes behind them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod chance;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use castra_core::RestoredAgent;
use castra_core::auth::Key;
use castra_core::boundary::{
    CloseCause, Deadline, DialTarget, Effect, EffectError, EffectErrorKind, Origin, PeerCred, Remote, Source,
    Transport, Via,
};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::entropy::Entropy;
use castra_core::event::{Fact, TunnelEnd};
use castra_core::id::{ConnId, EffectId};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Agent, Broker, Engine, Input, Output, Restored};
use serde_json::Value;

pub use chance::{Dice, pattern};

/// A connection's send buffer.
pub const ROOM: usize = 128 * 1024;

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One connection of an engine, with whoever is at its other end.
#[derive(Default)]
pub struct Port {
    /// Transmitted, and not taken by the other end yet.
    out: VecDeque<u8>,
    /// The room that the engine knows of.
    room: usize,
    credit: usize,
    /// What the other end says.
    pub inbound: VecDeque<u8>,
    pub ends: bool,
    told: bool,
    /// The other end takes what comes.
    pub reads: bool,
    pub got: Vec<u8>,
    /// The engine ended its direction, or the connection.
    pub finished: bool,
    pub closed: bool,
    is_link: bool,
    sent: u64,
    passed: u64,
    /// Challenges or proofs on their way: where they end, and since when.
    watched: VecDeque<(u64, Time)>,
}

/// An engine and its connections.
pub struct Side<E: Engine> {
    pub engine: E,
    pub ports: BTreeMap<ConnId, Port>,
    pub facts: Vec<Fact>,
    pub effects: Vec<(EffectId, Effect)>,
    pub cancelled: Vec<EffectId>,
    pub wait: Option<Deadline>,
    /// What can't wait long behind bytes of terminals.
    word: &'static [u8],
    check: fn(&E),
    next: u32,
}

impl<E: Engine> Side<E> {
    fn new(engine: E, word: &'static [u8], check: fn(&E)) -> Self {
        let mut side = Self {
            engine,
            ports: BTreeMap::new(),
            facts: Vec::new(),
            effects: Vec::new(),
            cancelled: Vec::new(),
            wait: None,
            word,
            check,
            next: 0,
        };
        side.drain(Time::ZERO);
        side
    }

    pub fn give(&mut self, now: Now, input: Input<'_, E::Config>) {
        self.engine.handle(now, input);
        self.drain(now.boot);
    }

    fn drain(&mut self, now: Time) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { conn, bytes } => {
                    let port = self.ports.get_mut(&conn).unwrap();
                    assert!(!port.closed && !port.finished, "transmit after the end");
                    port.room = port.room.checked_sub(bytes.len()).expect("never more than the room");
                    if port.is_link {
                        let places = bytes.windows(self.word.len()).enumerate();
                        for (place, _) in places.filter(|(_, part)| *part == self.word) {
                            port.watched.push_back((port.sent + place as u64 + 90, now));
                        }
                    }
                    port.sent += bytes.len() as u64;
                    port.out.extend(bytes);
                }
                Output::Read { source: Source::Conn(conn), credit } => {
                    self.ports.get_mut(&conn).unwrap().credit = credit;
                }
                Output::Finish { conn } => {
                    let port = self.ports.get_mut(&conn).unwrap();
                    assert!(!std::mem::replace(&mut port.finished, true), "finished twice");
                }
                Output::Close { conn, .. } => {
                    let port = self.ports.get_mut(&conn).unwrap();
                    assert!(!std::mem::replace(&mut port.closed, true), "closed twice");
                }
                Output::Effect { id, effect } => self.effects.push((id, effect)),
                Output::Cancel { effect } => self.cancelled.push(effect),
                Output::Event(event) => self.facts.push(event.fact),
                Output::Wait(wait) => {
                    self.wait = wait;
                    (self.check)(&self.engine);
                    return;
                }
                _ => {}
            }
        }
    }

    fn open(&mut self, now: Now, via: Via, origin: Origin) -> ConnId {
        let conn = ConnId { index: self.next, generation: 0 };
        self.next += 1;
        let is_link = matches!(via, Via::Link(_));
        let port = Port { room: ROOM, credit: usize::MAX, reads: true, is_link, ..Port::default() };
        self.ports.insert(conn, port);
        let peer_cred = Some(PeerCred { uid: 0, gid: 0, pid: 5 });
        let (local, remote, room) = (None, Remote::Unknown, ROOM);
        self.give(now, Input::Opened { conn, via, origin, local, remote, peer_cred, room });
        conn
    }

    /// The other end is gone.
    pub fn cut(&mut self, now: Now, conn: ConnId) {
        let port = self.ports.get_mut(&conn).unwrap();
        if !std::mem::replace(&mut port.closed, true) {
            self.give(now, Input::Closed { conn, why: CloseCause::Eof });
        }
    }

    /// What a connection's other end takes, up to `budget`; what it says goes in.
    fn step(&mut self, now: Now, dice: &mut Dice) -> bool {
        let mut busy = false;
        for conn in self.ports.keys().copied().collect::<Vec<_>>() {
            let port = self.ports.get_mut(&conn).unwrap();
            if !port.is_link && port.reads && !port.out.is_empty() {
                let count = 1 + dice.below(port.out.len());
                port.got.extend(port.out.drain(..count));
                busy = true;
            }
            let free = ROOM - port.out.len();
            if !port.closed && port.room < ROOM / 2 && free >= ROOM / 2 {
                port.room = free;
                self.give(now, Input::Writable { conn, room: free });
                busy = true;
            }
            let port = self.ports.get_mut(&conn).unwrap();
            if port.closed || port.credit == 0 {
                continue;
            }
            if !port.inbound.is_empty() {
                let most = port.inbound.len().min(port.credit).min(64 * 1024);
                let count = if dice.below(4) == 0 { 1 + dice.below(most) } else { most };
                let bytes: Vec<u8> = port.inbound.drain(..count).collect();
                self.give(now, Input::Bytes { conn, bytes: &bytes });
                busy = true;
            } else if port.ends && !std::mem::replace(&mut port.told, true) {
                self.give(now, Input::Finished { conn });
                busy = true;
            }
        }
        busy
    }
}

pub struct Strait {
    pub broker: Side<Broker>,
    pub agent: Side<Agent>,
    pub now: Now,
    pub dice: Dice,
    /// Bytes a second that the link carries in each direction; none: any number.
    pub rate: Option<u64>,
    /// Dials of terminals succeed, fail, or hang.
    pub terminals: Answer,
    /// The two ends of the link.
    pub link: Option<(ConnId, ConnId)>,
    /// Connections to the terminals, oldest first.
    pub dialled: Vec<ConnId>,
    /// Terminals return whatever they get.
    pub echoes: bool,
    /// The agent doesn't run.
    pub frozen: bool,
    /// How long challenges and proofs took over the link.
    pub delays: Vec<(Time, Duration)>,
    carried: [u64; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Opened,
    Refused,
    Nothing,
}

pub fn token() -> Key {
    Key::from_bytes([7; 32])
}

impl Strait {
    /// A keyed session, up, of an agent with terminals.
    pub fn new() -> Self {
        Self::with(1, |_| {}, |_| {})
    }

    pub fn with(
        seed: u64,
        change: impl FnOnce(&mut BrokerConfig),
        other: impl FnOnce(&mut AgentConfig),
    ) -> Self {
        let mut strait = Self::apart(seed, change, other);
        strait.pass(ms(100));
        assert!(strait.link.is_some());
        strait
    }

    /// Nobody has done anything yet.
    pub fn apart(
        seed: u64,
        change: impl FnOnce(&mut BrokerConfig),
        other: impl FnOnce(&mut AgentConfig),
    ) -> Self {
        let name = "devbox".parse().unwrap();
        let now = Now {
            boot: Time::from_millis(1000),
            suspended: Duration::ZERO,
            wall: WallTime::from_unix_millis(1_795_188_257_000),
        };
        let mut config = BrokerConfig { interval: ms(500), window: ms(4000), ..BrokerConfig::default() };
        change(&mut config);
        let mut agent = AgentConfig { token: Some(token()), terminals: true, ..AgentConfig::new(name) };
        other(&mut agent);
        let tokens = vec![(name, agent.token.clone())];
        let tokens = if agent.token.is_some() { tokens } else { Vec::new() };
        let restored = Restored { incarnation: 7, tokens, ..Restored::default() };
        let broker = Broker::new(config, restored, Entropy::seeded([seed as u8; 32]), now);
        let agent = Agent::new(agent, RestoredAgent::default(), Entropy::seeded([99; 32]), now);
        Self {
            broker: Side::new(broker, br#""type":"challenge""#, |_engine| {
                #[cfg(feature = "model")]
                _engine.check_obligations().unwrap();
            }),
            agent: Side::new(agent, br#""type":"proof""#, |_engine| {
                #[cfg(feature = "model")]
                _engine.check_obligations().unwrap();
            }),
            now,
            dice: Dice::new(seed),
            rate: None,
            terminals: Answer::Opened,
            link: None,
            dialled: Vec::new(),
            echoes: false,
            frozen: false,
            delays: Vec::new(),
            carried: [0; 2],
        }
    }

    /// Everything that happens without time passing.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = self.answer_effects();
            busy |= self.carry();
            busy |= self.broker.step(self.now, &mut self.dice);
            busy |= !self.frozen && self.agent.step(self.now, &mut self.dice);
            if self.echoes {
                for conn in &self.dialled {
                    let port = self.agent.ports.get_mut(conn).unwrap();
                    busy |= !port.got.is_empty();
                    port.inbound.extend(port.got.drain(..));
                    port.ends |= port.finished && port.out.is_empty();
                }
            }
            let now = self.now.boot;
            if self.broker.wait.is_some_and(|wait| wait.at <= now) {
                self.broker.give(self.now, Input::Tick);
                busy = true;
            }
            if !self.frozen && self.agent.wait.is_some_and(|wait| wait.at <= now) {
                self.agent.give(self.now, Input::Tick);
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("it never settles");
    }

    fn answer_effects(&mut self) -> bool {
        let done =
            |side: &mut Side<Broker>, now, effect| side.give(now, Input::Done { effect, result: Ok(()) });
        let effects = std::mem::take(&mut self.broker.effects);
        let mut busy = !effects.is_empty();
        for (effect, _) in effects {
            done(&mut self.broker, self.now, effect);
        }
        if self.frozen {
            return busy;
        }
        for (effect, what) in std::mem::take(&mut self.agent.effects) {
            let Effect::Dial { to, .. } = what else { continue };
            busy = true;
            if self.agent.cancelled.contains(&effect) {
                let error = EffectError { kind: EffectErrorKind::Cancelled, message: "cancelled".into() };
                self.agent.give(self.now, Input::Done { effect, result: Err(error) });
                continue;
            }
            match (to, self.terminals) {
                (DialTarget::Link, _) => {
                    let via = Via::Link(Transport::Unix);
                    let host = self.broker.open(self.now, via, Origin::Accepted);
                    let guest = self.agent.open(self.now, via, Origin::Dialled(effect));
                    self.link = Some((host, guest));
                }
                (DialTarget::Terminals, Answer::Opened) => {
                    let conn = self.agent.open(self.now, Via::Terminals, Origin::Dialled(effect));
                    self.dialled.push(conn);
                }
                (DialTarget::Terminals, Answer::Refused) => {
                    let error = EffectError {
                        kind: EffectErrorKind::Unreachable,
                        message: "terminals.sock: no such file".into(),
                    };
                    self.agent.give(self.now, Input::Done { effect, result: Err(error) });
                }
                (DialTarget::Terminals, Answer::Nothing) => self.agent.effects.push((effect, what)),
            }
        }
        busy && self.terminals != Answer::Nothing
    }

    /// The link carries bytes.
    fn carry(&mut self) -> bool {
        let Some((host, guest)) = self.link else { return false };
        let total = self.rate.map(|rate| {
            let nanos = self.now.boot.as_nanos();
            (u128::from(rate) * u128::from(nanos) / 1_000_000_000) as u64
        });
        let mut busy = false;
        let (here, there) = (&mut self.broker.ports, &mut self.agent.ports);
        let (from, to) = (here.get_mut(&host).unwrap(), there.get_mut(&guest).unwrap());
        busy |= carry(from, to, total, &mut self.carried[0], self.now.boot, &mut self.delays);
        busy |= carry(to, from, total, &mut self.carried[1], self.now.boot, &mut self.delays);
        let over = |port: &Port| port.closed && port.out.is_empty();
        let (here, there) = (over(from), over(to));
        if here || there {
            self.link = None;
            self.agent.cut(self.now, guest);
            self.broker.cut(self.now, host);
            return true;
        }
        busy
    }

    pub fn pass(&mut self, span: Duration) {
        self.settle();
        let end = self.now.boot + span;
        while self.now.boot < end {
            self.now.boot = self.now.boot + ms(1);
            self.settle();
        }
    }

    /// The link breaks.
    pub fn break_link(&mut self) {
        let (host, guest) = self.link.take().expect("a link");
        self.broker.cut(self.now, host);
        self.agent.cut(self.now, guest);
        self.settle();
    }

    /// A control client of the broker.
    pub fn client(&mut self) -> ConnId {
        self.broker.open(self.now, Via::Control, Origin::Accepted)
    }

    /// A control client of the agent.
    pub fn local(&mut self) -> ConnId {
        self.agent.open(self.now, Via::Control, Origin::Accepted)
    }

    pub fn say(&mut self, client: ConnId, bytes: &[u8]) {
        self.broker.ports.get_mut(&client).unwrap().inbound.extend(bytes);
    }

    /// A client whose connection is a stream, and the connection to the terminals.
    pub fn stream(&mut self) -> (ConnId, ConnId) {
        let client = self.client();
        self.say(client, REQUEST);
        self.pass(ms(20));
        let reply = self.reply(client);
        assert_eq!((&reply["event"], &reply["id"]), (&"terminals".into(), &1.into()), "{reply}");
        assert_eq!(reply["data"]["guest"], "devbox");
        (client, *self.dialled.last().unwrap())
    }

    /// The first line that a client of the broker got; the rest stays.
    pub fn reply(&mut self, client: ConnId) -> Value {
        line(self.broker.ports.get_mut(&client).unwrap())
    }

    /// The code of the error that a request for terminals got, after which the
    /// connection was closed.
    pub fn refusal(&mut self, request: &str) -> String {
        let client = self.client();
        self.say(client, request.as_bytes());
        self.pass(ms(20));
        self.refused(client)
    }

    pub fn refused(&mut self, client: ConnId) -> String {
        let reply = self.reply(client);
        assert_eq!(reply["event"], "error", "{reply}");
        let port = self.at(client);
        assert!(port.closed && port.got.is_empty(), "one answer, then the end");
        reply["data"]["code"].as_str().unwrap().to_owned()
    }

    pub fn at(&self, client: ConnId) -> &Port {
        &self.broker.ports[&client]
    }

    pub fn terminal(&self, conn: ConnId) -> &Port {
        &self.agent.ports[&conn]
    }

    pub fn terminal_mut(&mut self, conn: ConnId) -> &mut Port {
        self.agent.ports.get_mut(&conn).unwrap()
    }

    pub fn at_mut(&mut self, client: ConnId) -> &mut Port {
        self.broker.ports.get_mut(&client).unwrap()
    }

    /// Why streams ended so far, as the broker says it and as the agent does.
    pub fn ends(&self) -> (Vec<TunnelEnd>, Vec<TunnelEnd>) {
        let end = |fact: &Fact| match fact {
            Fact::TunnelClosed { reason, .. } => Some(*reason),
            _ => None,
        };
        (
            self.broker.facts.iter().filter_map(end).collect(),
            self.agent.facts.iter().filter_map(end).collect(),
        )
    }
}

pub const REQUEST: &[u8] = b"{\"id\":1,\"method\":\"terminals\",\"params\":{\"guest\":\"devbox\"}}\n";

fn carry(
    from: &mut Port,
    to: &mut Port,
    total: Option<u64>,
    carried: &mut u64,
    now: Time,
    delays: &mut Vec<(Time, Duration)>,
) -> bool {
    // What could have been carried while there was nothing is lost.
    let budget = total.map_or(usize::MAX, |total| total.saturating_sub(*carried) as usize);
    let count = from.out.len().min(budget);
    to.inbound.extend(from.out.drain(..count));
    from.passed += count as u64;
    *carried = if from.out.is_empty() { total.unwrap_or(0) } else { *carried + count as u64 };
    while from.watched.front().is_some_and(|(end, _)| *end <= from.passed) {
        let (_, since) = from.watched.pop_front().unwrap();
        delays.push((now, now.since(since)));
    }
    count > 0
}

/// The first line that came.
pub fn line(port: &mut Port) -> Value {
    let end = port.got.iter().position(|byte| *byte == b'\n').expect("a line");
    let line: Vec<u8> = port.got.drain(..=end).collect();
    serde_json::from_slice(&line).unwrap()
}
