//! Tables that have to be whole: words of the program, rows of the comparison.

use std::collections::BTreeSet;

use castra_core::attach::ActionStatus;
use castra_core::control::reply::ErrorCode;
use castra_core::event::{Failure, LinkEnd, SessionEnd};
use castra_core::status::{BrokerState, Reason, State, Warning};
use serde::Serialize;

use crate::common::Scratch;
use crate::markdown::{Page, root};

/// The words of all variants. A variant that is new in the core stops this from compiling:
/// add it here and to docs/STATES.md.
macro_rules! words {
    ($kind:ident: $($variant:ident)*) => {{
        const fn known(value: $kind) {
            match value { $($kind::$variant => {})* }
        }
        [$($kind::$variant),*].into_iter().map(|value| { known(value); word(value) }).collect::<BTreeSet<_>>()
    }};
}

fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}

/// The words of a kind that other crates can't match whole, from its `as_str`.
fn written(source: &str, kind: &str) -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join("core/src").join(source)).unwrap();
    let (_, body) = source.split_once(&format!("impl {kind} {{")).unwrap();
    let (_, arms) = body.split_once("match self {").unwrap();
    let (arms, _) = arms.split_once('}').unwrap();
    arms.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The first column, without its marks.
fn firsts(rows: &[Vec<String>]) -> BTreeSet<String> {
    let words: Vec<String> = rows.iter().map(|cells| cells[0].trim_matches('`').to_owned()).collect();
    let once: BTreeSet<String> = words.iter().cloned().collect();
    assert_eq!(once.len(), words.len(), "a word stands twice: {words:?}");
    once
}

#[test]
fn every_state_reason_and_code_of_the_program_has_its_row() {
    let page = Page::named("docs/STATES.md");
    let table = |title: &str| firsts(&page.table(title));
    assert_eq!(table("States"), words!(State: Offline Waiting Reachable));
    assert_eq!(
        table("Reasons"),
        words!(Reason: NeverSeen Handshaking Stale Disconnected Goodbye Refused Unproven BrokerStarted
            BrokerStalled ClockJumped NameConflict NoBroker BrokerNotAnswering)
    );
    assert_eq!(table("Warnings"), words!(Warning: Unproven NameConflict VersionSkew));
    assert_eq!(table("The broker"), words!(BrokerState: Serving Draining NotAnswering Offline));
    assert_eq!(
        table("Ends of sessions"),
        words!(SessionEnd: Goodbye Disconnected Superseded Strikes BadMac BadFrame Stale Slow TokenChanged
            Forgotten HeartbeatTimeout Shutdown Replaced Resynchronised)
    );
    assert_eq!(
        table("Refusals"),
        words!(Failure: BadLine BadName UnknownName TokenRequired BadProof NameInUse Busy Timeout Disconnected
            Evicted Shutdown)
    );
    assert_eq!(
        table("An agent without a link"),
        words!(LinkEnd: Unreachable Timeout Disconnected Silent Bye Protocol Stopping Finished)
    );
    assert_eq!(table("Errors of requests"), ErrorCode::ALL.into_iter().map(word).collect());
    assert_eq!(table("Actions"), written("attach/record.rs", "ActionCode"));
    assert_eq!(table("Attaching"), written("attach/wire.rs", "AttachErrorCode"));
    for status in words!(ActionStatus: Ok Rejected Expired Preempted) {
        assert!(page.text.contains(&format!("`{status}`")), "{status}");
    }
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let help = Scratch::new().run(&["--help"]).stdout;
    let (_, codes) = help.split_once("Exit codes:").unwrap();
    let numbers = codes.split_whitespace().filter(|word| word.parse::<u8>().is_ok());
    let told: BTreeSet<String> = numbers.map(str::to_owned).collect();
    for page in ["docs/STATES.md", "docs/PROTOCOL.md"] {
        let title = if page.ends_with("STATES.md") { "Exit codes" } else { "15. Exit codes" };
        let page = Page::named(page);
        assert_eq!(firsts(&page.table(title)), told, "{}", page.name);
    }
}

#[test]
fn the_comparison_has_all_seventy_rows_and_says_how_to_see_each() {
    let page = Page::named("docs/COMPARISON.md");
    let rows = page.table("Comparison");
    let numbers: Vec<usize> = rows.iter().map(|cells| cells[0].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=70).collect::<Vec<_>>());
    let count = |mark: &str| rows.iter().filter(|cells| cells[2] == mark).count();
    for cells in &rows {
        assert_eq!(cells.len(), 10, "{cells:?}");
        assert!(cells[2..9].iter().all(|mark| matches!(mark.as_str(), "Y" | "p" | "-")), "{cells:?}");
        assert!(!cells[9].is_empty(), "{cells:?}");
    }
    let sum = format!("castra has {}, {} in part, and {} not", count("Y"), count("p"), count("-"));
    assert!(page.text.contains(&sum), "say: {sum}");
}
