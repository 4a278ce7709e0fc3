//! What rounds of several servers, taken in turns, say about each other.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::load::Round;
use crate::server::Cpu;

/// The rounds of one server.
#[derive(Debug)]
pub struct Series {
    /// Which.
    pub server: String,
    /// Its rounds, in order.
    pub samples: Vec<Sample>,
}

/// One round.
#[derive(Debug)]
pub struct Sample {
    /// What the client saw.
    pub round: Round,
    /// Server CPU during the round, in microseconds, by thread.
    pub threads: BTreeMap<String, f64>,
    /// Server CPU from the end of the round to its next one, in microseconds:
    /// what was put off.
    pub after: Option<f64>,
}

impl Sample {
    /// A round, with what was used `before` and `after` it.
    #[must_use]
    pub fn new(round: Round, before: &Cpu, after: &Cpu) -> Self {
        let threads = after.threads_since(before).into_iter().map(|(name, nanos)| (name, nanos as f64 / 1e3));
        Self { round, threads: threads.collect(), after: None }
    }

    /// Server CPU per operation, in microseconds.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.threads.values().sum::<f64>() / self.round.done.max(1) as f64
    }
}

impl Series {
    /// No rounds yet.
    #[must_use]
    pub fn new(server: &str) -> Self {
        Self { server: server.to_owned(), samples: Vec::new() }
    }

    /// Server CPU per operation of each round, in microseconds.
    #[must_use]
    pub fn costs(&self) -> Vec<f64> {
        self.samples.iter().map(Sample::cost).collect()
    }

    /// As a document, beside the `yardstick`'s series.
    #[must_use]
    pub fn document(&self, yardstick: &Self) -> Value {
        let (costs, theirs) = (self.costs(), yardstick.costs());
        let paired: Vec<f64> = costs.iter().zip(&theirs).map(|(own, theirs)| own / theirs).collect();
        let operations: Vec<u64> = self.samples.iter().map(|sample| sample.round.done).collect();
        let after: Vec<f64> = self
            .samples
            .iter()
            .filter_map(|sample| Some(sample.after? / sample.round.done.max(1) as f64))
            .collect();
        let per_second: Vec<f64> = self
            .samples
            .iter()
            .map(|sample| sample.round.done as f64 / sample.round.elapsed.as_secs_f64())
            .collect();
        let mut threads = BTreeMap::<&str, f64>::new();
        for (name, used) in self.samples.iter().flat_map(|sample| &sample.threads) {
            *threads.entry(name).or_default() += used;
        }
        let all = operations.iter().sum::<u64>().max(1) as f64;
        let threads: BTreeMap<_, _> = threads.into_iter().map(|(name, used)| (name, used / all)).collect();
        let mut errors = BTreeMap::<&str, u64>::new();
        for (what, count) in self.samples.iter().flat_map(|sample| &sample.round.errors) {
            *errors.entry(what).or_default() += count;
        }
        let mut latency = Round::new().latency;
        for sample in &self.samples {
            // All have the same bounds.
            let _ = latency.add(&sample.round.latency);
        }
        let latency = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        let beside: Vec<f64> = self.samples.iter().filter_map(|sample| sample.round.beside).collect();
        let beside = (!beside.is_empty()).then(|| median(beside));
        let minima = least(&costs) / least(&theirs);
        json!({
            "server": self.server,
            "rounds": self.samples.len(),
            "operations": operations,
            "operations_per_second": median(per_second),
            "latency_us": {
                "p50": latency(0.5), "p99": latency(0.99), "p999": latency(0.999), "max": latency(1.0),
            },
            "cpu_us_per_operation": {
                "min": least(&costs), "median": median(costs),
                "threads": threads, "put_off_median": median(after),
            },
            "ratio": {
                "minima": minima,
                "paired_min": least(&paired), "paired_median": median(paired),
            },
            "beside_per_second": beside,
            "errors": errors,
        })
    }
}

