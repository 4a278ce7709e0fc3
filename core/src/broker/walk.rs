//! Long answers, written piece by piece as the client reads.

use alloc::string::String;
use alloc::vec::Vec;

use crate::broker::cx::Cx;
use crate::broker::facts::RowId;
use crate::broker::guests::{Guests, Row};
use crate::control::reply::{Limits, TokenState};
use crate::event::{Cursor, Event};
use crate::id::{GuestName, RequestId};
use crate::link::line::append_number;
use crate::link::message::append_json;
use crate::status::{BrokerState, BrokerStatus, GuestStatus, SCHEMA};
use crate::time::WallTime;

/// Room that any single piece needs at most.
pub(crate) const PIECE_MAX: usize = 4096;

/// An answer in progress.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    envelope: Envelope,
    body: Body,
    begun: bool,
    /// Items written so far.
    count: u64,
    /// The guest that asked: of others' peers it sees none but itself.
    viewer: Option<GuestName>,
}

/// What stands around the document.
#[derive(Clone, Debug)]
pub(crate) enum Envelope {
    /// A line on control.
    Line(Option<RequestId>),
    /// Nothing: the document goes into a frame.
    Bare,
}

#[derive(Clone, Debug)]
enum Body {
    Status { names: Names, as_of: WallTime, reachable: u64 },
    Waited { names: Names },
    Events { next: u64, until: u64, gap: bool, filter: Filter, limit: u64 },
    Tokens { last: Option<GuestName> },
}

/// Which rows, and how far.
#[derive(Clone, Debug)]
pub(crate) enum Names {
    /// Every row; the last one written.
    All(Option<GuestName>),
    /// These, in order; the next one's index.
    Listed(Vec<GuestName>, usize),
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) kinds: Vec<String>,
    /// Sorted.
    pub(crate) guests: Vec<GuestName>,
}

impl Filter {
    pub(crate) fn admits(&self, event: &Event) -> bool {
        let kind = event.fact.kind();
        let of_kind = |wanted: &String| match wanted.strip_suffix('*') {
            Some(family) => kind.starts_with(family),
            None => kind == wanted,
        };
        (self.kinds.is_empty() || self.kinds.iter().any(of_kind))
            && (self.guests.is_empty()
                || event.guest.is_some_and(|guest| self.guests.binary_search(&guest).is_ok()))
    }
}

impl Names {
    fn next(&mut self, guests: &Guests) -> Option<RowId> {
        match self {
            Self::All(last) => {
                let id = guests.after(last.as_ref())?;
                *last = guests.get(id).map(Row::name);
                Some(id)
            }
            Self::Listed(names, index) => loop {
                let name = names.get(*index)?;
                *index += 1;
                if let Some(id) = guests.find(name) {
                    return Some(id);
                }
            },
        }
    }
}

impl Walk {
    pub(crate) fn status(envelope: Envelope, names: Names, as_of: WallTime) -> Self {
        Self::new(envelope, Body::Status { names, as_of, reachable: 0 })
    }

    pub(crate) fn waited(envelope: Envelope, names: Vec<GuestName>) -> Self {
        Self::new(envelope, Body::Waited { names: Names::Listed(names, 0) })
    }

    pub(crate) fn tokens(envelope: Envelope) -> Self {
        Self::new(envelope, Body::Tokens { last: None })
    }

    /// Events from `next` to `until`, both included.
    pub(crate) fn events(
        envelope: Envelope,
        next: u64,
        until: u64,
        gap: bool,
        filter: Filter,
        limit: u64,
    ) -> Self {
        Self::new(envelope, Body::Events { next, until, gap, filter, limit })
    }

    const fn new(envelope: Envelope, body: Body) -> Self {
        Self { envelope, body, begun: false, count: 0, viewer: None }
    }

    /// The whole answer at once, for a guest.
    pub(crate) fn finish(mut self, cx: &Cx, guests: &Guests, viewer: GuestName) -> Vec<u8> {
        self.viewer = Some(viewer);
        let mut out = Vec::new();
        while !self.step(cx, guests, &mut out) {}
        out
    }

