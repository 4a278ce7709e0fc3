//! Each check, with what it is there to find, and without.

use std::path::PathBuf;

use castra_core::control::reply::{Info, LinkInfo};
use castra_core::event::{Event, Fact, Failure, Storage};
use castra_core::status::{BrokerState, GuestStatus, Reason, State, Warning};
use castra_core::time::WallTime;
use serde_json::json;

use super::facts::{Answers, Asked, Descriptors, Entry, Space};
use super::{Facts, Finding, Level, report};
use crate::offline;

/// A broker with nothing wrong.
fn well() -> Facts {
    let mut status = offline::document(vec![], BrokerState::Serving);
    status.as_of = WallTime::from_unix_millis(10_000_000);
    Facts {
        state_dir: PathBuf::from("/s"),
        socket: PathBuf::from("/s/control.sock"),
        uid: 1000,
        dir_entry: Some(Entry { uid: 1000, mode: 0o700, is_dir: true, is_socket: false }),
        socket_entry: Some(Entry { uid: 1000, mode: 0o600, is_dir: false, is_socket: true }),
        asked: Asked::Answers(Box::new(Answers { info: info(), status: Some(status), events: vec![] })),
        holder: Some(7),
        space: Some(Space { free_bytes: 1 << 40, free_files: 1 << 20, files: 1 << 21, read_only: false }),
        descriptors: Some(Descriptors { open: Some(10), soft: 4096, hard: 4096 }),
        virtio_ports: None,
        missing_devices: vec![],
    }
}

fn info() -> Info {
    let zero: serde_json::Map<_, _> = ["guests", "half_open", "control_clients", "control_requests"]
        .into_iter()
        .chain(["request_bytes", "frame_bytes", "events"])
        .map(|key| (key.to_owned(), json!(0)))
        .collect();
    serde_json::from_value(json!({
        "role": "broker", "version": env!("CARGO_PKG_VERSION"), "pid": 7, "incarnation": 1, "state_dir": "/s",
        "listen": ["tcp:127.0.0.1:7070"], "started_at": "2026-01-02T03:04:05.678Z", "limits": zero,
        "config": {"window_ms": 15000, "interval_ms": 5000, "handshake_timeout_ms": 2000,
            "require_token": false, "accept_unproven": false, "only_known": false},
        "link": null,
    }))
    .unwrap()
}

fn row(reason: Option<Reason>) -> GuestStatus {
    let mut row = offline::absent_guest("devbox".parse().unwrap(), None, Reason::Stale);
    row.state = if reason.is_some() { State::Waiting } else { State::Reachable };
    (row.reason, row.reachable) = (reason, reason.is_none());
    row
}

fn event(fact: Fact) -> Event {
    let cursor = serde_json::from_value(json!("1-1")).unwrap();
    Event { cursor, at: WallTime::from_unix_millis(9_999_000), guest: Some("devbox".parse().unwrap()), fact }
}

/// What `change` makes the doctor find.
fn found(change: impl FnOnce(&mut Facts, &mut Answers)) -> Vec<Finding> {
    let mut facts = well();
    let Asked::Answers(mut answers) = std::mem::replace(&mut facts.asked, Asked::NoBroker) else {
        unreachable!("it answers")
    };
    change(&mut facts, &mut answers);
    facts.asked = Asked::Answers(answers);
    report(&facts).findings
}

/// The one thing that it finds.
fn only(change: impl FnOnce(&mut Facts, &mut Answers)) -> (&'static str, Level, String) {
    let found = found(change);
    assert_eq!(found.len(), 1, "{found:#?}");
    (found[0].check, found[0].level, format!("{}: {} / {}", found[0].subject, found[0].what, found[0].fix))
}

#[test]
fn nothing_is_found_where_nothing_is_wrong_and_everything_was_looked_at() {
    let report = report(&well());
    assert_eq!((report.findings, report.skipped), (vec![], vec![]));
    assert_eq!(report.healthy.len(), super::checks::ALL.len());
}

