//! How soon a broker says of guests that they stopped answering, while others
//! answer, come and go. Their links stay: only the window tells.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use castra_core::event::{Event, Fact};
use castra_core::id::GuestName;
use castra_core::status::Reason;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::close::{churn, joined};
use crate::held::Held;
use crate::load::{PATIENCE, Round};
use crate::script::{Script, guest_names};
use crate::server::{Control, Server};

/// Not later than this after the window.
pub const BUDGET: Duration = Duration::from_millis(100);
/// Of the guests that stay; the others have other names.
const STAYS: &str = "stays-";

/// What is measured, and what stands around it.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// Guests that are connected and answer.
    pub guests: usize,
    /// So many of them stop, all at the same moment.
    pub silent: usize,
    /// Others that come and go: so many at once.
    pub concurrency: usize,
    /// So many in a second.
    pub rate: f64,
    /// How often the broker asks.
    pub interval: Duration,
    /// How old a proof may be.
    pub window: Duration,
}

/// How late silent guests were called stale, in milliseconds after their windows.
#[derive(Clone, Debug)]
pub struct Lateness {
    /// When the broker said so: the age it gives, less the window.
    pub told: Histogram<u64>,
    /// When a client that follows the events had read it.
    pub seen: Histogram<u64>,
    /// Handshakes per second that went on, of each round.
    pub beside: Vec<f64>,
    /// What else happened.
    pub errors: BTreeMap<String, u64>,
}

impl Silence {
    /// One round.
    ///
    /// # Errors
    /// A client is out of something, or the broker doesn't tell of everybody.
    pub fn round(&self, server: &Server, stop: &AtomicBool) -> io::Result<Lateness> {
        let target = server.address();
        let script = Script::link(guest_names(STAYS, self.guests));
        let mut held = Held::connect(target, &script, stop)?;
        server.turns("connects")?;
        let mut control = server.control()?;
        control.ask("events", &json!({"follow": true, "kinds": ["verdict.changed"]}))?;
        let silent = self.guests - self.silent.min(self.guests)..self.guests;
        // Everybody has been asked, and has answered.
        let warm = 2 * self.interval;
        let patience = warm + self.window + 2 * self.interval + PATIENCE;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let answers = scope.spawn(|| {
                let mut answered = held.answer(&script, warm, &over)?;
                held.silence(silent.clone());
                let later = held.answer(&script, patience, &over)?;
                answered.errors_of("later", &later);
                Ok(answered)
            });
            let churn = scope.spawn(|| churn(target, self.rate, self.concurrency, patience, &over));
            let watched = self.watch(&mut control, silent.len(), patience, stop);
            over.store(true, Ordering::Relaxed);
            let mut lateness = watched?;
            let mut others = Round::new();
            others.errors_of("stays", &joined(answers)?);
            others.went_on_beside(&joined(churn)?);
            lateness.beside.extend(others.beside);
            for (what, count) in others.errors {
                *lateness.errors.entry(what).or_default() += count;
            }
            server.turns("silence")?;
            Ok(lateness)
        })
    }

    fn watch(
        &self,
        control: &mut Control,
        silent: usize,
        patience: Duration,
        stop: &AtomicBool,
    ) -> io::Result<Lateness> {
        let mut lateness = Lateness::default();
        let end = Instant::now() + patience;
        while lateness.told() < silent as u64 {
            if stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut line = control.line()?;
            let read = SystemTime::now();
            if line["event"] == "verdict.changed" {
                lateness.take(&serde_json::from_value(line["data"].take())?, read, self);
            } else {
                lateness.error(line["event"].to_string());
            }
            if Instant::now() > end {
                let told = lateness.told();
                return Err(io::Error::other(format!("{told} of {silent} silent guests were called stale")));
            }
        }
        Ok(lateness)
    }

    fn is_silent(&self, guest: &GuestName) -> bool {
        let number = guest.as_str().strip_prefix(STAYS).and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| number + self.silent >= self.guests)
    }
}

