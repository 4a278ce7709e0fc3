//! What is durable of a terminal, and what is known of it when its daemon starts.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Exit, Launch};
use crate::id::TerminalId;

/// A terminal's record in the journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TerminalRecord {
    /// Its number, never given out again.
    pub terminal: TerminalId,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// How it was started; `cwd`, `cols` and `rows` are the newest known.
    pub launch: Launch,
    /// It was started with a command, not as a shell.
    #[serde(default)]
    pub command: bool,
    /// Above the offset of any output of it; a multiple of 2³².
    #[serde(default)]
    pub reached: u64,
    /// Its process; 0: it was being started.
    pub pid: u32,
    /// See [`super::News::Started`].
    pub start_time: u64,
    /// The kernel's id of the boot in which it ran.
    pub boot: [u8; 16],
    /// Its device.
    pub pts: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970.
    pub last_attached_at: i64,
    /// How and when (seconds since 1970) it ended.
    pub exited: Option<(Exit, i64)>,
    /// What became of it when a daemon last started.
    pub recovery: Option<Recovery>,
}

/// The end of a terminal's output, for a cold restore.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tail {
    /// As [`super::Snapshot::content`].
    pub content: String,
    /// The size that it is meant for.
    pub cols: u16,
    /// See `cols`.
    pub rows: u16,
}

/// What became of a terminal when its daemon started again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// It ran on, and goes on.
    Adopted,
    /// Its program was started anew, below what its screen last showed.
    Restored,
    /// It is gone, for this reason (a word, like `rebooted`).
    Unrecoverable(String),
}

/// A terminal that ran on while its daemon was away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its number.
    pub terminal: TerminalId,
    /// Its process.
    pub pid: u32,
    /// See [`super::News::Started`].
    pub start_time: u64,
    /// Its device.
    pub pts: String,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// The oldest byte of output that is still there.
    pub first: u64,
    /// How many bytes of output there were so far.
    pub end: u64,
}

/// What a daemon of terminals knows when it starts.
#[derive(Clone, Debug, Default)]
pub struct RestoredTerminals {
    /// Numbers below this were given out; already durable.
    pub next_id: u32,
    /// The journal.
    pub records: Vec<(TerminalRecord, Option<Tail>)>,
    /// What ran on.
    pub held: Vec<Held>,
    /// The kernel's id of this boot.
    pub boot: [u8; 16],
}
