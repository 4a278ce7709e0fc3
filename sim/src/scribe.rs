//! Writes a run down as a [`Chronicle`].

use std::collections::BTreeMap;

use castra_core::status::State;
use castra_core::time::Time;

use crate::chronicle::{Arrow, Band, Broken, Chronicle, Column, Mark, MarkKind, Process, Role};
use crate::net::{EndId, NodeId};
use crate::plan::Plan;
use crate::violation::Violation;
use crate::witness::Said;

/// A chronicle in the making.
#[derive(Debug)]
pub(crate) struct Scribe {
    chronicle: Chronicle,
    origin: Time,
    columns: Vec<Option<Column>>,
    /// Longer under way than this is a fault's doing.
    ordinary: std::time::Duration,
    /// Bytes written to an end so far, and messages that are under way to it.
    flights: BTreeMap<EndId, Flight>,
}

#[derive(Debug, Default)]
struct Flight {
    written: u64,
    arrived: u64,
    /// The arrow, and how many bytes must have arrived for it to be there.
    open: Vec<(usize, u64)>,
}

impl Scribe {
    pub(crate) fn new(plan: &Plan, origin: Time) -> Self {
        let setting = |name: &str, millis: u64| (name.to_owned(), format!("{} s", millis as f64 / 1000.0));
        let chronicle = Chronicle {
            settings: vec![setting("window", plan.window_ms), setting("interval", plan.interval_ms)],
            ..Chronicle::default()
        };
        let ordinary = std::time::Duration::from_micros(plan.network.latency_max_us * 2 + 100);
        Self { chronicle, origin, columns: Vec::new(), ordinary, flights: BTreeMap::new() }
    }

    fn since_start(&self, at: Time) -> Time {
        Time::from_nanos(at.as_nanos().saturating_sub(self.origin.as_nanos()))
    }

    /// A process gets a column.
    pub(crate) fn process(&mut self, node: NodeId, name: String, role: Role) {
        if self.columns.len() <= node {
            self.columns.resize(node + 1, None);
        }
        self.columns[node] = Some(self.chronicle.columns.len());
        self.chronicle.columns.push(Process { name, role });
    }

    fn column(&self, node: NodeId) -> Option<Column> {
        self.columns.get(node).copied().flatten()
    }

    /// Bytes were written to `to`.
    pub(crate) fn wrote(&mut self, now: Time, from: NodeId, node: NodeId, to: EndId, bytes: &[u8]) {
        let flight = self.flights.entry(to).or_default();
        flight.written += bytes.len() as u64;
        let (arrow, offset) = (self.chronicle.arrows.len(), flight.written);
        flight.open.push((arrow, offset));
        let (Some(from), Some(to)) = (self.column(from), self.column(node)) else { return };
        let sent = self.since_start(now);
        let label = label(bytes);
        self.chronicle.arrows.push(Arrow { from, to, sent, arrived: None, label, delayed: false });
    }

    /// Bytes arrived at `to`.
    pub(crate) fn arrived(&mut self, now: Time, to: EndId, count: usize) {
        let at = self.since_start(now);
        let Some(flight) = self.flights.get_mut(&to) else { return };
        flight.arrived += count as u64;
        let arrived = flight.arrived;
        let arrows = &mut self.chronicle.arrows;
        flight.open.retain(|(arrow, offset)| {
            if *offset <= arrived
                && let Some(arrow) = arrows.get_mut(*arrow)
            {
                arrow.arrived = Some(at);
                arrow.delayed = at.since(arrow.sent) > self.ordinary;
            }
            *offset > arrived
        });
    }

    /// Something at a process, or in the whole world.
    pub(crate) fn mark(
        &mut self,
        node: Option<NodeId>,
        now: Time,
        until: Option<Time>,
        kind: MarkKind,
        text: impl Into<String>,
    ) {
        let column = node.and_then(|node| self.column(node));
        if node.is_some() && column.is_none() {
            return;
        }
        let (at, until) = (self.since_start(now), until.map(|until| self.since_start(until)));
        self.chronicle.marks.push(Mark { column, at, until, kind, text: text.into() });
    }

