//! One broker per state directory, and one daemon per socket.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use castra_core::time::WallTime;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::files::read_small;

/// The name of the lock file in a state directory.
pub const LOCK_FILE: &str = "broker.lock";

/// A state directory, or whatever a lock file stands for, held by this process
/// until it drops this or dies.
///
/// The file stays behind: removing it would let two brokers hold two files of
/// one name. Its content only says who holds it; the lock itself is the kernel's.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

/// Who holds it, as far as is known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<WallTime>,
    /// Where it listens.
    #[serde(default)]
    pub listen: Vec<String>,
}

/// Why it could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another process has it: {0}")]
    Held(Holder),
    /// The lock file can't be used.
    #[error("can't lock {path:?}: {error}")]
    Failed {
        /// The lock file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("pid unknown")?,
        }
        if let Some(started_at) = self.started_at {
            write!(f, ", since {started_at}")?;
        }
        if !self.listen.is_empty() {
            write!(f, ", listening on {}", self.listen.join(" "))?;
        }
        Ok(())
    }
}

impl StateLock {
    /// Takes the state directory, or says at once who has it.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it; otherwise the file can't be used.
    pub fn acquire(state_dir: &Path) -> Result<Self, LockError> {
        Self::acquire_file(&state_dir.join(LOCK_FILE))
    }

    /// The same, with a lock file of that path.
    ///
    /// # Errors
    /// See [`StateLock::acquire`].
    pub fn acquire_file(path: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Failed { path: path.to_owned(), error };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                // It may be just about to write who it is.
                let holder = read_small(path)
                    .ok()
                    .and_then(|content| serde_json::from_slice(&content).ok())
                    .unwrap_or_default();
                Err(LockError::Held(holder))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Says who holds it.
    ///
    /// # Errors
    /// The file can't be written; the lock holds all the same.
    pub fn describe(&mut self, holder: &Holder) -> io::Result<()> {
        let mut text = serde_json::to_vec(holder)?;
        text.push(b'\n');
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_broker_learns_who_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut first = StateLock::acquire(directory.path()).expect("the lock");
        let LockError::Held(unknown) = StateLock::acquire(directory.path()).expect_err("held") else {
            panic!("not held")
        };
        assert_eq!(unknown.to_string(), "pid unknown");
        let holder = Holder {
            pid: Some(42),
            started_at: Some(WallTime::from_unix_millis(1_795_188_257_042)),
            listen: vec!["tcp:127.0.0.1:7070".to_owned()],
        };
        first
            .describe(&Holder { listen: vec!["a much longer list".repeat(9)], ..holder.clone() })
            .expect("a write");
        first.describe(&holder).expect("a write");
        let error = StateLock::acquire(directory.path()).expect_err("held").to_string();
        assert_eq!(
            error,
            "another process has it: pid 42, since 2026-11-20T15:24:17.042Z, listening on tcp:127.0.0.1:7070"
        );
        drop(first);
        StateLock::acquire(directory.path()).expect("free again");
    }
}
