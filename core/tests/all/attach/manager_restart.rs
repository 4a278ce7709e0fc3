//! The broker ends and starts again at every stage, and the disk fails.
#![allow(clippy::unwrap_used)]

use crate::managing;
use crate::managing::{Shore, code, secs};
use serde_json::json;

#[test]
fn a_pending_adoption_goes_on_with_a_fresh_handshake() {
    let mut shore = Shore::new();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    shore.restart(secs(10));
    let row = shore.rows().remove(0);
    assert_eq!((&row["stage"], &row["code_expires_in_ms"]), (&json!("pending"), &json!(590_000)));
    shore.join("web-1");
    shore.pass(secs(1));
    let fresh = shore.told("web-1");
    assert_eq!((&fresh.session, &fresh.beach), (&told.session, &told.beach));
    assert!(fresh.code != told.code && fresh.token != told.token);
    shore.attach("web-1", &fresh);
    assert_eq!(shore.frames("web-1", "attached").len(), 1);
}

#[test]
fn an_attached_guest_stays_attached_and_its_actions_wait() {
    let mut shore = Shore::http();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    assert_eq!(shore.post_attach(&told).status, 200);
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    let ids = [shore.queue("web-1"), shore.queue("web-1")];
    shore.restart(secs(10));
    // It lives on without a row of its own, and has no lease before it asks for one.
    assert_eq!(code(&shore.ask_queue("web-1")), "guest_offline");
    assert_eq!(shore.queued(), ids);
    assert_eq!(shore.exchange(&managing::poll(&told)).body["error_code"], "missing_lease");
    assert_eq!(code(&shore.ask_queue("web-1")), "missing_lease", "whoever asks, polls");
    let lease = managing::post(&format!("/sessions/{}/lease", told.session), &told.token, "");
    assert_eq!(shore.exchange(&lease).body["lease_ttl_ms"], 30_000);
    let polled = shore.exchange(&managing::poll(&told));
    assert_eq!((&polled.body[0]["id"], &polled.body[1]["id"]), (&json!(ids[0]), &json!(ids[1])));
    assert_eq!(polled.body[0]["ttl_ms"], 590_000);
    // The same code, session and handshake: the same answer, after the restart, too.
    let again = shore.post_attach(&told);
    assert_eq!((again.status, &again.body["session"]["session_id"]), (200, &json!(told.session)));
    shore.join("web-1");
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    assert_eq!(shore.actions("web-1"), ids);
    assert_eq!(shore.frames("web-1", "lease").len(), 1);
    // New actions don't get the numbers of old ones.
    let third = shore.queue("web-1");
    assert_eq!(shore.queued(), [&ids[..], &[third]].concat());
}

#[test]
fn what_expired_meanwhile_is_dropped_and_a_clock_that_went_back_makes_nothing_older() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    shore.queue("web-1");
    shore.restart(secs(599));
    assert_eq!(shore.queued().len(), 1);
    shore.restart(secs(2));
    shore.pass(secs(0));
    assert!(shore.queued().is_empty() && shore.ledger.restored().actions.is_empty());
    assert_eq!(shore.count("manager.action.settled"), 1);
    assert_eq!(shore.rows()[0]["code_expires_in_ms"], json!(null));
    shore.join("web-1");
    shore.pass(secs(1));
    let told = shore.told("web-1");
    shore.world.now.wall = castra_core::time::WallTime::from_unix_millis(0);
    shore.restart(secs(0));
    shore.world.now.wall = castra_core::time::WallTime::from_unix_millis(1_795_188_257_000);
    assert_eq!(shore.rows()[0]["code_expires_in_ms"], 600_000);
    assert_eq!(shore.rows()[0]["handshake_id"], told.id);
}

#[test]
fn a_code_that_expired_while_the_broker_was_away_is_of_no_use() {
    let mut shore = Shore::http();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    shore.restart(secs(601));
    assert_eq!(shore.post_attach(&told).body["message"], "invalid_code");
    shore.pass(secs(1));
    assert_eq!(shore.count("manager.handshake.expired"), 1);
    assert_eq!(shore.ledger.restored().attachments[0].code, None);
}

#[test]
fn what_was_released_stays_released() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.queue("web-1");
    shore.ask("release", json!({"guest": "web-1"}));
    shore.restart(secs(1));
    assert!(shore.rows().is_empty() && shore.queued().is_empty());
    shore.join("web-1");
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    assert_eq!(shore.hear("web-1"), [json!({"type": "manager_detach", "session_id": told.session})]);
}

