//! What the console knows and shows: inputs change it, and say what is to be asked. Pure.

use std::time::Instant;

use castra_core::control::reply::InboxMessage;
use castra_core::event::{Event, Fact};
use castra_core::id::GuestName;
use castra_core::peers::{Listed, Visibility};
use castra_core::time::WallTime;

use super::inputs::{Effect, Input, Role, Snapshot};
use crate::tui::action::{Action, Slot, Told, linked_names, unlinked};
use crate::tui::line::Line;
use crate::tui::notice::Notices;

/// How things stand with whoever is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    Connecting,
    Online,
    /// With the reason.
    Offline(String),
}

/// What is shown between header and action bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    Both,
    Peers,
    Inbox,
    Help,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) name: GuestName,
    pub(crate) link: Link,
    /// The newest snapshot, and when it came.
    pub(crate) snapshot: Option<(Snapshot, Instant)>,
    pub(crate) inbox: Result<Vec<InboxMessage>, String>,
    pub(crate) notices: Notices,
    pub(crate) line: Line,
    /// Whether the command line is open.
    pub(crate) is_writing: bool,
    pub(crate) view: View,
    /// Lines between the newest and the last that is shown; in the help and
    /// the peers, between the first and the first that is shown.
    pub(crate) scroll: usize,
    /// How far one can scroll, and how much a page is: as drawn last.
    pub(crate) reach: (usize, usize),
    /// What is unanswered.
    pub(crate) operation: Option<Action>,
    pub(crate) wait: Option<Action>,
    pub(crate) names: Vec<String>,
    pub(super) names_asked: Option<Instant>,
    /// Tab was pressed before the names were there.
    pub(super) wants_completion: bool,
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    /// Whether the screen shows something else by now.
    pub(crate) is_stale: bool,
}

impl State {
    pub(crate) fn new(name: GuestName, now: Instant, wall: WallTime) -> Self {
        Self {
            name,
            link: Link::Connecting,
            snapshot: None,
            inbox: Ok(vec![]),
            notices: Notices::default(),
            line: Line::default(),
            is_writing: false,
            view: View::Both,
            scroll: 0,
            reach: (0, 1),
            operation: None,
            wait: None,
            names: vec![],
            names_asked: None,
            wants_completion: false,
            now,
            wall,
            is_stale: true,
        }
    }

    /// Its peers, without itself; why nobody can tell; or nothing yet.
    pub(crate) fn peers(&self) -> Option<Result<Vec<&Listed>, &str>> {
        let (snapshot, _) = self.snapshot.as_ref()?;
        Some(match &snapshot.peers {
            Ok(peers) => Ok(peers.iter().filter(|peer| peer.visibility == Visibility::Peer).collect()),
            Err(why) => Err(why),
        })
    }

    pub(crate) fn role(&self) -> Role {
        self.snapshot.as_ref().map_or(Role::Broker, |(snapshot, _)| snapshot.role)
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: Instant, wall: WallTime) {
        (self.now, self.wall) = (now, wall);
        self.is_stale |= self.notices.tick(now);
    }

    /// Takes what arrived.
    pub(crate) fn apply(&mut self, input: Input) -> Vec<Effect> {
        // Most events are about somebody else, and nothing to be seen.
        self.is_stale |= !matches!(input, Input::Event(_) | Input::Gap);
        match input {
            Input::Snapshot(snapshot) => {
                let mut snapshot = *snapshot;
                if let Some(inbox) = snapshot.inbox.take() {
                    self.inbox = inbox;
                }
                self.link = Link::Online;
                self.snapshot = Some((snapshot, self.now));
            }
            Input::Offline(why) => self.link = Link::Offline(why),
            Input::Gap => return vec![Effect::Refresh { inbox: true }],
            Input::Event(event) => return self.on_event(&event),
            Input::Answer(action, told) => return self.on_answer(&action, told),
            Input::Key(key) => return self.on_key(key),
            Input::Paste(text) => {
                self.notices.press(self.now);
                if self.is_writing {
                    self.line.insert(&text);
                }
            }
            Input::Redraw => {}
            Input::End(end) => return vec![Effect::End(end)],
        }
        vec![]
    }

    pub(super) fn tell(&mut self, text: String) {
        self.is_stale = true;
        self.notices.tell(text, self.now);
    }

    pub(super) fn fail(&mut self, text: String) {
        self.notices.fail(text, self.now);
    }

    fn on_event(&mut self, event: &Event) -> Vec<Effect> {
        let own = |guest: GuestName| guest == self.name;
        let about = event.guest.filter(|guest| self.concerns(guest));
        let (tell, inbox) = match event.fact {
            Fact::PeerRegistered { peer } if about.is_some_and(own) => {
                (Some(linked_names(self.name, peer)), false)
            }
            Fact::PeerRegistered { peer } if own(peer) => {
                (event.guest.map(|other| linked_names(other, peer)), false)
            }
            Fact::PeerUnregistered { peer } if about.is_some_and(own) => {
                (Some(unlinked(self.name, peer)), true)
            }
            Fact::PeerUnregistered { peer } if own(peer) => {
                (event.guest.map(|other| unlinked(other, peer)), true)
            }
            Fact::PeerOffer { from, .. } => {
                let text = format!("{from} wants to be a peer: :accept {from} or :refuse {from}");
                (Some(text), false)
            }
            Fact::MessageSent { to, .. } | Fact::MessageExpired { to, .. } if own(to) => (None, true),
            Fact::MessageDelivered { .. } if about.is_some_and(own) => (None, true),
            // Of an agent's link the event itself bears no name.
            _ if about.is_some() || event.guest.is_none() => (None, false),
            _ => return vec![],
        };
        if let Some(text) = tell {
            self.tell(text);
        }
        vec![Effect::Refresh { inbox }]
    }

    fn concerns(&self, guest: &GuestName) -> bool {
        let peers = self.snapshot.as_ref().and_then(|(snapshot, _)| snapshot.peers.as_ref().ok());
        *guest == self.name || peers.is_some_and(|peers| peers.iter().any(|peer| peer.name == *guest))
    }

    fn on_answer(&mut self, action: &Action, told: Told) -> Vec<Effect> {
        match action.slot() {
            Slot::Operation => self.operation = None,
            Slot::Wait => self.wait = None,
            Slot::Ping | Slot::Names => {}
        }
        match told {
            Told::Done(text) => self.tell(text),
            Told::Failed(text) if *action != Action::Names => self.fail(text),
            // Nobody asked for them aloud; they are asked for again.
            Told::Failed(_) => self.names_asked = None,
            Told::Names(names) => {
                self.names = names;
                if std::mem::take(&mut self.wants_completion) && self.is_writing {
                    self.complete();
                }
            }
        }
        if action.slot() == Slot::Operation { vec![Effect::Refresh { inbox: true }] } else { vec![] }
    }
}
