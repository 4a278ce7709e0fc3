//! What simulated worlds and the daemon's own tests found, once each.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::terminal_host::*;
use castra_core::Input;
use castra_core::boundary::EffectErrorKind;
use castra_core::terminals::wire::{Attach, ChannelMode, Create, ErrorCode, Handshake, Request, Role};
use castra_core::terminals::{OnStop, RestoredTerminals, TerminalsConfig};

#[test]
fn a_command_that_is_refused_claims_nothing() {
    let mut host = Host::new();
    let (a, b) = (host.control("A"), host.control("B"));
    let session = host.create(a);
    host.granted(a, &Request::Detach { session });
    let signal = Request::Signal { session, signal: "NONSENSE", scope: None };
    assert_eq!(host.refused(b, &signal), ErrorCode::InvalidSignal);
    let owner = host.granted(a, &Request::List).sessions.unwrap()[0].owner.is_some();
    assert!(!owner, "a refused signal made an owner");
}

#[test]
fn output_of_a_dual_client_goes_to_the_stream_that_came_last_whatever_its_number() {
    let mut host = Host::new();
    let dual = |host: &mut Host, role| {
        let conn = host.open();
        let handshake =
            Handshake { channel_mode: Some(ChannelMode::Dual), ..Handshake::new(TOKEN, "D", role) };
        host.ask(conn, &Request::Handshake(handshake));
        conn
    };
    host.next_conn = 9;
    // It was left open, and nobody reads it.
    let old = dual(&mut host, Role::Stream);
    host.next_conn = 0;
    let (control, new) = (dual(&mut host, Role::Control), dual(&mut host, Role::Stream));
    let session = host.create(control);
    for stream in [old, new] {
        host.peer(stream).watched.insert(session, 0);
    }
    host.attach(control, session);
    host.print(session, 100);
    assert_eq!(host.peer(new).received.get(&session), Some(&100));
    assert_eq!(host.peer(old).received.get(&session), None);
}

#[test]
fn what_was_written_down_while_it_was_being_started_goes_with_it() {
    let mut host = Host::new();
    let (a, b) = (host.control("A"), host.control("B"));
    host.held_spawns = true;
    host.ask(a, &Request::Create(Box::new(Create::default())));
    // Its record is no longer what it was, and nobody waits for it.
    host.ask(b, &Request::Attach(Attach { session: 1, ..Attach::default() }));
    host.pass(2000);
    assert!(host.records.contains_key(&1), "this test needs a record");
    host.spawn_error = Some(EffectErrorKind::ProgramMissing);
    host.held_spawns = false;
    host.run();
    host.pass(2000);
    assert!(host.records.is_empty(), "{:?}", host.records);
}

#[test]
fn a_request_that_had_to_wait_leaves_nothing_for_the_next_input() {
    let config = TerminalsConfig { requests_max: 1, ..config() };
    let mut host = Host::with(config, RestoredTerminals { next_id: 1, ..RestoredTerminals::default() });
    let conn = host.control("A");
    let (over, runs) = (host.create(conn), host.create(conn));
    host.exit(over, 3);
    host.pass(1000);
    host.held_looks = true;
    host.ask(conn, &Request::Snapshot { session: runs, history_lines: None });
    host.ask(conn, &Request::Attach(Attach { session: over, ..Attach::default() }));
    host.held_looks = false;
    host.run();
    assert!(host.events(conn).iter().any(|event| event.starts_with("Exit")), "its end is not told");
    host.check();
}

#[test]
fn what_outlives_the_shell_of_a_killed_terminal_is_killed_too() {
    let mut host = Host::new();
    let conn = host.control("A");
    let session = host.create(conn);
    host.granted(conn, &Request::Kill { session });
    // The shell goes at once; the host keeps the rest of its session until it is killed.
    host.exit(session, 0);
    let deeds = |host: &Host| host.fakes.get(&session).map(|fake| fake.deeds.join(" "));
    host.pass(2999);
    let before = deeds(&host).unwrap();
    assert!(!before.contains("Kill") && !before.contains("Release"), "{before}");
    let released = |host: &Host| !host.fakes.contains_key(&session);
    host.pass(1);
    assert!(released(&host));
    // Nobody hung up on one that ended by itself.
    let session = host.create(conn);
    host.exit(session, 0);
    host.pass(1);
    assert!(!host.fakes.contains_key(&session));
}

#[test]
fn a_daemon_in_a_hurry_kills_what_it_ends_before_its_deadline() {
    let restored = RestoredTerminals { next_id: 1, ..RestoredTerminals::default() };
    let mut host = Host::with(TerminalsConfig { on_stop: OnStop::End, ..config() }, restored);
    let conn = host.control("A");
    let (hung_up, session) = (host.create(conn), host.create(conn));
    host.granted(conn, &Request::Kill { session: hung_up });
    let deadline = host.now.boot + Duration::from_secs(2);
    host.handle(Input::Drain { deadline });
    host.pass(999);
    assert!(!host.stopped);
    host.pass(1);
    assert!(host.stopped);
    for session in [hung_up, session] {
        assert_eq!(host.records[&session].exited.unwrap().0.signal, Some(9));
    }
}
