//! The agent's patience and its buffers, to the nanosecond and to the byte.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use crate::support::*;
use castra_core::Input;
use castra_core::boundary::{CloseReason, EffectError, EffectErrorKind, Wakeup};
use castra_core::config::AgentConfig;
use castra_core::event::{Fact, LinkEnd};
use castra_core::id::ConnId;
use serde_json::{Value, json};

const TICK: Duration = Duration::from_nanos(1);

fn down(reason: LinkEnd) -> Fact {
    Fact::LinkDown { reason, retry_ms: Some(500), error: None }
}

/// A session whose broker asks every `interval_ms`.
fn up(config: AgentConfig, interval_ms: u64) -> (World, ConnId) {
    let mut world = World::new(config);
    let conn = world.connect();
    world.say(conn, GREETING);
    world.say(conn, challenge_line("none"));
    world.say(conn, ok_line("").replace("interval_ms=5000", &format!("interval_ms={interval_ms}")));
    assert!(world.events().iter().any(|fact| matches!(fact, Fact::LinkUp { .. })));
    (world, conn)
}

fn info(world: &mut World, client: ConnId) -> Value {
    world.say(client, "{\"method\":\"info\"}\n");
    let reply: Value = serde_json::from_str(&world.text(client)).unwrap();
    reply["data"]["link"].clone()
}

#[test]
fn silence_is_excused_only_if_the_agent_itself_was_late() {
    for (interval, threshold) in [(5000, millis(2500)), (1000, seconds(1)), (2000, seconds(1))] {
        for (late, excused) in [(threshold, false), (threshold + TICK, true)] {
            let (mut world, conn) = up(config(), interval);
            world.pass(millis(3 * interval) + late);
            let expected = if excused { vec![] } else { vec![down(LinkEnd::Silent)] };
            assert_eq!(world.events(), expected, "{interval} ms, {late:?} late");
            if excused {
                assert_eq!(world.wait.unwrap().at, world.now + millis(3 * interval));
                // Once: whoever is late again has heard nothing for two periods.
                world.pass(millis(3 * interval) + late);
                assert_eq!(world.events(), [down(LinkEnd::Silent)]);
                assert!(!world.rooms.contains_key(&conn));
            }
        }
    }
}

#[test]
fn a_challenge_renews_the_excuse() {
    let (mut world, conn) = up(config(), 5000);
    for seq in 0..3 {
        world.pass(seconds(60));
        assert_eq!(world.events(), []);
        world.say(conn, frame(&challenge_frame(seq)));
        assert_eq!(frames(&world.sent(conn)), [proof_frame(seq)]);
    }
}

#[test]
fn a_broker_that_would_hardly_ever_ask_is_waited_for_three_days() {
    let (world, _) = up(config(), u64::MAX);
    let wait = world.wait.unwrap();
    assert_eq!((wait.at, wait.why), (world.now + seconds(3 * 24 * 3600), Wakeup::Session));
}

