//! What time alone changes is told at its moment, without a question.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{REACHABLE, World, ms, waiting};
use castra_core::Input;
use castra_core::event::Fact;
use castra_core::status::Reason;

const TICK: Duration = Duration::from_nanos(1);

/// The reasons of the verdicts that were told since the last call.
fn told(world: &mut World) -> Vec<Option<Reason>> {
    let reason = |fact| match fact {
        Fact::VerdictChanged { reason, .. } => Some(reason),
        _ => None,
    };
    world.facts().into_iter().filter_map(reason).collect()
}

#[test]
fn a_one_shot_guests_end_is_told_to_the_nanosecond() {
    let mut world = World::new(|_| {});
    let (conn, nonce, _) = world.hello("devbox", " once");
    world.write(conn, format!("proof {nonce}\n").as_bytes());
    assert_eq!(told(&mut world), [None]);
    world.advance(Duration::from_secs(15));
    assert_eq!(told(&mut world), []);
    world.advance(TICK);
    assert_eq!(told(&mut world), [Some(Reason::Stale)]);
}

#[test]
fn the_end_of_an_excuse_is_told_to_the_nanosecond() {
    // No challenge falls into the moment: what tells it is the verdict's own timer.
    let mut world = World::new(|config| config.interval = ms(5000));
    world.join("devbox");
    world.advance(ms(1000));
    world.jump(ms(20_000));
    world.handle(Input::Tick);
    assert_eq!(world.verdict("devbox"), waiting(Reason::BrokerStalled));
    world.events.clear();
    world.advance(Duration::from_secs(15));
    assert_eq!(told(&mut world), []);
    world.advance(TICK);
    assert_eq!(told(&mut world), [Some(Reason::Stale)]);
    assert_ne!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn an_old_proof_that_arrives_as_the_broker_wakes_ends_the_excuse() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    let mut answer = None;
    while answer.is_none() {
        world.advance(ms(1));
        answer = world.answer_to_challenge(conn);
    }
    world.jump(ms(20_000));
    world.handle(Input::Tick);
    assert_eq!(world.verdict("devbox"), waiting(Reason::BrokerStalled));
    world.send(conn, &answer.unwrap());
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
}

#[test]
fn a_later_stall_does_not_excuse_who_was_stale_before_it() {
    let mut world = World::new(|_| {});
    world.join("devbox");
    world.advance(ms(1000));
    world.jump(ms(20_000));
    world.handle(Input::Tick);
    assert_eq!(world.verdict("devbox"), waiting(Reason::BrokerStalled));
    world.advance(ms(60_000));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
    world.jump(ms(20_000));
    world.handle(Input::Tick);
    assert_eq!(world.kinds().iter().filter(|kind| **kind == "broker.stalled").count(), 2);
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
}

#[test]
fn a_guest_that_is_still_excused_when_the_broker_stalls_again_stays_so() {
    let mut world = World::new(|_| {});
    world.join("devbox");
    world.advance(ms(1000));
    for _ in 0..2 {
        world.jump(ms(20_000));
        world.handle(Input::Tick);
        assert_eq!(world.verdict("devbox"), waiting(Reason::BrokerStalled));
        world.advance(ms(1000));
    }
}
