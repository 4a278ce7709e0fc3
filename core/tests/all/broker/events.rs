//! What `events`, `status`, `info` and the token list answer.
#![allow(clippy::unwrap_used)]

use crate::common::{ROOM, World, name};
use castra_core::Restored;
use castra_core::id::ConnId;
use serde_json::{Value, json};

fn one(mut replies: Vec<Value>) -> Value {
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

fn data(world: &mut World, control: ConnId, method: &str, params: &Value) -> Value {
    let request = json!({"id": 1, "method": method, "params": params});
    one(world.ask(control, &request.to_string()))["data"].clone()
}

fn numbers(answer: &Value) -> Vec<u64> {
    let number =
        |event: &Value| event["cursor"].as_str().unwrap().split('-').nth(1).unwrap().parse().unwrap();
    answer["events"].as_array().unwrap().iter().map(number).collect()
}

#[test]
fn events_begin_behind_a_cursor() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.join("a");
    for (since, expected, gap, cursor) in [
        ("7-0", vec![1, 2, 3, 4], Value::Null, "7-4"),
        ("7-2", vec![3, 4], Value::Null, "7-4"),
        ("7-3", vec![4], Value::Null, "7-4"),
        ("7-4", vec![], Value::Null, "7-4"),
        // From the future: of another life under the same number.
        ("7-5", vec![], json!(true), "7-4"),
        ("6-4", vec![1, 2, 3, 4], json!(true), "7-4"),
    ] {
        let answer = data(&mut world, control, "events", &json!({"since": since}));
        assert_eq!(numbers(&answer), expected, "since {since}");
        assert_eq!((&answer["gap"], answer["cursor"].as_str()), (&gap, Some(cursor)), "since {since}");
    }
}

#[test]
fn events_of_the_past_and_of_the_future_meet_without_a_gap_in_a_stream() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.join("a");
    // A stream has no limit.
    let answer = data(&mut world, control, "events", &json!({"since": "7-1", "follow": true, "limit": 1}));
    assert_eq!(numbers(&answer), [2, 3, 4]);
    world.join("b");
    let lines = world.replies(control);
    let cursors: Vec<&str> = lines.iter().map(|line| line["data"]["cursor"].as_str().unwrap()).collect();
    assert_eq!(cursors, ["7-5", "7-6", "7-7"]);
    // Without a cursor: from now on.
    let control = world.open_control();
    let answer = data(&mut world, control, "events", &json!({"follow": true}));
    assert_eq!((numbers(&answer), answer["cursor"].as_str()), (vec![], Some("7-7")));
    assert_eq!(answer.get("gap"), None);
}

#[test]
fn a_limit_is_a_page() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.join("a");
    for (limit, expected, cursor) in
        [(0, vec![], "7-0"), (1, vec![1], "7-1"), (4, vec![1, 2, 3, 4], "7-4"), (5, vec![1, 2, 3, 4], "7-4")]
    {
        let answer = data(&mut world, control, "events", &json!({"limit": limit}));
        assert_eq!((numbers(&answer), answer["cursor"].as_str()), (expected, Some(cursor)), "{limit}");
    }
}

#[test]
fn a_filter_takes_kinds_families_and_guests_and_all_of_them_count() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    world.join("a");
    world.join("b");
    for (filter, expected) in [
        (json!({"kinds": ["handshake.success"]}), vec![3, 6]),
        (json!({"kinds": ["handshake.*"]}), vec![2, 3, 5, 6]),
        (json!({"kinds": ["handshake"]}), vec![]),
        (json!({"kinds": ["handshake.success", "verdict.changed"]}), vec![3, 4, 6, 7]),
        (json!({"guests": ["b"]}), vec![5, 6, 7]),
        (json!({"guests": ["zz", "b", "a"]}), vec![2, 3, 4, 5, 6, 7]),
        (json!({"guests": ["b"], "kinds": ["handshake.*"]}), vec![5, 6]),
        (json!({"guests": ["zz"], "kinds": ["handshake.*"]}), vec![]),
        (json!({"guests": ["b"], "kinds": ["broker.started"]}), vec![]),
    ] {
        let answer = data(&mut world, control, "events", &filter);
        assert_eq!(numbers(&answer), expected, "{filter}");
        assert_eq!(answer["cursor"], "7-7");
    }
}

