//! Every test vector of `docs/PROTOCOL.md`, checked against the code.

mod documents;
mod link;
mod parse;
mod terminals;

use std::collections::{BTreeMap, BTreeSet};

use parse::Vector;

const PROTOCOL: &str = include_str!("../../../../docs/PROTOCOL.md");

/// How many vectors the document has. Change it together with the document:
/// it is here so that a change of the fences can't silently read none.
const COUNT: usize = 222;

#[test]
fn every_vector_of_the_protocol_document_holds() {
    let vectors = parse::vectors(PROTOCOL);
    let names: BTreeSet<_> = vectors.iter().map(|vector| vector.name.as_str()).collect();
    assert_eq!(names.len(), vectors.len(), "every vector has a name of its own");
    let mut sessions = BTreeMap::new();
    for vector in &vectors {
        check(vector, &mut sessions);
        assert_eq!(vector.unused(), Vec::<&str>::new(), "{}: keys that nothing checks", vector.name);
    }
    assert_eq!(vectors.len(), COUNT, "the document has another number of vectors than expected");
}

fn check<'a>(vector: &'a Vector, sessions: &mut BTreeMap<&'a str, castra_core::auth::SessionKey>) {
    match vector.kind.as_str() {
        "greeting" => link::greeting(vector),
        "line-length" => link::line_length(vector),
        "hello" => link::hello(vector),
        "hello-refused" => link::hello_refused(vector),
        "challenge" => link::challenge(vector),
        "ok" => link::ok(vector),
        "legacy-session" => link::legacy_session(vector),
        "refusal" => link::refusal(vector),
        "broker-line" => link::broker_line(vector),
        "transcript" => {
            sessions.insert(&vector.name, link::transcript(vector));
        }
        "tag" => link::tag(vector, sessions),
        "frame" => link::frame(vector),
        "frame-refused" => link::frame_refused(vector),
        "message" => link::message(vector),
        "guest-frame" => link::guest_frame(vector),
        "exchange" => link::exchange(vector),
        "padding" => link::padding(vector),
        "padding-none" => link::padding_none(vector),
        "control-request" => documents::control_request(vector),
        "control-rejected" => documents::control_rejected(vector),
        "error-reply" => documents::error_reply(vector),
        "status-row" => documents::status_row(vector),
        "status" => documents::status(vector),
        "event" => documents::event(vector),
        "record" => documents::record(vector),
        "attach-frame" => link::attach_frame(vector),
        "terminal-request" => terminals::request(vector),
        "terminal-message" => terminals::message(vector),
        other => panic!("{}: nothing checks vectors of kind {other:?}", vector.name),
    }
}

/// Vectors of earlier releases, frozen (docs/RELEASING.md). A document of theirs is read, and
/// written with every field that it had; everything else holds to the letter.
const FROZEN: [&str; 1] = [include_str!("../../../../compat/v0.2/vectors.md")];

#[test]
fn every_vector_of_an_earlier_release_still_holds() {
    for text in FROZEN {
        let vectors = parse::vectors(text);
        assert!(vectors.len() >= 222, "only {} vectors", vectors.len());
        let mut sessions = BTreeMap::new();
        for vector in &vectors {
            match vector.kind.as_str() {
                "status-row" | "status" | "event" => documents::kept(vector),
                _ => check(vector, &mut sessions),
            }
        }
    }
}

#[test]
fn every_kind_of_event_has_a_vector() {
    let documented: BTreeSet<String> = parse::vectors(PROTOCOL)
        .iter()
        .filter(|vector| vector.kind == "event")
        .map(|vector| documents::read_event(vector).fact.kind().to_owned())
        .collect();
    // The table of section 13 names each kind in its first column.
    let table: BTreeSet<String> = PROTOCOL
        .lines()
        .skip_while(|line| *line != "## 13. Events")
        .take_while(|line| *line != "## 14. Files")
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap_or_default().split(", ").map(str::to_owned))
        .map(|kind| kind.trim().trim_matches('`').to_owned())
        .collect();
    assert_eq!(documented, table);
}

#[test]
#[should_panic(expected = "nothing checks vectors of kind")]
fn an_unknown_kind_of_vector_fails() {
    let vectors = parse::vectors("```vector name=x kind=y\n```\n");
    check(&vectors[0], &mut BTreeMap::new());
}
