//! A message is delivered once, or its sender hears why not.
#![allow(clippy::unwrap_used)]

use crate::common::ms;
use crate::peering::{Town, code, secs};
use castra_core::boundary::Effect;
use serde_json::{Value, json};

fn framed(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat()
}

fn send(town: &mut Town, from: &'static str, id: u64, to: &str, text: &str) {
    town.say(from, json!({"type": "peer_send", "id": id, "to": to, "text": text}));
}

#[test]
fn it_is_delivered_once_it_is_durable_and_acknowledged_and_that_is_durable() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    town.stuck = true;
    send(&mut town, "a", 1, "b", "hello");
    assert!(town.mail("b").is_empty());
    town.release();
    let mail = town.mail("b");
    assert_eq!((mail.len(), &mail[0]["text"], &mail[0]["wake"]), (1, &json!("hello"), &json!(true)));
    assert_eq!(town.result("a", 1), None);
    town.stuck = true;
    town.ack("b", &mail[0]);
    assert_eq!(town.result("a", 1), None);
    assert_eq!(town.inbox("b")[0]["delivered_at"], Value::Null);
    town.release();
    let result = town.result("a", 1).unwrap();
    assert_eq!((&result["outcome"], &result["message_id"]), (&json!("delivered"), &mail[0]["id"]));
    assert_ne!(town.inbox("b")[0]["delivered_at"], Value::Null);
    assert_eq!(town.events("peer.message.sent"), ["a"]);
    assert_eq!(town.events("peer.message.delivered"), ["b"]);
    town.pass(secs(100));
    assert!(town.mail("b").is_empty(), "once");
}

#[test]
fn the_operator_speaks_for_a_guest_and_hears_the_outcome() {
    let mut town = Town::linked(&["a", "b"]);
    let params = json!({"from": "a", "to": "b", "text": "look", "wake": false});
    let answer = town.ask("send_to_peer", params);
    let mail = town.mail("b");
    assert_eq!(answer["event"], "peer_message_result");
    assert_eq!(answer["data"], json!({"id": mail[0]["id"], "outcome": "delivered"}));
    assert_eq!((&mail[0]["wake"], &mail[0]["from_authenticated"]), (&json!(false), &json!(true)));
}

#[test]
fn what_waits_for_a_guest_is_there_when_it_returns_once_and_in_order() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    for number in 0..40 {
        send(&mut town, "a", number, "b", &format!("m{number}"));
        let result = town.result("a", number).unwrap();
        assert_eq!(result["outcome"], "queued");
        assert!(result["message_id"].as_str().unwrap().starts_with("msg-"));
    }
    let listed = town.ask("list_peers", json!({"name": "a"}));
    assert_eq!(
        (&listed["data"]["peers"][1]["queued"], &listed["data"]["peers"][1]["state"]),
        (&json!(40), &json!("known"))
    );
    town.enter("b");
    let expected: Vec<String> = (0..40).map(|number| format!("m{number}")).collect();
    assert_eq!(town.texts("b"), expected);
    town.pass(secs(40));
    town.leave("b");
    town.enter("b");
    assert!(town.texts("b").is_empty());
    let listed = town.ask("list_peers", json!({"name": "b"}));
    assert_ne!(listed["data"]["peers"][1]["last_received_at"], Value::Null);
    assert_eq!(listed["data"]["peers"][1]["last_sent_at"], Value::Null);
}

#[test]
fn mail_waits_until_the_policy_is_stated_or_a_second_has_passed() {
    let mut town = Town::linked(&["a", "b"]);
    town.leave("b");
    send(&mut town, "a", 1, "b", "x");
    town.join("b");
    town.pass(ms(999));
    assert!(town.texts("b").is_empty());
    town.pass(ms(1));
    assert_eq!(town.texts("b"), ["x"]);
}

#[test]
fn sixteen_are_on_their_way_at_most() {
    let mut town = Town::linked(&["a", "b", "c"]);
    town.acks = false;
    town.leave("a");
    for number in 0..20 {
        let from = if number % 2 == 0 { "b" } else { "c" };
        town.order_send(from, "a", &format!("m{number}"));
    }
    town.enter("a");
    let mail = town.mail("a");
    assert_eq!(mail.len(), 16);
    for message in &mail[..3] {
        town.ack("a", message);
    }
    let more = town.mail("a");
    assert_eq!(more.len(), 3);
    for message in mail[3..].iter().chain(&more) {
        town.ack("a", message);
    }
    assert_eq!(town.texts("a"), ["m19"]);
}

