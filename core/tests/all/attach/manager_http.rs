//! The manager's HTTP door: attaching, polls, acks and leases, as bytes.
#![allow(clippy::unwrap_used)]

use crate::common::ms;
use crate::managing;
use crate::managing::{Shore, Told, code, get, poll, post, secs};
use serde_json::json;

/// Adopted, attached over HTTP, and away from its link.
fn polling() -> (Shore, Told) {
    let mut shore = Shore::http();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    assert_eq!(shore.post_attach(&told).status, 200);
    shore.leave("web-1");
    (shore, told)
}

#[test]
fn a_guest_attaches_over_http_and_its_answer_holds_no_secret() {
    let mut shore = Shore::http();
    shore.join("web-1");
    let id = shore.order("adopt", json!({"guest": "web-1"}));
    let told = shore.told("web-1");
    assert_eq!(told.url, "http://10.0.2.2:7171");
    let answer = shore.post_attach(&told);
    let expires = shore.world.now.wall.unix_millis() + 30_000;
    let session = json!({
        "session_id": told.session, "private_beach_id": told.beach,
        "lease_expires_at_ms": expires, "lease_ttl_ms": 30_000,
    });
    assert_eq!(
        (answer.status, &answer.body),
        (200, &json!({"ok": true, "attach_method": "code", "session": session}))
    );
    assert!(answer.head.contains("Content-Type: application/json\r\n") && answer.head.contains("no-store"));
    assert_eq!(code(&shore.answer(id).unwrap()), "adopted");
    // The answer was lost: the same request gets the same.
    assert_eq!(shore.post_attach(&told).body, answer.body);
    assert_eq!(shore.count("manager.handshake.accepted"), 1);
    // Actions don't travel over a link that has not said so: the answer may come after them.
    assert_eq!(shore.rows()[0]["route"], json!(null));
    shore.queue("web-1");
    assert!(shore.actions("web-1").is_empty());
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    assert_eq!(shore.actions("web-1").len(), 1);
}

#[test]
fn every_refusal_of_an_attach_has_its_status() {
    let mut shore = Shore::http();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    let mut check = |request: String, status: u16, error: &str, message: Option<&str>| {
        let answer = shore.exchange(&request);
        assert_eq!((answer.status, &answer.body["error"]), (status, &json!(error)), "{request}");
        if let Some(message) = message {
            assert_eq!(answer.body["message"], message);
        }
    };
    let change = |told: &Told, what: fn(&mut Told)| {
        let mut told = told.clone();
        what(&mut told);
        managing::attach_request(&told)
    };
    check(change(&told, |told| told.code = "CODE-42".into()), 400, "bad_request", Some("invalid_code"));
    check(change(&told, |told| told.id = "other".into()), 400, "bad_request", Some("invalid_code"));
    check(change(&told, |told| told.session = "other".into()), 404, "not_found", Some("session not found"));
    check(
        change(&told, |told| told.beach = "other".into()),
        404,
        "not_found",
        Some("private beach not found"),
    );
    check(change(&told, |told| told.token.push('x')), 401, "unauthorized", None);
    let good = managing::attach_request(&told);
    check(good.replace("Authorization: Bearer", "Authorization: Basic"), 401, "unauthorized", None);
    check(good.replace("Authorization", "X-Authorization"), 401, "unauthorized", None);
    check(good.replace("x-beach-handshake-id", "x-other"), 400, "bad_request", None);
    check(good.replace("Host: 10.0.2.2:7171", "Host: evil.example"), 421, "misdirected", None);
    check(good.replace("Host: 10.0.2.2:7171", "Host: 2130706433"), 421, "misdirected", None);
    check(good.replace("Host: 10.0.2.2:7171\r\n", ""), 400, "bad_request", None);
    check(good.replace("Host:", "Origin: http://10.0.2.2:7171\r\nHost:"), 403, "forbidden", None);
    check(good.replace("Host:", "Origin: null\r\nHost:"), 403, "forbidden", None);
    check(good.replace("by-code HTTP", "by-code?controller_token=x HTTP"), 400, "bad_request", None);
    check(good.replace("by-code HTTP", "by-code?a=b&access_TOKEN HTTP"), 400, "bad_request", None);
    check(good.replace("by-code HTTP", "by-other HTTP"), 404, "not_found", None);
    check(good.replace("/private-beaches/", "/private-beaches/%2e/"), 404, "not_found", None);
    check(good.replace("\"code\"", "\"cude\""), 400, "bad_request", None);
    check(good.replace("{\"session_id\":", "{\"session_id\" "), 400, "bad_request", None);
    let get = good.replace("POST ", "GET ");
    let answer = shore.exchange(&get);
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("Allow: POST\r\n"), "{}", answer.head);
    assert_eq!(shore.rows()[0]["stage"], "pending");
    for host in ["localhost", "localhost:7171", "127.0.0.1", "[::1]:7171", "LOCALHOST"] {
        assert_eq!(
            shore.exchange(&good.replace("Host: 10.0.2.2:7171", &format!("Host: {host}"))).status,
            200,
            "{host}"
        );
    }
    assert!(shore.count("manager.request.refused") > 0);
}