impl Lateness {
    /// So many were called stale.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.len()
    }

    /// Takes notice of an event that was read at `read`.
    pub fn take(&mut self, event: &Event, read: SystemTime, silence: &Silence) {
        let (Some(guest), Fact::VerdictChanged { reason, age_ms, .. }) = (&event.guest, &event.fact) else {
            return;
        };
        if !guest.as_str().starts_with(STAYS) {
            return;
        }
        match (reason, age_ms) {
            (Some(Reason::Stale), Some(age)) if silence.is_silent(guest) => {
                let late = age.saturating_sub(u64::try_from(silence.window.as_millis()).unwrap_or(u64::MAX));
                let read = read.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let told = u128::try_from(event.at.unix_millis()).unwrap_or_default();
                let way = u64::try_from(read.saturating_sub(told)).unwrap_or(u64::MAX);
                self.told.saturating_record(late);
                self.seen.saturating_record(late.saturating_add(way));
            }
            (Some(reason), _) if silence.is_silent(guest) => self.error(format!("silent: {reason:?}")),
            (Some(reason), _) => self.error(format!("answers, and is called {reason:?}")),
            (None, _) => self.error("became reachable again".into()),
        }
    }

    /// Another round's.
    pub fn add(&mut self, other: &Self) {
        // All have the same bounds.
        let _ = self.told.add(&other.told);
        let _ = self.seen.add(&other.seen);
        self.beside.extend(&other.beside);
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
    }

    /// As a document.
    #[must_use]
    pub fn document(&self, silence: &Silence) -> Value {
        let quantiles = |late: &Histogram<u64>| {
            json!({
                "p50": late.value_at_quantile(0.5), "p99": late.value_at_quantile(0.99), "max": late.max(),
            })
        };
        json!({
            "guests": silence.guests,
            "silent": silence.silent,
            "window_ms": silence.window.as_secs_f64() * 1e3,
            "interval_ms": silence.interval.as_secs_f64() * 1e3,
            "told": self.told(),
            "told_ms_after_window": quantiles(&self.told),
            "seen_ms_after_window": quantiles(&self.seen),
            "within_budget": u128::from(self.seen.max()) <= BUDGET.as_millis(),
            "beside_per_second": self.beside,
            "errors": self.errors,
        })
    }

    /// The same for people.
    #[must_use]
    pub fn table(&self, silence: &Silence) -> String {
        let beside = self.beside.iter().copied().fold(f64::INFINITY, f64::min);
        let mut text = format!(
            "{} of {} guests stop answering at once; window {:?}, interval {:?}; at least {beside:.0} handshakes/s beside\n\
             ms after the window      p50   p99   max\n",
            silence.silent, silence.guests, silence.window, silence.interval,
        );
        for (name, late) in [("the broker says so", &self.told), ("a client has read it", &self.seen)] {
            let (half, most) = (late.value_at_quantile(0.5), late.value_at_quantile(0.99));
            let _ = writeln!(text, "{name:22} {half:5} {most:5} {:5}", late.max());
        }
        let kept = u128::from(self.seen.max()) <= BUDGET.as_millis();
        let _ = writeln!(text, "budget {BUDGET:?}: {}", if kept { "kept" } else { "broken" });
        if !self.errors.is_empty() {
            let _ = writeln!(text, "errors: {:?}", self.errors);
        }
        text
    }

    fn error(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }
}

impl Default for Lateness {
    fn default() -> Self {
        let hour = 3_600_000;
        let histogram = || Histogram::new_with_bounds(1, hour, 3).expect("bounds that a histogram can have");
        Self { told: histogram(), seen: histogram(), beside: Vec::new(), errors: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::event::Cursor;
    use castra_core::status::State;
    use castra_core::time::WallTime;

    const SILENCE: Silence = Silence {
        guests: 10,
        silent: 2,
        concurrency: 1,
        rate: 1.0,
        interval: Duration::from_secs(1),
        window: Duration::from_secs(3),
    };

    fn stale(guest: &str, age_ms: u64) -> Event {
        let reason = Some(Reason::Stale);
        let fact =
            Fact::VerdictChanged { from: State::Reachable, to: State::Waiting, reason, age_ms: Some(age_ms) };
        let guest = Some(guest.parse().expect("a name"));
        Event {
            cursor: Cursor { incarnation: 1, number: 1 },
            at: WallTime::from_unix_millis(50_000),
            guest,
            fact,
        }
    }

    #[test]
    fn lateness_is_the_age_less_the_window_and_then_the_way_to_the_client() {
        let mut lateness = Lateness::default();
        let read = UNIX_EPOCH + Duration::from_millis(50_004);
        lateness.take(&stale("stays-00009", 3002), read, &SILENCE);
        lateness.take(&stale("stays-00008", 3000), read, &SILENCE);
        let document = lateness.document(&SILENCE);
        assert_eq!(lateness.told(), 2);
        assert_eq!(document["told_ms_after_window"], json!({"p50": 0, "p99": 2, "max": 2}));
        assert_eq!(document["seen_ms_after_window"], json!({"p50": 4, "p99": 6, "max": 6}));
        assert_eq!(document["errors"], json!({}));
    }

    #[test]
    fn a_guest_that_answers_and_is_called_stale_is_an_error() {
        let mut lateness = Lateness::default();
        lateness.take(&stale("stays-00007", 3002), UNIX_EPOCH, &SILENCE);
        lateness.take(&stale("comes-00001", 3002), UNIX_EPOCH, &SILENCE);
        assert_eq!((lateness.told(), lateness.errors.values().sum::<u64>()), (0, 1));
    }
}
