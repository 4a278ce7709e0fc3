//! The engine of terminals keeps its promises in worlds full of faults.

use castra_sim::outcome::Counts;
use castra_sim::terminals::plan::{Deed, FaultKind};
use castra_sim::terminals::{Outcome, TerminalsPlayer};

/// How many worlds; from this many on, everything that can happen must have happened.
const AUDITED: u64 = 300;

fn seeds() -> u64 {
    std::env::var("CASTRA_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(AUDITED)
}

fn run(seed: u64) -> Outcome {
    match TerminalsPlayer::default().play(seed) {
        Ok(outcome) => outcome,
        Err(failure) => panic!("{}\nrerun: castra sim --runner terminals --seed {seed}", failure.violation),
    }
}

/// Plays all seeds on two threads; the sum doesn't depend on how they are spread.
fn play(seeds: u64) -> Outcome {
    let mut total = Outcome::default();
    std::thread::scope(|scope| {
        let halves = [0, 1].map(|first| {
            scope.spawn(move || {
                let mut sum = Outcome::default();
                (first..seeds).step_by(2).for_each(|seed| sum += &run(seed));
                sum
            })
        });
        for half in halves {
            total += &half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    total
}

#[test]
fn every_promise_holds_in_worlds_full_of_faults() {
    let total = play(seeds());
    println!("{total:#?}");
    let missing = missing(&total);
    // A suite in which something never happens says nothing about it.
    assert!(seeds() < AUDITED || missing.is_empty(), "never happened: {missing:?}");
}

/// What did not happen of all that can.
fn missing(total: &Outcome) -> Vec<String> {
    let absent = |counts: &Counts, words: &[&'static str]| -> Vec<String> {
        words.iter().filter(|word| !counts.contains_key(*word)).map(|word| (*word).to_owned()).collect()
    };
    let words: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let mut missing = absent(&total.faults, &words);
    let words: Vec<_> = Deed::ALL.iter().map(|deed| deed.as_str()).collect();
    missing.extend(absent(&total.deeds, &words));
    missing
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1).digest, run(2).digest);
}
