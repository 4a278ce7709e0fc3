//! The agent's link on a stream without connections.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::Input;
use castra_core::boundary::{CloseReason, Source};
use castra_core::event::{Fact, LinkEnd};
use castra_core::link::inbox::SERIAL_FRAME_MAX;

const RESTART: &[u8] = b"\xFF\n";

fn hello(world: &mut World, conn: castra_core::id::ConnId) -> String {
    world.say(conn, GREETING);
    world.text(conn)
}

#[test]
fn an_agent_on_a_serial_stream_asks_for_the_greeting_before_it_says_hello() {
    let mut world = World::new(serial());
    let conn = world.connect();
    assert_eq!(world.sent(conn), RESTART);
    world.say(conn, "\n\r\nlogin: \n");
    assert_eq!(world.take(), []);
    assert!(hello(&mut world, conn).starts_with("hello vm:devbox capabilities=attach-v1,proof-v1 "));
}

#[test]
fn the_greeting_is_found_behind_any_remains() {
    let frame_head = [0, 0, 0xEA, 0x60];
    let long = vec![b'x'; 60_000];
    let lines = b"challenge 00 epoch=1 auth=none\nerror: timeout: late\n\x80\xFE\nxx";
    for remains in [&frame_head[..], &long, lines, b"castra-broker 0.1 readycastra-broker 0.1"] {
        let mut world = World::new(serial());
        let conn = world.connect();
        world.take();
        for piece in remains.chunks(7) {
            world.say(conn, piece);
        }
        assert_eq!(world.take(), []);
        assert!(hello(&mut world, conn).starts_with("hello "));
    }
}

#[test]
fn a_greeting_ends_in_either_line_end_and_only_at_the_end_of_its_line() {
    for (line, found) in [
        ("castra-broker 0.1 ready\r\n", true),
        ("remains castra-broker 0.1 ready\r\n", true),
        ("castra-broker 0.1 ready \n", false),
        ("castra-broker 0.1 ready\r\r\n", false),
        ("astra-broker 0.1 ready\n", false),
    ] {
        let mut world = World::new(serial());
        let conn = world.connect();
        world.take();
        for byte in line.as_bytes() {
            assert_eq!(world.take(), []);
            world.say(conn, [*byte]);
        }
        assert_eq!(world.text(conn).starts_with("hello "), found, "{line:?}");
    }
}

#[test]
fn unknown_and_overlong_lines_are_skipped_until_the_deadline() {
    let mut world = World::new(serial());
    let conn = world.connect();
    world.say(conn, GREETING);
    world.take();
    world.say(conn, GREETING);
    world.say(conn, [&[b'y'; 3000][..], b"\nwhat?\n", ok_line("").as_bytes()].concat());
    // The end of a line that is too long is no line of its own.
    world.say(conn, [b'z'; 600]);
    world.say(conn, "error: busy: later\n");
    assert_eq!(world.take(), []);
    world.say(conn, challenge_line("none"));
    world.say(conn, challenge_line("none"));
    world.say(conn, ok_line("").replace("771075", "771000"));
    assert_eq!(world.text(conn), format!("proof {NONCE}\n"));
    world.live(millis(5000));
    assert_eq!(
        world.events(),
        [Fact::LinkDown { reason: LinkEnd::Timeout, retry_ms: Some(500), error: None }]
    );
}

#[test]
fn a_failed_handshake_keeps_the_stream_and_drops_what_comes_late() {
    let mut world = World::new(serial());
    let conn = world.connect();
    world.say(conn, GREETING);
    world.say(conn, "error: busy: later\n");
    world.take();
    // A broker that is behind still answers the old hello.
    world.say(conn, [GREETING, challenge_line("none").as_bytes(), b"\xFF\0"].concat());
    assert_eq!(world.take(), []);
    world.live(millis(500));
    assert_eq!(
        world.take(),
        [Out::Event(Fact::LinkDialing { attempt: 2 }), Out::Discard(conn), Out::Sent(conn, RESTART.to_vec()),]
    );
    assert!(hello(&mut world, conn).starts_with("hello "));
    world.say(conn, challenge_line("none"));
    world.say(conn, ok_line(""));
    assert!(world.events().iter().any(|fact| matches!(fact, Fact::LinkUp { .. })));
}

