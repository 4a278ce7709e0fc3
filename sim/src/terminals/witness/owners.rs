//! O1: at most one owner per terminal, only the owner's commands act, an owner that
//! is gone is released. Every change of an owner has a reason in the event in which
//! it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::id::ConnId;
use castra_core::terminals::wire::{Role, State};
use castra_core::terminals::{Terminals, TerminalsConfig};
use castra_core::time::Time;

use super::Witness;
use super::requests::What;
use crate::outcome::count;

/// Who owns which terminal, as of the last event.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<u32, Owner>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Owner {
    id: String,
    conn: Option<ConnId>,
    /// Since when it is waited for.
    since: Time,
}

impl Witness {
    /// After an event.
    pub(super) fn check_owners(&mut self, engine: &Terminals, config: &TerminalsConfig) {
        let before = std::mem::take(&mut self.owners.0);
        for view in engine.terminals() {
            let terminal = view.terminal.0;
            let old = before.get(&terminal);
            let new = view.owner.map(|(id, conn)| {
                let same = old.filter(|old| old.conn.is_none() && conn.is_none() && old.id == id);
                let since = same.map_or(self.now.boot, |old| old.since);
                Owner { id: id.to_owned(), conn, since }
            });
            if let Err(text) = self.explain(terminal, old, new.as_ref(), view.state, config.lease) {
                self.blame("O1", format!("terminal {terminal}: {text}"));
            }
            self.commands(terminal, old, new.as_ref());
            self.owners.0.extend(new.map(|new| (terminal, new)));
        }
    }

    /// Why somebody else owns it now, or still the same.
    fn explain(
        &mut self,
        terminal: u32,
        old: Option<&Owner>,
        new: Option<&Owner>,
        state: State,
        lease: Duration,
    ) -> Result<(), String> {
        if let Some(conn) = new.and_then(|new| new.conn) {
            let known = self.conns.get(&conn).and_then(|conn| conn.id.as_ref());
            match known {
                None => return Err(format!("{conn:?} owns it, which is not there, or nobody")),
                Some((_, Role::Stream)) => return Err(format!("{conn:?} owns it, which may only look")),
                Some((id, _)) if Some(id) != new.map(|new| &new.id) => {
                    return Err(format!("{conn:?} owns it by another name than {id}"));
                }
                Some(_) => {}
            }
        }
        if let Some(Owner { id, conn: None, since }) = new {
            if self.now.boot.since(*since) > lease {
                return Err(format!("{id}, which left, is still waited for"));
            }
            if state == State::Exited {
                return Err(format!("{id} left, and is waited for after its program's end"));
            }
        }
        let asked = |conn: ConnId, wanted: &[What]| {
            self.conns.get(&conn).is_some_and(|it| {
                let answered = it.answered.iter().map(|(asked, _)| asked);
                answered.chain(it.open.values()).any(|asked| {
                    (asked.terminal == terminal || asked.what == What::Create) && wanted.contains(&asked.what)
                })
            })
        };
        const CLAIMS: &[What] = &[What::Create, What::Attach, What::Command, What::Takeover];
        let reason = match (old, new) {
            (None, None) => return Ok(()),
            (Some(old), Some(new)) if old.conn == new.conn && old.id == new.id => return Ok(()),
            (None, Some(Owner { conn: Some(conn), .. })) if asked(*conn, CLAIMS) => "claimed",
            // It came and went in one event.
            (None, Some(Owner { conn: None, .. })) => "claimed_and_left",
            (Some(Owner { conn: Some(conn), .. }), None) if asked(*conn, &[What::Detach]) => "detached",
            (Some(_), None) if state == State::Exited => "ended",
            // Somebody came to own it and gave it back, both in this event.
            (Some(_), None)
                if self.conns.keys().any(|conn| asked(*conn, CLAIMS) && asked(*conn, &[What::Detach])) =>
            {
                "claimed_and_detached"
            }
            (Some(Owner { conn: None, since, .. }), None) if self.now.boot.since(*since) >= lease => {
                "lease_over"
            }
            (Some(Owner { conn: Some(conn), id, .. }), Some(Owner { conn: None, id: same, .. }))
                if id == same && !self.conns.contains_key(conn) =>
            {
                "left"
            }
            (Some(_), Some(Owner { conn: Some(conn), .. })) if asked(*conn, &[What::Takeover]) => {
                "taken_over"
            }
            (Some(Owner { conn: None, id, .. }), Some(Owner { conn: Some(conn), id: same, .. }))
                if id == same && asked(*conn, CLAIMS) =>
            {
                "reclaimed"
            }
            // The lease ended in this event, and somebody claimed it.
            (Some(Owner { conn: None, since, .. }), Some(Owner { conn: Some(conn), .. }))
                if self.now.boot.since(*since) >= lease && asked(*conn, CLAIMS) =>
            {
                "claimed"
            }
            _ => return Err(format!("its owner was {old:?} and is {new:?}, for no reason")),
        };
        count(&mut self.outcome.owners, reason);
        Ok(())
    }

    /// Only the owner's commands are granted, and always.
    fn commands(&mut self, terminal: u32, old: Option<&Owner>, new: Option<&Owner>) {
        let mut wrong = None;
        let event = self.event;
        for (conn, it) in &self.conns {
            let moved = it.answered.iter().any(|(asked, _)| {
                asked.terminal == terminal
                    && matches!(asked.what, What::Detach | What::Takeover | What::Attach)
            });
            for (asked, granted) in &it.answered {
                let now = asked.event == event && asked.terminal == terminal && asked.what == What::Command;
                if !now || moved {
                    continue;
                }
                let owns = |owner: Option<&Owner>| owner.is_some_and(|owner| owner.conn == Some(*conn));
                if *granted && !owns(old) && !owns(new) {
                    wrong = Some(format!(
                        "a command of {conn:?} is done on terminal {terminal}, which {new:?} owns"
                    ));
                }
                if !*granted && owns(old) && owns(new) {
                    wrong = Some(format!("a command of {conn:?} is refused on terminal {terminal}, its own"));
                }
                let control = it.id.as_ref().is_some_and(|(_, role)| *role == Role::Control);
                if !*granted && control && old.is_none() && new.is_none() {
                    wrong =
                        Some(format!("a command of {conn:?} is refused on terminal {terminal}, nobody's"));
                }
            }
        }
        if let Some(text) = wrong {
            self.blame("O1", text);
        }
    }
}
