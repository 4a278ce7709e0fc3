//! turmoil's network, as the shell sees networks: edges instead of futures.
//!
//! Every operation polls in place. `Pending` becomes `WouldBlock`, and the waker
//! that was left behind makes the edge that [`Net`] promises.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use castra_core::boundary::{PeerCred, Remote};
use castra_core::id::ConnId;
use castra_driver::net::{Accepted, Endpoint, ListenerId, Net, Ready, Received, Target};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::choice::{Choice, Seeded};

type Accepting = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>>>>;
type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// TCP of a turmoil host. To be used inside of the host only.
///
/// turmoil never splits or joins a write, so reads are cut here, once in so
/// many. There are no unix sockets: a control listener is a TCP listener whose
/// clients have stated credentials.
pub struct TurmoilNet {
    bell: Arc<Bell>,
    doors: Vec<Option<Door>>,
    conns: BTreeMap<ConnId, Conn>,
    choice: Seeded,
    short_read: u32,
    spurious: u32,
}

struct Door {
    listener: Rc<TcpListener>,
    cred: Option<PeerCred>,
    accepting: Option<Accepting>,
    waker: Waker,
}

struct Conn {
    stage: Stage,
    reads: Waker,
    writes: Waker,
    wants_write: bool,
}

enum Stage {
    Connecting(Connecting),
    Open(TcpStream),
}

/// Whom to wake, and for what.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<Rung>);

#[derive(Debug, Default)]
struct Rung {
    edges: Vec<Edge>,
    driver: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Edge {
    source: Endpoint,
    write: bool,
}

struct Clapper {
    bell: Arc<Bell>,
    edge: Edge,
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.bell.ring(Some(self.edge));
    }
}

impl Bell {
    fn rung(&self) -> std::sync::MutexGuard<'_, Rung> {
        // Nothing that can panic happens under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, edge: Option<Edge>) {
        let mut rung = self.rung();
        if let Some(edge) = edge.filter(|edge| !rung.edges.contains(edge)) {
            rung.edges.push(edge);
        }
        let driver = rung.driver.take();
        drop(rung);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Wakes whoever drives the shell, without an edge.
    pub(crate) fn wake(&self) {
        self.ring(None);
    }

    /// Whether an edge waits; if not, `cx` is woken for the next.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut rung = self.rung();
        rung.driver = Some(cx.waker().clone());
        if rung.edges.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl TurmoilNet {
    /// An empty network. `choice` cuts reads once in `short_read` and makes up
    /// edges once in `spurious`; 0 is never.
    #[must_use]
    pub fn new(choice: Seeded, short_read: u32, spurious: u32) -> Self {
        let (bell, doors, conns) = (Arc::default(), Vec::new(), BTreeMap::new());
        Self { bell, doors, conns, choice, short_read, spurious }
    }

    /// Listens on `port`. With `cred`, whoever connects is said to be that process.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn listen(&mut self, port: u16, cred: Option<PeerCred>) -> io::Result<ListenerId> {
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await?;
        let id = ListenerId(u16::try_from(self.doors.len()).map_err(io::Error::other)?);
        let waker = self.waker(Endpoint::Listener(id), false);
        self.doors.push(Some(Door { listener: Rc::new(listener), cred, accepting: None, waker }));
        Ok(id)
    }

    /// The bell that edges ring.
    pub(crate) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Moves the edges since the last call to `ready`.
    pub fn collect(&mut self, ready: &mut Vec<Ready>) {
        let edges = std::mem::take(&mut self.bell.rung().edges);
        for edge in edges {
            match edge.source {
                Endpoint::Listener(_) => ready.push(Ready::readable(edge.source)),
                Endpoint::Conn(conn) => ready.extend(self.judge(conn, edge)),
            }
        }
        if self.choice.once_in(self.spurious)
            && let Some(conn) = self.conns.keys().next()
        {
            // An edge about nothing, and one about somebody who is gone.
            let gone = ConnId { index: conn.index, generation: conn.generation.wrapping_sub(1) };
            ready.extend([*conn, gone].map(|conn| Ready::readable(Endpoint::Conn(conn))));
        }
    }

    /// What an edge means, as a poller would tell it.
    fn judge(&mut self, conn: ConnId, edge: Edge) -> Option<Ready> {
        let held = self.conns.get_mut(&conn)?;
        let writable = Ready { writable: true, readable: false, ..Ready::readable(edge.source) };
        let Stage::Open(stream) = &mut held.stage else { return Some(writable) };
        if edge.write {
            return held.wants_write.then_some(writable);
        }
        let readable = Ready::readable(edge.source);
        match peek(stream, &held.reads) {
            Poll::Pending => None,
            Poll::Ready(Ok(0)) => Some(Ready { finished: true, ..readable }),
            Poll::Ready(Ok(_)) => Some(readable),
            Poll::Ready(Err(_)) => Some(Ready { writable: true, finished: true, hangup: true, ..readable }),
        }
    }

