//! The broker itself dies, starts again, or does not run for a while.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Link, PATIENCE, Watch, World, at, until, verdict, wall_ms};

/// How long the broker does not run.
const STALL: Duration = Duration::from_secs(20);

#[test]
fn a_killed_broker_is_offline_and_its_successor_believes_only_new_proofs() {
    let world = World::new();
    // Not a port, which somebody else could take meanwhile.
    let listen = format!("unix:{}", world.path("link.sock").display());
    let args = ["--listen", &listen, "--window", "900ms", "--interval", "300ms"];
    let broker = world.broker(&args);
    let agent = world.agent("devbox", &listen, &[]);
    world.wait(&["devbox"], "reachable");
    let before = world.row("devbox");
    let recorded = || world.state().join("handshakes/devbox.json").exists();
    assert!(until(PATIENCE, recorded), "the record is written behind");

    broker.process.kill();
    let ran = world.castra(&["status", "--json"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.took < Duration::from_secs(1), "{ran:?}");
    let document = ran.json();
    assert_eq!(document["broker"]["state"], "offline");
    let row = &document["guests"][0];
    assert_eq!((verdict(row).as_str(), &row["reachable"]), ("offline/no_broker", &Value::Bool(false)));
    assert!(row["last_handshake_at"].is_string() && row["last_handshake_age_ms"].is_null(), "{row}");
    let table = world.castra(&["status", "devbox"]);
    assert_eq!(table.code, 3);
    assert!(table.out.contains("offline"), "{table:?}");
    for command in [&["wait", "devbox"][..], &["ping", "devbox"], &["info"], &["events"], &["token", "list"]]
    {
        let ran = world.castra(command);
        assert_eq!(ran.code, 3, "{command:?}: {ran:?}");
        assert!(ran.took < Duration::from_secs(1), "nobody is waited for: {ran:?}");
        assert!(ran.err.contains("castra up"), "what to do: {ran:?}");
    }

    // The sockets of the dead one are in the way of nobody. While the agent is
    // held, nobody is reachable, whatever the records say.
    agent.stop();
    let broker = world.broker(&args);
    let row = world.row("devbox");
    assert_eq!(verdict(&row), "waiting/broker_started");
    assert!(row["last_handshake_age_ms"].is_null() && row["epoch"].is_null(), "{row}");
    assert!(row["last_handshake_at"].is_string(), "it was seen before: {row}");
    let watch = Watch::of(&world.state().join("control.sock"), "devbox");
    std::thread::sleep(Duration::from_millis(1200));
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "waiting/broker_started");
    }
    agent.go_on();
    world.wait(&["devbox"], "reachable");
    let after = world.row("devbox");
    let epoch = |row: &Value| row["epoch"].as_u64().unwrap();
    assert!(epoch(&after) >> 32 > epoch(&before) >> 32, "{after} after {before}");
    drop(broker);
}

/// 20 s are many windows of the second broker and less than one of the first.
#[test]
fn a_broker_that_did_not_run_for_20_s_blames_nobody_and_believes_nobody() {
    let (patient, strict) = (World::new(), World::new());
    let unix = |world: &World| format!("unix:{}", world.path("link.sock").display());
    let listen = unix(&patient);
    let long = patient.broker(&["--listen", &listen, "--window", "30s", "--interval", "9s"]);
    let _alive = patient.agent("alive", &listen, &[]);
    let dying = patient.agent("dying", &listen, &[]);
    patient.wait(&["alive", "dying"], "reachable");

    let listen = unix(&strict);
    let short = strict.broker(&["--listen", &listen, "--window", "3s", "--interval", "1s"]);
    let _agent = strict.agent("agent", &listen, &[]);
    let frozen = strict.agent("frozen", &listen, &[]);
    let join = |name| {
        let mut link = Link::unix(&strict.path("link.sock"));
        link.line();
        link.prove(name, "");
        link
    };
    let steady = join("steady").live();
    // It lives, as far as its socket goes, and answers nothing.
    let mute = join("mute");
    strict.wait(&["agent", "frozen", "steady", "mute"], "reachable");

    let began = Instant::now();
    long.process.stop();
    short.process.stop();
    frozen.stop();
    dying.kill();
    // Questions that are asked while it does not run are answered after it.
    let socket = patient.state().join("control.sock");
    let patient_watches = ["alive", "dying"].map(|name| (name, Watch::of(&socket, name)));
    let socket = strict.state().join("control.sock");
    let strict_watches = ["agent", "frozen", "steady", "mute"].map(|name| (name, Watch::of(&socket, name)));
    for world in [&patient, &strict] {
        let ran = world.castra(&["status", "--json"]);
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!((900..2500).contains(&ran.took.as_millis()), "its bound is 1 s: {ran:?}");
        let document = ran.json();
        assert_eq!(document["broker"]["state"], "not_answering");
        for row in document["guests"].as_array().unwrap() {
            assert_eq!(verdict(row), "offline/broker_not_answering");
            assert_eq!(row["reachable"], false);
        }
        assert!(!document["guests"].as_array().unwrap().is_empty(), "the records name them");
    }
    std::thread::sleep(STALL.saturating_sub(began.elapsed()));
    let woken = wall_ms();
    long.process.go_on();
    short.process.go_on();

    // A window later everybody had a chance, and the excuse is over.
    patient.wait(&["alive"], "reachable");
    strict.wait(&["agent", "steady"], "reachable");
    let excused = || strict.verdict("mute") == "waiting/stale";
    assert!(until(Duration::from_secs(8), excused), "{}", strict.row("mute"));

    for (name, watch) in patient_watches.into_iter().chain(strict_watches) {
        let seen = watch.finish();
        assert!(!seen.is_empty(), "{name} was never asked for");
        for (when, row) in &seen {
            let (verdict, since) = (verdict(row), when - woken);
            let fair = match name {
                // Its newest proof is younger than 30 s all the time.
                "alive" => verdict == "reachable",
                "dying" if since > 1000 => verdict == "waiting/disconnected",
                "dying" => true,
                // It left when nobody asked for three intervals, and came again.
                "agent" => !verdict.ends_with("stale"),
                "steady" => matches!(verdict.as_str(), "waiting/broker_stalled" | "reachable"),
                _ => matches!(verdict.as_str(), "waiting/broker_stalled" | "waiting/stale"),
            };
            assert!(fair, "{name} is said to be {verdict} {since} ms after the broker went on: {row}");
            if verdict == "waiting/stale" {
                assert!(since > 2900, "blamed before a window had passed: {row}");
            }
            if name == "alive" && since < 200 {
                let age = row["last_handshake_age_ms"].as_u64().unwrap();
                assert!(!(1500..19_000).contains(&age), "the stall is age, or there is a new proof: {row}");
            }
        }
    }
    let stalled = strict.events("broker.stalled", "");
    assert_eq!(stalled.len(), 1, "{stalled:?}");
    assert!(stalled[0]["late_ms"].as_u64().unwrap() > 15_000, "{stalled:?}");
    let blamed = |event: &Value| event["reason"] == "stale" && at(event) < woken + 2900;
    for world in [&patient, &strict] {
        let changes = world.events("verdict.changed", "");
        assert!(!changes.iter().any(blamed), "{changes:#?}");
    }
    assert_eq!(patient.events("verdict.changed", "alive").len(), 1, "it became reachable once");

    frozen.go_on();
    strict.wait(&["frozen"], "reachable");
    let mut short = short;
    short.process.signal(Signal::TERM);
    assert_eq!(short.process.exit(PATIENCE).code(), Some(0));
    steady.join().unwrap();
    drop(mute);
}
