//! What programs do to each other, and what is left of them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Client, Oracle, World, bin, edit_journal, fields, flag, gone, number, runs, sh, signal, text,
};

/// There: each shell inherited its own master and those of all before it, so nothing
/// hung up when the daemon died, and shells were orphans for ever.
#[test]
fn defect_03_programs_end_with_who_keeps_them_and_not_with_the_daemon() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let sessions: Vec<u64> = (0..3).map(|_| client.create(fields! { "shell" => "/bin/sh" })).collect();
    let pids: Vec<u32> = sessions.iter().map(|session| number(&client.row(*session), "pid") as u32).collect();
    daemon.kill();
    let holders = world.holders();
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert!(pids.iter().all(|pid| runs(*pid)));
    // Nobody has a master any more: the kernel hangs up.
    signal(holders[0].pid, Signal::KILL);
    pids.iter().for_each(|pid| gone(*pid));
    assert_eq!(world.processes(), []);
}

/// There: orphans looked alive after a crash, so nothing was restored; and a number that
/// another process had got by then did so too.
#[test]
fn defect_04_after_a_crash_terminals_are_restored_whoever_has_their_numbers_now() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let cwd = world.text("home");
    let create =
        fields! { "session_key" => "k", "shell" => "/bin/sh", "cwd" => cwd, "cols" => 99, "rows" => 33 };
    let session = number(&client.ok("create_or_attach", create), "session");
    let pid: u32 = number(&client.row(session), "pid").try_into().unwrap();
    daemon.kill();
    world.holders().iter().for_each(|holder| signal(holder.pid, Signal::KILL));
    gone(pid);
    // The shell's number is this test's now.
    edit_journal(&world, |record| record.pid = std::process::id());
    let daemon = world.start();
    let mut client = daemon.client("B");
    let row = client.row(session);
    assert_eq!((text(&row, "recovery"), text(&row, "session_key")), ("restored", "k"));
    assert!(flag(&row, "is_alive") && number(&row, "pid") != u64::from(std::process::id()));
    assert_eq!((number(&row, "cols"), number(&row, "rows")), (99, 33));
    client.attach(session);
    client.input(session, "echo \"<$(pwd -P)>\"\n");
    client.read_until(session, &format!("<{}>", world.path("home").canonicalize().unwrap().display()));
    let again = client.ok("create_or_attach", fields! { "session_key" => "k" });
    assert_eq!(number(&again, "session"), session);
}

/// How long the slowest of 20 lists took.
fn slowest_list(client: &mut Client) -> Duration {
    let timed = (0..20).map(|_| {
        let began = Instant::now();
        client.rows();
        began.elapsed()
    });
    timed.max().unwrap()
}

/// There: the loop wrote to a master that blocked: a paste of 200 kB to a program that
/// did not read froze every client, one `list` for 5.5 s.
#[test]
fn defect_05_a_paste_that_nobody_reads_delays_no_other_client() {
    let world = World::new();
    let daemon = world.start();
    let mut other = daemon.client("B");
    let mut client = daemon.client("A");
    let mut slowest = Duration::MAX;
    // The machine may be busy for a moment; a daemon that waits for the program is so
    // in every round.
    for _ in 0..4 {
        let session = client.run("stty raw -echo; printf ready; exec sleep 600");
        client.read_until(session, "ready");
        client.send("input", fields! { "session" => session, "data" => bin("x".repeat(200_000)) });
        slowest = slowest.min(slowest_list(&mut other));
        if slowest < Duration::from_millis(50) {
            break;
        }
    }
    assert!(slowest < Duration::from_millis(50), "{slowest:?}");
    // Nor another terminal.
    let session = client.run("stty -echo; echo ready; read line; echo \"<$line>\"; read line");
    client.read_until(session, "ready");
    client.input(session, "x\n");
    client.read_until(session, "<x>");
}

/// There: a slow observer was dropped without a word, and could not come back on its
/// connection.
#[test]
fn defect_06_a_paused_observer_is_told_what_it_missed_and_then_shows_the_same() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let script = "stty -echo; read line
        seq -f '\x1b[1;3%.0fmstyled\x1b[0m' 0 7
        seq -f %015.0f 0 399999; printf '\\033[5;10H\\033[7mend\\033[0m'; read line; printf '\\033[1;1Hlater'; read line";
    let session = client.create(fields! { "command" => sh(script) });
    client.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    let mut observer = daemon.stream("slow");
    observer.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    let mut truth = Oracle::new(80, 24);
    // The observer reads nothing while all of this is written.
    client.input(session, "\n");
    client.read_until(session, "end\x1b[0m");
    let all = client.take_output(session);
    assert!(all.len() > 6_000_000);
    truth.feed(&all);
    let resync = observer.event_of("resync", session);
    assert!(number(&resync, "skipped_bytes") > 0);
    observer.take_output(session);
    let mut shown = Oracle::of(&resync["snapshot"]);
    observer.read_to(session, all.len() as u64);
    // There may have been more than one.
    let events = observer.events_so_far();
    let later = events.iter().rfind(|event| text(event, "type") == "resync");
    if let Some(later) = later {
        shown = Oracle::of(&later["snapshot"]);
    }
    let from = number(later.unwrap_or(&resync), "offset");
    shown.feed(&all[usize::try_from(from).unwrap()..]);
    shown.assert_same(&truth);
    // And it goes on, on that connection.
    observer.take_output(session);
    client.input(session, "\n");
    client.read_until(session, "later");
    observer.read_until(session, "later");
    truth.feed(&client.take_output(session));
    shown.feed(&observer.take_output(session));
    shown.assert_same(&truth);
    observer.attach(session);
}

/// There: nothing was left to tell the reader apart from the writer when output never
/// ended; here a flood is a program like any other.
#[test]
fn a_flood_is_ended_like_any_program() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let (session, start) = client.run_flood();
    client.read_to(session, start + (1 << 20));
    client.ok("kill", fields! { "session" => session });
    assert_eq!(client.exit(session), (129, Some(1)));
    assert_eq!(crate::support::flooded(start, &client.take_output(session)), Ok(()));
}
