//! A trace again: the same inputs, and whether the same comes out.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::form::{Ended, Line, json};
use super::settings::{Bounded, Header, Start, Traced, Version};
use super::words::{In, Out};
use super::{FORMAT, LINE_MAX};
use crate::boundary::Output;
use crate::time::{Now, Time};
use crate::{Agent, Broker};

/// What a trace was, as far as it was replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// `broker` or `agent`.
    pub engine: &'static str,
    /// Version of the program that recorded it.
    pub version: String,
    /// Inputs.
    pub inputs: u64,
    /// Outputs, each `Wait` included.
    pub outputs: u64,
    /// Events among them.
    pub events: u64,
    /// From the first moment to the last.
    pub span: Duration,
    /// What the last line says; `None`: the recording was cut off, as by a crash.
    pub ended: Option<Ended>,
    /// The last line has no end and was left out.
    pub torn: bool,
}

impl Report {
    /// Whether this is the version that recorded the trace: otherwise a
    /// difference may be a change of the program.
    #[must_use]
    pub fn same_version(&self) -> bool {
        self.version == env!("CARGO_PKG_VERSION")
    }
}

/// The first output that is not as recorded. `Debug` shows no more than where.
#[derive(Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line in the trace, from 1.
    pub line: u64,
    /// When, from the trace's first moment.
    pub after: Duration,
    /// The input, as it is written in the trace.
    pub input: String,
    /// Which output of this input, from 1.
    pub output: usize,
    /// The output as it is written in the trace.
    pub expected: String,
    /// What came out.
    pub got: String,
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Difference(line {}, output {}, ..)", self.line, self.output)
    }
}

/// What a replay came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every output was as recorded.
    Equal(Report),
    /// One was not; the report says what came before it.
    Different(Report, Difference),
}

/// What is no trace.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TraceError {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong, and what to do.
    pub what: String,
}

/// A replay that goes on. Lines come one by one, so that a long trace needs no more memory
/// than its longest line.
#[derive(Debug)]
pub struct Replay {
    engine: Either,
    began: Time,
    line: u64,
    report: Report,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of a trace")]
enum Either {
    Broker(Broker),
    Agent(Agent),
}

impl Replay {
    /// From a trace's first line.
    ///
    /// # Errors
    /// It is not one, or of a format that this version doesn't know.
    pub fn begin(line: &[u8]) -> Result<Self, TraceError> {
        let error = |what: String| TraceError { line: 1, what };
        bound(line).map_err(error)?;
        let Version { castra_trace, version } = read(line).map_err(|_| {
            error("this is no trace: it must begin with {\"castra_trace\": …}, as --record writes it".into())
        })?;
        if castra_trace != FORMAT {
            return Err(error(alloc::format!(
                "the trace has format {castra_trace} (castra {}), this castra reads format {FORMAT}: \
                 replay it with the version that recorded it",
                crate::event::Escaped(&crate::event::shortened(&version, 32))
            )));
        }
        let header: Header<'_> = read(line).map_err(error)?;
        let now = Now::from(header.at);
        let (name, engine) = match header.engine {
            Start::Broker { config, restored } => {
                config.check().map_err(error)?;
                let engine = Broker::new((*config).into(), restored, header.entropy.entropy(), now);
                ("broker", Either::Broker(engine))
            }
            Start::Agent { config, restored } => {
                config.check().map_err(error)?;
                let engine = Agent::new((*config).into(), restored, header.entropy.entropy(), now);
                ("agent", Either::Agent(engine))
            }
        };
        let report = Report {
            engine: name,
            version,
            inputs: 0,
            outputs: 0,
            events: 0,
            span: Duration::ZERO,
            ended: None,
            torn: false,
        };
        Ok(Self { engine, began: now.boot, line: 1, report })
    }

    /// The next line; the first difference, if it holds one.
    ///
    /// # Errors
    /// It is no line of a trace.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Difference>, TraceError> {
        self.line += 1;
        let number = self.line;
        self.step(line).map_err(|what| TraceError { line: number, what })
    }

    /// At the end: `torn` when a last line without its end was left out.
    #[must_use]
    pub fn finish(self, torn: bool) -> Report {
        Report { torn, ..self.report }
    }

    /// What is known so far.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    fn step(&mut self, line: &[u8]) -> Result<Option<Difference>, String> {
        bound(line)?;
        if self.report.ended.is_some() {
            return Err("there is more after the line that ends the trace: remove it".into());
        }
        match read(line)? {
            Line { at: Some(at), input: Some(input), outputs: Some(outputs), end: None } => {
                let now = Now::from(at);
                self.report.span = now.boot.since(self.began);
                let found = match &mut self.engine {
                    Either::Broker(engine) => feed(engine, now, input, &outputs, &mut self.report)?,
                    Either::Agent(engine) => feed(engine, now, input, &outputs, &mut self.report)?,
                };
                Ok(found.map(|(output, expected, got)| Difference {
                    line: self.line,
                    after: self.report.span,
                    input: input.get().to_owned(),
                    output,
                    expected,
                    got,
                }))
            }
            Line { at: None, input: None, outputs: None, end: Some(end) } => {
                self.report.ended = Some(end);
                Ok(None)
            }
            Line { .. } => Err("a line holds either at, in and out, or end".into()),
        }
    }
}

/// A whole trace at once.
///
/// # Errors
/// It is none.
pub fn replay(trace: &[u8]) -> Result<Outcome, TraceError> {
    let mut lines = trace.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().filter(|line| line.ends_with(b"\n"));
    let mut replay = Replay::begin(first.unwrap_or_default())?;
    let mut torn = false;
    for line in lines {
        if !line.ends_with(b"\n") {
            torn = true;
        } else if let Some(difference) = replay.line(line)? {
            return Ok(Outcome::Different(replay.finish(false), difference));
        }
    }
    Ok(Outcome::Equal(replay.finish(torn)))
}

/// Gives the engine one input. The first output that is not as expected: its
/// number, what was expected, what came.
fn feed<E: Traced>(
    engine: &mut E,
    now: Now,
    input: &RawValue,
    outputs: &[&RawValue],
    report: &mut Report,
) -> Result<Option<(usize, String, String)>, String> {
    let input: In<'_, E::Settings> = read(input.get().as_bytes())?;
    input.check()?;
    if let Some(input) = input.input(|settings| settings.clone().into()) {
        report.inputs += 1;
        engine.handle(now, input);
    }
    for (index, expected) in outputs.iter().enumerate() {
        let output = engine.poll_output();
        let got = json(&Out::of(&output)).ok_or("an output could not be written down")?;
        if got != expected.get() && !same(&got, expected.get()) {
            return Ok(Some((index + 1, expected.get().to_owned(), got)));
        }
        report.outputs += 1;
        report.events += u64::from(matches!(output, Output::Event(_)));
    }
    Ok(None)
}

/// Whether two texts are the same JSON: somebody may have laid out a trace anew.
fn same(got: &str, expected: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    value(got).is_some_and(|got| Some(got) == value(expected))
}

fn bound(line: &[u8]) -> Result<(), String> {
    if line.len() > LINE_MAX {
        return Err(alloc::format!("a line must have at most {LINE_MAX} bytes"));
    }
    Ok(())
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| {
        let what = error.to_string();
        // These repeat what they found, and that may be a key.
        let quotes = what.starts_with("invalid type") || what.starts_with("invalid value");
        let what = if quotes {
            alloc::format!("something else was expected at column {}", error.column())
        } else {
            what
        };
        alloc::format!("not as --record writes it ({what}): the file was changed or damaged")
    })
}
