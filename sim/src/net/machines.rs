//! What becomes of streams when machines and processes come and go.

use castra_core::time::Time;

use super::stream::Cargo;
use super::{EndId, Happening, Hub, NodeId};

impl Hub {
    /// The machine behind a process is gone: its ends answer nothing.
    pub(crate) fn vanish(&mut self, node: NodeId) {
        for id in self.ends_of(node) {
            if self.detach_device(id) {
                continue;
            }
            if let Some(end) = self.end(id) {
                end.void = true;
                end.conn = None;
            }
            self.bury(id);
        }
        self.forget_process(node);
    }

    /// The process is gone, its kernel closes what it had.
    pub(crate) fn hang_up(&mut self, node: NodeId) {
        for id in self.ends_of(node) {
            if !self.detach_device(id) {
                self.close(id);
            }
        }
        self.forget_process(node);
    }

    fn forget_process(&mut self, node: NodeId) {
        let node = &mut self.nodes[node];
        node.exists = false;
        node.edges.clear();
        node.stirred = false;
        node.conns.clear();
        node.former.clear();
        node.said.clear();
        node.open = 0;
        for (_, queue) in &mut node.doors {
            queue.clear();
        }
    }

    /// Old ends of a machine that is back: its kernel knows nothing of them.
    pub(crate) fn disown(&mut self, node: NodeId) {
        let ends = self.streams.iter().enumerate().flat_map(|(index, stream)| {
            (0..2_u8).filter_map(move |side| {
                let end = &stream.ends[usize::from(side)];
                let id = EndId { stream: index as u32, generation: stream.generation, side };
                (end.void && end.owner.node == node && !end.closed).then_some(id)
            })
        });
        for id in ends.collect::<Vec<_>>() {
            self.send(id, Cargo::Reset);
            if let Some(end) = self.end(id) {
                end.closed = true;
            }
            self.bury(id);
        }
    }

    /// Breaks a stream for both ends.
    pub(crate) fn reset(&mut self, id: EndId) {
        self.send(id, Cargo::Reset);
        self.send(id.other(), Cargo::Reset);
    }

    /// Nothing arrives at an end before `until`.
    pub(crate) fn hold(&mut self, id: EndId, until: Time) {
        if let Some(end) = self.end(id) {
            end.held_until = end.held_until.max(until);
        }
        self.at(until, Happening::Deliver(id));
    }

    /// Everything that is held may go on.
    pub(crate) fn release_all(&mut self) {
        for index in 0..self.streams.len() {
            for side in 0..2_u8 {
                let generation = self.streams[index].generation;
                self.streams[index].ends[usize::from(side)].held_until = Time::ZERO;
                self.at(self.now, Happening::Deliver(EndId { stream: index as u32, generation, side }));
                self.at(self.now, Happening::Knock(EndId { stream: index as u32, generation, side: 0 }));
            }
        }
        for node in &mut self.nodes {
            node.cut_until = Time::ZERO;
        }
    }
}
