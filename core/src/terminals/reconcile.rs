//! What a daemon finds when it starts, and what becomes of it.
//!
//! | the journal says | the holder has | what becomes of it |
//! |---|---|---|
//! | it ended | anything | listed until ten minutes after its end, and let go |
//! | it runs | the same process in the same boot | adopted |
//! | it was being started | anything by that number | adopted |
//! | it runs | another process | that one is killed; `unrecoverable:process_changed` |
//! | it runs | nothing | restored, if the policy says so; otherwise `unrecoverable:rebooted`, or `unrecoverable:holder_lost` in the same boot |
//! | nothing | a terminal | adopted: losing the journal must not cost a program |

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use super::config::RestorePolicy;
use super::cx::Purpose;
use super::engine::Terminals;
use super::ring::Ring;
use super::session::{Session, reach};
use super::wire::State;
use super::{Deed, Held, Launch, Recovery, RestoredTerminals, Snapshot, Tail, TerminalRecord};
use crate::event::TerminalFact;
use crate::id::TerminalId;

impl Terminals {
    pub(super) fn reconcile(&mut self, restored: RestoredTerminals) {
        let RestoredTerminals { records, held, .. } = restored;
        let mut held: BTreeMap<TerminalId, Held> =
            held.into_iter().map(|held| (held.terminal, held)).collect();
        let above = records.iter().map(|(record, _)| record.terminal).chain(held.keys().copied()).max();
        if let Some(TerminalId(number)) = above {
            self.journal.stay_above(number);
        }
        let known = (records.len() + held.len()) as u64;
        self.cx.event(TerminalFact::Started { terminals: known });
        let mut records = records;
        records.sort_by_key(|(record, _)| record.terminal);
        for (record, tail) in records {
            let held = held.remove(&record.terminal);
            self.reconcile_one(record, tail, held);
        }
        for held in held.into_values() {
            let launch = Launch {
                program: Default::default(),
                args: Default::default(),
                cwd: Default::default(),
                env: Default::default(),
                cols: held.cols.max(1),
                rows: held.rows.max(1),
            };
            let session = Session::new(&mut self.cx, held.terminal, launch, held.first);
            self.sessions.insert(held.terminal, session);
            self.adopt(&held);
        }
    }

    fn reconcile_one(&mut self, record: TerminalRecord, tail: Option<Tail>, held: Option<Held>) {
        let TerminalRecord { terminal, key, launch, command, reached, pid, start_time, boot, pts, .. } =
            record;
        let first = held.as_ref().map_or(reached.max(reach(0)), |held| held.first);
        let mut session = Session::new(&mut self.cx, terminal, launch, first);
        session.key = key.map(Into::into);
        session.command = command;
        session.reached = session.reached.max(reached);
        (session.pid, session.start_time, session.boot, session.pts) = (pid, start_time, boot, pts);
        (session.created_at, session.last_attached_at) = (record.created_at, record.last_attached_at);
        session.recovery = record.recovery;
        session.tail = tail.map(Box::new);
        if let Some(key) = session.key.as_deref() {
            let former = self.keys.get(key).and_then(|former| self.sessions.get(former));
            if record.exited.is_none() || former.is_none_or(|former| !former.is_alive()) {
                self.keys.insert(key.into(), terminal);
            }
        }
        let same_boot = boot == self.boot;
        self.sessions.insert(terminal, session);
        if let Some((exit, at)) = record.exited {
            return self.reconcile_ended(terminal, (exit, at), held.is_some());
        }
        match held {
            Some(held) if pid == 0 || (held.pid == pid && held.start_time == start_time && same_boot) => {
                self.adopt(&held);
            }
            Some(_) => {
                self.cx.deed(terminal, Deed::Kill, Purpose::Nothing);
                self.cx.deed(terminal, Deed::Release, Purpose::Nothing);
                self.bury(terminal, "process_changed");
            }
            None => {
                let policy = self.cx.config.restore;
                let wanted = policy == RestorePolicy::All || (policy == RestorePolicy::Shells && !command);
                if wanted && self.alive() <= self.cx.config.sessions_max {
                    self.restore(terminal);
                } else {
                    self.bury(terminal, if same_boot { "holder_lost" } else { "rebooted" });
                }
            }
        }
    }

    fn reconcile_ended(&mut self, terminal: TerminalId, ended: (super::Exit, i64), is_held: bool) {
        if is_held {
            self.cx.deed(terminal, Deed::Release, Purpose::Nothing);
        }
        // The one time that wall times are compared: the boot clock knows nothing of it.
        let age = u64::try_from(self.cx.wall_seconds().saturating_sub(ended.1)).unwrap_or(0);
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        session.state = State::Exited;
        session.exited = Some(ended);
        session.released = true;
        let content = session.tail.as_ref().map(|tail| tail.content.clone()).unwrap_or_default();
        session.last = Some(Box::new(Snapshot { content, ..session.blank() }));
        let left = self.cx.config.exited_kept.saturating_sub(core::time::Duration::from_secs(age));
        if left.is_zero() {
            return self.forget(terminal, true);
        }
        session.times.forget = Some(self.cx.at() + left);
        session.arm(&mut self.cx);
    }

    fn adopt(&mut self, held: &Held) {
        let Some(session) = self.sessions.get_mut(&held.terminal) else { return };
        (session.pid, session.start_time, session.boot) = (held.pid, held.start_time, self.boot);
        session.pts.clone_from(&held.pts);
        (session.launch.cols, session.launch.rows) = (held.cols.max(1), held.rows.max(1));
        session.ring = Ring::new(self.cx.config.ring, held.first);
        session.known_end = held.end;
        session.reached = session.reached.max(reach(held.end));
        session.recovery = Some(Recovery::Adopted);
        self.cx.deed(held.terminal, Deed::Adopt, Purpose::Adopt(held.terminal));
    }

    /// Once it is durable that this is being started: its offsets are new ones.
    fn restore(&mut self, terminal: TerminalId) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        session.recovery = Some(Recovery::Restored);
        (session.pid, session.start_time) = (0, 0);
        session.unspawned = true;
        self.journal.mark_new(terminal);
    }

    /// Starts what was to be written down first.
    pub(super) fn spawn_restored(&mut self, terminal: TerminalId) {
        let Some(session) = self.sessions.get_mut(&terminal) else { return };
        if core::mem::take(&mut session.unspawned) {
            let (launch, first) = (Box::new(session.launch.clone()), session.ring.end());
            let deed = Deed::Spawn { launch, first, tail: session.tail.clone() };
            self.cx.deed(terminal, deed, Purpose::Spawn(terminal));
        }
    }
}
