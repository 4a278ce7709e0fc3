//! The agent's inbox: what is kept, what is acknowledged, and when.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::RestoredAgent;
use castra_core::boundary::{
    Batch, Change, Effect, EffectError, EffectErrorKind, Origin, Remote, Transport, Via,
};
use castra_core::config::AgentConfig;
use castra_core::entropy::Entropy;
use castra_core::event::{Fact, Storage};
use castra_core::id::{ConnId, EffectId};
use castra_core::peers::{InboxSettings, MessageId, Policy, Received};
use castra_core::time::{Time, WallTime};
use castra_core::{Engine, Input, Output, trace};
use serde_json::{Value, json};

fn settings() -> InboxSettings {
    InboxSettings::default()
}

fn world(settings: InboxSettings) -> (World, ConnId) {
    let mut world = World::new(with_inbox(settings));
    let link = world.up();
    (world, link)
}

fn id(number: u8) -> MessageId {
    MessageId([number; 16])
}

fn message(number: u8, text: &str) -> String {
    from("builder", true, number, text)
}

fn from(name: &str, authenticated: bool, number: u8, text: &str) -> String {
    json!({"type": "peer_message", "id": id(number), "from": name, "from_authenticated": authenticated,
           "text": text, "sent_at": "2026-11-20T10:00:00.000Z", "wake": true})
    .to_string()
}

fn ack(number: u8) -> Value {
    json!({"type": "peer_ack", "id": id(number)})
}

/// What was written and what was said on the link since the last time.
fn heard(world: &mut World, link: ConnId) -> (Vec<(EffectId, Batch)>, Vec<Value>) {
    let (mut writes, mut said) = (Vec::new(), Vec::new());
    for out in world.take() {
        match out {
            Out::Persist(effect, batch) => writes.push((effect, batch)),
            Out::Sent(conn, bytes) if conn == link => said.extend(bytes),
            _ => {}
        }
    }
    let said = frames(&said).iter().map(|json| serde_json::from_str(json).unwrap()).collect();
    (writes, said)
}

/// The only write, before which nothing was said.
fn write(world: &mut World, link: ConnId) -> (EffectId, Batch) {
    let (mut writes, said) = heard(world, link);
    assert_eq!((writes.len(), said), (1, vec![]));
    writes.remove(0)
}

fn done(world: &mut World, effect: EffectId) {
    world.give(Input::Done { effect, result: Ok(()) });
}

fn fail(world: &mut World, effect: EffectId) {
    let error = EffectError { kind: EffectErrorKind::Storage, message: "no space left".into() };
    world.give(Input::Done { effect, result: Err(error) });
}

/// A message comes and is kept.
fn keep(world: &mut World, link: ConnId, number: u8, text: &str) {
    world.say(link, frame(&message(number, text)));
    let (effect, _) = write(world, link);
    done(world, effect);
    let (_, said) = heard(world, link);
    assert_eq!(said, [ack(number)]);
}

