//! A guest that is not there is started.
#![allow(clippy::unwrap_used)]

use crate::common::name;
use crate::peering::{Town, secs};
use serde_json::{Value, json};

fn town() -> Town {
    let mut town = Town::with(|config| {
        config.guests = vec![name("a"), name("b"), name("bare")];
        config.peers.restorable = vec![name("b")];
    });
    town.enter("a");
    town
}

fn restore(town: &mut Town, guest: &str) -> u64 {
    town.order("restore", json!({"guest": guest}))
}

fn code(answer: &Value) -> &str {
    answer["data"]["code"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn one_that_is_reachable_need_not_be_started() {
    let mut town = town();
    town.enter("b");
    let id = restore(&mut town, "b");
    let answer = town.answer(id).unwrap();
    assert_eq!(
        (answer["event"].as_str(), &answer["data"]),
        (Some("restored"), &json!({"guest": "b", "started": false}))
    );
    assert!(town.starts.is_empty());
}

#[test]
fn it_is_restored_once_it_is_reachable_however_long_its_command_runs() {
    for ends_before in [true, false] {
        let mut town = town();
        let id = restore(&mut town, "b");
        assert_eq!(town.starts.len(), 1);
        assert_eq!(town.events("guest.started"), ["b"]);
        if ends_before {
            town.finish_start(true);
        }
        town.pass(secs(10));
        assert!(town.answer(id).is_none());
        town.enter("b");
        assert_eq!(town.answer(id).unwrap()["data"], json!({"guest": "b", "started": true}));
        if !ends_before {
            town.finish_start(true);
        }
        assert!(town.answer(id).is_none());
    }
}

#[test]
fn a_command_that_fails_is_the_answer() {
    let mut town = town();
    let ids = [restore(&mut town, "b"), restore(&mut town, "b")];
    town.finish_start(false);
    for id in ids {
        let answer = town.answer(id).unwrap();
        assert_eq!(code(&answer), "refused");
        let text = answer["data"]["message"].as_str().unwrap();
        assert!(text.contains("exit status 3") && text.contains('b'), "{text}");
    }
    // Another try is another start.
    restore(&mut town, "b");
    assert_eq!(town.starts.len(), 1);
}

#[test]
fn two_that_ask_are_one_start_also_when_the_command_ended_and_the_guest_still_boots() {
    let mut town = town();
    let first = restore(&mut town, "b");
    let second = restore(&mut town, "b");
    assert_eq!(town.starts.len(), 1);
    town.finish_start(true);
    let third = restore(&mut town, "b");
    assert!(town.starts.is_empty());
    town.enter("b");
    for id in [first, second, third] {
        assert_eq!(town.answer(id).unwrap()["event"], "restored");
    }
}

#[test]
fn without_a_command_it_is_known_and_not_restorable_and_the_answer_says_what_to_do() {
    let mut town = town();
    let id = restore(&mut town, "bare");
    let answer = town.answer(id).unwrap();
    assert_eq!(code(&answer), "refused");
    let text = answer["data"]["message"].as_str().unwrap();
    assert!(text.contains("not restorable") && text.contains("[guests.bare] start ="), "{text}");
    let id = restore(&mut town, "nobody");
    assert_eq!(code(&town.answer(id).unwrap()), "unknown_guest");
    assert!(town.starts.is_empty());
    town.link("a", "b");
    town.link("a", "bare");
    let listed = town.ask("list_peers", json!({"name": "a"}));
    let states: Vec<&Value> =
        listed["data"]["peers"].as_array().unwrap().iter().map(|peer| &peer["state"]).collect();
    assert_eq!(states, ["live", "restorable", "known"]);
}

#[test]
fn it_has_a_bound_the_caller_s_or_its_own() {
    let mut town = town();
    let id = restore(&mut town, "b");
    let short = town.order("restore", json!({"guest": "b", "timeout_ms": 1000}));
    town.pass(secs(1));
    assert_eq!(code(&town.answer(short).unwrap()), "timeout");
    town.pass(secs(58));
    assert!(town.answer(id).is_none());
    town.pass(secs(1));
    assert_eq!(code(&town.answer(id).unwrap()), "timeout");
}

#[test]
fn a_peer_may_start_it_and_a_stranger_may_not_even_know() {
    let mut town = town();
    town.say("a", json!({"type": "restore", "id": 1, "guests": ["b"]}));
    assert_eq!(town.hear("a").pop().unwrap()["code"], "unknown_guest");
    assert!(town.starts.is_empty());
    town.link("a", "b");
    town.hear("a");
    town.say("a", json!({"type": "restore", "id": 2, "guests": ["b"]}));
    assert_eq!(town.starts.len(), 1);
    town.enter("b");
    let answer = town.hear("a").into_iter().find(|frame| frame["id"] == 2).unwrap();
    assert_eq!(answer["data"], json!({"guest": "b", "started": true}));
    // Whoever leaves is not answered, and nothing is left of it.
    town.leave("b");
    town.say("a", json!({"type": "restore", "id": 3, "guests": ["b"]}));
    town.leave("a");
    town.enter("b");
    town.pass(secs(61));
}

#[test]
fn so_many_are_started_at_once() {
    let mut town = Town::with(|config| {
        config.guests = (0..17).map(|number| name(&format!("g{number}"))).collect();
        config.peers.restorable = config.guests.clone();
    });
    for number in 0..16 {
        restore(&mut town, &format!("g{number}"));
    }
    assert_eq!(town.starts.len(), 16);
    let id = restore(&mut town, "g16");
    assert_eq!(code(&town.answer(id).unwrap()), "busy");
    town.finish_start(true);
    let id = restore(&mut town, "g16");
    assert!(town.answer(id).is_none());
}
