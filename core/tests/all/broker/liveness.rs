//! When a guest is reachable, and why not.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{REACHABLE, World, ms, name, waiting};
use castra_core::boundary::{CloseCause, Transport};
use castra_core::event::Fact;
use castra_core::status::{Reason, Warning};
use castra_core::{Input, Restored};

const TICK: Duration = Duration::from_nanos(1);

#[test]
fn a_proven_guest_is_reachable_and_greeted_once_before_its_verdict() {
    let mut world = World::new(|config| config.guests.push(name("devbox")));
    assert_eq!(world.verdict("devbox"), waiting(Reason::NeverSeen));
    assert_eq!(world.row("devbox").unwrap().last_handshake_age_ms, None);
    world.join("devbox");
    assert_eq!(world.verdict("devbox"), REACHABLE);
    assert_eq!(world.kinds(), ["broker.started", "handshake.start", "handshake.success", "verdict.changed"]);
    let greeting = world.events[2].to_string();
    assert!(
        greeting.starts_with("hello from vm:devbox session=sess-7-1 epoch=30064771073 via=tcp"),
        "{greeting}"
    );
}

#[test]
fn a_handshake_is_dated_from_the_sending_of_its_challenge() {
    let mut world = World::new(|_| {});
    let (conn, nonce, _) = world.hello("devbox", "");
    world.advance(ms(1900));
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert_eq!(world.row("devbox").unwrap().last_handshake_age_ms, Some(1900));
}

#[test]
fn a_proof_delayed_past_the_window_is_not_reachable() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    let mut held = Vec::new();
    for _ in 0..40 {
        world.advance(ms(500));
        held.extend(world.answer_to_challenge(conn));
    }
    assert!(held.len() >= 3);
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
    // Everything that was held for a whole window comes at once.
    world.advance(ms(15_000));
    let newest_sent = world.row("devbox").unwrap().last_handshake_age_ms.unwrap();
    // The newest first: it is still in the table, the others are forgotten.
    for answer in held.iter().rev() {
        world.send(conn, answer);
        assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
    }
    let age = world.row("devbox").unwrap().last_handshake_age_ms.unwrap();
    assert!(age > 15_000 && age < newest_sent, "a late proof is as old as its challenge: {age}");
}

#[test]
fn a_proof_with_another_nonce_is_a_strike_and_no_evidence() {
    let mut world = World::new(|_| {});
    let (conn, nonce, _) = world.hello("devbox", "");
    let replayed = format!("proof {}\n", "0".repeat(nonce.len()));
    world.write(conn, replayed.as_bytes());
    assert!(world.line(conn).starts_with("error: bad-proof: "));
    assert_eq!(world.row("devbox").map(|row| row.proven), None);

    let conn = world.join("devbox");
    world.advance(ms(6000));
    let before = world.row("devbox").unwrap();
    let forged = format!(r#"{{"type":"proof","seq":1,"proof":"{}"}}"#, "0".repeat(nonce.len()));
    world.send(conn, &forged);
    assert_eq!(world.broker.statistics().strikes, 1);
    assert_eq!(world.row("devbox").unwrap(), before);
}

#[test]
fn a_silent_guest_leaves_the_window_to_the_nanosecond() {
    let mut world = World::new(|_| {});
    world.join("devbox");
    world.advance(Duration::from_secs(15));
    assert_eq!(world.verdict("devbox"), REACHABLE);
    world.events.clear();
    world.advance(TICK);
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
    assert!(matches!(world.facts()[..], [Fact::VerdictChanged { reason: Some(Reason::Stale), .. }]));
}

#[test]
fn the_verdict_is_computed_when_it_is_read_even_if_nobody_ticked() {
    let mut world = World::new(|config| config.interval = ms(5000));
    world.join("devbox");
    world.jump(ms(15_001));
    assert_ne!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn a_living_guest_stays_reachable() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    for _ in 0..60 {
        world.live(ms(1000), &[conn]);
        assert_eq!(world.verdict("devbox"), REACHABLE);
    }
    let row = world.row("devbox").unwrap();
    assert!((12..=14).contains(&row.handshakes), "{}", row.handshakes);
    assert_eq!(world.kinds().iter().filter(|kind| **kind == "handshake.success").count(), 1);
}

#[test]
fn a_one_shot_guest_is_reachable_for_exactly_its_window() {
    let mut world = World::new(|_| {});
    let (conn, nonce, _) = world.hello("devbox", " once");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(conn).starts_with("ok session="));
    assert!(world.is_closed(conn));
    world.advance(Duration::from_secs(15));
    assert_eq!(world.verdict("devbox"), REACHABLE);
    assert_eq!(world.row("devbox").unwrap().session_age_ms, None);
    world.advance(TICK);
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
    assert_eq!(world.kinds().last(), Some(&"verdict.changed"));
}

