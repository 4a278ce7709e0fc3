//! The operator makes guests peers, or not.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::common::ms;
use crate::peering::{Town, code, secs};
use serde_json::json;

fn both(one: &str, other: &str) -> Vec<(String, String)> {
    vec![(one.into(), other.into())]
}

#[test]
fn two_live_guests_are_peers_once_that_is_durable_and_both_hear_of_it() {
    let mut town = Town::of(&["a", "b"]);
    town.stuck = true;
    let id = town.order_link("a", "b");
    assert_eq!((town.told(id), town.peers()), (None, vec![]));
    assert!(town.frames("a", "peer_added").is_empty());
    town.release();
    let answer = town.answer(id).unwrap();
    assert_eq!(answer["event"], "peer_registered");
    assert_eq!(answer["data"], json!({"result": {"peer": "b", "source": "a"}, "outcome": "registered"}));
    assert_eq!(town.peers(), both("a", "b"));
    assert_eq!(town.frames("a", "peer_added"), [json!({"type": "peer_added", "name": "b"})]);
    assert_eq!(town.frames("b", "peer_added"), [json!({"type": "peer_added", "name": "a"})]);
    assert_eq!(town.events("peer.registered"), ["a"]);
    let row = town.world.row("b").unwrap();
    assert_eq!(row.peers, [common::name("a")]);
}

#[test]
fn to_repeat_it_is_harmless_from_either_side() {
    let mut town = Town::linked(&["a", "b"]);
    town.link("a", "b");
    town.link("b", "a");
    assert_eq!(town.peers(), both("a", "b"));
    assert_eq!(town.events("peer.registered").len(), 1);
    assert_eq!(town.frames("a", "peer_added").len(), 1);
    for _ in 0..2 {
        let answer = town.ask("unregister_peer", json!({"source": "b", "name": "a"}));
        assert_eq!(code(&answer), "unregistered");
        assert!(town.peers().is_empty());
    }
    assert_eq!(town.events("peer.unregistered").len(), 1);
    assert_eq!(town.frames("a", "peer_removed"), [json!({"type": "peer_removed", "name": "b"})]);
    assert_eq!(town.frames("b", "peer_removed"), [json!({"type": "peer_removed", "name": "a"})]);
    assert!(town.ledger.restored().relations.is_empty());
}

#[test]
fn the_same_wish_many_times_before_the_first_is_durable_is_one_relation() {
    let mut town = Town::of(&["a", "b"]);
    town.stuck = true;
    let first = town.order_link("a", "b");
    let reverse = town.order_link("b", "a");
    // One registration of a source at a time.
    let busy = town.order_link("a", "b");
    assert_eq!(town.told(busy).as_deref(), Some("busy"));
    town.release();
    for id in [first, reverse] {
        assert_eq!(town.told(id).as_deref(), Some("registered"));
    }
    assert_eq!(town.events("peer.registered").len(), 1);
    assert_eq!(town.peers(), both("a", "b"));
}

#[test]
fn a_guest_that_is_off_is_linked_by_its_stored_policy() {
    for (policy, outcome) in
        [("default", "registered"), ("accept", "registered"), ("ask", "rejected"), ("deny", "rejected")]
    {
        let mut town = Town::of(&["a", "b"]);
        town.state("b", policy);
        town.leave("b");
        let answer = town.ask("register_peer", json!({"source": "a", "name": "b"}));
        assert_eq!(code(&answer), outcome, "{policy}");
        assert_eq!(town.peers().len(), usize::from(outcome == "registered"));
        let reason = if policy == "ask" { "ask_offline" } else { "policy" };
        if outcome == "rejected" {
            assert!(answer["data"]["message"].as_str().unwrap().contains(reason), "{answer}");
        }
        // Either side's policy counts, whoever is called the source.
        let answer = town.ask("register_peer", json!({"source": "b", "name": "a"}));
        assert_eq!(code(&answer), outcome, "{policy}");
        town.restart();
        assert_eq!(town.peers().len(), usize::from(outcome == "registered"));
    }
}

#[test]
fn a_guest_without_a_policy_of_its_own_is_whom_the_operator_wants() {
    let mut town = Town::of(&["a"]);
    // It doesn't take part at all.
    town.join_as("plain", "");
    town.link("a", "plain");
    assert!(town.frames("plain", "peer_added").is_empty());
    // A name that nobody has used so far.
    assert_eq!(code(&town.ask("register_peer", json!({"source": "a", "name": "nobody"}))), "unknown");
    assert_eq!(code(&town.ask("register_peer", json!({"source": "nobody", "name": "a"}))), "unknown");
    assert_eq!(code(&town.ask("register_peer", json!({"name": "a"}))), "invalid_request");
}

#[test]
fn a_guest_is_no_peer_of_itself() {
    let mut town = Town::of(&["a"]);
    assert_eq!(code(&town.ask("register_peer", json!({"source": "a", "name": "a"}))), "self");
    assert_eq!(code(&town.ask("unregister_peer", json!({"source": "a", "name": "a"}))), "self");
    assert_eq!(code(&town.ask("send_to_peer", json!({"from": "a", "to": "a", "text": "x"}))), "self");
}

#[test]
fn the_beginning_of_a_name_will_do_if_it_fits_one_and_an_exact_name_wins() {
    let mut town = Town::of(&["a", "build", "build-1", "build-2", "lone-wolf"]);
    let answer = town.ask("register_peer", json!({"source": "a", "name": "build-"}));
    assert_eq!(code(&answer), "ambiguous");
    let text = answer["data"]["message"].as_str().unwrap();
    assert!(text.contains("build-1, build-2") && !text.contains("build,"), "{text}");
    town.link("a", "build");
    town.link("a", "lone");
    assert_eq!(town.peers(), [("a".into(), "build".into()), ("a".into(), "lone-wolf".into())]);
}

