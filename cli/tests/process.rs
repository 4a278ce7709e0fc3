//! Real processes: the broker, agents, `up`, `down` and the demo.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Broker, HANG, Owned, Scratch, ended, run, start};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// Processes whose command line mentions `path`.
fn processes(path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(path))
        .collect()
}

/// Waits for what must become true without a word about it.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < end, "{what} never came true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_broker_in_the_background_holds_nothing_of_whoever_started_it() {
    let scratch = Scratch::new();
    let lock = scratch.path().join("callers.lock");
    let mut shell = Command::new("sh");
    let script = "exec 9>\"$1\"; exec \"$0\" up --json --state-dir \"$2\" --listen tcp:127.0.0.1:0";
    let ran = run(shell.args(["-c", script, env!("CARGO_BIN_EXE_castra")]).arg(&lock).arg(scratch.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let folder = format!("/proc/{}/fd", json(&ran.stdout)["pid"]);
    let open = std::fs::read_dir(folder).unwrap().flatten();
    let held: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    assert!(held.contains(&scratch.path().join("broker.lock")) && !held.contains(&lock), "{held:?}");
    assert_eq!(scratch.run(&["down"]).code, Some(0));
}

/// The writing end of a pipe (a socket, rather) that nobody will ever read.
fn unread() -> (UnixStream, OwnedFd) {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b'x'; 512]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    writer.set_nonblocking(false).unwrap();
    (reader, writer.into())
}

#[test]
fn an_agent_whose_words_nobody_reads_stays_proven_and_ends_when_told() {
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch, &[]);
    let (_reader, words) = unread();
    let mut agent = scratch.command(&["agent", "--name", "devbox", "--connect", broker.address()]);
    agent.arg("--socket").arg(scratch.path().join("agent.sock"));
    let mut agent = Owned(agent.stdout(Stdio::null()).stderr(words).spawn().unwrap());
    let waited = scratch.run(&["wait", "devbox", "--for", "reachable", "--timeout", "10s"]);
    assert_eq!(agent.end(), Some(0));
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
}

#[test]
fn a_broker_whose_words_nobody_reads_takes_leave_within_three_seconds() {
    let scratch = Scratch::new();
    let (_reader, words) = unread();
    let mut broker = scratch.command(&["broker", "--json", "--listen", "tcp:127.0.0.1:0"]);
    let mut broker = Owned(broker.stdout(Stdio::null()).stderr(words).spawn().unwrap());
    until("serving", || scratch.run(&["status"]).code == Some(0));
    let start = Instant::now();
    assert_eq!(broker.end(), Some(0));
    assert!(start.elapsed() < Duration::from_millis(3500), "{:?}", start.elapsed());
}

/// A container's broker, asked from its host.
#[test]
fn a_client_outside_the_brokers_pid_namespace_is_answered() {
    let scratch = Scratch::new();
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_castra")]);
    inside.args(["broker", "--listen", "tcp:127.0.0.1:0", "--state-dir"]).arg(scratch.path());
    let Ok(mut inside) = inside.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return eprintln!("not tested: there is no unshare");
    };
    let end = Instant::now() + HANG;
    while !scratch.socket().exists() && inside.try_wait().unwrap().is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    if inside.try_wait().unwrap().is_some() {
        return eprintln!("not tested: no namespaces here");
    }
    let ran = scratch.run(&["info"]);
    inside.kill().unwrap();
    inside.wait().unwrap();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn silent_clients_that_take_all_descriptors_neither_unseat_a_guest_nor_keep_one_out() {
    let scratch = Scratch::new();
    let mut broker = Command::new("sh");
    broker.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_castra"), "broker", "--json"]);
    broker.args(["--listen", "tcp:127.0.0.1:0", "--handshake-timeout", "1m", "--state-dir"]);
    let broker = broker.arg(scratch.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut broker = Owned(broker.unwrap());
    let mut ready = String::new();
    BufReader::new(broker.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = json(&ready)["listen"][0].as_str().unwrap().to_owned();
    let agent = |name: &str| {
        let mut agent = scratch.command(&["agent", "--name", name, "--connect", &address]);
        Owned(agent.arg("--socket").arg(scratch.path().join(name)).stderr(Stdio::null()).spawn().unwrap())
    };
    let reachable = |name| scratch.run(&["wait", name, "--for", "reachable", "--timeout", "20s"]).code;
    let mut guest = agent("guest");
    assert_eq!(reachable("guest"), Some(0));
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap()).collect();
    // A handshake may take a minute here: only eviction makes room.
    let mut newcomer = agent("newcomer");
    assert_eq!(reachable("newcomer"), Some(0));
    assert_eq!(scratch.run(&["status", "guest", "newcomer"]).code, Some(0));
    drop(silent);
    for child in [&mut guest, &mut newcomer, &mut broker] {
        assert_eq!(child.end(), Some(0));
    }
}

#[test]
fn a_file_size_limit_is_a_failed_write_and_not_the_end_of_the_broker() {
    let scratch = Scratch::new();
    let up = scratch.run(&["up", "--json", "--listen", "tcp:127.0.0.1:0"]);
    let pid = i32::try_from(json(&up.stdout)["pid"].as_i64().unwrap()).unwrap();
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Pid::from_raw(pid), Resource::Fsize, limit).unwrap();
    };
    limit(Some(4096));
    let refused = scratch.run(&["token", "issue", "devbox"]);
    assert_eq!(refused.code, Some(70), "{}", refused.stderr);
    limit(None);
    let issued = scratch.run(&["token", "issue", "devbox"]);
    assert_eq!(issued.code, Some(0), "{}", issued.stderr);
    assert_eq!(scratch.run(&["down"]).code, Some(0));
}

