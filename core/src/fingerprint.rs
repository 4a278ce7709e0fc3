//! What a joint state amounts to, for an explorer: two states with the same
//! fingerprint go on alike.
//!
//! A [`Canon`] takes a broker, its agents and the bytes between them, and writes
//! them down without what only ever grows or only people read: times become
//! ages, clamped at a horizon; epochs become ranks; nonces and sequence numbers
//! become places in the broker's tables; names and connections become the places
//! at which they were introduced. Statistics, counters, cursors and the kept
//! events are left out.

use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{ConnId, Epoch, GuestName, Nonce};
use crate::link::inbox::{Inbox, LINE_MAX};
use crate::link::line::{Auth, BrokerLine, Hello};
use crate::link::message::{BrokerFrame, GuestFrame};
use crate::time::{Time, nanos};

/// One joint state, being written down. The order matters: introduce all names
/// and connections, then write the broker, the agents, and what is in flight.
///
/// It knows unkeyed sessions over connections, without control clients, and
/// entropy that is [chosen](crate::entropy::Entropy::chosen).
#[derive(Clone, Debug)]
pub struct Canon {
    now: Time,
    horizon: u64,
    names: Vec<GuestName>,
    conns: Vec<ConnId>,
    /// What of each connection can still be answered, in order.
    answerable: Vec<Vec<(u64, Nonce)>>,
    words: Vec<u64>,
    /// Epochs, and the words that they stand in.
    epochs: Vec<(Epoch, usize)>,
}

/// The handshake's challenge among a connection's answerable ones: frames count from 1.
const HANDSHAKE: u64 = 0;

/// A name, connection or challenge that is not known (any more).
const GONE: u64 = u64::MAX;

impl Canon {
    /// Ages are taken at `now`. Beyond `horizon` all are alike: no bound that an
    /// age is compared with may be longer.
    #[must_use]
    pub fn new(now: Time, horizon: Duration) -> Self {
        Self {
            now,
            horizon: nanos(horizon),
            names: Vec::new(),
            conns: Vec::new(),
            answerable: Vec::new(),
            words: Vec::new(),
            epochs: Vec::new(),
        }
    }

    /// Introduces a name: the next place is its.
    pub fn introduce_name(&mut self, name: GuestName) {
        self.names.push(name);
    }

    /// Introduces a connection: the next place is its.
    pub fn introduce_conn(&mut self, conn: ConnId) {
        self.conns.push(conn);
        self.answerable.push(Vec::new());
    }

    /// Writes a word of the caller's own.
    pub fn word(&mut self, word: u64) {
        self.words.push(word);
    }

    /// Writes a time as its distance from now.
    pub fn time(&mut self, at: Time) {
        let word = if at == Time::MAX {
            GONE
        } else if at > self.now {
            nanos(at.since(self.now))
        } else {
            // Never the distance of a time to come: those are far below 2⁶³.
            (1 << 63) | nanos(self.now.since(at)).min(self.horizon)
        };
        self.words.push(word);
    }

    /// Writes a time as its distance from now; beyond `span` all are alike.
    pub fn recent(&mut self, at: Time, span: Duration) {
        if self.now.since(at) > span {
            self.words.push(GONE - 2);
        } else {
            self.time(at);
        }
    }

    /// Writes a time that may not be.
    pub fn maybe(&mut self, at: Option<Time>) {
        match at {
            Some(at) => self.time(at),
            None => self.words.push(GONE - 1),
        }
    }

    /// Writes bytes on their way to the broker.
    pub fn to_broker(&mut self, conn: ConnId, bytes: &[u8]) {
        self.stream(
            bytes,
            |canon, line| canon.guest_line(conn, line),
            |canon, json| canon.guest_frame(conn, json),
        );
    }

    /// Writes bytes on their way to the guest.
    pub fn to_guest(&mut self, conn: ConnId, bytes: &[u8]) {
        self.stream(
            bytes,
            |canon, line| canon.broker_line(conn, line),
            |canon, json| canon.broker_frame(conn, json),
        );
    }

    /// The fingerprint of what was written.
    #[must_use]
    pub fn fingerprint(mut self) -> u128 {
        // Odd, and without structure: the first digits of e.
        const FACTOR: u128 = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3d;
        let mut sorted: Vec<Epoch> = self.epochs.iter().map(|(epoch, _)| *epoch).collect();
        sorted.sort_unstable();
        sorted.dedup();
        for (epoch, word) in &self.epochs {
            self.words[*word] = sorted.partition_point(|other| other < epoch) as u64;
        }
        let mut hash = self.words.len() as u128;
        for word in &self.words {
            hash = (hash ^ u128::from(*word)).wrapping_mul(FACTOR);
            hash ^= hash >> 59;
        }
        hash
    }

    pub(crate) fn name(&mut self, name: &GuestName) {
        self.words.push(place(&self.names, name));
    }

    pub(crate) fn conn(&mut self, conn: ConnId) {
        self.words.push(place(&self.conns, &conn));
    }

