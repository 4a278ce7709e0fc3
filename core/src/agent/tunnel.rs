//! Streams to this guest's terminals: those that the broker asks for over the link,
//! and those of clients in the guest. Each leads to a connection of its own to the
//! socket of the terminals.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Context;
use super::link::{Link, State};
use crate::boundary::{CloseReason, Deadline, DialTarget, Effect, EffectError, EffectErrorKind, Wakeup};
use crate::broker::clients::{error_line, problem};
use crate::broker::walk::append_head;
use crate::control::reply::{ErrorBody, ErrorCode, GuestOnly};
use crate::event::{Fact, MESSAGE_MAX, TunnelEnd, shortened};
use crate::id::{ConnId, EffectId, RequestId};
use crate::link::message::append_json;
use crate::queue::Outbox;
#[cfg(feature = "model")]
use crate::time::Time;
use crate::time::millis;
use crate::tunnel::end::End;
use crate::tunnel::splice::{Splice, Waiting};
use crate::tunnel::streams::{Asked, Line, Streams};
use crate::tunnel::wire::{self, Encoded, TunnelFrame};

/// All streams of this guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Tunnel {
    /// Of the session, if there is one; its bytes are counted from its begin.
    session: Option<Session>,
    dials: BTreeMap<EffectId, Dial>,
    splices: Vec<Splice>,
    /// Where data is decoded; kept.
    scratch: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Session {
    streams: Streams,
    /// The broker may use the terminals.
    trusted: bool,
}

/// For whom the terminals are dialled.
#[derive(Clone, Debug)]
enum Dial {
    Stream(u64),
    Client(Waiting),
}

/// A local client that asked for the terminals: its connection is theirs now.
#[derive(Clone, Debug)]
pub(super) struct Released {
    pub(super) conn: ConnId,
    pub(super) room: usize,
    pub(super) id: Option<RequestId>,
    /// What it said after the request.
    pub(super) said: Vec<u8>,
    pub(super) finished: bool,
}

/// What a client says while the terminals are dialled may be this much; then it isn't read from.
const SAID_MAX: usize = 64 * 1024;

impl Tunnel {
    pub(super) fn on_up(&mut self, cx: &Context<'_>, keyed: bool) {
        let trusted = keyed || cx.config.trust_unkeyed_broker;
        self.session =
            Some(Session { streams: Streams::new(cx.config.tunnel, TunnelEnd::GuestClosed), trusted });
    }

    pub(super) fn on_lost(&mut self, cx: &mut Context<'_>, why: TunnelEnd) {
        if let Some(session) = &mut self.session {
            session.streams.lose(cx.out, why);
        }
        self.bury(cx);
        self.session = None;
    }

    /// The broker says something of a stream. Data that is not base64, or too much,
    /// breaks the stream.
    pub(super) fn on_frame(&mut self, cx: &mut Context<'_>, frame: TunnelFrame<Encoded<'_>>) {
        let Some(Session { streams, trusted }) = &mut self.session else { return };
        self.scratch.clear();
        let scratch = &mut self.scratch;
        let broken = if let TunnelFrame::Data { stream, .. } = &frame { *stream } else { 0 };
        let decoded = frame.with_data(|data| data.decode(scratch).map(|()| &scratch[..]));
        let Ok(frame) = decoded else {
            streams.abort(cx.out, broken, TunnelEnd::Protocol);
            return self.bury(cx);
        };
        let asked = streams.on_frame(cx.out, cx.now.boot, frame);
        if let Some(Asked::Open { stream, window }) = asked {
            let deadline = cx.now.boot + cx.config.tunnel.dial_timeout;
            match judge(cx, streams, *trusted) {
                Err(ErrorBody { code, message }) => streams.refuse(stream, code, message),
                Ok(()) => {
                    if streams.dial(cx.out, cx.now.boot, stream, window, deadline) {
                        let effect = cx.out.effect(Effect::Dial { deadline, to: DialTarget::Terminals });
                        self.dials.insert(effect, Dial::Stream(stream));
                    }
                }
            }
        }
        self.bury(cx);
    }

