//! The manager's HTTP door: bytes in, requests out; answers in, bytes out.
//!
//! One request of a connection is taken at a time. Every connection has an armed
//! deadline: to begin a request, to end it, to be answered, to take the answer.

mod answer;
mod door;
mod head;
mod route;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::manager::{Ask, Call};
use super::{Body, Secret};
use crate::boundary::{CloseReason, Remote, Source, Wakeup};
use crate::broker::cx::Cx;
use crate::broker::door::{self as sources, Origin};
use crate::broker::facts::TimerKey;
use crate::id::ConnId;
use crate::time::Time;
use crate::timers::TimerId;

pub(crate) use answer::Answer;

/// Most bytes that are kept of a connection whose request is not answered yet: another
/// whole request. Beyond it nothing is read.
const HELD_MAX: usize = head::HEAD_MAX + head::BODY_MAX;

/// How long a client that is told why its connection ends may take to read it.
const LINGER: Duration = Duration::from_secs(2);

/// All HTTP connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    table: BTreeMap<ConnId, Client>,
    /// No more are accepted.
    shut: bool,
    /// When somebody may have to make room; armed while nobody may come in.
    door_timer: Option<TimerId>,
    /// The number of the newest request.
    last: u64,
}

#[derive(Clone, Debug)]
struct Client {
    origin: Origin,
    /// When it came, or was answered last.
    since: Time,
    /// A request of it succeeded: it knows a token.
    known: bool,
    room: usize,
    /// What arrived and isn't consumed.
    inbox: Body,
    /// What is to be sent and had no room.
    outbox: Body,
    state: State,
    timer: TimerId,
    /// The client will send no more.
    finished: bool,
    /// Nothing is read.
    paused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing of a request is here.
    Idle,
    /// A part of a request is.
    Reading,
    /// A request has no answer yet.
    Asked { number: u64, close: bool, polls: bool },
    /// An answer is being sent.
    Answering,
    /// The last answer is being sent.
    Leaving,
    /// It was sent: what still comes is dropped.
    Lingering,
}

/// A whole request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) call: Call,
    /// Who says so and what it asks, or why not.
    pub(crate) ask: Result<(Secret, Ask), Answer>,
}