    pub(crate) fn place_of(&self, name: &GuestName) -> Option<usize> {
        self.names.iter().position(|other| other == name)
    }

    pub(crate) fn conn_place(&self, conn: ConnId) -> u64 {
        place(&self.conns, &conn)
    }

    /// Whether an age has reached `span`.
    pub(crate) fn is_older(&self, at: Time, span: Duration) -> bool {
        self.now.since(at) >= span
    }

    pub(crate) fn conns(&self) -> usize {
        self.conns.len()
    }

    pub(crate) fn conn_at(&self, place: usize) -> ConnId {
        self.conns[place]
    }

    pub(crate) fn epoch(&mut self, epoch: Option<Epoch>) {
        match epoch {
            Some(epoch) => {
                self.epochs.push((epoch, self.words.len()));
                self.words.push(0);
            }
            None => self.words.push(GONE),
        }
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.words.push(u64::from(flag));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.words.push(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.words.push(u64::from_be_bytes(word));
        }
    }

    /// Who asks for a proof on `conn`: in order of their numbers.
    pub(crate) fn asked(&mut self, conn: ConnId, seq: Option<u64>, nonce: Nonce) {
        if let Some(index) = self.conns.iter().position(|other| *other == conn) {
            self.answerable[index].push((seq.unwrap_or(HANDSHAKE), nonce));
        }
    }

    pub(crate) fn nonce(&mut self, conn: ConnId, seq: Option<u64>, nonce: &Nonce) {
        let seq = seq.unwrap_or(HANDSHAKE);
        let index = self.conns.iter().position(|other| *other == conn);
        let found = index.and_then(|index| {
            let asked = &self.answerable[index];
            let place = asked.iter().position(|(other, _)| *other == seq)?;
            Some(2 * place as u64 + u64::from(asked[place].1 == *nonce))
        });
        // An answer to what was forgotten is an answer to what was forgotten.
        self.words.push(found.unwrap_or(GONE));
    }

    fn stream(
        &mut self,
        bytes: &[u8],
        mut line: impl FnMut(&mut Self, &[u8]),
        mut frame: impl FnMut(&mut Self, &[u8]),
    ) {
        let (mut input, mut inbox) = (bytes, Inbox::default());
        while let Some(first) = input.first() {
            // Lengths of frames begin with a zero, lines with something visible.
            let part = if *first >= b' ' {
                inbox.line(&mut input, LINE_MAX).ok().flatten().map(|text| line(self, text))
            } else {
                inbox.frame(&mut input).ok().flatten().map(|json| frame(self, json))
            };
            if part.is_none() {
                return self.bytes(inbox.unfinished());
            }
        }
    }

    fn guest_line(&mut self, conn: ConnId, line: &[u8]) {
        if let Ok(Hello { name, capabilities, boot: _, nonce: _, once }) = Hello::parse(line) {
            self.words.push(1);
            self.name(&name);
            self.bytes(capabilities.as_str().as_bytes());
            self.flag(once);
        } else if let Some(nonce) = line.strip_prefix(b"proof ").and_then(text) {
            self.words.push(2);
            self.nonce(conn, None, &nonce);
        } else {
            self.words.push(3);
            self.bytes(line);
        }
    }

    fn guest_frame(&mut self, conn: ConnId, json: &[u8]) {
        if let Ok(GuestFrame::Proof(proof)) = GuestFrame::parse(json) {
            self.words.push(4);
            self.nonce(conn, Some(proof.seq), &proof.proof);
        } else {
            self.words.push(5);
            self.bytes(json);
        }
    }

    fn broker_line(&mut self, conn: ConnId, line: &[u8]) {
        match BrokerLine::parse(line) {
            BrokerLine::Greeting => self.words.push(6),
            BrokerLine::Challenge(challenge) => {
                self.words.push(7 + u64::from(challenge.auth == Auth::Hmac));
                self.nonce(conn, None, &challenge.nonce);
                self.epoch(Some(challenge.epoch));
            }
            BrokerLine::Ok(ok) => {
                self.words.extend([9, nanos(ok.interval), nanos(ok.window)]);
                self.epoch(Some(ok.epoch));
            }
            BrokerLine::BareOk => self.words.push(10),
            BrokerLine::Refused(code) => {
                self.words.push(11);
                self.bytes(code.as_bytes());
            }
            BrokerLine::Unknown => {
                self.words.push(12);
                self.bytes(line);
            }
        }
    }

    fn broker_frame(&mut self, conn: ConnId, json: &[u8]) {
        if let Ok(BrokerFrame::Challenge { seq, nonce }) = BrokerFrame::parse(json) {
            self.words.push(13);
            self.nonce(conn, Some(seq), &nonce);
        } else {
            self.words.push(14);
            self.bytes(json);
        }
    }
}

fn place<T: PartialEq>(known: &[T], wanted: &T) -> u64 {
    known.iter().position(|other| other == wanted).map_or(GONE, |place| place as u64)
}

fn text(bytes: &[u8]) -> Option<Nonce> {
    str::from_utf8(bytes).ok()?.parse().ok()
}
