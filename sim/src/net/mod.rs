//! A network in memory, shaped like an edge-triggered poller over a kernel's
//! sockets: delays, cuts, full buffers, short reads, spurious and stale edges,
//! descriptors that run out, ends that vanish without a word.

#[cfg(test)]
mod conformance;
mod machines;
mod said;
mod serial;
mod sim_net;
mod sockets;
mod stream;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use castra_core::boundary::Change;
use castra_core::id::ConnId;
use castra_core::peers::MessageId;
use castra_core::time::Time;
use castra_driver::net::{Endpoint, ListenerId, Ready};

use crate::choice::Choice;
use crate::plan::Network;
use crate::scribe::Scribe;

pub(crate) use said::Heard;
use said::Said;
pub(crate) use sim_net::SimNet;
use stream::{Cargo, End, Phase, Stream};
pub(crate) use stream::{EndId, Owner};

/// A process of the world.
pub(crate) type NodeId = usize;

/// Where the broker's shell has its listeners.
pub(crate) type Door = ListenerId;

/// All streams, and the processes at their ends.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) now: Time,
    network: Network,
    streams: Vec<Stream>,
    free: Vec<u32>,
    pub(crate) nodes: Vec<Node>,
    /// Some process has edges that it hasn't been told.
    pub(crate) stirring: bool,
    due: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    happenings: u64,
    pub(crate) chooser: Chooser,
    /// What one process wrote so far, for those who replay it.
    pub(crate) tap: Option<(NodeId, Vec<u8>)>,
    /// The newest message of a peer's: not every guest minds its own business.
    pub(crate) overheard: Option<MessageId>,
    /// A connection on which something else left than was said.
    pub(crate) garbled: Option<(NodeId, ConnId)>,
    /// Streams within the host are as slow as those across a guest's border.
    pub(crate) slow_locally: bool,
    /// Writes everything down, if somebody wants to read it.
    pub(crate) scribe: Option<Box<Scribe>>,
}

/// The source of choices, in a coat that can be printed.
pub(crate) struct Chooser(pub(crate) Box<dyn Choice>);

impl std::fmt::Debug for Chooser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chooser")
    }
}

/// Shared by the nets of all processes.
pub(crate) type Shared = Rc<RefCell<Hub>>;

/// What the network does by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Happening {
    /// Something may arrive at this end.
    Deliver(EndId),
    /// A dial reaches its listener.
    Knock(EndId),
    /// A dial ended.
    Answered(EndId),
    /// A hypervisor connects a guest's serial device.
    Plug(NodeId),
}

/// A process, as its kernel sees it.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) life: u32,
    /// Whether there is a process (frozen ones included).
    pub(crate) exists: bool,
    pub(crate) edges: Vec<Ready>,
    /// Has edges, or whatever else is worth a turn.
    pub(crate) stirred: bool,
    pub(crate) doors: Vec<(Door, VecDeque<EndId>)>,
    /// Its connections by slot.
    conns: Vec<Option<(ConnId, EndId)>>,
    /// Who had the slot before.
    former: Vec<Option<ConnId>>,
    /// What its engine said on them.
    said: Vec<Said>,
    /// The connection that it closed last, and whether its stream was over.
    pub(crate) closed_last: Option<(ConnId, bool)>,
    pub(crate) open: usize,
    /// Most connections while descriptors are short.
    pub(crate) descriptors: Option<usize>,
    /// Its way to the host is cut until then.
    pub(crate) cut_until: Time,
    /// Its serial device, if it has one: the stream's end, and where the hypervisor connects it.
    pub(crate) device: Option<(EndId, NodeId, Door)>,
}

impl Hub {
    pub(crate) fn new(network: Network, choice: Box<dyn Choice>, now: Time) -> Self {
        Self {
            now,
            network,
            streams: Vec::new(),
            free: Vec::new(),
            nodes: Vec::new(),
            stirring: false,
            due: BinaryHeap::new(),
            happenings: 0,
            chooser: Chooser(choice),
            tap: None,
            overheard: None,
            garbled: None,
            slow_locally: false,
            scribe: None,
        }
    }

    /// Remembers the newest message among changes.
    pub(crate) fn overhear(&mut self, changes: &[Change]) {
        let ids = changes.iter().filter_map(|change| match change {
            Change::SetMessage(message) => Some(message.id),
            _ => None,
        });
        self.overheard = ids.fold(self.overheard, |_, id| Some(id));
    }

    /// A process has something to look at.
    pub(crate) fn stir(&mut self, node: NodeId) {
        self.nodes[node].stirred = true;
        self.stirring = true;
    }

    /// When the network does something next.
    pub(crate) fn next(&self) -> Option<Time> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Does everything that is due.
    pub(crate) fn run(&mut self) {
        while let Some(Reverse((at, _, happening))) = self.due.peek().copied() {
            if at > self.now {
                return;
            }
            self.due.pop();
            match happening {
                Happening::Deliver(end) => self.deliver(end),
                Happening::Knock(end) => self.knock(end),
                Happening::Answered(end) => self.edge(end, true),
                Happening::Plug(node) => self.plug(node),
            }
        }
    }

