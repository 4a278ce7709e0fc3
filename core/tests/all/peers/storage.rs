//! The disk fails, or takes its time.
#![allow(clippy::unwrap_used)]

use crate::common::{ms, name};
use crate::peering::{Town, code, secs};
use castra_core::peers::Policy;
use serde_json::{Value, json};

#[test]
fn a_relation_that_can_t_be_written_is_not_there_and_neither_is_one_that_can_t_be_removed_gone() {
    let mut town = Town::of(&["a", "b"]);
    town.failing = true;
    let answer = town.ask("register_peer", json!({"source": "a", "name": "b"}));
    assert_eq!(code(&answer), "storage_failed");
    assert!(answer["data"]["message"].as_str().unwrap().contains("no space left"), "{answer}");
    assert!(town.peers().is_empty() && town.hear("a").is_empty() && town.hear("b").is_empty());
    let failures =
        |town: &Town| town.world.kinds().into_iter().filter(|kind| *kind == "storage.failed").count();
    assert_eq!(failures(&town), 1);
    town.failing = false;
    town.link("a", "b");
    town.hear("b");
    town.leave("b");
    town.order_send("a", "b", "x");
    town.failing = true;
    town.say("a", json!({"type": "peer_unregister", "id": 1, "name": "b"}));
    assert_eq!(town.outcome("a", 1).as_deref(), Some("storage_failed"));
    assert_eq!(town.peers().len(), 1);
    town.failing = false;
    town.enter("b");
    assert_eq!(town.texts("b"), ["x"], "what was to expire goes on");
    assert!(town.frames("b", "peer_removed").is_empty());
}

#[test]
fn a_parting_that_fails_brings_what_it_held_back_to_a_guest_that_is_there() {
    let mut town = Town::linked(&["c", "a", "b"]);
    town.acks = false;
    town.leave("c");
    town.order_send("a", "c", "held");
    town.stuck = true;
    town.order("unregister_peer", json!({"source": "a", "name": "c"}));
    town.join("c");
    // Its policy's write would be stuck, too: the default needs none.
    town.state("c", "default");
    assert!(town.texts("c").is_empty());
    town.failing = true;
    town.release();
    assert_eq!(town.texts("c"), ["held"]);
}

#[test]
fn a_message_that_can_t_be_written_was_never_there() {
    let mut town = Town::linked(&["a", "b"]);
    town.failing = true;
    town.say("a", json!({"type": "peer_send", "id": 1, "to": "b", "text": "x"}));
    let result = town.result("a", 1).unwrap();
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("storage_failed"), &json!("no space left")));
    assert!(town.inbox("b").is_empty() && town.mail("b").is_empty());
    assert_eq!(town.world.broker.sizes().message_bytes, 0);
    town.failing = false;
    let listed = town.ask("list_peers", json!({"name": "a"}));
    assert_eq!(listed["data"]["peers"][1]["queued"], 0);
}

#[test]
fn a_delivery_that_can_t_be_written_is_made_again_and_acknowledged_again() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let id = town.order("send_to_peer", json!({"from": "a", "to": "b", "text": "x", "timeout_ms": 60_000}));
    let mail = town.mail("b");
    town.failing = true;
    town.ack("b", &mail[0]);
    assert_eq!(town.told(id), None);
    assert_eq!(town.inbox("b")[0]["delivered_at"], Value::Null);
    town.failing = false;
    town.pass(secs(31));
    let again = town.mail("b");
    assert_eq!(again, mail);
    town.ack("b", &again[0]);
    assert_eq!(town.told(id).as_deref(), Some("delivered"));
}

#[test]
fn an_expiry_that_can_t_be_written_holds_and_is_tried_until_it_is() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let id = town.order("send_to_peer", json!({"from": "a", "to": "b", "text": "x", "timeout_ms": 60_000}));
    assert_eq!(town.mail("b").len(), 1);
    town.failing = true;
    town.state("b", "deny");
    let answer = town.answer(id).unwrap();
    assert_eq!(code(&answer), "storage_failed");
    let text = answer["data"]["message"].as_str().unwrap();
    assert!(text.contains("may still be delivered") && !text.contains("nothing changed"), "{text}");
    town.state("b", "accept");
    town.pass(secs(100));
    assert!(town.mail("b").is_empty(), "it isn't sent any more");
    assert_eq!(town.inbox("b").len(), 1);
    town.failing = false;
    town.pass(secs(30));
    assert!(town.inbox("b").is_empty());
    assert_eq!(town.events("peer.message.expired"), ["a"]);
}

#[test]
fn a_message_that_can_t_leave_is_looked_at_again() {
    let mut town = Town::with(|config| config.peers.message_ttl = secs(60));
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    town.order_send("a", "b", "x");
    town.failing = true;
    town.pass(secs(60));
    assert_eq!(town.inbox("b").len(), 1);
    town.pass(secs(29));
    town.failing = false;
    town.pass(secs(1));
    assert!(town.inbox("b").is_empty());
    assert_eq!(town.world.broker.sizes().message_bytes, 0);
}

#[test]
fn a_text_that_can_t_be_taken_away_goes_with_the_next() {
    let mut town = Town::with(|config| config.peers.history_messages = 1);
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    town.acks = false;
    for number in 0..4 {
        town.order_send("a", "b", &format!("{number}"));
    }
    let mail = town.mail("b");
    town.stuck = true;
    for message in &mail[..3] {
        town.ack("b", message);
    }
    town.release_one();
    town.release_one();
    // What takes the texts away.
    town.failing = true;
    town.release();
    assert_eq!(town.inbox("b").len(), 4);
    town.failing = false;
    town.ack("b", &mail[3]);
    let kept = town.inbox("b");
    assert_eq!((kept.len(), &kept[0]["text"]), (1, &json!("3")));
    assert_eq!(town.ledger.restored().messages.len(), 1);
}