#[test]
fn a_closed_link_and_a_goodbye_are_told_apart_at_once() {
    let mut world = World::new(|_| {});
    let first = world.join("a");
    let second = world.join("b");
    world.handle(Input::Closed { conn: first, why: CloseCause::Reset });
    world.send(second, r#"{"type":"goodbye"}"#);
    assert_eq!(world.verdict("a"), waiting(Reason::Disconnected));
    assert_eq!(world.verdict("b"), waiting(Reason::Goodbye));
    assert!(world.is_closed(second));
    assert_eq!(world.broker.sizes().links, 0);
}

#[test]
fn nothing_but_a_proof_refreshes_a_guest() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    for _ in 0..16 {
        world.advance(ms(1000));
        world.send(conn, r#"{"type":"heartbeat"}"#);
        world.send(conn, r#"{"type":"ping","id":1}"#);
        world.send(conn, r#"{"type":"publish","topic":"x","payload":1}"#);
    }
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
}

#[test]
fn a_restarted_broker_trusts_nobody() {
    let seen = castra_core::time::WallTime::from_unix_millis(1_795_188_000_000);
    let restored =
        Restored { incarnation: 8, last_seen: vec![(name("devbox"), seen)], ..Restored::default() };
    let world = World::restored(|_| {}, restored);
    assert_eq!(world.verdict("devbox"), waiting(Reason::BrokerStarted));
    let row = world.row("devbox").unwrap();
    assert_eq!((row.last_handshake_at, row.last_handshake_age_ms), (Some(seen), None));
}

#[test]
fn a_stalled_broker_blames_itself_challenges_everybody_and_forgives_for_one_window() {
    let mut world = World::new(|_| {});
    let alive = world.join("alive");
    world.join("dead");
    world.live(ms(6000), &[alive]);
    world.take(alive);
    world.events.clear();
    world.jump(ms(20_000));
    // A read that comes before the late tick says the same.
    assert_eq!(world.verdict("alive"), waiting(Reason::BrokerStalled));
    world.handle(Input::Tick);
    assert_eq!(world.kinds()[0], "broker.stalled");
    assert_eq!(world.verdict("alive"), waiting(Reason::BrokerStalled));
    assert_eq!(world.verdict("dead"), waiting(Reason::BrokerStalled));
    let mut answer = None;
    while let Some(newer) = world.answer_to_challenge(alive) {
        answer = Some(newer);
    }
    world.send(alive, &answer.expect("challenged at once"));
    assert_eq!(world.verdict("alive"), REACHABLE);
    world.live(ms(15_000), &[alive]);
    assert_eq!(world.verdict("dead"), waiting(Reason::BrokerStalled));
    world.live(ms(10), &[alive]);
    assert_eq!(world.verdict("dead"), waiting(Reason::Stale));
}

#[test]
fn a_suspended_host_is_age_and_says_so() {
    let mut world = World::new(|_| {});
    world.join("devbox");
    world.advance(ms(1000));
    world.jump(ms(3_600_000));
    world.now.suspended += ms(3_590_000);
    assert_eq!(world.verdict("devbox"), waiting(Reason::ClockJumped));
    world.handle(Input::Tick);
    assert!(world.kinds().contains(&"broker.clock_jumped"));
    assert_eq!(world.row("devbox").unwrap().last_handshake_age_ms, Some(3_601_000));
}

#[test]
fn time_that_goes_back_is_clamped_and_counted() {
    let mut world = World::new(|_| {});
    world.join("devbox");
    world.advance(ms(5000));
    world.handle(Input::Tick);
    let later = world.now;
    world.now.boot = world.now.boot - ms(4000);
    world.handle(Input::Tick);
    assert_eq!(world.broker.statistics().clock_regressions, 1);
    assert!(world.row("devbox").unwrap().last_handshake_age_ms.unwrap() >= 5000);
    world.now = later;
}

#[test]
fn a_0_1_guest_proves_nothing() {
    let mut world = World::new(|_| {});
    let conn = world.open(Transport::Tcp);
    world.write(conn, b"hello vm:old capabilities=metrics\n");
    assert_eq!(world.line(conn), "castra-broker 0.1 ready");
    assert_eq!(world.line(conn), "ok");
    assert!(world.is_closed(conn));
    assert_eq!(world.verdict("old"), waiting(Reason::Unproven));
    let row = world.row("old").unwrap();
    assert_eq!((row.proven, row.warnings.as_slice()), (false, [Warning::Unproven].as_slice()));
    assert_eq!(row.last_handshake_age_ms, None);
}

#[test]
fn an_accepted_0_1_guest_counts_by_its_heartbeats_and_is_marked() {
    let mut world = World::new(|config| config.accept_unproven = true);
    let conn = world.open(Transport::Tcp);
    world.write(conn, b"hello vm:old capabilities=bus-v1\n");
    world.line(conn);
    assert!(world.line(conn).starts_with("ok session=sess-7-1"));
    assert_eq!(world.verdict("old"), REACHABLE);
    world.advance(ms(14_000));
    world.send(conn, r#"{"type":"heartbeat"}"#);
    assert_eq!(world.frame(conn).unwrap()["ack"], "heartbeat");
    world.advance(ms(14_000));
    assert_eq!(world.verdict("old"), REACHABLE);
    let row = world.row("old").unwrap();
    assert_eq!((row.proven, row.warnings.as_slice()), (false, [Warning::Unproven].as_slice()));
    world.advance(ms(46_100));
    assert!(world.is_closed(conn), "sixty seconds without a heartbeat");
    assert_eq!(world.frame(conn).unwrap()["code"], "heartbeat-timeout");
}

#[test]
fn a_session_without_a_proof_is_closed_after_its_linger_and_stays_stale() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    world.advance(ms(599_000));
    assert!(!world.is_closed(conn));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
    world.advance(ms(1001));
    assert!(world.is_closed(conn));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
}

#[test]
fn the_records_follow_the_proofs_at_most_once_a_second_and_never_a_failed_hello() {
    let mut world = World::new(|_| {});
    world.obliging = false;
    world.hello("nobody", "");
    assert!(world.effects.is_empty());
    let conn = world.join("devbox");
    assert_eq!(world.effects.len(), 1);
    let mut written = 0;
    for _ in 0..100 {
        world.live(ms(1000), &[conn]);
        written += world.effects.len();
        for (effect, _) in std::mem::take(&mut world.effects) {
            world.handle(Input::Done { effect, result: Ok(()) });
        }
    }
    assert!((19..=22).contains(&written), "one per keepalive: {written}");
}

#[test]
fn a_stall_asks_no_0_1_guest_for_proofs() {
    let mut world = World::new(|_| {});
    let old = world.open(Transport::Tcp);
    world.write(old, b"hello vm:old capabilities=bus-v1\n");
    world.join("devbox");
    world.take(old);
    world.jump(ms(20_000));
    world.handle(Input::Tick);
    world.advance(ms(10_000));
    assert_eq!(world.take(old), b"", "it doesn't know what a challenge is");
}

#[test]
fn a_handshake_begun_before_a_session_never_comes_after_it() {
    let mut world = World::new(|_| {});
    let (early, nonce, _) = world.hello("devbox", "");
    let conn = world.join("devbox");
    world.send(conn, r#"{"type":"goodbye"}"#);
    world.write(early, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(early).starts_with("error: name-in-use: "));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Goodbye));
}

#[test]
fn a_0_1_hello_changes_nothing_that_a_proof_has_told() {
    let mut world = World::new(|_| {});
    let (conn, nonce, epoch) = world.hello("devbox", " boot=0f0e0d0c0b0a09080706050403020100 once");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    let before = world.row("devbox").unwrap();
    let old = world.open(Transport::Unix);
    world.write(old, b"hello vm:devbox capabilities=evil\n");
    let after = world.row("devbox").unwrap();
    assert_eq!(after.epoch.unwrap().0, epoch);
    assert_eq!((&after.capabilities, after.boot), (&before.capabilities, before.boot));
    assert_eq!((after.transport, world.verdict("devbox")), (Some(Transport::Tcp), REACHABLE));
}

#[test]
fn a_glance_agrees_with_the_status_document_at_every_moment() {
    let mut world = World::new(|config| config.guests.push(name("cachebox")));
    let conn = world.join("devbox");
    world.live(ms(1000), &[conn]);
    // Ahead of the clock of the last call: in the window, past it, and past a stall.
    for _ in 0..40 {
        world.jump(ms(500));
        world.check();
    }
    world.handle(Input::Tick);
    world.close(conn);
    world.hello("cachebox", "");
    world.jump(ms(100));
    world.check();
    assert_eq!(world.broker.glances(world.now).count(), 2);
}

#[test]
fn a_guest_that_is_further_away_than_four_intervals_stays_reachable() {
    // Each answer is under way for seven intervals: there are always more than four of them.
    let (interval, away) = (ms(500), 7);
    let mut world = World::new(|config| (config.window, config.interval) = (ms(10_000), interval));
    let conn = world.join("far");
    let mut under_way: Vec<(usize, String)> = vec![];
    for step in 0..400 {
        world.advance(interval / 4);
        while let Some(answer) = world.answer_to_challenge(conn) {
            under_way.push((step + 4 * away, answer));
        }
        while under_way.first().is_some_and(|(there, _)| *there <= step) {
            world.send(conn, &under_way.remove(0).1);
        }
        assert_eq!(world.verdict("far"), REACHABLE, "after {step} quarters of an interval");
    }
}
