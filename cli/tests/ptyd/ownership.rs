//! Who may command a terminal: one connection at most, and everybody sees which.

use rmpv::Value;

use crate::support::{Client, Fields, Role, World, bin, fields, flag, has, number, sh, text, texts};

fn owner(client: &mut Client, session: u64) -> Option<String> {
    client.row(session)["owner"].as_str().map(ToOwned::to_owned)
}

/// Everything that only an owner may ask.
fn commands(session: u64) -> Vec<(&'static str, Fields)> {
    vec![
        ("input", fields! { "session" => session, "data" => bin("x") }),
        ("resize", fields! { "session" => session, "cols" => 10, "rows" => 10 }),
        ("signal", fields! { "session" => session, "signal" => "KILL" }),
        ("clear_scrollback", fields! { "session" => session }),
        ("kill", fields! { "session" => session }),
    ]
}

#[test]
fn whoever_creates_a_terminal_owns_it_and_nobody_else_commands_it() {
    let world = World::new();
    let daemon = world.start();
    let mut owning = daemon.client("A");
    let session = owning.create(fields! { "command" => sh("sleep 600") });
    let mut other = daemon.client("B");
    let reply = other.attach(session);
    assert_eq!((text(&reply, "owner"), flag(&reply, "owner_is_you")), ("A", false));
    for (kind, fields) in commands(session) {
        assert_eq!(other.refused(kind, fields), "OWNER_REQUIRED", "{kind}");
    }
    assert!(!flag(&other.row(session), "owner_is_you"));
    let row = owning.row(session);
    assert!(flag(&row, "owner_is_you") && flag(&row, "is_alive") && number(&row, "cols") == 80);
    let denials = &other.ok("metrics", vec![])["metrics"];
    assert_eq!(number(denials, "owner_denials_total"), 5);
    // Asking for the key doesn't take it either.
    let key = || fields! { "session_key" => "k", "command" => sh("sleep 600") };
    let keyed = number(&owning.ok("create_or_attach", key()), "session");
    assert_eq!(number(&other.ok("create_or_attach", key()), "session"), keyed);
    assert_eq!(owner(&mut other, keyed).as_deref(), Some("A"));
}

#[test]
fn a_detach_frees_a_terminal_and_the_next_control_client_that_attaches_has_it() {
    let world = World::new();
    let daemon = world.start();
    let mut first = daemon.client("A");
    let session = first.create(fields! { "command" => sh("sleep 600") });
    first.attach(session);
    let mut second = daemon.client("B");
    second.attach(session);
    let mut reader = daemon.stream("R");
    reader.attach(session);
    first.ok("detach", fields! { "session" => session });
    for client in [&mut second, &mut reader] {
        let changed = client.event_of("owner_changed", session);
        assert!(!has(&changed, "owner"), "{changed}");
    }
    assert_eq!(owner(&mut first, session), None);
    // One who only reads never owns.
    let mut late_reader = daemon.stream("S");
    late_reader.attach(session);
    assert_eq!(owner(&mut reader, session), None);
    let mut third = daemon.client("C");
    let reply = third.attach(session);
    assert_eq!((text(&reply, "owner"), flag(&reply, "owner_is_you")), ("C", true));
    assert_eq!(text(&second.event_of("owner_changed", session), "owner"), "C");
    assert_eq!(text(&reader.event_of("owner_changed", session), "owner"), "C");
    assert_eq!(first.refused("kill", fields! { "session" => session }), "OWNER_REQUIRED");
}

#[test]
fn a_command_on_a_free_terminal_claims_it() {
    let world = World::new();
    let daemon = world.start();
    let mut first = daemon.client("A");
    let session = first.create(fields! { "command" => sh("sleep 600") });
    first.ok("detach", fields! { "session" => session });
    let mut second = daemon.client("B");
    second.ok("resize", fields! { "session" => session, "cols" => 99, "rows" => 9 });
    assert_eq!(owner(&mut first, session).as_deref(), Some("B"));
    assert_eq!(first.refused("kill", fields! { "session" => session }), "OWNER_REQUIRED");
    // A keyed one that is free, too.
    let key = || fields! { "session_key" => "k", "command" => sh("sleep 600") };
    let keyed = number(&first.ok("create_or_attach", key()), "session");
    first.ok("detach", fields! { "session" => keyed });
    second.ok("create_or_attach", key());
    assert_eq!(owner(&mut first, keyed).as_deref(), Some("B"));
}

#[test]
fn an_attach_that_only_observes_claims_nothing() {
    let world = World::new();
    let daemon = world.start();
    let mut first = daemon.client("A");
    let session = first.create(fields! { "command" => sh("sleep 600") });
    first.ok("detach", fields! { "session" => session });
    let mut second = daemon.client("B");
    let reply = second.ok("attach", fields! { "session" => session, "observe" => true });
    assert!(!has(&reply, "owner") && !flag(&reply, "owner_is_you"), "{reply}");
    assert_eq!(owner(&mut first, session), None);
}

