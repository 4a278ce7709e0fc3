//! The phases of a measurement: everybody connects, it warms up, it is measured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use castra_core::time::{Now, Time};
use hdrhistogram::Histogram;

use super::report::{Costs, Report};
use super::server::{Server, Usage};
use super::status::Asker;
use crate::bench_args::Load;
use crate::duration::format;
use crate::exit::{Exit, Failure};
use crate::paths::Place;
use crate::progress::Progress;
use crate::run::load::{Directive, Tally};

/// What isn't measured yet.
const WARM_UP: Duration = Duration::from_secs(1);
/// What is measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Kind {
    Handshake { rate: Option<f64> },
    Keepalive,
    Idle,
    Status,
    Restart,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake { .. } => "handshake",
            Self::Keepalive => "keepalive",
            Self::Idle => "idle",
            Self::Status => "status",
            Self::Restart => "restart",
        }
    }

    /// What is counted.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Handshake { .. } => "handshakes",
            Self::Keepalive | Self::Idle => "keepalives",
            Self::Status => "answers",
            Self::Restart => "returns",
        }
    }
}

pub(super) struct Run<'a> {
    kind: Kind,
    args: &'a Load,
    server: &'a mut Server,
    place: Option<Place>,
    stop: &'a AtomicBool,
    /// Nobody was proven for so long: it won't happen any more.
    patience: Duration,
    phase: Phase,
    progress: Progress,
    /// Before anybody came.
    empty: Option<Usage>,
    latencies: Histogram<u64>,
    /// How many were proven at the last turn, and when that last changed.
    moved: (u64, Option<Time>),
    asker: Option<Asker>,
    trouble: Option<Failure>,
    measured: Option<Measured>,
}

enum Phase {
    /// Everybody comes.
    Gathering,
    WarmingUp {
        until: Time,
    },
    Measuring {
        from: Time,
        until: Time,
        before: Snapshot,
    },
    Over,
}

/// The counts at one time.
#[derive(Clone)]
struct Snapshot {
    proven: u64,
    proofs: u64,
    failures: BTreeMap<String, u64>,
    usage: Option<Usage>,
}

