//! What a new daemon finds, and what becomes of it.
#![allow(clippy::unwrap_used)]

use crate::terminal_host::*;
use castra_core::Input;
use castra_core::boundary::EffectErrorKind;
use castra_core::id::TerminalId;
use castra_core::terminals::wire::{Attach, Request, State};
use castra_core::terminals::{
    Exit, Held, Launch, Recovery, RestorePolicy, RestoredTerminals, Tail, TerminalRecord, TerminalsConfig,
};

fn record(terminal: u32, command: bool) -> TerminalRecord {
    TerminalRecord {
        terminal: TerminalId(terminal),
        key: Some(format!("key-{terminal}")),
        launch: Launch {
            program: "/bin/sh".into(),
            args: vec![],
            cwd: "/srv".into(),
            env: vec![],
            cols: 90,
            rows: 30,
        },
        command,
        reached: 1 << 32,
        pid: 100 + terminal,
        start_time: 7,
        boot: [1; 16],
        pts: "/dev/pts/1".into(),
        created_at: 1_795_000_000,
        last_attached_at: 1_795_000_000,
        exited: None,
        recovery: None,
    }
}

fn held(terminal: u32, first: u64, end: u64) -> Held {
    Held {
        terminal: TerminalId(terminal),
        pid: 100 + terminal,
        start_time: 7,
        pts: "/dev/pts/1".into(),
        cols: 90,
        rows: 30,
        first,
        end,
    }
}

fn fake(first: u64, end: u64) -> Fake {
    Fake { first, told: first, end, ..Fake::default() }
}

fn daemon(records: Vec<TerminalRecord>, held: Vec<Held>, boot: [u8; 16], restore: RestorePolicy) -> Host {
    let fakes = held.iter().map(|held| (held.terminal.0, fake(held.first, held.end))).collect();
    let tail = |record: &TerminalRecord| Tail {
        content: format!("tail of {}", record.terminal),
        cols: 90,
        rows: 30,
    };
    let records = records.into_iter().map(|record| (record.clone(), Some(tail(&record)))).collect();
    let restored = RestoredTerminals { next_id: 1, records, held, boot };
    Host::at(TerminalsConfig { restore, ..config() }, restored, fakes, start_of_time())
}

#[test]
fn what_ran_on_is_adopted_byte_for_byte_and_its_exit_is_reported() {
    let mut host =
        daemon(vec![record(3, false)], vec![held(3, 5000, 900_000)], [1; 16], RestorePolicy::Shells);
    let conn = host.control("A");
    let resume = Attach { session: 3, resume_from: Some(123_456), ..Attach::default() };
    assert_eq!(host.granted(conn, &Request::Attach(resume)).resumed, Some(true));
    assert_eq!(host.peer(conn).received[&3], 900_000 - 123_456);
    let rows = host.granted(conn, &Request::List).sessions.unwrap();
    assert_eq!((rows[0].recovery.as_deref(), rows[0].state), (Some("adopted"), Some(State::Running)));
    assert_eq!((rows[0].owner_is_you, rows[0].session_key.as_deref()), (Some(true), Some("key-3")));
    assert_eq!(host.keyed(conn, "key-3"), 3);
    // Numbers go on above all that were ever given out.
    assert_eq!(host.create(conn), 4);
    host.exit(3, 5);
    assert_eq!(host.events(conn).last().unwrap(), "Exit(3, Exit { code: 5, signal: None })");
}

#[test]
fn an_adopted_flood_drops_nothing_before_its_reader_is_back_but_waits_only_two_seconds() {
    let ring = config().ring as u64;
    let adopted = || {
        let mut host =
            daemon(vec![record(3, false)], vec![held(3, 5000, 900_000)], [1; 16], RestorePolicy::Shells);
        // It goes on at once, and would not stop.
        host.print(3, 3 * ring);
        host
    };
    let resume = Attach { session: 3, resume_from: Some(5000), ..Attach::default() };
    let mut host = adopted();
    let conn = host.control("A");
    assert_eq!(host.granted(conn, &Request::Attach(resume)).resumed, Some(true));
    // All that was kept; what follows is paced by its owner.
    assert!(host.peer(conn).received[&3] >= ring);
    let mut host = adopted();
    host.pass(2001);
    let conn = host.control("A");
    assert_eq!(host.granted(conn, &Request::Attach(resume)).resumed, Some(false));
}