    fn waker(&self, source: Endpoint, write: bool) -> Waker {
        let edge = Edge { source, write };
        Arc::new(Clapper { bell: Arc::clone(&self.bell), edge }).into()
    }

    fn insert(&mut self, conn: ConnId, stage: Stage) {
        let source = Endpoint::Conn(conn);
        let (reads, writes) = (self.waker(source, false), self.waker(source, true));
        // A poller tells of what is already there when it is asked to watch.
        self.bell.ring(Some(Edge { source, write: false }));
        self.conns.insert(conn, Conn { stage, reads, writes, wants_write: false });
    }

    fn conn(&mut self, conn: ConnId) -> io::Result<&mut Conn> {
        self.conns.get_mut(&conn).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Conn {
    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        match &mut self.stage {
            Stage::Open(stream) => Ok(stream),
            Stage::Connecting(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Net for TurmoilNet {
    fn accept(&mut self, listener: ListenerId, conn: ConnId) -> io::Result<Accepted> {
        let door = self.doors.get_mut(usize::from(listener.0)).and_then(Option::as_mut);
        let door = door.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))?;
        let accepting = door.accepting.get_or_insert_with(|| {
            let listener = Rc::clone(&door.listener);
            Box::pin(async move { listener.accept().await })
        });
        let outcome = ready_now(accepting.as_mut().poll(&mut Context::from_waker(&door.waker)))?;
        door.accepting = None;
        let peer_cred = door.cred;
        let (stream, remote) = outcome?;
        let remote = match peer_cred {
            Some(PeerCred { uid, pid, .. }) => Remote::Process { uid, pid },
            None => Remote::Ip(remote),
        };
        self.insert(conn, Stage::Open(stream));
        Ok(Accepted { remote, local: None, peer_cred })
    }

    fn connect(&mut self, conn: ConnId, target: &Target) -> io::Result<()> {
        let Target::Tcp(address) = *target else { return Err(io::ErrorKind::Unsupported.into()) };
        self.insert(conn, Stage::Connecting(Box::pin(TcpStream::connect(address))));
        match self.connected(conn) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.close(conn);
                Err(error)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn connected(&mut self, conn: ConnId) -> io::Result<Remote> {
        let held = self.conn(conn)?;
        if let Stage::Connecting(connecting) = &mut held.stage {
            let outcome = ready_now(connecting.as_mut().poll(&mut Context::from_waker(&held.writes)))?;
            held.stage = Stage::Open(outcome?);
            self.bell.ring(Some(Edge { source: Endpoint::Conn(conn), write: false }));
        }
        self.conn(conn)?.stream()?.peer_addr().map(Remote::Ip)
    }

    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Received> {
        let cut = self.choice.once_in(self.short_read);
        let most = if cut { 1 + self.choice.below(16) as usize } else { buffer.len() }.min(buffer.len());
        let held = self.conns.get_mut(&conn).ok_or(io::ErrorKind::NotConnected)?;
        let Stage::Open(stream) = &mut held.stage else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut into = ReadBuf::new(&mut buffer[..most]);
        let mut cx = Context::from_waker(&held.reads);
        ready_now(Pin::new(&mut *stream).poll_read(&mut cx, &mut into))??;
        let bytes = into.filled().len();
        // A look at what follows leaves the waker behind, if nothing does.
        Ok(Received { bytes, drained: bytes > 0 && peek(stream, &held.reads).is_pending() })
    }

    fn write(&mut self, conn: ConnId, bytes: &[u8]) -> io::Result<usize> {
        self.conn(conn)?.stream()?.try_write(bytes)
    }

    fn want_write(&mut self, conn: ConnId, wanted: bool) -> io::Result<()> {
        let held = self.conns.get_mut(&conn).ok_or(io::ErrorKind::NotConnected)?;
        held.wants_write = wanted;
        if wanted && let Stage::Open(stream) = &held.stage {
            let room = pin!(stream.writable()).poll(&mut Context::from_waker(&held.writes));
            if room.is_ready() {
                held.writes.wake_by_ref();
            }
        }
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) {
        if let Ok(stream) = self.conn(conn).and_then(Conn::stream) {
            // It ends at once, or there is nobody left to tell.
            let _ = Pin::new(stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    fn close_listener(&mut self, listener: ListenerId) {
        if let Some(door) = self.doors.get_mut(usize::from(listener.0)) {
            *door = None;
        }
    }
}

/// Whether something can be read: 0 is the end.
fn peek(stream: &mut TcpStream, waker: &Waker) -> Poll<io::Result<usize>> {
    let mut byte = [0];
    stream.poll_peek(&mut Context::from_waker(waker), &mut ReadBuf::new(&mut byte))
}

fn ready_now<T>(poll: Poll<T>) -> io::Result<T> {
    match poll {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl std::fmt::Debug for TurmoilNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurmoilNet").field("conns", &self.conns.len()).finish_non_exhaustive()
    }
}
