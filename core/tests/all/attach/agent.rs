//! An agent and a manager's handshake: what is followed, what is refused, and with what
//! credentials whom it asks.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::adoption::*;
use crate::support::*;
use castra_core::Input;
use castra_core::attach::wire::AttachErrorCode;
use castra_core::attach::{AttachSettings, Hint};
use castra_core::boundary::EffectErrorKind;
use castra_core::config::AgentConfig;
use castra_core::event::{AttachFact, AttachSource};
use serde_json::json;

fn hint() -> AttachSettings {
    let manager: castra_core::attach::ManagerUrl = "http://manager.example".parse().unwrap();
    let hint = Hint {
        manager: manager.clone(),
        beach: id("beach-9"),
        code: "PASSCODE-9".parse().unwrap(),
        token: "HINT-TOKEN".parse().unwrap(),
    };
    AttachSettings { managers: vec![manager], hint: Some(hint), ..AttachSettings::default() }
}

/// What became of a handshake that is not followed.
fn refused(config: AgentConfig, json: &str) -> AttachErrorCode {
    let mut scene = Scene::up(config);
    scene.say(json);
    let heard = scene.heard();
    assert_eq!((heard.http.len(), heard.types()), (0, vec!["attach_state"]), "{heard:?}");
    let state = &heard.said[0];
    assert_eq!((&state["attached"], &state["next_retry_ms"]), (&json!(false), &json!(null)));
    let [AttachFact::Received { .. }, AttachFact::Refused { reason, .. }] = heard.facts[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(state["last_error"]["code"], reason.as_str());
    scene.world.live(seconds(30));
    assert!(scene.heard().http.is_empty());
    reason
}

#[test]
fn a_handshake_leads_to_exactly_one_request_as_it_is_specified() {
    let mut scene = Scene::up(trusting());
    scene.say(&handshake("hand-1", "sess-1", URL));
    let heard = scene.heard();
    assert_eq!(heard.kinds(), ["controller.handshake.received", "controller.handshake.attach.start"]);
    let (effect, asked) = heard.request(ATTACH);
    assert_eq!((asked.bearer.as_str(), asked.handshake.as_deref()), (TOKEN, Some("hand-1")));
    assert_eq!(asked.body, r#"{"session_id":"sess-1","code":"CODE-42"}"#);
    assert_eq!((asked.deadline, asked.answer_max), (scene.world.now + seconds(10), 65_536));
    scene.answer(effect, 200, ATTACHED);
    let heard = scene.heard();
    assert_eq!(
        heard.kinds(),
        ["controller.handshake.attach.success", "controller.actions.fast_path"],
        "{heard:?}"
    );
    assert_eq!(heard.said[1], json!({"type": "attached", "session_id": "sess-1"}));
    assert_eq!(heard.said[0]["attached"], true);
    // The same one again, and one that only refreshes: nothing.
    scene.say(&handshake("hand-1", "sess-1", URL));
    scene.say(&handshake("hand-2", "sess-1", URL).replace("renegotiate", "refresh"));
    let heard = scene.heard();
    assert!(heard.http.is_empty() && heard.said.is_empty(), "{heard:?}");
    assert_eq!(heard.kinds(), ["controller.handshake.received"; 2]);
    assert!(scene.shown.contains("auto-attached via handshake vm=devbox session=sess-1 attempt=1"));
}

#[test]
fn a_handshake_over_the_link_leads_to_frames_and_no_request() {
    let mut scene = Scene::up(trusting());
    scene.say(&handshake("hand-1", "sess-1", "link:"));
    let heard = scene.heard();
    let attach = json!({"type": "attach", "session_id": "sess-1", "code": CODE, "handshake_id": "hand-1"});
    assert!(heard.said.contains(&attach) && heard.http.is_empty(), "{heard:?}");
    scene.say(r#"{"type":"attached","session_id":"sess-1","ok":true,"attach_method":"code"}"#);
    let heard = scene.heard();
    assert_eq!(
        heard.kinds(),
        ["controller.handshake.attach.success", "controller.actions.fast_path"],
        "{heard:?}"
    );
    assert_eq!(heard.types(), ["attach_state"]);
    // No link, no way: nothing is polled.
    scene.lose();
    scene.world.live(millis(100));
    let heard = scene.heard();
    assert!(heard.http.is_empty(), "{heard:?}");
    assert_eq!(heard.facts, [AttachFact::FastPath { session: id("sess-1"), active: false }]);
}

#[test]
fn what_is_not_what_it_should_be_is_refused_and_nobody_is_asked() {
    use AttachErrorCode::{Expired, Malformed, Mismatch, NoBlock, NoToken, UnkeyedLink, UntrustedUrl};
    let good = handshake("hand-1", "sess-1", URL);
    let plain = || AgentConfig { trust_unkeyed_broker: false, ..trusting() };
    assert_eq!(refused(plain(), &good), UnkeyedLink);
    assert_eq!(refused(plain(), &good.replace("10.0.2.2", "127.0.0.1")), UnkeyedLink);
    assert_eq!(refused(plain(), r#"{"type":"manager_handshake","schema":"x"}"#), UnkeyedLink);
    for (from, to, reason) in [
        ("\"schema\":1", "\"schema\":2", Malformed),
        ("\"schema\":1", "\"schema\":\"1\"", Malformed),
        ("\"handshake_id\":\"hand-1\",", "", Malformed),
        ("hand-1", "hand 1", Malformed),
        ("\"session_id\":\"sess-1\",", "", Malformed),
        ("\"attach_code\":\"CODE-42\",", "", Malformed),
        ("CODE-42", "CODE 42", Malformed),
        ("\"private_beach_id\":\"beach-1\",\"attach_code\"", "\"attach_code\"", Malformed),
        ("http://10.0.2.2:7171\",\"issued", "http://user@10.0.2.2:7171\",\"issued", Malformed),
        ("http://10.0.2.2:7171\",\"issued", "http://2130706433\",\"issued", Malformed),
        ("http://10.0.2.2:7171\",\"controller_token", "http://0.0.0.0:7171\",\"controller_token", Mismatch),
        ("\"private_beach_id\":\"beach-1\",\"manager", "\"private_beach_id\":\"other\",\"manager", Mismatch),
        ("\"manager_url\":\"http://10.0.2.2:7171\",\"issued", "\"issued", UntrustedUrl),
        ("\"controller_token\":\"TOKEN-0123456789\",", "", NoToken),
        ("\"controller_auto_attach\"", "\"other\"", NoBlock),
        ("\"ttl_ms\":600000", "\"ttl_ms\":0", Expired),
        ("\"expires_at_ms\":0,\"ttl_ms\":600000", "\"expires_at_ms\":-60000", Expired),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good);
        assert_eq!(refused(trusting(), &changed), reason, "{changed}");
    }
}

#[test]
fn two_spellings_of_one_address_are_no_mismatch() {
    let mut scene = Scene::up(trusting());
    let spelled =
        handshake("hand-1", "sess-1", URL).replacen("http://10.0.2.2:7171", "HTTP://10.0.2.2:7171/", 1);
    scene.say(&spelled);
    scene.heard().request(ATTACH);
}

#[test]
fn without_a_block_there_is_one_warning_and_the_next_whole_handshake_works() {
    let mut scene = Scene::up(trusting());
    let blockless = handshake("hand-1", "sess-1", URL).replace("controller_auto_attach", "other");
    for _ in 0..3 {
        scene.say(&blockless);
    }
    let heard = scene.heard();
    let warnings = heard.facts.iter().filter(|fact| matches!(fact, AttachFact::Refused { .. })).count();
    assert_eq!((warnings, heard.http.len(), heard.facts.len()), (1, 0, 4), "{heard:?}");
    scene.say(&handshake("hand-2", "sess-1", URL));
    scene.heard().request(ATTACH);
    scene.say(&blockless);
    assert_eq!(scene.heard().kinds().last(), Some(&"controller.handshake.refused"));
}

#[test]
fn a_keyed_link_is_trust_enough_and_a_tampered_frame_is_none() {
    let mut world = World::new(keyed());
    let (conn, mut broker) = world.up_keyed();
    let good = broker.frame(&handshake("hand-1", "sess-1", URL));
    world.say(conn, good);
    assert!(world.take().iter().any(|out| matches!(out, Out::Http(_, asked) if asked.line == ATTACH)));
    let mut world = World::new(keyed());
    let (conn, mut broker) = world.up_keyed();
    let mut tampered = broker.frame(&handshake("hand-1", "sess-1", URL));
    let at = tampered.len() - 80;
    tampered[at] ^= 1;
    world.say(conn, tampered);
    let log = world.take();
    assert!(!log.iter().any(|out| matches!(out, Out::Http(..))), "{log:?}");
    assert!(log.iter().any(|out| matches!(out, Out::Close(..))));
}

#[test]
fn a_block_without_an_address_uses_the_configured_one_and_its_token_if_it_has_none() {
    let config = AgentConfig { attach: AttachSettings { hint: None, ..hint() }, ..trusting() };
    let mut scene = Scene::up(config);
    let silent = handshake("hand-1", "sess-1", URL).replace("\"manager_url\":\"http://10.0.2.2:7171\",", "");
    scene.say(&silent);
    let attach = "POST http://manager.example:80/private-beaches/beach-1/sessions/attach-by-code";
    assert_eq!(scene.heard().request(attach).1.bearer, TOKEN);
    let mut scene = Scene::up(AgentConfig { attach: hint(), ..trusting() });
    scene.say(&silent.replace("\"controller_token\":\"TOKEN-0123456789\",", ""));
    let heard = scene.heard();
    assert!(heard.http.is_empty(), "{heard:?}");
    scene.fail(heard.cancelled[0], EffectErrorKind::Cancelled);
    assert_eq!(scene.heard().request(attach).1.bearer, "HINT-TOKEN");
    let mut scene = Scene::up(AgentConfig { attach: hint(), ..trusting() });
    // A configured token is for the configured address alone.
    scene.say(&handshake("hand-1", "sess-1", URL).replace("\"controller_token\":\"TOKEN-0123456789\",", ""));
    let heard = scene.heard();
    assert!(heard.http.is_empty(), "{heard:?}");
    assert!(matches!(heard.facts[1], AttachFact::Refused { reason: AttachErrorCode::NoToken, .. }));
}

#[test]
fn without_a_handshake_the_environment_is_followed_and_an_accepted_handshake_replaces_it() {
    let mut scene = Scene::new(AgentConfig { attach: hint(), ..trusting() });
    let heard = scene.heard();
    assert_eq!(heard.kinds(), ["controller.handshake.attach.start"]);
    let AttachFact::Start { source: AttachSource::Environment, session, .. } = heard.facts[0].clone() else {
        panic!("{heard:?}")
    };
    let attach = "POST http://manager.example:80/private-beaches/beach-9/sessions/attach-by-code";
    let (effect, asked) = heard.request(attach);
    assert_eq!((asked.bearer.as_str(), &asked.handshake), ("HINT-TOKEN", &None));
    assert_eq!(asked.body, format!(r#"{{"session_id":"{session}","code":"PASSCODE-9"}}"#));
    scene.answer(effect, 200, r#"{"ok":true}"#);
    let heard = scene.heard();
    assert_eq!(heard.kinds(), ["controller.handshake.attach.success"]);
    let lines: Vec<_> = heard.http.iter().map(|(_, asked)| asked.line.clone()).collect();
    // How long its lease is, is not known yet: no poll before that.
    assert_eq!(lines, [format!("POST http://manager.example:80/sessions/{session}/lease")]);
    scene.answer(heard.http[0].0, 200, r#"{"lease_expires_at_ms":0,"lease_ttl_ms":30000}"#);
    let poll = format!("GET http://manager.example:80/sessions/{session}/actions/poll");
    assert_eq!(scene.heard().request(&poll).1.bearer, "HINT-TOKEN");
    // The broker is not its manager: no fast path, and a word of it is nothing.
    scene.connect();
    scene.say(&format!(r#"{{"type":"manager_detach","session_id":"{session}"}}"#));
    assert!(scene.heard().facts.is_empty());
    scene.say(&action("a1", "x", 1000));
    assert_eq!(scene.heard().said, [ack("a1", "rejected", Some("not_attached"))]);
    scene.say(&handshake("hand-1", "sess-1", URL));
    let heard = scene.heard();
    assert_eq!(heard.cancelled.len(), 1, "its poll");
    assert!(heard.facts.contains(&AttachFact::Detached { session, code: "replaced".into() }));
    assert_eq!(heard.request(ATTACH).1.bearer, TOKEN);
}

#[test]
fn a_broker_that_is_not_trusted_any_more_says_nothing_of_an_attachment() {
    let mut scene = Scene::attached(trusting());
    let doubting = AgentConfig { trust_unkeyed_broker: false, ..trusting() };
    scene.world.give(Input::Reload(Box::new(doubting)));
    scene.lose();
    scene.connect();
    let heard = scene.heard();
    assert!(
        heard.said.is_empty() && !heard.cancelled.iter().any(|effect| polls(&heard, *effect)),
        "{heard:?}"
    );
    scene.say(r#"{"type":"manager_detach","session_id":"sess-1"}"#);
    scene.say(r#"{"type":"lease","session_id":"sess-1","lease_ttl_ms":1}"#);
    scene.say(r#"{"type":"attach_refused","code":"released","message":""}"#);
    scene.world.live(seconds(2));
    let heard = scene.heard();
    assert!(heard.facts.is_empty() && heard.http.is_empty(), "{heard:?}");
}

fn polls(heard: &Heard, effect: castra_core::id::EffectId) -> bool {
    heard.http.iter().any(|(other, asked)| *other == effect && asked.line == POLL)
}

#[test]
fn an_agent_that_proves_itself_once_never_attaches() {
    let mut scene = Scene::new(AgentConfig { attach: hint(), once: true, ..trusting() });
    let heard = scene.heard();
    assert!(heard.http.is_empty() && heard.facts.is_empty(), "{heard:?}");
}

#[test]
fn a_detach_ends_it_with_that_reason_and_one_of_another_session_is_nothing() {
    let mut scene = Scene::attached(trusting());
    scene.say(r#"{"type":"manager_detach","session_id":"other"}"#);
    assert!(scene.heard().facts.is_empty());
    scene.say(r#"{"type":"manager_detach","session_id":"sess-1"}"#);
    let heard = scene.heard();
    assert_eq!(heard.kinds(), ["controller.detached", "controller.actions.fast_path"]);
    assert_eq!(heard.said[0]["last_error"]["code"], "released");
    scene.say(&action("a1", "x", 1000));
    assert_eq!(scene.heard().said, [ack("a1", "rejected", Some("not_attached"))]);
    scene.lose();
    scene.world.live(seconds(1));
    assert!(scene.heard().http.is_empty());
}
