//! Requests that take time: each gets one answer, and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use crate::common::{World, ms};
use castra_core::Input;
use castra_core::boundary::Effect;
use serde_json::Value;

fn one(mut replies: Vec<Value>) -> Value {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

fn code(reply: &Value) -> &str {
    assert_eq!(reply["event"], "error", "{reply}");
    reply["data"]["code"].as_str().unwrap()
}

fn message(reply: &Value) -> &str {
    reply["data"]["message"].as_str().unwrap()
}

fn issue(number: usize) -> String {
    format!(r#"{{"id":{number},"method":"token_issue","params":{{"guest":"g{number}"}}}}"#)
}

#[test]
fn a_wait_for_all_is_over_when_all_are_so_at_once() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    let wait =
        r#"{"id":1,"method":"wait","params":{"guests":["a","b"],"for":"reachable","timeout_ms":5000}}"#;
    assert!(world.ask(control, wait).is_empty());
    for _ in 0..3 {
        let a = world.join("a");
        world.close(a);
    }
    world.join("b");
    assert!(world.replies(control).is_empty(), "a is gone again");
    world.join("a");
    assert_eq!(one(world.replies(control))["event"], "waited");
}

#[test]
fn a_wait_that_failed_says_how_many_were_so() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    let wait =
        r#"{"id":1,"method":"wait","params":{"guests":["a","b","c"],"for":"reachable","timeout_ms":50}}"#;
    world.join("a");
    world.ask(control, wait);
    let b = world.join("b");
    world.close(b);
    world.join("b");
    world.advance(ms(50));
    let reply = one(world.replies(control));
    assert_eq!((code(&reply), message(&reply)), ("timeout", "2 of 3 guests are so"));
}

#[test]
fn a_wait_for_any_is_pending_while_none_is_so() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    let wait = r#"{"id":1,"method":"wait","params":{"guests":["a","b"],"for":"reachable","any":true}}"#;
    assert!(world.ask(control, wait).is_empty());
    let other = world.join("other");
    world.close(other);
    assert!(world.replies(control).is_empty());
    world.join("b");
    assert_eq!(one(world.replies(control))["data"]["guests"][0]["name"], "b");
}

#[test]
fn sixty_four_changes_wait_for_the_disk_and_no_more() {
    let mut world = World::new(|_| {});
    let (first, second) = (world.open_control(), world.open_control());
    world.obliging = false;
    for number in 0..64 {
        assert!(world.ask(first, &issue(number)).is_empty());
    }
    // One is on its way.
    assert!(world.ask(second, &issue(64)).is_empty());
    let refused = one(world.ask(second, &issue(65)));
    assert_eq!((code(&refused), &refused["id"]), ("busy", &65.into()));
    let mut done = 0;
    while let Some((effect, _)) = world.effects.pop() {
        assert!(world.effects.is_empty(), "one at a time");
        world.handle(Input::Done { effect, result: Ok(()) });
        done += 1;
    }
    assert_eq!(done, 65);
    assert_eq!(world.replies(first).len() + world.replies(second).len(), 65);
}

#[test]
fn a_change_that_is_late_may_still_happen_and_one_that_waits_does_not() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.obliging = false;
    world.ask(control, &issue(1));
    world.ask(control, &issue(2));
    world.advance(ms(4999));
    assert!(world.replies(control).is_empty());
    world.advance(ms(1));
    let mut replies = world.replies(control);
    replies.sort_by_key(|reply| reply["id"].as_u64());
    assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), ["timeout", "timeout"]);
    assert!(message(&replies[0]).ends_with("may still happen"), "{}", replies[0]);
    assert!(message(&replies[1]).starts_with("nothing changed"), "{}", replies[1]);
    let (effect, _) = world.effects.remove(0);
    world.handle(Input::Done { effect, result: Ok(()) });
    assert!(world.effects.is_empty());
    let list = one(world.ask(control, r#"{"method":"token_list"}"#));
    assert_eq!(list["data"]["tokens"], serde_json::json!([{"guest": "g1", "valid": true}]));
}

#[test]
fn a_change_whose_asker_is_gone_is_not_begun() {
    let mut world = World::new(|_| {});
    let (gone, stays) = (world.open_control(), world.open_control());
    world.obliging = false;
    world.ask(stays, &issue(1));
    world.ask(gone, &issue(2));
    world.ask(gone, &issue(3));
    world.ask(stays, &issue(4));
    world.close(gone);
    let mut names = Vec::new();
    while let Some((effect, what)) = world.effects.pop() {
        let Effect::Persist(changes) = what else { panic!("{what:?}") };
        names.push(format!("{:?}", changes[0]));
        world.handle(Input::Done { effect, result: Ok(()) });
    }
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].contains("g1") && names[1].contains("g4"));
    assert_eq!(world.replies(stays).len(), 2);
}

