//! Terminals: who owns one, who watches it, and what becomes of its program.
//!
//! The words that the engine shares with whoever runs the pseudo-terminals. The
//! bytes that clients speak: `docs/PROTOCOL.md`, section 18.

mod asks;
mod client;
mod config;
mod connections;
mod cx;
mod engine;
mod flow;
mod journal;
mod life;
mod looks;
mod metrics;
#[cfg(feature = "model")]
mod obligations;
mod ownership;
mod reconcile;
mod record;
mod requests;
mod ring;
mod session;
pub mod wire;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use config::{OnStop, RestorePolicy, TerminalsConfig, Token};
pub use cx::Statistics;
pub use engine::{TerminalSizes, TerminalView, Terminals};
pub use record::{Held, Recovery, RestoredTerminals, Tail, TerminalRecord};

/// Longest key of a terminal, in bytes.
pub const KEY_MAX: usize = 256;

/// Longest client id, in bytes.
pub const CLIENT_ID_MAX: usize = 256;

/// Longest path, argument or environment entry of a launch, in bytes.
pub const TEXT_MAX: usize = 4096;

/// Most arguments, environment entries and initial commands of a launch, each.
pub const LIST_MAX: usize = 1024;

/// Most bytes of one [`Deed::Write`].
pub const WRITE_MAX: usize = 64 * 1024;

/// A program to be started on a new pseudo-terminal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The program: a path, or a name to be looked up in the `PATH` of `env`.
    /// Empty: the default shell.
    pub program: String,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Where it starts; empty: the home directory.
    pub cwd: String,
    /// Its environment, besides what the host of the terminals gives every program.
    pub env: Vec<(String, String)>,
    /// Columns, at least 1.
    pub cols: u16,
    /// Rows, at least 1.
    pub rows: u16,
}

/// The environment may hold secrets.
impl core::fmt::Debug for Launch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .field("cwd", &self.cwd)
            .field("env", &self.env.len())
            .field("cols", &self.cols)
            .field("rows", &self.rows)
            .finish()
    }
}

/// What is to be done to a terminal. Each gets exactly one `Done`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deed {
    /// Start a program on a new pseudo-terminal. Before its `Done(Ok)` comes
    /// [`News::Started`].
    Spawn {
        /// What.
        launch: Box<Launch>,
        /// What its output's first byte is numbered.
        first: u64,
        /// What its screen shows before any output.
        tail: Option<Box<Tail>>,
    },
    /// Go on with one that was held ([`Held`]): its output is told from `first` on.
    Adopt,
    /// Write to the program. Done when the kernel took all of it, or the terminal
    /// is gone; at most one at a time, of at most [`WRITE_MAX`] bytes.
    Write(Vec<u8>),
    /// Give it a new size.
    Resize {
        /// Columns, at least 1.
        cols: u16,
        /// Rows, at least 1.
        rows: u16,
    },
    /// Send a signal.
    Signal {
        /// Its number.
        signal: i32,
        /// To whom.
        scope: SignalScope,
    },
    /// Hang up and terminate every process of the terminal's session.
    HangUp,
    /// Kill every process of the terminal's session.
    Kill,
    /// Tell what the screen shows: [`News::Snapshot`] comes before the `Done(Ok)`.
    Snapshot {
        /// Most lines of history in it.
        history_lines: u32,
    },
    /// Forget the screen model's history.
    ClearScrollback,
    /// Forget the terminal: nothing more is told of it.
    Release,
}

/// What is written to a program may be a password.
impl core::fmt::Debug for Deed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Spawn { launch, first, tail } => {
                write!(f, "Spawn({launch:?}, {first}, tail: {})", tail.is_some())
            }
            Self::Adopt => f.write_str("Adopt"),
            Self::Write(bytes) => write!(f, "Write({} bytes)", bytes.len()),
            Self::Resize { cols, rows } => write!(f, "Resize({cols}x{rows})"),
            Self::Signal { signal, scope } => write!(f, "Signal({signal}, {scope:?})"),
            Self::HangUp => f.write_str("HangUp"),
            Self::Kill => f.write_str("Kill"),
            Self::Snapshot { history_lines } => write!(f, "Snapshot({history_lines})"),
            Self::ClearScrollback => f.write_str("ClearScrollback"),
            Self::Release => f.write_str("Release"),
        }
    }
}

