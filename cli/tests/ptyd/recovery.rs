//! What outlives the daemon, its holder, and the machine's boot.

use std::fs;

use rmpv::Value;
use rustix::process::Signal;

use crate::support::{
    Client, Oracle, World, edit_journal, fields, flag, flooded, gone, has, number, paced_flood, runs, sh,
    signal, text, texts, until,
};

fn pid(client: &mut Client, session: u64) -> u32 {
    number(&client.row(session), "pid").try_into().unwrap()
}

/// Whether the journal's file holds these bytes.
fn written(world: &World, bytes: &[u8]) -> bool {
    fs::read(world.journal()).is_ok_and(|all| all.windows(bytes.len()).any(|part| part == bytes))
}

/// The daemon and its holder die at once, and with them every program.
fn crash(world: &World, daemon: crate::support::Daemon) {
    daemon.kill();
    for holder in world.holders() {
        signal(holder.pid, Signal::KILL);
        gone(holder.pid);
    }
    until("every program is gone", || world.processes().is_empty());
}

#[test]
fn ten_terminals_outlive_a_killed_daemon_without_a_byte_lost_or_doubled() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let flood = client.run(&paced_flood());
    let echo = "stty -echo; echo ready; while read line; do echo \"<$line>\"; done";
    let echoes: Vec<u64> = (0..7).map(|_| client.run(echo)).collect();
    // Two that end in between.
    let wait =
        |code: u32| format!("echo ready; while [ ! -e go ]; do sleep 0.02; done; echo over; exit {code}");
    let home = world.text("home");
    let ending = |client: &mut Client, code: u32| {
        let fields = fields! { "command" => sh(&wait(code)), "cwd" => home.as_str() };
        let session = client.create(fields);
        client.ok("attach", fields! { "session" => session, "resume_from" => 0 });
        client.read_until(session, "ready\r\n");
        session
    };
    let ends = [(ending(&mut client, 7), 7), (ending(&mut client, 8), 8)];
    for session in &echoes {
        client.read_until(*session, "ready\r\n");
    }
    client.read_to(flood, 100_000);
    let before = client.rows();
    let known = client.take_output(flood);
    assert_eq!(flooded(0, &known), Ok(()));
    let reached = client.offset(flood).unwrap();
    let reached_echoes: Vec<u64> = echoes.iter().map(|session| client.offset(*session).unwrap()).collect();
    let reached_ends: Vec<u64> = ends.iter().map(|(session, _)| client.offset(*session).unwrap()).collect();
    let pids: Vec<u32> = ends.iter().map(|(session, _)| pid(&mut client, *session)).collect();
    daemon.kill();
    // What was on the way is the client's all the same.
    client.until_closed();
    fs::write(world.path("home/go"), "").unwrap();
    pids.iter().for_each(|pid| gone(*pid));

    let daemon = world.start();
    let mut client = daemon.client("B");
    let after = client.rows();
    assert_eq!(after.len(), 10);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((&old["id"], &old["pid"], &old["pts"]), (&new["id"], &new["pid"], &new["pts"]));
        assert_eq!(text(new, "recovery"), "adopted", "{new}");
        // Nobody owns it: the client of before was another daemon's.
        assert!(!has(new, "owner"));
    }
    // The flood goes on from the client's own last byte.
    let reply = client.ok("attach", fields! { "session" => flood, "resume_from" => reached });
    assert!(flag(&reply, "resumed") && flag(&reply, "owner_is_you"), "{reply}");
    client.read_to(flood, reached + 400_000);
    assert_eq!(flooded(reached, &client.take_output(flood)), Ok(()));
    for (session, reached) in echoes.iter().zip(reached_echoes) {
        let reply = client.ok("attach", fields! { "session" => *session, "resume_from" => reached });
        assert!(flag(&reply, "resumed") && flag(&reply, "owner_is_you"), "{reply}");
        client.input(*session, "again\n");
        client.read_until(*session, "<again>\r\n");
        assert_eq!(client.take_output(*session), b"<again>\r\n");
    }
    for ((session, code), reached) in ends.into_iter().zip(reached_ends) {
        client.ok("attach", fields! { "session" => session, "resume_from" => reached });
        assert_eq!(client.exit(session), (code, None));
        assert_eq!(client.take_output(session), b"over\r\n");
        let row = client.row(session);
        assert_eq!(
            (flag(&row, "is_alive"), number(&row, "exit_code")),
            (false, u64::try_from(code).unwrap())
        );
    }
    let metrics = client.ok("metrics", vec![])["metrics"].clone();
    let adopted =
        metrics.as_map().unwrap().iter().find(|(name, _)| name.as_str().unwrap().contains("adopted"));
    assert_eq!(adopted.unwrap().1, Value::from(10), "{metrics}");
}