    /// A local client asked for the terminals.
    pub(super) fn on_client(&mut self, cx: &mut Context<'_>, released: Released) {
        let Released { conn, room, id, said, finished } = released;
        let clients = self.dials.values().filter(|dial| matches!(dial, Dial::Client(_))).count();
        let refusal = if !cx.config.terminals {
            Some(no_terminals())
        } else if clients + self.splices.len() >= cx.config.tunnel.streams_per_guest {
            Some(busy(cx))
        } else {
            None
        };
        let deadline = cx.now.boot + cx.config.tunnel.dial_timeout;
        let waiting = Waiting { conn, room, id, said, finished, deadline };
        match refusal {
            Some(error) => turn_away(cx, &waiting, &error),
            None => {
                let effect = cx.out.effect(Effect::Dial { deadline, to: DialTarget::Terminals });
                self.dials.insert(effect, Dial::Client(waiting));
            }
        }
    }

    /// The terminals were dialled. False: nobody waits for that any more.
    pub(super) fn on_opened(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        conn: ConnId,
        room: usize,
    ) -> bool {
        let terminals = End::new(conn, room);
        let wanted = match self.dials.remove(&effect) {
            Some(Dial::Stream(stream)) => {
                let streams = self.session.as_mut().map(|session| &mut session.streams);
                let dialled = streams.is_some_and(|streams| streams.dialled(stream, terminals));
                if dialled {
                    cx.event(Fact::TunnelOpened { stream });
                }
                dialled
            }
            Some(Dial::Client(waiting)) => {
                let Waiting { conn, room, id, said, finished, .. } = waiting;
                let mut client = End::new(conn, room);
                let mut line = Vec::new();
                append_head(&mut line, id.as_ref(), "terminals");
                append_json(&mut line, &GuestOnly { guest: cx.config.name });
                line.extend_from_slice(b"}\n");
                client.give(cx.out, &line);
                client.reread(cx.out);
                self.splices.push(Splice::new(cx.out, client, terminals, &said, finished));
                true
            }
            None => false,
        };
        if !wanted {
            cx.out.close(conn, CloseReason::Finished);
        }
        wanted
    }

    /// A dial came to nothing. False: nobody waits for it any more.
    pub(super) fn on_done(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        result: &Result<(), EffectError>,
    ) -> bool {
        let (Some(dial), Err(error)) = (self.dials.remove(&effect), result) else { return false };
        self.fail(cx, dial, &explained(error));
        true
    }

    fn fail(&mut self, cx: &mut Context<'_>, dial: Dial, error: &ErrorBody) {
        match (dial, &mut self.session) {
            (Dial::Stream(stream), Some(session)) if session.streams.has(stream) => {
                session.streams.refuse(stream, error.code, error.message.clone());
            }
            (Dial::Stream(_), _) => {}
            (Dial::Client(waiting), _) => turn_away(cx, &waiting, error),
        }
    }

    pub(super) fn owns(&self, conn: ConnId) -> bool {
        self.session.as_ref().is_some_and(|session| session.streams.owns(conn))
            || self.splices.iter().any(|splice| splice.owns(conn))
            || self.dials.values().any(|dial| matches!(dial, Dial::Client(waiting) if waiting.conn == conn))
    }

    pub(super) fn on_bytes(&mut self, cx: &mut Context<'_>, conn: ConnId, bytes: &[u8]) {
        if let Some(splice) = self.splices.iter_mut().find(|splice| splice.owns(conn)) {
            splice.on_bytes(cx.out, conn, bytes);
        } else if let Some(waiting) = self.waiting(conn) {
            waiting.said.extend_from_slice(bytes);
            if waiting.said.len() >= SAID_MAX {
                cx.out.read(crate::boundary::Source::Conn(conn), 0);
            }
        } else if let Some(session) = &mut self.session {
            session.streams.on_bytes(cx.out, conn, bytes);
        }
    }

    pub(super) fn on_writable(&mut self, cx: &mut Context<'_>, conn: ConnId, room: usize) {
        let (now, until) = (cx.now.boot, cx.now.boot + cx.config.tunnel.linger);
        if let Some(splice) = self.splices.iter_mut().find(|splice| splice.owns(conn)) {
            splice.on_writable(cx.out, conn, room, until);
        } else if let Some(waiting) = self.waiting(conn) {
            waiting.room = room;
        } else if let Some(session) = &mut self.session {
            session.streams.on_writable(cx.out, now, conn, room);
        }
    }

