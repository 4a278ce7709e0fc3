//! `castra events`: what the broker saw.

use std::time::Duration;

use castra_core::event::Event;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::Context;
use crate::args::Events;
use crate::client::{Client, ClientError, next};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Out, ascii_json, say};

/// Default of `--timeout`: bounds the first answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Events one by one as they came, so that a kind that is newer than this
/// program still passes through.
#[derive(Deserialize)]
struct Raw {
    events: Vec<Box<RawValue>>,
    cursor: String,
    #[serde(default)]
    gap: bool,
}

#[derive(Deserialize)]
struct Gap {
    cursor: String,
}

#[derive(Deserialize)]
struct Stamp {
    at: String,
}

pub(crate) fn run(cx: &mut Context, args: &Events) -> Outcome {
    let place = cx.place()?;
    let bound = cx.timeout(TIMEOUT);
    let mut client = Client::connect(&place.socket, bound)?;
    let mut params = json!({"follow": args.follow, "kinds": args.kinds, "guests": args.guests});
    if let Some(since) = args.since {
        params["since"] = json!(since);
    }
    let first: Raw = client.request("events", params, bound)?.parse()?;
    if first.gap {
        gap(&mut cx.out, &first.cursor, args.json)?;
    }
    for event in &first.events {
        show(&mut cx.out, event, args.json)?;
    }
    while args.follow && !cx.out.gone() {
        let stdout = std::io::stdout();
        let line = match next(&mut client, std::os::fd::AsFd::as_fd(&stdout)) {
            Ok(line) => line,
            Err(ClientError::Closed { .. }) => {
                return Err(Failure::new(Exit::Offline, "the broker ended the stream: it stopped"));
            }
            Err(other) => return Err(other.into()),
        };
        match line {
            None => break,
            Some(reply) if reply.event == "gap" => {
                let lost: Gap = reply.parse()?;
                gap(&mut cx.out, &lost.cursor, args.json)?;
            }
            Some(reply) => show(&mut cx.out, &reply.data, args.json)?,
        }
    }
    Ok(Exit::Yes)
}

fn show(out: &mut Out, event: &RawValue, json: bool) -> Result<(), Failure> {
    if json { out.json(event.get()) } else { out.line(&text(event.get())) }
}

/// Some events are lost for good; JSON readers get a line of their own for it.
fn gap(out: &mut Out, cursor: &str, json: bool) -> Result<(), Failure> {
    if json {
        return out.line(&json!({"kind": "gap", "cursor": cursor}).to_string());
    }
    say(format_args!("events were lost here: the broker keeps the newest only; going on at {cursor}"));
    Ok(())
}

/// The line as the log has it; of an unknown kind, its JSON.
fn text(json: &str) -> String {
    if let Ok(event) = serde_json::from_str::<Event>(json) {
        return log_line(&event, "[host-broker] ");
    }
    let at = serde_json::from_str::<Stamp>(json).map_or_else(|_| "-".into(), |stamp| stamp.at);
    format!("{} [host-broker] INFO {}", crate::output::printable(&at), ascii_json(json))
}

/// The log form with its time.
pub(crate) fn log_line(event: &Event, prefix: &str) -> String {
    crate::output::printable(&format!("{} {prefix}{} {event}", event.at, event.fact.level()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_event_is_shown_as_the_log_has_it() {
        let json = r#"{"cursor":"7-1","at":"2026-01-02T03:04:05.678Z","guest":"devbox","kind":"verdict.changed","from":"reachable","to":"waiting","reason":"stale","age_ms":15001}"#;
        assert_eq!(
            text(json),
            "2026-01-02T03:04:05.678Z [host-broker] INFO verdict vm=devbox from=reachable to=waiting reason=stale age_ms=15001"
        );
    }

    #[test]
    fn an_unknown_kind_falls_back_to_its_json_and_stays_harmless() {
        let json = "{\"kind\":\"new.kind\",\"at\":\"2026-01-02T03:04:05Z\",\"x\":\"\u{9b}31m\"}";
        assert_eq!(
            text(json),
            r#"2026-01-02T03:04:05Z [host-broker] INFO {"kind":"new.kind","at":"2026-01-02T03:04:05Z","x":"\u009b31m"}"#
        );
    }
}
