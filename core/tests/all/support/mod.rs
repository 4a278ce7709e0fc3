//! An agent on a virtual clock, and a broker that is played by bytes.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::RestoredAgent;
use castra_core::attach::HttpRequest;
use castra_core::auth::{Direction, Key, SessionKey, Transcript};
use castra_core::boundary::{
    Batch, CloseCause, CloseReason, Deadline, Effect, EffectError, EffectErrorKind, Origin, PeerCred, Remote,
    Source, Transport, Via,
};
use castra_core::config::AgentConfig;
use castra_core::entropy::Entropy;
use castra_core::event::Fact;
use castra_core::id::{ConnId, EffectId, Epoch, Nonce};
use castra_core::peers::InboxSettings;
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Agent, Engine, Input, Output};

pub const GREETING: &[u8] = b"castra-broker 0.1 ready\n";
pub const NONCE: Nonce = Nonce([0xAB; 16]);
pub const EPOCH: Epoch = Epoch(30_064_771_075);
pub const ROOM: usize = 64 * 1024;

/// One output, owned.
#[derive(Clone, PartialEq, Debug)]
pub enum Out {
    Sent(ConnId, Vec<u8>),
    Discard(ConnId),
    Read(Source, usize),
    Finish(ConnId),
    Close(ConnId, CloseReason),
    Dial(EffectId, Time),
    Persist(EffectId, Batch),
    Http(EffectId, Asked),
    Type(EffectId, String, Vec<u8>, Time),
    Cancel(EffectId),
    Event(Fact),
    Stopped,
}

/// An HTTP request, as a manager sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    pub line: String,
    pub bearer: String,
    pub handshake: Option<String>,
    pub body: String,
    pub at: Time,
    pub deadline: Time,
    pub answer_max: usize,
}

impl Asked {
    fn from(request: &HttpRequest, at: Time) -> Self {
        let HttpRequest { method, to, path, bearer, handshake, once, body, deadline, answer_max } = request;
        assert_eq!(*once, path.ends_with("/attach-by-code"), "attempts are counted");
        let scheme = if to.tls { "https" } else { "http" };
        Self {
            line: format!("{} {scheme}://{}{path}", method.as_str(), to.authority()),
            bearer: bearer.expose().to_owned(),
            handshake: handshake.as_ref().map(ToString::to_string),
            body: String::from_utf8(body.0.clone()).unwrap(),
            at,
            deadline: *deadline,
            answer_max: *answer_max,
        }
    }
}

pub struct World {
    pub agent: Agent,
    pub now: Time,
    pub log: Vec<Out>,
    pub wait: Option<Deadline>,
    pub rooms: BTreeMap<ConnId, usize>,
    slots: u32,
}

pub fn config() -> AgentConfig {
    AgentConfig::new("devbox".parse().unwrap())
}

pub fn token() -> Key {
    Key::from_bytes([7; 32])
}

pub fn keyed() -> AgentConfig {
    AgentConfig { token: Some(token()), ..config() }
}

/// Takes part.
pub fn with_inbox(settings: InboxSettings) -> AgentConfig {
    AgentConfig { inbox: Some(settings), ..config() }
}

pub fn serial() -> AgentConfig {
    AgentConfig { serial: true, ..config() }
}

/// The wall clock began with the boot.
pub fn now(boot: Time) -> Now {
    let wall = WallTime::from_unix_millis(boot.since(Time::ZERO).as_millis().try_into().unwrap());
    Now { boot, suspended: Duration::ZERO, wall }
}

impl World {
    /// Every jitter is half of its range.
    pub fn new(config: AgentConfig) -> Self {
        Self::with(config, Entropy::chosen(1 << 31))
    }

    pub fn with(config: AgentConfig, entropy: Entropy) -> Self {
        Self::restored(config, RestoredAgent::default(), entropy, Time::from_millis(1000))
    }

    pub fn restored(config: AgentConfig, inbox: RestoredAgent, entropy: Entropy, start: Time) -> Self {
        let mut world = Self {
            agent: Agent::new(config, inbox, entropy, now(start)),
            now: start,
            log: Vec::new(),
            wait: None,
            rooms: BTreeMap::new(),
            slots: 0,
        };
        world.drain();
        world
    }

