//! Output at everybody's own pace, owners and observers.
#![allow(clippy::unwrap_used)]

use crate::terminal_host::*;
use castra_core::boundary::{CloseCause, Input};
use castra_core::id::TerminalId;
use castra_core::terminals::wire::{Attach, Create, ErrorCode, Request, Role};
use castra_core::terminals::{News, RestoredTerminals, TerminalsConfig};

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
        assert_eq!(host.engine.sizes().requests, 0);
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

#[test]
fn an_owner_far_behind_brakes_as_long_as_it_takes_some() {
    let mut host = Host::new();
    let owner = host.control("A");
    let session = host.create(owner);
    host.print(session, MIB);
    host.peer(owner).eager = false;
    host.ask(
        owner,
        &Request::Attach(Attach { session, resume_from: Some(0), history_lines: None, observe: false }),
    );
    host.print(session, 10 * MIB);
    let told = host.fakes[&session].told;
    for _ in 0..5 {
        host.pass(900);
        host.read(owner, 70_000);
        host.run();
    }
    assert_eq!(host.fakes[&session].told, told);
    host.pass(1000);
    assert_eq!(host.fakes[&session].told, 11 * MIB);
}

#[test]
fn a_host_that_never_says_what_is_shown_costs_no_memory() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.attach(conn, session);
    host.held_looks = true;
    for _ in 0..100 {
        host.print(session, 10);
        host.ask(conn, &Request::Snapshot { session, history_lines: None });
        host.pass(11_000);
    }
    let held = format!("{:?}", host.engine).matches("Look {").count();
    assert!(held <= 3, "{held} looks");
    host.held_looks = false;
    host.run();
    host.granted(conn, &Request::Snapshot { session, history_lines: None });
}
