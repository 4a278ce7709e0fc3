//! The hot path allocates nothing once it is warm: a challenge and its proof,
//! as the broker and as the agent handle them, in an open and in a keyed session.
//! What a handshake allocates, and how much memory a guest takes, is counted, too.
#![allow(clippy::unwrap_used)]
// Tests run beside each other: each thread counts for itself.
#![allow(clippy::disallowed_macros, clippy::disallowed_types)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use castra_core::RestoredAgent;
use castra_core::auth::{Key, Transcript};
use castra_core::boundary::{CloseCause, Effect, Origin, PeerCred, Remote, Transport, Via};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::entropy::Entropy;
use castra_core::id::{ConnId, EffectId, Epoch, GuestName};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Agent, Broker, Engine, Input, Output, Restored};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Bytes that were allocated and not freed.
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

fn count(freed: usize, allocated: usize) {
    LIVE.with(|live| live.set(live.get().wrapping_add(allocated).wrapping_sub(freed)));
}

// SAFETY: every call goes to the system's allocator as it is; counting touches
// a thread-local number that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        count(0, layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        count(layout.size(), size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROOM: usize = 128 * 1024;
const CONN: ConnId = ConnId { index: 0, generation: 0 };

/// An engine, what it sent last, and what it allocated so far.
struct Side<E> {
    engine: E,
    sent: Vec<u8>,
    room: usize,
    wake: Option<Time>,
    dial: Option<EffectId>,
    records: Vec<EffectId>,
    allocations: u64,
}

impl<E: Engine> Side<E> {
    fn new(engine: E) -> Self {
        let (sent, records) = (Vec::with_capacity(ROOM), Vec::with_capacity(64));
        Self { engine, sent, room: ROOM, wake: None, dial: None, records, allocations: 0 }
    }

    /// One input and its drain, counted.
    fn handle(&mut self, now: Now, input: Input<'_, E::Config>) {
        let before = COUNT.get();
        self.engine.handle(now, input);
        self.drain();
        self.allocations += COUNT.get() - before;
    }

    fn drain(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { bytes, .. } => {
                    self.room -= bytes.len();
                    self.sent.extend_from_slice(bytes);
                }
                Output::Effect { id, effect: Effect::Dial { .. } } => self.dial = Some(id),
                Output::Effect { id, .. } => self.records.push(id),
                Output::Wait(deadline) => {
                    self.wake = deadline.map(|deadline| deadline.at);
                    return;
                }
                _ => {}
            }
        }
    }

    fn settle(&mut self, now: Now) {
        if self.room < ROOM / 2 {
            self.room = ROOM;
            self.handle(now, Input::Writable { conn: CONN, room: ROOM });
        }
        while let Some(effect) = self.records.pop() {
            self.handle(now, Input::Done { effect, result: Ok(()) });
        }
    }
}

struct Pair {
    broker: Side<Broker>,
    agent: Side<Agent>,
    now: Now,
}

impl Pair {
    fn new(token: Option<Key>, records_per_second: u32) -> Self {
        let name = "devbox".parse().unwrap();
        let now = Now {
            boot: Time::from_millis(1_000_000),
            suspended: Duration::ZERO,
            wall: WallTime::from_unix_millis(1_795_188_257_000),
        };
        let tokens = token.iter().map(|key| (name, Some(key.clone()))).collect();
        let restored = Restored { incarnation: 1, tokens, ..Restored::default() };
        let config = BrokerConfig { records_per_second, ..BrokerConfig::default() };
        let broker = Side::new(Broker::new(config, restored, Entropy::seeded([7; 32]), now));
        let config = AgentConfig { token, ..AgentConfig::new(name) };
        let agent = Side::new(Agent::new(config, RestoredAgent::default(), Entropy::seeded([8; 32]), now));
        let mut pair = Self { broker, agent, now };
        pair.agent.drain();
        let (via, remote, room) = (Via::Link(Transport::Tcp), Remote::Unknown, ROOM);
        let opened =
            |origin| Input::Opened { conn: CONN, via, origin, local: None, remote, peer_cred: None, room };
        pair.broker.handle(now, opened(Origin::Accepted));
        let dial = pair.agent.dial.unwrap();
        let opened =
            |origin| Input::Opened { conn: CONN, via, origin, local: None, remote, peer_cred: None, room };
        pair.agent.handle(now, opened(Origin::Dialled(dial)));
        pair.talk();
        assert!(pair.broker.engine.status(now).all(|row| row.reachable));
        pair
    }

