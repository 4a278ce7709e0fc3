//! The engine: inputs to the machines, and what they leave for each other.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::asks::Asks;
use super::client::Client;
use super::config::{OnStop, TerminalsConfig};
use super::cx::{Cx, Notice, Purpose, Statistics, TimerKey};
use super::journal::Journal;
use super::session::Session;
use super::wire::State;
use super::{Deed, News, RestoredTerminals};
use crate::boundary::{CloseReason, EffectError, Engine, Input, Output, Via, Wakeup};
use crate::entropy::Entropy;
use crate::event::TerminalFact;
use crate::id::{ConnId, EffectId, TerminalId};
use crate::time::{Now, Time};
use crate::timers::TimerId;

/// A daemon of terminals.
#[derive(Clone)]
pub struct Terminals {
    pub(super) cx: Cx,
    pub(super) clients: BTreeMap<ConnId, Client>,
    /// When a request that had to wait came, while it is served.
    pub(super) asked_since: Option<Time>,
    /// Connections so far.
    pub(super) opened: u64,
    pub(super) sessions: BTreeMap<TerminalId, Session>,
    /// The newest terminal of each key.
    pub(super) keys: BTreeMap<String, TerminalId>,
    pub(super) asks: Asks,
    pub(super) journal: Journal,
    /// Clients that may have something to be written to them.
    pub(super) hungry: VecDeque<ConnId>,
    /// Clients that may be read on, or closed.
    pub(super) resumable: VecDeque<ConnId>,
    /// What was to be created before a number could be given out, by its request.
    pub(super) waiting: Vec<(u64, Vec<u8>)>,
    pub(super) boot: [u8; 16],
    /// The longest bound of a request that was in force.
    #[cfg(feature = "model")]
    pub(super) longest_request: core::time::Duration,
    drain: Option<Drain>,
    drain_timer: TimerId,
}

/// What waits to be sent and started may hold secrets.
impl fmt::Debug for Terminals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminals")
            .field("now", &self.cx.now)
            .field("clients", &self.clients)
            .field("sessions", &self.sessions)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    deadline: Time,
    stopped: bool,
}

/// Sizes of the engine's tables and buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TerminalSizes {
    /// Connections.
    pub clients: usize,
    /// Terminals that run.
    pub alive: usize,
    /// Terminals in the list, ended ones included.
    pub terminals: usize,
    /// Subscriptions.
    pub subscribers: usize,
    /// Unanswered requests.
    pub requests: usize,
    /// Input that waits for programs, in bytes.
    pub input: usize,
    /// The longest input of one terminal, in bytes.
    pub input_of_one: usize,
    /// Effects without an end.
    pub effects: usize,
    /// Timers, armed or not.
    pub timers: usize,
}

/// A terminal as it is, for checks after every event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TerminalView<'a> {
    /// Which.
    pub terminal: TerminalId,
    /// How it is.
    pub state: State,
    /// Who owns it; the connection is `None` while its owner is waited for.
    pub owner: Option<(&'a str, Option<ConnId>)>,
    /// Where its output is kept from.
    pub first: u64,
    /// How much output there was.
    pub end: u64,
    /// Who watches it.
    pub watchers: &'a [ConnId],
}

impl Terminals {
    /// A daemon that goes on with what ran on, and starts anew what it may: drain
    /// it before the first [`Engine::handle`].
    #[must_use]
    pub fn new(config: TerminalsConfig, restored: RestoredTerminals, mut entropy: Entropy, now: Now) -> Self {
        let mut drawn = [0; 4];
        entropy.fill(&mut drawn);
        let mut cx = Cx::new(config, u32::from_be_bytes(drawn), now);
        #[cfg(feature = "model")]
        let longest_request = cx.config.request_timeout;
        let drain_timer = cx.timers.insert(TimerKey::Drain);
        let asks = Asks::new(&mut cx);
        let journal = Journal::new(&mut cx, restored.next_id);
        let mut engine = Self {
            cx,
            clients: BTreeMap::new(),
            asked_since: None,
            opened: 0,
            sessions: BTreeMap::new(),
            keys: BTreeMap::new(),
            asks,
            journal,
            hungry: VecDeque::new(),
            resumable: VecDeque::new(),
            waiting: Vec::new(),
            boot: restored.boot,
            #[cfg(feature = "model")]
            longest_request,
            drain: None,
            drain_timer,
        };
        engine.cx.door(0, false);
        engine.reconcile(restored);
        engine.settle();
        engine
    }

