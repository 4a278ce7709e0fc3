//! Who gets no stream to a guest's terminals, and what breaks one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::common;
use crate::strait::*;
use castra_core::config::AgentConfig;
use castra_core::event::TunnelEnd;
use serde_json::json;

fn request(params: &str) -> String {
    format!("{{\"id\":1,\"method\":\"terminals\",\"params\":{params}}}\n")
}

#[test]
fn a_guest_must_be_known_there_and_have_terminals() {
    let mut strait = Strait::new();
    assert_eq!(strait.refusal(&request(r#"{"guest":"stranger"}"#)), "unknown_guest");
    assert_eq!(strait.refusal(&request("{}")), "invalid_request");
    strait.break_link();
    assert_eq!(strait.refusal(&request(r#"{"guest":"devbox"}"#)), "not_reachable");
    let mut strait = Strait::with(1, |_| {}, |config| config.terminals = false);
    assert_eq!(strait.refusal(&request(r#"{"guest":"devbox"}"#)), "unsupported");
}

#[test]
fn a_guest_gives_its_terminals_to_a_proven_broker_alone_unless_told_otherwise() {
    let unkeyed = |config: &mut AgentConfig| config.token = None;
    let mut strait = Strait::with(1, |_| {}, unkeyed);
    let client = strait.client();
    strait.say(client, REQUEST);
    strait.pass(ms(20));
    let text = String::from_utf8(strait.at(client).got.clone()).unwrap();
    assert!(text.contains("--trust-unkeyed-broker") && text.contains(r#""forbidden""#), "{text}");
    assert!(strait.at(client).closed && strait.dialled.is_empty());
    strait.pass(ms(5000));
    let trusting = |config: &mut AgentConfig| (config.token, config.trust_unkeyed_broker) = (None, true);
    Strait::with(1, |_| {}, trusting).stream();
}

#[test]
fn streams_are_bounded_for_a_guest_and_in_all_and_places_become_free() {
    let mut strait = Strait::with(1, |config| config.tunnel.streams_per_guest = 2, |_| {});
    let (client, _) = strait.stream();
    strait.stream();
    assert_eq!(strait.refusal(&request(r#"{"guest":"devbox"}"#)), "busy");
    let now = strait.now;
    strait.broker.cut(now, client);
    strait.pass(ms(20));
    strait.stream();
    let mut strait = Strait::with(1, |config| config.tunnel.streams_max = 1, |_| {});
    strait.stream();
    assert_eq!(strait.refusal(&request(r#"{"guest":"devbox"}"#)), "busy");
    // The guest counts, too.
    let mut strait = Strait::with(1, |_| {}, |config| config.tunnel.streams_per_guest = 1);
    strait.stream();
    assert_eq!(strait.refusal(&request(r#"{"guest":"devbox"}"#)), "busy");
}

#[test]
fn terminals_that_are_not_there_or_do_not_answer_are_an_answer_in_time() {
    let mut strait = Strait::new();
    strait.terminals = Answer::Refused;
    assert_eq!(strait.refusal(&request(r#"{"guest":"devbox"}"#)), "refused");
    strait.terminals = Answer::Nothing;
    let client = strait.client();
    strait.say(client, REQUEST);
    strait.pass(ms(3990));
    assert!(strait.at(client).got.is_empty());
    strait.pass(ms(20));
    assert_eq!(strait.refused(client), "timeout");
    assert_eq!(strait.agent.cancelled.len(), 1);
    // An agent that doesn't run: the broker's own bound, or the caller's.
    strait.frozen = true;
    for (params, bound) in [(r#"{"guest":"devbox"}"#, 5000), (r#"{"guest":"devbox","timeout_ms":300}"#, 300)]
    {
        let client = strait.client();
        strait.say(client, request(params).as_bytes());
        strait.pass(ms(bound - 10));
        assert!(strait.at(client).got.is_empty());
        strait.pass(ms(20));
        assert_eq!(strait.refused(client), "timeout");
    }
    // What the agent finds when it goes on is over: nothing is opened for nobody.
    strait.terminals = Answer::Opened;
    (strait.frozen, strait.agent.cancelled) = (false, Vec::new());
    strait.pass(ms(1000));
    assert!(strait.dialled.iter().all(|conn| strait.terminal(*conn).closed));
    assert_eq!(strait.broker.engine.sizes().streams, 0);
    strait.stream();
}

#[test]
fn a_client_that_gives_up_waiting_leaves_nothing_behind() {
    let mut strait = Strait::new();
    strait.terminals = Answer::Nothing;
    let client = strait.client();
    strait.say(client, REQUEST);
    strait.pass(ms(20));
    let now = strait.now;
    strait.broker.cut(now, client);
    strait.pass(ms(20));
    assert_eq!(strait.broker.engine.sizes().streams, 0);
    assert_eq!(strait.agent.cancelled.len(), 1);
    assert_eq!(strait.ends(), (Vec::new(), Vec::new()));
}

#[test]
fn terminals_need_a_connection_of_their_own() {
    let mut strait = Strait::new();
    let client = strait.client();
    let wait = br#"{"id":9,"method":"wait","params":{"guests":["devbox"],"for":"waiting","timeout_ms":500}}"#;
    strait.say(client, wait);
    strait.say(client, b"\n");
    strait.say(client, REQUEST);
    strait.say(client, b"{\"id\":2,\"method\":\"info\"}\n");
    strait.pass(ms(600));
    let replies = [strait.reply(client), strait.reply(client)];
    assert_eq!((&replies[0]["id"], &replies[0]["data"]["code"]), (&json!(1), &json!("invalid_request")));
    assert_eq!((&replies[1]["id"], &replies[1]["data"]["code"]), (&json!(9), &json!("timeout")));
    assert!(strait.at(client).closed && strait.at(client).got.is_empty());
}

/// A guest that is played by bytes and has a stream.
fn played() -> (common::World, castra_core::id::ConnId, castra_core::id::ConnId, u64) {
    let mut world = common::World::new(|_| {});
    let (guest, nonce, _) = world.hello("devbox", ",terminals-v1");
    world.write(guest, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(guest).starts_with("ok "));
    let client = world.open_control();
    world.write(client, REQUEST);
    let asked = world.frame(guest).unwrap();
    assert_eq!((&asked["type"], &asked["window"]), (&json!("term_open"), &json!(128 * 1024)));
    let stream = asked["stream"].as_u64().unwrap();
    world.send(guest, &json!({"type": "term_opened", "stream": stream, "window": 1000}).to_string());
    assert!(world.line(client).contains(r#""event":"terminals""#));
    (world, guest, client, stream)
}

fn closed(world: &mut common::World, guest: castra_core::id::ConnId, stream: u64) {
    let end = json!({"type": "term_close", "stream": stream, "reason": "protocol"});
    let frames: Vec<_> = std::iter::from_fn(|| world.frame(guest)).collect();
    assert!(frames.contains(&end), "{frames:?}");
}

#[test]
fn a_guest_that_sends_more_than_it_may_or_after_its_end_loses_the_stream_and_not_the_session() {
    let (mut world, guest, client, stream) = played();
    world.give_room(client, 10);
    let data = "A".repeat(4 * 10 * 1024);
    for _ in 0..5 {
        world.send(guest, &json!({"type": "term", "stream": stream, "data": data}).to_string());
    }
    closed(&mut world, guest, stream);
    assert!(world.wires[&client].closed.is_some());
    assert_eq!(world.broker.sizes().streams, 0);

    let (mut world, guest, client, stream) = played();
    world.send(guest, &json!({"type": "term_end", "stream": stream}).to_string());
    assert!(world.wires[&client].finished);
    world.send(guest, &json!({"type": "term", "stream": stream, "data": "AAAA"}).to_string());
    closed(&mut world, guest, stream);
    assert!(world.wires[&client].closed.is_some() && world.wires[&guest].closed.is_none());
    assert!(world.facts().iter().any(|fact| matches!(
        fact,
        castra_core::event::Fact::TunnelClosed { reason: TunnelEnd::Protocol, .. }
    )));
}

#[test]
fn no_more_is_sent_than_the_guest_takes() {
    let (mut world, guest, client, stream) = played();
    world.write(client, &[7; 3000]);
    let sent = |world: &mut common::World| {
        let frames = std::iter::from_fn(|| world.frame(guest)).filter(|frame| frame["type"] == "term");
        frames.map(|frame| frame["data"].as_str().unwrap().len()).sum::<usize>()
    };
    assert_eq!(sent(&mut world), 1336);
    assert_eq!(sent(&mut world), 0);
    world.send(guest, &json!({"type": "term_credit", "stream": stream, "bytes": 300}).to_string());
    assert_eq!(sent(&mut world), 400);
}

#[test]
fn frames_of_streams_that_are_not_there_mean_nothing() {
    let (mut world, guest, _, stream) = played();
    for kind in ["term_end", "term_close", "term_opened", "term_refused", "term_credit", "term"] {
        let frame = json!({"type": kind, "stream": stream + 1, "window": 5, "bytes": u64::MAX, "code": "busy",
            "data": "AA==", "reason": "so"});
        world.send(guest, &frame.to_string());
    }
    world.send(guest, &json!({"type": "term_ack", "bytes": u64::MAX}).to_string());
    world.send(guest, &json!({"type": "term_credit", "stream": stream, "bytes": u64::MAX}).to_string());
    world.send(guest, &json!({"type": "term_opened", "stream": stream, "window": 9}).to_string());
    assert_eq!(world.broker.sizes().streams, 1);
    // Guests open none.
    while world.frame(guest).is_some() {}
    world.send(guest, &json!({"type": "term_open", "stream": 9, "window": 9}).to_string());
    assert_eq!(world.frame(guest).unwrap()["code"], "unknown-type");
    assert!(world.wires[&guest].closed.is_none());
}

#[test]
fn data_that_is_not_base64_or_too_much_ends_the_session() {
    for data in ["?", "AAA", &"A".repeat(44 * 1024)] {
        let (mut world, guest, client, stream) = played();
        world.send(guest, &json!({"type": "term", "stream": stream, "data": data}).to_string());
        assert_eq!(common::ends(&world), [castra_core::event::SessionEnd::BadFrame]);
        assert!(world.wires[&client].closed.is_some());
    }
    // Written in another way it is still the same.
    let (mut world, guest, client, stream) = played();
    world.send(guest, &format!(r#"{{"data":"\/\u0041==", "stream":{stream},"type":"term","more":1}}"#));
    assert_eq!(world.take(client), [0xFC]);
}

#[test]
fn a_client_inside_the_guest_reaches_the_terminals_without_the_link() {
    let mut strait = Strait::new();
    strait.break_link();
    strait.echoes = true;
    let client = strait.local();
    let said = pattern(1, 500_000);
    let port = strait.terminal_mut(client);
    port.inbound.extend(b"{\"id\":1,\"method\":\"terminals\"}\n");
    port.inbound.extend(&said);
    port.ends = true;
    strait.settle();
    let port = strait.terminal_mut(client);
    assert_eq!(line(port)["data"]["guest"], "devbox");
    assert!(port.got == said && port.closed);
    assert!(strait.terminal(strait.dialled[0]).closed);
    // Whoever doesn't read is waited for, and no longer than it is there.
    strait.echoes = false;
    let client = strait.local();
    let port = strait.terminal_mut(client);
    port.reads = false;
    port.inbound.extend(b"{\"id\":1,\"method\":\"terminals\",\"params\":{\"guest\":\"devbox\"}}\n");
    strait.settle();
    let terminal = strait.dialled[1];
    strait.terminal_mut(terminal).inbound.extend(pattern(2, 1_000_000));
    strait.settle();
    assert!(strait.terminal(terminal).inbound.len() > 700_000);
    let now = strait.now;
    strait.agent.cut(now, client);
    assert!(strait.terminal(terminal).closed);
}

#[test]
fn clients_inside_the_guest_are_refused_with_a_reason_and_in_time() {
    let refused = |strait: &mut Strait, params: &str, wait: u64| {
        let client = strait.local();
        strait.terminal_mut(client).inbound.extend(request(params).as_bytes());
        strait.pass(ms(wait));
        let port = strait.terminal_mut(client);
        assert!(port.closed);
        line(port)["data"]["code"].as_str().unwrap().to_owned()
    };
    let mut strait = Strait::with(1, |_| {}, |config| config.terminals = false);
    assert_eq!(refused(&mut strait, "{}", 0), "unsupported");
    let mut strait = Strait::with(1, |_| {}, |config| config.tunnel.streams_per_guest = 1);
    assert_eq!(refused(&mut strait, r#"{"guest":"other"}"#, 0), "forbidden");
    strait.terminals = Answer::Refused;
    assert_eq!(refused(&mut strait, "{}", 0), "refused");
    strait.terminals = Answer::Nothing;
    assert_eq!(refused(&mut strait, "{}", 4000), "timeout");
    let waiting = strait.local();
    strait.terminal_mut(waiting).inbound.extend(request("{}").as_bytes());
    strait.settle();
    assert_eq!(refused(&mut strait, "{}", 0), "busy");
    let (now, deadline) = (strait.now, strait.now.boot + ms(2000));
    strait.agent.give(now, castra_core::Input::Drain { deadline });
    strait.settle();
    assert_eq!(line(strait.terminal_mut(waiting))["data"]["code"], "shutting_down");
}
