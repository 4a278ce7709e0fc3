//! What a terminal shows: for attaches, snapshots, subscribers that lost output,
//! the journal, and for good.

use alloc::borrow::Cow;
use alloc::boxed::Box;

use super::client::Watch;
use super::engine::Terminals;
use super::session::{Look, Why};
use super::wire::{CLIENT_FRAME_MAX, Event, Granted, Level, State, append_event, append_granted};
use super::{Snapshot, Tail};
use crate::boundary::EffectError;
use crate::event::TerminalFact;
use crate::id::{ConnId, TerminalId};

/// Longest content of a snapshot, in bytes: half of the frame that a client takes.
const CONTENT_MAX: usize = CLIENT_FRAME_MAX / 2;

/// How often a snapshot is asked for again because it was too old.
const TRIES: u8 = 3;

impl Terminals {
    /// Somebody wants to know what a terminal shows.
    pub(super) fn want(&mut self, terminal: TerminalId, look: Look) {
        let Self { asks, sessions, .. } = self;
        let Some(session) = sessions.get_mut(&terminal) else { return };
        // Nobody waits for these any more, or one is enough.
        session.looks.retain(|known| match known.why {
            Why::Attach { ask, .. } | Why::Snapshot { ask } => asks.get(ask).is_some(),
            Why::Tail => look.why != Why::Tail,
            Why::Resync { .. } | Why::Last => true,
        });
        session.looks.push(look);
        if session.last.is_some() {
            self.serve_last(terminal);
        } else if !self.cx.config.screen && session.state != State::Starting {
            let blank = session.blank();
            self.serve(terminal, &blank, false, |_| true);
        } else {
            session.look(&mut self.cx);
        }
    }

