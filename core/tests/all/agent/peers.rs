//! What local clients do about peers, and what they follow.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::boundary::{CloseReason, Deadline, PeerCred, Wakeup};
use castra_core::event::Fact;
use castra_core::id::{ConnId, EffectId};
use castra_core::peers::{InboxSettings, MessageId, Policy};
use castra_core::{Input, peers};
use serde_json::{Value, json};

const ID: &str = "msg-01010101010101010101010101010101";

fn world() -> (World, ConnId) {
    let mut world = World::new(with_inbox(InboxSettings::default()));
    let link = world.up();
    (world, link)
}

fn ask(world: &mut World, client: ConnId, method: &str, params: &Value) {
    world.say(client, format!("{}\n", json!({"id": method, "method": method, "params": params})));
}

fn lines(world: &mut World, client: ConnId) -> Vec<Value> {
    world.text(client).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The only reply: its name and its document.
fn reply(world: &mut World, client: ConnId) -> (String, Value) {
    let mut lines = lines(world, client);
    assert_eq!(lines.len(), 1, "{lines:?}");
    (lines[0]["event"].as_str().unwrap().to_owned(), lines[0]["data"].take())
}

fn code(world: &mut World, client: ConnId) -> String {
    let (event, data) = reply(world, client);
    assert_eq!(event, "error");
    data["code"].as_str().unwrap().to_owned()
}

fn said(world: &mut World, link: ConnId) -> Vec<Value> {
    frames(&world.sent(link)).iter().map(|json| serde_json::from_str(json).unwrap()).collect()
}

fn tell(world: &mut World, link: ConnId, frame_json: &Value) {
    world.say(link, frame(&frame_json.to_string()));
}

fn offer(id: u64, from: &str) -> Value {
    json!({"type": "peer_offer", "id": id, "from": from, "from_authenticated": false})
}

/// A message comes and is kept.
fn keep(world: &mut World, link: ConnId, number: u8) {
    let id = MessageId([number; 16]);
    tell(
        world,
        link,
        &json!({"type": "peer_message", "id": id, "from": "builder", "from_authenticated": false,
                "text": format!("text {number}"), "sent_at": "2026-11-20T10:00:00.000Z", "wake": false}),
    );
    let write = |out: &Out| if let Out::Persist(effect, _) = out { Some(*effect) } else { None };
    let effect: EffectId = world.log.iter().rev().find_map(write).expect("a write");
    world.give(Input::Done { effect, result: Ok(()) });
}

#[test]
fn what_is_asked_about_peers_reaches_the_broker_and_its_outcome_the_client() {
    let (mut world, link) = world();
    let client = world.client();
    let cases = [
        (
            "register_peer",
            json!({"name": "builder", "source": "devbox"}),
            json!({"type": "peer_register", "id": 1, "name": "builder", "timeout_ms": 4500}),
            json!({"outcome": "registered"}),
            "peer_registered",
            json!({"result": {"peer": "builder", "source": "devbox"}, "outcome": "registered"}),
        ),
        (
            "unregister_peer",
            json!({"name": "builder", "timeout_ms": 400}),
            json!({"type": "peer_unregister", "id": 2, "name": "builder", "timeout_ms": 300}),
            json!({"outcome": "unregistered"}),
            "peer_unregistered",
            json!({"result": {"peer": "builder", "source": "devbox"}, "outcome": "unregistered"}),
        ),
        (
            "list_peers",
            json!({}),
            json!({"type": "peer_list", "id": 3}),
            json!({"outcome": "listed", "peers": [{"name": "devbox", "visibility": "self", "state": "live",
                   "reachable": true, "last_handshake_age_ms": 5, "last_sent_at": null,
                   "last_received_at": null, "queued": 0}]}),
            "peers_listed",
            json!({"peers": [{"name": "devbox", "visibility": "self", "state": "live",
                   "reachable": true, "last_handshake_age_ms": 5, "last_sent_at": null,
                   "last_received_at": null, "queued": 0}]}),
        ),
        (
            "send_to_peer",
            json!({"to": "builder", "text": "hello", "wake": false, "queue": false, "key": "k"}),
            json!({"type": "peer_send", "id": 4, "to": "builder", "text": "hello", "wake": false,
                   "queue": false, "key": "k", "timeout_ms": 4500}),
            json!({"outcome": "delivered", "message_id": ID}),
            "peer_message_result",
            json!({"id": ID, "outcome": "delivered"}),
        ),
        (
            "send_to_peer",
            json!({"to": "builder", "text": "hello"}),
            json!({"type": "peer_send", "id": 5, "to": "builder", "text": "hello", "wake": true,
                   "queue": true, "timeout_ms": 4500}),
            json!({"outcome": "expired", "message_id": ID, "reason": "unlinked"}),
            "peer_message_result",
            json!({"id": ID, "outcome": "expired", "reason": "unlinked"}),
        ),
        (
            "restore",
            json!({"guest": "builder", "timeout_ms": 9000}),
            json!({"type": "restore", "id": 6, "guests": ["builder"], "any": false, "timeout_ms": 9000}),
            json!(null),
            "restored",
            json!({"guest": "builder", "started": true}),
        ),
    ];
    for (number, (method, params, expected, outcome, event, data)) in cases.into_iter().enumerate() {
        ask(&mut world, client, method, &params);
        assert_eq!(said(&mut world, link), [expected]);
        let id = number + 1;
        if outcome.is_null() {
            tell(&mut world, link, &json!({"type": "result", "of": method, "id": id, "data": data}));
        } else {
            let mut frame = json!({"type": "peer_result", "id": id});
            frame.as_object_mut().unwrap().extend(outcome.as_object().unwrap().clone());
            tell(&mut world, link, &frame);
            tell(&mut world, link, &frame);
        }
        let lines = lines(&mut world, client);
        assert_eq!(lines, [json!({"id": method, "event": event, "data": data})]);
    }
}

#[test]
fn every_other_outcome_is_an_error_of_that_name() {
    let (mut world, link) = world();
    let client = world.client();
    let outcomes =
        ["self", "rejected", "busy", "not_peer", "full", "too_large", "not_reachable", "storage_failed"];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        ask(&mut world, client, "send_to_peer", &json!({"to": "builder", "text": "x"}));
        world.take();
        tell(&mut world, link, &json!({"type": "peer_result", "id": number + 1, "outcome": outcome}));
        assert_eq!(code(&mut world, client), outcome);
    }
    // What doesn't fit the question is the broker's mistake.
    ask(&mut world, client, "list_peers", &json!({}));
    world.take();
    tell(&mut world, link, &json!({"type": "peer_result", "id": 9, "outcome": "registered"}));
    assert_eq!(code(&mut world, client), "internal");
}