    /// Counters that nothing depends on.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.cx.statistics
    }

    /// Sizes, for checks of their bounds.
    #[must_use]
    pub fn sizes(&self) -> TerminalSizes {
        let sessions = || self.sessions.values();
        TerminalSizes {
            clients: self.clients.len(),
            alive: self.alive(),
            terminals: self.sessions.len(),
            subscribers: sessions().map(|session| session.watchers.len()).sum(),
            requests: self.asks.len(),
            input: sessions().map(|session| session.input.len()).sum(),
            input_of_one: sessions().map(|session| session.input.len()).max().unwrap_or(0),
            effects: self.cx.open_effects(),
            timers: self.cx.timers.len(),
        }
    }

    /// Every terminal in the list, by number: a pure read.
    pub fn terminals(&self) -> impl Iterator<Item = TerminalView<'_>> {
        self.sessions.values().map(|session| TerminalView {
            terminal: session.id,
            state: session.state,
            owner: session.owner.as_ref().map(|owner| (&*owner.id, owner.conn)),
            first: session.ring.first(),
            end: session.ring.end(),
            watchers: &session.watchers,
        })
    }

    pub(super) fn alive(&self) -> usize {
        self.sessions.values().filter(|session| session.is_alive()).count()
    }

    /// When what is hung up now is killed. Whoever stops a daemon may kill it as soon
    /// as the deadline of its drain: programs have half of that, then.
    pub(super) fn kill_time(&self) -> Time {
        let now = self.cx.at();
        let patience = self.cx.config.kill_timeout;
        now + self.drain.map_or(patience, |drain| (drain.deadline.since(now) / 2).min(patience))
    }

    pub(super) const fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    #[cfg(feature = "model")]
    pub(super) fn drain_guard(&self) -> Option<(Time, Option<Time>)> {
        let drain = self.drain.filter(|drain| !drain.stopped)?;
        Some((drain.deadline, self.cx.timers.armed(self.drain_timer)))
    }

    #[cfg(feature = "model")]
    pub(super) fn has_stopped(&self) -> bool {
        self.drain.is_some_and(|drain| drain.stopped)
    }

    fn on_done(&mut self, effect: EffectId, result: &Result<(), EffectError>) {
        let Some(purpose) = self.cx.settle(effect) else {
            self.cx.statistics.stale_inputs += 1;
            return;
        };
        match purpose {
            Purpose::Spawn(terminal) => self.on_spawned(terminal, result),
            Purpose::Adopt(terminal) => self.on_adopted(terminal, result),
            Purpose::Write(terminal) => self.on_written(terminal, result),
            Purpose::Look(terminal) => self.on_looked(terminal, result),
            Purpose::Ask(ask) => self.on_asked(ask, result),
            Purpose::Persist => self.on_persisted(result),
            Purpose::Nothing => {}
        }
    }

    fn on_news(&mut self, terminal: TerminalId, news: News<'_>) {
        if !self
            .sessions
            .get(&terminal)
            .is_some_and(|session| session.is_alive() || session.looking.is_some())
        {
            self.cx.statistics.stale_inputs += 1;
            return;
        }
        match news {
            News::Started { pid, pts, start_time } => {
                if let Some(session) = self.sessions.get_mut(&terminal) {
                    (session.pid, session.start_time, session.pts) = (pid, start_time, pts);
                    session.boot = self.boot;
                }
            }
            News::Output { offset, bytes } => self.on_output(terminal, offset, &bytes),
            News::Snapshot(snapshot) => self.on_snapshot(terminal, &snapshot),
            News::Reply(bytes) => self.on_reply(terminal, &bytes),
            News::Directory(path) => self.on_directory(terminal, path),
            News::Exited(exit) => self.on_exited(terminal, exit, None),
            News::Lost { why } => self.on_lost(terminal, &why),
        }
    }

    fn on_timers(&mut self) {
        while let Some(key) = self.cx.timers.pop_due(self.cx.at()) {
            match key {
                TimerKey::Client(conn) => self.on_client_timer(conn),
                TimerKey::Session(terminal) => self.on_session_timer(terminal),
                TimerKey::Asks => self.on_asks_timer(),
                TimerKey::Journal => self.journal.is_due = true,
                TimerKey::Drain => {}
            }
        }
    }

    /// Until nobody has anything left for anybody.
    fn settle(&mut self) {
        loop {
            self.pump();
            match self.cx.notices.pop_front() {
                Some(Notice::Warn { to, terminal, lag, level }) => self.on_warn(to, terminal, lag, level),
                Some(Notice::Behind { conn, terminal }) => self.on_behind(conn, terminal),
                Some(Notice::Taken(terminal)) => self.grant(terminal),
                Some(Notice::Over { conn, terminal }) => self.unwatch(conn, terminal),
                None => {
                    self.resume();
                    self.write_journal();
                    self.on_drain();
                    // These leave something for the others, too.
                    if self.hungry.is_empty() && self.cx.notices.is_empty() {
                        break;
                    }
                }
            }
        }
    }

    fn begin_drain(&mut self, deadline: Time) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(Drain { deadline, stopped: false });
        self.cx.timers.arm(self.drain_timer, deadline, Wakeup::Drain);
        self.cx.door(self.clients.len(), true);
        let terminals = self.alive() as u64;
        self.cx.event(TerminalFact::Stopping { terminals, keep: self.cx.config.on_stop == OnStop::Keep });
        if self.cx.config.on_stop == OnStop::End {
            for terminal in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.end(terminal);
            }
        }
    }

    fn on_drain(&mut self) {
        let Some(Drain { deadline, stopped: false }) = self.drain else { return };
        let late = self.cx.at() >= deadline;
        let ended = self.cx.config.on_stop == OnStop::Keep
            || self
                .sessions
                .values()
                .all(|session| !session.is_alive() && (session.released || session.times.kill.is_some()));
        self.journal.hurry();
        self.write_journal();
        let idle = ended && self.asks.len() == 0 && self.journal.is_idle();
        if !late && !idle {
            return;
        }
        if late && self.cx.config.on_stop == OnStop::End {
            for session in self.sessions.values().filter(|session| session.is_alive()) {
                self.cx.deed(session.id, Deed::Kill, Purpose::Nothing);
            }
        }
        for (conn, client) in core::mem::take(&mut self.clients) {
            self.cx.timers.remove(client.timer);
            self.cx.out.close(conn, CloseReason::Drained);
        }
        self.cx.timers.disarm(self.drain_timer);
        self.cx.out.stopped();
        self.drain = Some(Drain { deadline, stopped: true });
    }
}

