//! What clients ask.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::frame;
use super::pack::Packer;
use super::unpack::{Field, Fields, List, Value};
use super::{ChannelMode, Malformed, PROTOCOL_VERSION, Role, Scope};
use crate::terminals::{LIST_MAX, SignalScope, TEXT_MAX};

/// What a client asks, borrowed from its frame.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Request<'a> {
    /// Who the client is. Before anything else.
    Handshake(Handshake<'a>),
    /// `create`, and `create_or_attach` when there is a key.
    Create(Box<Create<'a>>),
    /// Every terminal.
    List,
    /// Output of a terminal, from now on.
    Attach(Attach),
    /// No more of it. Gives ownership back.
    Detach {
        /// Which.
        session: u32,
    },
    /// Bytes for the program.
    Input {
        /// Which.
        session: u32,
        /// What.
        data: Secret<'a>,
    },
    /// Answered once everything that was given before is in the terminal: the daemon
    /// may die then.
    Flush {
        /// Which.
        session: u32,
    },
    /// A new size.
    Resize {
        /// Which.
        session: u32,
        /// Columns, at least 1.
        cols: u16,
        /// Rows, at least 1.
        rows: u16,
    },
    /// A signal by name.
    Signal {
        /// Which.
        session: u32,
        /// Its name, with or without `SIG`, in any case.
        signal: &'a str,
        /// To whom; absent: the program that was started.
        scope: Option<SignalScope>,
    },
    /// Forget history.
    ClearScrollback {
        /// Which.
        session: u32,
    },
    /// End the program.
    Kill {
        /// Which.
        session: u32,
    },
    /// End programs.
    KillAll {
        /// Whose.
        scope: Option<Scope>,
    },
    /// Own it, whoever does now.
    Takeover {
        /// Which.
        session: u32,
    },
    /// What it shows, without attaching.
    Snapshot {
        /// Which.
        session: u32,
        /// Most lines of history.
        history_lines: Option<u32>,
    },
    /// Counters.
    Metrics,
}

/// Bytes that nobody may print.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a [u8]);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A client's handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake<'a> {
    /// The daemon's token; may be empty where the kernel vouches for the client.
    pub token: Secret<'a>,
    /// [`PROTOCOL_VERSION`].
    pub protocol_version: u32,
    /// What the client calls itself.
    pub client_id: &'a str,
    /// What it may do.
    pub role: Role,
    /// Absent: [`ChannelMode::Single`].
    pub channel_mode: Option<ChannelMode>,
    /// `ownership-v2`: `kill_all` without a scope means owned ones.
    pub capabilities: Vec<&'a str>,
}

impl<'a> Handshake<'a> {
    /// Of this version, with nothing special.
    #[must_use]
    pub const fn new(token: &'a str, client_id: &'a str, role: Role) -> Self {
        Self {
            token: Secret(token.as_bytes()),
            protocol_version: PROTOCOL_VERSION,
            client_id,
            role,
            channel_mode: None,
            capabilities: Vec::new(),
        }
    }
}

/// What is to be started.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Create<'a> {
    /// With a key: the running terminal of that key, if there is one.
    pub session_key: Option<&'a str>,
    /// With a key: it must be free.
    pub exclusive: bool,
    /// Where; absent: the home directory.
    pub cwd: Option<&'a str>,
    /// Columns (80).
    pub cols: Option<u16>,
    /// Rows (24).
    pub rows: Option<u16>,
    /// Environment besides the daemon's.
    pub env: Vec<(&'a str, &'a str)>,
    /// A shell; absent: the default one.
    pub shell: Option<&'a str>,
    /// Lines for the shell.
    pub initial_commands: Vec<&'a str>,
    /// A program and its arguments instead of a shell.
    pub command: Vec<&'a str>,
}

/// Environment and commands may hold secrets.
impl fmt::Debug for Create<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Create")
            .field("session_key", &self.session_key)
            .field("cwd", &self.cwd)
            .field("cols", &self.cols)
            .field("rows", &self.rows)
            .field("env", &self.env.len())
            .field("shell", &self.shell)
            .field("command", &self.command.len())
            .finish_non_exhaustive()
    }
}

