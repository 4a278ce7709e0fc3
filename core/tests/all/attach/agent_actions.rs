//! Actions: each at most once, in order, acknowledged as what it became.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::adoption::*;
use castra_core::Input;
use castra_core::attach::{ActionCode, ActionStatus, Applied, AttachSettings};
use castra_core::boundary::{Change, EffectErrorKind};
use castra_core::config::AgentConfig;
use castra_core::event::{AttachFact, Fact};
use castra_core::id::EffectId;
use castra_core::time::Time;

use crate::support::*;

fn row(id: &str, outcome: Option<(ActionStatus, Option<ActionCode>)>) -> Applied {
    Applied { session: self::id("sess-1"), id: self::id(id), outcome, settled_at: None }
}

fn set(id: &str, outcome: Option<(ActionStatus, Option<ActionCode>)>) -> Change {
    Change::SetApplied(row(id, outcome).into())
}

/// The only write of what was heard.
fn write(heard: &Heard) -> (EffectId, Vec<Change>) {
    assert_eq!(heard.writes.len(), 1, "{heard:?}");
    heard.writes[0].clone()
}

/// An action is given and applied.
fn apply(scene: &mut Scene, id: &str) {
    scene.say(&action(id, id, 60_000));
    let (typed, said) = scene.oblige();
    assert_eq!((typed, said), (vec![id.to_owned()], vec![ack(id, "ok", None)]));
}

