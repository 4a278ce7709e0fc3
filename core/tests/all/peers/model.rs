//! Anything in any order: relations are on both sides, and every message is in an
//! inbox once or its sender knows why not.
#![allow(clippy::unwrap_used)]

use crate::common;
use std::collections::{BTreeMap, BTreeSet};

use crate::peering::{Town, code};
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Link(usize, usize),
    Unlink(usize, usize),
    LinkAs(usize, usize),
    Send {
        from: usize,
        to: usize,
        queue: bool,
        key: Option<u8>,
        by_guest: bool,
    },
    /// The guest stores the oldest that it has not, and says so; or only stores it.
    Receive {
        guest: usize,
        acknowledged: bool,
    },
    Reject(usize),
    Come(usize, &'static str),
    Go(usize),
    State(usize, &'static str),
    Forget(usize),
    Stick,
    Release,
    Commit,
    Fail(bool),
    Pass(u64),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let guest = || 0..NAMES.len();
    let policy = || prop_oneof![Just("default"), Just("accept"), Just("deny")];
    let key = proptest::option::weighted(0.3, 0..3u8);
    let step = prop_oneof![
        3 => (guest(), guest()).prop_map(|(one, other)| Step::Link(one, other)),
        1 => (guest(), guest()).prop_map(|(one, other)| Step::Unlink(one, other)),
        1 => (guest(), guest()).prop_map(|(one, other)| Step::LinkAs(one, other)),
        8 => (guest(), guest(), proptest::bool::weighted(0.8), key, any::<bool>())
            .prop_map(|(from, to, queue, key, by_guest)| Step::Send { from, to, queue, key, by_guest }),
        6 => (guest(), proptest::bool::weighted(0.8))
            .prop_map(|(guest, acknowledged)| Step::Receive { guest, acknowledged }),
        1 => guest().prop_map(Step::Reject),
        3 => (guest(), policy()).prop_map(|(guest, policy)| Step::Come(guest, policy)),
        2 => guest().prop_map(Step::Go),
        1 => (guest(), policy()).prop_map(|(guest, policy)| Step::State(guest, policy)),
        1 => guest().prop_map(Step::Forget),
        2 => Just(Step::Stick),
        2 => Just(Step::Release),
        3 => Just(Step::Commit),
        2 => any::<bool>().prop_map(Step::Fail),
        3 => prop_oneof![Just(10), Just(900), Just(2_500), Just(31_000)].prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

/// What the guests and the senders of a town know.
struct Story {
    town: Town,
    /// Ids in each guest's inbox, in order: durable, and never twice.
    inboxes: BTreeMap<&'static str, Vec<String>>,
    /// What each guest was sent in its session and has not stored.
    pending: BTreeMap<&'static str, Vec<String>>,
    rejected: BTreeSet<String>,
    orders: Vec<u64>,
    asked: u64,
    told: Vec<(String, String)>,
    /// The way and the place of each message, by its text.
    sent: u64,
    order: BTreeMap<String, (String, String, u64)>,
    /// Which message of which it is known that it was handed to its guest.
    handed: BTreeSet<String>,
}

impl Story {
    fn new() -> Self {
        let mut town = Town::of(&NAMES);
        town.acks = false;
        Self {
            town,
            inboxes: BTreeMap::new(),
            pending: BTreeMap::new(),
            rejected: BTreeSet::new(),
            orders: Vec::new(),
            asked: 0,
            told: Vec::new(),
            sent: 0,
            order: BTreeMap::new(),
            handed: BTreeSet::new(),
        }
    }

    fn is_there(&self, guest: &'static str) -> bool {
        self.town.guests.contains_key(guest)
    }

    fn take(&mut self, step: &Step) {
        let name = |guest: &usize| NAMES[*guest];
        match step {
            Step::Link(one, other) => {
                let id = self.town.order_link(name(one), name(other));
                self.orders.push(id);
            }
            Step::Unlink(one, other) => {
                let params = json!({"source": name(one), "name": name(other)});
                let id = self.town.order("unregister_peer", params);
                self.orders.push(id);
            }
            Step::LinkAs(one, other) if self.is_there(name(one)) => {
                self.asked += 1;
                let id = self.asked;
                self.town.say(name(one), json!({"type": "peer_register", "id": id, "name": name(other)}));
                for offer in self.town.frames(name(other), "peer_offer") {
                    self.town
                        .say(name(other), json!({"type": "peer_answer", "id": offer["id"], "accept": true}));
                }
            }
            Step::Send { from, to, queue, key, by_guest } => {
                self.sent += 1;
                let (from, to, text) = (name(from), name(to), format!("{}", self.sent));
                let key = key.map(|key| format!("k{key}"));
                self.order.insert(text.clone(), (from.into(), to.into(), self.sent));
                if !by_guest {
                    let params = json!({"from": from, "to": to, "text": text, "queue": queue, "key": key});
                    let id = self.town.order("send_to_peer", params);
                    self.orders.push(id);
                } else if self.is_there(from) {
                    self.asked += 1;
                    let id = self.asked;
                    let frame = json!({"type": "peer_send", "id": id, "to": to, "text": text, "queue": queue, "key": key});
                    self.town.say(from, frame);
                }
            }
            Step::Receive { guest, acknowledged } if self.is_there(name(guest)) => {
                let guest = name(guest);
                let pending = self.pending.entry(guest).or_default();
                if pending.is_empty() {
                    return;
                }
                let id = pending.remove(0);
                let inbox = self.inboxes.entry(guest).or_default();
                if !inbox.contains(&id) && !self.rejected.contains(&id) {
                    inbox.push(id.clone());
                }
                if *acknowledged {
                    let rejected = self.rejected.contains(&id);
                    self.town.say(guest, json!({"type": "peer_ack", "id": id, "rejected": rejected}));
                }
            }
            Step::Reject(guest) if self.is_there(name(guest)) => {
                let guest = name(guest);
                let inbox = self.inboxes.entry(guest).or_default();
                let pending = self.pending.entry(guest).or_default();
                if let Some(place) = pending.iter().position(|id| !inbox.contains(id)) {
                    let id = pending.remove(place);
                    self.rejected.insert(id.clone());
                    self.town.say(guest, json!({"type": "peer_ack", "id": id, "rejected": true}));
                }
            }
            Step::Come(guest, policy) if !self.is_there(name(guest)) => {
                self.pending.remove(name(guest));
                self.town.join(name(guest));
                self.town.state(name(guest), policy);
            }
            Step::Go(guest) if self.is_there(name(guest)) => {
                self.town.leave(name(guest));
                self.pending.remove(name(guest));
            }
            Step::State(guest, policy) if self.is_there(name(guest)) => self.town.state(name(guest), policy),
            Step::Forget(guest) => {
                let id = self.town.order("forget", json!({"guest": name(guest)}));
                self.town.answer(id);
            }
            Step::Stick => self.town.stuck = true,
            Step::Release => self.town.release(),
            Step::Commit if !self.town.world.effects.is_empty() => self.town.release_one(),
            Step::Fail(fails) => self.town.failing = *fails,
            Step::Pass(millis) => self.town.pass(common::ms(*millis)),
            Step::Crash => {
                // What was on its way got to the disk, or a part of it.
                if self.town.world.effects.len() > 1 {
                    self.town.release_one();
                }
                self.town.stuck = false;
                self.town.world.effects.clear();
                self.collect();
                self.town.restart();
                self.orders.clear();
                self.pending.clear();
            }
            _ => {}
        }
        // A forgotten guest's session has ended.
        for name in NAMES {
            if self.town.guests.get(name).is_some_and(|conn| self.town.world.is_closed(*conn)) {
                self.town.guests.remove(name);
                self.pending.remove(name);
            }
        }
        self.collect();
    }

    /// What everybody heard.
    fn collect(&mut self) {
        for name in NAMES {
            for message in self.town.mail(name) {
                let id = message["id"].as_str().unwrap().to_owned();
                let ended = |(outcome, told): &(String, String)| {
                    *told == id && outcome != "queued" && outcome != "storage_failed"
                };
                assert!(
                    self.handed.contains(&id) || !self.told.iter().any(ended),
                    "sent for the first time after its end"
                );
                self.handed.insert(id.clone());
                let (from, to, _) = &self.order[message["text"].as_str().unwrap()];
                assert_eq!((from.as_str(), to.as_str()), (message["from"].as_str().unwrap(), name));
                self.pending.entry(name).or_default().push(id);
            }
            for result in self.town.frames(name, "peer_result") {
                self.hear(&result["outcome"], &result["message_id"]);
            }
        }
        let mut orders = std::mem::take(&mut self.orders);
        orders.retain(|id| match self.town.answer(*id) {
            Some(answer) => {
                let outcome = json!(code(&answer));
                self.hear(&outcome, &answer["data"]["id"]);
                false
            }
            None => true,
        });
        self.orders = orders;
    }

    fn hear(&mut self, outcome: &Value, id: &Value) {
        if let Some(id) = id.as_str() {
            self.told.push((outcome.as_str().unwrap().to_owned(), id.to_owned()));
        }
    }

    fn check(&self) {
        self.town.peers();
        let inboxes: BTreeSet<&String> = self.inboxes.values().flatten().collect();
        assert_eq!(inboxes.len(), self.inboxes.values().map(Vec::len).sum::<usize>(), "once each");
        for (outcome, id) in &self.told {
            match outcome.as_str() {
                "delivered" => assert!(inboxes.contains(id), "told of a delivery that was none"),
                "rejected" => assert!(!inboxes.contains(id)),
                "expired" => {
                    assert!(self.handed.contains(id) || !inboxes.contains(id));
                }
                "queued" | "storage_failed" => {}
                other => panic!("{other} with an id"),
            }
        }
    }

    /// All comes to rest: the disk works, everybody comes and takes what waits.
    fn end(&mut self) {
        self.take(&Step::Fail(false));
        self.take(&Step::Release);
        self.take(&Step::Pass(31_000));
        for guest in 0..NAMES.len() {
            self.take(&Step::Come(guest, "default"));
            self.take(&Step::State(guest, "default"));
        }
        for _ in 0..3 {
            self.take(&Step::Pass(31_000));
            for guest in 0..NAMES.len() {
                for _ in 0..200 {
                    self.take(&Step::Receive { guest, acknowledged: true });
                }
            }
        }
        self.check();
        assert!(self.orders.is_empty(), "every request was answered");
        let sizes = self.town.world.broker.sizes();
        assert_eq!(sizes.peer_operations, 0);
        let durable = self.town.ledger.restored().messages;
        assert_eq!(sizes.messages, durable.len());
        // Whatever was taken has an end that its sender can know, and the disk says the same.
        use castra_core::peers::Fate;
        for message in &durable {
            let id = message.id.to_string();
            let inbox = self.inboxes.get(message.to.as_str()).is_some_and(|inbox| inbox.contains(&id));
            match message.fate {
                Fate::Delivered { .. } => assert!(inbox, "{message:?}"),
                Fate::Rejected { .. } => assert!(!inbox && self.rejected.contains(&id), "{message:?}"),
                Fate::Expired { .. } => {}
                Fate::Queued => panic!("it waits for ever: {message:?}"),
            }
        }
        for (outcome, id) in &self.told {
            let fate =
                durable.iter().find(|message| message.id.to_string() == *id).map(|message| message.fate);
            match (outcome.as_str(), fate) {
                ("delivered", Some(Fate::Delivered { .. })) | ("rejected", Some(Fate::Rejected { .. })) => {}
                ("expired", Some(Fate::Expired { .. } | Fate::Delivered { .. })) => {}
                ("queued" | "storage_failed", _) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// In the order in which they were sent, for each pair that was never interrupted.
fn in_order(story: &Story, texts: &BTreeMap<String, u64>) {
    for inbox in story.inboxes.values() {
        let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
        for id in inbox {
            let Some((from, to, number)) = texts.get(id).and_then(|text| story.order.get(&text.to_string()))
            else {
                continue;
            };
            let before = last.insert((from.clone(), to.clone()), *number);
            assert!(before.is_none_or(|before| before < *number), "{from} to {to}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn relations_are_on_both_sides_and_messages_in_an_inbox_once(steps in steps()) {
        let mut story = Story::new();
        for name in NAMES {
            story.town.state(name, "accept");
        }
        for step in &steps {
            story.take(step);
            story.check();
        }
        story.end();
    }

    #[test]
    fn messages_of_a_pair_arrive_in_their_order(steps in steps()) {
        let mut story = Story::new();
        for (one, other) in [("a", "b"), ("b", "c"), ("a", "c")] {
            story.town.link(one, other);
        }
        let quiet = |step: &&Step| {
            !matches!(step, Step::Receive { acknowledged: false, .. } | Step::Reject(_) | Step::Fail(_)
                | Step::Unlink(..) | Step::Forget(_) | Step::State(..))
        };
        let mut texts = BTreeMap::new();
        for step in steps.iter().filter(quiet) {
            story.take(step);
            for message in story.town.ledger.restored().messages {
                texts.insert(message.id.to_string(), message.text.parse().unwrap_or(0));
            }
        }
        story.end();
        in_order(&story, &texts);
    }
}
