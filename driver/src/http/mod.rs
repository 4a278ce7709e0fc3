//! HTTP requests of an engine: each on a thread, within its patience, and over at once
//! when it is cancelled.
//!
//! Nothing but the request goes out: no cookies, no proxy of the environment, no
//! compression, and a redirect is an answer like any other. Who is trusted over TLS the
//! system says, as its operator set it up: a manager's certificate is seldom a public one.
//!
//! A request is sent once, except over a connection that had served before and ends
//! without a word: then again over another. What is asked here does no more when it is
//! asked twice.

mod socket;

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use castra_core::attach::{HttpRequest, Method, Origin};
use castra_core::boundary::{EffectError, EffectErrorKind};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderValue, Request};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Body};

use crate::clock;
use crate::pool::{Next, Pool, Worker};
use crate::terminals::porter::Tell;
use crate::work::{JobId, Outcome};
use socket::{Names, Tcp};

/// Most requests at once; a thread each.
const THREADS: usize = 4;
/// A thread that is idle so long ends; the last one takes the connections along.
const THREAD_IDLE: Duration = Duration::from_secs(60);
/// A connection that was idle so long is not used again: the other end may be closing
/// it just now.
const CONNECTION_IDLE: Duration = Duration::from_secs(15);
/// Longest head of an answer.
const HEAD_MAX: usize = 16 * 1024;
/// Most characters of a message for people.
const MESSAGE_MAX: usize = 200;
/// What we call ourselves.
const USER_AGENT: &str = concat!("castra/", env!("CARGO_PKG_VERSION"));

/// Makes requests. No thread, socket or certificate before the first one.
#[derive(Debug)]
pub(crate) struct Http {
    pool: Pool<Box<HttpRequest>>,
    client: Client,
}

/// Connections that may be used again, and the roots of trust once somebody needs them.
type Client = Arc<Mutex<Option<Agent>>>;

impl Http {
    pub(crate) fn new(tell: Tell) -> Self {
        Self { pool: Pool::new("castra-http", THREADS, tell), client: Client::default() }
    }

    pub(crate) fn submit(&self, id: JobId, request: Box<HttpRequest>, patience: Duration) {
        let client = Arc::clone(&self.client);
        self.pool.submit(id, request, patience, move |worker| serve(worker, &client));
    }

    /// Ends a request; false: there is none of that name.
    pub(crate) fn cancel(&self, id: JobId) -> bool {
        self.pool.cancel(id)
    }
}

fn serve(mut worker: Worker<Box<HttpRequest>>, client: &Client) {
    let locked = || client.lock().unwrap_or_else(PoisonError::into_inner);
    while let Next::Job(request, call) = worker.next(Some(THREAD_IDLE), true) {
        let agent = locked().get_or_insert_with(agent).clone();
        let outcome = socket::within(&call, || ask(&agent, &request));
        worker.done(&call, outcome.unwrap_or_else(|error| Outcome::Finished(Err(error))));
    }
    if worker.is_last() {
        *locked() = None;
    }
}

/// All limits of time are the sockets' (see [`socket`]): a client with limits of its own
/// would keep no roots of trust from one request to the next.
fn agent() -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(USER_AGENT)
        .accept("application/json")
        .accept_encoding("")
        .max_response_header_size(HEAD_MAX)
        .max_idle_connections(THREADS)
        .max_idle_connections_per_host(THREADS)
        .max_idle_age(CONNECTION_IDLE)
        .tls_config(tls)
        .build();
    Agent::with_parts(config, ().chain(Tcp).chain(RustlsConnector::default()), Names::default())
}

/// Asks and reads the whole answer.
fn ask(agent: &Agent, request: &HttpRequest) -> Result<Outcome, EffectError> {
    let url = url(&request.to, &request.path);
    let mut tries = 1..=THREADS;
    let answer = loop {
        match send(agent, request, &url) {
            // See above.
            Err(_) if socket::was_stale() && tries.next().is_some() => {}
            answer => break answer.map_err(|error| explain(&error, &request.to))?,
        }
    };
    let (head, body) = answer.into_parts();
    let retry_after = retry_after(&head.headers, now());
    let body = read(body, request)?;
    Ok(Outcome::Answered { status: head.status.as_u16(), retry_after, body })
}

