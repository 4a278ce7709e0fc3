//! Streams without connections: virtio-serial, as a broker speaks it.
#![allow(clippy::unwrap_used)]

use crate::common::{REACHABLE, World, ends, ms, waiting};
use castra_core::boundary::Transport;
use castra_core::event::SessionEnd;
use castra_core::status::Reason;

fn prove(world: &mut World, conn: castra_core::id::ConnId, guest: &str, rest: &str) -> u64 {
    let (nonce, epoch) = world.hello_on(conn, guest, rest);
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
    epoch
}

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

#[test]
fn an_endless_line_is_refused_once_and_dropped_to_its_end_however_it_is_cut() {
    for step in [1, 7, 300, 512, 4096] {
        let mut world = World::new(|_| {});
        let conn = world.open(Transport::Serial);
        world.line(conn);
        let mut bytes = vec![b'x'; 2000];
        bytes.extend_from_slice(b"\nhello vm:devbox capabilities=proof-v1\n");
        for chunk in bytes.chunks(step) {
            world.write(conn, chunk);
        }
        assert!(world.line(conn).starts_with("error: bad-line: "));
        assert!(world.line(conn).starts_with("challenge "), "cut every {step} bytes");
    }
}

#[test]
fn a_bad_frame_returns_to_phase_a_behind_its_length_however_it_is_cut() {
    for step in [1, 3, 4096] {
        let mut world = World::new(|_| {});
        let conn = world.open(Transport::Serial);
        prove(&mut world, conn, "devbox", "");
        for chunk in b"\0\0\0\0hello vm:devbox capabilities=proof-v1\n".chunks(step) {
            world.write(conn, chunk);
        }
        assert_eq!(world.frame(conn).unwrap()["code"], "bad-frame");
        assert!(world.line(conn).starts_with("challenge "), "cut every {step} bytes");
    }
}

#[test]
fn a_stream_that_changes_its_name_leaves_no_session_under_the_old_one() {
    for rest in ["", " once"] {
        let mut world = World::new(|_| {});
        let conn = world.open(Transport::Serial);
        prove(&mut world, conn, "old", "");
        prove(&mut world, conn, "new", rest);
        assert_eq!(world.verdict("old"), waiting(Reason::Disconnected));
        assert_eq!(world.verdict("new"), REACHABLE);
        assert_eq!(ends(&world), [SessionEnd::Replaced]);
        world.close(conn);
        assert_eq!(world.row("old").unwrap().session_age_ms, None);
        assert_eq!(world.row("new").unwrap().session_age_ms, None);
    }
}

#[test]
fn a_stream_that_turns_to_0_1_under_another_name_leaves_no_session_under_the_old_one() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    prove(&mut world, conn, "old", "");
    world.write(conn, b"hello vm:new capabilities=bus-v1\n");
    assert!(world.line(conn).starts_with("ok session="));
    assert_eq!(world.verdict("old"), waiting(Reason::Disconnected));
    assert_eq!(world.verdict("new"), waiting(Reason::Unproven));
}

#[test]
fn a_fresh_handshake_of_the_incumbent_on_its_own_stream_decides_a_conflict() {
    for rest in ["", " once"] {
        let mut world = World::new(|_| {});
        let conn = world.open(Transport::Serial);
        prove(&mut world, conn, "devbox", "");
        let (thief, nonce, _) = world.hello("devbox", "");
        world.write(thief, format!("proof {nonce}\n").as_bytes());
        world.advance(ms(100));
        world.take(conn);
        world.write(conn, b"\xff\n");
        let epoch = prove(&mut world, conn, "devbox", rest);
        assert!(world.line(thief).starts_with("error: name-in-use: "));
        world.advance(ms(1000));
        assert_eq!(world.row("devbox").unwrap().epoch.unwrap().0, epoch, "a lower epoch never comes back");
        assert_eq!(world.verdict("devbox"), REACHABLE);
    }
}

#[test]
fn a_session_that_is_taken_over_does_not_disturb_the_handshake_on_its_stream() {
    let mut world = World::new(|config| config.max_guests = 1);
    let conn = world.open(Transport::Serial);
    prove(&mut world, conn, "devbox", "");
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    let (newcomer, other, _) = world.hello("devbox", "");
    world.write(newcomer, format!("proof {other}\n").as_bytes());
    world.advance(ms(500));
    assert!(world.line(newcomer).starts_with("ok "));
    assert_eq!(ends(&world), [SessionEnd::Superseded]);
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("error: name-in-use: "), "its epoch is lower");
    // Nothing is left of the handshake: the row makes room for another name.
    world.close(newcomer);
    world.join("another");
    assert!(world.row("devbox").is_none());
}

#[test]
fn a_full_door_with_a_slow_serial_stream_does_not_spin() {
    let mut world = World::new(|config| config.half_open_max = 2);
    let stream = world.open(Transport::Serial);
    world.write(stream, b"h");
    world.hello("devbox", "");
    world.advance(ms(300));
    for _ in 0..10 {
        world.handle(castra_core::Input::Tick);
    }
    let deadline = world.deadline.unwrap();
    assert!(deadline.at > world.now.boot, "asked to be woken at once, for ever: {deadline:?}");
}

#[test]
fn a_stream_that_ends_in_the_middle_of_a_new_hello_takes_its_session_with_it() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    prove(&mut world, conn, "devbox", "");
    world.write(conn, b"\xff\nhelp");
    world.handle(castra_core::Input::Finished { conn });
    assert!(world.is_closed(conn));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Disconnected));
}

#[test]
fn a_terminal_that_echoes_does_not_make_the_broker_talk_to_itself() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Serial);
    world.write(conn, b"boot noise\n");
    for _ in 0..10 {
        let echo = world.take(conn);
        world.write(conn, &echo);
    }
    assert_eq!(world.take(conn), b"", "it went on talking");
    assert_eq!(world.kinds().iter().filter(|kind| **kind == "handshake.failure").count(), 1);
    world.advance(ms(10_000));
    assert_eq!((world.take(conn), world.broker.sizes().half_open), (vec![], 0));
    // And a guest behind it can still prove itself.
    let (nonce, _) = world.hello_on(conn, "devbox", "");
    world.write(conn, format!("challenge {nonce} epoch=1 auth=none\n").as_bytes());
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok "));
}
