//! A terminal's life: `starting → running → terminating → exited`.
//!
//! | from | what happens | to |
//! |---|---|---|
//! | – | `create` | starting |
//! | starting | the program runs | running |
//! | starting | it can't be started | – (the creator is told why) |
//! | running | `kill`, `kill_all`, the daemon ends it | terminating: hang-up, after 3 s kill, again and again |
//! | running, terminating | the program ended, or whoever held it is gone | exited; what is left of a session that was hung up is still killed |
//! | exited | 10 minutes | – |

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::asks::code_of;
use super::cx::Purpose;
use super::engine::Terminals;
use super::requests::Refusal;
use super::session::{Look, Owner, Session, Why};
use super::wire::{Create, ErrorCode, Granted, HEADER, Request, State};
use super::{Deed, Exit, KEY_MAX, Launch, Recovery};
use crate::boundary::EffectError;
use crate::event::{TerminalFact, shortened};
use crate::id::{ConnId, TerminalId};

impl Terminals {
    pub(super) fn create(&mut self, conn: ConnId, seq: u32, create: &Create<'_>) -> Result<(), Refusal> {
        let key = match create.session_key.map(str::trim) {
            Some(key) if key.is_empty() || key.len() > KEY_MAX => {
                return Err((ErrorCode::InvalidArgument, format!("a key has 1 to {KEY_MAX} bytes")));
            }
            key => key,
        };
        let former = key.and_then(|key| self.keys.get(key)).copied();
        if let Some(session) = former.and_then(|former| self.sessions.get(&former)) {
            let terminal = session.id;
            match session.state {
                State::Exited => {}
                _ if create.exclusive => {
                    return Err((ErrorCode::AlreadyExists, format!("the key is terminal {terminal}'s")));
                }
                State::Terminating => {
                    return Err((
                        ErrorCode::SessionTerminating,
                        format!("terminal {terminal} is being ended"),
                    ));
                }
                State::Starting | State::Running => {
                    self.claim_free(conn, terminal);
                    let ask = self.ask(conn, seq, terminal, Some(false));
                    self.await_running(terminal, ask);
                    return Ok(());
                }
            }
        }
        self.check_size(create.cols.unwrap_or(80), create.rows.unwrap_or(24))?;
        if self.alive() >= self.cx.config.sessions_max {
            return Err((ErrorCode::LimitReached, format!("{} terminals run already", self.alive())));
        }
        if self.journal.is_reserving() {
            self.wait_for_id(conn, seq, create);
            return Ok(());
        }
        let Some(terminal) = self.journal.next_id() else {
            let message = "no number for a new terminal can be written down: see the daemon's log";
            return Err((ErrorCode::IoError, message.into()));
        };
        let launch = self.launch(create, former);
        self.cx.deed(
            terminal,
            Deed::Spawn { launch: Box::new(launch.clone()), first: 0, tail: None },
            Purpose::Spawn(terminal),
        );
        let mut session = Session::new(&mut self.cx, terminal, launch, 0);
        session.key = key.map(Into::into);
        session.command = !create.command.is_empty();
        let known = self.clients.get(&conn).and_then(|client| client.known());
        session.owner = known.map(|known| Owner { id: known.id.clone(), conn: Some(conn) });
        for command in &create.initial_commands {
            session.initial.extend_from_slice(command.as_bytes());
            session.initial.push(b'\n');
        }
        if let Some(key) = key {
            self.keys.insert(key.to_string(), terminal);
        }
        self.sessions.insert(terminal, session);
        let ask = self.ask(conn, seq, terminal, key.is_some().then_some(true));
        self.await_running(terminal, ask);
        Ok(())
    }

    /// The first numbers are being reserved: what is asked before that waits.
    fn wait_for_id(&mut self, conn: ConnId, seq: u32, create: &Create<'_>) {
        let ask = self.ask(conn, seq, TerminalId(0), None);
        let mut frame = Vec::new();
        Request::Create(Box::new(create.clone())).append(seq, &mut frame);
        self.waiting.push((ask, frame));
    }

