//! How a broker leaves, and changes of durable state: what their askers are told is what happens.

use castra_core::Input;
use castra_core::boundary::Effect;

use crate::common::{World, ms, name};
use serde_json::Value;

fn one(mut replies: Vec<Value>) -> Value {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

const ISSUE_A: &str = r#"{"id":1,"method":"token_issue","params":{"guest":"a"}}"#;

/// Found by the simulated worlds (seed 8575, 2026-11-21): the drain said
/// `shutting_down`, the commit went through, and nobody had the token.
#[test]
fn a_drain_tells_the_asker_of_a_change_on_its_way_how_it_ended() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.obliging = false;
    world.ask(control, ISSUE_A);
    let waiting = r#"{"id":2,"method":"token_issue","params":{"guest":"b"}}"#;
    world.ask(control, waiting);
    let (effect, _) = world.effects.remove(0);
    world.handle(Input::Drain { deadline: world.now.boot + ms(2000) });
    let refused = one(world.replies(control));
    assert_eq!((&refused["id"], &refused["data"]["code"]), (&2.into(), &"shutting_down".into()));
    world.handle(Input::Done { effect, result: Ok(()) });
    let issued = one(world.replies(control));
    assert_eq!((&issued["id"], &issued["event"]), (&1.into(), &"token_issued".into()));
    assert!(
        world.effects.iter().all(|(_, effect)| !matches!(effect, Effect::Persist(_))),
        "b's is not begun"
    );
    assert!(world.stopped);
}

#[test]
fn a_drain_waits_for_a_change_on_its_way_even_if_its_asker_is_gone() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.obliging = false;
    world.ask(control, ISSUE_A);
    let (effect, _) = world.effects.remove(0);
    world.close(control);
    world.handle(Input::Drain { deadline: world.now.boot + ms(2000) });
    world.advance(ms(1999));
    assert!(!world.stopped);
    world.handle(Input::Done { effect, result: Ok(()) });
    assert!(world.stopped);
}

#[test]
fn a_drain_whose_time_is_up_says_that_the_change_may_still_happen() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.obliging = false;
    world.ask(control, ISSUE_A);
    world.handle(Input::Drain { deadline: world.now.boot + ms(2000) });
    world.advance(ms(2000));
    let reply = one(world.replies(control));
    assert_eq!(reply["data"]["code"], "shutting_down");
    assert!(reply["data"]["message"].as_str().is_some_and(|text| text.contains("may still happen")));
    assert!(world.stopped);
}

#[test]
fn a_change_whose_asker_was_told_that_it_failed_does_not_happen_later() {
    let mut world = World::new(|_| {});
    let (control, other) = (world.open_control(), world.open_control());
    world.obliging = false;
    world.ask(control, ISSUE_A);
    world.ask(other, r#"{"id":7,"method":"token_issue","params":{"guest":"b","timeout_ms":100}}"#);
    world.advance(ms(100));
    let reply = one(world.replies(other));
    assert_eq!(reply["data"]["code"], "timeout");
    assert!(reply["data"]["message"].as_str().is_some_and(|text| text.starts_with("nothing changed")));
    let (effect, _) = world.effects.remove(0);
    world.handle(Input::Done { effect, result: Ok(()) });
    assert!(world.effects.is_empty(), "{:?}", world.effects);
}

#[test]
fn a_forgotten_guests_record_is_removed_before_the_broker_stops() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    world.close(conn);
    world.obliging = false;
    let control = world.open_control();
    assert!(world.ask(control, r#"{"method":"forget","params":{"guest":"devbox"}}"#).is_empty());
    let (effect, _) = world.effects.remove(0);
    world.handle(Input::Done { effect, result: Ok(()) });
    let [(effect, Effect::RemoveRecord(guest))] = &world.effects[..] else { panic!("{:?}", world.effects) };
    assert_eq!(*guest, name("devbox"));
    let effect = *effect;
    world.close(control);
    world.handle(Input::Drain { deadline: world.now.boot + ms(10_000) });
    assert!(!world.stopped, "the record is not removed yet");
    world.handle(Input::Done { effect, result: Ok(()) });
    assert!(world.stopped);
    assert_eq!(world.broker.statistics().stale_inputs, 0);
}

/// Found by the simulated worlds (seed 699, 2026-11-21): the incumbent's
/// farewell let the contender in, and took leave of it at once.
#[test]
fn a_broker_that_leaves_lets_no_contender_in() {
    let mut world = World::new(|_| {});
    world.join("a");
    let (contender, nonce, _) = world.hello("a", "");
    world.write(contender, format!("proof {nonce}\n").as_bytes());
    world.handle(Input::Drain { deadline: world.now.boot + ms(2000) });
    let greeted = world.events.iter().filter(|event| event.fact.kind() == "handshake.success").count();
    assert_eq!(greeted, 1, "{:?}", world.events);
    assert!(world.is_closed(contender) && world.stopped);
}

#[test]
fn a_drain_that_control_asked_for_lasts_two_seconds_at_most() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.obliging = false;
    world.ask(control, ISSUE_A);
    let shutdown = one(world.ask(control, r#"{"id":2,"method":"shutdown"}"#));
    assert_eq!(shutdown["event"], "shutting_down");
    world.advance(ms(1999));
    assert!(!world.stopped);
    world.advance(ms(1));
    assert!(world.stopped);
}
