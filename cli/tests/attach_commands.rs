//! Managed attach's commands, against a control server that says what a test wants.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Answer, Fake, Scratch, ended, run};
use serde_json::{Value, json};

fn adopted(stage: &str) -> Value {
    json!({"guest": "web-1", "session_id": "s-1", "private_beach_id": "b-1",
        "manager_url": "http://127.0.0.1:7171", "handshake_id": "h-1", "stage": stage})
}

fn row() -> Value {
    json!({"guest": "web-1", "session_id": "s-1", "private_beach_id": "b-1",
        "manager_url": "http://127.0.0.1:7171", "handshake_id": "h-1", "stage": "pending", "route": null,
        "code_expires_in_ms": 599_000, "lease_expires_in_ms": null, "last_poll_age_ms": null, "queued": 0,
        "attempt": 2, "failure_count": 1, "last_attempt_age_ms": 700, "next_retry_ms": 1500,
        "last_error": {"code": "http_500", "message": "the manager answered 500"}})
}

fn answer(status: &str, code: Option<&str>) -> Value {
    json!({"guest": "web-1", "id": "a-1", "status": status, "error_code": code})
}

/// The parameters that a command line asks with, and its bound.
fn asked(args: &[&str], method: &str, event: &'static str, data: Value) -> (Value, u64) {
    let scratch = Scratch::new();
    let fake = Fake::serve(&scratch, move |_| Answer::Data(event, data.clone()));
    let ran = scratch.run(args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
    let mut request = fake.request();
    assert_eq!(request["method"], method, "{args:?}");
    let mut params = request["params"].take();
    let bound = params.as_object_mut().unwrap().remove("timeout_ms");
    (params, bound.unwrap_or_else(|| panic!("{args:?}: no bound")).as_u64().unwrap())
}

#[test]
fn each_command_asks_for_exactly_what_its_words_say() {
    let attached = || adopted("attached");
    let payload = json!({"bytes": "ls\n"});
    type Case<'a> = (&'a [&'a str], &'a str, &'static str, Value, Value, u64);
    let cases: [Case<'_>; 11] = [
        (
            &["adopt", "web-1"],
            "adopt",
            "adopted",
            attached(),
            json!({"guest": "web-1", "wait": true}),
            30_000,
        ),
        (
            &["adopt", "web-1", "--beach", "b-1", "--link", "--no-wait"],
            "adopt",
            "adopted",
            attached(),
            json!({"guest": "web-1", "wait": false, "beach_id": "b-1", "link": true}),
            6000,
        ),
        (
            &["adopt", "web-1", "--timeout", "2s"],
            "adopt",
            "adopted",
            attached(),
            json!({"guest": "web-1", "wait": true}),
            2000,
        ),
        (
            &["release", "web-1"],
            "release",
            "released",
            json!({"guest": "web-1", "session_id": "s-1", "dropped": 2}),
            json!({"guest": "web-1"}),
            6000,
        ),
        (&["attachments"], "attachments", "attachments", json!({"attachments": []}), json!({}), 2000),
        (
            &["attachments", "--wait", "--timeout", "1m"],
            "attachments",
            "attachments",
            json!({"attachments": [adopted_row()]}),
            json!({"wait": true}),
            60_000,
        ),
        (
            &["action", "send", "web-1", "--type", "terminal_write", "--payload", "{\"bytes\":\"ls\\n\"}"],
            "action_send",
            "action",
            answer("ok", None),
            json!({"guest": "web-1", "action_type": "terminal_write", "payload": payload, "wait": true}),
            30_000,
        ),
        (
            &["action", "send", "web-1", "--payload", "{\"bytes\":\n\"ls\\n\"}", "--ttl", "10s", "--no-wait"],
            "action_send",
            "action",
            answer("queued", None),
            json!({"guest": "web-1", "action_type": "terminal_write", "payload": payload, "wait": false,
                "ttl_ms": 10_000}),
            6000,
        ),
        (
            &["action", "send", "web-1", "--type", "x.y-z", "--payload", "{}", "--timeout", "1s"],
            "action_send",
            "action",
            answer("ok", None),
            json!({"guest": "web-1", "action_type": "x.y-z", "payload": {}, "wait": true}),
            1000,
        ),
        (&["action", "list"], "action_list", "actions", json!({"actions": [], "total": 0}), json!({}), 2000),
        (
            &["action", "list", "web-1"],
            "action_list",
            "actions",
            json!({"actions": [], "total": 0}),
            json!({"guest": "web-1"}),
            2000,
        ),
    ];
    for (args, method, event, data, params, bound) in cases {
        assert_eq!(asked(args, method, event, data), (params, bound), "{args:?}");
    }
}

fn adopted_row() -> Value {
    let mut row = row();
    row["stage"] = json!("attached");
    row
}

#[test]
fn json_is_exactly_the_document_and_words_are_for_people() {
    let documents = [
        (
            "adopted",
            adopted("attached"),
            &["adopt", "web-1"][..],
            "",
            "castra: web-1 is attached: session s-1, manager http://127.0.0.1:7171\n",
        ),
        (
            "adopted",
            adopted("pending"),
            &["adopt", "web-1", "--no-wait"],
            "",
            "castra: web-1 is adopted (session s-1) and will attach itself to http://127.0.0.1:7171: `castra \
             attachments` shows how far it is\n",
        ),
        (
            "released",
            json!({"guest": "web-1", "session_id": "s-1", "dropped": 2}),
            &["release", "web-1"],
            "",
            "castra: web-1 is released: 2 actions that waited are dropped\n",
        ),
        (
            "attachments",
            json!({"attachments": [row()]}),
            &["attachments"],
            "GUEST   STAGE     ROUTE   QUEUED   LEASE   POLLED   ATTEMPT   TRIED   RETRY     MANAGER                 \
             SESSION   LAST ERROR\n\
             web-1   pending   -       0        -       -        2         0.7s    in 1.5s   http://127.0.0.1:7171   \
             s-1       http_500: the manager answered 500\n",
            "",
        ),
        (
            "attachments",
            json!({"attachments": []}),
            &["attachments"],
            "",
            "castra: nobody is adopted: on the host, `castra adopt GUEST` adopts one\n",
        ),
        ("action", answer("ok", None), &["action", "send", "web-1", "--payload", "{}"], "a-1 ok\n", ""),
        (
            "actions",
            json!({"actions": [{"guest": "web-1", "id": "a-1", "action_type": "terminal_write", "age_ms": 900,
                "expires_in_ms": 5000, "sent": true}], "total": 3}),
            &["action", "list"],
            "GUEST   ID    TYPE             STATE   AGE    EXPIRES\n\
             web-1   a-1   terminal_write   sent    0.9s   in 5.0s\n",
            "castra: 2 more wait: name a guest\n",
        ),
    ];
    for (event, data, args, stdout, stderr) in documents {
        let scratch = Scratch::new();
        let (written, expected) = (data.clone(), data.to_string());
        let _fake = Fake::serve(&scratch, move |_| Answer::Data(event, written.clone()));
        let ran = scratch.run(args);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (stdout, stderr), "{args:?}");
        assert_eq!(ran.code, Some(0), "{args:?}");
        let ran = scratch.run(&[args, &["--json"]].concat());
        assert_eq!(
            (ran.code, ran.stdout, ran.stderr.as_str()),
            (Some(0), format!("{expected}\n"), ""),
            "{args:?}"
        );
    }
}

#[test]
fn what_became_of_an_action_is_its_exit_code() {
    for (status, code, exit, words) in [
        ("ok", None, 0, ""),
        ("queued", None, 4, "it stays"),
        ("expired", None, 4, "was not applied"),
        ("rejected", Some("no_terminal"), 5, "castra term ls web-1/"),
        ("rejected", Some("\u{1b}[2J"), 5, r"\u{1b}[2J"),
        ("preempted", Some("owned"), 5, "(owned)"),
        ("whatever", None, 5, "did not apply"),
    ] {
        let scratch = Scratch::new();
        let data = answer(status, code);
        let _fake = Fake::serve(&scratch, move |_| Answer::Data("action", data.clone()));
        let ran = scratch.run(&["action", "send", "web-1", "--payload", "{}"]);
        assert_eq!((ran.code, ran.stdout), (Some(exit), format!("a-1 {status}\n")), "{}", ran.stderr);
        assert!(ran.stderr.contains(words) && (status == "ok") == ran.stderr.is_empty(), "{}", ran.stderr);
    }
}

#[test]
fn every_refusal_has_its_exit_code_and_says_what_to_do() {
    let action = &["action", "send", "web-1", "--payload", "{}"][..];
    for (args, code, exit, advice) in [
        (&["adopt", "web-1"][..], "conflict", 5, "castra release web-1"),
        (&["adopt", "web-1"], "timeout", 4, "castra attachments"),
        (&["adopt", "web-1"], "refused", 5, "castra release web-1"),
        (&["adopt", "nobody"], "unknown_guest", 6, "castra status"),
        (&["release", "web-1"], "not_attached", 1, "castra attachments"),
        (&["attachments", "--wait"], "timeout", 4, "--wait"),
        (action, "not_attached", 1, "castra adopt web-1"),
        (action, "guest_offline", 1, "castra status web-1"),
        (action, "missing_lease", 1, "try again"),
        (action, "full", 1, "castra action list web-1"),
        (action, "unknown_guest", 6, "castra status"),
        (action, "storage_failed", 70, "castra logs"),
        (action, "shutting_down", 3, ""),
    ] {
        let scratch = Scratch::new();
        let _fake = Fake::serve(&scratch, move |_| Answer::Error(code));
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(exit), ""), "{code}: {}", ran.stderr);
        assert!(ran.stderr.contains(code) && ran.stderr.contains(advice), "{code}: {}", ran.stderr);
    }
}

