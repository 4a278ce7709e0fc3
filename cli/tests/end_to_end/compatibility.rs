//! What castra 0.1 programs give and expect: arguments, files, guests.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use castra_core::time::WallTime;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Link, PATIENCE, Process, World, until, verdict, wall_ms};

#[test]
fn the_old_command_line_serves_and_its_files_are_whole_at_every_moment() {
    let world = World::new();
    let (root, records) = (world.path("old"), world.path("old/records"));
    let (pidfile, logfile) = (root.join("broker.pid"), world.path("old/logs/broker.log"));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (pid_arg, log_arg, dir_arg) = (text(&pidfile), text(&logfile), text(&records));
    let args = ["--port", "0", "--pidfile", &pid_arg, "--logfile", &log_arg, "--handshake-dir", &dir_arg];
    // The pid file's folder is the state directory, whatever else is said around it.
    let mut command = world.command(&["broker", "--json"]);
    command.args(args).env_remove("CASTRA_STATE_DIR");
    let mut broker = Process::spawn(command);
    let ready: Value = serde_json::from_str(&broker.out.first(PATIENCE)).unwrap();
    assert_eq!(ready["control"], text(&root.join("control.sock")).as_str());
    let address = ready["listen"][0].as_str().unwrap();
    let port: u16 = address.strip_prefix("tcp:127.0.0.1:").unwrap().parse().unwrap();
    assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", broker.pid()));

    // Readers look at the records all the time while guests come and go.
    let done = AtomicBool::new(false);
    let names: Vec<String> = (0..6).map(|number| format!("vm-{number}")).collect();
    let (read, parsed) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut seen) = (0, BTreeSet::new());
            while !done.load(Ordering::Relaxed) {
                for path in json_files(&records) {
                    let Ok(content) = fs::read(&path) else { continue };
                    let record: Value = serde_json::from_slice(&content)
                        .unwrap_or_else(|error| panic!("{}: {error}: {content:?}", path.display()));
                    assert_eq!(record["vm"], path.file_stem().unwrap().to_str().unwrap());
                    reads += 1;
                    seen.insert((record["vm"].to_string(), record["timestamp"].as_u64().unwrap()));
                }
            }
            (reads, seen.len())
        });
        let end = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < end {
            for name in &names {
                Link::greeted(port).prove(name, " once");
            }
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(read > 100, "the reader must have met writers: {read} reads");
    assert!(parsed > names.len(), "records must have changed meanwhile: {parsed}");

    let mut guest = Link::greeted(port);
    guest.send(b"hello vm:devbox capabilities=proof-v1,Metrics,audio\n");
    let nonce = guest.line().split(' ').nth(1).unwrap().to_owned();
    guest.send(format!("proof {nonce}\n").as_bytes());
    guest.line();
    assert!(until(PATIENCE, || records.join("devbox.json").exists()));
    let record: Value = serde_json::from_slice(&fs::read(records.join("devbox.json")).unwrap()).unwrap();
    assert_eq!(record["capabilities"], json!(["audio", "Metrics", "proof-v1"]));
    let age = wall_ms() / 1000 - record["timestamp"].as_i64().unwrap();
    assert!((0..5).contains(&age), "{record}");

    let mut refused = Link::greeted(port);
    refused.send(b"nonsense\n");
    assert!(refused.line().starts_with("error: bad-line: "));
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit(PATIENCE).code(), Some(0));
    assert!(!pidfile.exists(), "a pid file of nobody would be a lie");
    let left: Vec<_> = fs::read_dir(&records).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");

    let events = fs::read_to_string(records.join("handshake-events.jsonl")).unwrap();
    let granted = r#"","capabilities":["proof-v1"],"session_kind":"guest","session_outcome":"granted","remote_addr":"127.0.0.1:"#;
    let devbox = events.lines().find(|line| line.contains("\"devbox\"")).unwrap();
    assert!(devbox.starts_with(r#"{"timestamp":"#), "{devbox}");
    assert!(devbox.contains(r#","vm":"devbox","capabilities":["audio","Metrics","proof-v1"],"session_kind":"guest","session_outcome":"granted","remote_addr":"127.0.0.1:"#), "{devbox}");
    assert!(events.lines().any(|line| line.contains(granted)), "{events}");
    let denied = events.lines().find(|line| line.contains("denied")).unwrap();
    assert!(denied.contains(r#"[],"session_kind":"guest","session_outcome":"denied","reason":"protocol-error","remote_addr":"127.0.0.1:"#), "{denied}");
    check_log(&fs::read_to_string(&logfile).unwrap());
}

fn json_files(folder: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect()
}

/// Every line has a full time and one prefix; every session has one greeting,
/// before it makes its guest reachable.
fn check_log(log: &str) {
    let mut greeted = BTreeSet::new();
    let mut welcome: Vec<String> = vec![];
    assert!(log.lines().count() > 10);
    for line in log.lines() {
        let (stamp, rest) = line.split_once(' ').unwrap();
        assert!(stamp.ends_with('Z'), "{line}");
        serde_json::from_value::<WallTime>(stamp.into()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let rest = rest.strip_prefix("[host-broker] ").unwrap_or_else(|| panic!("no prefix: {line}"));
        assert!(!rest.contains("[host-broker]"), "two prefixes: {line}");
        let (level, text) = rest.split_once(' ').unwrap();
        assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line}");
        if let Some(hello) = text.strip_prefix("hello from vm:") {
            let mut words = hello.split(' ');
            welcome.push(words.next().unwrap().to_owned());
            assert!(greeted.insert(words.next().unwrap().to_owned()), "greeted twice: {line}");
        }
        if text.contains(" to=reachable") {
            let name = text.split_once("vm=").unwrap().1.split(' ').next().unwrap();
            assert!(welcome.iter().any(|greeted| greeted == name), "reachable before its greeting: {line}");
        }
    }
    assert!(welcome.len() > 6);
}

#[test]
fn every_session_is_greeted_once_before_it_is_reachable() {
    let world = World::new();
    let broker = world.broker(&["--window", "600ms", "--interval", "200ms"]);
    for _ in 0..2 {
        let agent = world.agent("devbox", broker.address(), &[]);
        world.wait(&["devbox"], "reachable");
        agent.stop();
        world.wait(&["devbox"], "waiting");
        agent.go_on();
        world.wait(&["devbox"], "reachable");
        agent.kill();
        world.wait(&["devbox"], "waiting");
    }
    assert_eq!(world.castra(&["down"]).code, 0);
    let log = world.log();
    // A thawed agent may keep its session or begin another: each has its greeting.
    let (mut greeted, mut greetings, mut reachable) = (false, 0, 0);
    for line in log.lines() {
        if line.contains("hello from vm:devbox ") {
            assert!(!greeted, "greeted twice: {line} in\n{log}");
            (greeted, greetings) = (true, greetings + 1);
        } else if line.contains("session closed vm=devbox ") {
            assert!(greeted, "closed before its greeting: {line} in\n{log}");
            greeted = false;
        } else if line.contains(" vm=devbox ") && line.contains(" to=reachable ") {
            assert!(greeted, "reachable before its greeting: {line} in\n{log}");
            reachable += 1;
        }
    }
    assert!(greetings >= 2 && reachable >= 4, "{log}");
}

#[test]
fn a_guest_of_castra_0_1_is_a_claim_that_counts_only_where_the_operator_says_so() {
    let claim = |port| {
        let mut guest = Link::greeted(port);
        guest.send(b"hello vm:old-0 capabilities=bus-v1,metrics\n");
        let ok = guest.line();
        assert!(ok.starts_with("ok session=sess-"), "{ok}");
        guest.send_frame(r#"{"type":"heartbeat"}"#);
        let ack = guest.payload().unwrap();
        assert_eq!(ack, br#"{"ack":"heartbeat","status":"ok","type":"ack"}"#);
        guest
    };
    let shell = |port| {
        let mut guest = Link::greeted(port);
        guest.send(b"hello vm:shell\n");
        assert_eq!(guest.line(), "ok");
        assert_eq!(guest.try_line(), None);
    };

    let world = World::new();
    let broker = world.broker(&[]);
    let _guest = claim(broker.port());
    shell(broker.port());
    for name in ["old-0", "shell"] {
        let row = world.row(name);
        assert_eq!(
            (verdict(&row).as_str(), &row["proven"]),
            ("waiting/unproven", &Value::Bool(false)),
            "{row}"
        );
        assert!(row["last_handshake_age_ms"].is_null(), "a claim is no handshake: {row}");
    }
    assert_eq!(world.castra(&["status", "old-0"]).code, 1);
    assert_eq!(world.castra(&["wait", "old-0", "--timeout", "300ms"]).code, 4);
    assert_eq!(world.castra(&["down"]).code, 0);
    let records = json_files(&world.state().join("handshakes"));
    assert!(records.is_empty(), "a 0.1 reader would believe the record: {records:?}");

    let world = World::new();
    let broker = world.broker(&["--accept-unproven", "--window", "900ms", "--interval", "300ms"]);
    let mut guest = claim(broker.port());
    shell(broker.port());
    for name in ["old-0", "shell"] {
        let row = world.row(name);
        assert_eq!((verdict(&row).as_str(), &row["proven"]), ("reachable", &Value::Bool(false)), "{row}");
        assert_eq!(row["warnings"], json!(["unproven"]));
    }
    let table = world.castra(&["status", "old-0", "shell"]);
    assert_eq!(table.code, 0);
    assert!(table.out.contains("unproven"), "the warning is everywhere: {}", table.out);
    let recorded = || json_files(&world.state().join("handshakes")).len() == 2;
    assert!(until(PATIENCE, recorded));
    // It, too, has a window.
    world.wait(&["old-0", "shell"], "waiting");
    guest.send_frame(r#"{"type":"heartbeat"}"#);
    world.wait(&["old-0"], "reachable");
    assert_eq!(world.verdict("shell"), "waiting/stale");
    drop(guest);
    world.wait(&["old-0"], "waiting");
}
