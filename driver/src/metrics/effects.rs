//! How long workers take, and how much waits for them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use castra_core::event::Storage;

use super::numbers::{Counts, EFFECT, Histogram, JOBS, Labels, OUTCOMES, Stores};
use crate::work::{Done, Job, JobId, Outcome};

/// Looks on while jobs are given out and come back.
#[derive(Debug)]
pub(crate) struct EffectMeter {
    counted: Effects,
    /// What is under way, in the order of its beginning: an append is like the next.
    open: HashMap<JobId, VecDeque<(&'static str, Instant)>>,
}

/// What came of it so far.
#[derive(Clone, Debug)]
pub(crate) struct Effects {
    pub(super) ended: Counts<2>,
    pub(super) times: BTreeMap<Labels<1>, Histogram>,
    pub(super) in_flight: BTreeMap<Labels<1>, u64>,
    /// The log: the engine never hears of it, so no event says it.
    pub(super) storage: Stores,
}

impl Default for Effects {
    fn default() -> Self {
        let outcomes = |job| OUTCOMES.map(|outcome| [("kind", job), ("outcome", outcome)]);
        Self {
            ended: Counts::of(JOBS.into_iter().flat_map(outcomes)),
            times: JOBS.map(|job| ([("kind", job)], Histogram::new(&EFFECT))).into(),
            in_flight: JOBS.map(|job| ([("kind", job)], 0)).into(),
            storage: Stores::of(&[Storage::Log]),
        }
    }
}

impl EffectMeter {
    pub(crate) fn new() -> Self {
        Self { counted: Effects::default(), open: HashMap::new() }
    }

    /// What came of it so far.
    pub(crate) const fn counted(&self) -> &Effects {
        &self.counted
    }

    /// A job is given out.
    pub(crate) fn submitted(&mut self, id: JobId, job: &Job) {
        let Some(kind) = kind(job) else { return };
        self.open.entry(id).or_default().push_back((kind, Instant::now()));
        *self.counted.in_flight.entry([("kind", kind)]).or_default() += 1;
    }

    /// A job came back.
    pub(crate) fn done(&mut self, done: &Done) {
        let Some(open) = self.open.get_mut(&done.job) else { return };
        let Some((kind, since)) = open.pop_front() else { return };
        if open.is_empty() {
            self.open.remove(&done.job);
        }
        let ok = succeeded(&done.outcome);
        let outcome = if ok { "ok" } else { "error" };
        let Effects { ended, times, in_flight, storage } = &mut self.counted;
        ended.add([("kind", kind), ("outcome", outcome)]);
        times.entry([("kind", kind)]).or_insert_with(|| Histogram::new(&EFFECT)).observe(since.elapsed());
        if let Some(waiting) = in_flight.get_mut(&[("kind", kind)]) {
            *waiting = waiting.saturating_sub(1);
        }
        if kind == "append" {
            storage.note(Storage::Log, ok);
        }
    }
}

/// The job's word; `None`: it has no end that could be waited for.
const fn kind(job: &Job) -> Option<&'static str> {
    Some(match job {
        Job::Persist(_) => "persist",
        Job::WriteRecord(_) => "write_record",
        Job::RemoveRecord(_) => "remove_record",
        Job::Append(_) => "append",
        Job::Reopen => "reopen",
        Job::Start { .. } => "start",
        Job::Terminal { .. } => "terminal",
        Job::Http { .. } => "http",
        Job::Type { .. } => "type",
        Job::Resolve { .. } => "resolve",
        Job::Grant { .. } => return None,
    })
}

const fn succeeded(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Finished(result) => result.is_ok(),
        Outcome::Resolved(result) => result.is_ok(),
        Outcome::Appended { error, .. } => error.is_none(),
        Outcome::Answered { .. } | Outcome::Terminal(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Append;

    #[test]
    fn a_log_that_fails_is_told_until_it_works_again() {
        let mut meter = EffectMeter::new();
        for _ in 0..3 {
            meter.submitted(JobId::Append, &Job::Append(Append::default()));
        }
        // Waiting, failing, and how many ended well and badly.
        let now = |meter: &EffectMeter| {
            let counted = meter.counted();
            let ended = |outcome| counted.ended.get([("kind", "append"), ("outcome", outcome)]);
            let failing = counted.storage.failing[&[("what", "log")]];
            (counted.in_flight[&[("kind", "append")]], failing, ended("ok"), ended("error"))
        };
        assert_eq!(now(&meter), (3, false, 0, 0));
        let mut done = |error: Option<&str>| {
            let outcome = Outcome::Appended { bytes: 0, error: error.map(str::to_owned) };
            meter.done(&Done { job: JobId::Append, outcome });
            now(&meter)
        };
        done(Some("no space left"));
        assert_eq!(done(Some("no space left")), (1, true, 0, 2));
        assert_eq!(done(None), (0, false, 1, 2));
        // Nobody asked for it.
        assert_eq!(done(None), (0, false, 1, 2));
    }
}
