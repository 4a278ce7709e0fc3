//! The files that others read, after a broker was killed and after the next one began.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::load::{Random, Site};
use crate::promises::Cursors;

/// Lines that only grow.
const LOGS: [&str; 4] = [
    "logs/events.jsonl",
    "handshakes/handshake-events.jsonl",
    "logs/broker.log",
    "logs/terminals-events.jsonl",
];
/// What a process leaves that is killed within a write.
const TORN: &str = "{\"torn\":";

#[derive(Default)]
pub(crate) struct Files {
    /// How far each log was read: its file and how many bytes.
    read: BTreeMap<&'static str, (u64, u64)>,
    /// Within which line each log stopped when its broker was killed.
    torn: BTreeMap<&'static str, String>,
    cursors: Cursors,
}

impl Files {
    /// No broker is there.
    pub(crate) fn after_a_kill(&mut self, site: &Site, random: &mut Random) {
        let state = site.world.state();
        for entry in fs::read_dir(state.join("handshakes")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "json") {
                let record: Value = serde_json::from_slice(&fs::read(&path).unwrap())
                    .unwrap_or_else(|error| panic!("broken promise: {}: {error}", path.display()));
                assert!(record["vm"].is_string() && record["timestamp"].is_u64(), "{record}");
                site.count("record files read");
            }
        }
        for name in LOGS {
            self.lines(site, name);
        }
        // Such a moment is rarer than this loop is long, so it is made.
        if random.one_in(8) {
            for name in LOGS {
                let path = state.join(name);
                if path.exists() {
                    File::options().append(true).open(path).unwrap().write_all(TORN.as_bytes()).unwrap();
                    self.torn.entry(name).or_default().push_str(TORN);
                }
            }
            site.count("log lines torn");
        }
    }

    /// A broker serves: nothing is left of those before it.
    pub(crate) fn after_a_start(site: &Site, pid: u32) {
        let own = format!(".{pid}.tmp");
        let state = site.world.state();
        for folder in [state.clone(), state.join("handshakes"), state.join("logs")] {
            for path in names(&folder) {
                let name = path.file_name().unwrap().to_str().unwrap();
                let left = name.ends_with(".tmp") && !name.ends_with(&own);
                assert!(!left, "a file of a broker that was killed: {}", path.display());
                assert!(
                    !name.contains(".damaged-"),
                    "broken promise: a database is damaged: {}",
                    path.display()
                );
            }
        }
    }

    /// The broker took leave: only what is meant to stay is there.
    pub(crate) fn after_the_end(site: &Site) {
        let state = site.world.state();
        for path in names(&state).into_iter().chain(names(&state.join("handshakes"))) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let left = [".sock", ".tmp", ".pid"].iter().any(|end| name.ends_with(end));
            // The holder of terminals is there until it is ended.
            assert!(!left || name.contains("holder"), "left behind: {}", path.display());
        }
        let rest = names(&site.world.path("tmp"));
        assert!(rest.is_empty(), "left behind: {rest:?}");
    }

    /// Reads what is new in a log: whole lines, but for the last one of a process that was killed.
    fn lines(&mut self, site: &Site, name: &'static str) {
        let path = site.world.state().join(name);
        let Ok(mut file) = File::open(&path) else { return };
        let inode = file.metadata().unwrap().ino();
        let mut text = String::new();
        let mut from = 0;
        if let Some((before, read)) = self.read.get(name).copied() {
            if before == inode {
                from = read;
            } else {
                // It was set aside: what came before that is in the newest of those.
                let mut aside = File::open(site.world.state().join(format!("{name}.1"))).unwrap();
                assert_eq!(aside.metadata().unwrap().ino(), before, "{name} was set aside twice");
                aside.seek(SeekFrom::Start(read)).unwrap();
                aside.read_to_string(&mut text).unwrap();
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
            }
        }
        let aside = text.len();
        file.seek(SeekFrom::Start(from)).unwrap();
        file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read.insert(name, (inode, from + whole.saturating_sub(aside) as u64));
        let mut before = None;
        if whole > 0 {
            before = self.torn.remove(name);
        }
        if whole < text.len() {
            self.torn.insert(name, text[whole..].to_owned());
        }
        for line in text[..whole].lines() {
            // Half a line stands alone: whatever was written next began one of its own.
            if before.take().is_some_and(|torn| torn == line) {
                continue;
            }
            site.count("log lines read");
            if name.ends_with(".jsonl") {
                let parsed: Value = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("broken promise: {name}: {error}: {line}"));
                if let (Some(cursor), "logs/events.jsonl") = (parsed["cursor"].as_str(), name) {
                    // What was not written yet is lost with its broker.
                    self.cursors.next(cursor, cursor.ends_with("-1"));
                }
            } else {
                let right = line.as_bytes().first().is_some_and(u8::is_ascii_digit)
                    && line.contains(" [host-broker] ");
                assert!(right, "broken promise: {name}: {line}");
            }
        }
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
