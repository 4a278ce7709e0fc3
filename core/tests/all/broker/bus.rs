//! castra 0.1's bus, and the questions that guests ask.
#![allow(clippy::unwrap_used)]

use crate::common::{ROOM, World, ends, ms, refusals, waiting};
use castra_core::boundary::Transport;
use castra_core::event::{Fact, Failure, SessionEnd};
use castra_core::id::ConnId;
use castra_core::status::Reason;
use serde_json::{Value, json};

/// A 0.1 session; its lines are taken.
fn legacy(world: &mut World, guest: &str, capabilities: &str) -> ConnId {
    let conn = world.open(Transport::Tcp);
    world.write(conn, format!("hello vm:{guest} capabilities={capabilities}\n").as_bytes());
    world.line(conn);
    let line = world.line(conn);
    assert!(line.starts_with("ok session=sess-7-"), "{line}");
    conn
}

fn asked(world: &mut World, conn: ConnId, frame: &Value) -> Value {
    world.send(conn, &frame.to_string());
    world.frame(conn).unwrap()
}

fn subscribe(world: &mut World, conn: ConnId, topic: &str) -> Value {
    asked(world, conn, &json!({"type": "subscribe", "topic": topic}))
}

#[test]
fn the_hosts_own_client_has_frames_and_no_row() {
    let mut world = World::new(|_| {});
    let host = legacy(&mut world, "host", "bus-v1,host-bus");
    assert!(world.row("host").is_none());
    let guest = legacy(&mut world, "a", "bus-v1");
    subscribe(&mut world, guest, "t");
    assert_eq!(
        asked(&mut world, host, &json!({"type": "publish", "topic": "t", "payload": 1}))["status"],
        "ok"
    );
    let message = world.frame(guest).unwrap();
    assert_eq!((&message["from"], &message["payload"]), (&json!("host"), &json!(1)));
    // It asks nothing: there is nobody it could ask about.
    let answer = asked(&mut world, host, &json!({"type": "status", "id": 3}));
    assert_eq!(
        (&answer["type"], &answer["id"], &answer["code"]),
        (&json!("error"), &json!(3), &json!("forbidden"))
    );
}

#[test]
fn nobody_else_may_be_called_host_on_the_old_protocol() {
    for capabilities in ["", "bus-v1", "host-bus", "metrics"] {
        let mut world = World::new(|_| {});
        let conn = world.open(Transport::Tcp);
        world.line(conn);
        world.write(conn, format!("hello vm:host capabilities={capabilities}\n").as_bytes());
        assert!(world.line(conn).starts_with("error: bad-name: "), "{capabilities}");
        assert_eq!(refusals(&world), [Failure::BadName]);
    }
}

#[test]
fn a_0_1_hello_without_a_bus_is_told_ok_and_let_go() {
    for (capabilities, once) in [("metrics", true), ("bus-v1", false)] {
        let mut world = World::new(|_| {});
        let conn = world.open(Transport::Tcp);
        world.write(conn, format!("hello vm:old capabilities={capabilities}\n").as_bytes());
        assert_eq!(world.is_closed(conn), once);
        let told = world.events.iter().find_map(|event| match event.fact {
            Fact::HandshakeSuccess { once, proven, .. } => Some((once, proven)),
            _ => None,
        });
        assert_eq!(told, Some((once, false)));
        let row = world.row("old").unwrap();
        assert_eq!((row.transport, row.capabilities.as_str()), (Some(Transport::Tcp), capabilities));
        assert!(row.epoch.is_some() && row.remote.is_some());
    }
}

#[test]
fn a_0_1_hello_under_a_proven_name_is_refused_by_its_name() {
    let mut world = World::new(|_| {});
    world.join("devbox");
    let conn = world.open(Transport::Tcp);
    world.line(conn);
    world.write(conn, b"hello vm:devbox capabilities=bus-v1\n");
    assert!(world.line(conn).starts_with("error: name-in-use: "));
    let failed =
        world.events.iter().find(|event| matches!(event.fact, Fact::HandshakeFailure { .. })).unwrap();
    assert_eq!(failed.guest.unwrap().as_str(), "devbox");
}

