//! `castra doctor`: looks at everything around a broker, or an agent, and says what is wrong
//! and what to do about it.

mod checks;
mod facts;
mod guests;
#[cfg(test)]
mod tests;

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::Context;
use crate::args::Json;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::printable;

pub(crate) use facts::Facts;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    format: Json,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// Something does not work.
    Problem,
    /// Something works, and will not or not well.
    Warning,
    /// Good to know.
    Note,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One thing that is not as it should be, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// The check that found it.
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    /// What it is about: a guest, a path, a process.
    pub(crate) subject: String,
    pub(crate) what: String,
    pub(crate) fix: String,
}

/// What was looked at, and how it looks when nothing is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Healthy {
    pub(crate) check: &'static str,
    pub(crate) what: String,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The form of this document.
    schema: u32,
    pub(crate) findings: Vec<Finding>,
    pub(crate) healthy: Vec<Healthy>,
    /// What could not be looked at, because something else is wrong.
    skipped: Vec<&'static str>,
}

pub(crate) fn run(cx: &mut Context, args: &Doctor) -> Outcome {
    let place = cx.place()?;
    let facts = Facts::gather(&place, cx.timeout(facts::TIMEOUT));
    let report = report(&facts);
    if args.format.json {
        let json = serde_json::to_string(&report)
            .map_err(|error| Failure::new(Exit::Internal, format!("can't write the document: {error}")))?;
        cx.out.json(&json)?;
    } else {
        for line in lines(&report) {
            cx.out.line(&line)?;
        }
    }
    let sick = report.findings.iter().any(|finding| finding.level == Level::Problem);
    Ok(if sick { Exit::No } else { Exit::Yes })
}

/// The worst first.
pub(crate) fn report(facts: &Facts) -> Report {
    let mut report = Report { schema: 1, findings: vec![], healthy: vec![], skipped: vec![] };
    for (name, check) in checks::ALL {
        match check(facts) {
            checks::Looked::Not => report.skipped.push(name),
            checks::Looked::Healthy(what) => report.healthy.push(Healthy { check: name, what }),
            checks::Looked::Found(findings) => report.findings.extend(findings),
        }
    }
    report.findings.sort_by_key(|finding| finding.level);
    report
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &report.findings {
        lines.push(printable(&format!(
            "{:8} {:12} {}: {}",
            finding.level, finding.check, finding.subject, finding.what
        )));
        lines.push(printable(&format!("{:8} {:12} do: {}", "", "", finding.fix)));
    }
    for healthy in &report.healthy {
        lines.push(printable(&format!("{:8} {:12} {}", "ok", healthy.check, healthy.what)));
    }
    for check in &report.skipped {
        lines.push(format!("{:8} {check:12} can't be looked at while something else is wrong", "skipped"));
    }
    lines
}