    pub(super) fn on_snapshot(&mut self, terminal: TerminalId, snapshot: &Snapshot) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let Some(lines) = session.looking else { return };
        if snapshot.content.len() > CONTENT_MAX && lines > 0 {
            // No client takes such a frame: once more, with less history.
            let too_long = session.looks.iter_mut().filter(|look| look.lines == lines);
            too_long.for_each(|look| look.lines = lines / 4);
            return;
        }
        self.serve(terminal, snapshot, true, |look| look.lines == lines);
    }

    /// A snapshot was told, or can't be had: then those who asked get what is known
    /// without one.
    pub(super) fn on_looked(&mut self, terminal: TerminalId, result: &Result<(), EffectError>) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        if let Some(lines) = session.looking.take()
            && result.is_err()
        {
            let blank = session.blank();
            self.serve(terminal, &blank, false, |look| look.lines == lines);
        }
        if let Some(session) = self.sessions.get_mut(&terminal) {
            session.look(&mut self.cx);
        }
        self.let_go(terminal);
    }

    /// What an ended terminal last showed is what it shows.
    pub(super) fn serve_last(&mut self, terminal: TerminalId) {
        let Some(last) = self.sessions.get_mut(&terminal).and_then(|session| session.last.take()) else {
            return;
        };
        self.serve(terminal, &last, false, |_| true);
        if let Some(session) = self.sessions.get_mut(&terminal) {
            session.last = Some(last);
        }
    }

    /// `exact`: whoever needs a newer one than this asks again, a few times.
    fn serve(
        &mut self,
        terminal: TerminalId,
        snapshot: &Snapshot,
        exact: bool,
        is_meant: impl Fn(&Look) -> bool,
    ) {
        let mut place = 0;
        while let Some(session) = self.sessions.get_mut(&terminal)
            && let Some(look) = session.looks.get_mut(place)
        {
            let needed = if look.why == Why::Last { session.ring.end() } else { session.ring.first() };
            let stale = exact && snapshot.offset < needed && look.tries < TRIES;
            if is_meant(look) && !stale {
                let Look { why, .. } = session.looks.remove(place);
                self.serve_one(terminal, snapshot, why, exact);
                continue;
            }
            look.tries += u8::from(is_meant(look));
            place += 1;
        }
    }

    fn serve_one(&mut self, terminal: TerminalId, snapshot: &Snapshot, why: Why, exact: bool) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let offset = snapshot.offset.max(session.ring.first());
        match why {
            Why::Attach { ask, conn } => {
                let Some(&asked) = self.asks.get(ask) else { return };
                self.close_ask(ask);
                self.answer_attach(asked.conn, asked.seq, conn, terminal, offset, Some(snapshot));
                self.note_attach(asked.since);
            }
            Why::Snapshot { ask } => {
                let granted = Granted {
                    session: Some(terminal.0),
                    snapshot: Some(Cow::Borrowed(snapshot)),
                    ..Granted::default()
                };
                self.grant_ask(ask, &granted);
            }
            Why::Resync { conn } => self.resync(conn, terminal, snapshot, offset),
            // What is made up is no tail.
            Why::Tail if exact => self.journal.set_tail(terminal, tail_of(snapshot)),
            Why::Tail => {}
            Why::Last => {
                session.last = Some(Box::new(snapshot.clone()));
                if exact {
                    self.journal.set_tail(terminal, tail_of(snapshot));
                }
                self.journal.mark_new(terminal);
            }
        }
    }

    /// Answers an `attach`: from `offset` on, output follows to `target`. Without
    /// a snapshot it goes on where the client said.
    pub(super) fn answer_attach(
        &mut self,
        conn: ConnId,
        seq: u32,
        target: ConnId,
        terminal: TerminalId,
        offset: u64,
        snapshot: Option<&Snapshot>,
    ) {
        let Self { cx, clients, sessions, .. } = self;
        let Some(session) = sessions.get_mut(&terminal) else { return };
        if !clients.contains_key(&target) {
            let message = "the connection for its output is gone";
            return self.refuse(conn, seq, super::wire::ErrorCode::StreamNotConnected, message);
        }
        let asker = super::requests::owner_side(clients, conn);
        let granted = Granted {
            session: Some(terminal.0),
            snapshot: snapshot.map(Cow::Borrowed),
            offset: Some(offset),
            owner: session.owner.as_ref().map(|owner| &*owner.id),
            owner_is_you: Some(session.is_owned_by(asker)),
            resumed: Some(snapshot.is_none()),
            ..Granted::default()
        };
        if let Some(client) = clients.get_mut(&conn) {
            client.send(&mut cx.out, |out| append_granted(seq, &granted, out));
        }
        if let Some(client) = clients.get_mut(&target) {
            let again = u64::from(snapshot.is_none() && planted!(cx.config, ResumedTwice));
            let watch =
                Watch { terminal, next: offset.saturating_sub(again), level: Level::Green, looking: false };
            match client.watch(terminal) {
                // It begins anew.
                Some(known) => *known = watch,
                None => client.watches.push(watch),
            }
        }
        if !session.watchers.contains(&target) {
            session.watchers.push(target);
        }
        if session.times.held.take().is_some() {
            session.arm(cx);
        }
        self.wake(conn);
        self.wake(target);
        self.grant(terminal);
    }

    pub(super) fn answer_snapshot(
        &mut self,
        conn: ConnId,
        seq: u32,
        terminal: TerminalId,
        snapshot: &Snapshot,
    ) {
        let snapshot = Some(Cow::Borrowed(snapshot));
        self.reply(conn, seq, &Granted { session: Some(terminal.0), snapshot, ..Granted::default() });
    }

    /// A subscriber lost output, and is told what the screen shows instead.
    fn resync(&mut self, conn: ConnId, terminal: TerminalId, snapshot: &Snapshot, offset: u64) {
        let Self { cx, clients, .. } = self;
        let Some(client) = clients.get_mut(&conn) else { return };
        let Some(watch) = client.watch(terminal).filter(|watch| watch.looking) else { return };
        watch.looking = false;
        let skipped_bytes = offset.saturating_sub(watch.next);
        watch.next = watch.next.max(offset) + u64::from(planted!(cx.config, GapAtResync));
        let event =
            Event::Resync { session: terminal.0, snapshot: Cow::Borrowed(snapshot), offset, skipped_bytes };
        client.send(&mut cx.out, |out| append_event(&event, out));
        cx.statistics.resyncs += 1;
        cx.statistics.skipped_bytes += skipped_bytes;
        let name = client.known().map(|known| super::connections::shown(&known.id)).unwrap_or_default();
        cx.event(TerminalFact::Resync { terminal, client: name, skipped: skipped_bytes });
        self.wake(conn);
    }
}

fn tail_of(snapshot: &Snapshot) -> Box<Tail> {
    Box::new(Tail { content: snapshot.content.clone(), cols: snapshot.cols, rows: snapshot.rows })
}
