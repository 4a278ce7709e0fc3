//! castra.toml and start commands.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, getsid, kill_process};
use serde_json::json;

use crate::support::{PATIENCE, Ran, World, until};

fn ended(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word) || ran.out.contains(word), "{word:?} is missing: {ran:?}");
    }
}

#[test]
fn a_guest_that_is_off_is_started_once_and_outlives_the_broker() {
    let world = World::new();
    let link = world.path("link.sock");
    let listen = format!("unix:{}", link.display());
    let go = world.path("go");
    fs::create_dir(world.state()).unwrap();
    let agent = format!(
        "{} agent --name devbox --connect {listen} --socket {}",
        env!("CARGO_BIN_EXE_castra"),
        world.path("devbox.sock").display()
    );
    let config = format!(
        "[guests.devbox]\nstart = '''echo $$ > {pid}; exec {agent}'''\n\
         [guests.failing]\nstart = 'echo \"$CASTRA_GUEST is no domain\" >&2; exit 3'\n\
         [guests.slow]\nstart = 'while [ -d \"$CASTRA_STATE_DIR\" ] && [ ! -e {go} ]; do sleep 0.05; done'\n\
         [guests.plain]\n",
        pid = world.path("pid").display(),
        go = go.display(),
    );
    fs::write(world.path("other.toml"), &config).unwrap();
    let path = world.path("other.toml");
    let args = ["--listen", &listen, "--config", path.to_str().unwrap()];
    let broker = world.broker(&args);
    assert_eq!(world.verdict("plain"), "waiting/never_seen", "known from the start");
    let restored = world.json(&["restore", "devbox", "--json"]);
    assert_eq!(restored, json!({"guest": "devbox", "started": true}));
    assert_eq!(world.verdict("devbox"), "reachable");
    ended(&world.castra(&["restore", "devbox"]), 0, &["devbox is reachable already"]);
    let failed = world.castra(&["restore", "failing"]);
    ended(&failed, 5, &["(refused)", "exited 3; its last line: failing is no domain"]);
    ended(
        &world.castra(&["restore", "plain"]),
        5,
        &["(refused)", "known, but not restorable", "castra.toml"],
    );
    ended(&world.castra(&["restore", "nobody"]), 6, &["(unknown_guest)", "castra status"]);
    let slow = world.castra(&["restore", "slow", "--timeout", "300ms"]);
    ended(&slow, 4, &["(timeout)", "logs/start-slow.log"]);
    assert!(slow.took < Duration::from_secs(5), "{slow:?}");
    // Two states of what is off: one of them can be brought back.
    let link = world.castra(&["peer", "link", "slow", "plain"]);
    assert_eq!(link.code, 0, "{link:?}");
    let state =
        |of: &str, index: usize| world.json(&["peers", of, "--json"])["peers"][index]["state"].clone();
    assert_eq!((state("slow", 0), state("slow", 1)), (json!("restorable"), json!("known")));

    let pid: i32 = fs::read_to_string(world.path("pid")).unwrap().trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    assert_eq!(getsid(Some(pid)).unwrap(), pid, "a session of its own");
    broker.process.kill();
    let broker = world.broker(&args);
    world.wait(&["devbox"], "reachable");
    fs::write(&go, "").unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(until(PATIENCE, || world.processes().len() == 1), "{:?}", world.processes());
    drop(broker);
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_and_a_reload_keeps_the_old_one() {
    let world = World::new();
    fs::create_dir(world.state()).unwrap();
    let path = world.state().join("castra.toml");
    fs::write(&path, "[guests.devbox]\n\nstrat = 'x'\n").unwrap();
    let start = world.castra(&["broker", "--listen", "tcp:127.0.0.1:0"]);
    ended(&start, 2, &["castra.toml", "line 3", "strat"]);
    let up = world.castra(&["up", "--listen", "tcp:127.0.0.1:0"]);
    ended(&up, 2, &["line 3", "strat"]);
    let missing = world.path("missing.toml");
    let named = ["broker", "--listen", "tcp:127.0.0.1:0", "--config", missing.to_str().unwrap()];
    ended(&world.castra(&named), 2, &["missing.toml"]);

    fs::write(&path, "[guests.devbox]\nstart = 'exit 3'\n").unwrap();
    let broker = world.broker(&[]);
    assert_eq!(world.verdict("devbox"), "waiting/never_seen");
    fs::write(&path, "[guests.devbox]\nstart = 'exit 4'\n[guests.other]\nstrat = 'x'\n").unwrap();
    ended(&world.castra(&["reload"]), 70, &["stays as it was", "line 4", "strat"]);
    ended(&world.castra(&["restore", "devbox"]), 5, &["exited 3"]);
    broker.process.signal(Signal::HUP);
    assert!(until(PATIENCE, || world.log().contains("the configuration stays as it was")), "{}", world.log());
    fs::write(&path, "[guests.devbox]\nstart = 'exit 4'\n[guests.other]\nstart = 'exit 5'\n").unwrap();
    assert_eq!(world.castra(&["reload"]).code, 0);
    ended(&world.castra(&["restore", "devbox"]), 5, &["exited 4"]);
    assert_eq!(world.verdict("other"), "waiting/never_seen");
    fs::write(&path, "[guests.other]\n").unwrap();
    broker.process.signal(Signal::HUP);
    let refused = || world.castra(&["restore", "other"]).err.contains("not restorable");
    assert!(until(PATIENCE, refused), "{}", world.log());
}
