//! The agent's local control clients.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::Input;
use castra_core::boundary::{CloseReason, Deadline, PeerCred, Source, Wakeup};
use castra_core::config::{AgentConfig, Identity};
use castra_core::id::ConnId;
use serde_json::{Value, json};

/// A world with its link up.
fn world() -> (World, ConnId) {
    let mut world = World::new(config());
    let link = world.up();
    (world, link)
}

fn ask(world: &mut World, client: ConnId, request: &Value) {
    world.say(client, format!("{request}\n"));
}

fn replies(world: &mut World, client: ConnId) -> Vec<Value> {
    world.text(client).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The code of the only reply, an error.
fn error(world: &mut World, client: ConnId) -> (Value, String) {
    let replies = replies(world, client);
    let [reply] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(reply["event"], "error");
    assert!(reply["data"]["message"].as_str().unwrap().len() > 8, "{reply}");
    (reply["id"].clone(), reply["data"]["code"].as_str().unwrap().to_owned())
}

#[test]
fn info_says_who_the_agent_is_and_how_its_link_does() {
    let identity = Identity { version: "0.2.0".into(), pid: 7, uid: 1000, ..Identity::default() };
    let mut world = World::new(AgentConfig { identity, ..config() });
    let client = world.client();
    let link = |world: &mut World| {
        ask(world, client, &json!({"id": "a", "method": "info"}));
        let reply = replies(world, client).remove(0);
        assert_eq!((&reply["id"], &reply["event"]), (&json!("a"), &json!("info")));
        let data = &reply["data"];
        assert_eq!(
            (&data["role"], &data["pid"], &data["incarnation"]),
            (&json!("agent"), &json!(7), &json!(null))
        );
        data["link"].clone()
    };
    let dialing = json!({"name": "devbox", "state": "dialing", "epoch": null, "authenticated": false,
                         "retry_ms": null, "last_error": null});
    let effect = world.dialled();
    assert_eq!(link(&mut world), dialing);
    let conn = world.open(effect, ROOM);
    assert_eq!(link(&mut world)["state"], "handshaking");
    world.say(conn, "error: busy: later\n");
    let backoff = link(&mut world);
    assert_eq!(
        (&backoff["state"], &backoff["retry_ms"], &backoff["last_error"]),
        (&json!("backoff"), &json!(500), &json!("refused: busy"))
    );
    world.live(millis(500));
    world.up();
    let up = link(&mut world);
    assert_eq!(
        (&up["state"], &up["epoch"], &up["last_error"]),
        (&json!("up"), &json!(EPOCH.0), &json!(null))
    );
}

#[test]
fn status_wait_and_ping_are_asked_over_the_link_and_answered_under_their_own_names() {
    let (mut world, link) = world();
    let client = world.client();
    let cases = [
        (
            json!({"id": 7, "method": "status"}),
            json!({"type": "status", "id": 1, "any": false, "timeout_ms": 2000}),
            "status",
        ),
        (
            json!({"id": 8, "method": "wait", "params": {"guests": ["devbox"], "for": "reachable", "any": true}}),
            json!({"type": "wait", "id": 2, "guests": ["devbox"], "for": "reachable", "any": true, "timeout_ms": 30000}),
            "waited",
        ),
        (
            json!({"id": 9, "method": "ping", "params": {"guest": "devbox", "timeout_ms": 750}}),
            json!({"type": "ping_guest", "id": 3, "guests": ["devbox"], "any": false, "timeout_ms": 750}),
            "pong",
        ),
    ];
    for (request, expected, event) in cases {
        ask(&mut world, client, &request);
        let asked = frames(&world.sent(link));
        assert_eq!(asked.len(), 1);
        assert_eq!(serde_json::from_str::<Value>(&asked[0]).unwrap(), expected);
        let of = expected["type"].as_str().unwrap();
        let data = "{\"rows\":\r\n[1, {\"x\":\"\\n\"}]}";
        world.say(
            link,
            frame(&format!(r#"{{"type":"result","of":"{of}","id":{},"data":{data}}}"#, expected["id"])),
        );
        let text = world.text(client);
        assert_eq!(text.matches('\n').count(), 1, "one line, whatever the broker's spacing");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"id": request["id"], "event": event, "data": {"rows": [1, {"x": "\n"}]}})
        );
        // A second answer to the same question goes nowhere.
        world.say(
            link,
            frame(&format!(r#"{{"type":"result","of":"{of}","id":{},"data":1}}"#, expected["id"])),
        );
        assert_eq!(world.take(), []);
    }
}

#[test]
fn the_brokers_errors_keep_their_code() {
    let (mut world, link) = world();
    let client = world.client();
    for (number, code) in
        ["unknown_guest", "timeout", "not_reachable", "busy", "no_such_code"].iter().enumerate()
    {
        ask(&mut world, client, &json!({"id": number, "method": "ping", "params": {"guest": "other"}}));
        world.take();
        world.say(
            link,
            frame(&format!(r#"{{"type":"error","of":"ping_guest","id":{},"code":"{code}"}}"#, number + 1)),
        );
        let expected = if *code == "no_such_code" { "internal" } else { code };
        assert_eq!(error(&mut world, client), (json!(number), expected.to_string()));
    }
}

#[test]
fn every_request_is_answered_by_its_deadline() {
    let (mut world, _) = world();
    let client = world.client();
    ask(
        &mut world,
        client,
        &json!({"id": 1, "method": "wait", "params": {"guests": ["x"], "for": "waiting", "timeout_ms": 900}}),
    );
    ask(&mut world, client, &json!({"id": 2, "method": "status"}));
    ask(&mut world, client, &json!({"id": 3, "method": "ping", "params": {"guest": "x", "timeout_ms": 0}}));
    assert_eq!(error(&mut world, client), (json!(3), "timeout".into()));
    assert_eq!(world.wait, Some(Deadline { at: world.now + millis(900), why: Wakeup::Command }));
    world.live(millis(899));
    assert_eq!(world.take(), []);
    world.live(millis(1));
    assert_eq!(error(&mut world, client), (json!(1), "timeout".into()));
    world.live(millis(1100));
    assert_eq!(error(&mut world, client), (json!(2), "timeout".into()));
}

#[test]
fn without_a_session_the_state_of_the_link_is_the_answer() {
    let mut world = World::new(config());
    let client = world.client();
    let effect = world.dialled();
    let state = |world: &mut World| {
        ask(world, client, &json!({"id": 1, "method": "status"}));
        let reply = replies(world, client).remove(0);
        assert_eq!(reply["data"]["code"], "not_reachable");
        reply["data"]["message"].as_str().unwrap().to_owned()
    };
    assert!(state(&mut world).ends_with("the link is dialing"));
    let link = world.open(effect, ROOM);
    assert!(state(&mut world).ends_with("the link is handshaking"));
    world.say(link, "error: token-required: no\n");
    assert!(
        state(&mut world)
            .ends_with("the link is backoff, next try in 500 ms (last error: refused: token-required)")
    );
}

#[test]
fn a_lost_link_answers_what_was_asked_over_it() {
    for serial_stream in [false, true] {
        let mut world = World::new(if serial_stream { serial() } else { config() });
        let link = world.up();
        let client = world.client();
        ask(
            &mut world,
            client,
            &json!({"id": 1, "method": "wait", "params": {"guests": ["x"], "for": "reachable"}}),
        );
        world.take();
        if serial_stream {
            world.say(link, GREETING);
        } else {
            world.closed(link);
        }
        assert_eq!(error(&mut world, client), (json!(1), "not_reachable".into()));
        world.live(seconds(60));
        assert_eq!(world.sent(client), b"", "exactly one reply");
    }
}

#[test]
fn everything_else_is_forbidden() {
    let (mut world, _) = world();
    let client = world.client();
    for (method, params) in [
        ("events", json!({})),
        ("token_issue", json!({"guest": "devbox"})),
        ("token_revoke", json!({"guest": "devbox"})),
        ("token_list", json!(null)),
        ("forget", json!({"guest": "devbox"})),
        ("reload", json!({})),
        ("shutdown", json!({})),
    ] {
        ask(&mut world, client, &json!({"id": method, "method": method, "params": params}));
        assert_eq!(error(&mut world, client), (json!(method), "forbidden".into()));
    }
    ask(&mut world, client, &json!({"id": 5, "method": "frobnicate"}));
    assert_eq!(error(&mut world, client), (json!(5), "unknown_method".into()));
}

#[test]
fn a_malformed_line_is_answered_and_the_client_stays() {
    let (mut world, _) = world();
    let client = world.client();
    for line in
        ["", "x", "[1,\"info\"]", "{\"id\":1}", "{\"method\":\"wait\"}", "\u{1}", "{\"method\":7}", "null"]
    {
        world.say(client, format!("{line}\n"));
        assert_eq!(error(&mut world, client).1, "invalid_request", "{line}");
    }
    world.say(client, b"{\"method\":\"\xFF\"}\n");
    assert_eq!(error(&mut world, client).1, "invalid_request");
    world.say(
        client,
        format!(
            "{{\"id\":1,\"method\":\"wait\",\"params\":{{\"for\":\"{}\"}}}}\n",
            "\u{202e}".repeat(50_000)
        ),
    );
    let text = world.text(client);
    assert!(text.len() < 2000 && text.is_ascii(), "{}", text.len());
    ask(&mut world, client, &json!({"method": "info"}));
    assert_eq!(replies(&mut world, client)[0]["event"], "info");
}

#[test]
fn a_line_over_the_limit_ends_the_client() {
    let (mut world, _) = world();
    for (length, ends) in [(256 * 1024 - 1, false), (256 * 1024, true)] {
        let client = world.client();
        world.take();
        world.say(client, " ".repeat(length));
        world.say(client, "\n");
        let log = world.take();
        assert_eq!(log.contains(&Out::Close(client, CloseReason::Refused)), ends);
        let Out::Sent(_, bytes) = &log[0] else { panic!("{log:?}") };
        assert!(String::from_utf8_lossy(bytes).contains("invalid_request"));
    }
}

#[test]
fn only_the_agents_user_and_root_may_ask() {
    let identity = Identity { uid: 1000, ..Identity::default() };
    let mut world = World::new(AgentConfig { identity, ..config() });
    world.take();
    let user = |uid| Some(PeerCred { uid, gid: 0, pid: 1 });
    for cred in [user(0), user(1000)] {
        world.client_with(cred, ROOM);
        assert_eq!(world.take(), []);
    }
    for cred in [user(1001), None] {
        let client = world.client_with(cred, ROOM);
        let log = world.take();
        assert!(matches!(&log[0], Out::Sent(_, bytes) if bytes.ends_with(b"}\n")));
        assert_eq!(log[1..], [Out::Close(client, CloseReason::Refused)]);
    }
}

#[test]
fn clients_and_their_requests_are_bounded() {
    let mut world = World::new(AgentConfig { control_clients_max: 2, control_requests_max: 3, ..config() });
    world.up();
    let client = world.client();
    let other = world.client();
    let third = world.client();
    assert_eq!(error(&mut world, third).1, "busy");
    assert!(!world.rooms.contains_key(&third));
    for number in 0..4 {
        ask(&mut world, client, &json!({"id": number, "method": "status"}));
    }
    assert_eq!(error(&mut world, client), (json!(3), "busy".into()));
    ask(&mut world, client, &json!({"method": "info"}));
    assert_eq!(replies(&mut world, client)[0]["event"], "info", "what is answered at once is not counted");
    world.closed(other);
    world.client();
    assert_eq!(world.take(), []);
    world.live(seconds(2));
    world.take();
    ask(&mut world, client, &json!({"id": 5, "method": "status"}));
    assert_eq!(world.sent(client), b"", "answered ones make room");
}

#[test]
fn a_client_that_finished_gets_its_answers_before_the_close() {
    let (mut world, _) = world();
    let client = world.client();
    ask(&mut world, client, &json!({"id": 1, "method": "status"}));
    world.give(Input::Finished { conn: client });
    assert!(world.rooms.contains_key(&client));
    world.take();
    world.live(seconds(2));
    let log = world.take();
    assert!(matches!(&log[0], Out::Sent(to, _) if *to == client));
    assert_eq!(log[1..], [Out::Close(client, CloseReason::Finished)]);
    let idle = world.client();
    world.give(Input::Finished { conn: idle });
    assert_eq!(world.take(), [Out::Close(idle, CloseReason::Finished)]);
}

#[test]
fn a_client_that_is_gone_is_forgotten_with_its_questions() {
    let (mut world, link) = world();
    let client = world.client();
    ask(&mut world, client, &json!({"id": 1, "method": "status"}));
    world.closed(client);
    world.take();
    world.say(link, frame(r#"{"type":"result","of":"status","id":1,"data":{}}"#));
    assert_eq!((world.take(), world.wait.unwrap().why), (vec![], Wakeup::Session));
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_loses_nothing() {
    let (mut world, _) = world();
    let client = world.client_with(Some(PeerCred { uid: 0, gid: 0, pid: 1 }), 100);
    world.take();
    let requests = (0..20).map(|id| format!("{{\"id\":{id},\"method\":\"info\"}}\n")).collect::<String>();
    world.say(client, &requests);
    let log = world.take();
    assert_eq!(log.last(), Some(&Out::Read(Source::Conn(client), 0)));
    world.give(Input::Finished { conn: client });
    let mut sent = match &log[0] {
        Out::Sent(_, bytes) => bytes.clone(),
        other => panic!("{other:?}"),
    };
    while world.rooms.contains_key(&client) {
        world.give(Input::Writable { conn: client, room: 70 });
        for out in world.take() {
            if let Out::Sent(_, bytes) = out {
                sent.extend(bytes);
            }
        }
    }
    let ids = String::from_utf8(sent)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_drain_answers_what_is_open() {
    let (mut world, link) = world();
    let client = world.client();
    ask(&mut world, client, &json!({"id": 1, "method": "status"}));
    world.take();
    world.give(Input::Drain { deadline: world.now + seconds(3) });
    let log = world.take();
    let closes = |conn| log.contains(&Out::Close(conn, CloseReason::Drained));
    assert!(closes(link) && closes(client) && log.last() == Some(&Out::Stopped), "{log:?}");
    let Some(Out::Sent(_, line)) = log.iter().find(|out| matches!(out, Out::Sent(to, _) if *to == client))
    else {
        panic!("{log:?}")
    };
    assert!(
        String::from_utf8_lossy(line)
            .starts_with("{\"id\":1,\"event\":\"error\",\"data\":{\"code\":\"shutting_down\"")
    );
    let late = world.client();
    assert_eq!(error(&mut world, late).1, "shutting_down");
}

#[test]
fn a_drain_waits_for_a_slow_client_until_its_deadline() {
    for reads in [false, true] {
        let (mut world, _) = world();
        let client = world.client_with(Some(PeerCred { uid: 0, gid: 0, pid: 1 }), 10);
        ask(&mut world, client, &json!({"id": 1, "method": "info"}));
        world.give(Input::Drain { deadline: world.now + seconds(3) });
        assert_eq!(world.wait, Some(Deadline { at: world.now + seconds(3), why: Wakeup::Drain }));
        world.take();
        if reads {
            world.give(Input::Writable { conn: client, room: 5000 });
        } else {
            world.live(seconds(3));
        }
        let log = world.take();
        assert_eq!(log[log.len() - 2..], [Out::Close(client, CloseReason::Drained), Out::Stopped]);
    }
}

#[test]
fn info_tells_what_the_session_was_granted_and_the_limits() {
    let (mut world, _) = world();
    let client = world.client();
    ask(&mut world, client, &json!({"method": "info"}));
    let data = replies(&mut world, client)[0]["data"].clone();
    let config = &data["config"];
    assert_eq!((&config["window_ms"], &config["interval_ms"]), (&json!(15_000), &json!(5000)));
    assert_ne!(config["handshake_timeout_ms"], 0);
    for limit in ["control_clients", "control_requests", "request_bytes", "frame_bytes"] {
        assert!(data["limits"][limit].as_u64().is_some_and(|limit| limit > 0), "{limit}: {data}");
    }
}
