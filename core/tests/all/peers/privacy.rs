//! What a guest can't learn, and can't do, by way of peers.
#![allow(clippy::unwrap_used)]

use crate::common::ms;
use crate::peering::{Town, secs};
use serde_json::{Value, json};

/// What a guest hears of a registration, word by word, and after how long.
fn hears(town: &mut Town, name: &str, timeout_ms: Option<u64>) -> (Value, u64) {
    town.say("a", json!({"type": "peer_register", "id": 1, "name": name, "timeout_ms": timeout_ms}));
    let mut after = 0;
    loop {
        if let Some(result) = town.result("a", 1) {
            return (result, after);
        }
        assert!(after < 10_000, "no answer");
        town.pass(ms(1));
        after += 1;
    }
}

/// A guest asks for another one that is there in some way, or isn't.
fn scene(kind: &str) -> Town {
    let mut town = Town::with(|config| config.peers.peers_max = 1);
    town.enter("a");
    match kind {
        "nobody" => {}
        "deny" => {
            town.enter("b");
            town.state("b", "deny");
        }
        "says no" | "silent" => town.enter("b"),
        "off" => {
            town.enter("b");
            town.leave("b");
        }
        "plain" => town.join_as("b", ""),
        "young" => town.join("b"),
        "full" => {
            town.enter("b");
            town.enter("c");
            town.link("b", "c");
        }
        _ => unreachable!(),
    }
    town
}

const SCENES: [&str; 8] = ["nobody", "deny", "says no", "silent", "off", "plain", "young", "full"];

#[test]
fn a_stranger_that_exists_and_one_that_does_not_are_refused_alike_and_as_late() {
    for kind in SCENES {
        let mut town = scene(kind);
        if kind == "says no" {
            town.say("a", json!({"type": "peer_register", "id": 1, "name": "b"}));
            let offer = town.frames("b", "peer_offer").remove(0);
            town.say(
                "b",
                json!({"type": "peer_answer", "id": offer["id"], "accept": false, "reason": "never"}),
            );
            town.pass(ms(1999));
            assert_eq!(town.result("a", 1), None);
            town.pass(ms(1));
            let result = town.result("a", 1).unwrap();
            assert_eq!(result, json!({"type": "peer_result", "id": 1, "outcome": "rejected"}));
            continue;
        }
        let heard = hears(&mut town, "b", None);
        assert_eq!(heard, (json!({"type": "peer_result", "id": 1, "outcome": "rejected"}), 2000), "{kind}");
    }
    let heard = hears(&mut scene("nobody"), "no name at all!", None);
    assert_eq!(heard, (json!({"type": "peer_result", "id": 1, "outcome": "rejected"}), 2000));
}

#[test]
fn a_bound_of_its_own_tells_it_nothing_either() {
    for timeout in [1, 500, 1500, 2000, 2001] {
        let expected = hears(&mut scene("nobody"), "b", Some(timeout));
        for kind in SCENES {
            assert_eq!(hears(&mut scene(kind), "b", Some(timeout)), expected, "{kind} in {timeout}");
        }
    }
}

#[test]
fn a_second_wish_meanwhile_tells_it_nothing_either() {
    for first in SCENES {
        for second in ["b", "c", "nobody"] {
            let mut town = scene(first);
            town.say("a", json!({"type": "peer_register", "id": 1, "name": "b"}));
            town.say("a", json!({"type": "peer_register", "id": 2, "name": second}));
            let result = town.result("a", 2).expect("at once");
            assert_eq!(result["outcome"], "busy", "{first}, then {second}");
        }
    }
}

#[test]
fn a_guest_with_as_many_peers_as_it_may_have_hears_so_of_everybody() {
    for target in ["d", "nobody"] {
        let mut town = scene("nobody");
        town.enter("b");
        town.enter("d");
        town.link("a", "b");
        let (result, after) = hears(&mut town, target, None);
        assert_eq!((&result["outcome"], after), (&json!("full"), 0), "{target}");
    }
}

#[test]
fn a_message_to_a_stranger_and_to_nobody_are_refused_alike() {
    let mut town = Town::of(&["a", "b"]);
    let mut results = Vec::new();
    for to in ["b", "c"] {
        town.say("a", json!({"type": "peer_send", "id": 1, "to": to, "text": "hello"}));
        let mut result = town.result("a", 1).unwrap();
        assert_eq!(result["peer"].take(), to);
        results.push(result);
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0]["outcome"], "not_peer");
    assert!(town.inbox("b").is_empty());
}

