//! Every state of small worlds. With `CASTRA_EXPLORE=full`, of larger ones, for
//! which a release build wants minutes and some gigabytes.

use std::time::Instant;

use castra_sim::explore::{Bounds, Broken, Faults, Jitter, Report, audit, explore};

fn is_full() -> bool {
    std::env::var("CASTRA_EXPLORE").is_ok_and(|word| word == "full")
}

/// All faults; what is asked of every state in a large run, of some in a small one.
fn one_guest() -> Bounds {
    Bounds { converge_every: if is_full() { 1 } else { 10 }, ..Bounds::one_guest() }
}

fn run(what: &str, bounds: &Bounds) -> Report {
    let start = Instant::now();
    let report = explore(bounds, &mut |progress| {
        if is_full() {
            println!("{what}: {progress:?}");
        }
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

fn closes(what: &str, bounds: &Bounds) {
    let report = keeps_every_promise(what, bounds);
    assert!(report.closed, "{what}: more states than the bound allows");
    assert!(report.states > 1000 && report.depth > 20, "{what}: hardly anything happened");
}

#[test]
fn one_connection_at_a_time_with_faults_keeps_every_promise_in_every_state() {
    let faults = Faults { freeze: false, ..Faults::ALL };
    closes("one connection", &Bounds { streams: 1, in_flight: 1, faults, ..one_guest() });
}

#[test]
fn a_guest_that_freezes_keeps_every_promise_in_every_state() {
    let faults = Faults { freeze: true, ..Faults::NONE };
    closes("freezes", &Bounds { streams: 1, in_flight: 1, faults, ..one_guest() });
}

#[test]
fn a_second_connection_of_a_name_keeps_every_promise_in_every_state() {
    closes("two connections", &Bounds { in_flight: 1, faults: Faults::NONE, ..one_guest() });
}

#[test]
fn one_guest_with_all_faults_keeps_every_promise() {
    let bounds = one_guest();
    if is_full() {
        closes("one guest, least jitter", &bounds);
        return closes("one guest, most jitter", &Bounds { jitter: Jitter::Most, ..bounds });
    }
    for jitter in [Jitter::Least, Jitter::Most] {
        let report = keeps_every_promise(
            "one guest, shallow",
            &Bounds { jitter, states_max: 10_000, ..bounds.clone() },
        );
        assert!(!report.closed && report.depth > 10);
    }
}

#[test]
fn two_guests_keep_every_promise() {
    let bounds = Bounds { guests: 2, ..one_guest() };
    if is_full() {
        let calm = Bounds { streams: 1, in_flight: 1, faults: Faults::NONE, ..bounds.clone() };
        closes("two guests, only delays", &calm);
    }
    let states_max = if is_full() { 3_000_000 } else { 10_000 };
    let report = keeps_every_promise("two guests, shallow", &Bounds { states_max, ..bounds });
    assert!(!report.closed && report.depth > 7);
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
