//! Commands that are done and over.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::{HANG, Scratch, ended, run};
use crate::fake::Fake;

fn served() -> (Scratch, Fake) {
    let scratch = Scratch::new();
    let fake = Fake::serve(scratch.path());
    (scratch, fake)
}

#[test]
fn new_starts_what_it_is_told_here_and_leaves_it_free() {
    let (scratch, fake) = served();
    let mut command = scratch.command(&["term", "new", "build", "--env", "A=b=c", "--size", "132x43"]);
    command.args(["--", "make", "-j4"]).current_dir(scratch.path());
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "#1\n", ""));
    let terminal = fake.terminal(1);
    assert_eq!(terminal.key.as_deref(), Some("build"));
    assert_eq!((terminal.cols, terminal.rows), (132, 43));
    assert_eq!(terminal.command, ["make", "-j4"]);
    assert_eq!(terminal.env, ["A=b=c"]);
    assert_eq!(terminal.cwd.as_deref(), scratch.path().to_str());
    assert_eq!(terminal.owner, None, "the next command would be refused");
    let again = scratch.run(&["term", "new", "build"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    assert!(again.stderr.contains("castra term attach build"), "{}", again.stderr);
    let nowhere = scratch.run(&["term", "new", "other", "--cwd", "/nonexistent"]);
    assert_eq!(nowhere.code, Some(2), "{}", nowhere.stderr);
}

#[test]
fn without_a_server_every_command_exits_3_at_once_and_says_what_to_do() {
    let scratch = Scratch::new();
    for args in [
        &["term", "new", "build"][..],
        &["term", "ls"],
        &["term", "send", "build", "x"],
        &["term", "snapshot", "build"],
        &["term", "resize", "build", "80x24"],
        &["term", "signal", "build", "INT"],
        &["term", "kill", "build"],
        &["term", "wait", "build"],
        &["term", "log", "build"],
        &["terminals", "stats"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{args:?} {}", ran.stderr);
        assert!(ran.stderr.contains("castra up --terminals"), "{args:?} {}", ran.stderr);
        assert!(ran.stderr.contains("castra terminals serve"), "{args:?} {}", ran.stderr);
    }
}

#[test]
fn what_makes_no_sense_exits_2_and_nothing_is_asked() {
    let (scratch, fake) = served();
    for args in [
        &["term"][..],
        &["term", "new"],
        &["term", "new", "#7"],
        &["term", "new", "build", "--size", "80"],
        &["term", "new", "build", "--env", "A"],
        &["term", "new", "build", "--attach"],
        &["term", "attach", "build"],
        &["term", "attach", "build", "--observe", "--takeover"],
        &["term", "send", "build"],
        &["term", "send", "build", "x", "--stdin"],
        &["term", "snapshot", "build", "--ansi", "--json"],
        &["term", "resize", "build", "0x0"],
        &["term", "wait", "build", "--for", "ever"],
        &["term", "attach", "a/"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?} {}", ran.stderr);
        assert!(!ran.stderr.is_empty());
    }
    assert_eq!(fake.asked(), [""; 0]);
}

#[test]
fn a_name_that_nobody_has_exits_6_and_a_number_is_a_name_too() {
    let (scratch, fake) = served();
    let id = fake.add("build");
    for args in [&["term", "send", "other", "x"][..], &["term", "kill", "#7"], &["term", "wait", "other"]] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(6), "{}", ran.stderr);
        assert!(ran.stderr.contains("`castra term ls`"), "{}", ran.stderr);
    }
    assert_eq!(scratch.run(&["term", "send", &format!("#{id}"), "x"]).code, Some(0));
    assert_eq!(fake.terminal(id).typed, b"x");
}

