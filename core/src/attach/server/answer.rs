//! What HTTP clients are told.

use alloc::vec::Vec;

use serde::Serialize;

use crate::attach::{AttachId, Body};
use crate::link::message::append_json;

/// An answer: a status and a JSON document.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The word of a refusal.
    pub(crate) error: &'static str,
    /// The methods that would do.
    pub(crate) allow: Option<&'static str>,
    pub(crate) body: Body,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
}

#[derive(Serialize)]
struct Attached<'a> {
    ok: bool,
    attach_method: &'static str,
    session: Session<'a>,
}

#[derive(Serialize)]
struct Session<'a> {
    session_id: &'a AttachId,
    private_beach_id: &'a AttachId,
    lease_expires_at_ms: i64,
    lease_ttl_ms: u64,
}

#[derive(Serialize)]
struct Lease {
    lease_expires_at_ms: i64,
    lease_ttl_ms: u64,
}

impl Answer {
    fn json(status: u16, document: &impl Serialize) -> Self {
        let mut body = Vec::new();
        append_json(&mut body, document);
        Self { status, error: "", allow: None, body: Body(body) }
    }

    pub(crate) fn error(status: u16, error: &'static str, message: &str, error_code: Option<&str>) -> Self {
        Self { error, ..Self::json(status, &Failed { error, message, error_code }) }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::error(401, "unauthorized", "the bearer is missing, or not this session's", None)
    }

    pub(crate) fn unknown_session() -> Self {
        Self::error(404, "not_found", "session not found", Some("unknown_session"))
    }

    pub(crate) fn storage_failed() -> Self {
        Self::error(503, "unavailable", "it could not be made durable; try again", Some("storage_failed"))
    }

    pub(crate) fn missing_lease() -> Self {
        Self::error(409, "conflict", "the lease is over; renew it", Some("missing_lease"))
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        let message = "this path takes another method";
        Self { allow: Some(allow), ..Self::error(405, "method_not_allowed", message, None) }
    }

    /// JSON of actions; empty: none.
    pub(crate) fn actions(mut json: Vec<u8>) -> Self {
        if json.is_empty() {
            json.extend_from_slice(b"[]");
        }
        Self { status: 200, error: "", allow: None, body: Body(json) }
    }

    pub(crate) fn acknowledged() -> Self {
        Self { status: 200, error: "", allow: None, body: Body(br#"{"acknowledged":true}"#.to_vec()) }
    }

    pub(crate) fn lease(lease_ttl_ms: u64, lease_expires_at_ms: i64) -> Self {
        Self::json(200, &Lease { lease_expires_at_ms, lease_ttl_ms })
    }

    pub(crate) fn attached(
        session_id: &AttachId,
        private_beach_id: &AttachId,
        lease_ttl_ms: u64,
        lease_expires_at_ms: i64,
    ) -> Self {
        let session = Session { session_id, private_beach_id, lease_expires_at_ms, lease_ttl_ms };
        Self::json(200, &Attached { ok: true, attach_method: "code", session })
    }

    /// Appends the whole answer.
    pub(super) fn append(&self, close: bool, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(number.format(self.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(
            b"\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: ",
        );
        out.extend_from_slice(number.format(self.body.0.len()).as_bytes());
        if self.status == 401 {
            out.extend_from_slice(b"\r\nWWW-Authenticate: Bearer");
        }
        if let Some(allow) = self.allow {
            out.extend_from_slice(b"\r\nAllow: ");
            out.extend_from_slice(allow.as_bytes());
        }
        if close {
            out.extend_from_slice(b"\r\nConnection: close");
        }
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body.0);
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        _ => "Service Unavailable",
    }
}
