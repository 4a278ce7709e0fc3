//! The scripts. Each panics when the network, or the shell over it, is wrong.

use std::io;
use std::time::Duration;

use castra_core::boundary::{
    CloseCause, CloseReason, DialTarget, Effect, EffectErrorKind, Origin, Source, Transport, Via,
};
use castra_core::id::EffectId;

use super::failing::Failing;
use super::{Act, Harness, Peer, Seen, World};
use crate::net::{Endpoint, Ready};
use crate::shell::READ_MAX;

/// Capacity of a send buffer, as the engine is told.
const ROOM: usize = 128 * 1024;

/// Runs all of them.
pub fn all<W: World>() {
    bytes_travel_both_ways_in_order::<W>();
    a_half_close_is_heard_and_answered::<W>();
    one_direction_may_end_long_before_the_other::<W>();
    a_reset_ends_the_connection::<W>();
    a_farewell_before_a_close_is_heard::<W>();
    without_credit_nothing_is_read::<W>();
    a_peer_that_does_not_read_blocks_only_itself::<W>();
    what_was_said_before_the_close_arrives::<W>();
    a_close_that_cannot_be_said_is_given_up::<W>();
    a_close_cut_short_by_a_full_buffer_has_a_deadline::<W>();
    bytes_that_come_with_the_connect_are_not_forgotten::<W>();
    a_refusal_is_read_by_a_peer_that_said_too_much::<W>();
    a_burst_is_accepted_in_batches_and_within_credit::<W>();
    running_out_of_descriptors_heals_itself::<W>();
    a_dead_id_reaches_nobody::<W>();
    an_echo_costs_one_read_and_one_write::<W>();
    a_dial_reaches_its_end_or_is_cancelled::<W>();
    a_discard_drops_what_the_kernel_has_not_taken::<W>();
    a_flood_does_not_starve_the_others::<W>();
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// Reads what is there into `got`; whether the end was reached.
fn pull(peer: &mut impl Peer, got: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match peer.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(bytes) => got.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Writes as much of `bytes` as fits.
fn push(peer: &mut impl Peer, bytes: &mut &[u8]) {
    while !bytes.is_empty() {
        match peer.write(bytes) {
            Ok(written) => *bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => panic!("the shell's end is gone: {error}"),
        }
    }
}

/// See the name.
pub fn bytes_travel_both_ways_in_order<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    it.shell.engine().echo = true;
    let (mut peer, conn) = it.connection();
    let sent = pattern(300_000);
    let mut rest = sent.as_slice();
    let mut got = Vec::new();
    it.until("all came back", |_| {
        // Never more under way than the engine's send buffer takes.
        let allowance = (60_000 - (sent.len() - rest.len() - got.len())).min(rest.len());
        let mut some = &rest[..allowance];
        push(&mut peer, &mut some);
        rest = &rest[allowance - some.len()..];
        assert!(!pull(&mut peer, &mut got).expect("an open connection"));
        got.len() == sent.len()
    });
    assert_eq!(got, sent);
    assert_eq!(it.shell.engine().read(conn), sent);
    assert_eq!(it.shell.counters().overruns, 0);
}

/// See the name.
pub fn a_half_close_is_heard_and_answered<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut peer, conn) = it.connection();
    push(&mut peer, &mut b"last words".as_slice());
    peer.finish();
    it.until("finished", |it| it.shell.engine().saw(&Seen::Finished(conn)));
    assert_eq!(it.shell.engine().read(conn), b"last words");
    it.quiet();
    assert_eq!(it.shell.engine().seen.iter().filter(|seen| **seen == Seen::Finished(conn)).count(), 1);
    it.act([Act::Transmit(conn, b"answer".to_vec()), Act::Close(conn, CloseReason::Finished)]);
    let mut got = Vec::new();
    it.until("the end", |_| pull(&mut peer, &mut got).expect("a clean end"));
    assert_eq!(got, b"answer");
    assert_eq!(it.shell.connections(), (0, 0));
    assert_eq!(it.shell.engine().closed(conn), None, "after Close nothing more is said of an id");
}

