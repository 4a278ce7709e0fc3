//! How far it is, on a terminal; elsewhere a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two drawings of the line.
pub(crate) const REDRAW: Duration = Duration::from_millis(100);

/// Between two lines where nothing can be drawn over.
const LINE: Duration = Duration::from_secs(30);

const WIDTH: u64 = 24;

/// A line on standard error. A library would bring five crates for it.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    /// How many there will be, or else when it ends.
    all: Option<u64>,
    until: Option<Instant>,
    began: Instant,
    last: Instant,
    terminal: bool,
    drawn: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, all: Option<u64>, until: Option<Instant>) -> Self {
        let now = Instant::now();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stderr().is_terminal() && !dumb;
        Self { what, all, until, began: now, last: now, terminal, drawn: false }
    }

    /// Draws, unless that was done just now.
    pub(crate) fn show(&mut self, done: u64, more: impl FnOnce() -> String) {
        let now = Instant::now();
        let pause = if self.terminal { REDRAW } else { LINE };
        if now - self.last < pause {
            return;
        }
        self.last = now;
        let line = self.line(done, now, &more());
        let mut stderr = io::stderr().lock();
        // Nobody looking is no error.
        let _ = if self.terminal {
            self.drawn = true;
            write!(stderr, "\r\x1b[K{line}")
        } else {
            writeln!(stderr, "castra: {line}")
        };
        let _ = stderr.flush();
    }

    fn line(&self, done: u64, now: Instant, more: &str) -> String {
        let (what, spent) = (self.what, now - self.began);
        let part = match (self.all, self.until) {
            (Some(all), _) => done as f64 / all.max(1) as f64,
            (None, Some(until)) => spent.as_secs_f64() / (until - self.began).as_secs_f64().max(1e-9),
            (None, None) => return format!("{done} {what}, {more}"),
        };
        let full = (part.clamp(0.0, 1.0) * WIDTH as f64) as usize;
        let bar = format!("[{}{}]", "#".repeat(full), "-".repeat(WIDTH as usize - full));
        let all = self.all.map_or_else(String::new, |all| format!(" of {all}"));
        format!("{bar} {done}{all} {what}, {more}, {} s", spent.as_secs())
    }

    /// Leaves no trace.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K");
            let _ = stderr.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_never_overflows() {
        let progress = Progress::new("worlds", Some(10), None);
        let line = |done| progress.line(done, progress.began, "x");
        assert_eq!(line(0), "[------------------------] 0 of 10 worlds, x, 0 s");
        assert_eq!(line(5), "[############------------] 5 of 10 worlds, x, 0 s");
        assert_eq!(line(99), "[########################] 99 of 10 worlds, x, 0 s");
        let endless = Progress::new("runs", None, None);
        assert_eq!(endless.line(3, endless.began, "x"), "3 runs, x");
    }
}