impl Server {
    pub(crate) fn contains(&self, conn: ConnId) -> bool {
        self.table.contains_key(&conn)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn on_opened(&mut self, cx: &mut Cx, conn: ConnId, remote: Remote, room: usize) {
        let settings = &cx.config.manager;
        if cx.draining || settings.http.is_none() || self.table.len() >= settings.connections_max {
            return cx.out.close(conn, CloseReason::Refused);
        }
        let timer = cx.timers.insert(TimerKey::Http(conn));
        cx.timers.arm(timer, cx.at() + settings.idle_timeout, Wakeup::Attach);
        let client = Client {
            origin: sources::origin(remote),
            since: cx.at(),
            known: false,
            room,
            inbox: Body::default(),
            outbox: Body::default(),
            state: State::Idle,
            timer,
            finished: false,
            paused: false,
        };
        self.table.insert(conn, client);
        self.mind_the_door(cx);
    }

    pub(crate) fn on_bytes(&mut self, cx: &mut Cx, conn: ConnId, bytes: &[u8]) {
        let Some(client) = self.table.get_mut(&conn) else { return };
        match client.state {
            State::Leaving | State::Lingering => return,
            State::Idle => {
                client.state = State::Reading;
                let by = cx.at() + cx.config.manager.request_timeout;
                cx.timers.arm(client.timer, by, Wakeup::Attach);
            }
            State::Reading | State::Asked { .. } | State::Answering => {}
        }
        client.inbox.0.extend_from_slice(bytes);
        if client.inbox.0.len() > HELD_MAX && client.state != State::Reading && !client.paused {
            client.paused = true;
            cx.out.read(Source::Conn(conn), 0);
        }
    }

    /// The next whole request of a connection, if it may be taken now. What is no request
    /// is answered here.
    pub(crate) fn next(&mut self, cx: &mut Cx, conn: ConnId) -> Option<Request> {
        let client = self.table.get_mut(&conn)?;
        if client.state != State::Reading {
            return None;
        }
        let head = match head::read(&client.inbox.0) {
            Ok(Some(head)) if client.inbox.0.len() >= head.length + head.body => head,
            Ok(_) => {
                if client.finished {
                    self.close(cx, conn, CloseReason::Finished);
                }
                return None;
            }
            Err(answer) => {
                self.refuse(cx, conn, &answer);
                return None;
            }
        };
        let (start, end, close) = (head.length, head.length + head.body, head.close);
        let ask = route::ask(&cx.config.manager, head, &client.inbox.0[start..end]);
        client.inbox.0.drain(..end);
        if client.paused && client.inbox.0.len() <= HELD_MAX {
            client.paused = false;
            cx.out.read(Source::Conn(conn), usize::MAX);
        }
        let polls = matches!(ask, Ok((_, Ask::Poll { .. })));
        self.last += 1;
        let number = self.last;
        client.state = State::Asked { number, close: close || cx.draining, polls };
        let settings = &cx.config.manager;
        let within = if polls { settings.poll_max } else { cx.config.storage_timeout };
        cx.timers.arm(client.timer, cx.at() + within, Wakeup::Attach);
        if self.shut {
            // Somebody else may have to go now.
            self.mind_the_door(cx);
        }
        Some(Request { call: Call { conn, number }, ask })
    }

    /// Answers a request, if its connection still waits for that.
    pub(crate) fn answer(&mut self, cx: &mut Cx, call: Call, answer: &Answer) {
        let Some(client) = self.table.get_mut(&call.conn) else { return };
        let State::Asked { number, close, .. } = client.state else { return };
        if number != call.number {
            return;
        }
        answer.append(close || cx.draining, &mut client.outbox.0);
        client.since = cx.at();
        client.known |= answer.status == 200;
        client.state = if close || cx.draining { State::Leaving } else { State::Answering };
        self.send(cx, call.conn);
        if self.shut {
            self.mind_the_door(cx);
        }
    }

    /// Says why, and ends the connection.
    fn refuse(&mut self, cx: &mut Cx, conn: ConnId, answer: &Answer) {
        let Some(client) = self.table.get_mut(&conn) else { return };
        answer.append(true, &mut client.outbox.0);
        client.state = State::Leaving;
        client.inbox = Body::default();
        self.send(cx, conn);
    }

    /// Sends what there is room for; then the connection takes its next request.
    fn send(&mut self, cx: &mut Cx, conn: ConnId) {
        let Some(client) = self.table.get_mut(&conn) else { return };
        let part = client.outbox.0.len().min(client.room);
        client.room -= cx.out.transmit(conn, |out| out.extend_from_slice(&client.outbox.0[..part]));
        client.outbox.0.drain(..part);
        let settings = &cx.config.manager;
        let (state, within) = match client.state {
            State::Leaving | State::Answering if !client.outbox.0.is_empty() => {
                (client.state, settings.request_timeout)
            }
            // Closed at once, what the client still sends would cut off what it was told.
            State::Leaving if !client.finished => {
                cx.out.finish(conn);
                (State::Lingering, LINGER)
            }
            State::Answering if !client.inbox.0.is_empty() => (State::Reading, settings.request_timeout),
            State::Answering if !client.finished => (State::Idle, settings.idle_timeout),
            State::Leaving | State::Answering => return self.close(cx, conn, CloseReason::Finished),
            State::Idle | State::Reading | State::Asked { .. } | State::Lingering => return,
        };
        client.outbox.0.shrink_to(head::HEAD_MAX);
        client.inbox.0.shrink_to(head::HEAD_MAX);
        client.state = state;
        cx.timers.arm(client.timer, cx.at() + within, Wakeup::Attach);
    }

    pub(crate) fn on_writable(&mut self, cx: &mut Cx, conn: ConnId, room: usize) {
        let Some(client) = self.table.get_mut(&conn) else { return };
        client.room = room;
        if !client.outbox.0.is_empty() {
            self.send(cx, conn);
        }
    }

    /// The client will send no more. Returns the poll that nobody waits for any more.
    pub(crate) fn on_finished(&mut self, cx: &mut Cx, conn: ConnId) -> Option<Call> {
        let client = self.table.get_mut(&conn)?;
        client.finished = true;
        match client.state {
            State::Idle | State::Lingering => self.close(cx, conn, CloseReason::Finished),
            State::Asked { number, polls: true, .. } => return Some(Call { conn, number }),
            State::Reading | State::Asked { .. } | State::Answering | State::Leaving => {}
        }
        None
    }

    /// The connection is gone. Returns its request that has no answer yet.
    pub(crate) fn on_closed(&mut self, cx: &mut Cx, conn: ConnId) -> Option<Call> {
        let client = self.table.remove(&conn)?;
        cx.timers.remove(client.timer);
        self.mind_the_door(cx);
        match client.state {
            State::Asked { number, .. } => Some(Call { conn, number }),
            _ => None,
        }
    }

    /// A deadline passed. Returns the request that is to be answered now, and how.
    pub(crate) fn on_timer(&mut self, cx: &mut Cx, conn: ConnId) -> Option<(Call, Answer)> {
        match self.table.get(&conn)?.state {
            State::Idle | State::Answering | State::Leaving | State::Lingering => {
                self.close(cx, conn, CloseReason::Finished);
                None
            }
            State::Reading => {
                let message = "a request must be here within its time";
                self.refuse(cx, conn, &Answer::error(408, "request_timeout", message, None));
                None
            }
            State::Asked { number, polls, .. } => {
                let answer = if polls { Answer::actions(Vec::new()) } else { Answer::storage_failed() };
                Some((Call { conn, number }, answer))
            }
        }
    }

    fn close(&mut self, cx: &mut Cx, conn: ConnId, why: CloseReason) {
        self.on_closed(cx, conn);
        cx.out.close(conn, why);
    }

    /// The broker stops: whoever has no request goes.
    pub(crate) fn on_drain(&mut self, cx: &mut Cx) {
        for (conn, client) in self.all() {
            if matches!(client, State::Idle | State::Reading | State::Lingering) {
                self.close(cx, conn, CloseReason::Drained);
            }
        }
    }

    /// The drain is over: whoever still waits is told so.
    pub(crate) fn close_all(&mut self, cx: &mut Cx) {
        for (conn, state) in self.all() {
            if let State::Asked { number, .. } = state {
                let answer =
                    Answer::error(503, "unavailable", "the broker is stopping", Some("shutting_down"));
                self.answer(cx, Call { conn, number }, &answer);
            }
            self.close(cx, conn, CloseReason::Drained);
        }
    }

    fn all(&self) -> Vec<(ConnId, State)> {
        self.table.iter().map(|(conn, client)| (*conn, client.state)).collect()
    }
}
