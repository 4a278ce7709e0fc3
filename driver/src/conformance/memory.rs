//! The smallest network there can be: pipes in memory, edge-triggered.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use castra_core::boundary::{Remote, Transport, Via};
use castra_core::id::ConnId;

use super::{Peer, World};
use crate::address::ConnectAddress;
use crate::net::{Accepted, Endpoint, ListenerId, Net, Ready, Received, Target};

/// Bytes under way in one direction.
const PIPE: usize = 64 * 1024;
const LISTENER: ListenerId = ListenerId(0);

/// The world of a [`MemoryNet`].
#[derive(Debug)]
pub struct MemoryWorld(Rc<RefCell<Hub>>);

/// The network.
#[derive(Debug)]
pub struct MemoryNet(Rc<RefCell<Hub>>);

/// The other end of a connection.
#[derive(Debug)]
pub struct MemoryPeer {
    hub: Rc<RefCell<Hub>>,
    pipe: usize,
}

#[derive(Debug, Default)]
struct Hub {
    pipes: Vec<Pipe>,
    conns: BTreeMap<ConnId, usize>,
    waiting: VecDeque<usize>,
    dialled: VecDeque<usize>,
    edges: Vec<Ready>,
}

#[derive(Debug, Default)]
struct Pipe {
    conn: Option<ConnId>,
    to_shell: VecDeque<u8>,
    to_peer: VecDeque<u8>,
    peer_finished: bool,
    peer_closed: bool,
    shell_finished: bool,
    reset: bool,
    watched: bool,
}

impl Hub {
    fn edge(&mut self, pipe: usize, writable: bool) {
        let held = &self.pipes[pipe];
        let Some(conn) = held.conn else { return };
        self.edges.push(Ready {
            source: Endpoint::Conn(conn),
            readable: !writable || held.reset || !held.to_shell.is_empty(),
            writable: writable || held.reset,
            finished: held.peer_finished || held.reset,
            hangup: held.reset,
        });
    }

    fn pipe(&mut self, conn: ConnId) -> io::Result<&mut Pipe> {
        let pipe = *self.conns.get(&conn).ok_or(io::ErrorKind::NotConnected)?;
        Ok(&mut self.pipes[pipe])
    }

    fn attach(&mut self, conn: ConnId, pipe: usize) {
        assert!(self.conns.insert(conn, pipe).is_none(), "{conn:?} exists");
        self.pipes[pipe].conn = Some(conn);
        let held = &self.pipes[pipe];
        if !held.to_shell.is_empty() || held.peer_finished || held.reset {
            self.edge(pipe, false);
        }
    }

    fn open(&mut self) -> usize {
        self.pipes.push(Pipe::default());
        self.pipes.len() - 1
    }
}

impl World for MemoryWorld {
    type Net = MemoryNet;
    type Peer = MemoryPeer;

    fn start() -> (Self, MemoryNet, Vec<(ListenerId, Via)>) {
        let hub = Rc::new(RefCell::new(Hub::default()));
        (Self(Rc::clone(&hub)), MemoryNet(hub), vec![(LISTENER, Via::Link(Transport::Tcp))])
    }

    fn dial(&mut self) -> MemoryPeer {
        let mut hub = self.0.borrow_mut();
        let pipe = hub.open();
        hub.waiting.push_back(pipe);
        hub.edges.push(Ready::readable(Endpoint::Listener(LISTENER)));
        MemoryPeer { hub: Rc::clone(&self.0), pipe }
    }

    fn elsewhere(&mut self) -> Option<ConnectAddress> {
        Some(ConnectAddress::Unix { path: PathBuf::from("elsewhere") })
    }

    fn answer(&mut self) -> Option<MemoryPeer> {
        let pipe = self.0.borrow_mut().dialled.pop_front()?;
        Some(MemoryPeer { hub: Rc::clone(&self.0), pipe })
    }

    fn wait(&mut self, _net: &mut MemoryNet, ready: &mut Vec<Ready>) {
        ready.append(&mut self.0.borrow_mut().edges);
    }
}

impl Net for MemoryNet {
    fn accept(&mut self, _listener: ListenerId, conn: ConnId) -> io::Result<Accepted> {
        let mut hub = self.0.borrow_mut();
        let pipe = hub.waiting.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        hub.attach(conn, pipe);
        Ok(Accepted { remote: Remote::Unknown, local: None, peer_cred: None })
    }