#[test]
fn the_advertised_host_is_ours() {
    let mut shore = Shore::with(|config| {
        managing::with_http(config);
        config.manager.advertise = Some("https://manager.example".parse().unwrap());
    });
    let path = "/sessions/x/actions/poll";
    let ask = |shore: &mut Shore, host: &str| {
        shore.exchange(&get(path, "t").replace("Host: 10.0.2.2:7171", &format!("Host: {host}"))).status
    };
    assert_eq!((ask(&mut shore, "manager.example"), ask(&mut shore, "Manager.Example:443")), (404, 404));
    assert_eq!((ask(&mut shore, "example"), ask(&mut shore, "manager.example.")), (421, 421));
}

#[test]
fn a_poll_answers_with_what_waits_again_and_again_until_it_is_acknowledged() {
    let (mut shore, told) = polling();
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    assert!(shore.answers(conn).is_empty());
    let first = shore.queue("web-1");
    let polled = shore.answers(conn).remove(0);
    assert_eq!(polled.status, 200);
    let action = json!({"id": first, "action_type": "terminal_write", "payload": {"bytes": "ls\n"}, "expires_at": null, "ttl_ms": 600_000});
    assert_eq!(polled.body, json!([action]));
    let second = shore.queue("web-1");
    shore.write(conn, poll(&told).as_bytes());
    let polled = shore.answers(conn).remove(0);
    assert_eq!((&polled.body[0]["id"], &polled.body[1]["id"]), (&json!(first), &json!(second)));
    let acks = json!([{"id": first, "status": "ok", "error_code": null, "applied_at": {"secs_since_epoch": 1}}, {"id": "never-was", "status": "expired"}]);
    let path = format!("/sessions/{}/actions/ack", told.session);
    shore.write(conn, post(&path, &told.token, &acks.to_string()).as_bytes());
    let answer = shore.answers(conn).remove(0);
    assert_eq!((answer.status, answer.body), (200, json!({"acknowledged": true})));
    assert_eq!(shore.queued(), [&*second]);
    // One alone, not in a list.
    let ack = json!({"id": second, "status": "rejected", "error_code": "no_terminal"}).to_string();
    assert_eq!(shore.exchange(&post(&path, &told.token, &ack)).status, 200);
    assert!(shore.queued().is_empty());
    assert_eq!(shore.exchange(&post(&path, &told.token, &ack)).body, json!({"acknowledged": true}));
    assert_eq!(shore.exchange(&post(&path, &told.token, "[]")).status, 200);
    for bad in ["", "{}", "[1]", r#"[{"id":"a","status":"perhaps"}]"#, r#"{"id":"a b","status":"ok"}"#] {
        assert_eq!(shore.exchange(&post(&path, &told.token, bad)).status, 400, "{bad}");
    }
}

#[test]
fn an_ack_is_answered_when_it_is_durable() {
    let (mut shore, told) = polling();
    let poller = shore.connect();
    shore.write(poller, poll(&told).as_bytes());
    let id = shore.queue("web-1");
    let path = format!("/sessions/{}/actions/ack", told.session);
    let ack = json!([{"id": id, "status": "ok"}, {"id": id, "status": "ok"}]).to_string();
    shore.stuck = true;
    let (one, other) = (shore.connect(), shore.connect());
    shore.write(one, post(&path, &told.token, &ack).as_bytes());
    shore.write(other, post(&path, &told.token, &ack).as_bytes());
    assert!(shore.answers(one).is_empty() && shore.answers(other).is_empty());
    shore.release();
    assert_eq!((shore.answers(one)[0].status, shore.answers(other)[0].status), (200, 200));
    // The disk takes too long: it is said, and the late end is nobody's answer.
    let id = shore.queue("web-1");
    let ack = json!({"id": id, "status": "ok"}).to_string();
    shore.stuck = true;
    shore.write(one, post(&path, &told.token, &ack).as_bytes());
    shore.pass(secs(5));
    assert_eq!(shore.answers(one)[0].status, 503);
    shore.release();
    assert!(shore.answers(one).is_empty() && shore.queued().is_empty());
}

