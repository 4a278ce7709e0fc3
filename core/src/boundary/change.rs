//! Changes of durable state.

use alloc::boxed::Box;

use crate::attach::{Action, Applied, AttachId, Attachment};
use crate::auth::Key;
use crate::id::{GuestName, TerminalId};
use crate::peers::{Fate, Message, MessageId, Pair, Policy, Received, Relation};
use crate::terminals::{Tail, TerminalRecord};
use crate::time::WallTime;

/// Changes that become durable together or not at all.
pub type Batch = alloc::vec::Vec<Change>;

/// One change of durable state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// The next start gets a higher incarnation than this.
    Incarnation(u32),
    /// The name's token; `None` keeps the name keyed for ever without a valid one.
    SetToken {
        /// Whose.
        guest: GuestName,
        /// The key.
        key: Option<Key>,
    },
    /// Everything about the name goes, except that a name that ever had a token
    /// stays keyed, now without a valid one.
    Forget {
        /// Whose.
        guest: GuestName,
    },
    /// What two guests are to each other; `None`: the record goes. Forgetting a
    /// guest turns each [`Relation::Linked`] of it into [`Relation::Missing`], and a
    /// missing one into nothing.
    SetRelation {
        /// Who.
        pair: Pair,
        /// What they are.
        relation: Option<Relation>,
    },
    /// The guest's policy; [`Policy::Default`] has no record. Goes with the guest.
    SetPolicy {
        /// Whose.
        guest: GuestName,
        /// What.
        policy: Policy,
    },
    /// The message's record: new, or in place of the one with its number. Its fate
    /// is another record, which this doesn't touch.
    SetMessage(Box<Message>),
    /// What became of a message.
    SetFate {
        /// Which.
        number: u64,
        /// What.
        fate: Fate,
    },
    /// A message's record and its fate go.
    DropMessage {
        /// Which.
        number: u64,
    },
    /// Agent: a message is in the inbox.
    SetReceived(Box<Received>),
    /// Agent: a message left the inbox.
    DropReceived {
        /// Which.
        number: u64,
    },
    /// Agent: the id was received then; `None`: it is remembered no more.
    SetSeen {
        /// Which.
        id: MessageId,
        /// When.
        at: Option<WallTime>,
    },
    /// A guest's attachment. Goes with the guest, and its actions too.
    SetAttachment(Box<Attachment>),
    /// An attachment goes, and the guest's actions.
    DropAttachment {
        /// Whose.
        guest: GuestName,
    },
    /// An action waits.
    SetAction(Box<Action>),
    /// An action waits no more.
    DropAction {
        /// Which.
        number: u64,
    },
    /// Agent: how far it got with an action.
    SetApplied(Box<Applied>),
    /// Agent: an action is remembered no more.
    DropApplied {
        /// The attachment's session.
        session: AttachId,
        /// Which action of it.
        id: AttachId,
    },
    /// Terminals: the number of the next one is at least this.
    SetTerminalIds(u32),
    /// Terminals: a terminal's record.
    SetTerminal(Box<TerminalRecord>),
    /// Terminals: the end of a terminal's output.
    SetTail {
        /// Whose.
        terminal: TerminalId,
        /// What.
        tail: Box<Tail>,
    },
    /// Terminals: a terminal's record and tail go.
    DropTerminal {
        /// Whose.
        terminal: TerminalId,
    },
}