fn settle(scene: &mut Scene, id: &str) {
    scene.say(&format!(r#"{{"type":"action_settled","id":"{id}"}}"#));
    assert!(scene.heard().said.is_empty());
}

#[test]
fn an_action_is_remembered_before_it_is_applied_and_its_outcome_before_the_ack() {
    let mut scene = Scene::attached(trusting());
    scene.say(&action("a1", "ls\\n", 60_000));
    let heard = scene.heard();
    let (effect, batch) = write(&heard);
    assert_eq!((batch, heard.typed.len(), heard.said.len()), (vec![set("a1", None)], 0, 0));
    scene.done(effect);
    let heard = scene.heard();
    assert_eq!((heard.typed.len(), heard.writes.len(), heard.said.len()), (1, 0, 0));
    let (effect, terminal, bytes) = heard.typed[0].clone();
    assert_eq!((terminal.as_str(), bytes.as_slice()), ("main", b"ls\n".as_slice()));
    scene.done(effect);
    let heard = scene.heard();
    let (effect, batch) = write(&heard);
    assert_eq!((batch, heard.said.len()), (vec![set("a1", Some((ActionStatus::Ok, None)))], 0));
    scene.done(effect);
    let heard = scene.heard();
    assert_eq!(heard.said, [ack("a1", "ok", None)]);
    assert_eq!(heard.kinds(), ["controller.actions.fast_path.apply"]);
}

#[test]
fn actions_are_applied_one_at_a_time_in_their_order_and_written_together() {
    let mut scene = Scene::attached(trusting());
    let names: Vec<String> = (0..20).map(|number| format!("a{number}")).collect();
    let frames: Vec<u8> = names.iter().flat_map(|name| frame(&action(name, name, 60_000))).collect();
    scene.world.say(scene.link.unwrap(), frames);
    let heard = scene.heard();
    let (effect, batch) = write(&heard);
    // The first alone: those that came meanwhile share the next.
    scene.done(effect);
    let second = scene.heard();
    assert_eq!(
        (batch.len() + second.writes.iter().map(|(_, batch)| batch.len()).sum::<usize>(), second.typed.len()),
        (20, 1)
    );
    second.writes.iter().for_each(|(effect, _)| scene.done(*effect));
    let (typing, _, first) = second.typed[0].clone();
    assert!(scene.heard().typed.is_empty(), "one at a time");
    scene.done(typing);
    let (typed, said) = scene.oblige();
    let typed: Vec<String> = [String::from_utf8(first).unwrap()].into_iter().chain(typed).collect();
    assert_eq!(typed, names);
    assert_eq!(said, names.iter().map(|name| ack(name, "ok", None)).collect::<Vec<_>>());
}

#[test]
fn an_action_that_comes_again_is_applied_once_and_acknowledged_as_before() {
    let mut scene = Scene::attached(trusting());
    scene.say(&action("a1", "once", 60_000));
    let (effect, _) = write(&scene.heard());
    scene.say(&action("a1", "once", 60_000));
    scene.done(effect);
    scene.say(&action("a1", "once", 60_000));
    let heard = scene.heard();
    assert_eq!((heard.typed.len(), heard.writes.len(), heard.said.len()), (1, 0, 0));
    scene.fail(heard.typed[0].0, EffectErrorKind::Owned);
    let preempted = ack("a1", "preempted", Some("owned"));
    assert_eq!(scene.oblige(), (vec![], vec![preempted.clone()]));
    scene.say(&action("a1", "once", 0));
    assert_eq!(scene.oblige(), (vec![], vec![preempted.clone()]));
    // Also on the next link, where it is acknowledged without being asked.
    scene.lose();
    scene.heard();
    scene.connect();
    let heard = scene.heard();
    assert_eq!(heard.types()[..2], ["attached", "lease_renew"], "first of all: {heard:?}");
    assert!(heard.said.contains(&preempted) && heard.typed.is_empty(), "{heard:?}");
}

#[test]
fn what_comes_over_the_link_and_by_a_poll_is_applied_once() {
    let (mut scene, poll) = Scene::polling(trusting());
    let polled =
        r#"[{"id":"a1","action_type":"terminal_write","payload":{"bytes":"ls\n"},"expires_at":null}]"#;
    scene.answer(poll, 200, polled);
    let (typed, said) = scene.oblige();
    assert_eq!((typed, said), (vec!["ls\n".to_owned()], vec![]));
    // The link is back before the ack was confirmed.
    scene.connect();
    let heard = scene.heard();
    assert_eq!(heard.said.iter().filter(|frame| **frame == ack("a1", "ok", None)).count(), 1, "{heard:?}");
    scene.say(&action("a1", "ls\\n", 60_000));
    assert_eq!(scene.oblige(), (vec![], vec![ack("a1", "ok", None)]));
}

#[test]
fn every_failure_is_acknowledged_as_what_it_is() {
    use EffectErrorKind::{Cancelled, Owned, ProgramMissing, Storage, Terminal, TimedOut, Unreachable};
    for (kind, status, code) in [
        (Owned, "preempted", "owned"),
        (ProgramMissing, "rejected", "no_terminal"),
        (TimedOut, "rejected", "timed_out"),
        (Terminal, "rejected", "failed"),
        (Unreachable, "rejected", "no_terminals"),
        (Storage, "rejected", "failed"),
        (Cancelled, "rejected", "interrupted"),
    ] {
        let mut scene = Scene::attached(trusting());
        scene.say(&action("a1", "x", 60_000));
        let (effect, _) = write(&scene.heard());
        scene.done(effect);
        scene.fail(scene.world.log.iter().find_map(typing).unwrap(), kind);
        scene.world.log.retain(|out| typing(out).is_none());
        assert_eq!(scene.oblige().1, [ack("a1", status, Some(code))]);
    }
}

fn typing(out: &Out) -> Option<EffectId> {
    if let Out::Type(effect, ..) = out { Some(*effect) } else { None }
}

#[test]
fn what_cannot_be_applied_is_refused_and_written_nowhere() {
    let long = format!(r#"{{"bytes":"{}"}}"#, "x".repeat(15 * 1024));
    for (kind, payload, code) in [
        ("terminal_resize", r#"{"bytes":"x"}"#, "unknown_type"),
        ("terminal_write", r"{}", "bad_payload"),
        ("terminal_write", r#"["x"]"#, "bad_payload"),
        ("terminal_write", r#"{"bytes":7}"#, "bad_payload"),
        ("terminal_write", r#"{"bytes":[256]}"#, "bad_payload"),
        ("terminal_write", r#"{"bytes":"x","terminal":""}"#, "bad_payload"),
        ("terminal_write", &long, "bad_payload"),
    ] {
        let mut scene = Scene::attached(trusting());
        scene.say(&format!(
            r#"{{"type":"action","id":"a1","action_type":"{kind}","payload":{payload},"ttl_ms":9}}"#
        ));
        let heard = scene.heard();
        assert_eq!(heard.said, [ack("a1", "rejected", Some(code))], "{payload}");
        assert!(heard.writes.is_empty() && heard.typed.is_empty());
    }
    let mut scene = Scene::attached(trusting());
    scene.say(r#"{"type":"action","id":"a1","action_type":"terminal_write","payload":{"terminal":"two","bytes":[104,0,255]},"ttl_ms":9}"#);
    let (effect, _) = write(&scene.heard());
    scene.done(effect);
    let heard = scene.heard();
    assert_eq!((heard.typed[0].1.as_str(), &heard.typed[0].2[..]), ("two", &[104, 0, 255][..]));
}

#[test]
fn an_action_that_is_too_late_is_expired_before_and_after_it_was_written() {
    let mut scene = Scene::attached(trusting());
    scene.say(&action("a1", "x", 0));
    let heard = scene.heard();
    assert_eq!((heard.said.clone(), heard.writes.len()), (vec![ack("a1", "expired", None)], 0));
    scene.say(&action("a2", "x", 100));
    let (effect, _) = write(&scene.heard());
    scene.world.now = scene.world.now + millis(100);
    scene.done(effect);
    let heard = scene.heard();
    assert!(heard.typed.is_empty(), "{heard:?}");
    let (effect, batch) = write(&heard);
    assert_eq!(batch, [set("a2", Some((ActionStatus::Expired, None)))]);
    scene.done(effect);
    assert_eq!(scene.heard().said, [ack("a2", "expired", None)]);
}

#[test]
fn without_a_database_or_after_a_failed_write_nothing_is_applied() {
    let mut scene = Scene::attached(AgentConfig { inbox: None, ..trusting() });
    scene.say(&action("a1", "x", 1000));
    let heard = scene.heard();
    assert_eq!(heard.said, [ack("a1", "rejected", Some("no_storage"))]);
    assert!(heard.writes.is_empty() && heard.typed.is_empty());
    let mut scene = Scene::attached(trusting());
    scene.say(&action("a1", "x", 60_000));
    let (effect, _) = write(&scene.heard());
    scene.fail(effect, EffectErrorKind::Storage);
    let log = scene.world.log.clone();
    assert!(log.iter().any(|out| matches!(out, Out::Event(Fact::StorageFailed { .. }))));
    let no_storage = ack("a1", "rejected", Some("no_storage"));
    let heard = scene.heard();
    assert_eq!((heard.said, heard.typed.len()), (vec![no_storage.clone()], 0));
    scene.say(&action("a1", "x", 60_000));
    assert_eq!(scene.oblige(), (vec![], vec![no_storage]));
    // The disk may say that it was begun: the next write says otherwise.
    scene.say(&action("a2", "x", 60_000));
    let (_, batch) = write(&scene.heard());
    let outcome = Some((ActionStatus::Rejected, Some(ActionCode::NoStorage)));
    assert_eq!(batch, [set("a2", None), set("a1", outcome)]);
}

#[test]
fn an_outcome_that_could_not_be_written_is_told_all_the_same_and_written_later() {
    let mut scene = Scene::attached(trusting());
    scene.say(&action("a1", "x", 60_000));
    let (effect, _) = write(&scene.heard());
    scene.done(effect);
    let typed = scene.heard().typed[0].0;
    scene.done(typed);
    let (effect, _) = write(&scene.heard());
    scene.fail(effect, EffectErrorKind::Storage);
    assert_eq!(scene.heard().said, [ack("a1", "ok", None)]);
    scene.say(&action("a2", "x", 60_000));
    let (_, batch) = write(&scene.heard());
    assert!(batch.contains(&set("a1", Some((ActionStatus::Ok, None)))), "{batch:?}");
}

/// The agent is killed at each point; what was durable then is what the next one finds.
#[test]
fn an_agent_that_starts_again_applies_nothing_twice_and_says_what_it_knows() {
    for (applied, expected, typed) in [
        // Killed before the first write: it was not begun.
        (vec![], ack("a1", "ok", None), 1),
        // Begun; applied or not.
        (vec![row("a1", None)], ack("a1", "rejected", Some("interrupted")), 0),
        // Applied, and not acknowledged.
        (vec![row("a1", Some((ActionStatus::Ok, None)))], ack("a1", "ok", None), 0),
        (vec![row("a1", Some((ActionStatus::Expired, None)))], ack("a1", "expired", None), 0),
    ] {
        let mut scene = Scene::restored(trusting(), applied, Time::from_millis(500));
        scene.connect();
        scene.heard();
        scene.say(&handshake("hand-2", "sess-1", URL));
        let (effect, _) = scene.heard().request(ATTACH);
        scene.answer(effect, 200, ATTACHED);
        let before = scene.heard().said;
        scene.say(&action("a1", "x", 60_000));
        let (types, said) = scene.oblige();
        assert_eq!((types.len(), said), (typed, vec![expected.clone()]));
        assert_eq!(before.contains(&expected), typed == 0, "also without being asked");
        // What an interruption came to is written with whatever comes next.
        scene.say(&action("a9", "x", 60_000));
        let (_, batch) = write(&scene.heard());
        let interrupted = set("a1", Some((ActionStatus::Rejected, Some(ActionCode::Interrupted))));
        assert_eq!(batch.contains(&interrupted), expected["error_code"] == "interrupted", "{batch:?}");
    }
}

#[test]
fn what_was_confirmed_is_forgotten_ten_minutes_later_and_not_before() {
    let mut scene = Scene::attached(AgentConfig { silent_intervals: 10_000, ..trusting() });
    apply(&mut scene, "a1");
    apply(&mut scene, "a2");
    settle(&mut scene, "a1");
    settle(&mut scene, "no-such");
    scene.world.live(seconds(600));
    let heard = scene.heard();
    assert!(heard.writes.is_empty(), "{heard:?}");
    scene.say(&action("a1", "a1", 60_000));
    assert_eq!(scene.oblige(), (vec![], vec![ack("a1", "ok", None)]));
    scene.world.live(seconds(11));
    let heard = scene.heard();
    let (effect, batch) = write(&heard);
    let gone = Change::DropApplied { session: id("sess-1"), id: id("a1") };
    assert_eq!(batch, [gone]);
    scene.done(effect);
    scene.world.live(seconds(1200));
    assert!(scene.heard().writes.is_empty(), "the other was not confirmed");
    scene.say(&action("a1", "a1", 60_000));
    assert_eq!(scene.oblige().0, ["a1"], "it is a new one");
}

#[test]
fn how_long_ago_an_ack_was_confirmed_outlives_the_agent() {
    let wall = |millis| castra_core::time::WallTime::from_unix_millis(millis);
    let settled = Applied { settled_at: Some(wall(1_000)), ..row("a1", Some((ActionStatus::Ok, None))) };
    let mut scene = Scene::restored(trusting(), vec![settled], Time::from_millis(591_000));
    scene.heard();
    scene.world.live(seconds(15));
    assert!(scene.heard().writes.is_empty());
    scene.world.live(seconds(6));
    let (_, batch) = write(&scene.heard());
    assert_eq!(batch, [Change::DropApplied { session: id("sess-1"), id: id("a1") }]);
}

#[test]
fn tables_are_bounded_and_whoever_is_too_much_is_told() {
    let attach = AttachSettings { remembered_max: 2, ..AttachSettings::default() };
    let mut scene = Scene::attached(AgentConfig { attach, ..trusting() });
    apply(&mut scene, "a1");
    apply(&mut scene, "a2");
    scene.say(&action("a3", "x", 60_000));
    assert_eq!(scene.oblige(), (vec![], vec![ack("a3", "rejected", Some("busy"))]));
    let mut scene = Scene::attached(trusting());
    for number in 0..600 {
        scene.say(&action(&format!("a{number}"), "x", 60_000));
    }
    let busy = scene.heard().said;
    assert_eq!(busy.len(), 600 - 512);
    assert_eq!(busy[0], ack("a512", "rejected", Some("busy")));
}

#[test]
fn an_action_on_a_link_that_is_not_trusted_is_refused() {
    let mut scene = Scene::up(AgentConfig { trust_unkeyed_broker: false, ..trusting() });
    scene.say(&action("a1", "rm -rf /\\n", 60_000));
    let heard = scene.heard();
    assert_eq!(heard.said, [ack("a1", "rejected", Some("unkeyed_link"))]);
    assert!(heard.typed.is_empty() && heard.writes.is_empty());
    assert!(!scene.shown.contains("rm -rf"));
}

#[test]
fn a_release_stops_what_was_not_begun() {
    for written in [false, true] {
        release(written);
    }
}

/// `written`: what was not begun waits for its turn only.
fn release(written: bool) {
    let mut scene = Scene::attached(trusting());
    for name in ["a1", "a2", "a3"] {
        scene.say(&action(name, name, 60_000));
    }
    let (first, _) = write(&scene.heard());
    scene.done(first);
    let heard = scene.heard();
    let (typing, second) = (heard.typed[0].0, heard.writes[0].0);
    if written {
        scene.done(second);
    }
    scene.say(r#"{"type":"manager_detach","session_id":"sess-1"}"#);
    if !written {
        scene.done(second);
    }
    scene.done(typing);
    let (typed, said) = scene.oblige();
    assert!(typed.is_empty(), "{typed:?}");
    assert!(said.iter().all(|frame| frame["type"] == "attach_state"), "{said:?}");
}

#[test]
fn an_action_that_takes_too_long_is_cancelled_and_its_end_awaited() {
    let mut scene = Scene::attached(trusting());
    for name in ["a1", "a2"] {
        scene.say(&action(name, name, 60_000));
    }
    let (effect, _) = write(&scene.heard());
    scene.done(effect);
    let heard = scene.heard();
    let typing = heard.typed[0].0;
    scene.done(heard.writes[0].0);
    scene.world.live(seconds(5));
    let heard = scene.heard();
    assert_eq!((heard.cancelled.clone(), heard.typed.len()), (vec![typing], 0));
    scene.fail(typing, EffectErrorKind::Cancelled);
    let (typed, said) = scene.oblige();
    assert_eq!(typed, ["a2"], "only now");
    assert_eq!(said[0], ack("a1", "rejected", Some("timed_out")));
}

#[test]
fn a_drain_waits_for_what_is_being_applied_and_leaves_the_rest_to_the_next_agent() {
    let mut scene = Scene::attached(trusting());
    for name in ["a1", "a2"] {
        scene.say(&action(name, name, 60_000));
    }
    let (effect, _) = write(&scene.heard());
    scene.done(effect);
    let heard = scene.heard();
    let typing = heard.typed[0].0;
    scene.done(heard.writes[0].0);
    scene.world.give(Input::Drain { deadline: scene.world.now + seconds(3) });
    assert!(!scene.world.log.contains(&Out::Stopped));
    let (effect, batch) = write(&scene.heard());
    assert_eq!(batch, [Change::DropApplied { session: id("sess-1"), id: id("a2") }]);
    scene.done(effect);
    scene.done(typing);
    let (effect, batch) = write(&scene.heard());
    assert_eq!(batch, [set("a1", Some((ActionStatus::Ok, None)))]);
    assert!(!scene.world.log.contains(&Out::Stopped));
    scene.done(effect);
    assert!(scene.world.log.contains(&Out::Stopped));
    assert_eq!(scene.world.wait, None);
    // One that doesn't end is cut at the deadline: the next agent finds it begun.
    let mut scene = Scene::attached(trusting());
    scene.say(&action("a1", "x", 60_000));
    let (effect, _) = write(&scene.heard());
    scene.done(effect);
    let typing = scene.heard().typed[0].0;
    scene.world.give(Input::Drain { deadline: scene.world.now + seconds(3) });
    assert!(!scene.world.log.contains(&Out::Stopped));
    scene.world.live(seconds(3));
    let log = scene.world.take();
    assert!(log.contains(&Out::Cancel(typing)) && log.contains(&Out::Stopped), "{log:?}");
    assert!(!log.iter().any(|out| matches!(out, Out::Persist(..))));
}

#[test]
fn acks_never_hold_up_a_proof() {
    let mut scene = Scene::attached(trusting());
    let link = scene.link.unwrap();
    // The broker reads nothing: less than a third of the buffer is free.
    scene.world.give(Input::Writable { conn: link, room: ROOM / 3 });
    for number in 0..300 {
        scene.say(&action(&format!("a{number}"), "x", 0));
    }
    assert!(scene.heard().said.is_empty());
    scene.say(&challenge_frame(1));
    assert_eq!(scene.heard().types(), ["proof"]);
    scene.world.give(Input::Writable { conn: link, room: ROOM });
    let said = scene.heard().said;
    assert_eq!(said.len(), 300);
    assert_eq!(said.first(), Some(&ack("a0", "expired", None)));
}

#[test]
fn what_is_done_is_told_by_the_names_of_the_specification() {
    let mut scene = Scene::attached(trusting());
    apply(&mut scene, "a1");
    assert!(scene.shown.contains("controller.actions.fast_path.apply"));
    scene.lose();
    let heard = scene.heard();
    assert!(heard.facts.contains(&AttachFact::FastPath { session: id("sess-1"), active: false }));
}
