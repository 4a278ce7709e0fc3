//! What a measurement came to, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::run::Kind;
use crate::duration::millis;

pub(super) struct Report {
    pub(super) kind: Kind,
    pub(super) against: String,
    pub(super) own: bool,
    pub(super) guests: u32,
    pub(super) concurrency: u32,
    pub(super) keyed: bool,
    pub(super) span: Duration,
    pub(super) done: u64,
    pub(super) up: usize,
    pub(super) failures: BTreeMap<String, u64>,
    /// In microseconds.
    pub(super) latencies: Histogram<u64>,
    pub(super) reply_bytes: Option<u64>,
    pub(super) costs: Option<Costs>,
    pub(super) interrupted: bool,
}

/// Of the broker's process.
pub(super) struct Costs {
    pub(super) pid: u32,
    /// While it was measured.
    pub(super) cpu: Duration,
    /// At the end.
    pub(super) user_bytes: u64,
    /// What came with the guests.
    pub(super) guests_bytes: Option<u64>,
}

const SHARES: [(&str, &str, f64); 4] =
    [("p50", "p50", 0.5), ("p99", "p99", 0.99), ("p99.9", "p999", 0.999), ("max", "max", 1.0)];

impl Report {
    /// Everything that was asked for happened.
    pub(super) fn is_good(&self) -> bool {
        self.failures.is_empty() && !self.interrupted && self.done > 0
    }

    fn per_second(&self) -> f64 {
        self.done as f64 / self.span.as_secs_f64().max(1e-9)
    }

    /// Microseconds of the broker's processor time.
    fn cpu_us_each(&self) -> Option<f64> {
        let costs = self.costs.as_ref().filter(|_| self.done > 0)?;
        Some(costs.cpu.as_secs_f64() * 1e6 / self.done as f64)
    }

    fn bytes_a_guest(&self) -> Option<u64> {
        // Where nobody stays, what is left behind says nothing about a guest.
        let stays = !matches!(self.kind, Kind::Handshake { .. });
        let bytes = self.costs.as_ref()?.guests_bytes?;
        stays.then(|| bytes / u64::from(self.guests))
    }

    pub(super) fn document(&self) -> Value {
        let share = |(_, name, share): &(&str, &str, f64)| {
            ((*name).to_owned(), json!(self.latencies.value_at_quantile(*share)))
        };
        let latency: serde_json::Map<_, _> = SHARES.iter().map(share).collect();
        let rate = if let Kind::Handshake { rate } = self.kind { rate } else { None };
        let server = self.costs.as_ref().map(|costs| {
            json!({
                "pid": costs.pid,
                "cpu_us": costs.cpu.as_micros() as u64,
                "cpu_us_per_operation": self.cpu_us_each(),
                "user_bytes": costs.user_bytes,
                "user_bytes_per_guest": self.bytes_a_guest(),
            })
        });
        json!({
            "bench": self.kind.as_str(),
            "against": self.against,
            "own_broker": self.own,
            "guests": self.guests,
            "concurrency": self.concurrency,
            "rate": rate,
            "keyed": self.keyed,
            "elapsed_ms": millis(self.span),
            "done": self.done,
            "per_second": self.per_second(),
            "proven_at_end": self.up,
            "failures": self.failures,
            "latency_us": (!self.latencies.is_empty()).then_some(latency),
            "reply_bytes": self.reply_bytes,
            "server": server,
            "interrupted": self.interrupted,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        let whose = if self.own { ", a broker of our own" } else { "" };
        row("against", format!("{}{whose}", self.against));
        let keyed = if self.keyed { ", each with a token" } else { "" };
        row("guests", format!("{}{keyed}, at most {} handshakes at once", self.guests, self.concurrency));
        let unit = self.kind.unit();
        row(
            unit,
            format!("{} in {:.2} s: {:.0} a second", self.done, self.span.as_secs_f64(), self.per_second()),
        );
        if !self.latencies.is_empty() {
            let share = |(name, _, share): &(&str, &str, f64)| {
                format!("{name} {}", shown(self.latencies.value_at_quantile(*share)))
            };
            row("latency", SHARES.iter().map(share).collect::<Vec<_>>().join(", "));
        }
        if let Some(bytes) = self.reply_bytes {
            row("answer", format!("{bytes} bytes"));
        }
        if let Some(costs) = &self.costs {
            let busy = 100.0 * costs.cpu.as_secs_f64() / self.span.as_secs_f64().max(1e-9);
            row("broker", format!("process {}, {busy:.1} % of a core", costs.pid));
        }
        if let Some(each_us) = self.cpu_us_each() {
            row("", format!("{each_us:.2} us of processor time for each"));
        }
        if let Some(bytes) = self.bytes_a_guest() {
            row("", format!("{bytes} bytes of memory a guest"));
        }
        let failed: Vec<String> =
            self.failures.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        row("failures", if failed.is_empty() { "none".to_owned() } else { failed.join(", ") });
        if self.interrupted {
            row("interrupted", "these are the figures up to then".to_owned());
        }
        text
    }
}

fn shown(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}
