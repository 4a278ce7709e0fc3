//! A disk without room under each file in turn: the program lives on, its verdicts stay
//! true, what has to be durable fails as documented and did not happen, and with room
//! again everything works again, without a restart.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::room::{Limited, Room};
use crate::support::{Broker, PATIENCE, Process, Ran, World, until};

pub(crate) const QUICK: [&str; 4] = ["--window", "900ms", "--interval", "300ms"];

pub(crate) fn ended(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.out.contains(word) || ran.err.contains(word), "no {word:?}: {ran:?}");
    }
}

/// A guest that freezes isn't reachable, and one that goes on is.
fn verdicts_are_true(world: &World, guest: &Process) {
    guest.stop();
    world.wait(&["devbox"], "waiting");
    assert_eq!(world.verdict("devbox"), "waiting/stale");
    guest.go_on();
    world.wait(&["devbox"], "reachable");
}

/// Whom `devbox` knows.
fn relations(world: &World) -> Vec<Value> {
    let known = world.json(&["peers", "devbox", "--json"]);
    known["peers"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect()
}

fn inbox(world: &World) -> Vec<Value> {
    let inbox = world.json(&["inbox", "builder", "--json"]);
    inbox["messages"].as_array().unwrap().iter().map(|message| message["id"].clone()).collect()
}

/// Everything durable that a broker is asked for.
fn durable(world: &World) -> [Ran; 4] {
    [
        world.castra(&["token", "issue", "keyed"]),
        world.castra(&["peer", "link", "devbox", "third"]),
        world.castra(&["peer", "unlink", "devbox", "builder"]),
        world.castra(&["peer", "send", "devbox", "builder", "text"]),
    ]
}

/// They fail as documented, and nothing is different afterwards.
fn nothing_durable_happens(world: &World) {
    let before = relations(world);
    for ran in durable(world) {
        ended(&ran, 70, &["storage_failed"]);
    }
    assert_eq!(relations(world), before);
    assert_eq!(world.json(&["token", "list", "--json"])["tokens"], json!([]));
    assert!(inbox(world).is_empty());
}

/// They succeed; and then nobody would know that they ever failed.
fn everything_durable_happens(world: &World) {
    assert!(until(PATIENCE, || world.castra(&["token", "issue", "first"]).code == 0), "{}", world.log());
    assert_eq!(world.castra(&["peer", "link", "devbox", "builder"]).code, 0);
    assert_eq!(world.castra(&["token", "issue", "keyed"]).code, 0);
    assert_eq!(world.castra(&["peer", "link", "devbox", "third"]).code, 0);
    assert_eq!(world.castra(&["peer", "send", "devbox", "builder", "text"]).code, 0);
    assert_eq!(inbox(world).len(), 1);
}

pub(crate) fn broker(world: &World, args: &[&str]) -> Broker {
    let guests = ["--guest", "devbox", "--guest", "builder", "--guest", "third"];
    world.broker(&[&QUICK[..], &guests, &["--background"], args].concat())
}

fn told(world: &World, kind: &str, what: &str) -> usize {
    world.events(kind, "").iter().filter(|event| event["what"] == what).count()
}

fn log_grows(world: &World, log: &Path) {
    let length = || fs::metadata(log).map_or(0, |found| found.len());
    let before = length();
    assert_eq!(world.castra(&["token", "issue", "another"]).code, 0);
    assert!(until(PATIENCE, || length() > before), "the log stays as it was: {}", log.display());
}

#[test]
fn a_full_disk_under_the_state_directory_costs_what_is_durable_and_nothing_else() {
    let world = World::new();
    let Some(room) = Room::new(6 * 1024) else { return };
    room.holds_state_of(&world);
    let broker = broker(&world, &[]);
    let guest = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    assert_eq!(world.castra(&["peer", "link", "devbox", "builder"]).code, 0);
    for round in 1..=2 {
        room.fill();
        // What redb has room for in its file still goes in: only this is sure to fail.
        let large = "x".repeat(32_000);
        let refused = until(PATIENCE, || {
            world.castra(&["peer", "send", "devbox", "third", &large]).code == 70
                || world.castra(&["peer", "send", "devbox", "builder", &large]).code == 70
        });
        assert!(refused, "round {round}: the disk never was full");
        verdicts_are_true(&world, &guest);
        assert!(
            told(&world, "storage.failed", "database") >= round,
            "{:?}",
            world.events("storage.failed", "")
        );
        let before = inbox(&world);
        let ran = world.castra(&["peer", "send", "devbox", "builder", &large]);
        ended(&ran, 70, &["storage_failed"]);
        assert_eq!(inbox(&world), before);
        room.free();
        assert!(until(PATIENCE, || world.castra(&["peer", "send", "devbox", "builder", "small"]).code == 0));
        log_grows(&world, &world.state().join("logs/broker.log"));
        let record = world.state().join("handshakes/devbox.json");
        let written = || fs::metadata(&record).and_then(|found| found.modified()).ok();
        let before = written();
        assert!(until(PATIENCE, || written() > before), "no record is written any more");
    }
    let leftovers = fs::read_dir(world.state().join("handshakes")).unwrap().flatten();
    let leftovers: Vec<_> =
        leftovers.filter(|entry| entry.path().extension().is_some_and(|e| e == "tmp")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    let acknowledged = inbox(&world);
    assert_eq!(world.castra(&["down"]).code, 0);
    drop((guest, broker));
    let _next = self::broker(&world, &[]);
    assert_eq!(inbox(&world), acknowledged);
}

#[test]
fn files_that_may_not_grow_are_errors_of_their_callers_and_one_line_of_the_broker() {
    let world = World::new();
    let broker = broker(&world, &[]);
    let guest = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    assert_eq!(world.castra(&["peer", "link", "devbox", "builder"]).code, 0);
    let limited = Limited::to(broker.process.pid(), 0);
    let mark = broker.process.err.mark();
    nothing_durable_happens(&world);
    for _ in 0..3 {
        verdicts_are_true(&world, &guest);
    }
    assert!(until(PATIENCE, || told(&world, "storage.failed", "records") == 1));
    assert!(told(&world, "storage.failed", "database") >= 1);
    // Many batches of lines were lost, and nobody who reads stderr drowns in it.
    let said = || broker.process.err.text().lines().skip(mark).map(str::to_owned).collect::<Vec<_>>();
    assert!((1..=4).contains(&said().len()), "{:#?}", said());
    assert!(said()[0].contains("log lines"), "{:#?}", said());
    drop(limited);
    everything_durable_happens(&world);
    log_grows(&world, &world.state().join("logs/broker.log"));
    log_grows(&world, &world.state().join("logs/events.jsonl"));
    verdicts_are_true(&world, &guest);
    assert!(until(PATIENCE, || told(&world, "storage.recovered", "records") == 1));
    assert!(world.log().contains("storage recovered what=log"), "{}", world.log());
    assert_eq!(world.castra(&["down"]).code, 0);
}

#[test]
fn each_file_that_has_no_room_fails_alone() {
    let world = World::new();
    let (Some(logs), Some(records)) = (Room::new(64), Room::new(64)) else { return };
    let (log, events) = (logs.text("broker.log"), logs.path("events.jsonl"));
    let handshakes = records.text("handshakes");
    let args = ["--logfile", &log, "--handshake-dir", &handshakes];
    let broker = broker(&world, &args);
    let guest = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    assert!(until(PATIENCE, || fs::metadata(&log).is_ok_and(|found| found.len() > 0)));

    logs.fill();
    verdicts_are_true(&world, &guest);
    assert!(until(PATIENCE, || {
        verdicts_are_true(&world, &guest);
        broker.process.err.text().contains("log lines")
    }));
    everything_durable_happens(&world);
    assert_eq!(
        (told(&world, "storage.failed", "database"), told(&world, "storage.failed", "records")),
        (0, 0)
    );
    logs.free();
    log_grows(&world, Path::new(&log));
    log_grows(&world, &events);
    // No line is torn: what was lost is lost whole.
    let whole = fs::read_to_string(&events).unwrap();
    assert!(whole.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{whole}");

    records.fill();
    verdicts_are_true(&world, &guest);
    assert!(until(PATIENCE, || told(&world, "storage.failed", "records") == 1), "{}", world.log());
    let record = || fs::read(records.path("handshakes/devbox.json")).unwrap();
    assert!(serde_json::from_slice::<Value>(&record()).is_ok(), "readers see a part of a record");
    let before = record();
    assert_eq!(world.castra(&["peer", "send", "devbox", "builder", "more"]).code, 0);
    records.free();
    assert!(until(PATIENCE, || record() != before), "no record is written any more");
    assert_eq!(world.castra(&["down"]).code, 0);
}

#[test]
fn a_broker_that_finds_no_room_at_its_start_says_which_file_and_leaves_nothing_behind() {
    let world = World::new();
    let Some(room) = Room::new(64) else { return };
    room.fill();
    room.holds_state_of(&world);
    let start = |args: &[&str]| {
        let listen = ["broker", "--listen", "tcp:127.0.0.1:0"];
        world.castra(&[&listen[..], args].concat())
    };
    ended(&start(&[]), 70, &["No space left on device"]);
    let ran = world.castra(&["up", "--listen", "tcp:127.0.0.1:0"]);
    assert_eq!(ran.code, 70, "{ran:?}");
    let elsewhere = world.path("elsewhere");
    let pidfile = room.text("broker.pid");
    let args = ["--state-dir", elsewhere.to_str().unwrap(), "--pidfile", &pidfile];
    ended(&start(&args), 70, &["broker.pid", "No space left on device"]);
    for path in [world.state().join("control.sock"), elsewhere.join("control.sock"), room.path("broker.pid")]
    {
        assert!(!path.exists(), "{} is left", path.display());
    }
    assert_eq!(world.castra(&["status"]).code, 3);
    room.free();
    let broker = world.broker(&QUICK);
    assert_eq!(world.castra(&["status"]).code, 0);
    drop(broker);
}

#[test]
fn a_recording_whose_disk_is_full_ends_and_the_broker_does_not() {
    let world = World::new();
    let Some(room) = Room::new(256) else { return };
    let trace = room.text("broker.trace.jsonl");
    let broker = broker(&world, &["--record", &trace]);
    let guest = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    room.fill();
    let over = until(PATIENCE, || {
        world.castra(&["ping", "devbox", "-c", "20", "-i", "1ms"]);
        world.log().contains("ended: ")
    });
    assert!(over, "{}", world.log());
    verdicts_are_true(&world, &guest);
    everything_durable_happens(&world);
    room.free();
    let before = fs::metadata(&trace).unwrap().len();
    verdicts_are_true(&world, &guest);
    assert_eq!(world.castra(&["down"]).code, 0);
    let ran = world.castra(&["replay", &trace]);
    let after = fs::metadata(&trace).unwrap().len();
    // It may have said at its end that it was stopped; it never goes on after a hole.
    assert!(after < before + 4096 && matches!(ran.code, 0 | 2), "{before} {after} {ran:?}");
}

#[test]
fn an_agent_without_room_for_its_inbox_acknowledges_nothing_and_gets_all_of_it_later() {
    let world = World::new();
    let Some(room) = Room::new(2 * 1024) else { return };
    let broker = broker(&world, &[]);
    let inbox = room.text("inbox");
    let agent = world.agent("devbox", broker.address(), &["--inbox", &inbox]);
    world.wait(&["devbox"], "reachable");
    assert_eq!(world.castra(&["peer", "link", "builder", "devbox"]).code, 0);
    let send = |text: &str| ended(&world.castra(&["peer", "send", "builder", "devbox", text]), 0, &[]);
    let delivered = || world.events("peer.message.delivered", "devbox").len();
    send("first");
    assert!(until(PATIENCE, || delivered() == 1));
    room.fill();
    // Until there is no room in the database's own file either.
    let large = "y".repeat(32_000);
    let mut sent = 1;
    let refused = until(PATIENCE, || {
        send(&large);
        sent += 1;
        agent.err.text().contains("storage failed")
    });
    assert!(refused, "{}", agent.err.text());
    let stuck = delivered();
    assert!(stuck < sent);
    assert_eq!(world.verdict("devbox"), "reachable");
    room.free();
    send("last");
    assert!(until(PATIENCE, || delivered() == sent + 1), "{} of {}", delivered(), sent + 1);
    let socket = world.path("devbox.sock");
    let held = world.json(&["inbox", "--json", "--socket", socket.to_str().unwrap()]);
    assert_eq!(held["messages"].as_array().unwrap().len(), sent + 1, "each once");
    assert!(agent.err.text().contains("storage recovered"), "{}", agent.err.text());
}

#[test]
fn a_journal_of_terminals_that_may_not_grow_costs_new_terminals_and_the_broker_nothing() {
    let world = World::new();
    let broker = broker(&world, &["--terminals", "--terminals-on-stop", "end"]);
    let guest = world.agent("devbox", broker.address(), &[]);
    let run = |args: &[&str]| world.castra(&[&["term"], args].concat());
    ended(&run(&["new", "kept", "--", "sleep", "600"]), 0, &[]);
    let limited = Limited::to(broker.process.pid(), 4096);
    ended(&run(&["new", "more", "--", "sleep", "600"]), 70, &["written down"]);
    ended(&run(&["ls"]), 0, &["kept"]);
    world.wait(&["devbox"], "reachable");
    verdicts_are_true(&world, &guest);
    drop(limited);
    assert!(until(PATIENCE, || run(&["new", "again", "--", "sleep", "600"]).code == 0));
    ended(&run(&["ls"]), 0, &["kept", "again"]);
    assert_eq!(world.castra(&["down"]).code, 0);
    drop((guest, broker));
    assert!(until(PATIENCE, || world.processes().is_empty()));
}
