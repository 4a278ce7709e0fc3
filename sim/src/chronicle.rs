//! What happened in a run, in the order of time: the one form that the story,
//! the space-time diagram and the explorer's counterexamples are made from.

use castra_core::time::Time;

use crate::plan::FaultKind;

/// A process of the world, as an index into [`Chronicle::columns`].
pub type Column = usize;

/// A run, told. Times are the world's, from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chronicle {
    /// The processes, in the order in which they are drawn: guests, the broker, clients.
    pub columns: Vec<Process>,
    /// Messages.
    pub arrows: Vec<Arrow>,
    /// Faults, starts, ends, remarks.
    pub marks: Vec<Mark>,
    /// What the broker says of each guest, and for how long.
    pub bands: Vec<Band>,
    /// The settings that matter: window, interval, seed, as `name`, `value`.
    pub settings: Vec<(String, String)>,
    /// The broken promise, if there is one.
    pub violation: Option<Broken>,
    /// When the run ended.
    pub end: Time,
}

/// A process of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name: `broker`, `guest-1`, `client-2`.
    pub name: String,
    /// What it is.
    pub role: Role,
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Somebody who dials the broker.
    Guest,
    /// The broker.
    Broker,
    /// A command on the host.
    Client,
}

/// A message: what one `write` put on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrow {
    /// Who sent it.
    pub from: Column,
    /// Whom it was for.
    pub to: Column,
    /// When it left.
    pub sent: Time,
    /// When it was there; `None`: never. After the run's end: it was still under way.
    pub arrived: Option<Time>,
    /// What it says, shortened: `challenge 3`, `proof 3`, `hello`. Its first word
    /// decides whether it is part of the routine: see [`Arrow::is_routine`].
    pub label: String,
    /// A fault kept it longer than the network alone would have.
    pub delayed: bool,
}

impl Arrow {
    /// A challenge or a proof that arrived as it should: pictures and stories fold these.
    #[must_use]
    pub fn is_routine(&self) -> bool {
        let word = self.label.split(' ').next().unwrap_or_default();
        matches!(word, "challenge" | "proof") && self.arrived.is_some() && !self.delayed
    }
}

/// Something at one process, at one moment or for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Where; `None`: the whole world.
    pub column: Option<Column>,
    /// Since when.
    pub at: Time,
    /// Until when, if it lasted.
    pub until: Option<Time>,
    /// What kind.
    pub kind: MarkKind,
    /// In words: `frozen`, `partitioned from the broker`, `said: devbox is reachable`.
    pub text: String,
}

/// Kinds of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// The process does not run for a while: frozen, suspended, or dead until it boots again.
    Stopped,
    /// Nothing passes on the process's connections for a while.
    Cut,
    /// Any other fault.
    Fault,
    /// The window before a violation: when there should have been evidence, and was none.
    Window,
    /// What should not be so.
    Wrong,
    /// A process began.
    Start,
    /// A process ended, of itself or not.
    End,
    /// What a process said or found out.
    Note,
}

impl From<FaultKind> for MarkKind {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Death
            | FaultKind::Crash
            | FaultKind::Freeze
            | FaultKind::FreezeBroker
            | FaultKind::RestartBroker
            | FaultKind::LoseState
            | FaultKind::TornCommit
            | FaultKind::Suspend => Self::Stopped,
            FaultKind::Hold | FaultKind::Partition => Self::Cut,
            _ => Self::Fault,
        }
    }
}

/// What the broker said of one guest for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// The guest.
    pub guest: Column,
    /// Since when.
    pub from: Time,
    /// Until when (the end of the run, if it never changed).
    pub until: Time,
    /// Whether it said `reachable`.
    pub reachable: bool,
    /// The reason, if not.
    pub reason: String,
}

impl Chronicle {
    /// What went wrong, with whom it concerns.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        let broken = self.violation.as_ref()?;
        let whom = broken.column.and_then(|column| self.columns.get(column));
        Some(match whom.filter(|process| !broken.text.contains(&process.name)) {
            Some(process) => format!("{}: {}", process.name, broken.text),
            None => broken.text.clone(),
        })
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// When it was noticed.
    pub at: Time,
    /// Which process it concerns.
    pub column: Option<Column>,
    /// Its name in the design: `S1`.
    pub promise: String,
    /// In words.
    pub text: String,
}