#[test]
fn an_exit_while_nobody_was_there_is_told_at_the_next_attach() {
    let fakes = [(3, Fake { exit: Some(Exit { code: 9, signal: None }), ..fake(0, 700_000) })];
    let records = vec![(record(3, false), None)];
    let restored = RestoredTerminals { next_id: 9, records, held: vec![held(3, 0, 700_000)], boot: [1; 16] };
    let mut host = Host::at(config(), restored, fakes.into(), start_of_time());
    let conn = host.control("A");
    let resume = Attach { session: 3, resume_from: Some(1), ..Attach::default() };
    host.granted(conn, &Request::Attach(resume));
    assert_eq!((host.peer(conn).received[&3], host.peer(conn).exits[&3]), (699_999, 1));
    assert_eq!(host.records[&3].exited.unwrap().0.code, 9);
}

#[test]
fn after_a_reboot_shells_are_restored_below_what_they_showed_and_commands_are_not() {
    let records = vec![record(3, false), record(4, true)];
    let mut host = daemon(records, vec![], [2; 16], RestorePolicy::Shells);
    let conn = host.control("A");
    let rows: Vec<_> = host
        .granted(conn, &Request::List)
        .sessions
        .unwrap()
        .iter()
        .map(|row| (row.id, row.is_alive, row.recovery.clone().unwrap().to_string()))
        .collect();
    let expected = [(3, true, "restored"), (4, false, "unrecoverable:rebooted")];
    assert_eq!(rows, expected.map(|(id, alive, word)| (id, alive, word.to_string())));
    assert_eq!(host.fakes[&3].tail.as_deref(), Some("tail of 3"));
    // No offset of its former life can match.
    assert_eq!(host.fakes[&3].first, 1 << 32);
    assert!(host.records[&3].reached > 1 << 32);
    let resume = Attach { session: 3, resume_from: Some(70), ..Attach::default() };
    assert_eq!(host.granted(conn, &Request::Attach(resume)).resumed, Some(false));
    // What is gone shows what it last showed.
    let gone = host.attach(conn, 4);
    assert_eq!(gone.snapshot.unwrap().content, "tail of 4");
    assert_eq!(host.events(conn), ["Exit(4, Exit { code: -1, signal: None })"]);
    assert_eq!(host.records[&4].recovery, Some(Recovery::Unrecoverable("rebooted".into())));
    // The key's next life is as the one before.
    assert_eq!(host.keyed(conn, "key-4"), 5);
    let launch = host.fakes[&5].launch.clone().unwrap();
    assert_eq!((launch.cwd.as_str(), launch.cols, launch.program.as_str()), ("/srv", 90, ""));
}

#[test]
fn the_policy_decides_and_the_reason_is_told() {
    let one = |restore, boot, command| {
        let host = daemon(vec![record(3, command)], vec![], boot, restore);
        host.records[&3].recovery.clone()
    };
    let gone = |why: &str| Some(Recovery::Unrecoverable(why.into()));
    assert_eq!(one(RestorePolicy::All, [2; 16], true), Some(Recovery::Restored));
    assert_eq!(one(RestorePolicy::None, [2; 16], false), gone("rebooted"));
    assert_eq!(one(RestorePolicy::None, [1; 16], false), gone("holder_lost"));
    assert_eq!(one(RestorePolicy::Shells, [1; 16], false), Some(Recovery::Restored));
}

