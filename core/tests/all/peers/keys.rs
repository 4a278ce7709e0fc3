//! A key makes a retry safe.
#![allow(clippy::unwrap_used)]

use crate::common::ms;
use crate::peering::{Town, code, secs};
use serde_json::{Value, json};

fn keyed(from: &str, to: &str, text: &str) -> Value {
    json!({"from": from, "to": to, "text": text, "key": "k"})
}

#[test]
fn the_same_key_again_is_the_first_message_however_far_it_is() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    town.stuck = true;
    // On its way to the disk.
    let first = town.order("send_to_peer", keyed("a", "b", "x"));
    let second = town.order("send_to_peer", keyed("a", "b", "y"));
    town.release();
    // On its way to the guest.
    let third = town.order("send_to_peer", keyed("a", "b", "z"));
    let mail = town.mail("b");
    assert_eq!((mail.len(), &mail[0]["text"]), (1, &json!("x")));
    town.ack("b", &mail[0]);
    // Delivered.
    let fourth = town.order("send_to_peer", keyed("a", "b", "z"));
    for id in [first, second, third, fourth] {
        let answer = town.answer(id).unwrap();
        assert_eq!((code(&answer), &answer["data"]["id"]), ("delivered", &mail[0]["id"]));
    }
    assert_eq!(town.ledger.restored().messages.len(), 1);
}

#[test]
fn a_message_that_waits_is_the_answer_also_after_a_restart() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    let first = town.ask("send_to_peer", keyed("a", "b", "x"));
    town.restart();
    town.enter("a");
    let second = town.ask("send_to_peer", keyed("a", "b", "x"));
    assert_eq!((code(&first), code(&second)), ("queued", "queued"));
    assert_eq!(first["data"]["id"], second["data"]["id"]);
    town.enter("b");
    assert_eq!(town.texts("b"), ["x"]);
    let third = town.ask("send_to_peer", keyed("a", "b", "x"));
    assert_eq!((code(&third), &third["data"]["id"]), ("delivered", &first["data"]["id"]));
}

#[test]
fn keys_are_each_guest_s_own() {
    let mut town = Town::linked(&["a", "b"]);
    let one = town.ask("send_to_peer", keyed("a", "b", "x"));
    let other = town.ask("send_to_peer", keyed("b", "a", "x"));
    assert_ne!(one["data"]["id"], other["data"]["id"]);
    assert_eq!((town.texts("a").len(), town.texts("b").len()), (1, 1));
}

#[test]
fn a_key_is_remembered_when_the_text_is_gone_and_when_they_are_no_peers_any_more() {
    let mut town = Town::with(|config| {
        config.peers.history_messages = 1;
        config.peers.message_ttl = secs(60);
    });
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    let first = town.ask("send_to_peer", keyed("a", "b", "x"));
    for number in 0..3 {
        town.order_send("a", "b", &format!("{number}"));
    }
    assert_eq!(town.inbox("b").len(), 1);
    town.ask("unregister_peer", json!({"source": "a", "name": "b"}));
    for _ in 0..2 {
        let again = town.ask("send_to_peer", keyed("a", "b", "x"));
        assert_eq!((code(&again), &again["data"]["id"]), ("delivered", &first["data"]["id"]));
        town.restart();
        town.enter("a");
        town.enter("b");
    }
    assert_eq!(town.inbox("b").len(), 1);
    town.pass(secs(60));
    assert_eq!(code(&town.ask("send_to_peer", keyed("a", "b", "x"))), "not_peer");
    assert_eq!(town.world.broker.sizes().message_bytes, 0);
}

#[test]
fn whoever_brings_it_again_still_waits_when_the_first_has_left() {
    let mut town = Town::linked(&["a", "b"]);
    town.stuck = true;
    // The pair is busy: the keyed message waits for its turn.
    town.order_send("a", "b", "before");
    town.say("a", json!({"type": "peer_send", "id": 1, "to": "b", "text": "x", "key": "k"}));
    let again = town.order("send_to_peer", keyed("a", "b", "x"));
    town.leave("a");
    town.release();
    assert_eq!(town.told(again).as_deref(), Some("delivered"));
    assert_eq!(town.texts("b"), ["before", "x"]);
}

#[test]
fn to_ask_again_takes_nothing_back() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    town.leave("b");
    town.stuck = true;
    let first = town.order("send_to_peer", keyed("a", "b", "x"));
    let mut again = keyed("a", "b", "x");
    again["queue"] = json!(false);
    again["timeout_ms"] = json!(1000);
    let again = town.order("send_to_peer", again);
    town.release();
    assert_eq!(town.told(first).as_deref(), Some("queued"));
    assert_eq!(town.told(again).as_deref(), Some("queued"));
    town.pass(secs(1));
    town.enter("b");
    assert_eq!(town.texts("b"), ["x"]);
}

#[test]
fn everybody_who_waits_for_a_message_hears_by_the_own_deadline_that_the_disk_does_not_answer() {
    let mut town = Town::linked(&["a", "b"]);
    town.stuck = true;
    town.order_send("a", "b", "before");
    let mut ids = Vec::new();
    for timeout in [100, 200, 300] {
        let mut params = keyed("a", "b", "x");
        params["timeout_ms"] = json!(timeout);
        ids.push(town.order("send_to_peer", params));
    }
    for id in ids {
        town.pass(ms(99));
        assert_eq!(town.told(id), None);
        town.pass(ms(1));
        let answer = town.answer(id).unwrap();
        assert_eq!(code(&answer), "timeout");
        assert!(answer["data"]["message"].as_str().unwrap().contains("nothing changed"), "{answer}");
    }
    town.release();
    assert_eq!(town.texts("b"), ["before"]);
    // The key is free again.
    assert_eq!(code(&town.ask("send_to_peer", keyed("a", "b", "y"))), "delivered");
}

#[test]
fn a_key_that_failed_is_free_again() {
    let mut town = Town::linked(&["a", "b"]);
    town.failing = true;
    assert_eq!(code(&town.ask("send_to_peer", keyed("a", "b", "x"))), "storage_failed");
    town.failing = false;
    assert_eq!(code(&town.ask("send_to_peer", keyed("a", "b", "y"))), "delivered");
    assert_eq!(town.texts("b"), ["y"]);
}

#[test]
fn a_key_has_one_to_sixty_four_characters() {
    let mut town = Town::linked(&["a", "b"]);
    for (key, outcome) in [
        (String::new(), "invalid_request"),
        ("ü".repeat(64), "delivered"),
        ("ü".repeat(65), "invalid_request"),
    ] {
        let answer = town.ask("send_to_peer", json!({"from": "a", "to": "b", "text": "x", "key": key}));
        assert_eq!(code(&answer), outcome, "{key}");
    }
}
