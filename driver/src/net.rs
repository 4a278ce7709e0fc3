//! The network as the shell sees it: non-blocking, edge-triggered, keyed by ids.
//!
//! Small and shaped like an edge-triggered poller, so that a simulated network
//! can stand in its place: an edge is told once, reads and writes go on until
//! they would block, announcements may be spurious or name what is already gone.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use castra_core::boundary::{PeerCred, Remote, Transport};
use castra_core::id::ConnId;

/// A listener, numbered by whoever set up the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenerId(pub u16);

/// What became ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A listener: somebody may be waiting.
    Listener(ListenerId),
    /// A connection.
    Conn(ConnId),
}

/// One edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Where.
    pub source: Endpoint,
    /// Reading may make progress.
    pub readable: bool,
    /// Writing may make progress, or a connect came to its end.
    pub writable: bool,
    /// A hint: the other end will send no more. After the data comes an end
    /// or an error, and no further edge announces it.
    pub finished: bool,
    /// A hint: both directions have ended.
    pub hangup: bool,
}

impl Ready {
    /// Only readable.
    #[must_use]
    pub const fn readable(source: Endpoint) -> Self {
        Self { source, readable: true, writable: false, finished: false, hangup: false }
    }
}

/// An accepted connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The other end.
    pub remote: Remote,
    /// Our own end, where somebody wants to know it.
    pub local: Option<SocketAddr>,
    /// Who the kernel says is there; asked for on control listeners only.
    pub peer_cred: Option<PeerCred>,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// How many bytes; 0 is the end of the stream.
    pub bytes: usize,
    /// Nothing more is there for now: the next edge will tell. (A short read
    /// says so on a socket, but not on a character device.)
    pub drained: bool,
}

/// Where a dial goes, names resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// A VM socket.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// A character device.
    Serial(PathBuf),
}

impl Target {
    /// What carries a link to it.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Unix(_) => Transport::Unix,
            Self::Vsock { .. } => Transport::Vsock,
            Self::Serial(_) => Transport::Serial,
        }
    }
}

/// Non-blocking sockets, owned by the network and named by the shell's ids.
///
/// All operations answer at once; what would have to wait is
/// [`io::ErrorKind::WouldBlock`], and a [`Ready`] follows when it is worth trying again.
pub trait Net {
    /// Takes one waiting connection and calls it `conn`.
    ///
    /// # Errors
    /// `WouldBlock` when nobody waits; otherwise what accepting or registering ran into.
    fn accept(&mut self, listener: ListenerId, conn: ConnId) -> io::Result<Accepted>;

    /// Begins to connect; [`Net::connected`] tells the outcome.
    ///
    /// # Errors
    /// `WouldBlock` when the other end's queue is full (try again later: no
    /// edge will come); otherwise why it can't be done.
    fn connect(&mut self, conn: ConnId, target: &Target) -> io::Result<()>;

    /// Whether a connect has come to its end, and with whom.
    ///
    /// # Errors
    /// `WouldBlock` while it is under way; otherwise why it failed.
    fn connected(&mut self, conn: ConnId) -> io::Result<Remote>;

    /// Reads into `buffer`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; otherwise the connection is broken.
    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Received>;

    /// Writes from `bytes`; fewer than all means that no more fits for now.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits; otherwise the connection is broken.
    fn write(&mut self, conn: ConnId, bytes: &[u8]) -> io::Result<usize>;

    /// Whether writable edges are wanted. Off at first, so that a connection
    /// costs no wake-up that nobody waits for. Turned on while already
    /// writable, it gives an edge.
    ///
    /// # Errors
    /// The connection can't be watched; it is as good as broken.
    fn want_write(&mut self, conn: ConnId, wanted: bool) -> io::Result<()>;

    /// Says that nothing more will be sent (half-close). Best effort.
    fn finish(&mut self, conn: ConnId);

    /// Closes a connection and forgets it. No `Ready` that was not yet
    /// delivered needs to be withdrawn: ids carry a generation.
    fn close(&mut self, conn: ConnId);

    /// Closes a listener: whoever waits or comes is turned away.
    fn close_listener(&mut self, listener: ListenerId);
}