    /// Numbers were reserved, or can't be.
    pub(super) fn start_waiting(&mut self) {
        if self.journal.is_reserving() {
            return;
        }
        for (ask, frame) in core::mem::take(&mut self.waiting) {
            if let Some(asked) = self.close_ask(ask)
                && let Ok((seq, request)) = Request::parse(&frame[HEADER..])
            {
                // Its time runs since it was asked.
                self.asked_since = Some(asked.since);
                self.on_request(asked.conn, seq, &request);
                self.asked_since = None;
            }
        }
    }

    /// What is to be started; what isn't said is as in the key's former life.
    fn launch(&self, create: &Create<'_>, former: Option<TerminalId>) -> Launch {
        let former = former.and_then(|former| self.sessions.get(&former));
        let before = former.map(|session| &session.launch);
        let shell = former.filter(|session| !session.command).map(|session| &session.launch);
        let (program, args) = match (create.command.split_first(), create.shell) {
            (Some((program, args)), _) => {
                (program.to_string(), args.iter().map(ToString::to_string).collect())
            }
            (None, Some(shell)) => (shell.to_string(), login(shell)),
            (None, None) => {
                shell.map_or_else(Default::default, |launch| (launch.program.clone(), launch.args.clone()))
            }
        };
        let cwd = create.cwd.or(before.map(|launch| launch.cwd.as_str())).unwrap_or_default();
        Launch {
            program,
            args,
            cwd: cwd.into(),
            env: create.env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            cols: create.cols.or(before.map(|launch| launch.cols)).unwrap_or(80),
            rows: create.rows.or(before.map(|launch| launch.rows)).unwrap_or(24),
        }
    }

    /// The answer leaves when the terminal runs and its record is durable.
    fn await_running(&mut self, terminal: TerminalId, ask: u64) {
        let Self { asks, sessions, .. } = self;
        let Some(session) = sessions.get_mut(&terminal) else { return };
        session.creators.retain(|ask| asks.get(*ask).is_some());
        if session.state == State::Starting || self.journal.is_new(terminal) {
            session.creators.push(ask);
        } else {
            self.answer_creator(terminal, ask);
        }
    }

    /// A terminal's record is durable: who waits for that is answered.
    pub(super) fn on_recorded(&mut self, terminal: TerminalId) {
        self.spawn_restored(terminal);
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        if session.state != State::Starting {
            for ask in core::mem::take(&mut session.creators) {
                self.answer_creator(terminal, ask);
            }
        }
        self.let_go(terminal);
    }