/// What a local client reads.
fn texts(world: &mut World) -> Vec<String> {
    let client = world.client();
    world.say(client, "{\"method\":\"inbox\"}\n");
    let reply: Value = serde_json::from_str(&world.text(client)).unwrap();
    assert_eq!(reply["event"], "inbox");
    world.closed(client);
    let messages = reply["data"]["messages"].as_array().unwrap();
    messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_message_is_acknowledged_and_shown_only_once_it_is_durable() {
    let (mut world, link) = world(settings());
    world.say(link, frame(&message(1, "hello")));
    let (effect, batch) = write(&mut world, link);
    let at = now(world.now).wall;
    let received = Received {
        number: 1,
        id: id(1),
        from: "builder".parse().unwrap(),
        from_authenticated: true,
        text: "hello".into(),
        sent_at: WallTime::from_unix_millis(1_795_168_800_000),
        delivered_at: at,
        wake: true,
    };
    let seen = Change::SetSeen { id: id(1), at: Some(at) };
    assert_eq!(batch, [Change::SetReceived(received.into()), seen]);
    assert_eq!(texts(&mut world), [""; 0]);
    done(&mut world, effect);
    let log = world.log.clone();
    let builder = "builder".parse().unwrap();
    assert!(log.contains(&Out::Event(Fact::MessageDelivered { id: id(1), from: builder })), "{log:?}");
    assert_eq!(heard(&mut world, link), (vec![], vec![ack(1)]));
    assert_eq!(texts(&mut world), ["hello"]);
}

#[test]
fn a_write_that_failed_is_not_acknowledged_and_is_tried_again_with_the_next_one_in_order() {
    let (mut world, link) = world(settings());
    world.say(link, frame(&message(1, "one")));
    let (effect, first) = write(&mut world, link);
    fail(&mut world, effect);
    let message_of = |fact: &Fact| matches!(fact, Fact::StorageFailed { what: Storage::Database, message } if message == "no space left");
    assert!(world.events().iter().any(message_of));
    assert_eq!(texts(&mut world), [""; 0]);
    // A second failure is not told again.
    world.say(link, frame(&message(1, "one")));
    let (effect, again) = write(&mut world, link);
    assert_eq!(first[0], again[0], "in its old place: perhaps it is on the disk already");
    fail(&mut world, effect);
    assert_eq!(world.take(), []);
    world.say(link, frame(&message(2, "two")));
    let (effect, batch) = write(&mut world, link);
    assert_eq!(batch.len(), 4);
    done(&mut world, effect);
    assert!(world.log.contains(&Out::Event(Fact::StorageRecovered { what: Storage::Database })));
    assert_eq!(heard(&mut world, link).1, [ack(1), ack(2)]);
    assert_eq!(texts(&mut world), ["one", "two"]);
}

#[test]
fn a_message_that_comes_again_is_acknowledged_and_kept_once() {
    let (mut world, link) = world(settings());
    keep(&mut world, link, 1, "once");
    world.say(link, frame(&message(1, "once")));
    assert_eq!(heard(&mut world, link), (vec![], vec![ack(1)]));
    // Also while it is being written, and in the next session: one acknowledgement.
    world.say(link, frame(&message(2, "twice")));
    let (effect, _) = write(&mut world, link);
    world.say(link, frame(&message(2, "twice")));
    assert_eq!(world.take(), []);
    world.closed(link);
    world.live(seconds(2));
    let link = world.up();
    world.say(link, frame(&message(2, "twice")));
    assert_eq!(world.take(), []);
    done(&mut world, effect);
    assert_eq!(heard(&mut world, link), (vec![], vec![ack(2)]));
    assert_eq!(texts(&mut world), ["once", "twice"]);
}

#[test]
fn what_is_written_while_nobody_is_connected_is_acknowledged_when_it_comes_again() {
    let (mut world, link) = world(settings());
    world.say(link, frame(&message(1, "late")));
    let (effect, _) = write(&mut world, link);
    world.closed(link);
    done(&mut world, effect);
    assert_eq!(heard(&mut world, link), (vec![], vec![]));
    assert_eq!(texts(&mut world), ["late"]);
    world.live(seconds(2));
    let link = world.up();
    world.say(link, frame(&message(1, "late")));
    assert_eq!(heard(&mut world, link), (vec![], vec![ack(1)]));
}

#[test]
fn while_one_write_is_on_its_way_the_others_wait_and_share_the_next() {
    let (mut world, link) = world(settings());
    world.say(link, frame(&message(0, "0")));
    let (effect, _) = write(&mut world, link);
    // No more than a broker sends without an acknowledgement.
    for number in 1..20 {
        world.say(link, frame(&message(number, &number.to_string())));
    }
    assert_eq!(world.take(), []);
    done(&mut world, effect);
    let (mut writes, said) = heard(&mut world, link);
    assert_eq!(said, [ack(0)]);
    let (effect, batch) = writes.remove(0);
    assert_eq!(batch.len(), 2 * 15);
    done(&mut world, effect);
    assert_eq!(heard(&mut world, link).1, (1..16).map(ack).collect::<Vec<_>>());
    keep(&mut world, link, 16, "16");
    assert_eq!(texts(&mut world), (0..17).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_its_write_is_forgotten_with_its_session_or_its_relation() {
    for unlinked in [false, true] {
        let (mut world, mut link) = world(settings());
        world.say(link, frame(&message(1, "one")));
        let (effect, _) = write(&mut world, link);
        world.say(link, frame(&message(2, "two")));
        world.say(link, frame(&from("other", true, 3, "three")));
        if unlinked {
            world.say(link, frame(r#"{"type":"peer_removed","name":"builder"}"#));
            let removed = Fact::PeerUnregistered { peer: "builder".parse().unwrap() };
            assert_eq!(world.events(), [removed]);
        } else {
            world.closed(link);
            world.live(seconds(2));
            link = world.up();
        }
        done(&mut world, effect);
        let (writes, said) = heard(&mut world, link);
        assert_eq!((writes.len(), said), (usize::from(unlinked), vec![ack(1)]));
        writes.iter().for_each(|(effect, _)| done(&mut world, *effect));
        world.take();
        assert_eq!(texts(&mut world), if unlinked { vec!["one", "three"] } else { vec!["one"] });
    }
}

#[test]
fn the_oldest_goes_when_there_are_too_many_or_too_long_ones_and_stays_known() {
    for bounds in
        [InboxSettings { messages_max: 2, ..settings() }, InboxSettings { bytes_max: 9, ..settings() }]
    {
        let (mut world, link) = world(bounds);
        keep(&mut world, link, 1, "1234");
        keep(&mut world, link, 2, "1235");
        world.say(link, frame(&message(3, "1236")));
        let (effect, batch) = write(&mut world, link);
        assert_eq!(batch.last(), Some(&Change::DropReceived { number: 1 }));
        assert_eq!(texts(&mut world), ["1234", "1235"]);
        done(&mut world, effect);
        world.take();
        assert_eq!(texts(&mut world), ["1235", "1236"]);
        world.say(link, frame(&message(1, "1234")));
        assert_eq!(heard(&mut world, link), (vec![], vec![ack(1)]));
    }
    let (mut world, link) = world(InboxSettings { bytes_max: 1, messages_max: 0, ..settings() });
    keep(&mut world, link, 1, "one");
    keep(&mut world, link, 2, "two");
    assert_eq!(texts(&mut world), ["two"], "the newest is always kept");
}

#[test]
fn an_id_is_forgotten_after_its_time_and_until_then_nothing_more_is_taken_than_can_be_remembered() {
    let bounds = InboxSettings { remembered_max: 2, remember: seconds(60), ..settings() };
    let (mut world, link) = world(bounds);
    keep(&mut world, link, 1, "one");
    world.now = world.now + seconds(5);
    keep(&mut world, link, 2, "two");
    world.say(link, frame(&message(3, "three")));
    assert_eq!(heard(&mut world, link), (vec![], vec![]));
    for second in 0..11 {
        world.now = world.now + seconds(5);
        world.say(link, frame(&challenge_frame(second)));
        world.take();
    }
    world.say(link, frame(&message(3, "three")));
    let (effect, batch) = write(&mut world, link);
    assert_eq!(batch.last(), Some(&Change::SetSeen { id: id(1), at: None }));
    done(&mut world, effect);
    world.take();
    world.say(link, frame(&message(4, "four")));
    assert_eq!(heard(&mut world, link), (vec![], vec![]));
}

#[test]
fn a_sender_that_is_not_proven_is_rejected_where_that_is_demanded() {
    let (mut world, link) = world(InboxSettings { require_authenticated: true, ..settings() });
    world.say(link, frame(&from("builder", false, 1, "psst")));
    let devbox = "devbox".parse().unwrap();
    assert!(world.log.contains(&Out::Event(Fact::MessageExpired { id: id(1), to: devbox, reason: None })));
    let rejected = json!({"type": "peer_ack", "id": id(1), "rejected": true});
    assert_eq!(heard(&mut world, link), (vec![], vec![rejected]));
    keep(&mut world, link, 2, "proven");
    assert_eq!(texts(&mut world), ["proven"]);
}

#[test]
fn a_restart_keeps_the_messages_their_places_and_what_was_seen() {
    let received = |number: u64, byte: u8, text: &str| Received {
        number,
        id: id(byte),
        from: "builder".parse().unwrap(),
        from_authenticated: false,
        text: text.into(),
        sent_at: WallTime::default(),
        delivered_at: WallTime::default(),
        wake: true,
    };
    let day = 24 * 3600;
    let start = Time::ZERO + seconds(30 * day);
    let days_ago = |days: i64| {
        WallTime::from_unix_millis(now(start).wall.unix_millis() - days * 1000 * i64::try_from(day).unwrap())
    };
    let restored = RestoredAgent {
        messages: vec![received(7, 1, "seven"), received(9, 2, "nine")],
        // The clock was set back since the last one came.
        seen: vec![(id(1), days_ago(9)), (id(2), days_ago(1)), (id(3), days_ago(-400))],
        ..RestoredAgent::default()
    };
    let config = with_inbox(InboxSettings { remembered_max: 3, ..settings() });
    let mut world = World::restored(config, restored, Entropy::chosen(0), start);
    let link = world.up();
    assert_eq!(texts(&mut world), ["seven", "nine"]);
    for number in [2, 3] {
        world.say(link, frame(&message(number, "again")));
        assert_eq!(heard(&mut world, link), (vec![], vec![ack(number)]));
    }
    world.say(link, frame(&message(4, "ten")));
    let (effect, batch) = write(&mut world, link);
    let Change::SetReceived(ten) = &batch[0] else { panic!("{batch:?}") };
    assert_eq!(ten.number, 10);
    assert_eq!(batch[2..], [Change::SetSeen { id: id(1), at: None }], "older than any broker keeps it");
    done(&mut world, effect);
    world.take();
    assert_eq!(texts(&mut world), ["seven", "nine", "ten"]);
}

#[test]
fn whoever_takes_part_says_so_and_one_that_proves_itself_once_does_not() {
    let hello = |config: AgentConfig| {
        let mut world = World::new(config);
        let link = world.connect();
        world.text(link)
    };
    assert!(hello(with_inbox(settings())).contains(" capabilities=attach-v1,peers-v1,proof-v1 "));
    assert!(!hello(config()).contains("peers-v1"));
    assert!(!hello(AgentConfig { once: true, ..with_inbox(settings()) }).contains("peers-v1"));
    // Without an inbox what is said of peers is not for this agent.
    let mut world = World::new(config());
    let link = world.up();
    world.say(link, frame(&message(1, "hello")));
    world.say(link, frame(r#"{"type":"peer_offer","id":1,"from":"builder","from_authenticated":true}"#));
    assert_eq!(world.take(), []);
}

#[test]
fn a_policy_is_the_first_frame_of_each_session_and_is_said_again_when_it_changes() {
    let deny = InboxSettings { policy: Policy::Deny, ..settings() };
    let stated = |policy: &str| json!({"type": "peer_policy", "policy": policy});
    let mut world = World::new(with_inbox(deny.clone()));
    for _ in 0..2 {
        let link = world.connect();
        world.take();
        world.say(link, GREETING);
        world.say(link, challenge_line("none"));
        world.take();
        // The challenge that comes with the ok is answered after it.
        world.say(link, [ok_line("").into_bytes(), frame(&challenge_frame(1))].concat());
        let (_, said) = heard(&mut world, link);
        assert_eq!(said, [stated("deny"), serde_json::from_str(&proof_frame(1)).unwrap()]);
        world.give(Input::Reload(with_inbox(deny.clone()).into()));
        assert_eq!(world.take(), []);
        world.closed(link);
        world.live(seconds(2));
    }
    let link = world.up();
    world.give(Input::Reload(with_inbox(settings()).into()));
    assert_eq!(heard(&mut world, link).1, [stated("default")]);
    world.closed(link);
    world.live(seconds(2));
    let link = world.connect();
    world.say(link, [GREETING, challenge_line("none").as_bytes()].concat());
    world.take();
    world.say(link, ok_line(""));
    assert_eq!(heard(&mut world, link).1, [Value::Null; 0], "the default needs no word");
}

#[test]
fn on_a_keyed_session_the_acknowledgement_is_tagged() {
    let mut world = World::new(AgentConfig { token: Some(token()), ..with_inbox(settings()) });
    let (link, mut broker) = world.up_keyed();
    let bytes = broker.frame(&message(1, "hello"));
    world.say(link, bytes);
    let (effect, _) = write(&mut world, link);
    done(&mut world, effect);
    let sent = world.sent(link);
    assert_eq!(serde_json::from_str::<Value>(&broker.open(&sent)).unwrap(), ack(1));
}

#[test]
fn a_recording_of_an_inbox_replays() {
    let (sender, lines) = std::sync::mpsc::channel();
    let sink = Box::new(move |line| sender.send(line).is_ok());
    let start = now(Time::from_millis(10));
    let seen = vec![(id(9), WallTime::from_unix_millis(5))];
    let restored = RestoredAgent { seen, ..RestoredAgent::default() };
    let seed = trace::Seed::Chosen(3);
    let mut agent = trace::Recorded::agent(with_inbox(settings()), restored, seed, start, Some(sink));
    let conn = ConnId { index: 1, generation: 0 };
    let mut persisted = 0;
    let mut drain = |agent: &mut trace::Recorded<castra_core::Agent>| loop {
        match agent.poll_output() {
            Output::Wait(_) => return,
            Output::Effect { effect: Effect::Persist(batch), .. } => persisted += batch.len(),
            _ => {}
        }
    };
    drain(&mut agent);
    let opened = Input::Opened {
        conn,
        via: Via::Link(Transport::Tcp),
        origin: Origin::Dialled(EffectId(1)),
        local: None,
        remote: Remote::Unknown,
        peer_cred: None,
        room: ROOM,
    };
    agent.handle(start, opened);
    drain(&mut agent);
    let phase_a = [GREETING, challenge_line("none").as_bytes(), ok_line("").as_bytes()].concat();
    for bytes in [phase_a, frame(&message(9, "seen")), frame(&message(1, "hello"))] {
        agent.handle(start, Input::Bytes { conn, bytes: &bytes });
        drain(&mut agent);
    }
    agent.handle(start, Input::Done { effect: EffectId(2), result: Ok(()) });
    drain(&mut agent);
    assert_eq!(persisted, 2);
    agent.finish();
    let recorded: String = lines.try_iter().collect();
    let replayed = trace::replay(recorded.as_bytes());
    assert!(matches!(replayed, Ok(trace::Outcome::Equal(_))), "{replayed:?}\n{recorded}");
}
