//! How large the broker's tables are.

use super::Broker;

/// Sizes of the engine's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// Rows that count where rows are bounded: not those of names with a token.
    pub guests: usize,
    /// Link connections.
    pub links: usize,
    /// Half-open ones of them.
    pub half_open: usize,
    /// Control connections.
    pub clients: usize,
    /// Timers, armed or not.
    pub timers: usize,
    /// Messages there is a record of.
    pub messages: usize,
    /// What they are reckoned to take, in bytes.
    pub message_bytes: usize,
    /// Peers' operations that wait for the disk.
    pub peer_operations: usize,
    /// Streams to guests' terminals, asked for or open.
    pub streams: usize,
    /// Bytes that they hold.
    pub stream_bytes: usize,
    /// Guests that are adopted.
    pub attachments: usize,
    /// Actions that wait.
    pub actions: usize,
    /// HTTP connections.
    pub http_clients: usize,
}

impl Broker {
    /// Sizes of the tables, for checks of their bounds.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            guests: self.guests.len() - self.guests.keyed_rows,
            links: self.links.table.len(),
            half_open: self.links.door.len(),
            clients: self.clients.len(),
            timers: self.cx.timers.len(),
            messages: self.peers.sizes().1,
            message_bytes: self.peers.sizes().0,
            peer_operations: self.peers.sizes().2,
            streams: self.tunnels.sizes().0,
            stream_bytes: self.tunnels.sizes().1,
            attachments: self.manager.sizes().0,
            actions: self.manager.sizes().1,
            http_clients: self.server.len(),
        }
    }
}
