//! Clients of terminals: who is let in, and what the others are told.
#![allow(clippy::unwrap_used)]

use crate::terminal_host::*;
use castra_core::boundary::PeerCred;
use castra_core::terminals::wire::{Answer, ErrorCode, Handshake, Request, Role};

fn hello<'a>(token: &'a str, id: &'a str) -> Handshake<'a> {
    Handshake::new(token, id, Role::Control)
}

#[test]
fn a_handshake_needs_version_token_and_name_in_this_order_and_may_be_tried_again() {
    let mut host = Host::new();
    let conn = host.open();
    assert_eq!(host.refused(conn, &Request::List), ErrorCode::NotAuthenticated);
    let old = Handshake { protocol_version: 2, ..hello("wrong", "A") };
    assert_eq!(host.refused(conn, &Request::Handshake(old)), ErrorCode::ProtocolMismatch);
    for wrong in ["", "wrong", &TOKEN[1..], &format!("{TOKEN}0"), &TOKEN.to_lowercase()] {
        assert_eq!(host.refused(conn, &Request::Handshake(hello(wrong, "A"))), ErrorCode::AuthFailed);
    }
    let long = "x".repeat(257);
    for id in ["", " \t", &long] {
        assert_eq!(host.refused(conn, &Request::Handshake(hello(TOKEN, id))), ErrorCode::InvalidClientId);
    }
    let seq = host.ask(conn, &Request::Handshake(hello(TOKEN, "A")));
    let Some(Answer::Handshake { daemon_version: "0.2.0", daemon_pid: PID, capabilities, .. }) =
        host.answer(conn, seq)
    else {
        panic!("no welcome")
    };
    assert_eq!(capabilities, ["ownership-v2", "offsets-v1"]);
    assert_eq!(host.refused(conn, &Request::Handshake(hello(TOKEN, "A"))), ErrorCode::AlreadyAuthenticated);
    // Guessing is one line.
    assert_eq!(host.kinds().iter().filter(|kind| **kind == "terminals.refused").count(), 1);
    assert!(!format!("{:?}", host.happened).contains(TOKEN));
}

#[test]
fn the_daemons_own_process_needs_no_token_and_other_users_get_nothing() {
    let mut host = Host::new();
    let own = host.open_as(Some(PeerCred { uid: UID, gid: UID, pid: PID }), 65_536);
    let seq = host.ask(own, &Request::Handshake(hello("", "tunnel")));
    assert!(matches!(host.answer(own, seq), Some(Answer::Handshake { .. })));
    for cred in [None, Some(PeerCred { uid: UID + 1, gid: UID, pid: PID })] {
        let other = host.open_as(cred, 65_536);
        assert_eq!(host.answer(other, 0).unwrap().code(), Some(ErrorCode::PermissionDenied));
        assert!(!host.peer(other).open);
    }
}

#[test]
fn a_connection_without_a_handshake_is_told_so_and_closed_after_thirty_seconds() {
    let mut host = Host::new();
    let conn = host.open();
    host.pass(29_999);
    assert!(host.peer(conn).open);
    host.pass(2);
    assert!(!host.peer(conn).open);
    assert_eq!(host.answer(conn, 0).unwrap().code(), Some(ErrorCode::NotAuthenticated));
    let known = host.control("A");
    host.pass(60_000);
    assert!(host.peer(known).open);
}

#[test]
fn nonsense_and_old_clients_are_told_why_before_the_close() {
    let mut host = Host::new();
    let old = [
        0u32.to_be_bytes().to_vec(),
        0xffff_ffffu32.to_be_bytes().to_vec(),
        b"\0\0\0\x01\xc1".to_vec(),
        // A greeting has a bound of its own.
        70_000u32.to_be_bytes().to_vec(),
    ];
    for bytes in old {
        let conn = host.open();
        host.send(conn, &bytes);
        assert_eq!(host.answer(conn, 0).unwrap().code(), Some(ErrorCode::ProtocolError));
        assert!(!host.peer(conn).open);
    }
    let conn = host.open();
    // {type: handshake, seq: 5, token: ""}
    host.send(conn, b"\0\0\0\x1c\x83\xa4type\xa9handshake\xa3seq\x05\xa5token\xa0");
    assert_eq!(host.answer(conn, 5).unwrap().code(), Some(ErrorCode::ProtoBreakingChange));
    assert!(!host.peer(conn).open);
    // What a later version knows is refused, and the connection goes on.
    let conn = host.control("A");
    host.send(conn, b"\0\0\0\x11\x82\xa4type\xa5dance\xa3seq\x63");
    assert_eq!(host.answer(conn, 99).unwrap().code(), Some(ErrorCode::ProtocolError));
    assert!(host.peer(conn).open);
}
