//! castra 0.1's record files: which are written, how often, and what a failure means.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{World, ms};
use castra_core::Input;
use castra_core::boundary::Effect;
use castra_core::config::BrokerConfig;
use castra_core::event::Storage;
use castra_core::id::{ConnId, EffectId};

const TICK: Duration = Duration::from_nanos(1);

fn world(change: impl FnOnce(&mut BrokerConfig)) -> World {
    let mut world = World::new(change);
    world.obliging = false;
    world
}

/// The records that are to be written since the last call, by name.
fn pending(world: &mut World) -> Vec<(EffectId, String)> {
    let name = |(id, effect): (EffectId, Effect)| match effect {
        Effect::WriteRecord(record) => (id, record.vm.to_string()),
        other => panic!("{other:?}"),
    };
    std::mem::take(&mut world.effects).into_iter().map(name).collect()
}

/// The same, and they are written.
fn written(world: &mut World) -> Vec<String> {
    let records = pending(world);
    for (effect, _) in &records {
        world.handle(Input::Done { effect: *effect, result: Ok(()) });
    }
    records.into_iter().map(|(_, name)| name).collect()
}

fn prove(world: &mut World, conn: ConnId) {
    while let Some(answer) = world.answer_to_challenge(conn) {
        world.send(conn, &answer);
    }
}

#[test]
fn so_many_a_second_and_the_rest_in_the_next() {
    let mut world = world(|config| config.records_per_second = 2);
    for guest in ["a", "b", "c", "d", "e"] {
        world.join(guest);
    }
    assert_eq!(written(&mut world), ["a", "b"]);
    world.advance(ms(1000).checked_sub(TICK).unwrap());
    assert!(written(&mut world).is_empty());
    world.advance(TICK);
    assert_eq!(written(&mut world), ["c", "d"]);
    world.advance(ms(1000));
    assert_eq!(written(&mut world), ["e"]);
    world.advance(ms(1000));
    assert!(written(&mut world).is_empty());
}

#[test]
fn a_second_begins_with_its_first_record() {
    let mut world = world(|config| config.records_per_second = 1);
    world.join("a");
    world.advance(ms(1500));
    world.join("b");
    assert_eq!(written(&mut world), ["a", "b"]);
    world.join("c");
    world.advance(ms(999));
    assert!(written(&mut world).is_empty());
    world.advance(ms(1));
    assert_eq!(written(&mut world), ["c"]);
}

#[test]
fn a_name_has_its_record_written_at_its_interval_at_most() {
    let mut world = world(|config| {
        (config.window, config.interval) = (ms(3000), ms(1000));
        config.record_interval = ms(5000);
    });
    let conn = world.join("a");
    let began = world.now.boot;
    assert_eq!(written(&mut world), ["a"]);
    let mut times = vec![0];
    while times.len() < 4 {
        world.advance(ms(10));
        prove(&mut world, conn);
        if !written(&mut world).is_empty() {
            times.push(world.now.boot.since(began).as_millis());
        }
    }
    assert!(times.windows(2).all(|pair| (5000..=5010).contains(&(pair[1] - pair[0]))), "{times:?}");
}

#[test]
fn one_name_that_waits_for_its_interval_holds_up_nobody() {
    let mut world = world(|config| {
        (config.window, config.interval) = (ms(3000), ms(1000));
        config.record_interval = ms(60_000);
    });
    let conn = world.join("a");
    assert_eq!(written(&mut world), ["a"]);
    world.live(ms(3000), &[conn]);
    assert!(written(&mut world).is_empty());
    world.join("b");
    assert_eq!(written(&mut world), ["b"]);
}

#[test]
fn a_session_that_begins_comes_before_a_proof_that_refreshes() {
    let mut world = world(|config| {
        config.records_per_second = 1;
        (config.window, config.interval) = (ms(3000), ms(1000));
    });
    let first = world.join("a");
    assert_eq!(written(&mut world), ["a"]);
    world.advance(ms(1500));
    world.join("b");
    prove(&mut world, first);
    world.join("c");
    world.join("d");
    let mut order = written(&mut world);
    for _ in 0..3 {
        world.advance(ms(1000));
        order.extend(written(&mut world));
    }
    assert_eq!(order[..4], ["b", "c", "d", "a"]);
}

#[test]
fn a_record_holds_whole_seconds_and_is_not_written_twice_for_one() {
    let mut world = world(|config| {
        (config.window, config.interval) = (ms(300), ms(100));
        config.record_interval = ms(0);
    });
    let conn = world.join("a");
    let mut stamps = Vec::new();
    for _ in 0..500 {
        world.advance(ms(10));
        prove(&mut world, conn);
        for (effect, what) in std::mem::take(&mut world.effects) {
            let Effect::WriteRecord(record) = what else { panic!("{what:?}") };
            stamps.push(record.timestamp);
            world.handle(Input::Done { effect, result: Ok(()) });
        }
    }
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
    assert!((5..=6).contains(&stamps.len()), "{stamps:?}");
}

#[test]
fn a_failure_is_told_once_and_the_next_proof_writes_the_record_again() {
    let mut world = world(|config| (config.window, config.interval) = (ms(3000), ms(1000)));
    let conn = world.join("a");
    for _ in 0..3 {
        world.fail_effect();
        assert!(world.effects.is_empty(), "nothing is tried without a reason");
        while world.effects.is_empty() {
            world.advance(ms(10));
            prove(&mut world, conn);
        }
    }
    assert_eq!(written(&mut world), ["a"]);
    let told: Vec<&str> = world.kinds().into_iter().filter(|kind| kind.starts_with("storage.")).collect();
    assert_eq!(told, ["storage.failed", "storage.recovered"]);
    let what = world.events.iter().find_map(|event| match &event.fact {
        castra_core::event::Fact::StorageFailed { what, message } => Some((*what, message.clone())),
        _ => None,
    });
    assert_eq!(what, Some((Storage::Records, "no space left".to_owned())));
}

#[test]
fn a_drain_writes_everything_at_once_and_waits_for_it() {
    let mut world = world(|config| config.records_per_second = 1);
    for guest in ["a", "b", "c"] {
        world.join(guest);
    }
    let first = pending(&mut world);
    assert_eq!(first.len(), 1);
    world.handle(Input::Drain { deadline: world.now.boot + ms(3000) });
    let rest = pending(&mut world);
    assert_eq!(rest.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    for (effect, _) in first.into_iter().chain(rest) {
        assert!(!world.stopped);
        world.handle(Input::Done { effect, result: Ok(()) });
    }
    assert!(world.stopped);
}

#[test]
fn a_result_that_nobody_waits_for_is_counted() {
    let mut world = world(|_| {});
    world.join("a");
    let (effect, _) = pending(&mut world).remove(0);
    world.handle(Input::Done { effect, result: Ok(()) });
    assert_eq!(world.broker.statistics().stale_inputs, 0);
    world.handle(Input::Done { effect, result: Ok(()) });
    assert_eq!(world.broker.statistics().stale_inputs, 1);
}
