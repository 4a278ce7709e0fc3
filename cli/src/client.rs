//! The control protocol's client: one request, one reply, and never a wait without a bound.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use castra_core::control::reply::{Envelope, ErrorBody};
use castra_core::id::RequestId;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// Longest reply that grows with the number of guests: far above a status of the most that a broker keeps.
const DOCUMENT_MAX: usize = 512 * 1024 * 1024;

/// Longest other reply: an inbox of 16 MiB of text, each byte of it escaped, and to spare.
const REPLY_MAX: usize = 128 * 1024 * 1024;

/// What was sent in time counts, also for a client that was stopped meanwhile: more than a socket holds.
const OVERTIME: usize = 1024 * 1024;

/// How often a full accept queue is tried again. Linux gives no readiness for it.
const RETRY: Duration = Duration::from_millis(5);

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("no broker serves at {path}: start one with `castra up`, or say where it is with --state-dir")]
    NoBroker { path: String },
    /// Somebody listens and says nothing.
    #[error(
        "the broker at {path} did not answer within {}: it is stopped or overloaded; `castra down --force` ends it",
        crate::duration::format(Duration::from_millis(crate::duration::millis(*bound + Duration::from_micros(500))))
    )]
    NotAnswering { path: String, bound: Duration },
    /// It hung up instead of answering.
    #[error("the broker at {path} closed the connection without an answer: it is stopping; try again")]
    Closed { path: String },
    /// The kernel forbids it.
    #[error(
        "may not talk to the broker at {path}: its socket belongs to another user; be that user, or root"
    )]
    Denied { path: String },
    /// No socket can have that name.
    #[error("{path} can't be a socket's path ({why}): choose a shorter --state-dir")]
    BadPath { path: String, why: Errno },
    /// The broker says no.
    #[error("{} ({})", crate::output::printable(&.0.message), .0.code)]
    Refused(ErrorBody),
    /// Not the control protocol.
    #[error(
        "the answer from {path} is not of control protocol v1 ({what}): are castra and its broker of one version?"
    )]
    Protocol { path: String, what: String },
    /// The system failed.
    #[error("talking to {path} failed: {error}")]
    Io { path: String, error: io::Error },
}

/// One line from the broker.
#[derive(Debug)]
pub(crate) struct Reply {
    /// What it is.
    pub(crate) event: String,
    /// The document, byte for byte.
    pub(crate) data: Box<RawValue>,
}

impl Reply {
    /// The document as a type.
    pub(crate) fn parse<D: DeserializeOwned>(&self) -> Result<D, ClientError> {
        serde_json::from_str(self.data.get())
            .map_err(|error| ClientError::Protocol { path: self.event.clone(), what: error.to_string() })
    }
}

/// A connection to a control socket.
#[derive(Debug)]
pub(crate) struct Client {
    stream: OwnedFd,
    path: String,
    buffer: Vec<u8>,
    /// How much of `buffer` holds no line end.
    scanned: usize,
    /// Where the first line that was not taken yet begins.
    start: usize,
    next_id: u64,
    /// How much may still be read when the time is up.
    overtime: usize,
}

#[derive(Serialize)]
struct Request<'a, P> {
    id: u64,
    method: &'a str,
    params: P,
}

impl Client {
    /// Connects within `bound`, also when the accept queue of a stopped broker is full.
    pub(crate) fn connect(socket: &Path, bound: Duration) -> Result<Self, ClientError> {
        let (stream, path) = (dial(socket, bound)?, shown(socket));
        Ok(Self { stream, path, buffer: Vec::new(), scanned: 0, start: 0, next_id: 1, overtime: OVERTIME })
    }

    /// The connection itself, and what came behind the last reply: from here on it
    /// speaks something else.
    pub(crate) fn into_stream(mut self) -> (OwnedFd, Vec<u8>) {
        self.buffer.drain(..self.start);
        (self.stream, self.buffer)
    }