#[test]
fn without_an_acknowledgement_it_comes_again_after_thirty_seconds_and_at_a_new_session() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    for number in 0..3 {
        town.order_send("a", "b", &format!("m{number}"));
        town.pass(ms(9_999));
    }
    town.pass(ms(2));
    assert_eq!(town.texts("b"), ["m0", "m1", "m2"]);
    town.pass(ms(1));
    assert_eq!(town.texts("b"), ["m0"]);
    town.pass(secs(10));
    let again = town.mail("b");
    assert_eq!(again[0]["text"], "m1");
    town.ack("b", &again[0]);
    town.leave("b");
    town.enter("b");
    assert_eq!(town.texts("b"), ["m0", "m2"]);
    town.restart();
    town.enter("b");
    town.acks = true;
    town.pass(secs(30));
    let texts = town.texts("b");
    assert_eq!(texts, ["m0", "m2", "m0", "m2"]);
    town.pass(secs(60));
    assert!(town.texts("b").is_empty());
}

#[test]
fn a_message_that_gets_to_the_disk_after_a_later_one_is_sent_all_the_same() {
    let mut town = Town::linked(&["c", "a", "b"]);
    town.stuck = true;
    // The pair a–c is busy with one write: the next waits for it.
    let ids =
        [town.order_send("a", "c", "a0"), town.order_send("a", "c", "a1"), town.order_send("b", "c", "b0")];
    town.release_one();
    town.release();
    let mut texts = town.texts("c");
    texts.sort();
    assert_eq!(texts, ["a0", "a1", "b0"]);
    for id in ids {
        assert_eq!(town.told(id).as_deref(), Some("delivered"));
    }
}

#[test]
fn a_guest_may_reject_what_it_gets() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    send(&mut town, "a", 1, "b", "x");
    let mail = town.mail("b");
    town.say("b", json!({"type": "peer_ack", "id": mail[0]["id"], "rejected": true}));
    let result = town.result("a", 1).unwrap();
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("rejected"), &json!("unauthenticated")));
    assert!(town.inbox("b").is_empty());
    assert_eq!(town.events("peer.message.expired"), ["a"]);
    // It stays so.
    town.ack("b", &mail[0]);
    assert!(town.inbox("b").is_empty());
    town.leave("b");
    town.enter("b");
    assert!(town.mail("b").is_empty());
}

#[test]
fn only_peers_write_to_each_other_and_names_that_nobody_has_are_unknown() {
    let mut town = Town::of(&["a", "b"]);
    let to = |to| json!({"from": "a", "to": to, "text": "x"});
    assert_eq!(code(&town.ask("send_to_peer", to("b"))), "not_peer");
    assert_eq!(code(&town.ask("send_to_peer", to("nobody"))), "unknown");
    assert_eq!(code(&town.ask("send_to_peer", json!({"from": "nobody", "to": "a", "text": "x"}))), "unknown");
    assert_eq!(code(&town.ask("send_to_peer", json!({"to": "a", "text": "x"}))), "invalid_request");
    assert!(town.ledger.restored().messages.is_empty());
}

#[test]
fn a_queue_is_full_at_its_count_and_at_its_bytes_and_each_way_has_its_own() {
    let mut town = Town::with(|config| {
        config.peers.queue_messages = 3;
        config.peers.queue_bytes = 25;
    });
    for name in ["a", "b"] {
        town.enter(name);
    }
    town.link("a", "b");
    town.leave("b");
    for (text, outcome) in [
        ("0123456789", "queued"),
        ("0123456789", "queued"),
        ("012345", "full"),
        ("01234", "queued"),
        ("", "full"),
    ] {
        let id = town.order_send("a", "b", text);
        assert_eq!(town.told(id).as_deref(), Some(outcome), "{text}");
    }
    let id = town.order_send("b", "a", "the other way round");
    assert_eq!(town.told(id).as_deref(), Some("delivered"));
    assert_eq!(town.world.broker.sizes().messages, 4);
    town.enter("b");
    assert_eq!(town.mail("b").len(), 3);
    let id = town.order_send("a", "b", "012345");
    assert_eq!(town.told(id).as_deref(), Some("delivered"));
}

