//! The control protocol as a broker answers it.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::common::{REACHABLE, World, ms, name, waiting};
use castra_core::boundary::{Change, Effect, PeerCred, Remote, Via};
use castra_core::status::{Reason, StatusOutcome};
use castra_core::{Input, Restored};
use serde_json::Value;

fn one(mut replies: Vec<Value>) -> Value {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

fn code(reply: &Value) -> &str {
    assert_eq!(reply["event"], "error", "{reply}");
    reply["data"]["code"].as_str().unwrap()
}

#[test]
fn status_is_the_document_and_counts_the_rows_it_wrote() {
    let mut world = World::new(|config| config.guests = vec![name("b"), name("c")]);
    world.join("a");
    let control = world.open_control();
    let reply = one(world.ask(control, r#"{"id":"x","method":"status"}"#));
    assert_eq!((reply["id"].as_str(), reply["event"].as_str()), (Some("x"), Some("status")));
    let status: StatusOutcome = serde_json::from_value(reply["data"].clone()).unwrap();
    let names: Vec<&str> = status.guests.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!((status.broker.guests, status.broker.reachable, status.schema), (3, 1, 1));
    assert_eq!(reply["data"]["guests"][1]["last_handshake_age_ms"], Value::Null);

    let some = one(world.ask(control, r#"{"id":1,"method":"status","params":{"guests":["c","a"]}}"#));
    assert_eq!(some["data"]["broker"]["guests"], 2);
    let none = one(world.ask(control, r#"{"id":1,"method":"status","params":{"guests":["a","z"]}}"#));
    assert_eq!(code(&none), "unknown_guest");
}

#[test]
fn ten_thousand_rows_leave_in_slices_within_the_room() {
    let guests = (0..10_000).map(|n| name(&format!("g{n:05}"))).collect();
    let mut world = World::new(|config| config.guests = guests);
    let control = world.open_control();
    world.write(control, b"{\"method\":\"status\"}\n");
    let first = world.wires[&control].bytes.len();
    assert!(first < 200_000, "one call wrote {first} bytes");
    let reply = one(world.replies(control));
    let rows = reply["data"]["guests"].as_array().unwrap();
    assert_eq!((rows.len(), &reply["data"]["broker"]["guests"]), (10_000, &Value::from(10_000)));
    assert!(rows.windows(2).all(|pair| pair[0]["name"].as_str() < pair[1]["name"].as_str()));
}

#[test]
fn nonsense_is_answered_and_the_connection_stays() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    for (line, expected) in [
        ("{]", "invalid_request"),
        (r#"{"id":3,"method":"dance"}"#, "unknown_method"),
        (r#"{"id":3,"method":"wait","params":{"guests":["a"]}}"#, "invalid_request"),
        (r#"{"id":3,"method":"wait","params":{"guests":[],"for":"reachable"}}"#, "invalid_request"),
        (r#"{"id":3,"method":"status","params":{"guests":["../x"]}}"#, "invalid_request"),
        (r#"{"id":3,"method":"ping","params":{"guest":"a","timeout_ms":99999999999}}"#, "invalid_request"),
    ] {
        let reply = one(world.ask(control, line));
        assert_eq!(code(&reply), expected);
        assert_eq!(reply.get("id").is_some(), line.contains("id"), "{line}");
    }
    assert!(!world.is_closed(control));
    world.write(control, &vec![b'x'; 300 * 1024]);
    assert_eq!(code(&one(world.replies(control))), "invalid_request");
    assert!(world.is_closed(control), "a line over the limit can't be followed");
}

#[test]
fn a_stranger_gets_one_error_and_the_door() {
    let mut world = World::new(|_| {});
    for (uid, admitted) in [(1000, true), (0, true), (1001, false)] {
        let cred = PeerCred { uid, gid: 1, pid: 1 };
        let conn = world.open_via(Via::Control, Remote::Unknown, Some(cred));
        if admitted {
            assert_eq!(one(world.ask(conn, r#"{"method":"info"}"#))["data"]["role"], "broker");
        } else {
            assert_eq!(code(&one(world.replies(conn))), "forbidden");
            assert!(world.is_closed(conn));
        }
    }
}

#[test]
fn wait_is_answered_the_moment_it_is_true() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    let pending =
        world.ask(control, r#"{"id":1,"method":"wait","params":{"guests":["a","b"],"for":"reachable"}}"#);
    assert!(pending.is_empty(), "names not seen yet are pending");
    let a = world.join("a");
    assert!(world.replies(control).is_empty());
    world.join("b");
    let reply = one(world.replies(control));
    assert_eq!((reply["event"].as_str(), reply["data"]["satisfied"].as_bool()), (Some("waited"), Some(true)));
    assert_eq!(reply["data"]["guests"].as_array().unwrap().len(), 2);
    world.ask(control, r#"{"id":2,"method":"wait","params":{"guests":["a"],"for":"waiting"}}"#);
    world.close(a);
    assert_eq!(one(world.replies(control))["data"]["guests"][0]["reason"], "disconnected");
    let any = one(world.ask(
        control,
        r#"{"id":3,"method":"wait","params":{"guests":["a","b","zz"],"for":"reachable","any":true}}"#,
    ));
    assert_eq!(any["data"]["guests"].as_array().unwrap().len(), 2, "names never seen are absent");
}

#[test]
fn wait_for_something_that_never_comes_times_out_once_and_on_time() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.ask(
        control,
        r#"{"id":1,"method":"wait","params":{"guests":["a"],"for":"reachable","timeout_ms":250}}"#,
    );
    world.ask(control, r#"{"id":2,"method":"wait","params":{"guests":["a"],"for":"reachable"}}"#);
    world.advance(ms(249));
    assert!(world.replies(control).is_empty());
    world.advance(ms(1));
    let reply = one(world.replies(control));
    assert_eq!((code(&reply), &reply["id"]), ("timeout", &Value::from(1)));
    world.advance(ms(30_000));
    assert_eq!(code(&one(world.replies(control))), "timeout");
}

#[test]
fn ping_measures_a_round_trip_and_is_no_evidence() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    let control = world.open_control();
    assert_eq!(
        code(&one(world.ask(control, r#"{"method":"ping","params":{"guest":"zz"}}"#))),
        "unknown_guest"
    );
    world.advance(ms(20));
    world.take(guest);
    world.ask(control, r#"{"id":1,"method":"ping","params":{"guest":"a"}}"#);
    let ping = world.frame(guest).unwrap();
    assert_eq!(ping["type"], "ping");
    world.advance(ms(3));
    let age = world.row("a").unwrap().last_handshake_age_ms;
    world.send(guest, &format!(r#"{{"type":"pong","id":{}}}"#, ping["id"]));
    let pong = one(world.replies(control));
    assert_eq!((pong["event"].as_str(), &pong["data"]["rtt_us"]), (Some("pong"), &Value::from(3000)));
    assert_eq!(world.row("a").unwrap().last_handshake_age_ms, age);

    world.ask(control, r#"{"id":2,"method":"ping","params":{"guest":"a"}}"#);
    world.advance(ms(2000));
    assert_eq!(code(&one(world.replies(control))), "timeout");
    world.ask(control, r#"{"id":3,"method":"ping","params":{"guest":"a"}}"#);
    world.close(guest);
    assert_eq!(code(&one(world.replies(control))), "not_reachable");
    assert_eq!(
        code(&one(world.ask(control, r#"{"method":"ping","params":{"guest":"a"}}"#))),
        "not_reachable"
    );
}

#[test]
fn another_guests_pong_answers_nothing() {
    let mut world = World::new(|_| {});
    let (asked, liar) = (world.join("asked"), world.join("liar"));
    let control = world.open_control();
    world.take(asked);
    world.ask(control, r#"{"id":1,"method":"ping","params":{"guest":"asked"}}"#);
    let ping = world.frame(asked).unwrap();
    world.send(liar, &format!(r#"{{"type":"pong","id":{}}}"#, ping["id"]));
    assert!(world.replies(control).is_empty());
}

#[test]
fn events_go_on_from_a_cursor_and_say_when_some_are_lost() {
    let mut world = World::new(|config| config.event_ring = 8);
    let control = world.open_control();
    world.join("a");
    let first = one(world.ask(control, r#"{"method":"events"}"#));
    assert_eq!(first["data"]["events"].as_array().unwrap().len(), 4);
    let cursor = first["data"]["cursor"].as_str().unwrap().to_owned();
    assert_eq!(cursor, "7-4");
    world.join("b");
    let next = one(world.ask(control, &format!(r#"{{"method":"events","params":{{"since":"{cursor}"}}}}"#)));
    let kinds: Vec<&str> = next["data"]["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["handshake.start", "handshake.success", "verdict.changed"]);
    assert!(next["data"].get("gap").is_none());
    for guest in ["c", "d", "e"] {
        world.join(guest);
    }
    let late = one(world.ask(control, r#"{"method":"events","params":{"since":"7-4"}}"#));
    assert_eq!(late["data"]["gap"], true);
    let foreign = one(world.ask(control, r#"{"method":"events","params":{"since":"6-2","limit":2}}"#));
    assert_eq!(
        (foreign["data"]["gap"].as_bool(), foreign["data"]["events"].as_array().unwrap().len()),
        (Some(true), 2)
    );
    let page = foreign["data"]["cursor"].as_str().unwrap();
    let rest = one(world.ask(control, &format!(r#"{{"method":"events","params":{{"since":"{page}"}}}}"#)));
    assert_eq!(rest["data"]["events"].as_array().unwrap().len(), 6, "nothing is skipped between pages");
}

#[test]
fn a_follower_sees_each_event_once_and_a_gap_when_it_was_overtaken() {
    let mut world = World::new(|config| config.event_ring = 8);
    let control = world.open_control();
    let head =
        world.ask(control, r#"{"id":1,"method":"events","params":{"follow":true,"kinds":["handshake.*"]}}"#);
    assert_eq!(one(head)["data"]["events"], Value::Array(vec![]));
    world.join("a");
    let seen = world.replies(control);
    let kinds: Vec<&str> = seen.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["handshake.start", "handshake.success"]);
    assert_eq!(seen[1]["data"]["guest"], "a");
    // It stops reading while the ring turns.
    let wire = world.wires.get_mut(&control).unwrap();
    (wire.blocked, wire.room) = (true, 0);
    world.handle(Input::Writable { conn: control, room: 0 });
    for guest in ["b", "c", "d", "e"] {
        world.join(guest);
    }
    let wire = world.wires.get_mut(&control).unwrap();
    (wire.blocked, wire.room) = (false, common::ROOM);
    world.handle(Input::Writable { conn: control, room: common::ROOM });
    let seen = world.replies(control);
    assert_eq!(seen[0]["event"], "gap");
    assert_eq!(seen.last().unwrap()["data"]["guest"], "e");
}

#[test]
fn a_token_counts_when_it_is_durable_and_not_before() {
    let mut world = World::new(|_| {});
    let old = world.join("a");
    let control = world.open_control();
    world.obliging = false;
    assert!(world.ask(control, r#"{"id":1,"method":"token_issue","params":{"guest":"a"}}"#).is_empty());
    assert!(!world.is_closed(old), "nothing changes before the commit");
    let (effect, change) = world.effects.remove(0);
    let Effect::Persist(batch) = &change else { panic!("{change:?}") };
    let Change::SetToken { guest, key: Some(key) } = &batch[0] else { panic!("{batch:?}") };
    assert_eq!(*guest, name("a"));
    let secret = key.expose_token();
    assert!(!format!("{change:?}").contains(&secret), "Debug shows no secret");
    world.handle(Input::Done { effect, result: Ok(()) });
    let reply = one(world.replies(control));
    assert_eq!(reply["data"]["token"].as_str(), Some(secret.as_str()));
    assert!(world.is_closed(old), "its unkeyed session ends");
    assert!(world.events.iter().all(|event| !event.to_string().contains(&secret)));
    let conn = world.open(castra_core::boundary::Transport::Tcp);
    world.line(conn);
    world.write(conn, b"hello vm:a capabilities=proof-v1\n");
    assert!(world.line(conn).starts_with("error: bad-line"), "keyed hellos need a nonce");
}

#[test]
fn a_failed_commit_changes_nothing_and_says_so() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    let control = world.open_control();
    world.obliging = false;
    world.ask(control, r#"{"id":1,"method":"token_issue","params":{"guest":"a"}}"#);
    world.ask(control, r#"{"id":2,"method":"token_list"}"#);
    world.fail_effect();
    assert_eq!(code(&one(world.replies(control))), "storage_failed");
    assert!(!world.is_closed(guest));
    assert_eq!(world.verdict("a"), REACHABLE);
}

#[test]
fn tokens_are_listed_and_revoked_names_stay_keyed_even_when_forgotten() {
    let tokens = vec![(name("a"), Some("ab".repeat(32).parse().unwrap()))];
    let mut world = World::restored(|_| {}, Restored { incarnation: 7, tokens, ..Restored::default() });
    let control = world.open_control();
    assert_eq!(world.verdict("a"), waiting(Reason::NeverSeen), "a name with a token is a row");
    one(world.ask(control, r#"{"method":"token_revoke","params":{"guest":"a"}}"#));
    assert_eq!(
        one(world.ask(control, r#"{"method":"forget","params":{"guest":"a"}}"#))["event"],
        "forgotten"
    );
    assert!(world.row("a").is_none());
    let list = one(world.ask(control, r#"{"method":"token_list"}"#));
    assert_eq!(list["data"]["tokens"], serde_json::json!([{"guest":"a","valid":false}]));
    let conn = world.open(castra_core::boundary::Transport::Tcp);
    world.line(conn);
    world.write(conn, b"hello vm:a\n");
    assert!(world.line(conn).starts_with("error: token-required"));
    assert_eq!(
        code(&one(world.ask(control, r#"{"method":"forget","params":{"guest":"zz"}}"#))),
        "unknown_guest"
    );
}

#[test]
fn a_client_that_stops_sending_still_gets_its_answers() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.write(
        control,
        b"{\"id\":1,\"method\":\"wait\",\"params\":{\"guests\":[\"a\"],\"for\":\"reachable\"}}\n",
    );
    world.handle(Input::Finished { conn: control });
    assert!(!world.is_closed(control));
    world.join("a");
    assert_eq!(one(world.replies(control))["event"], "waited");
    assert!(world.is_closed(control));
    let quiet = world.open_control();
    world.handle(Input::Finished { conn: quiet });
    assert!(world.is_closed(quiet));
    assert_eq!(world.broker.sizes().clients, 0);
}

#[test]
fn a_guest_asks_about_itself_and_nobody_else() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    world.join("b");
    world.send(guest, r#"{"type":"status","id":5}"#);
    let result = world.frame(guest).unwrap();
    assert_eq!(
        (result["type"].as_str(), result["id"].as_u64(), result["of"].as_str()),
        (Some("result"), Some(5), Some("status"))
    );
    assert_eq!(result["data"]["guests"].as_array().unwrap().len(), 1);
    world.send(guest, r#"{"type":"status","id":6,"guests":["b"]}"#);
    assert_eq!(world.frame(guest).unwrap()["code"], "unknown_guest");
    world.send(guest, r#"{"type":"wait","id":7,"for":"waiting","timeout_ms":100}"#);
    world.advance(ms(100));
    assert_eq!(world.frame(guest).unwrap()["code"], "timeout");
}

#[test]
fn a_drain_takes_leave_of_everybody_and_ends() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    let (half, _, _) = world.hello("b", "");
    let control = world.open_control();
    world.ask(control, r#"{"id":1,"method":"wait","params":{"guests":["zz"],"for":"reachable"}}"#);
    world.take(guest);
    let deadline = world.now.boot + ms(3000);
    world.handle(Input::Drain { deadline });
    assert_eq!(code(&one(world.replies(control))), "shutting_down");
    let bye = world.frame(guest).unwrap();
    assert_eq!((bye["code"].as_str(), bye["retry_after_ms"].as_u64()), (Some("shutdown"), Some(1000)));
    assert!(world.is_closed(guest) && world.is_closed(half) && world.is_closed(control));
    assert!(world.stopped);
    assert_eq!(world.doors, [("control", 0), ("link", 0)].into());
    let sizes = world.broker.sizes();
    assert_eq!((sizes.links, sizes.clients, sizes.half_open), (0, 0, 0));
}

#[test]
fn a_drain_waits_for_the_disk_but_not_longer_than_its_deadline() {
    let mut world = World::new(|_| {});
    world.obliging = false;
    world.join("a");
    let deadline = world.now.boot + ms(3000);
    world.handle(Input::Drain { deadline });
    assert!(!world.stopped);
    world.advance(ms(2999));
    assert!(!world.stopped);
    world.advance(ms(1));
    assert!(world.stopped);
}

#[test]
fn shutdown_over_control_is_a_drain() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    assert_eq!(one(world.ask(control, r#"{"method":"shutdown"}"#))["event"], "shutting_down");
    assert!(world.stopped);
}

#[test]
fn at_the_row_bound_the_longest_idle_stranger_makes_room_and_sessions_never_do() {
    let mut world = World::new(|config| {
        config.max_guests = 3;
        config.guests.push(name("configured"));
    });
    let first = world.join("first");
    let second = world.join("second");
    world.close(first);
    world.join("third");
    assert!(world.row("first").is_none() && world.row("configured").is_some());
    let (conn, nonce, _) = world.hello("fourth", "");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("error: busy: "));
    assert!(!world.is_closed(second));
}
