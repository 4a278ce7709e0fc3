//! Many worlds on several threads, with a result that doesn't depend on how many.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use castra_sim::{Failure, Outcome, Violation};
use rustix::time::{ClockId, clock_gettime};

use crate::progress::{Progress, REDRAW};

/// What the worlds came to.
#[derive(Debug, Default)]
pub(super) struct Seeds {
    /// Of all worlds up to the first that failed, that one included.
    pub(super) outcome: Outcome,
    /// The first that failed.
    pub(super) failed: Option<(u64, Violation)>,
    /// Processor time that the threads spent in worlds.
    pub(super) busy: Duration,
}

pub(super) type Played = Result<Outcome, Box<Failure>>;

/// Plays every seed of `range`, or those begun before `until`, or before `stop`
/// became true; after a failure none that comes after it.
pub(super) fn run(
    range: &Range<u64>,
    until: Option<Instant>,
    jobs: usize,
    stop: &AtomicBool,
    play: impl Fn(u64) -> Played + Sync,
) -> Seeds {
    let next = AtomicU64::new(range.start);
    let first_failed = AtomicU64::new(u64::MAX);
    let (sender, receiver) = channel();
    let mut seeds = Seeds::default();
    let bounded = until.is_none().then(|| range.end - range.start);
    let mut progress = Progress::new("worlds", bounded, until);
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let sender = sender.clone();
            let (next, first_failed, play) = (&next, &first_failed, &play);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end || seed > first_failed.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = processor_time();
                    let played = play(seed);
                    if played.is_err() {
                        first_failed.fetch_min(seed, Ordering::Relaxed);
                    }
                    if sender.send((seed, played, processor_time().saturating_sub(began))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        // In the order of the seeds, however the threads finish them.
        let mut waiting: BTreeMap<u64, Played> = BTreeMap::new();
        let mut expected = range.start;
        loop {
            match receiver.recv_timeout(REDRAW) {
                Ok((seed, played, took)) => {
                    seeds.busy += took;
                    waiting.insert(seed, played);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Some(played) = waiting.remove(&expected).filter(|_| seeds.failed.is_none()) {
                match played {
                    Ok(outcome) => seeds.outcome += &outcome,
                    Err(failure) => {
                        seeds.outcome += &failure.outcome;
                        seeds.failed = Some((expected, failure.violation));
                    }
                }
                expected += 1;
            }
            progress.show(seeds.outcome.runs, || {
                format!("{} events/s", short(rate(seeds.outcome.events, seeds.busy)))
            });
        }
    });
    progress.clear();
    seeds
}

/// Processor time of this thread: what a core does in a second doesn't depend on
/// who else wants one.
pub(super) fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// So many per second.
pub(super) fn rate(count: u64, span: Duration) -> f64 {
    let seconds = span.as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// `1.24 M`, `312 k`, `17`.
pub(super) fn short(count: f64) -> String {
    match count {
        1e9.. => format!("{:.2} G", count / 1e9),
        1e6.. => format!("{:.2} M", count / 1e6),
        1e4.. => format!("{:.0} k", count / 1e3),
        _ => format!("{count:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::time::Time;

    fn play(seed: u64) -> Played {
        let outcome = Outcome { runs: 1, events: seed, digest: seed * seed, ..Outcome::default() };
        if seed % 40 == 37 {
            // Later seeds are faster, and must not win.
            thread::sleep(Duration::from_millis(5));
            let violation =
                Violation { promise: "S1", at: Time::ZERO, guest: None, text: format!("in {seed}") };
            return Err(Box::new(Failure { violation, outcome }));
        }
        Ok(outcome)
    }

    #[test]
    fn the_number_of_jobs_changes_nothing() {
        let stop = AtomicBool::new(false);
        let one = run(&(0..200), None, 1, &stop, play);
        assert_eq!(one.failed.as_ref().map(|(seed, _)| *seed), Some(37));
        assert_eq!((one.outcome.runs, one.outcome.events), (38, 37 * 38 / 2));
        for jobs in [2, 3, 8] {
            let many = run(&(0..200), None, jobs, &stop, play);
            assert_eq!((many.outcome, many.failed), (one.outcome.clone(), one.failed.clone()));
        }
    }

    #[test]
    fn worlds_end_at_their_time_and_when_they_are_stopped() {
        let stop = AtomicBool::new(false);
        let until = Instant::now() + Duration::from_millis(30);
        let slow = |seed| {
            thread::sleep(Duration::from_millis(1));
            Ok(Outcome { runs: 1, events: seed, ..Outcome::default() })
        };
        let timed = run(&(0..u64::MAX), Some(until), 2, &stop, slow);
        assert!(timed.failed.is_none() && timed.outcome.runs > 0);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(run(&(0..10), None, 2, &stop, slow).outcome.runs, 0);
    }

    #[test]
    fn counts_are_short() {
        assert_eq!([17.0, 312_400.0, 1_240_000.0, 3e9].map(short), ["17", "312 k", "1.24 M", "3.00 G"]);
    }
}
