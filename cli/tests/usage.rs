//! The command line itself.

#![allow(clippy::unwrap_used)]

mod common;

use common::Scratch;

#[test]
fn what_makes_no_sense_exits_2_and_prints_nothing_on_standard_output() {
    let scratch = Scratch::new();
    for args in [
        &[][..],
        &["nonsense"],
        &["status", "no/name"],
        &["status", "--timeout", "5"],
        &["wait"],
        &["wait", "devbox", "--for", "offline"],
        &["ping", "devbox", "-c", "0"],
        &["events", "--since", "yesterday"],
        &["token", "issue", "devbox", "--json", "--out", "x"],
        &["broker", "--window", "14s"],
        &["up", "--window", "14s"],
        &["broker", "--listen", "carrier-pigeon:7"],
        &["broker", "--listen", "tcp:127.0.0.1:0", "--port", "7070"],
        &["broker", "--socket", "/x"],
        &["agent", "--name", "devbox"],
        &["agent", "--name", "devbox", "--connect", "nowhere"],
        &["agent", "--name", "devbox", "--connect", "tcp:127.0.0.1:1", "--capability", "a,b"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?} was refused without a word");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "something was touched");
}

#[test]
fn a_short_window_is_refused_with_the_rule() {
    let ran = Scratch::new().run(&["broker", "--window", "14s"]);
    assert!(
        ran.stderr.contains("the window (14000 ms) must hold at least three intervals"),
        "{}",
        ran.stderr
    );
}

#[test]
fn help_is_asked_for_and_so_it_is_a_success() {
    let scratch = Scratch::new();
    for command in
        ["status", "wait", "ping", "events", "logs", "up", "down", "broker", "agent", "demo", "sim"]
    {
        let ran = scratch.run(&[command, "--help"]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("Usage: castra"), "{command}");
    }
    assert!(scratch.run(&["--version"]).stdout.starts_with("castra "));
}

#[test]
fn an_agents_token_is_never_told_even_when_it_is_wrong() {
    let scratch = Scratch::new();
    let secret = "not-a-token-but-secret-all-the-same";
    let mut command =
        scratch.command(&["agent", "--name", "devbox", "--connect", "tcp:127.0.0.1:1", "--once"]);
    let ran = common::run(command.env("CASTRA_TOKEN", secret));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("CASTRA_TOKEN") && !ran.stderr.contains(secret), "{}", ran.stderr);
}
