//! Control connections: lines in, answers out in order, streams when there is room.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;

use crate::boundary::{CloseReason, PeerCred, Source};
use crate::broker::cx::Cx;
use crate::broker::guests::Guests;
use crate::broker::walk::{Filter, PIECE_MAX, Walk, append_head};
use crate::control::reply::{ErrorBody, ErrorCode, Gap};
use crate::control::request::{LINE_MAX, Rejected, Request};
use crate::event::Cursor;
use crate::id::{ConnId, RequestId};
use crate::link::inbox::Inbox;
use crate::link::message::append_json;

/// All control connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    table: BTreeMap<ConnId, Client>,
    /// Connections that may have something to write.
    hungry: VecDeque<ConnId>,
    /// The newest event that followers were woken for.
    announced: u64,
    /// Where pieces of answers are written; kept, so that a follower costs no allocation.
    scratch: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Client {
    room: usize,
    inbox: Inbox,
    held: Vec<u8>,
    finished: bool,
    refused: bool,
    /// Requests without an answer in `answers`.
    open: usize,
    answers: VecDeque<Answer>,
    follow: Option<Follow>,
    is_hungry: bool,
    /// Lines come without requests.
    streams: bool,
}

#[derive(Clone, Debug)]
enum Answer {
    Line(Vec<u8>),
    Walk(Walk),
    /// The walk before it has ended: the stream begins.
    Follow(Follow),
}

/// A stream of events.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    pub(crate) next: u64,
    pub(crate) filter: Filter,
}

/// Most pieces written in one call, so that a long answer never holds the loop.
const PIECES: usize = 128;

impl Clients {
    pub(crate) fn on_opened(&mut self, cx: &mut Cx, conn: ConnId, cred: Option<PeerCred>, room: usize) {
        let uid = cx.config.identity.uid;
        let refusal = if !cred.is_some_and(|cred| cred.uid == uid || cred.uid == 0) {
            let who =
                cred.map_or_else(|| "somebody unknown".to_string(), |cred| format!("user {}", cred.uid));
            Some((ErrorCode::Forbidden, format!("this socket serves user {uid} and root, not {who}")))
        } else if cx.draining {
            Some((ErrorCode::ShuttingDown, "the broker is stopping".to_string()))
        } else if self.table.len() >= cx.config.control_clients_max {
            Some((ErrorCode::Busy, format!("{} clients are connected already", self.table.len())))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            let line = error_line(None, &ErrorBody { code, message });
            if line.len() <= room {
                cx.out.transmit(conn, |out| out.extend_from_slice(&line));
            }
            cx.out.close(conn, CloseReason::Refused);
            return;
        }
        self.table.insert(
            conn,
            Client {
                room,
                inbox: Inbox::default(),
                held: Vec::new(),
                finished: false,
                refused: false,
                open: 0,
                answers: VecDeque::new(),
                follow: None,
                is_hungry: false,
                streams: false,
            },
        );
    }

    /// The next request of a connection, if it may be taken now. Errors are answered here.
    pub(crate) fn next_request(&mut self, cx: &mut Cx, conn: ConnId, input: &mut &[u8]) -> Option<Request> {
        let timeout_max = cx.config.request_timeout_max;
        loop {
            let client = self.table.get_mut(&conn)?;
            if client.refused || input.is_empty() {
                return None;
            }
            if client.open + client.answers.len() >= cx.config.control_requests_max || client.room < PIECE_MAX
            {
                // Read on when answers have left; what is here already waits.
                client.held.extend_from_slice(input);
                *input = &[];
                cx.out.read(Source::Conn(conn), 0);
                return None;
            }
            let parsed = match client.inbox.line(input, LINE_MAX) {
                Ok(None) => return None,
                Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(Some(line)) => Request::parse(line, timeout_max),
                Err(_) => {
                    client.refused = true;
                    client.end_stream();
                    let message = format!("a request has at most {LINE_MAX} bytes with its end");
                    let error = ErrorBody { code: ErrorCode::InvalidRequest, message };
                    Err(Rejected { id: None, error })
                }
            };
            client.open += 1;
            match parsed {
                Ok(request) => return Some(request),
                Err(Rejected { id, error }) => self.error(conn, id, &error),
            }
        }
    }

    pub(crate) fn on_writable(&mut self, conn: ConnId, room: usize) {
        if let Some(client) = self.table.get_mut(&conn) {
            client.room = room;
            self.wake(conn);
        }
    }

    /// No more requests will come: what is owed is still said, then the end.
    pub(crate) fn on_finished(&mut self, conn: ConnId) {
        if let Some(client) = self.table.get_mut(&conn) {
            client.finished = true;
            self.wake(conn);
        }
    }

    pub(crate) fn on_closed(&mut self, conn: ConnId) {
        self.table.remove(&conn);
    }

