//! `castra adopt` attaches a guest that knows nothing of it.

use serde_json::{Value, json};

use crate::support::{PATIENCE, until};
use crate::worlds::Site;

/// Everything that an adoption is for; `url` is where the guest is told to attach.
fn lives_an_adopted_life(site: &Site, args: &[&str], url: &str) {
    let agent = site.agent(&[]);
    site.reachable();
    assert_eq!(site.http.connections(), 0, "nobody told the guest of a manager");
    site.does(&[&["adopt", "web-1"], args].concat());
    let row = site.await_attachment("on its link", |row| row["route"] == "link");
    assert_eq!((&row["stage"], &row["manager_url"]), (&json!("attached"), &json!(url)));
    assert!(row["lease_expires_in_ms"].as_u64().is_some_and(|left| left > 0), "{row}");
    for line in ["one", "two words", "drei ü"] {
        site.types(line);
    }
    site.await_typed("one\ntwo words\ndrei ü\n");
    let shown = until(PATIENCE, || site.does(&["term", "snapshot", "web-1/main"]).contains("two words"));
    assert!(shown, "what was typed is not on the screen");
    // The agent says the same.
    let socket = site.world.path("web-1.sock");
    let inside = site.does(&["attachments", "--wait", "--json", "--socket", socket.to_str().unwrap()]);
    let inside: Value = serde_json::from_str(&inside).unwrap();
    let inside = &inside["attachments"][0];
    assert_eq!(
        (&inside["session_id"], &inside["stage"], &inside["attempt"], &inside["last_error"]),
        (&row["session_id"], &json!("attached"), &json!(1), &Value::Null),
        "{inside}"
    );
    // Once more changes nothing.
    site.does(&[&["adopt", "web-1"], args].concat());
    assert_eq!(site.attachment()["session_id"], row["session_id"]);
    let sent = site.world.events("manager.handshake.sent", "web-1");
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!((&sent[0]["refresh"], &sent[1]["refresh"]), (&json!(false), &json!(true)));
    assert_eq!(site.world.events("manager.handshake.accepted", "web-1").len(), 1);
    agent.err.after(0, "manager handshake received", PATIENCE);
    agent.err.after(0, "auto-attached via handshake", PATIENCE);
    // And then it is over.
    site.does(&["release", "web-1"]);
    agent.err.after(0, "detached vm=web-1", PATIENCE);
    let ran = site.castra(&["action", "send", "web-1", "--payload", "{\"bytes\":\"x\"}"]);
    assert!(ran.code == 1 && ran.err.contains("castra adopt web-1"), "{ran:?}");
    assert_eq!(site.typed_text(), "one\ntwo words\ndrei ü\n");
    site.note(&agent);
    site.assert_no_leaks();
    site.kill(agent);
}

#[test]
fn a_fresh_agent_attaches_over_http_with_one_request_and_types_what_it_is_told() {
    let site = Site::with_manager(&[]);
    lives_an_adopted_life(&site, &[], &site.http.url());
    assert_eq!(site.http.requests("/sessions/attach-by-code"), 1, "{}", site.http.asked());
    let asked = site.http.asked();
    let (attach, poll) = (asked.find("attach-by-code").unwrap(), asked.find("/actions/poll"));
    assert!(poll.is_none_or(|poll| poll > attach), "polled before it was attached: {asked}");
    assert_eq!(asked.matches("x-beach-handshake-id: ").count(), 1, "{asked}");
}

#[test]
fn a_fresh_agent_attaches_over_its_link_where_there_is_no_manager() {
    let site = Site::new(&[]);
    lives_an_adopted_life(&site, &[], "link:");
}

#[test]
fn a_fresh_agent_attaches_over_its_link_where_it_is_told_to() {
    let site = Site::with_manager(&[]);
    lives_an_adopted_life(&site, &["--link"], "link:");
    assert_eq!(site.http.connections(), 0);
}