/// How to attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attach {
    /// Which.
    pub session: u32,
    /// Output is wanted from this offset on: no snapshot, if it is still there.
    pub resume_from: Option<u64>,
    /// Most lines of history in the snapshot.
    pub history_lines: Option<u32>,
    /// Don't claim a terminal that nobody owns.
    pub observe: bool,
}

/// Why a frame is no request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// The request's number, or 0 when there is none to be read.
    pub seq: u32,
    /// What is wrong with it.
    pub why: Rejection,
}

/// See [`Rejected`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// It can't be read.
    #[error("{0}")]
    Malformed(Malformed),
    /// It is whole, and of a type that is not known here.
    #[error("there is no request of this type")]
    UnknownType,
    /// A handshake of before `client_id` and `role`.
    #[error("a handshake has had client_id and role since wire version 1 was cut: update the client")]
    TooOld,
}

impl<'a> Request<'a> {
    /// Reads a frame's body: the request and its number.
    ///
    /// # Errors
    /// It can't be read, or its type is not known.
    pub fn parse(frame: &'a [u8]) -> Result<(u32, Self), Rejected> {
        let fields =
            Fields::parse(frame).map_err(|why| Rejected { seq: 0, why: Rejection::Malformed(why) })?;
        let seq = fields.required::<u32>("seq");
        let rejected = |why| Rejected { seq: seq.unwrap_or(0), why };
        let request = Self::read(&fields).map_err(rejected)?;
        seq.map(|seq| (seq, request)).map_err(|why| rejected(Rejection::Malformed(why)))
    }

    fn read(fields: &Fields<'a>) -> Result<Self, Rejection> {
        let malformed = Rejection::Malformed;
        let session = || fields.required::<u32>("session").map_err(malformed);
        Ok(match fields.required::<&str>("type").map_err(malformed)? {
            "handshake" => Self::Handshake(Handshake::read(fields)?),
            "create" => Self::Create(Box::new(Create::read(fields, None).map_err(malformed)?)),
            "create_or_attach" => {
                let key = fields.required("session_key").map_err(malformed)?;
                Self::Create(Box::new(Create::read(fields, Some(key)).map_err(malformed)?))
            }
            "list" => Self::List,
            "attach" => Self::Attach(Attach::read(fields).map_err(malformed)?),
            "detach" => Self::Detach { session: session()? },
            "input" => {
                let data = fields.required("data").map_err(malformed)?;
                Self::Input { session: session()?, data: Secret(data) }
            }
            "flush" => Self::Flush { session: session()? },
            "resize" => {
                let (cols, rows) = (fields.required("cols"), fields.required("rows"));
                Self::Resize {
                    session: session()?,
                    cols: cols.map_err(malformed)?,
                    rows: rows.map_err(malformed)?,
                }
            }
            "signal" => {
                let signal = fields.required("signal").map_err(malformed)?;
                let scope = fields.optional("scope").map_err(malformed)?;
                Self::Signal { session: session()?, signal, scope }
            }
            "clear_scrollback" => Self::ClearScrollback { session: session()? },
            "kill" => Self::Kill { session: session()? },
            "kill_all" => Self::KillAll { scope: fields.optional("scope").map_err(malformed)? },
            "takeover" => Self::Takeover { session: session()? },
            "snapshot" => {
                let history_lines = fields.optional("history_lines").map_err(malformed)?;
                Self::Snapshot { session: session()?, history_lines }
            }
            "metrics" => Self::Metrics,
            _ => return Err(Rejection::UnknownType),
        })
    }

    /// Appends the frame.
    pub fn append(&self, seq: u32, out: &mut Vec<u8>) {
        frame::append(out, |out| self.append_body(seq, &mut Packer(out)));
    }

