//! What is added to the published wire: offsets, resumption, looking, counters.

use rmpv::Value;

use crate::support::{Oracle, World, fields, flag, flooded, has, keys, number, sh, text, texts, until};

#[test]
fn every_output_has_the_offset_of_its_first_byte() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    // The client checks that each goes on where the one before ended.
    let session = client.run("seq -f %015.0f 0 19999; read line");
    client.read_to(session, 20_000 * 17);
    assert_eq!(flooded(0, &client.take_output(session)), Ok(()));
    let reply = client.attach(session);
    assert_eq!(number(&reply, "offset"), 20_000 * 17);
    assert_eq!(number(&reply["snapshot"], "offset"), 20_000 * 17);
    assert!(!flag(&reply, "resumed"));
    client.input(session, "\n");
    client.exit(session);
}

#[test]
fn an_attach_resumes_from_any_byte_that_is_still_there() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("seq -f %015.0f 0 9999; read line");
    let end = 10_000 * 17;
    client.read_to(session, end);
    for from in [0, 1, 16, 17, 99_999, end - 1, end] {
        let reply = client.ok("attach", fields! { "session" => session, "resume_from" => from });
        assert!(flag(&reply, "resumed") && !has(&reply, "snapshot"), "{reply}");
        assert_eq!(number(&reply, "offset"), from);
        client.read_to(session, end);
        let output = client.take_output(session);
        assert_eq!((output.len() as u64, flooded(from, &output)), (end - from, Ok(())));
    }
    // What never was can't be resumed from.
    let reply = client.ok("attach", fields! { "session" => session, "resume_from" => end + 1 });
    assert!(!flag(&reply, "resumed") && has(&reply, "snapshot"));
    assert_eq!(number(&reply, "offset"), end);
}

#[test]
fn what_is_no_longer_there_is_answered_with_a_snapshot() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => sh("seq -f %015.0f 0 99999; read line") });
    client.attach(session);
    let end = 100_000 * 17;
    client.read_to(session, end);
    assert!(client.take_output(session).len() as u64 <= end);
    let reply = client.ok("attach", fields! { "session" => session, "resume_from" => 5 });
    assert!(!flag(&reply, "resumed"));
    assert_eq!(number(&reply, "offset"), end);
    assert!(Oracle::of(&reply["snapshot"]).text().contains("000000000099999"));
    // The newest MiB is.
    let from = end - (1 << 20) + 70_000;
    let reply = client.ok("attach", fields! { "session" => session, "resume_from" => from });
    assert!(flag(&reply, "resumed"), "{reply}");
    client.read_to(session, end);
    assert_eq!(flooded(from, &client.take_output(session)), Ok(()));
}

#[test]
fn history_is_as_long_as_asked_for() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty -echo; seq -f line-%g. 1 3000; printf end; read line");
    client.read_until(session, "end");
    for (asked, lines) in [(Some(0), 0), (Some(10), 10), (Some(2000), 2000), (None, 500)] {
        let asked = asked.map_or(Value::Nil, Value::from);
        let fields = fields! { "session" => session, "history_lines" => asked.clone() };
        let attached = client.ok("attach", fields)["snapshot"].clone();
        let fields = fields! { "session" => session, "history_lines" => asked.clone() };
        let looked = client.ok("snapshot", fields)["snapshot"].clone();
        for snapshot in [attached, looked] {
            let count = text(&snapshot, "content").matches("line-").count();
            // 23 lines are on the screen itself.
            assert_eq!(count, 23 + lines, "{asked}");
        }
    }
}

#[test]
fn a_snapshot_needs_no_attach_and_no_right_but_to_read() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("stty -echo; printf 'shown\\033]0;a title\\007'; read line; exit 6");
    client.read_until(session, "title");
    let mut reader = daemon.stream("R");
    let reply = reader.ok("snapshot", fields! { "session" => session });
    assert_eq!(keys(&reply)[..4], ["type", "seq", "session", "snapshot"]);
    assert_eq!(Oracle::of(&reply["snapshot"]).text(), "shown");
    assert_eq!(text(&reply["snapshot"], "title"), "a title");
    assert_eq!(number(&client.row(session), "subscribers"), 1);
    client.input(session, "\n");
    assert_eq!(client.exit(session), (6, None));
    let reply = reader.ok("snapshot", fields! { "session" => session });
    assert!(Oracle::of(&reply["snapshot"]).text().starts_with("shown"));
    assert_eq!(reader.events_so_far(), Vec::<Value>::new());
}

