//! Where the checks of peers meet the others: what is said on connections.

use castra_core::id::ConnId;
use castra_core::peers::MessageId;

use super::{Checked, Peers};
use crate::net::NodeId;
use crate::witness::Witness;

impl Witness {
    /// Asks those checks that are about peers, in worlds that have some.
    pub(crate) fn of_peers(&mut self, check: impl FnOnce(&mut Peers) -> Checked) {
        let now = self.now.boot;
        if let Some(peers) = &mut self.peers {
            peers.at(now);
            if let Err((promise, text)) = check(peers) {
                self.blame(promise, None, text);
            }
        }
    }

    /// The broker says something on a connection: messages in it are looked at.
    pub(crate) fn said(&mut self, conn: ConnId, bytes: &[u8]) {
        self.said_of_attach(conn, bytes);
        if self.peers.is_none() {
            return;
        }
        for id in messages_in(bytes, MESSAGE) {
            let guest = self.owner_of(conn).and_then(|owner| self.claims.get(owner.node).copied().flatten());
            self.of_peers(|peers| peers.sends(&id, guest));
        }
    }

    /// An agent says something.
    pub(crate) fn answered(&mut self, node: NodeId, bytes: &[u8]) {
        self.answered_about_attach(node, bytes);
        if self.peers.is_none() {
            return;
        }
        for id in messages_in(bytes, ACKNOWLEDGEMENT) {
            let rejected = bytes.windows(15).any(|window| window == b"\"rejected\":true");
            self.of_peers(|peers| peers.acknowledges(node, &id, rejected));
        }
    }
}

/// Frames that bring a message, and that acknowledge one.
pub(crate) const MESSAGE: &[u8] = b"\"type\":\"peer_message\"";
const ACKNOWLEDGEMENT: &[u8] = b"\"type\":\"peer_ack\"";

/// Where the rare byte of both is.
const RARE: usize = 12;

/// The messages that frames of this type are about.
pub(crate) fn messages_in(bytes: &[u8], kind: &[u8]) -> Vec<MessageId> {
    let mut ids = Vec::new();
    let mut from = RARE;
    while let Some(at) = bytes.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'_')) {
        let id =
            bytes[from + at - RARE..].strip_prefix(kind).and_then(|rest| rest.strip_prefix(b",\"id\":\""));
        let id = id.and_then(|rest| str::from_utf8(rest.get(..36)?).ok()?.parse::<MessageId>().ok());
        ids.extend(id);
        from += at + 1;
    }
    ids
}