#[test]
fn a_flood_at_full_speed_outlives_killed_daemons_without_a_byte_missing_or_doubled() {
    let world = World::new();
    let mut daemon = world.start();
    let mut client = daemon.client("A");
    let (session, start) = client.run_flood();
    client.read_to(session, start + (1 << 20));
    assert_eq!(flooded(start, &client.take_output(session)), Ok(()));
    for round in 0..3 {
        let reached = client.offset(session).unwrap();
        daemon.kill();
        daemon = world.start();
        client = daemon.client(&format!("round {round}"));
        let reply = client.ok("attach", fields! { "session" => session, "resume_from" => reached });
        let from = number(&reply, "offset");
        assert!(flag(&reply, "owner_is_you") && flag(&reply, "resumed"), "{reply}");
        assert_eq!(from, reached, "{reply}");
        client.read_to(session, from + (2 << 20));
        assert_eq!(flooded(from, &client.take_output(session)), Ok(()));
    }
}

#[test]
fn while_no_daemon_is_there_programs_wait_rather_than_lose_a_byte() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    // More than is kept; it ends when all of it was taken.
    let session = client.run("stty -echo; echo ready; read line; exec seq -f %015.0f 0 99999");
    client.read_until(session, "ready\r\n");
    let pid = pid(&mut client, session);
    let start = client.offset(session).unwrap();
    client.input(session, "\n");
    client.read_to(session, start + 17);
    daemon.kill();
    client.until_closed();
    let reached = client.offset(session).unwrap();
    until("it waits, or has ended", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !runs(pid) || stat.contains(") S ")
    });
    let daemon = world.start();
    let mut client = daemon.client("A");
    let reply = client.ok("attach", fields! { "session" => session, "resume_from" => reached });
    let from = number(&reply, "offset");
    assert!(from >= reached);
    assert_eq!(client.exit(session), (0, None));
    let output = client.take_output(session);
    assert_eq!((from + output.len() as u64, flooded(from - start, &output)), (start + 1_700_000, Ok(())));
}

#[test]
fn the_screen_of_an_adopted_terminal_is_whole() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let script = "stty -echo; read line; seq -f %015.0f 0 99999; printf '\\033[?1049h\\033[2J\\033[3;3H\\033[1mtwo\\033[?2004h@'; \
        read line; printf '\\033[?1049l#'; read line";
    let session = client.run(script);
    client.input(session, "\n");
    client.read_until(session, "@");
    let reached = client.offset(session).unwrap();
    let mut truth = Oracle::new(80, 24);
    truth.feed(&client.take_output(session));
    daemon.kill();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let reply = client.attach(session);
    let mut shown = Oracle::of(&reply["snapshot"]);
    // What the new daemon had not read when it was asked follows.
    client.read_to(session, reached);
    shown.feed(&client.take_output(session));
    shown.assert_same(&truth);
    client.input(session, "\n");
    client.read_until(session, "#");
    let more = client.take_output(session);
    truth.feed(&more);
    shown.feed(&more);
    shown.assert_same(&truth);
}

#[test]
fn a_killed_holder_is_told_at_once_of_each_of_its_terminals() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let first = client.run("echo words; exec sleep 600");
    let second = client.run("exec sleep 600");
    client.read_until(first, "words\r\n");
    let pids = [pid(&mut client, first), pid(&mut client, second)];
    signal(world.holders()[0].pid, Signal::KILL);
    for session in [first, second] {
        // Nobody can know how it ended.
        assert_eq!(client.exit(session).0, -1);
        assert_eq!(text(&client.row(session), "state"), "exited");
    }
    pids.iter().for_each(|pid| gone(*pid));
    let reply = client.attach(first);
    assert!(Oracle::of(&reply["snapshot"]).text().starts_with("words"));
    // There is a new one for whoever comes now.
    let third = client.run("echo third");
    assert_eq!(client.exit(third), (0, None));
}

#[test]
fn after_a_crash_of_both_shells_come_back_and_commands_are_told_to_be_gone() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let shell = client.create(fields! { "shell" => "/bin/sh", "cols" => 90 });
    client.attach(shell);
    client.input(shell, "echo before$((40 + 2))\n");
    client.read_until(shell, "before42");
    let command = client.run("echo wor$((40 + 2))ds; exec sleep 600");
    client.read_until(command, "wor42ds");
    let ended = client.run("exit 3");
    assert_eq!(client.exit(ended), (3, None));
    // What it showed is written down within 2 s.
    until("the tails are written down", || written(&world, b"before42") && written(&world, b"wor42ds"));
    crash(&world, daemon);

    let daemon = world.start();
    let mut client = daemon.client("A");
    let row = client.row(shell);
    assert_eq!(
        (text(&row, "recovery"), flag(&row, "is_alive"), number(&row, "cols")),
        ("restored", true, 90)
    );
    let row = client.row(command);
    assert!(text(&row, "recovery").starts_with("unrecoverable:"), "{row}");
    assert!(!flag(&row, "is_alive"));
    assert_eq!(number(&client.row(ended), "exit_code"), 3);
    // The shell is new, below what the old one showed.
    let reply = client.ok("attach", fields! { "session" => shell, "resume_from" => 5 });
    assert!(!flag(&reply, "resumed"));
    let mut shown = Oracle::of(&reply["snapshot"]);
    client.input(shell, "echo after$((40 + 2))\n");
    client.read_until(shell, "after42");
    shown.feed(&client.take_output(shell));
    let all = shown.text();
    assert!(all.find("before42") < all.find("after42") && all.contains("before42"), "{all}");
    // The command has its last words and an end that nobody knows.
    let reply = client.attach(command);
    assert!(text(&reply["snapshot"], "content").contains("wor42ds"), "{reply}");
    assert_eq!(client.exit(command).0, -1);
    assert_eq!(client.refused("kill", fields! { "session" => command }), "NOT_FOUND");
    let metrics = client.ok("metrics", vec![])["metrics"].clone();
    for outcome in ["restored", "unrecoverable"] {
        let counted =
            metrics.as_map().unwrap().iter().find(|(name, _)| name.as_str().unwrap().contains(outcome));
        assert_eq!(counted.unwrap().1, Value::from(1), "{outcome}: {metrics}");
    }
}

