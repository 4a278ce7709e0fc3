//! How machines meet: what they tell each other, and the numbers they use for it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;

use crate::attach::wire::AttachRequest;
use crate::control::reply::ErrorCode;
use crate::id::{ConnId, GuestName};
use crate::link::message::{GuestRequest, GuestRequestKind};
use crate::peers::machine::From;
use crate::peers::wire::PeerRequest;
use crate::tunnel::wire::TunnelFrame;

/// A row's place; one more than its index, so that an optional one is no larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RowId(NonZeroU32);

impl RowId {
    pub(crate) const fn new(index: usize) -> Self {
        // Rows are bounded by `max_guests`.
        Self(NonZeroU32::MIN.saturating_add(index as u32))
    }

    pub(crate) const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A command's number; on the wire, the id of its ping. Aligned so that timers'
/// keys, of which there is one a guest, are smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(Rust, packed(4))]
pub(crate) struct CommandId(pub(crate) u64);

/// Whose deadline it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TimerKey {
    Link(ConnId),
    Row(RowId),
    Command(CommandId),
    Door,
    Records,
    Drain,
    /// A request about peers.
    Peer(CommandId),
    /// Mail.
    Mail,
    /// Streams to terminals.
    Tunnel,
    /// Attachments, actions and leases.
    Attach,
    /// An HTTP client of the manager.
    Http(ConnId),
    /// All places of HTTP clients are taken.
    HttpDoor,
    /// A request about attachments.
    Adoption(CommandId),
}

/// How machines meet.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// A row's verdict may have changed: whoever waits for it looks again.
    Verdict(RowId),
    /// A row has newer evidence than its record.
    Evidence(RowId, Urgency),
    /// A session answered a ping.
    Pong { conn: ConnId, command: CommandId },
    /// A connection is gone: what was asked over it has no answer, and what was
    /// asked of its guest gets none.
    Lost(ConnId),
    /// A guest asks something over its link.
    Asked { conn: ConnId, row: RowId, request: GuestRequest },
    /// Answer such a question.
    Answer { conn: ConnId, kind: GuestRequestKind, id: u64, answer: Result<Vec<u8>, ErrorCode> },
    /// A session began.
    Established { conn: ConnId, row: RowId },
    /// A guest says something about peers.
    Peer(Box<(From, PeerRequest)>),
    /// A guest says something of managed attach.
    Attach(Box<(ConnId, GuestName, AttachRequest)>),
    /// A guest says something of a stream; its data lies in `Cx::tunnel_bytes`.
    Tunnel { conn: ConnId, frame: TunnelFrame<Range<usize>> },
    /// Send a ping to a session.
    Ping { conn: ConnId, command: CommandId },
    /// A name's token changed: its session, and handshakes begun before, end.
    TokenChanged(GuestName),
    /// Delete a row and end its session.
    Forget(GuestName),
    /// Drain and stop.
    Shutdown,
}

/// How soon a 0.1 record should follow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Urgency {
    /// A session began or ended.
    Transition,
    /// A keepalive.
    Refresh,
}

/// Why a row is never dropped to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keep(pub(super) u8);

impl Keep {
    /// Named by the operator.
    pub(crate) const CONFIGURED: Self = Self(1);
    /// Somebody's peer.
    pub(crate) const LINKED: Self = Self(2);
    /// Adopted by a manager.
    pub(crate) const ADOPTED: Self = Self(4);
    /// It has a token.
    pub(crate) const KEYED: Self = Self(8);

    pub(crate) const fn is(self, why: Self) -> bool {
        self.0 & why.0 != 0
    }

    /// Whether it was so before.
    pub(crate) const fn set(&mut self, why: Self, so: bool) -> bool {
        let before = self.is(why);
        self.0 = if so { self.0 | why.0 } else { self.0 & !why.0 };
        before
    }
}