#[test]
fn who_does_not_serve_is_told_apart() {
    let broker = |asked: Asked, socket: bool| {
        let mut facts = well();
        facts.asked = asked;
        facts.socket_entry = facts.socket_entry.filter(|_| socket);
        let report = report(&facts);
        assert!(report.skipped.contains(&"guests"), "{report:?}");
        let finding = report.findings.into_iter().find(|finding| finding.check == "broker").unwrap();
        assert_eq!(finding.level, Level::Problem);
        format!("{} / {}", finding.what, finding.fix)
    };
    assert!(broker(Asked::NoBroker, false).contains("castra up"));
    assert!(broker(Asked::NoBroker, true).contains("left behind"));
    assert!(broker(Asked::NotAnswering, true).contains("process 7 holds"));
    assert!(broker(Asked::Denied, true).contains("another user"));
}

#[test]
fn a_place_that_is_not_ours_alone_is_found() {
    let of = |change: fn(&mut Entry)| only(|facts, _| change(facts.dir_entry.as_mut().unwrap()));
    assert!(matches!(of(|dir| dir.uid = 0), ("place", Level::Problem, text) if text.contains("number 0")));
    assert!(
        matches!(of(|dir| dir.mode = 0o755), ("place", Level::Warning, text) if text.contains("chmod 0700 /s"))
    );
    assert!(matches!(of(|dir| dir.is_dir = false), ("place", Level::Problem, _)));
    let plain = only(|facts, _| facts.socket_entry.as_mut().unwrap().is_socket = false);
    assert!(matches!(plain, ("place", Level::Problem, text) if text.contains("is no socket")));
}

#[test]
fn a_disk_that_is_full_or_read_only_or_failed_is_found() {
    let of = |change: fn(&mut Space)| only(|facts, _| change(facts.space.as_mut().unwrap()));
    assert!(
        matches!(of(|space| space.free_bytes = 1 << 20), ("disk", Level::Problem, text) if text.contains("1 MiB"))
    );
    assert!(matches!(of(|space| space.free_bytes = 100 << 20), ("disk", Level::Warning, _)));
    assert!(matches!(of(|space| space.free_files = 3), ("disk", Level::Problem, _)));
    assert!(
        matches!(of(|space| space.read_only = true), ("disk", Level::Problem, text) if text.contains("read-only"))
    );
    let failed = || event(Fact::StorageFailed { what: Storage::Database, message: "no space".into() });
    let broken = only(|_, answers| answers.events = vec![failed()]);
    assert!(matches!(broken, ("storage", Level::Problem, text) if text.contains("no space")));
    let again = event(Fact::StorageRecovered { what: Storage::Database });
    assert_eq!(found(|_, answers| answers.events = vec![failed(), again]), vec![]);
}

#[test]
fn a_broker_of_another_version_or_without_descriptors_is_found() {
    let old = only(|_, answers| answers.info.version = "0.1.9".into());
    assert!(matches!(old, ("version", Level::Warning, text) if text.contains("0.1.9")));
    let full =
        only(|facts, _| facts.descriptors = Some(Descriptors { open: Some(950), soft: 1024, hard: 1024 }));
    assert!(matches!(full, ("descriptors", Level::Problem, text) if text.contains("LimitNOFILE")));
    let few = only(|facts, _| facts.descriptors = Some(Descriptors { open: Some(9), soft: 64, hard: 64 }));
    assert!(matches!(few, ("descriptors", Level::Warning, _)));
    let hidden = Descriptors { open: None, soft: 4096, hard: 4096 };
    assert_eq!(found(|facts, _| facts.descriptors = Some(hidden)), vec![], "not root: nothing is wrong");
}

#[test]
fn a_window_that_is_too_short_for_its_interval_or_its_guests_is_found() {
    let short = only(|_, answers| answers.info.config.window_ms = 9000);
    assert!(matches!(short, ("window", Level::Problem, text) if text.contains("9000 ms")));
    let slow = only(|_, answers| {
        let mut slow = row(None);
        slow.rtt_us = Some(6_000_000);
        answers.status.as_mut().unwrap().guests = vec![slow];
    });
    assert!(matches!(slow, ("window", Level::Warning, text) if text.contains("devbox")));
}

#[test]
fn a_broker_that_slept_lately_is_found_and_one_that_slept_long_ago_is_not() {
    let stall = || event(Fact::BrokerStalled { late_ms: 9000 });
    let stalled = only(|_, answers| answers.events = vec![stall(), stall()]);
    assert!(
        matches!(stalled, ("clock", Level::Warning, text) if text.contains("2 times") && text.contains("9000 ms"))
    );
    let jump = event(Fact::ClockJumped { late_ms: 9000, suspended_ms: 8000 });
    assert!(matches!(only(|_, answers| answers.events = vec![jump]), ("clock", Level::Note, _)));
    let old = Event { at: WallTime::from_unix_millis(6_000_000), ..stall() };
    assert_eq!(found(|_, answers| answers.events = vec![old]), vec![]);
}

