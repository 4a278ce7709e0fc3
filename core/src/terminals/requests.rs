//! What clients ask, and whether they may.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::client::{Client, Known};
use super::cx::Purpose;
use super::engine::Terminals;
use super::session::{Look, Why};
use super::wire::{Attach, ErrorCode, Event, Granted, Request, Role, Scope, State};
use super::{Deed, SignalScope};
use crate::boundary::Effect;
use crate::id::{ConnId, TerminalId};

/// Why a request is refused: a code, and words for people.
pub(super) type Refusal = (ErrorCode, String);

impl Terminals {
    pub(super) fn on_request(&mut self, conn: ConnId, seq: u32, request: &Request<'_>) {
        if let Request::Handshake(handshake) = request {
            return self.on_handshake(conn, seq, handshake);
        }
        if let Err((code, message)) = self.perform(conn, seq, request) {
            self.refuse(conn, seq, code, &message);
        }
    }

    /// Does what is asked, and answers unless it is to be refused.
    fn perform(&mut self, conn: ConnId, seq: u32, request: &Request<'_>) -> Result<(), Refusal> {
        self.admit(conn, request)?;
        match request {
            Request::Handshake(_) => {}
            Request::Create(create) => self.create(conn, seq, create)?,
            Request::List => self.list(conn, seq),
            Request::Attach(attach) => self.attach(conn, seq, attach)?,
            Request::Detach { session } => self.detach(conn, seq, TerminalId(*session)),
            Request::Input { session, data } => self.input(conn, seq, TerminalId(*session), data.0)?,
            Request::Flush { session } => self.flush(conn, seq, TerminalId(*session))?,
            Request::Resize { session, cols, rows } => {
                self.resize(conn, seq, TerminalId(*session), *cols, *rows)?;
            }
            Request::Signal { session, signal, scope } => {
                let scope = scope.unwrap_or(SignalScope::Shell);
                let number = number_of(signal)
                    .ok_or_else(|| (ErrorCode::InvalidSignal, "there is no such signal here".into()));
                // What is refused changes no owner.
                self.check_gate(conn, TerminalId(*session))?;
                let signal = number?;
                let terminal = self.gate(conn, TerminalId(*session))?;
                self.order(conn, seq, terminal, Deed::Signal { signal, scope });
            }
            Request::ClearScrollback { session } => {
                let terminal = self.gate(conn, TerminalId(*session))?;
                self.order(conn, seq, terminal, Deed::ClearScrollback);
            }
            Request::Kill { session } => {
                let terminal = self.gate(conn, TerminalId(*session))?;
                self.kill(conn, seq, terminal);
            }
            Request::KillAll { scope } => self.kill_all(conn, seq, *scope),
            Request::Takeover { session } => self.take_over(conn, seq, TerminalId(*session))?,
            Request::Snapshot { session, history_lines } => {
                self.snapshot(conn, seq, TerminalId(*session), *history_lines)?;
            }
            Request::Metrics => {
                let metrics = Some(self.metrics());
                self.reply(conn, seq, &Granted { metrics, ..Granted::default() });
            }
        }
        Ok(())
    }