/// See the name.
pub fn one_direction_may_end_long_before_the_other<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut peer, conn) = it.connection();
    let said = pattern(ROOM);
    it.act([Act::Transmit(conn, said.clone()), Act::Finish(conn)]);
    let mut got = Vec::new();
    it.until("the end of ours", |_| pull(&mut peer, &mut got).expect("an open connection"));
    assert!(got == said);
    push(&mut peer, &mut b"still here".as_slice());
    it.until("heard", |it| it.shell.engine().read(conn) == b"still here");
    peer.finish();
    it.until("the end of theirs", |it| {
        let seen = it.shell.engine();
        seen.saw(&Seen::Finished(conn)) || seen.saw(&Seen::Closed(conn, CloseCause::Eof))
    });
}

/// See the name.
pub fn a_reset_ends_the_connection<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (peer, conn) = it.connection();
    peer.reset();
    it.until("closed", |it| it.shell.engine().closed(conn).is_some());
    let cause = if W::Peer::RESETS { CloseCause::Reset } else { CloseCause::Eof };
    assert_eq!(it.shell.engine().closed(conn), Some(cause));
    // And when nobody reads: the end of both directions is told all the same.
    let (peer, conn) = it.connection();
    it.credit(conn, 0);
    peer.reset();
    it.until("closed without credit", |it| it.shell.engine().closed(conn).is_some());
    assert_eq!(it.shell.connections(), (0, 0));
}

/// See the name.
pub fn a_farewell_before_a_close_is_heard<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut peer, conn) = it.connection();
    push(&mut peer, &mut b"goodbye".as_slice());
    drop(peer);
    // The engine speaks before it hears, and its write may fail.
    it.act([Act::Transmit(conn, b"are you there?".to_vec())]);
    it.until("the end", |it| {
        it.shell.engine().closed(conn).is_some() || it.shell.engine().saw(&Seen::Finished(conn))
    });
    assert_eq!(it.shell.engine().read(conn), b"goodbye");
}

/// See the name.
pub fn without_credit_nothing_is_read<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut peer, conn) = it.connection();
    it.credit(conn, 0);
    let sent = pattern(1000);
    push(&mut peer, &mut sent.as_slice());
    it.quiet();
    assert_eq!(it.shell.engine().read(conn), b"");
    assert!(!it.next.more, "a connection without credit keeps nobody awake");
    let before = it.shell.engine().seen.len();
    it.credit(conn, 10);
    it.until("all read", |it| it.shell.engine().read(conn).len() == sent.len());
    for seen in &it.shell.engine().seen[before..] {
        assert!(!matches!(seen, Seen::Bytes(_, 11..)), "more than the credit: {seen:?}");
    }
    assert_eq!(it.shell.engine().read(conn), sent);
}

/// See the name.
pub fn a_peer_that_does_not_read_blocks_only_itself<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut slow, slow_conn) = it.connection();
    let (mut quick, quick_conn) = it.connection();
    let chunk = pattern(10_000);
    let mut sent = 0;
    loop {
        let room = it.shell.engine().room[&slow_conn];
        if room < chunk.len() {
            it.quiet();
            if it.shell.engine().room[&slow_conn] < chunk.len() {
                break;
            }
            continue;
        }
        sent += chunk.len();
        it.act([Act::Transmit(slow_conn, chunk.clone())]);
    }
    assert!(!it.next.more, "a full connection keeps nobody awake");
    push(&mut quick, &mut b"hello".as_slice());
    it.until("the other is heard", |it| it.shell.engine().read(quick_conn) == b"hello");
    let offers = |it: &mut Harness<W, W::Net>| {
        it.shell
            .engine()
            .seen
            .iter()
            .filter(|seen| matches!(seen, Seen::Writable(conn, _) if *conn == slow_conn))
            .count()
    };
    let before = offers(&mut it);
    let mut got = Vec::new();
    it.until("all arrived", |_| {
        pull(&mut slow, &mut got).expect("an open connection");
        got.len() == sent
    });
    assert!(got.chunks(chunk.len()).all(|part| part == chunk), "in order, without a gap");
    it.quiet();
    assert!(offers(&mut it) > before, "there is room again, and the engine knows");
    assert!(it.shell.engine().room[&slow_conn] >= ROOM / 2);
    assert_eq!(it.shell.counters().overruns, 0);
}

