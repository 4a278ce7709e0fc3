//! What the daemon says: replies to requests, and events.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::pack::Packer;
use super::rows::{append_snapshot, parse_snapshot};
use super::unpack::{Fields, List, Value};
use super::{ErrorCode, Level, Malformed, PROTOCOL_VERSION, SessionInfo, frame};
use crate::terminals::{Exit, LIST_MAX, Snapshot};

/// What a client hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// The answer to the request of that number.
    Reply {
        /// Its number; an error without a request has 0.
        seq: u32,
        /// What.
        answer: Answer<'a>,
    },
    /// Something happened.
    Event(Event<'a>),
    /// A type that a later version knows.
    Unknown,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer<'a> {
    /// To a handshake.
    Handshake {
        /// [`PROTOCOL_VERSION`].
        protocol_version: u32,
        /// The daemon's version.
        daemon_version: &'a str,
        /// Its process.
        daemon_pid: u32,
        /// What it can do; nothing: a published daemon.
        capabilities: Vec<&'a str>,
    },
    /// It is done.
    Granted(Box<Granted<'a>>),
    /// It is not.
    Error {
        /// The code, as it came.
        code: &'a str,
        /// What happened, for people.
        message: &'a str,
    },
}

impl Answer<'_> {
    /// An error's code, if it is known here.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        if let Self::Error { code, .. } = self { ErrorCode::parse(code) } else { None }
    }
}

/// What an `ok` may say besides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Granted<'a> {
    /// Of which terminal.
    pub session: Option<u32>,
    /// To `list`.
    pub sessions: Option<Vec<SessionInfo<'a>>>,
    /// What it shows. Borrowed where it is written.
    pub snapshot: Option<Cow<'a, Snapshot>>,
    /// To `kill_all`.
    pub count: Option<u32>,
    /// To `attach`: where the output that follows begins.
    pub offset: Option<u64>,
    /// Who owns the terminal.
    pub owner: Option<&'a str>,
    /// Whether that is whoever asked.
    pub owner_is_you: Option<bool>,
    /// To `attach`: the output goes on where `resume_from` said.
    pub resumed: Option<bool>,
    /// To `create_or_attach`: whether the terminal is new.
    pub created: Option<bool>,
    /// To `metrics`: counters by name.
    pub metrics: Option<Vec<(Cow<'a, str>, u64)>>,
}

/// Something happened.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A terminal's output.
    Output {
        /// Which.
        session: u32,
        /// What.
        data: &'a [u8],
        /// Of its first byte; absent from a published daemon.
        offset: Option<u64>,
    },
    /// Its program ended. After all output.
    Exit {
        /// Which.
        session: u32,
        /// How; code -1: nobody knows.
        exit: Exit,
    },
    /// Output was left out: this is what the terminal shows.
    Resync {
        /// Which.
        session: u32,
        /// What it shows.
        snapshot: Cow<'a, Snapshot>,
        /// Where the output that follows begins.
        offset: u64,
        /// How much was left out.
        skipped_bytes: u64,
    },
    /// A subscriber falls behind, or catches up: the reader of this, or one of a
    /// terminal that it owns.
    BackpressureWarning {
        /// Which.
        session: u32,
        /// Bytes of output that the subscriber lacks.
        queue_size: u64,
        /// How bad that is.
        level: Level,
    },
    /// Somebody else owns it.
    OwnerChanged {
        /// Which.
        session: u32,
        /// Who; nobody.
        owner: Option<&'a str>,
    },
    /// It has another size.
    Resized {
        /// Which.
        session: u32,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
}

/// What a terminal shows may be anything.
impl core::fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Output { session, data, offset } => {
                write!(f, "Output({session}, {} bytes, {offset:?})", data.len())
            }
            Self::Exit { session, exit } => write!(f, "Exit({session}, {exit:?})"),
            Self::Resync { session, offset, skipped_bytes, .. } => {
                write!(f, "Resync({session}, {offset}, {skipped_bytes} skipped)")
            }
            Self::BackpressureWarning { session, queue_size, level } => {
                write!(f, "BackpressureWarning({session}, {queue_size}, {level})")
            }
            Self::OwnerChanged { session, owner } => write!(f, "OwnerChanged({session}, {owner:?})"),
            Self::Resized { session, cols, rows } => write!(f, "Resized({session}, {cols}x{rows})"),
        }
    }
}

