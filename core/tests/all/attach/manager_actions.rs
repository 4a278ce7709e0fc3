//! Actions over the link: who may be sent one, how it travels, and how it leaves.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::common::ms;
use crate::managing::{Shore, code, secs};
use serde_json::json;

#[test]
fn an_action_travels_at_once_and_its_ack_ends_it() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    let params = json!({"guest": "web-1", "action_type": "terminal_write", "payload": {"bytes": "ls\n"}, "ttl_ms": 5000});
    let id = shore.order("action_send", params);
    let heard = shore.hear("web-1");
    let action = heard[0]["id"].as_str().unwrap().to_owned();
    let expected = json!({"type": "action", "id": action, "action_type": "terminal_write", "payload": {"bytes": "ls\n"}, "ttl_ms": 5000});
    assert_eq!(heard, [expected]);
    assert_eq!(shore.answer(id), None);
    assert_eq!(shore.ledger.restored().actions.len(), 1);
    shore.ack("web-1", &action, "ok");
    assert_eq!(shore.hear("web-1"), [json!({"type": "action_settled", "id": action})]);
    let answer = shore.answer(id).unwrap();
    assert_eq!(answer["data"], json!({"guest": "web-1", "id": action, "status": "ok", "error_code": null}));
    assert!(shore.ledger.restored().actions.is_empty());
    // An ack of what is not there is confirmed all the same.
    shore.ack("web-1", &action, "ok");
    shore.ack("web-1", "never-was", "rejected");
    let confirmed: Vec<_> = shore.hear("web-1").iter().map(|frame| frame["id"].clone()).collect();
    assert_eq!(confirmed, [json!(action), json!("never-was")]);
    assert_eq!((shore.count("manager.action.queued"), shore.count("manager.action.settled")), (1, 1));
}

#[test]
fn a_failure_is_told_as_one_with_its_code() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    let id = shore.order("action_send", json!({"guest": "web-1", "action_type": "x", "payload": {}}));
    let action = shore.actions("web-1").remove(0);
    let long = "c".repeat(100);
    shore.say(
        "web-1",
        &format!(r#"{{"type":"action_ack","id":"{action}","status":"rejected","error_code":"{long}"}}"#),
    );
    let answer = shore.answer(id).unwrap();
    assert_eq!(
        (&answer["data"]["status"], &answer["data"]["error_code"]),
        (&json!("rejected"), &json!(long[..64]))
    );
}