/// See the name.
pub fn what_was_said_before_the_close_arrives<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut peer, conn) = it.connection();
    let sent = pattern(ROOM);
    it.act([Act::Transmit(conn, sent.clone()), Act::Close(conn, CloseReason::Ended)]);
    let mut got = Vec::new();
    it.until("the end", |_| pull(&mut peer, &mut got).expect("a clean end"));
    assert_eq!(got, sent);
    it.quiet();
    assert_eq!(it.shell.connections(), (0, 0));
    assert_eq!(it.next.deadline, None, "nothing is left to wait for");
}

/// See the name.
pub fn a_close_that_cannot_be_said_is_given_up<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (_peer, conn) = it.connection();
    while it.shell.engine().room[&conn] > 0 {
        let room = it.shell.engine().room[&conn];
        it.act([Act::Transmit(conn, pattern(room))]);
        it.quiet();
    }
    it.act([Act::Close(conn, CloseReason::Ended)]);
    it.quiet();
    assert_eq!(it.shell.connections(), (1, 0));
    assert_eq!(it.next.deadline, Some(it.now + Duration::from_secs(1)));
    it.advance(Duration::from_secs(1));
    it.turn_with(&[]);
    assert_eq!(it.shell.connections(), (0, 0));
    assert_eq!(it.next.deadline, None);
}

/// See the name.
pub fn a_close_cut_short_by_a_full_buffer_has_a_deadline<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (_peer, conn) = it.connection();
    it.act([Act::Transmit(conn, pattern(ROOM)), Act::Close(conn, CloseReason::Ended)]);
    it.quiet();
    // Unless the network swallowed it all.
    if it.shell.connections() != (0, 0) {
        assert_eq!(it.next.deadline, Some(it.now + Duration::from_secs(1)));
    }
}

/// See the name.
pub fn bytes_that_come_with_the_connect_are_not_forgotten<W: World>() {
    let mut it = Harness::<W, Failing<W::Net>>::with(Failing::new);
    if it.world.elsewhere().is_none() {
        return;
    }
    it.shell.net().pending_connects = 1;
    let deadline = it.now + Duration::from_secs(5);
    it.act([Act::Effect(EffectId(1), Effect::Dial { deadline, to: DialTarget::Link })]);
    assert_eq!(it.shell.engine().opened(), []);
    let mut peer = None;
    while peer.is_none() {
        peer = it.world.answer();
    }
    let mut peer = peer.expect("a peer");
    push(&mut peer, &mut b"greeting".as_slice());
    it.until("the greeting", |it| it.shell.engine().bytes.values().any(|bytes| bytes == b"greeting"));
    assert!(matches!(it.shell.engine().seen[..], [Seen::Opened(..), Seen::Bytes(..)]));
}

/// See the name.
pub fn a_refusal_is_read_by_a_peer_that_said_too_much<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut peer, conn) = it.connection();
    it.credit(conn, 512);
    push(&mut peer, &mut pattern(30_000).as_slice());
    it.until("some of it is read", |it| !it.shell.engine().read(conn).is_empty());
    it.act([
        Act::Transmit(conn, b"error: bad-line: too long\n".to_vec()),
        Act::Close(conn, CloseReason::Refused),
    ]);
    let mut got = Vec::new();
    it.until("the end", |_| pull(&mut peer, &mut got).expect("no reset before the error was read"));
    assert_eq!(got, b"error: bad-line: too long\n");
}