struct Measured {
    span: Duration,
    before: Snapshot,
    after: Snapshot,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        kind: Kind,
        args: &'a Load,
        server: &'a mut Server,
        place: Option<Place>,
        stop: &'a AtomicBool,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let phase = match kind {
            Kind::Handshake { .. } => Phase::WarmingUp { until: Time::ZERO },
            _ => Phase::Gathering,
        };
        let all = matches!(phase, Phase::Gathering).then_some(u64::from(args.guests));
        Ok(Self {
            kind,
            args,
            place,
            stop,
            patience,
            phase,
            progress: Progress::new(if all.is_some() { "guests proven" } else { kind.unit() }, all, None),
            empty: server.usage(),
            server,
            latencies: histogram()?,
            moved: (0, None),
            asker: None,
            trouble: None,
            measured: None,
        })
    }

    /// After each turn of the load's loop.
    pub(super) fn turn(&mut self, now: Now, tally: &mut Tally) -> Directive {
        if self.stop.load(Ordering::Relaxed) {
            self.end(now, tally);
            return Directive::Stop;
        }
        if let Err(failure) = self.step(now, tally) {
            self.trouble = Some(failure);
            return Directive::Stop;
        }
        tally.latencies.clear();
        if matches!(self.phase, Phase::Over) { Directive::Stop } else { Directive::Go }
    }

    fn step(&mut self, now: Now, tally: &Tally) -> Result<(), Failure> {
        match &self.phase {
            Phase::Gathering => {
                self.progress.show(tally.up as u64, || "gathering".to_owned());
                if tally.up == self.args.guests as usize {
                    self.phase = Phase::WarmingUp { until: now.boot + WARM_UP };
                } else {
                    self.lose_patience(now, tally)?;
                }
            }
            Phase::WarmingUp { until } if *until == Time::ZERO => {
                self.phase = Phase::WarmingUp { until: now.boot + WARM_UP };
            }
            Phase::WarmingUp { until } if now.boot >= *until => self.begin(now, tally)?,
            Phase::WarmingUp { .. } => {}
            Phase::Measuring { from, until, .. } => {
                let (from, until) = (*from, *until);
                for latency in &tally.latencies {
                    self.latencies.saturating_record(latency.as_micros() as u64);
                }
                let spent = now.boot.since(from).as_secs_f64().max(0.001);
                let done = self.done(tally);
                let unit = self.kind.unit();
                self.progress.show(done, || format!("{:.0} {unit}/s", done as f64 / spent));
                // Whoever has not noticed yet that the broker was killed still counts as up.
                let everybody = self.kind == Kind::Restart
                    && done >= u64::from(self.args.guests)
                    && tally.up == self.args.guests as usize;
                if everybody || (self.kind != Kind::Restart && now.boot >= until) {
                    self.end(now, tally);
                } else if matches!(self.kind, Kind::Handshake { .. } | Kind::Restart) {
                    self.lose_patience(now, tally)?;
                }
            }
            Phase::Over => {}
        }
        Ok(())
    }

    fn begin(&mut self, now: Now, tally: &Tally) -> Result<(), Failure> {
        self.progress.clear();
        let span = Duration::from_secs(u64::from(self.args.seconds));
        let before = self.snapshot(tally);
        match self.kind {
            Kind::Restart => {
                self.server.kill()?;
                self.server.start_again()?;
            }
            Kind::Status => {
                let place = self.place.as_ref().ok_or_else(|| {
                    Failure::new(Exit::Internal, "nobody can be asked: there is no control socket")
                })?;
                self.asker = Some(Asker::start(place, span)?);
            }
            Kind::Handshake { .. } | Kind::Keepalive | Kind::Idle => {}
        }
        // A restart takes as long as it takes: from here on everybody may come back.
        let from = if self.kind == Kind::Restart { castra_driver::clock::now().boot } else { now.boot };
        self.moved = (tally.proven, Some(from));
        let all = (self.kind == Kind::Restart).then_some(u64::from(self.args.guests));
        let until = (self.kind != Kind::Restart).then(|| std::time::Instant::now() + span);
        self.progress = Progress::new(self.kind.unit(), all, until);
        self.phase = Phase::Measuring { from, until: from + span, before };
        Ok(())
    }

    fn done(&self, tally: &Tally) -> u64 {
        let Phase::Measuring { before, .. } = &self.phase else { return 0 };
        match self.kind {
            Kind::Handshake { .. } | Kind::Restart => tally.proven - before.proven,
            Kind::Keepalive | Kind::Idle => tally.proofs - before.proofs,
            Kind::Status => self.asker.as_ref().map_or(0, Asker::asked),
        }
    }

    fn end(&mut self, now: Now, tally: &Tally) {
        self.progress.clear();
        let after = self.snapshot(tally);
        if let Phase::Measuring { from, before, .. } = std::mem::replace(&mut self.phase, Phase::Over) {
            self.measured = Some(Measured { span: now.boot.since(from), before, after });
        }
    }

    fn snapshot(&self, tally: &Tally) -> Snapshot {
        let usage = self.server.usage();
        Snapshot { proven: tally.proven, proofs: tally.proofs, failures: tally.failures.clone(), usage }
    }

    fn lose_patience(&mut self, now: Now, tally: &Tally) -> Result<(), Failure> {
        let (proven, since) = self.moved;
        if tally.proven != proven || since.is_none() {
            self.moved = (tally.proven, Some(now.boot));
            return Ok(());
        }
        if since.is_some_and(|since| now.boot.since(since) < self.patience) {
            return Ok(());
        }
        self.progress.clear();
        Err(self.nobody(format_args!("within {}", format(self.patience)), tally))
    }

    fn nobody(&self, when: std::fmt::Arguments<'_>, tally: &Tally) -> Failure {
        let reasons: Vec<String> =
            tally.failures.iter().map(|(reason, count)| format!("{reason} {count} times")).collect();
        let reasons = if reasons.is_empty() { "no answer at all".to_owned() } else { reasons.join(", ") };
        Failure::new(
            Exit::Offline,
            format!(
                "nobody was proven at {} {when} ({} of {} are): {reasons}",
                self.server.address, tally.up, self.args.guests
            ),
        )
    }

    /// What it came to.
    pub(super) fn finish(mut self, tally: &Tally) -> Result<Report, Failure> {
        if let Some(failure) = self.trouble.take() {
            return Err(failure);
        }
        if tally.proven == 0 {
            return Err(self.nobody(format_args!("in all this time"), tally));
        }
        let Some(Measured { span, before, after }) = self.measured else {
            return Err(Failure::new(Exit::No, "interrupted before anything was measured"));
        };
        let mut done = match self.kind {
            Kind::Handshake { .. } | Kind::Restart => after.proven - before.proven,
            Kind::Keepalive | Kind::Idle => after.proofs - before.proofs,
            Kind::Status => 0,
        };
        let mut reply_bytes = None;
        if let Some(asker) = self.asker.take() {
            let asked = asker.finish()?;
            (self.latencies, done) = (asked.latencies, asked.answers);
            reply_bytes = Some(asked.bytes);
        }
        let mut failures = after.failures;
        for (reason, count) in before.failures {
            failures.entry(reason).and_modify(|after| *after -= count);
        }
        if self.kind == Kind::Restart {
            // Each guest lost the link that the killed broker left behind; whatever
            // else ended was a failure.
            let links = u64::from(self.args.guests);
            failures
                .entry("disconnected".to_owned())
                .and_modify(|count| *count = count.saturating_sub(links));
        }
        failures.retain(|_, count| *count > 0);
        // A restart's processes are two: the second one's figures would mean nothing against the first's.
        let costs = before.usage.zip(after.usage).filter(|_| self.kind != Kind::Restart);
        let costs = costs.map(|(before, after)| Costs {
            pid: self.server.pid.unwrap_or_default(),
            cpu: after.cpu.saturating_sub(before.cpu),
            user_bytes: after.user_bytes,
            guests_bytes: self.empty.map(|empty| before.user_bytes.saturating_sub(empty.user_bytes)),
        });
        Ok(Report {
            kind: self.kind,
            against: self.server.address.to_string(),
            own: self.place.is_some() && self.args.against.is_none(),
            guests: self.args.guests,
            concurrency: self.args.concurrency.min(self.args.guests),
            keyed: self.args.keyed,
            span,
            done,
            up: tally.up,
            failures,
            latencies: self.latencies,
            reply_bytes,
            costs,
            interrupted: self.stop.load(Ordering::Relaxed),
        })
    }
}

/// Microseconds up to an hour, to three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_max(3_600_000_000, 3)
        .map_err(|error| Failure::new(Exit::Internal, format!("no histogram: {error}")))
}
