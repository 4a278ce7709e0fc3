//! A broker that manages, its disk, an operator, and agents that know the protocol's
//! bytes alone, on a virtual clock.
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::attach::AttachLedger;
use castra_core::boundary::{CloseCause, Effect, EffectError, EffectErrorKind, Remote, Via, Wakeup};
use castra_core::config::BrokerConfig;
use castra_core::id::ConnId;
use castra_core::{Input, Restored};
use serde_json::{Value, json};

use crate::common::World;

pub struct Shore {
    pub world: World,
    /// What is durable.
    pub ledger: AttachLedger,
    /// Commits fail.
    pub failing: bool,
    /// Commits take for ever.
    pub stuck: bool,
    /// Guests answer challenges.
    pub alive: bool,
    pub guests: BTreeMap<&'static str, ConnId>,
    pub operator: ConnId,
    heard: BTreeMap<&'static str, Vec<Value>>,
    lines: Vec<Value>,
    asked: u64,
    pub incarnation: u32,
    change: fn(&mut BrokerConfig),
}

/// An answer to an HTTP request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

/// A handshake as a guest keeps it.
#[derive(Clone, Debug)]
pub struct Told {
    pub id: String,
    pub session: String,
    pub beach: String,
    pub token: String,
    pub code: String,
    pub url: String,
    pub kind: String,
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// With an HTTP listener on every address.
pub fn with_http(config: &mut BrokerConfig) {
    config.manager.http = Some("0.0.0.0:7171".parse().unwrap());
}

/// The word of an answer on control.
pub fn code(answer: &Value) -> &str {
    if answer["event"] == "error" {
        answer["data"]["code"].as_str().unwrap()
    } else {
        answer["event"].as_str().unwrap()
    }
}

impl Shore {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn http() -> Self {
        Self::with(with_http)
    }

    pub fn with(change: fn(&mut BrokerConfig)) -> Self {
        let mut world = World::new(change);
        world.obliging = false;
        world.local = Some("10.0.2.2:7070".parse().unwrap());
        let operator = world.open_control();
        Self {
            world,
            ledger: AttachLedger::default(),
            failing: false,
            stuck: false,
            alive: true,
            guests: BTreeMap::new(),
            operator,
            heard: BTreeMap::new(),
            lines: Vec::new(),
            asked: 0,
            incarnation: 7,
            change,
        }
    }

    /// The broker dies, and another starts from what is durable, `later`.
    pub fn restart(&mut self, later: Duration) {
        self.incarnation += 1;
        let manager = self.ledger.restored();
        let restored = Restored { incarnation: self.incarnation, manager, ..Restored::default() };
        let mut now = self.world.now;
        let wall = now.wall.unix_millis() + i64::try_from(later.as_millis()).unwrap();
        now.wall = castra_core::time::WallTime::from_unix_millis(wall);
        now.boot = now.boot + later;
        let events = std::mem::take(&mut self.world.events);
        self.world = World::at(self.change, restored, now);
        self.world.events.splice(..0, events);
        self.world.obliging = false;
        self.world.local = Some("10.0.2.2:7070".parse().unwrap());
        self.guests.clear();
        self.heard.clear();
        self.operator = self.world.open_control();
        self.pump();
    }

