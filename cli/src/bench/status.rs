//! `castra status --json`, as a user runs it, again and again.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::run::histogram;
use crate::exit::{Exit, Failure};
use crate::paths::Place;
use crate::up::own_binary;

/// A thread that asks.
pub(super) struct Asker {
    asked: Arc<AtomicU64>,
    thread: JoinHandle<Result<Asked, Failure>>,
}

/// What it was told.
pub(super) struct Asked {
    pub(super) answers: u64,
    /// Of whole processes, in microseconds.
    pub(super) latencies: Histogram<u64>,
    /// Of the last answer.
    pub(super) bytes: u64,
}

impl Asker {
    /// Asks for `span`.
    pub(super) fn start(place: &Place, span: Duration) -> Result<Self, Failure> {
        let mut command = own_binary()?;
        command.args(["status", "--json", "--timeout", "10s", "--socket"]).arg(&place.socket);
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        Ok(Self { asked, thread: std::thread::spawn(move || ask(&mut command, span, &count)) })
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn finish(self) -> Result<Asked, Failure> {
        let died = || Failure::new(Exit::Internal, "the thread that asks died");
        self.thread.join().unwrap_or_else(|_| Err(died()))
    }
}

fn ask(command: &mut Command, span: Duration, count: &AtomicU64) -> Result<Asked, Failure> {
    let end = Instant::now() + span;
    let mut asked = Asked { answers: 0, latencies: histogram()?, bytes: 0 };
    while Instant::now() < end {
        let began = Instant::now();
        let output = command.output().map_err(|error| Failure::io("can't run `castra status`", &error))?;
        asked.latencies.saturating_record(began.elapsed().as_micros() as u64);
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(Failure::new(
                Exit::Offline,
                format!("`castra status` had no answer ({})", output.status),
            ));
        }
        asked.answers += 1;
        asked.bytes = output.stdout.len() as u64;
        count.store(asked.answers, Ordering::Relaxed);
    }
    Ok(asked)
}