/// See the name.
pub fn a_burst_is_accepted_in_batches_and_within_credit<W: World>() {
    const PEERS: usize = 100;
    let mut it = Harness::<W, W::Net>::new();
    it.quiet();
    it.act([Act::Read(Source::LinkDoor, 0)]);
    let peers: Vec<_> = (0..PEERS).map(|_| it.world.dial()).collect();
    it.quiet();
    assert_eq!(it.shell.engine().opened().len(), 0);
    it.act([Act::Read(Source::LinkDoor, 3)]);
    assert_eq!(it.shell.engine().opened().len(), 3);
    assert!(it.next.more);
    it.act([Act::Read(Source::LinkDoor, usize::MAX)]);
    assert_eq!(it.shell.engine().opened().len(), 3 + 16);
    it.until("all accepted", |it| it.shell.engine().opened().len() == PEERS);
    drop(peers);
}

/// See the name.
pub fn running_out_of_descriptors_heals_itself<W: World>() {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM; the numbers are Linux's.
    for errno in [24, 23, 105, 12] {
        let mut it = Harness::<W, Failing<W::Net>>::with(Failing::new);
        let (mut before, conn) = it.connection();
        it.shell.net().accept_errors = vec![errno; 2];
        let mut waiting = it.world.dial();
        it.until("the door rests", |it| it.next.deadline.is_some());
        assert_eq!(it.next.deadline, Some(it.now + Duration::from_millis(100)));
        let accepts = it.shell.net().accepts;
        push(&mut before, &mut b"still here".as_slice());
        it.until("others live on", |it| it.shell.engine().read(conn) == b"still here");
        it.quiet();
        assert_eq!(it.shell.net().accepts, accepts, "a resting door is left alone");
        it.advance(Duration::from_millis(100));
        it.turn_with(&[]);
        assert_eq!(it.next.deadline, Some(it.now + Duration::from_millis(100)), "once more");
        it.advance(Duration::from_millis(100));
        // No edge tells: the connection has been waiting all along.
        it.turn_with(&[]);
        assert_eq!(it.shell.engine().opened().len(), 2);
        assert_eq!(it.shell.counters().accept_failures, 2);
        push(&mut waiting, &mut b"x".as_slice());
        let conn = it.shell.engine().opened()[1];
        it.until("it is served", |it| it.shell.engine().read(conn) == b"x");
        assert_eq!(it.next.deadline, None);
    }
}

/// See the name.
pub fn a_dead_id_reaches_nobody<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (old_peer, old) = it.connection();
    it.act([Act::Close(old, CloseReason::Finished)]);
    assert_eq!(it.shell.connections(), (0, 0));
    let (mut peer, new) = it.connection();
    assert_eq!((old.index, old.generation + 1), (new.index, new.generation), "the slot is used again");
    let stale = it.shell.counters().stale;
    it.act([Act::Transmit(old, b"for somebody else".to_vec()), Act::Close(old, CloseReason::Finished)]);
    let source = Endpoint::Conn(old);
    it.turn_with(&[Ready { source, readable: true, writable: true, finished: true, hangup: true }]);
    assert_eq!(it.shell.counters().stale, stale + 2);
    assert_eq!(it.shell.connections(), (1, 0));
    let mut got = Vec::new();
    it.act([Act::Transmit(new, b"for you".to_vec())]);
    it.until("its own bytes", |_| {
        assert!(!pull(&mut peer, &mut got).expect("an open connection"));
        !got.is_empty()
    });
    assert_eq!(got, b"for you");
    drop(old_peer);
}

/// See the name.
pub fn an_echo_costs_one_read_and_one_write<W: World>() {
    let mut it = Harness::<W, Failing<W::Net>>::with(Failing::new);
    it.shell.engine().echo = true;
    let (mut peer, conn) = it.connection();
    it.quiet();
    let (reads, writes) = (it.shell.net().reads, it.shell.net().writes);
    push(&mut peer, &mut b"ping".as_slice());
    it.until("heard", |it| it.shell.engine().read(conn) == b"ping");
    it.quiet();
    assert_eq!(it.shell.net().reads - reads, 1, "a short read says that nothing is left");
    assert_eq!(it.shell.net().writes - writes, 1);
    assert_eq!(it.shell.net().interests, 0, "nobody waits to write");
    let mut got = Vec::new();
    it.until("back", |_| {
        assert!(!pull(&mut peer, &mut got).expect("an open connection"));
        got == b"ping"
    });
}

