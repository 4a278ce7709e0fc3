//! A broker's engine with many proven guests on a virtual clock, and scripts of
//! what happens to it: the guests' part is worked out beforehand, so that
//! nothing but the engine is measured.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use castra_core::auth::{Direction, Key, SessionKey, TAG_DIGITS, Transcript};
use castra_core::boundary::{CloseCause, Origin, PeerCred, Remote, Transport, Via};
use castra_core::config::BrokerConfig;
use castra_core::entropy::Entropy;
use castra_core::event::Event;
use castra_core::id::{ConnId, EffectId, GuestName, Nonce};
use castra_core::link::inbox::{Inbox, append_frame};
use castra_core::link::line::BrokerLine;
use castra_core::link::message::{BrokerFrame, append_proof};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Broker, Engine, Input, Output, Restored};

const ROOM: usize = 128 * 1024;
const KEY: [u8; 32] = [9; 32];
const NONCE: Nonce = Nonce([0x5A; 16]);
/// Control connections have slots above those of guests.
const CONTROL: u32 = 200_000;

/// How guests prove themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proofs {
    /// They return the nonce.
    Unkeyed,
    /// Each has a token.
    Keyed,
}

/// A broker with guests, who are connected and proven.
#[derive(Clone)]
pub struct Crowd {
    /// The engine.
    pub broker: Broker,
    now: Now,
    proofs: Proofs,
    guests: Vec<Guest>,
    /// Clients on control, and how much each of them was sent since it had room.
    controls: Vec<usize>,
    /// When the broker wants to be woken.
    wake: Option<Time>,
    effects: Vec<EffectId>,
    said: Vec<(ConnId, Vec<u8>)>,
    events: Vec<Event>,
    script: Option<Vec<Step>>,
}

/// What a guest knows of its session.
#[derive(Clone, Debug, Default)]
struct Guest {
    generation: u32,
    key: Option<SessionKey>,
    received: u64,
    sent: u64,
    room: usize,
}

/// One input, at its time.
#[derive(Clone, Debug)]
struct Step {
    now: Now,
    given: Given,
}

#[derive(Clone, Debug)]
enum Given {
    Opened(ConnId, Via),
    Bytes(ConnId, Vec<u8>),
    Writable(ConnId),
    Closed(ConnId),
    Done(EffectId),
    Tick,
}

/// An engine and what happens to it next.
#[derive(Clone)]
pub struct Script {
    /// The engine.
    pub broker: Broker,
    steps: Vec<Step>,
}

impl Script {
    /// Lets it happen. Returns how many bytes the engine sent, and how many
    /// events it told.
    pub fn play(&mut self) -> (usize, usize) {
        let (mut bytes, mut events) = (0, 0);
        for step in &self.steps {
            handle(&mut self.broker, step, |output| match output {
                Output::Transmit { bytes: sent, .. } => bytes += black_box(sent).len(),
                Output::Event(event) => {
                    black_box(&event);
                    events += 1;
                }
                _ => {}
            });
        }
        (bytes, events)
    }
}

