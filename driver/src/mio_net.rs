//! The kernel's network: the one file that knows the poller.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use castra_core::boundary::{PeerCred, Remote};
use castra_core::id::ConnId;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::{SendFlags, Shutdown};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::listen::{Bound, Carrier, connect, peer};
use crate::net::{Accepted, Endpoint, ListenerId, Net, Ready, Received, Target};
use crate::signals::Signals;

const WAKER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
const CLOCK_SET: Token = Token(usize::MAX - 2);
/// Connection indices lie below, listeners above.
const LISTENERS: u32 = 0xffff_0000;
const EVENTS: usize = 1024;

const _: () = assert!(usize::BITS == 64, "a token holds an index and a generation");

/// Sockets behind epoll, edge-triggered. Linux only: so are the clocks and VM sockets.
#[derive(Debug)]
pub struct MioNet {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    clock_set: Option<OwnedFd>,
    listeners: Vec<Option<Bound>>,
    conns: Vec<Option<Conn>>,
}

#[derive(Debug)]
struct Conn {
    fd: OwnedFd,
    generation: u32,
    carrier: Carrier,
}

/// What woke [`MioNet::wait`] besides the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Woken {
    /// A signal arrived.
    pub signals: bool,
    /// A worker finished something.
    pub work: bool,
}

impl MioNet {
    /// An empty network.
    ///
    /// # Errors
    /// The kernel has no descriptors left for a poller.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let clock_set = watch_clock(&poll).ok();
        let events = Events::with_capacity(EVENTS);
        Ok(Self { poll, events, waker, clock_set, listeners: Vec::new(), conns: Vec::new() })
    }

    /// Takes over a listener.
    ///
    /// # Errors
    /// It can't be watched.
    pub fn listen(&mut self, bound: Bound) -> io::Result<ListenerId> {
        let id = ListenerId(u16::try_from(self.listeners.len()).map_err(io::Error::other)?);
        let token = token(ConnId { index: LISTENERS + u32::from(id.0), generation: 0 });
        self.poll.registry().register(&mut SourceFd(&bound.fd.as_raw_fd()), token, Interest::READABLE)?;
        self.listeners.push(Some(bound));
        Ok(id)
    }

    /// Wakes on signals too.
    ///
    /// # Errors
    /// They can't be watched.
    pub fn watch_signals(&mut self, signals: &mut Signals) -> io::Result<()> {
        self.poll.registry().register(signals.source(), SIGNALS, Interest::READABLE)
    }

    /// Ends a [`MioNet::wait`] from any thread.
    pub fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let waker = Arc::clone(&self.waker);
        Arc::new(move || {
            // It fails only when the poller is gone, and with it whoever waited.
            let _ = waker.wake();
        })
    }

    /// Waits for edges, at most `timeout` (rounded up to the poller's
    /// milliseconds), and appends them to `ready`. Also returns early, with
    /// nothing, when a signal interrupts it or the wall clock was set or the
    /// machine resumed: whoever waits on boot time must look again.
    ///
    /// # Errors
    /// The poller itself is broken.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<Woken> {
        match self.poll.poll(&mut self.events, timeout) {
            // A process that was stopped and continues is interrupted with bytes
            // waiting: they are heard before anybody judges the silence.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.poll_again()?,
            polled => polled?,
        }
        let mut woken = Woken::default();
        for event in &self.events {
            let source = match event.token() {
                WAKER => {
                    woken.work = true;
                    continue;
                }
                SIGNALS => {
                    woken.signals = true;
                    continue;
                }
                CLOCK_SET => {
                    // Reading rearms the edge; that it says ECANCELED is the message.
                    let _ = self.clock_set.as_ref().map(|timer| rustix::io::read(timer, &mut [0; 8]));
                    continue;
                }
                token => endpoint(token),
            };
            let trouble = event.is_error();
            ready.push(Ready {
                source,
                readable: event.is_readable() || trouble,
                writable: event.is_writable() || trouble,
                finished: event.is_read_closed(),
                hangup: event.is_read_closed() && event.is_write_closed(),
            });
        }
        Ok(woken)
    }

    fn poll_again(&mut self) -> io::Result<()> {
        loop {
            match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                polled => return polled,
            }
        }
    }

    fn conn(&self, conn: ConnId) -> io::Result<&Conn> {
        self.conns
            .get(conn.index as usize)
            .and_then(Option::as_ref)
            .filter(|held| held.generation == conn.generation)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    fn insert(&mut self, conn: ConnId, fd: OwnedFd, carrier: Carrier, interest: Interest) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token(conn), interest)?;
        let index = conn.index as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, || None);
        }
        self.conns[index] = Some(Conn { fd, generation: conn.generation, carrier });
        Ok(())
    }
}

