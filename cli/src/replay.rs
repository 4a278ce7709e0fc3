//! `castra replay`: a recording again, and whether the same comes out.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use castra_core::trace::{Difference, Ended, LINE_MAX, Outcome as Compared, Replay, Report};
use serde_json::{Value, json};

use crate::Context;
use crate::args;
use crate::client::shown;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};

/// Most characters of an input or output that are shown.
const SHOWN: usize = 600;

pub(crate) fn run(cx: &mut Context, args: &args::Replay) -> Outcome {
    let path = &args.file;
    let meta = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if meta.is_dir() {
        return Err(Failure::usage(format!(
            "{} is a directory: name the file that --record wrote",
            shown(path)
        )));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let compared = compare(path, BufReader::with_capacity(1 << 16, file), |report| {
        if !args.quiet && !report.same_version() {
            say(format_args!(
                "warning: recorded by castra {}, replayed by {}: what differs may be a change of the program",
                report.version,
                env!("CARGO_PKG_VERSION")
            ));
        }
    })?;
    let exit = if matches!(compared, Compared::Equal(_)) { Exit::Yes } else { Exit::No };
    if args.format.json {
        cx.out.json(&document(&compared).to_string())?;
    } else if !args.quiet {
        cx.out.put(&text(&compared))?;
    }
    Ok(exit)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("can't read {}: {error}", shown(path)))
}

/// Line by line: a long recording needs no more memory than its longest line.
fn compare(path: &Path, mut trace: impl BufRead, begun: impl FnOnce(&Report)) -> Result<Compared, Failure> {
    let broken = |error| Failure::usage(format!("{}, {error}", shown(path)));
    let mut line = vec![];
    let mut next = |line: &mut Vec<u8>| {
        line.clear();
        let read = trace.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', line);
        read.map_err(|error| unreadable(path, &error))
    };
    next(&mut line)?;
    let whole = if line.ends_with(b"\n") || line.len() > LINE_MAX { &line[..] } else { &[] };
    let mut replay = Replay::begin(whole).map_err(broken)?;
    begun(replay.report());
    loop {
        let length = next(&mut line)?;
        let torn = length > 0 && length <= LINE_MAX && !line.ends_with(b"\n");
        if length == 0 || torn {
            return Ok(Compared::Equal(replay.finish(torn)));
        }
        if let Some(difference) = replay.line(&line).map_err(broken)? {
            return Ok(Compared::Different(replay.finish(false), difference));
        }
    }
}

fn text(compared: &Compared) -> String {
    match compared {
        Compared::Equal(report) => {
            let Report { engine, version, inputs, outputs, events, span, .. } = report;
            let version = printable(version);
            format!(
                "equal: {inputs} inputs, {outputs} outputs, {events} events over {} ({engine}, castra {version})\n{}",
                seconds(*span),
                note(report).map(|note| format!("{note}\n")).unwrap_or_default()
            )
        }
        Compared::Different(report, difference) => {
            let Difference { line, after, input, output, expected, got } = difference;
            let (expected, got) = apart(expected, got);
            format!(
                "different: line {line}, {} after the start, output {output} of the input; {} inputs were equal\n  \
                 input:    {}\n  expected: {}\n  got:      {}\n",
                seconds(*after),
                report.inputs.saturating_sub(1),
                printable(&from(input, 0)),
                printable(&expected),
                printable(&got)
            )
        }
    }
}

/// What else there is to know about a trace that was equal to its end.
fn note(report: &Report) -> Option<String> {
    match (&report.ended, report.torn) {
        (Some(Ended::Complete), _) => None,
        (Some(Ended::Stopped { why }), _) => Some(format!("the recording ended early: {}", printable(why))),
        (None, false) => Some("the recording was cut off: it has no last line".into()),
        (None, true) => Some("the recording was cut off within a line, which was left out".into()),
    }
}

fn document(compared: &Compared) -> Value {
    let (Compared::Equal(report) | Compared::Different(report, _)) = compared;
    let difference = match compared {
        Compared::Equal(_) => Value::Null,
        Compared::Different(_, difference) => {
            let (expected, got) = apart(&difference.expected, &difference.got);
            json!({
                "line": difference.line,
                "after_ms": millis(difference.after),
                "input": from(&difference.input, 0),
                "output": difference.output,
                "expected": expected,
                "got": got,
            })
        }
    };
    json!({
        "equal": difference.is_null(),
        "engine": report.engine,
        "version": report.version,
        "inputs": report.inputs,
        "outputs": report.outputs,
        "events": report.events,
        "span_ms": millis(report.span),
        "ended": match &report.ended {
            Some(Ended::Complete) => "complete",
            Some(Ended::Stopped { .. }) => "stopped",
            None => "cut",
        },
        "torn": report.torn,
        "difference": difference,
    })
}

/// Both texts, from shortly before the place where they part.
fn apart(expected: &str, got: &str) -> (String, String) {
    let same = expected.bytes().zip(got.bytes()).take_while(|(one, other)| one == other).count();
    let start = if expected.len().max(got.len()) > SHOWN { same.saturating_sub(SHOWN / 4) } else { 0 };
    (from(expected, start), from(got, start))
}

/// What is shown of `text` from `start` on.
fn from(text: &str, start: usize) -> String {
    let mut shown: String = text.chars().skip(start).take(SHOWN).collect();
    if start > 0 {
        shown.insert_str(0, "...");
    }
    if text.chars().nth(start + SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

fn seconds(span: Duration) -> String {
    format!("{:.3} s", span.as_secs_f64())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_outputs_are_shown_from_where_they_part() {
        let (one, other) = ("a".repeat(5000) + "X", "a".repeat(5000) + "Y");
        let (one, other) = apart(&one, &other);
        assert!(one.ends_with("aX") && other.ends_with("aY"), "{one} {other}");
        assert!(one.starts_with("...a") && one.len() < SHOWN);
        assert_eq!(apart("short", "shard"), ("short".into(), "shard".into()));
        assert_eq!(from(&"b".repeat(2000), 0).len(), SHOWN + 3);
    }

    #[test]
    fn a_file_without_lines_is_no_trace() {
        for text in ["", "x", "x\n", "{\"castra_trace\":1"] {
            let failure = compare(Path::new("t"), text.as_bytes(), |_| {}).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains("line 1: this is no trace"), "{}", failure.message);
        }
    }
}
