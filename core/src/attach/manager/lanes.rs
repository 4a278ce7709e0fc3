//! Writes in order: of what concerns one guest, one write is on its way at a time.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::Who;
use crate::attach::{Action, ActionStatus, AttachId, Attachment, Secret};
use crate::broker::facts::CommandId;
use crate::id::{EffectId, GuestName};

/// Something to be done once what was begun before is durable.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Somebody wants the guest adopted.
    Adopt { command: CommandId, beach: Option<AttachId>, link: bool },
    /// It is told to attach anew.
    Renew,
    /// It says that it has the code.
    Attach { who: Who, session: AttachId, handshake: AttachId, code: Secret },
    /// The code is too old.
    Lapse { handshake: AttachId },
    /// It is let go of.
    Release { command: CommandId },
    /// An action is taken.
    Enqueue { command: CommandId, action: Box<Action> },
    /// An action is done with.
    Settle { number: u64, status: ActionStatus, code: Option<String>, acked: bool },
}

/// What is on its way to the disk.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// The attachment's record.
    Record { record: Box<Attachment>, why: Why },
    /// The attachment, and all that waits, goes.
    Release { command: CommandId },
    /// An action is taken.
    Enqueue { command: CommandId, action: Box<Action> },
    /// An action is done with.
    Settle { number: u64, status: ActionStatus, code: Option<String>, acked: bool },
}

/// What a record is written for.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// A new attachment, or one that stays as it is but for its address.
    Adopted { command: CommandId, fresh: bool },
    /// A handshake is to follow.
    Renewed { command: Option<CommandId>, refresh: bool },
    /// The guest used its code.
    Attached { who: Who },
    /// The code is too old.
    Lapsed,
}

/// Most changes of actions that are written together.
const GROUP: usize = 64;

impl Op {
    const fn is_about_an_action(&self) -> bool {
        matches!(self, Self::Enqueue { .. } | Self::Settle { .. })
    }
}

impl Write {
    pub(super) const fn command(&self) -> Option<CommandId> {
        match self {
            Self::Record { why: Why::Adopted { command, .. }, .. }
            | Self::Release { command }
            | Self::Enqueue { command, .. } => Some(*command),
            Self::Record { why: Why::Renewed { command, .. }, .. } => *command,
            Self::Record { .. } | Self::Settle { .. } => None,
        }
    }
}

/// One lane a guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<GuestName, Lane>,
    writes: BTreeMap<EffectId, GuestName>,
    /// Lanes in which something waits and nothing is on its way.
    ready: BTreeSet<GuestName>,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    writing: Vec<Write>,
    waiting: VecDeque<Op>,
    is_writing: bool,
    /// The guest was forgotten meanwhile: what is on its way counts for nothing.
    is_void: bool,
}

impl Lanes {
    pub(super) fn push(&mut self, guest: GuestName, op: Op) {
        let lane = self.lanes.entry(guest).or_default();
        lane.waiting.push_back(op);
        if !lane.is_writing {
            self.ready.insert(guest);
        }
    }

    /// Lanes that may go on.
    pub(super) fn ready(&self) -> Vec<GuestName> {
        self.ready.iter().copied().collect()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.ready.is_empty()
    }

    /// What comes next in a lane where nothing is on its way; empty: nothing does.
    pub(super) fn take(&mut self, guest: GuestName) -> Vec<Op> {
        let Some(lane) = self.lanes.get_mut(&guest).filter(|lane| !lane.is_writing) else {
            return Vec::new();
        };
        let along = lane.waiting.iter().take(GROUP).take_while(|op| op.is_about_an_action()).count();
        let group: Vec<Op> = lane.waiting.drain(..along.max(1).min(lane.waiting.len())).collect();
        if group.is_empty() {
            self.lanes.remove(&guest);
            self.ready.remove(&guest);
        }
        group
    }

    /// These are on their way.
    pub(super) fn begin(&mut self, guest: GuestName, effect: EffectId, writes: Vec<Write>) {
        let lane = self.lanes.entry(guest).or_default();
        (lane.writing, lane.is_writing) = (writes, true);
        self.ready.remove(&guest);
        self.writes.insert(effect, guest);
    }

    /// A write ended: what it was, and whether it still counts. `None`: it isn't ours.
    pub(super) fn end(&mut self, effect: EffectId) -> Option<(GuestName, Vec<Write>, bool)> {
        let guest = self.writes.remove(&effect)?;
        let lane = self.lanes.get_mut(&guest)?;
        lane.is_writing = false;
        let counts = !core::mem::take(&mut lane.is_void);
        let writes = core::mem::take(&mut lane.writing);
        self.ready.insert(guest);
        Some((guest, writes, counts))
    }

    /// The guest is forgotten: what waits won't happen, and what is on its way has no effect.
    pub(super) fn void(&mut self, guest: GuestName) -> Vec<Op> {
        let Some(lane) = self.lanes.get_mut(&guest) else { return Vec::new() };
        lane.is_void = lane.is_writing;
        lane.waiting.drain(..).collect()
    }

    /// Nothing that waits will happen.
    pub(super) fn abandon(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.waiting.clear());
        self.ready.clear();
    }

    pub(super) fn is_writing(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Whether the command's change is on its way to the disk.
    pub(super) fn is_on_its_way(&self, id: CommandId) -> bool {
        self.lanes.values().flat_map(|lane| &lane.writing).any(|write| write.command() == Some(id))
    }

    /// Attachments that are being made.
    pub(super) fn adoptions(&self) -> usize {
        let fresh =
            |write: &&Write| matches!(write, Write::Record { why: Why::Adopted { fresh: true, .. }, .. });
        self.lanes.values().flat_map(|lane| &lane.writing).filter(fresh).count()
    }

    /// Whether everything that waits is behind a write or may go on at once.
    #[cfg(feature = "model")]
    pub(super) fn is_guarded(&self) -> bool {
        let guarded = |(guest, lane): (&GuestName, &Lane)| {
            lane.waiting.is_empty() || lane.is_writing || self.ready.contains(guest)
        };
        self.lanes.iter().all(guarded)
    }
}
