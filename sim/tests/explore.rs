//! Every state of small worlds. With `CASTRA_EXPLORE=full`, of larger ones, for
//! which a release build wants minutes and some gigabytes.

use std::time::Instant;

use castra_sim::explore::{Bounds, Broken, Faults, Report, Search, audit, explore, searches};

fn is_full() -> bool {
    std::env::var("CASTRA_EXPLORE").is_ok_and(|word| word == "full")
}

/// All faults; what is asked of every state in a large run, of some in a small one.
fn one_guest() -> Bounds {
    Bounds { converge_every: if is_full() { 1 } else { 10 }, ..Bounds::one_guest() }
}

fn run(what: &str, bounds: &Bounds) -> Report {
    let start = Instant::now();
    let mut depth = 0;
    let report = explore(bounds, &mut |progress| {
        if is_full() && progress.depth > depth {
            println!("{what}: {progress:?}");
            depth = progress.depth;
        }
        true
    });
    println!("{what}: {report}, {} ms", start.elapsed().as_millis());
    report
}

fn keeps_every_promise(what: &str, bounds: &Bounds) -> Report {
    let report = run(what, bounds);
    if let Some(counterexample) = &report.violation {
        panic!("{what}\n{counterexample}");
    }
    report
}

fn searched(guests: usize) {
    for Search { what, bounds, closes } in searches(guests, is_full()) {
        let report = keeps_every_promise(what, &bounds);
        assert_eq!(report.closed, closes, "{what}: more states than the bound allows, or fewer");
        assert!(report.states > 1000 && report.depth > 7, "{what}: hardly anything happened");
    }
}

#[test]
fn one_guest_keeps_every_promise_in_every_state() {
    searched(1);
}

#[test]
fn two_guests_keep_every_promise_in_every_state() {
    searched(2);
}

#[test]
fn a_search_ends_when_it_is_told_to() {
    let mut told = 0;
    let report = explore(&one_guest(), &mut |_| {
        told += 1;
        told < 5
    });
    assert!(!report.closed && report.violation.is_none() && told == 5, "{report}");
    assert!(report.states > 1 && report.depth < 10, "{report}");
}

#[test]
fn a_guest_that_can_never_be_reachable_is_noticed() {
    let mut bounds = Bounds::one_guest();
    bounds.broker.require_token = true;
    let broken = run("no token", &bounds).violation.map(|counterexample| counterexample.broken);
    assert!(matches!(broken, Some(Broken::NotConverged { .. })), "{broken:?}");
}

#[test]
fn states_with_one_fingerprint_go_on_alike() {
    let (states_max, every) = if is_full() { (500_000, 20) } else { (6000, 10) };
    for (guests, streams, faults) in [(1, 1, Faults::ALL), (1, 2, Faults::NONE), (2, 1, Faults::ALL)] {
        let bounds = Bounds { guests, streams, faults, states_max, ..Bounds::one_guest() };
        let compared = audit(&bounds, every).expect("they go on alike");
        println!("{compared} pairs of states go on alike");
        assert!(compared > 50);
    }
}

#[cfg(feature = "planted")]
mod planted {
    use super::{is_full, one_guest, run};
    use castra_core::planted::Bug;
    use castra_sim::explore::{Bounds, Counterexample};

    fn found(bug: Bug) -> Counterexample {
        let mut bounds = Bounds { states_max: 100_000, ..one_guest() };
        bounds.broker.planted = Some(bug);
        let counterexample = run(bug.as_str(), &bounds).violation;
        counterexample.unwrap_or_else(|| panic!("{bug:?} breaks a promise"))
    }

    #[test]
    fn evidence_dated_from_its_receipt_is_found_by_the_shortest_way() {
        let counterexample = found(Bug::AgeFromReceipt);
        println!("{counterexample}");
        assert_eq!(counterexample.broken.to_string(), "S1: ant is called reachable, and last ran 4 s ago");
        assert_eq!(counterexample.steps.len(), 12);
    }

    #[test]
    fn bugs_that_a_small_world_shows_are_found() {
        let mut bugs = vec![
            (Bug::GreetingAfterVerdict, "S5"),
            (Bug::HandshakeNotArmed, "L1"),
            (Bug::TimerNotRearmed, "L1"),
            (Bug::ChallengeHotLoop, "L2"),
            (Bug::StoredVerdict, "S3"),
        ];
        if is_full() {
            // They need a second session.
            bugs.extend([
                (Bug::SupersededRefreshes, "S5"),
                (Bug::EpochNotFenced, "S5"),
                (Bug::DoubleGreeting, "S5"),
            ]);
        }
        for (bug, promise) in bugs {
            let counterexample = found(bug);
            println!("{}: {} steps, {}", bug.as_str(), counterexample.steps.len(), counterexample.broken);
            assert!(counterexample.broken.to_string().starts_with(promise));
        }
    }
}
