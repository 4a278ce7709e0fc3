//! What programs on the whole terminal share: `castra console` and `castra top`.
//!
//! Threads bring keys, answers and events as inputs to one loop; nothing here
//! waits for the broker.

pub(crate) mod action;
pub(crate) mod command;
pub(crate) mod feed;
pub(crate) mod keys;
pub(crate) mod line;
pub(crate) mod notice;
pub(crate) mod paint;
pub(crate) mod screen;
#[cfg(test)]
pub(crate) mod svg;
pub(crate) mod text;

use std::sync::mpsc::{Receiver, Sender, channel};

use ratatui::crossterm::event::KeyEvent;

use crate::exit::{Exit, Failure};
use screen::Screen;

/// What the terminal brings.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// A key.
    Key(KeyEvent),
    /// Text at once.
    Paste(String),
    /// The terminal's size.
    Redraw,
    /// It is to end.
    End(End),
}

/// Why it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The person wants it.
    Quit,
    /// A signal came, or the terminal went away.
    Signal(i32),
    /// A thread of its own is gone.
    Broken(&'static str),
}

impl End {
    /// How the program ends.
    pub(crate) fn outcome(self) -> Result<Exit, Failure> {
        match self {
            Self::Quit => Ok(Exit::Yes),
            Self::Signal(signal) => Ok(Exit::Signalled(signal)),
            Self::Broken(what) => {
                Err(Failure::new(Exit::Internal, format!("the {what} thread of this program broke")))
            }
        }
    }
}

/// The terminal, taken, with threads that bring what comes from it.
pub(crate) struct Stage<I> {
    pub(crate) screen: Screen,
    pub(crate) sender: Sender<I>,
    pub(crate) inputs: Receiver<I>,
}

impl<I: From<Arrived> + Send + 'static> Stage<I> {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It can't be drawn on, or signals can't be had.
    pub(crate) fn take() -> Result<Self, Failure> {
        let (sender, inputs) = channel();
        let mut signals =
            screen::signals().map_err(|error| Failure::io("can't listen for signals", &error))?;
        let screen = Screen::take().map_err(|error| Failure::io("can't draw on this terminal", &error))?;
        let stage = Self { screen, sender, inputs };
        stage.spawn("signals", move |inputs| {
            for signal in signals.forever() {
                let _ = inputs.send(Arrived::End(End::Signal(signal)).into());
            }
        });
        stage.spawn("keys", screen::read);
        Ok(stage)
    }

    /// A thread that lasts as long as the program: [`spawn`].
    pub(crate) fn spawn(&self, what: &'static str, work: impl FnOnce(&Sender<I>) + Send + 'static) {
        spawn(what, self.sender.clone(), work);
    }
}

/// A thread that lasts as long as the program; if it breaks, the program ends.
pub(crate) fn spawn<I: From<Arrived> + Send + 'static>(
    what: &'static str,
    inputs: Sender<I>,
    work: impl FnOnce(&Sender<I>) + Send + 'static,
) {
    struct Broken<I: From<Arrived>>(&'static str, Sender<I>);
    impl<I: From<Arrived>> Drop for Broken<I> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let _ = self.1.send(Arrived::End(End::Broken(self.0)).into());
            }
        }
    }
    let broken = Broken(what, inputs);
    std::thread::spawn(move || work(&broken.1));
}
