//! A terminal's output and input allocate nothing once they are warm, but for the
//! bytes that a `Write` carries away.
#![allow(clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_types)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use castra_core::boundary::{Effect, Origin, PeerCred, Remote, Source, Via};
use castra_core::config::Identity;
use castra_core::entropy::Entropy;
use castra_core::id::{ConnId, EffectId, TerminalId};
use castra_core::terminals::wire::{Attach, Handshake, Request, Role, Secret};
use castra_core::terminals::{Deed, News, RestoredTerminals, Snapshot, TerminalsConfig};
use castra_core::time::{Now, Time};
use castra_core::{Engine, Input, Output, Terminals};

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

const ROOM: usize = 256 * 1024;
const TERMINAL: TerminalId = TerminalId(1);

struct Daemon {
    engine: Terminals,
    effects: Vec<(EffectId, Effect)>,
    grants: u64,
    sent: usize,
    allocations: u64,
}

impl Daemon {
    fn handle(&mut self, input: Input<'_, TerminalsConfig>) {
        let now = Now { boot: Time::from_millis(1000), ..Now::default() };
        let before = COUNT.get();
        self.engine.handle(now, input);
        self.drain();
        self.allocations += COUNT.get() - before;
    }

    fn drain(&mut self) {
        loop {
            match self.engine.poll_output() {
                Output::Transmit { bytes, .. } => self.sent += bytes.len(),
                Output::Read { source: Source::Terminal(_), .. } => self.grants += 1,
                Output::Effect { id, effect } => self.effects.push((id, effect)),
                Output::Wait(_) => return,
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        while let Some((id, effect)) = self.effects.pop() {
            if let Effect::Terminal { terminal, deed: Deed::Snapshot { .. } } = effect {
                let snapshot = Box::new(Snapshot::default());
                self.handle(Input::Terminal { terminal, news: News::Snapshot(snapshot) });
            }
            self.handle(Input::Done { effect: id, result: Ok(()) });
        }
    }

    fn ask(&mut self, conn: ConnId, request: &Request<'_>) {
        let mut frame = Vec::new();
        request.append(1, &mut frame);
        self.handle(Input::Bytes { conn, bytes: &frame });
        self.settle();
    }

    fn drained(&mut self) {
        for index in 0..2 {
            let conn = ConnId { index, generation: 0 };
            self.handle(Input::Writable { conn, room: ROOM });
        }
    }
}

#[test]
fn output_allocates_nothing_and_input_only_what_it_gives_away() {
    let identity = Identity { pid: 9, ..Identity::default() };
    let config = TerminalsConfig { identity, ..TerminalsConfig::default() };
    let restored = RestoredTerminals { next_id: 1, ..RestoredTerminals::default() };
    let engine = Terminals::new(config, restored, Entropy::chosen(0), Now::default());
    let effects = Vec::with_capacity(64);
    let mut daemon = Daemon { engine, effects, grants: 0, sent: 0, allocations: 0 };
    daemon.drain();
    daemon.settle();
    for index in 0..2 {
        let conn = ConnId { index, generation: 0 };
        let (origin, remote, room) = (Origin::Accepted, Remote::Unknown, ROOM);
        let peer_cred = Some(PeerCred { uid: 0, gid: 0, pid: 9 });
        daemon.handle(Input::Opened {
            conn,
            via: Via::Terminals,
            origin,
            local: None,
            remote,
            peer_cred,
            room,
        });
        daemon.ask(conn, &Request::Handshake(Handshake::new("", "A", Role::Control)));
        if index == 0 {
            daemon.ask(conn, &Request::Create(Box::default()));
        }
        daemon.ask(conn, &Request::Attach(Attach { session: 1, ..Attach::default() }));
    }
    let (piece, mut offset) = (vec![7; 48 * 1024], 0);
    let mut print = |daemon: &mut Daemon, times: u64| {
        let before = daemon.allocations;
        for _ in 0..times {
            let news = News::Output { offset, bytes: piece.as_slice().into() };
            daemon.handle(Input::Terminal { terminal: TERMINAL, news });
            offset += piece.len() as u64;
            daemon.drained();
        }
        daemon.allocations - before
    };
    print(&mut daemon, 200);
    let (sent, grants) = (daemon.sent, daemon.grants);
    assert_eq!(print(&mut daemon, 1000), 0);
    assert!(daemon.sent - sent > 2 * 1000 * piece.len() && daemon.grants - grants == 1000);

    let mut frame = Vec::new();
    Request::Input { session: 1, data: Secret(b"echo hi\n") }.append(5, &mut frame);
    let owner = ConnId { index: 0, generation: 0 };
    let type_in = |daemon: &mut Daemon, times: u64| {
        let before = daemon.allocations;
        for _ in 0..times {
            daemon.handle(Input::Bytes { conn: owner, bytes: &frame });
            daemon.settle();
            daemon.drained();
        }
        daemon.allocations - before
    };
    type_in(&mut daemon, 200);
    assert_eq!(type_in(&mut daemon, 1000), 1000);
}
