//! A link whose guest reads slowly, or ends in the middle of something.
#![allow(clippy::unwrap_used)]

use crate::common::{REACHABLE, ROOM, World, ends, ms};
use castra_core::Input;
use castra_core::boundary::{Remote, Transport, Via};
use castra_core::event::SessionEnd;
use castra_core::id::ConnId;

const PING: &str = r#"{"type":"ping","id":1}"#;

fn open_in(world: &mut World, room: usize) -> ConnId {
    world.open_with(Via::Link(Transport::Tcp), Remote::Unknown, None, room)
}

#[test]
fn a_greeting_is_sent_if_any_line_would_fit() {
    let mut world = World::new(|_| {});
    for (room, greeted) in [(640, true), (639, false)] {
        let conn = open_in(&mut world, room);
        assert_eq!(!world.take(conn).is_empty(), greeted, "{room}");
    }
}

#[test]
fn a_guest_that_leaves_a_third_of_its_buffer_is_read_from_and_below_it_is_not() {
    let third = ROOM / 3;
    for (room, reads) in [(third, true), (third - 1, false)] {
        let mut world = World::new(|_| {});
        let conn = world.join("devbox");
        world.take(conn);
        world.give_room(conn, room);
        world.send(conn, PING);
        assert_eq!(world.frame(conn).is_some(), reads, "{room}");
        assert_eq!(world.wires[&conn].credit, (!reads).then_some(0));
        if !reads {
            // What was on its way is kept in order.
            world.send(conn, r#"{"type":"ping","id":2}"#);
            world.give_room(conn, room);
            assert_eq!(world.frame(conn), None);
            world.give_room(conn, third);
            assert_eq!(world.frame(conn).unwrap()["id"], 1);
            // The first answer took what was free.
            assert_eq!((world.frame(conn), world.wires[&conn].credit), (None, Some(0)));
            world.give_room(conn, ROOM);
            assert_eq!(world.frame(conn).unwrap()["id"], 2);
            assert_eq!(world.wires[&conn].credit, Some(usize::MAX));
        }
    }
}

#[test]
fn a_guest_that_reads_again_in_time_starts_afresh() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    for _ in 0..3 {
        world.give_room(conn, 0);
        // A challenge is due within the interval: then it counts as slow.
        world.advance(ms(14_000));
        world.give_room(conn, ROOM);
        world.live(ms(5000), &[conn]);
        assert!(!world.is_closed(conn));
    }
    assert_eq!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn a_guest_with_hardly_any_room_is_as_slow_as_one_with_none() {
    for (room, slow) in [(639, true), (640, false)] {
        let mut world = World::new(|_| {});
        let conn = world.join("devbox");
        world.give_room(conn, 0);
        world.advance(ms(10_000));
        world.give_room(conn, room);
        world.advance(ms(11_000));
        assert_eq!(world.is_closed(conn), slow, "{room}");
    }
}

#[test]
fn a_link_that_ends_before_a_line_is_no_handshake() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Tcp);
    world.line(conn);
    world.handle(Input::Finished { conn });
    assert!(world.is_closed(conn));
    assert_eq!((world.take(conn), world.kinds()), (vec![], vec!["broker.started"]));
    // After a hello it is one.
    let (conn, _, _) = world.hello("devbox", "");
    world.handle(Input::Finished { conn });
    assert!(world.is_closed(conn));
    assert_eq!(world.take(conn), b"", "no line");
    assert_eq!(world.kinds().iter().filter(|kind| **kind == "handshake.failure").count(), 1);
}

#[test]
fn a_frame_that_lacks_its_last_byte_is_dropped_when_the_guest_has_finished() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    world.write(conn, b"\0\0\0\x13{\"type\":\"goodbye\"}");
    world.handle(Input::Finished { conn });
    assert!(world.is_closed(conn));
    assert_eq!(ends(&world), [SessionEnd::Disconnected]);
}

#[test]
fn a_proof_without_its_line_end_counts_and_then_the_link_ends() {
    let mut world = World::new(|_| {});
    let (conn, nonce, _) = world.hello("devbox", "");
    world.write(conn, format!("proof {nonce}").as_bytes());
    world.handle(Input::Finished { conn });
    assert!(world.line(conn).starts_with("ok "));
    assert!(world.is_closed(conn));
    assert_eq!(ends(&world), [SessionEnd::Disconnected]);
}

#[test]
fn a_frame_that_comes_in_pieces_has_one_deadline_from_its_first_byte() {
    let mut world = World::new(|config| config.interval = ms(1000));
    let conn = world.join("devbox");
    for byte in [0, 0, 0, 19] {
        world.write(conn, &[byte]);
        world.advance(ms(1200));
    }
    assert!(!world.is_closed(conn));
    world.advance(ms(199));
    assert!(!world.is_closed(conn));
    world.advance(ms(1));
    assert!(world.is_closed(conn));
    // A whole one in between starts it anew.
    let conn = world.join("devbox");
    for _ in 0..4 {
        world.write(conn, &[0, 0]);
        world.advance(ms(3000));
        world.write(conn, b"\0\x16{\"type\":\"ping\",\"id\":1}");
        world.live(ms(1000), &[conn]);
    }
    assert!(!world.is_closed(conn));
}

#[test]
fn a_link_that_is_gone_leaves_no_timer_behind() {
    let mut world = World::new(|_| {});
    let idle = world.broker.sizes().timers;
    let conn = world.open(Transport::Tcp);
    assert_eq!(world.broker.sizes().timers, idle + 1);
    world.close(conn);
    let conn = world.join("devbox");
    world.close(conn);
    let (conn, _, _) = world.hello("devbox", "");
    world.close(conn);
    assert_eq!(world.broker.sizes().timers, idle);
    assert_eq!((world.broker.sizes().links, world.broker.sizes().half_open), (0, 0));
}

#[test]
fn a_draining_broker_takes_no_new_link() {
    let mut world = World::new(|_| {});
    world.obliging = false;
    world.join("devbox");
    world.handle(Input::Drain { deadline: world.now.boot + ms(3000) });
    let late = world.open(Transport::Tcp);
    assert!(world.is_closed(late));
    assert_eq!(world.take(late), b"");
    assert_eq!(world.broker.sizes().links, 0);
}
