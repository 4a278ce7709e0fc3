//! What fails below the daemon, and how its clients hear of that: a disk that takes
//! nothing, a holder that can't, doesn't or is no more, a daemon that is stopping.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rmpv::Value;
use rustix::process::Signal;

use crate::support::{
    Client, Fields, Limited, PATIENCE, World, fields, flag, keys, number, numbered, signal, text, texts,
    until,
};

/// A program that is there until it is ended.
fn sleeper() -> Fields {
    fields! { "command" => texts(&["sleep", "600"]) }
}

/// A request that must be refused with this code: what people are told.
#[track_caller]
fn refusal(client: &mut Client, kind: &str, fields: Fields, code: &str) -> String {
    let seq = client.send(kind, fields);
    refusal_to(client, seq, code)
}

/// The same of a request that was sent.
#[track_caller]
fn refusal_to(client: &mut Client, seq: u32, code: &str) -> String {
    let reply = client.reply(seq);
    assert_eq!(keys(&reply), ["type", "seq", "code", "message"], "{reply}");
    assert_eq!((text(&reply, "type"), text(&reply, "code")), ("error", code), "{reply}");
    text(&reply, "message").to_owned()
}

#[test]
fn a_daemon_that_is_stopping_creates_nothing_and_answers_everything_else() {
    let world = World::new();
    let mut daemon = world.start_with(|command| {
        command.env("CASTRA_TERMINALS_ON_STOP", "end");
    });
    let mut client = daemon.client("A");
    // It outlives the hang-up, and with it the daemon does, until it is killed.
    let stubborn = client.run("trap 'echo hung up' HUP TERM; echo ready; while :; do sleep 0.02; done");
    client.read_until(stubborn, "ready");
    signal(daemon.pid(), Signal::TERM);
    client.read_until(stubborn, "hung up");
    let keyed = || sleeper().into_iter().chain(fields! { "session_key" => "k" }).collect();
    for (kind, fields) in [("create", sleeper()), ("create_or_attach", keyed())] {
        let seq = client.send(kind, fields);
        let expected = fields! { "code" => "SHUTTING_DOWN", "message" => "the daemon is stopping" };
        assert_eq!(client.reply(seq), numbered("error", seq, expected));
    }
    assert_eq!(text(&client.row(stubborn), "state"), "terminating");
    let this = || fields! { "session" => stubborn };
    client.ok("snapshot", this());
    assert_eq!(client.refused("kill", this()), "SESSION_TERMINATING");
    // Who comes now is not let in.
    let mut late = daemon.connect();
    assert_eq!(client.exit(stubborn), (137, Some(9)));
    client.until_closed();
    assert_eq!(late.until_closed(), Vec::<Value>::new());
    assert_eq!(daemon.wait(PATIENCE).unwrap().code(), Some(0));
    until("nothing is left", || world.processes().is_empty());
}

#[test]
fn a_disk_that_takes_nothing_costs_new_terminals_until_it_takes_something_again() {
    let world = World::new();
    // A write beyond the limit is an error then, as one on a full disk is.
    let daemon = world.start_by(&["/bin/sh", "-c", "trap '' XFSZ; exec \"$0\""]);
    let mut client = daemon.client("A");
    let kept = client.run("stty -echo; echo ready; while read line; do echo \"<$line>\"; done");
    client.read_until(kept, "ready");
    let full = Limited::file_size(daemon.pid(), 4096);
    let message = refusal(&mut client, "create", sleeper(), "IO_ERROR");
    assert!(message.starts_with("the terminal can't be written down: "), "{message}");
    let keyed = || sleeper().into_iter().chain(fields! { "session_key" => "k" }).collect::<Fields>();
    let message = refusal(&mut client, "create_or_attach", keyed(), "IO_ERROR");
    assert!(message.starts_with("the terminal can't be written down: "), "{message}");
    until("what was refused is ended", || {
        client.rows().iter().all(|row| row["id"] == Value::from(kept) || !flag(row, "is_alive"))
    });
    // Numbers that are given out are written down first; those that were are used up.
    let lost = || fields! { "command" => texts(&["no-such-program"]) };
    let mut used = 0;
    let message = loop {
        let reply = client.request("create", lost());
        match text(&reply, "code") {
            "SHELL_NOT_FOUND" => used += 1,
            "IO_ERROR" => break text(&reply, "message").to_owned(),
            _ => panic!("{reply}"),
        }
        assert!(used <= 64, "numbers without end");
    };
    assert_eq!(message, "no number for a new terminal can be written down: see the daemon's log");
    assert!(used > 0);
    // What runs goes on.
    client.input(kept, "still\n");
    client.read_until(kept, "<still>");
    drop(full);
    until("the disk is tried again", || text(&client.request("create", sleeper()), "type") == "ok");
    client.ok("create_or_attach", keyed());
}

