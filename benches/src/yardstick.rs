//! The yardstick: what the kernel asks for, and nothing else.
//!
//! One thread, epoll through mio, edge-triggered. It speaks the *shape* of the
//! link protocol (docs/PROTOCOL.md): the same round trips and as many bytes as
//! the broker's, with canned answers. It reads no names, checks no proof, has no
//! deadline and keeps no table but the sockets. It makes the system calls that a
//! good server can't avoid: `TCP_NODELAY` is inherited from the listener, each
//! answer is one write, a read that doesn't fill the buffer has drained the
//! socket, nothing waits for a socket to become writable, and a close takes its
//! registration along.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use castra_core::id::{Epoch, Nonce};
use castra_core::link::inbox::append_frame;
use castra_core::link::line::{Auth, Challenge, GREETING, Ok as Accepted};
use castra_core::link::message::append_challenge;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// The word that, at the end of a hello, asks that the connection's end be told
/// to whoever watches. Brokers ignore it.
pub const WATCHED: &str = "watched";

/// The line, without its end, by which a connection becomes the watcher.
pub const WATCH: &[u8] = b"watch";

/// What the watcher reads, without the line end, when a watched connection ended.
pub const CLOSED: &[u8] = b"closed";

const LISTENER: Token = Token(usize::MAX);
const STDIN: Token = Token(usize::MAX - 1);
const BUFFER: usize = 16 * 1024;
const EVENTS: usize = 1024;
/// As long as the broker's.
const BACKLOG: i32 = 4096;
/// How long the loop sleeps at most while it sends keepalives.
const BEAT: Duration = Duration::from_millis(2);
/// Epochs and numbers of challenges are as long as the broker's after a while.
const EPOCH: Epoch = Epoch::new(1, 50_000);
const SEQUENCE: u64 = 20;
const NONCE: Nonce = Nonce([0x5A; 16]);

/// A bare server.
#[derive(Debug)]
pub struct Yardstick {
    poll: Poll,
    listener: TcpListener,
    conns: Vec<Option<Conn>>,
    vacant: Vec<usize>,
    watcher: Option<usize>,
    keepalive: Option<Keepalive>,
    buffer: Box<[u8]>,
    canned: Canned,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    stage: Stage,
    watched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Hello,
    Proof,
    Frames,
}

/// One cursor walks over all connections once per interval.
#[derive(Debug)]
struct Keepalive {
    interval: Duration,
    round: Instant,
    cursor: usize,
}

#[derive(Debug)]
struct Canned {
    greeting: Vec<u8>,
    challenge: Vec<u8>,
    ok: Vec<u8>,
    keepalive: Vec<u8>,
}