#[test]
fn a_process_that_is_another_one_is_not_taken_for_the_terminals() {
    for other in [Held { pid: 9, ..held(3, 0, 10) }, Held { start_time: 8, ..held(3, 0, 10) }] {
        let host = daemon(vec![record(3, false)], vec![other], [1; 16], RestorePolicy::All);
        assert_eq!(host.records[&3].recovery, Some(Recovery::Unrecoverable("process_changed".into())));
        assert!(!host.fakes.contains_key(&3), "it runs on, and nobody knows of it");
    }
    // What was being started when the daemon died is what it is.
    let starting = TerminalRecord { pid: 0, start_time: 0, ..record(3, false) };
    let host = daemon(vec![starting], vec![held(3, 0, 10)], [1; 16], RestorePolicy::None);
    assert_eq!(host.records[&3].recovery, Some(Recovery::Adopted));
    // A lost journal costs no program.
    let host = daemon(vec![], vec![held(3, 0, 10)], [1; 16], RestorePolicy::None);
    assert_eq!((host.records[&3].recovery.clone(), host.records[&3].pid), (Some(Recovery::Adopted), 103));
}

#[test]
fn a_vanished_directory_gives_a_terminal_that_is_not_alive() {
    let records = vec![(record(3, false), None)];
    let restored = RestoredTerminals { next_id: 9, records, held: vec![], boot: [2; 16] };
    let mut host = Host::new();
    host.engine = castra_core::Terminals::new(
        config(),
        restored,
        castra_core::entropy::Entropy::chosen(0),
        start_of_time(),
    );
    host.effects.clear();
    host.spawn_error = Some(EffectErrorKind::DirectoryMissing);
    host.handle(Input::Tick);
    host.run();
    let conn = host.control("A");
    let rows = host.granted(conn, &Request::List).sessions.unwrap();
    assert_eq!((rows[0].is_alive, rows[0].recovery.as_deref()), (false, Some("unrecoverable:CWD_MISSING")));
}

#[test]
fn an_ended_terminal_of_the_last_daemon_is_listed_for_what_is_left_of_its_ten_minutes() {
    let now = start_of_time().wall.unix_millis() / 1000;
    let ended = |terminal, ago| TerminalRecord {
        exited: Some((Exit { code: 4, signal: None }, now - ago)),
        ..record(terminal, false)
    };
    let mut host = daemon(
        vec![ended(3, 601), ended(4, 590), ended(5, -50)],
        vec![held(4, 0, 10)],
        [1; 16],
        RestorePolicy::All,
    );
    assert!(!host.fakes.contains_key(&4), "nobody let it go");
    let conn = host.control("A");
    let listed = |host: &mut Host| -> Vec<u32> {
        host.granted(conn, &Request::List).sessions.unwrap().iter().map(|row| row.id).collect()
    };
    assert_eq!(listed(&mut host), [4, 5]);
    assert_eq!(host.attach(conn, 4).snapshot.unwrap().content, "tail of 4");
    assert_eq!(host.events(conn), ["Exit(4, Exit { code: 4, signal: None })"]);
    host.pass(10_001);
    assert_eq!(listed(&mut host), [5]);
}

#[test]
fn a_client_that_had_read_more_than_a_new_daemon_has_yet_goes_on_where_it_was() {
    // Of what is held the new daemon has been told nothing.
    let fakes = [(3, fake(5000, 5000))];
    let records = vec![(record(3, false), None)];
    let restored =
        RestoredTerminals { next_id: 9, records, held: vec![held(3, 5000, 900_000)], boot: [1; 16] };
    let mut host = Host::at(config(), restored, fakes.into(), start_of_time());
    let conn = host.control("A");
    let resume = |from| Request::Attach(Attach { session: 3, resume_from: Some(from), ..Attach::default() });
    assert_eq!(host.granted(conn, &resume(900_001)).resumed, Some(false));
    let granted = host.granted(conn, &resume(890_000));
    assert_eq!((granted.resumed, granted.offset), (Some(true), Some(890_000)));
    let before = host.peer(conn).received.get(&3).copied().unwrap_or(0);
    host.print(3, 885_000);
    assert_eq!(host.peer(conn).received.get(&3).copied().unwrap_or(0), before);
    host.print(3, 10_100);
    assert_eq!(host.peer(conn).received[&3], before + 10_100);
}
