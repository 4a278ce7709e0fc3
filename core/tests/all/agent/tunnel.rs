//! An agent's side of streams to its terminals, against a broker that is played by bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::Input;
use castra_core::boundary::{CloseReason, Origin, Remote, Via};
use castra_core::config::AgentConfig;
use castra_core::id::{ConnId, EffectId};

fn trusting() -> AgentConfig {
    AgentConfig { terminals: true, trust_unkeyed_broker: true, ..config() }
}

/// The newest dial succeeded.
fn open(world: &mut World, effect: EffectId) -> ConnId {
    let conn = world.slot();
    world.rooms.insert(conn, ROOM);
    let origin = Origin::Dialled(effect);
    let (remote, peer_cred, room) = (Remote::Unknown, None, ROOM);
    world.give(Input::Opened { conn, via: Via::Terminals, origin, local: None, remote, peer_cred, room });
    conn
}

/// A session with one stream, number 3; the link and the terminals' connection.
fn streaming() -> (World, ConnId, ConnId) {
    let mut world = World::new(trusting());
    let link = world.up();
    world.say(link, frame(r#"{"type":"term_open","stream":3,"window":9}"#));
    let effect = world.dialled();
    world.take();
    let terminals = open(&mut world, effect);
    assert_eq!(frames(&world.sent(link)), [r#"{"type":"term_opened","stream":3,"window":131072}"#]);
    (world, link, terminals)
}

const CLOSE: &str = r#"{"type":"term_close","stream":3,"reason":"protocol"}"#;

#[test]
fn only_an_agent_with_terminals_says_so() {
    let hello = |config| {
        let mut world = World::new(config);
        let conn = world.connect();
        world.text(conn)
    };
    assert!(hello(trusting()).contains(" capabilities=attach-v1,proof-v1,terminals-v1 "));
    assert!(!hello(config()).contains("terminals"));
}

#[test]
fn bytes_pass_within_the_brokers_window_and_are_acknowledged() {
    let (mut world, link, terminals) = streaming();
    world.say(terminals, b"0123456789");
    assert_eq!(frames(&world.sent(link)), [r#"{"type":"term","stream":3,"data":"MDEyMzQ1Njc4"}"#]);
    world.say(link, frame(r#"{"type":"term_credit","stream":3,"bytes":9}"#));
    assert_eq!(frames(&world.sent(link)), [r#"{"type":"term","stream":3,"data":"OQ=="}"#]);
    world.say(link, frame(r#"{"type":"term","stream":3,"data":"bHM="}"#));
    let log = world.take();
    assert_eq!(log[0], Out::Sent(terminals, b"ls".to_vec()));
    assert_eq!(log[1], Out::Sent(link, frame(r#"{"type":"term_ack","bytes":2}"#)));
    world.say(link, frame(r#"{"type":"term_end","stream":3}"#));
    assert_eq!(world.take(), [Out::Finish(terminals)]);
    world.give(Input::Finished { conn: terminals });
    let log = world.take();
    assert_eq!(log[0], Out::Sent(link, frame(r#"{"type":"term_end","stream":3}"#)));
    assert_eq!(log[1], Out::Close(terminals, CloseReason::Ended));
}

#[test]
fn a_broker_that_breaks_the_rules_loses_the_stream() {
    let much = format!(r#"{{"type":"term","stream":3,"data":"{}"}}"#, "A".repeat(40 * 1024));
    let broken: [&[&str]; 4] = [
        &[r#"{"type":"term_open","stream":3,"window":9}"#],
        &[r#"{"type":"term","stream":3,"data":"?"}"#],
        &[r#"{"type":"term_end","stream":3}"#, r#"{"type":"term","stream":3,"data":"AAAA"}"#],
        &[&much, &much, &much, &much, &much],
    ];
    for words in broken {
        let (mut world, link, terminals) = streaming();
        // Nobody takes anything.
        world.give(Input::Writable { conn: terminals, room: 0 });
        for word in words {
            world.say(link, frame(word));
        }
        let log = world.take();
        assert!(log.contains(&Out::Close(terminals, CloseReason::Ended)), "{words:?} {log:?}");
        let told = log.iter().any(|out| {
            matches!(out, Out::Sent(conn, bytes) if *conn == link
            && frames(bytes).iter().any(|frame| frame == CLOSE))
        });
        assert!(told, "{words:?} {log:?}");
        world.say(link, challenge_frame_of(1));
        assert!(frames(&world.sent(link)).contains(&proof_frame(1)), "the session lives on");
    }
}

fn challenge_frame_of(seq: u64) -> Vec<u8> {
    frame(&challenge_frame(seq))
}

#[test]
fn a_stream_that_is_closed_while_it_is_dialled_is_not_opened_for_nobody() {
    let mut world = World::new(trusting());
    let link = world.up();
    world.say(link, frame(r#"{"type":"term_open","stream":3,"window":9}"#));
    let effect = world.dialled();
    world.take();
    world.say(link, frame(r#"{"type":"term_close","stream":3,"reason":"timeout"}"#));
    assert_eq!(world.take(), [Out::Cancel(effect)]);
    // The dial had already succeeded.
    let late = open(&mut world, effect);
    assert_eq!(world.take(), [Out::Close(late, CloseReason::Finished)]);
    // Bytes for what isn't open make no sense.
    world.say(link, frame(r#"{"type":"term_open","stream":4,"window":9}"#));
    let effect = world.dialled();
    world.take();
    world.say(link, frame(r#"{"type":"term","stream":4,"data":"AAAA"}"#));
    assert!(world.take().contains(&Out::Cancel(effect)));
}
