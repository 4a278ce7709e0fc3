//! How programs end, and what is said of it.

use std::time::{Duration, Instant};

use rmpv::Value;

use crate::support::{World, fields, flag, flooded, gone, has, number, sh, text, until};

/// There: the session was removed before its exit was broadcast; 0 of 20 natural exits
/// were reported.
#[test]
fn defect_01_natural_exits_are_reported_20_of_20_after_their_last_byte() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let sessions: Vec<u64> =
        (0..20).map(|_| client.create(fields! { "shell" => "/bin/sh", "cwd" => "/" })).collect();
    for session in &sessions {
        client.attach(*session);
        client.input(*session, format!("echo last$((1 + 1)){session}; exit {session}\n"));
    }
    for session in &sessions {
        assert_eq!(client.exit(*session), (i64::try_from(*session).unwrap(), None));
        // The client takes no output after an exit.
        let output = String::from_utf8(client.take_output(*session)).unwrap();
        assert!(output.contains(&format!("last2{session}\r\n")), "{output:?}");
        let row = client.row(*session);
        assert_eq!((flag(&row, "is_alive"), number(&row, "exit_code")), (false, *session));
    }
}

/// There: the last line was lost in 2 of 20.
#[test]
fn defect_02_nothing_that_a_program_wrote_before_it_ended_is_lost() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    for lines in [1, 2, 500, 4000] {
        let sessions: Vec<u64> =
            (0..5).map(|_| client.run(&format!("exec seq -f %015.0f 0 {}", lines - 1))).collect();
        for session in sessions {
            assert_eq!(client.exit(session), (0, None));
            let output = client.take_output(session);
            assert_eq!((output.len(), flooded(0, &output)), (lines * 17, Ok(())));
        }
    }
}

/// There: a background job that kept the terminal wedged the session in "terminating",
/// without an exit.
#[test]
fn defect_12_a_background_job_can_not_keep_an_ended_shell_from_being_reported() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    // One that writes on and on and doesn't hear hang-ups, and one that is silent.
    let noisy = client.run("(trap '' HUP; while echo noise; do sleep 0.05; done) & echo $!; exit 4");
    let silent = client.run("sleep 600 & exit 5");
    let began = Instant::now();
    assert_eq!(client.exit(noisy), (4, None));
    assert_eq!(client.exit(silent), (5, None));
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    for (session, code) in [(noisy, 4), (silent, 5)] {
        let row = client.row(session);
        assert_eq!((text(&row, "state"), number(&row, "exit_code")), ("exited", code));
        client.attach(session);
        assert_eq!(client.exit(session).0, i64::try_from(code).unwrap());
    }
    let output = String::from_utf8(client.take_output(noisy)).unwrap();
    drop(output);
    // The terminal is taken from both.
    until("no job is left", || !world.processes().iter().any(|found| found.line.contains("sleep 600")));
}

/// There: KILL at once, to the shell alone; grandchildren lived on.
#[test]
fn defect_13_a_kill_begins_with_hang_up_and_term_and_reaches_every_process() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let script = "(trap '' HUP TERM; exec sleep 600) & echo child $!.
        trap 'echo got-hup' HUP; trap 'echo got-term; sleep 0.1; exit 7' TERM
        echo ready; while :; do sleep 0.02; done";
    let session = client.run(script);
    client.read_until(session, "ready");
    let output = String::from_utf8(client.take_output(session)).unwrap();
    let child: u32 = output.split(['\r', ' ', '.']).find_map(|word| word.parse().ok()).expect("its number");
    let began = Instant::now();
    client.ok("kill", fields! { "session" => session });
    client.read_until(session, "got-hup");
    client.read_until(session, "got-term");
    assert_eq!(client.exit(session), (7, None));
    // The grandchild heard neither; 3 s after them it is killed.
    gone(child);
    let took = began.elapsed();
    assert!((Duration::from_millis(2500)..Duration::from_secs(6)).contains(&took), "{took:?}");
    // A program that hears nothing at all.
    let session = client.run("trap '' HUP TERM; echo ready; while :; do sleep 0.02; done");
    client.read_until(session, "ready");
    let began = Instant::now();
    client.ok("kill", fields! { "session" => session });
    assert_eq!(client.exit(session), (137, Some(9)));
    let took = began.elapsed();
    assert!((Duration::from_millis(2900)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

/// There: `initial_commands` was accepted and ignored.
#[test]
fn defect_10_initial_commands_are_run_in_their_order() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let commands = crate::support::texts(&["one=1", "echo \"<$one$((1 + 1))>\"", "exit 3"]);
    let session = client.create(fields! { "shell" => "/bin/sh", "initial_commands" => commands });
    client.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    assert_eq!(client.exit(session), (3, None));
    assert!(String::from_utf8(client.take_output(session)).unwrap().contains("<12>"));
}

/// There: both answered ok; the child started elsewhere, or died at once.
#[test]
fn defect_11_a_missing_directory_and_a_missing_shell_are_errors() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let missing = world.text("nowhere");
    let file = world.text("castra-ptyd");
    let plain = world.path("plain");
    std::fs::write(&plain, "no program").unwrap();
    let plain = plain.to_str().unwrap();
    for (fields, code) in [
        (fields! { "cwd" => missing.as_str() }, "CWD_MISSING"),
        (fields! { "cwd" => file }, "CWD_MISSING"),
        (fields! { "shell" => missing.as_str() }, "SHELL_NOT_FOUND"),
        (fields! { "shell" => "no-such-shell-anywhere" }, "SHELL_NOT_FOUND"),
        (fields! { "command" => crate::support::texts(&["no-such-program"]) }, "SHELL_NOT_FOUND"),
        (fields! { "shell" => plain }, "PERMISSION_DENIED"),
        // The place is looked at first.
        (fields! { "cwd" => missing.as_str(), "shell" => missing.as_str() }, "CWD_MISSING"),
    ] {
        let what = format!("{fields:?}");
        assert_eq!(client.refused("create", fields.clone()), code, "{what}");
        let keyed = fields.into_iter().chain(fields! { "session_key" => "k" }).collect();
        assert_eq!(client.refused("create_or_attach", keyed), code, "{what}");
    }
    assert_eq!(client.rows(), Vec::<Value>::new());
    // A key that could not be used is free.
    let keyed = fields! { "session_key" => "k", "command" => sh("sleep 600") };
    assert!(has(&client.ok("create_or_attach", keyed), "session"));
}
