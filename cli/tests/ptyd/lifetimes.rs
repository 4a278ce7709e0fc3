//! What goes away by itself, and not before its time: an ended terminal after ten
//! minutes, a holder with nothing to hold after one.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{Client, World, edit_journal, fields, number, sh, until};

fn numbers(client: &mut Client) -> Vec<u64> {
    client.rows().iter().map(|row| number(row, "id")).collect()
}

#[test]
fn an_ended_terminal_is_forgotten_once_its_time_is_over_and_not_before() {
    let world = World::new();
    let daemon = world.serve(&["--keep-exited", "1s"]);
    let mut client = daemon.client("A");
    let alive = client.create(fields! { "command" => sh("sleep 600") });
    let fields = fields! { "command" => sh("read line; exit 3"), "session_key" => "k" };
    let session = number(&client.ok("create_or_attach", fields), "session");
    client.attach(session);
    let before = Instant::now();
    client.input(session, "\n");
    assert_eq!(client.exit(session), (3, None));
    until("it is forgotten", || numbers(&mut client) == [alive]);
    assert!(before.elapsed() >= Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(client.refused("attach", fields! { "session" => session }), "NOT_FOUND");
    assert_eq!(client.refused("snapshot", fields! { "session" => session }), "NOT_FOUND");
    // For good, and its key is free.
    daemon.stop();
    let daemon = world.start();
    let mut client = daemon.client("A");
    assert_eq!(numbers(&mut client), [alive]);
    let fields = fields! { "command" => sh("sleep 600"), "session_key" => "k" };
    assert!(number(&client.ok("create_or_attach", fields), "session") > session);
}

#[test]
fn the_ten_minutes_of_an_ended_terminal_go_on_over_a_restart() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let sessions: Vec<u64> = (0..3)
        .map(|code| {
            let session = client.run(&format!("exit {code}"));
            client.exit(session);
            session
        })
        .collect();
    daemon.stop();
    // One ended too long ago, one nearly so, and one just now.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    edit_journal(&world, |record| {
        let (exit, _) = record.exited.unwrap();
        let age = [600, 597, 0][usize::try_from(u64::from(record.terminal.0) - sessions[0]).unwrap()];
        record.exited = Some((exit, now - age));
    });
    let before = Instant::now();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let listed = numbers(&mut client);
    // A machine that takes three seconds for that has seen the second one go.
    assert!(listed == sessions[1..] || before.elapsed() > Duration::from_secs(2), "{listed:?}");
    until("its ten minutes are over", || numbers(&mut client) == sessions[2..]);
    client.attach(sessions[2]);
    assert_eq!(client.exit(sessions[2]), (2, None));
}

#[test]
fn a_holder_waits_a_minute_for_the_next_daemon() {
    let world = World::new();
    let daemon = world.start();
    daemon.client("A");
    let holders = world.holders();
    assert_eq!(holders.len(), 1);
    assert!(holders[0].line.contains(" --linger-ms 60000 "), "{holders:?}");
}

#[test]
fn a_holder_ends_once_its_time_without_a_terminal_and_a_daemon_is_over_and_not_before() {
    let world = World::new();
    fs::create_dir(world.path("run")).unwrap();
    let linger = Duration::from_millis(700);
    let mut holder = world.hold("run/pty.holder", linger);
    let elsewhere = |name| {
        // Its time begins after that of the other one, and it has nothing to wait for.
        let mut witness = world.hold(name, linger);
        assert_eq!(witness.wait().unwrap().code(), Some(0));
    };
    let daemon = world.start();
    let mut client = daemon.client("A");
    // A daemon is there.
    elsewhere("first");
    let session = client.run("echo ready; read line; exit 4");
    client.read_until(session, "ready");
    daemon.kill();
    // A terminal is there.
    elsewhere("second");
    assert_eq!(world.holders().iter().map(|found| found.pid).collect::<Vec<_>>(), [holder.id()]);
    let daemon = world.start();
    let mut client = daemon.client("A");
    client.attach(session);
    client.input(session, "\n");
    assert_eq!(client.exit(session), (4, None));
    let before = Instant::now();
    // Once that is written down nobody has to hold it.
    daemon.stop();
    until("it ends", || holder.try_wait().unwrap().is_some());
    assert!(before.elapsed() >= linger, "{:?}", before.elapsed());
    assert_eq!(holder.wait().unwrap().code(), Some(0));
    assert!(!world.path("run/pty.holder").exists());
    // The next daemon has one of its own.
    let daemon = world.start();
    let mut client = daemon.client("A");
    assert_eq!(numbers(&mut client), [session]);
    client.run("exit 0");
}
