//! What happens, in words.

use core::fmt::Write;

use castra_core::event::{Event, Fact};
use castra_core::id::{ConnId, GuestName};
use castra_core::link::inbox::{Inbox, LINE_MAX};
use castra_core::link::message::{BrokerFrame, GuestFrame};

use super::moves::Move;
use super::state::{Parcel, State};

/// Tells a way through the states, or keeps silent.
#[derive(Debug, Default)]
pub(super) struct Story {
    telling: bool,
    pub(super) steps: Vec<String>,
}

impl Story {
    pub(super) const fn silent() -> Self {
        Self { telling: false, steps: Vec::new() }
    }

    pub(super) const fn told() -> Self {
        Self { telling: true, steps: Vec::new() }
    }

    pub(super) fn begin(&mut self, state: &State, chosen: Move) {
        if self.telling {
            let second = state.now.as_nanos() / 1_000_000_000 % 1000;
            self.steps.push(format!("[{second} s] {}", words(state, chosen)));
        }
    }

    pub(super) fn said(&mut self, who: &str, conn: ConnId, bytes: &[u8]) {
        if let (true, Some(step)) = (self.telling, self.steps.last_mut()) {
            let _ = write!(step, "; {who} sends {} on {}", message(bytes), number(conn));
        }
    }

    pub(super) fn noted(&mut self, event: &Event) {
        let (true, Some(step)) = (self.telling, self.steps.last_mut()) else { return };
        let guest = event.guest.as_ref().map_or("-", GuestName::as_str);
        let _ = match &event.fact {
            Fact::HandshakeSuccess { .. } => write!(step, "; {guest} has a session"),
            Fact::HandshakeFailure { reason, .. } => {
                write!(step, "; the handshake fails: {}", reason.as_str())
            }
            Fact::SessionClosed { reason, .. } => {
                write!(step, "; the session of {guest} ends: {}", reason.as_str())
            }
            Fact::VerdictChanged { to, reason: None, .. } => write!(step, "; {guest} is {to}"),
            Fact::VerdictChanged { to, reason: Some(reason), .. } => {
                write!(step, "; {guest} is {to}, {reason}")
            }
            Fact::NameConflict { .. } => write!(step, "; two fight for the name"),
            Fact::LinkDown { reason, .. } => write!(step, "; {guest} gives the link up: {}", reason.as_str()),
            _ => Ok(()),
        };
    }
}

fn words(state: &State, chosen: Move) -> String {
    let name = |guest: usize| state.guests[guest].name;
    let of = |stream: usize| number(state.streams[stream].conn);
    let first = |lane: &std::collections::VecDeque<Parcel>| match lane.front() {
        Some(Parcel::Bytes(bytes)) => message(bytes),
        Some(Parcel::End) | None => "the end".into(),
    };
    match chosen {
        Move::ToBroker(stream) => {
            format!("{} on {} reaches the broker", first(&state.streams[stream].to_broker), of(stream))
        }
        Move::ToGuest(stream) => {
            let Some(stream) = state.streams.get(stream) else { return String::new() };
            format!("{} on {} reaches {}", first(&stream.to_guest), number(stream.conn), name(stream.guest))
        }
        Move::WakeBroker => "the broker wakes".into(),
        Move::WakeGuest(guest) => format!("{} wakes", name(guest)),
        Move::Start(guest) => format!("{} starts", name(guest)),
        Move::Connect(guest) => format!("{} is connected", name(guest)),
        Move::Pass => "a second passes".into(),
        Move::Refuse(guest) => format!("the dial of {} fails", name(guest)),
        Move::Crash(guest) => format!("{} dies, and nobody is told", name(guest)),
        Move::Freeze(guest) => format!("{} freezes", name(guest)),
        Move::Thaw(guest) => format!("{} goes on", name(guest)),
        Move::Reset(stream) => format!("connection {} is reset", of(stream)),
        Move::Restart => "the broker dies, and a new one starts".into(),
    }
}

/// Connections are told apart by when they were dialled.
fn number(conn: ConnId) -> String {
    format!("c{}", conn.generation + 1)
}

/// What is said, as short as it can be told apart.
fn message(bytes: &[u8]) -> String {
    let (mut input, mut inbox) = (bytes, Inbox::default());
    let mut parts = Vec::new();
    while let Some(first) = input.first() {
        let part = if *first >= b' ' {
            inbox.line(&mut input, LINE_MAX).map(|line| line.map(line_words)).ok().flatten()
        } else {
            inbox.frame(&mut input).map(|json| json.map(frame_words)).ok().flatten()
        };
        match part {
            Some(part) => parts.push(part),
            None => break,
        }
    }
    parts.join(" and ")
}

fn line_words(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    match word {
        "castra-broker" => "its greeting".into(),
        "hello" | "ok" => format!("`{word}`"),
        // The explorer's nonces are counted.
        "challenge" | "proof" => {
            let nonce = rest.split(' ').next().unwrap_or_default();
            format!("`{word} {}`", nonce.trim_start_matches('0'))
        }
        _ => format!("`{text}`"),
    }
}

fn frame_words(json: &[u8]) -> String {
    match (GuestFrame::parse(json), BrokerFrame::parse(json)) {
        (Ok(GuestFrame::Proof(proof)), _) => format!("the proof of challenge #{}", proof.seq),
        (_, Ok(BrokerFrame::Challenge { seq, .. })) => format!("challenge #{seq}"),
        (_, Ok(BrokerFrame::Bye(bye))) => format!("`bye` ({})", bye.code),
        _ => format!("`{}`", String::from_utf8_lossy(json)),
    }
}