#[test]
fn after_a_reboot_terminals_come_back_by_policy() {
    for (policy, shell_is_back, command_is_back) in [
        (None, true, false),
        (Some("shells"), true, false),
        (Some("all"), true, true),
        (Some("none"), false, false),
    ] {
        let world = World::new();
        let daemon = world.start();
        let mut client = daemon.client("A");
        let shell = client.create(fields! { "shell" => "/bin/sh" });
        let command = client.create(fields! { "command" => texts(&["sleep", "600"]) });
        crash(&world, daemon);
        // Numbers of the last boot say nothing of processes of this one.
        edit_journal(&world, |record| {
            record.boot = [0x5a; 16];
            record.pid = std::process::id();
        });
        let daemon = policy.map_or_else(|| world.start(), |policy| world.serve(&["--restore", policy]));
        let mut client = daemon.client("A");
        for (session, is_back) in [(shell, shell_is_back), (command, command_is_back)] {
            until("it was started", || text(&client.row(session), "state") != "starting");
            let row = client.row(session);
            assert_eq!(flag(&row, "is_alive"), is_back, "{policy:?}: {row}");
            if is_back {
                assert_eq!(text(&row, "recovery"), "restored");
                let now: u32 = number(&row, "pid").try_into().unwrap();
                assert!(now != std::process::id() && runs(now));
            } else {
                assert!(text(&row, "recovery").starts_with("unrecoverable:"), "{row}");
            }
        }
        client.ok("kill_all", vec![]);
    }
}

#[test]
fn a_terminal_whose_directory_has_vanished_is_listed_and_not_alive() {
    let world = World::new();
    let place = world.path("home/place");
    fs::create_dir(&place).unwrap();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let fields = fields! { "shell" => "/bin/sh", "cwd" => place.to_str().unwrap(), "session_key" => "k" };
    let session = number(&client.ok("create_or_attach", fields), "session");
    crash(&world, daemon);
    fs::remove_dir(&place).unwrap();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let mut row = client.row(session);
    until("it was tried", || {
        row = client.row(session);
        !flag(&row, "is_alive")
    });
    assert!(text(&row, "recovery").contains("CWD_MISSING"), "{row}");
    // Its key is free for another place.
    let fields = fields! { "shell" => "/bin/sh", "cwd" => "/", "session_key" => "k" };
    assert_ne!(number(&client.ok("create_or_attach", fields), "session"), session);
}

#[test]
fn a_journal_that_is_damaged_or_foreign_is_set_aside_and_nothing_that_runs_is_lost() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty -echo; echo ready; while read line; do echo \"<$line>\"; done");
    client.read_until(session, "ready");
    let pid = pid(&mut client, session);
    daemon.kill();
    fs::write(world.journal(), b"\x91\x80 as another daemon would write it").unwrap();
    let daemon = world.start();
    let mut client = daemon.client("A");
    // The holder knows what the journal doesn't.
    let row = client.row(session);
    assert_eq!((number(&row, "pid"), text(&row, "recovery")), (u64::from(pid), "adopted"));
    client.attach(session);
    client.input(session, "x\n");
    client.read_until(session, "<x>");
    assert!(client.create(fields! { "command" => sh("sleep 600") }) > session);
    let aside = fs::read_dir(world.path("run")).unwrap().flatten();
    assert_eq!(aside.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).count(), 1);
}

#[test]
fn what_ended_under_a_killed_daemon_is_not_restored() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.create(fields! { "shell" => "/bin/sh" });
    client.attach(session);
    let shell = pid(&mut client, session);
    daemon.kill();
    signal(shell, Signal::KILL);
    gone(shell);
    let daemon = world.start();
    let mut client = daemon.client("A");
    client.attach(session);
    assert_eq!(client.exit(session), (137, Some(9)));
    assert!(!flag(&client.row(session), "is_alive"));
    // Once that is written down it stays so, over another restart and the end of the holder.
    until("it is written down", || written(&world, b"\"code\":137"));
    crash(&world, daemon);
    let daemon = world.start();
    let mut client = daemon.client("A");
    let row = client.row(session);
    assert_eq!(
        (flag(&row, "is_alive"), number(&row, "exit_code"), number(&row, "exit_signal")),
        (false, 137, 9)
    );
}
