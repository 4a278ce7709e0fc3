//! Every duration and bound of a daemon of terminals.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::config::Identity;

/// What a daemon of terminals is told at start, and again by a reload.
#[derive(Clone, Debug)]
pub struct TerminalsConfig {
    /// What a client has to know; `None`: only those that the kernel vouches for
    /// are let in.
    pub token: Option<Token>,
    /// What the process is. A client whose process this is needs no token.
    pub identity: Identity,
    /// Whether whoever runs the terminals keeps a model of their screens.
    pub screen: bool,
    /// Bytes of output that are kept of each terminal.
    pub ring: usize,
    /// Most bytes of output asked for at once.
    pub grant: usize,
    /// Most bytes of output in one frame.
    pub frame_data: usize,
    /// A subscriber that lacks so many bytes is yellow.
    pub yellow: u64,
    /// A subscriber that lacks so many bytes is red.
    pub red: u64,
    /// How long a terminal's program waits for its owner without any progress.
    pub owner_patience: Duration,
    /// Most running terminals.
    pub sessions_max: usize,
    /// Most connections.
    pub connections_max: usize,
    /// Most unanswered requests of one connection.
    pub requests_max: usize,
    /// Most columns times rows of a terminal.
    pub cells_max: u32,
    /// Bytes of input that may wait for a program.
    pub input_max: usize,
    /// From accept to a handshake that succeeds.
    pub handshake_timeout: Duration,
    /// From a request to its answer.
    pub request_timeout: Duration,
    /// How long a terminal waits for its owner after that disconnected.
    pub lease: Duration,
    /// How long an adopted terminal that nobody watches rather waits than drop output.
    pub adopted_hold: Duration,
    /// From hang-up to kill.
    pub kill_timeout: Duration,
    /// How long an ended terminal stays in the list.
    pub exited_kept: Duration,
    /// Most ended terminals in the list.
    pub exited_max: usize,
    /// Lines of history in a snapshot that doesn't say how many.
    pub history_lines: u32,
    /// Most lines of history in a snapshot.
    pub history_max: u32,
    /// Lines of history in the tail that is written down.
    pub tail_lines: u32,
    /// From output to a tail with it, without the time that the disk takes.
    pub tail_delay: Duration,
    /// From a change that nobody waits for to its record.
    pub record_delay: Duration,
    /// From a failed write to the next try.
    pub storage_retry: Duration,
    /// Names of environment entries that may be written down; `*` at the end
    /// stands for anything. Others may be secrets.
    pub kept_env: Vec<String>,
    /// What is started anew after its program was lost.
    pub restore: RestorePolicy,
    /// What becomes of terminals when the daemon is stopped.
    pub on_stop: OnStop,
    /// The bug that is planted, if any.
    #[cfg(feature = "planted")]
    pub planted: Option<crate::planted::Bug>,
}

/// What is started anew after its program was lost (a reboot).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RestorePolicy {
    /// What was started without a command.
    #[default]
    Shells,
    /// Everything.
    All,
    /// Nothing.
    None,
}

/// What becomes of terminals when the daemon is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnStop {
    /// They run on, for the next daemon.
    #[default]
    Keep,
    /// They are ended.
    End,
}

impl Default for TerminalsConfig {
    fn default() -> Self {
        let kept = [
            "COLORTERM",
            "DISPLAY",
            "EDITOR",
            "HOME",
            "LANG",
            "LANGUAGE",
            "LC_*",
            "LOGNAME",
            "PAGER",
            "PATH",
            "SHELL",
            "TERM",
            "TZ",
            "USER",
            "VISUAL",
            "XDG_*",
        ];
        Self {
            token: None,
            identity: Identity::default(),
            screen: true,
            ring: 1024 * 1024,
            grant: 64 * 1024,
            frame_data: 32 * 1024,
            yellow: 256 * 1024,
            red: 512 * 1024,
            owner_patience: Duration::from_secs(1),
            sessions_max: 64,
            connections_max: 128,
            requests_max: 64,
            cells_max: 1_000_000,
            input_max: 2_000_000,
            handshake_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            lease: Duration::from_secs(2),
            adopted_hold: Duration::from_secs(2),
            kill_timeout: Duration::from_secs(3),
            exited_kept: Duration::from_secs(600),
            exited_max: 64,
            history_lines: 500,
            history_max: 10_000,
            tail_lines: 1000,
            tail_delay: Duration::from_millis(1500),
            record_delay: Duration::from_millis(500),
            storage_retry: Duration::from_secs(1),
            kept_env: kept.map(String::from).to_vec(),
            restore: RestorePolicy::default(),
            on_stop: OnStop::default(),
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

impl TerminalsConfig {
    /// Whether an environment entry may be written down.
    pub(super) fn keeps(&self, name: &str) -> bool {
        self.kept_env.iter().any(|kept| match kept.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => kept == name,
        })
    }
}

/// What a client has to know. Wiped on drop, never shown by `Debug`, compared in
/// constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token(String);

impl Token {
    /// Of any length; published ones have 64 letters and digits.
    #[must_use]
    pub const fn new(token: String) -> Self {
        Self(token)
    }

    /// Whether it is this.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
