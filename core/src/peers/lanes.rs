//! Writes in order: of what concerns one pair, one write is on its way at a time.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::{Fate, Message, Pair};
use crate::broker::facts::CommandId;
use crate::id::{EffectId, GuestName};

/// Something to be made durable.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// The two become peers.
    Link { command: CommandId, source: GuestName },
    /// They are peers no more; what waits between them expires. Filled in when it is written.
    Unlink { command: CommandId, source: GuestName, expired: Vec<u64> },
    /// A message is taken.
    Send { command: CommandId, message: Box<Message>, queue: bool },
    /// What became of a message.
    Settle { number: u64, fate: Fate },
    /// An ended message loses its text, or its record.
    Trim { number: u64 },
    /// A message's time is over.
    Leave { number: u64 },
}

impl Op {
    /// The message that it is about. Operations about different ones may be written
    /// together, without looking at each other.
    fn message(&self) -> Option<u64> {
        match self {
            Self::Send { message, .. } => Some(message.number),
            Self::Settle { number, .. } | Self::Trim { number } | Self::Leave { number } => Some(*number),
            Self::Link { .. } | Self::Unlink { .. } => None,
        }
    }

    const fn command(&self) -> Option<CommandId> {
        match self {
            Self::Link { command, .. } | Self::Unlink { command, .. } | Self::Send { command, .. } => {
                Some(*command)
            }
            Self::Settle { .. } | Self::Trim { .. } | Self::Leave { .. } => None,
        }
    }

    /// Whether somebody waits for it; what doesn't is bounded by the messages there are.
    const fn counts(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Unlink { .. } | Self::Send { .. })
    }
}

/// Most operations written together.
const GROUP: usize = 64;

/// One lane a pair.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes {
    lanes: BTreeMap<Pair, Lane>,
    writes: BTreeMap<EffectId, Pair>,
    /// The commands and the messages of what is being written.
    commands: BTreeSet<CommandId>,
    taking: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    writing: Vec<Op>,
    waiting: VecDeque<Op>,
}

impl Lanes {
    /// Whether so many wait already that another would be too much.
    pub(crate) fn is_full(&self, pair: &Pair, most: usize) -> bool {
        let waiting = self.lanes.get(pair).map(|lane| lane.waiting.iter().filter(|op| op.counts()).count());
        waiting.is_some_and(|count| count >= most)
    }

    pub(crate) fn push(&mut self, pair: Pair, op: Op) {
        self.lanes.entry(pair).or_default().waiting.push_back(op);
    }

    /// What to write next, if nothing is on its way; empty: nothing to do.
    pub(crate) fn take(&mut self, pair: &Pair) -> Vec<Op> {
        let Some(lane) = self.lanes.get_mut(pair) else { return Vec::new() };
        if !lane.writing.is_empty() {
            return Vec::new();
        }
        let mut about = BTreeSet::new();
        let apart = |op: &&Op| op.message().is_some_and(|number| about.insert(number));
        let along = lane.waiting.iter().take(GROUP).take_while(apart).count();
        let group: Vec<Op> = lane.waiting.drain(..along.max(1).min(lane.waiting.len())).collect();
        if group.is_empty() {
            self.lanes.remove(pair);
        }
        group
    }

    /// These are on their way.
    pub(crate) fn begin(&mut self, pair: Pair, effect: EffectId, ops: Vec<Op>) {
        self.writes.insert(effect, pair);
        self.commands.extend(ops.iter().filter_map(Op::command));
        self.taking.extend(ops.iter().filter_map(taken));
        self.lanes.entry(pair).or_default().writing = ops;
    }

    /// A write ended: what it was. `None`: it isn't ours.
    pub(crate) fn end(&mut self, effect: EffectId) -> Option<(Pair, Vec<Op>)> {
        let pair = self.writes.remove(&effect)?;
        let ops = self.lanes.get_mut(&pair).map(|lane| core::mem::take(&mut lane.writing));
        let ops = ops.unwrap_or_default();
        for op in &ops {
            op.command().map(|command| self.commands.remove(&command));
            taken(op).map(|number| self.taking.remove(&number));
        }
        Some((pair, ops))
    }

    /// Whether anything is on its way to the disk.
    pub(crate) fn is_writing(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Whether the command's operation is on its way to the disk.
    pub(crate) fn is_on_its_way(&self, id: CommandId) -> bool {
        self.commands.contains(&id)
    }

    /// Whether a message is on its way to the disk for the first time.
    pub(crate) fn is_taking(&self, number: u64) -> bool {
        self.taking.contains(&number)
    }

    /// Pairs that are being linked.
    pub(crate) fn linking(&self) -> impl Iterator<Item = &Pair> {
        let links = |op: &Op| matches!(op, Op::Link { .. });
        self.lanes.iter().filter(move |(_, lane)| lane.writing.iter().any(links)).map(|(pair, _)| pair)
    }

    /// The drain: what has not begun won't. Messages that were let in are given back.
    pub(crate) fn abandon(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        for lane in self.lanes.values_mut() {
            for op in lane.waiting.drain(..) {
                if let Op::Send { message, .. } = op {
                    messages.push(*message);
                }
            }
        }
        messages
    }

    /// Operations that wait or are written.
    pub(crate) fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.writing.len() + lane.waiting.len()).sum()
    }
}

fn taken(op: &Op) -> Option<u64> {
    if let Op::Send { message, .. } = op { Some(message.number) } else { None }
}
