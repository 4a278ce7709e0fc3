//! A connection to a control socket: lines out, lines in, and never a wait without a bound.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use castra_core::control::reply::{Envelope, ErrorBody};
use castra_core::id::RequestId;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, shown};

/// Longest reply that grows with the number of guests: far above a status of the most that a broker keeps.
const DOCUMENT_MAX: usize = 512 * 1024 * 1024;

/// Longest other reply: an inbox of 16 MiB of text, each byte of it escaped, and to spare.
const REPLY_MAX: usize = 128 * 1024 * 1024;

/// What was sent in time counts, also for a client that was stopped meanwhile: more than a socket holds.
const OVERTIME: usize = 1024 * 1024;

/// How often a full accept queue is tried again. Linux gives no readiness for it.
const RETRY: Duration = Duration::from_millis(5);

/// One line from the broker.
#[derive(Debug)]
pub struct Reply {
    /// What it is: a reply's event, or an event's kind.
    pub event: String,
    /// The document, byte for byte.
    pub data: Box<RawValue>,
}

impl Reply {
    /// The document as a type. Fields that the type doesn't have are skipped.
    ///
    /// # Errors
    /// [`Error::Protocol`]: it is another document, or holds words that the type doesn't know.
    pub fn parse<D: DeserializeOwned>(&self) -> Result<D, Error> {
        serde_json::from_str(self.data.get())
            .map_err(|error| Error::Protocol { path: self.event.clone(), what: error.to_string() })
    }
}

/// A connection to the control socket of a broker, or of an agent.
#[derive(Debug)]
pub struct Client {
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
    /// Of calls that don't say their own.
    pub(crate) bound: Duration,
}

#[derive(Serialize)]
struct Request<'a, P> {
    id: u64,
    method: &'a str,
    params: P,
}

/// What every refusal has, whatever its code.
#[derive(Deserialize)]
struct AnyError {
    code: String,
    #[serde(default)]
    message: String,
}

impl Client {
    /// Connects within `bound`, also when the accept queue of a stopped broker is full. The
    /// bound holds for each later call that doesn't have its own.
    ///
    /// ```
    /// use std::{path::Path, time::Duration};
    /// use castra_client::{Client, Error};
    ///
    /// let nowhere = Path::new("/nonexistent/control.sock");
    /// let error = Client::connect(nowhere, Duration::from_secs(1)).unwrap_err();
    /// assert!(matches!(error, Error::NoBroker { .. }));
    /// ```
    ///
    /// # Errors
    /// [`Error::NoBroker`], [`Error::Denied`], [`Error::BadPath`] at once;
    /// [`Error::NotAnswering`] when the bound is over.
    pub fn connect(socket: &Path, bound: Duration) -> Result<Self, Error> {
        let (stream, path) = (dial(socket, bound)?, shown(socket));
        Ok(Self {
            stream,
            path,
            buffer: Vec::new(),
            scanned: 0,
            start: 0,
            next_id: 1,
            overtime: OVERTIME,
            bound,
        })
    }

    /// Of each call from here on that doesn't have its own.
    pub const fn set_bound(&mut self, bound: Duration) {
        self.bound = bound;
    }

    /// The connection itself, and what came behind the last reply: after the reply to
    /// `terminals` it speaks something else. It doesn't block.
    #[must_use]
    pub fn into_stream(mut self) -> (OwnedFd, Vec<u8>) {
        self.buffer.drain(..self.start);
        (self.stream, self.buffer)
    }

    /// Asks and waits for the reply to exactly this request, both within `bound`. The document
    /// is kept as it came.
    ///
    /// # Errors
    /// [`Error::Refused`] when the broker says no; [`Error::NotAnswering`],
    /// [`Error::Closed`], [`Error::Protocol`] or [`Error::Io`] without an answer.
    pub fn request(&mut self, method: &str, params: impl Serialize, bound: Duration) -> Result<Reply, Error> {
        let deadline = Instant::now() + bound;
        let id = self.next_id;
        self.next_id += 1;
        self.overtime = OVERTIME;
        let mut line = serde_json::to_vec(&Request { id, method, params })
            .map_err(|error| self.protocol(format!("the request can't be written: {error}")))?;
        line.push(b'\n');
        match self.send(&line, deadline, bound) {
            // Whoever is turned away at the door is told why before the close.
            Ok(()) | Err(Error::Closed { .. }) => {}
            Err(error) => return Err(error),
        }
        let most = if matches!(method, "status" | "list_peers") { DOCUMENT_MAX } else { REPLY_MAX };
        loop {
            let Some((got, reply)) = self.read_line(deadline, most)? else {
                return Err(self.not_answering(bound));
            };
            match got {
                Some(RequestId::Number(number)) if number == id => {
                    return if reply.event == "error" { Err(refused(&reply)) } else { Ok(reply) };
                }
                // What the broker could not read has no id to echo; only this request is open.
                None if reply.event == "error" => return Err(refused(&reply)),
                // A late answer to an earlier request, or a line of a stream.
                _ => {}
            }
        }
    }

