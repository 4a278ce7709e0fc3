//! What outlives a process, the broker's or an agent's, and the workers that write it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use castra_core::attach::AttachLedger;
use castra_core::auth::Key;
use castra_core::boundary::{Batch, Change, EffectError, EffectErrorKind};
use castra_core::id::GuestName;
use castra_core::peers::{Ledger, MessageId, Pair, Received, Relation};
use castra_core::time::{Time, WallTime};
use castra_core::{Restored, RestoredAgent};
use castra_driver::work::{Done, Job, JobId, Outcome, Work};

use crate::outside::SharedOutside;

/// A state directory, and what is being done to it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) now: Time,
    incarnation: u32,
    tokens: BTreeMap<GuestName, Option<Key>>,
    records: BTreeMap<GuestName, WallTime>,
    peers: Ledger,
    attach: AttachLedger,
    received: BTreeMap<u64, Received>,
    seen: BTreeMap<MessageId, WallTime>,
    jobs: VecDeque<(Time, JobId, Job)>,
    /// Commits fail.
    pub(crate) commits_fail_until: Time,
    /// No file can be written.
    pub(crate) full_until: Time,
    /// Everything takes this long.
    pub(crate) latency: Duration,
    pub(crate) slow_until: Time,
    /// Names whose token changed, for whoever asks.
    pub(crate) tokens_changed: Vec<GuestName>,
    /// Tokens that became durable, for whoever asks.
    pub(crate) durable: Vec<String>,
    /// Commits that became durable.
    pub(crate) commits: u64,
    /// Jobs that failed.
    pub(crate) failures: u64,
    /// Bytes of log lines written.
    pub(crate) written: u64,
    /// Changes about peers that became durable, for whoever asks; `None`: nobody does.
    pub(crate) journal: Option<Vec<Change>>,
    /// Changes about attachments that became durable, for whoever asks; `None`: nobody does.
    pub(crate) attach_journal: Option<Vec<Change>>,
    /// A commit that fails may be there all the same.
    pub(crate) doubtful: bool,
}

/// How long work takes while the disk is slow.
const SLOW: Duration = Duration::from_secs(7);

impl Disk {
    /// A broker starts on it.
    pub(crate) fn restore(&mut self) -> Restored {
        self.incarnation += 1;
        Restored {
            incarnation: self.incarnation,
            tokens: self.tokens.iter().map(|(name, key)| (*name, key.clone())).collect(),
            last_seen: self.records.iter().map(|(name, at)| (*name, *at)).collect(),
            peers: self.peers.restored(),
            manager: self.attach.restored(),
        }
    }

    /// An agent starts on it.
    pub(crate) fn restore_inbox(&self) -> RestoredAgent {
        RestoredAgent {
            messages: self.received.values().cloned().collect(),
            seen: self.seen.iter().map(|(id, at)| (*id, *at)).collect(),
            applied: self.attach.applied(),
        }
    }

    /// A disk for an agent's inbox.
    pub(crate) fn of_inbox() -> Self {
        let latency = Duration::from_millis(2);
        Self { latency, doubtful: true, journal: Some(Vec::new()), ..Self::default() }
    }

    /// The same inbox on another disk.
    pub(crate) fn copy_inbox(&self) -> Self {
        let (received, seen) = (self.received.clone(), self.seen.clone());
        Self { received, seen, attach: self.attach.clone(), ..Self::of_inbox() }
    }

    /// The operator gives a guest a token before anything runs.
    pub(crate) fn provision(&mut self, name: GuestName, key: Key) {
        self.tokens.insert(name, Some(key));
    }

    /// The operator made peers of two guests before anything runs.
    pub(crate) fn provision_peers(&mut self, pair: Pair) {
        self.commit(vec![Change::SetRelation { pair, relation: Some(Relation::Linked) }]);
        self.commits = 0;
    }

    /// Somebody deleted the state directory.
    pub(crate) fn lose(&mut self) {
        self.incarnation = 0;
        self.tokens.clear();
        self.records.clear();
        self.peers = Ledger::default();
        self.attach = AttachLedger::default();
        self.jobs.clear();
    }

    /// The process is gone, and with it everything that was not yet done. Jobs
    /// up to `torn` of the queue are durable all the same.
    pub(crate) fn kill(&mut self, torn: usize) {
        for _ in 0..torn {
            if let Some((_, _, job)) = self.jobs.pop_front() {
                let _ = self.apply(job);
            }
        }
        self.jobs.clear();
    }

    /// The token that the name has now.
    pub(crate) fn token(&self, name: &GuestName) -> Option<&Key> {
        self.tokens.get(name)?.as_ref()
    }

    /// Whether the name had a token, and has none now.
    pub(crate) fn is_revoked(&self, name: &GuestName) -> bool {
        self.tokens.get(name).is_some_and(Option::is_none)
    }

    pub(crate) fn queued(&self) -> usize {
        self.jobs.len()
    }

    /// When the next piece of work ends.
    pub(crate) fn next(&self) -> Option<Time> {
        self.jobs.front().map(|(at, ..)| *at)
    }

    /// Ends work that is due.
    pub(crate) fn finish(&mut self, done: &mut Vec<Done>) {
        while self.next().is_some_and(|at| at <= self.now) {
            let Some((_, job, work)) = self.jobs.pop_front() else { return };
            let outcome = self.apply(work);
            done.push(Done { job, outcome });
        }
    }