#[test]
fn a_takeover_moves_a_terminal_and_everybody_who_watches_hears_it() {
    let world = World::new();
    let daemon = world.start();
    let mut first = daemon.client("A");
    let session = first.create(fields! { "command" => sh("sleep 600") });
    first.attach(session);
    let mut reader = daemon.stream("R");
    reader.attach(session);
    assert_eq!(reader.refused("takeover", fields! { "session" => session }), "ROLE_FORBIDDEN");
    let mut second = daemon.client("B");
    second.ok("takeover", fields! { "session" => session });
    for client in [&mut first, &mut reader] {
        assert_eq!(text(&client.event_of("owner_changed", session), "owner"), "B");
    }
    assert_eq!(first.refused("kill", fields! { "session" => session }), "OWNER_REQUIRED");
    second.ok("resize", fields! { "session" => session, "cols" => 99, "rows" => 9 });
    // What the loser detaches from is not its own any more.
    first.ok("detach", fields! { "session" => session });
    assert_eq!(owner(&mut reader, session).as_deref(), Some("B"));
}

#[test]
fn an_owner_that_disconnects_is_waited_for_2_s_and_by_its_name_alone() {
    let world = World::new();
    let daemon = world.start();
    let mut first = daemon.client("A");
    let session = first.create(fields! { "command" => sh("sleep 600") });
    first.attach(session);
    let mut watcher = daemon.client("W");
    watcher.attach(session);
    drop(first);
    let kill = || fields! { "session" => session };
    assert_eq!(watcher.refused("kill", kill()), "OWNER_REQUIRED");
    // Back in time: nobody else hears of it.
    let mut back = daemon.client("A");
    let reply = back.attach(session);
    assert!(flag(&reply, "owner_is_you"), "{reply}");
    assert_eq!(watcher.events_so_far(), Vec::<Value>::new());
    drop(back);
    let left = std::time::Instant::now();
    let changed = watcher.event_of("owner_changed", session);
    assert!(!has(&changed, "owner"));
    let waited = left.elapsed().as_millis();
    assert!((1900..4000).contains(&waited), "{waited} ms");
    watcher.ok("resize", fields! { "session" => session, "cols" => 99, "rows" => 9 });
    assert_eq!(owner(&mut watcher, session).as_deref(), Some("W"));
}

#[test]
fn kill_all_takes_everybodys_or_only_ones_own() {
    let world = World::new();
    let daemon = world.start();
    let mut published = daemon.client("A");
    let modest = fields! { "capabilities" => texts(&["ownership-v2"]) };
    let mut modest = daemon.client_with("B", Role::Control, modest);
    let run = |client: &mut Client| client.run("exec sleep 600");
    let theirs = [run(&mut published), run(&mut published)];
    let ours = run(&mut modest);
    assert_eq!(number(&modest.ok("kill_all", vec![]), "count"), 1);
    modest.exit(ours);
    assert!(flag(&modest.row(theirs[0]), "is_alive"));
    assert_eq!(number(&published.ok("kill_all", fields! { "scope" => "owned" }), "count"), 2);
    theirs.iter().for_each(|session| assert_eq!(published.exit(*session).0, 129));
    // An unclaimed one is nobody's own, and one of all.
    let free = run(&mut published);
    published.ok("detach", fields! { "session" => free });
    assert_eq!(number(&modest.ok("kill_all", vec![]), "count"), 0);
    assert_eq!(number(&modest.ok("kill_all", fields! { "scope" => "all" }), "count"), 1);
}

#[test]
fn a_stream_client_reads_and_does_nothing_else() {
    let world = World::new();
    let daemon = world.start();
    let mut owning = daemon.client("A");
    let session = owning.run("stty -echo; echo ready; read line; echo done");
    let mut reader = daemon.stream("R");
    reader.attach(session);
    reader.rows();
    let all = [
        ("create", vec![]),
        ("create_or_attach", fields! { "session_key" => "k" }),
        ("kill_all", vec![]),
        ("takeover", fields! { "session" => session }),
    ];
    for (kind, fields) in all.into_iter().chain(commands(session)) {
        assert_eq!(reader.refused(kind, fields), "ROLE_FORBIDDEN", "{kind}");
    }
    // Not on a terminal that isn't there either.
    assert_eq!(reader.refused("kill", fields! { "session" => 99 }), "ROLE_FORBIDDEN");
    owning.input(session, "\n");
    reader.read_until(session, "done");
    assert_eq!(reader.exit(session), (0, None));
    reader.ok("detach", fields! { "session" => session });
    assert_eq!(owning.rows().len(), 1);
}