#[test]
fn a_question_about_peers_is_answered_by_its_deadline_and_when_the_link_is_lost() {
    let (mut world, link) = world();
    let client = world.client();
    ask(&mut world, client, "list_peers", &json!({}));
    world.take();
    assert_eq!(world.wait, Some(Deadline { at: world.now + seconds(5), why: Wakeup::Command }));
    world.live(seconds(5));
    assert_eq!(code(&mut world, client), "timeout");
    ask(&mut world, client, "register_peer", &json!({"name": "builder"}));
    world.take();
    world.closed(link);
    assert_eq!(code(&mut world, client), "not_reachable");
}

#[test]
fn nothing_is_sent_to_a_broker_that_is_not_there() {
    let mut world = World::new(with_inbox(InboxSettings::default()));
    let client = world.client();
    world.take();
    for (method, params) in [
        ("register_peer", json!({"name": "builder"})),
        ("unregister_peer", json!({"name": "builder"})),
        ("list_peers", json!({})),
        ("send_to_peer", json!({"to": "builder", "text": "x"})),
        ("restore", json!({"guest": "builder"})),
    ] {
        ask(&mut world, client, method, &params);
        assert_eq!(code(&mut world, client), "not_reachable", "{method}");
    }
    for (method, event) in [("hold", "held"), ("inbox", "inbox"), ("events", "events")] {
        ask(&mut world, client, method, &json!({}));
        assert_eq!(reply(&mut world, client).0, event);
    }
}

