//! One terminal: its life, its owner, its output, what is asked about it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::cx::{Cx, Purpose, TimerKey};
use super::ring::Ring;
use super::wire::{SessionInfo, State};
use super::{Deed, Exit, Launch, Recovery, Snapshot, Tail, TerminalRecord, WRITE_MAX};
use crate::boundary::Wakeup;
use crate::id::{ConnId, TerminalId};
use crate::time::Time;
use crate::timers::TimerId;

/// Input buffers larger than this are given back once they are empty.
const KEPT_INPUT: usize = 64 * 1024;

#[derive(Clone)]
pub(super) struct Session {
    pub(super) id: TerminalId,
    pub(super) timer: TimerId,
    pub(super) key: Option<Box<str>>,
    pub(super) launch: Launch,
    /// It was started with a command, not as a shell.
    pub(super) command: bool,
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) boot: [u8; 16],
    pub(super) pts: String,
    pub(super) created_at: i64,
    pub(super) last_attached_at: i64,
    pub(super) state: State,
    pub(super) exited: Option<(Exit, i64)>,
    pub(super) recovery: Option<Recovery>,
    pub(super) ring: Ring,
    /// Output below this was there when it was adopted: what of it isn't in the ring
    /// yet will come.
    pub(super) known_end: u64,
    /// What was said to be above all output so far, for a later life.
    pub(super) reached: u64,
    pub(super) owner: Option<Owner>,
    pub(super) watchers: Vec<ConnId>,
    /// Requests that are answered when it runs, durably.
    pub(super) creators: Vec<u64>,
    pub(super) initial: Vec<u8>,
    pub(super) input: VecDeque<u8>,
    pub(super) writing: bool,
    /// Bytes of input so far, those that wait included.
    pub(super) given: u64,
    /// Who wants to know when so many of them are in the terminal.
    pub(super) flushes: VecDeque<(u64, u64)>,
    /// Output was asked for and has not come.
    pub(super) granted: bool,
    /// The owner is given up as a brake until it has caught up.
    pub(super) unbraked: bool,
    /// Who wants to know what it shows.
    pub(super) looks: Vec<Look>,
    /// What was asked for: lines of history.
    pub(super) looking: Option<u32>,
    /// What it last showed; of one that ended.
    pub(super) last: Option<Box<Snapshot>>,
    /// It ended, and its last words are durable or on their way.
    pub(super) released: bool,
    /// To be killed as soon as it runs.
    pub(super) doomed: bool,
    /// To be started as soon as that is durable.
    pub(super) unspawned: bool,
    /// What it showed in its former life.
    pub(super) tail: Option<Box<Tail>>,
    pub(super) times: Times,
}

/// What is typed and shown may be anything.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("state", &self.state)
            .field("owner", &self.owner)
            .field("end", &self.ring.end())
            .field("watchers", &self.watchers)
            .field("input", &self.input.len())
            .field("looks", &self.looks)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

/// When something is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// The owner that left is waited for until then.
    pub(super) lease: Option<Time>,
    pub(super) kill: Option<Time>,
    /// The owner brakes the program until then, unless it takes some.
    pub(super) patience: Option<Time>,
    pub(super) forget: Option<Time>,
    pub(super) tail: Option<Time>,
    /// Adopted, it drops nothing until then, unless somebody watches: whoever comes
    /// back finds the byte that it knows last.
    pub(super) held: Option<Time>,
}

/// Who owns a terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub(super) id: Box<str>,
    /// `None`: it left, and is waited for.
    pub(super) conn: Option<ConnId>,
}

/// Somebody wants to know what a terminal shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    pub(super) lines: u32,
    pub(super) why: Why,
    /// How often what was told was older than what is needed.
    pub(super) tries: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// A request `attach`, whose output goes to `conn`.
    Attach { ask: u64, conn: ConnId },
    /// A request `snapshot`.
    Snapshot { ask: u64 },
    /// A subscriber that lost output.
    Resync { conn: ConnId },
    /// The journal.
    Tail,
    /// It ended.
    Last,
}

