//! Polls, acks and leases over HTTP, and what moves an agent from the link to there and
//! back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::adoption::*;
use crate::support::*;
use castra_core::boundary::EffectErrorKind;
use castra_core::event::AttachFact;
use castra_core::id::EffectId;
use serde_json::json;

const GRANTED: &str = r#"{"lease_expires_at_ms":0,"lease_ttl_ms":30000}"#;

fn lines(heard: &Heard) -> Vec<&str> {
    heard.http.iter().map(|(_, asked)| asked.line.as_str()).collect()
}

fn polled(ids: &[&str]) -> String {
    let actions = ids.iter().map(
        |id| json!({"id": id, "action_type": "terminal_write", "payload": {"bytes": id}, "ttl_ms": 60_000}),
    );
    serde_json::to_string(&actions.collect::<Vec<_>>()).unwrap()
}

#[test]
fn nothing_is_polled_before_the_agent_is_attached_and_nothing_after_it_is_told_404() {
    let mut scene = Scene::up(trusting());
    scene.say(&handshake("hand-1", "sess-1", URL));
    scene.lose();
    let (mut effect, _) = scene.heard().request(ATTACH);
    for _ in 0..4 {
        scene.answer(effect, 500, "");
        scene.world.live(seconds(6));
        (effect, _) = scene.heard().request(ATTACH);
    }
    scene.answer(effect, 200, ATTACHED);
    let (poll, asked) = scene.heard().request(POLL);
    assert_eq!((asked.bearer.as_str(), asked.handshake, asked.body.as_str()), (TOKEN, None, ""));
    assert_eq!(asked.deadline, scene.world.now + seconds(30));
    scene.answer(poll, 404, "");
    let heard = scene.heard();
    assert_eq!(heard.facts, [AttachFact::Detached { session: id("sess-1"), code: "http_404".into() }]);
    scene.world.live(seconds(100));
    assert!(scene.heard().http.is_empty());
}

#[test]
fn a_manager_that_knows_the_token_no_more_ends_it() {
    for status in [401, 403, 404] {
        let (mut scene, poll) = Scene::polling(trusting());
        scene.answer(poll, status, "");
        let code = format!("http_{status}");
        assert_eq!(scene.heard().facts, [AttachFact::Detached { session: id("sess-1"), code }]);
    }
}

#[test]
fn polled_actions_are_applied_then_acknowledged_then_the_next_poll_begins() {
    let (mut scene, poll) = Scene::polling(trusting());
    scene.answer(poll, 200, &polled(&["a1", "a2"]));
    let (typed, _) = {
        let mut typed = vec![];
        let mut requests = vec![];
        loop {
            let heard = scene.heard();
            requests.extend(heard.http);
            if heard.writes.is_empty() && heard.typed.is_empty() {
                break;
            }
            heard.writes.iter().for_each(|(effect, _)| scene.done(*effect));
            for (effect, _, bytes) in heard.typed {
                typed.push(String::from_utf8(bytes).unwrap());
                scene.done(effect);
            }
        }
        (typed, requests)
    };
    assert_eq!(typed, ["a1", "a2"]);
    assert!(scene.shown.contains("controller.actions.poll.apply"));
}

/// Polls and acknowledges, all that goes over HTTP in its order.
fn oblige(scene: &mut Scene) -> (Vec<String>, Vec<(EffectId, Asked)>) {
    let (mut typed, mut requests) = (vec![], vec![]);
    loop {
        let heard = scene.heard();
        requests.extend(heard.http);
        if heard.writes.is_empty() && heard.typed.is_empty() {
            return (typed, requests);
        }
        heard.writes.iter().for_each(|(effect, _)| scene.done(*effect));
        for (effect, _, bytes) in heard.typed {
            typed.push(String::from_utf8(bytes).unwrap());
            scene.done(effect);
        }
    }
}