fn handle(broker: &mut Broker, step: &Step, mut take: impl FnMut(Output<'_>)) -> Option<Time> {
    let input = match &step.given {
        Given::Opened(conn, via) => Input::Opened {
            conn: *conn,
            via: *via,
            origin: Origin::Accepted,
            local: None,
            remote: Remote::Ip(SocketAddr::from(([127, 0, 0, 1], 40_000))),
            peer_cred: Some(PeerCred { uid: 0, gid: 0, pid: 1 }),
            room: ROOM,
        },
        Given::Bytes(conn, bytes) => Input::Bytes { conn: *conn, bytes },
        Given::Writable(conn) => Input::Writable { conn: *conn, room: ROOM },
        Given::Closed(conn) => Input::Closed { conn: *conn, why: CloseCause::Eof },
        Given::Done(effect) => Input::Done { effect: *effect, result: Ok(()) },
        Given::Tick => Input::Tick,
    };
    broker.handle(step.now, input);
    loop {
        match broker.poll_output() {
            Output::Wait(deadline) => return deadline.map(|deadline| deadline.at),
            output => take(output),
        }
    }
}

/// The name of the guest with this number.
#[must_use]
pub fn name(number: usize) -> GuestName {
    format!("guest-{number:06}").parse().expect("a name")
}

impl Crowd {
    /// `count` guests, who came evenly within `arrival`.
    #[must_use]
    pub fn new(count: usize, proofs: Proofs, arrival: Duration) -> Self {
        let now = Now {
            boot: Time::from_millis(1_000_000),
            suspended: Duration::ZERO,
            wall: WallTime::from_unix_millis(1_795_188_257_000),
        };
        let tokens = match proofs {
            Proofs::Unkeyed => Vec::new(),
            Proofs::Keyed => (0..=count).map(|n| (name(n), Some(Key::from_bytes(KEY)))).collect(),
        };
        let restored = Restored { incarnation: 1, tokens, ..Restored::default() };
        let broker = Broker::new(BrokerConfig::default(), restored, Entropy::seeded([7; 32]), now);
        let mut crowd = Self {
            broker,
            now,
            proofs,
            guests: Vec::new(),
            controls: Vec::new(),
            wake: None,
            effects: Vec::new(),
            said: Vec::new(),
            events: Vec::new(),
            script: None,
        };
        for number in 0..count {
            crowd.advance(arrival / u32::try_from(count).expect("not that many"));
            crowd.arrive(number);
        }
        crowd
    }

    /// The clock of this world.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// What was told since this was asked last.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Somebody follows the events.
    pub fn follow(&mut self) {
        let conn = self.ask("events", r#"{"follow":true}"#);
        self.said.retain(|(to, _)| *to != conn);
    }

    /// A client connects and asks; returns its connection.
    fn ask(&mut self, method: &str, params: &str) -> ConnId {
        let number = u32::try_from(self.controls.len()).expect("not that many");
        let conn = ConnId { index: CONTROL + number, generation: 0 };
        self.controls.push(0);
        self.handle(Given::Opened(conn, Via::Control));
        let line = format!("{{\"id\":1,\"method\":\"{method}\",\"params\":{params}}}\n");
        self.handle(Given::Bytes(conn, line.into_bytes()));
        conn
    }

    /// A client asks for everybody's status; returns the answer's length.
    pub fn status(&mut self) -> usize {
        let conn = self.ask("status", "{}");
        let mut bytes = 0;
        loop {
            let mut taken = 0;
            self.said.retain(|(to, part)| {
                taken += if *to == conn { part.len() } else { 0 };
                *to != conn
            });
            bytes += taken;
            if taken == 0 {
                self.handle(Given::Closed(conn));
                return bytes;
            }
            self.handle(Given::Writable(conn));
        }
    }

    /// The guest with this number connects and proves itself.
    pub fn arrive(&mut self, number: usize) {
        if self.guests.len() <= number {
            self.guests.resize_with(number + 1, Guest::default);
        }
        let conn = self.conn(number);
        self.guests[number] = Guest { generation: conn.generation, room: ROOM, ..Guest::default() };
        self.handle(Given::Opened(conn, Via::Link(Transport::Tcp)));
        let hello = format!(
            "hello vm:{} capabilities=metrics,proof-v1 boot=00112233445566778899aabbccddeeff nonce={NONCE}",
            name(number)
        );
        self.handle(Given::Bytes(conn, format!("{hello}\n").into_bytes()));
        let said = self.take_said(conn);
        let challenge = said.split(|byte| *byte == b'\n').find_map(|line| match BrokerLine::parse(line) {
            BrokerLine::Challenge(challenge) => Some(challenge),
            _ => None,
        });
        let challenge = challenge.expect("a challenge");
        let proof = match self.proofs {
            Proofs::Unkeyed => format!("proof {}\n", challenge.nonce),
            Proofs::Keyed => {
                let key = Key::from_bytes(KEY);
                let name = name(number);
                let transcript =
                    Transcript::new(&name, &challenge.nonce, &NONCE, challenge.epoch, hello.as_bytes());
                self.guests[number].key = Some(transcript.session_key(&key));
                format!("proof {}\n", transcript.guest_proof(&key))
            }
        };
        self.handle(Given::Bytes(conn, proof.into_bytes()));
        self.take_said(conn);
        self.serve();
    }

    /// The guest with this number is gone without a word.
    pub fn leave(&mut self, number: usize) {
        let conn = self.conn(number);
        self.handle(Given::Closed(conn));
        self.guests[number].generation += 1;
        self.serve();
    }

    /// Time passes; whoever is challenged answers at once. Returns how many were.
    pub fn advance(&mut self, span: Duration) -> usize {
        let end = self.now.boot + span;
        let mut answered = 0;
        while let Some(at) = self.wake.filter(|at| *at <= end) {
            self.set_clock(at);
            self.handle(Given::Tick);
            answered += self.answer();
            self.serve();
        }
        self.set_clock(end);
        answered
    }

    /// What happens to this crowd in `warm` and, after that, in `measured`, as a
    /// script: the engine in it has lived through `warm`, and `measured` is next.
    /// (A clone's buffers are as small as their contents.)
    pub fn script<W, T>(
        &self,
        warm: impl FnOnce(&mut Self) -> W,
        measured: impl FnOnce(&mut Self) -> T,
    ) -> (Script, T) {
        let mut rehearsal = self.clone();
        rehearsal.script = Some(Vec::new());
        warm(&mut rehearsal);
        let mut script = Script {
            broker: self.broker.clone(),
            steps: rehearsal.script.replace(Vec::new()).unwrap_or_default(),
        };
        script.play();
        let told = measured(&mut rehearsal);
        script.steps = rehearsal.script.unwrap_or_default();
        (script, told)
    }

    /// The broker is woken, and nothing may be due.
    pub fn tick(&mut self) {
        self.handle(Given::Tick);
    }

    fn set_clock(&mut self, at: Time) {
        let passed = at.max(self.now.boot).since(self.now.boot);
        self.now.boot = self.now.boot + passed;
        let wall = 1_795_187_257_000 + self.now.boot.as_nanos() / 1_000_000;
        self.now.wall = WallTime::from_unix_millis(i64::try_from(wall).expect("not that late"));
    }

    fn conn(&self, number: usize) -> ConnId {
        let index = u32::try_from(number).expect("not that many");
        ConnId { index, generation: self.guests[number].generation }
    }

    fn handle(&mut self, given: Given) {
        let step = Step { now: self.now, given };
        let Self { broker, effects, said, events, guests, .. } = self;
        self.wake = handle(broker, &step, |output| match output {
            Output::Transmit { conn, bytes } => {
                if let Some(guest) = guests.get_mut(conn.index as usize) {
                    guest.room -= bytes.len();
                }
                said.push((conn, bytes.to_vec()));
            }
            Output::Effect { id, .. } => effects.push(id),
            Output::Event(event) => events.push(event),
            _ => {}
        });
        if let Some(script) = &mut self.script {
            script.push(step);
        }
    }

    /// Effects succeed, and followers read.
    fn serve(&mut self) {
        while let Some(effect) = self.effects.pop() {
            self.handle(Given::Done(effect));
        }
        for (conn, bytes) in std::mem::take(&mut self.said) {
            let Some(number) = conn.index.checked_sub(CONTROL) else { continue };
            let waiting = &mut self.controls[number as usize];
            *waiting += bytes.len();
            if *waiting > ROOM / 2 {
                *waiting = 0;
                self.handle(Given::Writable(conn));
            }
        }
    }

    fn take_said(&mut self, conn: ConnId) -> Vec<u8> {
        let mut all = Vec::new();
        self.said.retain(|(to, bytes)| {
            if *to == conn {
                all.extend_from_slice(bytes);
            }
            *to != conn
        });
        all
    }

    fn answer(&mut self) -> usize {
        let mut answered = 0;
        for (conn, bytes) in std::mem::take(&mut self.said) {
            let Some(guest) = self.guests.get_mut(conn.index as usize) else {
                self.said.push((conn, bytes));
                continue;
            };
            let mut input = bytes.as_slice();
            let mut inbox = Inbox::default();
            let payload = inbox.frame(&mut input).expect("a good length").expect("whole");
            let count = guest.received;
            guest.received += 1;
            let json = match &guest.key {
                None => payload,
                Some(key) => key.open(Direction::ToGuest, count, payload).expect("a right tag"),
            };
            let Ok(BrokerFrame::Challenge { seq, nonce }) = BrokerFrame::parse(json) else { continue };
            let mut frame = Vec::new();
            let count = guest.sent;
            guest.sent += 1;
            let digits = guest.key.as_ref().map_or(0, |_| TAG_DIGITS);
            append_frame(
                &mut frame,
                false,
                digits,
                |out| append_proof(out, seq, &nonce),
                |out, json| {
                    if let Some(key) = &guest.key {
                        key.append_tag(Direction::ToBroker, count, json, out);
                    }
                },
            );
            let blocked = guest.room < ROOM / 2;
            if blocked {
                guest.room = ROOM;
            }
            self.handle(Given::Bytes(conn, frame));
            if blocked {
                self.handle(Given::Writable(conn));
            }
            answered += 1;
        }
        answered
    }
}