#[test]
fn every_guest_that_is_not_reachable_gets_advice_and_many_are_a_number() {
    for (reason, level) in [
        (Reason::Stale, Level::Warning),
        (Reason::Disconnected, Level::Warning),
        (Reason::Unproven, Level::Warning),
        (Reason::NeverSeen, Level::Note),
        (Reason::Goodbye, Level::Note),
        (Reason::BrokerStarted, Level::Note),
        (Reason::Refused, Level::Problem),
    ] {
        let one = only(|_, answers| answers.status.as_mut().unwrap().guests = vec![row(Some(reason))]);
        assert_eq!((one.0, one.1), ("guests", level), "{one:?}");
    }
    let many =
        found(|_, answers| answers.status.as_mut().unwrap().guests = vec![row(Some(Reason::Stale)); 25]);
    assert_eq!(many.len(), 21);
    assert!(many.iter().any(|finding| finding.what.starts_with("5 more")), "{many:?}");
}

#[test]
fn a_refusal_names_what_was_wrong_with_the_handshake() {
    let why = |reason: Failure| {
        only(|_, answers| {
            answers.status.as_mut().unwrap().guests = vec![row(Some(Reason::Refused))];
            answers.events = vec![event(
                serde_json::from_value(
                    json!({"kind": "handshake.failure", "reason": reason, "transport": "tcp",
                    "remote": "127.0.0.1:1", "capabilities": []}),
                )
                .unwrap(),
            )];
        })
        .2
    };
    assert!(why(Failure::TokenRequired).contains("castra token issue devbox"));
    assert!(why(Failure::BadProof).contains("not the one issued last"));
    assert!(why(Failure::UnknownName).contains("--guest devbox"));
}

#[test]
fn conflicts_unproven_guests_and_skew_are_found() {
    let with = |warning: Warning| {
        only(|_, answers| {
            let mut row = row(None);
            row.warnings = vec![warning];
            answers.status.as_mut().unwrap().guests = vec![row];
        })
    };
    assert!(matches!(with(Warning::NameConflict), ("conflicts", Level::Problem, _)));
    assert!(matches!(with(Warning::Unproven), ("guests", Level::Warning, text) if text.contains("0.1")));
    assert!(
        matches!(with(Warning::VersionSkew), ("guests", Level::Warning, text) if text.contains("versions"))
    );
}

#[test]
fn an_agent_whose_link_is_down_or_whose_port_is_missing_is_found() {
    let agent = |facts: &mut Facts, answers: &mut Answers, state: &str| {
        answers.status = None;
        answers.info.role = "agent".into();
        answers.info.listen = vec!["serial:/dev/virtio-ports/castra.0".into()];
        let (state, last_error) = (state.to_owned(), Some("no such file".to_owned()));
        let name = "devbox".parse().unwrap();
        answers.info.link =
            Some(LinkInfo { name, state, epoch: None, authenticated: false, retry_ms: None, last_error });
        facts.virtio_ports = Some(vec!["org.qemu.guest_agent.0".into()]);
    };
    assert_eq!(found(|facts, answers| agent(facts, answers, "up")), vec![]);
    let found = found(|facts, answers| {
        agent(facts, answers, "backoff");
        facts.missing_devices = vec![PathBuf::from("/dev/virtio-ports/castra.0")];
    });
    let text = format!("{found:?}");
    assert_eq!(found.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["link", "virtio"]);
    assert!(text.contains("no such file") && text.contains("org.qemu.guest_agent.0"), "{text}");
    assert!(text.contains("virtserialport"), "{text}");
}

#[test]
fn what_is_printed_is_safe_and_says_what_to_do() {
    let mut facts = well();
    facts.asked = Asked::Other("nonsense \u{1b}[2J".into());
    let lines = super::lines(&report(&facts));
    assert!(lines[0].starts_with("problem  broker") && !lines[0].contains('\u{1b}'), "{lines:?}");
    assert!(lines[1].contains("do: "), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("skipped")), "{lines:?}");
}