#[test]
fn who_waits_and_is_not_attached_is_told_so() {
    let scratch = Scratch::new();
    let _fake = Fake::serve(&scratch, |_| Answer::Data("attachments", json!({"attachments": [row()]})));
    assert_eq!(scratch.run(&["attachments", "--wait"]).code, Some(1));
    assert_eq!(scratch.run(&["attachments"]).code, Some(0));
}

#[test]
fn without_a_broker_each_command_exits_3_at_once() {
    let scratch = Scratch::new();
    for args in [
        &["adopt", "a"][..],
        &["release", "a"],
        &["attachments"],
        &["attachments", "--wait"],
        &["action", "send", "a", "--payload", "{}"],
        &["action", "list"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{args:?} {}", ran.stderr);
        assert!(ran.stderr.contains("castra up"), "{args:?}: what to do is missing: {}", ran.stderr);
    }
}

#[test]
fn a_payload_comes_from_standard_input_and_what_is_none_is_not_sent_or_shown() {
    let scratch = Scratch::new();
    let fake = Fake::serve(&scratch, |_| Answer::Data("action", answer("ok", None)));
    let send = |text: &[u8]| {
        let mut command = scratch.command(&["action", "send", "web-1", "--payload", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It may have read enough already.
        let _ = child.stdin.take().unwrap().write_all(text);
        ended(&mut child, common::HANG)
    };
    assert_eq!(send(b"{\n  \"bytes\": \"hush\\n\"\n}\n"), Some(0));
    assert_eq!(fake.request()["params"]["payload"], json!({"bytes": "hush\n"}));
    assert_eq!(send(b"\xff"), Some(2));
    assert_eq!(send(&vec![b' '; 100_000]), Some(2));
    assert_eq!(send(format!("{{\"bytes\":\"{}\"}}", "x".repeat(15 * 1024)).as_bytes()), Some(2));
    for bad in ["hush", "[\"hush\"]", "{\"hush\"", ""] {
        let ran = scratch.run(&["action", "send", "web-1", "--payload", bad]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{bad}");
        assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
    }
    assert!(fake.idle());
}

#[test]
fn inside_a_guest_the_agent_is_found_where_it_listens_by_itself() {
    let scratch = Scratch::new();
    let folder = scratch.path().join("castra/web-1");
    std::fs::create_dir_all(&folder).unwrap();
    let _fake = Fake::serve(&scratch, |_| Answer::Data("attachments", json!({"attachments": []})));
    std::fs::rename(scratch.socket(), folder.join("agent.sock")).unwrap();
    let mut command = scratch.command(&["attachments", "--json"]);
    command.env_remove("CASTRA_STATE_DIR").env("XDG_RUNTIME_DIR", scratch.path());
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "{\"attachments\":[]}\n"), "{}", ran.stderr);
}

#[test]
fn what_makes_no_sense_exits_2_and_shows_no_secret() {
    let scratch = Scratch::new();
    let agent = ["agent", "--name", "a", "--connect", "tcp:127.0.0.1:1"];
    let with = |more: &[&'static str]| [&agent[..], more].concat();
    for args in [
        vec!["adopt"],
        vec!["adopt", "web-1", "--beach", "no/id"],
        vec!["action", "send", "web-1"],
        vec!["action", "send", "web-1", "--payload", "{}", "--type", "two words"],
        vec!["broker", "--manager", "localhost:7171"],
        vec!["broker", "--manager-advertise", "http://h"],
        vec!["broker", "--manager", "127.0.0.1:0", "--manager-advertise", "http://u:hush@h"],
        with(&["--manager-url", "http://h/path"]),
        with(&["--exec"]),
        with(&["--once", "--exec", "true"]),
        with(&["--terminals-socket", "/x", "--exec", "true"]),
    ] {
        let ran = scratch.run(&args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}: {}", ran.stderr);
    }
    for (name, value) in [
        ("PRIVATE_BEACH_MANAGER_URL", "http://user:hush@host"),
        ("PRIVATE_BEACH_ID", "hush hush"),
        ("PRIVATE_BEACH_SESSION_PASSCODE", "hush hush"),
        ("PRIVATE_BEACH_MANAGER_TOKEN", "hush hush"),
    ] {
        let ran = run(scratch.command(&agent).env(name, value));
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(name) && !ran.stderr.contains("hush"), "{}", ran.stderr);
    }
}

#[test]
fn help_explains_each_command_with_examples_and_says_who_sees_arguments() {
    let scratch = Scratch::new();
    for args in [
        &["help", "adopt"][..],
        &["help", "release"],
        &["help", "attachments"],
        &["help", "action"],
        &["action", "send", "--help"],
        &["action", "list", "--help"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}");
        assert!(ran.stdout.contains("Example"), "{args:?}: {}", ran.stdout);
    }
    let send =
        scratch.run(&["action", "send", "--help"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(send.contains("visible to everybody on this machine"), "{send}");
}