#[test]
fn of_many_that_are_meant_some_are_listed() {
    let names: Vec<String> = (10..40).map(|number| format!("g{number}")).collect();
    let mut town = Town::with(|config| {
        config.guests = (10..40).map(|number| common::name(&format!("g{number}"))).collect();
    });
    town.enter("a");
    let answer = town.ask("register_peer", json!({"source": "a", "name": "g"}));
    let text = answer["data"]["message"].as_str().unwrap();
    assert_eq!(names.iter().filter(|name| text.contains(*name)).count(), 10, "{text}");
    assert!(text.contains('…'));
}

#[test]
fn both_may_have_to_be_asked_and_each_may_refuse() {
    for (first, second, outcome) in
        [(true, true, "registered"), (true, false, "rejected"), (false, true, "rejected")]
    {
        let mut town = Town::of(&["a", "b"]);
        town.state("a", "ask");
        town.state("b", "ask");
        let id = town.order_link("a", "b");
        for (name, from, accept) in [("a", "b", first), ("b", "a", second)] {
            assert_eq!(town.told(id), None);
            let offer = town.frames(name, "peer_offer").remove(0);
            assert_eq!((&offer["from"], &offer["from_authenticated"]), (&json!(from), &json!(true)));
            let answer =
                json!({"type": "peer_answer", "id": offer["id"], "accept": accept, "reason": "no\u{7}!"});
            town.say(name, answer.clone());
            if !accept {
                break;
            }
            // Again counts for nothing.
            town.say(name, answer);
        }
        let answer = town.answer(id).unwrap();
        assert_eq!(code(&answer), outcome);
        if outcome == "rejected" {
            let text = answer["data"]["message"].as_str().unwrap();
            assert!(text.contains("refused: no") && !text.contains('\u{7}'), "{text}");
            assert_eq!(town.events("peer.refused"), ["a"]);
        }
    }
}

#[test]
fn an_offer_that_nobody_answers_is_a_refusal_after_two_seconds() {
    let mut town = Town::of(&["a", "b"]);
    town.state("b", "ask");
    let id = town.order_link("a", "b");
    town.pass(ms(1999));
    assert_eq!(town.told(id), None);
    town.pass(ms(1));
    let answer = town.answer(id).unwrap();
    assert_eq!(code(&answer), "rejected");
    assert!(answer["data"]["message"].as_str().unwrap().contains("timeout"));
    // An answer that comes too late changes nothing.
    let offer = town.frames("b", "peer_offer").remove(0);
    town.say("b", json!({"type": "peer_answer", "id": offer["id"], "accept": true}));
    assert!(town.peers().is_empty());
    // The caller's own bound may be shorter.
    let id = town.order("register_peer", json!({"source": "a", "name": "b", "timeout_ms": 500}));
    town.pass(ms(500));
    assert_eq!(town.told(id).as_deref(), Some("timeout"));
}

#[test]
fn a_guest_on_hold_registers_nobody_until_it_goes_on() {
    let mut town = Town::of(&["a", "b"]);
    town.say("a", json!({"type": "peer_policy", "policy": "default", "hold": true}));
    assert_eq!(code(&town.ask("register_peer", json!({"source": "a", "name": "b"}))), "busy");
    town.say("a", json!({"type": "peer_register", "id": 1, "name": "b"}));
    assert_eq!(town.outcome("a", 1).as_deref(), Some("busy"));
    town.state("a", "default");
    town.link("a", "b");
}

#[test]
fn a_guest_has_so_many_peers_and_no_more() {
    let mut town = Town::with(|config| config.peers.peers_max = 2);
    for name in ["a", "b", "c", "d"] {
        town.enter(name);
    }
    town.link("a", "b");
    town.link("a", "c");
    assert_eq!(code(&town.ask("register_peer", json!({"source": "a", "name": "d"}))), "full");
    assert_eq!(code(&town.ask("register_peer", json!({"source": "d", "name": "a"}))), "full");
    town.link("a", "b");
    town.ask("unregister_peer", json!({"source": "a", "name": "b"}));
    town.link("d", "a");
}

#[test]
fn what_is_not_on_its_way_when_the_caller_gives_up_never_happens() {
    let mut town = Town::of(&["a", "b"]);
    town.stuck = true;
    let first = town.order_link("a", "b");
    let second = town.order("unregister_peer", json!({"source": "a", "name": "b", "timeout_ms": 1000}));
    town.pass(secs(1));
    let answer = town.answer(second).unwrap();
    assert_eq!(code(&answer), "timeout");
    assert!(answer["data"]["message"].as_str().unwrap().contains("nothing changed"));
    town.pass(secs(4));
    let answer = town.answer(first).unwrap();
    assert_eq!(code(&answer), "timeout");
    assert!(answer["data"]["message"].as_str().unwrap().contains("may still happen"));
    town.release();
    assert_eq!(town.peers(), both("a", "b"));
}

#[test]
fn so_many_operations_wait_for_a_pair_and_no_more() {
    let mut town = Town::with(|config| config.peers.operations_max = 4);
    town.enter("a");
    town.enter("b");
    town.stuck = true;
    let mut ids = vec![town.order_link("a", "b")];
    for _ in 0..4 {
        ids.push(town.order("unregister_peer", json!({"source": "a", "name": "b"})));
    }
    let last = town.order("unregister_peer", json!({"source": "a", "name": "b"}));
    assert_eq!(town.told(last).as_deref(), Some("busy"));
    town.release();
    assert_eq!(town.told(ids[0]).as_deref(), Some("registered"));
    for id in &ids[1..] {
        assert_eq!(town.told(*id).as_deref(), Some("unregistered"));
    }
    assert!(town.peers().is_empty());
}
