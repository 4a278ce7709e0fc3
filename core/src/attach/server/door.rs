//! How many HTTP clients there may be, and who goes when all places are taken.

use alloc::collections::BTreeMap;
use core::cmp::Reverse;

use super::{Answer, Client, Server, State};
use crate::boundary::{CloseReason, Source, Wakeup};
use crate::broker::cx::Cx;
use crate::broker::door::Origin;
use crate::broker::facts::TimerKey;
use crate::id::ConnId;
use crate::time::Time;

impl Server {
    /// At the bound nobody is let in, and whoever asks for nothing may have to go.
    pub(crate) fn mind_the_door(&mut self, cx: &mut Cx) {
        if cx.draining {
            return;
        }
        let full = self.table.len() >= cx.config.manager.connections_max;
        if core::mem::replace(&mut self.shut, full) != full {
            cx.out.read(Source::ManagerDoor, if full { 0 } else { usize::MAX });
        }
        match (self.eviction_due(cx), self.door_timer) {
            // Without one, the connections' own deadlines make room.
            (None, None) => {}
            (None, Some(timer)) => cx.timers.disarm(timer),
            (Some(at), timer) => {
                let timer = timer.unwrap_or_else(|| cx.timers.insert(TimerKey::HttpDoor));
                self.door_timer = Some(timer);
                cx.timers.arm(timer, at, Wakeup::Eviction);
            }
        }
    }

    /// All places are taken: one client that asks for nothing makes room. Those go first of
    /// whom no request ever succeeded; of them those of the source with the most; of them
    /// the one that said nothing for the longest time. Returns why, if one went.
    pub(crate) fn on_door_timer(&mut self, cx: &mut Cx) -> Option<Answer> {
        if !self.shut || cx.draining {
            return None;
        }
        let due = |client: &Client| client.since + cx.config.half_open_grace <= cx.at();
        let Some((conn, client)) = self.worst().filter(|(_, client)| due(client)) else {
            self.mind_the_door(cx);
            return None;
        };
        let message = "too many connections, and others are in need of this one's place";
        let answer = Answer::error(503, "unavailable", message, Some("busy"));
        if client.outbox.0.is_empty() && client.state != State::Lingering {
            let mut bytes = alloc::vec::Vec::new();
            answer.append(true, &mut bytes);
            if bytes.len() <= client.room {
                cx.out.transmit(conn, |out| out.extend_from_slice(&bytes));
            }
        }
        cx.statistics.evictions += 1;
        self.close(cx, conn, CloseReason::Refused);
        Some(answer)
    }

    /// When somebody may be evicted, if the door is shut and there is anybody to evict.
    pub(crate) fn eviction_due(&self, cx: &Cx) -> Option<Time> {
        let (_, client) = self.worst().filter(|_| self.shut)?;
        Some((client.since + cx.config.half_open_grace).max(cx.at()))
    }

    /// Who would have to go first.
    fn worst(&self) -> Option<(ConnId, &Client)> {
        let idle = || self.table.iter().filter(|(_, client)| client.asks_for_nothing());
        let mut sources: BTreeMap<(bool, Origin), u32> = BTreeMap::new();
        for (_, client) in idle() {
            *sources.entry((client.known, client.origin)).or_default() += 1;
        }
        let rank = |client: &Client| {
            let most = Reverse(sources.get(&(client.known, client.origin)).copied());
            (client.known, most, client.since)
        };
        idle().min_by_key(|(_, client)| rank(client)).map(|(conn, client)| (*conn, client))
    }
}

impl Client {
    /// No request of it waits for its answer.
    const fn asks_for_nothing(&self) -> bool {
        !matches!(self.state, State::Asked { .. })
    }
}

#[cfg(feature = "model")]
impl Server {
    /// # Errors
    /// A connection or an eviction without a deadline.
    pub(crate) fn check(
        &self,
        cx: &Cx,
        most: core::time::Duration,
    ) -> Result<(), crate::obligations::Unguarded> {
        use crate::obligations::Unguarded;
        for (conn, client) in &self.table {
            let owes = Unguarded::new("an HTTP connection").on(*conn);
            let Some(at) = cx.timers.armed(client.timer) else { return Err(owes) };
            owes.unless_within(at, cx.at(), most)?;
        }
        if let Some(bound) = self.eviction_due(cx).filter(|_| !cx.draining) {
            let armed = self.door_timer.and_then(|timer| cx.timers.armed(timer));
            Unguarded::new("an HTTP client's eviction").unless_armed(armed, bound)?;
        }
        Ok(())
    }
}
