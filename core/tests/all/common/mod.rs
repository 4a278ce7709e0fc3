//! A broker on a virtual clock, and peers that speak bytes.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use castra_core::boundary::{
    CloseCause, CloseReason, Deadline, Effect, EffectError, EffectErrorKind, Origin, PeerCred, Remote,
    Source, Transport, Via,
};
use castra_core::config::BrokerConfig;
use castra_core::entropy::Entropy;
use castra_core::event::{Event, Fact, Failure, SessionEnd};
use castra_core::id::{ConnId, EffectId, GuestName};
use castra_core::status::{GuestStatus, Reason, State};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Broker, Engine, Input, Output, Restored};
use serde_json::Value;

pub const ROOM: usize = 128 * 1024;

pub fn name(text: &str) -> GuestName {
    text.parse().unwrap()
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a connection has received and how it stands.
#[derive(Default)]
pub struct Wire {
    pub bytes: VecDeque<u8>,
    pub closed: Option<CloseReason>,
    /// The broker ended its direction.
    pub finished: bool,
    pub credit: Option<usize>,
    pub room: usize,
    pub discarded: u32,
    /// Transmitted bytes are not drained: the peer doesn't read.
    pub blocked: bool,
}

pub struct World {
    pub broker: Broker,
    pub now: Now,
    pub wires: BTreeMap<ConnId, Wire>,
    pub events: Vec<Event>,
    pub effects: Vec<(EffectId, Effect)>,
    /// Effects are answered at once with success.
    pub obliging: bool,
    pub doors: BTreeMap<&'static str, usize>,
    pub deadline: Option<Deadline>,
    pub stopped: bool,
    /// Our own end of links that are accepted from now on.
    pub local: Option<std::net::SocketAddr>,
    /// The latest time the broker was told.
    latest: Time,
    next: u32,
}

impl World {
    pub fn new(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        Self::restored(change, Restored { incarnation: 7, ..Restored::default() })
    }

    pub fn restored(change: impl FnOnce(&mut BrokerConfig), restored: Restored) -> Self {
        let now = Now {
            boot: Time::from_millis(1_000_000),
            suspended: Duration::ZERO,
            wall: WallTime::from_unix_millis(1_795_188_257_000),
        };
        Self::at(change, restored, now)
    }

    /// A broker that starts now; what it draws depends on its incarnation.
    pub fn at(change: impl FnOnce(&mut BrokerConfig), restored: Restored, now: Now) -> Self {
        let mut config = BrokerConfig::default();
        config.identity.uid = 1000;
        config.identity.version = "test".into();
        change(&mut config);
        config.check().unwrap();
        let seed = u8::try_from(restored.incarnation).unwrap();
        let broker = Broker::new(config, restored, Entropy::seeded([seed; 32]), now);
        let mut world = Self {
            broker,
            now,
            wires: BTreeMap::new(),
            events: Vec::new(),
            effects: Vec::new(),
            obliging: true,
            doors: BTreeMap::new(),
            deadline: None,
            stopped: false,
            local: None,
            latest: now.boot,
            next: 0,
        };
        world.drain();
        world
    }

    /// One input, then the drain; effects that are answered at once follow.
    pub fn handle(&mut self, input: Input<'_, BrokerConfig>) {
        self.broker.handle(self.now, input);
        self.drain();
        while self.obliging && !self.effects.is_empty() {
            let (effect, _) = self.effects.remove(0);
            self.broker.handle(self.now, Input::Done { effect, result: Ok(()) });
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.latest = self.latest.max(self.now.boot);
        let mut writable = Vec::new();
        loop {
            match self.broker.poll_output() {
                Output::Transmit { conn, bytes } => {
                    let wire = self.wires.get_mut(&conn).unwrap();
                    assert!(wire.closed.is_none(), "transmit after close");
                    assert!(bytes.len() <= wire.room, "transmit beyond the room");
                    wire.room -= bytes.len();
                    wire.bytes.extend(bytes);
                    if !wire.blocked && wire.room < ROOM / 2 {
                        writable.push(conn);
                    }
                }
                Output::Discard { conn } => {
                    let wire = self.wires.get_mut(&conn).unwrap();
                    wire.discarded += 1;
                    wire.bytes.clear();
                }
                Output::Read { source, credit } => match source {
                    Source::Conn(conn) => self.wires.get_mut(&conn).unwrap().credit = Some(credit),
                    Source::LinkDoor => {
                        self.doors.insert("link", credit);
                    }
                    Source::ControlDoor => {
                        self.doors.insert("control", credit);
                    }
                    Source::ManagerDoor => {
                        self.doors.insert("manager", credit);
                    }
                    Source::TerminalDoor | Source::Terminal(_) => panic!("a broker has no terminals"),
                },
                Output::Close { conn, why } => {
                    let wire = self.wires.get_mut(&conn).unwrap();
                    assert!(wire.closed.replace(why).is_none(), "closed twice");
                }
                Output::Effect { id, effect } => self.effects.push((id, effect)),
                Output::Cancel { .. } => {}
                Output::Finish { conn } => self.wires.get_mut(&conn).unwrap().finished = true,
                Output::Event(event) => self.events.push(event),
                Output::Stopped => self.stopped = true,
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    break;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        self.check();
        for conn in writable {
            if self.wires[&conn].closed.is_none() {
                self.wires.get_mut(&conn).unwrap().room = ROOM;
                self.handle(Input::Writable { conn, room: ROOM });
            }
        }
    }

    /// What must be so after every input.
    pub fn check(&self) {
        let now = self.now.boot.max(self.latest);
        let status: BTreeMap<_, _> = self.broker.status(self.now).map(|row| (row.name, row)).collect();
        let glances: Vec<_> = self.broker.glances(self.now).collect();
        assert_eq!(glances.len(), status.len());
        for glance in glances {
            let row = &status[&glance.name];
            assert_eq!((glance.state, glance.reason), (row.state, row.reason), "of {}", row.name);
            let age = glance.proof_at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap());
            assert_eq!(age, row.last_handshake_age_ms);
            assert_eq!(glance.session.is_some(), row.session_age_ms.is_some());
            assert_eq!((glance.epoch, glance.proven), (row.epoch, row.proven));
        }
        #[cfg(feature = "model")]
        self.broker.check_obligations().unwrap();
    }

    /// Time passes, and the broker is woken whenever it asked for it.
    pub fn advance(&mut self, span: Duration) {
        let end = self.now.boot + span;
        while let Some(deadline) = self.deadline.filter(|deadline| deadline.at <= end) {
            let at = deadline.at.max(self.now.boot);
            self.jump(at.since(self.now.boot));
            self.handle(Input::Tick);
        }
        self.jump(end.since(self.now.boot));
    }

    /// Time passes and nobody wakes the broker.
    pub fn jump(&mut self, span: Duration) {
        self.now.boot = self.now.boot + span;
        let wall = self.now.wall.unix_millis() + i64::try_from(span.as_millis()).unwrap();
        self.now.wall = WallTime::from_unix_millis(wall);
    }

    pub fn open(&mut self, transport: Transport) -> ConnId {
        self.open_from(transport, Remote::Ip("127.0.0.1:5000".parse().unwrap()))
    }

    pub fn open_from(&mut self, transport: Transport, remote: Remote) -> ConnId {
        self.open_via(Via::Link(transport), remote, None)
    }

    pub fn open_control(&mut self) -> ConnId {
        let cred = PeerCred { uid: 1000, gid: 1000, pid: 4 };
        self.open_via(Via::Control, Remote::Unknown, Some(cred))
    }

    pub fn open_via(&mut self, via: Via, remote: Remote, peer_cred: Option<PeerCred>) -> ConnId {
        self.open_with(via, remote, peer_cred, ROOM)
    }

    pub fn open_with(
        &mut self,
        via: Via,
        remote: Remote,
        peer_cred: Option<PeerCred>,
        room: usize,
    ) -> ConnId {
        let conn = ConnId { index: self.next, generation: 0 };
        self.next += 1;
        self.wires.insert(conn, Wire { room, blocked: room < ROOM, ..Wire::default() });
        self.handle(Input::Opened {
            conn,
            via,
            origin: Origin::Accepted,
            local: self.local.filter(|_| matches!(via, Via::Link(_))),
            remote,
            peer_cred,
            room,
        });
        conn
    }

    /// What the peer reads, or doesn't, from now on leaves this much room.
    pub fn give_room(&mut self, conn: ConnId, room: usize) {
        let wire = self.wires.get_mut(&conn).unwrap();
        (wire.blocked, wire.room) = (room < ROOM, room);
        self.handle(Input::Writable { conn, room });
    }

    pub fn write(&mut self, conn: ConnId, bytes: &[u8]) {
        self.handle(Input::Bytes { conn, bytes });
    }

    pub fn close(&mut self, conn: ConnId) {
        self.handle(Input::Closed { conn, why: CloseCause::Eof });
    }

    /// Everything received so far.
    pub fn take(&mut self, conn: ConnId) -> Vec<u8> {
        self.wires.get_mut(&conn).unwrap().bytes.drain(..).collect()
    }

    /// The next line received.
    pub fn line(&mut self, conn: ConnId) -> String {
        let bytes = &mut self.wires.get_mut(&conn).unwrap().bytes;
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("no line");
        let line: Vec<u8> = bytes.drain(..=end).collect();
        String::from_utf8(line[..end].to_vec()).unwrap()
    }

    /// The next frame received, without a tag.
    pub fn frame(&mut self, conn: ConnId) -> Option<Value> {
        let bytes = &mut self.wires.get_mut(&conn).unwrap().bytes;
        if bytes.is_empty() {
            return None;
        }
        let head: Vec<u8> = bytes.drain(..4).collect();
        let length = u32::from_be_bytes(head.try_into().unwrap()) as usize;
        let json: Vec<u8> = bytes.drain(..length).collect();
        Some(serde_json::from_slice(&json).unwrap())
    }

    pub fn send(&mut self, conn: ConnId, json: &str) {
        let mut bytes = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        self.write(conn, &bytes);
    }

    pub fn is_closed(&self, conn: ConnId) -> bool {
        self.wires[&conn].closed.is_some()
    }

    /// Opens a link and says hello; returns the challenge's nonce and epoch.
    pub fn hello(&mut self, guest: &str, rest: &str) -> (ConnId, String, u64) {
        let conn = self.open(Transport::Tcp);
        let (nonce, epoch) = self.hello_on(conn, guest, rest);
        (conn, nonce, epoch)
    }

    pub fn hello_on(&mut self, conn: ConnId, guest: &str, rest: &str) -> (String, u64) {
        self.write(conn, format!("hello vm:{guest} capabilities=proof-v1{rest}\n").as_bytes());
        let mut line = self.line(conn);
        if line == "castra-broker 0.1 ready" {
            line = self.line(conn);
        }
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "challenge", "{line}");
        (words[1].to_owned(), words[2].strip_prefix("epoch=").unwrap().parse().unwrap())
    }

    /// A whole unkeyed handshake.
    pub fn join(&mut self, guest: &str) -> ConnId {
        let (conn, nonce, _) = self.hello(guest, "");
        self.write(conn, format!("proof {nonce}\n").as_bytes());
        let ok = self.line(conn);
        assert!(ok.starts_with("ok session=sess-7-"), "{ok}");
        conn
    }

    /// Reads frames until a challenge; returns its answer.
    pub fn answer_to_challenge(&mut self, conn: ConnId) -> Option<String> {
        loop {
            let frame = self.frame(conn)?;
            if frame["type"] == "challenge" {
                let nonce = frame["nonce"].as_str().unwrap();
                return Some(format!(r#"{{"type":"proof","seq":{},"proof":"{nonce}"}}"#, frame["seq"]));
            }
        }
    }

    /// Time passes in steps of 10 ms and the guests answer every challenge.
    pub fn live(&mut self, span: Duration, guests: &[ConnId]) {
        let end = self.now.boot + span;
        while self.now.boot < end {
            self.advance(ms(10));
            for conn in guests {
                while let Some(answer) = self.answer_to_challenge(*conn) {
                    self.send(*conn, &answer);
                }
            }
        }
    }

    pub fn row(&self, guest: &str) -> Option<GuestStatus> {
        self.broker.status(self.now).find(|row| row.name.as_str() == guest)
    }

    pub fn verdict(&self, guest: &str) -> (State, Option<Reason>) {
        let row = self.row(guest).expect("no such row");
        assert_eq!(row.reachable, row.state == State::Reachable);
        assert_eq!(row.reason.is_none(), row.reachable);
        (row.state, row.reason)
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.fact.kind()).collect()
    }

    pub fn facts(&mut self) -> Vec<Fact> {
        self.events.drain(..).map(|event| event.fact).collect()
    }

    /// One request on a control connection, and all lines that came back.
    pub fn ask(&mut self, conn: ConnId, request: &str) -> Vec<Value> {
        self.write(conn, format!("{request}\n").as_bytes());
        self.replies(conn)
    }

    pub fn replies(&mut self, conn: ConnId) -> Vec<Value> {
        while self.deadline.is_some_and(|deadline| deadline.at <= self.now.boot) {
            self.handle(Input::Tick);
        }
        let bytes = self.take(conn);
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn fail_effect(&mut self) {
        let (effect, _) = self.effects.remove(0);
        let error = EffectError { kind: EffectErrorKind::Storage, message: "no space left".into() };
        self.handle(Input::Done { effect, result: Err(error) });
    }
}

pub const REACHABLE: (State, Option<Reason>) = (State::Reachable, None);

pub const fn waiting(reason: Reason) -> (State, Option<Reason>) {
    (State::Waiting, Some(reason))
}

pub fn refusals(world: &World) -> Vec<Failure> {
    let failure = |fact: &Fact| match fact {
        Fact::HandshakeFailure { reason, .. } => Some(*reason),
        _ => None,
    };
    world.events.iter().filter_map(|event| failure(&event.fact)).collect()
}

pub fn ends(world: &World) -> Vec<SessionEnd> {
    let end = |fact: &Fact| match fact {
        Fact::SessionClosed { reason, .. } => Some(*reason),
        _ => None,
    };
    world.events.iter().filter_map(|event| end(&event.fact)).collect()
}