#[test]
fn a_policy_that_can_t_be_written_counts_for_its_session_and_is_tried_again() {
    let mut town = Town::of(&["a", "b"]);
    town.failing = true;
    town.state("b", "deny");
    assert_eq!(code(&town.ask("register_peer", json!({"source": "a", "name": "b"}))), "rejected");
    assert!(town.ledger.restored().policies.is_empty());
    town.pass(secs(31));
    town.failing = false;
    town.pass(secs(30));
    assert_eq!(town.ledger.restored().policies, [(name("b"), Policy::Deny)]);
    town.leave("b");
    assert_eq!(code(&town.ask("register_peer", json!({"source": "a", "name": "b"}))), "rejected");
}

#[test]
fn of_policies_stated_while_one_is_written_the_last_counts() {
    let mut town = Town::of(&["b"]);
    town.stuck = true;
    for policy in ["deny", "ask", "default", "accept"] {
        town.state("b", policy);
    }
    town.release_one();
    assert_eq!(town.ledger.restored().policies, [(name("b"), Policy::Deny)]);
    town.release();
    assert_eq!(town.ledger.restored().policies, [(name("b"), Policy::Accept)]);
}

#[test]
fn a_write_that_ends_after_its_asker_left_counts() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    for failing in [false, true] {
        town.stuck = true;
        town.say("a", json!({"type": "peer_send", "id": 1, "to": "b", "text": "x"}));
        town.leave("a");
        town.failing = failing;
        town.release();
        town.failing = false;
        assert_eq!(town.inbox("b").len(), 1, "the first is there, the second is not");
        town.enter("a");
        assert!(town.frames("a", "peer_result").is_empty());
    }
    assert_eq!(town.world.broker.sizes().messages, 1);
    town.stuck = true;
    town.say("a", json!({"type": "peer_unregister", "id": 1, "name": "b"}));
    town.leave("a");
    town.release();
    assert!(town.peers().is_empty());
}

#[test]
fn an_unregistration_that_waits_its_turn_does_not_happen_without_its_asker() {
    let mut town = Town::linked(&["a", "b"]);
    town.stuck = true;
    town.order_send("a", "b", "busy");
    town.say("a", json!({"type": "peer_unregister", "id": 1, "name": "b"}));
    town.say("a", json!({"type": "peer_send", "id": 2, "to": "b", "text": "neither"}));
    town.leave("a");
    town.release();
    assert_eq!((town.peers().len(), town.texts("b")), (1, vec!["busy".to_owned()]));
    let sizes = town.world.broker.sizes();
    assert_eq!((sizes.messages, sizes.peer_operations), (1, 0));
}

#[test]
fn what_was_not_durable_is_gone_after_a_crash_and_what_was_is_there() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    town.order_send("a", "b", "kept");
    town.stuck = true;
    town.order_send("a", "b", "lost");
    town.order("unregister_peer", json!({"source": "a", "name": "b"}));
    town.stuck = false;
    town.world.effects.clear();
    town.restart();
    assert_eq!(town.peers().len(), 1);
    town.enter("b");
    assert_eq!(town.texts("b"), ["kept"]);
}

#[test]
fn a_message_that_is_still_being_written_when_its_time_is_over_is_answered_with_timeout() {
    let mut town = Town::linked(&["a", "b"]);
    town.stuck = true;
    let send = |key: &str| json!({"from": "a", "to": "b", "text": "x", "key": key, "timeout_ms": 100});
    let first = town.order("send_to_peer", send("k"));
    let again = town.order("send_to_peer", send("k"));
    let behind = town.order("send_to_peer", send("l"));
    town.pass(ms(200));
    for id in [first, again, behind] {
        assert_eq!(town.told(id).as_deref(), Some("timeout"));
    }
    town.release();
    assert_eq!(town.texts("b"), ["x"], "the first was on its way; nobody waited for the last");
}

#[test]
fn who_comes_with_the_key_of_a_message_that_waits_to_be_written_gets_its_outcome_though_the_first_left() {
    let mut town = Town::linked(&["a", "b"]);
    town.stuck = true;
    let send =
        |key: &str, ms: u64| json!({"from": "a", "to": "b", "text": key, "key": key, "timeout_ms": ms});
    town.order("send_to_peer", send("before", 5000));
    town.order("send_to_peer", send("k", 100));
    let again = town.order("send_to_peer", send("k", 5000));
    town.pass(ms(200));
    town.release();
    assert_eq!(town.told(again).as_deref(), Some("delivered"));
    assert_eq!(town.texts("b"), ["before", "k"]);
}

#[test]
fn however_often_a_guest_acknowledges_a_message_it_is_written_once() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    town.order_send("a", "b", "x");
    let mail = town.mail("b").remove(0);
    town.stuck = true;
    for _ in 0..100 {
        town.ack("b", &mail);
    }
    assert!(town.world.broker.sizes().peer_operations <= 1);
    town.release();
    assert_eq!(town.events("peer.message.delivered").len(), 1);
}

#[test]
fn two_registrations_that_are_written_at_once_do_not_make_more_peers_than_there_may_be() {
    let mut town = Town::with(|config| config.peers.peers_max = 1);
    ["a", "b", "c"].into_iter().for_each(|name| town.enter(name));
    town.stuck = true;
    let ids = [town.order_link("b", "a"), town.order_link("c", "a")];
    town.release();
    assert_eq!(ids.map(|id| town.told(id).unwrap()), ["registered", "full"]);
    assert_eq!(town.peers().len(), 1);
}
