//! What was recorded can be replayed; recording changes nothing; broken traces are errors.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use castra_core::RestoredAgent;
use castra_core::auth::Key;
use castra_core::boundary::{
    CloseCause, EffectError, EffectErrorKind, Origin, PeerCred, Remote, Transport, Via,
};
use castra_core::config::{AgentConfig, BrokerConfig};
use castra_core::id::{ConnId, EffectId};
use castra_core::time::{Now, Time, WallTime};
use castra_core::trace::{Ended, Outcome, Recorded, Replay, Seed, Sink, replay};
use castra_core::{Agent, Broker, Engine, Input, Output, Restored};

const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const SEED: Seed = Seed::Seeded([0xab; 32]);

fn now(millis: u64) -> Now {
    let wall = WallTime::from_unix_millis(1_795_188_257_000 + millis as i64);
    Now { boot: Time::from_millis(1_000_000 + millis), suspended: Duration::from_nanos(17), wall }
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 3 }
}

fn restored() -> Restored {
    let key: Key = TOKEN.parse().unwrap();
    Restored {
        incarnation: 7,
        tokens: vec![("keyed".parse().unwrap(), Some(key)), ("gone".parse().unwrap(), None)],
        last_seen: vec![("devbox".parse().unwrap(), WallTime::from_unix_millis(1_795_000_000_123))],
        ..Restored::default()
    }
}