    /// No fault any more.
    pub(crate) fn heal(&mut self) {
        self.commits_fail_until = Time::ZERO;
        self.full_until = Time::ZERO;
        self.slow_until = Time::ZERO;
        for (at, ..) in &mut self.jobs {
            *at = (*at).min(self.now);
        }
    }

    fn apply(&mut self, job: Job) -> Outcome {
        let full = self.now < self.full_until;
        let failing = full || self.now < self.commits_fail_until;
        let result = match job {
            Job::Append(lines) => {
                let error = full.then(|| "no space left on device".to_owned());
                self.failures += u64::from(full);
                self.written += if full { 0 } else { lines.len() as u64 };
                return Outcome::Appended { bytes: lines.len(), error };
            }
            Job::Persist(batch) if failing => {
                if self.doubtful && self.failures.is_multiple_of(2) {
                    self.commit(batch);
                }
                Err("the commit failed")
            }
            Job::Persist(batch) => {
                self.commit(batch);
                Ok(())
            }
            Job::WriteRecord(_) if full => Err("no space left on device"),
            Job::WriteRecord(record) => {
                let at = i64::try_from(record.timestamp).unwrap_or(i64::MAX).saturating_mul(1000);
                self.records.insert(record.vm, WallTime::from_unix_millis(at));
                Ok(())
            }
            Job::RemoveRecord(name) => {
                self.records.remove(&name);
                Ok(())
            }
            _ => Ok(()),
        };
        self.failures += u64::from(result.is_err());
        let storage =
            |message: &str| EffectError { kind: EffectErrorKind::Storage, message: message.to_owned() };
        Outcome::Finished(result.map_err(storage))
    }

    fn commit(&mut self, batch: Batch) {
        self.commits += 1;
        if let Some(journal) = &mut self.journal {
            journal.extend(batch.iter().filter(|change| is_about_peers(change)).cloned());
        }
        if let Some(journal) = &mut self.attach_journal {
            journal.extend(batch.iter().filter(|change| is_about_attachments(change)).cloned());
        }
        batch.into_iter().for_each(|change| self.change(change));
    }

    fn change(&mut self, change: Change) {
        self.peers.apply(&change);
        self.attach.apply(&change);
        match change {
            Change::Incarnation(incarnation) => self.incarnation = self.incarnation.max(incarnation),
            Change::SetToken { guest, key } => {
                self.tokens_changed.push(guest);
                self.durable.extend(key.as_ref().map(Key::expose_token));
                self.tokens.insert(guest, key);
            }
            Change::Forget { guest } => {
                self.tokens_changed.push(guest);
                self.records.remove(&guest);
                if let Some(key) = self.tokens.get_mut(&guest) {
                    *key = None;
                }
            }
            Change::SetReceived(message) => {
                self.received.insert(message.number, *message);
            }
            Change::DropReceived { number } => {
                self.received.remove(&number);
            }
            Change::SetSeen { id, at: Some(at) } => {
                self.seen.insert(id, at);
            }
            Change::SetSeen { id, at: None } => {
                self.seen.remove(&id);
            }
            _ => {}
        }
    }
}

/// Whether peers, or their messages, are not the same after it.
pub(crate) const fn is_about_peers(change: &Change) -> bool {
    !matches!(
        change,
        Change::Incarnation(_)
            | Change::SetToken { .. }
            | Change::SetAttachment(_)
            | Change::DropAttachment { .. }
            | Change::SetAction(_)
            | Change::DropAction { .. }
            | Change::SetApplied(_)
            | Change::DropApplied { .. }
    )
}

/// Whether attachments, or their actions, are not the same after it.
const fn is_about_attachments(change: &Change) -> bool {
    matches!(
        change,
        Change::SetAttachment(_)
            | Change::DropAttachment { .. }
            | Change::SetAction(_)
            | Change::DropAction { .. }
            | Change::Forget { .. }
    )
}

/// The workers of one broker, or of one agent.
#[derive(Clone, Debug)]
pub(crate) struct SimWork {
    pub(crate) disk: Rc<RefCell<Disk>>,
    outside: Option<SharedOutside>,
}

impl SimWork {
    pub(crate) fn new(disk: Rc<RefCell<Disk>>, outside: Option<SharedOutside>) -> Self {
        Self { disk, outside }
    }
}

impl Work for SimWork {
    fn submit(&mut self, id: JobId, job: Job) {
        if let (Job::Http { .. } | Job::Type { .. }, Some(outside)) = (&job, &self.outside) {
            return outside.borrow_mut().submit(id, job);
        }
        let mut disk = self.disk.borrow_mut();
        let takes = if disk.now < disk.slow_until { SLOW } else { disk.latency };
        // One worker, so the order of submission is the order of ends.
        let last = disk.jobs.back().map_or(Time::ZERO, |(at, ..)| *at);
        let at = (disk.now + takes).max(last);
        disk.jobs.push_back((at, id, job));
    }

    fn cancel(&mut self, id: JobId) {
        if let Some(outside) = &self.outside {
            outside.borrow_mut().cancel(id);
        }
    }
}
