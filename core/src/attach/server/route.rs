//! From a request to what is asked.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::Answer;
use super::head::Head;
use crate::attach::manager::{Ack, Ask};
use crate::attach::{ActionStatus, AttachId, ManagerSettings, Secret};
use crate::event::shortened;

#[derive(Deserialize)]
struct AttachBody {
    session_id: AttachId,
    code: Secret,
}

#[derive(Deserialize)]
struct AckBody {
    id: AttachId,
    status: ActionStatus,
    #[serde(default)]
    error_code: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Acks {
    Many(Vec<AckBody>),
    One(AckBody),
}

/// What a request asks, and who says so. The order of the refusals is fixed: whoever
/// may not be here learns nothing of what is.
///
/// # Errors
/// The answer.
pub(super) fn ask(settings: &ManagerSettings, head: Head, body: &[u8]) -> Result<(Secret, Ask), Answer> {
    if head.has_origin {
        return Err(Answer::error(403, "forbidden", "browsers have no business here", None));
    }
    let Some(host) = &head.host else {
        return Err(Answer::error(400, "bad_request", "Host is missing", None));
    };
    if !is_ours(settings, host) {
        return Err(Answer::error(421, "misdirected", "this is another host", None));
    }
    if head.query.as_deref().is_some_and(names_a_token) {
        let message = "a token belongs into the Authorization header, never into a URL";
        return Err(Answer::error(400, "bad_request", message, None));
    }
    let unknown = || Answer::error(404, "not_found", "there is nothing here", None);
    let segments: Vec<&str> = head.path.split('/').skip(1).collect();
    let id = |text: &str| text.parse::<AttachId>().map_err(|_| unknown());
    let (allow, path) = match segments[..] {
        ["private-beaches", beach, "sessions", "attach-by-code"] => ("POST", Path::Attach(id(beach)?)),
        ["sessions", session, "actions", "poll"] => ("GET", Path::Poll(id(session)?)),
        ["sessions", session, "actions", "ack"] => ("POST", Path::Ack(id(session)?)),
        ["sessions", session, "lease"] => ("POST", Path::Lease(id(session)?)),
        _ => return Err(unknown()),
    };
    if head.method != allow {
        return Err(Answer::method(allow));
    }
    let bearer = head.bearer.ok_or_else(Answer::unauthorized)?;
    let malformed = |message| Answer::error(400, "bad_request", message, None);
    let ask = match path {
        Path::Attach(beach) => {
            let read = serde_json::from_slice::<AttachBody>(body).ok().filter(|_| is_object(body));
            let AttachBody { session_id: session, code } =
                read.ok_or_else(|| malformed("the body is {\"session_id\",\"code\"}"))?;
            Ask::Attach { beach, handshake: head.handshake, session, code }
        }
        Path::Poll(session) => Ask::Poll { session },
        Path::Ack(session) => {
            let read: Acks = serde_json::from_slice(body)
                .map_err(|_| malformed("the body is [{\"id\",\"status\",\"error_code\"?}]"))?;
            let list = match read {
                Acks::Many(list) => list,
                Acks::One(one) => alloc::vec![one],
            };
            let ack = |AckBody { id, status, error_code }| Ack {
                id,
                status,
                code: error_code.map(|code| shortened(&code, 64)),
            };
            Ask::Ack { session, acks: list.into_iter().map(ack).collect() }
        }
        Path::Lease(session) => Ask::Lease { session },
    };
    Ok((bearer, ask))
}

enum Path {
    Attach(AttachId),
    Poll(AttachId),
    Ack(AttachId),
    Lease(AttachId),
}

/// serde reads structs from arrays, too: those are no objects.
fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}

/// An address can't be rebound by a name server; any other name can, except our own.
fn is_ours(settings: &ManagerSettings, host: &str) -> bool {
    let Ok((host, _)) = crate::attach::url::authority(host) else { return false };
    let advertised = settings.advertise.as_ref().and_then(|url| url.origin());
    host == "localhost"
        || host.parse::<core::net::IpAddr>().is_ok()
        || advertised.is_some_and(|origin| origin.host == host)
}

fn names_a_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name.to_ascii_lowercase().contains("token")
    })
}