#[test]
fn a_release_that_a_crash_cut_off_never_was() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    let action = shore.queue("web-1");
    shore.stuck = true;
    shore.order("release", json!({"guest": "web-1"}));
    assert!(shore.frames("web-1", "manager_detach").is_empty(), "not before it is durable");
    shore.stuck = false;
    shore.restart(secs(1));
    assert_eq!((&shore.rows()[0]["session_id"], shore.queued()), (&json!(told.session), vec![action]));
}

#[test]
fn link_only_survives() {
    let mut shore = Shore::http();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "link": true, "wait": false}));
    assert_eq!(shore.told("web-1").url, "link:");
    shore.restart(secs(1));
    shore.join("web-1");
    shore.pass(secs(1));
    assert_eq!(shore.told("web-1").url, "link:");
}

#[test]
fn an_adoption_that_was_made_without_a_session_finds_its_address_with_one() {
    let mut shore = Shore::with(|config| {
        managing::with_http(config);
        config.guests = vec!["web-1".parse().unwrap()];
    });
    let answer = shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    assert_eq!(answer["data"]["manager_url"], "link:");
    shore.join("web-1");
    shore.pass(secs(1));
    assert_eq!(shore.told("web-1").url, "http://10.0.2.2:7171");
}

#[test]
fn an_adoption_that_can_t_be_written_is_none_and_no_handshake_leaves() {
    let mut shore = Shore::new();
    shore.join("web-1");
    shore.failing = true;
    let answer = shore.ask("adopt", json!({"guest": "web-1"}));
    assert_eq!(code(&answer), "storage_failed");
    assert!(answer["data"]["message"].as_str().unwrap().contains("no space left"), "{answer}");
    assert!(shore.rows().is_empty() && shore.hear("web-1").is_empty());
    assert_eq!(shore.count("storage.failed"), 1);
    shore.failing = false;
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    shore.told("web-1");
}

#[test]
fn nothing_leaves_before_it_is_durable() {
    let mut shore = Shore::new();
    shore.join("web-1");
    shore.stuck = true;
    let adopt = shore.order("adopt", json!({"guest": "web-1", "wait": false}));
    assert!(shore.hear("web-1").is_empty() && shore.answer(adopt).is_none());
    shore.release();
    assert_eq!(code(&shore.answer(adopt).unwrap()), "adopted");
    let told = shore.told("web-1");
    shore.stuck = true;
    shore.attach("web-1", &told);
    shore.attach("web-1", &told);
    assert!(shore.hear("web-1").is_empty());
    shore.release();
    assert_eq!(shore.frames("web-1", "attached").len(), 2, "each attempt has its answer");
    shore.stuck = true;
    let send = shore
        .order("action_send", json!({"guest": "web-1", "action_type": "x", "payload": {}, "wait": false}));
    assert!(shore.hear("web-1").is_empty() && shore.answer(send).is_none());
    shore.release();
    let action = shore.actions("web-1").remove(0);
    shore.stuck = true;
    shore.ack("web-1", &action, "ok");
    assert!(shore.hear("web-1").is_empty());
    assert_eq!(shore.queued().len(), 1);
    shore.release();
    assert_eq!(shore.frames("web-1", "action_settled").len(), 1);
}

#[test]
fn a_request_that_waits_for_the_disk_has_a_bound_and_is_not_done_later() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    shore.stuck = true;
    let first = shore.order(
        "action_send",
        json!({"guest": "web-1", "action_type": "x", "payload": {}, "timeout_ms": 1000}),
    );
    let second = shore.order(
        "action_send",
        json!({"guest": "web-1", "action_type": "x", "payload": {}, "timeout_ms": 1000}),
    );
    shore.pass(secs(1));
    assert_eq!(code(&shore.answer(first).unwrap()), "timeout");
    assert_eq!(code(&shore.answer(second).unwrap()), "timeout");
    shore.release();
    assert_eq!(shore.queued().len(), 1, "what had begun is done, what had not is not");
}

#[test]
fn an_attach_that_can_t_be_written_is_refused_and_the_code_stays_good() {
    let mut shore = Shore::http();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    shore.failing = true;
    shore.attach("web-1", &told);
    assert_eq!(shore.frames("web-1", "attach_refused")[0]["code"], "storage_failed");
    let answer = shore.post_attach(&told);
    assert_eq!((answer.status, &answer.body["error_code"]), (503, &json!("storage_failed")));
    assert_eq!(shore.rows()[0]["stage"], "pending");
    shore.failing = false;
    assert_eq!(shore.post_attach(&told).status, 200);
}