/// Most bytes of an output frame besides its data.
pub const OUTPUT_OVERHEAD: usize = 64;

/// Appends the reply to a handshake; a published daemon's has no capabilities.
pub fn append_welcome(seq: u32, version: &str, pid: u32, capabilities: &[&str], out: &mut Vec<u8>) {
    frame::append(out, |out| {
        let mut out = Packer(out);
        out.map(5 + usize::from(!capabilities.is_empty())).field_text("type", "handshake").number("seq", seq);
        out.number("protocol_version", PROTOCOL_VERSION).field_text("daemon_version", version);
        out.number("daemon_pid", pid);
        if !capabilities.is_empty() {
            out.texts("capabilities", capabilities);
        }
    });
}

/// Appends an error.
pub fn append_error(seq: u32, code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    frame::append(out, |out| {
        let mut out = Packer(out);
        out.map(4).field_text("type", "error").number("seq", seq);
        out.field_text("code", code.as_str()).field_text("message", message);
    });
}

/// Appends an `ok`.
pub fn append_granted(seq: u32, granted: &Granted<'_>, out: &mut Vec<u8>) {
    frame::append(out, |out| granted.append_body(seq, &mut Packer(out)));
}

/// Appends an event.
pub fn append_event(event: &Event<'_>, out: &mut Vec<u8>) {
    frame::append(out, |out| event.append_body(&mut Packer(out)));
}

impl Granted<'_> {
    fn append_body(&self, seq: u32, out: &mut Packer<'_>) {
        let present = [
            self.session.is_some(),
            self.sessions.is_some(),
            self.snapshot.is_some(),
            self.count.is_some(),
            self.offset.is_some(),
            self.owner.is_some(),
            self.owner_is_you.is_some(),
            self.resumed.is_some(),
            self.created.is_some(),
            self.metrics.is_some(),
        ];
        out.map(2 + present.iter().filter(|present| **present).count());
        out.field_text("type", "ok").number("seq", seq).maybe_number("session", self.session);
        if let Some(sessions) = &self.sessions {
            out.text("sessions").array(sessions.len());
            sessions.iter().for_each(|session| session.append(out));
        }
        if let Some(snapshot) = &self.snapshot {
            append_snapshot(out.text("snapshot"), snapshot);
        }
        out.maybe_number("count", self.count).maybe_number("offset", self.offset);
        out.maybe_text("owner", self.owner).maybe_flag("owner_is_you", self.owner_is_you);
        out.maybe_flag("resumed", self.resumed).maybe_flag("created", self.created);
        if let Some(metrics) = &self.metrics {
            out.text("metrics").map(metrics.len());
            for (name, value) in metrics {
                out.number(name, *value);
            }
        }
    }
}