#[test]
fn a_0_1_session_lives_by_its_heartbeats() {
    let mut world = World::new(|_| {});
    let conn = legacy(&mut world, "old", "bus-v1");
    world.advance(ms(59_999));
    let ack = asked(&mut world, conn, &json!({"type": "heartbeat"}));
    assert_eq!(ack, json!({"ack": "heartbeat", "status": "ok", "type": "ack"}));
    world.advance(ms(59_999));
    assert!(!world.is_closed(conn));
    world.advance(ms(1));
    assert!(world.is_closed(conn));
    assert_eq!(world.verdict("old"), waiting(Reason::Unproven));
}

#[test]
fn topics_are_bounded_in_number_and_length_and_each_counts_once() {
    let mut world = World::new(|_| {});
    let reader = legacy(&mut world, "r", "bus-v1");
    let writer = legacy(&mut world, "w", "bus-v1");
    let long = "x".repeat(256);
    assert_eq!(subscribe(&mut world, reader, &long)["status"], "ok");
    let refused = subscribe(&mut world, reader, &format!("{long}x"));
    assert_eq!(
        (&refused["status"], &refused["reason"]),
        (&json!("error"), &json!("topic exceeds 256 bytes"))
    );
    assert_eq!(refused.get("topic"), None);
    assert_eq!(subscribe(&mut world, reader, " \t ")["reason"], "missing topic");
    for number in 1..16 {
        let ack = subscribe(&mut world, reader, &format!(" Topic{number} "));
        assert_eq!((&ack["status"], &ack["topic"]), (&json!("ok"), &json!(format!("Topic{number}"))));
    }
    assert_eq!(subscribe(&mut world, reader, "tOPIC7")["status"], "ok", "one that it has");
    let refused = subscribe(&mut world, reader, "another");
    assert_eq!(refused["reason"], "subscription limit 16 exceeded");
    for (topic, reaches) in [("TOPIC7", true), ("another", false), (long.as_str(), true), ("Topic", false)] {
        world.send(writer, &json!({"type": "publish", "topic": topic, "payload": 1}).to_string());
        assert_eq!(world.frame(reader).is_some(), reaches, "{topic}");
        assert_eq!(world.frame(reader), None, "once");
    }
}

#[test]
fn a_publish_without_a_topic_is_a_broadcast_and_one_with_too_long_a_topic_goes_nowhere() {
    let mut world = World::new(|_| {});
    let reader = legacy(&mut world, "r", "bus-v1");
    let writer = legacy(&mut world, "w", "bus-v1");
    subscribe(&mut world, reader, "broadcast");
    for publish in
        [json!({"type": "publish", "payload": 1}), json!({"type": "publish", "topic": " ", "payload": 1})]
    {
        let ack = asked(&mut world, writer, &publish);
        assert_eq!((&ack["status"], ack.get("topic")), (&json!("ok"), None));
        assert_eq!(world.frame(reader).unwrap()["topic"], "broadcast");
    }
    for (length, status) in [(256, "ok"), (257, "error")] {
        let topic = "y".repeat(length);
        subscribe(&mut world, reader, &topic[..256]);
        let ack = asked(&mut world, writer, &json!({"type": "publish", "topic": topic, "payload": 1}));
        assert_eq!(ack["status"], status);
        assert_eq!(world.frame(reader).is_some(), status == "ok");
    }
}

