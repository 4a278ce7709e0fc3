//! What happens to terminals. Nothing of what they show or are told.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::Level;
use super::text::Line;
use crate::id::TerminalId;

/// A fact about terminals.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
#[non_exhaustive]
pub enum TerminalFact {
    /// A daemon of terminals is ready.
    #[serde(rename = "terminals.started")]
    Started {
        /// Terminals that it knows of.
        terminals: u64,
    },
    /// It takes leave.
    #[serde(rename = "terminals.stopping")]
    Stopping {
        /// Terminals that run.
        terminals: u64,
        /// Whether they run on.
        keep: bool,
    },
    /// A client was refused.
    #[serde(rename = "terminals.refused")]
    Refused {
        /// What it calls itself: shortened.
        client: String,
        /// The code that it was told.
        code: String,
    },
    /// A program was started on a new terminal.
    #[serde(rename = "terminal.created")]
    Created {
        /// Which.
        terminal: TerminalId,
        /// Its process.
        pid: u32,
        /// Its key: shortened.
        key: Option<String>,
    },
    /// Its program ended.
    #[serde(rename = "terminal.exited")]
    Exited {
        /// Which.
        terminal: TerminalId,
        /// How; -1: nobody knows.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Why nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Somebody else owns it.
    #[serde(rename = "terminal.owner")]
    Owner {
        /// Which.
        terminal: TerminalId,
        /// Who: shortened; nobody.
        owner: Option<String>,
    },
    /// A client commanded a terminal that it doesn't own.
    #[serde(rename = "terminal.denied")]
    Denied {
        /// Which.
        terminal: TerminalId,
        /// Who: shortened.
        client: String,
    },
    /// A subscriber lost output, and was told what the screen shows.
    #[serde(rename = "terminal.resync")]
    Resync {
        /// Which.
        terminal: TerminalId,
        /// Who: shortened.
        client: String,
        /// How much it lost, in bytes.
        skipped: u64,
    },
    /// What became of a terminal when its daemon started.
    #[serde(rename = "terminal.recovered")]
    Recovered {
        /// Which.
        terminal: TerminalId,
        /// `adopted`, `restored`, or `unrecoverable:` and why.
        outcome: String,
    },
}

impl TerminalFact {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "terminals.started",
            Self::Stopping { .. } => "terminals.stopping",
            Self::Refused { .. } => "terminals.refused",
            Self::Created { .. } => "terminal.created",
            Self::Exited { .. } => "terminal.exited",
            Self::Owner { .. } => "terminal.owner",
            Self::Denied { .. } => "terminal.denied",
            Self::Resync { .. } => "terminal.resync",
            Self::Recovered { .. } => "terminal.recovered",
        }
    }

    pub(super) fn level(&self) -> Level {
        match self {
            Self::Refused { .. } | Self::Denied { .. } | Self::Resync { .. } => Level::Warn,
            Self::Exited { code: -1, .. } => Level::Warn,
            Self::Recovered { outcome, .. } if outcome.starts_with("unrecoverable") => Level::Warn,
            _ => Level::Info,
        }
    }

    pub(super) fn append_line(&self, line: &mut Line<'_>) {
        match self {
            Self::Started { terminals } => {
                line.text("terminals started known=").number(*terminals);
            }
            Self::Stopping { terminals, keep } => {
                line.text("terminals stopping running=").number(*terminals);
                line.text(" keep=").text(super::text::yes(*keep));
            }
            Self::Refused { client, code } => {
                line.text("terminals refused client=\"").escaped(client).text("\" code=").escaped(code);
            }
            Self::Created { terminal, pid, key } => {
                line.text("terminal created id=").number(terminal.0).text(" pid=").number(*pid);
                line.text(" key=").quoted_or_none(key.as_deref());
            }
            Self::Exited { terminal, code, signal, why } => {
                line.text("terminal exited id=").number(terminal.0).text(" code=").shown(code);
                line.text(" signal=");
                match signal {
                    Some(signal) => line.shown(signal),
                    None => line.text("-"),
                };
                if why.is_some() {
                    line.text(" why=").quoted_or_none(why.as_deref());
                }
            }
            Self::Owner { terminal, owner } => {
                line.text("terminal owner id=").number(terminal.0).text(" owner=");
                line.quoted_or_none(owner.as_deref());
            }
            Self::Denied { terminal, client } => {
                line.text("terminal denied id=")
                    .number(terminal.0)
                    .text(" client=\"")
                    .escaped(client)
                    .text("\"");
            }
            Self::Resync { terminal, client, skipped } => {
                line.text("terminal resync id=").number(terminal.0).text(" client=\"").escaped(client);
                line.text("\" skipped=").number(*skipped);
            }
            Self::Recovered { terminal, outcome } => {
                line.text("terminal recovered id=").number(terminal.0).text(" outcome=").escaped(outcome);
            }
        }
    }

    pub(super) fn append_fields(&self, json: &mut Line<'_>) {
        match self {
            Self::Started { terminals } => drop(json.field_number("terminals", *terminals)),
            Self::Stopping { terminals, keep } => {
                json.field_number("terminals", *terminals).field_flag("keep", *keep);
            }
            Self::Refused { client, code } => {
                json.field_foreign("client", client).field_foreign("code", code);
            }
            Self::Created { terminal, pid, key } => {
                json.field_number("terminal", terminal.0.into()).field_number("pid", (*pid).into());
                json.field_foreign_or_null("key", key.as_deref());
            }
            Self::Exited { terminal, code, signal, why } => {
                json.field_number("terminal", terminal.0.into()).field("code").shown(code).field("signal");
                match signal {
                    Some(signal) => json.shown(signal),
                    None => json.text("null"),
                };
                if let Some(why) = why {
                    json.field_foreign("why", why);
                }
            }
            Self::Owner { terminal, owner } => {
                json.field_number("terminal", terminal.0.into());
                json.field_foreign_or_null("owner", owner.as_deref());
            }
            Self::Denied { terminal, client } => {
                json.field_number("terminal", terminal.0.into()).field_foreign("client", client);
            }
            Self::Resync { terminal, client, skipped } => {
                json.field_number("terminal", terminal.0.into()).field_foreign("client", client);
                json.field_number("skipped", *skipped);
            }
            Self::Recovered { terminal, outcome } => {
                json.field_number("terminal", terminal.0.into()).field_foreign("outcome", outcome);
            }
        }
    }
}
