//! What the control socket is asked.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::reply::{ErrorBody, ErrorCode, Target};
use crate::attach::{AttachId, KIND_MAX, PAYLOAD_MAX};
use crate::event::{Cursor, Escaped};
use crate::id::{GuestName, RequestId};
use crate::peers::MessageId;

/// Longest request line, in bytes, with its end.
pub const LINE_MAX: usize = 256 * 1024;

/// Most names in one request.
pub const NAMES_MAX: usize = 4096;

/// Most kinds in one request: every event is compared with each.
pub const KINDS_MAX: usize = 64;

/// A request with its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Echoed in the reply.
    pub id: Option<RequestId>,
    /// What to do.
    pub command: Command,
    /// How long the caller waits at most; `None`: the method's default.
    pub timeout: Option<Duration>,
}

/// A request that can't be carried out, with its id as far as it could be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// Echoed in the reply.
    pub id: Option<RequestId>,
    /// Why.
    pub error: ErrorBody,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Who are you?
    Info,
    /// Who is reachable?
    Status {
        /// Only these; empty: all.
        guests: Vec<GuestName>,
    },
    /// Tell me when.
    Wait {
        /// Whom; not empty.
        guests: Vec<GuestName>,
        /// What for.
        target: Target,
        /// One of them is enough.
        any: bool,
    },
    /// Ask a guest for a sign of life.
    Ping {
        /// Whom.
        guest: GuestName,
    },
    /// What happened?
    Events {
        /// After this one; `None`: the oldest kept, or now with `follow`.
        since: Option<Cursor>,
        /// Go on with what happens from now on.
        follow: bool,
        /// Only these kinds, or with a trailing `.*` these families; empty: all.
        kinds: Vec<String>,
        /// Only about these; empty: all.
        guests: Vec<GuestName>,
        /// At most this many in the reply.
        limit: usize,
    },
    /// Give a guest a new token.
    TokenIssue {
        /// Whom.
        guest: GuestName,
    },
    /// Take a guest's token away; the name stays keyed.
    TokenRevoke {
        /// Whose.
        guest: GuestName,
    },
    /// Who has one?
    TokenList,
    /// Delete a row and its record file.
    Forget {
        /// Whose.
        guest: GuestName,
    },
    /// Whom does a guest know?
    ListPeers {
        /// Whose peers; an agent's own without a name.
        name: Option<GuestName>,
    },
    /// Let two guests be peers.
    RegisterPeer {
        /// One; an agent's own without a name.
        source: Option<GuestName>,
        /// The other, or (to a broker) the beginning of its name.
        name: GuestName,
    },
    /// Let two guests be peers no more.
    UnregisterPeer {
        /// One; an agent's own without a name.
        source: Option<GuestName>,
        /// The other.
        name: GuestName,
    },
    /// Tell a peer.
    SendToPeer {
        /// In whose name; an agent's own without one.
        from: Option<GuestName>,
        /// Whom.
        to: GuestName,
        /// What.
        text: String,
        /// Whether it needs attention.
        wake: bool,
        /// Whether it may wait.
        queue: bool,
        /// Makes a retry safe.
        key: Option<String>,
    },
    /// What did others tell a guest?
    Inbox {
        /// Whose; an agent's own without a name.
        name: Option<GuestName>,
        /// After this one; `None`: from the oldest kept.
        after: Option<MessageId>,
        /// Go on with what comes from now on.
        follow: bool,
        /// At most this many, the newest, in the reply.
        limit: usize,
    },
    /// Lead this connection to a guest's terminals.
    Terminals {
        /// Whose; an agent's own without a name.
        guest: Option<GuestName>,
    },
    /// Run a guest's start command and wait until it is reachable.
    Restore {
        /// Whose.
        guest: GuestName,
    },
    /// Agent: answers whoever wants to be a peer.
    PeerAnswer {
        /// Whom.
        name: GuestName,
        /// Yes or no.
        accept: bool,
        /// Why not.
        reason: Option<String>,
    },
    /// Agent: nothing is to be registered from here (`hold`), or it may be again (`resume`).
    Hold {
        /// Which.
        hold: bool,
    },
    /// Adopt a guest.
    Adopt {
        /// Whom.
        guest: GuestName,
        /// For which private beach; `None`: the one that it has, or a new one.
        beach: Option<AttachId>,
        /// Over its link, even if there is HTTP.
        link: bool,
        /// Answer when it is attached.
        wait: bool,
    },
    /// Let go of an adopted guest.
    Release {
        /// Whom.
        guest: GuestName,
    },
    /// Who is adopted?
    Attachments {
        /// Agent: answer when it is attached.
        wait: bool,
    },
    /// Have an adopted guest do something.
    ActionSend {
        /// Whom.
        guest: GuestName,
        /// `action_type`.
        kind: String,
        /// A JSON object.
        payload: String,
        /// How long it may wait for the guest.
        ttl: Option<Duration>,
        /// Answer when it is done with.
        wait: bool,
    },
    /// Which actions wait?
    ActionList {
        /// Whose; `None`: everybody's.
        guest: Option<GuestName>,
    },
    /// Read the configuration again.
    Reload,
    /// Drain and stop.
    Shutdown,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(default)]
    id: Option<RequestId>,
    #[serde(borrow)]
    method: alloc::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Params {
    guest: Option<GuestName>,
    guests: Option<Vec<GuestName>>,
    #[serde(rename = "for")]
    target: Option<Target>,
    any: Option<bool>,
    timeout_ms: Option<u64>,
    since: Option<Cursor>,
    follow: Option<bool>,
    kinds: Option<Vec<String>>,
    limit: Option<u64>,
    name: Option<GuestName>,
    source: Option<GuestName>,
    from: Option<GuestName>,
    to: Option<GuestName>,
    text: Option<String>,
    wake: Option<bool>,
    queue: Option<bool>,
    key: Option<String>,
    after: Option<MessageId>,
    accept: Option<bool>,
    reason: Option<String>,
    beach_id: Option<AttachId>,
    link: Option<bool>,
    wait: Option<bool>,
    action_type: Option<String>,
    payload: Option<Box<RawValue>>,
    ttl_ms: Option<u64>,
}

