//! `castra logs`: the log files, with or without a broker.

mod fold;

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::id::GuestName;
use castra_core::time::WallTime;
use jiff::Timestamp;

use crate::Context;
use crate::args::{LogLevel, Logs};
use crate::client::shown;
use crate::duration::millis;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::printable;
use fold::Last;

/// Lines shown when nobody says how many.
const LINES: usize = 200;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);

/// A longer line is shown in pieces: the log has none.
const LINE_MAX: usize = 64 * 1024;

/// Which lines to show.
struct Filter {
    since: Option<WallTime>,
    until: Option<WallTime>,
    level: Option<LogLevel>,
    guests: Vec<GuestName>,
}

pub(crate) fn run(cx: &mut Context, args: &Logs) -> Outcome {
    let path = cx.place()?.state_dir.join("logs/broker.log");
    let now = crate::offline::wall_now().unix_millis();
    let ago = |span| {
        WallTime::from_unix_millis(now.saturating_sub(i64::try_from(millis(span)).unwrap_or(i64::MAX)))
    };
    let (since, until) = (args.since.map(ago), args.until.map(ago));
    let filter = Filter { since, until, level: args.level, guests: args.guests.clone() };
    let most = args.lines.unwrap_or(if args.since.is_some() { usize::MAX } else { LINES });
    let wrong = |error: &io::Error| Failure::io(format_args!("can't read {}", shown(&path)), error);
    let mut last = Last::new(most, args.fold);
    let mut current = newest(&path, &mut last, |line| filter.admits(line))?;
    if current.is_none() && last.is_empty() && !args.follow {
        return Err(Failure::new(
            Exit::Offline,
            format!("no log at {}: no broker has run there; is --state-dir right?", shown(&path)),
        ));
    }
    for line in last.lines() {
        cx.out.line(&printable(&line))?;
    }
    while args.follow && !cx.out.gone() {
        // Asked before reading: what was written before a rotation is read to its end.
        let replaced = current.as_ref().is_none_or(|tail| tail.replaced(&path));
        if let Some(tail) = current.as_mut() {
            tail.lines(|line| if filter.admits(line) { cx.out.line(&printable(line)) } else { Ok(()) })
                .map_err(|error| wrong(&error))??;
        }
        if replaced {
            current = Tail::open(&path).map_err(|error| wrong(&error))?;
        }
        if !replaced || current.is_none() {
            cx.out.pause(POLL);
        }
    }
    Ok(Exit::Yes)
}

/// The newest lines of a log, at most `most`, rotated files included.
pub(crate) fn last(path: &Path, most: usize) -> Result<Vec<String>, Failure> {
    let mut last = Last::new(most, false);
    newest(path, &mut last, |_| true)?;
    Ok(last.lines().collect())
}

/// Gives `last` the lines that `admits` lets through; the file that still grows.
fn newest(path: &Path, last: &mut Last, admits: impl Fn(&str) -> bool) -> Result<Option<Tail>, Failure> {
    let wrong = |error: &io::Error| Failure::io(format_args!("can't read {}", shown(path)), error);
    let mut current = None;
    for file in files(path) {
        let Some(mut tail) = Tail::open(&file).map_err(|error| wrong(&error))? else { continue };
        tail.lines(|line| {
            if admits(line) {
                last.push(line);
            }
            Ok(())
        })
        .map_err(|error| wrong(&error))??;
        current = (file == path).then_some(tail);
    }
    Ok(current)
}

/// The log and its rotated predecessors `broker.log.N`, oldest (greatest N) first.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut rotated: Vec<(u32, PathBuf)> = path
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    rotated.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    rotated.into_iter().map(|(_, file)| file).chain([path.to_path_buf()]).collect()
}

/// A log file, read as it grows.
struct Tail {
    reader: BufReader<File>,
    identity: (u64, u64),
    /// How much of it was read.
    read: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Tail {
    /// `None` when there is no such file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        let reader = BufReader::new(file);
        Ok(Some(Self { reader, identity: (meta.dev(), meta.ino()), read: 0, partial: vec![] }))
    }

    /// Whether `path` names another file by now, or one that was emptied.
    fn replaced(&self, path: &Path) -> bool {
        std::fs::metadata(path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) != self.identity || meta.len() < self.read)
    }

    /// Each whole line that is there.
    fn lines(
        &mut self,
        mut show: impl FnMut(&str) -> Result<(), Failure>,
    ) -> io::Result<Result<(), Failure>> {
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(Ok(()));
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.partial.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
            self.reader.consume(taken);
            self.read += taken as u64;
            if end.is_some() || self.partial.len() >= LINE_MAX {
                let shown = show(&String::from_utf8_lossy(&self.partial));
                self.partial.clear();
                if shown.is_err() {
                    return Ok(shown);
                }
            }
        }
    }
}