/// The documents of [`Series::document`], as a table of what an operation costs.
#[must_use]
pub fn cost_table(documents: &[Value]) -> String {
    let mut text = String::from(
        "                        server CPU µs/op     ratio to yardstick         put off    latency µs\n\
         server      rounds   op/s     min  median  minima pair min pair med   µs/op      p50     p99\n",
    );
    for document in documents {
        let number = |pointer: &str| number(document, pointer);
        let _ = writeln!(
            text,
            "{:11} {:6} {:6.0} {:7.2} {:7.2} {:7.3} {:8.3} {:8.3} {:7.2} {:8.0} {:7.0}",
            document["server"].as_str().unwrap_or_default(),
            number("/rounds"),
            number("/operations_per_second"),
            number("/cpu_us_per_operation/min"),
            number("/cpu_us_per_operation/median"),
            number("/ratio/minima"),
            number("/ratio/paired_min"),
            number("/ratio/paired_median"),
            number("/cpu_us_per_operation/put_off_median"),
            number("/latency_us/p50"),
            number("/latency_us/p99"),
        );
    }
    for document in documents {
        let threads = document.pointer("/cpu_us_per_operation/threads").and_then(Value::as_object);
        if let Some(threads) = threads.filter(|threads| threads.len() > 1) {
            let _ = write!(text, "{}: µs/op by thread:", document["server"].as_str().unwrap_or_default());
            for (name, used) in threads {
                let _ = write!(text, " {name} {:.2}", used.as_f64().unwrap_or_default());
            }
            text.push('\n');
        }
    }
    text.push_str("CPU: /proc/PID/task/*/schedstat; threads that ended in a round are not counted.\n");
    append_errors(&mut text, documents);
    text
}

/// The documents of [`Series::document`], as a table of how long an operation takes.
#[must_use]
pub fn latency_table(documents: &[Value]) -> String {
    let mut text = String::from(
        "server      rounds      p50      p99      max   p99 - yardstick's (all in µs)  handshakes/s beside\n",
    );
    let yardstick = documents.first().map_or(f64::NAN, |document| number(document, "/latency_us/p99"));
    for document in documents {
        let number = |pointer: &str| number(document, pointer);
        let _ = writeln!(
            text,
            "{:11} {:6} {:8.0} {:8.0} {:8.0} {:8.0} {:36.0}",
            document["server"].as_str().unwrap_or_default(),
            number("/rounds"),
            number("/latency_us/p50"),
            number("/latency_us/p99"),
            number("/latency_us/max"),
            number("/latency_us/p99") - yardstick,
            number("/beside_per_second"),
        );
    }
    append_errors(&mut text, documents);
    text
}

fn append_errors(text: &mut String, documents: &[Value]) {
    for document in documents {
        if document["errors"].as_object().is_some_and(|errors| !errors.is_empty()) {
            let _ = writeln!(text, "{}: errors: {}", document["server"], document["errors"]);
        }
    }
}

fn number(document: &Value, pointer: &str) -> f64 {
    document.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn series(server: &str, costs: &[f64]) -> Series {
        let sample = |cost: &f64| {
            let round = Round { done: 10, elapsed: Duration::from_secs(1), ..Round::new() };
            Sample { round, threads: [("main".into(), cost * 10.0)].into(), after: None }
        };
        Series { server: server.into(), samples: costs.iter().map(sample).collect() }
    }

    #[test]
    fn ratios_are_of_minima_and_of_each_round_with_its_neighbour() {
        let yardstick = series("yardstick", &[10.0, 20.0, 40.0]);
        let document = series("broker", &[15.0, 22.0, 80.0]).document(&yardstick);
        let near = |pointer: &str, wanted: f64| {
            let got = document.pointer(pointer).and_then(Value::as_f64);
            assert!(got.is_some_and(|got| (got - wanted).abs() < 1e-9), "{pointer}: {document}");
        };
        near("/cpu_us_per_operation/min", 15.0);
        near("/cpu_us_per_operation/median", 22.0);
        near("/ratio/minima", 1.5);
        near("/ratio/paired_min", 1.1);
        near("/ratio/paired_median", 1.5);
    }
}
