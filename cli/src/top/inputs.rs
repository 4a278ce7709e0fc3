//! What goes into the state, and what comes out.

use castra_core::control::attach::AttachmentRow;
use castra_core::control::reply::Events;
use castra_core::event::Cursor;
use castra_core::id::GuestName;
use castra_core::peers::Listed;
use castra_core::status::StatusOutcome;
use ratatui::crossterm::event::KeyEvent;

use crate::tui::action::{Action, Told};
use crate::tui::feed::Followed;
use crate::tui::{Arrived, End};

/// What is to be asked at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    /// Whose rows; empty: all.
    pub(crate) names: Vec<GuestName>,
    /// And more of this one.
    pub(crate) page: Option<PageAsk>,
}

/// What is to be asked of the guest that is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageAsk {
    pub(crate) guest: GuestName,
    /// Events after this one; `None`: all that are kept.
    pub(crate) since: Option<Cursor>,
    /// Its attachment, too.
    pub(crate) attachment: bool,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Whether it has all guests.
    pub(crate) is_full: bool,
    pub(crate) document: StatusOutcome,
    pub(crate) page: Option<PageAnswer>,
}

/// What was answered of the guest that is looked at; or why not.
#[derive(Clone, Debug)]
pub(crate) struct PageAnswer {
    pub(crate) guest: GuestName,
    pub(crate) events: Result<Events, String>,
    pub(crate) peers: Result<Vec<Listed>, String>,
    /// `None`: was not asked for.
    pub(crate) attachment: Option<Result<Option<AttachmentRow>, String>>,
}

/// A guest's terminals as rows of cells, or why nobody can tell.
pub(crate) type Terminals = Result<Vec<[String; 7]>, String>;

/// What arrives.
#[derive(Debug)]
pub(crate) enum Input {
    /// Of the broker.
    Answer(Box<Answer>),
    /// There is none: why; and whom the state directory knows.
    Offline(String, Box<StatusOutcome>),
    /// The stream of events.
    Followed(Followed),
    /// What came of a command.
    Told(Action, Told),
    /// The terminals of a guest.
    Terminals(GuestName, Terminals),
    /// A key.
    Key(KeyEvent),
    /// Text at once.
    Paste(String),
    /// The terminal's size.
    Redraw,
    /// It is to end.
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
        Self::Followed(followed)
    }
}

impl From<(Action, Told)> for Input {
    fn from((action, told): (Action, Told)) -> Self {
        Self::Told(action, told)
    }
}

/// What is to be done about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Ask the broker how things are, and bring the answer.
    Poll(Ask),
    /// Carry a command out, and bring the answer.
    Ask(Action),
    /// Bring a guest's terminals.
    Terminals(GuestName),
    /// End.
    End(End),
}
