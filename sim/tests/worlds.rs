//! The engines keep their promises in worlds full of faults.

use castra_sim::choice::Seeded;
use castra_sim::{Outcome, Settings, World};

fn seeds() -> u64 {
    std::env::var("CASTRA_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

fn run(seed: u64) -> Outcome {
    match World::new(Settings::default(), Seeded::new(seed)).run() {
        Ok(outcome) => outcome,
        Err(violation) => panic!("seed {seed}: {violation}"),
    }
}

#[test]
fn nobody_is_falsely_reachable_and_everybody_comes_back() {
    let mut total = Outcome::default();
    for seed in 0..seeds() {
        let outcome = run(seed);
        total.events += outcome.events;
        total.faults += outcome.faults;
        total.sessions += outcome.sessions;
        total.reachable_seen += outcome.reachable_seen;
    }
    println!("{} events, {} faults, {} sessions", total.events, total.faults, total.sessions);
    // A suite that sees no faults and no reachable guest proves nothing.
    assert!(
        total.faults > 10 * seeds()
            && total.sessions > 3 * seeds()
            && total.reachable_seen > total.events / 4
    );
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1).digest, run(2).digest);
}
