//! The broker as a service: up, down, signals, one per state directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Link, PATIENCE, World, until};

#[test]
fn up_and_down_are_idempotent_and_guests_come_back() {
    let world = World::new();
    let listen = format!("unix:{}", world.path("link.sock").display());
    let up = ["up", "--json", "--listen", &listen, "--window", "900ms", "--interval", "300ms"];
    let first = world.json(&up);
    assert_eq!((&first["ready"], &first["started"]), (&Value::Bool(true), &Value::Bool(true)));
    let second = world.json(&up);
    assert_eq!((&second["started"], &second["pid"]), (&Value::Bool(false), &first["pid"]));
    assert_eq!(second["listen"], first["listen"]);
    assert_eq!(world.read("broker.pid"), format!("{}\n", first["pid"]));

    let agent = world.agent("devbox", &listen, &[]);
    world.wait(&["devbox"], "reachable");
    let epoch = world.row("devbox")["epoch"].as_u64().unwrap();
    let mark = agent.err.mark();
    let down = world.castra(&["down"]);
    assert_eq!(down.code, 0, "{down:?}");
    assert!(down.took < Duration::from_secs(5), "{down:?}");
    let lost = agent.err.after(mark, "link down", PATIENCE);
    assert!(lost.contains("reason=bye"), "the broker took leave of its guests: {lost}");
    for gone in ["control.sock", "broker.pid", "../link.sock"] {
        assert!(!world.state().join(gone).exists(), "{gone} is left behind");
    }
    assert_eq!(world.processes().len(), 1, "only the agent: {:?}", world.processes());
    assert_eq!(world.castra(&["status"]).code, 3);
    assert_eq!(world.castra(&["down"]).code, 0, "there is nothing to stop, which is what was wanted");
    let log = world.read("logs/broker.log");
    assert!(log.contains("broker stopping"), "{log}");

    let third = world.json(&up);
    assert_eq!(third["started"], true);
    assert_ne!(third["pid"], first["pid"]);
    world.wait(&["devbox"], "reachable");
    assert!(world.row("devbox")["epoch"].as_u64().unwrap() > epoch);
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| world.castra(&["down"]).code);
        (one.join().unwrap(), world.castra(&["down"]).code)
    });
    assert_eq!((one, other), (0, 0));
}

#[test]
fn a_second_broker_on_one_state_directory_says_who_is_there_and_changes_nothing() {
    let world = World::new();
    let broker = world.broker(&[]);
    let mode = |name: &str| fs::metadata(world.state().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("control.sock"), mode("state.redb")), (0o700, 0o600, 0o600));
    let ran = world.castra(&["broker", "--listen", "tcp:127.0.0.1:0"]);
    assert_eq!(ran.code, 73, "{ran:?}");
    for said in [&format!("pid {}", broker.process.pid()), broker.address(), "castra down"] {
        assert!(ran.err.contains(said), "it must say {said:?}: {ran:?}");
    }
    assert_eq!(world.json(&["info", "--json"])["pid"], broker.process.pid());
    // Two that start together: one serves, the other finds it.
    let race = World::new();
    let pids = thread::scope(|scope| {
        let up = || race.json(&["up", "--json", "--listen", "tcp:127.0.0.1:0"])["pid"].clone();
        let starts = [scope.spawn(up), scope.spawn(up), scope.spawn(up)];
        starts.map(|start| start.join().unwrap())
    });
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    assert_eq!(race.castra(&["down"]).code, 0);

    // What can't be had is said, at once, and nothing is left of the try.
    let taken = World::new();
    let ran = taken.castra(&["up", "--listen", broker.address()]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains(broker.address()), "{ran:?}");
    assert!(taken.processes().is_empty() && !taken.state().join("control.sock").exists());
}

#[test]
fn hangup_opens_the_logs_again() {
    let world = World::new();
    let broker = world.broker(&[]);
    let logs = world.state().join("logs");
    let here = |name: &str| logs.join(name).exists();
    assert!(until(PATIENCE, || here("broker.log") && here("events.jsonl")));
    for name in ["broker.log", "events.jsonl"] {
        fs::rename(logs.join(name), logs.join(format!("{name}.old"))).unwrap();
    }
    broker.process.signal(Signal::HUP);
    assert!(until(PATIENCE, || here("broker.log") && here("events.jsonl")), "no new file");
    assert_eq!(world.agent("later", broker.address(), &["--once"]).finish(PATIENCE).code, 0);
    let written = || {
        fs::read_to_string(logs.join("broker.log")).unwrap_or_default().contains("hello from vm:later")
            && fs::read_to_string(logs.join("events.jsonl")).unwrap_or_default().contains("handshake.success")
    };
    assert!(until(PATIENCE, written), "{}", world.log());
    assert!(!world.read("logs/broker.log.old").contains("vm:later"));
    assert_eq!(world.castra(&["reload"]).code, 0);
}

#[test]
fn term_takes_leave_of_everybody_and_a_second_signal_ends_at_once() {
    let world = World::new();
    let mut broker = world.broker(&[]);
    let mut guest = Link::join(broker.port(), "devbox");
    let waiting = world.spawn(&["wait", "ghost"]);
    // The question must be there before the leave-taking.
    let asked = || world.control().ask("info", &Value::Null).is_some() && !waiting_pid_is_idle(waiting.pid());
    assert!(until(PATIENCE, asked));
    broker.process.signal(Signal::TERM);
    let bye = guest.answer().unwrap();
    assert_eq!((&bye["type"], &bye["code"]), (&"bye".into(), &"shutdown".into()), "{bye}");
    assert_eq!(bye["retry_after_ms"], 1000);
    guest.drained();
    assert_eq!(broker.process.exit(Duration::from_secs(8)).code(), Some(0));
    let waited = waiting.finish(PATIENCE);
    assert_eq!(waited.code, 3, "a wait that can't be satisfied any more ends: {waited:?}");
    assert!(!world.state().join("control.sock").exists());

    // Both signals are there before it can act on the first.
    let mut broker = world.broker(&[]);
    broker.process.stop();
    broker.process.signal(Signal::TERM);
    broker.process.signal(Signal::INT);
    broker.process.go_on();
    let code = broker.process.exit(Duration::from_secs(8)).code();
    assert!(matches!(code, Some(130 | 143)), "as a shell would report the signal: {code:?}");
    assert!(!world.state().join("control.sock").exists() && !world.state().join("broker.pid").exists());
    // An unclean end takes nothing away from the next one.
    let _broker = world.broker(&[]);
    assert_eq!(world.castra(&["status"]).code, 0);
}

/// Whether a client has not asked yet: it has no socket open.
fn waiting_pid_is_idle(pid: u32) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    !open
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_string_lossy().starts_with("socket:"))
}
