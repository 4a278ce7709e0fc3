//! A new configuration takes effect at once, and blames nobody.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{REACHABLE, World, ms, name, waiting};
use castra_core::boundary::Transport;
use castra_core::config::BrokerConfig;
use castra_core::status::Reason;
use castra_core::time::WallTime;
use castra_core::{Input, Restored};

fn reload(world: &mut World, change: impl FnOnce(&mut BrokerConfig)) {
    let mut config = BrokerConfig::default();
    change(&mut config);
    config.check().unwrap();
    world.handle(Input::Reload(Box::new(config)));
}

#[test]
fn a_shorter_window_is_judged_and_announced_on_time() {
    let mut world = World::new(|config| config.interval = ms(5000));
    world.join("devbox");
    world.advance(ms(4000));
    reload(&mut world, |config| (config.window, config.interval) = (ms(3000), ms(1000)));
    assert_eq!(world.verdict("devbox"), waiting(Reason::Stale));
    assert_eq!(world.kinds().last(), Some(&"verdict.changed"));
}

#[test]
fn a_shorter_interval_challenges_whoever_is_due_so_that_the_living_stay_reachable() {
    let slow = Duration::from_secs(1000);
    let mut world = World::new(|config| (config.window, config.interval) = (slow * 3, slow));
    let conn = world.join("devbox");
    world.live(ms(10_000), &[conn]);
    reload(&mut world, |config| (config.window, config.interval) = (ms(15_000), ms(5000)));
    for _ in 0..30 {
        world.live(ms(1000), &[conn]);
        assert_eq!(world.verdict("devbox"), REACHABLE);
    }
}

#[test]
fn unproven_guests_count_only_while_they_are_accepted() {
    let mut world = World::new(|config| config.accept_unproven = true);
    let conn = world.open(Transport::Tcp);
    world.write(conn, b"hello vm:old capabilities=bus-v1\n");
    assert_eq!(world.verdict("old"), REACHABLE);
    reload(&mut world, |_| {});
    assert_eq!(world.verdict("old"), waiting(Reason::Unproven));
    assert_eq!(world.row("old").unwrap().last_handshake_age_ms, None);
}

#[test]
fn a_name_that_a_reload_brings_satisfies_who_waits_for_it() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    let request = r#"{"id":1,"method":"wait","params":{"guests":["new"],"for":"waiting"}}"#;
    assert!(world.ask(control, request).is_empty(), "names not seen yet are pending");
    reload(&mut world, |config| config.guests.push(name("new")));
    assert_eq!(world.replies(control)[0]["event"], "waited");
}

#[test]
fn a_shorter_bound_counts_for_what_is_already_open() {
    let mut world = World::new(|config| config.handshake_timeout = ms(60_000));
    let conn = world.open(Transport::Tcp);
    reload(&mut world, |config| config.handshake_timeout = ms(2000));
    world.advance(ms(2000));
    assert!(world.is_closed(conn));
}

#[test]
fn a_broker_stays_who_it_is() {
    let mut world = World::new(|_| {});
    reload(&mut world, |config| {
        config.identity.uid = 1001;
        config.identity.version = "another".into();
    });
    let control = world.open_control();
    let replies = world.ask(control, r#"{"method":"status"}"#);
    assert_eq!(replies[0]["data"]["broker"]["version"], "test", "{replies:?}");
}

#[test]
fn what_a_start_found_is_no_change() {
    let seen = WallTime::from_unix_millis(1_795_188_000_000);
    let restored =
        Restored { incarnation: 8, last_seen: vec![(name("devbox"), seen)], ..Restored::default() };
    let mut world = World::restored(|_| {}, restored);
    reload(&mut world, |_| {});
    assert_eq!(world.verdict("devbox"), waiting(Reason::BrokerStarted));
    assert!(!world.kinds().contains(&"verdict.changed"));
}

#[test]
fn only_a_shorter_window_or_interval_asks_everybody_at_once() {
    let before = |config: &mut BrokerConfig| (config.window, config.interval) = (ms(9000), ms(2000));
    for (window, interval, asked) in [
        (ms(9000), ms(2000), false),
        (ms(9000), ms(3000), false),
        (ms(10_000), ms(2000), false),
        (ms(8000), ms(2000), true),
        (ms(9000), ms(1000), true),
        (ms(10_000), ms(1000), true),
        (ms(8000), ms(2500), true),
    ] {
        let mut world = World::new(before);
        let conn = world.join("devbox");
        reload(&mut world, |config| (config.window, config.interval) = (window, interval));
        // What concerns everybody is done in parts, which follow each other without a wait.
        world.advance(Duration::ZERO);
        assert_eq!(world.frame(conn).is_some(), asked, "{window:?} {interval:?}");
    }
}
