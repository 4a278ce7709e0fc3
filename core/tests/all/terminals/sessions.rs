//! Terminals from handshake to exit, over the wire.
#![allow(clippy::unwrap_used)]

use crate::terminal_host::*;
use castra_core::boundary::{EffectErrorKind, Input};
use castra_core::id::TerminalId;
use castra_core::terminals::wire::{
    Answer, Attach, ChannelMode, Create, ErrorCode, Handshake, Request, Role, Scope, Secret, State,
};
use castra_core::terminals::{Exit, News, OnStop, RestoredTerminals, SignalScope, TerminalsConfig};
use std::time::Duration;

#[test]
fn a_terminal_is_created_when_it_runs_and_is_written_down() {
    let mut host = Host::new();
    let conn = host.control("A");
    host.held_spawns = true;
    let env = vec![("LANG", "C"), ("API_KEY", "hunter2")];
    let create = Create {
        cwd: Some("/srv"),
        shell: Some("/bin/zsh"),
        env,
        initial_commands: vec!["make", "exit"],
        ..Create::default()
    };
    let seq = host.ask(conn, &Request::Create(Box::new(create)));
    assert!(host.answer(conn, seq).is_none());
    host.held_persists = true;
    host.held_spawns = false;
    host.run();
    assert!(host.answer(conn, seq).is_none());
    host.held_persists = false;
    host.run();
    assert!(matches!(host.answer(conn, seq), Some(Answer::Granted(granted)) if granted.session == Some(1)));
    let fake = &host.fakes[&1];
    assert_eq!(fake.input, b"make\nexit\n");
    let launch = fake.launch.as_ref().unwrap();
    assert_eq!((launch.program.as_str(), launch.args.as_slice()), ("/bin/zsh", &["-l".to_string()][..]));
    assert_eq!((launch.cols, launch.rows, launch.env.len()), (80, 24, 2));
    // Secrets of the environment don't reach the disk.
    assert_eq!(host.records[&1].launch.env, [("LANG".into(), "C".into())]);
    assert!(host.records[&1].pid == 101 && host.reserved > 1);
}

#[test]
fn whoever_comes_to_a_new_terminal_waits_for_its_record_too() {
    let mut host = Host::new();
    let (a, b) = (host.control("A"), host.control("B"));
    host.held_persists = true;
    let create = Request::Create(Box::new(Create { session_key: Some("build"), ..Create::default() }));
    let (first, second) = (host.ask(a, &create), host.ask(b, &create));
    assert!(host.answer(a, first).is_none() && host.answer(b, second).is_none());
    host.persist_one();
    assert!(host.answer(a, first).is_some() && host.answer(b, second).is_some());
}

#[test]
fn a_terminal_that_was_refused_for_being_late_does_not_run_when_it_comes() {
    for slow_disk in [false, true] {
        let mut host = Host::new();
        let conn = host.control("A");
        (host.held_spawns, host.held_persists) = (!slow_disk, slow_disk);
        let seq = host.ask(conn, &Request::Create(Box::default()));
        host.pass(10_001);
        assert!(matches!(host.answer(conn, seq), Some(Answer::Error { code: "SESSION_ERROR", .. })));
        (host.held_spawns, host.held_persists) = (false, false);
        host.run();
        host.pass(5000);
        let fake = host.fakes.get(&1);
        assert!(fake.is_none_or(|fake| fake.deeds.iter().any(|deed| deed == "HangUp")), "{slow_disk}");
        let rows = host.granted(conn, &Request::List).sessions.unwrap();
        assert!(rows.iter().all(|row| row.state != Some(State::Running)), "{slow_disk}: {rows:?}");
    }
}

