//! The daemon as a process: its files, its signals, and one for each socket.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Role, World, fields, gone, number, runs, sh, signal, text, until};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_starts_as_the_published_client_starts_it_and_its_files_are_secret() {
    let world = World::new();
    let began = Instant::now();
    let daemon = world.start();
    assert!(began.elapsed() < Duration::from_secs(5));
    let token = daemon.token();
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!((mode(&world.token_file()), mode(&world.socket())), (0o600, 0o600));
    assert_eq!(mode(&world.path("run")), 0o700);
    let pid = format!("{}\n", daemon.pid());
    until("its number is written down", || {
        fs::read_to_string(world.path("run/pty.pid")).is_ok_and(|found| found == pid)
    });
    daemon.client("A").rows();
    assert_eq!(daemon.stop(), Some(0));
    assert!(!world.socket().exists() && !world.path("run/pty.pid").exists());
}

#[test]
fn without_any_variable_its_files_are_where_the_published_ones_are() {
    let world = World::new();
    let mut command = world.command();
    let child = command.env_remove("RUST_PTY_SOCKET_PATH").env_remove("RUST_PTY_TOKEN_PATH").spawn();
    let mut child = child.unwrap();
    let place = world.path("home/.vibest/pty");
    until("both files are there", || place.join("socket").exists() && place.join("token").exists());
    signal(child.id(), Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_token_of_64_characters_is_kept_and_anything_else_is_replaced() {
    let world = World::new();
    fs::create_dir(world.path("run")).unwrap();
    let token = "0123456789abcdef".repeat(4);
    fs::write(world.token_file(), format!("{token}\n")).unwrap();
    fs::set_permissions(world.token_file(), fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = world.start();
    daemon.connect().introduce(&token, "A", Role::Control, vec![]);
    // A crash keeps it: clients remember it for life.
    daemon.kill();
    let daemon = world.start();
    daemon.connect().introduce(&token, "A", Role::Control, vec![]);
    daemon.stop();
    fs::write(world.token_file(), "short").unwrap();
    let daemon = world.start();
    assert_eq!(daemon.token().len(), 64);
    assert_eq!(mode(&world.token_file()), 0o600);
}

#[test]
fn a_socket_that_nobody_serves_is_replaced() {
    let world = World::new();
    fs::create_dir(world.path("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(world.socket()).unwrap());
    assert!(world.socket().exists());
    world.start().client("A").rows();
}

#[test]
fn a_second_daemon_says_who_is_there_and_leaves_with_73() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => sh("sleep 600") });
    let mut second = world.command().stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(73), "{said}");
    assert!(said.contains(&daemon.pid().to_string()), "{said:?}");
    // Nothing of the first was touched.
    assert_eq!(client.rows().len(), 1);
    assert_eq!(number(&daemon.client("B").row(session), "id"), session);
}

#[test]
fn term_leaves_the_programs_to_the_next_daemon() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty -echo; echo ready; while read line; do echo \"<$line>\"; done");
    client.read_until(session, "ready");
    let pid = number(&client.row(session), "pid");
    let offset = client.offset(session).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    assert!(runs(pid.try_into().unwrap()));
    let daemon = world.start();
    let mut client = daemon.client("A");
    let row = client.row(session);
    assert_eq!((number(&row, "pid"), text(&row, "recovery")), (pid, "adopted"));
    client.ok("attach", fields! { "session" => session, "resume_from" => offset });
    client.input(session, "again\n");
    client.read_until(session, "<again>");
}

#[test]
fn on_stop_end_leaves_nothing() {
    let world = World::new();
    let daemon = world.start_with(|command| {
        command.env("CASTRA_TERMINALS_ON_STOP", "end");
    });
    let mut client = daemon.client("A");
    let mild = client.create(fields! { "command" => sh("exec sleep 600") });
    let stubborn = client.run("trap '' HUP TERM; echo ready; while :; do sleep 0.02; done");
    client.read_until(stubborn, "ready");
    let pid: u32 = number(&client.row(mild), "pid").try_into().unwrap();
    daemon.stop();
    gone(pid);
    // KILL follows 3 s after the hang-up, and the holder is the last to go.
    until("nothing is left", || world.processes().is_empty());
    let daemon = world.start();
    let mut client = daemon.client("A");
    assert!(client.rows().iter().all(|row| row["is_alive"] == false.into()), "{:?}", client.rows());
}

#[test]
fn castra_terminals_serve_is_the_same_daemon() {
    let world = World::new();
    let daemon = world.serve(&[]);
    let token = daemon.token();
    assert!(token.len() == 64 && mode(&world.token_file()) == 0o600);
    daemon.client("A").rows();
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn it_goes_on_while_connections_come_and_go_at_any_moment() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run_flood().0;
    let sockets = || {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten();
        let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    client.rows();
    let before = sockets();
    for round in 0..30 {
        let mut other = daemon.client(&format!("c{round}"));
        match round % 3 {
            0 => drop(other),
            1 => {
                other.send("attach", fields! { "session" => session });
            }
            _ => {
                other.attach(session);
                other.send_bytes(&[0, 0, 1]);
            }
        }
        client.take_output(session);
    }
    until("their descriptors are closed", || {
        client.rows();
        client.take_output(session);
        sockets() == before
    });
    assert_eq!(number(&client.row(session), "subscribers"), 1);
    client.ok("kill", fields! { "session" => session });
    assert_eq!(client.exit(session), (129, Some(1)));
}
