//! Output at everybody's own pace, owners and observers, and what a new daemon
//! finds.
#![allow(clippy::unwrap_used)]

mod terminal_host;

use castra_core::boundary::{CloseCause, EffectErrorKind, Input};
use castra_core::id::TerminalId;
use castra_core::terminals::wire::{Attach, Create, ErrorCode, Request, Role, State};
use castra_core::terminals::{
    Exit, Held, Launch, News, Recovery, RestorePolicy, RestoredTerminals, Tail, TerminalRecord,
    TerminalsConfig,
};
use terminal_host::*;

const MIB: u64 = 1024 * 1024;

#[test]
fn an_observer_that_does_not_read_is_warned_resynchronised_and_green_again() {
    let mut host = Host::new();
    let (owner, slow) = (host.control("A"), host.client("B", Role::Stream));
    let session = host.create(owner);
    host.attach(owner, session);
    host.attach(slow, session);
    host.peer(slow).eager = false;
    host.print(session, 5 * MIB);
    assert_eq!(host.peer(owner).received[&session], 5 * MIB, "an observer braked the program");
    while host.read(slow, 10_000) > 0 {
        host.run();
    }
    let peer = host.peer(slow);
    let (received, skipped) = (peer.received[&session], peer.skipped[&session]);
    assert_eq!(received + skipped, 5 * MIB);
    assert!(skipped >= 3 * MIB && received >= 100_000, "{received} {skipped}");
    let levels = |events: Vec<String>| -> Vec<String> {
        let warned = events.into_iter().filter(|event| event.starts_with("Backpressure"));
        warned.map(|event| event.rsplit_once(' ').unwrap().1.trim_end_matches(')').to_string()).collect()
    };
    for conn in [slow, owner] {
        assert_eq!(levels(host.events(conn)), ["yellow", "red", "green"]);
    }
    assert!(host.kinds().contains(&"terminal.resync"));
    // And from here on nothing is lost.
    host.peer(slow).eager = true;
    host.print(session, MIB);
    assert_eq!(host.peer(slow).received[&session], received + MIB);
}

#[test]
fn an_owner_brakes_its_program_while_it_takes_some_and_no_longer_than_a_second_otherwise() {
    let mut host = Host::new();
    let owner = host.control("A");
    let session = host.create(owner);
    host.attach(owner, session);
    host.peer(owner).eager = false;
    host.print(session, 50 * MIB);
    let told = host.fakes[&session].told;
    assert!((512 * 1024..MIB).contains(&told), "{told}");
    // It takes some now and then: nothing is lost, and the program waits.
    for _ in 0..20 {
        host.pass(900);
        host.read(owner, 100_000);
        host.run();
    }
    assert!(host.fakes[&session].told < 4 * MIB);
    assert!(!host.peer(owner).skipped.contains_key(&session));
    // It takes nothing: after a second the program goes on, and it is an observer like any other.
    host.pass(1000);
    assert_eq!(host.fakes[&session].told, 50 * MIB);
    host.peer(owner).eager = true;
    host.run();
    let peer = host.peer(owner);
    assert_eq!(peer.received[&session] + peer.skipped[&session], 50 * MIB);
    // Once it has caught up it brakes again.
    host.peer(owner).eager = false;
    host.print(session, 10 * MIB);
    assert!(host.fakes[&session].told < 51 * MIB + 128 * 1024);
}

#[test]
fn an_owner_that_leaves_or_detaches_brakes_nobody() {
    for leave in [true, false] {
        let mut host = Host::new();
        let owner = host.control("A");
        let session = host.create(owner);
        host.attach(owner, session);
        host.peer(owner).eager = false;
        host.print(session, 50 * MIB);
        assert!(host.fakes[&session].told < MIB);
        if leave {
            host.close(owner);
        } else {
            host.ask(owner, &Request::Detach { session });
        }
        assert_eq!(host.fakes[&session].told, 50 * MIB);
    }
}