    /// Why it is wrong that a guest is called reachable: the window in which it did
    /// not run, what its answer was worth, and since when the broker counts.
    pub(crate) fn explain(&mut self, guest: usize, proof_at: Time, window: std::time::Duration, now: Time) {
        // Guest `i` is process `i + 1`, the broker process 0.
        let (Some(column), Some(broker)) = (self.column(guest + 1), self.column(0)) else { return };
        let (end, counts) = (self.since_start(now), self.since_start(proof_at));
        let began = Time::from_nanos(end.as_nanos().saturating_sub(window.as_nanos() as u64));
        let text = format!("the window, {} s: it did not run", window.as_secs_f64());
        let marks = &mut self.chronicle.marks;
        let mut mark = |column, at, until, kind, text: String| {
            marks.push(Mark { column: Some(column), at, until, kind, text });
        };
        mark(column, began, Some(end), MarkKind::Window, text);
        let arrows = &self.chronicle.arrows;
        let proof = arrows.iter().rfind(|arrow| {
            arrow.from == column
                && arrow.label.starts_with("proof")
                && arrow.arrived.is_some_and(|at| at <= end)
        });
        let Some(proof) = proof else { return };
        let asked = arrows.iter().rfind(|arrow| {
            arrow.to == column
                && arrow.arrived.is_some_and(|at| at <= proof.sent)
                && arrow.label.split(", ").any(|word| word.starts_with("challenge"))
        });
        if let Some(asked) = asked.filter(|asked| asked.sent < counts) {
            mark(column, proof.sent, None, MarkKind::Note, "the guest answers".to_owned());
            mark(
                broker,
                asked.sent,
                None,
                MarkKind::Note,
                "asked here: the answer must count from here".to_owned(),
            );
            mark(
                broker,
                counts,
                None,
                MarkKind::Wrong,
                "received here: the broker counts from here, wrong".to_owned(),
            );
        }
    }

    /// The whole of it.
    pub(crate) fn finish(mut self, now: Time, verdicts: &[Said], violation: Option<&Violation>) -> Chronicle {
        let end = self.since_start(now);
        let mut open: BTreeMap<usize, Band> = BTreeMap::new();
        for (at, guest, state, reason) in verdicts {
            // Guest `i` is process `i + 1`.
            let (Some(column), from) = (self.column(guest + 1), self.since_start(*at)) else { continue };
            if let Some(mut last) = open.remove(guest) {
                last.until = from;
                self.chronicle.bands.push(last);
            }
            // Without a broker nobody says anything.
            if *state != State::Offline {
                let reason = reason.map_or_else(String::new, |reason| reason.to_string());
                let reachable = *state == State::Reachable;
                open.insert(*guest, Band { guest: column, from, until: end, reachable, reason });
            }
        }
        self.chronicle.bands.extend(open.into_values());
        self.chronicle.bands.sort_by_key(|band| (band.guest, band.from));
        self.chronicle.violation = violation.map(|violation| Broken {
            at: violation.at,
            column: violation.guest.and_then(|guest| self.column(guest + 1)),
            promise: violation.promise.to_owned(),
            text: violation.text.clone(),
        });
        self.chronicle.end = end;
        self.chronicle
    }
}

/// What a message says, in a few words.
fn label(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]);
    let mut words = Vec::new();
    for part in text.split(['\n', '\0']) {
        if let Some(kind) = between(part, "\"type\":\"", "\"") {
            let number = between(part, "\"seq\":", ",").map(|seq| format!(" {seq}")).unwrap_or_default();
            words.push(format!("{kind}{number}{}", of_peers(part)));
        } else if let Some(method) = between(part, "\"method\":\"", "\"") {
            words.push(format!("{method}{}", of_peers(part)));
        } else if let Some(event) = between(part, "\"event\":\"", "\"") {
            words.push(format!("{event}{}", of_peers(part)));
        } else if part.starts_with("castra-broker") {
            words.push("greeting".to_owned());
        } else if part.starts_with("error: ") {
            words.push(part.split(": ").nth(1).unwrap_or("error").to_owned());
        } else if let Some(word) = part.split(' ').next().filter(|word| word.len() > 1) {
            words.push(word.chars().filter(char::is_ascii_alphanumeric).take(12).collect());
        }
    }
    words.truncate(3);
    words.join(", ")
}

/// What a message about peers is about: its first word, how it ended, the policy.
fn of_peers(part: &str) -> String {
    let first = |text: &str| text.split([' ', '\\']).next().unwrap_or_default().to_owned();
    let text = between(part, "\"text\":\"", "\"").map(first);
    let word =
        ["\"outcome\":\"", "\"code\":\"", "\"policy\":\""].iter().find_map(|key| between(part, key, "\""));
    [text, word.map(str::to_owned)].into_iter().flatten().map(|word| format!(" {word}")).collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end).map_or(rest, |(found, _)| found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_in_a_few_words() {
        assert_eq!(label(b"\0\0\0\x2e{\"type\":\"proof\",\"seq\":3,\"proof\":\"00\"}"), "proof 3");
        assert_eq!(label(b"hello vm:devbox capabilities=proof-v1\n"), "hello");
        assert_eq!(
            label(b"castra-broker 0.1 ready\nchallenge 00 epoch=1 auth=none\n"),
            "greeting, challenge"
        );
        assert_eq!(label(b"error: name-in-use: a live session holds the name\n"), "name-in-use");
        assert_eq!(label(b"{\"id\":1,\"method\":\"status\",\"params\":{}}\n"), "status");
        let message =
            br#"{"type":"peer_message","id":"msg-00","from":"guest-1","text":"m3.1 ...","wake":true}"#;
        assert_eq!(label(message), "peer_message m3.1");
        assert_eq!(label(br#"{"type":"peer_result","id":7,"outcome":"queued"}"#), "peer_result queued");
    }
}
