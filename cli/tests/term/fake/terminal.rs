//! A terminal of the fake server, and how it is told of.

use std::borrow::Cow;

use castra_core::terminals::wire::{SessionInfo, State};
use castra_core::terminals::{Exit, Modes, Snapshot};

/// A terminal of the fake.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    pub(crate) key: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) cols: u16,
    pub(crate) rows: u16,
    /// The client id of its owner.
    pub(crate) owner: Option<String>,
    pub(crate) exit: Option<Exit>,
    /// All that was written, and how much of its beginning is no longer kept.
    pub(crate) output: Vec<u8>,
    pub(crate) gone: usize,
    pub(crate) typed: Vec<u8>,
    pub(crate) signals: Vec<String>,
    pub(crate) recovery: Option<String>,
    /// Input is refused: the program doesn't read.
    pub(crate) full: bool,
    /// Written between being asked for a picture and answering with it.
    pub(crate) burst: Vec<u8>,
    /// Nobody gets a picture, nor a word about it.
    pub(crate) blind: bool,
}

impl Terminal {
    pub(crate) fn new(key: Option<String>) -> Self {
        Self {
            key,
            command: vec![],
            env: vec![],
            cwd: None,
            cols: 80,
            rows: 24,
            owner: None,
            exit: None,
            output: vec![],
            gone: 0,
            typed: vec![],
            signals: vec![],
            recovery: None,
            full: false,
            burst: vec![],
            blind: false,
        }
    }

    pub(crate) fn has(&self, offset: u64) -> bool {
        (self.gone as u64..=self.output.len() as u64).contains(&offset)
    }

    /// Its size, so that a test sees which picture this is, and all that was written.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let text = String::from_utf8_lossy(&self.output);
        let content = format!("\x1bc[picture {}x{}]\r\n{text}", self.cols, self.rows);
        let modes = Modes { cursor_visible: true, auto_wrap: true, ..Modes::default() };
        let offset = self.output.len() as u64;
        let (cols, rows) = (self.cols, self.rows);
        Snapshot {
            content,
            cols,
            rows,
            modes,
            offset,
            title: Some("t\u{1b}itle".into()),
            ..Snapshot::default()
        }
    }

    pub(crate) fn row(&self, id: u32, me: &str) -> SessionInfo<'static> {
        SessionInfo {
            id,
            session_key: self.key.clone().map(Cow::Owned),
            pid: 4711,
            pts: "/dev/pts/4".into(),
            is_alive: self.exit.is_none(),
            created_at: 0,
            last_attached_at: 0,
            state: Some(if self.exit.is_none() { State::Running } else { State::Exited }),
            exit_code: self.exit.map(|exit| exit.code),
            exit_signal: self.exit.and_then(|exit| exit.signal),
            cols: Some(self.cols),
            rows: Some(self.rows),
            cwd: self.cwd.clone().map(Cow::Owned),
            command: self.command.iter().cloned().map(Cow::Owned).collect(),
            owner: self.owner.clone().map(Cow::Owned),
            owner_is_you: Some(self.owner.as_deref() == Some(me)),
            subscribers: Some(0),
            recovery: self.recovery.clone().map(Cow::Owned),
        }
    }
}
