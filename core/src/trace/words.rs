//! Inputs and outputs in their written form. Both are made by exhaustive
//! matches: what is new at the boundary can't be left out of a trace.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::form::Text;
use super::settings::{Bounded, Traced, key};
use crate::attach::{Action, Applied, AttachId, Attachment, HttpAnswer, Method};
use crate::auth::Key;
use crate::boundary::{
    Change, CloseCause, CloseReason, Deadline, DialTarget, Effect, EffectError, EffectErrorKind, Input,
    Origin, Output, PeerCred, Remote, Source, Via, Wakeup,
};
use crate::event::Event;
use crate::id::{ConnId, EffectId, GuestName, TerminalId};
use crate::legacy::Record;
use crate::peers::{Fate, Message, MessageId, Pair, Policy, Received, Relation};
use crate::time::Time;

/// Slots of connections: an engine keeps a table of as many as the highest one says.
const SLOTS_MAX: u32 = 1 << 20;

/// Most room that a shell may state.
const ROOM_MAX: usize = 1 << 30;

/// What went in.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum In<'a, S> {
    /// Nothing: outputs were asked for, as after the start.
    Poll,
    Opened {
        conn: ConnId,
        via: Via,
        origin: Origin,
        remote: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        local: Option<SocketAddr>,
        peer_cred: Option<PeerCred>,
        room: usize,
    },
    Bytes {
        conn: ConnId,
        bytes: Text<'a>,
    },
    Finished {
        conn: ConnId,
    },
    Writable {
        conn: ConnId,
        room: usize,
    },
    Closed {
        conn: ConnId,
        why: CloseCause,
    },
    Done {
        effect: EffectId,
        failed: Option<Failed<'a>>,
    },
    Answered {
        effect: EffectId,
        status: u16,
        retry_after: Option<u64>,
        body: Text<'a>,
    },
    Tick,
    Drain {
        deadline: u64,
    },
    Reload(Box<S>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failed<'a> {
    kind: EffectErrorKind,
    message: Cow<'a, str>,
}

impl<'a, S> In<'a, S> {
    pub(super) fn of<E: Traced<Settings = S>>(input: &'a Input<'_, E::Config>) -> Self {
        match *input {
            Input::Opened { conn, via, origin, remote, local, peer_cred, room } => {
                let remote = Cow::Owned(alloc::format!("{remote}"));
                Self::Opened { conn, via, origin, remote, local, peer_cred, room }
            }
            Input::Bytes { conn, bytes } => Self::Bytes { conn, bytes: Text(Cow::Borrowed(bytes)) },
            Input::Finished { conn } => Self::Finished { conn },
            Input::Writable { conn, room } => Self::Writable { conn, room },
            Input::Closed { conn, why } => Self::Closed { conn, why },
            Input::Done { effect, ref result } => {
                let failed = result.as_ref().err();
                let failed = failed.map(|EffectError { kind, message }| Failed {
                    kind: *kind,
                    message: Cow::Borrowed(message),
                });
                Self::Done { effect, failed }
            }
            Input::Answered { effect, answer: HttpAnswer { status, retry_after, body } } => Self::Answered {
                effect,
                status,
                retry_after: retry_after.map(crate::time::nanos),
                body: Text(Cow::Borrowed(body)),
            },
            // Engines that are recorded host no terminals: to them it is no more than that.
            Input::Tick | Input::Terminal { .. } => Self::Tick,
            Input::Drain { deadline } => Self::Drain { deadline: deadline.as_nanos() },
            Input::Reload(ref config) => Self::Reload(Box::new(E::settings(config))),
        }
    }
}

