//! The core's only door: what goes in, what comes out.

mod change;

use alloc::boxed::Box;
use alloc::string::String;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::attach::{HttpAnswer, HttpRequest};
use crate::event::Event;
use crate::id::{ConnId, EffectId, GuestName, TerminalId};
use crate::legacy::Record;
use crate::terminals::{Deed, News};
use crate::time::{Now, Time};

pub use change::{Batch, Change};

pub use crate::endpoint::{PeerCred, Remote, Transport};

/// A pure state machine behind the boundary: [`crate::Broker`] or [`crate::Agent`].
///
/// **Single-mutation rule:** after each [`Engine::handle`], call
/// [`Engine::poll_output`] until it returns [`Output::Wait`] before the next
/// `handle`.
pub trait Engine {
    /// The configuration that [`Input::Reload`] brings.
    type Config;

    /// Takes one input. Infallible: peer nonsense is a state change and an
    /// event; an input for a connection or effect that is gone is a counted no-op.
    fn handle(&mut self, now: Now, input: Input<'_, Self::Config>);

    /// The next output, in order; [`Output::Wait`] ends the drain.
    fn poll_output(&mut self) -> Output<'_>;
}

/// What the shell tells an engine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a, C> {
    /// A connection exists.
    Opened {
        /// Its id, unused so far.
        conn: ConnId,
        /// What it is for and what carries it.
        via: Via,
        /// How it came to be.
        origin: Origin,
        /// The other end, for display and for counting half-open connections by source.
        remote: Remote,
        /// Our own end, of an accepted TCP link if the shell was told to look.
        local: Option<SocketAddr>,
        /// Who the kernel says is there. Always given on control and by clients of terminals.
        peer_cred: Option<PeerCred>,
        /// Free bytes in the shell's send buffer: its capacity.
        room: usize,
    },
    /// Bytes arrived. A stream means the same however it is cut; only which of several
    /// requests that came together on control is carried out first may differ.
    Bytes {
        /// From where.
        conn: ConnId,
        /// What.
        bytes: &'a [u8],
    },
    /// The other end will send no more (half-close). The engine may still
    /// transmit, and closes when it has nothing left to say.
    Finished {
        /// Which connection.
        conn: ConnId,
    },
    /// The send buffer drained. The shell says so whenever the room that the
    /// engine knows of fell below half the capacity and at least half is free.
    Writable {
        /// Which connection.
        conn: ConnId,
        /// Free bytes in the send buffer now (absolute).
        room: usize,
    },
    /// The connection is gone; nothing more can be sent.
    Closed {
        /// Which connection.
        conn: ConnId,
        /// Why.
        why: CloseCause,
    },
    /// An effect ended. Each [`Output::Effect`] gets exactly one.
    Done {
        /// Which effect.
        effect: EffectId,
        /// How it ended.
        result: Result<(), EffectError>,
    },
    /// An [`Effect::Http`] was answered, whatever the status: its end, in place of
    /// [`Input::Done`].
    Answered {
        /// Which effect.
        effect: EffectId,
        /// The answer.
        answer: HttpAnswer<'a>,
    },
    /// Something is told of a terminal.
    Terminal {
        /// Which.
        terminal: TerminalId,
        /// What.
        news: News<'a>,
    },
    /// Time passed; sent at the latest when the last [`Output::Wait`] says.
    Tick,
    /// Stop: refuse new work, take leave, and be done by `deadline`
    /// ([`Output::Stopped`] says so).
    Drain {
        /// When everything ends at the latest.
        deadline: Time,
    },
    /// A new configuration, already checked.
    Reload(Box<C>),
}

/// What an engine wants done, in this order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// Append `bytes` to the connection's send buffer. Never more than its room.
    Transmit {
        /// Where to.
        conn: ConnId,
        /// What.
        bytes: &'a [u8],
    },
    /// Drop what of the send buffer the kernel has not taken yet (serial
    /// resynchronisation), then say [`Input::Writable`].
    Discard {
        /// Which connection.
        conn: ConnId,
    },
    /// From now on read at most this much per turn; 0 stops. A source that was
    /// never named reads freely. A terminal is different: it brings nothing before
    /// it is named, and then once, at most so many bytes ([`News::Output`]).
    Read {
        /// Connections, the doors that accept them, or a terminal.
        source: Source,
        /// Bytes (connection, terminal) or connections (door).
        credit: usize,
    },
    /// Send what is buffered, then end this direction (half-close). Nothing more is
    /// transmitted; the connection is still read from.
    Finish {
        /// Which connection.
        conn: ConnId,
    },
    /// Send what is buffered (within a second), then close. The id is dead from
    /// here on: the shell says nothing more about it.
    Close {
        /// Which connection.
        conn: ConnId,
        /// Why, for the shell's own log.
        why: CloseReason,
    },
    /// Do this outside and answer with [`Input::Done`] (a dial that succeeds is
    /// answered by [`Input::Opened`] alone, an HTTP request by [`Input::Answered`]).
    Effect {
        /// Its number.
        id: EffectId,
        /// What to do.
        effect: Effect,
    },
    /// The effect's result no longer matters; still answered by [`Input::Done`].
    Cancel {
        /// Which effect.
        effect: EffectId,
    },
    /// Something worth writing down.
    Event(Event),
    /// The drain is over: the process may end.
    Stopped,
    /// Nothing more. Call `handle` with an input, at the latest at the deadline.
    Wait(Option<Deadline>),
}

