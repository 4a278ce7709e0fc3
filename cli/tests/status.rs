//! `castra status` against a control server that says what a test wants, or nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Answer, Fake, Scratch, document, guest, run};
use serde_json::Value;

fn answering(scratch: &Scratch, document: Value) -> Fake {
    Fake::serve(scratch, move |_| Answer::Data("status", document.clone()))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[test]
fn an_absent_broker_is_answered_at_once_with_every_known_guest_offline() {
    let scratch = Scratch::new();
    scratch.write("handshakes/devbox.json", r#"{"vm":"devbox","timestamp":1795188257}"#);
    let ran = scratch.run(&["status", "--json", "--timeout", "20s"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);
    let document = json(&ran.stdout);
    assert_eq!(document["broker"]["state"], "offline");
    let row = &document["guests"][0];
    assert_eq!((row["name"].as_str(), row["state"].as_str()), (Some("devbox"), Some("offline")));
    assert_eq!((&row["reachable"], row["reason"].as_str()), (&Value::Bool(false), Some("no_broker")));
    assert_eq!(row["last_handshake_at"], "2026-11-20T15:24:17.000Z");
    assert_eq!(row["last_handshake_age_ms"], Value::Null);
}

#[test]
fn a_socket_that_nobody_listens_on_any_more_is_an_absent_broker() {
    let scratch = Scratch::new();
    drop(UnixListener::bind(scratch.socket()).unwrap());
    let ran = scratch.run(&["status", "--json"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(json(&ran.stdout)["broker"]["state"], "offline");
}

#[test]
fn a_broker_that_never_accepts_is_given_up_at_the_timeout() {
    let scratch = Scratch::new();
    let _listener = UnixListener::bind(scratch.socket()).unwrap();
    let ran = scratch.run(&["--timeout", "300ms", "status", "devbox", "--json"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.took >= Duration::from_millis(300), "{:?}", ran.took);
    let document = json(&ran.stdout);
    assert_eq!(document["broker"]["state"], "not_answering");
    assert_eq!(document["guests"][0]["reason"], "broker_not_answering");
}

#[test]
fn a_full_accept_queue_does_not_hang_the_client() {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    };
    let scratch = Scratch::new();
    let address = SocketAddrUnix::new(scratch.socket()).unwrap();
    let unix = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let listener = unix();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut queued = vec![];
    loop {
        let client = unix();
        match connect(&client, &address) {
            Ok(()) => queued.push(client),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
    }
    let ran = scratch.run(&["status", "--json", "--timeout", "300ms"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(json(&ran.stdout)["broker"]["state"], "not_answering");
}

#[test]
fn half_an_answer_is_no_answer() {
    let scratch = Scratch::new();
    let _fake = Fake::serve(&scratch, |_| Answer::Raw(r#"{"id":ID,"event":"status","data":{"sch"#.into()));
    let ran = scratch.run(&["status", "--json", "--timeout", "300ms"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(json(&ran.stdout)["broker"]["state"], "not_answering");
}

#[test]
fn a_broker_that_hangs_up_instead_of_answering_is_not_answering() {
    let scratch = Scratch::new();
    let _fake = Fake::serve(&scratch, |_| Answer::Close);
    let ran = scratch.run(&["status", "--json"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(json(&ran.stdout)["broker"]["state"], "not_answering");
}

#[test]
fn json_is_the_brokers_document_byte_for_byte_but_for_what_a_terminal_might_obey() {
    let scratch = Scratch::new();
    let exact = r#"{ "schema":1,"new":"é\u0007", "guests":[ ],"broker":{"state":"serving","x":[1,2]} }"#;
    let line = format!("{{\"event\":\"status\",\"data\":{exact},\"id\":ID}}\n");
    let _fake = Fake::serve(&scratch, move |_| Answer::Raw(line.clone()));
    let ran = scratch.run(&["status", "--json"]);
    assert_eq!((ran.code, ran.stdout), (Some(0), format!("{}\n", exact.replace('é', r"\u00e9"))));
    assert_eq!(ran.stderr, "");
}

#[test]
fn an_answer_to_another_question_is_not_taken_for_ours() {
    let scratch = Scratch::new();
    let mine = document("serving", &[guest("devbox", "waiting", Some("stale"))]);
    let lines = format!(
        "{{\"id\":99,\"event\":\"status\",\"data\":{}}}\n{{\"id\":ID,\"event\":\"status\",\"data\":{mine}}}\n",
        document("serving", &[guest("devbox", "reachable", None)])
    );
    let _fake = Fake::serve(&scratch, move |_| Answer::Raw(lines.clone()));
    let ran = scratch.run(&["status", "devbox", "--json"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(json(&ran.stdout), mine);
}

#[test]
fn the_exit_code_says_whether_all_that_were_asked_for_are_reachable() {
    let up = || guest("up", "reachable", None);
    let down = || guest("down", "waiting", Some("stale"));
    for (state, rows, args, code) in [
        ("serving", vec![up(), down()], vec!["status"], 0),
        ("serving", vec![], vec!["status"], 0),
        ("draining", vec![up()], vec!["status"], 1),
        ("serving", vec![up()], vec!["status", "up"], 0),
        ("serving", vec![up(), down()], vec!["status", "up", "down"], 1),
        ("draining", vec![up()], vec!["status", "up"], 0),
    ] {
        for format in [&[][..], &["--json"]] {
            let scratch = Scratch::new();
            let fake = answering(&scratch, document(state, &rows));
            let ran = scratch.run(&[&args, format].concat());
            assert_eq!(ran.code, Some(code), "{state} {args:?} {}", ran.stderr);
            let names =
                if args.len() > 1 { serde_json::json!({"guests": args[1..]}) } else { serde_json::json!({}) };
            assert_eq!(fake.request()["params"], names);
        }
    }
}

#[test]
fn what_the_broker_refuses_is_no_verdict_about_guests() {
    for (error, code) in [("unknown_guest", 6), ("forbidden", 5), ("busy", 5), ("internal", 70)] {
        let scratch = Scratch::new();
        let _fake = Fake::serve(&scratch, move |_| Answer::Error(error));
        let ran = scratch.run(&["status", "ghost", "--json"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{error}");
        assert!(ran.stderr.contains(&format!("the server says {error}")), "{}", ran.stderr);
    }
}

#[test]
fn an_answer_in_another_language_is_an_internal_error() {
    for nonsense in ["HTTP/1.1 400 Bad Request\r\n", "\n", "{\"id\":ID,\"event\":\"status\",\"data\":7}\n"] {
        let scratch = Scratch::new();
        let _fake = Fake::serve(&scratch, move |_| Answer::Raw(nonsense.into()));
        let ran = scratch.run(&["status"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(70), ""), "{nonsense:?} {}", ran.stderr);
    }
}

#[test]
fn the_table_shows_verdict_reason_age_and_window_and_ends_with_a_legend() {
    let scratch = Scratch::new();
    let rows = [guest("builder", "waiting", Some("never_seen")), guest("devbox", "reachable", None)];
    let _fake = answering(&scratch, document("serving", &rows));
    let ran = scratch.run(&["status"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "GUEST     BROKER      REASON       AGE    WINDOW   SESSION   VIA");
    assert_eq!(lines[1], "builder   waiting     never_seen   0.8s   15s      1m00s     tcp 127.0.0.1:51234");
    assert_eq!(lines[2], "devbox    reachable   -            0.8s   15s      1m00s     tcp 127.0.0.1:51234");
    assert_eq!(lines[4], "broker: serving on tcp:127.0.0.1:7070 (pid 4711), 1 of 2 reachable");
    assert!(lines[5].starts_with("reachable:"), "{}", lines[5]);
    assert_eq!(lines.len(), 6);
}

#[test]
fn a_pipe_gets_no_colour_unless_it_asks_for_it() {
    let scratch = Scratch::new();
    let _fake = answering(&scratch, document("serving", &[guest("devbox", "reachable", None)]));
    assert!(!scratch.run(&["status"]).stdout.contains('\u{1b}'));
    assert!(scratch.run(&["status", "--color", "always"]).stdout.contains("\u{1b}[32mreachable\u{1b}[0m"));
    assert!(!scratch.run(&["status", "--color", "never"]).stdout.contains('\u{1b}'));
}

#[test]
fn a_terminal_gets_colour_unless_no_color_says_no() {
    let scratch = Scratch::new();
    let _fake = answering(&scratch, document("serving", &[guest("devbox", "reachable", None)]));
    assert!(on_terminal(&scratch, &["status"], &[]).contains("\u{1b}[32mreachable"));
    assert!(on_terminal(&scratch, &["status"], &[("NO_COLOR", "")]).contains("\u{1b}[32mreachable"));
    assert!(!on_terminal(&scratch, &["status"], &[("NO_COLOR", "1")]).contains('\u{1b}'));
    assert!(!on_terminal(&scratch, &["status"], &[("TERM", "dumb")]).contains('\u{1b}'));
    assert!(!on_terminal(&scratch, &["status", "--color", "never"], &[]).contains('\u{1b}'));
}

/// The program's output on a terminal of its own.
fn on_terminal(scratch: &Scratch, args: &[&str], env: &[(&str, &str)]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = std::fs::File::options().write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = scratch.command(args);
    command.envs(env.iter().copied()).stdout(terminal).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    assert_eq!(common::ended(&mut child, common::HANG), Some(0));
    // The terminal keeps what was written; with nobody left at its other end, reading ends.
    let mut text = vec![];
    let _ = std::fs::File::from(master).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn watch_goes_on_with_a_document_a_line_through_the_brokers_absence_and_ends_with_its_reader() {
    let scratch = Scratch::new();
    let mut running = scratch.start(&["status", "--watch", "--json"]);
    assert_eq!(json(&running.line())["broker"]["state"], "offline");
    let fake = answering(&scratch, document("serving", &[]));
    let began = Instant::now();
    while json(&running.line())["broker"]["state"] != "serving" {
        assert!(began.elapsed() < common::HANG, "the broker was never noticed");
    }
    assert_eq!(fake.request()["method"], "status");
    running.hang_up();
    assert_eq!(running.finish(), (Some(0), String::new()));
}

#[test]
fn a_change_is_shown_before_the_second_is_over() {
    let scratch = Scratch::new();
    let fake = Fake::serve(&scratch, |request| match request["method"].as_str() {
        Some("status") => Answer::Data("status", document("serving", &[])),
        // The stream speaks at once and keeps speaking: every line is a change.
        _ => Answer::Raw(
            "{\"id\":ID,\"event\":\"events\",\"data\":{\"events\":[],\"cursor\":\"1-0\"}}\n\
             {\"event\":\"verdict.changed\",\"data\":{}}\n"
                .into(),
        ),
    });
    let mut running = scratch.start(&["status", "--watch", "--json"]);
    running.line();
    let first = Instant::now();
    running.line();
    assert!(first.elapsed() < Duration::from_millis(900), "{:?}", first.elapsed());
    assert_eq!(fake.request()["method"], "status");
    assert_eq!(fake.request()["params"]["follow"], true);
}

#[test]
fn a_reader_that_leaves_early_changes_neither_code_nor_manners() {
    let scratch = Scratch::new();
    let _fake = answering(&scratch, document("serving", &[guest("devbox", "waiting", Some("stale"))]));
    let mut command = scratch.command(&["status", "devbox"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(common::ended(&mut child, common::HANG), Some(1));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn options_may_stand_before_or_after_the_command_and_an_agents_socket_can_be_asked() {
    let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
    let _fake = answering(&scratch, document("serving", &[]));
    let dir = scratch.path().to_str().unwrap();
    let socket = scratch.socket();
    let socket = socket.to_str().unwrap();
    for args in [
        ["--state-dir", dir, "status"],
        ["status", "--state-dir", dir],
        ["--socket", socket, "status"],
        ["status", "--socket", socket],
    ] {
        assert_eq!(elsewhere.run(&args).code, Some(0), "{args:?}");
    }
    let mut command = elsewhere.command(&["status"]);
    command.env_remove("CASTRA_STATE_DIR").env("CASTRA_AGENT_SOCKET", socket).env("HOME", "/nonexistent");
    assert_eq!(run(&mut command).code, Some(0));
}
