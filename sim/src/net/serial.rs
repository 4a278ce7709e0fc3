//! Serial devices: the guest opens and closes a device, the hypervisor keeps a
//! stream to the broker that outlives the guest's boots, and connects it again
//! when it breaks.

use std::time::Duration;

use super::stream::{Cargo, Phase};
use super::{Door, EndId, Happening, Hub, NodeId, Owner};

/// A hypervisor tries again after this long.
const REPLUG: Duration = Duration::from_secs(1);

impl Hub {
    /// Gives a guest a serial device, connected to a listener of `to`.
    pub(crate) fn add_device(&mut self, node: NodeId, to: NodeId, door: Door) {
        let end = self.dial_device(node, to, door);
        self.nodes[node].device = Some((end, to, door));
    }

    fn dial_device(&mut self, node: NodeId, to: NodeId, door: Door) -> EndId {
        let owner = Owner { node, life: self.nodes[node].life };
        let end = self.dial(owner, to, door, false);
        if let Some(end) = self.end(end) {
            end.device = true;
        }
        end
    }

    /// The broker is not there, or not any more.
    pub(super) fn unplugged(&mut self, node: NodeId) {
        self.at(self.now + REPLUG, Happening::Plug(node));
    }

    /// The hypervisor connects again; what was under way is lost.
    pub(super) fn plug(&mut self, node: NodeId) {
        let Some((old, to, door)) = self.nodes[node].device else { return };
        let gone = self.end(old).is_none_or(|end| end.closed);
        let refused = self.stream(old).is_some_and(|stream| matches!(stream.phase, Phase::Dialling(_)));
        if !gone && !refused {
            return;
        }
        let conn =
            self.nodes[node].conns.iter().flatten().find(|(_, end)| *end == old).map(|(conn, _)| *conn);
        if let Some(end) = self.end(old) {
            end.closed = true;
            end.conn = None;
        }
        if let Some(stream) = self.stream(old) {
            stream.ends[1].closed |= refused;
        }
        self.bury(old);
        let end = self.dial_device(node, to, door);
        self.nodes[node].device = Some((end, to, door));
        if let Some(conn) = conn {
            self.nodes[node].conns[conn.index as usize] = Some((conn, end));
            if let Some(end) = self.end(end) {
                end.conn = Some(conn);
                // Who waited for room in the old stream waits for it in this one.
                end.wants_write = true;
            }
            self.edge(end, true);
        }
    }

    /// Somebody in the guest opened the device.
    pub(super) fn open_device(&mut self, id: EndId) {
        let Some(owner) = self.owner(id) else { return };
        let life = self.nodes[owner.node].life;
        if let Some(end) = self.end(id) {
            end.owner.life = life;
        }
        self.edge(id, true);
        if self.end(id).is_some_and(|end| end.arrived > 0) {
            self.edge(id, false);
        }
    }

    /// Whoever had the device open is gone. False: it is no device.
    pub(super) fn detach_device(&mut self, id: EndId) -> bool {
        let Some(end) = self.end(id).filter(|end| end.device) else { return false };
        end.conn = None;
        end.wants_write = false;
        true
    }

    /// The hypervisor drops its stream and connects anew; the guest hears nothing.
    pub(crate) fn replug(&mut self, node: NodeId) {
        let Some((end, ..)) = self.nodes[node].device else { return };
        if let Some(held) = self.end(end)
            && !held.closed
        {
            held.closed = true;
            self.send(end, Cargo::Finish);
            self.bury(end);
            self.unplugged(node);
        }
    }
}
