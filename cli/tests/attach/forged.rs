//! A handshake that nobody vouches for makes an agent do nothing; the broker is played by bytes.

use std::process::Command;

use serde_json::{Value, json};

use crate::environment::hint;
use crate::keyed_broker::KeyedBroker;
use crate::stand_in::{Answer, StandIn, Trap};
use crate::support::{Link, PATIENCE, Process, RawBroker, World};
use crate::worlds::{agent, end_terminals};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const WRONG: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The specification's example.
fn handshake(url: Option<&str>) -> Value {
    json!({"type": "manager_handshake", "schema": 1, "handshake_id": "h-1", "handshake_kind": "renegotiate",
        "session_id": "6f1c0d3e-0000-4000-8000-000000000001", "private_beach_id": "beach-1", "manager_url": url,
        "controller_token": "token-of-the-handshake", "lease_expires_at_ms": 0, "lease_ttl_ms": 30000,
        "controller_auto_attach": {"private_beach_id": "beach-1", "attach_code": "CODE-42", "manager_url": url,
            "issued_at_ms": 0, "expires_at_ms": 0, "ttl_ms": 600_000},
        "stale_session_idle_secs": 60, "viewer_health_interval_secs": 15})
}

struct Scene {
    world: World,
    trap: Trap,
}

impl Scene {
    fn new() -> Self {
        Self { world: World::new(), trap: Trap::new() }
    }

    fn keyed(&self, address: &str, args: &[&str], change: impl FnOnce(&mut Command)) -> Process {
        let token = self.world.secret("token", KEY);
        agent(&self.world, address, &[&["--token-file", &token], args].concat(), change)
    }

    /// No request, and no connection, was made.
    fn ends(self, agent: Process) {
        assert!(self.trap.is_untouched(), "somebody came: {:?}", agent.err.text());
        let text = agent.err.text();
        for secret in ["CODE-42", "token-of-the-handshake", KEY] {
            assert!(!text.contains(secret), "{text}");
        }
        agent.kill();
        end_terminals(&self.world);
    }
}

/// The next frame of a type of an unkeyed link.
fn unkeyed(link: &mut Link, kind: &str) -> Value {
    loop {
        let frame = link.frame().unwrap_or_else(|| panic!("the guest hung up before its {kind}"));
        if frame["type"] == kind {
            return frame;
        }
    }
}

#[test]
fn a_handshake_with_the_key_is_followed_so_that_the_trap_can_catch() {
    let scene = Scene::new();
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &[], |_| {});
    let mut session = broker.session(KEY);
    session.send(&handshake(Some(&scene.trap.url())));
    let caught = scene.trap.caught();
    assert_eq!(caught.line, "POST /private-beaches/beach-1/sessions/attach-by-code HTTP/1.1");
    assert_eq!(caught.headers["authorization"], "Bearer token-of-the-handshake");
    assert_eq!(caught.headers["x-beach-handshake-id"], "h-1");
    let body: Value = serde_json::from_str(&caught.body).unwrap();
    assert_eq!(body, json!({"session_id": "6f1c0d3e-0000-4000-8000-000000000001", "code": "CODE-42"}));
    agent.kill();
    end_terminals(&scene.world);
}

#[test]
fn an_unkeyed_link_brings_no_request_and_no_action() {
    let scene = Scene::new();
    let mut broker = RawBroker::new();
    let agent = agent(&scene.world, &broker.address(), &[], |_| {});
    let (hello, mut link) = broker.session();
    assert!(hello.contains("attach-v1"), "{hello}");
    link.send_frame(&handshake(Some(&scene.trap.url())).to_string());
    let state = unkeyed(&mut link, "attach_state");
    assert_eq!(
        (&state["attached"], &state["last_error"]["code"]),
        (&json!(false), &json!("unkeyed_link")),
        "{state}"
    );
    let action = json!({"type": "action", "id": "a-1", "action_type": "terminal_write",
        "payload": {"bytes": "forged\n"}, "ttl_ms": 60_000});
    link.send_frame(&action.to_string());
    let ack = unkeyed(&mut link, "action_ack");
    assert_eq!((&ack["status"], &ack["error_code"]), (&json!("rejected"), &json!("unkeyed_link")), "{ack}");
    assert!(
        !scene.world.path("typed").exists() || std::fs::read(scene.world.path("typed")).unwrap().is_empty()
    );
    agent.err.after(0, "manager handshake refused", PATIENCE);
    scene.ends(agent);
}

#[test]
fn a_broker_with_the_wrong_key_gets_no_session_and_no_request() {
    let scene = Scene::new();
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &[], |_| {});
    let mut session = broker.session(WRONG);
    session.send(&handshake(Some(&scene.trap.url())));
    assert!(session.frame().is_none(), "it goes on");
    scene.ends(agent);
}

#[test]
fn a_frame_that_was_changed_on_the_way_ends_the_session_without_a_request() {
    let scene = Scene::new();
    let elsewhere = "http://127.0.0.1:1";
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &[], |_| {});
    let mut session = broker.session(KEY);
    session.send_tampered(&handshake(Some(elsewhere)), elsewhere, &scene.trap.url());
    while session.frame().is_some() {}
    assert!(!agent.err.text().contains("handshake received"), "{}", agent.err.text());
    scene.ends(agent);
}

