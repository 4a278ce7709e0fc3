//! The broker takes leave while peers have something to do.
#![allow(clippy::unwrap_used)]

use crate::peering::{Town, code, secs};
use castra_core::Input;
use castra_core::peers::{Expiry, Fate};
use serde_json::json;

fn drain(town: &mut Town) {
    let deadline = town.world.now.boot + secs(2);
    town.world.handle(Input::Drain { deadline });
    town.guests.clear();
    town.pump();
}

#[test]
fn what_is_on_its_way_to_the_disk_is_waited_for_and_the_rest_refused() {
    let mut town = Town::linked(&["a", "b", "c"]);
    town.stuck = true;
    let link = town.order_link("b", "c");
    let waits = town.order("unregister_peer", json!({"source": "b", "name": "c"}));
    let send = town.order_send("a", "b", "x");
    let behind = town.order_send("a", "b", "y");
    drain(&mut town);
    assert_eq!(town.told(waits).as_deref(), Some("shutting_down"));
    assert_eq!(town.told(behind).as_deref(), Some("shutting_down"));
    assert!(town.told(link).is_none() && town.told(send).is_none() && !town.world.stopped);
    town.release();
    assert_eq!(town.told(link).as_deref(), Some("registered"));
    assert_eq!(town.told(send).as_deref(), Some("queued"));
    assert!(town.world.stopped);
    town.restart();
    assert_eq!(town.peers().len(), 3);
    town.enter("b");
    assert_eq!(town.texts("b"), ["x"]);
}

#[test]
fn a_disk_that_does_not_answer_does_not_hold_the_end_up() {
    let mut town = Town::linked(&["a", "b"]);
    town.stuck = true;
    let send = town.order_send("a", "b", "x");
    town.state("b", "deny");
    drain(&mut town);
    town.pass(secs(1));
    assert!(!town.world.stopped);
    town.pass(secs(1));
    assert!(town.world.stopped);
    assert_eq!(town.told(send).as_deref(), Some("shutting_down"));
}

#[test]
fn whoever_waits_for_a_delivery_hears_that_it_is_queued_or_taken_back() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let queued = town.order_send("a", "b", "x");
    let not = town.order("send_to_peer", json!({"from": "a", "to": "b", "text": "y", "queue": false}));
    drain(&mut town);
    assert_eq!(town.told(queued).as_deref(), Some("queued"));
    let answer = town.answer(not).unwrap();
    assert_eq!((code(&answer), &answer["data"]["reason"]), ("expired", &json!("not_queued")));
    assert!(town.world.stopped);
    let fates: Vec<Fate> = town.ledger.restored().messages.iter().map(|message| message.fate).collect();
    assert!(matches!(fates[..], [Fate::Queued, Fate::Expired { why: Expiry::NotQueued, .. }]), "{fates:?}");
}

#[test]
fn offers_are_off() {
    let mut town = Town::of(&["a", "b"]);
    town.state("b", "ask");
    let id = town.order_link("a", "b");
    drain(&mut town);
    assert_eq!(town.told(id).as_deref(), Some("shutting_down"));
    assert!(town.world.stopped);
}

#[test]
fn a_follower_does_not_hold_the_end_up() {
    let mut town = Town::linked(&["a", "b"]);
    town.ask("inbox", json!({"name": "b", "follow": true}));
    drain(&mut town);
    assert!(town.world.stopped);
}