    fn at(&mut self, time: Time, happening: Happening) {
        self.happenings += 1;
        self.due.push(Reverse((time, self.happenings, happening)));
    }

    pub(crate) fn stream(&mut self, id: EndId) -> Option<&mut Stream> {
        self.streams.get_mut(id.stream as usize).filter(|stream| stream.generation == id.generation)
    }

    pub(crate) fn end(&mut self, id: EndId) -> Option<&mut End> {
        self.stream(id).map(|stream| &mut stream.ends[usize::from(id.side)])
    }

    /// Who is at an end.
    pub(crate) fn owner(&self, id: EndId) -> Option<Owner> {
        let stream = self.streams.get(id.stream as usize)?;
        (stream.generation == id.generation).then(|| stream.ends[usize::from(id.side)].owner)
    }

    /// The end that a process calls `conn`.
    pub(crate) fn find(&self, node: NodeId, conn: ConnId) -> Option<EndId> {
        let (known, end) = self.nodes[node].conns.get(conn.index as usize)?.as_ref()?;
        (*known == conn).then_some(*end)
    }

    /// Who is at the other end of what a process calls `conn`.
    pub(crate) fn peer(&self, node: NodeId, conn: ConnId) -> Option<Owner> {
        self.owner(self.find(node, conn)?.other())
    }

    /// Whether a process has to be told that the other end sends no more.
    pub(crate) fn is_finished(&self, node: NodeId, conn: ConnId) -> bool {
        let Some(end) = self.find(node, conn) else { return true };
        let stream = &self.streams[end.stream as usize];
        let own = &stream.ends[usize::from(end.side)];
        stream.generation != end.generation || own.finished || own.reset
    }

    /// Connections of a process whose other end is closed.
    pub(crate) fn widowed(&self, node: NodeId) -> Vec<ConnId> {
        let closed = |id: EndId| {
            let stream = &self.streams[id.stream as usize];
            stream.generation != id.generation || stream.ends[usize::from(1 - id.side)].closed
        };
        let conns = self.nodes[node].conns.iter().flatten();
        conns.filter(|(_, end)| closed(*end)).map(|(conn, _)| *conn).collect()
    }

    /// All ends that a process holds in its present life.
    pub(crate) fn ends_of(&self, node: NodeId) -> Vec<EndId> {
        let life = self.nodes[node].life;
        let mut ends = Vec::new();
        for (index, stream) in self.streams.iter().enumerate() {
            for side in 0..2_u8 {
                let end = &stream.ends[usize::from(side)];
                if end.owner == (Owner { node, life }) && !end.closed && !end.void {
                    ends.push(EndId { stream: index as u32, generation: stream.generation, side });
                }
            }
        }
        ends
    }

    fn latency(&mut self, remote: bool) -> Duration {
        if !remote && !self.slow_locally {
            return Duration::from_micros(20);
        }
        let Network { latency_min_us, latency_max_us, .. } = self.network;
        Duration::from_micros(self.chooser.0.between(latency_min_us, latency_max_us))
    }

    /// Begins a stream from a process to a listener of `to`. `remote`: across
    /// the border of the guest.
    pub(crate) fn dial(&mut self, owner: Owner, to: NodeId, door: Door, remote: bool) -> EndId {
        let ends = [End::new(owner), End::new(Owner { node: to, life: self.nodes[to].life })];
        let stream = Stream { generation: 0, phase: Phase::Dialling(door), ends, remote };
        let id = match self.free.pop() {
            Some(index) => {
                let former = &mut self.streams[index as usize];
                let generation = former.generation + 1;
                let mut stream = Stream { generation, ..stream };
                for (end, former) in stream.ends.iter_mut().zip(&mut former.ends) {
                    end.inherit(former);
                }
                *former = stream;
                EndId { stream: index, generation, side: 0 }
            }
            None => {
                self.streams.push(stream);
                EndId { stream: self.streams.len() as u32 - 1, generation: 0, side: 0 }
            }
        };
        let arrives = self.now + self.latency(remote);
        self.at(arrives, Happening::Knock(id));
        id
    }