impl Net for MioNet {
    fn accept(&mut self, listener: ListenerId, conn: ConnId) -> io::Result<Accepted> {
        let bound = self.listeners.get(usize::from(listener.0)).and_then(Option::as_ref);
        let bound = bound.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))?;
        let (fd, remote) = bound.accept()?;
        let peer_cred = if bound.wants_credentials() { Some(credentials(&fd)?) } else { None };
        let remote = match (remote, peer_cred) {
            (Remote::Unknown, Some(PeerCred { uid, pid, .. })) => Remote::Process { uid, pid },
            (remote, _) => remote,
        };
        let (carrier, local) = (bound.carrier, bound.local_of(&fd));
        self.insert(conn, fd, carrier, Interest::READABLE)?;
        Ok(Accepted { remote, local, peer_cred })
    }

    fn connect(&mut self, conn: ConnId, target: &Target) -> io::Result<()> {
        let (fd, carrier) = connect(target)?;
        self.insert(conn, fd, carrier, Interest::READABLE | Interest::WRITABLE).map_err(|error| match error {
            // epoll's word for files that are always ready.
            error if carrier == Carrier::Device && error.kind() == io::ErrorKind::PermissionDenied => {
                io::Error::new(io::ErrorKind::InvalidInput, "the kernel can't wait for this device")
            }
            error => error,
        })
    }

    fn connected(&mut self, conn: ConnId) -> io::Result<Remote> {
        let held = self.conn(conn)?;
        let remote = peer(&held.fd, held.carrier)?;
        self.want_write(conn, false)?;
        Ok(remote)
    }

    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Received> {
        let held = self.conn(conn)?;
        let bytes = rustix::io::read(&held.fd, &mut *buffer)?;
        // A socket fills the buffer if it can; a device gives one packet at a time.
        Ok(Received { bytes, drained: held.carrier != Carrier::Device && bytes < buffer.len() })
    }

    fn write(&mut self, conn: ConnId, bytes: &[u8]) -> io::Result<usize> {
        let held = self.conn(conn)?;
        Ok(match held.carrier {
            Carrier::Device => rustix::io::write(&held.fd, bytes)?,
            Carrier::Tcp | Carrier::Unix | Carrier::Vsock => {
                rustix::net::send(&held.fd, bytes, SendFlags::NOSIGNAL)?
            }
        })
    }

    fn want_write(&mut self, conn: ConnId, wanted: bool) -> io::Result<()> {
        let fd = self.conn(conn)?.fd.as_raw_fd();
        let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.poll.registry().reregister(&mut SourceFd(&fd), token(conn), interest)
    }

    fn finish(&mut self, conn: ConnId) {
        if let Ok(held) = self.conn(conn) {
            let _ = rustix::net::shutdown(&held.fd, Shutdown::Write);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if self.conn(conn).is_ok() {
            // The last descriptor takes its registration along.
            self.conns[conn.index as usize] = None;
        }
    }

    fn close_listener(&mut self, listener: ListenerId) {
        if let Some(bound) = self.listeners.get_mut(usize::from(listener.0)) {
            *bound = None;
        }
    }
}

/// A timer that is never due, but is cancelled (and so wakes us) when the wall
/// clock jumps, which a resume from suspend does: the poller's own timeout
/// stands still during suspend and would fire late by what was left of it.
fn watch_clock(poll: &Poll) -> io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let never = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: 1 << 33, tv_nsec: 0 } };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), CLOCK_SET, Interest::READABLE)?;
    Ok(timer)
}

/// The process id is 0 for a client outside our pid namespace; the kernel's
/// answer must not be read into a type that knows no 0.
fn credentials(fd: impl AsFd) -> io::Result<PeerCred> {
    let cred = nix::sys::socket::getsockopt(&fd.as_fd(), PeerCredentials)?;
    Ok(PeerCred { uid: cred.uid(), gid: cred.gid(), pid: u32::try_from(cred.pid()).unwrap_or(0) })
}

const fn token(conn: ConnId) -> Token {
    Token((conn.generation as usize) << 32 | conn.index as usize)
}

const fn endpoint(token: Token) -> Endpoint {
    let index = token.0 as u32;
    if index >= LISTENERS {
        Endpoint::Listener(ListenerId((index - LISTENERS) as u16))
    } else {
        Endpoint::Conn(ConnId { index, generation: (token.0 >> 32) as u32 })
    }
}