#[test]
fn a_stopped_broker_is_named_left_alone_and_ended_only_by_force() {
    let scratch = Scratch::new();
    let mut broker = Broker::start(&scratch, &[]);
    let pid = Pid::from_child(&broker.child);
    kill_process(pid, Signal::STOP).unwrap();
    let ran = scratch.run(&["status", "--json", "--timeout", "200ms"]);
    assert_eq!(ran.code, Some(3));
    assert_eq!(json(&ran.stdout)["broker"]["pid"], broker.child.id());
    let ran = scratch.run(&["down", "--timeout", "300ms"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stderr.contains(&format!("kill -CONT {pid}")), "{}", ran.stderr);
    assert_eq!(broker.child.try_wait().unwrap(), None);
    let ran = scratch.run(&["down", "--force", "--timeout", "300ms"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("ended with KILL"), "{}", ran.stderr);
    ended(&mut broker.child, HANG);
}

#[test]
fn a_single_handshake_exits_0_when_proven_5_when_refused_and_4_when_nobody_is_there() {
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch, &[]);
    let agent = |name, address, timeout| {
        scratch.command(&["agent", "--once", "--name", name, "--connect", address, "--timeout", timeout])
    };
    let ran = run(&mut agent("devbox", broker.address(), "20s"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(scratch.run(&["status", "devbox"]).code, Some(0), "reachable for its window");

    let token = scratch.path().join("keyed.token");
    assert_eq!(scratch.run(&["token", "issue", "keyed", "--out", token.to_str().unwrap()]).code, Some(0));
    let ran = run(&mut agent("keyed", broker.address(), "20s"));
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
    let ran = run(agent("keyed", broker.address(), "20s").arg("--token-file").arg(&token));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = run(&mut agent("devbox", &format!("tcp:{}", silent.local_addr().unwrap()), "300ms"));
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
}

#[test]
fn a_forgotten_guest_is_unknown_unless_the_operator_named_it() {
    let scratch = Scratch::new();
    let _broker = Broker::start(&scratch, &["--guest", "configured"]);
    let token = scratch.path().join("token");
    scratch.run(&["token", "issue", "devbox", "--out", token.to_str().unwrap()]);
    for (guest, afterwards) in [("devbox", 6), ("configured", 1)] {
        assert_eq!(scratch.run(&["status", guest]).code, Some(1));
        let ran = scratch.run(&["forget", guest]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(
            scratch.run(&["status", guest]).code,
            Some(afterwards),
            "a configured name is known again"
        );
    }
}

#[test]
fn the_demos_story_comes_true_and_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let ran = run(scratch.command(&["demo", "--once"]).env("TMPDIR", scratch.path()));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.took < Duration::from_secs(40), "{:?}", ran.took);
    assert!(!ran.stdout.contains('\u{1b}'));
    assert_eq!(processes(scratch.path()), [""; 0]);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_demo_ends_its_processes_and_removes_its_directory() {
    let scratch = Scratch::new();
    let mut demo = start(scratch.command(&["demo", "--once"]).env("TMPDIR", scratch.path()));
    until("the cast", || processes(scratch.path()).len() >= 2);
    kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
    assert_eq!(ended(&mut demo.child, HANG), Some(1));
    assert_eq!(processes(scratch.path()), [""; 0]);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_demo_that_is_killed_takes_its_processes_with_it() {
    let scratch = Scratch::new();
    let mut demo = start(scratch.command(&["demo", "--once"]).env("TMPDIR", scratch.path()));
    until("the cast", || processes(scratch.path()).len() >= 2);
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    until("their end", || processes(scratch.path()).is_empty());
}