impl Engine for Terminals {
    type Config = TerminalsConfig;

    fn handle(&mut self, now: Now, input: Input<'_, TerminalsConfig>) {
        // A clock that goes back stands still.
        self.cx.now = Now { boot: now.boot.max(self.cx.now.boot), ..now };
        match input {
            Input::Opened { conn, via: Via::Terminals, peer_cred, room, .. } => {
                self.on_opened(conn, peer_cred, room);
            }
            Input::Opened { conn, .. } => self.cx.out.close(conn, CloseReason::Refused),
            Input::Bytes { conn, bytes } => self.on_bytes(conn, bytes),
            Input::Writable { conn, room } => self.on_writable(conn, room),
            Input::Finished { conn } => self.on_finished(conn),
            Input::Closed { conn, .. } => self.on_closed(conn),
            Input::Done { effect, result } => self.on_done(effect, &result),
            Input::Terminal { terminal, news } => self.on_news(terminal, news),
            Input::Tick | Input::Answered { .. } => {}
            Input::Drain { deadline } => self.begin_drain(deadline),
            Input::Reload(config) => {
                self.cx.config = *config;
                #[cfg(feature = "model")]
                {
                    self.longest_request = self.longest_request.max(self.cx.config.request_timeout);
                }
                self.cx.door(self.clients.len(), self.drain.is_some());
            }
        }
        self.on_timers();
        self.settle();
    }

    fn poll_output(&mut self) -> Output<'_> {
        let stopped = self.drain.is_some_and(|drain| drain.stopped);
        let wait = if stopped { None } else { self.cx.timers.next() };
        self.cx.out.poll(|| wait)
    }
}