    fn append_body(&self, seq: u32, out: &mut Packer<'_>) {
        let mut head = |kind, more| {
            out.map(2 + more).field_text("type", kind);
        };
        match self {
            Self::Handshake(handshake) => handshake.append(out),
            Self::Create(create) => create.append(out),
            Self::List => head("list", 0),
            Self::Metrics => head("metrics", 0),
            Self::Attach(attach) => attach.append(out),
            Self::Input { session, data } => {
                head("input", 2);
                out.number("session", *session).binary("data", data.0);
            }
            Self::Flush { session } => {
                head("flush", 1);
                out.number("session", *session);
            }
            Self::Resize { session, cols, rows } => {
                head("resize", 3);
                out.number("session", *session).number("cols", *cols).number("rows", *rows);
            }
            Self::Signal { session, signal, scope } => {
                head("signal", 2 + usize::from(scope.is_some()));
                out.number("session", *session).field_text("signal", signal);
                out.maybe_text("scope", scope.map(scope_word));
            }
            Self::KillAll { scope } => {
                head("kill_all", usize::from(scope.is_some()));
                out.maybe_text("scope", scope.map(Scope::as_str));
            }
            Self::Snapshot { session, history_lines } => {
                head("snapshot", 1 + usize::from(history_lines.is_some()));
                out.number("session", *session).maybe_number("history_lines", *history_lines);
            }
            Self::Detach { session }
            | Self::ClearScrollback { session }
            | Self::Kill { session }
            | Self::Takeover { session } => {
                head(
                    match self {
                        Self::Detach { .. } => "detach",
                        Self::ClearScrollback { .. } => "clear_scrollback",
                        Self::Kill { .. } => "kill",
                        _ => "takeover",
                    },
                    1,
                );
                out.number("session", *session);
            }
        }
        out.number("seq", seq);
    }
}

impl<'a> Handshake<'a> {
    fn read(fields: &Fields<'a>) -> Result<Self, Rejection> {
        let malformed = Rejection::Malformed;
        if matches!((fields.get("client_id"), fields.get("role")), (Value::Nil, _) | (_, Value::Nil)) {
            return Err(Rejection::TooOld);
        }
        let token: Option<&str> = fields.optional("token").map_err(malformed)?;
        Ok(Self {
            token: Secret(token.unwrap_or_default().as_bytes()),
            protocol_version: fields.required("protocol_version").map_err(malformed)?,
            client_id: fields.required("client_id").map_err(malformed)?,
            role: fields.required("role").map_err(malformed)?,
            channel_mode: fields.optional("channel_mode").map_err(malformed)?,
            capabilities: texts(fields, "capabilities").map_err(malformed)?,
        })
    }

    fn append(&self, out: &mut Packer<'_>) {
        let more = usize::from(self.channel_mode.is_some()) + usize::from(!self.capabilities.is_empty());
        out.map(6 + more).field_text("type", "handshake");
        // A token is text; one that is not can't be right.
        out.field_text("token", core::str::from_utf8(self.token.0).unwrap_or_default());
        out.number("protocol_version", self.protocol_version).field_text("client_id", self.client_id);
        out.field_text("role", self.role.as_str());
        out.maybe_text("channel_mode", self.channel_mode.map(ChannelMode::as_str));
        if !self.capabilities.is_empty() {
            out.texts("capabilities", &self.capabilities);
        }
    }
}

impl<'a> Create<'a> {
    fn read(fields: &Fields<'a>, session_key: Option<&'a str>) -> Result<Self, Malformed> {
        Ok(Self {
            session_key,
            exclusive: fields.optional("exclusive")?.unwrap_or(false),
            cwd: bounded(fields, "cwd")?,
            cols: fields.optional("cols")?,
            rows: fields.optional("rows")?,
            env: pairs(fields, "env")?,
            shell: bounded(fields, "shell")?,
            initial_commands: texts(fields, "initial_commands")?,
            command: texts(fields, "command")?,
        })
    }