#[test]
fn all_mail_together_has_a_bound_and_what_is_on_its_way_to_the_disk_counts() {
    let mut town = Town::with(|config| {
        config.peers.mail_bytes_max = 3 * 512 + 30;
        config.peers.message_ttl = secs(60);
    });
    for name in ["a", "b", "c"] {
        town.enter(name);
    }
    town.link("a", "b");
    town.link("a", "c");
    town.leave("b");
    town.leave("c");
    town.stuck = true;
    let ids = ["b", "c", "b", "c"].map(|to| town.order_send("a", to, "0123456789"));
    assert_eq!(town.told(ids[3]).as_deref(), Some("full"));
    town.release();
    assert!(ids[..3].iter().all(|id| town.told(*id).as_deref() == Some("queued")));
    assert_eq!(town.world.broker.sizes().message_bytes, 3 * 512 + 30);
    town.ask("unregister_peer", json!({"source": "a", "name": "b"}));
    town.pass(secs(60));
    let sizes = town.world.broker.sizes();
    assert_eq!((sizes.messages, sizes.message_bytes, sizes.peer_operations), (0, 0, 0));
}

#[test]
fn guests_without_a_key_leave_room_for_the_mail_of_others() {
    let mut town = Town::with(|config| {
        config.peers.mail_bytes_max = 4 * (512 + 10);
        config.peers.mail_bytes_unproven = 2 * (512 + 10);
        config.peers.message_ttl = secs(60);
    });
    for name in ["a", "b", "c"] {
        town.enter(name);
    }
    town.link("a", "b");
    town.link("a", "c");
    town.leave("b");
    town.leave("c");
    let say = |town: &mut Town, id: u64, to: &str| {
        town.say("a", json!({"type": "peer_send", "id": id, "to": to, "text": "0123456789"}));
        town.outcome("a", id).unwrap()
    };
    assert_eq!(["b", "c", "b"].map(|to| say(&mut town, 1, to)), ["queued", "queued", "full"]);
    // What the operator sends is as good as proven.
    let ids = ["b", "c", "b"].map(|to| town.order_send("a", to, "0123456789"));
    assert_eq!(ids.map(|id| town.told(id).unwrap()), ["queued", "queued", "full"]);
    town.restart();
    town.enter("a");
    assert_eq!(say(&mut town, 2, "b"), "full", "also after a restart");
    town.ask("unregister_peer", json!({"source": "a", "name": "b"}));
    town.pass(secs(60));
    assert_eq!(town.world.broker.sizes().message_bytes, 0);
    assert_eq!(say(&mut town, 3, "c"), "queued", "the room is given back");
}

#[test]
fn a_text_is_bounded_and_so_is_its_frame() {
    let mut town = Town::linked(&["a", "b"]);
    for (text, outcome) in [
        ("x".repeat(32_768), "delivered"),
        ("x".repeat(32_769), "too_large"),
        ("\"".repeat(32_500), "delivered"),
        ("\"".repeat(32_700), "too_large"),
        ("\u{1}".repeat(10_000), "delivered"),
        ("\u{1}".repeat(11_000), "too_large"),
        (String::new(), "delivered"),
    ] {
        let id = town.order_send("a", "b", &text);
        assert_eq!(town.told(id).as_deref(), Some(outcome), "{:.3} {}", text, text.len());
    }
    assert_eq!(town.ledger.restored().messages.len(), 4);
    assert_eq!(town.inbox("b").len(), 4, "also the empty one");
    assert_eq!(town.world.broker.sizes().messages, 4);
}

#[test]
fn not_to_be_queued_it_is_an_error_when_the_other_is_not_live() {
    let mut town = Town::linked(&["a", "b"]);
    let params = json!({"from": "a", "to": "b", "text": "x", "queue": false});
    assert_eq!(code(&town.ask("send_to_peer", params.clone())), "delivered");
    town.leave("b");
    assert_eq!(code(&town.ask("send_to_peer", params)), "not_reachable");
    assert_eq!(town.ledger.restored().messages.len(), 1);
}