impl<S: Bounded> In<'_, S> {
    /// Whether an engine may be given this: what its shell promises, not what peers do.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Opened { conn, .. } if conn.index >= SLOTS_MAX => {
                Err(alloc::format!("a connection's slot must be below {SLOTS_MAX}"))
            }
            Self::Opened { remote, .. } if address(remote).is_none() => Err(String::from(
                "the remote end must be -, an IP address with a port, uid:N,pid:N or cid:N,port:N",
            )),
            Self::Opened { room, .. } | Self::Writable { room, .. } if *room > ROOM_MAX => {
                Err(alloc::format!("the room must be at most {ROOM_MAX}"))
            }
            Self::Reload(settings) => settings.check(),
            _ => Ok(()),
        }
    }

    /// The input itself; none for [`In::Poll`]. It was checked.
    pub(super) fn input<C>(&self, config: impl FnOnce(&S) -> C) -> Option<Input<'_, C>> {
        Some(match *self {
            Self::Poll => return None,
            Self::Opened { conn, via, origin, ref remote, local, peer_cred, room } => {
                let remote = address(remote).unwrap_or(Remote::Unknown);
                Input::Opened { conn, via, origin, remote, local, peer_cred, room }
            }
            Self::Bytes { conn, ref bytes } => Input::Bytes { conn, bytes: &bytes.0 },
            Self::Finished { conn } => Input::Finished { conn },
            Self::Writable { conn, room } => Input::Writable { conn, room },
            Self::Closed { conn, why } => Input::Closed { conn, why },
            Self::Done { effect, ref failed } => {
                let error = failed.as_ref().map(|Failed { kind, message }| EffectError {
                    kind: *kind,
                    message: String::from(message.as_ref()),
                });
                Input::Done { effect, result: error.map_or(Ok(()), Err) }
            }
            Self::Answered { effect, status, retry_after, ref body } => {
                let retry_after = retry_after.map(Duration::from_nanos);
                Input::Answered { effect, answer: HttpAnswer { status, retry_after, body: &body.0 } }
            }
            Self::Tick => Input::Tick,
            Self::Drain { deadline } => Input::Drain { deadline: Time::from_nanos(deadline) },
            Self::Reload(ref settings) => Input::Reload(Box::new(config(settings))),
        })
    }
}

/// [`Remote`] reads everything; a trace must say what it means.
fn address(text: &str) -> Option<Remote> {
    match text.parse() {
        Ok(Remote::Unknown) if text != "-" => None,
        Ok(remote) => Some(remote),
    }
}

