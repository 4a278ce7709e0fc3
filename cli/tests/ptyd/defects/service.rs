//! The daemon beside other daemons, in time, and with nothing to do.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rmpv::Value;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::{
    PATIENCE, World, edit_journal, fields, frame, gone, hex, number, numbered, runs, sh, signal, text, texts,
    until,
};

/// There: a second daemon took the socket, and the first deleted it and the token when
/// it went.
#[test]
fn defect_16_a_second_daemon_takes_nothing_from_the_first() {
    let world = World::new();
    let first = world.start();
    let token = first.token();
    let mut client = first.client("A");
    let session = client.create(fields! { "command" => sh("sleep 600") });
    let mut seconds: Vec<_> = (0..3).map(|_| world.command().spawn().unwrap()).collect();
    for second in &mut seconds {
        assert_eq!(second.wait().unwrap().code(), Some(73));
    }
    assert_eq!((first.token(), client.rows().len()), (token, 1));
    first.client("B").rows();
    // The first dies; of three at once one becomes the daemon.
    first.kill();
    let mut next: Vec<_> = (0..3).map(|_| world.command().spawn().unwrap()).collect();
    let mut codes = Vec::new();
    until("two have left", || {
        next.retain_mut(|child| {
            child.try_wait().unwrap().is_none_or(|status| {
                codes.push(status.code());
                false
            })
        });
        codes.len() == 2
    });
    assert_eq!(codes, [Some(73); 2]);
    until("the third serves", || std::os::unix::net::UnixStream::connect(world.socket()).is_ok());
    let mut client = crate::support::Client::connect(&world.socket());
    let token = fs::read_to_string(world.token_file()).unwrap();
    client.introduce(&token, "A", crate::support::Role::Control, vec![]);
    assert_eq!(text(&client.row(session), "recovery"), "adopted");
    signal(next[0].id(), Signal::TERM);
    next[0].wait().unwrap();
}

/// There: sizes were not written down, environments not kept, numbers began again at 1
/// and overwrote old entries.
#[test]
fn defect_17_sizes_places_environments_and_numbers_outlive_everything() {
    let world = World::new();
    fs::create_dir(world.path("home/deep")).unwrap();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let env = Value::Map(fields! { "LANG" => "en_GB.UTF-8", "PASSWORD" => "secret" });
    let session = client.create(fields! { "shell" => "/bin/sh", "env" => env });
    let ended = client.run("exit 2");
    client.exit(ended);
    client.attach(session);
    client.ok("resize", fields! { "session" => session, "cols" => 91, "rows" => 37 });
    client.input(session, "cd deep; echo moved$((1 + 1))\n");
    client.read_until(session, "moved2");
    let deep = world.path("home/deep").canonicalize().unwrap();
    until("the list knows the place", || client.row(session)["cwd"] == deep.to_str().unwrap().into());
    let pid: u32 = number(&client.row(session), "pid").try_into().unwrap();
    // Whatever is known is written down before it goes.
    daemon.stop();
    world.holders().iter().for_each(|holder| signal(holder.pid, Signal::KILL));
    gone(pid);
    let mut seen = 0;
    edit_journal(&world, |record| {
        seen += 1;
        assert!(!format!("{:?}", record.launch.env).contains("secret"));
    });
    assert_eq!(seen, 2);
    let daemon = world.start();
    let mut client = daemon.client("A");
    let row = client.row(session);
    assert_eq!((number(&row, "cols"), number(&row, "rows"), text(&row, "recovery")), (91, 37, "restored"));
    client.attach(session);
    client.input(session, "echo \"<$LANG|$PASSWORD|$(pwd -P)|$(stty size)>\"\n");
    client.read_until(session, &format!("<en_GB.UTF-8||{}|37 91>", deep.display()));
    // How the other ended is still known, and its number is not given out again.
    assert_eq!(number(&client.row(ended), "exit_code"), 2);
    assert!(client.create(fields! { "command" => sh("sleep 600") }) > ended);
    daemon.stop();
    let daemon = world.start();
    let mut client = daemon.client("A");
    assert!(client.create(fields! { "command" => sh("sleep 600") }) > ended + 1);
}

/// How often the threads of a process waited, so far.
fn waits(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let counted = status.filter_map(|status| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    counted.sum()
}

/// There: 325 wake-ups a second with nothing to do.
#[test]
fn defect_18_with_nothing_to_do_nothing_wakes_up() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    for _ in 0..3 {
        let session = client.run("echo ready; exec sleep 600");
        client.read_until(session, "ready");
    }
    let processes = [daemon.pid(), world.holders()[0].pid];
    let all = || processes.iter().map(|pid| waits(*pid)).sum::<u64>();
    // What was just done may still be written down; then it is quiet.
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let before = all();
        std::thread::sleep(Duration::from_millis(700));
        let woken = all() - before;
        if woken == 0 {
            break;
        }
        assert!(std::time::Instant::now() < end, "{woken} times in 0.7 s");
    }
}

/// There: older and malformed peers were disconnected without a word.
#[test]
fn defect_19_a_peer_that_is_too_old_or_malformed_is_told_why() {
    let world = World::new();
    let daemon = world.start();
    let old = fields! { "token" => daemon.token(), "protocol_version" => 1 };
    let unknown = fields! {
        "token" => daemon.token(), "protocol_version" => 1, "client_id" => "A", "role" => "root",
    };
    for (bytes, seq, code) in [
        (frame(&numbered("handshake", 4, old)), 4, "PROTO_BREAKING_CHANGE"),
        (frame(&numbered("handshake", 5, unknown)), 5, "PROTOCOL_ERROR"),
        (hex("00000003 c1c1c1"), 0, "PROTOCOL_ERROR"),
        (hex("00000000"), 0, "PROTOCOL_ERROR"),
        (hex("ffffffff"), 0, "PROTOCOL_ERROR"),
    ] {
        let mut client = daemon.connect();
        client.send_bytes(&bytes);
        let said = client.until_closed();
        assert_eq!(said.len(), 1);
        assert_eq!((number(&said[0], "seq"), text(&said[0], "code")), (seq, code));
        assert!(text(&said[0], "message").len() > 10);
    }
}

/// There: Ctrl-C at the program that had started the daemon ended it and orphaned its
/// shells.
#[test]
fn defect_20_ctrl_c_at_whoever_started_the_daemon_ends_no_program() {
    let world = World::new();
    let mut daemon = world.start_with(|command| {
        // As in a terminal: the client, its daemon, and whatever that starts.
        command.process_group(0);
    });
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => texts(&["/bin/sleep", "600"]) });
    let pid: u32 = number(&client.row(session), "pid").try_into().unwrap();
    kill_process_group(Pid::from_raw(daemon.pid().cast_signed()).unwrap(), Signal::INT).unwrap();
    assert!(daemon.wait(PATIENCE).is_some(), "it goes on Ctrl-C");
    assert!(runs(pid));
    let daemon = world.start();
    let row = daemon.client("A").row(session);
    assert_eq!((number(&row, "pid"), text(&row, "recovery")), (u64::from(pid), "adopted"));
}
