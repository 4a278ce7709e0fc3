//! The engines keep their promises in worlds full of faults.

use castra_core::event::{Failure, SessionEnd};
use castra_core::status::Reason;
use castra_sim::choice::Seeded;
use castra_sim::outcome::Counts;
use castra_sim::plan::{Deed, FaultKind};
use castra_sim::{Limits, Outcome, Plan, World};

/// How many worlds; from this many on, everything that can happen must have happened.
const NIGHTLY: u64 = 10_000;

fn seeds() -> u64 {
    std::env::var("CASTRA_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

fn run(seed: u64) -> Outcome {
    let mut choice = Seeded::new(seed);
    let plan = Plan::draw(&mut choice, &Limits::default());
    match World::new(&plan, Box::new(choice)).run() {
        Ok(outcome) => outcome,
        Err(failure) => panic!("{}\nrerun, shrink and draw it: castra sim --seed {seed}", failure.violation),
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
    assert!(seeds() < NIGHTLY || missing.is_empty(), "never happened: {missing:?}");
    assert!(total.faults.len() >= 20 && total.reachable > total.checks / 4, "a dull suite: {total:#?}");
}

/// What did not happen of all that can.
fn missing(total: &Outcome) -> Vec<String> {
    let absent = |counts: &Counts, words: &[&'static str]| -> Vec<String> {
        words.iter().filter(|word| !counts.contains_key(*word)).map(|word| (*word).to_owned()).collect()
    };
    let mut missing = absent(&total.faults, &FaultKind::ALL.map(FaultKind::as_str));
    missing.extend(absent(&total.reasons, &REASONS.map(Reason::as_str)));
    missing.extend(absent(&total.refusals, &FAILURES.map(Failure::as_str)));
    missing.extend(absent(&total.ends, &ENDS.map(SessionEnd::as_str)));
    missing.extend(absent(&total.wakeups, &WAKEUPS));
    missing.extend(absent(&total.replies, &REPLIES));
    missing.extend(absent(&total.acts, &Deed::ALL.map(Deed::as_str)));
    missing.extend(absent(&total.told, &TOLD));
    missing.extend(absent(&total.mail, &MAIL));
    missing.extend(absent(&total.steps, &STEPS));
    missing.extend(absent(&total.attach, &ATTACH));
    missing
}

/// Those that a broker gives; the other two are a client's own.
const REASONS: [Reason; 11] = [
    Reason::NeverSeen,
    Reason::Handshaking,
    Reason::Stale,
    Reason::Disconnected,
    Reason::Goodbye,
    Reason::Refused,
    Reason::Unproven,
    Reason::BrokerStarted,
    Reason::BrokerStalled,
    Reason::ClockJumped,
    Reason::NameConflict,
];

const FAILURES: [Failure; 11] = [
    Failure::BadLine,
    Failure::BadName,
    Failure::UnknownName,
    Failure::TokenRequired,
    Failure::BadProof,
    Failure::NameInUse,
    Failure::Busy,
    Failure::Timeout,
    Failure::Disconnected,
    Failure::Evicted,
    Failure::Shutdown,
];

const ENDS: [SessionEnd; 14] = [
    SessionEnd::Goodbye,
    SessionEnd::Disconnected,
    SessionEnd::Superseded,
    SessionEnd::Strikes,
    SessionEnd::BadMac,
    SessionEnd::BadFrame,
    SessionEnd::Stale,
    SessionEnd::Slow,
    SessionEnd::TokenChanged,
    SessionEnd::Forgotten,
    SessionEnd::HeartbeatTimeout,
    SessionEnd::Shutdown,
    SessionEnd::Replaced,
    SessionEnd::Resynchronised,
];

/// Obligations that an engine was woken for. A dial's own deadline is missing:
/// the shell keeps it, too, and comes first.
const WAKEUPS: [&str; 13] = [
    "handshake",
    "eviction",
    "session",
    "one_shot",
    "conflict",
    "command",
    "record",
    "drain",
    "redial",
    "more",
    "offer",
    "mail",
    "attach",
];

const REPLIES: [&str; 17] = [
    "status",
    "waited",
    "pong",
    "info",
    "events",
    "token_issued",
    "token_revoked",
    "token_listed",
    "forgotten",
    "shutting_down",
    "timeout",
    "not_reachable",
    "unknown_guest",
    "storage_failed",
    "no_answer",
    "no_broker",
    "hung_up_on",
];

/// What those were told who did something about peers.
const TOLD: [&str; 28] = [
    "registered",
    "unregistered",
    "listed",
    "status",
    "delivered",
    "queued",
    "rejected",
    "expired",
    "inbox",
    "inbox_followed",
    "held",
    "resumed",
    "offered",
    "peer_answered",
    "self",
    "unknown",
    "unknown_guest",
    "ambiguous",
    "busy",
    "not_peer",
    "full",
    "too_large",
    "not_reachable",
    "storage_failed",
    "timeout",
    "shutting_down",
    "nobody_there",
    "hung_up_on",
];

/// What happened to messages: `agent_torn` is an agent that ended with a write on its
/// way, or before it was told of its end.
const MAIL: [&str; 16] = [
    "taken",
    "not_written",
    "sent",
    "sent_again",
    "received",
    "written_again",
    "acknowledged_again",
    "made_room",
    "agent_torn",
    "delivered",
    "rejected",
    "expired_ttl",
    "expired_unlinked",
    "expired_policy",
    "expired_forgotten",
    "expired_not_queued",
];

/// What was done about managed attach, and what those who did it were told.
const STEPS: [&str; 29] = [
    "action_send",
    "adopt",
    "release",
    "attachments",
    "action_list",
    "await_attach",
    "attached",
    "pending",
    "released",
    "listed",
    "actions",
    "queued",
    "ok",
    "rejected",
    "expired",
    "preempted",
    "conflict",
    "full",
    "guest_offline",
    "missing_lease",
    "not_attached",
    "refused",
    "storage_failed",
    "timeout",
    "too_large",
    "unknown_guest",
    "shutting_down",
    "nobody_there",
    "hung_up_on",
];

/// What happened to attachments and their actions.
const ATTACH: [&str; 34] = [
    "adopted",
    "attached",
    "renegotiated",
    "released",
    "code_expired",
    "attempt",
    "attempt_failed",
    "gave_up",
    "success",
    "detached",
    "unkeyed_link",
    "fast_path",
    "no_fast_path",
    "http_attach",
    "http_poll",
    "http_ack",
    "http_lease",
    "http_2xx",
    "http_400",
    "http_401",
    "http_404",
    "http_409",
    "http_429",
    "http_5xx",
    "http_no_answer",
    "request_refused",
    "taken",
    "typed",
    "ok",
    "rejected",
    "expired",
    "preempted",
    "settled",
    "http_other",
];

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1).digest, run(2).digest);
}

/// The same in debug and release builds, in every process and on every machine:
/// the sum of a hundred runs' fingerprints. If a change of engine, shell or
/// simulator is meant to change runs, take the number that the failure prints.
#[test]
fn a_hundred_runs_have_the_fingerprint_they_always_had() {
    let digest = play(100).digest;
    assert_eq!(digest, include_str!("fingerprint.txt").trim().parse::<u64>().expect("a number"), "{digest}");
}
