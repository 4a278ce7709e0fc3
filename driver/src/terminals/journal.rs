//! The journal of terminals: what they were, for a daemon that starts again.

use std::path::{Path, PathBuf};

use castra_core::boundary::{Batch, Change};
use castra_core::id::TerminalId;
use castra_core::terminals::{Tail, TerminalRecord};
use castra_core::time::WallTime;
use redb::{Error, ReadableTable, TableDefinition};

use crate::database::{Commit, DatabaseFile, Opened};
use crate::store::StoreError;

/// The journal's name beside a terminals socket.
pub const JOURNAL_FILE: &str = "terminals.redb";

/// Records by number, as JSON.
const TERMINALS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("terminals");
/// Tails by number, as JSON.
const TAILS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("tails");
/// `next`: numbers below it were given out.
const NUMBERS: TableDefinition<'_, &str, u32> = TableDefinition::new("numbers");
const NEXT: &str = "next";

/// The open database. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct Journal {
    file: DatabaseFile,
}

/// What was found at start.
#[derive(Debug)]
pub struct JournalFound {
    /// Numbers below this were given out.
    pub next_id: u32,
    /// Records, with the tails of those that have one.
    pub records: Vec<(TerminalRecord, Option<Tail>)>,
    /// A damaged database was set aside under this name, and what is wrong with
    /// it. Say so loudly.
    pub set_aside: Option<(PathBuf, String)>,
}

impl Journal {
    /// Opens the file and reads it. A damaged one is set aside as
    /// `NAME.damaged-DATE`, never deleted.
    ///
    /// # Errors
    /// It can't be opened or written for a reason other than damage.
    pub fn open(path: &Path, now: WallTime) -> Result<(Self, JournalFound), StoreError> {
        let Opened { file, read: (next_id, records), set_aside } = DatabaseFile::open(path, now, read)?;
        Ok((Self { file }, JournalFound { next_id, records, set_aside }))
    }
}

impl Commit for Journal {
    fn commit(&mut self, batches: &[&Batch]) -> Result<(), Error> {
        self.file.commit(|transaction| {
            let mut terminals = transaction.open_table(TERMINALS)?;
            let mut tails = transaction.open_table(TAILS)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            for change in batches.iter().copied().flatten() {
                match change {
                    Change::SetTerminalIds(next) => {
                        numbers.insert(NEXT, next)?;
                    }
                    Change::SetTerminal(record) => {
                        let row = serde_json::to_vec(record).map_err(std::io::Error::from)?;
                        terminals.insert(record.terminal.0, row.as_slice())?;
                    }
                    Change::SetTail { terminal, tail } => {
                        let row = serde_json::to_vec(tail).map_err(std::io::Error::from)?;
                        tails.insert(terminal.0, row.as_slice())?;
                    }
                    Change::DropTerminal { terminal } => {
                        terminals.remove(terminal.0)?;
                        tails.remove(terminal.0)?;
                    }
                    _ => return Err(Error::Corrupted("a change that no terminal makes".into())),
                }
            }
            Ok(())
        })
    }
}

type Read = (u32, Vec<(TerminalRecord, Option<Tail>)>);

