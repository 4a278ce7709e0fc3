//! Mail and a link that is slow.
#![allow(clippy::unwrap_used)]

use crate::common;
use crate::common::{ROOM, ms};
use crate::peering::{Town, secs};
use serde_json::json;

#[test]
fn a_link_that_is_read_gets_any_mail_without_waiting_for_anything() {
    // Whatever is sent first leaves another amount of room.
    for first in (0..32_768).step_by(1_111) {
        let mut town = Town::linked(&["a", "b"]);
        town.leave("b");
        town.order_send("a", "b", &"x".repeat(first));
        for _ in 0..3 {
            town.order_send("a", "b", &"\"".repeat(32_500));
            town.order_send("a", "b", &"x".repeat(32_000));
        }
        town.enter("b");
        assert_eq!(town.mail("b").len(), 7, "{first}");
    }
}

#[test]
fn a_link_that_is_half_full_gets_no_mail_and_still_its_challenges() {
    let mut town = Town::linked(&["a", "b"]);
    let conn = town.guests["b"];
    town.world.give_room(conn, ROOM / 2 - 1);
    let id = town.order_send("a", "b", "x");
    assert!(town.mail("b").is_empty());
    town.pass(secs(30));
    assert!(town.mail("b").is_empty());
    assert_eq!(town.told(id).as_deref(), Some("queued"));
    assert_eq!(town.world.verdict("b"), common::REACHABLE);
    town.world.give_room(conn, ROOM);
    town.pump();
    assert_eq!(town.texts("b"), ["x"]);
}

#[test]
fn mail_goes_on_in_order_whenever_there_is_room() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let conn = town.guests["b"];
    town.world.give_room(conn, ROOM - 1);
    for number in 0..10 {
        town.order_send("a", "b", &format!("{number}{}", "x".repeat(30_000)));
    }
    let firsts = |town: &mut Town| -> String {
        town.texts("b").iter().map(|text| text.chars().next().unwrap()).collect()
    };
    assert_eq!(firsts(&mut town), "012");
    town.world.give_room(conn, ROOM - 1);
    town.pump();
    assert_eq!(firsts(&mut town), "345");
    town.pass(ms(1));
    assert_eq!(firsts(&mut town), "");
    town.world.give_room(conn, ROOM);
    town.pump();
    assert_eq!(firsts(&mut town), "6789");
}

#[test]
fn what_there_was_no_room_for_comes_again_in_its_turn() {
    let mut town = Town::linked(&["a", "b"]);
    town.acks = false;
    let conn = town.guests["b"];
    town.order_send("a", "b", "x");
    assert_eq!(town.texts("b"), ["x"]);
    // It reads, but slowly.
    for step in 0..7 {
        town.world.give_room(conn, 1000 + step);
        town.pass(secs(5));
    }
    assert!(town.texts("b").is_empty());
    town.world.give_room(conn, ROOM);
    town.pump();
    assert_eq!(town.texts("b"), ["x"]);
    town.pass(secs(29));
    assert!(town.texts("b").is_empty());
    town.pass(secs(1));
    assert_eq!(town.texts("b"), ["x"]);
}

#[test]
fn a_guest_whose_answers_have_no_room_hears_that_it_is_busy() {
    let mut town = Town::linked(&["a", "b"]);
    // More peers than a frame lists.
    let names: Vec<String> = (0..400).map(|number| format!("{number:03}{}", "x".repeat(50))).collect();
    for name in &names {
        let pair = castra_core::peers::Pair::new(common::name("a"), common::name(name)).unwrap();
        let relation = Some(castra_core::peers::Relation::Linked);
        town.ledger.apply(&castra_core::boundary::Change::SetRelation { pair, relation });
    }
    town.restart();
    town.enter("a");
    town.say("a", json!({"type": "peer_list", "id": 1}));
    assert_eq!(town.outcome("a", 1).as_deref(), Some("busy"));
    let listed = town.ask("list_peers", json!({"name": "a"}));
    assert_eq!(listed["data"]["peers"].as_array().unwrap().len(), 402);
}