#[test]
fn what_a_guest_can_t_take_is_refused_early_and_in_order() {
    let mut shore = Shore::with(|config| config.manager.queue_max = 2);
    let refused = |shore: &mut Shore| code(&shore.ask_queue("web-1")).to_owned();
    assert_eq!(refused(&mut shore), "unknown_guest");
    shore.join("web-1");
    assert_eq!(refused(&mut shore), "not_attached");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    assert_eq!(refused(&mut shore), "not_attached");
    let told = shore.told("web-1");
    shore.attach("web-1", &told);
    shore.queue("web-1");
    shore.queue("web-1");
    assert_eq!(refused(&mut shore), "full");
    shore.pass(secs(29));
    assert_eq!(refused(&mut shore), "full");
    shore.pass(secs(1));
    assert_eq!(refused(&mut shore), "missing_lease", "before the queue is looked at");
    shore.say("web-1", &format!(r#"{{"type":"lease_renew","session_id":"{}"}}"#, told.session));
    assert_eq!(refused(&mut shore), "full");
    shore.pass(secs(31));
    shore.leave("web-1");
    assert_eq!(refused(&mut shore), "guest_offline", "before the lease is looked at");
    shore.join("web-1");
    assert_eq!(refused(&mut shore), "missing_lease", "it is there, but has not said that it is attached");
    shore.pass(ms(500));
    assert_eq!(refused(&mut shore), "not_attached");
    let params = json!({"guest": "web-1", "action_type": "x", "payload": {}, "ttl_ms": 86_400_001});
    assert_eq!(code(&shore.ask("action_send", params)), "not_attached");
}

#[test]
fn a_time_to_live_has_a_bound() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    let params = json!({"guest": "web-1", "action_type": "x", "payload": {}, "ttl_ms": 86_400_001});
    assert_eq!(code(&shore.ask("action_send", params)), "invalid_request");
    assert!(shore.queued().is_empty());
}

#[test]
fn a_lease_is_renewed_by_its_frame_alone() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.pass(secs(22));
    let action = shore.queue("web-1");
    shore.ack("web-1", &action, "ok");
    assert_eq!(shore.rows()[0]["lease_expires_in_ms"], 8000);
    shore.say("web-1", &format!(r#"{{"type":"lease_renew","session_id":"{}"}}"#, told.session));
    let lease = json!({"type": "lease", "session_id": told.session, "lease_ttl_ms": 30_000});
    assert_eq!(shore.frames("web-1", "lease"), [lease]);
    assert_eq!(shore.rows()[0]["lease_expires_in_ms"], 30_000);
}

#[test]
fn so_many_are_on_their_way_and_each_ack_lets_another_follow_in_order() {
    let mut shore = Shore::with(|config| config.manager.in_flight_max = 3);
    shore.adopted("web-1");
    let all: Vec<_> = (0..8).map(|_| shore.queue("web-1")).collect();
    let mut seen = shore.actions("web-1");
    assert_eq!(seen, all[..3]);
    shore.ack("web-1", &all[1], "ok");
    seen = shore.actions("web-1");
    assert_eq!(seen, all[3..4]);
    shore.leave("web-1");
    shore.join("web-1");
    assert!(shore.actions("web-1").is_empty(), "not before it says that it is attached");
    let session = shore.rows()[0]["session_id"].as_str().unwrap().to_owned();
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{session}"}}"#));
    // From the head of the queue on.
    assert_eq!(shore.actions("web-1"), [&*all[0], &*all[2], &*all[3]]);
    assert_eq!(shore.queued(), [&all[..1], &all[2..]].concat());
}

#[test]
fn nothing_travels_to_a_guest_that_does_not_prove_itself() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    shore.alive = false;
    shore.pass(secs(21));
    assert_eq!(code(&shore.ask_queue("web-1")), "guest_offline");
    assert_eq!(shore.rows()[0]["route"], json!(null));
    // What is queued when it falls silent goes on when it is back.
    let mut shore = Shore::with(|config| config.manager.in_flight_max = 1);
    shore.adopted("web-1");
    let first = shore.queue("web-1");
    let second = shore.queue("web-1");
    shore.alive = false;
    shore.pass(secs(25));
    assert_eq!(shore.actions("web-1"), [&*first]);
    shore.ack("web-1", &first, "ok");
    assert!(shore.actions("web-1").is_empty());
    shore.alive = true;
    shore.pass(secs(6));
    assert_eq!(shore.actions("web-1"), [&*second]);
}

#[test]
fn actions_leave_room_for_answers_and_flow_on_when_there_is_more() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    let conn = shore.guests["web-1"];
    shore.world.give_room(conn, 60 * 1024);
    let waiting: Vec<_> = (0..3).map(|_| shore.queue("web-1")).collect();
    assert!(shore.actions("web-1").is_empty(), "less than half is free");
    shore.world.give_room(conn, common::ROOM);
    shore.pump();
    assert_eq!(shore.actions("web-1"), waiting);
}

