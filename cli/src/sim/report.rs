//! The summary, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use castra_sim::Outcome;
use castra_sim::outcome::Counts;
use serde_json::{Value, json};

use super::failed::Failed;
use super::seeds::{rate, short};
use crate::duration::{age, millis};
use crate::sim_args::Runner;

/// What a run of `castra sim` came to.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) runner: Runner,
    pub(super) first: u64,
    pub(super) jobs: usize,
    /// From start to end.
    pub(super) elapsed: Duration,
    /// Processor time that the threads spent in worlds.
    pub(super) busy: Duration,
    pub(super) outcome: Outcome,
    pub(super) interrupted: bool,
    pub(super) failed: Option<Failed>,
    pub(super) story: Option<String>,
}

impl Report {
    /// A few lines, all ASCII.
    pub(super) fn text(&self) -> String {
        let Self { outcome, .. } = self;
        let mut text = String::new();
        if let Some(story) = &self.story {
            text.push_str(story);
            text.push('\n');
        }
        if let Some(failed) = self.failed.as_ref().filter(|_| self.story.is_none()) {
            // A story says it itself. Writing to a string can't fail.
            let _ = writeln!(text, "Again: {}\n", failed.rerun);
        }
        let worlds = outcome.runs;
        let plural = if worlds == 1 { "world" } else { "worlds" };
        let _ = match &self.failed {
            Some(failed) => {
                let before = match worlds.saturating_sub(1) {
                    0 => String::new(),
                    1 => ", after 1 world that kept all".into(),
                    more => format!(", after {more} worlds that kept all"),
                };
                let violation = crate::output::printable(&failed.violation.to_string());
                writeln!(text, "{} BREAKS A PROMISE{before}: {violation}\n", failed.what)
            }
            None if self.interrupted => {
                writeln!(text, "Interrupted. {worlds} {plural} so far kept every promise.\n")
            }
            None => writeln!(text, "{worlds} {plural}, and every promise was kept.\n"),
        };
        let per_core = short(rate(outcome.events, self.busy));
        let jobs = if self.jobs == 1 { "1 job".into() } else { format!("{} jobs", self.jobs) };
        let _ = writeln!(
            text,
            "events       {}, {per_core}/s per core, {jobs}, {}",
            short(outcome.events as f64),
            age(millis(self.elapsed))
        );
        let _ = writeln!(text, "simulated    {}", age(millis(outcome.simulated)));
        let _ = writeln!(
            text,
            "checks       {} verdicts held against the truth, {} of them `reachable`",
            short(outcome.checks as f64),
            short(outcome.reachable as f64)
        );
        let _ = writeln!(text, "sessions     {}", outcome.sessions);
        for (name, counts) in self.counts() {
            let sum: u64 = counts.values().sum();
            let mut line = format!("{name:<12} {sum}");
            let mut separator = ": ";
            for (kind, count) in by_count(counts) {
                let item = format!("{separator}{kind} {count}");
                if line.len() - line.rfind('\n').map_or(0, |at| at + 1) + item.len() > 100 {
                    line.push_str(",\n             ");
                    line.push_str(item.trim_start_matches([',', ':', ' ']));
                } else {
                    line.push_str(&item);
                }
                separator = ", ";
            }
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn counts(&self) -> [(&'static str, &Counts); 11] {
        let outcome = &self.outcome;
        [
            ("faults", &outcome.faults),
            ("reasons", &outcome.reasons),
            ("refusals", &outcome.refusals),
            ("ends", &outcome.ends),
            ("deadlines", &outcome.wakeups),
            ("answers", &outcome.replies),
            ("peers", &outcome.acts),
            ("told", &outcome.told),
            ("mail", &outcome.mail),
            ("steps", &outcome.steps),
            ("attach", &outcome.attach),
        ]
    }

    /// The same as a document.
    pub(super) fn json(&self) -> Value {
        let outcome = &self.outcome;
        let violation = self.failed.as_ref().map(|failed| {
            json!({
                "what": failed.what,
                "promise": failed.violation.promise,
                "at_ms": failed.violation.at.as_nanos() / 1_000_000,
                "guest": failed.violation.guest,
                "text": failed.violation.text,
                "rerun": failed.rerun,
                "case": failed.case,
            })
        });
        json!({
            "schema": 1,
            "held": self.failed.is_none(),
            "interrupted": self.interrupted,
            "runner": self.runner.as_str(),
            "first_seed": self.first,
            "worlds": outcome.runs,
            "jobs": self.jobs,
            "elapsed_ms": millis(self.elapsed),
            "events": outcome.events,
            "events_per_second_per_core": rate(outcome.events, self.busy) as u64,
            "simulated_ms": millis(outcome.simulated),
            "checks": outcome.checks,
            "reachable": outcome.reachable,
            "sessions": outcome.sessions,
            "faults": outcome.faults,
            "reasons": outcome.reasons,
            "refusals": outcome.refusals,
            "ends": outcome.ends,
            "deadlines": outcome.wakeups,
            "answers": outcome.replies,
            "peers": outcome.acts,
            "told": outcome.told,
            "mail": outcome.mail,
            "steps": outcome.steps,
            "attach": outcome.attach,
            "digest": format!("{:016x}", outcome.digest),
            "violation": violation,
            "story": self.story.as_ref().map(|story| story.lines().collect::<Vec<_>>()),
        })
    }
}

/// The most frequent first.
fn by_count(counts: &Counts) -> Vec<(&'static str, u64)> {
    let mut pairs: Vec<_> = counts.iter().map(|(name, count)| (*name, *count)).collect();
    pairs.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    pairs
}