#[derive(Deserialize)]
struct OnlyId {
    #[serde(default)]
    id: Option<RequestId>,
}

/// Most events in one reply.
pub const EVENTS_LIMIT: usize = 8192;

/// Most messages in one reply.
pub const INBOX_LIMIT: usize = 1000;

impl Request {
    /// Reads one line, without its end. `timeout_max` bounds `timeout_ms`.
    ///
    /// # Errors
    /// `invalid_request` or `unknown_method`, with a message that says what is wrong.
    pub fn parse(line: &[u8], timeout_max: Duration) -> Result<Self, Rejected> {
        // serde reads structs from arrays, too, and doesn't look into the strings
        // that it skips: those are no requests.
        let object = str::from_utf8(line).ok().filter(|text| is_object(text));
        let Some(text) = object else {
            return Err(Rejected {
                id: None,
                error: invalid("not a request: expected a JSON object".into()),
            });
        };
        let raw: Raw<'_> = serde_json::from_str(text).map_err(|error| Rejected {
            id: serde_json::from_str::<OnlyId>(text).ok().and_then(|only| only.id).filter(id_fits),
            error: invalid(format!("not a request: {}", shortened(&error.to_string()))),
        })?;
        let id = match raw.id {
            Some(id) if !id_fits(&id) => {
                let error = invalid(format!("an id has at most {} bytes", RequestId::MAX_TEXT));
                return Err(Rejected { id: None, error });
            }
            id => id,
        };
        let parsed = params(raw.params).and_then(|params| {
            let timeout = params.timeout_ms.map(Duration::from_millis);
            if timeout.is_some_and(|timeout| timeout > timeout_max) {
                let most = crate::time::millis(timeout_max);
                return Err(invalid(format!("timeout_ms may be at most {most}")));
            }
            Ok((Command::parse(&raw.method, params)?, timeout))
        });
        match parsed {
            Ok((command, timeout)) => Ok(Self { id, command, timeout }),
            Err(error) => Err(Rejected { id, error }),
        }
    }
}

fn is_object(json: &str) -> bool {
    json.trim_ascii_start().starts_with('{')
}

fn params(raw: Option<&RawValue>) -> Result<Params, ErrorBody> {
    let Some(raw) = raw else { return Ok(Params::default()) };
    if !is_object(raw.get()) {
        return Err(invalid("params must be a JSON object".into()));
    }
    serde_json::from_str(raw.get())
        .map_err(|error| invalid(format!("bad params: {}", shortened(&error.to_string()))))
}