#[test]
fn frames_that_find_no_room_are_sent_later_in_order() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    let conn = shore.guests["web-1"];
    let ids: Vec<_> = (0..3).map(|_| shore.queue("web-1")).collect();
    shore.hear("web-1");
    shore.stuck = true;
    for id in &ids {
        shore.ack("web-1", id, "ok");
    }
    shore.world.give_room(conn, 200);
    shore.release();
    assert!(shore.queued().is_empty());
    shore.order("release", json!({"guest": "nobody"}));
    shore.world.give_room(conn, common::ROOM / 2);
    shore.say("web-1", &format!(r#"{{"type":"lease_renew","session_id":"{}"}}"#, told.session));
    let heard = shore.hear("web-1");
    let settled: Vec<_> = heard
        .iter()
        .filter(|frame| frame["type"] == "action_settled")
        .map(|frame| frame["id"].clone())
        .collect();
    assert_eq!(settled, ids);
    assert_eq!(heard.last().unwrap()["type"], "lease");
}

#[test]
fn a_backlog_goes_before_actions_and_both_flow_when_there_is_room() {
    let mut shore = Shore::with(|config| config.manager.in_flight_max = 1);
    shore.adopted("web-1");
    let conn = shore.guests["web-1"];
    let ids: Vec<_> = (0..2).map(|_| shore.queue("web-1")).collect();
    shore.hear("web-1");
    shore.stuck = true;
    shore.ack("web-1", &ids[0], "ok");
    shore.world.give_room(conn, 20);
    shore.release();
    assert!(shore.hear("web-1").is_empty());
    shore.world.give_room(conn, common::ROOM);
    shore.pump();
    let kinds: Vec<_> = shore.hear("web-1").iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(kinds, ["action_settled", "action"]);
}

#[test]
fn whoever_attaches_is_told_so_before_it_is_to_do_anything() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.queue("web-1");
    shore.hear("web-1");
    shore.leave("web-1");
    shore.join("web-1");
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    let kinds = |shore: &mut Shore| -> Vec<_> {
        shore.hear("web-1").iter().map(|frame| frame["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&mut shore), ["lease", "action"]);
    shore.leave("web-1");
    shore.join("web-1");
    shore.pass(secs(1));
    let fresh = shore.told("web-1");
    shore.attach("web-1", &fresh);
    assert_eq!(kinds(&mut shore), ["attached", "action"]);
}

#[test]
fn an_action_that_nobody_took_expires_and_its_late_ack_is_confirmed() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    shore.leave("web-1");
    shore.pass(ms(1));
    shore.join("web-1");
    let session = shore.rows()[0]["session_id"].as_str().unwrap().to_owned();
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{session}"}}"#));
    let params =
        json!({"guest": "web-1", "action_type": "x", "payload": {}, "ttl_ms": 3000, "timeout_ms": 60_000});
    let id = shore.order("action_send", params);
    let action = shore.actions("web-1").remove(0);
    shore.pass(ms(2999));
    assert_eq!(shore.answer(id), None);
    shore.pass(ms(1));
    let answer = shore.answer(id).unwrap();
    assert_eq!((&answer["data"]["status"], &answer["data"]["id"]), (&json!("expired"), &json!(action)));
    assert!(shore.ledger.restored().actions.is_empty());
    shore.ack("web-1", &action, "ok");
    assert_eq!(shore.frames("web-1", "action_settled").len(), 1);
    assert_eq!(shore.count("manager.action.settled"), 1);
}

#[test]
fn a_wait_that_is_over_leaves_the_action_in_the_queue() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    let params = json!({"guest": "web-1", "action_type": "x", "payload": {}, "timeout_ms": 1000});
    let id = shore.order("action_send", params);
    shore.pass(secs(1));
    let answer = shore.answer(id).unwrap();
    assert_eq!((code(&answer), &answer["data"]["status"]), ("action", &json!("queued")));
    assert_eq!(shore.queued().len(), 1);
    let row = shore.ask("action_list", json!({"guest": "web-1"}))["data"]["actions"][0].clone();
    assert_eq!(
        (&row["sent"], &row["age_ms"], &row["expires_in_ms"]),
        (&json!(true), &json!(1000), &json!(599_000))
    );
    assert_eq!(code(&shore.ask("action_list", json!({"guest": "nobody"}))), "unknown_guest");
}

#[test]
fn the_queue_holds_five_hundred() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    for _ in 0..500 {
        shore.queue("web-1");
    }
    let answer = shore.ask_queue("web-1");
    assert_eq!(code(&answer), "full");
    assert_eq!((shore.queued().len(), shore.world.broker.sizes().actions), (500, 500));
    let first = shore.queued().remove(0);
    shore.ack("web-1", &first, "ok");
    shore.queue("web-1");
    assert_eq!(code(&shore.ask_queue("web-1")), "full");
    // Those that are still on their way to the disk count.
    let second = shore.queued().remove(0);
    shore.ack("web-1", &second, "ok");
    shore.stuck = true;
    let one = shore
        .order("action_send", json!({"guest": "web-1", "action_type": "x", "payload": {}, "wait": false}));
    let other = shore
        .order("action_send", json!({"guest": "web-1", "action_type": "x", "payload": {}, "wait": false}));
    assert_eq!(code(&shore.answer(other).unwrap()), "full");
    shore.release();
    assert_eq!(code(&shore.answer(one).unwrap()), "action");
}
