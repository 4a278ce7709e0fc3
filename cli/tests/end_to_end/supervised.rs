//! What a service manager sees of castra, and what it hands over: readiness, reloads,
//! signs of life, sockets.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use castra_driver::supervisor::VARIABLES;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::support::{Manager, PATIENCE, Process, World, installed, until};

/// A broker that a manager starts; it listens nowhere but where it is told.
fn broker(world: &World, args: &[&str]) -> Command {
    world.command(&[&["broker"], args].concat())
}

fn started(manager: &Manager, mut command: Command) -> Process {
    manager.serves(&mut command);
    Process::spawn(command)
}

fn ended(mut process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.exit(PATIENCE).code(), Some(0));
}

/// A guest that says hello to whoever will come.
fn hello(port: u16) -> TcpStream {
    let mut guest = TcpStream::connect(("127.0.0.1", port)).unwrap();
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    guest.write_all(b"hello vm:devbox capabilities=proof-v1 once\n").unwrap();
    guest
}

/// It is challenged, and believed.
fn proves(guest: &mut TcpStream) {
    let mut lines = BufReader::new(guest.try_clone().unwrap()).lines().map(Result::unwrap);
    let challenge = lines.find(|line| line.starts_with("challenge ")).expect("a challenge");
    let nonce = challenge.split(' ').nth(1).unwrap();
    guest.write_all(format!("proof {nonce}\n").as_bytes()).unwrap();
    assert!(lines.any(|line| line.starts_with("ok")), "not believed");
}

