//! Output: from the program into the ring, from there to whoever watches, each at
//! its own pace; and input, as far as it isn't a client's.
//!
//! A subscriber is a place in the ring: nothing is copied for it. One whose place
//! left the ring is told what the screen shows (`resync`), once it has room. Only
//! the owner may brake the program, and not for long without taking anything.

use alloc::string::String;

use super::cx::Notice;
use super::engine::Terminals;
use super::session::{Look, Session, Why, reach};
use super::wire::{ErrorCode, Event, Granted, Level, State, append_event};
use crate::boundary::{CloseReason, EffectError, Source};
use crate::id::{ConnId, TerminalId};

/// A client that lets so many bytes wait for it doesn't read.
const BACKLOG_MAX: usize = 64 * 1024 * 1024;

/// Warnings about others are not worth more than this to one that doesn't read.
const WARNINGS_MAX: usize = 64 * 1024;

impl super::client::Client {
    pub(super) fn wake(&mut self, hungry: &mut alloc::collections::VecDeque<ConnId>) {
        if !core::mem::replace(&mut self.hungry, true) {
            hungry.push_back(self.conn);
        }
    }
}

impl Terminals {
    pub(super) fn wake(&mut self, conn: ConnId) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.wake(&mut self.hungry);
        }
    }

    pub(super) fn wake_watchers(&mut self, terminal: TerminalId) {
        let Self { clients, sessions, hungry, .. } = self;
        for conn in sessions.get(&terminal).iter().flat_map(|session| &session.watchers) {
            if let Some(client) = clients.get_mut(conn) {
                client.wake(hungry);
            }
        }
    }

    pub(super) fn on_output(&mut self, terminal: TerminalId, offset: u64, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(&terminal).filter(|session| session.is_alive()) else {
            return;
        };
        session.granted = false;
        let end = session.ring.end();
        // What was told already is not told again; what is missing is a loss like any other.
        let known = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        if offset > end {
            session.ring.skip_to(offset);
        }
        session.ring.push(&bytes[known..]);
        self.cx.statistics.output_bytes += (bytes.len() - known) as u64;
        let reached = reach(session.ring.end());
        if session.reached < reached {
            session.reached = reached;
            self.journal.mark(terminal);
        }
        if self.cx.config.screen && session.times.tail.is_none() {
            session.times.tail = Some(self.cx.at() + self.cx.config.tail_delay);
            session.arm(&mut self.cx);
        }
        self.wake_watchers(terminal);
        self.pump();
        self.grant(terminal);
    }

    /// The screen model's answer to the program: while somebody watches, that
    /// somebody's terminal answers.
    pub(super) fn on_reply(&mut self, terminal: TerminalId, bytes: &[u8]) {
        let most = self.cx.config.input_max;
        if let Some(session) = self.sessions.get_mut(&terminal)
            && session.watchers.is_empty()
            && session.input.len() + bytes.len() <= most
        {
            session.input.extend(bytes);
            session.given += bytes.len() as u64;
            session.write(&mut self.cx);
        }
    }

    pub(super) fn on_directory(&mut self, terminal: TerminalId, path: String) {
        if let Some(session) = self.sessions.get_mut(&terminal)
            && session.is_alive()
            && path.len() <= super::TEXT_MAX
            && session.launch.cwd != path
        {
            session.launch.cwd = path;
            self.journal.mark(terminal);
        }
    }

    pub(super) fn on_written(&mut self, terminal: TerminalId, result: &Result<(), EffectError>) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        session.writing = false;
        let written = session.given.saturating_sub(session.input.len() as u64);
        session.write(&mut self.cx);
        match result {
            Ok(()) => self.end_flushes(terminal, written, Ok(())),
            Err(error) => self.end_flushes(terminal, u64::MAX, Err(&error.message)),
        }
    }

    /// Answers whoever wants to know of the input up to `written`.
    pub(super) fn end_flushes(&mut self, terminal: TerminalId, written: u64, result: Result<(), &str>) {
        while let Some(session) = self.sessions.get_mut(&terminal)
            && let Some(&(target, ask)) = session.flushes.front()
            && target <= written
        {
            session.flushes.pop_front();
            match result {
                Ok(()) => {
                    let session = Some(terminal.0);
                    self.grant_ask(ask, &Granted { session, ..Granted::default() });
                }
                Err(message) => self.refuse_ask(ask, ErrorCode::IoError, message),
            }
        }
    }

    /// Lets a program bring more output, unless its owner brakes it.
    pub(super) fn grant(&mut self, terminal: TerminalId) {
        let lag = self.owner_lag(terminal);
        let Self { cx, sessions, .. } = self;
        let Some(session) = sessions.get_mut(&terminal) else { return };
        if session.granted || !matches!(session.state, State::Running | State::Terminating) {
            return;
        }
        // As much as costs nobody a byte that it may come back for.
        let room = if session.times.held.is_some() { session.ring.room() } else { usize::MAX };
        let credit = cx.config.grant.min(room);
        if credit == 0 {
            return;
        }
        let far = lag >= cx.config.red;
        session.unbraked &= far;
        if far && !session.unbraked {
            if session.times.patience.is_none() {
                cx.statistics.throttles += 1;
                session.times.patience = Some(cx.at() + cx.config.owner_patience);
                session.arm(cx);
            }
            return;
        }
        if session.times.patience.take().is_some() {
            session.arm(cx);
        }
        session.granted = true;
        cx.out.read(Source::Terminal(terminal), credit);
    }

    /// How far the owner's subscription is behind.
    fn owner_lag(&self, terminal: TerminalId) -> u64 {
        let Some(session) = self.sessions.get(&terminal) else { return 0 };
        let Some(owner) = session.owner.as_ref().and_then(|owner| owner.conn) else { return 0 };
        let Some(id) = self.clients.get(&owner).and_then(|client| client.known()) else { return 0 };
        let lags = session.watchers.iter().filter_map(|conn| self.clients.get(conn)).filter_map(|client| {
            let theirs = client.known()?;
            // In dual mode its output comes on the other connection.
            let is_owners = client.conn == owner || (id.dual && theirs.dual && theirs.id == id.id);
            let watch = client.watches.iter().find(|watch| watch.terminal == terminal)?;
            is_owners.then(|| session.ring.end().saturating_sub(watch.next))
        });
        lags.max().unwrap_or(0)
    }

    /// A connection took some: the programs that wait for it wait on.
    pub(super) fn note_progress(&mut self, conn: ConnId) {
        let Self { cx, clients, sessions, .. } = self;
        let Some(client) = clients.get(&conn) else { return };
        let until = cx.at() + cx.config.owner_patience;
        for watch in &client.watches {
            if let Some(session) = sessions.get_mut(&watch.terminal)
                && let Some(patience) = session.times.patience.as_mut()
            {
                *patience = until;
                session.arm(cx);
            }
        }
    }

    /// Writes whatever there is room for.
    pub(super) fn pump(&mut self) {
        while let Some(conn) = self.hungry.pop_front() {
            let Self { cx, clients, sessions, resumable, .. } = self;
            let Some(client) = clients.get_mut(&conn) else { continue };
            client.hungry = false;
            let (most, notices) = (cx.config.frame_data, &mut cx.notices);
            loop {
                let mut sent = false;
                for step in 0..client.watches.len() {
                    let place = client.turn(step);
                    let Some(watch) = client.watches.get(place) else { break };
                    let Some(session) = sessions.get(&watch.terminal) else { continue };
                    let (next, ring) = (watch.next, &session.ring);
                    if next < ring.first() || watch.looking {
                        continue;
                    }
                    if client.output(
                        &mut cx.out,
                        place,
                        ring.get(next, most),
                        ring.end() - next.min(ring.end()),
                        most,
                    ) {
                        client.end_turn(place);
                        sent = true;
                        break;
                    }
                }
                if !sent {
                    break;
                }
            }
            for place in 0..client.watches.len() {
                let Some(session) = client.watches.get(place).and_then(|watch| sessions.get(&watch.terminal))
                else {
                    continue;
                };
                let (terminal, drained) = (session.id, client.has_drained());
                let watch = &mut client.watches[place];
                let lag = session.ring.end().saturating_sub(watch.next);
                let level = level_of(lag, cx.config.yellow, cx.config.red);
                let before = core::mem::replace(&mut watch.level, level);
                if watch.next < session.ring.first() && !watch.looking && drained {
                    watch.looking = true;
                    notices.push_back(Notice::Behind { conn, terminal });
                }
                let read = lag == 0 || planted!(cx.config, ExitBeforeOutput);
                if read && !watch.looking && session.state == State::Exited {
                    notices.push_back(Notice::Over { conn, terminal });
                }
                if before != level {
                    cx.statistics.backpressure_warnings += 1;
                    let owner = session.owner.as_ref().and_then(|owner| owner.conn);
                    for to in [Some(conn), owner.filter(|owner| *owner != conn)].into_iter().flatten() {
                        notices.push_back(Notice::Warn { to, terminal, lag, level });
                    }
                }
                if session.times.patience.is_some() {
                    notices.push_back(Notice::Taken(terminal));
                }
            }
            resumable.push_back(conn);
            if client.waiting() > BACKLOG_MAX {
                self.leave(conn, CloseReason::Ended);
            }
        }
    }

    pub(super) fn on_warn(&mut self, to: ConnId, terminal: TerminalId, lag: u64, level: Level) {
        let Some(client) = self.clients.get_mut(&to) else { return };
        if client.watch(terminal).is_some() || client.waiting() <= WARNINGS_MAX {
            let event = Event::BackpressureWarning { session: terminal.0, queue_size: lag, level };
            client.send(&mut self.cx.out, |out| append_event(&event, out));
        }
    }

    pub(super) fn on_behind(&mut self, conn: ConnId, terminal: TerminalId) {
        let lines = self.cx.config.history_lines;
        self.want(terminal, Look { lines, why: Why::Resync { conn }, tries: 0 });
    }

    /// A subscriber has read all of a terminal that ended: that is told, once.
    pub(super) fn unwatch(&mut self, conn: ConnId, terminal: TerminalId) {
        let Self { cx, clients, sessions, .. } = self;
        let Some(client) = clients.get_mut(&conn) else { return };
        if client.watch(terminal).is_none() {
            return;
        }
        client.watches.retain(|watch| watch.terminal != terminal);
        if let Some((exit, _)) = sessions.get(&terminal).and_then(|session| session.exited) {
            let event = Event::Exit { session: terminal.0, exit };
            for _ in 0..1 + usize::from(planted!(cx.config, ExitTwice)) {
                client.send(&mut cx.out, |out| append_event(&event, out));
            }
        }
        self.end_watch(conn, terminal);
        self.wake(conn);
    }

    /// A connection watches a terminal no more.
    pub(super) fn end_watch(&mut self, conn: ConnId, terminal: TerminalId) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let before = session.watchers.len();
        session.watchers.retain(|watcher| *watcher != conn);
        session.looks.retain(|look| look.why != Why::Resync { conn });
        if session.watchers.len() != before {
            self.grant(terminal);
        }
    }
}

fn level_of(lag: u64, yellow: u64, red: u64) -> Level {
    if lag < yellow {
        Level::Green
    } else if lag < red {
        Level::Yellow
    } else {
        Level::Red
    }
}

impl Session {
    /// Whether something is due that nobody would do.
    #[cfg(feature = "model")]
    pub(super) fn earliest(&self) -> Option<crate::time::Time> {
        let super::session::Times { lease, kill, patience, forget, tail, held } = self.times;
        [lease, kill, patience, forget, tail, held].into_iter().flatten().min()
    }
}