    /// A new terminal's record could not be written: it can't be promised.
    pub(super) fn on_unrecorded(&mut self, terminal: TerminalId, why: &str) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let creators = core::mem::take(&mut session.creators);
        if creators.is_empty() {
            return;
        }
        for ask in creators {
            self.refuse_ask(ask, ErrorCode::IoError, &format!("the terminal can't be written down: {why}"));
        }
        self.cx.deed(terminal, Deed::Kill, Purpose::Nothing);
        self.end(terminal);
    }

    fn answer_creator(&mut self, terminal: TerminalId, ask: u64) {
        let created = self.asks.get(ask).and_then(|ask| ask.created);
        self.grant_ask(ask, &Granted { session: Some(terminal.0), created, ..Granted::default() });
    }

    pub(super) fn on_spawned(&mut self, terminal: TerminalId, result: &Result<(), EffectError>) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        if session.state != State::Starting {
            return;
        }
        if let Err(error) = result {
            return self.on_unspawned(terminal, error);
        }
        session.state = State::Running;
        let initial = core::mem::take(&mut session.initial);
        session.given += initial.len() as u64;
        session.flushes.iter_mut().for_each(|(target, _)| *target += initial.len() as u64);
        for byte in initial.into_iter().rev() {
            session.input.push_front(byte);
        }
        session.write(&mut self.cx);
        session.look(&mut self.cx);
        let (pid, key) = (session.pid, session.key.as_deref().map(super::connections::shown));
        let restored = session.recovery.is_some();
        let doomed = session.doomed;
        if restored {
            self.cx.event(TerminalFact::Recovered { terminal, outcome: "restored".into() });
            self.cx.statistics.restored += 1;
        } else {
            self.cx.statistics.created += 1;
            self.cx.event(TerminalFact::Created { terminal, pid, key });
        }
        self.journal.mark_new(terminal);
        if planted!(self.cx.config, CreatedBeforeCommit) {
            self.on_recorded(terminal);
        }
        self.grant(terminal);
        if doomed {
            self.end(terminal);
        }
    }

    /// It never ran. A new one is forgotten; one that was to be restored is told of.
    fn on_unspawned(&mut self, terminal: TerminalId, error: &EffectError) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let code = code_of(error.kind);
        let (creators, looks) = (core::mem::take(&mut session.creators), core::mem::take(&mut session.looks));
        let restored = session.recovery.is_some();
        for ask in creators {
            self.refuse_ask(ask, code, &error.message);
        }
        if restored {
            for look in looks {
                self.want(terminal, look);
            }
            return self.bury(terminal, code.as_str());
        }
        for look in looks {
            if let Why::Attach { ask, .. } | Why::Snapshot { ask } = look.why {
                self.refuse_ask(ask, ErrorCode::NotFound, "it could not be started");
            }
        }
        // Somebody may have attached meanwhile, and that was written down.
        if let Some(session) = self.sessions.get_mut(&terminal) {
            session.released = true;
        }
        self.forget(terminal, true);
    }

    pub(super) fn on_adopted(&mut self, terminal: TerminalId, result: &Result<(), EffectError>) {
        if let Err(error) = result {
            return self.on_lost(terminal, &error.message);
        }
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        if session.state == State::Starting {
            session.state = State::Running;
            if session.watchers.is_empty() {
                session.times.held = Some(self.cx.at() + self.cx.config.adopted_hold);
                session.arm(&mut self.cx);
            }
            session.look(&mut self.cx);
            session.write(&mut self.cx);
            self.cx.statistics.adopted += 1;
            self.cx.event(TerminalFact::Recovered { terminal, outcome: "adopted".into() });
            let doomed = session.doomed;
            self.journal.mark_new(terminal);
            self.grant(terminal);
            if doomed {
                self.end(terminal);
            }
        }
    }

    /// Hangs up, and kills what doesn't care.
    pub(super) fn end(&mut self, terminal: TerminalId) {
        self.end_for(terminal, Purpose::Nothing);
    }

    /// The same; whom it concerns when a program that runs is hung up.
    pub(super) fn end_for(&mut self, terminal: TerminalId, hung_up: Purpose) {
        let kill = self.kill_time();
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        match session.state {
            State::Starting => session.doomed = true,
            State::Running => {
                session.state = State::Terminating;
                session.times.kill = Some(kill);
                session.times.held = None;
                session.arm(&mut self.cx);
                self.cx.deed(terminal, Deed::HangUp, hung_up);
                // Its last words must not wait for a reader.
                self.grant(terminal);
            }
            State::Terminating => {
                session.times.kill = session.times.kill.min(Some(kill));
                session.arm(&mut self.cx);
            }
            State::Exited => {}
        }
    }

    pub(super) fn on_session_timer(&mut self, terminal: TerminalId) {
        let now = self.cx.at();
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let due = |at: &mut Option<crate::time::Time>| at.take_if(|at| *at <= now).is_some();
        let times = &mut session.times;
        let (lease, kill, patience) = (due(&mut times.lease), due(&mut times.kill), due(&mut times.patience));
        let (tail, forget, held) = (due(&mut times.tail), due(&mut times.forget), due(&mut times.held));
        if kill && session.state == State::Terminating {
            session.times.kill = Some(now + self.cx.config.kill_timeout);
            self.cx.deed(terminal, Deed::Kill, Purpose::Nothing);
        }
        let survivors = kill && session.state == State::Exited;
        session.unbraked |= patience;
        if forget && !session.watchers.is_empty() {
            // Its end was not read yet.
            session.times.forget = Some(now + self.cx.config.exited_kept);
        }
        let forget = forget && session.watchers.is_empty();
        session.arm(&mut self.cx);
        if survivors {
            self.cx.deed(terminal, Deed::Kill, Purpose::Nothing);
            self.let_go(terminal);
        }
        if lease && !planted!(self.cx.config, OwnerNotReleased) {
            self.end_lease(terminal);
        }
        if patience || held {
            self.grant(terminal);
        }
        if tail {
            self.want(terminal, Look { lines: self.cx.config.tail_lines, why: Why::Tail, tries: 0 });
        }
        if forget {
            self.forget(terminal, true);
        }
    }

    pub(super) fn on_exited(&mut self, terminal: TerminalId, exit: Exit, why: Option<&str>) {
        let wall = self.cx.wall_seconds();
        let Some(session) = self.sessions.get_mut(&terminal).filter(|session| session.is_alive()) else {
            return;
        };
        // Others of its session may have heard the hang-up and not cared.
        let kill = session.times.kill.filter(|_| session.state == State::Terminating && why.is_none());
        session.state = State::Exited;
        session.exited = Some((exit, wall));
        session.granted = false;
        session.input = Default::default();
        session.times = super::session::Times {
            forget: Some(self.cx.at() + self.cx.config.exited_kept),
            kill,
            ..Default::default()
        };
        session.owner = None;
        session.arm(&mut self.cx);
        self.cx.statistics.exits += 1;
        let why = why.map(|why| shortened(why, crate::event::MESSAGE_MAX));
        self.cx.event(TerminalFact::Exited { terminal, code: exit.code, signal: exit.signal, why });
        self.journal.mark_new(terminal);
        self.end_flushes(terminal, u64::MAX, Err("its program ended first"));
        self.want(terminal, Look { lines: self.cx.config.tail_lines, why: Why::Last, tries: 0 });
        self.wake_watchers(terminal);
        self.make_place();
    }

    /// Whoever held it is gone, and with it the terminal.
    pub(super) fn on_lost(&mut self, terminal: TerminalId, why: &str) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        session.recovery = Some(Recovery::Unrecoverable("holder_lost".into()));
        self.cx.statistics.unrecoverable += 1;
        self.on_exited(terminal, Exit { code: -1, signal: None }, Some(why));
    }

    /// Listed, and not alive.
    pub(super) fn bury(&mut self, terminal: TerminalId, why: &str) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        session.recovery = Some(Recovery::Unrecoverable(why.into()));
        session.released = true;
        let content = session.tail.as_ref().map(|tail| tail.content.clone()).unwrap_or_default();
        session.last = Some(Box::new(super::Snapshot { content, ..session.blank() }));
        self.cx.statistics.unrecoverable += 1;
        let outcome = format!("unrecoverable:{why}");
        self.cx.event(TerminalFact::Recovered { terminal, outcome });
        self.on_exited(terminal, Exit { code: -1, signal: None }, None);
    }

    /// Once what is known of an ended terminal is durable, nobody has to hold it.
    pub(super) fn let_go(&mut self, terminal: TerminalId) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        let done = session.last.is_some() && session.times.kill.is_none();
        if session.is_alive() || session.released || !done || self.journal.is_new(terminal) {
            return;
        }
        session.released = true;
        self.cx.deed(terminal, Deed::Release, Purpose::Nothing);
    }

    /// Ended terminals have a bound, too.
    fn make_place(&mut self) {
        let ended = self.sessions.values().filter(|session| !session.is_alive());
        let excess = ended.count().saturating_sub(self.cx.config.exited_max);
        if excess == 0 {
            return;
        }
        let mut oldest: Vec<_> = self
            .sessions
            .values()
            .filter(|session| session.released && session.watchers.is_empty() && session.looks.is_empty())
            .map(|session| (session.times.forget, session.id))
            .collect();
        oldest.sort_unstable();
        for (_, terminal) in oldest.into_iter().take(excess) {
            self.forget(terminal, true);
        }
    }

    pub(super) fn forget(&mut self, terminal: TerminalId, recorded: bool) {
        let Some(session) = self.sessions.remove(&terminal) else { return };
        self.cx.timers.remove(session.timer);
        if !session.released && recorded {
            self.cx.deed(terminal, Deed::Release, Purpose::Nothing);
        }
        for look in &session.looks {
            if let Why::Attach { ask, .. } | Why::Snapshot { ask } = look.why {
                self.refuse_ask(ask, ErrorCode::NotFound, "the terminal is forgotten");
            }
        }
        if let Some(key) = session.key.as_deref()
            && self.keys.get(key) == Some(&terminal)
        {
            self.keys.remove(key);
        }
        self.journal.drop_terminal(terminal, recorded);
    }
}

/// A shell that knows the word is a login shell.
fn login(shell: &str) -> Vec<String> {
    let knows = ["zsh", "bash", "fish"].iter().any(|name| shell.contains(name));
    if knows { ["-l".to_string()].to_vec() } else { Vec::new() }
}
