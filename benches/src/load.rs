//! A closed loop of handshakes: so many connections at once, each through a
//! script and then closed, the next one at once or when its time has come.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::script::{Dialogue, Progress, Script};

/// How long the last answers of a round are waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long the loop sleeps at most: so soon it notices that it shall stop.
const BEAT: Duration = Duration::from_millis(100);
const BUFFER: usize = 4096;
/// Latencies beyond a minute are counted as one.
const LONGEST: u64 = 60_000_000_000;

/// How much load, for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    /// Connections at once.
    pub concurrency: usize,
    /// No connection is begun after this.
    pub duration: Duration,
    /// Nor after so many.
    pub most: u64,
    /// Connections per second; `None`: as many as it gets.
    pub rate: Option<f64>,
}

/// What a round came to.
#[derive(Clone, Debug)]
pub struct Round {
    /// Operations that went well.
    pub done: u64,
    /// The others, by what happened.
    pub errors: BTreeMap<String, u64>,
    /// From the first to the last.
    pub elapsed: Duration,
    /// Of the ones that went well, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Handshakes per second that went on beside it.
    pub beside: Option<f64>,
}

/// A client with a place in the script, kept from round to round.
#[derive(Debug)]
pub struct Client {
    target: SocketAddr,
    script: Script,
    next: usize,
}

struct Run<'a> {
    client: &'a mut Client,
    poll: Poll,
    slots: Vec<Option<Conn>>,
    free: Vec<usize>,
    out: Vec<u8>,
    round: Round,
}

struct Conn {
    stream: TcpStream,
    dialogue: Dialogue,
    began: Instant,
    opened: bool,
}

impl Pressure {
    /// Through `most` handshakes.
    #[must_use]
    pub const fn count(most: u64, concurrency: usize) -> Self {
        Self { concurrency, duration: Duration::from_secs(60), most, rate: None }
    }

    /// For `duration`, as fast as it goes.
    #[must_use]
    pub const fn time(duration: Duration, concurrency: usize) -> Self {
        Self { concurrency, duration, most: u64::MAX, rate: None }
    }
}

impl Round {
    /// Nothing done yet.
    #[must_use]
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that a histogram can have");
        Self { done: 0, errors: BTreeMap::new(), elapsed: Duration::ZERO, latency, beside: None }
    }

    /// Counts one that went well.
    pub fn done(&mut self, took: Duration) {
        self.done += 1;
        self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// `churn` went on meanwhile.
    pub fn went_on_beside(&mut self, churn: &Self) {
        self.beside = Some(churn.done as f64 / churn.elapsed.as_secs_f64());
        self.errors_of("comes", churn);
    }

    /// Takes the errors of `others` over, under their name.
    pub fn errors_of(&mut self, who: &str, others: &Self) {
        for (what, count) in &others.errors {
            *self.errors.entry(format!("{who}: {what}")).or_default() += count;
        }
    }

    /// Counts one that didn't.
    pub fn error(&mut self, what: impl Into<String>) {
        *self.errors.entry(what.into()).or_default() += 1;
    }
}

impl Default for Round {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// Guests that connect to `target`.
    #[must_use]
    pub const fn new(target: SocketAddr, script: Script) -> Self {
        Self { target, script, next: 0 }
    }

    /// One round. Ends early when `stop` is set.
    ///
    /// # Errors
    /// The client itself is out of something. What the server does wrong is counted.
    pub fn round(&mut self, pressure: Pressure, stop: &AtomicBool) -> io::Result<Round> {
        let mut run = Run {
            poll: Poll::new()?,
            slots: (0..pressure.concurrency).map(|_| None).collect(),
            free: (0..pressure.concurrency).rev().collect(),
            out: Vec::new(),
            round: Round::new(),
            client: self,
        };
        run.all(pressure, stop)?;
        Ok(run.round)
    }
}

impl Run<'_> {
    fn all(&mut self, pressure: Pressure, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(pressure.concurrency.max(16));
        let began = Instant::now();
        let mut started = 0;
        loop {
            let elapsed = began.elapsed();
            let over =
                elapsed >= pressure.duration || started >= pressure.most || stop.load(Ordering::Relaxed);
            let due = match pressure.rate {
                _ if over => 0,
                None => u64::MAX,
                Some(rate) => (elapsed.as_secs_f64() * rate) as u64,
            };
            while started < due.min(pressure.most)
                && let Some(slot) = self.free.pop()
            {
                self.begin(slot)?;
                started += 1;
            }
            if over && self.free.len() == self.slots.len() {
                break;
            }
            if elapsed > pressure.duration + PATIENCE {
                let unanswered = (self.slots.len() - self.free.len()) as u64;
                self.round.errors.insert("unanswered".into(), unanswered);
                break;
            }
            let beat = if pressure.rate.is_some() { Duration::from_millis(1) } else { BEAT };
            match self.poll.poll(&mut events, Some(beat)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                let Token(slot) = event.token();
                self.on_ready(slot);
            }
        }
        self.round.elapsed = began.elapsed();
        Ok(())
    }

    fn begin(&mut self, slot: usize) -> io::Result<()> {
        let guest = self.client.next;
        self.client.next = (guest + 1) % self.client.script.guests();
        let began = Instant::now();
        let mut stream = match TcpStream::connect(self.client.target) {
            Ok(stream) => stream,
            Err(error) => {
                self.free.push(slot);
                self.round.error(format!("connect: {}", error.kind()));
                // All ports may be in use for a moment; a loop would help nobody.
                std::thread::sleep(Duration::from_millis(1));
                return Ok(());
            }
        };
        let script = &self.client.script;
        // As castra's agent and MQTT's clients do, it speaks as soon as it is connected.
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(slot), interest)?;
        let conn = Conn { stream, dialogue: script.begin(guest), began, opened: false };
        self.slots[slot] = Some(conn);
        Ok(())
    }

    fn on_ready(&mut self, slot: usize) {
        let Some(conn) = self.slots[slot].as_mut() else { return };
        let outcome = conn.advance(&self.client.script, &mut self.out);
        match outcome {
            Ok(false) => return,
            Ok(true) => self.round.done(conn.began.elapsed()),
            Err(what) => self.round.error(what),
        }
        self.slots[slot] = None;
        self.free.push(slot);
    }
}

impl Conn {
    /// Whether it is through.
    fn advance(&mut self, script: &Script, out: &mut Vec<u8>) -> Result<bool, String> {
        out.clear();
        if !self.opened {
            self.opened = true;
            self.dialogue.open(script, out);
            return match self.stream.write(out) {
                Ok(_) => Ok(false),
                Err(error) => Err(format!("write: {}", error.kind())),
            };
        }
        let mut buffer = [0; BUFFER];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Err("closed by the server".into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("read: {}", error.kind())),
        };
        let progress = self.dialogue.read(script, &buffer[..count], out);
        if !out.is_empty() {
            self.stream.write(out).map_err(|error| format!("write: {}", error.kind()))?;
        }
        match progress {
            Progress::Waits => Ok(false),
            Progress::Done { .. } => Ok(true),
            Progress::Refused(what) => Err(what),
        }
    }
}