#[test]
fn without_an_advertised_url_the_guest_is_told_the_address_that_it_reached_the_broker_at() {
    let world = crate::support::World::new();
    let broker = world.broker(&["--manager", "0.0.0.0:0"]);
    let token = world.json(&["token", "issue", "web-1", "--json"])["token"].as_str().unwrap().to_owned();
    let token = world.secret("token", &token);
    let agent = crate::worlds::agent(&world, broker.address(), &["--token-file", &token], |_| {});
    world.wait(&["web-1"], "reachable");
    let adopted = world.json(&["adopt", "web-1", "--json"]);
    let url = adopted["manager_url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{adopted}");
    agent.kill();
    crate::worlds::end_terminals(&world);
    broker.process.kill();
}

#[test]
fn a_guest_without_a_key_refuses_and_the_operator_is_told_what_to_do() {
    let site = Site::with_manager(&[]);
    let wary = site.world.agent("wary", &site.link.address(), &[]);
    let trusting = site.world.agent("trusting", &site.link.address(), &["--trust-unkeyed-broker"]);
    site.world.wait(&["wary", "trusting"], "reachable");
    let ran = site.castra(&["adopt", "wary"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    for word in ["unkeyed_link", "castra token issue wary", "--trust-unkeyed-broker"] {
        assert!(ran.err.contains(word), "{ran:?}");
    }
    assert_eq!(site.http.connections(), 0, "a handshake that nobody vouches for makes no request");
    wary.err.after(0, "reason=unkeyed_link", PATIENCE);
    site.does(&["adopt", "trusting"]);
    assert_eq!(site.http.requests("/attach-by-code"), 1);
    // It hosts no terminals.
    let ran = site.castra(&["action", "send", "trusting", "--payload", "{\"bytes\":\"x\"}"]);
    assert!(ran.code == 5 && ran.err.contains("no_terminals") && ran.err.contains("--exec"), "{ran:?}");
    assert_eq!(site.castra(&["adopt", "nobody"]).code, 6);
    assert_eq!(site.castra(&["adopt", "trusting", "--link"]).code, 5);
    assert_eq!(site.castra(&["adopt", "trusting", "--beach", "other"]).code, 5);
    for guest in ["wary", "trusting"] {
        site.does(&["release", guest]);
    }
    assert_eq!(site.castra(&["release", "wary"]).code, 1);
    wary.kill();
    trusting.kill();
}

#[test]
fn a_manager_that_can_not_be_reached_is_tried_five_times_and_never_polled() {
    let site = Site::with_manager(&[]);
    let agent = site.agent(&[]);
    site.reachable();
    site.http.cut();
    site.does(&["adopt", "web-1", "--no-wait"]);
    agent.err.after(0, "attempt=2", PATIENCE);
    let row = site.await_attachment("tried twice", |row| row["attempt"].as_u64() >= Some(2));
    assert_eq!(row["stage"], "pending");
    assert_eq!(row["last_error"]["code"], "unreachable", "{row}");
    let early = site.castra(&["action", "send", "web-1", "--payload", "{\"bytes\":\"x\"}"]);
    assert!(early.code == 1 && early.err.contains("not_attached"), "{early:?}");
    let last = agent.err.after(0, "attempt=5 code=unreachable", PATIENCE);
    assert!(last.ends_with("retry_ms=-"), "{last}");
    let row = site.await_attachment("given up", |row| row["failure_count"] == 5);
    assert_eq!((&row["stage"], &row["next_retry_ms"]), (&json!("pending"), &Value::Null));
    let ran = site.castra(&["adopt", "web-1", "--timeout", "1s"]);
    assert!(ran.code == 4 || ran.code == 5, "{ran:?}");
    site.http.restore();
    site.does(&["adopt", "web-1"]);
    assert_eq!(site.attachment()["session_id"], row["session_id"]);
    assert!(!site.http.asked().contains("/actions/poll"), "{}", site.http.asked());
    site.types("here");
    site.await_typed("here\n");
    site.note(&agent);
    site.assert_no_leaks();
    site.kill(agent);
}
