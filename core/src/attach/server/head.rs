//! From bytes to a request: the head by `httparse`, the rest by what the head says.

use alloc::string::{String, ToString};

use super::Answer;
use crate::attach::{AttachId, Secret};

/// Longest head, in bytes.
pub(super) const HEAD_MAX: usize = 8 * 1024;

/// Longest body, in bytes.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// Most header fields.
const FIELDS_MAX: usize = 64;

/// A request's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    /// The path, and what follows a question mark.
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// Its own length, and its body's.
    pub(super) length: usize,
    pub(super) body: usize,
    /// The connection ends with the answer.
    pub(super) close: bool,
    pub(super) host: Option<String>,
    pub(super) has_origin: bool,
    pub(super) bearer: Option<Secret>,
    pub(super) handshake: Option<AttachId>,
}

/// Reads a head. `None`: it isn't whole.
///
/// # Errors
/// What is answered before the connection ends: where the next request begins is not known.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Head>, Answer> {
    let within = &bytes[..bytes.len().min(HEAD_MAX)];
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(within) {
        Ok(httparse::Status::Complete(length)) => Head::new(&request, length).map(Some),
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_MAX => Err(too_long()),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(too_long()),
        Err(_) => Err(bad("this is no HTTP request")),
    }
}

fn too_long() -> Answer {
    Answer::error(431, "headers_too_large", "a head has at most 8192 bytes and 64 fields", None)
}

fn bad(message: &str) -> Answer {
    Answer::error(400, "bad_request", message, None)
}

impl Head {
    fn new(request: &httparse::Request<'_, '_>, length: usize) -> Result<Self, Answer> {
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(bad("this is no HTTP request"));
        };
        if !target.starts_with('/') {
            return Err(bad("a request's target begins with a slash"));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_string())),
            None => (target, None),
        };
        let mut head = Self {
            method: method.to_string(),
            path: path.to_string(),
            query,
            length,
            body: 0,
            close: version == 0,
            host: None,
            has_origin: false,
            bearer: None,
            handshake: None,
        };
        let (mut has_host, mut has_length) = (false, false);
        let (mut has_bearer, mut has_handshake) = (false, false);
        for field in &*request.headers {
            let once = |seen: &mut bool| {
                if core::mem::replace(seen, true) {
                    Err(bad("a header field is there twice"))
                } else {
                    Ok(())
                }
            };
            let text = || str::from_utf8(field.value).map(str::trim).unwrap_or_default();
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("transfer-encoding") {
                let message = "a body has a Content-Length here, and no other encoding";
                return Err(Answer::error(501, "not_implemented", message, None));
            } else if is("expect") {
                return Err(Answer::error(417, "expectation_failed", "nothing is promised here", None));
            } else if is("content-length") {
                once(&mut has_length)?;
                head.body = body_length(text())?;
            } else if is("host") {
                once(&mut has_host)?;
                head.host = Some(text().to_string());
            } else if is("origin") {
                head.has_origin = true;
            } else if is("connection") {
                head.close |= text().split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
            } else if is("authorization") {
                once(&mut has_bearer)?;
                head.bearer = bearer(text());
            } else if is("x-beach-handshake-id") {
                once(&mut has_handshake)?;
                head.handshake = text().parse().ok();
            }
        }
        Ok(head)
    }
}

fn body_length(text: &str) -> Result<usize, Answer> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("Content-Length is no number"));
    }
    // More digits than a number holds are too many in any case.
    text.parse()
        .ok()
        .filter(|length| *length <= BODY_MAX)
        .ok_or_else(|| Answer::error(413, "too_large", "a body has at most 65536 bytes", None))
}

fn bearer(text: &str) -> Option<Secret> {
    let (scheme, token) = text.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") { token.trim_start().parse().ok() } else { None }
}