fn send(agent: &Agent, request: &HttpRequest, url: &str) -> Result<ureq::http::Response<Body>, ureq::Error> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", request.bearer.expose()))
        .map_err(|error| ureq::Error::Http(error.into()))?;
    bearer.set_sensitive(true);
    let mut head = Request::builder().uri(url).header(AUTHORIZATION, bearer);
    if let Some(handshake) = &request.handshake {
        head = head.header("x-beach-handshake-id", handshake.as_str());
    }
    match request.method {
        Method::Get => agent.run(head.method("GET").body(())?),
        Method::Post => {
            let body = request.body.0.as_slice();
            if !body.is_empty() {
                head = head.header(CONTENT_TYPE, "application/json");
            }
            agent.run(head.method("POST").body(body)?)
        }
    }
}

fn url(to: &Origin, path: &str) -> String {
    format!("{}://{}{path}", if to.tls { "https" } else { "http" }, to.authority())
}

fn read(mut body: Body, request: &HttpRequest) -> Result<Vec<u8>, EffectError> {
    let most = request.answer_max;
    let mut bytes = Vec::new();
    let one_more = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = body.as_reader().take(one_more).read_to_end(&mut bytes);
    read.map_err(|error| explain(&ureq::Error::from(error), &request.to))?;
    if bytes.len() > most {
        let what = format!("the answer has more than {most} bytes");
        return Err(trouble(EffectErrorKind::BadAnswer, &request.to, &what));
    }
    Ok(bytes)
}

/// `Retry-After` in either form. A date that passed, or a past one by our clock, is no wait.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Longer than a number holds is as long as it gets.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let at = DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

fn now() -> Timestamp {
    // What no timestamp holds is no time of day either.
    Timestamp::from_millisecond(clock::now().wall.unix_millis()).unwrap_or_default()
}

/// What went wrong, for people and for whoever decides about another try.
fn explain(error: &ureq::Error, to: &Origin) -> EffectError {
    let (kind, what) = match error {
        ureq::Error::Io(error) => explain_io(error),
        ureq::Error::Rustls(error) => explain_tls(error),
        ureq::Error::Timeout(_) => (EffectErrorKind::TimedOut, "no answer in time".to_owned()),
        ureq::Error::HostNotFound => (EffectErrorKind::Unreachable, "the name has no address".to_owned()),
        ureq::Error::Protocol(error) => (EffectErrorKind::BadAnswer, format!("not an answer: {error}")),
        ureq::Error::LargeResponseHeader(..) => {
            (EffectErrorKind::BadAnswer, format!("the answer's head has more than {HEAD_MAX} bytes"))
        }
        ureq::Error::BodyStalled => (EffectErrorKind::BadAnswer, "the answer stalls".to_owned()),
        error => (EffectErrorKind::Unreachable, error.to_string()),
    };
    trouble(kind, to, &what)
}

fn trouble(kind: EffectErrorKind, to: &Origin, what: &str) -> EffectError {
    let message = format!("{}: {what}", to.authority()).chars().take(MESSAGE_MAX).collect();
    EffectError { kind, message }
}

fn explain_io(error: &io::Error) -> (EffectErrorKind, String) {
    // What is not the kernel's word is somebody else's, wrapped.
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return explain_tls(error);
    }
    match error.kind() {
        io::ErrorKind::TimedOut => (EffectErrorKind::TimedOut, "no answer in time".to_owned()),
        io::ErrorKind::ConnectionAborted if error.raw_os_error().is_none() => {
            (EffectErrorKind::Cancelled, "cancelled".to_owned())
        }
        io::ErrorKind::UnexpectedEof => {
            (EffectErrorKind::Unreachable, "it closed the connection before its answer was whole".to_owned())
        }
        io::ErrorKind::InvalidData => (EffectErrorKind::BadAnswer, format!("not an answer: {error}")),
        _ => (EffectErrorKind::Unreachable, error.to_string()),
    }
}

fn explain_tls(error: &rustls::Error) -> (EffectErrorKind, String) {
    match error {
        rustls::Error::InvalidCertificate(why) => {
            (EffectErrorKind::Unreachable, format!("its certificate is not trusted here: {why}"))
        }
        rustls::Error::InvalidMessage(_) => (EffectErrorKind::BadAnswer, format!("not TLS: {error}")),
        error => (EffectErrorKind::Unreachable, format!("TLS: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(text: &str) -> Option<Duration> {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().expect("a time");
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(text).expect("a value"));
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_comes_in_two_forms_and_nonsense_is_none() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("0"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999999"), Some(Duration::from_secs(u64::from(u32::MAX))));
        assert_eq!(wait("Sat, 21 Nov 2026 10:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(wait("Sat, 21 Nov 2026 09:59:59 GMT"), Some(Duration::ZERO));
        for nonsense in ["", "soon", "-1", "1.5", "Sat, 99 Nov 2026 10:00:09 GMT"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now()), None);
    }
}