    fn append(&self, out: &mut Packer<'_>) {
        let present = [
            self.session_key.is_some(),
            self.exclusive,
            self.cwd.is_some(),
            self.cols.is_some(),
            self.rows.is_some(),
            !self.env.is_empty(),
            self.shell.is_some(),
            !self.initial_commands.is_empty(),
            !self.command.is_empty(),
        ];
        let kind = if self.session_key.is_some() { "create_or_attach" } else { "create" };
        out.map(2 + present.iter().filter(|present| **present).count()).field_text("type", kind);
        out.maybe_text("session_key", self.session_key)
            .maybe_flag("exclusive", self.exclusive.then_some(true));
        out.maybe_text("cwd", self.cwd);
        out.maybe_number("cols", self.cols).maybe_number("rows", self.rows);
        if !self.env.is_empty() {
            out.text("env").map(self.env.len());
            for (name, value) in &self.env {
                out.field_text(name, value);
            }
        }
        out.maybe_text("shell", self.shell);
        if !self.initial_commands.is_empty() {
            out.texts("initial_commands", &self.initial_commands);
        }
        if !self.command.is_empty() {
            out.texts("command", &self.command);
        }
    }
}

impl Attach {
    fn read(fields: &Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            session: fields.required("session")?,
            resume_from: fields.optional("resume_from")?,
            history_lines: fields.optional("history_lines")?,
            observe: fields.optional("observe")?.unwrap_or(false),
        })
    }

    fn append(&self, out: &mut Packer<'_>) {
        let more = usize::from(self.resume_from.is_some())
            + usize::from(self.history_lines.is_some())
            + usize::from(self.observe);
        out.map(3 + more).field_text("type", "attach").number("session", self.session);
        out.maybe_number("resume_from", self.resume_from).maybe_number("history_lines", self.history_lines);
        out.maybe_flag("observe", self.observe.then_some(true));
    }
}

macro_rules! fields_of_words {
    ($($kind:ty),*) => {$(
        impl Field<'_> for $kind {
            fn from_value(value: Value<'_>) -> Option<Self> {
                if let Value::Text(word) = value { Self::parse(word) } else { None }
            }
        }
    )*};
}

fields_of_words!(Role, ChannelMode, Scope);

impl Field<'_> for SignalScope {
    fn from_value(value: Value<'_>) -> Option<Self> {
        match value {
            Value::Text("shell") => Some(Self::Shell),
            Value::Text("foreground") => Some(Self::Foreground),
            Value::Text("session") => Some(Self::Session),
            _ => None,
        }
    }
}

const fn scope_word(scope: SignalScope) -> &'static str {
    match scope {
        SignalScope::Shell => "shell",
        SignalScope::Foreground => "foreground",
        SignalScope::Session => "session",
    }
}

fn short(value: Value<'_>) -> Option<&str> {
    <&str>::from_value(value).filter(|text| text.len() <= TEXT_MAX)
}

fn bounded<'a>(fields: &Fields<'a>, name: &'static str) -> Result<Option<&'a str>, Malformed> {
    match fields.get(name) {
        Value::Nil => Ok(None),
        value => short(value).map(Some).ok_or(Malformed(name)),
    }
}

fn texts<'a>(fields: &Fields<'a>, name: &'static str) -> Result<Vec<&'a str>, Malformed> {
    let Some(list) = fields.optional::<List<'a>>(name)? else { return Ok(Vec::new()) };
    if list.count > LIST_MAX {
        return Err(Malformed(name));
    }
    list.items().map(|item| short(item).ok_or(Malformed(name))).collect()
}

fn pairs<'a>(fields: &Fields<'a>, name: &'static str) -> Result<Vec<(&'a str, &'a str)>, Malformed> {
    let list = match fields.get(name) {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(list) if list.count <= LIST_MAX => list,
        _ => return Err(Malformed(name)),
    };
    let pair = |(name, value)| Some((short(name)?, short(value)?));
    list.pairs().map(|both| pair(both).ok_or(Malformed(name))).collect()
}
