//! Which names ever had a token, beside the database: whatever becomes of that, none
//! of them falls back to being believed without a key.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use castra_core::id::GuestName;
use rustix::fs::OFlags;

use crate::files::read_whole;

/// The list's name in a state directory: a name a line, in no order, some twice.
pub const NAMES_FILE: &str = "keyed-names";
/// Most bytes that are read: some 250 000 of the longest names.
const READ_MAX: u64 = 16 * 1024 * 1024;

/// The list.
#[derive(Debug)]
pub(super) struct Names {
    path: PathBuf,
}

impl Names {
    pub(super) fn in_directory(state_dir: &Path) -> Self {
        Self { path: state_dir.join(NAMES_FILE) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The list; a missing one is empty, and what is no name in it is left out.
    pub(super) fn read(&self) -> io::Result<BTreeSet<GuestName>> {
        let (content, _) = match read_whole(&self.path, READ_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            content => content?,
        };
        Ok(String::from_utf8_lossy(&content).lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Adds names, durably.
    pub(super) fn add<'n>(&self, names: impl IntoIterator<Item = &'n GuestName>) -> io::Result<()> {
        let mut lines = String::new();
        for name in names {
            lines.push_str(name.as_str());
            lines.push('\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&self.path)?;
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()) {
            // A part of a name would be another one's.
            let _ = file.set_len(before);
            return Err(error);
        }
        if before == 0
            && let Some(parent) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty())
        {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}
