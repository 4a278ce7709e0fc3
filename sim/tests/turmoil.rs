//! Plans under turmoil: a network that somebody else wrote.

use castra_sim::choice::Seeded;
use castra_sim::turmoil::{FAULTS, LOSS, limits, run};
use castra_sim::{Outcome, Plan};

fn seeds() -> u64 {
    std::env::var("CASTRA_TURMOIL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

fn play(seed: u64) -> Outcome {
    let plan = Plan::draw(&mut Seeded::new(seed), &limits());
    match run(&plan, seed) {
        Ok(outcome) => outcome,
        Err(violation) => panic!("seed {seed}: {violation}"),
    }
}

#[test]
#[expect(
    clippy::assertions_on_constants,
    reason = "a test tells what is missing, and a build error would not"
)]
fn the_flag_that_makes_turmoil_deterministic_is_set() {
    assert!(
        cfg!(tokio_unstable),
        "without `--cfg tokio_unstable` (.cargo/config.toml) tokio takes no seed, so that one seed gives \
         different runs, and a panic in a spawned task is swallowed, so that a failed check passes"
    );
}

#[test]
#[should_panic(expected = "a spawned task panicked")]
fn a_panic_in_a_spawned_task_is_not_swallowed() {
    let mut sim = turmoil::Builder::new().rng_seed(1).build();
    sim.host("host", || async {
        tokio::task::spawn_local(async { panic!("a failed check") });
        std::future::pending().await
    });
    for _ in 0..3 {
        sim.step().expect("a host that lives");
    }
}

#[test]
fn nobody_is_falsely_reachable_and_nobody_waits_for_ever() {
    let mut total = Outcome::default();
    for seed in 0..seeds() {
        total += &play(seed);
    }
    println!("{total:#?}");
    // A suite in which nothing goes wrong, or nothing goes well, proves nothing.
    let faults = FAULTS.iter().map(|kind| kind.as_str()).chain([LOSS]);
    let never: Vec<_> = faults.filter(|kind| !total.faults.contains_key(kind)).collect();
    assert!(seeds() < 100 || never.is_empty(), "never happened: {never:?}");
    // Streams that are silent for ever, in one direction, in the other, and from the start.
    let ways_out = ["link silent", "stale", "link timeout"];
    let unused: Vec<_> = ways_out.iter().filter(|end| !total.ends.contains_key(**end)).collect();
    assert!(seeds() < 100 || unused.is_empty(), "never ended so: {unused:?}");
    for reply in ["status", "waited", "pong", "timeout", "no_broker", "broker_not_answering"] {
        assert!(seeds() < 100 || total.replies.contains_key(reply), "no command got {reply}");
    }
    assert!(total.sessions > 3 * seeds() && total.reachable > total.checks / 4, "{total:?}");
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..4 {
        assert_eq!(play(seed), play(seed));
    }
    assert_ne!(play(1).digest, play(2).digest);
}
