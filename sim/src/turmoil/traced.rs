//! An engine whose every word goes into the run's fingerprint.

use core::fmt::{self, Debug, Write};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use castra_core::boundary::{Engine, Input, Output};
use castra_core::event::Event;
use castra_core::time::{Now, Time};

/// A fingerprint of all inputs and outputs of all engines, and of every line
/// that a client printed, in order.
#[derive(Debug)]
pub(crate) struct Trace {
    digest: u64,
    /// Calls of engines.
    pub(crate) events: u64,
}

impl Default for Trace {
    fn default() -> Self {
        // FNV-1a's offset basis.
        Self { digest: 0xcbf2_9ce4_8422_2325, events: 0 }
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    fn note(&mut self, who: &str, at: Time, what: impl Debug) {
        // It can't fail: see above.
        let _ = writeln!(self, "{who} {} {what:?}", at.as_nanos());
    }

    /// A client prints a line.
    pub(crate) fn print(&mut self, line: &str) {
        let _ = writeln!(self, "{line}");
    }

    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }
}

/// `E`, overheard.
pub(crate) struct Traced<E> {
    pub(crate) engine: E,
    who: String,
    trace: Rc<RefCell<Trace>>,
    now: Time,
    /// When it last said anything to anybody.
    spoke: Rc<Cell<Option<Time>>>,
    /// Events since somebody last took them.
    pub(crate) heard: Vec<Event>,
}

impl<E> Traced<E> {
    pub(crate) const fn new(
        engine: E,
        who: String,
        trace: Rc<RefCell<Trace>>,
        spoke: Rc<Cell<Option<Time>>>,
    ) -> Self {
        Self { engine, who, trace, now: Time::ZERO, spoke, heard: Vec::new() }
    }
}

impl<E: Engine> Engine for Traced<E>
where
    E::Config: Debug,
{
    type Config = E::Config;

    fn handle(&mut self, now: Now, input: Input<'_, E::Config>) {
        self.now = now.boot;
        let mut trace = self.trace.borrow_mut();
        trace.events += 1;
        trace.note(&self.who, now.boot, &input);
        drop(trace);
        self.engine.handle(now, input);
    }

    fn poll_output(&mut self) -> Output<'_> {
        let output = self.engine.poll_output();
        self.trace.borrow_mut().note(&self.who, self.now, &output);
        match &output {
            Output::Transmit { .. } => self.spoke.set(Some(self.now)),
            Output::Event(event) => self.heard.push(event.clone()),
            _ => {}
        }
        output
    }
}
