//! The suite is tested, too: every bug on purpose is found, by a check that
//! states a promise of the design and knows nothing of the bug.
//!
//! `CASTRA_PLANTED_STARTS` (5), `CASTRA_PLANTED_SEEDS` (10000): how many ranges of
//! seeds are searched, and how far. `CASTRA_PLANTED_BUG`: only that one.
#![cfg(feature = "planted")]

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use castra_core::planted::Bug;
use castra_sim::play::Player;

/// The promises that a bug may break first.
fn promises(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AgeFromReceipt | Bug::NonceUnchecked | Bug::ReplayAccepted => &["rule 1", "S1"],
        Bug::WindowOffByOne | Bug::StoredVerdict | Bug::OneShotForever => &["S3", "S2", "S1", "L2", "L3"],
        Bug::MonotonicClock => &["rule 1", "S3", "S1", "S2", "L5"],
        Bug::ExcuseWithoutEnd | Bug::StallBlamesGuests => &["rule 4"],
        Bug::SupersededRefreshes => &["S3", "S4", "L1"],
        Bug::EpochNotFenced => &["S5", "S4"],
        Bug::DoubleGreeting | Bug::GreetingAfterVerdict => &["S5"],
        Bug::TimerNotRearmed | Bug::HandshakeNotArmed => &["L1"],
        Bug::ChallengeHotLoop => &["L2"],
        Bug::HalfOpenUnbounded => &["S6"],
        Bug::UnboundedBackoff | Bug::UnjitteredBackoff => &["A2"],
        Bug::ReplyLostOnClose => &["L1", "L4"],
        Bug::CommitBeforeDone => &["S2"],
        Bug::CommitFailureIgnored => &["S2", "P1", "P3"],
        Bug::OneSidedPeer => &["P1"],
        Bug::DeliveredWhenSent | Bug::AcknowledgedBeforeWrite | Bug::DuplicateKept | Bug::UnlinkKeepsMail => {
            &["P3"]
        }
        Bug::KeyForgotten => &["P2"],
        Bug::ActionAppliedTwice | Bug::ActionLostOnAck | Bug::ReapplyAfterCrash => &["A5"],
        Bug::AttachWithoutTrust | Bug::TokenToOtherUrl => &["A4"],
        Bug::TwoAttempts => &["A1", "L3"],
        Bug::PollBeforeAttach => &["A3"],
        Bug::SlotWithoutGeneration => &["4.1", "S6"],
        Bug::ReadOncePerEdge => &["L4", "S6", "L3"],
        Bug::AcceptEndsOnEmfile => &["L3", "L4"],
        Bug::ShortWriteLoses => &["4.1", "L4"],
        Bug::FinishIgnored => &["S6", "L4"],
        Bug::CreditIgnored => &["4.1"],
        Bug::WriteInterestForgotten => &["L4", "S6", "L3"],
        _ => &[],
    }
}

/// One search from one start.
#[derive(Clone, Debug)]
struct Found {
    seeds: u64,
    events: u64,
    promise: &'static str,
    text: String,
}

fn search(bug: Bug, start: u64, most: u64) -> Option<Found> {
    let player = Player { planted: Some(bug), ..Player::default() };
    let mut events = 0;
    for seed in start..start + most {
        match player.play(seed) {
            Ok(outcome) => events += outcome.events,
            Err(failure) => {
                events += failure.outcome.events;
                let text = format!("{bug}, seed {seed}: {}", failure.violation);
                return Some(Found {
                    seeds: seed - start + 1,
                    events,
                    promise: failure.violation.promise,
                    text,
                });
            }
        }
    }
    None
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_planted_bug_is_found_by_a_promise_that_it_breaks() {
    let (starts, most) = (setting("CASTRA_PLANTED_STARTS", 5), setting("CASTRA_PLANTED_SEEDS", 10_000));
    let bugs = match std::env::var("CASTRA_PLANTED_BUG") {
        Ok(word) => vec![Bug::from_str(&word).expect("a bug's word")],
        Err(_) => Bug::ALL.iter().copied().filter(|bug| !bug.is_of_terminals()).collect(),
    };
    let tasks: Vec<_> =
        bugs.iter().flat_map(|bug| (0..starts).map(move |start| (*bug, start * 1_000_000))).collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<Bug, Vec<Option<Found>>>::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((bug, start)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = search(*bug, *start, most);
                    results.lock().expect("no panic").entry(*bug).or_default().push(found);
                }
            });
        }
    });
    let mut wrong = Vec::new();
    println!("| bug | found by | median seeds | median events until found |\n|---|---|---:|---:|");
    for (bug, found) in results.into_inner().expect("no panic") {
        if found.iter().any(Option::is_none) {
            wrong.push(format!("{bug}: not found within {most} seeds"));
        }
        let found: Vec<_> = found.into_iter().flatten().collect();
        for Found { text, .. } in found.iter().filter(|found| !promises(bug).contains(&found.promise)) {
            wrong.push(text.clone());
        }
        println!("{}", row(bug, &found));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn row(bug: Bug, found: &[Found]) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    found.iter().for_each(|found| *counts.entry(found.promise).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let promises: Vec<_> = counts.into_iter().map(|(promise, _)| promise).collect();
    let median = |each: fn(&Found) -> u64| {
        let mut values: Vec<_> = found.iter().map(each).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let (seeds, events) = (median(|found| found.seeds), median(|found| found.events));
    format!("| `{bug}` | {} | {seeds} | {events} |", promises.join(", "))
}