#[test]
fn a_key_can_be_demanded_to_be_free() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let request = || fields! { "session_key" => "k", "exclusive" => true, "command" => sh("sleep 600") };
    let session = number(&client.ok("create_or_attach", request()), "session");
    assert_eq!(client.refused("create_or_attach", request()), "ALREADY_EXISTS");
    client.attach(session);
    client.ok("kill", fields! { "session" => session });
    client.exit(session);
    client.ok("create_or_attach", request());
}

#[test]
fn a_command_is_run_as_it_is_without_a_shell() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let words = ["printf", "<%s>", "a b", "$HOME", "*", ""];
    let session = client.create(fields! { "command" => texts(&words) });
    client.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    assert_eq!(client.exit(session), (0, None));
    assert_eq!(client.take_output(session), b"<a b><$HOME><*><>");
    assert_eq!(client.row(session)["command"], texts(&words));
}

#[test]
fn a_new_size_is_told_to_everybody_who_watches() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.create(fields! { "command" => sh("sleep 600") });
    let mut reader = daemon.stream("R");
    reader.attach(session);
    client.ok("resize", fields! { "session" => session, "cols" => 100, "rows" => 50 });
    let resized = reader.event_of("resized", session);
    assert_eq!((number(&resized, "cols"), number(&resized, "rows")), (100, 50));
}

#[test]
fn an_exit_is_told_to_each_that_attaches_after_it_once() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    let session = client.run("echo some words; exit 9");
    assert_eq!(client.exit(session), (9, None));
    for from in [Value::Nil, 0.into(), 5.into()] {
        client.ok("attach", fields! { "session" => session, "resume_from" => from });
        assert_eq!(client.exit(session), (9, None));
    }
    let mut other = daemon.client("B");
    other.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    assert_eq!(other.exit(session), (9, None));
    assert_eq!(other.take_output(session), b"some words\r\n");
    assert_eq!(other.events_so_far(), Vec::<Value>::new());
}

#[test]
fn counters_tell_what_there_is_and_what_happened() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    client.run("sleep 600");
    let mut reader = daemon.stream("R");
    let reply = reader.ok("metrics", vec![]);
    let metrics = &reply["metrics"];
    let all = metrics.as_map().unwrap();
    assert!(all.iter().all(|(name, value)| name.is_str() && value.is_u64()), "{metrics}");
    for word in
        ["sessions", "subscribers", "queue", "resync", "owner_denials", "adopted", "restored", "attach"]
    {
        assert!(keys(metrics).iter().any(|name| name.contains(word)), "no {word} in {:?}", keys(metrics));
    }
}

#[test]
fn a_slow_reader_is_warned_and_so_is_the_owner_until_all_is_well() {
    let world = World::new();
    let daemon = world.start();
    let mut client = daemon.client("A");
    // Paused until it is told to go, so that nothing is shown before the reader stands still.
    let session = client.run("stty -echo; read line; seq -f %015.0f 0 299999; read line");
    let mut reader = daemon.stream("R");
    reader.ok("attach", fields! { "session" => session, "resume_from" => 0 });
    client.input(session, "\n");
    // The reader reads nothing; the owner reads all, and hears how the reader does.
    client.read_to(session, 300_000 * 17);
    for level in ["yellow", "red"] {
        let warning = client.event("a warning", |event| event["level"] == Value::from(level));
        assert_eq!(text(&warning, "type"), "backpressure_warning");
        assert_eq!(number(&warning, "session"), session);
        assert!(number(&warning, "queue_size") > 0);
    }
    reader.read_to(session, 300_000 * 17);
    let last = |client: &mut crate::support::Client| {
        let mut level = String::new();
        until("green", || {
            for event in client.events_so_far() {
                if text(&event, "type") == "backpressure_warning" {
                    level = text(&event, "level").to_owned();
                }
            }
            level == "green"
        });
    };
    last(&mut reader);
    last(&mut client);
}
