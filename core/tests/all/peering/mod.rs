//! A broker, its disk, guests that take part and an operator, on a virtual clock.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::boundary::{CloseCause, Effect, EffectError, EffectErrorKind, Wakeup};
use castra_core::config::BrokerConfig;
use castra_core::id::{ConnId, EffectId};
use castra_core::peers::Ledger;
use castra_core::{Input, Restored};
use serde_json::{Value, json};

use crate::common::World;

pub struct Town {
    pub world: World,
    /// What is durable.
    pub ledger: Ledger,
    /// Commits fail.
    pub failing: bool,
    /// Commits take for ever.
    pub stuck: bool,
    /// Guests acknowledge at once whatever they get.
    pub acks: bool,
    pub guests: BTreeMap<&'static str, ConnId>,
    /// Start commands that run.
    pub starts: Vec<(EffectId, String)>,
    operator: ConnId,
    heard: BTreeMap<&'static str, Vec<Value>>,
    lines: Vec<Value>,
    asked: u64,
    incarnation: u32,
    change: fn(&mut BrokerConfig),
}

impl Town {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: fn(&mut BrokerConfig)) -> Self {
        let mut world = World::new(change);
        world.obliging = false;
        let operator = world.open_control();
        Self {
            world,
            ledger: Ledger::default(),
            failing: false,
            stuck: false,
            acks: true,
            guests: BTreeMap::new(),
            starts: Vec::new(),
            operator,
            heard: BTreeMap::new(),
            lines: Vec::new(),
            asked: 0,
            incarnation: 7,
            change,
        }
    }

    /// These are there, and said that the default will do.
    pub fn of(names: &[&'static str]) -> Self {
        let mut town = Self::new();
        for name in names {
            town.enter(name);
        }
        town
    }

    /// `of`, and the first is everybody's peer.
    pub fn linked(names: &[&'static str]) -> Self {
        let mut town = Self::of(names);
        for name in &names[1..] {
            town.link(names[0], name);
        }
        town
    }

    /// The broker dies, and another starts from what is durable.
    pub fn restart(&mut self) {
        self.incarnation += 1;
        let restored =
            Restored { incarnation: self.incarnation, peers: self.ledger.restored(), ..Restored::default() };
        let mut now = self.world.now;
        now.boot = now.boot + Duration::from_secs(1);
        self.world = World::at(self.change, restored, now);
        self.world.obliging = false;
        self.guests.clear();
        self.starts.clear();
        self.operator = self.world.open_control();
        self.pump();
    }

    /// A session that takes part and has not said anything.
    pub fn join(&mut self, name: &'static str) {
        self.join_as(name, ",peers-v1");
    }

    pub fn join_as(&mut self, name: &'static str, more: &str) {
        let (conn, nonce, _) = self.world.hello(name, more);
        self.world.write(conn, format!("proof {nonce}\n").as_bytes());
        self.pump_effects();
        let ok = self.world.line(conn);
        assert!(ok.starts_with("ok session=sess-"), "{ok}");
        self.guests.insert(name, conn);
        self.pump();
    }

    pub fn enter(&mut self, name: &'static str) {
        self.join(name);
        self.state(name, "default");
    }

    pub fn state(&mut self, name: &'static str, policy: &str) {
        self.say(name, json!({"type": "peer_policy", "policy": policy}));
    }

    pub fn leave(&mut self, name: &'static str) {
        let conn = self.guests.remove(name).unwrap();
        self.world.handle(Input::Closed { conn, why: CloseCause::Eof });
        self.pump();
    }

    pub fn say(&mut self, name: &'static str, frame: Value) {
        self.world.send(self.guests[name], &frame.to_string());
        self.pump();
    }

    /// What a guest got since the last time.
    pub fn hear(&mut self, name: &'static str) -> Vec<Value> {
        self.heard.remove(name).unwrap_or_default()
    }

    fn hear_of(&mut self, name: &'static str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let heard = self.heard.entry(name).or_default();
        let (found, rest) = std::mem::take(heard).into_iter().partition(wanted);
        *heard = rest;
        found
    }

    /// The answer to a guest's request.
    pub fn result(&mut self, name: &'static str, id: u64) -> Option<Value> {
        let mut found = self.hear_of(name, |frame| frame["type"] == "peer_result" && frame["id"] == id);
        assert!(found.len() < 2, "one answer each: {found:?}");
        found.pop()
    }

    pub fn outcome(&mut self, name: &'static str, id: u64) -> Option<String> {
        self.result(name, id).map(|result| result["outcome"].as_str().unwrap().to_owned())
    }

    /// The messages that a guest got, whole.
    pub fn mail(&mut self, name: &'static str) -> Vec<Value> {
        self.hear_of(name, |frame| frame["type"] == "peer_message")
    }

    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.mail(name).iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    }

    pub fn frames(&mut self, name: &'static str, kind: &str) -> Vec<Value> {
        self.hear_of(name, |frame| frame["type"] == kind)
    }

    pub fn ack(&mut self, name: &'static str, message: &Value) {
        self.say(name, json!({"type": "peer_ack", "id": message["id"]}));
    }

    /// The operator asks; its request's number.
    pub fn order(&mut self, method: &str, params: Value) -> u64 {
        self.asked += 1;
        let line = json!({"id": self.asked, "method": method, "params": params});
        self.world.write(self.operator, format!("{line}\n").as_bytes());
        self.pump();
        self.asked
    }

    pub fn answer(&mut self, id: u64) -> Option<Value> {
        let place = self.lines.iter().position(|line| line["id"] == id)?;
        Some(self.lines.remove(place))
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.order(method, params);
        self.answer(id).expect("an answer at once")
    }

    pub fn link(&mut self, one: &str, other: &str) {
        let answer = self.ask("register_peer", json!({"source": one, "name": other}));
        assert_eq!(code(&answer), "registered", "{answer}");
    }

    pub fn order_link(&mut self, one: &str, other: &str) -> u64 {
        self.order("register_peer", json!({"source": one, "name": other}))
    }

    pub fn order_send(&mut self, from: &str, to: &str, text: &str) -> u64 {
        self.order("send_to_peer", json!({"from": from, "to": to, "text": text}))
    }

    /// The outcome of the operator's request, if there is one.
    pub fn told(&mut self, id: u64) -> Option<String> {
        self.answer(id).map(|answer| code(&answer).to_owned())
    }

    pub fn inbox(&mut self, name: &str) -> Vec<Value> {
        let answer = self.ask("inbox", json!({"name": name}));
        answer["data"]["messages"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }

    /// Every pair of peers; each is on both sides, and so is what is durable.
    pub fn peers(&self) -> Vec<(String, String)> {
        use castra_core::peers::Relation;
        let live: Vec<_> = self.world.broker.relations().collect();
        for (pair, relation, sides) in &live {
            assert_eq!(*sides, [*relation == Relation::Linked; 2], "{pair:?}");
        }
        if !self.stuck {
            let durable = self.ledger.restored().relations;
            assert_eq!(
                live.iter().map(|(pair, relation, _)| (*pair, *relation)).collect::<Vec<_>>(),
                durable
            );
        }
        let linked = live.iter().filter(|(_, relation, _)| *relation == Relation::Linked);
        linked.map(|(pair, ..)| pair.both().map(|name| name.as_str().to_owned()).into()).collect()
    }

    /// Commits that wait get to the disk, or don't.
    pub fn release(&mut self) {
        self.stuck = false;
        self.pump();
    }

    /// The oldest commit that waits.
    pub fn release_one(&mut self) {
        let (effect, _) = self.world.effects.first().cloned().expect("a commit waits");
        self.end(effect);
        self.pump();
    }

    fn end(&mut self, effect: EffectId) {
        let place = self.world.effects.iter().position(|(id, _)| *id == effect).unwrap();
        let (effect, what) = self.world.effects.remove(place);
        let result = match what {
            Effect::Persist(_) if self.failing => {
                Err(EffectError { kind: EffectErrorKind::Storage, message: "no space left".into() })
            }
            Effect::Persist(batch) => {
                batch.iter().for_each(|change| self.ledger.apply(change));
                Ok(())
            }
            _ => Ok(()),
        };
        self.world.handle(Input::Done { effect, result });
    }

    fn pump_effects(&mut self) -> bool {
        let mut busy = false;
        loop {
            let starts = self.world.effects.iter().position(|(_, what)| matches!(what, Effect::Start { .. }));
            if let Some(place) = starts {
                let (id, what) = self.world.effects.remove(place);
                let Effect::Start { guest, .. } = what else { unreachable!() };
                self.starts.push((id, guest.as_str().to_owned()));
            }
            let stuck = self.stuck;
            let next =
                self.world.effects.iter().find(|(_, what)| !stuck || !matches!(what, Effect::Persist(_)));
            let Some((effect, _)) = next.cloned() else { return busy };
            self.end(effect);
            busy = true;
        }
    }

    pub fn pump(&mut self) {
        loop {
            let mut busy = self.pump_effects();
            for (name, conn) in self.guests.clone() {
                while let Some(frame) = self.world.frame(conn) {
                    busy = true;
                    if frame["type"] == "challenge" {
                        let (seq, nonce) = (&frame["seq"], &frame["nonce"]);
                        self.world
                            .send(conn, &json!({"type": "proof", "seq": seq, "proof": nonce}).to_string());
                        continue;
                    }
                    if self.acks && frame["type"] == "peer_message" {
                        self.world.send(conn, &json!({"type": "peer_ack", "id": frame["id"]}).to_string());
                    }
                    self.heard.entry(name).or_default().push(frame);
                }
            }
            let said = self.world.take(self.operator);
            self.lines.extend(
                String::from_utf8(said)
                    .unwrap()
                    .lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap()),
            );
            let now = self.world.now.boot;
            if self.world.deadline.is_some_and(|deadline| deadline.at <= now && deadline.why == Wakeup::More)
            {
                self.world.handle(Input::Tick);
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    /// Time passes; the broker is woken whenever it asked for it, and guests answer.
    pub fn pass(&mut self, span: Duration) {
        let end = self.world.now.boot + span;
        self.pump();
        let (mut last, mut ticks) = (self.world.now.boot, 0);
        while let Some(deadline) = self.world.deadline.filter(|deadline| deadline.at <= end) {
            let at = deadline.at.max(self.world.now.boot);
            ticks = if at == last { ticks + 1 } else { 0 };
            assert!(ticks < 100, "it spins: {deadline:?}");
            last = at;
            self.world.jump(at.since(self.world.now.boot));
            self.world.handle(Input::Tick);
            self.pump();
        }
        self.world.jump(end.since(self.world.now.boot));
    }

    pub fn finish_start(&mut self, ok: bool) {
        let (effect, _) = self.starts.remove(0);
        let error = || EffectError { kind: EffectErrorKind::Command, message: "exit status 3".into() };
        self.world.handle(Input::Done { effect, result: if ok { Ok(()) } else { Err(error()) } });
        self.pump();
    }

    /// Events of a kind so far, and whom they are about.
    pub fn events(&self, kind: &str) -> Vec<String> {
        let of_kind = self.world.events.iter().filter(|event| event.fact.kind() == kind);
        of_kind.filter_map(|event| event.guest.map(|guest| guest.as_str().to_owned())).collect()
    }
}

/// The word of an answer on control.
pub fn code(answer: &Value) -> &str {
    if answer["event"] == "error" { &answer["data"]["code"] } else { &answer["data"]["outcome"] }
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
