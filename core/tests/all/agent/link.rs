//! The agent's link, against a broker that is played by bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::Input;
use castra_core::boundary::{CloseReason, Deadline, Wakeup};
use castra_core::config::AgentConfig;
use castra_core::entropy::Entropy;
use castra_core::event::{Fact, LinkEnd};
use castra_core::time::Time;

fn down(reason: LinkEnd, retry_ms: u64) -> Fact {
    Fact::LinkDown { reason, retry_ms: Some(retry_ms), error: None }
}

fn ended(reason: LinkEnd) -> Out {
    Out::Event(Fact::LinkDown { reason, retry_ms: None, error: None })
}

/// What the agent makes of `lines` from a broker, said in one go after its hello.
fn verdict(config: AgentConfig, lines: &str) -> Fact {
    let mut world = World::new(config);
    let conn = world.connect();
    world.take();
    world.say(conn, lines);
    let log = world.take();
    assert!(log.iter().any(|out| matches!(out, Out::Close(closed, _) if *closed == conn)), "{log:?}");
    let fact = log.into_iter().find_map(|out| if let Out::Event(fact) = out { Some(fact) } else { None });
    fact.expect("an event")
}

#[test]
fn the_first_thing_an_agent_does_is_to_dial() {
    let mut world = World::new(config());
    let deadline = world.now + seconds(5);
    assert_eq!(
        world.take(),
        [Out::Event(Fact::LinkDialing { attempt: 1 }), Out::Dial(castra_core::id::EffectId(1), deadline),]
    );
    assert_eq!(world.wait, Some(Deadline { at: deadline, why: Wakeup::Dial }));
}