fn read(file: &mut DatabaseFile) -> Result<Read, Error> {
    // Creates the tables of a new file.
    file.transact(|transaction| {
        transaction.open_table(TERMINALS)?;
        transaction.open_table(TAILS)?;
        transaction.open_table(NUMBERS)?;
        Ok(())
    })?;
    let transaction = file.begin_read()?;
    let next = transaction.open_table(NUMBERS)?.get(NEXT)?.map_or(1, |next| next.value());
    let tails = transaction.open_table(TAILS)?;
    let mut records = Vec::new();
    for row in transaction.open_table(TERMINALS)?.iter()? {
        let (number, row) = row?;
        let number = number.value();
        let damaged = |what: &str| Error::Corrupted(format!("the {what} of terminal {number}"));
        let record = serde_json::from_slice::<TerminalRecord>(row.value()).ok();
        let record = record.filter(|record| record.terminal == TerminalId(number));
        let tail = tails.get(number)?.map(|row| serde_json::from_slice(row.value())).transpose();
        records.push((record.ok_or_else(|| damaged("record"))?, tail.map_err(|_| damaged("tail"))?));
    }
    // Whatever the number says, no record's is given out again.
    let used = records.iter().map(|(record, _)| record.terminal.0.saturating_add(1)).max().unwrap_or(1);
    Ok((next.max(used), records))
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::terminals::{Exit, Launch, Recovery};
    use std::fs;

    fn open(path: &Path) -> (Journal, JournalFound) {
        Journal::open(path, WallTime::from_unix_millis(1_800_000_000_000)).expect("a journal")
    }

    fn record(number: u32) -> TerminalRecord {
        TerminalRecord {
            terminal: TerminalId(number),
            key: number.is_multiple_of(2).then(|| format!("key \u{1f980} {number}")),
            launch: Launch {
                program: "/bin/sh".into(),
                args: vec!["-c".into(), "a \"b\"".into()],
                cwd: "/tmp".into(),
                env: vec![("A".into(), "b=c".into())],
                cols: 80,
                rows: 24,
            },
            command: true,
            reached: 1 << 40,
            pid: 4242,
            start_time: u64::MAX,
            boot: [7; 16],
            pts: "/dev/pts/3".into(),
            created_at: 1_800_000_000,
            last_attached_at: 1_800_000_001,
            exited: (number > 2).then_some((Exit { code: 137, signal: Some(9) }, 1_800_000_002)),
            recovery: (number > 1).then(|| Recovery::Unrecoverable("rebooted".into())),
        }
    }

    fn tail(content: &str) -> Tail {
        Tail { content: content.into(), cols: 80, rows: 24 }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(JOURNAL_FILE);
        let (mut journal, found) = open(&path);
        assert_eq!((found.next_id, found.records.len(), found.set_aside), (1, 0, None));
        let set = |number| Change::SetTerminal(Box::new(record(number)));
        let first = vec![Change::SetTerminalIds(65), set(1), set(2), set(3)];
        let second = vec![
            Change::SetTail { terminal: TerminalId(2), tail: Box::new(tail("old")) },
            Change::SetTail { terminal: TerminalId(2), tail: Box::new(tail("new \u{1b}[1m")) },
            Change::SetTail { terminal: TerminalId(3), tail: Box::new(tail("gone")) },
            Change::DropTerminal { terminal: TerminalId(3) },
        ];
        journal.commit(&[&first, &second]).expect("a commit");
        drop(journal);
        let (mut journal, found) = open(&path);
        assert_eq!(found.next_id, 65);
        assert_eq!(found.records, [(record(1), None), (record(2), Some(tail("new \u{1b}[1m")))]);
        // A number that comes again has nothing of the one before.
        journal.commit(&[&vec![set(3)]]).expect("a commit");
        drop(journal);
        assert_eq!(open(&path).1.records[2], (record(3), None));
    }

    #[test]
    fn a_change_of_somebody_else_is_refused_with_all_that_came_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(JOURNAL_FILE);
        let (mut journal, _) = open(&path);
        let alien = vec![Change::SetTerminal(Box::new(record(1))), Change::Incarnation(7)];
        journal.commit(&[&alien]).expect_err("refused");
        drop(journal);
        assert_eq!(open(&path).1.records, []);
    }

    #[test]
    fn a_foreign_a_torn_and_a_wrong_file_are_set_aside_and_never_deleted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(JOURNAL_FILE);
        let (mut journal, _) = open(&path);
        journal.commit(&[&vec![Change::SetTerminal(Box::new(record(1)))]]).expect("a commit");
        drop(journal);
        let good = fs::read(&path).expect("a file");
        let foreign = b"\x91\x80 an array of maps, as the published daemon writes".to_vec();
        let torn = good[..good.len() / 3].to_vec();
        for (count, content) in [foreign, torn].into_iter().enumerate() {
            fs::write(&path, &content).expect("a write");
            let (_, found) = open(&path);
            let (aside, _) = found.set_aside.expect("set aside");
            assert_eq!(fs::read(aside).expect("kept"), content);
            assert_eq!((found.next_id, found.records.len()), (1, 0), "{count}");
        }
        // A record that is not what its number says.
        let (mut journal, _) = open(&path);
        journal
            .file
            .transact(|transaction| {
                let row = serde_json::to_vec(&record(5)).expect("a row");
                transaction.open_table(TERMINALS)?.insert(6, row.as_slice())?;
                Ok(())
            })
            .expect("a commit");
        drop(journal);
        let (_, found) = open(&path);
        assert!(found.set_aside.expect("set aside").1.contains("the record of terminal 6"));
    }

    #[test]
    fn numbers_are_never_given_out_again_even_if_the_counter_is_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(JOURNAL_FILE);
        let (mut journal, _) = open(&path);
        let batch = vec![Change::SetTerminalIds(3), Change::SetTerminal(Box::new(record(9)))];
        journal.commit(&[&batch]).expect("a commit");
        drop(journal);
        assert_eq!(open(&path).1.next_id, 10);
    }
}
