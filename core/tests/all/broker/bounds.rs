//! Every table, queue and wait stays within its bound.
#![allow(clippy::unwrap_used)]

use crate::common::{ROOM, World, ms, name};
use castra_core::Input;
use castra_core::boundary::Transport;
use castra_core::event::{Fact, SessionEnd};
use castra_core::id::ConnId;

#[test]
fn a_row_that_was_shaking_hands_when_room_was_needed_can_go_later() {
    let mut world = World::new(|config| config.max_guests = 1);
    let first = world.join("first");
    world.close(first);
    let (again, _, _) = world.hello("first", "");
    let (second, nonce, _) = world.hello("second", "");
    world.write(second, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(second).starts_with("error: busy: "), "the only row is in use");
    world.close(again);
    world.join("second");
    assert!(world.row("first").is_none());
}

#[test]
fn a_frame_that_arrived_whole_is_not_late_because_the_broker_does_not_read() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    world.wires.get_mut(&conn).unwrap().blocked = true;
    world.write(conn, &[0, 0]);
    // Its send buffer fills: it is not read from any more.
    world.handle(Input::Writable { conn, room: ROOM / 4 });
    world.wires.get_mut(&conn).unwrap().room = ROOM / 4;
    world.write(conn, b"\0\x12{\"type\":\"goodbye\"}");
    assert_eq!(world.wires[&conn].credit, Some(0));
    world.advance(ms(6000));
    assert!(!world.is_closed(conn), "blamed for a frame that was not read");
    world.wires.get_mut(&conn).unwrap().room = ROOM;
    world.handle(Input::Writable { conn, room: ROOM });
    assert!(world.is_closed(conn));
    let end = world.events.iter().rev().find_map(|event| match event.fact {
        Fact::SessionClosed { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(end, Some(SessionEnd::Goodbye));
}

#[test]
fn a_0_1_guest_that_does_not_read_is_let_go_after_a_window() {
    let mut world = World::new(|_| {});
    let reader = world.open(Transport::Tcp);
    world.write(reader, b"hello vm:reader capabilities=bus-v1\n");
    world.send(reader, r#"{"type":"subscribe","topic":"t"}"#);
    let wire = world.wires.get_mut(&reader).unwrap();
    (wire.blocked, wire.room) = (true, 100);
    world.handle(Input::Writable { conn: reader, room: 100 });
    world.advance(ms(3000));
    let writer = world.join("writer");
    world.send(writer, r#"{"type":"publish","topic":"t","payload":1}"#);
    world.advance(ms(15_000));
    assert!(world.is_closed(reader), "its deadline was not armed");
}

#[test]
fn a_follower_with_an_endless_line_is_closed() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.ask(control, r#"{"id":1,"method":"events","params":{"follow":true}}"#);
    world.write(control, &vec![b'x'; 300 * 1024]);
    assert!(world.is_closed(control));
    assert_eq!(world.broker.sizes().clients, 0);
}

#[test]
fn a_piece_larger_than_the_room_waits_for_it() {
    let mut world = World::new(|config| {
        let listen = |number| format!("unix:/run/castra/a-rather-long-directory/link-{number:04}.sock");
        config.identity.listen = (0..200).map(listen).collect();
        config.guests.push(name("devbox"));
    });
    let control = world.open_control();
    let wire = world.wires.get_mut(&control).unwrap();
    (wire.blocked, wire.room) = (true, 6000);
    world.handle(Input::Writable { conn: control, room: 6000 });
    world.write(control, b"{\"method\":\"status\"}\n");
    let wire = world.wires.get_mut(&control).unwrap();
    (wire.blocked, wire.room) = (false, ROOM);
    world.handle(Input::Writable { conn: control, room: ROOM });
    let replies = world.replies(control);
    assert_eq!(replies[0]["data"]["broker"]["listen"].as_array().unwrap().len(), 200);
}

#[test]
fn inputs_for_connections_that_are_gone_are_counted() {
    let mut world = World::new(|_| {});
    let conn = ConnId { index: 77, generation: 3 };
    world.handle(Input::Bytes { conn, bytes: b"x" });
    world.handle(Input::Finished { conn });
    world.handle(Input::Writable { conn, room: 1 });
    world.close(conn);
    assert_eq!(world.broker.statistics().stale_inputs, 4);
}

#[test]
fn a_filter_of_events_is_bounded_and_works_in_any_order() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    let kinds = vec!["handshake.start"; 65];
    let request = serde_json::json!({"method": "events", "params": {"kinds": kinds}});
    assert_eq!(world.ask(control, &request.to_string())[0]["data"]["code"], "invalid_request");
    for guest in ["a", "b", "c"] {
        world.join(guest);
    }
    let request = r#"{"method":"events","params":{"kinds":["handshake.start"],"guests":["c","a"]}}"#;
    let reply = world.ask(control, request).remove(0);
    assert_eq!(reply["data"]["events"].as_array().unwrap().len(), 2);
}

#[test]
fn a_message_as_long_as_a_tagged_frame_can_be_is_delivered_and_a_longer_one_is_counted() {
    let mut world = World::new(|_| {});
    let reader = world.open(Transport::Tcp);
    world.write(reader, b"hello vm:reader capabilities=bus-v1\n");
    world.send(reader, r#"{"type":"subscribe","topic":"t"}"#);
    let writer = world.join("writer");
    let around = r#"{"type":"message","topic":"t","payload":"","from":"writer"}"#.len();
    // 65,536 bytes, of which 32 are for a tag and one is for the padding.
    let most = 65_536 - 32 - 1 - around;
    for (length, dropped) in [(most, 0), (most + 1, 1)] {
        world.take(reader);
        let payload = "x".repeat(length);
        world.send(writer, &format!(r#"{{"type":"publish","topic":"t","payload":"{payload}"}}"#));
        assert_eq!(world.broker.statistics().messages_dropped, dropped);
        assert_eq!(world.frame(reader).is_some(), dropped == 0);
    }
}

#[test]
fn the_row_that_was_idle_longest_makes_room() {
    let mut world = World::new(|config| config.max_guests = 2);
    for guest in ["first", "second", "first"] {
        let conn = world.join(guest);
        world.close(conn);
    }
    world.join("third");
    assert!(world.row("second").is_none(), "the first was used after it");
    assert!(world.row("first").is_some());
}

#[test]
fn a_subscriber_that_leaves_takes_nobodys_subscription_along() {
    let mut world = World::new(|_| {});
    let readers = ["one", "two"].map(|guest| {
        let conn = world.open(Transport::Tcp);
        world.write(conn, format!("hello vm:{guest} capabilities=bus-v1\n").as_bytes());
        world.send(conn, r#"{"type":"subscribe","topic":"t"}"#);
        conn
    });
    world.close(readers[0]);
    world.take(readers[1]);
    let writer = world.join("writer");
    world.send(writer, r#"{"type":"publish","topic":"t","payload":1}"#);
    assert_eq!(world.frame(readers[1]).unwrap()["payload"], 1);
}

#[test]
fn a_subscription_ends_with_its_session_even_if_the_stream_goes_on() {
    let mut world = World::new(|_| {});
    let stream = world.open(Transport::Serial);
    for _ in 0..2 {
        world.write(stream, b"hello vm:reader capabilities=bus-v1\n");
        world.send(stream, r#"{"type":"subscribe","topic":"t"}"#);
    }
    world.take(stream);
    let writer = world.join("writer");
    world.send(writer, r#"{"type":"publish","topic":"t","payload":1}"#);
    assert_eq!(world.frame(stream).unwrap()["payload"], 1);
    assert_eq!(world.frame(stream), None, "once");
}
