//! What will not be delivered, and what is not kept.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::common::ms;
use crate::peering::{Town, code, secs};
use castra_core::peers::{Expiry, Fate};
use serde_json::json;

/// Why each message that is durable expired.
fn expired(town: &Town) -> Vec<Option<Expiry>> {
    let why = |fate| if let Fate::Expired { why, .. } = fate { Some(why) } else { None };
    town.ledger.restored().messages.iter().map(|message| why(message.fate)).collect()
}

fn for_a_minute() -> Town {
    let mut town = Town::with(|config| config.peers.message_ttl = secs(60));
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    town
}

#[test]
fn a_message_waits_as_long_as_it_may_by_the_boot_clock() {
    let mut town = for_a_minute();
    town.leave("b");
    town.order_send("a", "b", "x");
    // What the wall clock says is nothing to it.
    town.world.now.wall = castra_core::time::WallTime::from_unix_millis(0);
    town.pass(ms(59_999));
    assert_eq!(town.ledger.restored().messages.len(), 1);
    town.pass(ms(1));
    assert!(town.ledger.restored().messages.is_empty());
    assert_eq!(town.events("peer.message.expired"), ["a"]);
    town.enter("b");
    assert!(town.mail("b").is_empty());
}

#[test]
fn after_a_restart_the_age_is_the_wall_clock_s_once() {
    for (away, left) in [(20, 40), (3600, 0), (-3600, 60)] {
        let mut town = for_a_minute();
        town.leave("b");
        town.order_send("a", "b", "x");
        let wall = town.world.now.wall.unix_millis() + away * 1000;
        town.world.now.wall = castra_core::time::WallTime::from_unix_millis(wall);
        town.restart();
        if left > 0 {
            town.pass(ms(left * 1000 - 1));
            assert_eq!(town.ledger.restored().messages.len(), 1, "{away}");
        }
        town.pass(ms(1));
        assert!(town.ledger.restored().messages.is_empty(), "{away}");
    }
}

#[test]
fn whoever_waits_for_a_message_that_leaves_hears_so() {
    let mut town = for_a_minute();
    town.acks = false;
    let id = town.order("send_to_peer", json!({"from": "a", "to": "b", "text": "x", "timeout_ms": 100_000}));
    town.pass(secs(60));
    let answer = town.answer(id).unwrap();
    assert_eq!((code(&answer), &answer["data"]["reason"]), ("expired", &json!("ttl")));
    town.pass(secs(60));
    assert_eq!(town.mail("b").len(), 2, "nothing is sent after that");
}

#[test]
fn a_minute_is_for_what_was_delivered_too() {
    let mut town = for_a_minute();
    town.order_send("a", "b", "x");
    town.pass(secs(59));
    assert_eq!(town.inbox("b").len(), 1);
    town.pass(secs(1));
    assert!(town.inbox("b").is_empty());
    assert!(town.events("peer.message.expired").is_empty());
    assert_eq!(town.world.broker.sizes().message_bytes, 0);
}

#[test]
fn to_part_expires_what_waits_both_ways() {
    let mut town = Town::linked(&["a", "b", "c"]);
    town.acks = false;
    let params = |from, to| json!({"from": from, "to": to, "text": "x", "timeout_ms": 60_000});
    let ids = [town.order("send_to_peer", params("a", "b")), town.order("send_to_peer", params("b", "a"))];
    let other = town.order("send_to_peer", params("a", "c"));
    let mail = town.mail("b");
    town.say("b", json!({"type": "peer_unregister", "id": 1, "name": "a"}));
    for id in ids {
        let answer = town.answer(id).unwrap();
        assert_eq!((code(&answer), &answer["data"]["reason"]), ("expired", &json!("unlinked")));
    }
    assert_eq!(town.told(other), None);
    assert_eq!(expired(&town), [Some(Expiry::Unlinked), Some(Expiry::Unlinked), None]);
    assert_eq!(code(&town.ask("send_to_peer", params("a", "b"))), "not_peer");
    // Peers again, they begin anew.
    town.link("a", "b");
    town.acks = true;
    let id = town.order_send("a", "b", "anew");
    assert_eq!(town.told(id).as_deref(), Some("delivered"));
    town.ack("b", &mail[0]);
    assert_eq!(town.inbox("b").len(), 2, "it had got there before");
}

#[test]
fn a_guest_that_takes_nobody_any_more_gets_nothing_of_what_waited() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    town.order_send("a", "b", "x");
    town.enter("b");
    town.acks = false;
    assert_eq!(town.texts("b"), ["x"]);
    let id = town.order_send("a", "b", "y");
    town.state("b", "deny");
    let answer = town.answer(id).unwrap();
    assert_eq!((code(&answer), &answer["data"]["reason"]), ("expired", &json!("policy")));
    assert_eq!(expired(&town), [None, Some(Expiry::Policy)]);
    // Nothing new either, there or not.
    let refused = |town: &mut Town| {
        let answer = town.ask("send_to_peer", json!({"from": "a", "to": "b", "text": "z"}));
        assert_eq!(code(&answer), "rejected");
        assert!(answer["data"]["message"].as_str().unwrap().contains("policy"), "{answer}");
    };
    refused(&mut town);
    town.leave("b");
    refused(&mut town);
    town.acks = true;
    town.enter("b");
    let id = town.order_send("a", "b", "z");
    assert_eq!(town.told(id).as_deref(), Some("delivered"));
    assert_eq!(town.texts("b"), ["y", "z"]);
}

