//! What local clients are told of attaching, and how they wait for it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::adoption::*;
use crate::support::*;
use castra_core::Input;
use castra_core::attach::HttpAnswer;
use castra_core::id::EffectId;
use serde_json::{Value, json};

const WAIT: &str = r#"{"id":1,"method":"attachments","params":{"wait":true,"timeout_ms":2000}}"#;
const SHOW: &str = r#"{"id":2,"method":"attachments"}"#;

fn trying() -> (Scene, EffectId) {
    let mut scene = Scene::up(trusting());
    scene.say(&handshake("hand-1", "sess-1", URL));
    let (effect, _) = scene.heard().request(ATTACH);
    (scene, effect)
}

fn attach(scene: &mut Scene, effect: EffectId) {
    let answer = HttpAnswer { status: 200, retry_after: None, body: ATTACHED.as_bytes() };
    scene.world.give(Input::Answered { effect, answer });
}

fn event(reply: Option<Value>) -> String {
    reply.expect("an answer")["event"].as_str().unwrap().to_owned()
}

#[test]
fn who_waits_is_answered_when_the_agent_is_attached() {
    let (mut scene, effect) = trying();
    let client = scene.world.client();
    assert_eq!(scene.ask(client, WAIT), None);
    attach(&mut scene, effect);
    let reply = scene.reply(client).unwrap();
    let row = &reply["data"]["attachments"][0];
    assert_eq!(
        (&reply["id"], &row["session_id"], &row["stage"]),
        (&json!(1), &json!("sess-1"), &json!("attached"))
    );
    scene.world.live(seconds(5));
    assert_eq!(scene.reply(client), None, "one answer");
}

#[test]
fn an_attach_between_the_question_and_the_wait_or_at_its_deadline_is_not_missed() {
    // Before the question, within the same moment.
    let (mut scene, effect) = trying();
    let client = scene.world.client();
    attach(&mut scene, effect);
    assert_eq!(event(scene.ask(client, WAIT)), "attachments");
    // At the deadline itself, whichever input comes then.
    let (mut scene, effect) = trying();
    let client = scene.world.client();
    assert_eq!(scene.ask(client, WAIT), None);
    scene.world.now = scene.world.now + seconds(2);
    attach(&mut scene, effect);
    assert_eq!(event(scene.reply(client)), "attachments");
    // A moment later it is too late, and the state is told.
    let (mut scene, effect) = trying();
    let client = scene.world.client();
    assert_eq!(scene.ask(client, WAIT), None);
    scene.answer(effect, 401, "");
    scene.world.live(seconds(2));
    let reply = scene.reply(client).unwrap();
    assert_eq!((&reply["event"], &reply["data"]["code"]), (&json!("error"), &json!("timeout")));
    let message = reply["data"]["message"].as_str().unwrap();
    assert!(message.contains("http_401") && message.contains("1 attempts"), "{message}");
}

#[test]
fn who_waits_does_not_mind_a_lost_link_and_is_told_of_a_drain() {
    let mut scene = Scene::up(trusting());
    let client = scene.world.client();
    assert_eq!(scene.ask(client, WAIT), None);
    scene.lose();
    assert_eq!(scene.reply(client), None);
    scene.connect();
    scene.say(&handshake("hand-1", "sess-1", URL));
    let (effect, _) = scene.heard().request(ATTACH);
    attach(&mut scene, effect);
    assert_eq!(event(scene.reply(client)), "attachments");
    let mut scene = Scene::up(trusting());
    let client = scene.world.client();
    assert_eq!(scene.ask(client, WAIT), None);
    scene.world.give(Input::Drain { deadline: scene.world.now + seconds(1) });
    assert_eq!(scene.reply(client).unwrap()["data"]["code"], "shutting_down");
}

#[test]
fn the_row_says_how_it_goes() {
    let mut scene = Scene::up(trusting());
    let client = scene.world.client();
    assert_eq!(scene.ask(client, SHOW).unwrap()["data"], json!({"attachments": []}));
    scene.say(&handshake("hand-1", "sess-1", URL));
    let (effect, _) = scene.heard().request(ATTACH);
    scene.answer(effect, 500, "");
    scene.heard();
    let row = scene.ask(client, SHOW).unwrap()["data"]["attachments"][0].clone();
    let expected = json!({
        "guest": "devbox", "session_id": "sess-1", "private_beach_id": "beach-1", "manager_url": URL,
        "handshake_id": "hand-1", "stage": "pending", "route": null, "code_expires_in_ms": 600_000,
        "lease_expires_in_ms": null, "last_poll_age_ms": null, "queued": 0, "attempt": 1,
        "failure_count": 1, "last_attempt_age_ms": 0, "next_retry_ms": 312,
        "last_error": {"code": "http_500", "message": "the manager answered 500: it has trouble of its own"},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&row[key], value, "{key}");
    }
    scene.world.live(millis(400));
    let (effect, _) = scene.heard().request(ATTACH);
    attach(&mut scene, effect);
    scene.heard();
    let row = scene.ask(client, SHOW).unwrap()["data"]["attachments"][0].clone();
    assert_eq!(
        (&row["stage"], &row["route"], &row["attempt"]),
        (&json!("attached"), &json!("link"), &json!(2))
    );
    assert_eq!((&row["lease_expires_in_ms"], &row["last_error"]), (&json!(30_000), &json!(null)));
    scene.lose();
    scene.world.live(millis(40));
    scene.heard();
    let row = scene.ask(client, SHOW).unwrap()["data"]["attachments"][0].clone();
    assert_eq!((&row["route"], &row["last_poll_age_ms"]), (&json!("http"), &json!(40)));
}

#[test]
fn what_only_a_broker_can_do_is_refused() {
    let mut scene = Scene::attached(trusting());
    let client = scene.world.client();
    for request in [
        r#"{"method":"adopt","params":{"guest":"devbox"}}"#,
        r#"{"method":"release","params":{"guest":"devbox"}}"#,
        r#"{"method":"action_list"}"#,
        r#"{"method":"action_send","params":{"guest":"devbox","action_type":"terminal_write","payload":{}}}"#,
    ] {
        assert_eq!(scene.ask(client, request).unwrap()["data"]["code"], "forbidden", "{request}");
    }
}

#[test]
fn a_drain_leaves_nothing_asked_and_nothing_armed() {
    let (mut scene, effect) = trying();
    scene.world.give(Input::Drain { deadline: scene.world.now + seconds(3) });
    let log = scene.world.take();
    assert!(log.contains(&Out::Cancel(effect)) && log.contains(&Out::Stopped), "{log:?}");
    assert_eq!(scene.world.wait, None);
    let (mut scene, poll) = Scene::polling(trusting());
    scene.world.give(Input::Drain { deadline: scene.world.now + seconds(3) });
    let log = scene.world.take();
    assert!(log.contains(&Out::Cancel(poll)) && log.contains(&Out::Stopped), "{log:?}");
    assert_eq!(scene.world.wait, None);
    scene.answer(poll, 200, "[]");
    assert!(scene.heard().http.is_empty());
}

#[test]
fn a_reload_leaves_an_attachment_alone() {
    let (mut scene, poll) = Scene::polling(trusting());
    scene.world.give(Input::Reload(Box::new(trusting())));
    let heard = scene.heard();
    assert!(heard.http.is_empty() && heard.cancelled.is_empty() && heard.facts.is_empty());
    scene.answer(poll, 200, "[]");
    scene.world.live(millis(250));
    scene.heard().request(POLL);
}
