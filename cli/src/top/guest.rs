//! The guest that is looked at: what happened to it, and whom and what it has. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use castra_core::control::attach::AttachmentRow;
use castra_core::event::{Cursor, Event, Fact, SessionEnd};
use castra_core::id::{Epoch, GuestName};
use castra_core::peers::{Listed, Visibility};
use castra_core::time::WallTime;

use super::feed::EVENTS;
use super::inputs::{PageAnswer, PageAsk, Terminals};

/// How old what is known of its attachment may be: the broker tells of everybody's at once.
const ATTACHMENT_AGE: Duration = Duration::from_secs(5);

/// What of it fills the screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    All,
    Sessions,
    Peers,
    Terminals,
    Events,
}

/// In the order in which a key goes through them.
const PARTS: [Part; 5] = [Part::All, Part::Sessions, Part::Peers, Part::Terminals, Part::Events];

/// All that is known of it besides its row.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) name: GuestName,
    /// Oldest first.
    events: VecDeque<Event>,
    cursor: Option<Cursor>,
    /// Why there are no newer events.
    pub(crate) events_missing: Option<String>,
    /// `None`: not answered yet.
    pub(crate) peers: Option<Result<Vec<Listed>, String>>,
    pub(crate) attachment: Option<Result<Option<AttachmentRow>, String>>,
    attachment_at: Option<Instant>,
    /// With when they were told.
    pub(crate) terminals: Option<(Terminals, Instant)>,
    pub(crate) part: Part,
    pub(crate) scroll: usize,
    /// How far one can scroll, and how much a page is: as drawn last.
    pub(crate) reach: (usize, usize),
}

/// A session that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    pub(crate) epoch: Epoch,
    pub(crate) at: WallTime,
    pub(crate) reason: SessionEnd,
    pub(crate) lasted_ms: u64,
}

impl Page {
    pub(crate) const fn new(name: GuestName) -> Self {
        Self {
            name,
            events: VecDeque::new(),
            cursor: None,
            events_missing: None,
            peers: None,
            attachment: None,
            attachment_at: None,
            terminals: None,
            part: Part::All,
            scroll: 0,
            reach: (0, 1),
        }
    }

    /// What is to be asked.
    pub(crate) fn ask(&self, now: Instant) -> PageAsk {
        let attachment = self.attachment_at.is_none_or(|at| now.duration_since(at) >= ATTACHMENT_AGE);
        PageAsk { guest: self.name, since: self.cursor, attachment }
    }

    /// Takes an answer about this guest.
    pub(crate) fn take(&mut self, answer: PageAnswer, now: Instant) {
        match answer.events {
            Ok(page) => {
                (self.cursor, self.events_missing) = (Some(page.cursor), None);
                self.events.extend(page.events);
                let most = self.events.len().saturating_sub(EVENTS);
                self.events.drain(..most);
            }
            Err(why) => self.events_missing = Some(why),
        }
        let peers = |peers: Vec<Listed>| {
            peers.into_iter().filter(|peer| peer.visibility == Visibility::Peer).collect()
        };
        self.peers = Some(answer.peers.map(peers));
        if let Some(attachment) = answer.attachment {
            (self.attachment, self.attachment_at) = (Some(attachment), Some(now));
        }
    }

    /// Newest first.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// Its sessions that are over, as far back as the broker remembers, newest first.
    pub(crate) fn ended(&self) -> impl Iterator<Item = Ended> {
        self.events().filter_map(|event| match event.fact {
            Fact::SessionClosed { epoch, reason, lasted_ms } => {
                Some(Ended { epoch, at: event.at, reason, lasted_ms })
            }
            _ => None,
        })
    }

    /// Another part of it, `forth` or back.
    pub(crate) fn turn(&mut self, forth: bool) {
        let at = PARTS.iter().position(|part| *part == self.part).unwrap_or(0);
        let step = if forth { 1 } else { PARTS.len() - 1 };
        (self.part, self.scroll) = (PARTS[(at + step) % PARTS.len()], 0);
    }
}