#[test]
fn a_poll_ends_with_nothing_after_its_time_and_the_next_one_follows_on_the_same_connection() {
    let (mut shore, told) = polling();
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    shore.pass(ms(24_999));
    assert!(shore.answers(conn).is_empty());
    shore.pass(ms(1));
    let answer = shore.answers(conn).remove(0);
    assert_eq!((answer.status, answer.body), (200, json!([])));
    shore.exchange_lease(&told);
    shore.write(conn, poll(&told).as_bytes());
    shore.pass(secs(20));
    assert_eq!(shore.rows()[0]["route"], "http");
    shore.queue("web-1");
    assert_eq!(shore.answers(conn).len(), 1);
}

#[test]
fn a_lease_that_is_over_is_said_and_renewed() {
    let (mut shore, told) = polling();
    shore.pass(secs(30));
    let answer = shore.exchange(&poll(&told));
    assert_eq!(
        (answer.status, &answer.body["error"], &answer.body["error_code"]),
        (409, &json!("conflict"), &json!("missing_lease"))
    );
    assert_eq!(code(&shore.ask_queue("web-1")), "missing_lease");
    let answer = shore.exchange(&post(&format!("/sessions/{}/lease", told.session), &told.token, "{}"));
    let expires = shore.world.now.wall.unix_millis() + 30_000;
    assert_eq!(
        (answer.status, answer.body),
        (200, json!({"lease_expires_at_ms": expires, "lease_ttl_ms": 30_000}))
    );
    shore.queue("web-1");
    // Without a body, too.
    let bare = post(&format!("/sessions/{}/lease", told.session), &told.token, "")
        .replace("Content-Length: 0\r\n", "");
    assert_eq!(shore.exchange(&bare).status, 200);
}

#[test]
fn a_guest_that_polled_lately_takes_actions_and_later_it_is_offline() {
    let (mut shore, told) = polling();
    assert_eq!(code(&shore.ask_queue("web-1")), "guest_offline", "attaching is not polling");
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    shore.world.close(conn);
    shore.queue("web-1");
    shore.pass(secs(20));
    shore.exchange_lease(&told);
    shore.pass(secs(10));
    shore.queue("web-1");
    shore.pass(ms(1));
    assert_eq!(code(&shore.ask_queue("web-1")), "guest_offline");
    assert_eq!(shore.queued().len(), 2, "what is queued stays");
    assert_eq!(shore.rows()[0]["last_poll_age_ms"], 30_001);
}

#[test]
fn polls_end_when_the_link_takes_over() {
    let (mut shore, told) = polling();
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    shore.join("web-1");
    assert!(shore.answers(conn).is_empty());
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    assert_eq!(shore.answers(conn)[0].body, json!([]));
    let id = shore.queue("web-1");
    assert_eq!(shore.exchange(&poll(&told)).body, json!([]));
    assert_eq!(shore.actions("web-1"), [&*id]);
    // The link is lost: the same action is polled.
    shore.leave("web-1");
    assert_eq!(shore.exchange(&poll(&told)).body[0]["id"], id);
}

#[test]
fn a_poll_brings_no_more_than_it_may_from_the_oldest_on() {
    let (mut shore, told) = polling();
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    let big = "x".repeat(15_000);
    for _ in 0..5 {
        let params = json!({"guest": "web-1", "action_type": "terminal_write", "payload": {"bytes": big}, "wait": false});
        assert_eq!(code(&shore.ask("action_send", params)), "action");
    }
    shore.answers(conn);
    let queued = shore.queued();
    let answer = shore.exchange(&poll(&told));
    let ids: Vec<_> = answer.body.as_array().unwrap().iter().map(|action| action["id"].clone()).collect();
    assert_eq!(ids, queued[..3]);
    assert!(answer.body.to_string().len() <= 48 * 1024);
}

#[test]
fn released_or_told_anew_the_old_session_and_token_are_good_for_nothing() {
    let (mut shore, told) = polling();
    let conn = shore.connect();
    shore.write(conn, poll(&told).as_bytes());
    shore.join("web-1");
    shore.pass(ms(500));
    let fresh = shore.told("web-1");
    assert_eq!(shore.answers(conn)[0].status, 401, "its token is another now");
    assert_eq!(shore.exchange(&poll(&told)).status, 401);
    let answer = shore.exchange(&poll(&fresh));
    assert_eq!(
        (answer.status, &answer.body["error_code"]),
        (404, &json!("not_attached")),
        "never before it is attached"
    );
    shore.post_attach(&fresh);
    shore.write(conn, poll(&fresh).as_bytes());
    shore.ask("release", json!({"guest": "web-1"}));
    assert_eq!(shore.answers(conn)[0].status, 404);
    assert_eq!(shore.exchange(&poll(&fresh)).status, 404);
    assert_eq!(shore.post_attach(&fresh).status, 404);
}

#[test]
fn without_a_listener_nobody_is_served() {
    let mut shore = Shore::new();
    let conn = shore.connect();
    assert!(shore.world.is_closed(conn));
}
