//! A guest wants to be another's peer.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::common::ms;
use crate::peering::{Town, secs};
use serde_json::{Value, json};

fn register(town: &mut Town, from: &'static str, id: u64, name: &str) {
    town.say(from, json!({"type": "peer_register", "id": id, "name": name}));
}

fn reply(town: &mut Town, guest: &'static str, accept: bool) -> Value {
    let offer = town.frames(guest, "peer_offer").pop().expect("an offer");
    town.say(guest, json!({"type": "peer_answer", "id": offer["id"], "accept": accept}));
    offer
}

#[test]
fn the_other_is_asked_and_its_yes_makes_them_peers() {
    for policy in ["default", "ask"] {
        let mut town = Town::of(&["a", "b"]);
        // The asker's own policy says nothing about whom it asks.
        town.state("a", "deny");
        town.state("b", policy);
        register(&mut town, "a", 5, "b");
        assert!(town.peers().is_empty());
        let offer = reply(&mut town, "b", true);
        assert_eq!((&offer["from"], &offer["from_authenticated"]), (&json!("a"), &json!(false)));
        let result = town.result("a", 5).unwrap();
        assert_eq!(result, json!({"type": "peer_result", "id": 5, "outcome": "registered", "peer": "b"}));
        assert_eq!(town.peers().len(), 1);
        register(&mut town, "a", 6, "b");
        assert_eq!(town.outcome("a", 6).as_deref(), Some("registered"));
    }
}

#[test]
fn whoever_takes_everybody_is_not_asked_and_a_guest_that_is_off_need_not_be() {
    let mut town = Town::of(&["a", "b", "c"]);
    town.state("b", "accept");
    town.state("c", "accept");
    town.leave("c");
    for (id, name) in [(1, "b"), (2, "c")] {
        register(&mut town, "a", id, name);
        assert_eq!(town.outcome("a", id).as_deref(), Some("registered"));
    }
    assert!(town.frames("b", "peer_offer").is_empty());
    register(&mut town, "a", 3, "a");
    assert_eq!(town.outcome("a", 3).as_deref(), Some("self"));
}

#[test]
fn both_may_ask_each_other_at_once() {
    let mut town = Town::of(&["a", "b"]);
    town.stuck = true;
    register(&mut town, "a", 1, "b");
    register(&mut town, "b", 2, "a");
    town.release();
    assert_eq!(town.outcome("a", 1).as_deref(), Some("registered"));
    assert_eq!(town.outcome("b", 2).as_deref(), Some("registered"));
    assert_eq!((town.peers().len(), town.events("peer.registered").len()), (1, 1));
    assert_eq!((town.frames("a", "peer_added").len(), town.frames("b", "peer_added").len()), (1, 1));
}

#[test]
fn both_may_ask_each_other_before_either_has_stated_its_policy() {
    let mut town = Town::new();
    town.join("a");
    town.join("b");
    register(&mut town, "a", 1, "b");
    register(&mut town, "b", 2, "a");
    town.pass(secs(3));
    assert_eq!(town.outcome("a", 1).as_deref(), Some("registered"));
    assert_eq!(town.outcome("b", 2).as_deref(), Some("registered"));
    assert!(town.frames("b", "peer_offer").is_empty());
}

#[test]
fn what_the_operator_links_meanwhile_is_registered_for_whoever_waits_for_consent() {
    let mut town = Town::of(&["a", "b"]);
    register(&mut town, "a", 1, "b");
    town.link("b", "a");
    assert_eq!(town.outcome("a", 1).as_deref(), Some("registered"));
    town.pass(secs(3));
    assert_eq!((town.outcome("a", 1), town.peers().len()), (None, 1));
}

#[test]
fn ten_guests_may_ask_for_one_at_once() {
    const NAMES: [&str; 10] = ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9"];
    for policy in ["accept", "ask"] {
        let mut town = Town::of(&["hub"]);
        town.state("hub", policy);
        for name in NAMES {
            town.enter(name);
        }
        town.stuck = true;
        for name in NAMES {
            register(&mut town, name, 1, "hub");
        }
        for offer in town.frames("hub", "peer_offer") {
            town.say("hub", json!({"type": "peer_answer", "id": offer["id"], "accept": true}));
        }
        town.release();
        for name in NAMES {
            assert_eq!(town.outcome(name, 1).as_deref(), Some("registered"), "{name}");
        }
        assert_eq!(town.peers().len(), 10);
        assert_eq!(town.frames("hub", "peer_added").len(), 10);
        town.restart();
        assert_eq!(town.peers().len(), 10);
    }
}

#[test]
fn a_guest_registers_one_at_a_time_and_ten_in_a_minute() {
    let mut town = Town::of(&["a", "b", "c"]);
    register(&mut town, "a", 1, "b");
    register(&mut town, "a", 2, "c");
    assert_eq!(town.outcome("a", 2).as_deref(), Some("busy"));
    town.pass(secs(2));
    assert_eq!(town.outcome("a", 1).as_deref(), Some("rejected"));
    for id in 3..=10 {
        register(&mut town, "a", id, "b");
        town.pass(secs(2));
        assert_eq!(town.outcome("a", id).as_deref(), Some("rejected"), "{id}");
    }
    register(&mut town, "a", 11, "b");
    let result = town.result("a", 11).unwrap();
    assert_eq!(
        (&result["outcome"], &result["reason"]),
        (&json!("busy"), &json!("too many registrations within a minute"))
    );
    // Others have a minute of their own.
    town.state("c", "accept");
    register(&mut town, "b", 1, "c");
    assert_eq!(town.outcome("b", 1).as_deref(), Some("registered"));
    // The first two of it were at its beginning.
    town.pass(secs(60 - 18));
    town.state("b", "accept");
    register(&mut town, "a", 12, "b");
    assert_eq!(town.outcome("a", 12).as_deref(), Some("registered"));
}