    fn connect(&mut self, conn: ConnId, _target: &Target) -> io::Result<()> {
        let mut hub = self.0.borrow_mut();
        let pipe = hub.open();
        hub.dialled.push_back(pipe);
        hub.attach(conn, pipe);
        Ok(())
    }

    fn connected(&mut self, conn: ConnId) -> io::Result<Remote> {
        self.0.borrow_mut().pipe(conn).map(|_| Remote::Unknown)
    }

    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Received> {
        let mut hub = self.0.borrow_mut();
        let pipe = hub.pipe(conn)?;
        if pipe.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let bytes = take(&mut pipe.to_shell, buffer);
        if bytes == 0 && !pipe.peer_finished {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Received { bytes, drained: bytes < buffer.len() })
    }

    fn write(&mut self, conn: ConnId, bytes: &[u8]) -> io::Result<usize> {
        let mut hub = self.0.borrow_mut();
        let pipe = hub.pipe(conn)?;
        if pipe.reset || pipe.peer_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        put(&mut pipe.to_peer, bytes)
    }

    fn want_write(&mut self, conn: ConnId, wanted: bool) -> io::Result<()> {
        let mut hub = self.0.borrow_mut();
        let pipe = hub.pipe(conn)?;
        pipe.watched = wanted;
        if wanted && pipe.to_peer.len() < PIPE {
            let pipe = hub.conns[&conn];
            hub.edge(pipe, true);
        }
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) {
        if let Ok(pipe) = self.0.borrow_mut().pipe(conn) {
            pipe.shell_finished = true;
        }
    }

    fn close(&mut self, conn: ConnId) {
        let mut hub = self.0.borrow_mut();
        if let Ok(pipe) = hub.pipe(conn) {
            pipe.conn = None;
            pipe.shell_finished = true;
            if !pipe.to_shell.is_empty() {
                pipe.reset = true;
            }
            hub.conns.remove(&conn);
        }
    }

    fn close_listener(&mut self, _listener: ListenerId) {
        let mut hub = self.0.borrow_mut();
        while let Some(pipe) = hub.waiting.pop_front() {
            hub.pipes[pipe].reset = true;
        }
    }
}

impl Peer for MemoryPeer {
    const RESETS: bool = true;

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut hub = self.hub.borrow_mut();
        let pipe = &mut hub.pipes[self.pipe];
        if pipe.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = put(&mut pipe.to_shell, bytes)?;
        hub.edge(self.pipe, false);
        Ok(written)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut hub = self.hub.borrow_mut();
        let pipe = &mut hub.pipes[self.pipe];
        let bytes = take(&mut pipe.to_peer, buffer);
        if bytes > 0 {
            if pipe.watched {
                hub.edge(self.pipe, true);
            }
            return Ok(bytes);
        }
        match (pipe.reset, pipe.shell_finished) {
            (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
            (false, true) => Ok(0),
            (false, false) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn finish(&mut self) {
        let mut hub = self.hub.borrow_mut();
        hub.pipes[self.pipe].peer_finished = true;
        hub.edge(self.pipe, false);
    }

    fn reset(self) {
        let mut hub = self.hub.borrow_mut();
        hub.pipes[self.pipe].reset = true;
        hub.edge(self.pipe, false);
    }
}

impl Drop for MemoryPeer {
    fn drop(&mut self) {
        let mut hub = self.hub.borrow_mut();
        let pipe = &mut hub.pipes[self.pipe];
        pipe.peer_finished = true;
        pipe.peer_closed = true;
        pipe.reset |= !pipe.to_peer.is_empty();
        hub.edge(self.pipe, false);
    }
}

fn take(pipe: &mut VecDeque<u8>, buffer: &mut [u8]) -> usize {
    let bytes = pipe.len().min(buffer.len());
    for (to, from) in buffer.iter_mut().zip(pipe.drain(..bytes)) {
        *to = from;
    }
    bytes
}

fn put(pipe: &mut VecDeque<u8>, bytes: &[u8]) -> io::Result<usize> {
    let fits = bytes.len().min(PIPE - pipe.len());
    if fits == 0 && !bytes.is_empty() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    pipe.extend(&bytes[..fits]);
    Ok(fits)
}
