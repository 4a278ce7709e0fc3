//! Who gets a name, and what is known of its guest after that.
#![allow(clippy::unwrap_used)]

use crate::common::{REACHABLE, World, ends, ms, name};
use castra_core::boundary::Transport;
use castra_core::event::SessionEnd;

#[test]
fn a_broker_that_admits_only_known_names_admits_configured_ones() {
    let mut world = World::new(|config| {
        config.only_known = true;
        config.guests.push(name("devbox"));
    });
    world.join("devbox");
    assert_eq!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn a_conflict_over_a_name_is_an_event_of_its_own() {
    let mut world = World::new(|_| {});
    world.join("devbox");
    let (newcomer, nonce, _) = world.hello("devbox", "");
    assert!(!world.kinds().contains(&"name.conflict"));
    world.write(newcomer, format!("proof {nonce}\n").as_bytes());
    assert!(world.kinds().contains(&"name.conflict"));
}

#[test]
fn a_proof_ends_the_0_1_session_under_its_name() {
    let mut world = World::new(|_| {});
    let old = world.open(Transport::Tcp);
    world.write(old, b"hello vm:devbox capabilities=bus-v1\n");
    world.join("devbox");
    assert!(world.is_closed(old));
    assert_eq!(ends(&world), [SessionEnd::Superseded]);
    assert_eq!(world.verdict("devbox"), REACHABLE);
}

#[test]
fn every_proof_is_counted_once() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    assert_eq!(world.row("devbox").unwrap().handshakes, 1);
    let mut answered = 0;
    while answered < 2 {
        world.advance(ms(1));
        if let Some(answer) = world.answer_to_challenge(conn) {
            world.send(conn, &answer);
            answered += 1;
        }
    }
    assert_eq!(world.row("devbox").unwrap().handshakes, 3);
}

#[test]
fn the_newest_handshake_tells_the_capabilities() {
    let mut world = World::new(|_| {});
    for capabilities in ["metrics", "metrics,logs"] {
        let conn = world.open(Transport::Tcp);
        world.line(conn);
        world.write(conn, format!("hello vm:devbox capabilities=proof-v1,{capabilities} once\n").as_bytes());
        let challenge = world.line(conn);
        let nonce = challenge.split(' ').nth(1).unwrap();
        world.write(conn, format!("proof {nonce}\n").as_bytes());
        let told = serde_json::to_value(world.row("devbox").unwrap()).unwrap()["capabilities"].to_string();
        assert_eq!(told.contains("logs"), capabilities.contains("logs"), "{told}");
        assert!(told.contains("metrics"), "{told}");
    }
}

#[test]
fn a_row_of_a_handshake_in_progress_is_kept_when_a_contender_for_it_has_left() {
    let mut world = World::new(|config| config.max_guests = 1);
    let (incumbent, first, _) = world.hello("devbox", "");
    // It said hello before there was a row.
    let (contender, second, _) = world.hello("devbox", "");
    world.write(incumbent, format!("proof {first}\n").as_bytes());
    world.write(contender, format!("proof {second}\n").as_bytes());
    world.hello("devbox", "");
    world.close(contender);
    world.close(incumbent);
    let (other, nonce, _) = world.hello("other", "");
    world.write(other, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(other).starts_with("error: busy: "), "the only row is in use");
}

#[test]
fn a_contender_has_nothing_more_to_say() {
    let mut world = World::new(|_| {});
    let incumbent = world.join("devbox");
    let (contender, nonce, _) = world.hello("devbox", "");
    for _ in 0..2 {
        world.write(contender, format!("proof {nonce}\n").as_bytes());
    }
    assert!(world.line(contender).starts_with("error: bad-line: "));
    assert!(!world.is_closed(incumbent));
}

#[test]
fn a_handshake_begun_before_a_token_was_issued_cannot_end_well() {
    let mut world = World::new(|_| {});
    let (early, _, _) = world.hello("devbox", "");
    let (other, nonce, _) = world.hello("other", "");
    let control = world.open_control();
    let replies = world.ask(control, r#"{"method":"token_issue","params":{"guest":"devbox"}}"#);
    assert_eq!(replies[0]["event"], "token_issued", "{replies:?}");
    assert!(world.line(early).starts_with("error: token-required: "));
    assert!(world.is_closed(early));
    world.write(other, format!("proof {nonce}\n").as_bytes());
    assert_eq!(world.verdict("other"), REACHABLE);
    assert!(!world.row("devbox").unwrap().reachable);
}
