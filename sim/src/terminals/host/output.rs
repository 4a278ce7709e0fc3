//! What the porter of the present daemon tells of a terminal: output when it may,
//! screens when the output has caught up with them, and the end.

use castra_core::terminals::News;

use super::{CHUNK, Host};
use crate::choice::Choice;
use crate::outcome::count;
use crate::terminals::pattern;

impl Host {
    /// Brings output to the daemon, if it may, and goes on with what that makes possible.
    pub(super) fn carry(&mut self, terminal: u32) {
        let ring = self.shape.ring;
        let (Some(it), Some(porter)) = (self.terminals.get_mut(&terminal), self.porters.get_mut(&terminal))
        else {
            return;
        };
        if porter.aside {
            return;
        }
        let mut freed = false;
        if porter.next < it.end
            && let Some(most) = porter.grant.take()
        {
            let length = most.clamp(1, CHUNK).min((it.end - porter.next) as usize);
            let offset = porter.next;
            porter.next += length as u64;
            let fresh = porter.seen < porter.next;
            porter.seen = porter.seen.max(porter.next);
            let mut replies = 0;
            while it.queries.front().is_some_and(|at| *at < porter.next) {
                it.queries.pop_front();
                replies += u32::from(fresh);
            }
            if !it.lost
                && let Some(floor) = porter.let_go(ring, it.floor)
            {
                (it.stored, it.floor, freed) = (Some(porter.stored), floor, true);
            }
            let bytes = pattern::output(terminal, offset, length);
            self.news(terminal, News::Output { offset, bytes: bytes.into() });
            for _ in 0..replies {
                count(&mut self.counts, "reply");
                self.news(terminal, News::Reply(pattern::reply().into()));
            }
        }
        self.take_snapshots(terminal);
        self.tell(terminal);
        if freed {
            self.proceed(terminal);
        }
    }

    /// Answers snapshots, once the output has caught up with the model.
    pub(super) fn take_snapshots(&mut self, terminal: u32) {
        let (Some(it), Some(porter)) = (self.terminals.get(&terminal), self.porters.get_mut(&terminal))
        else {
            return;
        };
        if porter.snapshots.is_empty() || !porter.is_level() && !porter.told {
            return;
        }
        let (asked, seen, size) = (std::mem::take(&mut porter.snapshots), porter.seen, it.size);
        for (job, _) in asked {
            let bytes = self.draws.below(self.shape.snapshot as u32 + 1) as usize;
            let snapshot = pattern::snapshot(terminal, seen, size, bytes);
            self.news(terminal, News::Snapshot(Box::new(snapshot)));
            self.finish(terminal, job, Ok(()));
        }
    }

    /// Tells the end, if everything before it was told.
    pub(super) fn tell(&mut self, terminal: u32) {
        let (Some(it), Some(porter)) = (self.terminals.get(&terminal), self.porters.get_mut(&terminal))
        else {
            return;
        };
        if porter.told || porter.aside || porter.next < it.end {
            return;
        }
        let news = match it.exit.filter(|_| it.closed) {
            Some(exit) => News::Exited(exit),
            None if it.lost => News::Lost { why: "the holder of the terminals is gone".to_owned() },
            None => return,
        };
        porter.told = true;
        self.news(terminal, news);
        self.take_snapshots(terminal);
    }
}