    /// What was sent arrives, until nobody has more to say.
    fn talk(&mut self) {
        while !self.broker.sent.is_empty() || !self.agent.sent.is_empty() {
            let bytes = std::mem::take(&mut self.broker.sent);
            self.agent.handle(self.now, Input::Bytes { conn: CONN, bytes: &bytes });
            self.broker.sent = Vec::with_capacity(ROOM);
            let bytes = std::mem::take(&mut self.agent.sent);
            if !bytes.is_empty() {
                self.broker.handle(self.now, Input::Bytes { conn: CONN, bytes: &bytes });
            }
            self.agent.sent = Vec::with_capacity(ROOM);
        }
        self.broker.settle(self.now);
        self.agent.settle(self.now);
    }

    /// `count` wake-ups of the broker; what broker and agent allocated in them.
    fn live(&mut self, count: usize) -> (u64, u64) {
        let before = (self.broker.allocations, self.agent.allocations);
        for _ in 0..count {
            let at = self.broker.wake.unwrap();
            self.now.boot = at;
            self.now.wall = WallTime::from_unix_millis((at.as_nanos() / 1_000_000) as i64);
            self.broker.handle(self.now, Input::Tick);
            self.talk();
        }
        assert!(self.broker.engine.status(self.now).all(|row| row.reachable));
        (self.broker.allocations - before.0, self.agent.allocations - before.1)
    }
}

fn proofs(pair: &Pair) -> u64 {
    pair.broker.engine.status(pair.now).map(|row| row.handshakes).sum()
}

fn key() -> Key {
    Key::from_bytes([9; 32])
}

#[test]
fn a_keepalive_allocates_nothing_at_either_end() {
    for token in [None, Some(key())] {
        let mut pair = Pair::new(token, 0);
        pair.live(5000);
        let before = proofs(&pair);
        assert_eq!(pair.live(5000), (0, 0));
        assert!(proofs(&pair) > before + 500, "nothing was proven: {}", proofs(&pair) - before);
    }
}

#[test]
fn a_record_that_is_written_behind_costs_its_own_box_and_its_entry() {
    let mut pair = Pair::new(None, 50);
    pair.live(5000);
    let before = proofs(&pair);
    let (broker, agent) = pair.live(1000);
    let keepalives = proofs(&pair) - before;
    assert!(broker <= 2 * keepalives && agent == 0, "{broker} allocations for {keepalives} keepalives");
}

/// A broker with many guests, all of whose answers are written down by hand.
struct Crowd {
    broker: Side<Broker>,
    now: Now,
    key: Option<Key>,
}

impl Crowd {
    fn new(guests: usize, key: Option<Key>) -> Self {
        let now = Now { boot: Time::from_millis(1_000_000), ..Now::default() };
        let tokens = key.iter().flat_map(|key| (0..guests).map(|n| (guest(n), Some(key.clone())))).collect();
        let restored = Restored { incarnation: 1, tokens, ..Restored::default() };
        // The ring of events is as large with no guests as with many.
        let config = BrokerConfig { records_per_second: 0, event_ring: 16, ..BrokerConfig::default() };
        let broker = Side::new(Broker::new(config, restored, Entropy::seeded([7; 32]), now));
        Self { broker, now, key }
    }

    fn given(&mut self, input: Input<'_, BrokerConfig>) {
        self.now.boot = self.now.boot + Duration::from_micros(10);
        self.broker.sent.clear();
        self.broker.room = ROOM;
        self.broker.handle(self.now, input);
    }

