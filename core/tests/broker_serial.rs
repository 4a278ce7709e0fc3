//! Streams without connections: virtio-serial, as a broker speaks it.
#![allow(clippy::unwrap_used)]

mod common;

use castra_core::boundary::Transport;
use castra_core::event::SessionEnd;
use castra_core::status::Reason;
use common::{REACHABLE, World, ends, ms, waiting};

#[test]
fn an_idle_stream_costs_nothing_until_its_first_byte() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    assert_eq!(world.line(conn), "castra-broker 0.1 ready");
    world.advance(ms(60_000));
    world.write(conn, b"\n\r\n");
    world.advance(ms(60_000));
    assert_eq!(world.broker.sizes().half_open, 0);
    assert!(!world.is_closed(conn));
    world.write(conn, b"h");
    assert_eq!(world.broker.sizes().half_open, 1);
    world.advance(ms(2000));
    assert!(world.line(conn).starts_with("error: timeout: "));
    assert!(!world.is_closed(conn), "a serial stream returns to phase A");
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
    assert_eq!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn an_overlong_line_is_refused_once_and_the_rest_of_it_dropped() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    world.line(conn);
    for _ in 0..4 {
        world.write(conn, &[b'x'; 600]);
    }
    assert!(world.line(conn).starts_with("error: bad-line: "));
    assert_eq!(world.take(conn), b"");
    assert_eq!(world.kinds().iter().filter(|kind| **kind == "handshake.failure").count(), 1);
    assert_eq!(world.broker.sizes().half_open, 0);
    world.write(conn, b"rest\n");
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
}

#[test]
fn the_resynchronisation_byte_ends_an_overlong_line() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    world.write(conn, &[b'x'; 600]);
    world.take(conn);
    world.write(conn, b"\xff\n");
    assert_eq!(world.line(conn), "castra-broker 0.1 ready");
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
}

#[test]
fn bytes_that_are_no_frame_end_the_session_and_are_not_read_for_ever() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    world.take(conn);
    let mut garbage = vec![0, 1, 0, 1];
    garbage.resize(2000, b'x');
    world.write(conn, &garbage);
    assert_eq!(ends(&world), [SessionEnd::BadFrame]);
    assert_eq!(world.kinds().iter().filter(|kind| **kind == "handshake.failure").count(), 1);
}

#[test]
fn the_resynchronisation_byte_drops_what_is_unfinished_and_is_answered() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    world.line(conn);
    world.write(conn, b"hello vm:gar\xff\n");
    assert_eq!(world.line(conn), "castra-broker 0.1 ready");
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
}

#[test]
fn a_rebooted_guest_says_hello_again_behind_an_unbroken_stream() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    let (nonce, first) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    world.line(conn);
    world.write(conn, &[0, 0, 0, 50, b'{']);
    world.advance(ms(1000));
    world.take(conn);
    world.write(conn, b"\xff\n");
    assert_eq!(world.line(conn), "castra-broker 0.1 ready");
    assert_eq!(world.verdict("devbox"), REACHABLE, "the old verdict stands");
    let (nonce, second) = world.hello_on(conn, "devbox", "");
    assert!(second > first);
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
    assert_eq!(ends(&world), [SessionEnd::Replaced]);
    assert_eq!(world.row("devbox").unwrap().takeovers, 0, "no conflict with oneself");
    // And without the byte, at a frame boundary.
    let (nonce, _) = world.hello_on(conn, "devbox", " once");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
    world.advance(ms(15_001));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
}

#[test]
fn a_stream_that_begins_again_and_does_not_finish_loses_its_session() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    world.line(conn);
    world.write(conn, b"\xff\n");
    world.line(conn);
    world.advance(ms(1999));
    assert_eq!(world.take(conn), b"", "keepalives wait");
    assert_eq!(world.verdict("devbox"), REACHABLE);
    world.advance(ms(1));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Disconnected));
    assert_eq!(ends(&world), [SessionEnd::Resynchronised]);
    assert!(!world.is_closed(conn));
}

#[test]
fn elsewhere_the_byte_means_nothing() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    world.write(conn, b"\xff\n\0\0");
    assert!(world.is_closed(conn));
    assert_eq!(ends(&world), [SessionEnd::BadFrame]);
}
