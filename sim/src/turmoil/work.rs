//! Workers on a host's own time, and the disk that outlives the host.

use core::time::Duration;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use castra_core::Restored;
use castra_core::auth::Key;
use castra_core::boundary::{Batch, Change, EffectError, EffectErrorKind};
use castra_core::id::GuestName;
use castra_core::time::{Time, WallTime};
use castra_driver::work::{Done, Job, JobId, Outcome, Work};

use super::clock::Clock;
use crate::choice::{Choice, Seeded};

/// How long ordinary work takes, and work on a slow disk.
const QUICK: Duration = Duration::from_millis(3);
const SLOW: Duration = Duration::from_secs(3);

/// What a crash leaves: the database and the record files.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    incarnation: u32,
    pub(crate) tokens: BTreeMap<GuestName, Option<Key>>,
    records: BTreeMap<GuestName, WallTime>,
    /// Every token that was ever committed.
    pub(crate) committed: Vec<Key>,
    pub(crate) trouble: Trouble,
}

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) commits_fail: bool,
    pub(crate) full: bool,
    pub(crate) slow: bool,
    /// The next commit is the last thing that the process does.
    pub(crate) torn: bool,
    /// It was.
    pub(crate) tore: bool,
}

impl Storage {
    /// What the next broker starts from. Without a directory the count goes on
    /// from the wall clock, as the driver's store does.
    pub(crate) fn restore(&mut self) -> Restored {
        self.incarnation += 1;
        Restored {
            incarnation: self.incarnation,
            tokens: self.tokens.iter().map(|(name, key)| (*name, key.clone())).collect(),
            last_seen: self.records.iter().map(|(name, at)| (*name, *at)).collect(),
        }
    }

    /// Somebody empties the state directory.
    pub(crate) fn lose(&mut self, wall: WallTime) {
        self.incarnation = self.incarnation.max(u32::try_from(wall.unix_seconds()).unwrap_or(u32::MAX / 2));
        self.tokens.clear();
        self.records.clear();
    }

    fn commit(&mut self, batch: Batch) {
        for change in batch {
            match change {
                Change::Incarnation(number) => self.incarnation = self.incarnation.max(number),
                Change::SetToken { guest, key } => {
                    self.committed.extend(key.clone());
                    self.tokens.insert(guest, key);
                }
                Change::Forget { guest } => {
                    self.records.remove(&guest);
                    if let Some(key) = self.tokens.get_mut(&guest) {
                        *key = None;
                    }
                }
                _ => {}
            }
        }
    }
}

/// Work that ends after a while. A crash takes along what has not ended.
#[derive(Debug)]
pub(crate) struct TurmoilWork {
    storage: Rc<RefCell<Storage>>,
    clock: Rc<Clock>,
    choice: Seeded,
    queue: VecDeque<(Time, JobId, Job)>,
}

impl TurmoilWork {
    pub(crate) const fn new(storage: Rc<RefCell<Storage>>, clock: Rc<Clock>, choice: Seeded) -> Self {
        Self { storage, clock, choice, queue: VecDeque::new() }
    }

    /// When the next work ends.
    pub(crate) fn due(&self) -> Option<Time> {
        self.queue.front().map(|(at, ..)| *at)
    }

    /// Moves what has ended by `now` to `done`.
    pub(crate) fn collect(&mut self, now: Time, done: &mut Vec<Done>) {
        while self.due().is_some_and(|at| at <= now) {
            let Some((_, job_id, job)) = self.queue.pop_front() else { return };
            if let Some(outcome) = perform(&mut self.storage.borrow_mut(), job) {
                done.push(Done { job: job_id, outcome });
            }
        }
    }
}

impl Work for TurmoilWork {
    /// One lane for everything: the order of commits is that of the questions.
    fn submit(&mut self, id: JobId, job: Job) {
        let most = if self.storage.borrow().trouble.slow { SLOW } else { QUICK };
        let at = self.clock.now().boot + self.choice.span(most);
        let last = self.queue.back().map_or(Time::ZERO, |(at, ..)| *at);
        self.queue.push_back((at.max(last), id, job));
    }
}

/// Does it; `None` if nobody lives to hear of it.
fn perform(storage: &mut Storage, job: Job) -> Option<Outcome> {
    let Trouble { commits_fail, full, torn, .. } = storage.trouble;
    Some(match job {
        Job::Persist(_) if commits_fail => failed("the disk can't be written"),
        Job::Persist(batch) => {
            storage.commit(batch);
            if torn {
                storage.trouble.tore = true;
                return None;
            }
            Outcome::Finished(Ok(()))
        }
        Job::WriteRecord(_) if full => failed("no space left"),
        Job::WriteRecord(record) => {
            let seconds = i64::try_from(record.timestamp).unwrap_or(i64::MAX);
            storage.records.insert(record.vm, WallTime::from_unix_millis(seconds.saturating_mul(1000)));
            Outcome::Finished(Ok(()))
        }
        Job::RemoveRecord(guest) => {
            storage.records.remove(&guest);
            Outcome::Finished(Ok(()))
        }
        Job::Append(append) => {
            Outcome::Appended { bytes: append.len(), error: full.then(|| "no space left".to_owned()) }
        }
        Job::Reopen => Outcome::Finished(Ok(())),
        _ => Outcome::Resolved(Err(error(EffectErrorKind::Unreachable, "there are no names here"))),
    })
}

fn failed(message: &str) -> Outcome {
    Outcome::Finished(Err(error(EffectErrorKind::Storage, message)))
}

fn error(kind: EffectErrorKind, message: &str) -> EffectError {
    EffectError { kind, message: message.to_owned() }
}
