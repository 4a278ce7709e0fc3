//! Phase A: hello, challenge, proof; and the refusals.

use alloc::boxed::Box;
use core::str::FromStr;

use zeroize::Zeroizing;

use crate::auth::{Key, Proof, Transcript};
use crate::boundary::CloseReason;
use crate::broker::cx::Cx;
use crate::broker::facts::RowId;
use crate::broker::guests::Guests;
use crate::broker::links::{Attempt, Keys, Link, Links, Stage};
use crate::capabilities::Capabilities;
use crate::event::{Fact, Failure};
use crate::id::{ConnId, GuestName, Nonce};
use crate::link::line::{self, Auth, BrokerLine, Challenge, Hello, PROOF_V1};

impl Link {
    /// Whether what is unfinished has to be a whole line. Anything else may have been cut off on
    /// the way, and what is left of it would claim something else.
    pub(super) fn is_whole_without_an_end(&self) -> bool {
        let unfinished = self.inflow.as_ref().map_or(&[][..], |inflow| inflow.inbox.unfinished());
        match self.stage {
            Stage::Hello { .. } => line::is_bare_hello(unfinished),
            Stage::Proving(_) => line::is_whole_proof(unfinished),
            Stage::Idle | Stage::Frames => false,
        }
    }
}

impl Links {
    pub(crate) fn on_line(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, line: &[u8]) {
        let Some(link) = self.table.get(conn) else { return };
        if link.is_serial() && is_no_guests_line(line) {
            return self.overhear(cx, conn);
        }
        match &link.stage {
            Stage::Hello { .. } => self.on_hello(cx, guests, conn, line),
            Stage::Proving(attempt) if attempt.conflict_until.is_none() => {
                self.on_proof(cx, guests, conn, line)
            }
            // It proved itself already and has to wait for the verdict.
            Stage::Proving(_) => self.refuse(cx, guests, conn, Failure::BadLine),
            Stage::Idle | Stage::Frames => {}
        }
    }

    /// An echo, or an empty line: nothing that a handshake consists of.
    fn overhear(&mut self, cx: &mut Cx, conn: ConnId) {
        let Some(link) = self.table.get_mut(conn) else { return };
        if matches!(link.stage, Stage::Hello { .. }) && link.session.is_none() {
            link.stage = Stage::Idle;
            self.leave_door(cx, conn);
        }
    }

    fn on_hello(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, line: &[u8]) {
        let Some(link) = self.table.get(conn) else { return };
        let (transport, remote) = (link.transport, link.remote());
        let hello = match Hello::parse(line) {
            Ok(hello) => Hello { capabilities: cx.shared(hello.capabilities), ..hello },
            Err(failure) => return self.refuse(cx, guests, conn, failure),
        };
        let name = hello.name;
        cx.event(Some(name), Fact::HandshakeStart { transport, remote });
        let refusal = admission(cx, guests, &hello);
        let row = guests.find(&name);
        let Stage::Hello { since } = link.stage else { return };
        if refusal.is_none() && !hello.capabilities.has(PROOF_V1) {
            return self.on_legacy_hello(cx, guests, conn, hello);
        }
        let nonce = cx.entropy.nonce();
        let epoch = cx.next_epoch();
        let keys = guests.token(&name).map(|key| {
            // A revoked name answers like any other: with a key nobody has.
            let key = key.cloned().unwrap_or_else(|| fresh_key(cx));
            let guest = hello.nonce.unwrap_or(Nonce([0; 16]));
            let (expected, answer, session) = Transcript::new(&name, &nonce, &guest, epoch, line).keys(&key);
            Keys { expected, answer, session }
        });
        let auth = if keys.is_some() { Auth::Hmac } else { Auth::None };
        let attempt =
            Attempt { hello, since, sent_at: cx.at(), nonce, epoch, keys, row, conflict_until: None };
        if let Some(row) = row.and_then(|row| guests.get_mut(row)) {
            row.handshaking += 1;
        }
        if let Some(link) = self.table.get_mut(conn) {
            link.stage = Stage::Proving(Box::new(attempt));
            if refusal.is_none() {
                link.transmit(cx, conn, |out| Challenge { nonce, epoch, auth }.append(out));
            }
        }
        if let Some(failure) = refusal {
            return self.refuse(cx, guests, conn, failure);
        }
        if let Some(row) = row {
            guests.announce(cx, row);
        }
    }

    fn on_proof(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, line: &[u8]) {
        let Some(link) = self.table.get(conn) else { return };
        let Stage::Proving(attempt) = &link.stage else { return };
        let Some(proof) = line.strip_prefix(b"proof ") else {
            return self.refuse(cx, guests, conn, Failure::BadLine);
        };
        let proof = str::from_utf8(proof).unwrap_or_default();
        let proven = match &attempt.keys {
            Some(keys) => Proof::from_str(proof).is_ok_and(|proof| proof.matches(&keys.expected)),
            None => Nonce::from_str(proof)
                .is_ok_and(|nonce| nonce.matches(&attempt.nonce) || planted!(cx.config, ReplayAccepted)),
        };
        if proven {
            self.claim(cx, guests, conn);
        } else {
            self.refuse(cx, guests, conn, Failure::BadProof);
        }
    }