impl Event<'_> {
    fn append_body(&self, out: &mut Packer<'_>) {
        match self {
            Self::Output { session, data, offset } => {
                out.map(3 + usize::from(offset.is_some())).field_text("type", "output");
                out.number("session", *session).binary("data", data).maybe_number("offset", *offset);
            }
            Self::Exit { session, exit } => {
                out.map(3 + usize::from(exit.signal.is_some())).field_text("type", "exit");
                out.number("session", *session).integer("code", exit.code);
                out.maybe_integer("signal", exit.signal);
            }
            Self::Resync { session, snapshot, offset, skipped_bytes } => {
                out.map(5).field_text("type", "resync").number("session", *session);
                append_snapshot(out.text("snapshot"), snapshot);
                out.number("offset", *offset).number("skipped_bytes", *skipped_bytes);
            }
            Self::BackpressureWarning { session, queue_size, level } => {
                out.map(4).field_text("type", "backpressure_warning").number("session", *session);
                out.number("queue_size", *queue_size).field_text("level", level.as_str());
            }
            Self::OwnerChanged { session, owner } => {
                out.map(2 + usize::from(owner.is_some())).field_text("type", "owner_changed");
                out.number("session", *session).maybe_text("owner", *owner);
            }
            Self::Resized { session, cols, rows } => {
                out.map(4).field_text("type", "resized").number("session", *session);
                out.number("cols", *cols).number("rows", *rows);
            }
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a frame's body.
    ///
    /// # Errors
    /// It can't be read.
    pub fn parse(frame: &'a [u8]) -> Result<Self, Malformed> {
        let fields = Fields::parse(frame)?;
        let session = || fields.required::<u32>("session");
        let event = match fields.required::<&str>("type")? {
            "handshake" => return Self::parse_handshake(&fields),
            "ok" => {
                let answer = Answer::Granted(Box::new(Granted::parse(&fields)?));
                return Ok(Self::Reply { seq: fields.required("seq")?, answer });
            }
            "error" => {
                let (code, message) = (fields.required("code")?, fields.required("message")?);
                let seq = fields.optional("seq")?.unwrap_or(0);
                return Ok(Self::Reply { seq, answer: Answer::Error { code, message } });
            }
            "output" => Event::Output {
                session: session()?,
                data: fields.required("data")?,
                offset: fields.optional("offset")?,
            },
            "exit" => Event::Exit {
                session: session()?,
                exit: Exit { code: fields.required("code")?, signal: fields.optional("signal")? },
            },
            "resync" => Event::Resync {
                session: session()?,
                snapshot: Cow::Owned(parse_snapshot(&fields.required("snapshot")?)?),
                offset: fields.required("offset")?,
                skipped_bytes: fields.required("skipped_bytes")?,
            },
            "backpressure_warning" => Event::BackpressureWarning {
                session: session()?,
                queue_size: fields.required("queue_size")?,
                level: Level::parse(fields.required("level")?).ok_or(Malformed("level"))?,
            },
            "owner_changed" => Event::OwnerChanged { session: session()?, owner: fields.optional("owner")? },
            "resized" => Event::Resized {
                session: session()?,
                cols: fields.required("cols")?,
                rows: fields.required("rows")?,
            },
            _ => return Ok(Self::Unknown),
        };
        Ok(Self::Event(event))
    }

    fn parse_handshake(fields: &Fields<'a>) -> Result<Self, Malformed> {
        let mut capabilities = Vec::new();
        for item in fields.optional::<List<'a>>("capabilities")?.iter().flat_map(List::items).take(LIST_MAX) {
            let Value::Text(word) = item else { return Err(Malformed("capabilities")) };
            capabilities.push(word);
        }
        let answer = Answer::Handshake {
            protocol_version: fields.required("protocol_version")?,
            daemon_version: fields.required("daemon_version")?,
            daemon_pid: fields.required("daemon_pid")?,
            capabilities,
        };
        // Early daemons leave it out.
        Ok(Self::Reply { seq: fields.optional("seq")?.unwrap_or(0), answer })
    }
}

impl<'a> Granted<'a> {
    fn parse(fields: &Fields<'a>) -> Result<Self, Malformed> {
        let sessions = match fields.optional::<List<'a>>("sessions")? {
            None => None,
            Some(list) => Some(
                list.items()
                    .map(|item| match item {
                        Value::Map(map) => SessionInfo::parse(&Fields::within(map)),
                        _ => Err(Malformed("sessions")),
                    })
                    .collect::<Result<Vec<_>, _>>()?,
            ),
        };
        let snapshot = fields.optional::<Fields<'a>>("snapshot")?;
        let metrics = match fields.get("metrics") {
            Value::Map(list) => Some(
                list.pairs()
                    .filter_map(|pair| match pair {
                        (Value::Text(name), Value::Unsigned(value)) => Some((Cow::Borrowed(name), value)),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        };
        Ok(Self {
            session: fields.optional("session")?,
            sessions,
            snapshot: snapshot.map(|map| parse_snapshot(&map).map(Cow::Owned)).transpose()?,
            count: fields.optional("count")?,
            offset: fields.optional("offset")?,
            owner: fields.optional("owner")?,
            owner_is_you: fields.optional("owner_is_you")?,
            resumed: fields.optional("resumed")?,
            created: fields.optional("created")?,
            metrics,
        })
    }
}
