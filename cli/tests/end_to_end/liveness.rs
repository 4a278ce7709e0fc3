//! A guest boots, freezes, thaws, dies, leaves: what is said of it, and how soon.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{PATIENCE, Proxy, Watch, World, Yardstick, at, until, verdict, wall_ms};

const QUICK: [&str; 4] = ["--window", "900ms", "--interval", "300ms"];

/// Changes to reachable after `since`.
fn proofs_of_life(world: &World, name: &str, since: i64) -> Vec<Value> {
    let mut events = world.events("verdict.changed", name);
    events.retain(|event| event["to"] == "reachable" && at(event) >= since);
    events
}

#[test]
fn a_guest_that_boots_is_waiting_then_reachable_and_waiting_again_at_once_when_killed() {
    let world = World::new();
    let broker = world.broker(&["--guest", "devbox"]);
    let row = world.row("devbox");
    assert_eq!(verdict(&row), "waiting/never_seen");
    for field in ["last_handshake_age_ms", "last_handshake_at", "session_age_ms", "epoch", "remote"] {
        assert!(row[field].is_null(), "{field} of a guest that was never seen: {row}");
    }
    assert_eq!(row["window_ms"], 15_000);
    assert_eq!(world.castra(&["status"]).code, 0, "the broker serves");
    assert_eq!(world.castra(&["status", "devbox"]).code, 1, "the guest is not reachable");

    // Somebody waits before anybody is there.
    let waiting = world.spawn(&["wait", "devbox", "--json", "--timeout", "20s"]);
    let agent = world.agent("devbox", broker.address(), &["--capability", "metrics"]);
    let waited = waiting.finish(PATIENCE);
    assert_eq!((waited.code, &waited.json()["satisfied"]), (0, &Value::Bool(true)), "{waited:?}");
    let row = world.row("devbox");
    assert_eq!(verdict(&row), "reachable");
    assert_eq!((&row["proven"], &row["authenticated"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(row["transport"], "tcp");
    assert_eq!(row["capabilities"], serde_json::json!(["attach-v1", "metrics", "peers-v1", "proof-v1"]));
    assert!(row["last_handshake_age_ms"].as_u64().unwrap() <= 15_000);
    assert_eq!(world.castra(&["status", "devbox"]).code, 0);
    let text = world.castra(&["status"]).out;
    assert!(text.lines().any(|line| line.starts_with("devbox") && line.contains("reachable")), "{text}");
    assert_eq!(world.castra(&["ping", "devbox", "-c", "1"]).code, 0);

    let killed = wall_ms();
    agent.kill();
    world.wait(&["devbox"], "waiting");
    assert_eq!(world.verdict("devbox"), "waiting/disconnected");
    let lost = world.events("verdict.changed", "devbox").pop().unwrap();
    assert_eq!(lost["reason"], "disconnected");
    assert!((0..1000).contains(&(at(&lost) - killed)), "at once, not after a window: {lost}");

    let mut agent = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    // The broker knows first: an agent that has not read its `ok` yet has nobody to take leave of.
    agent.err.after(0, "link up", PATIENCE);
    agent.signal(Signal::TERM);
    assert_eq!(agent.exit(PATIENCE).code(), Some(0));
    world.wait(&["devbox"], "waiting");
    assert_eq!(world.verdict("devbox"), "waiting/goodbye");
}

#[test]
fn a_stopped_agent_is_not_reachable_a_window_and_a_tenth_of_a_second_later() {
    const NAMES: [&str; 3] = ["one", "two", "three"];
    let world = World::new();
    let broker = world.broker(&QUICK);
    let agents = NAMES.map(|name| world.agent(name, broker.address(), &[]));
    world.wait(&NAMES, "reachable");
    let socket = world.state().join("control.sock");
    let watches = NAMES.map(|name| Watch::of(&socket, name));
    let yardstick = Yardstick::start();
    let asked = wall_ms();
    for agent in &agents {
        agent.stop();
    }
    let stopped = wall_ms();
    world.wait(&NAMES, "waiting");
    let late = yardstick.finish();
    let seen = watches.map(Watch::finish);
    for (name, seen) in NAMES.iter().zip(seen) {
        let lost = world.events("verdict.changed", name).pop().unwrap();
        assert_eq!((&lost["to"], &lost["reason"]), (&"waiting".into(), &"stale".into()), "{lost}");
        // The broker's own account: as old as the window, and hardly older.
        let age = lost["age_ms"].as_u64().unwrap();
        assert!((900..=1000 + late).contains(&age), "late by {late} ms ourselves: {lost}");
        // As seen from outside.
        let bound = stopped + 1000 + late as i64;
        assert!(at(&lost) >= asked && at(&lost) <= bound, "stopped at {stopped}: {lost}");
        let last = seen.iter().rev().find(|(_, row)| row["reachable"] == true).unwrap();
        assert!(last.0 <= bound + late as i64 + 50, "stopped at {stopped}, still reachable at {}", last.0);
        assert_eq!(world.verdict(name), "waiting/stale");
    }
    // A link that is open proves nothing: the session stands, the verdict does not.
    assert!(world.row("one")["session_age_ms"].is_u64());
    assert_eq!(world.castra(&["ping", "one", "-c", "1", "--timeout", "300ms"]).code, 4);
    std::thread::sleep(Duration::from_millis(400));
    for agent in &agents {
        agent.go_on();
    }
    world.wait(&NAMES, "reachable");
    // What the broker asked meanwhile lies there: a thawed agent hears it before it
    // judges the broker by its own clock.
    for name in NAMES {
        let ends = world.events("session.closed", name);
        assert!(ends.is_empty(), "{name} gave its session up: {ends:?}");
    }
}

#[test]
fn bytes_that_were_held_longer_than_the_window_never_make_a_guest_reachable() {
    const WINDOW: u64 = 1500;
    let world = World::new();
    let broker = world.broker(&["--window", "1500ms", "--interval", "500ms"]);
    let socket = world.state().join("control.sock");
    let handshakes = || world.row("devbox")["handshakes"].as_u64().unwrap();
    let mut arrived = false;
    // The broker knows its last four challenges: the held answer must be older than
    // the window and younger than those. A slow machine may need more than one try.
    for _ in 0..5 {
        let proxy = Proxy::to(broker.port(), Duration::ZERO);
        let agent = world.agent("devbox", &proxy.address, &[]);
        world.wait(&["devbox"], "reachable");
        let count = handshakes();
        assert!(until(PATIENCE, || handshakes() > count), "keepalives");
        // The next answer stays in the proxy; then the guest is silent.
        proxy.hold();
        std::thread::sleep(Duration::from_millis(750));
        agent.stop();
        let frozen = Instant::now();
        world.wait(&["devbox"], "waiting");
        assert_eq!(world.verdict("devbox"), "waiting/stale");
        std::thread::sleep(Duration::from_millis(WINDOW + 20).saturating_sub(frozen.elapsed()));

        let count = handshakes();
        let watch = Watch::of(&socket, "devbox");
        let released = wall_ms();
        proxy.release();
        std::thread::sleep(Duration::from_millis(WINDOW));
        for (_, row) in watch.finish() {
            assert_eq!(verdict(&row), "waiting/stale", "{row}");
            assert!(row["last_handshake_age_ms"].as_u64().unwrap() > WINDOW, "{row}");
        }
        assert_eq!(proofs_of_life(&world, "devbox", released), [] as [Value; 0]);
        arrived = handshakes() > count;
        // Only a new answer counts.
        agent.go_on();
        world.wait(&["devbox"], "reachable");
        if arrived {
            break;
        }
        agent.kill();
        world.wait(&["devbox"], "waiting");
    }
    assert!(arrived, "the held proof must count, as an old one, for this to be a test");
}

#[test]
fn a_guest_whose_every_byte_is_late_by_more_than_the_window_is_never_reachable() {
    let world = World::new();
    let broker = world.broker(&[
        "--window",
        "900ms",
        "--interval",
        "300ms",
        "--handshake-timeout",
        "10s",
        "--guest",
        "devbox",
    ]);
    let proxy = Proxy::to(broker.port(), Duration::from_millis(1100));
    let socket = world.state().join("control.sock");
    let watch = Watch::of(&socket, "devbox");
    let _agent = world.agent("devbox", &proxy.address, &[]);
    // Its handshake succeeds, and so do its later proofs: they are right, and old.
    let handshakes = || world.row("devbox")["handshakes"].as_u64().unwrap();
    assert!(until(PATIENCE, || handshakes() >= 4), "{}", world.row("devbox"));
    let late = world.spawn(&["wait", "devbox", "--timeout", "500ms"]).finish(PATIENCE);
    assert_eq!(late.code, 4, "{late:?}");
    for (_, row) in watch.finish() {
        assert_eq!(row["state"], "waiting", "{row}");
        assert!(row["last_handshake_age_ms"].as_u64().is_none_or(|age| age > 900), "{row}");
    }
    assert_eq!(proofs_of_life(&world, "devbox", 0), [] as [Value; 0]);
    assert_eq!(world.events("handshake.success", "devbox").len(), 1);
    assert_eq!(world.verdict("devbox"), "waiting/stale");
}