#[test]
fn terminals_take_turns_and_a_reply_does_not_wait_behind_a_flood() {
    let mut host = Host::new();
    let conn = host.control("A");
    let (first, second) = (host.create(conn), host.create(conn));
    host.attach(conn, first);
    host.attach(conn, second);
    host.peer(conn).eager = false;
    host.fakes.get_mut(&first).unwrap().end = 10 * MIB;
    host.fakes.get_mut(&second).unwrap().end = 10 * MIB;
    host.run();
    let seq = host.ask(conn, &Request::List);
    host.read(conn, 128 * 1024);
    assert!(host.answer(conn, seq).is_some(), "the reply waits for output");
    for _ in 0..40 {
        host.read(conn, 64 * 1024);
        host.run();
    }
    let peer = host.peer(conn);
    let (one, other) = (peer.received[&first], peer.received[&second]);
    assert!(one.abs_diff(other) <= 64 * 1024, "{one} {other}");
}

#[test]
fn a_client_goes_on_where_it_was_or_is_told_that_it_cannot() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.print(session, 3 * MIB);
    let resume = |from| Request::Attach(Attach { session, resume_from: Some(from), ..Attach::default() });
    for (from, resumed) in [(3 * MIB, true), (2 * MIB, true), (2 * MIB - 1, false), (3 * MIB + 1, false)] {
        let granted = host.granted(conn, &resume(from));
        assert_eq!(granted.resumed, Some(resumed));
        assert_eq!(granted.snapshot.is_some(), !resumed);
        assert_eq!(granted.offset, Some(if resumed { from } else { 3 * MIB }));
    }
    host.granted(conn, &resume(2 * MIB));
    host.print(session, 1000);
    assert_eq!(host.peer(conn).watched[&session], 3 * MIB + 1000);
}

#[test]
fn without_a_screen_model_what_is_kept_is_replayed() {
    let restored = RestoredTerminals { next_id: 1, ..RestoredTerminals::default() };
    let mut host = Host::with(TerminalsConfig { screen: false, ..config() }, restored);
    let conn = host.control("A");
    let session = host.create(conn);
    host.print(session, 3 * MIB);
    let granted = host.attach(conn, session);
    assert_eq!((granted.offset, granted.snapshot.unwrap().content.as_str()), (Some(2 * MIB), ""));
    assert_eq!(host.peer(conn).received[&session], MIB);
    host.exit(session, 0);
    assert_eq!(host.peer(conn).exits[&session], 1);
    assert!(!host.fakes.contains_key(&session));
}

