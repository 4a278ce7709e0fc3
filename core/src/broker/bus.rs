//! castra 0.1 guests and their bus, and what a guest asks over its link.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::boundary::CloseReason;
use crate::broker::cx::Cx;
use crate::broker::facts::{Notice, Urgency};
use crate::broker::guests::{Guests, Row};
use crate::broker::links::{Attempt, Link, Links, Stage};
use crate::broker::session::{QUESTIONS_MAX, Session};
use crate::control::reply::ErrorCode;
use crate::event::{Fact, Failure, SessionEnd, shortened};
use crate::id::{ConnId, GuestName, Nonce};
use crate::link::line::{self, BUS_V1, HOST_BUS, Hello};
use crate::link::message::{GuestRequest, GuestRequestKind, Publish, append_json};
use crate::liveness::{Evidence, Standing};

/// Most subscriptions of one session, as in 0.1.
const TOPICS_MAX: usize = 16;

/// Longest topic, in bytes.
const TOPIC_BYTES_MAX: usize = 256;

/// The name 0.1 keeps for the host's own bus client.
const HOST: &str = "host";

/// castra 0.1's answer to a bus frame; its keys stand in 0.1's order.
#[derive(Serialize)]
struct Ack<'a> {
    ack: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    topic: &'a str,
    payload: Option<&'a RawValue>,
    from: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    of: &'a str,
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ErrorCode>,
}

#[derive(Serialize)]
struct UnknownType<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    code: &'a str,
    of: Option<&'a str>,
}

impl Links {
    /// A hello without `proof-v1`. It proves nothing; admission let it pass.
    pub(crate) fn on_legacy_hello(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, hello: Hello) {
        let now = cx.at();
        let host = hello.name.as_str() == HOST;
        let bus = hello.capabilities.has(BUS_V1);
        if host && !(bus && hello.capabilities.has(HOST_BUS)) {
            return self.refuse(cx, guests, conn, Failure::BadName);
        }
        let id = match (!host).then(|| guests.ensure(cx, hello.name)) {
            None => None,
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => return self.refuse(cx, guests, conn, Failure::Busy),
        };
        let row = id.and_then(|id| guests.get(id));
        let session = row.and_then(|row| row.session).filter(|_| row.is_some_and(|row| row.proven));
        if session.is_some() {
            self.stage_for_refusal(cx, conn, hello);
            return self.refuse(cx, guests, conn, Failure::NameInUse);
        }
        if let Some(other) = row.and_then(|row| row.rare().legacy).filter(|other| *other != conn) {
            self.end_session_with_bye(cx, guests, other, SessionEnd::Superseded);
        }
        let own = self.table.get(conn).and_then(|link| link.session.as_ref()).and_then(|session| session.row);
        match own.filter(|own| id == Some(*own)) {
            // Serial: the verdict stands until it is judged anew below.
            Some(own) => {
                self.drop_session(cx, guests, conn, SessionEnd::Replaced);
                guests.mark_idle(own);
            }
            // Serial: the guest behind the stream had another name.
            None => self.end_session(cx, guests, conn, SessionEnd::Replaced),
        }
        let epoch = cx.next_epoch();
        let Some(link) = self.table.get_mut(conn) else { return };
        let (transport, remote) = (link.transport, link.remote());
        cx.event(
            Some(hello.name),
            Fact::HandshakeSuccess {
                epoch,
                transport,
                remote,
                capabilities: hello.capabilities.clone(),
                proven: false,
                authenticated: false,
                once: !bus,
            },
        );
        if let Some(row) = id.and_then(|id| guests.get_mut(id)) {
            row.claimed = true;
            // What a proof has told stands beside a claim that counts for nothing.
            if cx.config.accept_unproven || !row.proven {
                row.set_epoch(epoch);
                row.set_remote(transport, remote);
                row.capabilities = hello.capabilities;
                row.boot = None;
            }
            if bus || row.rare().legacy.is_some() {
                row.rare_mut().legacy = bus.then_some(conn);
            }
            if cx.config.accept_unproven {
                row.evidence = Some(Evidence { at: now, received: now });
                (row.proven, row.authenticated) = (false, false);
                row.last_wall = Some(cx.now.wall);
                row.standing = if bus { Standing::Open } else { Standing::OneShot };
                row.session = bus.then_some(conn);
                row.since = now;
            }
        }
        if bus {
            link.transmit(cx, conn, |out| {
                line::append_session(out, epoch);
                out.push(b'\n');
            });
            link.stage = Stage::Frames;
            link.session = Some(Session::legacy(cx, id, epoch));
            self.leave_door(cx, conn);
        } else {
            link.transmit(cx, conn, |out| out.extend_from_slice(b"ok\n"));
            self.hang_up(cx, conn, CloseReason::Finished);
        }
        if let Some(id) = id {
            guests.announce(cx, id);
            if cx.config.accept_unproven {
                cx.notify(Notice::Evidence(id, Urgency::Transition));
            }
        }
    }

