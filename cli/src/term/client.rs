//! A connection to a server of terminals: requests, replies and events, and never a
//! wait without a bound.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use castra_core::terminals::wire::{
    Answer, CLIENT_FRAME_MAX, Event, Frames, Handshake, Message, PROTOCOL_VERSION, Request, Role,
};
use castra_core::terminals::{Exit, Snapshot};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::door::Door;
use super::error::WireError;
use super::row::Row;
use crate::client::timespec;

/// The moment by which an answer must be there, and how long that was from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within {
    pub(crate) end: Instant,
    pub(crate) bound: Duration,
}

impl Within {
    pub(crate) fn new(bound: Duration) -> Self {
        Self { end: Instant::now() + bound, bound }
    }

    pub(crate) fn left(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

/// What an `ok` says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    pub(crate) session: Option<u32>,
    pub(crate) rows: Vec<Row>,
    pub(crate) snapshot: Option<Box<Snapshot>>,
    pub(crate) offset: Option<u64>,
    pub(crate) owner: Option<String>,
    pub(crate) owner_is_you: bool,
    pub(crate) resumed: bool,
    pub(crate) metrics: Vec<(String, u64)>,
}

/// What the server tells unasked.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Output { session: u32, offset: Option<u64>, bytes: Vec<u8> },
    Exit { session: u32, exit: Exit },
    Resync { session: u32, snapshot: Box<Snapshot>, offset: u64, skipped: u64 },
    Owner { session: u32, owner: Option<String> },
    Resized { session: u32 },
    Lag { session: u32, level: &'static str, bytes: u64 },
}

/// What was heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Reply { seq: u32, answer: Result<Grant, WireError> },
    News(News),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: OwnedFd,
    place: String,
    frames: Frames,
    heard: VecDeque<Heard>,
    /// What is to be sent, and how much of it was.
    unsent: Vec<u8>,
    sent: usize,
    seq: u32,
    /// Whether the server knows more than the published one.
    pub(crate) extended: bool,
}

impl Client {
    /// Connects and shakes hands, both within `within`.
    pub(crate) fn open(door: &Door, role: Role, within: Within) -> Result<Self, WireError> {
        let (stream, rest, token) = door.open(within.left())?;
        let mut client = Self {
            stream,
            place: door.shown(),
            frames: Frames::default(),
            heard: VecDeque::new(),
            unsent: vec![],
            sent: 0,
            seq: 0,
            extended: false,
        };
        client.take(&rest)?;
        let own = own_id();
        let mut handshake = Handshake::new(&token, &own, role);
        handshake.capabilities = vec!["ownership-v2"];
        client.call(&Request::Handshake(handshake), within)?;
        Ok(client)
    }

    /// Asks and waits for the reply to exactly this request. What is told meanwhile
    /// is kept for [`Client::next`].
    pub(crate) fn call(&mut self, request: &Request<'_>, within: Within) -> Result<Grant, WireError> {
        let seq = self.post(request);
        let mut looked = 0;
        loop {
            self.flush()?;
            while looked < self.heard.len() {
                if matches!(&self.heard[looked], Heard::Reply { seq: of, .. } if *of == seq || *of == 0) {
                    let Some(Heard::Reply { answer, .. }) = self.heard.remove(looked) else { continue };
                    return answer;
                }
                looked += 1;
            }
            if !self.wait(within)? {
                return Err(WireError::NotAnswering { place: self.place.clone(), bound: within.bound });
            }
            self.fill()?;
        }
    }

    /// Asks, and leaves the reply, of this number, to [`Client::next`].
    pub(crate) fn post(&mut self, request: &Request<'_>) -> u32 {
        self.seq += 1;
        request.append(self.seq, &mut self.unsent);
        self.seq
    }

