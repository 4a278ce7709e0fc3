//! What goes into the state, and what comes out.

use castra_core::control::reply::InboxMessage;
use castra_core::event::Event;
use castra_core::peers::Listed;
use castra_core::status::{BrokerStatus, GuestStatus};
use ratatui::crossterm::event::KeyEvent;

use crate::tui::action::{Action, Told};
use crate::tui::feed::Followed;
use crate::tui::{Arrived, End};

/// Whose socket is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The broker's: everything about everybody.
    Broker,
    /// An agent's, inside its guest.
    Agent,
}

/// Everything that was asked at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) role: Role,
    pub(crate) standing: Standing,
    /// The broker's own line, where it was told.
    pub(crate) broker: Option<BrokerStatus>,
    /// The guest itself first; or why nobody can tell.
    pub(crate) peers: Result<Vec<Listed>, String>,
    /// `None`: as before.
    pub(crate) inbox: Option<Result<Vec<InboxMessage>, String>>,
}

/// What is known of the console's guest.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// Its row.
    Known(Box<GuestStatus>),
    /// The broker knows no such guest.
    Unknown,
    /// Nobody could tell, as an agent without its link.
    Silent(String),
}

/// What arrives.
#[derive(Debug)]
pub(crate) enum Input {
    /// All that there is to show.
    Snapshot(Box<Snapshot>),
    /// No answer.
    Offline(String),
    /// Something happened.
    Event(Box<Event>),
    /// Events were lost.
    Gap,
    /// What came of an action.
    Answer(Action, Told),
    /// A key.
    Key(KeyEvent),
    /// Text at once.
    Paste(String),
    /// The terminal's size, or nothing at all.
    Redraw,
    /// The console is to end.
    End(End),
}

impl From<Arrived> for Input {
    fn from(arrived: Arrived) -> Self {
        match arrived {
            Arrived::Key(key) => Self::Key(key),
            Arrived::Paste(text) => Self::Paste(text),
            Arrived::Redraw => Self::Redraw,
            Arrived::End(end) => Self::End(end),
        }
    }
}

impl From<Followed> for Input {
    fn from(followed: Followed) -> Self {
        match followed {
            Followed::Event(event) => Self::Event(event),
            // Why there are none at the moment is the snapshot's to say.
            Followed::Gap(_) | Followed::Ended => Self::Gap,
        }
    }
}

impl From<(Action, Told)> for Input {
    fn from((action, told): (Action, Told)) -> Self {
        Self::Answer(action, told)
    }
}

/// What is to be done about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Ask, and bring the answer.
    Ask(Action),
    /// Take a new snapshot at once, with the messages if they changed.
    Refresh { inbox: bool },
    /// End.
    End(End),
}
