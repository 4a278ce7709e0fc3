//! A series of attempts to attach: how many, how far apart, and what ends it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use crate::adoption::*;
use crate::support::*;
use castra_core::Input;
use castra_core::attach::AttachSettings;
use castra_core::boundary::EffectErrorKind;
use castra_core::config::AgentConfig;
use castra_core::event::AttachFact;
use castra_core::time::Time;
use proptest::prelude::*;
use serde_json::json;

/// How a stand-in manager answers one request.
#[derive(Clone, Debug)]
enum Answer {
    Status(u16, Option<Duration>),
    Body(&'static str),
    Huge,
    Error(EffectErrorKind),
    Hang,
}

/// Answers each attempt `delay` after it began; when each began and ended.
fn play(scene: &mut Scene, answers: &[Answer], delay: Duration) -> Vec<(Time, Time)> {
    let mut spans: Vec<(Time, Time)> = vec![];
    for answer in answers {
        let heard = scene.heard();
        let (effect, asked) = heard.request(ATTACH);
        assert!(spans.last().is_none_or(|(_, ended)| *ended <= asked.at), "one at a time");
        scene.world.now = scene.world.now + delay;
        match answer {
            Answer::Status(status, after) => scene.answer_later(effect, *status, "{}", *after),
            Answer::Body(body) => scene.answer(effect, 200, body),
            Answer::Huge => scene.answer(effect, 200, &format!(r#"{{"ok":true}}{}"#, " ".repeat(2_000_000))),
            Answer::Error(kind) => scene.fail(effect, *kind),
            Answer::Hang => {
                scene.world.now = asked.deadline;
                scene.world.give(Input::Tick);
                assert_eq!(scene.world.log.iter().filter(|out| **out == Out::Cancel(effect)).count(), 1);
            }
        }
        spans.push((asked.at, scene.world.now));
        if let Some(wait) = next_try(scene) {
            // Not a moment earlier.
            scene.world.pass(wait - Duration::from_nanos(1));
            assert!(!scene.world.log.iter().any(|out| matches!(out, Out::Http(..))));
            scene.world.pass(Duration::from_nanos(1));
        }
    }
    spans
}

/// How long the agent rests, from what it wants to be woken for.
fn next_try(scene: &Scene) -> Option<Duration> {
    let resting = scene.world.wait.filter(|wait| wait.why == castra_core::boundary::Wakeup::Attach);
    resting.map(|wait| wait.at.since(scene.world.now))
}

fn seeded(seed: u8) -> Scene {
    let config = AgentConfig { silent_intervals: 100_000, ..trusting() };
    let mut scene = Scene::seeded(config, [seed; 32]);
    scene.connect();
    scene.heard();
    scene.say(&handshake("hand-1", "sess-1", URL).replace("\"ttl_ms\":600000", "\"ttl_ms\":600000000"));
    scene
}

fn gaps(spans: &[(Time, Time)]) -> Vec<Duration> {
    spans.windows(2).map(|pair| pair[1].0.since(pair[0].1)).collect()
}

fn failures(scene: &mut Scene) -> Vec<(u32, String, Option<u64>)> {
    let facts = scene.heard().facts;
    let failure = |fact| match fact {
        AttachFact::Failure { attempt, code, retry_ms, .. } => Some((attempt, code, retry_ms)),
        _ => None,
    };
    facts.into_iter().filter_map(failure).collect()
}

const fn status(status: u16) -> Answer {
    Answer::Status(status, None)
}

#[test]
fn whatever_may_pass_is_tried_again_until_it_is_attached() {
    for passing in [
        status(500),
        status(503),
        status(408),
        status(425),
        status(429),
        Answer::Body("{\"ok\":false}"),
        Answer::Body("no json"),
        Answer::Body(""),
        Answer::Body("[true]"),
        Answer::Huge,
        Answer::Error(EffectErrorKind::Unreachable),
        Answer::Error(EffectErrorKind::TimedOut),
        Answer::Error(EffectErrorKind::BadAnswer),
        Answer::Hang,
    ] {
        let mut scene = seeded(1);
        let spans = play(&mut scene, &[passing.clone(), passing.clone(), Answer::Body(ATTACHED)], millis(7));
        assert_eq!(spans.len(), 3);
        assert!(scene.heard().kinds().contains(&"controller.handshake.attach.success"), "{passing:?}");
        scene.world.live(seconds(60));
        assert!(scene.heard().http.is_empty(), "{passing:?}");
    }
}

#[test]
fn what_cannot_pass_ends_the_series_at_once_and_says_why() {
    for refused in [400, 401, 403, 404, 409, 301, 302, 410, 418] {
        let mut scene = seeded(2);
        let (effect, _) = scene.heard().request(ATTACH);
        scene.answer_later(effect, refused, r#"{"message":"invalid_code"}"#, Some(seconds(1)));
        let heard = scene.heard();
        let [AttachFact::Failure { attempt: 1, code, message, retry_ms: None, .. }] = &heard.facts[..] else {
            panic!("{heard:?}")
        };
        assert_eq!(*code, format!("http_{refused}"));
        assert!(message.starts_with(&format!("the manager answered {refused}: ")), "{message}");
        let state = &heard.said[0];
        assert_eq!((&state["attached"], &state["next_retry_ms"]), (&json!(false), &json!(null)));
        assert_eq!((&state["attempt"], &state["failure_count"]), (&json!(1), &json!(1)));
        assert_eq!(state["last_error"]["code"], *code);
        scene.world.live(seconds(100));
        assert!(scene.heard().http.is_empty());
    }
}

#[test]
fn there_are_no_more_attempts_than_five_and_the_next_handshake_begins_anew() {
    let mut scene = seeded(3);
    play(&mut scene, &[const { status(500) }; 5], millis(3));
    scene.world.live(seconds(1000));
    let log = failures(&mut scene);
    assert_eq!(log, [(5, "http_500".into(), None)]);
    assert!(
        scene.shown.contains("handshake auto-attach failed vm=devbox session=sess-1 attempt=5 code=http_500")
    );
    // The same one again, and another.
    for name in ["hand-1", "hand-2"] {
        scene.say(&handshake(name, "sess-1", URL));
        let heard = scene.heard();
        assert!(heard.facts.iter().any(|fact| matches!(fact, AttachFact::Start { attempt: 1, .. })));
        let (effect, _) = heard.request(ATTACH);
        scene.answer(effect, 404, "");
        scene.heard();
    }
}

#[test]
fn only_who_gave_up_says_that_there_is_no_next_attempt() {
    let mut scene = seeded(7);
    for attempt in 1..=5 {
        let heard = scene.heard();
        let state = heard.said.last().unwrap();
        assert_eq!((&state["attempt"], &state["next_retry_ms"]), (&json!(attempt), &json!(0)), "under way");
        assert_eq!(state["last_error"].is_null(), attempt == 1);
        scene.answer(heard.http[0].0, 500, "");
        let heard = scene.heard();
        let state = heard.said.last().unwrap();
        assert_eq!(
            (state["next_retry_ms"].is_null(), &state["failure_count"]),
            (attempt == 5, &json!(attempt))
        );
        if let Some(rest) = next_try(&scene) {
            scene.world.pass(rest);
        }
    }
}

#[test]
fn a_retry_after_is_honoured_up_to_its_bound_and_never_shortens_a_rest() {
    for (asked, least, most) in [(30, 30_000, 30_000), (3600, 60_000, 60_000), (0, 250, 375)] {
        let mut scene = seeded(4);
        let spans =
            play(&mut scene, &[Answer::Status(429, Some(seconds(asked))), Answer::Body(ATTACHED)], millis(1));
        let gap = gaps(&spans)[0];
        assert!((millis(least)..=millis(most)).contains(&gap), "{gap:?} after {asked} s");
    }
}

#[test]
fn a_newer_handshake_restarts_the_series_and_the_old_answer_is_nothing() {
    let mut scene = seeded(5);
    let (old, _) = scene.heard().request(ATTACH);
    scene.say(&handshake("hand-2", "sess-1", URL).replace(TOKEN, "NEWER-TOKEN"));
    let heard = scene.heard();
    assert_eq!((heard.cancelled.clone(), heard.http.len()), (vec![old], 0), "never two at once: {heard:?}");
    // Its answer came before the cancelling did.
    scene.answer(old, 200, ATTACHED);
    let heard = scene.heard();
    assert!(!heard.kinds().contains(&"controller.handshake.attach.success"));
    let (new, asked) = heard.request(ATTACH);
    assert_eq!((asked.bearer.as_str(), asked.handshake.as_deref()), ("NEWER-TOKEN", Some("hand-2")));
    scene.answer(old, 200, ATTACHED);
    assert!(scene.heard().facts.is_empty());
    scene.answer(new, 200, ATTACHED);
    assert!(scene.heard().kinds().contains(&"controller.handshake.attach.success"));
    // One that was cancelled and is never answered holds nothing up beyond its own time.
    let mut scene = seeded(5);
    let (_, asked) = scene.heard().request(ATTACH);
    scene.say(&handshake("hand-2", "sess-1", URL));
    scene.heard();
    scene.world.live(asked.deadline.since(scene.world.now));
    assert_eq!(scene.heard().request(ATTACH).1.at, asked.deadline);
}

#[test]
fn a_code_that_is_too_old_is_not_used_between_attempts_either() {
    let mut scene = Scene::up(trusting());
    scene.say(&handshake("hand-1", "sess-1", URL).replace("\"ttl_ms\":600000", "\"ttl_ms\":1000"));
    let (effect, _) = scene.heard().request(ATTACH);
    scene.world.now = scene.world.now + millis(900);
    scene.answer(effect, 500, "");
    scene.heard();
    scene.world.live(seconds(3));
    let heard = scene.heard();
    assert!(heard.http.is_empty(), "{heard:?}");
    let [AttachFact::Failure { attempt: 1, code, retry_ms: None, .. }] = &heard.facts[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(code, "expired");
}

#[test]
fn without_a_ttl_the_wall_clock_decides_with_some_slack() {
    let mut scene = Scene::up(trusting());
    // The wall clock began with the boot, a second ago.
    let absolute = handshake("hand-1", "sess-1", URL)
        .replace("\"expires_at_ms\":0,\"ttl_ms\":600000", "\"expires_at_ms\":-58900");
    scene.say(&absolute);
    let (effect, _) = scene.heard().request(ATTACH);
    scene.answer(effect, 500, "");
    scene.heard();
    scene.world.live(seconds(2));
    assert_eq!(failures(&mut scene).last().unwrap().1, "expired");
}

fn framed() -> Scene {
    let mut scene = Scene::up(trusting());
    scene.say(&handshake("hand-1", "sess-1", "link:"));
    assert!(scene.heard().types().contains(&"attach"));
    scene
}

#[test]
fn over_the_link_an_answer_that_does_not_come_is_a_failure_and_so_is_a_lost_link() {
    let mut scene = framed();
    scene.world.live(seconds(9));
    scene.say(&challenge_frame(1));
    scene.heard();
    scene.world.live(millis(1300));
    let log = failures(&mut scene);
    assert_eq!((log[0].0, log[0].1.as_str()), (1, "timed_out"));
    scene.world.live(seconds(1));
    scene.heard();
    scene.lose();
    let log = failures(&mut scene);
    assert_eq!((log[0].0, log[0].1.as_str()), (2, "link_lost"));
    // The next attempt waits for a link, and that is no attempt.
    scene.world.live(millis(100));
    scene.connect();
    scene.world.live(seconds(1));
    let heard = scene.heard();
    let starts =
        heard.facts.iter().filter(|fact| matches!(fact, AttachFact::Start { attempt: 3, .. })).count();
    assert_eq!((starts, heard.types().contains(&"attach")), (1, true), "{heard:?}");
}

#[test]
fn over_the_link_a_refusal_ends_the_series_unless_it_may_pass() {
    for (word, code, passing) in [
        ("storage_failed", "storage_failed", true),
        ("invalid_code", "invalid_code", false),
        ("unknown_session", "unknown_session", false),
        ("CODE-42", "bad_answer", false),
    ] {
        let mut scene = framed();
        scene.say(&format!(r#"{{"type":"attach_refused","code":"{word}","message":"CODE-42 is wrong"}}"#));
        let log = failures(&mut scene);
        assert_eq!((log[0].1.as_str(), log[0].2.is_some()), (code, passing));
        assert!(!scene.shown.contains(CODE), "{}", scene.shown);
    }
}

#[test]
fn over_the_link_the_answer_to_an_older_handshake_is_not_taken_for_that_to_the_newer() {
    let mut scene = framed();
    scene.say(&handshake("hand-2", "sess-2", "link:"));
    assert!(scene.heard().types().contains(&"attach"));
    scene.say(r#"{"type":"attach_refused","code":"unknown_session","message":""}"#);
    assert!(scene.heard().facts.is_empty());
    scene.say(r#"{"type":"attached","session_id":"sess-2","ok":true,"attach_method":"code"}"#);
    assert!(scene.heard().kinds().contains(&"controller.handshake.attach.success"));
}

#[test]
fn attempts_over_http_go_on_while_the_link_is_lost_and_the_listener_works_meanwhile() {
    let mut scene = seeded(6);
    let (effect, _) = scene.heard().request(ATTACH);
    scene.say(&challenge_frame(1));
    assert_eq!(scene.heard().types(), ["proof"], "nothing waits for the manager");
    scene.lose();
    scene.answer(effect, 200, ATTACHED);
    let heard = scene.heard();
    assert_eq!(heard.kinds(), ["controller.handshake.attach.success"]);
    heard.request(POLL);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 96, ..ProptestConfig::default() })]

    /// A2, and that what the agent tells of itself is so.
    #[test]
    fn gaps_lie_within_the_backoff_and_its_jitter(
        seed in any::<u8>(),
        kinds in proptest::collection::vec(0usize..6, 1..8),
        delay in 0u64..9_000,
        attempts_max in 1u32..9,
        first in 1u64..2_000,
        jitter_percent in 0u32..200,
    ) {
        let attach = AttachSettings {
            attempts_max, backoff_first: millis(first), jitter_percent, ..AttachSettings::default()
        };
        let config = AgentConfig { silent_intervals: 100_000, attach, ..trusting() };
        let mut scene = Scene::seeded(config, [seed; 32]);
        scene.connect();
        scene.heard();
        scene.say(&handshake("hand-1", "sess-1", URL).replace("\"ttl_ms\":600000", "\"ttl_ms\":6000000"));
        let kinds: Vec<usize> = kinds.into_iter().cycle().take(attempts_max as usize).collect();
        let answers: Vec<Answer> = kinds
            .into_iter()
            .map(|kind| match kind {
                0 => status(500),
                1 => status(408),
                2 => Answer::Body("nonsense"),
                3 => Answer::Error(EffectErrorKind::Unreachable),
                4 => Answer::Huge,
                _ => Answer::Hang,
            })
            .collect();
        let spans = play(&mut scene, &answers, millis(delay));
        for (index, gap) in gaps(&spans).into_iter().enumerate() {
            let backoff = millis(first).saturating_mul(1 << index).min(seconds(5));
            let most = backoff + backoff * jitter_percent / 100;
            prop_assert!(backoff <= gap && gap <= most, "gap {index}: {gap:?} of {backoff:?}..{most:?}");
        }
        scene.world.live(seconds(100));
        prop_assert!(scene.heard().http.is_empty());
    }
}