#[test]
fn nothing_is_done_in_another_guests_name_nor_without_an_inbox() {
    let (mut world, _) = world();
    let client = world.client();
    for (method, params) in [
        ("register_peer", json!({"name": "builder", "source": "other"})),
        ("unregister_peer", json!({"name": "builder", "source": "other"})),
        ("list_peers", json!({"name": "other"})),
        ("send_to_peer", json!({"from": "other", "to": "builder", "text": "x"})),
        ("inbox", json!({"name": "other"})),
        ("token_list", json!({})),
    ] {
        ask(&mut world, client, method, &params);
        assert_eq!(code(&mut world, client), "forbidden", "{method}");
    }
    let mut world = World::new(config());
    world.up();
    let client = world.client();
    for (method, params) in [
        ("register_peer", json!({"name": "builder"})),
        ("list_peers", json!({})),
        ("send_to_peer", json!({"to": "builder", "text": "x"})),
        ("inbox", json!({})),
        ("events", json!({})),
        ("hold", json!({})),
        ("peer_answer", json!({"name": "builder", "accept": true})),
    ] {
        ask(&mut world, client, method, &params);
        assert_eq!(code(&mut world, client), "forbidden", "{method}");
    }
}

#[test]
fn a_message_that_can_not_be_is_refused_before_it_is_sent() {
    let (mut world, link) = world();
    let client = world.client();
    let longest = "x".repeat(peers::TEXT_MAX);
    ask(&mut world, client, "send_to_peer", &json!({"to": "builder", "text": longest}));
    assert_eq!(said(&mut world, link).len(), 1);
    for (text, key, expected) in [
        (format!("{longest}x"), "", "too_large"),
        // Its frame is: each of these takes six bytes there.
        ("\u{1}".repeat(16_000), "", "too_large"),
        (
            "x".to_owned(),
            "12345678901234567890123456789012345678901234567890123456789012345",
            "invalid_request",
        ),
    ] {
        ask(&mut world, client, "send_to_peer", &json!({"to": "builder", "text": text, "key": key}));
        assert_eq!(code(&mut world, client), expected);
    }
}

