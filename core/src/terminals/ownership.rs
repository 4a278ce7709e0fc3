//! Who owns a terminal: one connection, or for a moment nobody but the client
//! that left.
//!
//! | from | what happens | to |
//! |---|---|---|
//! | free | a control client creates, attaches (not `observe`) or commands | owned |
//! | owned | its connection detaches | free |
//! | owned | its connection ends | waited for |
//! | waited for | the same client id attaches or commands | owned |
//! | waited for | [`lease`](super::TerminalsConfig::lease) passes | free |
//! | any | a control client takes over | owned |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::connections::shown;
use super::engine::Terminals;
use super::requests::{Refusal, missing};
use super::session::Owner;
use super::wire::{ErrorCode, Event, Role, State, append_event};
use crate::event::TerminalFact;
use crate::id::{ConnId, TerminalId};

impl Terminals {
    /// Whether a connection may command a terminal; one that nobody owns becomes its own.
    pub(super) fn gate(&mut self, conn: ConnId, terminal: TerminalId) -> Result<TerminalId, Refusal> {
        self.check_gate(conn, terminal)?;
        self.claim_free(conn, terminal);
        Ok(terminal)
    }

    /// The same, and nothing changes: the command may still be refused.
    pub(super) fn check_gate(&mut self, conn: ConnId, terminal: TerminalId) -> Result<(), Refusal> {
        let session = self.sessions.get(&terminal).filter(|session| session.is_alive());
        let session = session.ok_or_else(|| missing(terminal))?;
        let owns = session.is_owned_by(conn) || planted!(self.cx.config, ObserverCommands);
        if !owns && !self.may_claim(conn, terminal) {
            self.deny(conn, terminal);
            return Err((ErrorCode::OwnerRequired, format!("client is not owner of session {terminal}")));
        }
        if session.state == State::Terminating {
            return Err((ErrorCode::SessionTerminating, format!("terminal {terminal} is being ended")));
        }
        Ok(())
    }

    /// Whether a connection could own a terminal without taking it from somebody.
    fn may_claim(&self, conn: ConnId, terminal: TerminalId) -> bool {
        let Some(known) = self.clients.get(&conn).and_then(|client| client.known()) else { return false };
        let owner = self.sessions.get(&terminal).and_then(|session| session.owner.as_ref());
        let free = owner.is_none_or(|owner| {
            owner.conn.is_none() && (owner.id == known.id || planted!(self.cx.config, LeaseIgnored))
        });
        free && known.role == Role::Control
    }

    /// A connection owns a terminal from now on, if it may.
    pub(super) fn claim_free(&mut self, conn: ConnId, terminal: TerminalId) {
        let alive = self.sessions.get(&terminal).is_some_and(|session| session.is_alive());
        if alive && self.may_claim(conn, terminal) {
            self.set_owner(terminal, Some(conn));
        }
    }

    pub(super) fn take_over(&mut self, conn: ConnId, seq: u32, terminal: TerminalId) -> Result<(), Refusal> {
        let session = self.sessions.get(&terminal).filter(|session| session.is_alive());
        if !session.ok_or_else(|| missing(terminal))?.is_owned_by(conn) {
            self.cx.statistics.takeovers += 1;
            self.set_owner(terminal, Some(conn));
        }
        self.say_ok(conn, seq, terminal);
        Ok(())
    }

    /// A connection gives a terminal back.
    pub(super) fn give_up(&mut self, conn: ConnId, terminal: TerminalId) {
        if self.sessions.get(&terminal).is_some_and(|session| session.is_owned_by(conn)) {
            self.set_owner(terminal, None);
        }
    }

    /// A connection is gone: what it owns waits for its client.
    pub(super) fn release_all(&mut self, conn: ConnId) {
        let lease = self.cx.at() + self.cx.config.lease;
        let mut owned = Vec::new();
        for session in self.sessions.values_mut() {
            if let Some(owner) = session.owner.as_mut().filter(|owner| owner.conn == Some(conn)) {
                owner.conn = None;
                session.times.lease = Some(lease);
                session.arm(&mut self.cx);
                owned.push(session.id);
            }
        }
        // Nobody brakes these programs any more.
        for terminal in owned {
            self.grant(terminal);
        }
    }

    pub(super) fn end_lease(&mut self, terminal: TerminalId) {
        if self.sessions.get(&terminal).is_some_and(|session| session.owner.is_some()) {
            self.set_owner(terminal, None);
        }
    }

    fn set_owner(&mut self, terminal: TerminalId, conn: Option<ConnId>) {
        let known = conn.and_then(|conn| self.clients.get(&conn)).and_then(|client| client.known());
        let owner = known.map(|known| Owner { id: known.id.clone(), conn });
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let before = core::mem::replace(&mut session.owner, owner);
        session.times.lease = None;
        session.unbraked = false;
        session.arm(&mut self.cx);
        // The same client back in time is no news.
        let name = |owner: &Option<Owner>| owner.as_ref().map(|owner| owner.id.clone());
        let (old, new) = (name(&before), name(&session.owner));
        if old != new || before.is_some_and(|before| before.conn.is_some()) {
            self.tell(terminal, &Event::OwnerChanged { session: terminal.0, owner: new.as_deref() });
            let owner = new.as_deref().map(shown);
            self.cx.event(TerminalFact::Owner { terminal, owner });
        }
        self.grant(terminal);
    }

    /// Tells whoever watches a terminal.
    pub(super) fn tell(&mut self, terminal: TerminalId, event: &Event<'_>) {
        let Self { cx, clients, sessions, hungry, .. } = self;
        let Some(session) = sessions.get(&terminal) else { return };
        for conn in &session.watchers {
            if let Some(client) = clients.get_mut(conn) {
                client.send(&mut cx.out, |out| append_event(event, out));
                client.wake(hungry);
            }
        }
    }

    fn deny(&mut self, conn: ConnId, terminal: TerminalId) {
        self.cx.statistics.owner_denials += 1;
        let Some(client) = self.clients.get_mut(&conn) else { return };
        // One that goes on knocking is one line.
        if client.denied.replace(terminal) != Some(terminal) {
            let client: String = client.known().map(|known| shown(&known.id)).unwrap_or_default();
            self.cx.event(TerminalFact::Denied { terminal, client });
        }
    }
}
