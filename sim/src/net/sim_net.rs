//! The network as one process's shell sees it.

use std::io;

use castra_core::boundary::{PeerCred, Remote, Transport};
use castra_core::id::ConnId;
use castra_driver::net::{Accepted, ListenerId, Net, Received, Target};

use super::stream::Phase;
use super::{Door, EndId, NodeId, Owner, Shared};

/// The [`Net`] of one simulated process.
#[derive(Debug)]
pub(crate) struct SimNet {
    hub: Shared,
    node: NodeId,
    /// Where a dial goes: whose listener, which one, across the guest's border.
    route: Option<(NodeId, Door, bool)>,
    control: Option<Door>,
    transports: Vec<(Door, Transport)>,
    /// Told at which address each connection was accepted.
    looks: bool,
}

/// The user that everything on the simulated host runs as.
pub(crate) const HOST_USER: PeerCred = PeerCred { uid: 1000, gid: 1000, pid: 1 };

impl SimNet {
    /// The net of a process that dials.
    pub(crate) fn dialler(hub: Shared, node: NodeId, to: NodeId, door: Door, remote: bool) -> Self {
        Self {
            hub,
            node,
            route: Some((to, door, remote)),
            control: None,
            transports: Vec::new(),
            looks: false,
        }
    }

    /// It listens for local clients, too.
    pub(crate) fn with_control(self, door: Door) -> Self {
        Self { control: Some(door), ..self }
    }

    /// The net of a process that listens.
    pub(crate) fn listener(
        hub: Shared,
        node: NodeId,
        control: Door,
        transports: Vec<(Door, Transport)>,
    ) -> Self {
        Self { hub, node, route: None, control: Some(control), transports, looks: false }
    }

    /// It looks at which address each connection was accepted.
    pub(crate) fn looks(self, looks: bool) -> Self {
        Self { looks, ..self }
    }

    /// It dials, too.
    #[cfg(test)]
    pub(super) fn dials(&mut self, to: NodeId, door: Door, remote: bool) {
        self.route = Some((to, door, remote));
    }

    fn attach(&self, conn: ConnId, end: EndId) -> io::Result<()> {
        let mut hub = self.hub.borrow_mut();
        let node = &mut hub.nodes[self.node];
        if node.descriptors.is_some_and(|most| node.open >= most) {
            return Err(io::Error::from_raw_os_error(24));
        }
        let index = conn.index as usize;
        if node.conns.len() <= index {
            node.conns.resize(index + 1, None);
        }
        assert!(node.conns[index].is_none(), "{conn:?} is taken");
        node.conns[index] = Some((conn, end));
        node.open += 1;
        hub.forget_words(self.node, conn);
        if let Some(end) = hub.end(end) {
            end.conn = Some(conn);
        }
        Ok(())
    }

    fn end(&self, conn: ConnId) -> io::Result<EndId> {
        self.hub.borrow().find(self.node, conn).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Net for SimNet {
    fn accept(&mut self, listener: ListenerId, conn: ConnId) -> io::Result<Accepted> {
        let mut hub = self.hub.borrow_mut();
        let node = &mut hub.nodes[self.node];
        if node.descriptors.is_some_and(|most| node.open >= most) {
            return Err(io::Error::from_raw_os_error(24));
        }
        let queue = node.doors.iter_mut().find(|(door, _)| *door == listener);
        let end = queue.and_then(|(_, queue)| queue.pop_front()).ok_or(io::ErrorKind::WouldBlock)?;
        drop(hub);
        self.attach(conn, end)?;
        let mut hub = self.hub.borrow_mut();
        if let Some(held) = hub.end(end)
            && (held.arrived > 0 || held.finished || held.reset)
        {
            hub.edge(end, false);
        }
        let control = self.control == Some(listener);
        let transport = self.transports.iter().find(|(door, _)| *door == listener);
        let remote = match transport {
            Some((_, Transport::Tcp)) => {
                let port = 40_000 + (end.stream % 20_000) as u16;
                Remote::Ip(std::net::SocketAddr::from(([127, 0, 0, 1], port)))
            }
            _ => Remote::Unknown,
        };
        let local = matches!(transport, Some((_, Transport::Tcp))) && self.looks;
        let local = local.then(|| std::net::SocketAddr::from(([127, 0, 0, 1], 7070)));
        Ok(Accepted { remote, local, peer_cred: control.then_some(HOST_USER) })
    }

    fn connect(&mut self, conn: ConnId, _target: &Target) -> io::Result<()> {
        let (to, door, remote) = self.route.ok_or(io::ErrorKind::Unsupported)?;
        let device = self.hub.borrow().nodes[self.node].device;
        if let Some((end, ..)) = device {
            self.attach(conn, end)?;
            self.hub.borrow_mut().open_device(end);
            return Ok(());
        }
        let end = {
            let mut hub = self.hub.borrow_mut();
            let life = hub.nodes[self.node].life;
            hub.dial(Owner { node: self.node, life }, to, door, remote)
        };
        self.attach(conn, end)
    }

    fn connected(&mut self, conn: ConnId) -> io::Result<Remote> {
        let end = self.end(conn)?;
        let mut hub = self.hub.borrow_mut();
        match hub.stream(end).map(|stream| stream.phase) {
            _ if hub.nodes[self.node].device.is_some() => Ok(Remote::Unknown),
            Some(Phase::Dialling(_)) => Err(io::ErrorKind::WouldBlock.into()),
            Some(Phase::Open) => Ok(Remote::Unknown),
            Some(Phase::Refused | Phase::Free) | None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Received> {
        let end = self.end(conn)?;
        let (bytes, drained) = self.hub.borrow_mut().read(end, buffer)?;
        Ok(Received { bytes, drained })
    }

    fn write(&mut self, conn: ConnId, bytes: &[u8]) -> io::Result<usize> {
        let end = self.end(conn)?;
        let mut hub = self.hub.borrow_mut();
        let written = hub.write(end, bytes)?;
        hub.check_written(self.node, conn, &bytes[..written]);
        Ok(written)
    }

    fn want_write(&mut self, conn: ConnId, wanted: bool) -> io::Result<()> {
        let id = self.end(conn)?;
        let mut hub = self.hub.borrow_mut();
        if let Some(end) = hub.end(id) {
            end.wants_write = wanted;
        }
        if wanted && hub.has_room(id) {
            hub.edge(id, true);
        }
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) {
        if let Ok(end) = self.end(conn) {
            self.hub.borrow_mut().finish(end);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Ok(end) = self.end(conn) else { return };
        let mut hub = self.hub.borrow_mut();
        let over =
            hub.end(end).is_none_or(|end| end.finished || end.reset || end.said_finished || end.closed);
        let node = &mut hub.nodes[self.node];
        let index = conn.index as usize;
        node.conns[index] = None;
        node.open -= 1;
        node.closed_last = Some((conn, over));
        if node.former.len() <= index {
            node.former.resize(index + 1, None);
        }
        node.former[index] = Some(conn);
        hub.forget_words(self.node, conn);
        if !hub.detach_device(end) {
            hub.close(end);
        }
    }

    fn close_listener(&mut self, listener: ListenerId) {
        let mut hub = self.hub.borrow_mut();
        let doors = &mut hub.nodes[self.node].doors;
        let Some(at) = doors.iter().position(|(door, _)| *door == listener) else { return };
        let (_, queue) = doors.remove(at);
        for end in queue {
            hub.close(end);
        }
    }
}