#[test]
fn whoever_wants_to_be_a_peer_waits_for_the_answer_as_long_as_the_broker_does() {
    let (mut world, link) = world();
    let client = world.client();
    tell(&mut world, link, &offer(7, "builder"));
    let builder = "builder".parse().unwrap();
    assert_eq!(world.events(), [Fact::PeerOffer { from: builder, from_authenticated: false }]);
    ask(&mut world, client, "peer_answer", &json!({"name": "other", "accept": true}));
    assert_eq!(code(&mut world, client), "unknown");
    let reason = "\u{7}no ".repeat(100);
    ask(&mut world, client, "peer_answer", &json!({"name": "builder", "accept": false, "reason": reason}));
    let log = world.log.clone();
    let answer = said(&mut world, link).remove(0);
    assert_eq!(
        (&answer["type"], &answer["id"], &answer["accept"]),
        (&json!("peer_answer"), &json!(7), &json!(false))
    );
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.len() <= peers::REASON_MAX && reason.starts_with("?no ?no"), "{reason}");
    let told = log.iter().any(|out| matches!(out, Out::Sent(conn, line) if *conn == client
        && String::from_utf8_lossy(line).contains(r#""event":"peer_answered","data":{"name":"builder","accept":false}"#)));
    assert!(told, "{log:?}");
    // Once.
    ask(&mut world, client, "peer_answer", &json!({"name": "builder", "accept": true}));
    assert_eq!(code(&mut world, client), "unknown");

    // The newest offer of a name counts, and only until the broker gives up.
    tell(&mut world, link, &offer(8, "builder"));
    tell(&mut world, link, &offer(9, "builder"));
    assert_eq!(world.wait, Some(Deadline { at: world.now + seconds(2), why: Wakeup::Offer }));
    world.live(millis(1999));
    world.take();
    ask(&mut world, client, "peer_answer", &json!({"name": "builder", "accept": true}));
    assert_eq!(said(&mut world, link), [json!({"type": "peer_answer", "id": 9, "accept": true})]);
    for ended in ["late", "added", "lost"] {
        tell(&mut world, link, &offer(10, "builder"));
        match ended {
            "late" => world.live(seconds(2)),
            "added" => tell(&mut world, link, &json!({"type": "peer_added", "name": "builder"})),
            _ => world.closed(link),
        }
        world.take();
        ask(&mut world, client, "peer_answer", &json!({"name": "builder", "accept": true}));
        assert_eq!(code(&mut world, client), "unknown", "{ended}");
    }
}

#[test]
fn open_offers_are_bounded() {
    let (mut world, link) = world();
    for number in 0..70 {
        tell(&mut world, link, &offer(number, &format!("guest{number}")));
    }
    assert_eq!(world.events().len(), 64);
}

#[test]
fn a_hold_is_told_to_this_broker_and_to_the_next_until_it_is_resumed() {
    let (mut world, link) = world();
    let client = world.client();
    let stated = |hold: bool| {
        let mut frame = json!({"type": "peer_policy", "policy": "default"});
        if hold {
            frame["hold"] = json!(true);
        }
        frame
    };
    for (method, event, expected) in
        [("hold", "held", Some(true)), ("hold", "held", None), ("resume", "resumed", Some(false))]
    {
        ask(&mut world, client, method, &json!({}));
        let log = world.log.clone();
        assert_eq!(said(&mut world, link), expected.map(stated).into_iter().collect::<Vec<_>>());
        world.log = log;
        assert_eq!(reply(&mut world, client), (event.to_owned(), json!({})));
    }
    ask(&mut world, client, "hold", &json!({}));
    world.closed(link);
    world.live(seconds(2));
    let link = world.connect();
    world.say(link, [GREETING, challenge_line("none").as_bytes()].concat());
    world.take();
    world.say(link, ok_line(""));
    assert_eq!(said(&mut world, link), [stated(true)]);
}

#[test]
fn an_inbox_is_read_after_a_message_and_followed() {
    let (mut world, link) = world();
    (1..=4).for_each(|number| keep(&mut world, link, number));
    let client = world.client();
    world.take();
    let texts = |data: &Value| {
        let messages = data["messages"].as_array().unwrap().iter();
        messages.map(|message| message["text"].as_str().unwrap()[5..].to_owned()).collect::<String>()
    };
    for (params, expected) in [
        (json!({}), "1234"),
        (json!({"name": "devbox", "after": MessageId([2; 16])}), "34"),
        (json!({"after": MessageId([9; 16])}), "1234"),
        (json!({"limit": 3}), "234"),
        (json!({"limit": 0, "follow": true}), ""),
    ] {
        ask(&mut world, client, "inbox", &params);
        let (event, data) = reply(&mut world, client);
        assert_eq!((event.as_str(), texts(&data).as_str()), ("inbox", expected), "{params}");
    }
    keep(&mut world, link, 5);
    let lines = lines(&mut world, client);
    let delivered = now(world.now).wall;
    let message = json!({"id": MessageId([5; 16]), "from": "builder", "from_authenticated": false,
                         "text": "text 5", "sent_at": "2026-11-20T10:00:00.000Z",
                         "delivered_at": delivered, "wake": false});
    assert_eq!(lines, [json!({"event": "inbox", "data": {"messages": [message]}})]);
    // One that follows stays, though it says no more.
    world.give(Input::Finished { conn: client });
    keep(&mut world, link, 6);
    assert_eq!(texts(&reply(&mut world, client).1), "6");
    world.give(Input::Drain { deadline: world.now + seconds(3) });
    assert!(world.take().contains(&Out::Close(client, CloseReason::Drained)));
}

#[test]
fn a_follower_that_does_not_read_is_waited_for_and_misses_no_message() {
    let (mut world, link) = world();
    let client = world.client_with(Some(PeerCred { uid: 0, gid: 0, pid: 1 }), 100);
    ask(&mut world, client, "inbox", &json!({"follow": true}));
    let mut text = world.text(client);
    (1..=9).for_each(|number| keep(&mut world, link, number));
    text += &world.text(client);
    for _ in 0..100 {
        world.give(Input::Writable { conn: client, room: 50 });
        text += &world.text(client);
    }
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let texts: Vec<Value> =
        messages.map(|line| line["data"]["messages"][0]["text"].clone()).skip(1).collect();
    assert_eq!(texts, (1..=9).map(|number| json!(format!("text {number}"))).collect::<Vec<_>>());
}

#[test]
fn events_are_read_from_a_cursor_filtered_and_followed() {
    let (mut world, link) = world();
    tell(&mut world, link, &json!({"type": "peer_added", "name": "builder"}));
    let client = world.client();
    world.take();
    let mut events = |params: Value| {
        ask(&mut world, client, "events", &params);
        let (event, data) = reply(&mut world, client);
        assert_eq!(event, "events");
        let found = data["events"].as_array().unwrap();
        let kinds = found.iter().map(|event| event["kind"].as_str().unwrap().to_owned());
        (kinds.collect::<Vec<_>>(), data["cursor"].as_str().unwrap().to_owned(), data["gap"] == true)
    };
    let (all, newest, gap) = events(json!({}));
    assert_eq!((all, gap), (["link.dialing", "link.up", "peer.registered"].map(String::from).into(), false));
    let (run, number) = newest.split_once('-').unwrap();
    assert_eq!(number, "3");
    assert_eq!(events(json!({"kinds": ["link.*"], "limit": 1})).0, ["link.dialing"]);
    assert_eq!(events(json!({"since": format!("{run}-2")})).0, ["peer.registered"]);
    assert!(events(json!({"since": "4000000000-2"})).2, "of another run");
    assert_eq!(events(json!({"since": format!("{run}-99")})), (vec![], newest.clone(), true));
    assert_eq!(events(json!({"follow": true, "kinds": ["peer.*"]})), (vec![], newest.clone(), false));
    tell(&mut world, link, &offer(1, "builder"));
    world.closed(link);
    let lines = lines(&mut world, client);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["event"], &lines[0]["data"]["kind"]), (&json!("peer.offer"), &json!("peer.offer")));
    assert_eq!(lines[0]["data"]["cursor"], format!("{run}-4"));
}