#[test]
fn an_ack_is_as_specified_and_confirms_what_it_holds() {
    let (mut scene, poll) = Scene::polling(trusting());
    let bad = r#"[{"id":"a1","action_type":"terminal_write","payload":{"bytes":"ls"}},
        {"id":"a2","action_type":"dance","payload":{}},{"id":"no id"},7,
        {"id":"a3","action_type":"terminal_write","payload":{"bytes":"x"},"expires_at":"1970-01-01T00:00:00Z","ttl_ms":0}]"#;
    scene.answer(poll, 200, bad);
    let (typed, requests) = oblige(&mut scene);
    assert_eq!(typed, ["ls"]);
    let mut acks: Vec<serde_json::Value> = vec![];
    let mut open = requests;
    while let Some((effect, asked)) = open.pop() {
        assert!(open.is_empty(), "one at a time");
        if asked.line == POLL {
            break;
        }
        assert_eq!((asked.line.as_str(), asked.bearer.as_str()), (ACK, TOKEN));
        acks.extend(serde_json::from_str::<Vec<serde_json::Value>>(&asked.body).unwrap());
        scene.answer(effect, 200, r#"{"acknowledged":true}"#);
        open = scene.heard().http;
    }
    acks.sort_by_key(|ack| ack["id"].to_string());
    assert_eq!(
        acks,
        [
            json!({"id": "a1", "status": "ok"}),
            json!({"id": "a2", "status": "rejected", "error_code": "unknown_type"}),
            json!({"id": "a3", "status": "expired"})
        ]
    );
    // Confirmed: the next link is told nothing of it.
    scene.connect();
    let heard = scene.heard();
    assert_eq!(heard.types()[..2], ["attached", "lease_renew"]);
    assert!(!heard.types().contains(&"action_ack"), "{heard:?}");
}