#[test]
fn a_policy_that_is_not_stated_yet_is_waited_for() {
    for (statement, outcome) in
        [(Some("accept"), "registered"), (Some("deny"), "rejected"), (None, "asked"), (Some("ask"), "asked")]
    {
        let mut town = Town::of(&["a"]);
        town.join("b");
        register(&mut town, "a", 1, "b");
        town.pass(ms(500));
        assert!(town.frames("b", "peer_offer").is_empty());
        match statement {
            Some(policy) => town.state("b", policy),
            None => town.pass(ms(500)),
        }
        let offers = town.frames("b", "peer_offer");
        assert_eq!(offers.len(), usize::from(outcome == "asked"), "{statement:?}");
        if outcome == "registered" {
            assert_eq!(town.outcome("a", 1).as_deref(), Some("registered"));
        }
        if let Some(offer) = offers.first() {
            town.say("b", json!({"type": "peer_answer", "id": offer["id"], "accept": true}));
            assert_eq!(town.outcome("a", 1).as_deref(), Some("registered"));
        }
    }
}

#[test]
fn a_policy_outlives_its_session_and_the_broker() {
    let mut town = Town::of(&["a", "b"]);
    town.state("b", "accept");
    town.state("b", "deny");
    assert_eq!(town.ledger.restored().policies, [(common::name("b"), castra_core::peers::Policy::Deny)]);
    town.restart();
    town.enter("a");
    town.world.take(town.guests["a"]);
    let id = town.order_link("a", "b");
    // Nobody knows the name before it comes back.
    assert_eq!(town.told(id).as_deref(), Some("unknown"));
    town.join_as("b", "");
    let id = town.order_link("a", "b");
    assert_eq!(town.told(id).as_deref(), Some("rejected"));
}

#[test]
fn a_session_that_takes_part_and_states_nothing_has_the_default_from_then_on() {
    let mut town = Town::of(&["a", "b"]);
    town.state("b", "deny");
    town.leave("b");
    town.join("b");
    let id = town.order_link("a", "b");
    assert_eq!(town.told(id), None);
    town.pass(ms(999));
    assert_eq!(town.ledger.restored().policies.len(), 1);
    town.pass(ms(1));
    assert_eq!(town.told(id).as_deref(), Some("registered"));
    assert!(town.ledger.restored().policies.is_empty());
}

#[test]
fn a_session_that_takes_no_part_leaves_the_policy_alone() {
    let mut town = Town::of(&["b"]);
    town.state("b", "deny");
    town.leave("b");
    town.join_as("b", "");
    town.pass(secs(5));
    assert_eq!(town.ledger.restored().policies.len(), 1);
}

#[test]
fn there_are_no_more_policies_on_the_disk_than_there_may_be_guests() {
    let mut town = Town::with(|config| config.max_guests = 2);
    for name in ["a", "b", "c", "d"] {
        town.enter(name);
        town.state(name, "deny");
        town.leave(name);
    }
    assert_eq!(town.ledger.restored().policies.len(), 2);
    // A session's own word counts all the same.
    town.enter("d");
    town.state("d", "accept");
    town.enter("e");
    register(&mut town, "e", 1, "d");
    assert_eq!(town.outcome("e", 1).as_deref(), Some("registered"));
}

#[test]
fn only_whoever_was_asked_can_answer_an_offer() {
    let mut town = Town::of(&["a", "b", "c"]);
    register(&mut town, "a", 1, "b");
    let offer = town.frames("b", "peer_offer").remove(0);
    for guest in ["a", "c"] {
        town.say(guest, json!({"type": "peer_answer", "id": offer["id"], "accept": true}));
        town.say(guest, json!({"type": "peer_answer", "id": offer["id"], "accept": false}));
    }
    assert!(town.peers().is_empty());
    town.say("b", json!({"type": "peer_answer", "id": offer["id"], "accept": true}));
    assert_eq!(town.outcome("a", 1).as_deref(), Some("registered"));
}

#[test]
fn a_yes_after_the_asker_left_makes_nobody_a_peer() {
    let mut town = Town::of(&["a", "b"]);
    register(&mut town, "a", 1, "b");
    town.leave("a");
    reply(&mut town, "b", true);
    assert!(town.peers().is_empty());
    // On its way to the disk it happens, and both sides have it.
    town.enter("a");
    town.stuck = true;
    register(&mut town, "a", 1, "b");
    reply(&mut town, "b", true);
    town.leave("a");
    town.release();
    assert_eq!(town.peers().len(), 1);
}

#[test]
fn a_guest_unregisters_for_both_and_as_often_as_it_likes() {
    let mut town = Town::linked(&["a", "b"]);
    for (id, name) in [(1, "b"), (2, "b"), (3, "nobody"), (4, "no name at all!")] {
        town.say("a", json!({"type": "peer_unregister", "id": id, "name": name}));
        assert_eq!(town.outcome("a", id).as_deref(), Some("unregistered"));
    }
    assert!(town.peers().is_empty());
    assert_eq!(town.frames("b", "peer_removed"), [json!({"type": "peer_removed", "name": "a"})]);
}

#[test]
fn sixteen_requests_of_a_guest_may_be_unanswered() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    for id in 1..=17 {
        town.say("a", json!({"type": "peer_send", "id": id, "to": "b", "text": "x"}));
    }
    assert_eq!(town.outcome("a", 17).as_deref(), Some("busy"));
    town.pass(secs(5));
    for id in 1..=16 {
        assert_eq!(town.outcome("a", id).as_deref(), Some("queued"), "{id}");
    }
}