    /// `closed`: the connection is gone. Otherwise only its other half is.
    pub(super) fn on_end(&mut self, cx: &mut Context<'_>, conn: ConnId, closed: bool) {
        let (now, until) = (cx.now.boot, cx.now.boot + cx.config.tunnel.linger);
        if let Some(splice) = self.splices.iter_mut().find(|splice| splice.owns(conn)) {
            if closed {
                splice.on_closed(conn, until);
            } else {
                splice.on_finished(cx.out, conn, until);
            }
        } else if let Some(waiting) = self.waiting(conn) {
            waiting.finished = true;
            if closed {
                let given_up = |dial: &Dial| matches!(dial, Dial::Client(waiting) if waiting.conn == conn);
                let effects = self.dials.iter().filter(|(_, dial)| given_up(dial)).map(|(effect, _)| *effect);
                for effect in effects.collect::<Vec<_>>() {
                    self.dials.remove(&effect);
                    cx.out.cancel(effect);
                }
            }
        } else if let Some(session) = &mut self.session {
            if closed {
                session.streams.on_closed(cx.out, now, conn);
            } else {
                session.streams.on_finished(cx.out, now, conn);
            }
        }
    }

    fn waiting(&mut self, conn: ConnId) -> Option<&mut Waiting> {
        self.dials.values_mut().find_map(|dial| match dial {
            Dial::Client(waiting) if waiting.conn == conn => Some(waiting),
            Dial::Client(_) | Dial::Stream(_) => None,
        })
    }

    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>) {
        if self.next_deadline().is_none_or(|deadline| cx.now.boot < deadline.at) {
            return;
        }
        let now = cx.now.boot;
        let late = self.session.as_mut().map(|session| session.streams.on_timer(cx.out, now));
        let late = late.unwrap_or_default();
        let is_late = |dial: &Dial| match dial {
            Dial::Stream(stream) => late.contains(stream),
            Dial::Client(waiting) => waiting.deadline <= now,
        };
        let effects = self.dials.iter().filter(|(_, dial)| is_late(dial)).map(|(effect, _)| *effect);
        for effect in effects.collect::<Vec<_>>() {
            cx.out.cancel(effect);
            if let Some(dial) = self.dials.remove(&effect) {
                self.fail(cx, dial, &problem(ErrorCode::Timeout, "the terminals did not answer in time"));
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        let streams = self.session.as_ref().and_then(|session| session.streams.next_deadline());
        let splices = self.splices.iter().filter_map(|splice| splice.deadline);
        let at = splices.chain(streams).chain(self.clients().map(|waiting| waiting.deadline)).min()?;
        Some(Deadline { at, why: Wakeup::Tunnel })
    }

    fn clients(&self) -> impl Iterator<Item = &Waiting> {
        self.dials.values().filter_map(|dial| match dial {
            Dial::Client(waiting) => Some(waiting),
            Dial::Stream(_) => None,
        })
    }

    /// Sends what there is to be sent, and lets go of what is over.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, link: &mut Link) {
        let now = cx.now.boot;
        if let Some(session) = &mut self.session {
            session.streams.pump(now, &mut Uplink { cx, link });
        }
        self.bury(cx);
        for index in (0..self.splices.len()).rev() {
            if self.splices[index].is_over(now) {
                self.splices.swap_remove(index).close(cx.out, CloseReason::Finished);
            }
        }
    }

    /// What is over leaves nothing behind but an event.
    fn bury(&mut self, cx: &mut Context<'_>) {
        let Some(session) = &mut self.session else { return };
        for over in core::mem::take(&mut session.streams.over) {
            if over.opened {
                let lasted_ms = millis(cx.now.boot.since(over.since));
                cx.event(Fact::TunnelClosed {
                    stream: over.stream,
                    reason: over.reason,
                    to_guest_bytes: over.received,
                    from_guest_bytes: over.sent,
                    lasted_ms,
                });
                continue;
            }
            let of_it = |dial: &Dial| matches!(dial, Dial::Stream(stream) if *stream == over.stream);
            let effects = self.dials.iter().filter(|(_, dial)| of_it(dial)).map(|(effect, _)| *effect);
            for effect in effects.collect::<Vec<_>>() {
                self.dials.remove(&effect);
                cx.out.cancel(effect);
            }
        }
    }

    /// The agent stops: everything ends at once.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        self.on_lost(cx, TunnelEnd::Stopping);
        for (effect, dial) in core::mem::take(&mut self.dials) {
            cx.out.cancel(effect);
            self.fail(cx, dial, &problem(ErrorCode::ShuttingDown, "the agent stops"));
        }
        for splice in self.splices.drain(..) {
            splice.close(cx.out, CloseReason::Drained);
        }
    }

    #[cfg(feature = "model")]
    pub(super) fn is_idle(&self) -> bool {
        let Self { session, dials, splices, scratch: _ } = self;
        session.as_ref().is_none_or(|session| session.streams.len() == 0)
            && dials.is_empty()
            && splices.is_empty()
    }

    /// # Errors
    /// The first obligation that nothing guards.
    #[cfg(feature = "model")]
    pub(super) fn check(
        &self,
        armed: Option<Time>,
        now: Time,
        most: core::time::Duration,
    ) -> Result<(), crate::obligations::Unguarded> {
        use crate::obligations::Unguarded;
        if let Some(session) = &self.session {
            session.streams.check(armed, now, most)?;
        }
        let clients = self.clients().map(|waiting| waiting.deadline);
        for deadline in clients.chain(self.splices.iter().filter_map(|splice| splice.deadline)) {
            Unguarded::new("a local client of the terminals").unless_armed(armed, deadline)?;
            Unguarded::new("a local client of the terminals").unless_within(deadline, now, most)?;
        }
        Ok(())
    }
}