#[test]
fn only_the_owner_commands_and_everybody_hears_who_it_is() {
    let mut host = Host::new();
    let (a, b, c) = (host.control("A"), host.control("B"), host.client("C", Role::Stream));
    let session = host.create(a);
    host.attach(b, session);
    host.attach(c, session);
    assert_eq!(host.input(b, session, b"x"), Err(ErrorCode::OwnerRequired));
    assert_eq!(host.input(c, session, b"x"), Err(ErrorCode::RoleForbidden));
    assert_eq!(host.refused(c, &Request::Takeover { session }), ErrorCode::RoleForbidden);
    // No claim on what isn't there.
    assert_eq!(host.input(b, session + 1, b"x"), Err(ErrorCode::NotFound));
    // The same name on another connection owns nothing and gives nothing back.
    let twin = host.control("A");
    assert_eq!(host.input(twin, session, b"x"), Err(ErrorCode::OwnerRequired));
    host.granted(twin, &Request::Detach { session });
    host.close(twin);
    assert_eq!(host.input(a, session, b"x"), Ok(()));
    host.granted(b, &Request::Takeover { session });
    assert_eq!(host.input(a, session, b"x"), Err(ErrorCode::OwnerRequired));
    assert_eq!(host.input(b, session, b"x"), Ok(()));
    host.granted(b, &Request::Detach { session });
    assert_eq!(host.events(c), [r#"OwnerChanged(1, Some("B"))"#, "OwnerChanged(1, None)"]);
    // Free: whoever commands first.
    let observe = Attach { session, observe: true, ..Attach::default() };
    assert_eq!(host.granted(a, &Request::Attach(observe)).owner, None);
    assert_eq!(host.attach(c, session).owner, None);
    assert_eq!(host.attach(a, session).owner_is_you, Some(true));
    assert_eq!(host.granted(b, &Request::List).sessions.unwrap()[0].owner.as_deref(), Some("A"));
    assert_eq!(host.engine.statistics().owner_denials, 3);
}

#[test]
fn an_owner_that_disconnects_is_waited_for_two_seconds() {
    let mut host = Host::new();
    let (a, b) = (host.control("A"), host.control("B"));
    let session = host.create(a);
    host.attach(b, session);
    host.close(a);
    assert_eq!(host.input(b, session, b"x"), Err(ErrorCode::OwnerRequired));
    host.pass(1999);
    assert_eq!(host.input(b, session, b"x"), Err(ErrorCode::OwnerRequired));
    // Back in time: it owns it again, and nobody else hears of it.
    let back = host.control("A");
    assert_eq!(host.attach(back, session).owner_is_you, Some(true));
    host.pass(5000);
    assert_eq!(host.input(b, session, b"x"), Err(ErrorCode::OwnerRequired));
    assert!(host.events(b).is_empty());
    host.close(back);
    host.pass(2000);
    assert_eq!(host.input(b, session, b"x"), Ok(()));
    assert_eq!(host.events(b), ["OwnerChanged(1, None)", r#"OwnerChanged(1, Some("B"))"#]);
}

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
fn the_tail_of_a_terminal_is_durable_two_seconds_after_its_output_and_idle_ones_cost_nothing() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.print(session, 100);
    assert!(!host.tails.contains_key(&session));
    host.pass(2000);
    assert_eq!(host.tails[&session], "screen at 100 with 1000");
    let news = News::Directory("/tmp/elsewhere".into());
    host.handle(Input::Terminal { terminal: TerminalId(session), news });
    host.pass(1000);
    assert_eq!(host.records[&session].launch.cwd, "/tmp/elsewhere");
    host.pass(5000);
    assert_eq!(host.wake, None, "an idle daemon is woken");
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let mut host = Host::new();
    let keeper = host.control("A");
    let session = host.keyed(keeper, "k");
    let before = host.engine.sizes();
    for round in 0..50 {
        let conn = host.control("B");
        host.held_looks = round % 2 == 0;
        host.ask(conn, &Request::Attach(Attach { session, ..Attach::default() }));
        host.handle(Input::Closed { conn, why: CloseCause::Reset });
        host.peer(conn).open = false;
        host.held_looks = false;
        host.run();
    }
    assert_eq!(host.engine.sizes(), before);
    let create = Create { session_key: Some("k"), ..Create::default() };
    host.granted(keeper, &Request::Create(Box::new(create)));
}

#[test]
fn output_that_was_told_already_is_not_told_again_and_what_is_missing_is_said() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.attach(conn, session);
    let tell = |host: &mut Host, offset: u64, count: u64| {
        let bytes: Vec<u8> = (offset..offset + count).map(byte).collect();
        let news = News::Output { offset, bytes: bytes.into() };
        host.fakes.get_mut(&session).unwrap().told = offset + count;
        host.fakes.get_mut(&session).unwrap().end = offset + count;
        host.fakes.get_mut(&session).unwrap().credit = 0;
        host.handle(Input::Terminal { terminal: TerminalId(session), news });
        host.run();
    };
    tell(&mut host, 0, 100);
    tell(&mut host, 50, 100);
    assert_eq!(host.peer(conn).received[&session], 150);
    tell(&mut host, 400, 10);
    assert_eq!(host.events(conn), ["Resync(1, 410, 260 skipped)"]);
    tell(&mut host, 410, 10);
    assert_eq!(host.peer(conn).received[&session], 160);
}

#[test]
fn numbers_are_durable_before_they_are_given_out_and_what_comes_before_that_waits() {
    let mut host = Host::new();
    let restored = RestoredTerminals { next_id: 70, ..RestoredTerminals::default() };
    host.engine = castra_core::Terminals::new(
        config(),
        restored,
        castra_core::entropy::Entropy::chosen(0),
        start_of_time(),
    );
    host.effects.clear();
    host.held_persists = true;
    host.handle(Input::Tick);
    let conn = host.control("A");
    let seq = host.ask(conn, &Request::Create(Box::default()));
    assert!(host.answer(conn, seq).is_none() && host.fakes.is_empty());
    host.held_persists = false;
    host.run();
    assert!(host.answer(conn, seq).is_some() && host.fakes.contains_key(&70));
}
