//! A guest is forgotten, and so is what it was to others.
#![allow(clippy::unwrap_used)]

use crate::common::name;
use crate::peering::{Town, code, secs};
use castra_core::Restored;
use castra_core::boundary::Change;
use castra_core::peers::{Expiry, Fate, Policy};
use serde_json::{Value, json};

fn forget(town: &mut Town, guest: &str) {
    let answer = town.ask("forget", json!({"guest": guest}));
    assert_eq!(answer["event"], "forgotten", "{answer}");
}

fn states(town: &mut Town, of: &str) -> Vec<(String, String)> {
    let answer = town.ask("list_peers", json!({"name": of}));
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let peers = answer["data"]["peers"].as_array().unwrap();
    peers.iter().map(|peer| (word(&peer["name"]), word(&peer["state"]))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(one, other)| ((*one).into(), (*other).into())).collect()
}

#[test]
fn its_peers_see_it_as_missing_its_mail_expires_and_they_are_told() {
    let mut town = Town::linked(&["a", "b", "c"]);
    town.state("b", "accept");
    town.leave("b");
    let waits = json!({"from": "a", "to": "b", "text": "x", "timeout_ms": 60_000});
    assert_eq!(code(&town.ask("send_to_peer", waits)), "queued");
    forget(&mut town, "b");
    assert_eq!(states(&mut town, "a"), pairs(&[("a", "live"), ("b", "missing"), ("c", "live")]));
    assert_eq!(town.frames("a", "peer_removed"), [json!({"type": "peer_removed", "name": "b"})]);
    assert!(town.frames("c", "peer_removed").is_empty());
    let messages = town.ledger.restored().messages;
    assert!(matches!(messages[0].fate, Fate::Expired { why: Expiry::Forgotten, .. }));
    assert!(town.ledger.restored().policies.is_empty());
    assert_eq!(town.peers(), pairs(&[("a", "c")]));
    assert_eq!(town.world.row("a").unwrap().peers, [name("c")]);
    let answer = town.ask("send_to_peer", json!({"from": "a", "to": "b", "text": "y"}));
    assert_eq!(code(&answer), "unknown");
    town.restart();
    town.enter("a");
    assert_eq!(states(&mut town, "a"), pairs(&[("a", "live"), ("b", "missing"), ("c", "known")]));
}

#[test]
fn a_missing_one_can_be_unlinked_and_one_that_is_back_linked_again() {
    for from_guest in [true, false] {
        let mut town = Town::linked(&["a", "b"]);
        forget(&mut town, "b");
        if from_guest {
            town.say("a", json!({"type": "peer_unregister", "id": 1, "name": "b"}));
            assert_eq!(town.outcome("a", 1).as_deref(), Some("unregistered"));
        } else {
            let answer = town.ask("unregister_peer", json!({"source": "a", "name": "b"}));
            assert_eq!(code(&answer), "unregistered");
        }
        assert_eq!(states(&mut town, "a"), pairs(&[("a", "live")]));
        assert!(town.ledger.restored().relations.is_empty());
        assert_eq!(town.frames("a", "peer_removed").len(), 1, "told once");
    }
    let mut town = Town::linked(&["a", "b"]);
    forget(&mut town, "b");
    town.guests.remove("b");
    town.enter("b");
    // It doesn't know of what was.
    assert_eq!(states(&mut town, "b"), pairs(&[("b", "live")]));
    assert_eq!(states(&mut town, "a"), pairs(&[("a", "live"), ("b", "missing")]));
    town.say("b", json!({"type": "status", "id": 1, "guests": ["a"]}));
    assert_eq!(town.hear("b").pop().unwrap()["code"], "unknown_guest");
    town.link("a", "b");
    assert_eq!(states(&mut town, "b"), pairs(&[("b", "live"), ("a", "live")]));
    let id = town.order_send("a", "b", "again");
    assert_eq!(town.told(id).as_deref(), Some("delivered"));
}