    /// Lets the failure's event carry the name.
    fn stage_for_refusal(&mut self, cx: &Cx, conn: ConnId, hello: Hello) {
        let Some(link) = self.table.get_mut(conn) else { return };
        link.stage = Stage::Proving(Box::new(Attempt {
            hello,
            since: cx.at(),
            sent_at: cx.at(),
            nonce: Nonce([0; 16]),
            epoch: crate::id::Epoch(0),
            keys: None,
            row: None,
            conflict_until: None,
        }));
    }

    /// Keeps a 0.1 session open. Evidence only of a 0.1 guest, and only if those are accepted.
    pub(crate) fn on_heartbeat(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId) {
        let now = cx.at();
        let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) else { return };
        if session.is_legacy() {
            session.heard = now;
            if let Some(id) = session.row
                && let Some(row) = guests.get_mut(id)
                && row.session == Some(conn)
                && cx.config.accept_unproven
            {
                row.evidence = Some(Evidence { at: now, received: now });
                row.last_wall = Some(cx.now.wall);
                guests.announce(cx, id);
                cx.notify(Notice::Evidence(id, Urgency::Refresh));
            }
        }
        self.ack(cx, conn, "heartbeat", None, Ok(()));
    }

    pub(crate) fn on_subscribe(&mut self, cx: &mut Cx, conn: ConnId, topic: Option<&str>) {
        let topic = topic.map(str::trim).filter(|topic| !topic.is_empty());
        let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) else { return };
        let result = match topic {
            None => Err("missing topic"),
            Some(topic) if topic.len() > TOPIC_BYTES_MAX => Err("topic exceeds 256 bytes"),
            Some(topic) if session.rare().topics.iter().any(|other| other.eq_ignore_ascii_case(topic)) => {
                Ok(())
            }
            Some(_) if session.rare().topics.len() >= TOPICS_MAX => Err("subscription limit 16 exceeded"),
            Some(topic) => {
                let topics = &mut session.rare_mut().topics;
                if topics.is_empty() {
                    self.subscribers.push(conn);
                }
                topics.push(String::from(topic));
                Ok(())
            }
        };
        self.ack(cx, conn, "subscribe", topic.filter(|_| result.is_ok()), result);
    }

    pub(crate) fn on_publish(&mut self, cx: &mut Cx, guests: &Guests, conn: ConnId, publish: &Publish<'_>) {
        let row = self.table.get(conn).and_then(|link| link.session.as_ref()).and_then(|session| session.row);
        let from = row.and_then(|row| guests.get(row)).map(Row::name);
        let topic = publish.topic.as_deref().map(str::trim).filter(|topic| !topic.is_empty());
        let result = match topic {
            Some(topic) if topic.len() > TOPIC_BYTES_MAX => Err("topic exceeds 256 bytes"),
            _ => Ok(()),
        };
        if result.is_ok() {
            self.fan_out(cx, from, topic.unwrap_or("broadcast"), publish.payload);
        }
        self.ack(cx, conn, "publish", topic.filter(|_| result.is_ok()), result);
    }

    fn fan_out(&mut self, cx: &mut Cx, from: Option<GuestName>, topic: &str, payload: Option<&RawValue>) {
        let listens = |conn: &ConnId| {
            let session = self.table.get(*conn).and_then(|link: &Link| link.session.as_ref());
            session.is_some_and(|session| {
                session.rare().topics.iter().any(|subscribed| subscribed.eq_ignore_ascii_case(topic))
            })
        };
        let listeners: Vec<ConnId> = self.subscribers.iter().copied().filter(listens).collect();
        let from = from.as_ref().map_or(HOST, GuestName::as_str);
        let message = Message { kind: "message", topic, payload, from };
        let mut json = Vec::new();
        append_json(&mut json, &message);
        for conn in listeners {
            if !self.send(cx, conn, json.len(), |out| out.extend_from_slice(&json)) {
                cx.statistics.messages_dropped += 1;
            }
        }
    }

    /// A question for the broker: itself and its peers only.
    pub(crate) fn on_question(&mut self, cx: &mut Cx, conn: ConnId, request: GuestRequest) {
        let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) else { return };
        let (kind, id) = (request.kind, request.id);
        match session.row {
            Some(row) if session.questions < QUESTIONS_MAX => {
                session.questions += 1;
                cx.notify(Notice::Asked { conn, row, request });
            }
            Some(_) => self.answer(cx, conn, kind, id, Err(ErrorCode::Busy)),
            None => self.answer(cx, conn, kind, id, Err(ErrorCode::Forbidden)),
        }
    }

    /// Answers a question that was let in.
    pub(crate) fn settle(
        &mut self,
        cx: &mut Cx,
        conn: ConnId,
        kind: GuestRequestKind,
        id: u64,
        answer: Result<&[u8], ErrorCode>,
    ) {
        if let Some(session) = self.table.get_mut(conn).and_then(|link| link.session.as_mut()) {
            session.questions = session.questions.saturating_sub(1);
            self.answer(cx, conn, kind, id, answer);
        }
    }

    fn answer(
        &mut self,
        cx: &mut Cx,
        conn: ConnId,
        kind: GuestRequestKind,
        id: u64,
        answer: Result<&[u8], ErrorCode>,
    ) {
        let data = answer.ok().and_then(|json| serde_json::from_slice::<&RawValue>(json).ok());
        let mut code = answer.err();
        if data.is_none() && code.is_none() {
            code = Some(ErrorCode::Internal);
        }
        let kind_word = if code.is_some() { "error" } else { "result" };
        let mut json = Vec::new();
        append_json(&mut json, &Answer { kind: kind_word, of: kind.as_str(), id, data, code });
        if !self.send(cx, conn, json.len(), |out| out.extend_from_slice(&json)) && code.is_none() {
            self.answer(cx, conn, kind, id, Err(ErrorCode::Busy));
        }
    }

    /// Tells the guest that it was not understood. Answers are never answered, or
    /// two ends that don't understand each other would never stop.
    pub(crate) fn on_unknown(&mut self, cx: &mut Cx, conn: ConnId, kind: Option<&str>) {
        if matches!(kind, Some("error" | "result" | "ack" | "message")) {
            return;
        }
        let of = kind.map(|kind| shortened(kind, 64));
        let mut json = Vec::new();
        append_json(&mut json, &UnknownType { kind: "error", code: "unknown-type", of: of.as_deref() });
        self.send(cx, conn, json.len(), |out| out.extend_from_slice(&json));
    }

    fn ack(
        &mut self,
        cx: &mut Cx,
        conn: ConnId,
        ack: &str,
        topic: Option<&str>,
        result: Result<(), &'static str>,
    ) {
        let status = if result.is_ok() { "ok" } else { "error" };
        let mut json = Vec::new();
        append_json(&mut json, &Ack { ack, reason: result.err(), status, topic, kind: "ack" });
        self.send(cx, conn, json.len(), |out| out.extend_from_slice(&json));
    }
}