#[test]
fn a_follower_that_the_ring_overtook_is_told_of_the_gap() {
    let mut world = World::new(with_inbox(InboxSettings { event_ring: 4, ..InboxSettings::default() }));
    let link = world.up();
    let client = world.client_with(Some(PeerCred { uid: 0, gid: 0, pid: 1 }), 10);
    ask(&mut world, client, "events", &json!({"follow": true}));
    for number in 0..10 {
        tell(&mut world, link, &offer(number, "builder"));
    }
    world.give(Input::Writable { conn: client, room: ROOM });
    let text = world.text(client);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["events", "gap", "peer.offer", "peer.offer", "peer.offer", "peer.offer"]);
    assert!(lines[1]["data"]["cursor"].as_str().unwrap().ends_with("-8"));
    ask(&mut world, client, "events", &json!({"since": lines[0]["data"]["cursor"]}));
    assert_eq!(reply(&mut world, client).1["gap"], true);
}

#[test]
fn a_policy_of_accept_or_ask_is_stated_too() {
    for policy in [Policy::Accept, Policy::Ask] {
        let mut world = World::new(with_inbox(InboxSettings { policy, ..InboxSettings::default() }));
        let link = world.connect();
        world.say(link, [GREETING, challenge_line("none").as_bytes()].concat());
        world.take();
        world.say(link, ok_line(""));
        assert_eq!(said(&mut world, link), [json!({"type": "peer_policy", "policy": policy})]);
    }
}

#[test]
fn an_inbox_is_read_on_from_a_message_and_otherwise_from_its_newest() {
    let (mut world, link) = world();
    for number in 1..=5 {
        keep(&mut world, link, number);
    }
    let client = world.client();
    world.take();
    let mut texts = |params: Value| {
        ask(&mut world, client, "inbox", &params);
        let (_, data) = reply(&mut world, client);
        let messages = data["messages"].as_array().unwrap().clone();
        let ids =
            messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        (messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), ids)
    };
    let (newest, _) = texts(json!({"limit": 2}));
    assert_eq!(newest, ["text 4", "text 5"]);
    let (all, ids) = texts(json!({}));
    assert_eq!(all.len(), 5);
    let (next, _) = texts(json!({"after": ids[0], "limit": 2}));
    assert_eq!(next, ["text 2", "text 3"]);
    assert_eq!(texts(json!({"after": ids[4]})).0, Vec::<String>::new());
}