#[test]
fn when_both_are_forgotten_nothing_is_left() {
    let mut town = Town::linked(&["a", "b"]);
    forget(&mut town, "b");
    forget(&mut town, "a");
    assert!(town.peers().is_empty());
    assert!(town.ledger.restored().relations.is_empty());
    // Nobody's bound is taken up by them.
    assert_eq!(town.world.broker.relations().count(), 0);
}

#[test]
fn whatever_is_on_its_way_when_a_guest_is_forgotten_ends_as_the_disk_has_it() {
    // Which of the writes are ordered before the forgetting, and which after.
    for before in [true, false] {
        for what in ["link", "unlink", "send", "policy"] {
            let mut town = if what == "link" { Town::of(&["a", "b"]) } else { Town::linked(&["a", "b"]) };
            town.acks = false;
            town.stuck = true;
            let mut id = None;
            let mut steps: Vec<&str> = vec![what, "forget"];
            if !before {
                steps.reverse();
            }
            for step in steps {
                match step {
                    "link" => id = Some(town.order_link("a", "b")),
                    "unlink" => id = Some(town.order("unregister_peer", json!({"source": "a", "name": "b"}))),
                    "send" => id = Some(town.order_send("a", "b", "x")),
                    "policy" => town.state("b", "deny"),
                    _ => {
                        town.order("forget", json!({"guest": "b"}));
                    }
                }
            }
            town.release();
            town.pass(secs(6));
            if let Some(id) = id {
                assert!(town.told(id).is_some(), "{what}");
            }
            let (live, messages) =
                (town.world.broker.relations().count(), town.world.broker.sizes().messages);
            assert_eq!(live, town.ledger.restored().relations.len(), "{what} {before}");
            assert_eq!(messages, town.ledger.restored().messages.len(), "{what} {before}");
            let queued = |town: &Town| {
                let messages = town.ledger.restored().messages;
                messages.iter().filter(|message| message.fate == Fate::Queued).count()
            };
            assert_eq!(queued(&town), 0, "{what} {before}");
            town.peers();
            town.restart();
            town.peers();
            assert_eq!(queued(&town), 0, "{what} {before}");
        }
    }
}

#[test]
fn mail_that_a_crash_left_to_a_forgotten_guest_expires_at_the_start() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    town.order_send("a", "b", "x");
    // Forgotten, and the crash before its mail expired.
    town.ledger.apply(&Change::Forget { guest: name("b") });
    town.restart();
    let messages = town.ledger.restored().messages;
    assert!(matches!(messages[0].fate, Fate::Expired { why: Expiry::Forgotten, .. }));
    town.enter("b");
    assert!(town.mail("b").is_empty());
    assert!(town.inbox("b").is_empty());
}

#[test]
fn whoever_was_its_only_peer_may_make_room_again() {
    let mut town = Town::with(|config| config.max_guests = 2);
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    town.leave("a");
    town.leave("b");
    // Peers never make room.
    let (conn, nonce, _) = town.world.hello("c", "");
    town.world.write(conn, format!("proof {nonce}\n").as_bytes());
    town.pump();
    assert!(town.world.row("c").is_none() && town.world.row("a").is_some() && town.world.row("b").is_some());
    forget(&mut town, "b");
    town.enter("c");
    town.enter("d");
    assert!(town.world.row("a").is_none(), "it is nobody's peer any more");
}

#[test]
fn a_forgetting_that_fails_changes_nothing() {
    let mut town = Town::linked(&["a", "b"]);
    town.state("b", "accept");
    town.failing = true;
    let answer = town.ask("forget", json!({"guest": "b"}));
    assert_eq!(answer["data"]["code"], "storage_failed");
    assert_eq!(town.peers(), pairs(&[("a", "b")]));
    assert_eq!(town.ledger.restored().policies, [(name("b"), Policy::Accept)]);
    assert!(town.frames("a", "peer_removed").is_empty());
    assert_eq!(Restored::default().incarnation, 0);
}
