//! A keepalive costs no allocation once the engine is warm.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_types,
    reason = "the counter is the test's, not the core's"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use castra_core::{Agent, Engine, Input, Output};
use support::*;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn give(
    agent: &mut Agent,
    at: castra_core::time::Time,
    input: Input<'_, castra_core::config::AgentConfig>,
) -> usize {
    agent.handle(now(at), input);
    let mut sent = 0;
    loop {
        match agent.poll_output() {
            Output::Transmit { bytes, .. } => sent += bytes.len(),
            Output::Wait(_) => return sent,
            other => panic!("{other:?}"),
        }
    }
}

/// Feeds `exchanges` (each in the given cut) and counts allocations.
fn allocations(world: &mut World, conn: castra_core::id::ConnId, exchanges: &[Vec<u8>], cut: usize) -> u64 {
    let before = COUNT.with(Cell::get);
    for exchange in exchanges {
        world.now = world.now + seconds(5);
        let mut sent = 0;
        for piece in exchange.chunks(cut) {
            sent += give(&mut world.agent, world.now, Input::Bytes { conn, bytes: piece });
        }
        assert!(sent > 0);
        give(&mut world.agent, world.now, Input::Tick);
        give(&mut world.agent, world.now, Input::Writable { conn, room: ROOM });
    }
    COUNT.with(Cell::get) - before
}

#[test]
fn a_warm_agent_answers_challenges_and_pings_without_allocating() {
    for cut in [usize::MAX, 50, 1] {
        let mut world = World::new(config());
        let conn = world.up();
        let exchanges = (0..200)
            .map(|seq| {
                [frame(&challenge_frame(seq)), frame(&format!(r#"{{"type":"ping","id":{seq}}}"#))].concat()
            })
            .collect::<Vec<_>>();
        allocations(&mut world, conn, &exchanges[..10], cut);
        assert_eq!(allocations(&mut world, conn, &exchanges[10..], cut), 0, "cut at {cut}");

        let mut world = World::new(keyed());
        let (conn, mut broker) = world.up_keyed();
        let exchanges = (0..200).map(|seq| broker.frame(&challenge_frame(seq))).collect::<Vec<_>>();
        allocations(&mut world, conn, &exchanges[..10], cut);
        assert_eq!(allocations(&mut world, conn, &exchanges[10..], cut), 0, "keyed, cut at {cut}");
    }
}
