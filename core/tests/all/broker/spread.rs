//! Guests are challenged evenly over the interval, whatever brought them together.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{World, ms};
use castra_core::Input;
use castra_core::config::BrokerConfig;
use castra_core::id::ConnId;

const GUESTS: usize = 100;
const INTERVAL: Duration = Duration::from_secs(5);
const PARTS: usize = 10;

/// In which tenth of the next interval each guest is challenged; asserts that
/// every one of them is, and answers.
fn challenges(world: &mut World, guests: &[ConnId]) -> [usize; PARTS] {
    let mut parts = [0; PARTS];
    let mut asked = vec![false; guests.len()];
    for part in &mut parts {
        world.advance(INTERVAL / 10);
        for (conn, asked) in guests.iter().zip(&mut asked) {
            while let Some(answer) = world.answer_to_challenge(*conn) {
                world.send(*conn, &answer);
                *asked = true;
                *part += 1;
            }
        }
    }
    assert!(asked.iter().all(|asked| *asked), "not everybody was asked within an interval: {parts:?}");
    parts
}

/// Ten guests belong into each tenth; chance gives no tenth three times as many.
fn assert_even(parts: [usize; PARTS]) {
    assert!(parts.iter().all(|part| (1..30).contains(part)), "{parts:?}");
}

fn arrive(world: &mut World) -> Vec<ConnId> {
    (0..GUESTS)
        .map(|number| {
            world.jump(ms(1000 / GUESTS as u64));
            world.join(&format!("guest-{number}"))
        })
        .collect()
}

#[test]
fn guests_that_arrive_within_a_second_are_not_asked_together() {
    let mut world = World::new(|_| {});
    let guests = arrive(&mut world);
    assert_even(challenges(&mut world, &guests));
    assert_even(challenges(&mut world, &guests));
}

#[test]
fn guests_that_a_stall_brought_into_step_are_asked_evenly_after_it() {
    let mut world = World::new(|_| {});
    let guests = arrive(&mut world);
    challenges(&mut world, &guests);
    world.jump(ms(8_000));
    world.advance(ms(0));
    let asked = guests.iter().filter(|conn| world.answer_to_challenge(**conn).is_some()).count();
    assert_eq!(asked, GUESTS, "a stall challenges everybody at once");
    assert_even(challenges(&mut world, &guests));
    assert_even(challenges(&mut world, &guests));
}

#[test]
fn guests_that_a_stricter_configuration_brought_into_step_are_asked_evenly_after_it() {
    let mut world = World::new(|_| {});
    let guests = arrive(&mut world);
    challenges(&mut world, &guests);
    let stricter = BrokerConfig { interval: INTERVAL - ms(1), ..BrokerConfig::default() };
    world.handle(Input::Reload(Box::new(stricter)));
    world.advance(ms(0));
    let asked = guests.iter().filter(|conn| world.answer_to_challenge(**conn).is_some()).count();
    assert_eq!(asked, GUESTS);
    assert_even(challenges(&mut world, &guests));
}
