//! What happens around managed attach. No code, token or bearer, and nothing of what
//! an action types.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::Level;
use super::text::{Line, yes};
use crate::attach::wire::AttachErrorCode;
use crate::attach::{ActionCode, ActionStatus, AttachId, ManagerUrl, Route};
use crate::id::GuestName;

/// A fact about managed attach.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
#[non_exhaustive]
pub enum AttachFact {
    /// Agent: a manager's handshake came.
    #[serde(rename = "controller.handshake.received")]
    Received {
        /// Which, if it says so.
        handshake: Option<AttachId>,
        /// The attachment's session, if it says so.
        session: Option<AttachId>,
    },
    /// Agent: a handshake, or what the environment says, is of no use.
    #[serde(rename = "controller.handshake.refused")]
    Refused {
        /// Which, if it says so.
        handshake: Option<AttachId>,
        /// Why.
        reason: AttachErrorCode,
    },
    /// Agent: an attempt begins.
    #[serde(rename = "controller.handshake.attach.start")]
    Start {
        /// The attachment's session.
        session: AttachId,
        /// Whom it asks.
        manager: ManagerUrl,
        /// Which attempt of the series, from 1.
        attempt: u32,
        /// What says so.
        source: Source,
    },
    /// Agent: it is attached.
    #[serde(rename = "controller.handshake.attach.success")]
    Success {
        /// The attachment's session.
        session: AttachId,
        /// The attempt that did it.
        attempt: u32,
        /// What said so.
        source: Source,
    },
    /// Agent: an attempt failed.
    #[serde(rename = "controller.handshake.attach.failure")]
    Failure {
        /// The attachment's session.
        session: AttachId,
        /// Which.
        attempt: u32,
        /// What said so.
        source: Source,
        /// Why: a word, shortened.
        code: String,
        /// The same for people: shortened.
        message: String,
        /// When the next begins; null: none does.
        retry_ms: Option<u64>,
    },
    /// Agent: actions come over the link from now on, or no more.
    #[serde(rename = "controller.actions.fast_path")]
    FastPath {
        /// The attachment's session.
        session: AttachId,
        /// Whether they do.
        active: bool,
    },
    /// Agent: an action that came over the link is done with.
    #[serde(rename = "controller.actions.fast_path.apply")]
    FastPathApply {
        /// Which.
        id: AttachId,
        /// What became of it.
        status: ActionStatus,
        /// Why, if it was not applied.
        code: Option<ActionCode>,
    },
    /// Agent: an action that was polled is done with.
    #[serde(rename = "controller.actions.poll.apply")]
    PollApply {
        /// Which.
        id: AttachId,
        /// What became of it.
        status: ActionStatus,
        /// Why, if it was not applied.
        code: Option<ActionCode>,
    },
    /// Agent: it is attached no more.
    #[serde(rename = "controller.detached")]
    Detached {
        /// From which session.
        session: AttachId,
        /// Why: a word, shortened.
        code: String,
    },
    /// Broker: a handshake was sent.
    #[serde(rename = "manager.handshake.sent")]
    Sent {
        /// Which.
        handshake: AttachId,
        /// The attachment's session.
        session: AttachId,
        /// Whether token and transport stay.
        refresh: bool,
        /// Where the guest is told to attach.
        manager: ManagerUrl,
    },
    /// Broker: the guest used the code.
    #[serde(rename = "manager.handshake.accepted")]
    Accepted {
        /// Which handshake's.
        handshake: AttachId,
        /// The attachment's session.
        session: AttachId,
        /// How.
        route: Route,
    },
    /// Broker: nobody used the code in time.
    #[serde(rename = "manager.handshake.expired")]
    Expired {
        /// Which handshake's.
        handshake: AttachId,
        /// The attachment's session.
        session: AttachId,
    },
    /// Broker: the guest refused a handshake, or gave up.
    #[serde(rename = "manager.attach.refused")]
    GivenUp {
        /// The attachment's session.
        session: AttachId,
        /// What the agent says: shortened.
        code: String,
    },
    /// Broker: somebody may not, or asked for something that is not.
    #[serde(rename = "manager.request.refused")]
    RequestRefused {
        /// What it was told.
        status: u16,
        /// Why: a word.
        code: String,
    },
    /// Broker: a guest was released.
    #[serde(rename = "manager.released")]
    Released {
        /// Whose session it was.
        session: AttachId,
        /// Actions that waited.
        dropped: u64,
    },
    /// Broker: an action waits, durably.
    #[serde(rename = "manager.action.queued")]
    Queued {
        /// Which.
        id: AttachId,
    },
    /// Broker: an action is done with.
    #[serde(rename = "manager.action.settled")]
    Settled {
        /// Which.
        id: AttachId,
        /// What became of it.
        status: ActionStatus,
        /// Why, if it was not applied: shortened.
        code: Option<String>,
    },
}