#[test]
fn a_flush_is_answered_once_all_input_before_it_is_in_the_terminal() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    assert!(host.granted(conn, &Request::Flush { session }).session == Some(session));
    host.held_writes = true;
    host.input(conn, session, b"first").unwrap();
    let first = host.ask(conn, &Request::Flush { session });
    host.input(conn, session, b"second").unwrap();
    let second = host.ask(conn, &Request::Flush { session });
    assert!(host.answer(conn, first).is_none() && host.answer(conn, second).is_none());
    host.write_one();
    assert_eq!(host.fakes[&session].input, b"first");
    assert!(host.answer(conn, first).is_some() && host.answer(conn, second).is_none());
    host.exit(session, 0);
    assert!(matches!(host.answer(conn, second), Some(Answer::Error { code: "IO_ERROR", .. })));
    let other = host.control("B");
    let session = host.create(conn);
    assert_eq!(host.refused(other, &Request::Flush { session }), ErrorCode::OwnerRequired);
}

#[test]
fn an_ended_terminal_is_let_go_once_its_end_is_durable() {
    let mut host = Host::new();
    let conn = host.control("A");
    host.held_persists = true;
    host.ask(conn, &Request::Create(Box::default()));
    host.exit(1, 0);
    host.persist_one();
    assert!(host.records[&1].exited.is_none() && host.fakes.contains_key(&1));
    host.persist_one();
    assert!(host.records[&1].exited.is_some() && !host.fakes.contains_key(&1));
}

#[test]
fn what_cannot_be_started_is_refused_by_its_kind_and_leaves_nothing() {
    let mut host = Host::new();
    let conn = host.control("A");
    for (kind, code) in [
        (EffectErrorKind::DirectoryMissing, ErrorCode::CwdMissing),
        (EffectErrorKind::ProgramMissing, ErrorCode::ShellNotFound),
        (EffectErrorKind::PermissionDenied, ErrorCode::PermissionDenied),
        (EffectErrorKind::Terminal, ErrorCode::SessionError),
    ] {
        host.spawn_error = Some(kind);
        let create = Create { session_key: Some("build"), ..Create::default() };
        assert_eq!(host.refused(conn, &Request::Create(Box::new(create))), code);
    }
    assert_eq!(host.granted(conn, &Request::List).sessions.unwrap().len(), 0);
    host.spawn_error = None;
    // Numbers are never given out twice.
    assert_eq!(host.keyed(conn, "build"), 5);
}

#[test]
fn a_disk_that_fails_costs_a_new_terminal_and_nothing_else() {
    let mut host = Host::new();
    let conn = host.control("A");
    let kept = host.create(conn);
    host.failing_disk = true;
    assert_eq!(host.refused(conn, &Request::Create(Box::default())), ErrorCode::IoError);
    assert!(host.fakes[&2].deeds.contains(&"Kill".to_string()));
    assert_eq!(host.input(conn, kept, b"x"), Ok(()));
    host.failing_disk = false;
    host.pass(5000);
    assert!(host.kinds().ends_with(&["storage.recovered"]) || host.kinds().contains(&"storage.recovered"));
    host.create(conn);
}

#[test]
fn keys_are_reused_while_their_terminal_runs_and_may_be_wanted_free() {
    let mut host = Host::new();
    let (a, b) = (host.control("A"), host.control("B"));
    let first = host.keyed(a, "build");
    assert_eq!(host.keyed(b, " build "), first);
    let create = Create { session_key: Some("build"), exclusive: true, ..Create::default() };
    assert_eq!(host.refused(b, &Request::Create(Box::new(create))), ErrorCode::AlreadyExists);
    let long = "k".repeat(257);
    for key in ["", "  ", &long] {
        let create = Create { session_key: Some(key), ..Create::default() };
        assert_eq!(host.refused(a, &Request::Create(Box::new(create))), ErrorCode::InvalidArgument);
    }
    host.granted(a, &Request::Kill { session: first });
    let create = Create { session_key: Some("build"), ..Create::default() };
    assert_eq!(host.refused(a, &Request::Create(Box::new(create))), ErrorCode::SessionTerminating);
    host.exit(first, 0);
    assert_eq!(host.keyed(a, "build"), first + 1);
}

