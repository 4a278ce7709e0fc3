//! The other questions, against a control server that says what a test wants, or nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Answer, Fake, Scratch, document, guest};
use serde_json::{Value, json};

const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn wait_is_one_request_that_says_everything() {
    let scratch = Scratch::new();
    let row = guest("devbox", "waiting", Some("stale"));
    let fake = Fake::serve(&scratch, move |_| {
        Answer::Data("waited", json!({"satisfied": true, "guests": [row, guest("other", "reachable", None)]}))
    });
    let ran = scratch.run(&["wait", "devbox", "other", "--for", "waiting", "--any", "--timeout", "9s"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "devbox is waiting: stale\n"));
    let request = fake.request();
    assert_eq!(request["method"], "wait");
    let params = &request["params"];
    assert_eq!(params["guests"], json!(["devbox", "other"]));
    assert_eq!((params["for"].as_str(), &params["any"]), (Some("waiting"), &json!(true)));
    let timeout = params["timeout_ms"].as_u64().unwrap();
    assert!((8_000..=9_000).contains(&timeout), "{timeout}");
    assert!(fake.idle());
}

#[test]
fn an_unsatisfied_wait_exits_4_and_says_how_things_stand() {
    let scratch = Scratch::new();
    let _fake = Fake::serve(&scratch, |request| match request["method"].as_str() {
        Some("wait") => Answer::Error("timeout"),
        _ => Answer::Data("status", document("serving", &[guest("devbox", "waiting", Some("goodbye"))])),
    });
    let ran = scratch.run(&["wait", "devbox", "ghost", "--timeout", "1s"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""));
    assert_eq!(
        ran.stderr,
        "castra: not reachable within 1s; devbox is waiting: goodbye; ghost was never seen\n"
    );
}

#[test]
fn a_wait_ends_on_time_with_4_although_the_broker_is_wedged() {
    for accepts in [true, false] {
        let scratch = Scratch::new();
        let (_fake, _listener);
        if accepts {
            _fake = Fake::serve(&scratch, |_| Answer::Silence);
        } else {
            _listener = UnixListener::bind(scratch.socket()).unwrap();
        }
        let ran = scratch.run(&["wait", "devbox", "--timeout", "200ms"]);
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        // Within the timeout and its grace of a second, and not before.
        assert!(ran.took >= Duration::from_millis(1200), "{:?}", ran.took);
        assert!(ran.took < Duration::from_secs(10), "{:?}", ran.took);
    }
}

#[test]
fn without_a_broker_every_question_exits_3_at_once() {
    let scratch = Scratch::new();
    for args in [
        &["wait", "devbox"][..],
        &["ping", "devbox"],
        &["events"],
        &["events", "--follow"],
        &["token", "issue", "devbox"],
        &["token", "list"],
        &["token", "revoke", "devbox"],
        &["info"],
        &["forget", "devbox"],
        &["reload"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{args:?} {}", ran.stderr);
        assert!(ran.took < Duration::from_secs(5), "{args:?}");
        assert!(ran.stderr.contains("castra up"), "{args:?}: what to do is missing: {}", ran.stderr);
    }
}

#[test]
fn a_wedged_broker_costs_a_question_its_timeout_and_no_more() {
    let scratch = Scratch::new();
    let _fake = Fake::serve(&scratch, |_| Answer::Silence);
    for args in [
        &["info", "--timeout", "100ms"][..],
        &["events", "--timeout", "100ms"],
        &["token", "list", "--timeout", "100ms"],
        &["forget", "devbox", "--timeout", "100ms"],
        &["reload", "--timeout", "100ms"],
        &["ping", "devbox", "--timeout", "100ms"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(3), "{args:?} {}", ran.stderr);
        assert!(ran.took < Duration::from_secs(10), "{args:?}");
    }
}

#[test]
fn ping_counts_and_sums_up() {
    let scratch = Scratch::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let fake = Fake::serve(&scratch, move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Data("pong", json!({"guest": "devbox", "rtt_us": 180})),
        1 => Answer::Error("timeout"),
        _ => Answer::Data("pong", json!({"guest": "devbox", "rtt_us": 1500})),
    });
    let ran = scratch.run(&["ping", "devbox", "-c", "3", "--interval", "1ms", "--timeout", "500ms"]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.stdout,
        "devbox: 0.180 ms (1 of 3)\ndevbox: 1.500 ms (3 of 3)\n\
         3 sent, 2 answered, min/avg/max = 0.180 ms/0.840 ms/1.500 ms\n"
    );
    assert_eq!(ran.stderr, "castra: devbox: no answer within 500ms (2 of 3)\n");
    assert_eq!(fake.request()["params"], json!({"guest": "devbox", "timeout_ms": 500}));
}

