//! Two at a time, what a killed one left behind, and names that lie.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::full::{QUICK, ended};
use crate::support::{Link, PATIENCE, Process, World, until};

const ROUNDS: usize = 20;

/// The one of two that serves; the other one has ended with `code`, and said `why`.
fn the_one_that_serves(mut both: Vec<Process>, code: i32, why: &str) -> Process {
    // Looked at without taking notice of its end: that is `finish`'s.
    let is_over =
        |one: &Process| fs::read_to_string(format!("/proc/{}/stat", one.pid())).unwrap().contains(") Z ");
    let over = until(PATIENCE, || both.iter().any(is_over));
    assert!(over, "both go on: {:?}", both.iter().map(|one| one.out.text()).collect::<Vec<_>>());
    let lost = both.iter().position(is_over).unwrap();
    let ran = both.remove(lost).finish(PATIENCE);
    ended(&ran, code, &[why]);
    assert_eq!(ran.out, "");
    let mut winner = both.remove(0);
    let ready: Value = serde_json::from_str(&winner.out.first(PATIENCE)).unwrap();
    assert_eq!(ready["pid"], winner.pid());
    assert!(winner.is_running());
    winner
}

#[test]
fn of_two_brokers_that_start_at_once_one_serves_and_the_other_one_disturbs_nothing() {
    let world = World::new();
    for round in 0..ROUNDS {
        let start = || world.spawn(&["broker", "--json", "--listen", "tcp:127.0.0.1:0"]);
        let winner = the_one_that_serves(vec![start(), start()], 73, "already serves");
        assert_eq!(world.json(&["info", "--json"])["pid"], winner.pid());
        assert_eq!(world.read("broker.pid"), format!("{}\n", winner.pid()));
        assert_eq!(world.json(&["info", "--json"])["incarnation"], round + 1, "the loser counts no start");
        // A latecomer loses against one that has served for long, too.
        ended(&start().finish(PATIENCE), 73, &[&winner.pid().to_string()]);
        assert_eq!(world.castra(&["status"]).code, 0);
        // Its socket, pid file and lock are stale for the next two.
        winner.kill();
        assert!(world.state().join("control.sock").exists());
        assert_eq!(world.castra(&["status"]).code, 3);
        assert_eq!(world.castra(&["down"]).code, 0);
    }
}

#[test]
fn of_two_brokers_that_want_one_socket_for_guests_one_serves_and_keeps_it() {
    let world = World::new();
    let socket = world.path("guests.sock");
    let address = format!("unix:{}", socket.display());
    for _ in 0..ROUNDS {
        let start = |name: &str| {
            let state = world.path(name);
            world.spawn(&["broker", "--json", "--state-dir", state.to_str().unwrap(), "--listen", &address])
        };
        let winner = the_one_that_serves(vec![start("one"), start("other")], 2, "is taken");
        let mut link = Link::unix(&socket);
        assert_eq!(link.line(), "castra-broker 0.1 ready");
        // Stale for the next two.
        winner.kill();
        assert!(socket.exists());
    }
}

#[test]
fn a_socket_that_somebody_else_listens_on_or_a_file_in_its_place_is_left_alone() {
    let world = World::new();
    let place = world.path("guests.sock");
    let address = format!("unix:{}", place.display());
    let start = || world.castra(&["broker", "--listen", &address]);
    let listener = UnixListener::bind(&place).unwrap();
    ended(&start(), 2, &["is taken by another program"]);
    drop(listener);
    let _broker = world.broker(&["--listen", &address]);
    assert_eq!(Link::unix(&place).line(), "castra-broker 0.1 ready");
    assert_eq!(world.castra(&["down"]).code, 0);
    fs::write(&place, "text").unwrap();
    ended(&start(), 2, &["is not a socket"]);
    assert_eq!(fs::read_to_string(&place).unwrap(), "text");
    // The same in the control socket's place.
    let control = world.state().join("control.sock");
    fs::write(&control, "text").unwrap();
    ended(&world.castra(&["broker", "--listen", "tcp:127.0.0.1:0"]), 2, &["is not a socket"]);
    assert_eq!(fs::read_to_string(&control).unwrap(), "text");
}

#[test]
fn no_file_that_names_a_process_makes_anybody_end_it() {
    let world = World::new();
    let mut bystander = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let pid = bystander.id();
    fs::create_dir(world.state()).unwrap();
    let texts = [
        pid.to_string(),
        format!("{pid}\n"),
        json!({"pid": pid}).to_string(),
        "-1".into(),
        "1".into(),
        "0".into(),
        "\u{1b}[2J".into(),
        "9".repeat(9000),
        String::new(),
        json!({"pid": -1}).to_string(),
    ];
    for text in &texts {
        for name in ["broker.pid", "broker.lock"] {
            fs::write(world.state().join(name), text).unwrap();
        }
        for args in [&["down"][..], &["down", "--force"]] {
            ended(&world.castra(args), 0, &["nothing to stop"]);
        }
        assert_eq!(world.castra(&["status"]).code, 3);
        let broker = world.broker(&QUICK);
        assert_eq!(world.read("broker.pid"), format!("{}\n", broker.process.pid()));
        assert_eq!(world.castra(&["down"]).code, 0);
    }
    assert!(bystander.try_wait().unwrap().is_none(), "somebody ended a bystander");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_pid_file_that_two_brokers_share_names_the_one_that_wrote_last_until_that_ends() {
    let world = World::new();
    let shared = world.path("shared.pid");
    let start = |name: &str| {
        let state = world.path(name);
        world.broker(&["--pidfile", shared.to_str().unwrap(), "--state-dir", state.to_str().unwrap()])
    };
    let (mut first, mut second) = (start("one"), start("other"));
    let named = || fs::read_to_string(&shared).unwrap_or_default().trim().to_owned();
    assert_eq!(named(), second.process.pid().to_string());
    first.process.signal(Signal::TERM);
    assert!(first.process.exit(PATIENCE).success());
    assert_eq!(named(), second.process.pid().to_string(), "the first one took the second one's file along");
    second.process.signal(Signal::TERM);
    assert!(second.process.exit(PATIENCE).success());
    assert!(!shared.exists());
}
