//! An agent, and a broker and a manager that are played by the byte examples.
#![allow(clippy::unwrap_used, unreachable_pub)]

use castra_core::attach::{Applied, AttachId, HttpAnswer};
use castra_core::boundary::{Batch, EffectError, EffectErrorKind};
use castra_core::config::AgentConfig;
use castra_core::entropy::Entropy;
use castra_core::event::{AttachFact, Fact};
use castra_core::id::{ConnId, EffectId};
use castra_core::peers::InboxSettings;
use castra_core::time::Time;
use castra_core::{Input, RestoredAgent};
use serde_json::Value;
use std::time::Duration;

use crate::support::*;

pub const URL: &str = "http://10.0.2.2:7171";
pub const TOKEN: &str = "TOKEN-0123456789";
pub const CODE: &str = "CODE-42";
pub const ATTACH: &str = "POST http://10.0.2.2:7171/private-beaches/beach-1/sessions/attach-by-code";
pub const POLL: &str = "GET http://10.0.2.2:7171/sessions/sess-1/actions/poll";
pub const ACK: &str = "POST http://10.0.2.2:7171/sessions/sess-1/actions/ack";
pub const LEASE: &str = "POST http://10.0.2.2:7171/sessions/sess-1/lease";
pub const ATTACHED: &str =
    r#"{"ok":true,"attach_method":"code","session":{"session_id":"sess-1","private_beach_id":"beach-1"}}"#;

/// The handshake of the specification, with what changes.
pub fn handshake(id: &str, session: &str, url: &str) -> String {
    [
        r#"{"type":"manager_handshake","schema":1,"handshake_id":"ID","handshake_kind":"renegotiate","#,
        r#""session_id":"SESSION","private_beach_id":"beach-1","manager_url":"URL","#,
        r#""controller_token":"TOKEN-0123456789","lease_expires_at_ms":0,"lease_ttl_ms":30000,"#,
        r#""controller_auto_attach":{"private_beach_id":"beach-1","attach_code":"CODE-42","#,
        r#""manager_url":"URL","issued_at_ms":0,"expires_at_ms":0,"ttl_ms":600000},"#,
        r#""stale_session_idle_secs":60,"viewer_health_interval_secs":15}"#,
    ]
    .concat()
    .replace("ID\"", &format!("{id}\""))
    .replace("SESSION", session)
    .replace("URL", url)
}

pub fn action(id: &str, bytes: &str, ttl_ms: u64) -> String {
    format!(
        r#"{{"type":"action","id":"{id}","action_type":"terminal_write","payload":{{"bytes":"{bytes}"}},"ttl_ms":{ttl_ms}}}"#
    )
}

/// What came out since the last time.
#[derive(Debug, Default)]
pub struct Heard {
    pub http: Vec<(EffectId, Asked)>,
    pub said: Vec<Value>,
    pub writes: Vec<(EffectId, Batch)>,
    pub typed: Vec<(EffectId, String, Vec<u8>)>,
    pub facts: Vec<AttachFact>,
    pub cancelled: Vec<EffectId>,
}

impl Heard {
    pub fn kinds(&self) -> Vec<&'static str> {
        self.facts.iter().map(|fact| Fact::Attach(fact.clone()).kind()).collect()
    }

    /// The only request, and nothing but requests.
    pub fn request(mut self, line: &str) -> (EffectId, Asked) {
        assert_eq!(self.http.len(), 1, "{self:?}");
        let (effect, asked) = self.http.remove(0);
        assert_eq!(asked.line, line);
        (effect, asked)
    }

    pub fn types(&self) -> Vec<&str> {
        self.said.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
    }
}

pub struct Scene {
    pub world: World,
    pub link: Option<ConnId>,
    /// Everything that ever came out, as text: events, frames and errors, but not what
    /// requests and the frame `attach` are there to carry.
    pub shown: String,
    /// Requests that were answered.
    pub answered: Vec<EffectId>,
}

/// Whoever answers is trusted; there is a database.
pub fn trusting() -> AgentConfig {
    AgentConfig { trust_unkeyed_broker: true, inbox: Some(InboxSettings::default()), ..config() }
}

impl Scene {
    pub fn new(config: AgentConfig) -> Self {
        Self { world: World::new(config), link: None, shown: String::new(), answered: vec![] }
    }

    pub fn seeded(config: AgentConfig, seed: [u8; 32]) -> Self {
        Self {
            world: World::with(config, Entropy::seeded(seed)),
            link: None,
            shown: String::new(),
            answered: vec![],
        }
    }

    pub fn restored(config: AgentConfig, applied: Vec<Applied>, start: Time) -> Self {
        let restored = RestoredAgent { applied, ..RestoredAgent::default() };
        let world = World::restored(config, restored, Entropy::chosen(1 << 31), start);
        Self { world, link: None, shown: String::new(), answered: vec![] }
    }

    /// With an unkeyed session.
    pub fn up(config: AgentConfig) -> Self {
        let mut scene = Self::new(config);
        scene.connect();
        scene.heard();
        scene
    }

    /// Attached over HTTP, and so on the fast path; nothing is left to be heard.
    pub fn attached(config: AgentConfig) -> Self {
        let mut scene = Self::up(config);
        scene.say(&handshake("hand-1", "sess-1", URL));
        let (effect, _) = scene.heard().request(ATTACH);
        scene.answer(effect, 200, ATTACHED);
        let heard = scene.heard();
        assert_eq!(heard.types(), ["attach_state", "attached"], "{heard:?}");
        scene
    }

