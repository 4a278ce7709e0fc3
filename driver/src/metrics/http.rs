//! Requests and answers: the few of HTTP/1.1 that a scraper and a probe need.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use super::scrape::Format;

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Most header fields of a request.
const FIELDS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    Metrics(Format),
    Health,
    Ready,
    Index,
}

/// A request that makes sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) page: Page,
    /// Only the head of the answer is wanted.
    pub(super) head: bool,
}

/// An answer in the making.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn words(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// Sends it as the last one.
    pub(super) fn send(&self, to: &mut impl Write, head: bool) -> io::Result<()> {
        let Self { status, content_type, body } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if !head {
            bytes.extend_from_slice(body.as_bytes());
        }
        to.write_all(&bytes)?;
        to.flush()
    }
}

/// Reads a head; `None`: whoever connected went away, or was too slow.
pub(super) fn read(from: &mut impl Read, loopback: bool) -> Option<Result<Request, Answer>> {
    let (mut head, mut filled) = (vec![0; HEAD_MAX], 0);
    loop {
        match from.read(&mut head[filled..]) {
            Ok(0) | Err(_) => return None,
            Ok(count) => filled += count,
        }
        if let Some(judged) = judge(&head[..filled], loopback) {
            return Some(judged);
        }
        if filled == HEAD_MAX {
            let answer = Answer::words("431 Request Header Fields Too Large", "at most 8 KiB of them\n");
            return Some(Err(answer));
        }
    }
}

/// What a head says; `None`: there is more to come.
fn judge(head: &[u8], loopback: bool) -> Option<Result<Request, Answer>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            let answer = Answer::words("431 Request Header Fields Too Large", "at most 64 of them\n");
            return Some(Err(answer));
        }
        Err(error) => return Some(Err(Answer::words("400 Bad Request", format!("{error}\n")))),
    }
    let field = |name: &str| {
        let found = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| String::from_utf8_lossy(field.value))
    };
    Some(understood(
        request.method?,
        request.path?,
        field("host").as_deref(),
        field("accept").as_deref(),
        loopback,
    ))
}

fn understood(
    method: &str,
    target: &str,
    host: Option<&str>,
    accept: Option<&str>,
    loopback: bool,
) -> Result<Request, Answer> {
    // A page in somebody's browser may give its own name our address: it is refused.
    if loopback && !host.is_none_or(is_local) {
        let text = "on the loopback only an IP address or localhost is answered to: use one of them\n";
        return Err(Answer::words("421 Misdirected Request", text));
    }
    let head = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Answer::words("405 Method Not Allowed", "GET or HEAD\n")),
    };
    let page = match target.split('?').next().unwrap_or(target) {
        "/metrics" => Page::Metrics(match accept {
            Some(types) if types.contains("application/openmetrics-text") => Format::OpenMetrics,
            _ => Format::Plain,
        }),
        "/healthz" => Page::Health,
        "/readyz" => Page::Ready,
        "/" => Page::Index,
        _ => return Err(Answer::words("404 Not Found", "there are /metrics, /healthz and /readyz\n")),
    };
    Ok(Request { page, head })
}

/// Whether the host of a request names this machine without a resolver's help.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// A connection that ends at a moment, however slowly the other side reads or writes.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, until: Instant::now() + patience }
    }

    /// A new bound for what comes now.
    pub(super) fn renew(&mut self, patience: Duration) {
        self.until = Instant::now() + patience;
    }

    /// Ends our side and takes what the other has still to say, so that it reads our
    /// answer before it hears of the end.
    pub(super) fn finish(mut self, patience: Duration) {
        self.renew(patience);
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let mut rest = [0; 1024];
        while self.read(&mut rest).is_ok_and(|count| count > 0) {}
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of one byte, as slow clients send it.
    struct Dripping<'a>(&'a [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn asked(text: &str, loopback: bool) -> String {
        match read(&mut Dripping(text.as_bytes()), loopback) {
            Some(Ok(Request { page, head })) => format!("{page:?} {head}"),
            Some(Err(answer)) => answer.status.split(' ').next().unwrap_or_default().to_owned(),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn what_is_asked_for_is_understood_however_it_arrives_and_the_rest_is_refused() {
        for (text, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n", "Metrics(Plain) false"),
            (
                "GET /metrics?x=1 HTTP/1.1\r\nAccept: text/plain;q=0.5, application/openmetrics-text; version=1.0.0\r\n\r\n",
                "Metrics(OpenMetrics) false",
            ),
            ("HEAD /healthz HTTP/1.0\r\n\r\n", "Health true"),
            ("GET /readyz HTTP/1.1\r\nhost: LOCALHOST:1\r\n\r\n", "Ready false"),
            ("GET / HTTP/1.1\r\nHost: [::1]:9464\r\n\r\n", "Index false"),
            ("GET /metrics HTTP/1.1\r\nHost: evil.example:9464\r\n\r\n", "421"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /etc/passwd HTTP/1.1\r\n\r\n", "404"),
            ("GET http://x/metrics HTTP/1.1\r\n\r\n", "404"),
            ("nonsense\r\n\r\n", "400"),
            ("GET /metrics HTTP/1.1\r\n", "none"),
        ] {
            assert_eq!(asked(text, true), expected, "{text:?}");
        }
        let elsewhere = "GET /metrics HTTP/1.1\r\nHost: broker.lan:9464\r\n\r\n";
        assert_eq!(asked(elsewhere, false), "Metrics(Plain) false");
    }

    #[test]
    fn a_head_has_bounds() {
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEAD_MAX));
        assert_eq!(asked(&long, true), "431");
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(asked(&many, true), "431");
    }

    #[test]
    fn the_head_of_an_answer_says_what_its_body_would_be() {
        let (mut whole, mut head) = (Vec::new(), Vec::new());
        let answer = Answer::words("405 Method Not Allowed", "GET or HEAD\n");
        answer.send(&mut whole, false).expect("a vector");
        answer.send(&mut head, true).expect("a vector");
        let text = String::from_utf8(whole).expect("text");
        assert!(text.contains("Content-Length: 12\r\nAllow: GET, HEAD\r\n"), "{text}");
        assert_eq!(text.strip_suffix("GET or HEAD\n").map(str::as_bytes), Some(head.as_slice()));
    }
}