    /// Says no, and ends the connection (serial: the attempt). Changes no verdict
    /// that rests on a proof.
    pub(crate) fn refuse(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, failure: Failure) {
        let Some(link) = self.table.get_mut(conn) else { return };
        link.transmit(cx, conn, |out| line::append_refusal(out, wire_code(failure), explanation(failure)));
        self.fail(cx, guests, conn, failure);
        self.hang_up(cx, conn, CloseReason::Refused);
    }

    /// Ends the attempt and writes it down; the connection is the caller's.
    pub(crate) fn fail(&mut self, cx: &mut Cx, guests: &mut Guests, conn: ConnId, failure: Failure) {
        let Some(link) = self.table.get_mut(conn) else { return };
        let (transport, remote) = (link.transport, link.remote());
        let stage = core::mem::replace(&mut link.stage, Stage::Hello { since: cx.at() });
        let (guest, capabilities, row) = match stage {
            Stage::Proving(attempt) => (Some(attempt.hello.name), attempt.hello.capabilities, attempt.row),
            Stage::Idle | Stage::Hello { .. } | Stage::Frames => (None, Capabilities::default(), None),
        };
        cx.event(guest, Fact::HandshakeFailure { reason: failure, transport, remote, capabilities });
        if let Some(id) = row {
            self.end_attempt(guests, id, conn);
            let refused = !matches!(failure, Failure::Disconnected | Failure::Shutdown);
            if let Some(row) = guests.get_mut(id).filter(|_| refused) {
                row.rare_mut().refusals += 1;
                row.refused = true;
            }
            guests.announce(cx, id);
        }
    }

    /// The attempt no longer counts for the row, nor against its incumbent.
    pub(crate) fn end_attempt(&mut self, guests: &mut Guests, id: RowId, conn: ConnId) {
        let Some(row) = guests.get_mut(id) else { return };
        row.handshaking = row.handshaking.saturating_sub(1);
        if row.rare().contender == Some(conn) {
            row.rare_mut().contender = None;
            if let Some(incumbent) = row.session.and_then(|conn| self.table.get_mut(conn))
                && let Some(session) = &mut incumbent.session
            {
                session.forget_conflict();
            }
        }
    }

    /// A token was issued or revoked: handshakes begun before can't end well.
    pub(crate) fn abort_handshakes(&mut self, cx: &mut Cx, guests: &mut Guests, name: &GuestName) {
        let begun = self.door.waiting.iter().copied().filter(|conn| {
            self.table.get(*conn).is_some_and(
                |link| matches!(&link.stage, Stage::Proving(attempt) if attempt.hello.name == *name),
            )
        });
        let mut begun = begun.collect::<alloc::vec::Vec<_>>();
        begun.sort_unstable();
        for conn in begun {
            self.refuse(cx, guests, conn, Failure::TokenRequired);
        }
    }
}

/// What only a broker says comes back from a terminal that echoes. An answer to
/// it would be echoed too, and so on without end.
fn is_no_guests_line(line: &[u8]) -> bool {
    line.is_empty() || !matches!(BrokerLine::parse(line), BrokerLine::Unknown)
}

/// Whether the name may try at all.
fn admission(cx: &Cx, guests: &Guests, hello: &Hello) -> Option<Failure> {
    let proves = hello.capabilities.has(PROOF_V1);
    let keyed = guests.token(&hello.name).is_some();
    if cx.config.only_known && !keyed && !guests.is_known(&hello.name) {
        Some(Failure::UnknownName)
    } else if (keyed && !proves) || (cx.config.require_token && !keyed) {
        Some(Failure::TokenRequired)
    } else if keyed && hello.nonce.is_none() {
        Some(Failure::BadLine)
    } else {
        None
    }
}

fn fresh_key(cx: &mut Cx) -> Key {
    let mut bytes = Zeroizing::new([0; 32]);
    cx.entropy.fill(&mut *bytes);
    Key::from_bytes(*bytes)
}

/// Evictions look like what they are to the peer: the table is full.
const fn wire_code(failure: Failure) -> Failure {
    match failure {
        Failure::Evicted | Failure::Shutdown | Failure::Disconnected => Failure::Busy,
        other => other,
    }
}

const fn explanation(failure: Failure) -> &'static str {
    match failure {
        Failure::BadLine => "expected a line of castra link v1 with at most 512 bytes",
        Failure::BadName => "a guest name has 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit",
        Failure::UnknownName => "this broker admits only names it knows",
        Failure::TokenRequired => "this name needs a token and proof-v1",
        Failure::BadProof => "the proof is wrong",
        Failure::NameInUse => "a live session holds the name",
        Failure::Busy => "a conflict over the name is being decided, or a table is full",
        Failure::Timeout => "the handshake took too long",
        Failure::Evicted => "too many handshakes at once",
        Failure::Disconnected | Failure::Shutdown => "the broker is stopping",
    }
}
