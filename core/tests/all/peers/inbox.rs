//! An inbox is read, and followed, from the host.
#![allow(clippy::unwrap_used)]

use crate::common::ROOM;
use crate::peering::{Town, secs};
use castra_core::Input;
use castra_core::boundary::CloseCause;
use castra_core::id::ConnId;
use serde_json::{Value, json};

fn texts(answer: &Value) -> Vec<String> {
    let messages = answer["data"]["messages"].as_array().unwrap_or_else(|| panic!("{answer}"));
    messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

fn lines(town: &mut Town, conn: ConnId) -> Vec<Value> {
    town.pump();
    let bytes = town.world.take(conn);
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Somebody else on the host follows `b`'s inbox.
fn follower(town: &mut Town) -> ConnId {
    let conn = town.world.open_control();
    follow(town, conn);
    assert_eq!(lines(town, conn).len(), 1);
    conn
}

fn follow(town: &mut Town, conn: ConnId) {
    let line = json!({"id": 1, "method": "inbox", "params": {"name": "b", "follow": true, "limit": 0}});
    town.world.write(conn, format!("{line}\n").as_bytes());
}

#[test]
fn it_shows_what_waits_and_what_was_delivered_the_newest_last() {
    let mut town = Town::linked(&["a", "b"]);
    town.order_send("a", "b", "one");
    town.leave("b");
    town.order_send("a", "b", "two");
    let answer = town.ask("inbox", json!({"name": "b"}));
    assert_eq!((answer["event"].as_str(), texts(&answer)), (Some("inbox"), vec!["one".into(), "two".into()]));
    let [one, two] = &answer["data"]["messages"].as_array().unwrap()[..] else { unreachable!() };
    assert!(one["delivered_at"].is_string() && two["delivered_at"].is_null());
    assert_eq!(one["from"], "a");
    assert_eq!(one.as_object().unwrap().len(), 7);
    assert!(texts(&town.ask("inbox", json!({"name": "a"}))).is_empty());
    let answer = town.ask("inbox", json!({"name": "nobody"}));
    assert_eq!(answer["data"]["code"], "unknown");
    assert_eq!(town.ask("inbox", json!({}))["data"]["code"], "invalid_request");
}

#[test]
fn after_and_limit_choose() {
    let mut town = Town::linked(&["a", "b"]);
    for number in 0..5 {
        town.order_send("a", "b", &format!("{number}"));
    }
    let all = town.inbox("b");
    let asked = |town: &mut Town, params: Value| texts(&town.ask("inbox", params));
    assert_eq!(asked(&mut town, json!({"name": "b", "after": all[1]["id"]})), ["2", "3", "4"]);
    assert_eq!(asked(&mut town, json!({"name": "b", "limit": 2})), ["3", "4"]);
    assert_eq!(asked(&mut town, json!({"name": "b", "after": all[4]["id"]})), [""; 0]);
    // One that nobody knows is before everything.
    let stranger = format!("msg-{:032x}", 1);
    assert_eq!(asked(&mut town, json!({"name": "b", "after": stranger})).len(), 5);
    let answer = town.ask("inbox", json!({"name": "b", "after": "msg-1"}));
    assert_eq!(answer["data"]["code"], "invalid_request");
}

#[test]
fn one_answer_has_a_megabyte_of_text_at_most() {
    let mut town = Town::linked(&["a", "b"]);
    for number in 0..40 {
        town.order_send("a", "b", &format!("{number:02}{}", "x".repeat(32_000)));
    }
    let id = town.order("inbox", json!({"name": "b"}));
    let answer = loop {
        if let Some(answer) = town.answer(id) {
            break answer;
        }
    };
    let texts = texts(&answer);
    assert_eq!((texts.len(), &texts[texts.len() - 1][..2]), (32, "39"));
}

#[test]
fn a_follower_gets_each_message_when_it_is_delivered() {
    let mut town = Town::linked(&["a", "b", "c"]);
    let conn = follower(&mut town);
    town.order_send("a", "b", "one");
    town.order_send("a", "c", "not b's");
    town.leave("b");
    town.order_send("a", "b", "two");
    let heard = lines(&mut town, conn);
    assert_eq!((heard.len(), texts(&heard[0])), (1, vec!["one".to_owned()]));
    assert_eq!((&heard[0]["event"], heard[0].get("id")), (&json!("inbox"), None));
    town.enter("b");
    let heard = lines(&mut town, conn);
    assert_eq!(heard.iter().flat_map(texts).collect::<Vec<_>>(), ["two"]);
    // A second time on the same connection goes on from there.
    follow(&mut town, conn);
    town.order_send("a", "b", "three");
    let heard = lines(&mut town, conn);
    assert_eq!(heard.iter().flat_map(texts).collect::<Vec<_>>(), ["three"]);
}

#[test]
fn a_slow_follower_holds_nobody_up_and_gets_what_is_still_kept() {
    let mut town = Town::with(|config| config.peers.history_messages = 10);
    town.enter("a");
    town.enter("b");
    town.link("a", "b");
    let conn = follower(&mut town);
    town.world.give_room(conn, 100);
    for number in 0..50 {
        let key = format!("k{number}");
        let params = json!({"from": "a", "to": "b", "text": format!("{number}"), "key": (number % 2 == 0).then_some(key)});
        assert_eq!(town.ask("send_to_peer", params)["data"]["outcome"], "delivered");
    }
    town.world.wires.get_mut(&conn).unwrap().blocked = false;
    town.world.give_room(conn, ROOM);
    let heard: Vec<String> = lines(&mut town, conn).iter().flat_map(texts).collect();
    let kept: Vec<String> = (40..50).map(|number| number.to_string()).collect();
    assert_eq!((&heard[0][..], &heard[1..]), ("0", &kept[..]), "one was on its way already");
}

#[test]
fn a_follower_that_will_say_no_more_still_hears() {
    let mut town = Town::linked(&["a", "b"]);
    let conn = follower(&mut town);
    town.world.handle(Input::Finished { conn });
    town.order_send("a", "b", "one");
    assert_eq!(lines(&mut town, conn).len(), 1);
    town.world.handle(Input::Closed { conn, why: CloseCause::Eof });
    town.order_send("a", "b", "two");
    assert!(town.world.take(conn).is_empty());
}

#[test]
fn of_a_follower_that_is_sent_away_nothing_stays_behind() {
    let mut town = Town::linked(&["a", "b"]);
    let before = format!("{:?}", town.world.broker).matches("Follower").count();
    for _ in 0..3 {
        let conn = follower(&mut town);
        town.world.write(conn, &vec![b'x'; 300_000]);
        assert!(town.world.is_closed(conn));
    }
    town.order_send("a", "b", "one");
    assert_eq!(format!("{:?}", town.world.broker).matches("Follower").count(), before);
    town.pass(secs(1));
}

#[test]
fn a_follower_hears_of_many_at_once_without_anything_else_happening() {
    let mut town = Town::linked(&["a", "b"]);
    let conn = follower(&mut town);
    town.leave("b");
    for number in 0..60 {
        town.order_send("a", "b", &format!("{number}"));
    }
    town.enter("b");
    let heard: Vec<String> = lines(&mut town, conn).iter().flat_map(texts).collect();
    assert_eq!(heard, (0..60).map(|number| number.to_string()).collect::<Vec<_>>());
}
