//! Clocks that are wrong, or set while everything runs: the wall clock is shown and decides nothing,
//! and nobody compares the boot clocks of two machines.
//!
//! Needs libfaketime for the first and `unshare --time` for the second, which need not be there
//! (`CASTRA_FAKETIME=required`, `CASTRA_TIME_NAMESPACES=required` say that they must).

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Link, PATIENCE, Process, Watch, World, at, until, verdict, wall_ms};
use crate::tools::{alone, figure, full};

/// How far a time that was read may be from one that is expected.
const NEAR: i64 = 120_000;
const ARGS: [&str; 4] = ["--window", "2s", "--interval", "500ms"];

/// What the wall clock is set to, in seconds off the truth.
fn offsets() -> &'static [i64] {
    if full() { &[3600, -3600, 0, -1, 86_400, 0] } else { &[3600, -3600] }
}

/// Whether a test that can't run must fail instead.
fn missing(variable: &str, what: &str) -> bool {
    assert!(std::env::var_os(variable).is_none_or(|value| value != "required"), "{what}");
    println!("NOT TESTED: {what}");
    true
}

fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    if found.is_none() {
        missing("CASTRA_FAKETIME", "no wall clock was set, for libfaketime (package faketime) is not here");
    }
    found
}

/// A wall clock of one process, which can be set while it runs.
struct WallClock(PathBuf);

impl WallClock {
    fn of(world: &World, name: &str) -> Self {
        let clock = Self(world.path(name));
        clock.set(0);
        clock
    }

    fn apply(&self, library: &std::path::Path, command: &mut Command) {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.0);
        command
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }

    /// So many seconds off the truth.
    fn set(&self, seconds: i64) {
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(next, &self.0).unwrap();
    }
}

fn millis(value: &Value) -> i64 {
    at(&json!({ "at": value }))
}

/// A broker in front of which something is put: its port.
fn serve(world: &World, change: impl FnOnce(&mut Command), args: &[&str]) -> (Process, u16) {
    let mut command = world.command(&[&["broker", "--json", "--listen", "tcp:127.0.0.1:0"], args].concat());
    change(&mut command);
    let process = Process::spawn(command);
    let ready: Value = serde_json::from_str(&process.out.first(PATIENCE)).unwrap();
    let port = ready["listen"][0].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    (process, port)
}

#[test]
fn a_brokers_wall_clock_that_is_set_changes_what_is_shown_and_nothing_else() {
    let _alone = alone();
    let Some(library) = faketime() else { return };
    let world = World::new();
    let clock = WallClock::of(&world, "clock");
    let args = [&ARGS[..], &["--message-ttl", "10m"]].concat();
    let (broker, port) = serve(&world, |command| clock.apply(&library, command), &args);
    let token = world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
    let (token, inbox) = (world.secret("token", &token), world.path("in"));
    let args = ["--inbox", inbox.to_str().unwrap(), "--token-file", &token];
    let agent = world.agent("devbox", &format!("tcp:127.0.0.1:{port}"), &args);
    world.wait(&["devbox"], "reachable");
    // Adopted over its link, with a lease of half a minute.
    world.json(&["adopt", "devbox", "--json"]);
    let attachment = || world.json(&["attachments", "--json"])["attachments"][0].clone();
    let session = attachment()["session_id"].clone();
    // Somebody who is away, and a message that waits for longer than ten minutes of the wall clock.
    let mut away = Link::greeted(port);
    away.prove("away", ",peers-v1");
    away.send_frame(r#"{"type":"peer_policy","policy":"accept"}"#);
    world.json(&["peer", "link", "devbox", "away", "--json"]);
    away.shutdown_write();
    away.drained();
    world.wait(&["away"], "waiting");
    let sent = world.castra(&["peer", "send", "devbox", "away", "still here"]);
    assert!(sent.out.contains("queued"), "{sent:?}");
    let epoch = world.row("devbox")["epoch"].clone();
    let watch = Watch::of(&world.state().join("control.sock"), "devbox");
    let mut cursor = None;
    for seconds in offsets() {
        let offset = seconds * 1000;
        clock.set(*seconds);
        let document = world.control().status().unwrap();
        let off = millis(&document["as_of"]) - wall_ms();
        assert!((off - offset).abs() < NEAR, "shown {off} ms off, set {offset}");
        // The next proof is dated with it, in the row and in the record of castra 0.1's readers.
        let proof = || millis(&world.row("devbox")["last_handshake_at"]) - wall_ms();
        assert!(until(PATIENCE, || (proof() - offset).abs() < NEAR), "{} ms", proof());
        let record = || {
            let record: Value = serde_json::from_str(&world.read("handshakes/devbox.json")).unwrap();
            (record["timestamp"].as_f64().unwrap() * 1000.0) as i64 - wall_ms()
        };
        assert!(until(PATIENCE, || (record() - offset).abs() < NEAR), "{} ms", record());
        // A wait lasts as long as it should, as does whoever dies.
        let waited = world.castra(&["wait", "nobody", "--timeout", "1s"]);
        assert_eq!(waited.code, 4, "{waited:?}");
        assert!(waited.took >= Duration::from_secs(1), "{waited:?}");
        let mut silent = Link::join(port, "silent");
        let began = Instant::now();
        assert!(until(PATIENCE, || world.verdict("silent") == "waiting/stale"));
        assert!(began.elapsed() >= Duration::from_secs(1), "a window is a window: {:?}", began.elapsed());
        silent.shutdown_write();
        silent.drained();
        // A lease of half a minute is neither over nor an hour long.
        let row = attachment();
        let left = row["lease_expires_in_ms"].as_u64().unwrap_or(0);
        assert!((1..=30_000).contains(&left), "{row}");
        assert_eq!((&row["stage"], &row["session_id"]), (&"attached".into(), &session), "{row}");
        // Events go on behind each other, whatever their times say.
        let params = cursor.take().map_or_else(|| json!({}), |cursor: Value| json!({ "since": cursor }));
        let mut events = world.control().ask("events", &params).unwrap().unwrap();
        assert_eq!(events["gap"], Value::Null);
        let last = events["events"].as_array().unwrap().last().unwrap().clone();
        assert!((at(&last) - wall_ms() - offset).abs() < NEAR, "{last}");
        cursor = Some(events["cursor"].take());
        assert_eq!(world.events("peer.message.expired", "").len(), 0, "ten minutes are ten minutes");
    }
    assert_eq!(world.row("devbox")["epoch"], epoch, "one session all the time");
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "reachable", "{row}");
    }
    let mut back = Link::greeted(port);
    back.prove("away", ",peers-v1");
    back.send_frame(r#"{"type":"peer_policy","policy":"accept"}"#);
    let message = loop {
        let frame = back.answer().unwrap();
        if frame["type"] == "peer_message" {
            break frame;
        }
    };
    assert_eq!(message["text"], "still here");
    figure(
        "wall clock of the broker set by +1 h and -1 h: one session, reachable throughout; a message with 10 min to live and a lease of 30 s kept",
    );
    agent.kill();
    broker.kill();
}