#[test]
fn a_needle_is_found_however_far_away() {
    let mut world = World::new(|_| {});
    let control = world.open_control();
    for count in [85, 1, 1, 84, 1, 1] {
        for _ in 0..count {
            let conn = world.join("hay");
            world.close(conn);
        }
        let needle = world.join("needle");
        world.close(needle);
    }
    let newest = world.events.len() as u64;
    let expected: Vec<u64> = (1..=newest)
        .filter(|number| {
            let event = &world.events[usize::try_from(number - 1).unwrap()];
            event.guest == Some(name("needle"))
        })
        .collect();
    assert!(newest > 700 && expected.len() > 20, "{newest} events, {} needles", expected.len());
    let answer = data(&mut world, control, "events", &json!({"guests": ["needle"]}));
    assert_eq!(numbers(&answer), expected);
    assert_eq!(answer["cursor"], format!("7-{newest}"));
    let none = data(&mut world, control, "events", &json!({"guests": ["nobody"]}));
    assert_eq!((numbers(&none), &none["cursor"]), (vec![], &json!(format!("7-{newest}"))));
}

#[test]
fn an_answer_that_the_ring_overtakes_says_that_some_are_lost() {
    let mut world = World::new(|config| config.event_ring = 8);
    let control = world.open_control();
    world.join("a");
    world.give_room(control, 4096);
    // The head is written; then there is no room for a piece.
    world.write(control, b"{\"id\":1,\"method\":\"events\"}\n");
    for guest in ["b", "c", "d", "e"] {
        world.join(guest);
    }
    world.give_room(control, ROOM);
    let answer = one(world.replies(control))["data"].clone();
    assert_eq!(answer["gap"], true);
    // 16 events, of which the newest 8 are kept: it goes on with the ninth.
    assert_eq!((answer["cursor"].as_str(), numbers(&answer)), (Some("7-8"), vec![]));
}

#[test]
fn status_lists_each_name_once_and_in_order() {
    let mut world = World::new(|config| config.guests = ["c", "b", "a"].map(name).to_vec());
    let control = world.open_control();
    let answer = data(&mut world, control, "status", &json!({"guests": ["c", "a", "c"]}));
    let names: Vec<&str> =
        answer["guests"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(answer["broker"]["guests"], 2);
}

#[test]
fn status_and_info_say_who_the_broker_is() {
    let mut world = World::new(|config| {
        config.identity.pid = 4711;
        config.identity.listen = vec!["tcp:[::1]:7".into()];
        config.identity.state_dir = "/run/castra".into();
        config.max_guests = 5;
        config.only_known = true;
    });
    let control = world.open_control();
    let broker = data(&mut world, control, "status", &Value::Null)["broker"].clone();
    assert_eq!(
        (&broker["state"], &broker["pid"], &broker["incarnation"], &broker["listen"], &broker["version"]),
        (&json!("serving"), &json!(4711), &json!(7), &json!(["tcp:[::1]:7"]), &json!("test"))
    );
    let info = data(&mut world, control, "info", &Value::Null);
    assert_eq!(
        info["limits"],
        json!({"guests": 5, "half_open": 1024, "control_clients": 256, "control_requests": 64,
               "request_bytes": 262_144, "frame_bytes": 65_536, "events": 8192})
    );
    assert_eq!(
        info["config"],
        json!({"window_ms": 15_000, "interval_ms": 5000, "handshake_timeout_ms": 2000,
               "require_token": false, "accept_unproven": false, "only_known": true})
    );
    assert_eq!(
        (&info["role"], &info["pid"], &info["state_dir"], &info["link"]),
        (&json!("broker"), &json!(4711), &json!("/run/castra"), &Value::Null)
    );
}

#[test]
fn tokens_are_revoked_and_guests_forgotten_only_where_there_are_any() {
    let tokens = vec![(name("b"), Some("ab".repeat(32).parse().unwrap())), (name("a"), None)];
    let mut world = World::restored(|_| {}, Restored { incarnation: 7, tokens, ..Restored::default() });
    let control = world.open_control();
    world.join("plain");
    let answer = data(&mut world, control, "token_list", &Value::Null);
    assert_eq!(answer["tokens"], json!([{"guest": "a", "valid": false}, {"guest": "b", "valid": true}]));
    for (method, guest, code) in [
        ("token_revoke", "plain", json!("unknown_guest")),
        ("token_revoke", "a", json!("unknown_guest")),
        ("token_revoke", "b", Value::Null),
        ("token_revoke", "b", json!("unknown_guest")),
        ("forget", "zz", json!("unknown_guest")),
        // A row without a token, and a token without a row.
        ("forget", "plain", Value::Null),
        ("forget", "a", Value::Null),
        ("forget", "plain", json!("unknown_guest")),
    ] {
        let answer = data(&mut world, control, method, &json!({"guest": guest}));
        assert_eq!(answer["code"], code, "{method} {guest}");
    }
}