impl Filter {
    fn admits(&self, line: &str) -> bool {
        (self.guests.is_empty() || self.guests.iter().any(|name| about(line, name)))
            && self.since.is_none_or(|since| stamp(line).is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| stamp(line).is_some_and(|at| at <= until))
            && self.level.is_none_or(|least| level(line).is_some_and(|level| level >= least))
    }
}

/// The level of a line: its word after the time, or after the speaker.
fn level(line: &str) -> Option<LogLevel> {
    line.split(' ').skip(1).take(2).find_map(|word| match word {
        "INFO" => Some(LogLevel::Info),
        "WARN" => Some(LogLevel::Warn),
        "ERROR" => Some(LogLevel::Error),
        _ => None,
    })
}

/// Whether the line names the guest, as `vm:NAME` or `vm=NAME`, whole.
fn about(line: &str, name: &GuestName) -> bool {
    line.split(' ').any(|word| {
        word.strip_prefix("vm:")
            .or_else(|| word.strip_prefix("vm="))
            .is_some_and(|word| word == name.as_str())
    })
}

fn stamp(line: &str) -> Option<WallTime> {
    let at: Timestamp = line.split(' ').next()?.parse().ok()?;
    Some(WallTime::from_unix_millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_matched_by_its_whole_name() {
        let line = "2026-01-02T03:04:05.678Z [host-broker] INFO hello from vm:devbox session=sess-1-1";
        let name = |text: &str| text.parse::<GuestName>().unwrap();
        assert!(about(line, &name("devbox")));
        assert!(!about(line, &name("dev")));
        assert!(!about(line, &name("host-broker")));
        assert!(about("x [host-broker] INFO verdict vm=devbox from=a", &name("devbox")));
    }

    #[test]
    fn since_and_until_judge_by_the_lines_own_time() {
        let at = |seconds: i64| Some(WallTime::from_unix_millis(seconds * 1000));
        let filter = Filter { since: at(1000), until: at(1001), level: None, guests: vec![] };
        assert!(filter.admits("1970-01-01T00:16:40.000Z [host-broker] INFO x"));
        assert!(filter.admits("1970-01-01T00:16:41.000Z [host-broker] INFO x"));
        assert!(!filter.admits("1970-01-01T00:16:39.999Z [host-broker] INFO x"));
        assert!(!filter.admits("1970-01-01T00:16:41.001Z [host-broker] INFO x"));
        assert!(!filter.admits("no time here"));
    }

    #[test]
    fn a_level_admits_itself_and_what_is_graver_and_no_words_of_guests() {
        let filter = Filter { since: None, until: None, level: Some(LogLevel::Warn), guests: vec![] };
        assert!(filter.admits("1970-01-01T00:16:40.000Z [host-broker] WARN x"));
        assert!(filter.admits("1970-01-01T00:16:40.000Z ERROR x"));
        assert!(!filter.admits("1970-01-01T00:16:40.000Z [host-broker] INFO WARN ERROR"));
        assert!(!filter.admits("no level here"));
    }

    #[test]
    fn rotated_files_come_first_the_oldest_before_all() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["broker.log", "broker.log.1", "broker.log.2", "broker.log.10", "broker.log.gz", "broker.out"]
        {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found: Vec<_> = files(&dir.path().join("broker.log"))
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, ["broker.log.10", "broker.log.2", "broker.log.1", "broker.log"]);
    }

    #[test]
    fn a_line_without_its_end_is_held_back_until_it_comes() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut tail = Tail::open(&path).unwrap().unwrap();
        let mut seen = vec![];
        let mut read = |tail: &mut Tail| {
            tail.lines(|line| {
                seen.push(line.to_owned());
                Ok(())
            })
            .unwrap()
            .unwrap();
            seen.join("|")
        };
        assert_eq!(read(&mut tail), "one");
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"o\n").unwrap();
        assert_eq!(read(&mut tail), "one|two");
        assert!(!tail.replaced(&path));
        std::fs::rename(&path, dir.path().join("broker.log.1")).unwrap();
        assert!(!tail.replaced(&path), "nothing has taken its place yet");
        std::fs::write(&path, "three\n").unwrap();
        assert!(tail.replaced(&path));

        let mut tail = Tail::open(&path).unwrap().unwrap();
        tail.lines(|_| Ok(())).unwrap().unwrap();
        assert!(!tail.replaced(&path));
        File::create(&path).unwrap();
        assert!(tail.replaced(&path), "it was emptied in place");
    }
}
