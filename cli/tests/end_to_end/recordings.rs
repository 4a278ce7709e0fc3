//! What a broker or an agent recorded, replayed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{PATIENCE, World, until};

const QUICK: [&str; 4] = ["--window", "900ms", "--interval", "300ms"];

/// A broker that records to `name`.
fn recording(name: &str) -> Vec<&str> {
    [&QUICK[..], &["--guest", "devbox", "--record", name]].concat()
}

#[test]
fn a_busy_brokers_recording_is_equal_and_one_changed_byte_is_told_with_its_line() {
    let world = World::new();
    let (path, agent_path) = (world.path("broker.trace.jsonl"), world.path("agent.trace.jsonl"));
    let (file, agent_file) = (path.to_str().unwrap(), agent_path.to_str().unwrap());
    let mut broker = world.broker(&recording(file));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(broker.process.err.after(0, "keep it secret", PATIENCE).contains(file));

    let mut devbox = world.agent("devbox", broker.address(), &["--record", agent_file]);
    world.wait(&["devbox"], "reachable");
    devbox.stop();
    world.wait(&["devbox"], "waiting");
    devbox.go_on();
    world.wait(&["devbox"], "reachable");
    assert_eq!(world.castra(&["ping", "devbox", "-c", "2", "-i", "10ms"]).code, 0);
    let token = world.json(&["token", "issue", "keyed", "--json"])["token"].as_str().unwrap().to_owned();
    let token_file = world.secret("token", &token);
    let mut keyed = world.agent("keyed", broker.address(), &["--token-file", &token_file]);
    world.wait(&["keyed"], "reachable");
    assert_eq!(world.castra(&["status"]).code, 0);
    broker.process.signal(Signal::HUP);
    let reloaded = until(PATIENCE, || !world.events("broker.reloaded", "").is_empty());
    assert!(reloaded, "{}", world.log());
    keyed.signal(Signal::TERM);
    assert!(keyed.exit(PATIENCE).success());
    world.wait(&["keyed"], "waiting");
    broker.process.signal(Signal::TERM);
    assert!(broker.process.exit(PATIENCE).success());
    devbox.signal(Signal::TERM);
    assert!(devbox.exit(PATIENCE).success());

    let report = world.json(&["replay", file, "--json"]);
    assert_eq!((&report["equal"], &report["engine"]), (&Value::Bool(true), &"broker".into()), "{report}");
    assert_eq!((&report["ended"], &report["difference"]), (&"complete".into(), &Value::Null), "{report}");
    assert!(report["inputs"].as_u64() > Some(40) && report["events"].as_u64() > Some(8), "{report}");
    let ran = world.castra(&["replay", file]);
    assert!(ran.code == 0 && ran.out.starts_with("equal: ") && ran.err.is_empty(), "{ran:?}");
    let report = world.json(&["replay", agent_file, "--json"]);
    assert_eq!((&report["equal"], &report["engine"]), (&Value::Bool(true), &"agent".into()), "{report}");

    // The token that the broker made comes from the seed, and the broker's own words are its outputs.
    let trace = fs::read_to_string(&path).unwrap();
    assert!(trace.contains(&token), "the trace holds what a replay needs: it is a secret");
    assert!(!world.log().contains(&token) && !broker.process.err.text().contains(&token));
    let other_token = if token.starts_with('0') { "1" } else { "0" }.to_owned() + &token[1..];
    for (from, to) in [("castra-broker 0.1 ready", "castra-broker 0.1 reaey"), (&*token, &*other_token)] {
        let place = trace.find(from).unwrap();
        let line = trace[..place].matches('\n').count() + 1;
        let changed = world.secret("changed.jsonl", &trace.replacen(from, to, 1));
        let ran = world.castra(&["replay", &changed, "--json"]);
        assert_eq!((ran.code, &ran.json()["equal"]), (1, &Value::Bool(false)), "{ran:?}");
        assert_eq!(ran.json()["difference"]["line"], line, "{ran:?}");
        let ran = world.castra(&["replay", &changed]);
        assert!(ran.out.starts_with(&format!("different: line {line}, ")), "{ran:?}");
        let ran = world.castra(&["replay", &changed, "--quiet"]);
        assert!(ran.code == 1 && ran.out.is_empty() && ran.err.is_empty(), "{ran:?}");
    }
    let broken = world.secret("broken.jsonl", &trace.replacen("\"out\"", "\"oui\"", 1));
    let ran = world.castra(&["replay", &broken]);
    assert!(ran.code == 2 && ran.err.contains("line 2: ") && ran.err.contains("damaged"), "{ran:?}");

    let older = world.secret("older.jsonl", &trace.replacen(env!("CARGO_PKG_VERSION"), "0.1.99", 1));
    let ran = world.castra(&["replay", &older]);
    assert!(ran.code == 0 && ran.err.contains("recorded by castra 0.1.99"), "{ran:?}");
}

#[test]
fn a_killed_brokers_recording_is_equal_up_to_its_end() {
    let world = World::new();
    let path = world.path("killed.trace.jsonl");
    let file = path.to_str().unwrap();
    let broker = world.broker(&recording(file));
    let agents: Vec<_> =
        ["devbox", "builder", "other"].iter().map(|name| world.agent(name, broker.address(), &[])).collect();
    world.wait(&["devbox", "builder", "other"], "reachable");
    let grown = until(PATIENCE, || fs::read_to_string(&path).unwrap().matches(r#""proof\""#).count() > 5);
    assert!(grown, "what happens reaches the file while the broker runs");
    broker.process.kill();
    drop(agents);

    let report = world.json(&["replay", file, "--json"]);
    assert_eq!((&report["equal"], &report["ended"]), (&Value::Bool(true), &"cut".into()), "{report}");
    let trace = fs::read(&path).unwrap();
    let whole = trace.iter().rposition(|byte| *byte == b'\n').unwrap();
    fs::write(&path, &trace[..whole - 3]).unwrap();
    let ran = world.castra(&["replay", file]);
    assert!(ran.code == 0 && ran.out.contains("cut off within a line"), "{ran:?}");
    assert_eq!(world.json(&["replay", file, "--json"])["torn"], true);
}

#[test]
fn a_recording_is_never_written_over() {
    let world = World::new();
    let file = world.secret("precious", "mine\n");
    for args in [
        vec!["broker", "--listen", "tcp:127.0.0.1:0", "--record", &file],
        vec!["agent", "--name", "devbox", "--connect", "tcp:127.0.0.1:1", "--record", &file],
    ] {
        let ran = world.castra(&args);
        assert!(ran.code == 2 && ran.err.contains("never written over"), "{ran:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine\n");
    let ran = world.castra(&["replay", &file]);
    assert!(ran.code == 2 && ran.err.contains("line 1: this is no trace"), "{ran:?}");
    assert_eq!(world.castra(&["replay", "/nonexistent/trace"]).code, 2);
}
