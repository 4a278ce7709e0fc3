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
    missing.extend(absent(&total.told, &TOLD));
    missing.extend(absent(&total.owners, &OWNERS));
    missing.extend(absent(&total.host, &HOST));
    missing
}

/// Answers, errors and events.
const TOLD: [&str; 29] = [
    "ALREADY_EXISTS",
    "AUTH_FAILED",
    "CWD_MISSING",
    "INVALID_ARGUMENT",
    "INVALID_SIGNAL",
    "IO_ERROR",
    "LIMIT_REACHED",
    "NOT_AUTHENTICATED",
    "NOT_FOUND",
    "OWNER_REQUIRED",
    "PERMISSION_DENIED",
    "PROTOCOL_ERROR",
    "PROTO_BREAKING_CHANGE",
    "ROLE_FORBIDDEN",
    "SESSION_ERROR",
    "SESSION_TERMINATING",
    "SHELL_NOT_FOUND",
    "exit",
    "exited_row",
    "input",
    "owner_changed",
    "recovery",
    "resized",
    "resumed",
    "resync",
    "snapshot",
    "warned_green",
    "warned_red",
    "warned_yellow",
];

const OWNERS: [&str; 8] =
    ["claimed", "denied", "detached", "ended", "lease_over", "left", "reclaimed", "taken_over"];

/// What happened at the host: `nobody_reads` is a program that doesn't take its input,
/// `snapshot_waits` a screen that was ahead of the output after an adoption.
const HOST: [&str; 12] = [
    "commit_failures",
    "deed_adopt",
    "deed_kill",
    "hang_up_ignored",
    "held",
    "input",
    "lingers",
    "lost",
    "nobody_reads",
    "reply",
    "restored",
    "ring_full",
];

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1).digest, run(2).digest);
}

/// The sum of a hundred runs' fingerprints, the same everywhere. If a change of engine,
/// shell or simulator is meant to change runs, take the number that the failure prints.
#[test]
fn a_hundred_runs_have_the_fingerprint_they_always_had() {
    let digest = play(100).digest;
    let known = include_str!("terminals_fingerprint.txt").trim().parse::<u64>();
    assert_eq!(digest, known.expect("a number"), "{digest}");
}

/// The simulation is tested, too: every bug on purpose is found, by a promise that it breaks.
#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_of_terminals_is_found_by_a_promise_that_it_breaks() {
    use castra_core::planted::Bug;
    for &bug in Bug::ALL.iter().filter(|bug| bug.is_of_terminals()) {
        let promises: &[&str] = match bug {
            Bug::ExitBeforeOutput | Bug::ExitTwice => &["O3"],
            Bug::GapAtResync | Bug::ResumedTwice => &["O2"],
            Bug::ObserverCommands | Bug::LeaseIgnored => &["O1"],
            Bug::OwnerNotReleased => &["O1", "L1"],
            Bug::CreatedBeforeCommit => &["S2"],
            _ => &[],
        };
        let player = TerminalsPlayer { planted: Some(bug) };
        let found = (0..3000).find_map(|seed| Some((seed, player.play(seed).err()?)));
        let (seed, failure) = found.unwrap_or_else(|| panic!("{bug} is not found"));
        println!("| `{bug}` | {} | {} |", failure.violation.promise, seed + 1);
        assert!(promises.contains(&failure.violation.promise), "{bug}, seed {seed}: {}", failure.violation);
    }
}
