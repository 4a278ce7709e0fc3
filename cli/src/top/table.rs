//! All rows: as they were told, as events changed them, as time moves them on;
//! and which of them are shown, in which order. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Instant;

use castra_core::event::{Event, Fact};
use castra_core::id::GuestName;
use castra_core::status::{BrokerState, GuestStatus, Reason, State as Verdict, StatusOutcome};
use castra_core::time::WallTime;

use super::columns::{Column, via};
use crate::duration::millis;

/// One guest.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) status: GuestStatus,
    /// When that came.
    at: Instant,
    /// What the broker's clock said then.
    as_of: WallTime,
    pub(crate) counts: Counts,
}

/// What the events that were seen say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    /// How often it stopped being reachable.
    pub(crate) flaps: u64,
    /// How many of its sessions ended.
    pub(crate) ended: u64,
}

/// What is shown of a guest now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Now {
    /// `None`: its newest known proof is older than its window by now, and the next
    /// answer says whether there is another.
    pub(crate) state: Option<Verdict>,
    pub(crate) reason: Option<Reason>,
    pub(crate) age: Option<u64>,
    pub(crate) session: Option<u64>,
}

impl Row {
    /// How it stands at `now`. `absent`: why nobody can tell.
    pub(crate) fn now(&self, now: Instant, absent: Option<Reason>) -> Now {
        if absent.is_some() {
            return Now { state: Some(Verdict::Offline), reason: absent, age: None, session: None };
        }
        let GuestStatus { state, reason, window_ms, .. } = self.status;
        let since = millis(now.saturating_duration_since(self.at));
        let moved = |then: Option<u64>| then.map(|then| then.saturating_add(since));
        let age = moved(self.status.last_handshake_age_ms);
        let is_past =
            state == Verdict::Reachable && age.zip(window_ms).is_some_and(|(age, window)| age > window);
        Now { state: (!is_past).then_some(state), reason, age, session: moved(self.status.session_age_ms) }
    }

    /// Sessions that ended, and the one that there is.
    pub(crate) fn sessions(&self) -> u64 {
        self.counts.ended + u64::from(self.status.session_age_ms.is_some())
    }

    /// `text` in small letters.
    fn has(&self, text: &str) -> bool {
        let reason = self.status.reason.map_or("", Reason::as_str);
        self.status.name.as_str().to_ascii_lowercase().contains(text)
            || reason.contains(text)
            || self.status.state.as_str().contains(text)
            || via(&self.status).contains(text)
    }
}

/// Which rows are shown, and in which order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wish {
    pub(crate) column: Column,
    pub(crate) is_reversed: bool,
    /// In name, state, reason or link.
    pub(crate) text: String,
    pub(crate) state: Option<Verdict>,
}

/// All of them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Table {
    rows: BTreeMap<GuestName, Row>,
    /// Counted before a row of that name was there.
    counts: BTreeMap<GuestName, Counts>,
    /// Of the rows that are shown.
    order: Vec<GuestName>,
}

impl Table {
    pub(crate) fn get(&self, name: &GuestName) -> Option<&Row> {
        self.rows.get(name)
    }

    /// Those that are shown, in order: as of the last [`Table::arrange`].
    pub(crate) fn order(&self) -> &[GuestName] {
        &self.order
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Takes an answer.
    pub(crate) fn take(&mut self, document: StatusOutcome, is_full: bool, now: Instant) {
        let StatusOutcome { guests, as_of, .. } = document;
        let mut before = if is_full { std::mem::take(&mut self.rows) } else { BTreeMap::new() };
        for status in guests {
            let name = status.name;
            let known = before.remove(&name).or_else(|| self.rows.remove(&name)).map(|row| row.counts);
            let counts = known.or_else(|| self.counts.remove(&name)).unwrap_or_default();
            self.rows.insert(name, Row { status, at: now, as_of, counts });
        }
        if is_full {
            // Who is not there now may come back, but nobody waits for it.
            self.counts.clear();
        }
    }

    /// Takes an event: whether it is about a guest without a row.
    pub(crate) fn happened(&mut self, event: &Event, now: Instant) -> bool {
        let Some(name) = event.guest else { return false };
        let row = self.rows.get_mut(&name);
        let is_known = row.is_some();
        match event.fact {
            Fact::VerdictChanged { from, to, reason, age_ms } => {
                self.counts_of(name).flaps += u64::from(from == Verdict::Reachable && to != from);
                if let Some(row) = self.rows.get_mut(&name).filter(|row| row.as_of < event.at) {
                    let status = &mut row.status;
                    (status.state, status.reason, status.reachable) = (to, reason, to == Verdict::Reachable);
                    if let Some(age) = age_ms {
                        // What is told now begins now; the session's age goes on.
                        let since = millis(now.saturating_duration_since(row.at));
                        status.session_age_ms = status.session_age_ms.map(|then| then + since);
                        (status.last_handshake_age_ms, row.at) = (Some(age), now);
                    }
                    row.as_of = event.at;
                }
            }
            Fact::SessionClosed { .. } => {
                self.counts_of(name).ended += 1;
                if let Some(row) = self.rows.get_mut(&name).filter(|row| row.as_of <= event.at) {
                    row.status.session_age_ms = None;
                }
            }
            Fact::GuestForgotten => {
                self.rows.remove(&name);
                self.counts.remove(&name);
                return false;
            }
            _ => {}
        }
        !is_known
    }

    fn counts_of(&mut self, name: GuestName) -> &mut Counts {
        match self.rows.get_mut(&name) {
            Some(row) => &mut row.counts,
            None => self.counts.entry(name).or_default(),
        }
    }

    /// How many there are of each state: reachable, waiting, offline.
    pub(crate) fn tally(&self) -> [usize; 3] {
        let mut tally = [0; 3];
        for row in self.rows.values() {
            tally[match row.status.state {
                Verdict::Reachable => 0,
                Verdict::Waiting => 1,
                Verdict::Offline => 2,
            }] += 1;
        }
        tally
    }

    /// Least and greatest of what `of` says of the rows.
    pub(crate) fn range(&self, of: impl Fn(&GuestStatus) -> Option<u64>) -> Option<(u64, u64)> {
        let values = || self.rows.values().filter_map(|row| of(&row.status));
        values().min().zip(values().max())
    }

    /// Puts what is to be shown in order. While nobody can tell how they are, states do not count.
    pub(crate) fn arrange(&mut self, wish: &Wish, now: Instant, absent: Option<Reason>) {
        let state = |row: &Row| if absent.is_some() { Verdict::Offline } else { row.status.state };
        let mut shown: Vec<&Row> = self
            .rows
            .values()
            .filter(|row| wish.state.is_none_or(|wanted| wanted == state(row)))
            .filter(|row| wish.text.is_empty() || row.has(&wish.text))
            .collect();
        // By name they are already, and the sort keeps the order of equals.
        shown.sort_by(|one, other| {
            let order = wish.column.compare(one, other, now);
            if wish.is_reversed { order.reverse() } else { order }
        });
        self.order = shown.into_iter().map(|row| row.status.name).collect();
    }
}

/// Something before nothing.
pub(super) fn present_first<T: Ord>(
    one: Option<T>,
    other: Option<T>,
    order: fn(T, T) -> Ordering,
) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => order(one, other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

/// Why nobody can tell how guests are.
pub(super) const fn absence(state: BrokerState) -> Reason {
    match state {
        BrokerState::NotAnswering => Reason::BrokerNotAnswering,
        _ => Reason::NoBroker,
    }
}