#[test]
fn an_ack_that_fails_is_posted_again_after_a_rest() {
    let (mut scene, poll) = Scene::polling(trusting());
    scene.answer(poll, 200, &polled(&["a1"]));
    let (_, requests) = oblige(&mut scene);
    assert_eq!(requests[0].1.line, ACK);
    scene.answer(requests[0].0, 503, "");
    assert!(scene.heard().http.is_empty());
    scene.world.live(millis(249));
    assert!(scene.heard().http.is_empty());
    scene.world.live(millis(1));
    let (effect, asked) = scene.heard().request(ACK);
    assert_eq!(asked.body, r#"[{"id":"a1","status":"ok"}]"#);
    scene.answer(effect, 200, "");
    scene.heard().request(POLL);
}

#[test]
fn a_link_cancels_the_polls_and_its_loss_brings_them_back() {
    let (mut scene, poll) = Scene::polling(trusting());
    scene.connect();
    let heard = scene.heard();
    assert_eq!(heard.cancelled, [poll]);
    assert_eq!(heard.types(), ["attached", "lease_renew"]);
    assert!(heard.facts.contains(&AttachFact::FastPath { session: id("sess-1"), active: true }));
    scene.world.live(seconds(8));
    assert!(scene.heard().http.is_empty());
    scene.lose();
    let heard = scene.heard();
    assert!(heard.facts.contains(&AttachFact::FastPath { session: id("sess-1"), active: false }));
    // The lease that was asked for over the link was not answered, either.
    assert_eq!(lines(&heard), [LEASE, POLL]);
    // What a cancelled poll brings after all is not taken: it comes again.
    scene.answer(poll, 200, &polled(&["a1"]));
    let heard = scene.heard();
    assert!(heard.writes.is_empty() && heard.typed.is_empty());
}

#[test]
fn an_answer_that_is_none_and_a_poll_that_fails_rest_longer_each_time() {
    let (mut scene, mut poll) = Scene::polling(trusting());
    let mut ends = scene.world.now;
    for (index, rest) in [250, 500, 1000, 2000, 4000, 5000, 5000].into_iter().enumerate() {
        match index % 4 {
            0 => scene.answer(poll, 500, ""),
            1 => scene.answer(poll, 200, "{}"),
            2 => scene.fail(poll, EffectErrorKind::Unreachable),
            _ => scene.answer(poll, 200, &format!("[{}]", " ".repeat(70_000))),
        }
        scene.world.live(seconds(5));
        let heard = scene.heard();
        let polls: Vec<_> = heard.http.iter().filter(|(_, asked)| asked.line == POLL).collect();
        assert_eq!(polls.len(), 1, "{heard:?}");
        assert_eq!(polls[0].1.at.since(ends), millis(rest), "after failure {index}");
        poll = polls[0].0;
        for (effect, asked) in &heard.http {
            if asked.line == LEASE {
                scene.answer(*effect, 200, GRANTED);
            }
        }
        ends = scene.world.now;
    }
    scene.answer_later(poll, 429, "", Some(seconds(20)));
    scene.world.live(seconds(19));
    assert!(!lines(&scene.heard()).contains(&POLL));
    scene.world.live(seconds(1));
    assert!(lines(&scene.heard()).contains(&POLL));
}

#[test]
fn a_manager_that_answers_nothing_at_once_is_not_polled_in_a_loop() {
    let (mut scene, mut poll) = Scene::polling(trusting());
    let start = scene.world.now;
    for _ in 0..8 {
        scene.answer(poll, 200, "[]");
        assert!(scene.heard().http.is_empty());
        scene.world.live(millis(250));
        (poll, _) = scene.heard().request(POLL);
    }
    assert_eq!(scene.world.now.since(start), seconds(2));
    // One that takes its time is asked again at once.
    scene.world.live(seconds(10));
    scene.answer(poll, 200, "[]");
    scene.heard().request(POLL);
}

#[test]
fn a_lease_is_renewed_at_three_quarters_over_http_beside_the_poll() {
    let (mut scene, _) = Scene::polling(trusting());
    let began = scene.world.now;
    scene.world.live(millis(22_500));
    let (effect, asked) = scene.heard().request(LEASE);
    assert_eq!((asked.at.since(began), asked.bearer.as_str()), (millis(22_500), TOKEN));
    scene.answer(effect, 200, r#"{"lease_expires_at_ms":0,"lease_ttl_ms":8000}"#);
    scene.world.live(millis(6_000));
    let (effect, asked) = scene.heard().request(LEASE);
    assert_eq!(asked.at.since(began), millis(28_500));
    // It fails, hangs, is nonsense: again.
    scene.answer(effect, 500, "");
    scene.world.live(millis(250));
    let (effect, _) = scene.heard().request(LEASE);
    scene.answer(effect, 200, "nonsense");
    scene.world.live(millis(500));
    let heard = scene.heard();
    assert!(lines(&heard).contains(&LEASE), "{heard:?}");
}

#[test]
fn a_lease_is_renewed_at_three_quarters_over_the_link_and_asked_for_again_without_an_answer() {
    let mut scene = Scene::attached(trusting());
    let renew = json!({"type": "lease_renew", "session_id": "sess-1"});
    for seq in 1..5 {
        scene.world.live(seconds(5));
        scene.say(&challenge_frame(seq));
    }
    assert!(!scene.heard().said.contains(&renew));
    scene.world.live(millis(2_500));
    assert_eq!(scene.heard().said, std::slice::from_ref(&renew));
    scene.say(&challenge_frame(5));
    scene.world.live(seconds(9));
    scene.say(&challenge_frame(6));
    assert_eq!(scene.heard().types(), ["proof"; 2]);
    scene.world.live(seconds(1));
    assert_eq!(scene.heard().said, std::slice::from_ref(&renew), "again");
    scene.say(r#"{"type":"lease","session_id":"sess-1","lease_ttl_ms":4000}"#);
    scene.world.live(millis(2_999));
    assert!(scene.heard().said.is_empty());
    scene.world.live(millis(1));
    assert_eq!(scene.heard().said, std::slice::from_ref(&renew));
    // However short it is said to be.
    scene.say(r#"{"type":"lease","session_id":"sess-1","lease_ttl_ms":0}"#);
    scene.world.live(millis(999));
    assert!(scene.heard().said.is_empty());
}

#[test]
fn a_missing_lease_is_renewed_at_once_and_then_polled_again() {
    let missing = r#"{"error":"conflict","message":"","error_code":"missing_lease"}"#;
    let (mut scene, poll) = Scene::polling(trusting());
    scene.answer(poll, 409, missing);
    let (lease, _) = scene.heard().request(LEASE);
    scene.answer(lease, 200, GRANTED);
    let (poll, _) = scene.heard().request(POLL);
    // A manager that goes on like that is not asked in a loop.
    scene.answer(poll, 409, missing);
    let (lease, _) = scene.heard().request(LEASE);
    scene.answer(lease, 200, GRANTED);
    assert!(scene.heard().http.is_empty());
    scene.world.live(millis(500));
    scene.heard().request(POLL);
}

#[test]
fn a_refresh_renews_the_lease_and_nothing_else() {
    let mut scene = Scene::attached(trusting());
    let refresh = handshake("hand-2", "sess-1", URL).replace("renegotiate", "refresh");
    scene.world.live(seconds(10));
    scene.say(&refresh.replace("\"lease_ttl_ms\":30000", "\"lease_ttl_ms\":4000"));
    assert!(scene.heard().http.is_empty());
    scene.world.live(seconds(3));
    assert_eq!(scene.heard().types(), ["lease_renew"]);
}

#[test]
fn a_poll_that_hangs_is_given_up_at_its_deadline() {
    let (mut scene, poll) = Scene::polling(trusting());
    scene.world.live(millis(22_500));
    let (lease, _) = scene.heard().request(LEASE);
    scene.answer(lease, 200, GRANTED);
    scene.world.live(millis(7_500));
    let heard = scene.heard();
    assert!(heard.cancelled.contains(&poll) && heard.http.is_empty(), "{heard:?}");
    scene.world.live(millis(250));
    scene.heard().request(POLL);
}

#[test]
fn a_link_that_flaps_applies_every_action_once_and_loses_none() {
    let (mut scene, mut poll) = Scene::polling(trusting());
    let (mut typed, mut requests) = (vec![], vec![]);
    let mut queue: Vec<String> = (0..60).map(|number| format!("a{number}")).collect();
    let expected = queue.clone();
    let mut round = 0;
    while !queue.is_empty() {
        round += 1;
        assert!(round < 2000, "{queue:?}");
        if round % 2 == 0 {
            scene.connect();
            for id in queue.iter().take(3) {
                scene.say(&action(id, id, 60_000));
            }
            let (types, said) = scene.oblige();
            typed.extend(types);
            for frame in said.iter().filter(|frame| frame["type"] == "action_ack") {
                // Every third confirmation is lost with the link.
                if round % 3 != 0 {
                    let id = frame["id"].as_str().unwrap().to_owned();
                    queue.retain(|other| *other != id);
                    scene.say(&format!(r#"{{"type":"action_settled","id":"{id}"}}"#));
                }
            }
            scene.lose();
        } else {
            let names: Vec<&str> = queue.iter().take(2).map(String::as_str).collect();
            scene.answer(poll, 200, &polled(&names));
        }
        let (types, asked) = oblige(&mut scene);
        typed.extend(types);
        requests.extend(asked);
        for _ in 0..4 {
            for (effect, asked) in std::mem::take(&mut requests) {
                if asked.line == ACK && round % 5 != 0 {
                    for ack in serde_json::from_str::<Vec<serde_json::Value>>(&asked.body).unwrap() {
                        queue.retain(|other| ack["id"] != **other);
                    }
                    scene.answer(effect, 200, "{}");
                } else if asked.line == ACK {
                    scene.answer(effect, 500, "");
                } else if asked.line == LEASE {
                    scene.answer(effect, 200, GRANTED);
                } else {
                    poll = effect;
                }
            }
            scene.world.live(millis(600));
            let (types, asked) = oblige(&mut scene);
            typed.extend(types);
            requests.extend(asked);
        }
        for (effect, asked) in std::mem::take(&mut requests) {
            if asked.line == POLL {
                poll = effect;
            }
        }
    }
    assert_eq!(typed.len(), expected.len());
    typed.sort();
    let mut expected = expected;
    expected.sort();
    assert_eq!(typed, expected);
}