#[test]
fn a_guest_may_ask_about_itself_and_its_peers_and_about_nobody_else() {
    let mut town = Town::linked(&["b", "a", "c"]);
    for (id, (kind, name, allowed)) in [
        ("status", "a", true),
        ("status", "b", true),
        ("status", "c", false),
        ("status", "nobody", false),
        ("wait", "b", true),
        ("wait", "c", false),
        ("wait", "nobody", false),
        ("ping_guest", "b", true),
        ("ping_guest", "c", false),
        ("ping_guest", "nobody", false),
        ("restore", "b", true),
        ("restore", "c", false),
        ("restore", "nobody", false),
    ]
    .into_iter()
    .enumerate()
    {
        town.say("a", json!({"type": kind, "id": id, "guests": [name], "for": "reachable"}));
        if kind == "ping_guest" && allowed {
            let ping = town.frames("b", "ping").remove(0);
            town.say("b", json!({"type": "pong", "id": ping["id"]}));
        }
        let answers: Vec<Value> = town.hear("a").into_iter().filter(|frame| frame["id"] == id).collect();
        assert_eq!(answers.len(), 1, "{kind} {name}");
        let code = if allowed { Value::Null } else { json!("unknown_guest") };
        assert_eq!(answers[0]["code"], code, "{kind} {name}: {}", answers[0]);
    }
    // Once they are no peers, no more.
    town.say("b", json!({"type": "peer_unregister", "id": 1, "name": "a"}));
    town.hear("a");
    town.say("a", json!({"type": "status", "id": 99, "guests": ["b"]}));
    assert_eq!(town.hear("a")[0]["code"], "unknown_guest");
}

#[test]
fn the_status_of_a_peer_does_not_tell_who_its_other_peers_are() {
    let mut town = Town::linked(&["b", "a", "c"]);
    for kind in ["status", "wait"] {
        town.hear("a");
        let names = json!(["b", "a", "b"]);
        town.say("a", json!({"type": kind, "id": 7, "guests": names, "for": "reachable"}));
        let answer = town.hear("a").into_iter().find(|frame| frame["id"] == 7).unwrap();
        let rows = answer["data"]["guests"].as_array().unwrap();
        let peers: Vec<_> = rows.iter().map(|row| (&row["name"], &row["peers"])).collect();
        assert_eq!(peers, [(&json!("a"), &json!(["b"])), (&json!("b"), &json!(["a"]))], "{kind}");
    }
}

#[test]
fn a_listing_shows_a_guest_and_its_peers() {
    let mut town = Town::linked(&["b", "a", "c"]);
    town.say("a", json!({"type": "peer_list", "id": 3}));
    let result = town.result("a", 3).unwrap();
    let names: Vec<_> =
        result["peers"].as_array().unwrap().iter().map(|peer| (&peer["name"], &peer["visibility"])).collect();
    assert_eq!(names, [(&json!("a"), &json!("self")), (&json!("b"), &json!("peer"))]);
}

#[test]
fn nobody_acknowledges_or_rejects_another_s_mail() {
    let mut town = Town::linked(&["a", "b", "c"]);
    town.acks = false;
    let id = town.order_send("a", "b", "for b alone");
    let mail = town.mail("b");
    for guest in ["a", "c"] {
        town.say(guest, json!({"type": "peer_ack", "id": mail[0]["id"]}));
        town.say(guest, json!({"type": "peer_ack", "id": mail[0]["id"], "rejected": true}));
    }
    assert_eq!(town.told(id), None);
    assert_eq!(town.inbox("b")[0]["delivered_at"], Value::Null);
    town.ack("b", &mail[0]);
    assert_eq!(town.told(id).as_deref(), Some("delivered"));
    assert!(town.mail("c").is_empty() && town.mail("a").is_empty());
}

#[test]
fn the_sender_is_who_the_session_is_and_whether_that_was_proven_is_said() {
    let mut town = Town::linked(&["a", "b"]);
    // Whatever else the frame says of it.
    let frame = json!({"type": "peer_send", "id": 1, "to": "b", "text": "x", "from": "c", "from_authenticated": true});
    town.say("a", frame);
    let mail = town.mail("b");
    assert_eq!((&mail[0]["from"], &mail[0]["from_authenticated"]), (&json!("a"), &json!(false)));
    town.order_send("a", "b", "y");
    assert_eq!(town.mail("b")[0]["from_authenticated"], json!(true));
}

#[test]
fn a_guest_that_takes_no_part_gets_no_mail_and_its_senders_do_not_wait() {
    let mut town = Town::of(&["a"]);
    town.join_as("plain", "");
    town.link("a", "plain");
    let id = town.order_send("a", "plain", "x");
    assert_eq!(town.told(id).as_deref(), Some("queued"));
    town.pass(secs(40));
    assert!(town.mail("plain").is_empty());
    town.leave("plain");
    town.enter("plain");
    assert_eq!(town.texts("plain"), ["x"]);
}

#[test]
fn the_state_of_a_peer_says_nothing_of_that_ones_other_peers() {
    let mut town = Town::linked(&["a", "b"]);
    town.enter("c");
    town.link("b", "c");
    town.say("a", json!({"type": "status", "id": 7, "guests": ["a", "b"]}));
    let result = town.frames("a", "result").remove(0);
    let rows = result["data"]["guests"].as_array().unwrap();
    assert_eq!((&rows[0]["peers"], &rows[1]["peers"]), (&json!(["b"]), &json!(["a"])));
    town.say("a", json!({"type": "wait", "id": 8, "guests": ["b"], "for": "reachable"}));
    assert_eq!(town.frames("a", "result").remove(0)["data"]["guests"][0]["peers"], json!(["a"]));
}