#[test]
fn a_url_that_is_none_or_that_nobody_named_brings_no_request() {
    let scene = Scene::new();
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &[], |_| {});
    let mut session = broker.session(KEY);
    let trap = scene.trap.url();
    let port = trap.rsplit_once(':').unwrap().1.to_owned();
    let mut differs = handshake(Some(&trap));
    differs["manager_url"] = json!("http://127.0.0.1:1");
    let mut beach = handshake(Some(&trap));
    beach["private_beach_id"] = json!("beach-2");
    let cases = [
        (handshake(None), "untrusted_url"),
        (handshake(Some(&format!("http://user:pass@127.0.0.1:{port}"))), "malformed"),
        (handshake(Some(&format!("http://2130706433:{port}"))), "malformed"),
        (handshake(Some(&format!("{trap}/path"))), "malformed"),
        (handshake(Some(&format!("ftp://127.0.0.1:{port}"))), "malformed"),
        (differs, "mismatch"),
        (beach, "mismatch"),
    ];
    for (index, (mut frame, code)) in cases.into_iter().enumerate() {
        frame["handshake_id"] = json!(format!("h-{index}"));
        session.send(&frame);
        let state = session.await_frame("attach_state");
        assert_eq!(state["last_error"]["code"], code, "{frame}: {state}");
    }
    let mut late = handshake(Some(&trap));
    late["controller_auto_attach"]["ttl_ms"] = json!(0);
    session.send(&late);
    assert_eq!(session.await_frame("attach_state")["last_error"]["code"], "expired");
    scene.ends(agent);
}

#[test]
fn a_configured_credential_goes_to_no_url_of_a_handshake() {
    let scene = Scene::new();
    // The configured manager says no, once, and so nothing is under way.
    let manager = StandIn::new(&[Answer::Status(401, "", "")]);
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &[], hint(&manager.url()));
    let mut session = broker.session(KEY);
    manager.asked("/attach-by-code", 1);
    agent.err.after(0, "code=http_401", PATIENCE);
    let mut bare = handshake(Some(&scene.trap.url()));
    bare.as_object_mut().unwrap().remove("controller_token");
    session.send(&bare);
    let refused = loop {
        let state = session.await_frame("attach_state");
        if state["handshake_id"] == "h-1" {
            break state;
        }
    };
    assert_eq!(refused["last_error"]["code"], "no_token", "{refused}");
    assert_eq!(manager.count(), 1);
    scene.ends(agent);
}

#[test]
fn a_handshake_without_its_block_is_one_warning_and_the_next_one_works() {
    let scene = Scene::new();
    let manager = StandIn::new(&[Answer::Ok]);
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &[], |_| {});
    let mut session = broker.session(KEY);
    for id in ["h-1", "h-2", "h-3"] {
        let mut bare = handshake(Some(&scene.trap.url()));
        bare["handshake_id"] = json!(id);
        bare.as_object_mut().unwrap().remove("controller_auto_attach");
        session.send(&bare);
    }
    let mut whole = handshake(Some(&manager.url()));
    whole["handshake_id"] = json!("h-4");
    session.send(&whole);
    agent.err.after(0, "auto-attached via handshake", PATIENCE);
    assert_eq!(agent.err.text().matches("reason=no_block").count(), 1, "{}", agent.err.text());
    assert_eq!(manager.requests("/attach-by-code").len(), 1);
    scene.ends(agent);
}

#[test]
fn a_manager_that_the_operator_named_is_used_where_the_handshake_names_none() {
    let scene = Scene::new();
    let manager = StandIn::new(&[Answer::Ok]);
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &["--manager-url", &manager.url()], |_| {});
    let mut session = broker.session(KEY);
    session.send(&handshake(None));
    agent.err.after(0, "auto-attached via handshake", PATIENCE);
    let attach = manager.requests("/attach-by-code");
    assert_eq!(attach[0].headers["authorization"], "Bearer token-of-the-handshake");
    // Once more is nothing new.
    session.send(&handshake(None));
    session.send(&json!({"type": "ping", "id": 7}));
    session.await_frame("pong");
    assert_eq!(manager.requests("/attach-by-code").len(), 1);
    scene.ends(agent);
}

#[test]
fn a_newer_handshake_restarts_a_series_that_fails() {
    let scene = Scene::new();
    let (dead, manager) = (StandIn::new(&[Answer::Status(500, "", "")]), StandIn::new(&[Answer::Ok]));
    let mut broker = KeyedBroker::new();
    let agent = scene.keyed(&broker.address(), &[], |_| {});
    let mut session = broker.session(KEY);
    session.send(&handshake(Some(&dead.url())));
    dead.asked("/attach-by-code", 2);
    let mut newer = handshake(Some(&manager.url()));
    newer["handshake_id"] = json!("h-2");
    session.send(&newer);
    let success = agent.err.after(0, "auto-attached via handshake", PATIENCE);
    assert!(success.ends_with("attempt=1"), "{success}");
    let attach = manager.requests("/attach-by-code");
    assert_eq!((attach.len(), attach[0].headers["x-beach-handshake-id"].as_str()), (1, "h-2"));
    assert!(dead.count() < 5, "the older series went on");
    scene.ends(agent);
}