    /// Asks and waits for the reply to exactly this request, both within `bound`.
    pub(crate) fn call(
        &mut self,
        method: &str,
        params: impl Serialize,
        bound: Duration,
    ) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + bound;
        let id = self.next_id;
        self.next_id += 1;
        self.overtime = OVERTIME;
        let mut line = serde_json::to_vec(&Request { id, method, params })
            .map_err(|error| self.protocol(format!("the request can't be written: {error}")))?;
        line.push(b'\n');
        match self.send(&line, deadline, bound) {
            // Whoever is turned away at the door is told why before the close.
            Ok(()) | Err(ClientError::Closed { .. }) => {}
            Err(error) => return Err(error),
        }
        loop {
            let most = if matches!(method, "status" | "list_peers") { DOCUMENT_MAX } else { REPLY_MAX };
            let Some((got, reply)) = self.read_line(Some((deadline, bound)), None, most)? else { continue };
            match got {
                Some(RequestId::Number(number)) if number == id => {
                    if reply.event == "error" {
                        return Err(ClientError::Refused(self.error_body(&reply)?));
                    }
                    return Ok(reply);
                }
                // What the broker could not read has no id to echo; only this request is open.
                None if reply.event == "error" => {
                    return Err(ClientError::Refused(self.error_body(&reply)?));
                }
                // A late answer to an earlier request, or a line of a stream.
                _ => {}
            }
        }
    }

    /// The next line of a stream, for as long as it takes; `None` when
    /// `stdout` lost its reader meanwhile.
    pub(crate) fn next(&mut self, stdout: BorrowedFd<'_>) -> Result<Option<Reply>, ClientError> {
        Ok(self.read_line(None, Some(stdout), REPLY_MAX)?.map(|(_, reply)| reply))
    }

    /// Whether something comes before `span` is over: for callers that only
    /// want to be woken. Whatever came is dropped.
    pub(crate) fn wake(&mut self, span: Duration) -> Result<bool, ClientError> {
        // It may have come together with the last reply.
        if self.start == self.buffer.len() {
            if !self.wait(PollFlags::IN, Some(Instant::now() + span), None)? {
                return Ok(false);
            }
            self.fill()?;
        }
        self.buffer.clear();
        (self.scanned, self.start) = (0, 0);
        Ok(true)
    }

    fn send(&self, mut line: &[u8], deadline: Instant, bound: Duration) -> Result<(), ClientError> {
        while !line.is_empty() {
            match rustix::net::send(&self.stream, line, SendFlags::NOSIGNAL) {
                Ok(sent) => line = &line[sent..],
                Err(Errno::AGAIN) => {
                    if !self.wait(PollFlags::OUT, Some(deadline), None)? {
                        return Err(self.not_answering(bound));
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.closed()),
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(())
    }

    fn read_line(
        &mut self,
        deadline: Option<(Instant, Duration)>,
        stdout: Option<BorrowedFd<'_>>,
        most: usize,
    ) -> Result<Option<(Option<RequestId>, Reply)>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
                let end = self.scanned + end;
                let line = &self.buffer[self.start..end];
                let parsed = serde_json::from_slice::<Envelope<Box<RawValue>>>(line);
                let Envelope { id, event, data } = match parsed {
                    Ok(envelope) => envelope,
                    Err(error) => return Err(self.protocol(error.to_string())),
                };
                self.start = end + 1;
                self.scanned = self.start;
                if self.start == self.buffer.len() {
                    self.buffer.clear();
                    (self.scanned, self.start) = (0, 0);
                }
                return Ok(Some((id, Reply { event, data })));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.scanned = self.buffer.len();
            if self.buffer.len() > most {
                return Err(self.protocol(format!("a line of more than {most} bytes")));
            }
            let late = deadline.filter(|(at, _)| Instant::now() >= *at);
            // Whoever never stops talking is always ready, and never has an answer.
            if let Some((_, bound)) = late
                && self.overtime == 0
            {
                return Err(self.not_answering(bound));
            }
            if !self.wait(PollFlags::IN, deadline.map(|(at, _)| at), stdout)? {
                match deadline {
                    Some((_, bound)) => return Err(self.not_answering(bound)),
                    None => return Ok(None),
                }
            }
            let count = self.fill()?;
            if late.is_some() {
                self.overtime = self.overtime.saturating_sub(count);
            }
        }
    }

    /// Takes what is there now; how much that was.
    fn fill(&mut self) -> Result<usize, ClientError> {
        let mut chunk = [0; 64 * 1024];
        match rustix::net::recv(&self.stream, &mut chunk, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Err(self.closed()),
            Ok((count, _)) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(self.io(error)),
        }
    }

    /// False at the deadline, or when `stdout` lost its reader.
    fn wait(
        &self,
        what: PollFlags,
        deadline: Option<Instant>,
        stdout: Option<BorrowedFd<'_>>,
    ) -> Result<bool, ClientError> {
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let mut fds = [
                PollFd::from_borrowed_fd(self.stream.as_fd(), what),
                PollFd::from_borrowed_fd(stdout.unwrap_or(self.stream.as_fd()), PollFlags::empty()),
            ];
            let watched = if stdout.is_some() { 2 } else { 1 };
            match rustix::event::poll(&mut fds[..watched], left.map(timespec).as_ref()) {
                Ok(_) if !fds[0].revents().is_empty() => return Ok(true),
                Ok(0) => return Ok(false),
                Ok(_) if watched == 2 && fds[1].revents().intersects(PollFlags::ERR | PollFlags::NVAL) => {
                    return Ok(false);
                }
                // A terminal that hung up brings its own signal.
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.io(error)),
            }
        }
    }

    fn error_body(&self, reply: &Reply) -> Result<ErrorBody, ClientError> {
        serde_json::from_str(reply.data.get()).map_err(|error| self.protocol(error.to_string()))
    }

    fn protocol(&self, what: String) -> ClientError {
        ClientError::Protocol { path: self.path.clone(), what }
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed { path: self.path.clone() }
    }

    fn not_answering(&self, bound: Duration) -> ClientError {
        ClientError::NotAnswering { path: self.path.clone(), bound }
    }

    fn io(&self, error: Errno) -> ClientError {
        ClientError::Io { path: self.path.clone(), error: error.into() }
    }
}

