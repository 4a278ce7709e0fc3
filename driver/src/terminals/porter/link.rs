//! The connection to the holder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use castra_core::boundary::{EffectError, EffectErrorKind};
use rustix::net::Shutdown;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::terminals::holder::packet::{Packet, connect, receive};
use crate::terminals::holder::process::{Arguments, StartError, start};
use crate::terminals::holder::wire::{PACKET_MAX, Refusal, Report, Request, VERSION};

/// How long connecting may take, the start of a holder included.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long a holder may let a request wait.
const SEND: Duration = Duration::from_secs(5);
/// Between attempts to meet a holder that is just coming or going.
const AGAIN: Duration = Duration::from_millis(10);

/// Why there is no holder to talk to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PorterError {
    /// Its socket can't be used.
    #[error("can't reach the holder of the terminals at {path:?}: {error}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// None was there, and none could be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It speaks otherwise than this program.
    #[error("the holder of the terminals at {path:?} is of another kind (version {version})")]
    Version {
        /// The socket.
        path: PathBuf,
        /// What it said.
        version: u32,
    },
    /// A newer daemon took the terminals over.
    #[error("another daemon took the terminals over")]
    Replaced,
    /// Out of threads or descriptors.
    #[error("can't look after a terminal: {0}")]
    Resources(#[source] io::Error),
}

impl From<&PorterError> for EffectError {
    fn from(error: &PorterError) -> Self {
        Self { kind: EffectErrorKind::Terminal, message: error.to_string() }
    }
}

/// What the holder says to a request.
pub(super) enum Answer {
    Done,
    Spawned { pid: u32, start_time: u64, pts: String, descriptors: Vec<OwnedFd> },
    Refused(EffectError),
}

impl Answer {
    pub(super) fn refused(kind: Refusal, message: String) -> Self {
        Self::Refused(EffectError { kind: kind.into(), message })
    }
}

/// A terminal that the holder has, as it says when a daemon comes.
#[derive(Debug)]
pub(super) struct HeldTerminal {
    pub(super) terminal: u32,
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) pts: String,
    pub(super) size: (u16, u16),
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) memory: OwnedFd,
    pub(super) counter: OwnedFd,
    /// How many bytes of output are in it, and where it is.
    pub(super) snapshot: Option<(u64, OwnedFd)>,
}

/// A connection.
pub(super) struct Link {
    /// Tells connections apart.
    pub(super) number: u64,
    /// The size of each ring.
    pub(super) ring: u64,
    socket: OwnedFd,
    over: AtomicBool,
}

impl Link {
    /// Connects; starts a holder if there is none.
    pub(super) fn open(
        number: u64,
        launcher: &[std::ffi::OsString],
        arguments: &Arguments,
    ) -> Result<(Self, Vec<HeldTerminal>), PorterError> {
        let path = &arguments.socket;
        let unreachable = |error| PorterError::Unreachable { path: path.clone(), error };
        let deadline = Instant::now() + CONNECT;
        loop {
            let error = match connect(path) {
                Ok(socket) => match greet(&socket, deadline) {
                    Ok((version, ..)) if version != VERSION => {
                        return Err(PorterError::Version { path: path.clone(), version });
                    }
                    Ok((_, ring, held)) => {
                        set_socket_timeout(&socket, Timeout::Recv, None)
                            .and_then(|()| set_socket_timeout(&socket, Timeout::Send, Some(SEND)))
                            .map_err(|error| unreachable(error.into()))?;
                        return Ok((Self { number, ring, socket, over: AtomicBool::new(false) }, held));
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    start(launcher, arguments, deadline)?;
                }
                // It was about to end.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                }
                _ => return Err(unreachable(error)),
            }
            if Instant::now() >= deadline {
                return Err(unreachable(error));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Sends a request.
    pub(super) fn send(&self, request: &Request, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let sent = Packet::new(request, descriptors).and_then(|packet| packet.send(&self.socket));
        if sent.is_err() {
            // A holder that doesn't read is as good as none.
            self.close();
        }
        sent
    }

    /// The next report; `None` when the connection is over.
    pub(super) fn receive(&self, buffer: &mut [u8; PACKET_MAX]) -> Option<(Report, Vec<OwnedFd>)> {
        let received = receive(&self.socket, buffer).ok().flatten();
        if received.is_none() {
            self.over.store(true, Ordering::Release);
        }
        received
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whoever waits in [`Self::receive`] gets `None`.
    pub(super) fn close(&self) {
        self.over.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

/// Says that this is a daemon, and hears what there is.
fn greet(socket: &OwnedFd, deadline: Instant) -> io::Result<(u32, u64, Vec<HeldTerminal>)> {
    Packet::new(&Request::Hello { version: VERSION }, Vec::new())?.send(socket)?;
    let mut buffer = Box::new([0; PACKET_MAX]);
    let (mut version, mut ring, mut held) = (0, 0, Vec::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(AGAIN);
        set_socket_timeout(socket, Timeout::Recv, Some(left))?;
        let Some((report, descriptors)) = receive(socket, &mut buffer)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        match report {
            Report::Hello { version: theirs, ring: size, .. } => (version, ring) = (theirs, size.max(1)),
            Report::Held { terminal, pid, start_time, pts, cols, rows, first, end, snapshot, .. } => {
                let mut descriptors = descriptors.into_iter();
                let (Some(memory), Some(counter), stored) =
                    (descriptors.next(), descriptors.next(), descriptors.next())
                else {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a terminal without output"));
                };
                if snapshot.is_some() && stored.is_none() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a terminal without its screen"));
                }
                let snapshot = snapshot.zip(stored);
                let size = (cols, rows);
                held.push(HeldTerminal {
                    terminal,
                    pid,
                    start_time,
                    pts,
                    size,
                    first,
                    end,
                    memory,
                    counter,
                    snapshot,
                });
            }
            Report::Listed => return Ok((version, ring, held)),
            _ => {}
        }
    }
}