/// What makes an agent attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A manager's handshake.
    Handshake,
    /// Its configuration.
    Environment,
}

impl Source {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Environment => "environment",
        }
    }
}

impl AttachFact {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Received { .. } => "controller.handshake.received",
            Self::Refused { .. } => "controller.handshake.refused",
            Self::Start { .. } => "controller.handshake.attach.start",
            Self::Success { .. } => "controller.handshake.attach.success",
            Self::Failure { .. } => "controller.handshake.attach.failure",
            Self::FastPath { .. } => "controller.actions.fast_path",
            Self::FastPathApply { .. } => "controller.actions.fast_path.apply",
            Self::PollApply { .. } => "controller.actions.poll.apply",
            Self::Detached { .. } => "controller.detached",
            Self::Sent { .. } => "manager.handshake.sent",
            Self::Accepted { .. } => "manager.handshake.accepted",
            Self::Expired { .. } => "manager.handshake.expired",
            Self::GivenUp { .. } => "manager.attach.refused",
            Self::RequestRefused { .. } => "manager.request.refused",
            Self::Released { .. } => "manager.released",
            Self::Queued { .. } => "manager.action.queued",
            Self::Settled { .. } => "manager.action.settled",
        }
    }

    pub(super) const fn level(&self) -> Level {
        match self {
            Self::Refused { .. }
            | Self::Failure { .. }
            | Self::Detached { .. }
            | Self::Expired { .. }
            | Self::GivenUp { .. }
            | Self::RequestRefused { .. } => Level::Warn,
            Self::FastPathApply { status, .. }
            | Self::PollApply { status, .. }
            | Self::Settled { status, .. } => match status {
                ActionStatus::Ok => Level::Info,
                _ => Level::Warn,
            },
            _ => Level::Info,
        }
    }

    pub(super) fn append_line(&self, line: &mut Line<'_>, guest: Option<&GuestName>) {
        match self {
            Self::Received { handshake, session } => {
                line.text("manager handshake received")
                    .vm(guest)
                    .id_or_none(" handshake=", handshake.as_ref());
                line.id_or_none(" session=", session.as_ref());
            }
            Self::Refused { handshake, reason } => {
                line.text("manager handshake refused")
                    .vm(guest)
                    .id_or_none(" handshake=", handshake.as_ref());
                line.text(" reason=").text(reason.as_str());
            }
            Self::Start { session, manager, attempt, source } => {
                line.text("auto-attach via ")
                    .text(source.as_str())
                    .vm(guest)
                    .text(" session=")
                    .text(session.as_str());
                line.text(" manager=").shown(manager).text(" attempt=").number(*attempt);
            }
            Self::Success { session, attempt, source } => {
                line.text("auto-attached via ").text(source.as_str()).vm(guest).text(" session=");
                line.text(session.as_str()).text(" attempt=").number(*attempt);
            }
            Self::Failure { session, attempt, source, code, message, retry_ms } => {
                line.text(source.as_str())
                    .text(" auto-attach failed")
                    .vm(guest)
                    .text(" session=")
                    .text(session.as_str());
                line.text(" attempt=").number(*attempt).text(" code=").escaped(code);
                line.text(" error=\"").escaped(message).text("\" retry_ms=").number_or_none(*retry_ms);
            }
            Self::FastPath { session, active } => {
                line.text("actions fast path").vm(guest).text(" active=").text(yes(*active));
                line.text(" session=").text(session.as_str());
            }
            Self::FastPathApply { id, status, code } => {
                line.text("action applied").vm(guest).text(" path=link").outcome(
                    id,
                    *status,
                    code.map(ActionCode::as_str),
                );
            }
            Self::PollApply { id, status, code } => {
                line.text("action applied").vm(guest).text(" path=poll").outcome(
                    id,
                    *status,
                    code.map(ActionCode::as_str),
                );
            }
            Self::Detached { session, code } => {
                line.text("detached")
                    .vm(guest)
                    .text(" session=")
                    .text(session.as_str())
                    .text(" reason=")
                    .escaped(code);
            }
            Self::Sent { handshake, session, refresh, manager } => {
                line.text("manager handshake sent").vm(guest).text(" handshake=").text(handshake.as_str());
                line.text(" session=").text(session.as_str()).text(" kind=");
                line.text(if *refresh { "refresh" } else { "renegotiate" }).text(" manager=").shown(manager);
            }
            Self::Accepted { handshake, session, route } => {
                line.text("manager handshake accepted")
                    .vm(guest)
                    .text(" handshake=")
                    .text(handshake.as_str());
                line.text(" session=").text(session.as_str()).text(" route=").text(route.as_str());
            }
            Self::Expired { handshake, session } => {
                line.text("manager handshake expired").vm(guest).text(" handshake=").text(handshake.as_str());
                line.text(" session=").text(session.as_str());
            }
            Self::GivenUp { session, code } => {
                line.text("guest did not attach").vm(guest).text(" session=").text(session.as_str());
                line.text(" reason=").escaped(code);
            }
            Self::RequestRefused { status, code } => {
                line.text("manager request refused")
                    .vm(guest)
                    .text(" status=")
                    .number(*status)
                    .text(" code=")
                    .escaped(code);
            }
            Self::Released { session, dropped } => {
                line.text("guest released").vm(guest).text(" session=").text(session.as_str());
                line.text(" dropped=").number(*dropped);
            }
            Self::Queued { id } => drop(line.text("action queued").vm(guest).text(" id=").text(id.as_str())),
            Self::Settled { id, status, code } => {
                line.text("action settled").vm(guest).outcome(id, *status, code.as_deref());
            }
        }
    }

    pub(super) fn append_fields(&self, json: &mut Line<'_>) {
        match self {
            Self::Received { handshake, session } => {
                json.field_id("handshake", handshake.as_ref()).field_id("session", session.as_ref());
            }
            Self::Refused { handshake, reason } => {
                json.field_id("handshake", handshake.as_ref()).field_word("reason", reason.as_str());
            }
            Self::Start { session, manager, attempt, source } => {
                json.field_id("session", Some(session)).field("manager").text("\"").shown(manager).text("\"");
                json.field_number("attempt", (*attempt).into()).field_word("source", source.as_str());
            }
            Self::Success { session, attempt, source } => {
                json.field_id("session", Some(session)).field_number("attempt", (*attempt).into());
                json.field_word("source", source.as_str());
            }
            Self::Failure { session, attempt, source, code, message, retry_ms } => {
                json.field_id("session", Some(session)).field_number("attempt", (*attempt).into());
                json.field_word("source", source.as_str()).field_foreign("code", code);
                json.field_foreign("message", message).field_number_or_null("retry_ms", *retry_ms);
            }
            Self::FastPath { session, active } => {
                json.field_id("session", Some(session)).field_flag("active", *active);
            }
            Self::FastPathApply { id, status, code } | Self::PollApply { id, status, code } => {
                json.field_outcome(id, *status, code.map(ActionCode::as_str));
            }
            Self::Detached { session, code } => {
                json.field_id("session", Some(session)).field_foreign("code", code);
            }
            Self::Sent { handshake, session, refresh, manager } => {
                json.field_id("handshake", Some(handshake)).field_id("session", Some(session));
                json.field_flag("refresh", *refresh).field("manager").text("\"").shown(manager).text("\"");
            }
            Self::Accepted { handshake, session, route } => {
                json.field_id("handshake", Some(handshake)).field_id("session", Some(session));
                json.field_word("route", route.as_str());
            }
            Self::Expired { handshake, session } => {
                json.field_id("handshake", Some(handshake)).field_id("session", Some(session));
            }
            Self::GivenUp { session, code } => {
                json.field_id("session", Some(session)).field_foreign("code", code);
            }
            Self::RequestRefused { status, code } => {
                json.field_number("status", (*status).into()).field_foreign("code", code);
            }
            Self::Released { session, dropped } => {
                json.field_id("session", Some(session)).field_number("dropped", *dropped);
            }
            Self::Queued { id } => drop(json.field_id("id", Some(id))),
            Self::Settled { id, status, code } => drop(json.field_outcome(id, *status, code.as_deref())),
        }
    }
}

impl Line<'_> {
    fn vm(&mut self, guest: Option<&GuestName>) -> &mut Self {
        self.text(" vm=").guest(guest)
    }

    fn id_or_none(&mut self, name: &str, id: Option<&AttachId>) -> &mut Self {
        self.text(name).text(id.map_or("-", AttachId::as_str))
    }

    fn outcome(&mut self, id: &AttachId, status: ActionStatus, code: Option<&str>) -> &mut Self {
        self.text(" id=").text(id.as_str()).text(" status=").text(status.as_str()).text(" code=");
        self.escaped(code.unwrap_or("-"))
    }

    fn field_id(&mut self, name: &str, id: Option<&AttachId>) -> &mut Self {
        match id {
            Some(id) => self.field_word(name, id.as_str()),
            None => self.field(name).text("null"),
        }
    }

    fn field_outcome(&mut self, id: &AttachId, status: ActionStatus, code: Option<&str>) -> &mut Self {
        self.field_id("id", Some(id))
            .field_word("status", status.as_str())
            .field_foreign_or_null("code", code)
    }
}
