//! Peers' commands, against a control server that says what a test wants.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Answer, Fake, Scratch, ended, run};
use serde_json::{Value, json};

const ID: &str = "msg-00112233445566778899aabbccddeeff";

fn message(from: &str, text: &str, delivered: Option<&str>) -> Value {
    json!({"id": ID, "from": from, "from_authenticated": false, "text": text,
        "sent_at": "2026-01-02T03:04:05.678Z", "delivered_at": delivered, "wake": true})
}

/// The parameters that a command line asks with, without its bound.
fn asked(args: &[&str], method: &str, event: &'static str, data: Value) -> Value {
    let scratch = Scratch::new();
    let fake = Fake::serve(&scratch, move |_| Answer::Data(event, data.clone()));
    let ran = scratch.run(args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
    let mut request = fake.request();
    assert_eq!(request["method"], method, "{args:?}");
    let mut params = request["params"].take();
    let bound = params.as_object_mut().unwrap().remove("timeout_ms");
    assert!(method == "inbox" || bound.is_some(), "{args:?}: no bound");
    params
}

#[test]
fn each_command_asks_for_exactly_what_its_words_say_on_the_host_and_inside_a_guest() {
    let linked = || json!({"result": {"peer": "b", "source": "a"}, "outcome": "registered"});
    let sent = || json!({"id": ID, "outcome": "delivered"});
    let own = || json!({"peers": []});
    let inbox = || json!({"messages": []});
    type Case<'a> = (&'a [&'a str], &'a str, &'static str, Value, Value);
    let cases: [Case<'_>; 15] = [
        (
            &["peer", "link", "a", "b"],
            "register_peer",
            "peer_registered",
            linked(),
            json!({"source": "a", "name": "b"}),
        ),
        (&["peer", "link", "b"], "register_peer", "peer_registered", linked(), json!({"name": "b"})),
        (
            &["peer", "unlink", "a", "b"],
            "unregister_peer",
            "peer_unregistered",
            linked(),
            json!({"source": "a", "name": "b"}),
        ),
        (&["peer", "unlink", "b"], "unregister_peer", "peer_unregistered", linked(), json!({"name": "b"})),
        (&["peer", "list", "a"], "list_peers", "peers_listed", own(), json!({"name": "a"})),
        (&["peers"], "list_peers", "peers_listed", own(), json!({})),
        (
            &["peer", "send", "a", "b", "hello there"],
            "send_to_peer",
            "peer_message_result",
            sent(),
            json!({"from": "a", "to": "b", "text": "hello there", "wake": true, "queue": true}),
        ),
        (
            &["peer", "send", "b", "x", "--no-queue", "--no-wake", "--key", "k"],
            "send_to_peer",
            "peer_message_result",
            sent(),
            json!({"to": "b", "text": "x", "wake": false, "queue": false, "key": "k"}),
        ),
        (
            &["peer", "send", "--json", "--", "a", "b", "-v"],
            "send_to_peer",
            "peer_message_result",
            sent(),
            json!({"from": "a", "to": "b", "text": "-v", "wake": true, "queue": true}),
        ),
        (
            &["peer", "accept", "a"],
            "peer_answer",
            "peer_answered",
            json!({}),
            json!({"name": "a", "accept": true}),
        ),
        (
            &["peer", "refuse", "a"],
            "peer_answer",
            "peer_answered",
            json!({}),
            json!({"name": "a", "accept": false}),
        ),
        (
            &["peer", "refuse", "a", "--reason", "no"],
            "peer_answer",
            "peer_answered",
            json!({}),
            json!({"name": "a", "accept": false, "reason": "no"}),
        ),
        (&["inbox", "b"], "inbox", "inbox", inbox(), json!({"name": "b", "follow": false})),
        (
            &["inbox", "--after", ID, "-n", "5"],
            "inbox",
            "inbox",
            inbox(),
            json!({"follow": false, "after": ID, "limit": 5}),
        ),
        (
            &["restore", "b"],
            "restore",
            "restored",
            json!({"guest": "b", "started": true}),
            json!({"guest": "b"}),
        ),
    ];
    for (args, method, event, data, params) in cases {
        assert_eq!(asked(args, method, event, data), params, "{args:?}");
    }
}

#[test]
fn json_is_exactly_the_document_and_words_are_for_people() {
    let listed = json!({"peers": [
        {"name": "a", "visibility": "self", "state": "live", "reachable": true, "last_handshake_age_ms": 812,
            "last_sent_at": null, "last_received_at": null, "queued": 0},
        {"name": "builder", "visibility": "peer", "state": "restorable", "reachable": false,
            "last_handshake_age_ms": null, "last_sent_at": "2026-01-02T03:04:05.678Z",
            "last_received_at": null, "queued": 12},
    ]});
    let documents = [
        (
            "peers_listed",
            listed,
            &["peers", "a"][..],
            "GUEST     WHO    STATE        AGE    LAST SENT                  LAST RECEIVED   QUEUED\n\
             a         self   live         0.8s   -                          -               0\n\
             builder   peer   restorable   -      2026-01-02T03:04:05.678Z   -               12\n",
            "",
        ),
        (
            "peer_registered",
            json!({"result": {"peer": "b", "source": "a"}, "outcome": "registered"}),
            &["peer", "link", "a", "b"],
            "",
            "castra: a and b are peers\n",
        ),
        (
            "peer_unregistered",
            json!({"result": {"peer": "b", "source": "a"}, "outcome": "unregistered"}),
            &["peer", "unlink", "a", "b"],
            "",
            "castra: a and b are no peers any more\n",
        ),
        (
            "restored",
            json!({"guest": "b", "started": false}),
            &["restore", "b"],
            "",
            "castra: b is reachable already\n",
        ),
        (
            "inbox",
            json!({"messages": [message("a", "two\nlines\u{1b}[2J", None)]}),
            &["inbox", "b"],
            "2026-01-02T03:04:05.678Z   a   msg-00112233445566778899aabbccddeeff   unproven, waits\n    \
             \"two\\u{a}lines\\u{1b}[2J\"\n",
            "",
        ),
        ("inbox", json!({"messages": []}), &["inbox", "b"], "", "castra: no messages\n"),
    ];
    for (event, data, args, stdout, stderr) in documents {
        let scratch = Scratch::new();
        let (written, expected) = (data.clone(), data.to_string());
        let _fake = Fake::serve(&scratch, move |_| Answer::Data(event, written.clone()));
        let ran = scratch.run(args);
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (Some(0), stdout, stderr),
            "{args:?}"
        );
        let ran = scratch.run(&[args, &["--json"]].concat());
        assert_eq!(
            (ran.code, ran.stdout, ran.stderr.as_str()),
            (Some(0), format!("{expected}\n"), ""),
            "{args:?}"
        );
    }
}

#[test]
fn what_became_of_a_message_is_its_exit_code() {
    for (outcome, reason, code, words) in [
        ("delivered", None, 0, ""),
        ("queued", None, 0, "it waits"),
        ("rejected", None, 5, "proven with a key"),
        ("expired", Some("not_queued"), 1, "(not_queued)"),
        ("expired", Some("unlinked"), 1, "(unlinked)"),
    ] {
        let scratch = Scratch::new();
        let mut data = json!({"id": ID, "outcome": outcome});
        if let Some(reason) = reason {
            data["reason"] = json!(reason);
        }
        let _fake = Fake::serve(&scratch, move |_| Answer::Data("peer_message_result", data.clone()));
        let ran = scratch.run(&["peer", "send", "a", "b", "x"]);
        assert_eq!((ran.code, ran.stdout), (Some(code), format!("{ID} {outcome}\n")), "{}", ran.stderr);
        assert!(
            ran.stderr.contains(words) && (outcome == "delivered") == ran.stderr.is_empty(),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn every_refusal_has_its_exit_code_and_says_what_to_do() {
    for (code, exit, advice) in [
        ("self", 2, ""),
        ("ambiguous", 2, ""),
        ("unknown", 6, "`castra status` lists all"),
        ("rejected", 5, "castra events"),
        ("not_peer", 5, "`castra peer link a b`"),
        ("busy", 1, ""),
        ("full", 1, "--queue-messages"),
        ("too_large", 2, "at most 32768 bytes"),
        ("not_reachable", 1, "without --no-queue"),
        ("storage_failed", 70, ""),
        ("timeout", 4, ""),
        ("shutting_down", 3, ""),
    ] {
        let scratch = Scratch::new();
        let _fake = Fake::serve(&scratch, move |_| Answer::Error(code));
        let ran = scratch.run(&["peer", "send", "a", "b", "x"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(exit), ""), "{code}: {}", ran.stderr);
        assert!(ran.stderr.contains(code) && ran.stderr.contains(advice), "{code}: {}", ran.stderr);
    }
    // What one word means elsewhere stays what it was.
    let scratch = Scratch::new();
    let _fake = Fake::serve(&scratch, |_| Answer::Error("busy"));
    assert_eq!(scratch.run(&["ping", "a", "-c", "1"]).code, Some(5));
}

#[test]
fn without_a_broker_peers_commands_exit_3_at_once() {
    let scratch = Scratch::new();
    for args in [
        &["peer", "link", "a", "b"][..],
        &["peer", "unlink", "a", "b"],
        &["peer", "send", "a", "b", "x"],
        &["peers", "a"],
        &["inbox", "a"],
        &["inbox", "a", "--follow"],
        &["restore", "a"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{args:?} {}", ran.stderr);
        assert!(ran.stderr.contains("castra up"), "{args:?}: what to do is missing: {}", ran.stderr);
    }
}

#[test]
fn a_text_comes_from_standard_input_and_one_that_is_too_long_is_not_sent() {
    let scratch = Scratch::new();
    let fake = Fake::serve(&scratch, |_| {
        Answer::Data("peer_message_result", json!({"id": ID, "outcome": "delivered"}))
    });
    let send = |text: &[u8]| {
        let mut command = scratch.command(&["peer", "send", "a", "b", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It may have read enough already.
        let _ = child.stdin.take().unwrap().write_all(text);
        ended(&mut child, common::HANG)
    };
    let longest = "ü".repeat(16 * 1024);
    assert_eq!(send(format!("{longest}\n").as_bytes()), Some(0));
    assert_eq!(fake.request()["params"]["text"], json!(longest));
    assert_eq!(send(format!("{longest}x").as_bytes()), Some(2));
    assert_eq!(send(b"\xff"), Some(2));
    let ran = scratch.run(&["peer", "send", "a", "b", &"x".repeat(32 * 1024 + 1)]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("at most 32768 bytes, and this one has 32769"), "{}", ran.stderr);
    for args in
        [&["peer", "send", "a", "b"][..1], &["peer", "send", "a"], &["peer", "send", "../a", "b", "x"]]
    {
        assert_eq!(scratch.run(args).code, Some(2), "{args:?}");
    }
    assert!(fake.idle());
}

#[test]
fn a_followed_inbox_goes_on_line_by_line_and_ends_with_3() {
    let scratch = Scratch::new();
    let line = |event: &str, text: &str, id: &str| {
        let data = json!({"messages": [message("a", text, Some("2026-01-02T03:04:06.000Z"))]});
        format!("{{{id}\"event\":\"{event}\",\"data\":{data}}}\n")
    };
    let all = line("inbox", "first", "\"id\":ID,") + &line("inbox", "second", "");
    let fake = Fake::serve(&scratch, move |_| Answer::RawThenClose(all.clone()));
    let mut follower = scratch.start(&["inbox", "b", "--follow", "--json"]);
    for text in ["first", "second"] {
        let document: Value = serde_json::from_str(&follower.line()).unwrap();
        assert_eq!(document["messages"][0]["text"], text);
    }
    let (code, stderr) = follower.finish();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("--after ID"), "{stderr}");
    assert_eq!(fake.request()["params"], json!({"follow": true, "name": "b"}));
}

#[test]
fn inside_a_guest_the_agent_is_found_where_it_listens_by_itself() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("castra/devbox");
    std::fs::create_dir_all(&folder).unwrap();
    let _fake = Fake::serve(&scratch, |_| Answer::Data("peers_listed", json!({"peers": []})));
    std::fs::rename(scratch.socket(), folder.join("agent.sock")).unwrap();
    let mut command = scratch.command(&["peers", "--json"]);
    command.env_remove("CASTRA_STATE_DIR").env("XDG_RUNTIME_DIR", scratch.path());
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "{\"peers\":[]}\n"), "{}", ran.stderr);
}

#[test]
fn help_explains_each_command_with_examples() {
    let scratch = Scratch::new();
    for args in [
        &["help", "peer"][..],
        &["help", "peers"],
        &["help", "inbox"],
        &["help", "restore"],
        &["peer", "link", "--help"],
        &["peer", "unlink", "--help"],
        &["peer", "send", "--help"],
        &["peer", "accept", "--help"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}");
        assert!(ran.stdout.contains("Examples:\n  castra "), "{args:?}: {}", ran.stdout);
    }
    assert!(!scratch.run(&["--help"]).stdout.contains("start-command"));
}

#[test]
fn options_may_stand_anywhere_and_words_too_many_are_told() {
    let asked = asked(
        &["peer", "send", "a", "--key", "k", "b", "--no-wake", "x"],
        "send_to_peer",
        "peer_message_result",
        json!({"id": ID, "outcome": "delivered"}),
    );
    assert_eq!(asked, json!({"from": "a", "to": "b", "text": "x", "wake": false, "queue": true, "key": "k"}));
    let scratch = Scratch::new();
    for args in [
        &["peer", "send", "x"][..],
        &["peer", "send", "a", "b", "two", "words"],
        &["peer", "send", "a", "--no-wake", "b", "two", "words"],
        &["peer", "link", "a", "--timeout", "1s", "b", "c"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(2), "{args:?} {}", ran.stderr);
    }
}
