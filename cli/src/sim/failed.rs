//! A broken promise, made small and told.

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use castra_sim::Violation;
use castra_sim::case::Case;
use castra_sim::choice::Replayed;
use castra_sim::chronicle::Chronicle;
use castra_sim::play::Player;
use castra_sim::shrink::shrink;

use crate::progress::Progress;

/// Runs that shrinking may take, and how long.
const RUNS: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Debug)]
pub(super) struct Failed {
    /// `seed 17`.
    pub(super) what: String,
    /// As it was found, not as it was shrunk.
    pub(super) violation: Violation,
    pub(super) rerun: String,
    /// The case, shrunk if that was wanted; `None`: it did not fail again.
    pub(super) case: Option<Case>,
    /// Its run, told, if there is one.
    pub(super) chronicle: Option<Chronicle>,
}

/// Shrinks what `case` gives, until `stop` becomes true, and tells it. Without a
/// `stop` it stays as it is.
pub(super) fn explain(
    player: &Player,
    what: &str,
    violation: Violation,
    rerun: String,
    stop: Option<&AtomicBool>,
    case: impl FnOnce() -> Option<Case>,
) -> Failed {
    // Panics are results here, and were told once.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let small = case().map(|case| match stop {
        Some(stop) => small(player, case, stop),
        None => case,
    });
    let chronicle = small.as_ref().map(|case| {
        let choice = Replayed::new(case.choices.clone());
        player.tell(&case.plan, choice).1
    });
    panic::set_hook(hook);
    Failed { what: what.into(), violation, rerun, case: small, chronicle }
}

fn small(player: &Player, case: Case, stop: &AtomicBool) -> Case {
    let until = Instant::now() + PATIENCE;
    let mut progress = Progress::new("runs", None, None);
    let small = shrink(
        case,
        RUNS,
        |plan, choices| player.replay(plan, choices).err().map(|failure| failure.violation.promise),
        |now| {
            progress.show(now.runs, || {
                format!("shrinking: {} guests, commands and faults, {} choices", now.parts, now.choices)
            });
            Instant::now() < until && !stop.load(Ordering::Relaxed)
        },
    );
    progress.clear();
    small
}