/// See the name.
pub fn a_dial_reaches_its_end_or_is_cancelled<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    if it.world.elsewhere().is_none() {
        return;
    }
    let deadline = it.now + Duration::from_secs(5);
    it.act([Act::Effect(EffectId(1), Effect::Dial { deadline, to: DialTarget::Link })]);
    it.until("opened", |it| !it.shell.engine().opened().is_empty());
    let conn = it.shell.engine().opened()[0];
    let known = it.shell.engine().seen.iter().any(|seen| {
        matches!(
            seen,
            Seen::Opened(_, Via::Link(Transport::Tcp | Transport::Unix), Origin::Dialled(EffectId(1)), None)
        )
    });
    assert!(known, "{:?}", it.shell.engine().seen);
    let mut peer = None;
    it.until("answered", |it| {
        peer = it.world.answer();
        peer.is_some()
    });
    let mut peer = peer.expect("a peer");
    push(&mut peer, &mut b"hello".as_slice());
    it.until("heard", |it| it.shell.engine().read(conn) == b"hello");
    it.quiet();
    assert_eq!(it.next.deadline, None, "the dial's deadline is gone");
    let told = it.shell.engine().seen.iter().filter(|seen| matches!(seen, Seen::Done(..))).count();
    assert_eq!(told, 0, "a dial that succeeds is answered by Opened alone");

    it.act([
        Act::Effect(EffectId(2), Effect::Dial { deadline: it.now, to: DialTarget::Link }),
        Act::Cancel(EffectId(2)),
    ]);
    it.until("one answer", |it| {
        it.shell.engine().saw(&Seen::Done(EffectId(2), Err(EffectErrorKind::Cancelled)))
            || it.shell.engine().opened().len() == 2
    });
}

/// See the name.
pub fn a_discard_drops_what_the_kernel_has_not_taken<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut peer, conn) = it.connection();
    while it.shell.engine().room[&conn] > 0 {
        let room = it.shell.engine().room[&conn];
        it.act([Act::Transmit(conn, vec![b'x'; room])]);
        it.quiet();
    }
    it.act([Act::Discard(conn)]);
    it.until("all room", |it| it.shell.engine().room[&conn] == ROOM);
    it.act([Act::Transmit(conn, b"fresh".to_vec())]);
    let mut got = Vec::new();
    it.until("the fresh bytes", |_| {
        assert!(!pull(&mut peer, &mut got).expect("an open connection"));
        got.ends_with(b"fresh")
    });
    assert!(got[..got.len() - 5].iter().all(|byte| *byte == b'x'));
}

/// See the name.
pub fn a_flood_does_not_starve_the_others<W: World>() {
    let mut it = Harness::<W, W::Net>::new();
    let (mut loud, loud_conn) = it.connection();
    let (mut quiet, quiet_conn) = it.connection();
    let flood = pattern(1 << 20);
    let mut rest = flood.as_slice();
    push(&mut loud, &mut rest);
    push(&mut quiet, &mut b"me too".as_slice());
    let mut turns_with_bytes = 0;
    it.until("both heard", |it| {
        push(&mut loud, &mut rest);
        let largest =
            it.shell.engine().seen.iter().map(|seen| if let Seen::Bytes(_, n) = seen { *n } else { 0 });
        assert!(largest.max().unwrap_or(0) <= READ_MAX);
        turns_with_bytes += usize::from(it.next.more);
        it.shell.engine().read(quiet_conn) == b"me too"
            && it.shell.engine().read(loud_conn).len() == flood.len()
    });
    let seen = &it.shell.engine().seen;
    let quiet_at = seen.iter().position(|seen| matches!(seen, Seen::Bytes(conn, _) if *conn == quiet_conn));
    let louds =
        seen[..quiet_at.expect("heard")].iter().filter(|seen| matches!(seen, Seen::Bytes(..))).count();
    assert!(louds <= 2, "{louds} reads of the loud one first");
}