/// Connects within `bound`; the stream doesn't block.
pub(crate) fn dial(socket: &Path, bound: Duration) -> Result<OwnedFd, ClientError> {
    let deadline = Instant::now() + bound;
    let path = shown(socket);
    let address =
        SocketAddrUnix::new(socket).map_err(|why| ClientError::BadPath { path: path.clone(), why })?;
    let stream = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|error| ClientError::Io { path: path.clone(), error: error.into() })?;
    loop {
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream),
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => {
                return Err(ClientError::NoBroker { path });
            }
            Err(Errno::ACCESS | Errno::PERM) => return Err(ClientError::Denied { path }),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(RETRY.min(deadline.saturating_duration_since(Instant::now())));
            }
            Err(Errno::AGAIN | Errno::INTR) => return Err(ClientError::NotAnswering { path, bound }),
            Err(error) => return Err(ClientError::Io { path, error: error.into() }),
        }
    }
}

/// Connects and asks once, both within one `bound`.
///
/// A broker that hangs up instead of answering is looked for again: when it
/// is gone by then, the truth is that there is none.
pub(crate) fn ask(
    socket: &Path,
    method: &str,
    params: impl Serialize,
    bound: Duration,
) -> Result<Reply, ClientError> {
    let start = Instant::now();
    let mut client = Client::connect(socket, bound)?;
    let left = bound.saturating_sub(start.elapsed());
    match client.call(method, params, left) {
        Err(ClientError::NotAnswering { path, .. }) => Err(ClientError::NotAnswering { path, bound }),
        Err(ClientError::Closed { path }) => match Client::connect(socket, Duration::ZERO) {
            Err(absent @ ClientError::NoBroker { .. }) => Err(absent),
            _ => Err(ClientError::Closed { path }),
        },
        other => other,
    }
}

/// As the system calls want it.
pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}

/// The socket's path for messages.
pub(crate) fn shown(path: &Path) -> String {
    crate::output::printable(&PathBuf::from(path).display().to_string())
}