    pub(crate) fn contains(&self, conn: ConnId) -> bool {
        self.table.contains_key(&conn)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Requests that no answer was found for so far.
    #[cfg(feature = "model")]
    pub(super) fn unanswered(&self) -> usize {
        self.table.values().map(|client| client.open).sum()
    }

    #[cfg(feature = "model")]
    pub(super) fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Whether a connection does nothing but wait for the answer to one request.
    pub(crate) fn is_alone(&self, conn: ConnId) -> bool {
        self.table.get(&conn).is_some_and(|client| {
            client.open == 1 && client.answers.is_empty() && client.follow.is_none() && !client.streams
        })
    }

    /// The connection serves something else from now on: its room, and whether the
    /// client will send no more.
    pub(crate) fn release(&mut self, conn: ConnId) -> Option<(usize, bool)> {
        self.table.remove(&conn).map(|client| (client.room, client.finished))
    }

    /// Answers one request with an error, and takes no more of them.
    pub(crate) fn turn_away(&mut self, conn: ConnId, id: Option<RequestId>, error: &ErrorBody) {
        self.error(conn, id, error);
        if let Some(client) = self.table.get_mut(&conn) {
            client.refused = true;
            client.end_stream();
        }
    }

    /// Bytes that had to wait and may be taken now.
    pub(crate) fn take_held(&mut self, cx: &mut Cx, conn: ConnId) -> Option<Vec<u8>> {
        let client = self.table.get_mut(&conn)?;
        let free = client.open + client.answers.len() < cx.config.control_requests_max;
        if client.held.is_empty() || !free || client.room < PIECE_MAX {
            return None;
        }
        cx.out.read(Source::Conn(conn), usize::MAX);
        Some(core::mem::take(&mut client.held))
    }

    /// Connections with bytes that wait.
    pub(crate) fn waiting(&self) -> Vec<ConnId> {
        let waits = |(conn, client): (&ConnId, &Client)| (!client.held.is_empty()).then_some(*conn);
        self.table.iter().filter_map(waits).collect()
    }

    pub(crate) fn hold(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        match self.table.get_mut(&conn) {
            Some(client) if !client.held.is_empty() => {
                client.held.extend_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    /// Answers one request with a document.
    pub(crate) fn reply(&mut self, conn: ConnId, id: Option<RequestId>, event: &str, data: &impl Serialize) {
        let mut line = Vec::new();
        append_head(&mut line, id.as_ref(), event);
        append_json(&mut line, data);
        line.extend_from_slice(b"}\n");
        self.push(conn, Answer::Line(line));
    }

    /// Answers one request with an error.
    pub(crate) fn error(&mut self, conn: ConnId, id: Option<RequestId>, error: &ErrorBody) {
        self.push(conn, Answer::Line(error_line(id.as_ref(), error)));
    }

    /// Answers one request piece by piece; then, perhaps, a stream.
    pub(crate) fn walk(&mut self, conn: ConnId, walk: Walk, follow: Option<Follow>) {
        self.push(conn, Answer::Walk(walk));
        if let (Some(follow), Some(client)) = (follow, self.table.get_mut(&conn)) {
            client.answers.push_back(Answer::Follow(follow));
        }
    }

    /// Lines may come to this client without requests from now on.
    pub(crate) fn stream(&mut self, conn: ConnId) {
        if let Some(client) = self.table.get_mut(&conn) {
            client.streams = true;
        }
    }

    /// Whether lines come to this client without requests.
    pub(crate) fn is_streaming(&self, conn: ConnId) -> bool {
        self.table.get(&conn).is_some_and(|client| client.streams)
    }

    /// Whether a client that lines come to has nothing left to be written to it.
    pub(crate) fn has_said_all(&self, conn: ConnId) -> bool {
        self.table.get(&conn).is_some_and(|client| client.streams && client.answers.is_empty())
    }

    /// One line of such a stream.
    pub(crate) fn say(&mut self, conn: ConnId, event: &str, data: &impl Serialize) {
        let mut line = Vec::new();
        append_head(&mut line, None, event);
        append_json(&mut line, data);
        line.extend_from_slice(b"}\n");
        if let Some(client) = self.table.get_mut(&conn) {
            client.answers.push_back(Answer::Line(line));
            self.wake(conn);
        }
    }

    fn push(&mut self, conn: ConnId, answer: Answer) {
        if let Some(client) = self.table.get_mut(&conn) {
            client.open = client.open.saturating_sub(1);
            client.answers.push_back(answer);
            self.wake(conn);
        }
    }

    fn wake(&mut self, conn: ConnId) {
        if let Some(client) = self.table.get_mut(&conn)
            && !core::mem::replace(&mut client.is_hungry, true)
        {
            self.hungry.push_back(conn);
        }
    }

    /// Wakes whoever follows, if there are new events.
    fn wake_followers(&mut self, newest: u64) {
        if core::mem::replace(&mut self.announced, newest) == newest {
            return;
        }
        for (conn, client) in &mut self.table {
            if client.follow.is_some() && !core::mem::replace(&mut client.is_hungry, true) {
                self.hungry.push_back(*conn);
            }
        }
    }

    /// Writes what there is room for. True: there is more to do at once.
    pub(crate) fn pump(&mut self, cx: &mut Cx, guests: &Guests) -> bool {
        self.wake_followers(cx.ring.newest());
        let mut pieces = PIECES;
        let mut scratch = core::mem::take(&mut self.scratch);
        for _ in 0..self.hungry.len() {
            let Some(conn) = self.hungry.pop_front() else { break };
            let Some(client) = self.table.get_mut(&conn) else { continue };
            client.is_hungry = false;
            if client.write(cx, guests, conn, &mut pieces, &mut scratch) {
                self.wake(conn);
            }
            let Some(client) = self.table.get(&conn) else { continue };
            let owes = client.open > 0 || !client.answers.is_empty() || !client.held.is_empty();
            if (client.finished || client.refused) && !owes && client.follow.is_none() && !client.streams {
                cx.out.close(conn, CloseReason::Finished);
                self.table.remove(&conn);
            }
        }
        scratch.clear();
        scratch.shrink_to(PIECE_MAX);
        self.scratch = scratch;
        !self.hungry.is_empty()
    }

    /// The drain: no more requests, no streams; what is owed is still said.
    pub(crate) fn dismiss(&mut self) {
        for conn in self.table.keys().copied().collect::<Vec<_>>() {
            if let Some(client) = self.table.get_mut(&conn) {
                client.finished = true;
                client.held.clear();
                client.end_stream();
                self.wake(conn);
            }
        }
    }

    /// The drain's deadline: whoever is still here goes.
    pub(crate) fn close_all(&mut self, cx: &mut Cx) {
        for conn in self.table.keys().copied().collect::<Vec<_>>() {
            self.table.remove(&conn);
            cx.out.close(conn, CloseReason::Drained);
        }
    }
}

impl Client {
    fn end_stream(&mut self) {
        self.follow = None;
        self.streams = false;
        self.answers.retain(|answer| !matches!(answer, Answer::Follow(_)));
    }

    /// Writes until room or `pieces` run out; true: only `pieces` did.
    fn write(
        &mut self,
        cx: &mut Cx,
        guests: &Guests,
        conn: ConnId,
        pieces: &mut usize,
        scratch: &mut Vec<u8>,
    ) -> bool {
        loop {
            if *pieces == 0 {
                return true;
            }
            *pieces -= 1;
            match self.answers.front_mut() {
                Some(Answer::Line(line)) => {
                    let part = line.len().min(self.room);
                    self.room -= cx.out.transmit(conn, |out| out.extend_from_slice(&line[..part]));
                    if part < line.len() {
                        line.drain(..part);
                        return false;
                    }
                    self.answers.pop_front();
                }
                Some(Answer::Walk(walk)) => {
                    if self.room < PIECE_MAX {
                        return false;
                    }
                    scratch.clear();
                    let done = walk.step(cx, guests, scratch);
                    if done {
                        self.answers.pop_front();
                    }
                    // Only the addresses that the operator listens on have no bound.
                    let rest = scratch.split_off(scratch.len().min(self.room));
                    self.room -= cx.out.transmit(conn, |out| out.extend_from_slice(scratch));
                    if !rest.is_empty() {
                        self.answers.push_front(Answer::Line(rest));
                    }
                }
                Some(Answer::Follow(_)) => {
                    if let Some(Answer::Follow(follow)) = self.answers.pop_front() {
                        self.follow = Some(follow);
                    }
                }
                None => match &mut self.follow {
                    Some(follow) if self.room >= PIECE_MAX => {
                        scratch.clear();
                        if !follow.step(cx, scratch) {
                            return false;
                        }
                        self.room -= cx.out.transmit(conn, |out| out.extend_from_slice(scratch));
                    }
                    Some(_) | None => return false,
                },
            }
        }
    }
}

impl Follow {
    /// Writes the next event, or a gap; false: there is nothing new.
    fn step(&mut self, cx: &Cx, out: &mut Vec<u8>) -> bool {
        if self.next < cx.ring.oldest() {
            let cursor = Cursor { incarnation: cx.incarnation, number: cx.ring.oldest() - 1 };
            self.next = cx.ring.oldest();
            append_head(out, None, "gap");
            append_json(out, &Gap { cursor });
            out.extend_from_slice(b"}\n");
            return true;
        }
        while let Some(event) = cx.ring.get(self.next) {
            self.next += 1;
            if self.filter.admits(&event) {
                append_head(out, None, event.fact.kind());
                event.append_json(None, out);
                out.extend_from_slice(b"}\n");
                return true;
            }
        }
        false
    }
}

pub(crate) fn error_line(id: Option<&RequestId>, error: &ErrorBody) -> Vec<u8> {
    let mut line = Vec::new();
    append_head(&mut line, id, "error");
    append_json(&mut line, error);
    line.extend_from_slice(b"}\n");
    line
}

/// An error's body.
pub(crate) fn problem(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody { code, message: message.into() }
}
