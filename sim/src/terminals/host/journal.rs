//! What is durable of terminals, and the one writer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use castra_core::boundary::{Batch, Change, EffectError, EffectErrorKind};
use castra_core::id::TerminalId;
use castra_core::terminals::{Tail, TerminalRecord};
use castra_core::time::Time;
use castra_driver::work::{Done, JobId, Outcome};

/// The database.
#[derive(Debug, Default)]
pub(in crate::terminals) struct Journal {
    next_id: u32,
    records: BTreeMap<TerminalId, TerminalRecord>,
    tails: BTreeMap<TerminalId, Tail>,
    ever: BTreeSet<TerminalId>,
    jobs: VecDeque<(Time, JobId, Batch)>,
    /// Commits fail.
    pub(in crate::terminals) fails_until: Time,
    pub(in crate::terminals) slow_until: Time,
    pub(in crate::terminals) commits: u64,
    pub(in crate::terminals) failures: u64,
    /// What no terminal's daemon may ask for.
    pub(in crate::terminals) nonsense: Option<String>,
}

/// How long a commit takes, and while the disk is slow.
const COMMIT: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_secs(3);

impl Journal {
    pub(in crate::terminals) fn next_id(&self) -> u32 {
        let used = self.records.keys().map(|terminal| terminal.0 + 1).max().unwrap_or(1);
        self.next_id.max(used)
    }

    pub(in crate::terminals) fn records(&self) -> Vec<(TerminalRecord, Option<Tail>)> {
        let tail = |terminal| self.tails.get(terminal).cloned();
        self.records.iter().map(|(terminal, record)| (record.clone(), tail(terminal))).collect()
    }

    /// Whether the terminal has, or had, a record.
    pub(in crate::terminals) fn had(&self, terminal: u32) -> bool {
        self.ever.contains(&TerminalId(terminal))
    }

    pub(in crate::terminals) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn submit(&mut self, now: Time, id: JobId, batch: Batch) {
        let takes = if now < self.slow_until { SLOW } else { COMMIT };
        let last = self.jobs.back().map_or(Time::ZERO, |(at, ..)| *at);
        self.jobs.push_back(((now + takes).max(last), id, batch));
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.jobs.front().map(|(at, ..)| *at)
    }

    pub(in crate::terminals) fn pending(&self) -> usize {
        self.jobs.len()
    }

    /// Ends commits that are due.
    pub(super) fn finish(&mut self, now: Time, mut done: impl FnMut(Done)) {
        while self.next().is_some_and(|at| at <= now) {
            let Some((_, job, batch)) = self.jobs.pop_front() else { return };
            let mut result = Ok(());
            if now < self.fails_until {
                self.failures += 1;
                // A commit that fails may be there all the same.
                if self.failures.is_multiple_of(2) {
                    self.commit(batch);
                }
                let message = "the commit failed".to_owned();
                result = Err(EffectError { kind: EffectErrorKind::Storage, message });
            } else {
                self.commit(batch);
            }
            done(Done { job, outcome: Outcome::Finished(result) });
        }
    }

    /// The daemon is gone. Its first `torn` commits are there all the same.
    pub(super) fn kill(&mut self, torn: usize) {
        for _ in 0..torn {
            if let Some((_, _, batch)) = self.jobs.pop_front() {
                self.commit(batch);
            }
        }
        self.jobs.clear();
    }

    pub(in crate::terminals) fn heal(&mut self, now: Time) {
        (self.fails_until, self.slow_until) = (Time::ZERO, Time::ZERO);
        for (at, ..) in &mut self.jobs {
            *at = (*at).min(now);
        }
    }

    fn commit(&mut self, batch: Batch) {
        self.commits += 1;
        for change in batch {
            match change {
                Change::SetTerminalIds(next) => self.next_id = next,
                Change::SetTerminal(record) => {
                    self.ever.insert(record.terminal);
                    self.records.insert(record.terminal, *record);
                }
                Change::SetTail { terminal, tail } => {
                    self.tails.insert(terminal, *tail);
                }
                Change::DropTerminal { terminal } => {
                    self.records.remove(&terminal);
                    self.tails.remove(&terminal);
                }
                other => self.nonsense = Some(format!("{other:?} is no change of terminals")),
            }
        }
    }
}