/// What came out.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Out<'a> {
    Transmit { conn: ConnId, bytes: Text<'a> },
    Discard { conn: ConnId },
    Read { source: Source, credit: usize },
    Finish { conn: ConnId },
    Close { conn: ConnId, why: CloseReason },
    Effect { id: EffectId, effect: Asked<'a> },
    Cancel { effect: EffectId },
    Event(&'a Event),
    Stopped,
    Wait(Option<Wake>),
}

#[derive(Serialize)]
pub(super) struct Wake {
    at: u64,
    why: Wakeup,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked<'a> {
    Persist(Vec<Changed<'a>>),
    WriteRecord(&'a Record),
    RemoveRecord(GuestName),
    Reload,
    Dial {
        deadline: u64,
        #[serde(skip_serializing_if = "is_link")]
        to: DialTarget,
    },
    Start {
        guest: GuestName,
        deadline: u64,
    },
    Terminal {
        terminal: TerminalId,
    },
    Http {
        method: Method,
        to: String,
        path: &'a str,
        body: Text<'a>,
        deadline: u64,
    },
    Type {
        terminal: &'a str,
        bytes: Text<'a>,
        deadline: u64,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Changed<'a> {
    Incarnation(u32),
    SetToken {
        guest: GuestName,
        #[serde(serialize_with = "key::serialize")]
        key: &'a Option<Key>,
    },
    Forget {
        guest: GuestName,
    },
    SetRelation {
        pair: &'a Pair,
        relation: Option<Relation>,
    },
    SetPolicy {
        guest: GuestName,
        policy: Policy,
    },
    SetMessage(&'a Message),
    SetFate {
        number: u64,
        fate: Fate,
    },
    DropMessage {
        number: u64,
    },
    SetReceived(&'a Received),
    DropReceived {
        number: u64,
    },
    SetSeen {
        id: MessageId,
        at: Option<i64>,
    },
    SetAttachment(&'a Attachment),
    DropAttachment {
        guest: GuestName,
    },
    SetAction(&'a Action),
    DropAction {
        number: u64,
    },
    SetApplied(&'a Applied),
    DropApplied {
        session: &'a AttachId,
        id: &'a AttachId,
    },
    Terminals,
}

impl<'a> Out<'a> {
    pub(super) fn of(output: &'a Output<'_>) -> Self {
        match *output {
            Output::Transmit { conn, bytes } => Self::Transmit { conn, bytes: Text(Cow::Borrowed(bytes)) },
            Output::Discard { conn } => Self::Discard { conn },
            Output::Read { source, credit } => Self::Read { source, credit },
            Output::Finish { conn } => Self::Finish { conn },
            Output::Close { conn, why } => Self::Close { conn, why },
            Output::Effect { id, ref effect } => Self::Effect { id, effect: Asked::of(effect) },
            Output::Cancel { effect } => Self::Cancel { effect },
            Output::Event(ref event) => Self::Event(event),
            Output::Stopped => Self::Stopped,
            Output::Wait(deadline) => {
                Self::Wait(deadline.map(|Deadline { at, why }| Wake { at: at.as_nanos(), why }))
            }
        }
    }
}

/// What every dial was before there were others.
fn is_link(to: &DialTarget) -> bool {
    *to == DialTarget::Link
}

impl<'a> Asked<'a> {
    fn of(effect: &'a Effect) -> Self {
        match effect {
            Effect::Persist(batch) => Self::Persist(batch.iter().map(Changed::of).collect()),
            Effect::WriteRecord(record) => Self::WriteRecord(record),
            Effect::RemoveRecord(guest) => Self::RemoveRecord(*guest),
            Effect::Reload => Self::Reload,
            Effect::Dial { deadline, to } => Self::Dial { deadline: deadline.as_nanos(), to: *to },
            Effect::Terminal { terminal, .. } => Self::Terminal { terminal: *terminal },
            Effect::Http(request) => Self::Http {
                method: request.method,
                to: request.to.authority(),
                path: &request.path,
                body: Text(Cow::Borrowed(&request.body.0)),
                deadline: request.deadline.as_nanos(),
            },
            Effect::Type { terminal, bytes, deadline } => {
                Self::Type { terminal, bytes: Text(Cow::Borrowed(&bytes.0)), deadline: deadline.as_nanos() }
            }
            Effect::Start { guest, deadline } => Self::Start { guest: *guest, deadline: deadline.as_nanos() },
        }
    }
}

impl<'a> Changed<'a> {
    fn of(change: &'a Change) -> Self {
        match change {
            Change::Incarnation(number) => Self::Incarnation(*number),
            Change::SetToken { guest, key } => Self::SetToken { guest: *guest, key },
            Change::Forget { guest } => Self::Forget { guest: *guest },
            Change::SetRelation { pair, relation } => Self::SetRelation { pair, relation: *relation },
            Change::SetPolicy { guest, policy } => Self::SetPolicy { guest: *guest, policy: *policy },
            Change::SetMessage(message) => Self::SetMessage(message),
            Change::SetFate { number, fate } => Self::SetFate { number: *number, fate: *fate },
            Change::DropMessage { number } => Self::DropMessage { number: *number },
            Change::SetReceived(received) => Self::SetReceived(received),
            Change::DropReceived { number } => Self::DropReceived { number: *number },
            Change::SetAttachment(attachment) => Self::SetAttachment(attachment),
            Change::DropAttachment { guest } => Self::DropAttachment { guest: *guest },
            Change::SetAction(action) => Self::SetAction(action),
            Change::DropAction { number } => Self::DropAction { number: *number },
            Change::SetApplied(applied) => Self::SetApplied(applied),
            Change::DropApplied { session, id } => Self::DropApplied { session, id },
            Change::SetTerminalIds(_)
            | Change::SetTerminal(_)
            | Change::SetTail { .. }
            | Change::DropTerminal { .. } => Self::Terminals,
            Change::SetSeen { id, at } => {
                Self::SetSeen { id: *id, at: at.map(crate::time::WallTime::unix_millis) }
            }
        }
    }
}
