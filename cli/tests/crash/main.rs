//! A broker that does everything at once and is killed at any moment: each of those that follow
//! has to keep what was promised.
//!
//! `CASTRA_CRASH_ROUNDS` says how many rounds, `CASTRA_CRASH_SEED` by which chance; `.ci/crash`
//! runs 500.
#![allow(clippy::unwrap_used)]

mod agents;
mod clients;
mod files;
#[allow(dead_code)]
#[path = "../ptyd/support/flood.rs"]
mod flood;
mod gate;
mod guests;
mod load;
mod managed;
mod peers;
mod promises;
mod restore;
mod rounds;
mod scripted;
#[allow(dead_code, unused_imports)]
#[path = "../end_to_end/support/mod.rs"]
mod support;
mod terminals;
mod terminals_client;
mod tokens;
#[allow(dead_code)]
#[path = "../ptyd/support/wire.rs"]
mod wire;
#[allow(dead_code)]
#[path = "../attach/wire.rs"]
mod wire_of_guests;

#[test]
fn a_broker_killed_at_any_moment_keeps_every_promise() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    rounds::run(number("CASTRA_CRASH_ROUNDS", 12) as usize, number("CASTRA_CRASH_SEED", 7));
}