#[test]
fn an_ack_that_can_t_be_written_leaves_the_action_to_be_sent_again() {
    let mut shore = Shore::http();
    let told = shore.adopted("web-1");
    let action = shore.queue("web-1");
    shore.hear("web-1");
    shore.failing = true;
    shore.ack("web-1", &action, "ok");
    assert!(shore.hear("web-1").is_empty());
    assert_eq!(shore.queued(), [&*action]);
    let ack = managing::post(
        &format!("/sessions/{}/actions/ack", told.session),
        &told.token,
        &json!([{"id": action, "status": "ok"}]).to_string(),
    );
    assert_eq!(shore.exchange(&ack).status, 503);
    shore.failing = false;
    shore.pass(secs(6));
    assert_eq!(shore.actions("web-1"), [&*action]);
    shore.ack("web-1", &action, "ok");
    assert!(shore.queued().is_empty());
}

#[test]
fn an_expiry_that_can_t_be_written_is_tried_again() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    let params =
        json!({"guest": "web-1", "action_type": "x", "payload": {}, "ttl_ms": 1000, "timeout_ms": 60_000});
    let id = shore.order("action_send", params);
    shore.failing = true;
    shore.pass(secs(3));
    assert_eq!((shore.answer(id), shore.queued().len()), (None, 1));
    shore.failing = false;
    shore.pass(secs(6));
    assert_eq!(shore.answer(id).unwrap()["data"]["status"], "expired");
    assert!(shore.queued().is_empty());
}

#[test]
fn a_renegotiation_that_can_t_be_written_is_tried_again() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.leave("web-1");
    shore.join("web-1");
    shore.failing = true;
    shore.pass(secs(1));
    assert!(shore.hear("web-1").is_empty());
    assert_eq!(shore.rows()[0]["handshake_id"], told.id);
    shore.failing = false;
    shore.pass(secs(6));
    assert_ne!(shore.told("web-1").id, told.id);
}

#[test]
fn a_release_that_can_t_be_written_changes_nothing() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    let action = shore.queue("web-1");
    shore.hear("web-1");
    shore.failing = true;
    assert_eq!(code(&shore.ask("release", json!({"guest": "web-1"}))), "storage_failed");
    assert!(shore.hear("web-1").is_empty());
    assert_eq!((shore.rows().len(), shore.queued()), (1, vec![action]));
}

#[test]
fn a_drain_answers_everybody() {
    let mut shore = Shore::http();
    shore.adopted("web-1");
    shore.join("web-2");
    let adopt = shore.order("adopt", json!({"guest": "web-2"}));
    let told = shore.told("web-2");
    let send = shore.order("action_send", json!({"guest": "web-1", "action_type": "x", "payload": {}}));
    shore.post_attach(&told);
    let poll = shore.connect();
    shore.write(poll, managing::poll(&told).as_bytes());
    let idle = shore.connect();
    let late = shore.order("adopt", json!({"guest": "web-2", "beach_id": "no"}));
    assert_eq!(code(&shore.answer(late).unwrap()), "conflict");
    shore.stuck = true;
    let stored = shore.order("release", json!({"guest": "web-2"}));
    let deadline = shore.world.now.boot + secs(2);
    shore.world.handle(castra_core::Input::Drain { deadline });
    shore.pump();
    assert_eq!(shore.world.doors["manager"], 0);
    assert_eq!(code(&shore.answer(adopt).unwrap()), "adopted");
    assert_eq!(shore.answer(send).unwrap()["data"]["status"], "queued");
    let answers = shore.answers(poll);
    assert_eq!((answers[0].status, &answers[0].body), (200, &json!([])));
    assert!(answers[0].head.contains("Connection: close"));
    assert!(shore.world.is_closed(idle));
    assert!(!shore.world.stopped, "what was begun is waited for");
    shore.release();
    assert_eq!(code(&shore.answer(stored).unwrap()), "released");
    assert!(shore.world.stopped && shore.world.is_closed(poll));
}

#[test]
fn what_is_on_its_way_when_a_guest_is_forgotten_has_no_effect_in_whatever_order_the_ends_are_told() {
    let mut shore = Shore::new();
    shore.join("web-1");
    shore.stuck = true;
    let adopt = shore.order("adopt", json!({"guest": "web-1", "wait": false}));
    let forget = shore.order("forget", json!({"guest": "web-1"}));
    assert_eq!(shore.world.effects.len(), 2);
    shore.world.effects.reverse();
    shore.release();
    assert_eq!(code(&shore.answer(forget).unwrap()), "forgotten");
    assert_eq!(code(&shore.answer(adopt).unwrap()), "unknown_guest");
    assert!(shore.rows().is_empty());
}