#[test]
fn an_unkeyed_session_is_proven_and_answers_every_challenge_at_once() {
    let capabilities = castra_core::capabilities::Capabilities::parse("term,shell");
    let mut world = World::new(AgentConfig { boot: [0x1f; 16], capabilities, ..config() });
    let conn = world.connect();
    assert_eq!(
        world.text(conn),
        "hello vm:devbox capabilities=attach-v1,proof-v1,shell,term boot=1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f\n"
    );
    assert_eq!(world.wait, Some(Deadline { at: world.now + seconds(5), why: Wakeup::Handshake }));
    world.say(conn, GREETING);
    world.say(conn, challenge_line("none"));
    assert_eq!(world.take(), [Out::Sent(conn, format!("proof {NONCE}\n").into_bytes())]);
    world.say(conn, ok_line(""));
    assert_eq!(
        world.take(),
        [Out::Event(Fact::LinkUp {
            epoch: EPOCH,
            authenticated: false,
            interval_ms: 5000,
            window_ms: 15_000
        })]
    );
    assert_eq!(world.wait, Some(Deadline { at: world.now + seconds(15), why: Wakeup::Session }));
    for seq in 0..5 {
        world.pass(seconds(5));
        world.say(conn, frame(&challenge_frame(seq)));
        assert_eq!(frames(&world.sent(conn)), [proof_frame(seq)]);
    }
    world.say(conn, [frame(r#"{"type":"ping","id":9}"#), frame(r#"{"type":"news"}"#)].concat());
    assert_eq!(frames(&world.sent(conn)), [r#"{"type":"pong","id":9}"#]);
}

#[test]
fn a_keyed_session_tags_every_frame_and_checks_every_tag() {
    let mut world = World::new(keyed());
    let (conn, mut broker) = world.up_keyed();
    for seq in 0..3 {
        let challenge = broker.frame(&challenge_frame(seq));
        world.say(conn, challenge);
        assert_eq!(broker.open(&world.sent(conn)), proof_frame(seq));
    }
    // A replayed frame carries the tag of an earlier count.
    let challenge = broker.frame(&challenge_frame(3));
    world.say(conn, &challenge);
    world.take();
    world.say(conn, &challenge);
    let log = world.take();
    assert_eq!(log, [Out::Close(conn, CloseReason::Ended), Out::Event(down(LinkEnd::Protocol, 500))]);
}

#[test]
fn the_keyed_proof_covers_the_hello_as_it_was_sent() {
    let mut world = World::new(keyed());
    let conn = world.connect();
    let hello = world.text(conn);
    world.say(conn, GREETING);
    world.say(conn, challenge_line("hmac-sha256"));
    let proof = transcript(&hello).guest_proof(&token());
    assert_eq!(world.text(conn), format!("proof {proof}\n"));
}

#[test]
fn every_keyed_hello_has_a_fresh_nonce() {
    let mut world = World::new(keyed());
    let conn = world.connect();
    let first = world.text(conn);
    world.closed(conn);
    world.live(seconds(1));
    let conn = world.connect();
    assert_ne!(first, world.text(conn));
}

#[test]
fn an_agent_with_a_token_goes_only_to_a_broker_that_proves_itself() {
    let greeting = "castra-broker 0.1 ready\n";
    let challenge = challenge_line("hmac-sha256");
    let wrong = ok_line(&format!(" proof={}", "0".repeat(64)));
    for lines in [
        format!("{greeting}{}", challenge_line("none")),
        format!("{greeting}ok session=sess-1-1\n"),
        format!("{greeting}{}", ok_line("")),
        format!("{greeting}{challenge}{}", ok_line("")),
        format!("{greeting}{challenge}{wrong}"),
        format!("{greeting}{challenge}ok\n"),
    ] {
        assert_eq!(verdict(keyed(), &lines), Fact::BrokerUnproven { retry_ms: Some(500) }, "{lines}");
    }
}

#[test]
fn a_broker_proof_for_another_epoch_proves_nothing() {
    let mut world = World::new(keyed());
    let conn = world.connect();
    let proof = transcript(&world.text(conn)).broker_proof(&token());
    world.say(conn, GREETING);
    world.say(conn, challenge_line("hmac-sha256").replace("771075", "771076"));
    world.say(conn, ok_line(&format!(" proof={proof}")));
    assert!(world.events().contains(&Fact::BrokerUnproven { retry_ms: Some(500) }));
}

#[test]
fn a_refusal_is_reported_with_its_code_and_retried() {
    let refused = |code: &str| Fact::LinkRefused { code: code.into(), retry_ms: Some(500) };
    assert_eq!(verdict(config(), "error: busy: try again\n"), refused("busy"));
    let lines = format!("castra-broker 0.1 ready\n{}error: bad-proof: no\n", challenge_line("none"));
    assert_eq!(verdict(config(), &lines), refused("bad-proof"));
    let lines = format!("castra-broker 0.1 ready\n{}", challenge_line("hmac-sha256"));
    assert_eq!(verdict(config(), &lines), refused("token-required"));
    let long = format!("error: {}\n", "ä".repeat(100));
    assert_eq!(verdict(config(), &long), refused(&"ä".repeat(16)));
}

#[test]
fn what_is_not_the_protocol_ends_the_link() {
    let greeting = "castra-broker 0.1 ready\n";
    let challenge = challenge_line("none");
    for lines in [
        "SSH-2.0-OpenSSH_9.6\r\n".to_string(),
        format!("remains {greeting}"),
        format!("{greeting}{greeting}"),
        format!("{greeting}ok session=sess-1-1\n"),
        format!("{greeting}{}", ok_line("")),
        format!("{greeting}{challenge}{challenge}"),
        format!("{greeting}{challenge}{}", ok_line("").replace("771075", "771076")),
        format!("{greeting}{challenge}{}", ok_line("").replace("interval_ms=5000", "interval_ms=0")),
        format!("{greeting}{challenge}{}\0\0\0\0", ok_line("")),
        format!("{greeting}{challenge}{}\0\x01\0\x01", ok_line("")),
        format!("{greeting}{challenge}{}\0\0\0\x02[]", ok_line("")),
        format!("{greeting}{challenge}{}\0\0\0\x02{{x", ok_line("")),
        "x".repeat(512),
    ] {
        let mut world = World::new(config());
        let conn = world.connect();
        world.say(conn, &lines);
        let events = world.events();
        assert_eq!(events.last(), Some(&down(LinkEnd::Protocol, 500)), "{lines:?}");
        assert!(world.rooms.is_empty(), "it is closed");
    }
}

#[test]
fn a_line_of_512_bytes_is_taken_and_one_of_513_is_not() {
    let ok = ok_line("");
    for (length, fine) in [(511, true), (512, true), (513, false)] {
        let mut world = World::new(config());
        let conn = world.connect();
        world.say(conn, GREETING);
        world.say(conn, challenge_line("none"));
        let padding = "x".repeat(length - ok.len() - 1);
        world.say(conn, ok_line(&format!(" {padding}")));
        let up = world.events().iter().any(|fact| matches!(fact, Fact::LinkUp { .. }));
        assert_eq!(up, fine, "{length}");
    }
}

#[test]
fn a_one_shot_agent_stops_after_its_ok() {
    let mut world = World::new(AgentConfig { once: true, ..config() });
    let conn = world.connect();
    assert!(world.text(conn).ends_with(" once\n"));
    world.say(conn, GREETING);
    world.say(conn, challenge_line("none"));
    world.take();
    world.say(conn, ok_line(""));
    assert_eq!(
        world.take(),
        [
            Out::Event(Fact::LinkUp {
                epoch: EPOCH,
                authenticated: false,
                interval_ms: 5000,
                window_ms: 15_000
            }),
            ended(LinkEnd::Finished),
            Out::Close(conn, CloseReason::Finished),
            Out::Stopped,
        ]
    );
    assert_eq!(world.wait, None);
    world.say(conn, "late");
    assert_eq!((world.take(), world.agent.ignored_inputs()), (vec![], 1));
}

#[test]
fn a_one_shot_agent_tries_again_after_a_refusal() {
    let mut world = World::new(AgentConfig { once: true, ..config() });
    let conn = world.connect();
    world.say(conn, "error: busy: later\n");
    world.take();
    world.live(millis(500));
    world.dialled();
}

#[test]
fn a_dial_has_a_bound_and_its_late_result_changes_nothing() {
    let mut world = World::new(config());
    let effect = world.dialled();
    world.take();
    world.live(seconds(5));
    assert_eq!(world.take(), [Out::Cancel(effect), Out::Event(down(LinkEnd::Timeout, 500))]);
    world.give(Input::Done { effect, result: Ok(()) });
    let late = world.open(effect, ROOM);
    assert_eq!(world.take(), [Out::Close(late, CloseReason::Finished)]);
    assert_eq!(world.agent.ignored_inputs(), 2);
    assert_eq!(world.wait, Some(Deadline { at: world.now + millis(500), why: Wakeup::Redial }));
}

#[test]
fn a_handshake_has_a_bound() {
    let mut world = World::new(config());
    let conn = world.connect();
    for _ in 0..5 {
        world.live(millis(990));
        world.say(conn, "c");
        assert!(world.rooms.contains_key(&conn));
    }
    world.take();
    world.live(millis(50));
    assert_eq!(world.take(), [Out::Close(conn, CloseReason::Ended), Out::Event(down(LinkEnd::Timeout, 500))]);
}

#[test]
fn the_gaps_between_dials_double_from_one_second_to_ten() {
    let mut world = World::new(config());
    let mut gaps = Vec::new();
    for _ in 0..7 {
        world.fail_dial();
        let failed = world.now;
        while !world.log.iter().any(|out| matches!(out, Out::Dial(..))) {
            let at = world.wait.unwrap().at;
            world.live(at.since(world.now));
        }
        gaps.push(world.now.since(failed).as_millis());
    }
    assert_eq!(gaps, [500, 1000, 2000, 4000, 5000, 5000, 5000]);
}

#[test]
fn every_gap_is_drawn_anew_within_its_range() {
    let mut world = World::with(config(), Entropy::seeded([3; 32]));
    let mut gaps = Vec::new();
    for failure in 0..60 {
        world.fail_dial();
        let gap = world.wait.unwrap().at.since(world.now);
        assert!(gap < seconds(1 << failure.min(4)).min(seconds(10)), "{failure}: {gap:?}");
        gaps.push(gap);
        world.live(gap);
    }
    gaps.sort();
    gaps.dedup();
    assert_eq!(gaps.len(), 60);
    assert!(gaps[0] < seconds(1) && gaps[59] > seconds(9));
}

#[test]
fn a_session_of_thirty_seconds_resets_the_gaps_and_a_shorter_one_does_not() {
    for (lasts, expected) in [(29, 4000), (30, 500)] {
        let mut world = World::new(config());
        for gap in [500, 1000, 2000] {
            world.fail_dial();
            world.live(millis(gap));
        }
        let conn = world.up();
        for _ in 0..lasts {
            world.live(seconds(1));
            world.say(conn, frame(&challenge_frame(1)));
        }
        world.take();
        world.closed(conn);
        assert_eq!(world.events(), [down(LinkEnd::Disconnected, expected)]);
        world.live(millis(expected));
        assert!(world.events().contains(&Fact::LinkDialing { attempt: 1 }), "counted from the session on");
    }
}

#[test]
fn a_bye_is_obeyed_and_its_retry_after_is_the_least_wait() {
    let mut world = World::new(config());
    let conn = world.up();
    world.say(conn, frame(r#"{"type":"bye","code":"shutdown","retry_after_ms":1000}"#));
    assert_eq!(world.take(), [Out::Close(conn, CloseReason::Ended), Out::Event(down(LinkEnd::Bye, 1500))]);
    world.live(millis(1499));
    assert_eq!(world.take(), []);
    world.live(millis(1));
    world.dialled();
}

#[test]
fn an_absurd_retry_after_is_honoured_up_to_a_bound() {
    let mut world = World::new(config());
    let conn = world.up();
    world.say(conn, frame(&format!(r#"{{"type":"bye","code":"x","retry_after_ms":{}}}"#, u64::MAX)));
    assert_eq!(world.events(), [down(LinkEnd::Bye, 60_500)]);
}

#[test]
fn a_broker_that_asks_no_more_is_gone_after_three_intervals() {
    let mut world = World::new(config());
    let conn = world.up();
    world.live(seconds(10));
    world.say(conn, frame(&challenge_frame(1)));
    world.take();
    world.live(millis(14_999));
    world.say(conn, frame(r#"{"type":"ping","id":1}"#));
    world.take();
    world.live(millis(1));
    assert_eq!(world.take(), [Out::Close(conn, CloseReason::Ended), Out::Event(down(LinkEnd::Silent, 500))]);
}

#[test]
fn an_agent_that_was_stopped_itself_gives_the_broker_one_more_period() {
    let mut world = World::new(config());
    let conn = world.up();
    world.pass(seconds(60));
    assert_eq!(world.take(), []);
    world.say(conn, frame(&challenge_frame(7)));
    assert_eq!(frames(&world.sent(conn)), [proof_frame(7)]);
    world.pass(seconds(60));
    world.live(seconds(15));
    assert_eq!(world.events(), [down(LinkEnd::Silent, 500)]);
}

#[test]
fn a_lost_link_is_dialled_again() {
    for half in [false, true] {
        let mut world = World::new(config());
        let conn = world.up();
        if half {
            world.give(Input::Finished { conn });
            assert!(world.rooms.is_empty(), "what the broker has finished is closed");
        } else {
            world.closed(conn);
        }
        assert_eq!(world.events(), [down(LinkEnd::Disconnected, 500)]);
        world.live(millis(500));
        world.up();
    }
}

#[test]
fn early_and_extra_ticks_and_dead_ids_change_nothing() {
    let mut world = World::new(config());
    let conn = world.up();
    let dead = world.slot();
    let wait = world.wait;
    for _ in 0..3 {
        world.give(Input::Tick);
        world.give(Input::Writable { conn: dead, room: 5 });
        world.give(Input::Finished { conn: dead });
        world.say(dead, "x");
        world.closed(dead);
    }
    assert_eq!((world.take(), world.wait, world.agent.ignored_inputs()), (vec![], wait, 12));
    world.closed(conn);
    world.take();
    world.closed(conn);
    assert_eq!(world.take(), []);
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let mut world = World::new(config());
    let conn = world.up();
    world.pass(seconds(10));
    let late = world.now;
    world.now = Time::from_millis(1);
    world.say(conn, frame(&challenge_frame(1)));
    assert_eq!(world.wait, Some(Deadline { at: late + seconds(15), why: Wakeup::Session }));
}

#[test]
fn a_broker_that_does_not_read_is_not_read_from_either() {
    let mut world = World::new(config());
    let effect = world.dialled();
    let conn = world.open(effect, 220);
    world.say(conn, GREETING);
    world.say(conn, challenge_line("none"));
    world.say(conn, ok_line(""));
    world.take();
    let pings = frame(r#"{"type":"ping","id":1}"#).repeat(100);
    world.say(conn, &pings);
    let log = world.take();
    assert_eq!(log.last(), Some(&Out::Read(castra_core::boundary::Source::Conn(conn), 0)));
    let mut sent: Vec<u8> = log
        .iter()
        .filter_map(|out| if let Out::Sent(_, b) = out { Some(b.clone()) } else { None })
        .flatten()
        .collect();
    for _ in 0..100 {
        world.give(Input::Writable { conn, room: 100 });
        let log = world.take();
        if let Some(Out::Sent(_, bytes)) = log.first() {
            sent.extend_from_slice(bytes);
        }
        if let Some(Out::Read(_, credit)) = log.get(1) {
            assert!(*credit > 0);
            break;
        }
    }
    assert_eq!(frames(&sent), vec![r#"{"type":"pong","id":1}"#; 100]);
}

#[test]
fn a_reload_counts_from_the_next_handshake_on() {
    let mut world = World::new(config());
    let conn = world.up();
    world.give(Input::Reload(Box::new(keyed())));
    world.say(conn, frame(&challenge_frame(1)));
    assert_eq!(frames(&world.sent(conn)), [proof_frame(1)]);
    world.closed(conn);
    world.live(seconds(1));
    world.up_keyed();
}

#[test]
fn what_the_system_said_of_a_dial_is_in_the_event() {
    let mut world = World::new(config());
    world.fail_dial();
    let events = world.events();
    let [Fact::LinkDown { reason: LinkEnd::Unreachable, error, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(error.as_deref(), Some("connection refused"));
}
