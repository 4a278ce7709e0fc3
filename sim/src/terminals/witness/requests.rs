//! What goes over each connection, as the engine gets and says it: every request has
//! one answer.

use std::collections::BTreeMap;

use castra_core::Input;
use castra_core::id::ConnId;
use castra_core::terminals::TerminalsConfig;
use castra_core::terminals::wire::{
    Answer, CLIENT_FRAME_MAX, ErrorCode, FRAME_MAX, Frames, Message, Request, Role,
};

use super::{Fate, Witness};
use crate::outcome::count;
use crate::terminals::pattern::{self, Author, Piece};

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Conn {
    requests: Frames,
    replies: Frames,
    /// Who it said it is, and whether that was believed.
    pub(super) id: Option<(String, Role)>,
    /// What it asked and has no answer to.
    pub(super) open: BTreeMap<u32, Asked>,
    /// What it asked in this event, or was answered.
    pub(super) answered: Vec<(Asked, bool)>,
    /// Its bytes make no sense: nothing is expected any more.
    pub(super) nonsense: bool,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) terminal: u32,
    pub(super) author: Option<Author>,
    /// The event in which it came.
    pub(super) event: u64,
}

/// Kinds of requests, as far as owners are concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    Handshake(String, Role),
    Create,
    Attach,
    Observe,
    Detach,
    /// Only the owner may.
    Command,
    Takeover,
    Other,
}

impl Witness {
    /// An input is about to go in.
    pub(super) fn input(&mut self, input: &Input<'_, TerminalsConfig>) {
        for conn in self.conns.values_mut() {
            conn.answered.clear();
        }
        match input {
            Input::Opened { conn, .. } => {
                self.digest(u64::from(conn.index) | 1 << 40);
                self.conns.insert(*conn, Conn::default());
            }
            Input::Bytes { conn, bytes } => {
                self.digest(u64::from(conn.index));
                self.digest_bytes(bytes);
                self.heard(*conn, bytes);
            }
            Input::Finished { conn } => self.digest(u64::from(conn.index) | 2 << 40),
            Input::Writable { conn, room } => {
                self.digest(u64::from(conn.index) | 3 << 40 | (*room as u64) << 44)
            }
            Input::Closed { conn, .. } => {
                self.digest(u64::from(conn.index) | 4 << 40);
                self.closed(*conn);
            }
            Input::Done { effect, result } => self.digest(effect.0 << 1 | u64::from(result.is_ok())),
            Input::Terminal { terminal, .. } => self.digest(u64::from(terminal.0) | 5 << 40),
            _ => {}
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    fn heard(&mut self, conn: ConnId, mut bytes: &[u8]) {
        let event = self.event;
        let Some(it) = self.conns.get_mut(&conn) else { return };
        while !it.nonsense {
            let Ok(frame) = it.requests.next(&mut bytes, FRAME_MAX) else {
                it.nonsense = true;
                return;
            };
            let Some(frame) = frame else { return };
            let Ok((seq, request)) = Request::parse(frame) else {
                it.nonsense = true;
                return;
            };
            let asked = asked(&request, event);
            if let Some(author) = asked.author {
                self.pieces.insert(author, Fate::Asked);
            }
            it.open.insert(seq, asked);
        }
    }

    /// The engine says something.
    pub(super) fn said(&mut self, conn: ConnId, mut bytes: &[u8]) {
        let Some(it) = self.conns.get_mut(&conn) else { return };
        let mut replies = std::mem::take(&mut it.replies);
        loop {
            match replies.next(&mut bytes, CLIENT_FRAME_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => match Message::parse(frame) {
                    Ok(Message::Reply { seq, answer }) => self.replied(conn, seq, &answer),
                    Ok(Message::Event(_)) => {}
                    Ok(Message::Unknown) => self.blame("L4", "a message of no known type".to_owned()),
                    Err(error) => self.blame("L4", format!("the engine says what can't be read: {error}")),
                },
                Err(error) => {
                    self.blame("L4", format!("the engine says what can't be read: {error}"));
                    break;
                }
            }
        }
        if let Some(it) = self.conns.get_mut(&conn) {
            it.replies = replies;
        }
    }

    fn replied(&mut self, conn: ConnId, seq: u32, answer: &Answer<'_>) {
        let Some(it) = self.conns.get_mut(&conn) else { return };
        let Some(asked) = it.open.remove(&seq) else {
            // What is no request has no number.
            if !(it.nonsense || seq == 0 && matches!(answer, Answer::Error { .. })) {
                self.blame("L4", format!("a second answer, or one to nothing: number {seq}, {answer:?}"));
            }
            return;
        };
        let granted = !matches!(answer, Answer::Error { .. });
        if let (What::Handshake(id, role), true) = (&asked.what, granted) {
            it.id = Some((id.clone(), *role));
        }
        let refused = answer.code() == Some(ErrorCode::OwnerRequired);
        if granted || refused {
            it.answered.push((asked.clone(), granted));
        }
        if let Some(author) = asked.author {
            self.pieces.insert(author, if granted { Fate::Taken } else { Fate::Refused });
        }
        if refused {
            count(&mut self.outcome.owners, "denied");
        }
        if let (What::Create, Answer::Granted(granted)) = (&asked.what, answer) {
            self.created(granted.session, granted.created);
        }
    }

    /// S2: a terminal that is said to be there was started, and is durable.
    fn created(&mut self, session: Option<u32>, created: Option<bool>) {
        let Some(terminal) = session else {
            return self.blame("L4", "a terminal is created, and has no number".to_owned());
        };
        let host = self.host.borrow();
        let (started, durable) = (host.life(terminal).is_some(), host.journal.had(terminal));
        drop(host);
        if !started {
            self.blame("S2", format!("terminal {terminal} is said to be there, and was never started"));
        }
        if !durable {
            self.blame("S2", format!("terminal {terminal} is said to be there, and is not durable"));
        }
        if created == Some(true) && !self.new.insert(terminal) {
            self.blame("O1", format!("terminal {terminal} is new for the second time"));
        }
        if !self.created.contains(&terminal) {
            self.created.push(terminal);
        }
    }
}

fn asked(request: &Request<'_>, event: u64) -> Asked {
    let mut author = None;
    let (what, terminal) = match request {
        Request::Handshake(handshake) => (What::Handshake(handshake.client_id.to_owned(), handshake.role), 0),
        Request::Create(_) => (What::Create, 0),
        Request::Attach(attach) if attach.observe => (What::Observe, attach.session),
        Request::Attach(attach) => (What::Attach, attach.session),
        Request::Detach { session } => (What::Detach, *session),
        Request::Input { session, data } => {
            let mut reader = pattern::Reader::default();
            reader.push(data.0);
            if let Ok(Some(Piece::Input(by))) = reader.next() {
                author = Some(by);
            }
            (What::Command, *session)
        }
        Request::Resize { session, .. }
        | Request::Signal { session, .. }
        | Request::ClearScrollback { session }
        | Request::Kill { session } => (What::Command, *session),
        Request::Takeover { session } => (What::Takeover, *session),
        _ => (What::Other, 0),
    };
    Asked { what, terminal, author, event }
}