#[test]
fn a_bye_is_repeated_shortened_and_escaped() {
    let (mut world, conn) = up(config(), 5000);
    let client = world.client();
    let code = format!("\\u001b{}", "x".repeat(40));
    world.say(conn, frame(&format!(r#"{{"type":"bye","code":"{code}"}}"#)));
    assert_eq!(world.events(), [down(LinkEnd::Bye)]);
    let link = info(&mut world, client);
    let error = link["last_error"].as_str().unwrap();
    assert!(error.starts_with("bye: ") && error.is_ascii() && !error.contains('\u{1b}'), "{error}");
    assert!(error.ends_with(&"x".repeat(31)) && !error.ends_with(&"x".repeat(32)), "{error}");
}

#[test]
fn an_error_of_the_system_is_shortened() {
    let mut world = World::new(config());
    let client = world.client();
    let effect = world.dialled();
    let error = EffectError { kind: EffectErrorKind::Unreachable, message: "y".repeat(1000) };
    world.give(Input::Done { effect, result: Err(error) });
    let link = info(&mut world, client);
    assert_eq!(link["last_error"], format!("unreachable: {}", "y".repeat(160)));
}

#[test]
fn a_dial_that_the_system_gave_up_on_is_a_timeout() {
    for (kind, reason) in
        [(EffectErrorKind::TimedOut, LinkEnd::Timeout), (EffectErrorKind::Unreachable, LinkEnd::Unreachable)]
    {
        let mut world = World::new(config());
        let effect = world.dialled();
        world.take();
        world.give(Input::Done { effect, result: Err(EffectError { kind, message: "no".into() }) });
        let expected = Fact::LinkDown { reason, retry_ms: Some(500), error: Some("no".into()) };
        assert_eq!(world.events(), [expected]);
    }
}

#[test]
fn the_result_of_an_earlier_dial_does_not_touch_a_later_one() {
    let mut world = World::new(config());
    let first = world.dialled();
    world.live(millis(5500));
    let second = world.dialled();
    assert_ne!(first, second);
    world.take();
    let error = EffectError { kind: EffectErrorKind::Unreachable, message: "no".into() };
    world.give(Input::Done { effect: first, result: Err(error) });
    assert_eq!((world.take(), world.agent.ignored_inputs()), (vec![], 1));
    let late = world.open(first, ROOM);
    assert_eq!(world.take(), [Out::Close(late, CloseReason::Finished)]);
    let conn = world.open(second, ROOM);
    assert!(world.text(conn).starts_with("hello "));
}

#[test]
fn a_dial_and_a_handshake_last_to_their_deadline_and_not_longer() {
    let mut world = World::new(config());
    world.take();
    world.pass(seconds(5).checked_sub(TICK).unwrap());
    assert_eq!(world.take(), []);
    world.pass(TICK);
    assert!(world.events().contains(&down(LinkEnd::Timeout)));
    world.pass(millis(500).checked_sub(TICK).unwrap());
    assert_eq!(world.take(), []);
    world.pass(TICK);
    world.connect();
    world.take();
    world.pass(seconds(5).checked_sub(TICK).unwrap());
    assert_eq!(world.take(), []);
    world.pass(TICK);
    assert!(
        world.events().iter().any(|fact| matches!(fact, Fact::LinkDown { reason: LinkEnd::Timeout, .. }))
    );
}

#[test]
fn a_refused_link_is_closed_as_such_and_every_other_as_ended() {
    for (config, line, why) in [
        (config(), "error: busy: later\n".to_string(), CloseReason::Refused),
        (keyed(), challenge_line("none"), CloseReason::Refused),
        (config(), "what?\n".to_string(), CloseReason::Ended),
    ] {
        let mut world = World::new(config);
        let conn = world.connect();
        world.take();
        world.say(conn, &line);
        assert_eq!(world.take()[0], Out::Close(conn, why), "{line}");
    }
}

#[test]
fn info_tells_whether_the_broker_has_proven_itself() {
    let mut world = World::new(keyed());
    world.up_keyed();
    let client = world.client();
    let link = info(&mut world, client);
    assert_eq!((&link["authenticated"], &link["state"]), (&json!(true), &json!("up")));
    let (mut world, _) = up(config(), 5000);
    let client = world.client();
    assert_eq!(info(&mut world, client)["authenticated"], false);
}

#[test]
fn a_serial_stream_that_ends_while_the_agent_rests_is_closed() {
    let mut world = World::new(serial());
    let conn = world.connect();
    world.say(conn, GREETING);
    world.say(conn, "error: busy: later\n");
    world.take();
    world.give(Input::Finished { conn });
    assert_eq!(world.take(), [Out::Close(conn, CloseReason::Finished)]);
    world.live(millis(500));
    world.dialled();
}

#[test]
fn a_drain_closes_a_serial_stream_that_rests() {
    let mut world = World::new(serial());
    let conn = world.connect();
    world.say(conn, GREETING);
    world.say(conn, "error: busy: later\n");
    world.take();
    world.give(Input::Drain { deadline: world.now + seconds(3) });
    assert!(world.take().contains(&Out::Close(conn, CloseReason::Drained)));
}

/// A request for which the agent asks the broker `length` bytes of JSON.
fn question(length: usize) -> String {
    let around = r#"{"type":"status","id":1,"guests":[],"any":false,"timeout_ms":2000}"#.len();
    // A name of n bytes takes n + 3, but for the first one's comma.
    let mut left = length - around + 1;
    let mut names = Vec::new();
    while left > 0 {
        let take = if left > 67 && left < 71 { 60 } else { left.min(67) };
        names.push(format!("\"{}\"", "n".repeat(take - 3)));
        left -= take;
    }
    format!("{{\"method\":\"status\",\"params\":{{\"guests\":[{}]}}}}\n", names.join(","))
}

#[test]
fn questions_wait_up_to_a_bound_for_a_broker_that_does_not_read() {
    for over in [0, 1] {
        let (mut world, conn) = up(config(), 5000);
        let client = world.client();
        world.give(Input::Writable { conn, room: 0 });
        for _ in 0..4 {
            world.say(client, question(60_000));
        }
        assert_eq!(world.text(client), "");
        world.say(client, question(256 * 1024 - 4 * 60_004 + over));
        assert_eq!(world.text(client).contains(r#""code":"busy""#), over == 1);
        world.give(Input::Writable { conn, room: 1 << 20 });
        assert_eq!(world.sent(conn).len(), if over == 1 { 4 * 60_004 } else { 256 * 1024 + 4 });
    }
}

#[test]
fn a_question_fills_one_frame_and_not_a_byte_more() {
    for (config, most) in [(config(), 65_536), (keyed(), 65_536 - 32)] {
        for over in [0, 1] {
            let mut world = World::new(config.clone());
            let conn = if config.token.is_some() { world.up_keyed().0 } else { world.up() };
            let client = world.client();
            world.give(Input::Writable { conn, room: 1 << 20 });
            world.take();
            world.say(client, question(most + over));
            if over == 0 {
                assert_eq!(world.sent(conn).len(), 4 + 65_536);
            } else {
                assert!(world.text(client).contains("invalid_request"));
            }
        }
    }
}
