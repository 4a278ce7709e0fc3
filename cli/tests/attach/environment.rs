//! Where no handshake comes, an agent does what its environment says; the manager is somebody else's.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::json;

use crate::leaks::assert_none;
use crate::stand_in::{Answer, StandIn};
use crate::support::{PATIENCE, Process, World, until};
use crate::worlds::{agent, end_terminals};

const CODE: &str = "passcode-that-nobody-may-see";
const TOKEN: &str = "bearer-that-nobody-may-see";

/// Nobody listens there: a broker is not needed.
const NOBODY: &str = "tcp:127.0.0.1:1";

/// The four variables.
pub(crate) fn hint(url: &str) -> impl Fn(&mut Command) {
    let url = url.to_owned();
    move |command| {
        command.env("PRIVATE_BEACH_MANAGER_URL", &url).env("PRIVATE_BEACH_ID", "beach-1");
        command.env("PRIVATE_BEACH_SESSION_PASSCODE", CODE).env("PRIVATE_BEACH_MANAGER_TOKEN", TOKEN);
    }
}

/// An agent with nothing but its environment.
pub(crate) fn start(world: &World, url: &str) -> Process {
    agent(world, NOBODY, &[], hint(url))
}

/// Nothing that it said or left shows the code or the bearer.
pub(crate) fn assert_silent(world: &World, agent: &Process) {
    let secrets: BTreeSet<String> = [CODE, TOKEN].map(str::to_owned).into();
    assert_none(world, &(agent.out.text() + &agent.err.text()), &secrets);
}

#[test]
fn a_whole_environment_attaches_and_types_what_the_manager_queues() {
    let world = World::new();
    let manager = StandIn::new(&[Answer::Ok]);
    // Acknowledged late, it comes with every poll until then.
    manager.queue("a-1", json!({"bytes": "first\n"}));
    manager.queue("a-2", json!({"bytes": [115, 101, 99, 111, 110, 100, 10], "terminal": "main"}));
    manager.queue("a-3", json!({"bytes": "lost\n", "terminal": "nowhere"}));
    let agent = start(&world, &manager.url());
    agent.err.after(0, "auto-attached via environment", PATIENCE);
    let acks = manager.acked(|acks| acks.len() >= 3);
    let ack = |id: &str| acks.iter().find(|ack| ack["id"] == id).unwrap();
    assert_eq!((&ack("a-1")["status"], &ack("a-2")["status"]), (&json!("ok"), &json!("ok")));
    assert_eq!(
        (&ack("a-3")["status"], &ack("a-3")["error_code"]),
        (&json!("rejected"), &json!("no_terminal"))
    );
    // The same again, as from a manager that lost the ack: it is said again, and not done again.
    manager.queue("a-1", json!({"bytes": "first\n"}));
    let again = manager.acked(|acks| acks.iter().filter(|ack| ack["id"] == "a-1").count() >= 2);
    assert!(again.iter().filter(|ack| ack["id"] == "a-1").all(|ack| ack["status"] == "ok"), "{again:?}");
    let typed = || std::fs::read_to_string(world.path("typed")).unwrap_or_default();
    assert!(until(PATIENCE, || typed() == "first\nsecond\n"), "{:?}", typed());

    let attach = manager.requests("/attach-by-code");
    assert_eq!(attach.len(), 1, "{attach:?}");
    assert_eq!(attach[0].line, "POST /private-beaches/beach-1/sessions/attach-by-code HTTP/1.1");
    assert_eq!(attach[0].headers["authorization"], format!("Bearer {TOKEN}"));
    assert!(!attach[0].headers.contains_key("x-beach-handshake-id"), "{attach:?}");
    let body: serde_json::Value = serde_json::from_str(&attach[0].body).unwrap();
    let session = body["session_id"].as_str().unwrap();
    assert_eq!(body, json!({"session_id": session, "code": CODE}));
    let polls = manager.requests("/actions/poll");
    assert_eq!(polls[0].line, format!("GET /sessions/{session}/actions/poll HTTP/1.1"));
    for request in polls.iter().chain(&manager.requests("/actions/ack")) {
        assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
    }
    assert!(polls[0].at >= attach[0].at, "polled before it was attached");
    // No program on a terminal, and nothing else that outlives the agent, has them.
    assert!(world.processes().iter().any(|(_, line)| line.starts_with("cat")), "no program runs");
    assert_silent(&world, &agent);
    agent.kill();
    end_terminals(&world);
}

#[test]
fn an_incomplete_environment_is_one_warning_and_no_request() {
    let world = World::new();
    let manager = StandIn::new(&[Answer::Ok]);
    let agent = agent(&world, NOBODY, &[], |command| {
        hint(&manager.url())(command);
        command.env_remove("PRIVATE_BEACH_MANAGER_TOKEN");
    });
    let line = agent.err.after(0, "PRIVATE_BEACH_MANAGER_TOKEN is not set", PATIENCE);
    assert!(line.contains("WARN"), "{line}");
    // It is up and dials: an attempt would have been made before.
    agent.err.after(0, "retry", PATIENCE);
    assert_eq!(agent.err.text().matches("PRIVATE_BEACH").count(), 1, "{}", agent.err.text());
    assert_eq!(manager.count(), 0);
    agent.kill();
    end_terminals(&world);
}