/// When to wake the engine, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// When, on the boot-time clock.
    pub at: Time,
    /// Which obligation asked for it.
    pub why: Wakeup,
}

/// Why an engine wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Wakeup {
    /// A handshake must end.
    Handshake,
    /// A half-open connection, or an HTTP client that asks for nothing, may be evicted.
    Eviction,
    /// A session's next challenge, its window, or one of its other deadlines.
    Session,
    /// A one-shot proof leaves its window.
    OneShot,
    /// An incumbent must have answered a conflict challenge.
    Conflict,
    /// A control command must be answered.
    Command,
    /// A 0.1 record may be written.
    Record,
    /// A drain must end.
    Drain,
    /// The agent dials again.
    Redial,
    /// A dial must end.
    Dial,
    /// Work was cut off at the turn's bound and goes on at once.
    More,
    /// A guest that is asked to become a peer must have answered.
    Offer,
    /// A message must be sent again, or expires.
    Mail,
    /// A terminal's owner, program, reader or record is due for something.
    Terminal,
    /// A stream to terminals must be open, or its last bytes taken.
    Tunnel,
    /// An attachment, an action, a lease or an HTTP client of the manager is due for something.
    Attach,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// Guest ↔ broker.
    Link(Transport),
    /// Local clients.
    Control,
    /// Clients of terminals, local too.
    Terminals,
    /// HTTP clients of the manager.
    Manager,
}

/// How a connection came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A listener took it.
    Accepted,
    /// The engine asked for it.
    Dialled(EffectId),
}

/// Where a dial goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DialTarget {
    /// The configured link: opened with [`Via::Link`].
    #[default]
    Link,
    /// The socket of this process's own terminals: opened with [`Via::Terminals`].
    /// Any number of them may be under way.
    Terminals,
}

/// What can be told to read less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// One connection.
    Conn(ConnId),
    /// All listeners for links.
    LinkDoor,
    /// The control listener.
    ControlDoor,
    /// The listener for clients of terminals.
    TerminalDoor,
    /// The manager's listener.
    ManagerDoor,
    /// The output of a terminal.
    Terminal(TerminalId),
}

/// Why a connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseCause {
    /// The other end closed it.
    Eof,
    /// It was reset, or a read or write failed.
    Reset,
    /// The shell gave it up (it shuts down, or its own table is full).
    Shell,
}

/// Why an engine closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CloseReason {
    /// Everything was said.
    Finished,
    /// A handshake was refused, or a client may not be here.
    Refused,
    /// The session ended with a `bye`.
    Ended,
    /// The engine drains.
    Drained,
}

/// Work that an engine can't do itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Commit these changes together, durably, in order of effect ids.
    Persist(Batch),
    /// Write a castra 0.1 record file, whole, by temporary file and rename.
    WriteRecord(Box<Record>),
    /// Delete a castra 0.1 record file. One that is not there is a success.
    RemoveRecord(GuestName),
    /// Run the guest's configured start command. Done when the command ended well,
    /// or still runs at `deadline`; what it does after that is its own affair.
    Start {
        /// Whose.
        guest: GuestName,
        /// How long it is watched.
        deadline: Time,
    },
    /// Read the configuration and reopen the log files; a changed configuration
    /// also arrives as [`Input::Reload`], before the `Done`.
    Reload,
    /// Open a connection before `deadline`.
    Dial {
        /// When to give up.
        deadline: Time,
        /// Where to.
        to: DialTarget,
    },
    /// Do something to a terminal.
    Terminal {
        /// Which.
        terminal: TerminalId,
        /// What.
        deed: Deed,
    },
    /// Make an HTTP request.
    Http(Box<HttpRequest>),
    /// Type into a terminal that this process hosts, as its owner, if it has none. Done
    /// when the program's terminal took all of it; a failure says whether nothing, or
    /// perhaps a part, was taken: see [`EffectErrorKind`].
    Type {
        /// The terminal's name.
        terminal: String,
        /// What.
        bytes: Typed,
        /// When to give up.
        deadline: Time,
    },
}

/// What is typed: it may hold anything.
#[derive(Clone, PartialEq, Eq)]
pub struct Typed(pub alloc::vec::Vec<u8>);

impl core::fmt::Debug for Typed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Typed({} bytes)", self.0.len())
    }
}

/// Why an effect failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct EffectError {
    /// What kind of failure.
    pub kind: EffectErrorKind,
    /// What happened, for people; bounded and escaped by whoever shows it.
    pub message: String,
}

/// Kinds of failed effects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EffectErrorKind {
    /// Disk full, I/O error, damaged file.
    Storage,
    /// A start command could not be run, or ended badly.
    Command,
    /// Nobody answers there, or the address can't be used.
    Unreachable,
    /// The deadline passed.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// A working directory isn't there.
    DirectoryMissing,
    /// A program isn't there.
    ProgramMissing,
    /// A program or directory may not be used.
    PermissionDenied,
    /// A terminal could not do what it was to do, or there is no such terminal.
    Terminal,
    /// Somebody else owns the terminal: nothing was typed.
    Owned,
    /// An answer is longer than it may be, or is no answer.
    BadAnswer,
}
