//! The bound of half-open connections, and who goes when it is reached.
#![allow(clippy::unwrap_used)]

use crate::common::{World, ms, refusals};
use castra_core::Input;
use castra_core::boundary::{Remote, Transport};
use castra_core::config::BrokerConfig;
use castra_core::event::Failure;
use castra_core::id::ConnId;

fn address(last: u8) -> Remote {
    Remote::Ip(format!("127.0.0.{last}:9").parse().unwrap())
}

fn bounded(half_open_max: usize) -> World {
    World::new(|config| config.half_open_max = half_open_max)
}

fn open(world: &mut World, count: usize, remote: Remote) -> Vec<ConnId> {
    (0..count).map(|_| world.open_from(Transport::Tcp, remote)).collect()
}

fn is_open(world: &World) -> bool {
    world.doors.get("link").is_none_or(|credit| *credit > 0)
}

#[test]
fn a_connection_in_its_grace_stays_however_many_its_source_has() {
    let mut world = bounded(4);
    let old = open(&mut world, 1, address(1));
    world.advance(ms(200));
    let young = open(&mut world, 3, address(2));
    world.advance(ms(49));
    assert!(!world.is_closed(old[0]));
    world.advance(ms(1));
    assert!(world.is_closed(old[0]));
    assert!(young.iter().all(|conn| !world.is_closed(*conn)));
    assert_eq!(refusals(&world), [Failure::Evicted]);
    assert_eq!(world.broker.statistics().evictions, 1);
    assert!(is_open(&world));
}

#[test]
fn the_oldest_of_its_source_goes_first() {
    let mut world = bounded(4);
    let mut conns = Vec::new();
    for _ in 0..3 {
        conns.extend(open(&mut world, 1, address(1)));
        world.advance(ms(10));
    }
    // Who leaves may change the order of those who stay.
    world.close(conns[0]);
    conns.extend(open(&mut world, 1, address(1)));
    world.advance(ms(1000));
    assert!(conns[1..].iter().all(|conn| !world.is_closed(*conn)));
    conns.extend(open(&mut world, 1, address(1)));
    world.advance(ms(0));
    let gone: Vec<usize> = (1..5).filter(|index| world.is_closed(conns[*index])).collect();
    assert_eq!(gone, [1]);
}

#[test]
fn users_and_contexts_are_sources_of_their_own() {
    for (many, few) in [
        (Remote::Process { uid: 1, pid: 1 }, Remote::Process { uid: 2, pid: 1 }),
        (Remote::Vsock { cid: 3, port: 1 }, Remote::Vsock { cid: 4, port: 1 }),
    ] {
        for first in [true, false] {
            let mut world = bounded(3);
            let mut early = if first { open(&mut world, 1, few) } else { Vec::new() };
            let greedy = open(&mut world, 2, many);
            early.extend(open(&mut world, usize::from(!first), few));
            world.advance(ms(250));
            assert!(!world.is_closed(early[0]));
            assert_eq!(greedy.iter().filter(|conn| world.is_closed(**conn)).count(), 1);
        }
    }
}

#[test]
fn a_lowered_bound_keeps_the_door_shut_until_there_is_room_below_it() {
    let mut world = bounded(4);
    let mut proving = Vec::new();
    for guest in ["a", "b", "c", "d"] {
        proving.push(world.hello(guest, "").0);
    }
    assert!(!is_open(&world));
    let mut config = BrokerConfig { half_open_max: 2, ..BrokerConfig::default() };
    config.identity.uid = 1000;
    world.handle(Input::Reload(Box::new(config)));
    for (left, opens) in [(3, false), (2, false), (1, true)] {
        world.close(proving.pop().unwrap());
        assert_eq!((world.broker.sizes().half_open, is_open(&world)), (left, opens));
    }
}

#[test]
fn a_valid_hello_or_its_end_takes_a_connection_out_of_line() {
    let mut world = bounded(2);
    let (proving, _, _) = world.hello("devbox", "");
    let silent = open(&mut world, 1, address(1));
    world.advance(ms(100));
    world.close(silent[0]);
    assert!(is_open(&world));
    let silent = open(&mut world, 1, address(1));
    assert!(!is_open(&world));
    world.advance(ms(249));
    assert!(!world.is_closed(silent[0]));
    world.advance(ms(1));
    assert!(world.is_closed(silent[0]) && !world.is_closed(proving));
}

#[test]
fn a_door_that_was_shut_twice_is_opened_twice() {
    let mut world = bounded(1);
    for _ in 0..3 {
        let conn = open(&mut world, 1, address(1));
        assert!(!is_open(&world));
        world.close(conn[0]);
        assert!(is_open(&world));
        assert_eq!(world.broker.sizes().half_open, 0);
        // The eviction that nobody needs any more wakes nobody.
        assert_eq!(world.deadline, None);
    }
}

#[test]
fn a_serial_stream_has_its_deadline_alone() {
    let mut world = bounded(2);
    let stream = world.open(Transport::Serial);
    world.line(stream);
    world.write(stream, b"hello vm:slow ");
    world.hello("devbox", "");
    assert!(!is_open(&world));
    world.advance(ms(1000));
    assert_eq!(world.take(stream), b"");
    world.write(stream, b"capabilities=proof-v1\n");
    assert!(world.line(stream).starts_with("challenge "));
    assert_eq!(world.broker.statistics().evictions, 0);
}
