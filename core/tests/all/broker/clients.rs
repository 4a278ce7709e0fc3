//! Control connections: what is taken from them, what they are owed, and when they end.
#![allow(clippy::unwrap_used)]

use crate::common::{ROOM, World, ms};
use castra_core::Input;
use castra_core::boundary::{CloseReason, PeerCred, Remote, Via};
use castra_core::id::ConnId;
use serde_json::Value;

const FOLLOW: &str = r#"{"id":"f","method":"events","params":{"follow":true}}"#;

fn wait(id: u32, guest: &str) -> String {
    format!(
        r#"{{"id":{id},"method":"wait","params":{{"guests":["{guest}"],"for":"reachable","timeout_ms":1000}}}}"#
    )
}

fn one(mut replies: Vec<Value>) -> Value {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

fn ids(replies: &[Value]) -> Vec<u64> {
    replies.iter().map(|reply| reply["id"].as_u64().unwrap()).collect()
}

fn codes(replies: &[Value]) -> Vec<&str> {
    replies.iter().map(|reply| reply["data"]["code"].as_str().unwrap()).collect()
}

fn open_in(world: &mut World, uid: u32, room: usize) -> ConnId {
    world.open_with(Via::Control, Remote::Unknown, Some(PeerCred { uid, gid: 1, pid: 1 }), room)
}

#[test]
fn a_refusal_is_said_if_there_is_room_for_it() {
    let mut world = World::new(|_| {});
    let conn = open_in(&mut world, 1001, ROOM);
    let line = world.take(conn);
    for (room, said) in [(line.len(), line.clone()), (line.len() - 1, Vec::new())] {
        let conn = open_in(&mut world, 1001, room);
        assert_eq!(world.take(conn), said);
        assert_eq!(world.wires[&conn].closed, Some(CloseReason::Refused));
    }
    assert_eq!(world.broker.sizes().clients, 0);
}

#[test]
fn clients_are_bounded_and_who_leaves_makes_room() {
    let mut world = World::new(|config| config.control_clients_max = 2);
    let first = world.open_control();
    world.open_control();
    let third = world.open_control();
    assert_eq!(codes(&world.replies(third)), ["busy"]);
    assert!(world.is_closed(third));
    world.close(first);
    let fourth = world.open_control();
    assert_eq!(one(world.ask(fourth, r#"{"method":"info"}"#))["event"], "info");
    assert_eq!(world.broker.sizes().clients, 2);
}

#[test]
fn a_client_with_all_requests_open_is_not_read_from_until_one_is_answered() {
    let mut world = World::new(|config| config.control_requests_max = 2);
    let control = world.open_control();
    let text = format!("{}\n{}\n{}\n", wait(1, "a"), wait(2, "b"), wait(3, "c"));
    let (head, tail) = text.split_at(text.len() - 10);
    world.write(control, wait(0, "z").as_bytes());
    assert_eq!(world.wires[&control].credit, None);
    world.close(control);

    let control = world.open_control();
    world.write(control, head.as_bytes());
    assert_eq!(world.wires[&control].credit, Some(0));
    // What was on its way is not lost, and its order stays.
    world.write(control, tail.as_bytes());
    world.write(control, b"{\"id\":4,\"method\":\"info\"}\n");
    assert!(world.replies(control).is_empty());
    world.join("b");
    let replies = world.replies(control);
    assert_eq!(ids(&replies), [2]);
    assert_eq!(world.wires[&control].credit, Some(0), "the third took its place");
    world.join("a");
    assert_eq!(ids(&world.replies(control)), [1, 4]);
    assert_eq!(world.wires[&control].credit, Some(usize::MAX));
    world.join("c");
    assert_eq!(ids(&world.replies(control)), [3]);
}

#[test]
fn answers_that_are_not_taken_count_as_open() {
    let mut world = World::new(|config| config.control_requests_max = 2);
    let control = world.open_control();
    world.write(control, format!("{}\n{}\n", wait(1, "a"), wait(2, "b")).as_bytes());
    world.give_room(control, 5);
    world.join("a");
    world.join("b");
    world.write(control, b"{\"id\":3,\"method\":\"info\"}\n");
    assert_eq!(world.wires[&control].credit, Some(0));
    world.give_room(control, ROOM);
    assert_eq!(ids(&world.replies(control)), [1, 2, 3]);
    assert_eq!(world.wires[&control].credit, Some(usize::MAX));
}

#[test]
fn a_client_without_room_for_a_piece_is_not_read_from() {
    for (room, reads) in [(4096, true), (4095, false)] {
        let mut world = World::new(|_| {});
        let control = world.open_control();
        world.give_room(control, room);
        world.write(control, b"{\"id\":1,\"method\":\"info\"}\n");
        assert_eq!(world.replies(control).len(), usize::from(reads), "{room}");
        assert_eq!(world.wires[&control].credit, (!reads).then_some(0));
        world.give_room(control, 4095);
        assert_eq!(world.replies(control).len(), 0);
        world.give_room(control, 4096);
        assert_eq!(world.replies(control).len(), usize::from(!reads), "{room}");
    }
}

#[test]
fn an_answer_goes_on_where_the_room_ended() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    for id in 1..4 {
        world.write(control, format!("{}\n", wait(id, "a")).as_bytes());
    }
    world.give_room(control, 5);
    world.advance(ms(1000));
    let mut text = world.take(control);
    assert_eq!(text.len(), 5);
    while world.wires[&control].room == 0 {
        world.give_room(control, 7);
        text.extend(world.take(control));
    }
    let replies: Vec<Value> =
        String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut order = ids(&replies);
    order.sort_unstable();
    assert_eq!((order, codes(&replies)), (vec![1, 2, 3], vec!["timeout"; 3]));
}

#[test]
fn a_client_that_finished_is_closed_after_its_last_answer() {
    let mut world = World::new(|config| config.control_requests_max = 2);
    let control = world.open_control();
    let text = format!("{}\n{}\n{}\n{{\"id\":9,", wait(1, "a"), wait(2, "b"), wait(3, "c"));
    world.write(control, text.as_bytes());
    world.handle(Input::Finished { conn: control });
    for (guest, id) in [("a", 1), ("b", 2), ("c", 3)] {
        assert!(!world.is_closed(control));
        world.join(guest);
        assert_eq!(ids(&world.replies(control)), [id]);
    }
    assert_eq!(world.wires[&control].closed, Some(CloseReason::Finished));
    assert_eq!(world.broker.sizes().clients, 0);
}

#[test]
fn a_client_that_finished_stays_while_its_answer_waits_for_room() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.write(control, format!("{}\n", wait(1, "a")).as_bytes());
    world.give_room(control, 0);
    world.join("a");
    world.handle(Input::Finished { conn: control });
    assert!(!world.is_closed(control));
    world.give_room(control, ROOM);
    assert_eq!(ids(&world.replies(control)), [1]);
    assert!(world.is_closed(control));
}

#[test]
fn a_stream_goes_on_when_its_client_has_nothing_more_to_ask() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.ask(control, FOLLOW);
    world.handle(Input::Finished { conn: control });
    world.join("a");
    assert_eq!(world.replies(control).len(), 3);
    assert!(!world.is_closed(control));
    world.close(control);
    assert_eq!(world.broker.sizes().clients, 0);
}

#[test]
fn a_line_without_an_end_ends_the_client_and_what_is_open_is_answered_before() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.ask(control, &wait(1, "a"));
    world.write(control, &vec![b'x'; 256 * 1024]);
    assert_eq!(codes(&world.replies(control)), ["invalid_request"]);
    assert!(!world.is_closed(control));
    world.write(control, b"\n{\"id\":2,\"method\":\"info\"}\n");
    assert!(world.replies(control).is_empty(), "nothing is read any more");
    world.join("a");
    assert_eq!(ids(&world.replies(control)), [1]);
    assert!(world.is_closed(control));
}

