//! Where the story is told and checked: sentences, a table, and what was expected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use castra_core::control::reply::Target;
use castra_core::id::GuestName;
use castra_core::status::{GuestStatus, Reason, State, StatusOutcome};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Row;
use crate::exit::{Exit, Failure};
use crate::output::Out;
use crate::paths::Place;
use crate::{render, status, wait};

/// Between two repaints.
const REPAINT: Duration = Duration::from_millis(200);

/// How long a person gets to look at each scene.
const SCENE: Duration = Duration::from_millis(3500);

pub(super) struct Stage<'a> {
    out: &'a mut Out,
    /// Repaint a table on a terminal, with pauses to look.
    live: bool,
    place: Option<Place>,
    told: Vec<String>,
    interrupted: Arc<AtomicBool>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(out: &'a mut Out, live: bool) -> Result<Self, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .map_err(|error| Failure::io("can't listen for Ctrl-C", &error))?;
        }
        let live = live && out.terminal;
        if live {
            out.put("\x1b[2J")?;
        }
        Ok(Self { out, live, place: None, told: vec![], interrupted })
    }

    /// From now on there is a broker to ask.
    pub(super) fn attend(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// The next sentence.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.told.push(text.into());
        if self.live { self.paint() } else { self.out.line(&format!("\n* {text}")) }
    }

    /// The last sentence, when there is nobody left to ask.
    pub(super) fn end(&mut self, text: &str) -> Result<(), Failure> {
        self.out.line(&format!("\n* {text}"))
    }

    /// More about the last sentence.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Failure> {
        match self.told.last_mut() {
            Some(last) if self.live => {
                last.push(' ');
                last.push_str(text);
                self.paint()
            }
            _ => self.out.line(&format!("  {text}")),
        }
    }

    /// Waits (on the broker's word, not on a clock) until the rows are as
    /// expected, and checks state and reason of each. The instant is that of
    /// the broker's word.
    pub(super) fn expect(&mut self, rows: &[Row], within: Duration) -> Result<Instant, Failure> {
        for target in [Target::Waiting, Target::Reachable] {
            let names: Vec<GuestName> = rows
                .iter()
                .filter(|row| super::target(row) == target)
                .filter_map(|(name, ..)| name.parse().ok())
                .collect();
            if !names.is_empty() {
                self.wait(&names, target, within)?;
            }
        }
        let answered = Instant::now();
        let found = self.document()?;
        for (name, state, reason) in rows {
            let row = find(&found, name)?;
            if (row.state, row.reason) != (*state, *reason) {
                return Err(unexpected(name, &describe(*state, *reason), &describe(row.state, row.reason)));
            }
        }
        Ok(answered)
    }

    /// Whether the guest proved itself with its token.
    pub(super) fn expect_keyed(&self, name: &str) -> Result<(), Failure> {
        let found = self.document()?;
        if find(&found, name)?.authenticated {
            return Ok(());
        }
        Err(unexpected(name, "authenticated by its token", "not authenticated"))
    }

    /// Without a broker everybody is offline, at once.
    pub(super) fn expect_offline(&self, names: &[&str]) -> Result<(), Failure> {
        let found = self.document()?;
        for name in names {
            let row = find(&found, name)?;
            if (row.state, row.reason) != (State::Offline, Some(Reason::NoBroker)) {
                let expected = describe(State::Offline, Some(Reason::NoBroker));
                return Err(unexpected(name, &expected, &describe(row.state, row.reason)));
            }
        }
        Ok(())
    }

    fn wait(&mut self, names: &[GuestName], target: Target, within: Duration) -> Result<(), Failure> {
        let place =
            self.place.clone().ok_or_else(|| Failure::new(Exit::Internal, "no broker was started"))?;
        let (sender, receiver) = mpsc::channel();
        let asked = names.to_vec();
        // On a thread: the table lives on, and Ctrl-C is heard, while the broker waits.
        std::thread::spawn(move || {
            let _ = sender.send(wait::request(&place, &asked, target, false, within));
        });
        loop {
            match receiver.recv_timeout(REPAINT) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => {
                    let names: Vec<&str> = names.iter().map(GuestName::as_str).collect();
                    return Err(Failure::new(
                        Exit::No,
                        format!(
                            "expected {} to be {target:?} by now, and the broker says: {error}",
                            names.join(", ")
                        ),
                    ));
                }
                Err(RecvTimeoutError::Timeout) => self.breathe()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(Exit::Internal, "the waiting thread ended without an answer"));
                }
            }
        }
    }

    /// The scene as it is: for a while on a terminal, once elsewhere.
    pub(super) fn show(&mut self) -> Result<(), Failure> {
        if !self.live {
            let found = self.document()?;
            for line in render::table(&found.guests, self.out.color) {
                self.out.line(&format!("  {line}"))?;
            }
            return self.breathe();
        }
        let end = Instant::now() + SCENE;
        while Instant::now() < end {
            self.breathe()?;
            std::thread::sleep(REPAINT);
        }
        Ok(())
    }

    /// Whether somebody asked to stop.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Repaints, and stops when asked to.
    fn breathe(&mut self) -> Result<(), Failure> {
        if self.interrupted() {
            return Err(Failure::new(Exit::No, "interrupted; everything is cleaned up"));
        }
        if self.live { self.paint() } else { Ok(()) }
    }

    fn paint(&mut self) -> Result<(), Failure> {
        let mut lines = vec!["castra demo (Ctrl-C ends it and removes everything)".to_owned(), String::new()];
        let (last, earlier) =
            self.told.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        lines.extend(earlier.iter().rev().take(2).rev().map(|text| format!("  {text}")));
        lines.extend(last.map(|text| format!("> {text}")));
        lines.push(String::new());
        if self.place.is_some() {
            let found = self.document()?;
            lines.extend(render::table(&found.guests, self.out.color));
            lines.extend([String::new(), render::broker(&found.broker)]);
        }
        self.out.put(&status::painted(&lines))
    }

    fn document(&self) -> Result<StatusOutcome, Failure> {
        let place =
            self.place.as_ref().ok_or_else(|| Failure::new(Exit::Internal, "no broker was started"))?;
        status::document(&status::ask(place, &[], status::TIMEOUT)?)
    }
}

fn find<'a>(found: &'a StatusOutcome, name: &str) -> Result<&'a GuestStatus, Failure> {
    found.guests.iter().find(|row| row.name.as_str() == name).ok_or_else(|| unexpected(name, "a row", "none"))
}

fn describe(state: State, reason: Option<Reason>) -> String {
    reason.map_or_else(|| state.to_string(), |reason| format!("{state} ({reason})"))
}

fn unexpected(name: &str, expected: &str, found: &str) -> Failure {
    Failure::new(Exit::No, format!("expected {name} to be {expected}, found {found}"))
}