    /// The next line of a stream (`events` or `inbox` with `follow`); `None`: nothing came
    /// within `bound`, which may be zero.
    ///
    /// # Errors
    /// [`Error::Refused`]: the broker ends the stream, and says why. [`Error::Closed`]: it ended
    /// without a word. [`Error::Protocol`] and [`Error::Io`] as ever.
    pub fn next_line(&mut self, bound: Duration) -> Result<Option<Reply>, Error> {
        self.overtime = OVERTIME;
        match self.read_line(Instant::now() + bound, REPLY_MAX)? {
            Some((_, reply)) if reply.event == "error" => Err(refused(&reply)),
            line => Ok(line.map(|(_, reply)| reply)),
        }
    }

    /// Whether something comes before `span` is over: for callers that only
    /// want to be woken. Whatever came is dropped.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Io`].
    pub fn wake(&mut self, span: Duration) -> Result<bool, Error> {
        // It may have come together with the last reply.
        if self.start == self.buffer.len() {
            if !self.ready(PollFlags::IN, Instant::now() + span)? {
                return Ok(false);
            }
            self.fill()?;
        }
        self.buffer.clear();
        (self.scanned, self.start) = (0, 0);
        Ok(true)
    }

    fn send(&self, mut line: &[u8], deadline: Instant, bound: Duration) -> Result<(), Error> {
        while !line.is_empty() {
            match rustix::net::send(&self.stream, line, SendFlags::NOSIGNAL) {
                Ok(sent) => line = &line[sent..],
                Err(Errno::AGAIN) => {
                    if !self.ready(PollFlags::OUT, deadline)? {
                        return Err(self.not_answering(bound));
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.closed()),
                Err(error) => return Err(Error::io(&self.path, error)),
            }
        }
        Ok(())
    }

    /// `None` at the deadline.
    fn read_line(
        &mut self,
        deadline: Instant,
        most: usize,
    ) -> Result<Option<(Option<RequestId>, Reply)>, Error> {
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
            let late = Instant::now() >= deadline;
            // Whoever never stops talking is always ready, and never has an answer.
            if late && self.overtime == 0 || !self.ready(PollFlags::IN, deadline)? {
                return Ok(None);
            }
            let count = self.fill()?;
            if late {
                self.overtime = self.overtime.saturating_sub(count);
            }
        }
    }

    /// Takes what is there now; how much that was.
    fn fill(&mut self) -> Result<usize, Error> {
        let mut chunk = [0; 64 * 1024];
        match rustix::net::recv(&self.stream, &mut chunk, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Err(self.closed()),
            Ok((count, _)) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(count)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(Error::io(&self.path, error)),
        }
    }

    /// False at the deadline.
    fn ready(&self, what: PollFlags, deadline: Instant) -> Result<bool, Error> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // One that doesn't fit is longer than anybody waits.
            let left = Timespec::try_from(left).ok();
            match rustix::event::poll(&mut [PollFd::new(&self.stream, what)], left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io(&self.path, error)),
            }
        }
    }

    fn protocol(&self, what: String) -> Error {
        Error::Protocol { path: self.path.clone(), what }
    }

    fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    fn not_answering(&self, bound: Duration) -> Error {
        Error::NotAnswering { path: self.path.clone(), bound }
    }
}

/// Readable when [`Client::next_line`] may have something new, beside what it has read already.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What an `error` says, also with a code that is newer than this program.
fn refused(reply: &Reply) -> Error {
    match reply.parse::<ErrorBody>() {
        Ok(body) => Error::Refused(body),
        Err(error) => match reply.parse::<AnyError>() {
            Ok(AnyError { code, message }) => Error::RefusedOtherwise { code, message },
            Err(_) => error,
        },
    }
}

/// A unix socket that is connected within `bound`, and doesn't block.
///
/// # Errors
/// As [`Client::connect`].
pub fn dial(socket: &Path, bound: Duration) -> Result<OwnedFd, Error> {
    let deadline = Instant::now() + bound;
    let path = shown(socket);
    let address =
        SocketAddrUnix::new(socket).map_err(|why| Error::BadPath { path: path.clone(), why: why.into() })?;
    let stream = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|error| Error::io(&path, error))?;
    loop {
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream),
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => {
                return Err(Error::NoBroker { path });
            }
            Err(Errno::ACCESS | Errno::PERM) => return Err(Error::Denied { path }),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(RETRY.min(deadline.saturating_duration_since(Instant::now())));
            }
            Err(Errno::AGAIN | Errno::INTR) => return Err(Error::NotAnswering { path, bound }),
            Err(error) => return Err(Error::io(&path, error)),
        }
    }
}

/// Connects and asks once, both within one `bound`.
///
/// A broker that hangs up instead of answering is looked for again: when it
/// is gone by then, the truth is that there is none.
///
/// # Errors
/// As [`Client::connect`] and [`Client::request`].
pub fn ask(socket: &Path, method: &str, params: impl Serialize, bound: Duration) -> Result<Reply, Error> {
    let start = Instant::now();
    let mut client = Client::connect(socket, bound)?;
    let left = bound.saturating_sub(start.elapsed());
    match client.request(method, params, left) {
        Err(Error::NotAnswering { path, .. }) => Err(Error::NotAnswering { path, bound }),
        Err(Error::Closed { path }) => match Client::connect(socket, Duration::ZERO) {
            Err(absent @ Error::NoBroker { .. }) => Err(absent),
            _ => Err(Error::Closed { path }),
        },
        other => other,
    }
}
