//! Slow work outside the loop: what can be asked for, and how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use castra_core::attach::HttpRequest;
use castra_core::boundary::{Batch, EffectError, Typed};
use castra_core::id::{EffectId, GuestName, TerminalId};
use castra_core::legacy::Record;
use castra_core::terminals::{Deed, News};

/// Names a piece of work; it comes back in its [`Done`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JobId {
    /// On behalf of an engine's effect.
    Effect(EffectId),
    /// On behalf of a terminal: what is told of it.
    Terminal(TerminalId),
    /// The shell's own log lines.
    Append,
    /// The shell's own reopening of the log files.
    Reopen,
}

/// What to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Job {
    /// Commit durably. Commits keep the order in which they were asked for,
    /// and so do their `Done`s; several may share one transaction.
    Persist(Batch),
    /// Write a castra 0.1 record, whole.
    WriteRecord(Box<Record>),
    /// Delete a castra 0.1 record; a missing one is a success.
    RemoveRecord(GuestName),
    /// Append lines to the log files.
    Append(Append),
    /// Close and open the log files again (somebody may have moved them away),
    /// and read the configuration file again.
    Reopen,
    /// Run a guest's start command. Done when it ended well, or still runs after `patience`.
    Start {
        /// Whose.
        guest: GuestName,
        /// How long it is watched.
        patience: Duration,
    },
    /// Do something to a terminal. What is done to one terminal keeps its order.
    Terminal {
        /// Which.
        terminal: TerminalId,
        /// What.
        deed: Deed,
    },
    /// A terminal may bring output once, at most so many bytes ([`News::Output`]).
    /// The one job that has no `Done`.
    Grant {
        /// Which.
        terminal: TerminalId,
        /// How many.
        credit: usize,
    },
    /// Make an HTTP request; it may be withdrawn ([`Work::cancel`]).
    Http {
        /// Which.
        request: Box<HttpRequest>,
        /// How long it may take.
        patience: Duration,
    },
    /// Type into a terminal of this process, as its owner.
    Type {
        /// The terminal's name.
        terminal: String,
        /// What.
        bytes: Typed,
        /// How long it may take.
        patience: Duration,
    },
    /// Look up a host name.
    Resolve {
        /// The name.
        host: String,
        /// The port to pair the addresses with.
        port: u16,
    },
}

/// Whole lines for each log file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Append {
    /// For `logs/broker.log`.
    pub log: Vec<u8>,
    /// For `logs/events.jsonl`.
    pub events: Vec<u8>,
    /// For `handshakes/handshake-events.jsonl`.
    pub handshakes: Vec<u8>,
}

impl Append {
    /// Bytes in all.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.log.len() + self.events.len() + self.handshakes.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A piece of work that ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which.
    pub job: JobId,
    /// How.
    pub outcome: Outcome,
}

/// How a piece of work ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An effect, or a reopening.
    Finished(Result<(), EffectError>),
    /// An HTTP request was answered.
    Answered {
        /// The status.
        status: u16,
        /// `Retry-After`, counted from now.
        retry_after: Option<Duration>,
        /// The body.
        body: Vec<u8>,
    },
    /// A name look-up.
    Resolved(Result<Vec<SocketAddr>, EffectError>),
    /// Something is told of a terminal.
    Terminal(News<'static>),
    /// An append of that many bytes.
    Appended {
        /// As [`Append::len`] said.
        bytes: usize,
        /// Why some of it was not written.
        error: Option<String>,
    },
}

/// Whoever does the work.
pub trait Work {
    /// Takes a job; its [`Done`] reaches a later turn. Never blocks. Every job
    /// gets exactly one `Done`, but for [`Job::Grant`].
    fn submit(&mut self, id: JobId, job: Job);

    /// The result of this job doesn't matter any more. It may end at once; it has its
    /// `Done` all the same.
    fn cancel(&mut self, id: JobId) {
        let _ = id;
    }
}