#[test]
fn a_program_that_is_there_and_cannot_be_run_is_an_error_of_the_session() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let (one, other) = (world.text("one"), world.text("other"));
    symlink(&one, &other).unwrap();
    symlink(&other, &one).unwrap();
    let busy = world.text("busy");
    fs::copy("/bin/true", &busy).unwrap();
    let writing = fs::OpenOptions::new().write(true).open(&busy).unwrap();
    for fields in [
        fields! { "shell" => one.as_str() },
        fields! { "shell" => busy.as_str() },
        fields! { "shell" => format!("/bin/{}", "x".repeat(300)) },
    ] {
        let message = refusal(&mut client, "create", fields.clone(), "SESSION_ERROR");
        assert!(message.starts_with("can't run "), "{message}");
        let keyed = fields.into_iter().chain(fields! { "session_key" => "k" }).collect();
        refusal(&mut client, "create_or_attach", keyed, "SESSION_ERROR");
    }
    assert_eq!(client.rows(), Vec::<Value>::new());
    drop(writing);
    let session = client.create(fields! { "shell" => busy.as_str() });
    client.attach(session);
    assert_eq!(client.exit(session), (0, None));
}

/// The descriptor that a process opens after `more` others.
fn free_descriptor(pid: u32, more: usize) -> u64 {
    let is_free = |number: &u64| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists();
    (0..).filter(is_free).nth(more).unwrap()
}

const ECHO: &str = "stty -echo; trap 'echo heard' USR1; echo ready; \
    while :; do read line && echo \"<$line>\"; done";

#[test]
fn a_holder_without_a_descriptor_left_refuses_what_needs_one_and_keeps_what_it_has() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run(ECHO);
    client.read_until(session, "ready");
    let signalled = || fields! { "session" => session, "signal" => "USR1" };
    let holder = world.holders()[0].pid;
    // What it has open stays open.
    let exhausted = Limited::descriptors(holder, free_descriptor(holder, 0));
    refusal(&mut client, "create", sleeper(), "SESSION_ERROR");
    assert_eq!(client.rows().len(), 1);
    refusal(&mut client, "signal", signalled(), "IO_ERROR");
    client.input(session, "still\n");
    client.read_until(session, "<still>");
    drop(exhausted);
    client.ok("signal", signalled());
    client.read_until(session, "heard");
    client.create(sleeper());
}

#[test]
fn a_daemon_without_a_descriptor_left_leaves_no_program_that_nobody_sees() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    // It writes nothing before the end: the daemon opens nothing for it meanwhile.
    let session = client.run("read line; echo \"<$line>\"; read line");
    let sleeps = || world.processes().iter().filter(|found| found.line == "sleep 600 ").count();
    // None, then one: to wake a new terminal's thread, two: to say what to start.
    for more in 0..3 {
        let limited = Limited::descriptors(daemon.pid(), free_descriptor(daemon.pid(), more));
        refusal(&mut client, "create", sleeper(), "SESSION_ERROR");
        until("what was started is ended", || sleeps() == 0);
        assert_eq!(client.rows().len(), 1);
        drop(limited);
    }
    client.create(sleeper());
    assert_eq!(sleeps(), 1);
    client.input(session, "still\n");
    client.read_until(session, "<still>");
}

#[test]
fn what_a_holder_was_asked_for_when_it_was_killed_is_an_error_of_input_and_output() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("exec sleep 600");
    let holder = world.holders()[0].pid;
    signal(holder, Signal::STOP);
    let seq = client.send("resize", fields! { "session" => session, "cols" => 100, "rows" => 50 });
    // It is under way: whoever watches is told before the holder does it.
    client.event_of("resized", session);
    signal(holder, Signal::KILL);
    refusal_to(&mut client, seq, "IO_ERROR");
    assert_eq!(client.exit(session), (-1, None));
    assert_eq!(text(&client.row(session), "recovery"), "unrecoverable:holder_lost");
}

#[test]
fn what_a_holder_does_not_do_in_ten_seconds_is_an_error_of_the_session() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done");
    client.read_until(session, "ready");
    let holder = world.holders()[0].pid;
    signal(holder, Signal::STOP);
    let start = Instant::now();
    let resize = client.send("resize", fields! { "session" => session, "cols" => 100, "rows" => 50 });
    let term = client.send("signal", fields! { "session" => session, "signal" => "CONT" });
    // Nobody else waits for it.
    assert_eq!(number(&daemon.client("B").row(session), "cols"), 100);
    for seq in [resize, term] {
        let message = refusal_to(&mut client, seq, "SESSION_ERROR");
        assert_eq!(message, format!("terminal {session} did not do it in time"));
    }
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    // It does it all the same, once it can.
    signal(holder, Signal::CONT);
    client.read_until(session, "50 100");
    client.ok("signal", fields! { "session" => session, "signal" => "TERM" });
    assert_eq!(client.exit(session), (143, Some(15)));
    client.run("exit 0");
}
