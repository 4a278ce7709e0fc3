//! Terminals and screens as they are written on the wire.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::pack::Packer;
use super::unpack::{Fields, List, Value};
use super::{Malformed, State};
use crate::terminals::{Modes, Snapshot};

/// One terminal of a `list`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo<'a> {
    /// Its number.
    pub id: u32,
    /// Its key.
    pub session_key: Option<Cow<'a, str>>,
    /// Its process; 0: none yet.
    pub pid: u32,
    /// Its device.
    pub pts: Cow<'a, str>,
    /// Whether its program runs.
    pub is_alive: bool,
    /// Seconds since 1970 (a text on the wire).
    pub created_at: i64,
    /// Seconds since 1970 (a text on the wire).
    pub last_attached_at: i64,
    /// How it is; absent from a published daemon, as is everything below.
    pub state: Option<State>,
    /// How its program ended.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub exit_signal: Option<i32>,
    /// Columns.
    pub cols: Option<u16>,
    /// Rows.
    pub rows: Option<u16>,
    /// Where its program is.
    pub cwd: Option<Cow<'a, str>>,
    /// The program and its arguments, if it was started with some.
    pub command: Vec<Cow<'a, str>>,
    /// Who owns it.
    pub owner: Option<Cow<'a, str>>,
    /// Whether that is whoever asks.
    pub owner_is_you: Option<bool>,
    /// How many watch it.
    pub subscribers: Option<u32>,
    /// `adopted`, `restored`, or `unrecoverable:` and why.
    pub recovery: Option<Cow<'a, str>>,
}

impl SessionInfo<'_> {
    pub(super) fn append(&self, out: &mut Packer<'_>) {
        let optional = [
            self.session_key.is_some(),
            self.state.is_some(),
            self.exit_code.is_some(),
            self.exit_signal.is_some(),
            self.cols.is_some(),
            self.rows.is_some(),
            self.cwd.is_some(),
            !self.command.is_empty(),
            self.owner.is_some(),
            self.owner_is_you.is_some(),
            self.subscribers.is_some(),
            self.recovery.is_some(),
        ];
        out.map(6 + optional.iter().filter(|present| **present).count());
        out.number("id", self.id).maybe_text("session_key", self.session_key.as_deref());
        out.number("pid", self.pid).field_text("pts", &self.pts).flag("is_alive", self.is_alive);
        out.field_text("created_at", &self.created_at.to_string());
        out.field_text("last_attached_at", &self.last_attached_at.to_string());
        out.maybe_text("state", self.state.map(State::as_str));
        out.maybe_integer("exit_code", self.exit_code).maybe_integer("exit_signal", self.exit_signal);
        out.maybe_number("cols", self.cols).maybe_number("rows", self.rows);
        out.maybe_text("cwd", self.cwd.as_deref());
        if !self.command.is_empty() {
            out.texts("command", &self.command);
        }
        out.maybe_text("owner", self.owner.as_deref()).maybe_flag("owner_is_you", self.owner_is_you);
        out.maybe_number("subscribers", self.subscribers);
        out.maybe_text("recovery", self.recovery.as_deref());
    }
}

impl<'a> SessionInfo<'a> {
    pub(super) fn parse(fields: &Fields<'a>) -> Result<Self, Malformed> {
        let text = |name| Ok::<_, Malformed>(fields.optional::<&str>(name)?.map(Cow::Borrowed));
        let seconds = |name: &'static str| -> Result<i64, Malformed> {
            fields.required::<&str>(name)?.parse().map_err(|_| Malformed(name))
        };
        let mut command = Vec::new();
        for item in fields.optional::<List<'_>>("command")?.iter().flat_map(List::items) {
            let Value::Text(word) = item else { return Err(Malformed("command")) };
            command.push(Cow::Borrowed(word));
        }
        Ok(Self {
            id: fields.required("id")?,
            session_key: text("session_key")?,
            pid: fields.required("pid")?,
            pts: Cow::Borrowed(fields.required("pts")?),
            is_alive: fields.required("is_alive")?,
            created_at: seconds("created_at")?,
            last_attached_at: seconds("last_attached_at")?,
            state: fields.optional::<&str>("state")?.and_then(State::parse),
            exit_code: fields.optional("exit_code")?,
            exit_signal: fields.optional("exit_signal")?,
            cols: fields.optional("cols")?,
            rows: fields.optional("rows")?,
            cwd: text("cwd")?,
            command,
            owner: text("owner")?,
            owner_is_you: fields.optional("owner_is_you")?,
            subscribers: fields.optional("subscribers")?,
            recovery: text("recovery")?,
        })
    }
}

pub(super) fn append_snapshot(out: &mut Packer<'_>, snapshot: &Snapshot) {
    let Snapshot { content, rehydrate, cols, rows, cursor_x, cursor_y, modes, cwd, title, offset } = snapshot;
    out.map(8 + usize::from(cwd.is_some()) + usize::from(title.is_some()));
    out.field_text("content", content).field_text("rehydrate", rehydrate);
    out.number("cols", *cols).number("rows", *rows);
    out.number("cursor_x", *cursor_x).number("cursor_y", *cursor_y);
    out.text("modes").map(8);
    out.flag("application_cursor", modes.application_cursor);
    out.flag("bracketed_paste", modes.bracketed_paste);
    out.flag("mouse_tracking", modes.mouse_tracking);
    out.flag("mouse_sgr", modes.mouse_sgr);
    out.flag("focus_reporting", modes.focus_reporting);
    out.flag("alternate_screen", modes.alternate_screen);
    out.flag("cursor_visible", modes.cursor_visible);
    out.flag("auto_wrap", modes.auto_wrap);
    out.maybe_text("cwd", cwd.as_deref()).maybe_text("title", title.as_deref());
    out.number("offset", *offset);
}

pub(super) fn parse_snapshot(fields: &Fields<'_>) -> Result<Snapshot, Malformed> {
    let modes: Fields<'_> = fields.required("modes")?;
    let owned = |name| Ok::<_, Malformed>(fields.optional::<&str>(name)?.map(String::from));
    Ok(Snapshot {
        content: fields.required::<&str>("content")?.into(),
        rehydrate: fields.required::<&str>("rehydrate")?.into(),
        cols: fields.required("cols")?,
        rows: fields.required("rows")?,
        cursor_x: fields.required("cursor_x")?,
        cursor_y: fields.required("cursor_y")?,
        modes: Modes {
            application_cursor: modes.required("application_cursor")?,
            bracketed_paste: modes.required("bracketed_paste")?,
            mouse_tracking: modes.required("mouse_tracking")?,
            mouse_sgr: modes.required("mouse_sgr")?,
            focus_reporting: modes.required("focus_reporting")?,
            alternate_screen: modes.required("alternate_screen")?,
            cursor_visible: modes.required("cursor_visible")?,
            auto_wrap: modes.required("auto_wrap")?,
        },
        cwd: owned("cwd")?,
        title: owned("title")?,
        offset: fields.optional("offset")?.unwrap_or(0),
    })
}
