//! Files that other programs read: logs with rotation, and small files written whole.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use castra_core::id::GuestName;
use castra_core::time::WallTime;
use rustix::fs::OFlags;
use serde::Deserialize;

use crate::own::check_owner;

/// Longest file that is read whole, in bytes; no file of ours comes near.
pub(crate) const READ_MAX: u64 = 64 * 1024;
/// How often it is looked whether a log was removed.
const LOOK: Duration = Duration::from_secs(1);
/// Most record files read at start.
const RECORDS_MAX: usize = 200_000;

/// When a log file is set aside, and how many stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// A file of at least this many bytes is set aside before the next lines.
    pub bytes: u64,
    /// Files set aside that are kept (`.1` is the newest).
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { bytes: 16 * 1024 * 1024, keep: 4 }
    }
}

/// A file that only grows, until it is set aside.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    open: Option<(File, u64)>,
    /// The file ends within a line: the last write stopped there, or its process was killed.
    torn: bool,
    /// When it was last seen to have a name.
    looked: Option<Instant>,
}

impl LogFile {
    /// A log at `path`, opened by the first append.
    #[must_use]
    pub const fn new(path: PathBuf, rotation: Rotation) -> Self {
        Self { path, rotation, open: None, torn: false, looked: None }
    }

    /// Appends whole lines. After an error the file is opened anew and the
    /// lines are tried once more before they are given up.
    ///
    /// # Errors
    /// The second failure; the lines are lost.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.let_go_of_a_removed_file();
        match self.try_append(lines) {
            Ok(()) => Ok(()),
            Err((written, _)) => {
                self.open = None;
                self.try_append(&lines[written..]).map_err(|(_, error)| {
                    self.open = None;
                    error
                })
            }
        }
    }

    /// Nobody reads what is written to a file without a name. One that was moved has
    /// one still: it is written to until somebody says [`LogFile::reopen`].
    fn let_go_of_a_removed_file(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let removed = |file: &File| file.metadata().is_ok_and(|found| found.nlink() == 0);
        if self.open.as_ref().is_some_and(|(file, _)| removed(file)) {
            self.open = None;
            self.torn = false;
        }
    }

    /// Closes and opens the file again: somebody may have moved it away.
    ///
    /// # Errors
    /// It can't be opened; the next append tries again.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.open = None;
        self.opened().map(|_| ())
    }

    fn try_append(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= self.rotation.bytes) {
            self.rotate().map_err(|error| (0, error))?;
        }
        self.opened().map_err(|error| (0, error))?;
        let torn = self.torn;
        let (file, size) = self.opened().map_err(|error| (0, error))?;
        if torn {
            file.write_all(b"\n").map_err(|error| (0, error))?;
        }
        let mut written = 0;
        let result = loop {
            match file.write(&lines[written..]) {
                Ok(0) => break Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if written == lines.len() {
                break Ok(());
            }
        };
        if result.is_err() {
            // A part of a line helps nobody; to cut it off needs no room.
            let whole = lines[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let length = file.metadata().map_or(0, |found| found.len());
            if let Some(length) = length.checked_sub((written - whole) as u64)
                && file.set_len(length).is_ok()
            {
                written = whole;
            }
        }
        *size += written as u64;
        self.torn = written > 0 && lines[written - 1] != b'\n';
        result.map_err(|error| (written, error))
    }

    fn opened(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&self.path)?;
            let found = file.metadata()?;
            check_owner(&found)?;
            let size = found.len();
            self.torn = size > 0 && ends_within_a_line(&self.path);
            self.open = Some((file, size));
        }
        self.open.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        for age in (1..self.rotation.keep).rev() {
            ignore_missing(fs::rename(self.aside(age), self.aside(age + 1)))?;
        }
        if self.rotation.keep == 0 {
            return ignore_missing(fs::remove_file(&self.path));
        }
        ignore_missing(fs::rename(&self.path, self.aside(1)))
    }

    fn aside(&self, age: u32) -> PathBuf {
        with_suffix(&self.path, &format!(".{age}"))
    }
}

/// Whether a file's last line has no end, as far as it can be read.
fn ends_within_a_line(path: &Path) -> bool {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let mut last = [b'\n'];
    let read = file.and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != [b'\n']
}