#[test]
fn every_bound_of_a_client_is_told() {
    let restored = RestoredTerminals { next_id: 1, ..RestoredTerminals::default() };
    let small = TerminalsConfig { sessions_max: 2, connections_max: 2, ..config() };
    let mut host = Host::with(small, restored);
    assert_eq!(host.door, 2);
    let conn = host.control("A");
    assert_eq!(host.door, 1);
    let (first, _) = (host.create(conn), host.create(conn));
    assert_eq!(host.refused(conn, &Request::Create(Box::default())), ErrorCode::LimitReached);
    for (cols, rows) in [(0, 1), (1, 0), (1001, 1000), (u16::MAX, u16::MAX)] {
        let resize = Request::Resize { session: first, cols, rows };
        assert_eq!(host.refused(conn, &resize), ErrorCode::InvalidArgument);
        let create = Create { cols: Some(cols), rows: Some(rows), ..Create::default() };
        let refusal = host.refused(conn, &Request::Create(Box::new(create)));
        assert_eq!(refusal, ErrorCode::InvalidArgument);
    }
    host.held_writes = true;
    assert_eq!(host.input(conn, first, b""), Ok(()));
    for _ in 0..200 {
        host.input(conn, first, &[7; 10_000]).unwrap();
    }
    // One write of 64 KiB at most is under way.
    assert_eq!(host.input(conn, first, &[7; 70_000]), Err(ErrorCode::LimitReached));
    host.held_writes = false;
    host.run();
    assert_eq!(host.fakes[&first].input.len(), 2_000_000);
    host.exit(first, 0);
    host.create(conn);
    let second = host.open();
    let third = host.open();
    // The door stays open for one who is to hear that there are too many.
    assert_eq!((host.door, host.peer(second).open), (1, true));
    assert_eq!(host.answer(third, 0).unwrap().code(), Some(ErrorCode::LimitReached));
    host.close(second);
    assert_eq!(host.door, 1);
}

#[test]
fn commands_are_done_before_they_are_answered() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.attach(conn, session);
    host.granted(conn, &Request::Resize { session, cols: 100, rows: 30 });
    host.granted(conn, &Request::ClearScrollback { session });
    for name in ["int", "SIGTERM", "Winch"] {
        host.granted(conn, &Request::Signal { session, signal: name, scope: None });
    }
    let foreground = Some(SignalScope::Foreground);
    host.granted(conn, &Request::Signal { session, signal: "hup", scope: foreground });
    for name in ["", "SIG", "SEGV", "ärgh"] {
        let signal = Request::Signal { session, signal: name, scope: None };
        assert_eq!(host.refused(conn, &signal), ErrorCode::InvalidSignal);
    }
    assert_eq!(host.events(conn), [format!("Resized({session}, 100x30)")]);
    let deeds = &host.fakes[&session].deeds;
    assert_eq!(
        deeds[deeds.len() - 6..],
        [
            "Resize(100x30)",
            "ClearScrollback",
            "Signal(2, Shell)",
            "Signal(15, Shell)",
            "Signal(28, Shell)",
            "Signal(1, Foreground)"
        ]
    );
    host.pass(1000);
    assert_eq!(host.records[&session].launch.cols, 100);
}

#[test]
fn a_killed_terminal_is_hung_up_then_killed_and_its_exit_comes_once_after_the_last_byte() {
    let mut host = Host::new();
    let (a, b) = (host.control("A"), host.client("B", Role::Stream));
    let session = host.create(a);
    host.attach(a, session);
    host.attach(b, session);
    host.granted(a, &Request::Kill { session });
    for request in [
        Request::Kill { session },
        Request::Input { session, data: Secret(b"x") },
        Request::Resize { session, cols: 1, rows: 1 },
    ] {
        assert_eq!(host.refused(a, &request), ErrorCode::SessionTerminating);
    }
    assert_eq!(host.granted(a, &Request::List).sessions.unwrap()[0].state, Some(State::Terminating));
    let deeds = |host: &Host| host.fakes[&session].deeds.clone();
    assert!(deeds(&host).contains(&"HangUp".into()));
    host.pass(2999);
    assert!(!deeds(&host).contains(&"Kill".into()));
    host.fakes.get_mut(&session).unwrap().end += 100_000;
    host.pass(1);
    for conn in [a, b] {
        assert_eq!(host.peer(conn).received[&session], 100_000);
        assert_eq!(host.events(conn).last().unwrap(), "Exit(1, Exit { code: 137, signal: Some(9) })");
        assert_eq!(host.peer(conn).exits[&session], 1);
    }
}

