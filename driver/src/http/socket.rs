//! The sockets under the HTTP client: every wait of theirs ends with the deadline of the
//! request that the thread is about, or when that is cancelled.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::listen;
use crate::net::Target;
use crate::pool::Call;

/// Bytes of a connection's buffer for what is sent …
const OUTPUT: usize = 16 * 1024;
/// … and for what is received: more than the longest head.
const INPUT: usize = 32 * 1024;
/// Most look-ups under way. One can't be ended: a dead name server must not pile up threads.
const LOOK_UPS: usize = 4;
/// Most addresses of a name that are tried.
const ADDRESSES: usize = 16;
/// Address space for the stack of a look-up.
const STACK_BYTES: usize = 512 * 1024;

thread_local! {
    /// What this thread is about. A connection serves one request after the other.
    static CALL: RefCell<Option<Arc<Call>>> = const { RefCell::new(None) };
    /// See [`was_stale`].
    static STALE: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` with every socket of this thread bound to `call`.
pub(super) fn within<T>(call: &Arc<Call>, work: impl FnOnce() -> T) -> T {
    CALL.set(Some(Arc::clone(call)));
    let result = work();
    CALL.set(None);
    result
}

/// Whether a connection that had served before ended without a word to this request, since
/// this was asked last: the other end gave it up, most likely before it heard of it.
pub(super) fn was_stale() -> bool {
    STALE.take()
}

fn call() -> io::Result<Arc<Call>> {
    CALL.with_borrow(|call| call.clone()).ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// Looks names up.
#[derive(Debug, Default)]
pub(super) struct Names {
    under_way: Arc<AtomicUsize>,
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().ok_or(Error::HostNotFound)?;
        let mut found = self.empty();
        if let Ok(address) = host.parse::<IpAddr>() {
            found.push(SocketAddr::new(address, port));
            return Ok(found);
        }
        for address in self.look_up(host, port)?.into_iter().take(ADDRESSES) {
            found.push(address);
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

impl Names {
    fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let call = call()?;
        if self.under_way.fetch_add(1, Ordering::AcqRel) >= LOOK_UPS {
            self.under_way.fetch_sub(1, Ordering::AcqRel);
            return Err(io::Error::other("earlier look-ups of names have not ended"));
        }
        let place = Arc::new((Mutex::new(None), eventfd(0, EventfdFlags::CLOEXEC)?));
        let (theirs, under_way, host) = (Arc::clone(&place), Arc::clone(&self.under_way), host.to_owned());
        let thread = thread::Builder::new().name("castra-lookup".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            under_way.fetch_sub(1, Ordering::AcqRel);
            *theirs.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            // Whoever asked may be gone.
            let _ = rustix::io::write(&theirs.1, &1_u64.to_ne_bytes());
        });
        spawned.inspect_err(|_| {
            self.under_way.fetch_sub(1, Ordering::AcqRel);
        })?;
        call.wait(&place.1, PollFlags::IN)?;
        let found = place.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        found.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Opens TCP connections.
#[derive(Debug)]
pub(super) struct Tcp;

impl Connector<()> for Tcp {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Socket>, Error> {
        let call = call()?;
        let mut trouble = Error::HostNotFound;
        let count = details.addrs.len();
        for (at, address) in details.addrs.iter().enumerate() {
            // Each gets its share of what is left.
            let now = Instant::now();
            let share = u32::try_from(count - at).unwrap_or(1);
            let until = now + call.deadline().saturating_duration_since(now) / share;
            match connect(*address, &call, until) {
                Ok(fd) => return Ok(Some(Socket::new(fd))),
                Err(error) => trouble = error.into(),
            }
            call.check()?;
        }
        Err(trouble)
    }
}

fn connect(address: SocketAddr, call: &Call, until: Instant) -> io::Result<OwnedFd> {
    let (fd, carrier) = listen::connect(&Target::Tcp(address))?;
    if !call.wait_until(Some((fd.as_fd(), PollFlags::OUT)), until)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    listen::peer(&fd, carrier).map(|_| fd)
}

/// A TCP connection.
pub(super) struct Socket {
    fd: OwnedFd,
    buffers: LazyBuffers,
    /// The request that it serves, or served last.
    serves: Option<Arc<Call>>,
    /// It served others before, and said nothing to this one yet.
    suspect: bool,
}

impl Socket {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, buffers: LazyBuffers::new(INPUT, OUTPUT), serves: None, suspect: false }
    }

    fn lost(&self, error: Errno) -> Error {
        STALE.set(self.suspect);
        io::Error::from(error).into()
    }
}

/// The buffers hold what nobody should print.
impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let call = call()?;
        if !self.serves.as_ref().is_some_and(|served| Arc::ptr_eq(served, &call)) {
            self.suspect = self.serves.replace(Arc::clone(&call)).is_some();
        }
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            call.check()?;
            match send(&self.fd, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::AGAIN) => call.wait(&self.fd, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let call = call()?;
        loop {
            // An end that always has another byte ready is no way around the deadline.
            call.check()?;
            let room = self.buffers.input_append_buf();
            if room.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a part of it is too long").into());
            }
            match recv(&self.fd, room, RecvFlags::empty()) {
                Ok((_, received)) => {
                    STALE.set(self.suspect && received == 0);
                    self.suspect = false;
                    self.buffers.input_appended(received);
                    return Ok(received > 0);
                }
                Err(Errno::AGAIN) => call.wait(&self.fd, PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    /// Between two answers there is nothing to be read, and no end.
    fn is_open(&mut self) -> bool {
        matches!(recv(&self.fd, &mut [0; 1], RecvFlags::PEEK), Err(Errno::AGAIN))
    }
}