impl Yardstick {
    /// Listens at `address`. With `keepalive`, every connection is challenged
    /// that often once it is through.
    ///
    /// # Errors
    /// The address can't be used, or there are no descriptors left.
    pub fn bind(address: SocketAddr, keepalive: Option<Duration>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
        // A second call changes the length of the queue alone.
        rustix::net::listen(&listener, BACKLOG)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            conns: Vec::new(),
            vacant: Vec::new(),
            watcher: None,
            keepalive: keepalive.map(|interval| Keepalive { interval, round: Instant::now(), cursor: 0 }),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            canned: Canned::new(keepalive),
        })
    }

    /// Where it listens, with its real port.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until standard input ends; for ever, where that can't be watched.
    ///
    /// # Errors
    /// The poller is broken.
    pub fn run(mut self) -> io::Result<()> {
        match self.poll.registry().register(&mut SourceFd(&0), STDIN, Interest::READABLE) {
            // epoll's word for files and the null device.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            registered => registered?,
        }
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.keepalive.as_ref().map(|_| BEAT);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    STDIN if stdin_ended() => return Ok(()),
                    STDIN => {}
                    Token(index) => self.read(index, event),
                }
            }
            self.keep_alive();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let index = self.vacant.pop().unwrap_or(self.conns.len());
            self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            if index == self.conns.len() {
                self.conns.push(None);
            }
            let conn = self.conns[index].insert(Conn { stream, stage: Stage::Hello, watched: false });
            // A peer that is gone already is noticed by its end.
            let _ = conn.stream.write(&self.canned.greeting);
        }
    }

    fn read(&mut self, index: usize, event: &Event) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else { return };
        let mut ended = false;
        while !ended {
            let count = match conn.stream.read(&mut self.buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    ended = true;
                    break;
                }
            };
            let bytes = &self.buffer[..count];
            if conn.stage != Stage::Frames {
                ended = !conn.lines(bytes, &self.canned);
                if conn.stage == Stage::Proof && bytes.starts_with(WATCH) {
                    self.watcher = Some(index);
                }
            }
            if count < self.buffer.len() {
                ended |= event.is_read_closed();
                break;
            }
        }
        if ended {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        let Some(conn) = self.conns[index].take() else { return };
        drop(conn.stream);
        self.vacant.push(index);
        if self.watcher == Some(index) {
            self.watcher = None;
        }
        if conn.watched
            && let Some(watcher) = self.watcher.and_then(|watcher| self.conns[watcher].as_mut())
        {
            let _ = watcher.stream.write(&[CLOSED, b"\n"].concat());
        }
    }

    /// Challenges those whose turn has come: after half the interval, half of all.
    fn keep_alive(&mut self) {
        let Some(keepalive) = &mut self.keepalive else { return };
        let elapsed = keepalive.round.elapsed();
        let part = elapsed.as_secs_f64() / keepalive.interval.as_secs_f64();
        let due = if part >= 1.0 { self.conns.len() } else { (self.conns.len() as f64 * part) as usize };
        while keepalive.cursor < due {
            if let Some(conn) = &mut self.conns[keepalive.cursor]
                && conn.stage == Stage::Frames
            {
                // One that doesn't read misses a challenge.
                let _ = conn.stream.write(&self.canned.keepalive);
            }
            keepalive.cursor += 1;
        }
        if part >= 1.0 {
            keepalive.round += keepalive.interval;
            // After a standstill nothing is made up for.
            keepalive.round = keepalive.round.max(Instant::now() - keepalive.interval);
            keepalive.cursor = 0;
        }
    }
}

impl Conn {
    /// Counts the lines and answers them; whether it could.
    fn lines(&mut self, bytes: &[u8], canned: &Canned) -> bool {
        for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let (answer, next) = match self.stage {
                Stage::Hello => (&canned.challenge, Stage::Proof),
                Stage::Proof => (&canned.ok, Stage::Frames),
                Stage::Frames => return true,
            };
            if self.stage == Stage::Hello {
                self.watched = line.trim_ascii_end().ends_with(WATCHED.as_bytes());
            }
            if self.stream.write(answer).is_err() {
                return false;
            }
            self.stage = next;
        }
        true
    }
}

impl Canned {
    fn new(keepalive: Option<Duration>) -> Self {
        let interval = keepalive.unwrap_or(Duration::from_secs(3600));
        let mut canned = Self {
            greeting: [GREETING, b"\n"].concat(),
            challenge: Vec::new(),
            ok: Vec::new(),
            keepalive: Vec::new(),
        };
        Challenge { nonce: NONCE, epoch: EPOCH, auth: Auth::None }.append(&mut canned.challenge);
        Accepted { epoch: EPOCH, interval, window: interval * 3, proof: None }.append(&mut canned.ok);
        let json = |out: &mut Vec<u8>| append_challenge(out, SEQUENCE, &NONCE);
        append_frame(&mut canned.keepalive, false, 0, json, |_, _| {});
        canned
    }
}

/// Reads what there is; whether the writer is gone.
fn stdin_ended() -> bool {
    !matches!(io::stdin().read(&mut [0; 64]), Ok(1..))
}