#[test]
fn an_ended_terminal_stays_listed_for_ten_minutes_and_shows_its_last_screen_and_its_exit() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.print(session, 5000);
    host.exit(session, 3);
    assert!(!host.fakes.contains_key(&session), "nobody let it go");
    assert_eq!(host.records[&session].exited.unwrap().0, Exit { code: 3, signal: None });
    assert!(host.tails[&session].contains("screen at 5000"));
    let rows = host.granted(conn, &Request::List).sessions.unwrap();
    assert_eq!((rows[0].exit_code, rows[0].is_alive, rows[0].state), (Some(3), false, Some(State::Exited)));
    for request in [
        Request::Input { session, data: Secret(b"x") },
        Request::Kill { session },
        Request::Takeover { session },
        Request::Resize { session, cols: 1, rows: 1 },
        Request::Detach { session: 77 },
    ] {
        if let Request::Detach { .. } = request {
            host.granted(conn, &request);
        } else {
            assert_eq!(host.refused(conn, &request), ErrorCode::NotFound);
        }
    }
    for _ in 0..2 {
        let attached = host.attach(conn, session);
        assert!(attached.snapshot.unwrap().content.starts_with("screen at 5000"));
        assert_eq!(host.events(conn), ["Exit(1, Exit { code: 3, signal: None })"]);
    }
    // A client that was away gets what it lacks.
    let resume = Attach { session, resume_from: Some(4000), ..Attach::default() };
    assert_eq!(host.granted(conn, &Request::Attach(resume)).resumed, Some(true));
    assert_eq!((host.peer(conn).received[&session], host.events(conn).len()), (1000, 1));
    host.pass(599_999);
    assert_eq!(host.granted(conn, &Request::List).sessions.unwrap().len(), 1);
    host.pass(1);
    assert_eq!(host.granted(conn, &Request::List).sessions.unwrap().len(), 0);
    host.pass(1000);
    assert!(host.records.is_empty() && host.tails.is_empty());
}

#[test]
fn kill_all_means_all_for_the_published_client_and_ones_own_for_ours() {
    let mut host = Host::new();
    let (old, other) = (host.control("old"), host.control("other"));
    let conn = host.open();
    let modest =
        Handshake { capabilities: vec!["ownership-v2"], ..Handshake::new(TOKEN, "new", Role::Control) };
    host.ask(conn, &Request::Handshake(modest));
    host.create(conn);
    host.create(other);
    host.create(old);
    assert_eq!(host.granted(conn, &Request::KillAll { scope: None }).count, Some(1));
    assert_eq!(host.granted(other, &Request::KillAll { scope: Some(Scope::Owned) }).count, Some(1));
    assert_eq!(host.granted(old, &Request::KillAll { scope: None }).count, Some(1));
    assert_eq!(host.granted(old, &Request::KillAll { scope: None }).count, Some(0));
}

#[test]
fn a_lost_holder_ends_its_terminals_with_an_unknown_status() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.attach(conn, session);
    host.print(session, 100);
    host.handle(Input::Terminal {
        terminal: TerminalId(session),
        news: News::Lost { why: "the holder is gone".into() },
    });
    host.run();
    assert_eq!(host.events(conn), ["Exit(1, Exit { code: -1, signal: None })"]);
    let rows = host.granted(conn, &Request::List).sessions.unwrap();
    assert_eq!(rows[0].recovery.as_deref(), Some("unrecoverable:holder_lost"));
}