#[test]
fn a_message_that_finds_no_room_is_counted_each_time() {
    let mut world = World::new(|_| {});
    let reader = legacy(&mut world, "r", "bus-v1");
    let writer = legacy(&mut world, "w", "bus-v1");
    subscribe(&mut world, reader, "t");
    world.give_room(reader, 0);
    for number in 1..4 {
        world.send(writer, r#"{"type":"publish","topic":"t","payload":1}"#);
        assert_eq!(world.broker.statistics().messages_dropped, number);
    }
}

#[test]
fn sixteen_questions_may_wait_and_an_answer_makes_room_for_one_more() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    world.take(guest);
    let wait = |id: u64, timeout_ms: u64| json!({"type": "wait", "id": id, "for": "waiting", "timeout_ms": timeout_ms});
    for id in 0..16 {
        world.send(guest, &wait(id, 100 + 100 * u64::from(id > 0)).to_string());
    }
    assert_eq!(world.frame(guest), None);
    for id in 16..20 {
        let refused = asked(&mut world, guest, &wait(id, 100));
        assert_eq!(
            (&refused["code"], &refused["id"], &refused["of"]),
            (&json!("busy"), &json!(id), &json!("wait"))
        );
    }
    world.advance(ms(100));
    assert_eq!(world.frame(guest).unwrap()["id"], 0);
    world.send(guest, &wait(20, 1000).to_string());
    assert_eq!(world.frame(guest), None);
    assert_eq!(asked(&mut world, guest, &wait(21, 100))["code"], "busy");
    world.advance(ms(100));
    assert_eq!(std::iter::from_fn(|| world.frame(guest)).count(), 15);
}

#[test]
fn an_answer_that_finds_no_room_is_dropped_with_its_question() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    world.take(guest);
    for id in 0..16 {
        world
            .send(guest, &json!({"type": "wait", "id": id, "for": "waiting", "timeout_ms": 100}).to_string());
    }
    world.give_room(guest, 0);
    world.advance(ms(100));
    world.give_room(guest, ROOM);
    assert_eq!(world.take(guest), b"");
    assert_eq!(asked(&mut world, guest, &json!({"type": "status", "id": 77}))["id"], 77);
}

#[test]
fn an_answer_is_never_answered_and_a_strange_type_is_repeated_in_part() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    for kind in ["error", "result", "ack", "message"] {
        world.send(guest, &json!({"type": kind, "code": "unknown-type", "of": "x"}).to_string());
        assert_eq!(world.frame(guest), None, "{kind}");
    }
    let answer = asked(&mut world, guest, &json!({"type": "z".repeat(65)}));
    assert_eq!(answer, json!({"type": "error", "code": "unknown-type", "of": "z".repeat(64)}));
    assert_eq!(asked(&mut world, guest, &json!({"id": 1}))["of"], Value::Null);
    assert!(!world.is_closed(guest));
}

#[test]
fn a_0_1_guest_that_says_hello_again_on_its_stream_replaces_its_own_session() {
    for accept in [false, true] {
        let mut world = World::new(|config| {
            config.accept_unproven = accept;
            config.max_guests = 1;
        });
        let stream = world.open(Transport::Serial);
        world.line(stream);
        for _ in 0..2 {
            world.write(stream, b"hello vm:old capabilities=bus-v1\n");
            let line = world.line(stream);
            assert!(line.starts_with("ok session="), "{line}");
        }
        assert_eq!(ends(&world), [SessionEnd::Replaced]);
        assert_eq!(world.kinds().iter().filter(|kind| **kind == "verdict.changed").count(), 1, "no flap");
        assert_eq!(asked(&mut world, stream, &json!({"type": "heartbeat"}))["status"], "ok");
        assert_eq!(world.row("old").unwrap().takeovers, 0);
        // Nothing is left of it when it leaves: the row makes room.
        world.write(stream, b"\xff\nhello vm:old\n");
        assert_eq!(world.line(stream), "castra-broker 0.1 ready");
        assert_eq!(world.line(stream), "ok");
        assert_eq!(ends(&world), [SessionEnd::Replaced; 2]);
        world.join("another");
        assert!(world.row("old").is_none());
    }
}
