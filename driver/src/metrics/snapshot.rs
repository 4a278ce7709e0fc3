//! How things are: what a scrape asks of the loop.

use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::config::BrokerConfig;
use castra_core::id::GuestName;
use castra_core::status::{GuestStatus, Reason, State};
use castra_core::{Sizes, Statistics};

use super::effects::Effects;
use super::numbers::Numbers;
use crate::shell::Counters;

/// Everything that a scrape shows of the broker.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// What was counted as it happened.
    pub(crate) numbers: Numbers,
    pub(crate) effects: Effects,
    /// Guests by verdict.
    pub(crate) verdicts: BTreeMap<(State, Option<Reason>), u64>,
    /// Guests with a session.
    pub(crate) sessions: u64,
    /// One row a guest, by name; `None`: they are left out, for they are too many.
    pub(crate) rows: Option<Vec<Row>>,
    pub(crate) sizes: Sizes,
    pub(crate) statistics: Statistics,
    pub(crate) counters: Counters,
    /// Links, and control connections.
    pub(crate) connections: (usize, usize),
    pub(crate) connections_max: usize,
    pub(crate) bounds: Bounds,
}

/// What the configuration says, as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) guests: usize,
    pub(crate) half_open: usize,
    pub(crate) window: Duration,
    pub(crate) interval: Duration,
}

impl Bounds {
    pub(crate) const fn of(config: &BrokerConfig) -> Self {
        Self {
            guests: config.max_guests,
            half_open: config.half_open_max,
            window: config.window,
            interval: config.interval,
        }
    }
}

/// One guest, as the engine judged it when it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) name: GuestName,
    /// Why it is not reachable; `None` exactly when it is.
    pub(crate) reason: Option<Reason>,
    pub(crate) authenticated: bool,
    pub(crate) proof_age: Option<Duration>,
    pub(crate) window: Option<Duration>,
    pub(crate) session_age: Option<Duration>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) exchanges: u64,
    pub(crate) refusals: u64,
    pub(crate) takeovers: u64,
}

impl From<&GuestStatus> for Row {
    fn from(status: &GuestStatus) -> Self {
        Self {
            name: status.name,
            reason: status.reason,
            authenticated: status.authenticated,
            proof_age: status.last_handshake_age_ms.map(Duration::from_millis),
            window: status.window_ms.map(Duration::from_millis),
            session_age: status.session_age_ms.map(Duration::from_millis),
            rtt: status.rtt_us.map(Duration::from_micros),
            exchanges: status.handshakes,
            refusals: status.refusals,
            takeovers: status.takeovers,
        }
    }
}

impl Snapshot {
    /// An empty one; `rows` says whether there may be any.
    pub(crate) fn begin(rows: bool) -> Self {
        Self {
            numbers: Numbers::new(),
            effects: Effects::default(),
            verdicts: BTreeMap::new(),
            sessions: 0,
            rows: rows.then(Vec::new),
            sizes: Sizes::default(),
            statistics: Statistics::default(),
            counters: Counters::default(),
            connections: (0, 0),
            connections_max: 0,
            bounds: Bounds::default(),
        }
    }

    /// Takes a guest in. With more than `most` of them, none keeps a row.
    pub(crate) fn add(&mut self, status: &GuestStatus, most: usize) {
        *self.verdicts.entry((status.state, status.reason)).or_default() += 1;
        self.sessions += u64::from(status.session_age_ms.is_some());
        match &mut self.rows {
            Some(rows) if rows.len() < most => rows.push(status.into()),
            // Some of them would look like all of them.
            rows => *rows = None,
        }
    }
}