    /// A whole handshake of the link; the agent has said nothing yet.
    pub fn join(&mut self, name: &'static str) {
        self.join_as(name, ",attach-v1");
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

    pub fn leave(&mut self, name: &'static str) {
        let conn = self.guests.remove(name).unwrap();
        self.world.handle(Input::Closed { conn, why: CloseCause::Eof });
        self.pump();
    }

    /// A frame of a guest, as bytes of the protocol.
    pub fn say(&mut self, name: &'static str, json: &str) {
        self.world.send(self.guests[name], json);
        self.pump();
    }

    /// What a guest got since the last time.
    pub fn hear(&mut self, name: &'static str) -> Vec<Value> {
        self.heard.remove(name).unwrap_or_default()
    }

    pub fn frames(&mut self, name: &'static str, kind: &str) -> Vec<Value> {
        let heard = self.heard.entry(name).or_default();
        let (found, rest) = std::mem::take(heard).into_iter().partition(|frame| frame["type"] == kind);
        *heard = rest;
        found
    }

    /// The only handshake that a guest got.
    pub fn told(&mut self, name: &'static str) -> Told {
        let found = self.frames(name, "manager_handshake");
        assert_eq!(found.len(), 1, "{found:?}");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{found:?}")).to_owned();
        let frame = &found[0];
        let block = &frame["controller_auto_attach"];
        assert_eq!(
            (&block["private_beach_id"], &block["manager_url"]),
            (&frame["private_beach_id"], &frame["manager_url"])
        );
        assert_eq!(frame["schema"], 1);
        Told {
            id: text(&frame["handshake_id"]),
            session: text(&frame["session_id"]),
            beach: text(&frame["private_beach_id"]),
            token: text(&frame["controller_token"]),
            code: text(&block["attach_code"]),
            url: text(&frame["manager_url"]),
            kind: text(&frame["handshake_kind"]),
        }
    }

    /// The agent attaches over its link.
    pub fn attach(&mut self, name: &'static str, told: &Told) {
        let Told { session, code, id, .. } = told;
        self.say(
            name,
            &format!(r#"{{"type":"attach","session_id":"{session}","code":"{code}","handshake_id":"{id}"}}"#),
        );
    }

    /// Joins, is adopted over the link and attaches.
    pub fn adopted(&mut self, name: &'static str) -> Told {
        self.join(name);
        let id = self.order("adopt", json!({"guest": name, "link": true}));
        let told = self.told(name);
        self.attach(name, &told);
        assert_eq!(code(&self.answer(id).unwrap()), "adopted");
        assert_eq!(self.frames(name, "attached").len(), 1);
        told
    }

    pub fn ack(&mut self, name: &'static str, id: &str, status: &str) {
        self.say(name, &format!(r#"{{"type":"action_ack","id":"{id}","status":"{status}"}}"#));
    }

    /// The ids of the actions that a guest got over its link.
    pub fn actions(&mut self, name: &'static str) -> Vec<String> {
        self.frames(name, "action").iter().map(|frame| frame["id"].as_str().unwrap().to_owned()).collect()
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

    /// An action that isn't waited for; its id.
    pub fn queue(&mut self, guest: &str) -> String {
        let answer = self.ask_queue(guest);
        assert_eq!(answer["data"]["status"], "queued", "{answer}");
        answer["data"]["id"].as_str().unwrap().to_owned()
    }

    pub fn ask_queue(&mut self, guest: &str) -> Value {
        let params = json!({"guest": guest, "action_type": "terminal_write", "payload": {"bytes": "ls\n"}, "wait": false});
        self.ask("action_send", params)
    }

    pub fn rows(&mut self) -> Vec<Value> {
        self.ask("attachments", json!({}))["data"]["attachments"].as_array().unwrap().clone()
    }

    pub fn queued(&mut self) -> Vec<String> {
        let listed = self.ask("action_list", json!({}))["data"].clone();
        let ids = listed["actions"].as_array().unwrap();
        assert_eq!(listed["total"], ids.len());
        ids.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    pub fn release(&mut self) {
        self.stuck = false;
        self.pump();
    }

    fn pump_effects(&mut self) -> bool {
        let mut busy = false;
        loop {
            let stuck = self.stuck;
            let next =
                self.world.effects.iter().position(|(_, what)| !stuck || !matches!(what, Effect::Persist(_)));
            let Some(place) = next else { return busy };
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
            busy = true;
        }
    }

    pub fn pump(&mut self) {
        loop {
            let mut busy = self.pump_effects();
            for (name, conn) in self.guests.clone() {
                while let Some(frame) = self.world.frame(conn) {
                    if frame["type"] != "challenge" {
                        self.heard.entry(name).or_default().push(frame);
                    } else if self.alive {
                        busy = true;
                        let (seq, nonce) = (&frame["seq"], &frame["nonce"]);
                        self.world
                            .send(conn, &json!({"type": "proof", "seq": seq, "proof": nonce}).to_string());
                    }
                }
            }
            let said = self.world.take(self.operator);
            let text = String::from_utf8(said).unwrap();
            self.lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
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

    /// Events of a kind so far.
    pub fn count(&self, kind: &str) -> usize {
        self.world.events.iter().filter(|event| event.fact.kind() == kind).count()
    }

    pub fn connect(&mut self) -> ConnId {
        self.world.open_via(Via::Manager, Remote::Ip("10.0.2.15:40000".parse().unwrap()), None)
    }

    /// Bytes of an HTTP client.
    pub fn write(&mut self, conn: ConnId, bytes: &[u8]) {
        self.world.write(conn, bytes);
        self.pump();
    }

    /// Whole answers that an HTTP client got since the last time.
    pub fn answers(&mut self, conn: ConnId) -> Vec<Answer> {
        let mut bytes = self.world.take(conn);
        let mut answers = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            let rest = bytes.split_off(end);
            let length: usize = length.parse().unwrap();
            let body = serde_json::from_slice(&rest[..length]).unwrap();
            answers.push(Answer { status: head[9..12].parse().unwrap(), head, body });
            bytes = rest[length..].to_vec();
        }
        answers
    }

    /// The answer to one request on a connection of its own.
    pub fn exchange(&mut self, request: &str) -> Answer {
        let conn = self.connect();
        self.write(conn, request.as_bytes());
        let mut answers = self.answers(conn);
        assert_eq!(answers.len(), 1, "{request} gave {answers:?}");
        if !self.world.is_closed(conn) {
            self.world.close(conn);
        }
        answers.remove(0)
    }

    /// The agent renews its lease over HTTP.
    pub fn exchange_lease(&mut self, told: &Told) {
        let answer = self.exchange(&post(&format!("/sessions/{}/lease", told.session), &told.token, ""));
        assert_eq!(answer.status, 200);
    }

    /// The agent attaches over HTTP.
    pub fn post_attach(&mut self, told: &Told) -> Answer {
        self.exchange(&attach_request(told))
    }
}

/// The bytes of the specification.
pub fn attach_request(told: &Told) -> String {
    let Told { id, session, beach, token, code, .. } = told;
    let body = format!(r#"{{"session_id":"{session}","code":"{code}"}}"#);
    format!(
        "POST /private-beaches/{beach}/sessions/attach-by-code HTTP/1.1\r\nHost: 10.0.2.2:7171\r\n\
         Authorization: Bearer {token}\r\nx-beach-handshake-id: {id}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 10.0.2.2:7171\r\nAuthorization: Bearer {token}\r\n\r\n")
}

pub fn post(path: &str, token: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: 10.0.2.2:7171\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn poll(told: &Told) -> String {
    get(&format!("/sessions/{}/actions/poll", told.session), &told.token)
}
