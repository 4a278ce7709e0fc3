//! The hot path allocates nothing once it is warm: a challenge and its proof,
//! as the broker and as the agent handle them, in an open and in a keyed session.
#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_types,
    reason = "the counter is the test's, not the core's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use castra_core::auth::Key;
use castra_core::boundary::{Effect, Origin, Remote, Transport, Via};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::entropy::Entropy;
use castra_core::id::{ConnId, EffectId};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Agent, Broker, Engine, Input, Output, Restored};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is; counting touches
// a thread-local number that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
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
        let agent = Side::new(Agent::new(config, Entropy::seeded([8; 32]), now));
        let mut pair = Self { broker, agent, now };
        pair.agent.drain();
        let (via, remote, room) = (Via::Link(Transport::Tcp), Remote::Unknown, ROOM);
        let opened = |origin| Input::Opened { conn: CONN, via, origin, remote, peer_cred: None, room };
        pair.broker.handle(now, opened(Origin::Accepted));
        let dial = pair.agent.dial.unwrap();
        let opened = |origin| Input::Opened { conn: CONN, via, origin, remote, peer_cred: None, room };
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
