//! Requests that are answered later, each once and in time.

use alloc::collections::VecDeque;
use alloc::format;

use super::cx::{Cx, TimerKey};
use super::engine::Terminals;
use super::wire::{ErrorCode, Granted, append_error, append_granted};
use crate::boundary::{EffectError, EffectErrorKind, Wakeup};
use crate::id::{ConnId, TerminalId};
use crate::time::{Time, nanos};
use crate::timers::TimerId;

/// What is open, in the order of its deadlines.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    open: VecDeque<(u64, Ask)>,
    next: u64,
    timer: TimerId,
}

/// Who asked, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) conn: ConnId,
    pub(super) seq: u32,
    pub(super) terminal: TerminalId,
    pub(super) since: Time,
    by: Time,
    /// To `create_or_attach`: whether it is new.
    pub(super) created: Option<bool>,
}

impl Asks {
    pub(super) fn new(cx: &mut Cx) -> Self {
        Self { open: VecDeque::new(), next: 0, timer: cx.timers.insert(TimerKey::Asks) }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The earliest deadline, and when somebody is woken for it.
    #[cfg(feature = "model")]
    pub(super) fn guard(&self, cx: &Cx) -> Option<(Time, Option<Time>)> {
        self.open.front().map(|(_, ask)| (ask.by, cx.timers.armed(self.timer)))
    }

    #[cfg(feature = "model")]
    pub(super) fn of(&self, conn: ConnId) -> usize {
        self.open.iter().filter(|(_, ask)| ask.conn == conn).count()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Ask> {
        let place = self.open.binary_search_by_key(&id, |entry| entry.0).ok()?;
        self.open.get(place).map(|entry| &entry.1)
    }

    fn take(&mut self, cx: &mut Cx, id: u64) -> Option<Ask> {
        let place = self.open.binary_search_by_key(&id, |entry| entry.0).ok()?;
        let ask = self.open.remove(place).map(|entry| entry.1);
        self.arm(cx);
        ask
    }

    fn arm(&self, cx: &mut Cx) {
        match self.open.front() {
            Some((_, ask)) => cx.timers.arm(self.timer, ask.by, Wakeup::Command),
            None => cx.timers.disarm(self.timer),
        }
    }
}

impl Terminals {
    /// A request that will be answered.
    pub(super) fn ask(&mut self, conn: ConnId, seq: u32, terminal: TerminalId, created: Option<bool>) -> u64 {
        let since = self.asked_since.unwrap_or(self.cx.at());
        let last = self.asks.open.back().map_or(Time::ZERO, |(_, ask)| ask.by);
        let by = (since + self.cx.config.request_timeout).max(last);
        self.asks.next += 1;
        let id = self.asks.next;
        self.asks.open.push_back((id, Ask { conn, seq, terminal, since, by, created }));
        self.asks.arm(&mut self.cx);
        if let Some(client) = self.clients.get_mut(&conn) {
            client.open += 1;
        }
        id
    }

    /// Answers a request that waited, unless it was answered already.
    pub(super) fn grant_ask(&mut self, id: u64, granted: &Granted<'_>) {
        if let Some(ask) = self.close_ask(id) {
            self.reply(ask.conn, ask.seq, granted);
        }
    }

    pub(super) fn refuse_ask(&mut self, id: u64, code: ErrorCode, message: &str) {
        if let Some(ask) = self.close_ask(id) {
            self.refuse(ask.conn, ask.seq, code, message);
        }
    }

    /// It is being answered.
    pub(super) fn close_ask(&mut self, id: u64) -> Option<Ask> {
        let ask = self.asks.take(&mut self.cx, id)?;
        let client = self.clients.get_mut(&ask.conn)?;
        client.open = client.open.saturating_sub(1);
        Some(ask)
    }

    /// An attach was answered: how long that took.
    pub(super) fn note_attach(&mut self, since: Time) {
        let micros = nanos(self.cx.at().since(since)) / 1000;
        let statistics = &mut self.cx.statistics;
        statistics.attaches += 1;
        statistics.attach_micros += micros;
        statistics.attach_micros_max = statistics.attach_micros_max.max(micros);
    }

    pub(super) fn on_asked(&mut self, id: u64, result: &Result<(), EffectError>) {
        let Some(ask) = self.asks.get(id) else { return };
        let session = Some(ask.terminal.0);
        match result {
            Ok(()) => self.grant_ask(id, &Granted { session, ..Granted::default() }),
            Err(error) => self.refuse_ask(id, ErrorCode::IoError, &error.message),
        }
    }

    pub(super) fn on_asks_timer(&mut self) {
        while let Some(&(id, ask)) = self.asks.open.front()
            && ask.by <= self.cx.at()
        {
            let message = format!("terminal {} did not do it in time", ask.terminal);
            self.refuse_ask(id, ErrorCode::SessionError, &message);
            self.abandon(id, ask.terminal);
        }
        self.asks.arm(&mut self.cx);
    }

    /// Whoever wanted a terminal was told that there is none: so there is none.
    fn abandon(&mut self, id: u64, terminal: TerminalId) {
        let Self { sessions, asks, .. } = self;
        let Some(session) = sessions.get(&terminal) else { return };
        let others = session.creators.iter().any(|ask| asks.get(*ask).is_some());
        if session.creators.contains(&id) && !others {
            self.end(terminal);
        }
    }

    /// Nobody waits for these answers any more.
    pub(super) fn forget_asks(&mut self, conn: ConnId) {
        self.asks.open.retain(|(_, ask)| ask.conn != conn);
        self.asks.arm(&mut self.cx);
    }

    pub(super) fn reply(&mut self, conn: ConnId, seq: u32, granted: &Granted<'_>) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.send(&mut self.cx.out, |out| append_granted(seq, granted, out));
            self.wake(conn);
        }
    }

    pub(super) fn refuse(&mut self, conn: ConnId, seq: u32, code: ErrorCode, message: &str) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.send(&mut self.cx.out, |out| append_error(seq, code, message, out));
            self.wake(conn);
        }
    }
}

/// How a client is told of a program that could not be started.
pub(super) const fn code_of(kind: EffectErrorKind) -> ErrorCode {
    match kind {
        EffectErrorKind::DirectoryMissing => ErrorCode::CwdMissing,
        EffectErrorKind::ProgramMissing => ErrorCode::ShellNotFound,
        EffectErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        _ => ErrorCode::SessionError,
    }
}