#[test]
fn an_agents_wall_clock_that_is_set_changes_nothing_on_the_host() {
    let _alone = alone();
    let Some(library) = faketime() else { return };
    let world = World::new();
    let clock = WallClock::of(&world, "clock");
    let broker = world.broker(&ARGS);
    let socket = world.path("devbox.sock");
    let inbox = world.path("in");
    let mut command = world.command(&[
        "agent",
        "--name",
        "devbox",
        "--connect",
        broker.address(),
        "--socket",
        socket.to_str().unwrap(),
        "--inbox",
        inbox.to_str().unwrap(),
    ]);
    clock.apply(&library, &mut command);
    let agent = Process::spawn(command);
    world.wait(&["devbox"], "reachable");
    let mut other = Link::greeted(broker.port());
    other.prove("other", ",peers-v1");
    other.send_frame(r#"{"type":"peer_policy","policy":"accept"}"#);
    world.json(&["peer", "link", "other", "devbox", "--json"]);
    let epoch = world.row("devbox")["epoch"].clone();
    let watch = Watch::of(&world.state().join("control.sock"), "devbox");
    for seconds in offsets() {
        clock.set(*seconds);
        let handshakes = || world.row("devbox")["handshakes"].as_u64().unwrap();
        let now = handshakes();
        assert!(until(PATIENCE, || handshakes() > now + 1), "it goes on proving itself");
        let row = world.row("devbox");
        assert!((millis(&row["last_handshake_at"]) - wall_ms()).abs() < NEAR, "the host's own clock: {row}");
        let sent = world.castra(&["peer", "send", "other", "devbox", "x"]);
        assert!(sent.out.contains("delivered"), "{sent:?}");
    }
    assert_eq!(world.row("devbox")["epoch"], epoch);
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "reachable", "{row}");
    }
    figure(
        "wall clock of an agent set by +1 h and -1 h: one session, reachable throughout, messages delivered",
    );
    agent.kill();
    broker.process.kill();
}

/// A command on a machine that has been up for an hour longer than this one.
fn elsewhere(inner: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-current-user",
        "--time",
        "--monotonic",
        "3600",
        "--boottime",
        "3600",
        "--",
    ]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn a_broker_and_an_agent_that_were_started_an_hour_apart_never_notice() {
    let _alone = alone();
    // Its own process: `unshare` puts only children there.
    let up = |command: &mut Command| {
        let output = command.output().ok()?;
        String::from_utf8_lossy(&output.stdout).split('.').next()?.parse::<i64>().ok()
    };
    let (here, there) = (up(Command::new("cat").arg("/proc/uptime")), {
        let mut inner = Command::new("cat");
        inner.arg("/proc/uptime");
        up(&mut elsewhere(&inner))
    });
    if !matches!((here, there), (Some(here), Some(there)) if there - here >= 3590) {
        let what = format!("no boot clocks apart, for `unshare --time` gives {there:?} where it is {here:?}");
        assert!(missing("CASTRA_TIME_NAMESPACES", &what));
        return;
    }
    for agent_there in [true, false] {
        let world = World::new();
        let args = [&["broker", "--json", "--listen", "tcp:127.0.0.1:0"][..], &ARGS].concat();
        let place =
            |command: Command, there: bool| Process::spawn(if there { elsewhere(&command) } else { command });
        let broker = place(world.command(&args), !agent_there);
        let ready: Value = serde_json::from_str(&broker.out.first(PATIENCE)).unwrap();
        let (address, socket) = (ready["listen"][0].as_str().unwrap(), world.path("devbox.sock"));
        let args = ["agent", "--name", "devbox", "--connect", address, "--socket", socket.to_str().unwrap()];
        let agent = place(world.command(&args), agent_there);
        world.wait(&["devbox"], "reachable");
        let watch = Watch::of(&world.state().join("control.sock"), "devbox");
        let handshakes = || world.row("devbox")["handshakes"].as_u64().unwrap();
        assert!(until(PATIENCE, || handshakes() >= 5));
        let row = world.row("devbox");
        assert!(row["session_age_ms"].as_u64().unwrap() < 60_000, "{row}");
        for (_, row) in watch.finish() {
            assert_eq!(verdict(&row), "reachable", "{row}");
        }
        agent.kill();
        assert!(until(PATIENCE, || world.verdict("devbox").starts_with("waiting/")));
        broker.kill();
    }
    figure("boot clocks of broker and agent an hour apart, either way: reachable throughout, ages right");
}
