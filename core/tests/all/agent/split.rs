//! Where a stream is cut changes nothing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::Input;
use castra_core::config::AgentConfig;
use castra_core::id::ConnId;
use proptest::prelude::*;

/// Everything that comes out, each connection's bytes joined.
fn outcome(world: &mut World, to: ConnId, stream: &[u8], cuts: &[usize]) -> (Vec<Out>, String) {
    world.take();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    let mut from = 0;
    for cut in cuts.into_iter().chain([stream.len()]) {
        world.give(Input::Bytes { conn: to, bytes: &stream[from..cut] });
        from = cut;
    }
    let log = world.take();
    // What is said after the close is counted, not handled: the count depends on the cut.
    (log, format!("{:?}", world.wait))
}

fn phase_a() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just(GREETING.to_vec()),
        4 => Just(challenge_line("none").into_bytes()),
        2 => Just(challenge_line("hmac-sha256").into_bytes()),
        4 => Just(ok_line("").into_bytes()),
        1 => Just(ok_line("").replace('\n', "\r\n").into_bytes()),
        1 => Just(b"ok session=sess-1-1\n".to_vec()),
        1 => Just(b"error: busy: later\n".to_vec()),
        1 => (500usize..520).prop_map(|length| [vec![b'z'; length], b"error: busy: no\n".to_vec()].concat()),
        1 => (500usize..520).prop_map(|length| [vec![b'z'; length], b"\n".to_vec()].concat()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(line, 0..5).prop_map(|lines| lines.concat())
}

fn phase_b() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => (0u64..9).prop_map(|seq| frame(&challenge_frame(seq))),
        4 => (0u64..9).prop_map(|id| frame(&format!(r#"{{"type":"ping","id":{id}}}"#))),
        2 => (0u64..3).prop_map(|id| frame(&format!(r#"{{"type":"result","of":"wait","id":{id},"data":[{id}]}}"#))),
        2 => (0u64..3).prop_map(|id| frame(&format!(r#"{{"type":"error","of":"wait","id":{id},"code":"busy"}}"#))),
        1 => Just(frame(r#"{"type":"bye","code":"slow"}"#)),
        1 => Just(frame(&format!(r#"{{"type":"message","payload":"{}"}}"#, "p".repeat(3000)))),
        1 => Just(b"\xFF\n".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn whole_session() -> impl Strategy<Value = Vec<u8>> {
    (phase_a(), phase_b(), phase_a(), any::<bool>()).prop_map(|(before, frames, after, proper)| {
        let start = if proper {
            [GREETING, challenge_line("none").as_bytes(), ok_line("").as_bytes()].concat()
        } else {
            before
        };
        [start, frames, after].concat()
    })
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"{\"id\":1,\"method\":\"info\"}\n".to_vec()),
        Just(b"{\"id\":2,\"method\":\"status\"}\r\n".to_vec()),
        Just(b"{\"id\":3,\"method\":\"ping\",\"params\":{\"guest\":\"devbox\"}}\n".to_vec()),
        Just(b"{\"method\":\"shutdown\"}\n".to_vec()),
        Just([vec![b' '; 256 * 1024], b"\n".to_vec()].concat()),
        proptest::collection::vec(any::<u8>(), 0..30),
    ];
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

fn check(config: &AgentConfig, stream: &[u8], cuts: &[usize]) {
    let run = |cuts: &[usize]| {
        let mut world = World::new(config.clone());
        let conn = world.connect();
        outcome(&mut world, conn, stream, cuts)
    };
    assert_eq!(run(cuts), run(&[]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_of_the_brokers_stream_gives_the_same_outputs(
        stream in whole_session(),
        cuts in proptest::collection::vec(any::<usize>(), 0..200),
    ) {
        for config in [config(), serial(), AgentConfig { once: true, ..config() }] {
            check(&config, &stream, &cuts);
        }
    }

    #[test]
    fn any_cut_of_a_keyed_stream_gives_the_same_outputs(
        damaged in proptest::option::of((0usize..400, 1u8..)),
        cuts in proptest::collection::vec(any::<usize>(), 0..200),
        on_serial: bool,
    ) {
        let config = AgentConfig { serial: on_serial, ..keyed() };
        let run = |cuts: &[usize]| {
            let mut world = World::new(config.clone());
            let conn = world.connect();
            if on_serial {
                world.take();
                world.say(conn, GREETING);
            }
            let hello = world.text(conn);
            let transcript = transcript(&hello);
            let key = transcript.session_key(&token());
            let mut broker = BrokerEnd::new(key);
            let ok = ok_line(&format!(" proof={}", transcript.broker_proof(&token())));
            let mut stream = [challenge_line("hmac-sha256").as_bytes(), ok.as_bytes()].concat();
            for seq in 0..4 {
                stream.extend(broker.frame(&challenge_frame(seq)));
            }
            if let Some((at, with)) = damaged {
                let at = at % stream.len();
                stream[at] ^= with;
            }
            outcome(&mut world, conn, &stream, cuts)
        };
        assert_eq!(run(&cuts), run(&[]));
    }

    #[test]
    fn any_cut_of_a_clients_requests_gives_the_same_outputs(
        stream in requests(),
        cuts in proptest::collection::vec(any::<usize>(), 0..200),
    ) {
        let run = |cuts: &[usize]| {
            let mut world = World::new(config());
            world.up();
            let client = world.client();
            outcome(&mut world, client, &stream, cuts)
        };
        assert_eq!(run(&cuts), run(&[]));
    }

    #[test]
    fn no_bytes_make_the_agent_panic_or_wait_without_a_bound(
        stream in proptest::collection::vec(any::<u8>(), 0..2000),
        on_serial: bool,
    ) {
        let mut world = World::new(AgentConfig { serial: on_serial, ..config() });
        let conn = world.up();
        world.say(conn, &stream);
        assert!(world.wait.is_some_and(|deadline| deadline.at <= world.now + seconds(15)));
    }
}
