//! Half-open connections: how many, and who goes when there are too many.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::num::NonZeroU32;

use crate::boundary::{Remote, Source, Wakeup};
use crate::broker::cx::Cx;
use crate::broker::facts::TimerKey;
use crate::broker::guests::Guests;
use crate::broker::links::{Link, Links, Stage};
use crate::event::Failure;
use crate::id::ConnId;
use crate::time::Time;
use crate::timers::TimerId;

/// The half-open connections.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(super) waiting: Vec<ConnId>,
    pub(super) shut: bool,
    pub(super) timer: TimerId,
}

/// Whom a connection comes from, as far as fairness goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Origin {
    Unknown,
    Ip(IpAddr),
    User(u32),
    Context(u32),
}

impl Door {
    pub(crate) fn new(cx: &mut Cx) -> Self {
        Self { waiting: Vec::new(), shut: false, timer: cx.timers.insert(TimerKey::Door) }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Links {
    /// The connection takes a half-open slot. At the bound accepting stops.
    pub(crate) fn enter_door(&mut self, cx: &mut Cx, conn: ConnId) {
        let Some(link) = self.table.get_mut(conn) else { return };
        if link.half_open.is_some() {
            return;
        }
        self.door.waiting.push(conn);
        // Bounded by the shell's connection table.
        link.half_open = NonZeroU32::new(self.door.waiting.len() as u32);
        if self.door.waiting.len() >= cx.config.half_open_max && !planted!(cx.config, HalfOpenUnbounded) {
            if !core::mem::replace(&mut self.door.shut, true) {
                cx.out.read(Source::LinkDoor, 0);
            }
            self.arm_eviction(cx);
        }
    }

    /// The handshake is over, one way or the other.
    pub(crate) fn leave_door(&mut self, cx: &mut Cx, conn: ConnId) {
        if let Some(slot) = self.table.get_mut(conn).and_then(|link| link.half_open.take()) {
            self.leave_door_slot(cx, slot);
        }
    }

    pub(crate) fn leave_door_slot(&mut self, cx: &mut Cx, slot: NonZeroU32) {
        let index = slot.get() as usize - 1;
        self.door.waiting.swap_remove(index);
        if let Some(moved) = self.door.waiting.get(index)
            && let Some(link) = self.table.get_mut(*moved)
        {
            link.half_open = Some(slot);
        }
        if self.door.shut && self.door.waiting.len() < cx.config.half_open_max && !cx.draining {
            self.door.shut = false;
            cx.timers.disarm(self.door.timer);
            cx.out.read(Source::LinkDoor, usize::MAX);
        }
    }

    /// The bound is reached: connections that had their grace and said no valid
    /// hello go, from the source with most of them, until one may come in.
    pub(crate) fn on_door_timer(&mut self, cx: &mut Cx, guests: &mut Guests) {
        let now = cx.at();
        while self.door.shut {
            let mut sources: BTreeMap<Origin, (u32, ConnId, Time)> = BTreeMap::new();
            for conn in &self.door.waiting {
                let Some(link) = self.table.get(*conn) else { continue };
                let Some(since) = link.evictable_since() else { continue };
                if since + cx.config.half_open_grace > now {
                    continue;
                }
                let entry = sources.entry(origin(link.remote())).or_insert((0, *conn, since));
                entry.0 += 1;
                if since < entry.2 {
                    (entry.1, entry.2) = (*conn, since);
                }
            }
            let Some((_, conn, _)) = sources.values().max_by_key(|(count, ..)| *count) else { break };
            cx.statistics.evictions += 1;
            self.refuse(cx, guests, *conn, Failure::Evicted);
        }
        if self.door.shut {
            self.arm_eviction(cx);
        }
    }

    fn arm_eviction(&self, cx: &mut Cx) {
        // Without one, the handshakes' own deadlines make room.
        if let Some(at) = self.eviction_due(cx) {
            cx.timers.arm(self.door.timer, at, Wakeup::Eviction);
        }
    }

    /// When somebody may be evicted, if the door is shut and there is anybody to evict.
    pub(crate) fn eviction_due(&self, cx: &Cx) -> Option<Time> {
        let grace = cx.config.half_open_grace;
        let evictable = self.door.waiting.iter().filter(|_| self.door.shut).filter_map(|conn| {
            let since = self.table.get(*conn)?.evictable_since()?;
            Some((since + grace).max(cx.at()))
        });
        evictable.min()
    }
}

impl Link {
    /// Since when it is half-open without a valid hello. A serial stream can't
    /// be closed: it has its deadline alone.
    fn evictable_since(&self) -> Option<Time> {
        match self.stage {
            Stage::Hello { since } if !self.is_serial() => Some(since),
            Stage::Idle | Stage::Hello { .. } | Stage::Proving(_) | Stage::Frames => None,
        }
    }
}

/// Whom a connection comes from.
pub(crate) const fn origin(remote: Remote) -> Origin {
    match remote {
        Remote::Unknown => Origin::Unknown,
        Remote::Ip(address) => Origin::Ip(address.ip()),
        Remote::Process { uid, .. } => Origin::User(uid),
        Remote::Vsock { cid, .. } => Origin::Context(cid),
    }
}