#[test]
fn a_failed_change_says_what_the_system_said() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.obliging = false;
    world.ask(control, &issue(1));
    world.fail_effect();
    let reply = one(world.replies(control));
    assert_eq!(code(&reply), "storage_failed");
    assert!(message(&reply).starts_with("nothing changed: no space left; "), "{reply}");
    // The next one has its turn.
    world.ask(control, &issue(2));
    let (effect, _) = world.effects.remove(0);
    world.handle(Input::Done { effect, result: Ok(()) });
    assert_eq!(one(world.replies(control))["event"], "token_issued");
}

#[test]
fn a_reload_is_answered_when_it_ended() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.obliging = false;
    let reload = r#"{"id":1,"method":"reload"}"#;
    assert!(world.ask(control, reload).is_empty());
    let (effect, what) = world.effects.remove(0);
    assert!(matches!(what, Effect::Reload));
    world.handle(Input::Done { effect, result: Ok(()) });
    let reply = one(world.replies(control));
    assert_eq!((reply["event"].as_str(), &reply["data"]), (Some("reloaded"), &serde_json::json!({})));
    world.ask(control, reload);
    world.fail_effect();
    let reply = one(world.replies(control));
    assert_eq!((code(&reply), message(&reply)), ("internal", "no space left"));
    world.ask(control, reload);
    world.advance(ms(5000));
    assert_eq!(code(&one(world.replies(control))), "timeout");
}

#[test]
fn a_ping_that_cannot_be_sent_is_answered_at_once() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    let control = world.open_control();
    world.give_room(guest, 0);
    let reply = one(world.ask(control, r#"{"id":1,"method":"ping","params":{"guest":"a"}}"#));
    assert_eq!(code(&reply), "not_reachable");
}

#[test]
fn whoever_leaves_takes_only_their_own_questions_along() {
    let mut world = World::new(|_| {});
    let guests = ["a", "b"].map(|guest| world.join(guest));
    let clients = [world.open_control(), world.open_control()];
    let idle = world.broker.sizes().timers;
    for client in clients {
        for guest in ["a", "b"] {
            world.ask(
                client,
                &format!(r#"{{"id":"{guest}","method":"ping","params":{{"guest":"{guest}"}}}}"#),
            );
        }
    }
    world.send(guests[0], r#"{"type":"wait","id":1,"for":"waiting"}"#);
    assert_eq!(world.broker.sizes().timers, idle + 5);
    world.close(clients[0]);
    assert_eq!(world.broker.sizes().timers, idle + 3);
    world.close(guests[0]);
    let lost = one(world.replies(clients[1]));
    assert_eq!((code(&lost), &lost["id"]), ("not_reachable", &"a".into()));
    // The link's own timer went, too.
    assert_eq!(world.broker.sizes().timers, idle);
    world.advance(ms(2000));
    let late = one(world.replies(clients[1]));
    assert_eq!((code(&late), &late["id"]), ("timeout", &"b".into()));
    assert_eq!(world.broker.sizes().timers, idle - 1);
}

#[test]
fn a_guest_pings_itself_through_the_broker() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    world.take(guest);
    world.send(guest, r#"{"type":"ping_guest","id":9}"#);
    let ping = world.frame(guest).unwrap();
    assert_eq!(ping["type"], "ping");
    world.advance(ms(4));
    world.send(guest, &format!(r#"{{"type":"pong","id":{}}}"#, ping["id"]));
    let result = world.frame(guest).unwrap();
    assert_eq!(
        result,
        serde_json::json!({"type": "result", "of": "ping_guest", "id": 9,
                                          "data": {"guest": "a", "rtt_us": 4000}})
    );
}

#[test]
fn a_guests_wait_is_answered_when_it_is_so() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    world.take(guest);
    world.send(guest, r#"{"type":"wait","id":9,"guests":["a"],"for":"reachable"}"#);
    let result = world.frame(guest).unwrap();
    assert_eq!((result["type"].as_str(), result["id"].as_u64()), (Some("result"), Some(9)));
    assert_eq!(result["data"]["guests"][0]["name"], "a");
    assert_eq!(result["data"]["satisfied"], true);
}

#[test]
fn a_guests_question_has_the_bounds_of_control() {
    let mut world = World::new(|_| {});
    let guest = world.join("a");
    world.take(guest);
    for (question, refused) in [
        (r#"{"type":"wait","id":1}"#, true),
        (r#"{"type":"wait","id":1,"for":"waiting","timeout_ms":86400001}"#, true),
        (r#"{"type":"wait","id":1,"for":"waiting","timeout_ms":86400000}"#, false),
        (r#"{"type":"wait","id":1,"for":"waiting","timeout_ms":1}"#, false),
    ] {
        world.send(guest, question);
        let answer = world.frame(guest).map(|answer| answer["code"].clone());
        assert_eq!(answer, refused.then(|| "invalid_request".into()), "{question}");
    }
    world.send(guest, r#"{"type":"status","id":2,"guests":["a","zz"]}"#);
    let answer = world.frame(guest).unwrap();
    assert_eq!((answer["code"].as_str(), answer["id"].as_u64()), (Some("unknown_guest"), Some(2)));
}