    pub fn give(&mut self, input: Input<'_, AgentConfig>) {
        if let Input::Writable { conn, room } = input {
            self.rooms.insert(conn, room);
        }
        self.agent.handle(now(self.now), input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let out = match self.agent.poll_output() {
                Output::Wait(wait) => {
                    self.wait = wait;
                    #[cfg(feature = "model")]
                    self.agent.check_obligations().unwrap();
                    return;
                }
                Output::Transmit { conn, bytes } => {
                    let room = self.rooms.get_mut(&conn).expect("only open connections are written to");
                    *room = room.checked_sub(bytes.len()).expect("never more than the room");
                    match self.log.last_mut() {
                        Some(Out::Sent(last, sent)) if *last == conn => {
                            sent.extend_from_slice(bytes);
                            continue;
                        }
                        _ => Out::Sent(conn, bytes.to_vec()),
                    }
                }
                Output::Discard { conn } => Out::Discard(conn),
                Output::Read { source, credit } => Out::Read(source, credit),
                Output::Finish { conn } => Out::Finish(conn),
                Output::Close { conn, why } => {
                    self.rooms.remove(&conn).expect("closed once");
                    Out::Close(conn, why)
                }
                Output::Effect { id, effect: Effect::Dial { deadline, .. } } => Out::Dial(id, deadline),
                Output::Effect { id, effect: Effect::Persist(batch) } => Out::Persist(id, batch),
                Output::Effect { id, effect: Effect::Http(request) } => {
                    Out::Http(id, Asked::from(&request, self.now))
                }
                Output::Effect { id, effect: Effect::Type { terminal, bytes, deadline } } => {
                    Out::Type(id, terminal, bytes.0, deadline)
                }
                Output::Cancel { effect } => Out::Cancel(effect),
                Output::Event(event) => Out::Event(event.fact),
                Output::Stopped => Out::Stopped,
                other => panic!("not an agent's output: {other:?}"),
            };
            self.log.push(out);
        }
    }

    /// What came out since the last time.
    pub fn take(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.log)
    }

    pub fn events(&mut self) -> Vec<Fact> {
        self.take()
            .into_iter()
            .filter_map(|out| if let Out::Event(fact) = out { Some(fact) } else { None })
            .collect()
    }

    /// What was sent on `conn` since the last time; other outputs are dropped.
    pub fn sent(&mut self, conn: ConnId) -> Vec<u8> {
        self.take()
            .into_iter()
            .filter_map(|out| match out {
                Out::Sent(to, bytes) if to == conn => Some(bytes),
                _ => None,
            })
            .flatten()
            .collect()
    }

    pub fn text(&mut self, conn: ConnId) -> String {
        String::from_utf8(self.sent(conn)).unwrap()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.give(Input::Tick);
    }

    /// Ticks at every deadline until `time` has passed.
    pub fn live(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.wait.filter(|deadline| deadline.at <= end) {
            self.now = self.now.max(deadline.at);
            let before = (self.wait, self.log.len());
            self.give(Input::Tick);
            assert_ne!(before, (self.wait, self.log.len()), "a deadline that passed without effect");
        }
        self.now = end;
    }

    pub fn slot(&mut self) -> ConnId {
        self.slots += 1;
        ConnId { index: self.slots, generation: 0 }
    }

    /// The number of the newest dial.
    pub fn dialled(&self) -> EffectId {
        let newest = |out: &Out| if let Out::Dial(id, _) = out { Some(*id) } else { None };
        self.log.iter().rev().find_map(newest).expect("it dials")
    }

    pub fn open(&mut self, effect: EffectId, room: usize) -> ConnId {
        let conn = self.slot();
        self.rooms.insert(conn, room);
        self.give(Input::Opened {
            conn,
            via: Via::Link(Transport::Tcp),
            origin: Origin::Dialled(effect),
            local: None,
            remote: Remote::Unknown,
            peer_cred: None,
            room,
        });
        conn
    }

    pub fn connect(&mut self) -> ConnId {
        let effect = self.dialled();
        self.open(effect, ROOM)
    }

    pub fn fail_dial(&mut self) {
        let error = EffectError { kind: EffectErrorKind::Unreachable, message: "connection refused".into() };
        let effect = self.dialled();
        self.take();
        self.give(Input::Done { effect, result: Err(error) });
    }

    pub fn say(&mut self, conn: ConnId, bytes: impl AsRef<[u8]>) {
        self.give(Input::Bytes { conn, bytes: bytes.as_ref() });
    }

    pub fn closed(&mut self, conn: ConnId) {
        self.rooms.remove(&conn);
        self.give(Input::Closed { conn, why: CloseCause::Eof });
    }

    /// An unkeyed session, up; nothing is left in the log.
    pub fn up(&mut self) -> ConnId {
        let conn = self.connect();
        self.say(conn, GREETING);
        self.say(conn, challenge_line("none"));
        self.say(conn, ok_line(""));
        assert!(self.events().iter().any(|fact| matches!(fact, Fact::LinkUp { .. })));
        conn
    }

    /// A keyed session, up.
    pub fn up_keyed(&mut self) -> (ConnId, BrokerEnd) {
        let conn = self.connect();
        let hello = self.text(conn);
        let transcript = transcript(&hello);
        self.say(conn, GREETING);
        self.say(conn, challenge_line("hmac-sha256"));
        self.say(conn, ok_line(&format!(" proof={}", transcript.broker_proof(&token()))));
        assert!(self.events().iter().any(|fact| matches!(fact, Fact::LinkUp { authenticated: true, .. })));
        (conn, BrokerEnd::new(transcript.session_key(&token())))
    }

    pub fn client(&mut self) -> ConnId {
        self.client_with(Some(PeerCred { uid: 0, gid: 0, pid: 5 }), ROOM)
    }

    pub fn client_with(&mut self, peer_cred: Option<PeerCred>, room: usize) -> ConnId {
        let conn = self.slot();
        self.rooms.insert(conn, room);
        self.give(Input::Opened {
            conn,
            via: Via::Control,
            origin: Origin::Accepted,
            local: None,
            remote: Remote::Unknown,
            peer_cred,
            room,
        });
        conn
    }
}