#[test]
fn a_dual_client_asks_on_one_connection_and_listens_on_the_other() {
    let mut host = Host::new();
    let dual = |role| Handshake { channel_mode: Some(ChannelMode::Dual), ..Handshake::new(TOKEN, "A", role) };
    let control = host.open();
    host.ask(control, &Request::Handshake(dual(Role::Control)));
    let session = host.create(control);
    let attach = Request::Attach(Attach { session, ..Attach::default() });
    assert_eq!(host.refused(control, &attach), ErrorCode::StreamNotConnected);
    let stream = host.open();
    host.ask(stream, &Request::Handshake(dual(Role::Stream)));
    assert_eq!(host.refused(stream, &Request::Kill { session }), ErrorCode::WrongChannel);
    host.peer(stream).watched.insert(session, 0);
    let granted = host.granted(control, &attach);
    assert_eq!((granted.owner_is_you, granted.offset), (Some(true), Some(0)));
    host.print(session, 1000);
    assert_eq!(host.peer(stream).received[&session], 1000);
    assert!(!host.peer(control).received.contains_key(&session));
    assert_eq!(host.granted(stream, &Request::List).sessions.unwrap()[0].owner_is_you, Some(true));
    host.granted(control, &Request::Detach { session });
    host.print(session, 1000);
    assert_eq!(host.peer(stream).received[&session], 1000);
}

#[test]
fn a_request_that_the_host_never_finishes_is_answered_in_time() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.held_looks = true;
    let attach = Request::Attach(Attach { session, ..Attach::default() });
    let seq = host.ask(conn, &attach);
    host.pass(9_999);
    assert!(host.answer(conn, seq).is_none());
    host.pass(1);
    assert_eq!(host.answer(conn, seq).unwrap().code(), Some(ErrorCode::SessionError));
    host.held_looks = false;
    host.run();
    host.attach(conn, session);
}

#[test]
fn requests_beyond_the_bound_wait_and_none_is_lost() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.held_looks = true;
    let mut bytes = Vec::new();
    for seq in 1000..1200 {
        Request::Snapshot { session, history_lines: None }.append(seq, &mut bytes);
    }
    host.send(conn, &bytes);
    assert_eq!((host.engine.sizes().requests, host.reading[&conn]), (64, 0));
    host.held_looks = false;
    host.run();
    assert!((1000..1200).all(|seq| host.answer(conn, seq).is_some()));
    assert!(host.reading[&conn] > 0);
}

#[test]
fn the_models_answers_reach_the_program_only_while_nobody_watches() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    let reply = |bytes: &'static [u8]| Input::Terminal {
        terminal: TerminalId(session),
        news: News::Reply(bytes.into()),
    };
    host.handle(reply(b"alone"));
    host.run();
    host.attach(conn, session);
    host.handle(reply(b"watched"));
    host.run();
    assert_eq!(host.fakes[&session].input, b"alone");
}

#[test]
fn metrics_count() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.attach(conn, session);
    host.print(session, 10);
    host.pass(5000);
    let metrics = host.granted(conn, &Request::Metrics).metrics.unwrap();
    let value = |name: &str| metrics.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!((value("sessions"), value("subscribers"), value("attaches_total")), (1, 1, 1));
    assert_eq!((value("output_bytes_total"), value("owner_denials_total")), (10, 0));
}

#[test]
fn a_daemon_that_stops_keeps_its_terminals_or_ends_them() {
    for on_stop in [OnStop::Keep, OnStop::End] {
        let restored = RestoredTerminals { next_id: 1, ..RestoredTerminals::default() };
        let mut host = Host::with(TerminalsConfig { on_stop, ..config() }, restored);
        let conn = host.control("A");
        let session = host.create(conn);
        let deadline = host.now.boot + Duration::from_secs(10);
        host.handle(Input::Drain { deadline });
        host.run();
        let keep = on_stop == OnStop::Keep;
        assert_eq!((host.stopped, host.door), (keep, 0));
        if !keep {
            assert_eq!(host.refused(conn, &Request::Create(Box::default())), ErrorCode::ShuttingDown);
            // The door is shut; a shell that let somebody in all the same is told what to say.
            let late = host.open();
            let said = b"\x84\xa4type\xa5error\xa3seq\x00\xa4code\xadSHUTTING_DOWN\
                \xa7message\xb6the daemon is stopping";
            let late = host.peer(late);
            assert_eq!((late.answers[&0].as_slice(), late.open), (&said[..], false));
            host.pass(2999);
            assert!(!host.stopped);
            host.pass(1);
            assert!(host.stopped && host.records[&session].exited.is_some());
        } else {
            assert!(host.fakes[&session].exit.is_none() && host.records[&session].exited.is_none());
        }
        assert!(!host.peer(conn).open);
    }
}