/// Writes a file whole: readers see the old content or the new, never a part.
/// The temporary name (`NAME.PID.tmp`) doesn't end in `.json`, and whatever
/// stands under it, a link included, is removed, not followed.
///
/// # Errors
/// The directory can't be written or the disk is full; the old file stays.
pub fn write_whole(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let temporary = with_suffix(path, &format!(".{}.tmp", std::process::id()));
    let create = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&temporary)
    };
    let mut file = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary)?;
            create()?
        }
        other => other?,
    };
    let written = file.write_all(content).and_then(|()| if durable { file.sync_all() } else { Ok(()) });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    if durable {
        // The name is durable when its directory is.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// Reads a small file whole, following no link at its end.
///
/// # Errors
/// Missing, unreadable, or longer than 64 KiB.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(path, READ_MAX).map(|(content, _)| content)
}

/// The same, of at most this many bytes, with whose it is and who may read it.
///
/// # Errors
/// Missing, unreadable, or longer.
pub(crate) fn read_whole(path: &Path, most: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    if file.take(most + 1).read_to_end(&mut content)? as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {} KiB", most / 1024)));
    }
    Ok((content, found))
}

/// The path of a guest's castra 0.1 record.
#[must_use]
pub fn record_path(directory: &Path, guest: &GuestName) -> PathBuf {
    directory.join(format!("{guest}.json"))
}

/// Reads when each guest was last seen from its castra 0.1 record. What is
/// unreadable or nonsense is skipped and reported in `problems`, never fatal.
///
/// # Errors
/// The directory itself can't be read; a missing one is empty.
pub fn read_records(directory: &Path, problems: &mut Vec<String>) -> io::Result<Vec<(GuestName, WallTime)>> {
    #[derive(Deserialize)]
    struct Seen {
        vm: Option<String>,
        timestamp: i64,
    }
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut seen = std::collections::BTreeMap::<GuestName, WallTime>::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        if seen.len() == RECORDS_MAX {
            problems.push(format!(
                "{}: more than {RECORDS_MAX} records; the rest is ignored",
                directory.display()
            ));
            break;
        }
        let record = read_small(&path)
            .and_then(|content| serde_json::from_slice::<Seen>(&content).map_err(io::Error::from));
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let found = record.and_then(|record| {
            let name = record.vm.as_deref().map_or(stem, str::trim);
            let name = name.parse::<GuestName>().map_err(|_| io::Error::other("not a guest name"))?;
            Ok((name, WallTime::from_unix_millis(record.timestamp.saturating_mul(1000))))
        });
        match found {
            Ok((name, at)) => {
                let newest = seen.entry(name).or_insert(at);
                *newest = at.max(*newest);
            }
            Err(error) => problems.push(format!("{}: {error}; the record is ignored", path.display())),
        }
    }
    Ok(seen.into_iter().collect())
}