#[test]
fn a_request_of_256_kib_with_its_end_is_read_and_one_more_byte_is_not() {
    for (length, code) in [(256 * 1024, None), (256 * 1024 + 1, Some("invalid_request"))] {
        let mut world = World::new(|_| {});
        let control = world.open_control();
        let mut line = b"{\"id\":2,\"method\":\"info\"}".to_vec();
        line.resize(length - 1, b' ');
        line.push(b'\n');
        world.write(control, &line);
        let reply = one(world.replies(control));
        assert_eq!(reply["data"].get("code").and_then(Value::as_str), code);
        assert_eq!(world.is_closed(control), code.is_some());
    }
}

#[test]
fn blank_lines_are_no_requests() {
    let mut world = World::new(|config| config.control_requests_max = 1);
    let control = world.open_control();
    world.write(control, b"\n \t\r\n\n{\"id\":2,\"method\":\"info\"}\n\n");
    assert_eq!(ids(&world.replies(control)), [2]);
}

#[test]
fn a_stream_begins_behind_its_answer_and_tells_each_event_once() {
    let mut world = World::new(|_| {});
    let (first, second) = (world.open_control(), world.open_control());
    world.ask(first, FOLLOW);
    world.ask(second, FOLLOW);
    world.join("a");
    for control in [first, second] {
        let lines = world.replies(control);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.get("id").is_none() && line["data"]["cursor"].is_string()));
    }
    assert!(world.replies(first).is_empty());
    // A request between the events is answered as ever.
    assert_eq!(one(world.ask(first, r#"{"id":1,"method":"info"}"#))["event"], "info");
}

#[test]
fn a_follower_that_was_overtaken_goes_on_from_the_cursor_it_is_told() {
    let mut world = World::new(|config| config.event_ring = 8);
    let control = world.open_control();
    world.ask(control, FOLLOW);
    world.give_room(control, 0);
    for guest in ["a", "b", "c", "d"] {
        world.join(guest);
    }
    world.give_room(control, ROOM);
    let lines = world.replies(control);
    // 13 events, of which the newest 8 are kept: 6 to 13.
    assert_eq!((lines[0]["event"].as_str(), lines[0]["data"]["cursor"].as_str()), (Some("gap"), Some("7-5")));
    let cursors: Vec<&str> = lines[1..].iter().map(|line| line["data"]["cursor"].as_str().unwrap()).collect();
    assert_eq!(cursors, ["7-6", "7-7", "7-8", "7-9", "7-10", "7-11", "7-12", "7-13"]);
}

#[test]
fn a_follower_that_is_just_not_overtaken_has_no_gap() {
    let mut world = World::new(|config| config.event_ring = 3);
    let control = world.open_control();
    world.ask(control, FOLLOW);
    world.give_room(control, 0);
    world.join("a");
    world.give_room(control, ROOM);
    let kinds: Vec<Value> = world.replies(control).iter().map(|line| line["event"].clone()).collect();
    assert_eq!(kinds, ["handshake.start", "handshake.success", "verdict.changed"]);
}

#[test]
fn a_drain_says_what_is_owed_and_ends_streams() {
    let mut world = World::new(|_| {});
    let (asks, follows, slow) = (world.open_control(), world.open_control(), world.open_control());
    world.ask(asks, &wait(1, "a"));
    world.ask(follows, FOLLOW);
    world.ask(slow, &wait(2, "a"));
    world.give_room(slow, 0);
    world.handle(Input::Drain { deadline: world.now.boot + ms(3000) });
    assert_eq!(codes(&world.replies(asks)), ["shutting_down"]);
    assert!(world.is_closed(asks) && world.is_closed(follows) && !world.is_closed(slow));
    assert!(!world.stopped, "somebody is still owed an answer");
    world.write(slow, b"{\"id\":3,\"method\":\"info\"}\n");
    world.advance(ms(2999));
    assert!(!world.is_closed(slow));
    world.advance(ms(1));
    assert_eq!(world.wires[&slow].closed, Some(CloseReason::Drained));
    assert!(world.stopped);
    assert_eq!(world.broker.sizes().clients, 0);
}

#[test]
fn a_request_that_comes_during_a_drain_is_turned_away_with_a_word() {
    let mut world = World::new(|_| {});
    let slow = world.open_control();
    world.ask(slow, &wait(1, "a"));
    world.give_room(slow, 0);
    world.handle(Input::Drain { deadline: world.now.boot + ms(3000) });
    let late = world.open_control();
    assert_eq!(codes(&world.replies(late)), ["shutting_down"]);
    assert!(world.is_closed(late));
    world.give_room(slow, ROOM);
    assert_eq!(codes(&world.replies(slow)), ["shutting_down"]);
    assert!(world.stopped);
}
