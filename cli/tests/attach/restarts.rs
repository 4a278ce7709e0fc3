//! KILL at every stage: the session stays, and each action is applied once or said not to be.

use serde_json::{Value, json};

use crate::support::{PATIENCE, until};
use crate::worlds::Site;

fn session(site: &Site) -> String {
    site.attachment()["session_id"].as_str().unwrap().to_owned()
}

/// Waits until actions travel over the link.
fn linked(site: &Site) -> Value {
    site.await_attachment("attached on its link", |row| row["stage"] == "attached" && row["route"] == "link")
}

/// KILL of the broker and of the agent, before the guest was ever there, while it is attached,
/// and while actions wait.
fn survives(mut site: Site, link: bool) {
    let adopt: &[&str] =
        if link { &["adopt", "web-1", "--no-wait", "--link"] } else { &["adopt", "web-1", "--no-wait"] };
    site.does(adopt);
    let name = session(&site);
    site.kill_broker();
    site.start_broker();
    assert_eq!(session(&site), name, "pending, and the broker was killed");
    let agent = site.agent(&[]);
    assert_eq!(linked(&site)["session_id"], json!(name));
    site.types("one");

    site.kill(agent);
    let agent = site.agent(&[]);
    assert_eq!(linked(&site)["session_id"], json!(name), "attached, and the agent was killed");
    site.types("two");

    let handshakes = agent.err.text().matches("manager handshake received").count();
    site.kill_broker();
    site.start_broker();
    assert_eq!(linked(&site)["session_id"], json!(name), "attached, and the broker was killed");
    site.types("three");
    assert_eq!(
        agent.err.text().matches("manager handshake received").count(),
        handshakes,
        "an agent that is attached still is told nothing new"
    );

    // It can't take them now, but is not known to be gone.
    agent.stop();
    for line in ["four", "five", "six"] {
        let payload = json!({"bytes": format!("{line}\n")}).to_string();
        site.does(&["action", "send", "web-1", "--payload", &payload, "--no-wait"]);
    }
    let listed =
        |site: &Site| -> Value { serde_json::from_str(&site.does(&["action", "list", "--json"])).unwrap() };
    assert_eq!(listed(&site)["total"], 3);
    site.kill_broker();
    site.kill(agent);
    site.start_broker();
    assert_eq!((listed(&site)["total"].as_u64(), session(&site)), (Some(3), name.clone()));
    let agent = site.agent(&[]);
    site.await_typed("one\ntwo\nthree\nfour\nfive\nsix\n");
    site.await_attachment("done with its actions", |row| row["queued"] == 0);
    assert_eq!(linked(&site)["session_id"], json!(name));

    site.does(&["release", "web-1"]);
    agent.err.after(0, "detached vm=web-1", PATIENCE);
    site.does(&["adopt", "web-1"]);
    assert_ne!(session(&site), name, "a release ends it");
    site.types("seven");
    site.note(&agent);
    site.assert_no_leaks();
    site.kill(agent);
}

#[test]
fn an_attachment_over_http_survives_every_kill_of_broker_and_agent() {
    survives(Site::with_manager(&["--guest", "web-1"]), false);
}

#[test]
fn an_attachment_over_the_link_survives_every_kill_of_broker_and_agent() {
    survives(Site::new(&["--guest", "web-1"]), true);
}

#[test]
fn an_agent_that_is_killed_while_it_types_types_nothing_twice() {
    let site = Site::with_manager(&[]);
    let mut agent = site.agent(&[]);
    site.reachable();
    site.does(&["adopt", "web-1"]);
    let mut expected = vec![];
    for round in 0..6 {
        linked(&site);
        let mark = agent.err.mark();
        for index in 0..20 {
            let line = format!("{round}-{index}");
            let mut control = site.world.control();
            let params = json!({"guest": "web-1", "action_type": "terminal_write",
                "payload": {"bytes": format!("{line}\n")}, "wait": false});
            control.ask("action_send", &params).unwrap().unwrap();
            expected.push(line);
        }
        // Somewhere in the middle of them.
        agent.err.after(mark, "action applied", PATIENCE);
        site.kill(agent);
        agent = site.agent(&[]);
    }
    linked(&site);
    site.await_attachment("done with its actions", |row| row["queued"] == 0);
    let settled = site.world.events("manager.action.settled", "web-1");
    assert_eq!(settled.len(), expected.len(), "each is settled once");
    let interrupted = settled.iter().filter(|event| event["status"] != "ok").count();
    for event in settled.iter().filter(|event| event["status"] != "ok") {
        assert_eq!(
            (&event["status"], &event["code"]),
            (&json!("rejected"), &json!("interrupted")),
            "{event}"
        );
    }
    // Nothing comes behind it.
    site.types("end");
    assert!(until(PATIENCE, || site.typed_text().ends_with("end\n")), "the last line did not come");
    let text = site.typed_text();
    let text = text.strip_suffix("end\n").unwrap();
    let mut typed: Vec<&str> = text.lines().collect();
    typed.sort_unstable();
    typed.dedup();
    assert_eq!(typed.len(), text.lines().count(), "typed twice: {text}");
    assert!(typed.len() + interrupted >= expected.len(), "{} typed, {interrupted} interrupted", typed.len());
    assert!(typed.iter().all(|line| expected.iter().any(|sent| sent == line)), "{text}");
    site.note(&agent);
    site.assert_no_leaks();
    site.kill(agent);
}