#[test]
fn a_stream_that_closes_during_the_backoff_is_dialled_again() {
    let mut world = World::new(serial());
    let conn = world.connect();
    world.say(conn, GREETING);
    world.say(conn, "error: busy: later\n");
    world.closed(conn);
    world.take();
    world.live(millis(500));
    world.dialled();
}

#[test]
fn a_broker_that_starts_again_behind_the_stream_gets_a_new_hello() {
    let mut world = World::new(serial());
    let conn = world.up();
    world.say(conn, frame(&challenge_frame(1)));
    world.take();
    world.say(conn, GREETING);
    let log = world.take();
    assert_eq!(
        log[..3],
        [
            Out::Event(Fact::LinkDown { reason: LinkEnd::Disconnected, retry_ms: Some(0), error: None }),
            Out::Event(Fact::LinkDialing { attempt: 1 }),
            Out::Discard(conn),
        ]
    );
    // The greeting that gave it away counts.
    let Out::Sent(to, bytes) = &log[3] else { panic!("{log:?}") };
    assert_eq!((*to, &bytes[..8]), (conn, &b"\xFF\nhello "[..]));
}

#[test]
fn the_resync_byte_within_a_session_starts_again() {
    for prefix in [&b""[..], b"\0", b"\0\0\0\x10{\"type\":"] {
        let mut world = World::new(serial());
        let conn = world.up();
        world.say(conn, [prefix, b"\xFF\n"].concat());
        let sent = world.sent(conn);
        assert_eq!(sent, RESTART);
        assert!(hello(&mut world, conn).starts_with("hello "));
    }
}

#[test]
fn on_a_socket_there_is_no_second_handshake() {
    for bytes in [GREETING, b"\xFF\n\0\0"] {
        let mut world = World::new(config());
        let conn = world.up();
        world.say(conn, bytes);
        let log = world.take();
        assert_eq!(log[0], Out::Close(conn, CloseReason::Ended), "{log:?}");
    }
}

#[test]
fn no_frame_on_a_serial_stream_holds_the_resync_byte() {
    let mut world = World::new(serial());
    let conn = world.up();
    let client = world.client();
    let name = |length: usize| "n".repeat(length);
    // Frames of 240 to 270 bytes: among them one of 255.
    let mut padded = 0;
    for length in 1..=60 {
        let request = format!(
            r#"{{"method":"status","params":{{"timeout_ms":100,"guests":["{}","{}","{}","{}"]}}}}"#,
            name(60),
            name(60),
            name(20),
            name(length)
        );
        world.say(client, request + "\n");
        let sent = world.sent(conn);
        assert!(!sent.contains(&0xFF), "{length}");
        padded += usize::from(sent.ends_with(b"} "));
        assert_eq!(frames(&sent).len(), 1);
        world.live(millis(100));
        world.take();
    }
    assert_eq!(padded, 1);
}

#[test]
fn a_question_over_one_frame_is_refused_at_once() {
    let mut world = World::new(serial());
    let conn = world.up();
    let client = world.client();
    let ask = |count: usize| {
        let names = vec![format!("\"{}\"", "n".repeat(64)); count].join(",");
        format!("{{\"method\":\"status\",\"params\":{{\"guests\":[{names}]}}}}\n")
    };
    let most = SERIAL_FRAME_MAX / 67;
    world.say(client, ask(most));
    assert!(world.text(client).contains("invalid_request"));
    world.say(client, ask(most - 1));
    assert!(world.sent(conn).len() > SERIAL_FRAME_MAX - 134);
}

#[test]
fn a_restart_drops_what_waits_for_room() {
    let mut world = World::new(serial());
    let effect = world.dialled();
    let conn = world.open(effect, 200);
    world.say(conn, GREETING);
    world.say(conn, challenge_line("none"));
    world.say(conn, ok_line(""));
    world.say(conn, frame(r#"{"type":"ping","id":1}"#).repeat(10));
    world.take();
    world.say(conn, GREETING);
    let log = world.take();
    assert!(log.contains(&Out::Discard(conn)) && log.contains(&Out::Read(Source::Conn(conn), 64 * 1024)));
    world.give(Input::Writable { conn, room: 1000 });
    let sent = world.sent(conn);
    assert!(sent.starts_with(b"\xFF\nhello "), "{:?}", String::from_utf8_lossy(&sent));
}