    /// Whether the connection may ask that at all.
    fn admit(&self, conn: ConnId, request: &Request<'_>) -> Result<(), Refusal> {
        let Some(Known { role, dual, .. }) = self.clients.get(&conn).and_then(|client| client.known()) else {
            return Err((ErrorCode::NotAuthenticated, "a handshake comes first".into()));
        };
        let reads = matches!(
            request,
            Request::List
                | Request::Attach(_)
                | Request::Detach { .. }
                | Request::Snapshot { .. }
                | Request::Metrics
        );
        match (role, dual) {
            (Role::Stream, true) if !reads => {
                Err((ErrorCode::WrongChannel, "this belongs on the control connection".into()))
            }
            (Role::Stream, false) if !reads => {
                Err((ErrorCode::RoleForbidden, "a stream connection only reads".into()))
            }
            _ if self.is_draining() && matches!(request, Request::Create(_)) => {
                Err((ErrorCode::ShuttingDown, "the daemon is stopping".into()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn say_ok(&mut self, conn: ConnId, seq: u32, terminal: TerminalId) {
        self.reply(conn, seq, &Granted { session: Some(terminal.0), ..Granted::default() });
    }

    /// Has something done; how it ends is the answer.
    fn order(&mut self, conn: ConnId, seq: u32, terminal: TerminalId, deed: Deed) {
        let ask = self.ask(conn, seq, terminal, None);
        self.cx.effect(Effect::Terminal { terminal, deed }, Purpose::Ask(ask));
    }

    /// Granted once it is hung up, which no end of this daemon takes back.
    fn kill(&mut self, conn: ConnId, seq: u32, terminal: TerminalId) {
        if self.sessions.get(&terminal).is_some_and(|session| session.state == State::Running) {
            let ask = self.ask(conn, seq, terminal, None);
            self.end_for(terminal, Purpose::Ask(ask));
        } else {
            self.end(terminal);
            self.say_ok(conn, seq, terminal);
        }
    }

    fn list(&mut self, conn: ConnId, seq: u32) {
        let Self { cx, clients, sessions, .. } = self;
        let asker = owner_side(clients, conn);
        let rows = sessions.values().map(|session| session.row(asker)).collect();
        let granted = Granted { sessions: Some(rows), ..Granted::default() };
        if let Some(client) = clients.get_mut(&conn) {
            client.send(&mut cx.out, |out| super::wire::append_granted(seq, &granted, out));
        }
        self.wake(conn);
    }

    fn input(&mut self, conn: ConnId, seq: u32, terminal: TerminalId, data: &[u8]) -> Result<(), Refusal> {
        self.check_gate(conn, terminal)?;
        let waits = self.sessions.get(&terminal).map_or(0, |session| session.input.len());
        if waits + data.len() > self.cx.config.input_max {
            let message = format!("{waits} bytes wait for the program of terminal {terminal} already");
            return Err((ErrorCode::LimitReached, message));
        }
        let terminal = self.gate(conn, terminal)?;
        if let Some(session) = self.sessions.get_mut(&terminal) {
            session.input.extend(data);
            session.given += data.len() as u64;
            self.cx.statistics.input_bytes += data.len() as u64;
            session.write(&mut self.cx);
        }
        self.say_ok(conn, seq, terminal);
        Ok(())
    }

    fn flush(&mut self, conn: ConnId, seq: u32, terminal: TerminalId) -> Result<(), Refusal> {
        let terminal = self.gate(conn, terminal)?;
        let Some(session) = self.sessions.get(&terminal) else { return Ok(()) };
        if session.input.is_empty() && !session.writing {
            self.say_ok(conn, seq, terminal);
            return Ok(());
        }
        let ask = self.ask(conn, seq, terminal, None);
        let Self { sessions, asks, .. } = self;
        if let Some(session) = sessions.get_mut(&terminal) {
            session.flushes.retain(|(_, ask)| asks.get(*ask).is_some());
            session.flushes.push_back((session.given, ask));
        }
        Ok(())
    }

    fn resize(
        &mut self,
        conn: ConnId,
        seq: u32,
        terminal: TerminalId,
        cols: u16,
        rows: u16,
    ) -> Result<(), Refusal> {
        self.check_size(cols, rows)?;
        let terminal = self.gate(conn, terminal)?;
        if let Some(session) = self.sessions.get_mut(&terminal) {
            let changed = (session.launch.cols, session.launch.rows) != (cols, rows);
            (session.launch.cols, session.launch.rows) = (cols, rows);
            if changed {
                self.journal.mark(terminal);
                self.tell(terminal, &Event::Resized { session: terminal.0, cols, rows });
            }
        }
        self.order(conn, seq, terminal, Deed::Resize { cols, rows });
        Ok(())
    }

    /// A screen model has to keep all of it.
    pub(super) fn check_size(&self, cols: u16, rows: u16) -> Result<(), Refusal> {
        let most = self.cx.config.cells_max;
        let cells = u32::from(cols) * u32::from(rows);
        if (1..=most).contains(&cells) {
            return Ok(());
        }
        Err((ErrorCode::InvalidArgument, format!("a terminal has 1 to {most} cells, not {cols} x {rows}")))
    }

    fn kill_all(&mut self, conn: ConnId, seq: u32, scope: Option<Scope>) {
        let modest =
            self.clients.get(&conn).and_then(|client| client.known()).is_some_and(|known| known.modest);
        let scope = scope.unwrap_or(if modest { Scope::Owned } else { Scope::All });
        let doomed: Vec<TerminalId> = self
            .sessions
            .values()
            .filter(|session| matches!(session.state, State::Starting | State::Running))
            .filter(|session| scope == Scope::All || session.is_owned_by(conn))
            .map(|session| session.id)
            .collect();
        for terminal in &doomed {
            self.end(*terminal);
        }
        let count = u32::try_from(doomed.len()).ok();
        self.reply(conn, seq, &Granted { count, ..Granted::default() });
    }

    fn attach(&mut self, conn: ConnId, seq: u32, attach: &Attach) -> Result<(), Refusal> {
        let terminal = TerminalId(attach.session);
        if !self.sessions.contains_key(&terminal) {
            return Err(missing(terminal));
        }
        let target = self.output_side(conn)?;
        if !attach.observe {
            self.claim_free(conn, terminal);
        }
        let since = self.cx.at();
        let wall = self.cx.wall_seconds();
        let lines =
            attach.history_lines.unwrap_or(self.cx.config.history_lines).min(self.cx.config.history_max);
        let Some(session) = self.sessions.get_mut(&terminal) else { return Ok(()) };
        session.last_attached_at = wall;
        self.journal.mark(terminal);
        // A client may have read further under the daemon of before than this one has.
        let kept = session.ring.first()..=session.ring.end().max(session.known_end);
        if let Some(offset) = attach.resume_from.filter(|offset| kept.contains(offset)) {
            self.answer_attach(conn, seq, target, terminal, offset, None);
            self.note_attach(since);
            return Ok(());
        }
        if let Some(last) = session.last.take() {
            let offset = last.offset.max(session.ring.first());
            self.answer_attach(conn, seq, target, terminal, offset, Some(&last));
            self.note_attach(since);
            if let Some(session) = self.sessions.get_mut(&terminal) {
                session.last = Some(last);
            }
            return Ok(());
        }
        let ask = self.ask(conn, seq, terminal, None);
        self.want(terminal, Look { lines, why: Why::Attach { ask, conn: target }, tries: 0 });
        Ok(())
    }

    fn snapshot(
        &mut self,
        conn: ConnId,
        seq: u32,
        terminal: TerminalId,
        history_lines: Option<u32>,
    ) -> Result<(), Refusal> {
        let session = self.sessions.get_mut(&terminal).ok_or_else(|| missing(terminal))?;
        if let Some(last) = session.last.take() {
            self.answer_snapshot(conn, seq, terminal, &last);
            if let Some(session) = self.sessions.get_mut(&terminal) {
                session.last = Some(last);
            }
            return Ok(());
        }
        let lines = history_lines.unwrap_or(self.cx.config.history_lines).min(self.cx.config.history_max);
        let ask = self.ask(conn, seq, terminal, None);
        self.want(terminal, Look { lines, why: Why::Snapshot { ask }, tries: 0 });
        Ok(())
    }

    fn detach(&mut self, conn: ConnId, seq: u32, terminal: TerminalId) {
        // Without the other connection there is nothing to end.
        if let Ok(target) = self.output_side(conn) {
            self.end_watch(target, terminal);
            if let Some(client) = self.clients.get_mut(&target) {
                client.watches.retain(|watch| watch.terminal != terminal);
            }
        }
        self.give_up(conn, terminal);
        self.say_ok(conn, seq, terminal);
    }

    /// The connection on which output of what `conn` attaches to comes.
    fn output_side(&self, conn: ConnId) -> Result<ConnId, Refusal> {
        let Some(Known { id, role: Role::Control, dual: true, .. }) =
            self.clients.get(&conn).and_then(|client| client.known())
        else {
            return Ok(conn);
        };
        let streams = self.clients.values().filter(|client| {
            client.known().is_some_and(|known| known.dual && known.role == Role::Stream && known.id == *id)
        });
        newest(streams).ok_or_else(|| {
            (ErrorCode::StreamNotConnected, "the stream connection of this client isn't there".into())
        })
    }
}

/// The connection that owns what `conn` owns: in dual mode the control one.
pub(super) fn owner_side(clients: &alloc::collections::BTreeMap<ConnId, Client>, conn: ConnId) -> ConnId {
    let Some(Known { id, role: Role::Stream, dual: true, .. }) =
        clients.get(&conn).and_then(|client| client.known())
    else {
        return conn;
    };
    let controls = clients.values().filter(|client| {
        client.known().is_some_and(|known| known.dual && known.role == Role::Control && known.id == *id)
    });
    newest(controls).unwrap_or(conn)
}

/// Of several connections, that which came last: an older one may be dead. Ids say
/// nothing of that, a free one is used again.
fn newest<'a>(clients: impl Iterator<Item = &'a Client>) -> Option<ConnId> {
    clients.max_by_key(|client| client.number).map(|client| client.conn)
}

pub(super) fn missing(terminal: TerminalId) -> Refusal {
    (ErrorCode::NotFound, format!("there is no terminal {terminal}, or its program ended"))
}

/// A signal's number on Linux; its name may begin with `SIG`, in any case.
fn number_of(name: &str) -> Option<i32> {
    const SIGNALS: [(&str, i32); 11] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("WINCH", 28),
    ];
    let bare = match name.get(..3) {
        Some(start) if start.eq_ignore_ascii_case("SIG") => &name[3..],
        _ => name,
    };
    SIGNALS.iter().find(|(word, _)| word.eq_ignore_ascii_case(bare)).map(|(_, number)| *number)
}