/// Who gets a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalScope {
    /// The program that was started, alone.
    Shell,
    /// The process group in the foreground.
    Foreground,
    /// Every process of the terminal's session.
    Session,
}

/// What is told of a terminal.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum News<'a> {
    /// The program runs.
    Started {
        /// Its process, which leads a session of its own.
        pid: u32,
        /// The terminal's device, like `/dev/pts/4`.
        pts: String,
        /// When the process started, in clock ticks since boot: with the pid and
        /// the boot id it names one process for ever.
        start_time: u64,
    },
    /// Output, without a gap or an overlap from one to the next. Answers one grant
    /// (`Output::Read` of the terminal).
    Output {
        /// Of its first byte, since the terminal began.
        offset: u64,
        /// What.
        bytes: Cow<'a, [u8]>,
    },
    /// What the screen shows.
    Snapshot(Box<Snapshot>),
    /// The screen model's answer to a program's query.
    Reply(Cow<'a, [u8]>),
    /// The program's working directory changed.
    Directory(String),
    /// The program ended. After all its output; exactly once.
    Exited(Exit),
    /// Whoever held the terminal is gone, and with it the terminal: nobody knows
    /// how the program ended. After all output that could be saved; instead of
    /// [`News::Exited`].
    Lost {
        /// Why, for people.
        why: String,
    },
}

impl News<'_> {
    /// The same, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> News<'_> {
        match self {
            Self::Output { offset, bytes } => News::Output { offset: *offset, bytes: Cow::Borrowed(bytes) },
            Self::Reply(bytes) => News::Reply(Cow::Borrowed(bytes)),
            Self::Started { pid, pts, start_time } => {
                News::Started { pid: *pid, pts: pts.clone(), start_time: *start_time }
            }
            Self::Snapshot(snapshot) => News::Snapshot(snapshot.clone()),
            Self::Directory(path) => News::Directory(path.clone()),
            Self::Exited(exit) => News::Exited(*exit),
            Self::Lost { why } => News::Lost { why: why.clone() },
        }
    }
}

/// What a terminal shows may be anything.
impl core::fmt::Debug for News<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Started { pid, pts, .. } => write!(f, "Started({pid}, {pts})"),
            Self::Output { offset, bytes } => write!(f, "Output({offset}, {} bytes)", bytes.len()),
            Self::Snapshot(snapshot) => write!(f, "Snapshot({})", snapshot.offset),
            Self::Reply(bytes) => write!(f, "Reply({} bytes)", bytes.len()),
            Self::Directory(path) => write!(f, "Directory({path:?})"),
            Self::Exited(exit) => write!(f, "{exit:?}"),
            Self::Lost { why } => write!(f, "Lost({why:?})"),
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, or 128 plus the signal.
    pub code: i32,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// What a terminal shows, written down so that another terminal can show it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Written to a new terminal of this size it restores everything: history, both
    /// screens, modes, cursor, scroll region, tab stops, title.
    pub content: String,
    /// The sequences that set the modes, alone.
    pub rehydrate: String,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// The cursor's column, from 0.
    pub cursor_x: u16,
    /// The cursor's row, from 0.
    pub cursor_y: u16,
    /// Modes that clients ask for.
    pub modes: Modes,
    /// The program's working directory, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The title that the program gave the terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How many bytes of output it holds: output from here on continues it.
    pub offset: u64,
}

/// Modes of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Modes {
    /// DECCKM.
    pub application_cursor: bool,
    /// 2004.
    pub bracketed_paste: bool,
    /// 1000, 1002 or 1003.
    pub mouse_tracking: bool,
    /// 1006.
    pub mouse_sgr: bool,
    /// 1004.
    pub focus_reporting: bool,
    /// 47, 1047 or 1049.
    pub alternate_screen: bool,
    /// DECTCEM.
    pub cursor_visible: bool,
    /// DECAWM.
    pub auto_wrap: bool,
}