#[test]
fn to_state_a_thousand_times_that_nobody_is_wanted_is_one_write_a_message() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    for number in 0..10 {
        town.order_send("a", "b", &format!("{number}"));
    }
    town.join("b");
    town.stuck = true;
    for _ in 0..1000 {
        town.state("b", "deny");
    }
    assert_eq!(town.world.broker.sizes().peer_operations, 10);
    town.release();
    assert_eq!(expired(&town), [Some(Expiry::Policy); 10]);
    assert_eq!(town.events("peer.message.expired").len(), 10);
}

#[test]
fn what_is_acknowledged_and_expires_at_once_is_the_same_on_the_disk_as_in_memory() {
    for acknowledged_first in [true, false] {
        let mut town = Town::linked(&["a", "b"]);
        town.acks = false;
        let id =
            town.order("send_to_peer", json!({"from": "a", "to": "b", "text": "x", "timeout_ms": 60_000}));
        let mail = town.mail("b");
        town.stuck = true;
        // Something is on its way: both wait behind it.
        town.order_send("b", "a", "busy");
        if acknowledged_first {
            town.ack("b", &mail[0]);
            town.state("b", "deny");
        } else {
            town.state("b", "deny");
            town.ack("b", &mail[0]);
        }
        town.release();
        let told = town.told(id).unwrap();
        assert_eq!(told, if acknowledged_first { "delivered" } else { "expired" });
        let live = town.inbox("b");
        town.restart();
        assert_eq!(town.inbox("b"), live);
        assert_eq!(live.len(), 1, "it is in the guest's inbox");
    }
}

#[test]
fn the_texts_of_the_newest_that_ended_are_kept() {
    let mut town = Town::with(|config| config.peers.history_messages = 3);
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    // They come and end in bursts, not one by one.
    for burst in 0..5 {
        town.leave("b");
        for number in 0..20 {
            town.order_send("a", "b", &format!("m{burst}.{number}"));
        }
        town.join("b");
        town.stuck = true;
        town.state("b", "default");
        town.release();
        assert_eq!(town.texts("b").len(), 20);
        let kept: Vec<_> = town.inbox("b").iter().map(|message| message["text"].clone()).collect();
        assert_eq!(kept, [17, 18, 19].map(|number| json!(format!("m{burst}.{number}"))));
        assert_eq!(town.ledger.restored().messages.len(), 3);
        assert_eq!(town.world.broker.sizes().messages, 3);
    }
    town.restart();
    assert_eq!(town.inbox("b").len(), 3);
    town.enter("a");
    town.enter("b");
    town.order_send("a", "b", "one more");
    assert_eq!(town.ledger.restored().messages.len(), 3);
}

#[test]
fn messages_without_a_text_are_kept_no_longer_than_others() {
    let mut town = Town::with(|config| config.peers.history_messages = 2);
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    for _ in 0..10 {
        town.order_send("a", "b", "");
    }
    assert_eq!(town.ledger.restored().messages.len(), 2);
    town.restart();
    town.enter("a");
    town.enter("b");
    for _ in 0..10 {
        town.order_send("a", "b", "");
    }
    assert_eq!(town.ledger.restored().messages.len(), 2);
}

#[test]
fn a_message_that_leaves_while_it_is_acknowledged_leaves_no_trace_on_the_disk() {
    let mut town = for_a_minute();
    town.acks = false;
    town.order_send("a", "b", "x");
    town.pass(ms(59_990));
    let mail = town.mail("b");
    town.stuck = true;
    town.order_send("b", "a", "busy");
    town.pass(ms(10));
    town.ack("b", &mail[0]);
    town.pass(secs(31));
    town.release();
    town.pass(secs(60));
    assert_eq!(town.ledger, {
        let mut only = castra_core::peers::Ledger::default();
        let pair = castra_core::peers::Pair::new(common::name("a"), common::name("b")).unwrap();
        let relation = Some(castra_core::peers::Relation::Linked);
        only.apply(&castra_core::boundary::Change::SetRelation { pair, relation });
        only
    });
}

#[test]
fn a_sender_that_leaves_does_not_leave_behind_what_was_not_to_be_queued() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    for taken in [true, false] {
        town.stuck = !taken;
        town.say("a", json!({"type": "peer_send", "id": 1, "to": "b", "text": "x", "queue": false}));
        town.leave("a");
        town.release();
        assert!(expired(&town).iter().all(|why| *why == Some(Expiry::NotQueued)), "{taken}");
        town.enter("a");
    }
    assert_eq!(expired(&town).len(), 2);
}