/// A missing file is no error.
pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn a_full_log_is_set_aside_and_the_oldest_goes() {
        let directory = scratch();
        let path = directory.path().join("broker.log");
        let mut log = LogFile::new(path.clone(), Rotation { bytes: 10, keep: 2 });
        for line in ["first line\n", "second line\n", "third line\n", "fourth line\n"] {
            log.append(line.as_bytes()).expect("an append");
        }
        assert_eq!(text(&path), "fourth line\n");
        assert_eq!(text(&directory.path().join("broker.log.1")), "third line\n");
        assert_eq!(text(&directory.path().join("broker.log.2")), "second line\n");
        assert!(!directory.path().join("broker.log.3").exists());
        assert_eq!(fs::metadata(&path).expect("the log").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_goes_on_where_it_stopped_and_counts_what_is_there() {
        let directory = scratch();
        let path = directory.path().join("broker.log");
        fs::write(&path, "from before\n").expect("a file");
        let mut log = LogFile::new(path.clone(), Rotation { bytes: 10, keep: 1 });
        log.append(b"a\n").expect("an append");
        assert_eq!(text(&path), "from before\na\n");
        log.append(b"b\n").expect("an append");
        assert_eq!(text(&path), "b\n");
    }

    #[test]
    fn a_line_that_a_killed_process_left_unfinished_spoils_no_other() {
        let directory = scratch();
        let path = directory.path().join("events.jsonl");
        fs::write(&path, "{\"whole\":1}\n{\"torn\":").expect("a file");
        let mut log = LogFile::new(path.clone(), Rotation::default());
        log.append(b"{\"next\":1}\n").expect("an append");
        log.append(b"{\"last\":1}\n").expect("an append");
        assert_eq!(text(&path), "{\"whole\":1}\n{\"torn\":\n{\"next\":1}\n{\"last\":1}\n");
    }

    #[test]
    fn a_log_that_was_moved_away_is_found_again_by_reopening() {
        let directory = scratch();
        let path = directory.path().join("broker.log");
        let mut log = LogFile::new(path.clone(), Rotation::default());
        log.append(b"old\n").expect("an append");
        fs::rename(&path, directory.path().join("moved")).expect("a rename");
        log.append(b"still old\n").expect("an append");
        log.reopen().expect("reopening");
        log.append(b"new\n").expect("an append");
        assert_eq!(text(&path), "new\n");
        assert_eq!(text(&directory.path().join("moved")), "old\nstill old\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_not_the_end() {
        let mut log = LogFile::new(PathBuf::from("/dev/full"), Rotation::default());
        for _ in 0..2 {
            let error = log.append(b"lost\n").expect_err("no space");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn a_log_that_was_removed_is_made_again() {
        let directory = scratch();
        let path = directory.path().join("broker.log");
        let mut log = LogFile::new(path.clone(), Rotation::default());
        log.append(b"lost\n").expect("an append");
        fs::remove_file(&path).expect("a removal");
        log.looked = None;
        log.append(b"kept\n").expect("an append");
        assert_eq!(text(&path), "kept\n");
    }

    #[test]
    fn a_log_is_never_written_through_a_link() {
        let directory = scratch();
        let victim = directory.path().join("victim");
        fs::write(&victim, "untouched").expect("a file");
        let path = directory.path().join("broker.log");
        symlink(&victim, &path).expect("a link");
        assert!(LogFile::new(path, Rotation::default()).append(b"line\n").is_err());
        assert_eq!(text(&victim), "untouched");
    }

    #[test]
    fn a_log_that_another_user_made_is_not_written_to() {
        let directory = scratch();
        let path = directory.path().join("broker.log");
        fs::write(&path, "").expect("a file");
        if let Err(error) = std::os::unix::fs::chown(&path, Some(65_534), None) {
            println!("NOT TESTED: nothing can be given to another user: {error}");
            return;
        }
        let error = LogFile::new(path.clone(), Rotation::default()).append(b"line\n").expect_err("theirs");
        assert!(error.to_string().contains("belongs to user 65534"), "{error}");
        assert_eq!(text(&path), "");
    }

    #[test]
    fn a_whole_write_replaces_the_file_and_follows_no_planted_link() {
        let directory = scratch();
        let victim = directory.path().join("victim");
        fs::write(&victim, "untouched").expect("a file");
        let path = directory.path().join("devbox.json");
        let temporary = with_suffix(&path, &format!(".{}.tmp", std::process::id()));
        symlink(&victim, &temporary).expect("a link");
        write_whole(&path, b"one", false).expect("a write");
        write_whole(&path, b"two", true).expect("a write");
        assert_eq!(text(&path), "two");
        assert_eq!(text(&victim), "untouched");
        assert!(!temporary.exists());
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn records_are_read_tolerantly() {
        let directory = scratch();
        let put =
            |name: &str, content: &str| fs::write(directory.path().join(name), content).expect("a file");
        put("devbox.json", r#"{"vm":"devbox","timestamp":100,"capabilities":["x"],"new":{"field":1}}"#);
        put("whatever.json", r#"{"vm":"devbox","timestamp":90}"#);
        put("stem.json", r#"{"timestamp":7}"#);
        put("torn.json", r#"{"vm":"torn","times"#);
        put("bad.json", r#"{"vm":"../../etc","timestamp":1}"#);
        put("huge.json", &" ".repeat(70_000));
        put("devbox.json.12.tmp", "{}");
        put("handshake-events.jsonl", "{}");
        symlink("/etc/passwd", directory.path().join("link.json")).expect("a link");
        fs::create_dir(directory.path().join("directory.json")).expect("a directory");
        let mut problems = Vec::new();
        let seen = read_records(directory.path(), &mut problems).expect("the directory");
        let seen: Vec<_> = seen.iter().map(|(name, at)| (name.as_str(), at.unix_seconds())).collect();
        assert_eq!(seen, [("devbox", 100), ("stem", 7)]);
        assert_eq!(problems.len(), 5, "{problems:#?}");
        let missing = read_records(&directory.path().join("missing"), &mut problems).expect("empty");
        assert!(missing.is_empty());
    }
}