    /// The next thing that was heard.
    pub(crate) fn next(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    /// Bytes that could not be sent yet.
    pub(crate) fn waiting(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Sends what can be sent now.
    pub(crate) fn flush(&mut self) -> Result<(), WireError> {
        while self.sent < self.unsent.len() {
            match rustix::net::send(&self.stream, &self.unsent[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.closed()),
                Err(error) => return Err(self.io(error)),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// Takes what is there now.
    pub(crate) fn fill(&mut self) -> Result<(), WireError> {
        let mut chunk = [0; 64 * 1024];
        match rustix::net::recv(&self.stream, &mut chunk, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Err(self.closed()),
            Ok((count, _)) => self.take(&chunk[..count]),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(self.io(error)),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        loop {
            let frame = match self.frames.next(&mut bytes, CLIENT_FRAME_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(error) => return Err(protocol(&self.place, error.to_string())),
            };
            let message = Message::parse(frame).map_err(|error| protocol(&self.place, error.to_string()))?;
            match message {
                Message::Event(event) => self.heard.extend(news(&event).map(Heard::News)),
                Message::Reply { seq, answer } => {
                    let answer = answered(answer, &self.place, &mut self.extended);
                    self.heard.push_back(Heard::Reply { seq, answer });
                }
                Message::Unknown => {}
            }
        }
    }

    /// False when the time is over.
    fn wait(&self, within: Within) -> Result<bool, WireError> {
        loop {
            let mut what = PollFlags::IN;
            what.set(PollFlags::OUT, self.waiting() > 0);
            let mut fds = [PollFd::new(&self.stream, what)];
            match rustix::event::poll(&mut fds, Some(&timespec(within.left()))) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.io(error)),
            }
        }
    }

    fn closed(&self) -> WireError {
        WireError::Closed { place: self.place.clone() }
    }

    fn io(&self, error: Errno) -> WireError {
        WireError::Io { place: self.place.clone(), error: error.into() }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn protocol(place: &str, what: String) -> WireError {
    WireError::Protocol { place: place.to_owned(), what }
}

fn answered(answer: Answer<'_>, place: &str, extended: &mut bool) -> Result<Grant, WireError> {
    match answer {
        Answer::Error { code, message } => {
            Err(WireError::Refused { code: code.to_owned(), message: message.to_owned() })
        }
        Answer::Handshake { protocol_version, capabilities, .. } => {
            *extended = capabilities.contains(&"offsets-v1");
            if protocol_version == PROTOCOL_VERSION {
                return Ok(Grant::default());
            }
            Err(protocol(place, format!("it is of version {protocol_version}")))
        }
        Answer::Granted(granted) => Ok(Grant {
            session: granted.session,
            rows: granted.sessions.iter().flatten().map(Row::from).collect(),
            snapshot: granted.snapshot.map(|snapshot| Box::new(snapshot.into_owned())),
            offset: granted.offset,
            owner: granted.owner.map(str::to_owned),
            owner_is_you: granted.owner_is_you.unwrap_or(false),
            resumed: granted.resumed.unwrap_or(false),
            metrics: granted
                .metrics
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.into_owned(), value))
                .collect(),
        }),
    }
}

fn news(event: &Event<'_>) -> Option<News> {
    Some(match event {
        Event::Output { session, data, offset } => {
            News::Output { session: *session, offset: *offset, bytes: data.to_vec() }
        }
        Event::Exit { session, exit } => News::Exit { session: *session, exit: *exit },
        Event::Resync { session, snapshot, offset, skipped_bytes } => News::Resync {
            session: *session,
            snapshot: Box::new(Snapshot::clone(snapshot)),
            offset: *offset,
            skipped: *skipped_bytes,
        },
        Event::OwnerChanged { session, owner } => {
            News::Owner { session: *session, owner: owner.map(str::to_owned) }
        }
        Event::Resized { session, .. } => News::Resized { session: *session },
        Event::BackpressureWarning { session, queue_size, level } => {
            News::Lag { session: *session, level: level.as_str(), bytes: *queue_size }
        }
        _ => return None,
    })
}

/// What this process calls itself: who it is, for people who see it as an owner.
pub(crate) fn own_id() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let id = format!("{user}@{}:{}", host.trim(), std::process::id());
    id.chars().filter(char::is_ascii_graphic).take(128).collect()
}
