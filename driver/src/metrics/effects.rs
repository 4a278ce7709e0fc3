//! How long workers take, and how much waits for them.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use castra_core::event::Storage;

use super::Numbers;
use crate::work::{Done, Job, JobId, Outcome};

/// Looks on while jobs are given out and come back. Only the loop's thread has it.
#[derive(Debug)]
pub(crate) struct EffectMeter {
    numbers: Numbers,
    /// What is under way, in the order of its beginning: an append is like the next.
    open: HashMap<JobId, VecDeque<(&'static str, Instant)>>,
}

impl EffectMeter {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self { numbers, open: HashMap::new() }
    }

    /// A job is given out.
    pub(crate) fn submitted(&mut self, id: JobId, job: &Job) {
        let Some(kind) = kind(job) else { return };
        self.open.entry(id).or_default().push_back((kind, Instant::now()));
        self.numbers.in_flight.get_or_create(&[("kind", kind)]).inc();
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
        self.numbers.effects.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
        let took = since.elapsed().as_secs_f64();
        self.numbers.effect_times.get_or_create(&[("kind", kind)]).observe(took);
        self.numbers.in_flight.get_or_create(&[("kind", kind)]).dec();
        // The engine never hears of these: no event says it.
        if kind == "append" {
            self.numbers.storage(Storage::Log, ok);
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
        let numbers = Numbers::new();
        let mut meter = EffectMeter::new(numbers.clone());
        let counted =
            |outcome| numbers.effects.get_or_create(&[("kind", "append"), ("outcome", outcome)]).get();
        let waiting = || numbers.in_flight.get_or_create(&[("kind", "append")]).get();
        let failing = || numbers.is_failing(Storage::Log);
        for _ in 0..3 {
            meter.submitted(JobId::Append, &Job::Append(Append::default()));
        }
        assert_eq!((waiting(), failing()), (3, false));
        let mut done = |error: Option<&str>| {
            let outcome = Outcome::Appended { bytes: 0, error: error.map(str::to_owned) };
            meter.done(&Done { job: JobId::Append, outcome });
        };
        done(Some("no space left"));
        done(Some("no space left"));
        assert_eq!((waiting(), failing(), counted("ok"), counted("error")), (1, true, 0, 2));
        done(None);
        assert_eq!((waiting(), failing(), counted("ok")), (0, false, 1));
        // Nobody asked for it.
        done(None);
        assert_eq!((waiting(), counted("ok")), (0, 1));
    }
}