#[test]
fn a_manager_hears_when_the_broker_serves_reloads_and_stops() {
    let world = World::new();
    let mut manager = Manager::new(&world, "notify");
    let mut process = started(&manager, broker(&world, &["--json", "--listen", "tcp:127.0.0.1:0"]));
    let ready = manager.waits_for("READY=1").text;
    assert_eq!(world.json(&["status", "--json"])["broker"]["state"], "serving", "it said so: {ready}");
    let line = process.out.first(PATIENCE);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready, format!("READY=1\nSTATUS=serving on {}", line["listen"][0].as_str().unwrap()));

    let before = clock_gettime(ClockId::Monotonic);
    process.signal(Signal::HUP);
    let reloading = manager.waits_for("RELOADING=1").text;
    let micros: i64 = reloading.rsplit_once("MONOTONIC_USEC=").unwrap().1.parse().unwrap();
    let after = clock_gettime(ClockId::Monotonic);
    let [before, after] = [before, after].map(|at| at.tv_sec * 1_000_000 + at.tv_nsec / 1000);
    assert!((before..=after).contains(&micros), "{before} {micros} {after}");
    let over = manager.waits_for("READY=1").text;
    assert_eq!(over, ready);
    // A configuration that is wrong changes nothing, and the manager can show it.
    fs::write(world.state().join("castra.toml"), "[broker]\nwindow = 'soon'\n").unwrap();
    process.signal(Signal::HUP);
    manager.waits_for("RELOADING=1");
    assert!(manager.waits_for("READY=1").text.contains("reload failed"));

    process.signal(Signal::TERM);
    manager.waits_for("STOPPING=1");
    assert_eq!(process.exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_loop_that_turns_gives_signs_of_life_and_one_that_is_stopped_gives_none() {
    let world = World::new();
    let mut manager = Manager::new(&world, "notify");
    let mut command = broker(&world, &["--listen", "tcp:127.0.0.1:0"]);
    command.env("WATCHDOG_USEC", "400000");
    let process = started(&manager, command);
    manager.waits_for("WATCHDOG=1");
    let first = Instant::now();
    for _ in 0..6 {
        manager.waits_for("WATCHDOG=1");
    }
    // Two in the time that it has, not more: six rests of 200 ms, less what the first came late.
    assert!(first.elapsed() > Duration::from_millis(900), "{:?}", first.elapsed());
    process.stop();
    drop(manager.backlog());
    let said = manager.hears(Duration::from_millis(1500));
    assert!(said.is_none(), "it doesn't turn: {said:?}");
    process.go_on();
    manager.waits_for("WATCHDOG=1");
    // For another process: then this one says nothing.
    let other = Manager::new(&world, "other");
    let mut command = world.command(&["terminals", "serve", "--on-stop", "end", "--socket"]);
    command.arg(world.path("t.sock")).env("WATCHDOG_USEC", "4000").env("WATCHDOG_PID", "1");
    let terminals = started(&other, command);
    let mut other = other;
    assert!(other.waits_for("READY=1").text.contains("t.sock"));
    ended(terminals);
    let said = other.backlog();
    assert!(said.len() == 1 && said[0].text.starts_with("STOPPING=1"), "{said:?}");
}

#[test]
fn an_agent_is_ready_with_its_first_session_and_without_a_broker_all_the_same_after_a_while() {
    let world = World::new();
    let mut lonely = Manager::new(&world, "lonely");
    let nowhere = format!("unix:{}", world.path("nobody.sock").display());
    let lone = started(&lonely, world.command(&["agent", "--name", "lone", "--connect", &nowhere]));
    let began = Instant::now();

    let mut manager = Manager::new(&world, "notify");
    let listen = format!("unix:{}", world.path("link.sock").display());
    let agent = started(&manager, world.command(&["agent", "--name", "devbox", "--connect", &listen]));
    assert!(manager.waits_for("STATUS=").text.contains("dialling"));
    let host = world.broker(&["--listen", &listen]);
    assert!(manager.waits_for("STATUS=linked to").text.contains("READY=1"));
    world.wait(&["devbox"], "reachable");
    host.process.kill();
    assert!(manager.waits_for("STATUS=no link to").text.contains("link.sock"));
    ended(agent);
    manager.waits_for("STOPPING=1");

    assert!(lonely.waits_for("READY=1").text.lines().count() == 1, "it has nothing good to say");
    assert!(began.elapsed() > Duration::from_secs(3), "somebody may yet have come");
    ended(lone);
}

#[test]
fn nothing_that_the_broker_runs_hears_of_its_manager() {
    let world = World::new();
    let mut manager = Manager::new(&world, "notify");
    let files = ["hook", "start", "terminal"].map(|name| world.path(name));
    let [hook, start, terminal] =
        files.each_ref().map(|file| format!("env >{0}.new; mv {0}.new {0}", file.display()));
    fs::create_dir_all(world.state()).unwrap();
    fs::write(world.state().join("castra.toml"), format!("[guests.devbox]\nstart = \"{start}\"\n")).unwrap();
    let socket = UnixListener::bind(world.path("link.sock")).unwrap();
    let mut command = broker(&world, &["--on-change", &hook, "--terminals", "--terminals-on-stop", "end"]);
    command.env("WATCHDOG_USEC", "60000000");
    let process = manager.hands_over(command, &[("link", &socket)]);
    manager.waits_for("READY=1");
    let link = format!("unix:{}", world.path("link.sock").display());
    let agent = world.agent("devbox", &link, &[]);
    world.wait(&["devbox"], "reachable");
    agent.kill();
    world.wait(&["devbox"], "waiting");
    // Nobody comes; it is run all the same.
    assert_eq!(world.castra(&["restore", "devbox", "--timeout", "1s"]).code, 4);
    assert_eq!(world.castra(&["term", "new", "t", "--", "sh", "-c", &terminal]).code, 0);
    for file in &files {
        assert!(until(PATIENCE, || file.exists()), "{} did not run: {}", file.display(), world.log());
        let text = fs::read_to_string(file).unwrap();
        let names: BTreeSet<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert!(names.contains("PATH"), "{text}");
        let heard: Vec<_> = VARIABLES.iter().filter(|name| names.contains(**name)).collect();
        assert!(heard.is_empty(), "{}: {heard:?}", file.display());
    }
    ended(process);
    assert!(world.path("link.sock").exists(), "its file is the manager's");
    // What keeps terminals goes with the last of them.
    assert!(until(PATIENCE, || world.processes().is_empty()), "{:?}", world.processes());
}

#[test]
fn a_guest_that_comes_before_the_broker_is_served_on_the_socket_that_was_passed() {
    let world = World::new();
    let mut manager = Manager::new(&world, "notify");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut guest = hello(port);
    let process = manager.hands_over(broker(&world, &[]), &[("unknown", &socket), ("manager", &http)]);
    let ready = manager.waits_for("READY=1").text;
    let at = http.local_addr().unwrap();
    assert_eq!(ready, format!("READY=1\nSTATUS=serving on tcp:127.0.0.1:{port} http://{at}"), "nowhere else");
    proves(&mut guest);
    TcpStream::connect(at).unwrap();
    ended(process);

    // Asked for by its address it is the same, and not bound twice; a control socket
    // elsewhere is one more door.
    let address = format!("tcp:127.0.0.1:{port}");
    let control = world.path("control.elsewhere");
    let door = UnixListener::bind(&control).unwrap();
    let command = broker(&world, &["--listen", &address]);
    let process = manager.hands_over(command, &[("link", socket.as_fd()), ("control", door.as_fd())]);
    assert_eq!(manager.waits_for("READY=1").text, format!("READY=1\nSTATUS=serving on {address}"));
    assert_eq!(world.castra(&["status", "--socket", control.to_str().unwrap()]).code, 0);
    assert_eq!(world.castra(&["status"]).code, 0);
    ended(process);
    assert!(control.exists() && !world.state().join("control.sock").exists());
}

#[test]
fn what_is_no_listening_socket_is_refused_with_its_name() {
    let world = World::new();
    let manager = Manager::new(&world, "notify");
    let stream = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(stream.local_addr().unwrap()).unwrap();
    let ran = manager.hands_over(broker(&world, &[]), &[("guests", &stream)]).finish(PATIENCE);
    assert!(ran.code == 2 && ran.err.contains("descriptor 3 (\"guests\")"), "{ran:?}");
    assert!(ran.err.contains("ListenStream="), "{ran:?}");
    let mut command = broker(&world, &[]);
    command.env("WATCHDOG_USEC", "soon");
    let ran = started(&manager, command).finish(PATIENCE);
    assert!(ran.code == 2 && ran.err.contains("WATCHDOG_USEC"), "{ran:?}");
    // Where nobody can keep anything, it serves, and says so.
    let alone = world.broker(&["--keep-listeners"]);
    alone.process.err.after(0, "no service manager is there", PATIENCE);
    ended(alone.process);
    assert!(!world.state().join("control.sock").exists());
}

#[test]
fn nobody_is_refused_while_a_broker_that_keeps_its_listeners_is_replaced() {
    let world = World::new();
    let mut manager = Manager::new(&world, "notify");
    let args = ["--listen", "tcp:127.0.0.1:0", "--keep-listeners"];
    let process = started(&manager, broker(&world, &args));
    let link = manager.waits_for("FDSTORE=1");
    let control = manager.waits_for("FDSTORE=1");
    let name = |text: &str| text.rsplit_once("FDNAME=").unwrap().1.to_owned();
    let names = [name(&link.text), name(&control.text)];
    assert_eq!(names[0], "kept-tcp=127.0.0.1=0");
    assert!(names.iter().all(|name| !name.contains(':')), "{names:?}");
    let kept = [(names[0].as_str(), link.descriptor.unwrap()), (&names[1], control.descriptor.unwrap())];
    let ready = manager.waits_for("READY=1").text;
    let port: u16 = ready.rsplit_once(':').unwrap().1.parse().unwrap();
    ended(process);

    // Nobody serves, and nobody is told so: they wait.
    let mut guest = hello(port);
    let asking = world.spawn(&["status", "--timeout", "20s"]);
    let process = manager.hands_over(broker(&world, &args), &kept);
    assert_eq!(manager.waits_for("READY=1").text, ready, "the same port");
    proves(&mut guest);
    let asked = asking.finish(PATIENCE);
    assert_eq!(asked.code, 0, "{asked:?}");
    ended(process);
    assert!(manager.backlog().iter().all(|word| !word.text.contains("FDSTORE")), "they are kept already");

    // One that keeps none gives them back: what it listens on it binds itself the next time.
    let link = format!("unix:{}", world.path("link.sock").display());
    let process = manager.hands_over(broker(&world, &["--listen", &link]), &kept);
    let mut back: Vec<_> = (0..2).map(|_| name(&manager.waits_for("FDSTOREREMOVE=1").text)).collect();
    back.sort();
    let mut names = names.to_vec();
    names.sort();
    assert_eq!(back, names);
    assert_eq!(manager.waits_for("READY=1").text, format!("READY=1\nSTATUS=serving on {link}"));
    drop(kept);
    assert_eq!(world.castra(&["status"]).code, 0, "the control socket is the one from before");
    ended(process);
    assert!(!world.state().join("control.sock").exists());
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

#[test]
fn systemd_itself_hands_a_socket_over() {
    if !installed("systemd-socket-activate") {
        let required = std::env::var_os("CASTRA_SYSTEMD").is_some_and(|value| value == "required");
        assert!(!required, "there is no systemd-socket-activate");
        println!("NOT TESTED: activation by systemd: there is no systemd-socket-activate");
        return;
    }
    let world = World::new();
    let socket = world.path("link.sock");
    let broker = broker(&world, &["--guest", "devbox"]);
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(&socket).arg("--fdname=link");
    for (name, value) in broker.get_envs() {
        if let Some(value) = value {
            let (name, value) = (name.to_str().unwrap(), value.to_str().unwrap());
            command.env(name, value).arg(format!("--setenv={name}={value}"));
        }
    }
    command.arg(broker.get_program()).args(broker.get_args());
    let process = Process::spawn(command);
    assert!(until(PATIENCE, || socket.exists()));
    assert!(!world.state().exists(), "nobody came yet");
    // Who comes starts the broker.
    let link = format!("unix:{}", socket.display());
    assert_eq!(world.agent("devbox", &link, &["--once"]).finish(PATIENCE).code, 0);
    let line = process.out.after(0, "serving on", PATIENCE);
    assert!(line.starts_with(&format!("serving on {link} (")), "nowhere else: {line}");
    ended(process);
    assert!(socket.exists(), "its file is the manager's");
}