#[test]
fn not_to_be_queued_it_is_taken_back_before_the_caller_gives_up() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let params = json!({"from": "a", "to": "b", "text": "x", "queue": false, "timeout_ms": 1000});
    let id = town.order("send_to_peer", params.clone());
    town.pass(ms(1000));
    let answer = town.answer(id).unwrap();
    assert_eq!((code(&answer), &answer["data"]["reason"]), ("expired", &json!("not_queued")));
    town.leave("b");
    town.enter("b");
    assert_eq!(town.mail("b").len(), 1, "the first time");
    // Its receiver leaves meanwhile, and the disk takes long.
    let id = town.order("send_to_peer", params);
    assert_eq!(town.mail("b").len(), 1);
    town.stuck = true;
    town.leave("b");
    town.pass(ms(1000));
    assert_eq!(town.told(id).as_deref(), Some("timeout"));
    town.release();
    town.enter("b");
    assert!(town.mail("b").is_empty());
}

#[test]
fn an_acknowledgement_that_comes_too_late_is_the_truth_all_the_same() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let params = json!({"from": "a", "to": "b", "text": "x", "queue": false, "timeout_ms": 1000});
    town.order("send_to_peer", params);
    let mail = town.mail("b");
    town.pass(secs(1));
    assert!(town.inbox("b").is_empty());
    town.ack("b", &mail[0]);
    assert_ne!(town.inbox("b")[0]["delivered_at"], Value::Null);
}

#[test]
fn whoever_takes_too_long_to_acknowledge_is_no_reason_to_wait() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let waits = town.order_send("a", "b", "x");
    let short = town.order("send_to_peer", json!({"from": "a", "to": "b", "text": "y", "timeout_ms": 100}));
    town.pass(ms(100));
    assert_eq!((town.told(short).as_deref(), town.told(waits)), (Some("queued"), None));
    town.leave("b");
    assert_eq!(town.told(waits).as_deref(), Some("queued"));
}

#[test]
fn to_acknowledge_a_thousand_times_is_one_write() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    town.order_send("a", "b", "x");
    town.order_send("a", "b", "y");
    let mail = town.mail("b");
    town.stuck = true;
    for _ in 0..1000 {
        town.ack("b", &mail[0]);
        town.ack("b", &mail[1]);
    }
    assert_eq!(town.world.broker.sizes().peer_operations, 2);
    town.release();
    let writes = |effect: &Effect| matches!(effect, Effect::Persist(_));
    assert!(!town.world.effects.iter().any(|(_, effect)| writes(effect)));
    assert_eq!(town.events("peer.message.delivered").len(), 2);
}

#[test]
fn two_peers_write_to_each_other_at_once_and_to_a_third() {
    let mut town = Town::linked(&["a", "b", "c"]);
    town.stuck = true;
    for number in 0..5 {
        send(&mut town, "a", number, "b", &format!("ab{number}"));
        send(&mut town, "b", number, "a", &format!("ba{number}"));
        send(&mut town, "c", number, "a", &format!("ca{number}"));
    }
    town.release();
    assert_eq!(town.texts("b"), ["ab0", "ab1", "ab2", "ab3", "ab4"]);
    let (from_b, from_c): (Vec<String>, Vec<String>) =
        town.texts("a").into_iter().partition(|text| text.starts_with("ba"));
    assert_eq!(from_b, ["ba0", "ba1", "ba2", "ba3", "ba4"]);
    assert_eq!(from_c, ["ca0", "ca1", "ca2", "ca3", "ca4"]);
}

#[test]
fn what_a_session_said_before_it_ended_counts_however_its_bytes_were_cut() {
    let said =
        json!({"type": "peer_send", "id": 1, "to": "b", "text": "the last", "queue": true}).to_string();
    for last in [r#"{"type":"goodbye"}"#, "no JSON"] {
        let bytes = [framed(&said), framed(last)].concat();
        for cut in 0..bytes.len() {
            let mut town = Town::linked(&["a", "b"]);
            let conn = town.guests["a"];
            for piece in [&bytes[..cut], &bytes[cut..]] {
                town.world.write(conn, piece);
            }
            town.pump();
            assert_eq!(town.texts("b"), ["the last"], "cut at {cut}");
        }
    }
}