impl Command {
    fn parse(method: &str, params: Params) -> Result<Self, ErrorBody> {
        let guest =
            |params: &Params| params.guest.ok_or_else(|| invalid(format!("{method} needs params.guest")));
        let name =
            |params: &Params| params.name.ok_or_else(|| invalid(format!("{method} needs params.name")));
        let guests = params.guests.clone().unwrap_or_default();
        if guests.len() > NAMES_MAX {
            return Err(invalid(format!("at most {NAMES_MAX} names in one request")));
        }
        if params.kinds.as_ref().is_some_and(|kinds| kinds.len() > KINDS_MAX) {
            return Err(invalid(format!("at most {KINDS_MAX} kinds in one request")));
        }
        Ok(match method {
            "info" => Self::Info,
            "status" => Self::Status { guests },
            "wait" if guests.is_empty() => return Err(invalid("wait needs params.guests".into())),
            "wait" => Self::Wait {
                guests,
                target: params
                    .target
                    .ok_or_else(|| invalid("wait needs params.for: reachable or waiting".into()))?,
                any: params.any.unwrap_or(false),
            },
            "ping" => Self::Ping { guest: guest(&params)? },
            "events" => Self::Events {
                since: params.since,
                follow: params.follow.unwrap_or(false),
                kinds: params.kinds.unwrap_or_default(),
                guests,
                limit: params
                    .limit
                    .and_then(|limit| usize::try_from(limit).ok())
                    .unwrap_or(EVENTS_LIMIT)
                    .min(EVENTS_LIMIT),
            },
            "token_issue" => Self::TokenIssue { guest: guest(&params)? },
            "token_revoke" => Self::TokenRevoke { guest: guest(&params)? },
            "token_list" => Self::TokenList,
            "forget" => Self::Forget { guest: guest(&params)? },
            "list_peers" => Self::ListPeers { name: params.name },
            "register_peer" => Self::RegisterPeer { source: params.source, name: name(&params)? },
            "unregister_peer" => Self::UnregisterPeer { source: params.source, name: name(&params)? },
            "send_to_peer" => Self::SendToPeer {
                from: params.from,
                to: params.to.ok_or_else(|| invalid("send_to_peer needs params.to".into()))?,
                text: params.text.ok_or_else(|| invalid("send_to_peer needs params.text".into()))?,
                wake: params.wake.unwrap_or(true),
                queue: params.queue.unwrap_or(true),
                key: params.key,
            },
            "inbox" => Self::Inbox {
                name: params.name,
                after: params.after,
                follow: params.follow.unwrap_or(false),
                limit: params
                    .limit
                    .and_then(|limit| usize::try_from(limit).ok())
                    .unwrap_or(INBOX_LIMIT)
                    .min(INBOX_LIMIT),
            },
            "terminals" => Self::Terminals { guest: params.guest },
            "restore" => Self::Restore { guest: guest(&params)? },
            "peer_answer" => Self::PeerAnswer {
                name: name(&params)?,
                accept: params
                    .accept
                    .ok_or_else(|| invalid("peer_answer needs params.accept: true or false".into()))?,
                reason: params.reason,
            },
            "hold" => Self::Hold { hold: true },
            "resume" => Self::Hold { hold: false },
            "adopt" => Self::Adopt {
                guest: guest(&params)?,
                beach: params.beach_id,
                link: params.link.unwrap_or(false),
                wait: params.wait.unwrap_or(true),
            },
            "release" => Self::Release { guest: guest(&params)? },
            "attachments" => Self::Attachments { wait: params.wait.unwrap_or(false) },
            "action_send" => Self::ActionSend {
                guest: guest(&params)?,
                kind: action_kind(params.action_type)?,
                payload: payload(params.payload.as_deref())?,
                ttl: params.ttl_ms.map(Duration::from_millis),
                wait: params.wait.unwrap_or(true),
            },
            "action_list" => Self::ActionList { guest: params.guest },
            "reload" => Self::Reload,
            "shutdown" => Self::Shutdown,
            other => {
                return Err(ErrorBody {
                    code: ErrorCode::UnknownMethod,
                    message: format!("there is no method \"{}\" in control protocol v1", shortened(other)),
                });
            }
        })
    }
}

fn action_kind(kind: Option<String>) -> Result<String, ErrorBody> {
    let kind = kind.ok_or_else(|| invalid("action_send needs params.action_type".into()))?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=KIND_MAX).contains(&kind.len()) && kind.bytes().all(fits) {
        return Ok(kind);
    }
    Err(invalid(format!("action_type has 1 to {KIND_MAX} letters, digits, dots, underscores or hyphens")))
}

fn payload(payload: Option<&RawValue>) -> Result<String, ErrorBody> {
    let payload = payload.ok_or_else(|| invalid("action_send needs params.payload".into()))?.get();
    if !is_object(payload) {
        return Err(invalid("params.payload must be a JSON object".into()));
    }
    if payload.len() > PAYLOAD_MAX {
        let message = format!("the payload takes {} bytes; at most {PAYLOAD_MAX} do", payload.len());
        return Err(ErrorBody { code: ErrorCode::TooLarge, message });
    }
    Ok(payload.into())
}

fn id_fits(id: &RequestId) -> bool {
    match id {
        RequestId::Number(_) => true,
        RequestId::Text(text) => text.len() <= RequestId::MAX_TEXT,
    }
}

/// The caller's own text, fit to be shown: it may be as long as the line.
fn shortened(text: &str) -> String {
    let head: String = text.chars().take(128).collect();
    Escaped(&head).to_string()
}

fn invalid(message: String) -> ErrorBody {
    ErrorBody { code: ErrorCode::InvalidRequest, message }
}
