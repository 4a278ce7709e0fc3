//! An engine that writes down what happens to it.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::form::{At, Ended, json, line};
use super::settings::{AgentSettings, Bounded, BrokerSettings, Header, Seed, Start, Traced};
use super::words::{In, Out};
use super::{FORMAT, LINE_MAX, last_line};
use crate::RestoredAgent;
use crate::boundary::{Engine, Input, Output};
use crate::config::{AgentConfig, BrokerConfig};
use crate::time::Now;
use crate::{Agent, Broker, Restored};

/// Takes a line with its end, and never blocks. False: no more of them are taken.
pub type Sink = Box<dyn FnMut(String) -> bool + Send>;

/// An engine with a recorder beside it, or, without a sink, the engine alone.
/// What comes out is the same in both cases.
#[derive(Debug)]
pub struct Recorded<E> {
    engine: E,
    recorder: Option<Box<Recorder>>,
}

const NOTICE: &str = "a secret: this file holds the keys of all guests in it";

impl Recorded<Broker> {
    /// [`Broker::new`], with its first line.
    pub fn broker(
        config: BrokerConfig,
        restored: Restored,
        seed: Seed,
        now: Now,
        sink: Option<Sink>,
    ) -> Self {
        let recorder = sink.and_then(|sink| {
            let start = Start::Broker {
                config: Box::new(BrokerSettings(config.clone())),
                restored: restored.clone(),
            };
            Recorder::start(sink, seed, now, start)
        });
        Self { engine: Broker::new(config, restored, seed.entropy(), now), recorder }
    }
}

impl Recorded<Agent> {
    /// [`Agent::new`], with its first line.
    pub fn agent(
        config: AgentConfig,
        restored: RestoredAgent,
        seed: Seed,
        now: Now,
        sink: Option<Sink>,
    ) -> Self {
        let recorder = sink.and_then(|sink| {
            let start =
                Start::Agent { config: Box::new(AgentSettings(config.clone())), restored: restored.clone() };
            Recorder::start(sink, seed, now, start)
        });
        Self { engine: Agent::new(config, restored, seed.entropy(), now), recorder }
    }
}

impl<E> Recorded<E> {
    /// The engine, for what may be asked without an input.
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// Whether the next input will be written down.
    pub const fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }

    /// Writes the last line. The engine goes on alone.
    pub fn finish(&mut self) {
        if let Some(mut recorder) = self.recorder.take()
            && recorder.close()
        {
            (recorder.sink)(last_line(&Ended::Complete));
        }
    }
}

impl<E: Traced> Engine for Recorded<E> {
    type Config = E::Config;

    fn handle(&mut self, now: Now, input: Input<'_, E::Config>) {
        if let Some(recorder) = &mut self.recorder
            && !recorder.input(now, &In::of::<E>(&input))
        {
            self.recorder = None;
        }
        self.engine.handle(now, input);
    }

    fn poll_output(&mut self) -> Output<'_> {
        let output = self.engine.poll_output();
        if let Some(recorder) = &mut self.recorder
            && !recorder.output(&output)
        {
            self.recorder = None;
        }
        output
    }
}

/// The line that is being made, and where it goes.
struct Recorder {
    sink: Sink,
    now: Now,
    step: String,
    /// Outputs of the step so far; none when no step is open.
    outputs: Option<usize>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder(..)")
    }
}

/// Each step of the recorder says whether it goes on.
impl Recorder {
    fn start(sink: Sink, seed: Seed, now: Now, engine: Start) -> Option<Box<Self>> {
        let header = Header {
            castra_trace: FORMAT,
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            notice: Cow::Borrowed(NOTICE),
            at: now.into(),
            entropy: seed,
            engine,
        };
        let mut recorder = Box::new(Self { sink, now, step: String::new(), outputs: None });
        let started = match line(&header) {
            Some(text) if text.len() <= LINE_MAX => (recorder.sink)(text),
            _ => recorder.stop("the configuration can't be written down"),
        };
        started.then_some(recorder)
    }

    fn input<S: serde::Serialize + Bounded>(&mut self, now: Now, input: &In<'_, S>) -> bool {
        self.close() && self.open(now, input)
    }

    fn output(&mut self, output: &Output<'_>) -> bool {
        let last = matches!(output, Output::Wait(_));
        if self.outputs.is_none() && (last || !self.open(self.now, &In::<Nothing>::Poll)) {
            // After the end of a drain there is only the same deadline again.
            return last;
        }
        let Some(text) = json(&Out::of(output)) else {
            return self.stop("an output could not be written down");
        };
        if self.outputs.is_some_and(|count| count > 0) {
            self.step.push(',');
        }
        self.step.push_str(&text);
        self.outputs = self.outputs.map(|count| count + 1);
        if self.step.len() > LINE_MAX - 16 {
            return self.stop("a step was too long for a line");
        }
        !last || self.close()
    }

    fn open<S: serde::Serialize + Bounded>(&mut self, now: Now, input: &In<'_, S>) -> bool {
        if let Err(why) = input.check() {
            return self.stop(&why);
        }
        let (Some(at), Some(input)) = (json(&At::from(now)), json(input)) else {
            return self.stop("an input could not be written down");
        };
        self.now = now;
        self.outputs = Some(0);
        self.step = alloc::format!(r#"{{"at":{at},"in":{input},"out":["#);
        true
    }

    /// Hands over the open step, if there is one.
    fn close(&mut self) -> bool {
        if self.outputs.take().is_none() {
            return true;
        }
        self.step.push_str("]}\n");
        (self.sink)(core::mem::take(&mut self.step))
    }

    /// The last line: a trace with a hole would be a lie.
    fn stop(&mut self, why: &str) -> bool {
        (self.sink)(last_line(&Ended::Stopped { why: why.into() }));
        false
    }
}

/// A configuration that doesn't come.
#[derive(serde::Serialize)]
enum Nothing {}

impl Bounded for Nothing {
    fn check(&self) -> Result<(), String> {
        match *self {}
    }
}