/// Whether the broker may have one stream more.
fn judge(cx: &Context<'_>, streams: &Streams, trusted: bool) -> Result<(), ErrorBody> {
    if !cx.config.terminals {
        return Err(no_terminals());
    }
    if !trusted {
        let message = "the broker did not prove itself with a token: give this guest one, or start its agent \
                       with --trust-unkeyed-broker";
        return Err(problem(ErrorCode::Forbidden, message));
    }
    if streams.len() >= cx.config.tunnel.streams_per_guest {
        return Err(busy(cx));
    }
    Ok(())
}

fn no_terminals() -> ErrorBody {
    problem(ErrorCode::Unsupported, "this agent has no terminals")
}

fn busy(cx: &Context<'_>) -> ErrorBody {
    let most = cx.config.tunnel.streams_per_guest;
    problem(ErrorCode::Busy, format!("{most} clients use the terminals already"))
}

fn explained(error: &EffectError) -> ErrorBody {
    let message: String = shortened(&error.message, MESSAGE_MAX);
    match error.kind {
        EffectErrorKind::TimedOut => {
            problem(ErrorCode::Timeout, "the terminals did not answer in time".to_string())
        }
        _ => problem(ErrorCode::Refused, format!("no terminals there: {message}")),
    }
}

fn turn_away(cx: &mut Context<'_>, waiting: &Waiting, error: &ErrorBody) {
    let line = error_line(waiting.id.as_ref(), error);
    if line.len() <= waiting.room {
        cx.out.transmit(waiting.conn, |out| out.extend_from_slice(&line));
    }
    cx.out.close(waiting.conn, CloseReason::Refused);
}

/// The link, as streams use it. The agent's frames wait their turn if there is no
/// room, so none but data has to be held back.
struct Uplink<'a, 'b> {
    cx: &'a mut Context<'b>,
    link: &'a mut Link,
}

impl Line for Uplink<'_, '_> {
    fn data_room(&self) -> usize {
        match &self.link.state {
            State::Up { wire, .. } => wire.sender.data_room(),
            _ => 0,
        }
    }

    fn send(&mut self, _most: usize, frame: &TunnelFrame<&[u8]>) -> bool {
        let State::Up { wire, session } = &mut self.link.state else { return false };
        wire.send_frame(self.cx, session.tags.as_mut(), |bytes| wire::append(bytes, frame));
        true
    }

    fn out(&mut self) -> &mut Outbox {
        self.cx.out
    }
}