/// Gives one input; what comes out is appended to `said`, sent bytes to `sent`.
fn feed<E: Engine>(
    engine: &mut E,
    input: Option<(Now, Input<'_, E::Config>)>,
    said: &mut Vec<String>,
) -> String {
    if let Some((now, input)) = input {
        engine.handle(now, input);
    }
    let mut sent = vec![];
    loop {
        let output = engine.poll_output();
        said.push(format!("{output:?}"));
        match output {
            Output::Transmit { bytes, .. } => sent.extend_from_slice(bytes),
            Output::Wait(_) => return String::from_utf8_lossy(&sent).into_owned(),
            _ => {}
        }
    }
}

/// Every kind of input, and most kinds of output.
fn play<E: Engine<Config = BrokerConfig>>(broker: &mut E) -> Vec<String> {
    let mut said = vec![];
    let said = &mut said;
    let opened = |index, via, peer_cred| Input::Opened {
        conn: conn(index),
        via,
        origin: Origin::Accepted,
        local: None,
        remote: Remote::Ip("[fe80::1%3]:7070".parse().unwrap()),
        peer_cred,
        room: 128 * 1024,
    };
    let link = Via::Link(Transport::Tcp);
    feed(broker, None, said);
    feed(broker, Some((now(0), opened(0, link, None))), said);
    let hello = Input::Bytes { conn: conn(0), bytes: b"hello vm:devbox capabilities=proof-v1\n" };
    let challenge = feed(broker, Some((now(5), hello)), said);
    let nonce = challenge.split(' ').nth(1).unwrap().to_owned();
    let proof = format!("proof {nonce}\n");
    feed(broker, Some((now(9), Input::Bytes { conn: conn(0), bytes: proof.as_bytes() })), said);
    let cred = PeerCred { uid: 0, gid: 0, pid: 4 };
    feed(broker, Some((now(10), opened(1, Via::Control, Some(cred)))), said);
    for (at, request) in [
        (11, r#"{"id":1,"method":"status"}"#),
        (12, r#"{"id":"zwei","method":"token_issue","params":{"guest":"devbox"}}"#),
    ] {
        let line = format!("{request}\n");
        feed(broker, Some((now(at), Input::Bytes { conn: conn(1), bytes: line.as_bytes() })), said);
    }
    for effect in 1..4 {
        let error = EffectError { kind: EffectErrorKind::Storage, message: "full: \u{1f4a5}".into() };
        let result = if effect == 3 { Err(error) } else { Ok(()) };
        feed(broker, Some((now(13), Input::Done { effect: EffectId(effect), result })), said);
    }
    feed(broker, Some((now(14), Input::Writable { conn: conn(1), room: 128 * 1024 })), said);
    feed(broker, Some((now(20), opened(2, link, None))), said);
    feed(broker, Some((now(21), Input::Bytes { conn: conn(2), bytes: b"\xff\x00\x9b[2J\n" })), said);
    feed(broker, Some((now(22), Input::Closed { conn: conn(2), why: CloseCause::Reset })), said);
    let config =
        BrokerConfig { window: Duration::from_secs(6), interval: Duration::from_secs(2), ..config() };
    feed(broker, Some((now(900), Input::Reload(Box::new(config)))), said);
    feed(broker, Some((now(90_000), Input::Tick)), said);
    feed(broker, Some((now(90_001), Input::Finished { conn: conn(1) })), said);
    let deadline = now(92_000).boot;
    feed(broker, Some((now(90_002), Input::Drain { deadline })), said);
    feed(broker, Some((now(92_001), Input::Tick)), said);
    said.clone()
}

fn config() -> BrokerConfig {
    BrokerConfig { guests: vec!["other".parse().unwrap()], ..BrokerConfig::default() }
}

fn sink() -> (Sink, Receiver<String>) {
    let (sender, lines) = channel();
    let sink = move |line: String| {
        assert!(line.ends_with('\n') && line.is_ascii());
        sender.send(line).is_ok()
    };
    (Box::new(sink), lines)
}

fn recorded() -> String {
    let (sink, lines) = sink();
    let mut broker = Recorded::broker(config(), restored(), SEED, now(0), Some(sink));
    play(&mut broker);
    broker.finish();
    lines.try_iter().collect()
}

#[test]
fn recording_changes_no_output() {
    let plain = play(&mut Broker::new(config(), restored(), SEED.entropy(), now(0)));
    let (sink, _lines) = sink();
    let mut broker = Recorded::broker(config(), restored(), SEED, now(0), Some(sink));
    assert_eq!(play(&mut broker), plain);
    assert!(broker.is_recording());
    assert_eq!(play(&mut Recorded::broker(config(), restored(), SEED, now(0), None)), plain);
    for kind in ["Transmit", "Close", "Effect", "Event", "Stopped", "Read", "SetToken", "WriteRecord"] {
        assert!(plain.iter().any(|output| output.contains(kind)), "the script brings no {kind}");
    }
}

#[test]
fn a_trace_is_replayed_byte_for_byte() {
    let trace = recorded();
    let Ok(Outcome::Equal(report)) = replay(trace.as_bytes()) else { panic!("not equal: {trace}") };
    assert_eq!((report.engine, report.ended, report.torn), ("broker", Some(Ended::Complete), false));
    assert!(report.inputs >= 15 && report.outputs > report.inputs && report.events > 5);
    assert_eq!(report.span, Duration::from_millis(92_001));
    let mut agent_config = AgentConfig::new("devbox".parse().unwrap());
    agent_config.token = Some(TOKEN.parse().unwrap());
    let (sink, lines) = sink();
    let mut agent =
        Recorded::agent(agent_config.clone(), RestoredAgent::default(), Seed::Chosen(9), now(0), Some(sink));
    let mut plain = Agent::new(agent_config, RestoredAgent::default(), Seed::Chosen(9).entropy(), now(0));
    let (mut one, mut other) = (vec![], vec![]);
    let failed = || {
        let error = EffectError { kind: EffectErrorKind::Unreachable, message: "nobody".into() };
        Some((now(3), Input::Done { effect: EffectId(1), result: Err(error) }))
    };
    for input in [|| None, failed] {
        feed(&mut agent, input(), &mut one);
        feed(&mut plain, input(), &mut other);
    }
    assert_eq!(one, other);
    drop(agent);
    let trace: String = lines.iter().collect();
    let Ok(Outcome::Equal(report)) = replay(trace.as_bytes()) else { panic!("not equal") };
    assert_eq!((report.engine, report.inputs, report.ended), ("agent", 1, None));
}

#[test]
fn a_torn_last_line_is_left_out_and_said() {
    let trace = recorded();
    let cut = trace.trim_end().rfind('\n').unwrap();
    let torn = &trace[..cut - 5];
    let Ok(Outcome::Equal(report)) = replay(torn.as_bytes()) else { panic!("not equal") };
    assert!(report.torn && report.ended.is_none());
    assert!(replay(&trace.as_bytes()[..40]).is_err(), "there is no trace without its first line");
}

#[test]
fn the_first_difference_is_told_with_its_line() {
    let trace = recorded();
    let changed = trace.replacen("castra-broker 0.1 ready", "castra-broker 0.1 Ready", 1);
    let Ok(Outcome::Different(report, difference)) = replay(changed.as_bytes()) else {
        panic!("no difference")
    };
    assert_eq!((difference.line, report.inputs), (3, 1));
    assert!(difference.expected.contains("Ready") && difference.got.contains("ready"));
    assert!(difference.input.starts_with(r#"{"opened":"#));
    assert!(!format!("{difference:?}").contains("ready"), "Debug shows nothing of a trace");
}

#[test]
fn a_trace_that_was_laid_out_anew_is_the_same_trace() {
    let spaced: String = recorded()
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            // Another order of keys, another writing of characters.
            format!(" {value} \n")
        })
        .collect();
    assert!(matches!(replay(spaced.as_bytes()), Ok(Outcome::Equal(_))));
}

#[test]
fn no_change_of_one_byte_is_more_than_an_error_or_a_difference() {
    let trace = recorded();
    let (mut errors, mut different, mut equal) = (0, 0, 0);
    for place in 0..trace.len() {
        let mut bytes = trace.clone().into_bytes();
        bytes[place] ^= [0x01, 0x04, 0x10][place % 3];
        match replay(&bytes) {
            Err(error) => {
                errors += 1;
                assert!(error.line >= 1 && error.what.len() > 20 && !error.what.contains(&TOKEN[..8]));
            }
            Ok(Outcome::Different(..)) => different += 1,
            Ok(Outcome::Equal(_)) => equal += 1,
        }
    }
    assert!(errors > 100 && different > 100, "{errors} errors, {different} different, {equal} equal");
}

#[test]
fn what_no_shell_would_say_is_refused() {
    let trace = recorded();
    for (from, to) in [
        (r#""conn":[0,3],"via""#, r#""conn":[4000000000,3],"via""#),
        (r#""room":131072"#, r#""room":18446744073709551615"#),
        (r#""event_ring":8192"#, r#""event_ring":100000000000"#),
        (r#""interval":5000000000"#, r#""interval":0"#),
        (r#""remote":"[fe80::1%3]:7070""#, r#""remote":"somewhere""#),
        (r#""castra_trace":1"#, r#""castra_trace":2"#),
        (r#"{"end":"complete"}"#, "{\"end\":\"complete\"}\n{\"end\":\"complete\"}"),
    ] {
        let changed = trace.replacen(from, to, 1);
        assert_ne!(changed, trace, "{from}");
        assert!(replay(changed.as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn a_sink_that_takes_no_more_ends_the_recording_and_not_the_engine() {
    let (sender, lines) = channel();
    let mut lines_taken = 0..3;
    let sink = move |_| {
        sender.send(()).unwrap();
        // Full at the fourth line.
        lines_taken.next().is_some()
    };
    let mut broker = Recorded::broker(config(), restored(), SEED, now(0), Some(Box::new(sink)));
    let plain = play(&mut Broker::new(config(), restored(), SEED.entropy(), now(0)));
    assert_eq!(play(&mut broker), plain);
    assert!(!broker.is_recording());
    broker.finish();
    assert_eq!(lines.iter().count(), 4, "nothing comes after a line that was not taken");
}

#[test]
fn debug_shows_no_secret() {
    let (sink, lines) = sink();
    let broker = Recorded::broker(config(), restored(), SEED, now(0), Some(sink));
    let header = lines.recv().unwrap();
    assert!(header.contains(TOKEN) && header.contains("abababab"));
    let replay = Replay::begin(header.as_bytes()).unwrap();
    for shown in [format!("{broker:?}"), format!("{replay:?}"), format!("{SEED:?}")] {
        assert!(
            !shown.contains(&TOKEN[..16]) && !shown.contains("abab") && !shown.contains("171, 171"),
            "{shown}"
        );
    }
}