/// The broker's side of a keyed session.
pub struct BrokerEnd {
    key: SessionKey,
    sent: u64,
    received: u64,
}

impl BrokerEnd {
    pub fn new(key: SessionKey) -> Self {
        Self { key, sent: 0, received: 0 }
    }

    pub fn frame(&mut self, json: &str) -> Vec<u8> {
        let mut bytes = json.as_bytes().to_vec();
        let length = bytes.len();
        self.key.append_tag(Direction::ToGuest, self.sent, 0..length, &mut bytes);
        self.sent += 1;
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
    }

    pub fn open(&mut self, frame: &[u8]) -> String {
        let json = self.key.open(Direction::ToBroker, self.received, &frame[4..]).expect("the right tag");
        self.received += 1;
        String::from_utf8(json.to_vec()).unwrap()
    }
}

/// What both ends of a keyed handshake agree on, from the agent's hello.
pub fn transcript(hello: &str) -> Transcript {
    let hello = hello.strip_suffix('\n').expect("a line");
    let nonce = hello.split(' ').find_map(|word| word.strip_prefix("nonce=")).expect("a nonce");
    let name = "devbox".parse().unwrap();
    Transcript::new(&name, &NONCE, &nonce.parse().unwrap(), EPOCH, hello.as_bytes())
}

pub fn challenge_line(auth: &str) -> String {
    format!("challenge {NONCE} epoch={EPOCH} auth={auth}\n")
}

pub fn ok_line(more: &str) -> String {
    format!("ok session=sess-7-3 epoch={EPOCH} interval_ms=5000 window_ms=15000{more}\n")
}

pub fn frame(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat()
}

/// Splits unkeyed frames into their JSON.
pub fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let Some(head) = bytes.first_chunk::<4>() {
        let end = 4 + u32::from_be_bytes(*head) as usize;
        frames.push(String::from_utf8(bytes[4..end].to_vec()).unwrap());
        bytes = &bytes[end..];
    }
    assert!(bytes.is_empty());
    frames
}

pub fn challenge_frame(seq: u64) -> String {
    format!(r#"{{"type":"challenge","seq":{seq},"nonce":"{NONCE}"}}"#)
}

pub fn proof_frame(seq: u64) -> String {
    format!(r#"{{"type":"proof","seq":{seq},"proof":"{NONCE}"}}"#)
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