    /// Writes one piece of at most [`PIECE_MAX`] bytes; true: that was the last.
    pub(crate) fn step(&mut self, cx: &Cx, guests: &Guests, out: &mut Vec<u8>) -> bool {
        if !core::mem::replace(&mut self.begun, true) {
            self.begin(out);
            return false;
        }
        let more = match &mut self.body {
            Body::Status { names, reachable, .. } => match next_row(names, cx, guests, self.viewer) {
                Some(row) => {
                    *reachable += u64::from(row.reachable);
                    next_item(&mut self.count, out);
                    row.append(out);
                    true
                }
                None => false,
            },
            Body::Waited { names } => match next_row(names, cx, guests, self.viewer) {
                Some(row) => {
                    next_item(&mut self.count, out);
                    row.append(out);
                    true
                }
                None => false,
            },
            Body::Tokens { last } => match guests.token_after(last.as_ref()) {
                Some((guest, valid)) => {
                    *last = Some(guest);
                    item(&mut self.count, out, &TokenState { guest, valid })
                }
                None => false,
            },
            Body::Events { next, until, gap, filter, limit } => {
                if *next < cx.ring.oldest() {
                    *gap = true;
                    *next = cx.ring.oldest();
                }
                let found = (*next..=*until)
                    .take(256)
                    .filter_map(|number| Some((number, cx.ring.get(number)?)))
                    .find(|(_, event)| filter.admits(event));
                match found {
                    _ if *next > *until || self.count >= *limit => false,
                    Some((number, event)) => {
                        *next = number + 1;
                        next_item(&mut self.count, out);
                        event.append_json(None, out);
                        true
                    }
                    None => {
                        *next = (*next + 256).min(*until + 1);
                        true
                    }
                }
            }
        };
        if !more {
            self.end(cx, out);
        }
        !more
    }

    fn begin(&self, out: &mut Vec<u8>) {
        let name = match &self.body {
            Body::Status { .. } => "status",
            Body::Waited { .. } => "waited",
            Body::Events { .. } => "events",
            Body::Tokens { .. } => "token_listed",
        };
        if let Envelope::Line(id) = &self.envelope {
            append_head(out, id.as_ref(), name);
        }
        match &self.body {
            Body::Status { as_of, .. } => {
                out.extend_from_slice(br#"{"schema":"#);
                append_number(out, u64::from(SCHEMA));
                out.extend_from_slice(br#","as_of":"#);
                append_json(out, as_of);
                out.extend_from_slice(br#","guests":["#);
            }
            Body::Waited { .. } => out.extend_from_slice(br#"{"satisfied":true,"guests":["#),
            Body::Events { .. } => out.extend_from_slice(br#"{"events":["#),
            Body::Tokens { .. } => out.extend_from_slice(br#"{"tokens":["#),
        }
    }

    fn end(&self, cx: &Cx, out: &mut Vec<u8>) {
        match &self.body {
            Body::Status { reachable, .. } => {
                out.extend_from_slice(br#"],"broker":"#);
                append_json(out, &broker_status(cx, self.count, *reachable));
                out.push(b'}');
            }
            Body::Waited { .. } | Body::Tokens { .. } => out.extend_from_slice(b"]}"),
            Body::Events { next, gap, .. } => {
                let cursor = Cursor { incarnation: cx.incarnation, number: next - 1 };
                out.extend_from_slice(br#"],"cursor":"#);
                append_json(out, &cursor);
                if *gap {
                    out.extend_from_slice(br#","gap":true"#);
                }
                out.push(b'}');
            }
        }
        if matches!(self.envelope, Envelope::Line(_)) {
            out.extend_from_slice(b"}\n");
        }
    }
}

/// Appends `{"id":…,"event":"NAME","data":`; the caller appends the document and `}\n`.
pub(crate) fn append_head(out: &mut Vec<u8>, id: Option<&RequestId>, event: &str) {
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(br#""id":"#);
        append_json(out, id);
        out.push(b',');
    }
    out.extend_from_slice(br#""event":""#);
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(br#"","data":"#);
}

fn next_row(names: &mut Names, cx: &Cx, guests: &Guests, viewer: Option<GuestName>) -> Option<GuestStatus> {
    let mut row = guests.status(cx, names.next(guests)?, cx.now)?;
    if let Some(viewer) = viewer.filter(|viewer| *viewer != row.name) {
        row.peers.retain(|peer| *peer == viewer);
    }
    Some(row)
}

fn item(count: &mut u64, out: &mut Vec<u8>, value: &impl serde::Serialize) -> bool {
    next_item(count, out);
    append_json(out, value);
    true
}

fn next_item(count: &mut u64, out: &mut Vec<u8>) {
    if *count > 0 {
        out.push(b',');
    }
    *count += 1;
}

fn broker_status(cx: &Cx, guests: u64, reachable: u64) -> BrokerStatus {
    let identity = &cx.config.identity;
    BrokerStatus {
        state: if cx.draining { BrokerState::Draining } else { BrokerState::Serving },
        pid: Some(identity.pid),
        version: Some(identity.version.clone()),
        started_at: Some(identity.started_at),
        incarnation: Some(cx.incarnation),
        listen: identity.listen.clone(),
        guests,
        reachable,
    }
}

/// The bounds in force, for `info`.
pub(crate) fn limits(cx: &Cx) -> Limits {
    Limits {
        guests: cx.config.max_guests as u64,
        half_open: cx.config.half_open_max as u64,
        control_clients: cx.config.control_clients_max as u64,
        control_requests: cx.config.control_requests_max as u64,
        request_bytes: crate::control::request::LINE_MAX as u64,
        frame_bytes: crate::link::inbox::FRAME_MAX as u64,
        events: cx.config.event_ring as u64,
    }
}