    /// A dial reaches the host: it waits in the queue, or is turned away.
    fn knock(&mut self, id: EndId) {
        let Some(stream) = self.stream(id) else { return };
        let Phase::Dialling(door) = stream.phase else { return };
        let (from, to, remote) = (stream.ends[0].owner, stream.ends[1].owner.node, stream.remote);
        let device = stream.ends[0].device;
        if stream.ends[0].closed || stream.ends[0].void {
            stream.ends[1].closed = true;
            return self.bury(id);
        }
        let cut_until = self.nodes[from.node].cut_until;
        if remote && cut_until > self.now {
            // The kernel asks again until its owner gives up.
            return self.at(cut_until, Happening::Knock(id));
        }
        let back = self.now + self.latency(remote);
        let backlog = self.network.backlog as usize;
        let node = &mut self.nodes[to];
        let life = node.life;
        let queue = node.doors.iter_mut().find(|(known, _)| *known == door).filter(|_| node.exists);
        match queue {
            Some((_, queue)) if queue.len() < backlog => {
                queue.push_back(id.other());
                node.edges.push(Ready::readable(Endpoint::Listener(door)));
                node.stirred = true;
                self.stirring = true;
                if let Some(stream) = self.stream(id) {
                    stream.phase = Phase::Open;
                    stream.ends[1].owner.life = life;
                }
            }
            Some(_) if remote => {
                // A full queue drops the packet; it comes again.
                return self.at(self.now + Duration::from_secs(1), Happening::Knock(id));
            }
            Some(_) | None if device => return self.unplugged(from.node),
            Some(_) | None => {
                if let Some(stream) = self.stream(id) {
                    stream.phase = Phase::Refused;
                    stream.ends[1].closed = true;
                }
            }
        }
        self.at(back, Happening::Answered(id));
    }

    fn deliver(&mut self, id: EndId) {
        let now = self.now;
        let mut scribe = self.scribe.take();
        let Some(end) = self.end(id) else {
            self.scribe = scribe;
            return;
        };
        let due = end.flight.front().map(|segment| segment.arrives);
        let held = end.held_until;
        let (gone, void) = (end.closed, end.void);
        let device = end.device;
        let any = !void
            && end.arrive(now, |segment| {
                if let (Some(scribe), Cargo::Bytes(count)) = (&mut scribe, segment.what) {
                    scribe.arrived(now, id, count);
                }
            });
        let unread = gone && (end.arrived > 0);
        if unread {
            end.bytes.clear();
            end.arrived = 0;
        }
        self.scribe = scribe;
        if void {
            return;
        }
        if device && self.end(id).is_some_and(|end| end.closed) {
            if let Some(owner) = self.owner(id).filter(|_| !gone) {
                // The hypervisor closes its end, too.
                self.send(id, Cargo::Finish);
                self.unplugged(owner.node);
            }
            return self.bury(id);
        }
        if unread {
            // Nobody reads here any more: the kernel says so.
            return self.send(id, Cargo::Reset);
        }
        if any && gone {
            return self.bury(id);
        }
        if any {
            return self.edge(id, false);
        }
        if due.is_some_and(|due| due <= now) && held > now && held < Time::MAX {
            self.at(held, Happening::Deliver(id));
        }
    }

    /// Tells a process about an end.
    fn edge(&mut self, id: EndId, writable: bool) {
        let Some(end) = self.end(id) else { return };
        let (node, life) = (end.owner.node, end.owner.life);
        let (finished, reset, conn) = (end.finished || end.reset, end.reset, end.conn);
        let both = finished && (end.said_finished || end.hangs_up);
        let ready = conn.map(|conn| Ready {
            source: Endpoint::Conn(conn),
            readable: !writable || reset,
            writable: writable || reset,
            finished,
            hangup: reset || both,
        });
        let spurious = self.network.spurious;
        let odd = spurious > 0 && self.chooser.0.once_in(spurious);
        let node = &mut self.nodes[node];
        if node.life != life || !node.exists {
            return;
        }
        node.stirred = true;
        self.stirring = true;
        if let Some(ready) = ready {
            node.edges.push(ready);
            if odd && let Endpoint::Conn(conn) = ready.source {
                // Once more for nothing, and a last word about the connection that had the slot before.
                node.edges.push(Ready { writable: true, ..ready });
                if let Some(Some(former)) = node.former.get(conn.index as usize) {
                    let source = Endpoint::Conn(*former);
                    node.edges.push(Ready { source, finished: true, hangup: true, ..ready });
                }
            }
        }
    }

    /// Puts something on its way from `id` to the other end.
    pub(crate) fn send(&mut self, id: EndId, what: Cargo) {
        let Some(stream) = self.stream(id) else { return };
        let remote = stream.remote;
        let latency = self.latency(remote);
        let (now, to) = (self.now, id.other());
        if let Some(end) = self.end(to) {
            let arrives = end.push(now + latency, what);
            self.at(arrives, Happening::Deliver(to));
        }
    }

    /// Forgets a stream that nobody has any more.
    pub(super) fn bury(&mut self, id: EndId) {
        let Some(stream) = self.stream(id) else { return };
        let [one, two] = &stream.ends;
        let gone = (one.closed || one.void) && (two.closed || two.void);
        if gone && stream.phase != Phase::Free {
            stream.phase = Phase::Free;
            stream.generation += 1;
            for end in &mut stream.ends {
                end.closed = true;
                end.bytes.clear();
                end.flight.clear();
            }
            self.free.push(id.stream);
        }
    }
}

impl Stream {
    /// An end and the other.
    fn pair(&mut self, side: u8) -> [&mut End; 2] {
        let [one, two] = &mut self.ends;
        if side == 0 { [one, two] } else { [two, one] }
    }
}