    /// Connects and proves itself.
    fn arrive(&mut self, number: usize, conn: ConnId) {
        let (via, remote) = (Via::Link(Transport::Tcp), Remote::Ip("127.0.0.1:40000".parse().unwrap()));
        let (origin, room) = (Origin::Accepted, ROOM);
        self.given(Input::Opened { conn, via, origin, local: None, remote, peer_cred: None, room });
        let name = guest(number);
        let hello =
            format!("hello vm:{name} capabilities=metrics,proof-v1 boot={GUEST_NONCE} nonce={GUEST_NONCE}");
        self.given(Input::Bytes { conn, bytes: format!("{hello}\n").as_bytes() });
        let line = std::str::from_utf8(&self.broker.sent).unwrap();
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let (nonce, epoch) = (words[1].parse().unwrap(), words[2].strip_prefix("epoch=").unwrap());
        let proof = match &self.key {
            None => format!("proof {nonce}\n"),
            Some(key) => {
                let epoch = Epoch(epoch.parse().unwrap());
                let guest = GUEST_NONCE.parse().unwrap();
                let transcript = Transcript::new(&name, &nonce, &guest, epoch, hello.as_bytes());
                format!("proof {}\n", transcript.guest_proof(key))
            }
        };
        self.given(Input::Bytes { conn, bytes: proof.as_bytes() });
        assert!(self.broker.sent.starts_with(b"ok "), "{:?}", String::from_utf8_lossy(&self.broker.sent));
    }

    /// A client follows all events, if somebody does.
    fn follow(&mut self, conn: ConnId) {
        let peer_cred = Some(PeerCred { uid: 0, gid: 0, pid: 1 });
        let (origin, remote) = (Origin::Accepted, Remote::Unknown);
        self.given(Input::Opened {
            conn,
            via: Via::Control,
            origin,
            local: None,
            remote,
            peer_cred,
            room: usize::MAX,
        });
        let request = br#"{"id":1,"method":"events","params":{"follow":true}}"#;
        self.given(Input::Bytes { conn, bytes: &[request.as_slice(), b"\n"].concat() });
        assert!(!self.broker.sent.is_empty());
    }

    /// What `count` handshakes of a known guest allocate, from accept to close.
    fn handshakes(&mut self, count: u64) -> u64 {
        let before = self.broker.allocations;
        for _ in 0..count {
            self.arrive(0, CONN);
            self.given(Input::Closed { conn: CONN, why: CloseCause::Eof });
        }
        self.broker.allocations - before
    }
}

const GUEST_NONCE: &str = "000102030405060708090a0b0c0d0e0f";

fn guest(number: usize) -> GuestName {
    format!("guest-{number:06}").parse().unwrap()
}

#[test]
fn a_handshake_allocates_a_small_exact_number_of_times() {
    // The attempt and its capabilities; in a keyed session what seals its frames.
    for (key, follower, expected) in
        [(None, false, 2), (Some(key()), false, 3), (None, true, 2), (Some(key()), true, 3)]
    {
        let mut crowd = Crowd::new(1, key);
        if follower {
            crowd.follow(ConnId { index: 9, generation: 0 });
        }
        crowd.handshakes(1000);
        let allocations = crowd.handshakes(1000);
        println!("follower: {follower}: {allocations} allocations in 1000 handshakes");
        assert_eq!(allocations / 1000, expected, "follower: {follower}");
        // The queue of idle rows grows now and then.
        assert!(allocations % 1000 <= 8, "{allocations}");
    }
}

#[test]
fn an_idle_guest_takes_little_memory() {
    const GUESTS: usize = 10_000;
    for (key, bound) in [(None, 396), (Some(key()), 748)] {
        let before = LIVE.get();
        let mut crowd = Crowd::new(0, key.clone());
        let empty = LIVE.get().wrapping_sub(before);
        drop(crowd);
        let before = LIVE.get();
        crowd = Crowd::new(GUESTS, key);
        for number in 0..GUESTS {
            crowd.arrive(number, ConnId { index: number as u32, generation: 0 });
        }
        let each = LIVE.get().wrapping_sub(before).wrapping_sub(empty) / GUESTS;
        println!("{each} bytes a guest");
        assert!(each <= bound, "{each} bytes a guest");
    }
}