#[test]
fn what_is_sent_is_typed_as_it_stands_and_the_terminal_is_free_again() {
    let (scratch, fake) = served();
    let id = fake.add("build");
    assert_eq!(scratch.run(&["term", "send", "build", "make", "test", "--enter"]).code, Some(0));
    assert_eq!(scratch.run(&["term", "send", "build", "--enter"]).code, Some(0));
    assert_eq!(scratch.run(&["term", "send", "build", "--", "-x"]).code, Some(0));
    assert_eq!(fake.terminal(id).typed, b"make test\r\r-x");
    assert_eq!(fake.terminal(id).owner, None);
    let long: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let mut command = scratch.command(&["term", "send", "build", "--stdin"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&long).unwrap();
    assert_eq!(ended(&mut child, HANG), Some(0));
    assert!(fake.terminal(id).typed[13..] == long, "not byte for byte");
}

#[test]
fn a_program_that_does_not_read_is_a_timeout_and_nothing_is_typed_twice() {
    let (scratch, fake) = served();
    let id = fake.add("build");
    fake.change(id, |terminal| terminal.full = true);
    let ran = scratch.run(&["term", "send", "build", "x", "--timeout", "200ms"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("has not read"), "{}", ran.stderr);
    assert_eq!(fake.terminal(id).typed, b"");
}

#[test]
fn whom_the_terminal_belongs_to_is_told_and_how_to_take_it_over() {
    let (scratch, fake) = served();
    let id = fake.add("build");
    fake.change(id, |terminal| terminal.owner = Some("ann\u{1b}@box:7".into()));
    for args in [
        &["term", "send", "build", "x"][..],
        &["term", "resize", "build", "80x24"],
        &["term", "signal", "build", "INT"],
        &["term", "kill", "build"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(5), "{args:?} {}", ran.stderr);
        assert!(ran.stderr.starts_with("castra: ann\\u{1b}@box:7 owns it"), "{}", ran.stderr);
        assert!(ran.stderr.contains("castra term attach build --takeover"), "{}", ran.stderr);
    }
    let terminal = fake.terminal(id);
    assert!(terminal.typed.is_empty() && terminal.signals.is_empty() && terminal.exit.is_none());
    assert_eq!(terminal.owner.as_deref(), Some("ann\u{1b}@box:7"));
}

#[test]
fn a_terminal_gets_its_size_its_signal_and_its_end() {
    let (scratch, fake) = served();
    let id = fake.add("build");
    assert_eq!(scratch.run(&["term", "resize", "build", "132x43"]).code, Some(0));
    assert_eq!(scratch.run(&["term", "signal", "build", "sigint"]).code, Some(0));
    let wrong = scratch.run(&["term", "signal", "build", "NONSENSE"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("HUP, INT, QUIT"), "{}", wrong.stderr);
    let killed = scratch.run(&["term", "kill", "build"]);
    assert_eq!(killed.code, Some(0), "{}", killed.stderr);
    let terminal = fake.terminal(id);
    assert_eq!((terminal.cols, terminal.rows, terminal.owner), (132, 43, None));
    assert_eq!(terminal.signals, ["sigint"]);
    assert!(terminal.exit.is_some());
    assert_eq!(scratch.run(&["term", "kill", "build"]).code, Some(6), "it has ended");
}

#[test]
fn the_list_says_what_there_is_and_json_says_it_all() {
    let (scratch, fake) = served();
    let empty = scratch.run(&["term", "ls"]);
    assert_eq!(empty.code, Some(0));
    assert!(empty.stderr.contains("no terminals: `castra term new NAME`"), "{}", empty.stderr);
    let (build, old) = (fake.add("build"), fake.add("old"));
    fake.change(build, |terminal| {
        terminal.command = vec!["make".into(), "two words".into()];
        terminal.owner = Some("ann@box:7".into());
        terminal.recovery = Some("adopted".into());
    });
    fake.exit(old, 137, Some(9));
    let listed = scratch.run(&["term", "ls"]);
    let lines: Vec<Vec<&str>> = listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATE", "SIZE", "OWNER", "WATCHERS", "AGE", "COMMAND"]);
    assert_eq!(lines[1][..6], ["build", "running,", "adopted", "80x24", "ann@box:7", "0"]);
    assert_eq!(lines[1][7..], ["make", "'two", "words'"]);
    assert_eq!(lines[2][..5], ["old", "exited", "(signal", "KILL)", "80x24"]);
    let document: Value = serde_json::from_str(&scratch.run(&["term", "ls", "--json"]).stdout).unwrap();
    let rows = document["terminals"].as_array().unwrap();
    assert_eq!(rows[0]["name"], "build");
    assert_eq!(rows[0]["guest"], Value::Null);
    assert_eq!(rows[0]["command"], json!(["make", "two words"]));
    assert_eq!((&rows[1]["exit_code"], &rows[1]["exit_signal"]), (&json!(137), &json!(9)));
    // Every word of it is explained.
    let help = scratch.run(&["term", "ls", "--help"]).stdout;
    for word in rows[0].as_object().unwrap().keys() {
        assert!(
            help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|have| have == word),
            "{word}"
        );
    }
}

#[test]
fn a_snapshot_is_text_or_sequences_or_a_document() {
    let (scratch, fake) = served();
    let id = fake.add("build");
    fake.output(id, "\u{1b}[1;31mred\u{1b}[0m\r\n\u{65e5}\u{672c}".as_bytes());
    let text = scratch.run(&["term", "snapshot", "build"]);
    assert_eq!((text.code, text.stdout.as_str()), (Some(0), "[picture 80x24]\nred\n\u{65e5}\u{672c}\n"));
    let ansi = scratch.run(&["term", "snapshot", "build", "--ansi"]).stdout;
    assert!(ansi.starts_with("\u{1b}c[picture") && ansi.contains("\u{1b}[1;31mred"), "{ansi:?}");
    let json = scratch.run(&["term", "snapshot", "build", "--json", "--history", "7"]).stdout;
    let document: Value = serde_json::from_str(&json).unwrap();
    assert!(json.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{json:?}");
    assert_eq!((&document["cols"], &document["title"]), (&json!(80), &json!("t\u{1b}itle")));
    let help = scratch.run(&["term", "snapshot", "--help"]).stdout;
    for word in document.as_object().unwrap().keys() {
        assert!(help.contains(word.as_str()), "{word}");
    }
    let asked = fake.asked().join(" ");
    assert!(asked.contains("history_lines: Some(7)") && asked.contains("history_lines: Some(0)"), "{asked}");
    assert!(!asked.contains("Attach"), "nobody is disturbed: {asked}");
}

#[test]
fn the_end_of_a_program_is_waited_for_and_told() {
    let (scratch, fake) = served();
    for (name, code, signal, exit, words) in [
        ("good", 0, None, 0, "good exited 0\n"),
        ("bad", 3, None, 1, "bad exited 3\n"),
        ("killed", 137, Some(9), 1, "killed exited 137 (signal KILL)\n"),
        ("lost", -1, None, 1, "lost is gone, and nobody knows how it ended\n"),
    ] {
        let id = fake.add(name);
        let mut waiting = scratch.start(&["term", "wait", name, "--for", "exit"]);
        fake.until_attached(id);
        fake.output(id, b"still here");
        fake.exit(id, code, signal);
        assert_eq!(waiting.line() + "\n", words);
        assert_eq!(waiting.finish(), (Some(exit), String::new()));
        // It is told again, as long as it is listed.
        let again = scratch.run(&["term", "wait", name]);
        assert_eq!((again.code, again.stdout.as_str()), (Some(exit), words));
    }
    let json: Value =
        serde_json::from_str(&scratch.run(&["term", "wait", "killed", "--json"]).stdout).unwrap();
    assert_eq!(json, json!({"name": "killed", "guest": null, "id": 3, "exit_code": 137, "exit_signal": 9}));
    fake.add("runs");
    let late = scratch.run(&["term", "wait", "runs", "--timeout", "100ms"]);
    assert_eq!((late.code, late.stdout.as_str()), (Some(4), ""), "{}", late.stderr);
    assert!(late.stderr.contains("still runs after 100ms"), "{}", late.stderr);
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_told() {
    let (scratch, fake) = served();
    fake.add("build");
    fake.silence();
    for args in [
        &["term", "ls", "--timeout", "200ms"][..],
        &["term", "send", "build", "x", "--timeout", "200ms"],
        &["term", "wait", "build", "--timeout", "200ms"],
        &["terminals", "stats", "--timeout", "200ms"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(3), "{args:?} {}", ran.stderr);
        assert!(ran.stderr.contains("did not answer within 200ms"), "{args:?} {}", ran.stderr);
        assert!(ran.took < std::time::Duration::from_secs(5), "{args:?} {:?}", ran.took);
    }
}

#[test]
fn a_wrong_or_missing_token_says_where_it_is_looked_for() {
    let (scratch, _fake) = served();
    scratch.write("terminals.token", "wrong");
    let wrong = scratch.run(&["term", "ls"]);
    assert_eq!(wrong.code, Some(5), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("--terminals-token"), "{}", wrong.stderr);
    std::fs::remove_file(scratch.path().join("terminals.token")).unwrap();
    let missing = scratch.run(&["term", "ls"]);
    assert_eq!(missing.code, Some(5), "{}", missing.stderr);
    assert!(missing.stderr.contains("terminals.token"), "{}", missing.stderr);
    scratch.write("elsewhere", crate::fake::TOKEN);
    let told = scratch.path().join("elsewhere");
    let ran = scratch.run(&["term", "ls", "--terminals-token", told.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn a_published_daemons_variables_say_where_the_server_is() {
    let (scratch, fake) = served();
    fake.add("build");
    let elsewhere = Scratch::new();
    let mut command = elsewhere.command(&["term", "ls", "--json"]);
    command.env_remove("CASTRA_STATE_DIR").env("HOME", elsewhere.path());
    command.env("RUST_PTY_SOCKET_PATH", scratch.path().join("terminals.sock"));
    command.env("RUST_PTY_TOKEN_PATH", scratch.path().join("terminals.token"));
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("\"build\""), "{}", ran.stdout);
}

#[test]
fn counters_are_told_by_name() {
    let (scratch, _fake) = served();
    let ran = scratch.run(&["terminals", "stats"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "sessions        1\nowner_denials   12\n"));
    let ran = scratch.run(&["terminals", "stats", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ran.stdout).unwrap(),
        json!({"sessions": 1, "owner_denials": 12})
    );
}

#[test]
fn under_the_daemons_name_there_are_no_arguments_and_a_place_is_needed() {
    let scratch = Scratch::new();
    let program = scratch.path().join("castra-ptyd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_castra"), &program).unwrap();
    let start = |args: &[&str]| run(std::process::Command::new(&program).env_clear().args(args));
    let argument = start(&["status"]);
    assert_eq!(argument.code, Some(2), "{}", argument.stderr);
    assert!(argument.stderr.contains("takes no arguments"), "{}", argument.stderr);
    let nowhere = start(&[]);
    assert_eq!(nowhere.code, Some(2), "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains("RUST_PTY_SOCKET_PATH nor HOME"), "{}", nowhere.stderr);
}

#[test]
fn terminals_beside_a_broker_or_an_agent_are_asked_for_before_they_are_set_up() {
    let scratch = Scratch::new();
    for args in [
        &["broker", "--terminals-restore", "all"][..],
        &["broker", "--terminals", "--terminals-restore", "some"],
        &["up", "--terminals-on-stop", "end"],
        &["agent", "--name", "a", "--connect", "tcp:127.0.0.1:1", "--terminals-screen", "off"],
        &["terminals", "serve", "--on-stop", "never"],
        &["terminals"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(2), "{args:?} {}", ran.stderr);
    }
}

#[test]
fn help_explains_each_command_with_examples() {
    let scratch = Scratch::new();
    for args in [
        &["help", "term"][..],
        &["term", "new", "--help"],
        &["term", "ls", "--help"],
        &["term", "attach", "--help"],
        &["term", "send", "--help"],
        &["term", "snapshot", "--help"],
        &["term", "resize", "--help"],
        &["term", "signal", "--help"],
        &["term", "kill", "--help"],
        &["term", "wait", "--help"],
        &["term", "log", "--help"],
        &["terminals", "serve", "--help"],
        &["terminals", "stats", "--help"],
    ] {
        let ran = scratch.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}");
        assert!(ran.stdout.contains("Example"), "{args:?}: {}", ran.stdout);
    }
    let attach = scratch.run(&["term", "attach", "--help"]).stdout;
    assert!(attach.contains("Ctrl-\\ d") && attach.contains("Ctrl-\\ Ctrl-\\"), "{attach}");
}