impl Session {
    pub(super) fn new(cx: &mut Cx, id: TerminalId, launch: Launch, first: u64) -> Self {
        Self {
            id,
            timer: cx.timers.insert(TimerKey::Session(id)),
            key: None,
            launch,
            command: false,
            pid: 0,
            start_time: 0,
            boot: [0; 16],
            pts: String::new(),
            created_at: cx.wall_seconds(),
            last_attached_at: cx.wall_seconds(),
            state: State::Starting,
            exited: None,
            recovery: None,
            ring: Ring::new(cx.config.ring, first),
            known_end: first,
            reached: reach(first),
            owner: None,
            watchers: Vec::new(),
            creators: Vec::new(),
            initial: Vec::new(),
            input: VecDeque::new(),
            writing: false,
            given: 0,
            flushes: VecDeque::new(),
            granted: false,
            unbraked: false,
            looks: Vec::new(),
            looking: None,
            last: None,
            released: false,
            doomed: false,
            unspawned: false,
            tail: None,
            times: Times::default(),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.state != State::Exited
    }

    pub(super) fn is_owned_by(&self, conn: ConnId) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.conn == Some(conn))
    }

    /// Wakes the engine for whatever is due first.
    pub(super) fn arm(&self, cx: &mut Cx) {
        let Times { lease, kill, patience, forget, tail, held } = self.times;
        match [lease, kill, patience, forget, tail, held].into_iter().flatten().min() {
            Some(at) => cx.timers.arm(self.timer, at, Wakeup::Terminal),
            None => cx.timers.disarm(self.timer),
        }
    }

    /// Gives the program what waits for it, one piece at a time.
    pub(super) fn write(&mut self, cx: &mut Cx) {
        let runs = matches!(self.state, State::Running | State::Terminating);
        if self.writing || self.input.is_empty() || !runs {
            return;
        }
        let length = self.input.len().min(WRITE_MAX);
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(self.input.drain(..length));
        if self.input.is_empty() {
            self.input.shrink_to(KEPT_INPUT);
        }
        self.writing = true;
        cx.deed(self.id, Deed::Write(bytes), Purpose::Write(self.id));
    }

    /// Asks what it shows, for those who want to know.
    pub(super) fn look(&mut self, cx: &mut Cx) {
        if self.looking.is_some() || self.state == State::Starting {
            return;
        }
        if let Some(lines) = self.looks.first().map(|look| look.lines) {
            self.looking = Some(lines);
            cx.deed(self.id, Deed::Snapshot { history_lines: lines }, Purpose::Look(self.id));
        }
    }

    /// What can be said of the screen when nobody keeps a model of it: nothing, and
    /// the output that is kept follows.
    pub(super) fn blank(&self) -> Snapshot {
        Snapshot {
            cols: self.launch.cols,
            rows: self.launch.rows,
            modes: super::Modes { cursor_visible: true, auto_wrap: true, ..super::Modes::default() },
            offset: self.ring.first(),
            ..Snapshot::default()
        }
    }

    pub(super) fn record(&self, cx: &Cx) -> TerminalRecord {
        let mut launch = self.launch.clone();
        launch.env.retain(|(name, _)| cx.config.keeps(name));
        TerminalRecord {
            terminal: self.id,
            key: self.key.as_deref().map(String::from),
            launch,
            command: self.command,
            reached: self.reached,
            pid: self.pid,
            start_time: self.start_time,
            boot: self.boot,
            pts: self.pts.clone(),
            created_at: self.created_at,
            last_attached_at: self.last_attached_at,
            exited: self.exited,
            recovery: self.recovery.clone(),
        }
    }

    pub(super) fn row(&self, asker: ConnId) -> SessionInfo<'_> {
        let exit = self.exited.map(|(exit, _)| exit);
        let command = if self.command {
            core::iter::once(&self.launch.program)
                .chain(&self.launch.args)
                .map(|word| word.as_str().into())
                .collect()
        } else {
            Vec::new()
        };
        SessionInfo {
            id: self.id.0,
            session_key: self.key.as_deref().map(Into::into),
            pid: self.pid,
            pts: self.pts.as_str().into(),
            is_alive: matches!(self.state, State::Starting | State::Running),
            created_at: self.created_at,
            last_attached_at: self.last_attached_at,
            state: Some(self.state),
            exit_code: exit.map(|exit| exit.code),
            exit_signal: exit.and_then(|exit| exit.signal),
            cols: Some(self.launch.cols),
            rows: Some(self.launch.rows),
            cwd: Some(self.launch.cwd.as_str()).filter(|cwd| !cwd.is_empty()).map(Into::into),
            command,
            owner: self.owner.as_ref().map(|owner| (&*owner.id).into()),
            owner_is_you: Some(self.is_owned_by(asker)),
            subscribers: u32::try_from(self.watchers.len()).ok(),
            recovery: self.recovery.as_ref().map(|recovery| recovery.word().into()),
        }
    }
}

impl Recovery {
    /// As a `list` says it.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Adopted => "adopted".into(),
            Self::Restored => "restored".into(),
            Self::Unrecoverable(why) => format!("unrecoverable:{why}"),
        }
    }
}

/// What a later life numbers its output from: a multiple of 2³² that output at
/// `offset` won't reach before that can be written down.
pub(super) const fn reach(offset: u64) -> u64 {
    ((offset.saturating_add(1 << 31) >> 32) + 1) << 32
}
