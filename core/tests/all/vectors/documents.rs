//! Vectors of control, events, status and records.

use std::time::Duration;

use castra_core::capabilities::Capabilities;
use castra_core::control::reply::{Envelope, ErrorBody, ErrorCode, Target};
use castra_core::control::request::{Command, Request};
use castra_core::event::{EVENT_BYTES_MAX, Event};
use castra_core::id::{GuestName, RequestId};
use castra_core::legacy::Record;
use castra_core::status::{GuestStatus, StatusOutcome};
use castra_core::time::WallTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::vectors::parse::Vector;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn written(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("documents can be written")
}

fn read<T: DeserializeOwned>(vector: &Vector, key: &str) -> T {
    serde_json::from_str(vector.text(key)).unwrap_or_else(|error| panic!("{}: {error}", vector.name))
}

fn list<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

fn names(guests: &[GuestName]) -> String {
    list(guests.iter().map(GuestName::as_str))
}

const fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

fn id_of(id: Option<&RequestId>) -> String {
    id.map_or("-".to_owned(), written)
}

fn describe(command: &Command) -> String {
    match command {
        Command::Info => "info".to_owned(),
        Command::Status { guests } => format!("status guests={}", names(guests)),
        Command::Wait { guests, target, any } => {
            let target = match target {
                Target::Reachable => "reachable",
                Target::Waiting => "waiting",
            };
            format!("wait guests={} for={target} any={}", names(guests), yes(*any))
        }
        Command::Ping { guest } => format!("ping guest={guest}"),
        Command::Terminals { guest } => {
            format!("terminals guest={}", guest.map_or("-".to_owned(), |guest| guest.to_string()))
        }
        Command::Events { since, follow, kinds, guests, limit } => format!(
            "events since={} follow={} kinds={} guests={} limit={limit}",
            since.map_or("-".to_owned(), |cursor| cursor.to_string()),
            yes(*follow),
            list(kinds),
            names(guests),
        ),
        Command::TokenIssue { guest } => format!("token_issue guest={guest}"),
        other => format!("{other:?}"),
    }
}

pub(crate) fn control_request(vector: &Vector) {
    let request = Request::parse(&vector.line("line"), DAY)
        .unwrap_or_else(|rejected| panic!("{}: {rejected:?}", vector.name));
    assert_eq!(id_of(request.id.as_ref()), vector.text("id"), "{}", vector.name);
    assert_eq!(describe(&request.command), vector.text("command"), "{}", vector.name);
    let timeout = request.timeout.map(|timeout| timeout.as_millis().to_string());
    assert_eq!(timeout.as_deref(), vector.optional("timeout_ms"), "{}", vector.name);
}

pub(crate) fn control_rejected(vector: &Vector) {
    let rejected = match Request::parse(&vector.line("line"), DAY) {
        Err(rejected) => rejected,
        Ok(request) => panic!("{}: {request:?}", vector.name),
    };
    assert_eq!(id_of(rejected.id.as_ref()), vector.text("id"), "{}", vector.name);
    assert_eq!(rejected.error.code.as_str(), vector.text("code"), "{}", vector.name);
    assert!(!rejected.error.message.is_empty());
    if vector.has("message") {
        assert_eq!(rejected.error.message, vector.text("message"), "{}", vector.name);
    }
}

pub(crate) fn error_reply(vector: &Vector) {
    let code: ErrorCode = serde_json::from_value(vector.text("code").into()).expect("a code");
    let reply = Envelope {
        id: vector.optional("id").map(|id| serde_json::from_str(id).expect("an id")),
        event: "error".to_owned(),
        data: ErrorBody { code, message: vector.text("message").to_owned() },
    };
    assert_eq!(written(&reply), vector.text("json"));
}

pub(crate) fn status_row(vector: &Vector) {
    assert_eq!(written(&read::<GuestStatus>(vector, "json")), vector.text("json"), "{}", vector.name);
}

pub(crate) fn status(vector: &Vector) {
    assert_eq!(written(&read::<StatusOutcome>(vector, "json")), vector.text("json"), "{}", vector.name);
}

/// A document of an earlier release: what is written of it now has all that it had.
pub(crate) fn kept(vector: &Vector) {
    let now = match vector.kind.as_str() {
        "status-row" => written(&read::<GuestStatus>(vector, "json")),
        "status" => written(&read::<StatusOutcome>(vector, "json")),
        _ => written(&read_event(vector)),
    };
    let now = serde_json::from_str(&now).expect("JSON");
    assert!(holds(&now, &read(vector, "json")), "{}: something is gone: {now}", vector.name);
}

/// Whether `new` has everything that `old` has.
fn holds(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            old.iter().all(|(key, old)| new.get(key).is_some_and(|new| holds(new, old)))
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| holds(new, old))
        }
        _ => new == old,
    }
}

#[test]
fn a_field_may_come_and_none_may_go_or_change() {
    let old = json!({"a": [{"b": 1}]});
    assert!(holds(&json!({"a": [{"b": 1, "c": 2}], "d": null}), &old));
    assert!(!holds(&json!({"a": [{"c": 1}]}), &old));
    assert!(!holds(&json!({"a": [{"b": "1"}]}), &old));
}

pub(crate) fn read_event(vector: &Vector) -> Event {
    read(vector, "json")
}

pub(crate) fn event(vector: &Vector) {
    let event = read_event(vector);
    assert_eq!(written(&event), vector.text("json"), "{}", vector.name);
    assert_eq!(event.to_string(), vector.text("log"), "{}", vector.name);
    assert_eq!(event.fact.level().to_string(), vector.text("level"), "{}", vector.name);
    assert!(vector.text("json").contains(&format!("\"kind\":\"{}\"", event.fact.kind())), "{}", vector.name);
    assert!(vector.text("json").len() <= EVENT_BYTES_MAX);
}

pub(crate) fn record(vector: &Vector) {
    let record = Record {
        vm: vector.parsed("name"),
        timestamp: WallTime::from_unix_millis(vector.parsed("timestamp_ms")).unix_seconds(),
        capabilities: Capabilities::parse(vector.optional("capabilities").unwrap_or_default()),
    };
    assert_eq!(written(&record), vector.text("json"), "{}", vector.name);
}