#[test]
fn ping_has_a_code_for_each_way_to_get_no_answer() {
    for (error, code) in [("timeout", 4), ("not_reachable", 1), ("unknown_guest", 6), ("forbidden", 5)] {
        let scratch = Scratch::new();
        let _fake = Fake::serve(&scratch, move |_| Answer::Error(error));
        let ran = scratch.run(&["ping", "devbox", "-c", "2", "--interval", "1ms", "--json"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{error}");
    }
}

fn happened(kind: &str, number: u32) -> Value {
    json!({"cursor": format!("7-{number}"), "at": "2026-01-02T03:04:05.678Z", "guest": "devbox", "kind": kind})
}

#[test]
fn events_are_json_lines_or_log_lines_and_unknown_kinds_pass_through() {
    let scratch = Scratch::new();
    let events = [happened("token.issued", 1), happened("from.the.future", 2)];
    let data = json!({"events": events, "cursor": "7-2", "gap": true});
    let fake = Fake::serve(&scratch, move |_| Answer::Data("events", data.clone()));
    let ran = scratch.run(&["events", "--json", "--since", "6-9", "--kind", "token.*", "--guest", "devbox"]);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ran.code, Some(0));
    assert_eq!(lines, [json!({"kind": "gap", "cursor": "7-2"}), events[0].clone(), events[1].clone()]);
    let params = json!({"follow": false, "kinds": ["token.*"], "guests": ["devbox"], "since": "6-9"});
    assert_eq!(fake.request()["params"], params);

    let ran = scratch.run(&["events"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "2026-01-02T03:04:05.678Z [host-broker] INFO token issued vm=devbox");
    assert!(lines[1].contains("\"kind\":\"from.the.future\""), "{}", lines[1]);
    assert!(ran.stderr.contains("events were lost"), "{}", ran.stderr);
}

#[test]
fn followed_events_come_one_by_one_until_the_broker_stops() {
    let scratch = Scratch::new();
    let stream = format!(
        "{{\"id\":ID,\"event\":\"events\",\"data\":{{\"events\":[],\"cursor\":\"7-0\"}}}}\n\
         {{\"event\":\"token.issued\",\"data\":{}}}\n{{\"event\":\"gap\",\"data\":{{\"cursor\":\"7-5\"}}}}\n",
        happened("token.issued", 1)
    );
    let _fake = Fake::serve(&scratch, move |_| Answer::RawThenClose(stream.clone()));
    let mut running = scratch.start(&["events", "--follow", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&running.line()).unwrap(), happened("token.issued", 1));
    assert_eq!(running.line(), r#"{"cursor":"7-5","kind":"gap"}"#);
    let (code, stderr) = running.finish();
    assert_eq!((code, stderr.as_str()), (Some(3), "castra: the broker ended the stream: it stopped\n"));
}

#[test]
fn a_follower_whose_reader_left_ends_quietly_although_nothing_happens() {
    let scratch = Scratch::new();
    let data = json!({"events": [happened("token.issued", 1)], "cursor": "7-1"});
    let _fake = Fake::serve(&scratch, move |_| Answer::Data("events", data.clone()));
    let mut command = scratch.command(&["events", "--follow"]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = command.stdout(writer).stderr(std::process::Stdio::null()).spawn().unwrap();
    drop(command);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    assert!(lines.next().unwrap().unwrap().ends_with("token issued vm=devbox"));
    drop(lines);
    assert_eq!(common::ended(&mut child, common::HANG), Some(0));
}

#[test]
fn an_issued_token_is_alone_on_standard_output_and_nowhere_else() {
    let scratch = Scratch::new();
    let _fake =
        Fake::serve(&scratch, |_| Answer::Data("token_issued", json!({"guest": "devbox", "token": TOKEN})));
    let ran = scratch.run(&["token", "issue", "devbox"]);
    assert_eq!((ran.code, ran.stdout), (Some(0), format!("{TOKEN}\n")));
    assert!(!ran.stderr.contains(&TOKEN[..8]), "{}", ran.stderr);
    assert!(ran.stderr.contains("--token-file"), "{}", ran.stderr);
}

#[test]
fn a_token_file_is_private_whatever_was_there_before() {
    let scratch = Scratch::new();
    let _fake =
        Fake::serve(&scratch, |_| Answer::Data("token_issued", json!({"guest": "devbox", "token": TOKEN})));
    scratch
        .write("devbox.token", "old and readable for all, and longer than a token by far .................");
    let file = scratch.path().join("devbox.token");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = scratch.run(&["token", "issue", "devbox", "--out", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    assert!(!ran.stderr.contains(&TOKEN[..8]), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{TOKEN}\n"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn no_token_is_issued_that_could_not_be_kept() {
    let scratch = Scratch::new();
    let fake = Fake::serve(&scratch, |_| Answer::Error("internal"));
    let ran = scratch.run(&["token", "issue", "devbox", "--out", "/nonexistent/folder/devbox.token"]);
    assert_eq!(ran.code, Some(70));
    assert!(fake.idle(), "the broker was asked for a token");
}

#[test]
fn tokens_are_listed_with_what_they_are_worth() {
    let scratch = Scratch::new();
    let data = json!({"tokens": [{"guest": "builder", "valid": false}, {"guest": "devbox", "valid": true}]});
    let _fake = Fake::serve(&scratch, move |_| Answer::Data("token_listed", data.clone()));
    assert_eq!(scratch.run(&["token", "list"]).stdout, "revoked  builder\nvalid    devbox\n");
}

#[test]
fn down_without_a_broker_is_done_already() {
    let ran = Scratch::new().run(&["down"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "castra: no broker is running: nothing to stop\n"));
}

#[test]
fn down_waits_until_the_socket_is_gone() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let fake = Fake::serve(&scratch, move |_| {
        std::fs::remove_file(&socket).unwrap();
        Answer::Data("shutting_down", json!({}))
    });
    let ran = scratch.run(&["down"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fake.request()["method"], "shutdown");
}

#[test]
fn down_leaves_a_silent_broker_alone_and_says_so() {
    let scratch = Scratch::new();
    let _fake = Fake::serve(&scratch, |_| Answer::Silence);
    let ran = scratch.run(&["down", "--timeout", "200ms"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stderr.contains("does not answer"), "{}", ran.stderr);
}

#[test]
fn up_changes_nothing_where_a_broker_serves_already() {
    let scratch = Scratch::new();
    let info = json!({
        "role": "broker", "version": "0.2.0", "pid": 4711, "incarnation": 7, "state_dir": "/s",
        "listen": ["tcp:127.0.0.1:7070"], "started_at": "2026-01-02T03:04:05.678Z",
        "limits": {"guests": 1, "half_open": 1, "control_clients": 1, "control_requests": 1,
                   "request_bytes": 1, "frame_bytes": 1, "events": 1},
        "config": {"window_ms": 15000, "interval_ms": 5000, "handshake_timeout_ms": 2000,
                   "require_token": true, "accept_unproven": false, "only_known": false},
        "link": null,
    });
    let _fake = Fake::serve(&scratch, move |_| Answer::Data("info", info.clone()));
    let ran = scratch.run(&["up", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ready: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&ready["started"], &ready["pid"]), (&json!(false), &json!(4711)));
    assert!(!scratch.path().join("logs").exists());

    let text = scratch.run(&["info"]).stdout;
    assert!(text.contains("window:        15s (challenged every 5s)\n"), "{text}");
    assert!(text.contains("rules:         a token is required\n"), "{text}");
}