    /// Attached over HTTP, without a link; the first poll is under way.
    pub fn polling(config: AgentConfig) -> (Self, EffectId) {
        let mut scene = Self::attached(config);
        scene.lose();
        let (poll, _) = scene.heard().request(POLL);
        (scene, poll)
    }

    pub fn connect(&mut self) {
        while !self.world.log.iter().any(|out| matches!(out, Out::Dial(..))) {
            let deadline = self.world.wait.unwrap().at;
            self.world.now = self.world.now.max(deadline);
            self.world.give(Input::Tick);
        }
        let conn = self.world.connect();
        let before = std::mem::take(&mut self.world.log);
        self.world.say(conn, GREETING);
        self.world.say(conn, challenge_line("none"));
        self.world.log.clear();
        self.world.say(conn, ok_line(""));
        let after = std::mem::take(&mut self.world.log);
        // Neither the dial nor the lines of the handshake are of interest.
        let kept = |out: &Out| !matches!(out, Out::Dial(..) | Out::Sent(..));
        self.world.log = before.into_iter().filter(kept).chain(after).collect();
        self.link = Some(conn);
    }

    pub fn lose(&mut self) {
        let link = self.link.take().unwrap();
        self.world.closed(link);
    }

    pub fn say(&mut self, json: &str) {
        self.world.say(self.link.unwrap(), frame(json));
    }

    pub fn heard(&mut self) -> Heard {
        let mut heard = Heard::default();
        let mut bytes = vec![];
        for out in self.world.take() {
            match out {
                Out::Http(effect, asked) => heard.http.push((effect, asked)),
                Out::Persist(effect, batch) => heard.writes.push((effect, batch)),
                Out::Type(effect, terminal, bytes, _) => heard.typed.push((effect, terminal, bytes)),
                Out::Dial(..) => self.world.log.push(out),
                Out::Cancel(effect) => heard.cancelled.push(effect),
                Out::Sent(conn, sent) if Some(conn) == self.link => bytes.extend(sent),
                Out::Event(fact) => {
                    self.shown += &format!("{fact:?}\n");
                    self.show(&fact);
                    if let Fact::Attach(fact) = fact {
                        heard.facts.push(fact);
                    }
                }
                _ => {}
            }
        }
        for json in frames(&bytes) {
            let frame: Value = serde_json::from_str(&json).unwrap();
            if frame["type"] != "attach" {
                self.shown += &json;
            }
            heard.said.push(frame);
        }
        heard
    }

    /// As log line and as JSON.
    fn show(&mut self, fact: &Fact) {
        let event = castra_core::event::Event {
            cursor: castra_core::event::Cursor { incarnation: 1, number: 1 },
            at: now(self.world.now).wall,
            guest: Some("devbox".parse().unwrap()),
            fact: fact.clone(),
        };
        let mut bytes = vec![];
        event.append_line(&mut bytes);
        event.append_json(None, &mut bytes);
        self.shown += &String::from_utf8(bytes).unwrap();
    }

    pub fn answer(&mut self, effect: EffectId, status: u16, body: &str) {
        self.answer_later(effect, status, body, None);
    }

    pub fn answer_later(&mut self, effect: EffectId, status: u16, body: &str, after: Option<Duration>) {
        self.answered.push(effect);
        let answer = HttpAnswer { status, retry_after: after, body: body.as_bytes() };
        self.world.give(Input::Answered { effect, answer });
    }

    pub fn done(&mut self, effect: EffectId) {
        self.world.give(Input::Done { effect, result: Ok(()) });
    }

    pub fn fail(&mut self, effect: EffectId, kind: EffectErrorKind) {
        self.answered.push(effect);
        let error = EffectError { kind, message: "it went wrong".into() };
        self.world.give(Input::Done { effect, result: Err(error) });
    }

    /// The local client's only answer.
    pub fn ask(&mut self, client: ConnId, request: &str) -> Option<Value> {
        self.world.say(client, format!("{request}\n"));
        self.reply(client)
    }

    pub fn reply(&mut self, client: ConnId) -> Option<Value> {
        let mut text = vec![];
        self.world.log.retain(|out| match out {
            Out::Sent(conn, bytes) if *conn == client => {
                text.extend_from_slice(bytes);
                false
            }
            _ => true,
        });
        self.shown += str::from_utf8(&text).unwrap();
        serde_json::from_slice(&text).ok()
    }

    /// Persists what is written, types what is to be typed, until nothing more happens;
    /// what was typed and what was acknowledged, or else said.
    pub fn oblige(&mut self) -> (Vec<String>, Vec<Value>) {
        let (mut typed, mut said) = (vec![], vec![]);
        loop {
            let heard = self.heard();
            said.extend(heard.said);
            if heard.writes.is_empty() && heard.typed.is_empty() {
                return (typed, said);
            }
            heard.writes.into_iter().for_each(|(effect, _)| self.done(effect));
            for (effect, _, bytes) in heard.typed {
                typed.push(String::from_utf8(bytes).unwrap());
                self.done(effect);
            }
        }
    }
}

pub fn id(text: &str) -> AttachId {
    text.parse().unwrap()
}

pub fn ack(id: &str, status: &str, code: Option<&str>) -> Value {
    match code {
        None => serde_json::json!({"type": "action_ack", "id": id, "status": status}),
        Some(code) => {
            serde_json::json!({"type": "action_ack", "id": id, "status": status, "error_code": code})
        }
    }
}
