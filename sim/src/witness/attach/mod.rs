//! Holds managed attach against what was really sent, typed and written.
//!
//! | promise | what must hold |
//! |---|---|
//! | A1 | an agent has at most one attempt in flight |
//! | A2 | it rests between attempts for what its backoff says, and gives up after so many |
//! | A3 | it asks only for what a handshake that it was sent, or its configuration, says; polls only once it is attached |
//! | A4 | a token or code goes to its own manager alone, and nothing goes out for a handshake that it may not trust |
//! | A5 | an action is typed at most once, in the order in which it was taken; leaves the queue by ack, expiry or release; `ok` was typed |

mod actions;
mod attempts;
mod frames;
mod requests;

use std::collections::{BTreeMap, BTreeSet};

use castra_core::attach::{AttachId, Attachment, Hint, Secret, Stage};
use castra_core::boundary::Change;
use castra_core::id::GuestName;
use castra_core::time::Time;

use crate::net::NodeId;
use crate::outcome::{Counts, count};

use actions::Taken;
use attempts::Series;
use frames::Handed;
pub(crate) use requests::Asking;

/// A broken promise.
pub(crate) type Wrong = (&'static str, String);

type Checked = Result<(), Wrong>;

/// All that is known of managed attach in a world.
#[derive(Debug, Default)]
pub(crate) struct Managing {
    /// On the broker's disk.
    attachments: BTreeMap<GuestName, Attachment>,
    /// Sessions that ever were there, and those that ever were attached.
    sessions: BTreeSet<AttachId>,
    attached: BTreeSet<AttachId>,
    /// Handshakes that ever were, with their tokens.
    handshakes: BTreeMap<AttachId, Secret>,
    /// Every action that ever was there, and by what it types.
    taken: BTreeMap<AttachId, Taken>,
    texts: BTreeMap<String, AttachId>,
    /// Handshakes that the broker sent, by the process at the other end.
    handed: BTreeMap<NodeId, Vec<Handed>>,
    agents: BTreeMap<NodeId, Watched>,
    /// What is typed of each of the plan's steps, and for whom.
    steps: Vec<GuestName>,
    /// Most actions of one guest.
    queue_max: usize,
    /// The wall clock was set, so that a restarted broker may be wrong about ages.
    pub(crate) wall_was_set: bool,
    pub(crate) counts: Counts,
    now: Time,
}

/// An agent.
#[derive(Debug)]
struct Watched {
    guest: GuestName,
    /// It takes its broker's word: it has a key, or was told to.
    trusting: bool,
    hint: Option<Hint>,
    /// Requests under way.
    asking: Vec<Asking>,
    /// To which session it is attached in this life.
    attached: Option<AttachId>,
    series: Option<Series>,
    /// What was typed on its machine, over all of its lives.
    typed: BTreeSet<String>,
    /// The newest action that was.
    newest: u64,
    typing: bool,
}

impl Managing {
    pub(crate) fn new(steps: Vec<GuestName>, queue_max: usize) -> Self {
        Self { steps, queue_max, ..Self::default() }
    }

    pub(crate) fn at(&mut self, now: Time) {
        self.now = now;
    }

    /// An agent begins a life.
    pub(crate) fn begins(&mut self, node: NodeId, guest: GuestName, trusting: bool, hint: Option<Hint>) {
        let before = self.agents.remove(&node);
        let (typed, newest) = before.map_or_else(Default::default, |agent| (agent.typed, agent.newest));
        let (asking, attached, series) = (Vec::new(), None, None);
        let typing = false;
        let agent = Watched { guest, trusting, hint, asking, attached, series, typed, newest, typing };
        self.agents.insert(node, agent);
    }

    /// Its life is over.
    pub(crate) fn ends(&mut self, node: NodeId) {
        if let Some(agent) = self.agents.get_mut(&node) {
            (agent.asking, agent.attached, agent.series, agent.typing) = (Vec::new(), None, None, false);
        }
    }

    /// The broker starts on what is durable.
    pub(crate) fn restarts(&mut self) {
        let unsure = self.wall_was_set;
        self.taken.values_mut().for_each(|taken| taken.grows_older(unsure));
    }

    /// The broker's disk is gone.
    pub(crate) fn loses(&mut self) {
        self.attachments.clear();
        self.taken.values_mut().for_each(|taken| taken.waits = false);
    }

    /// A change became durable on the broker's disk.
    pub(crate) fn durable(&mut self, change: &Change) -> Checked {
        match change {
            Change::SetAttachment(attachment) => {
                let Attachment { guest, session, stage, handshake, token, .. } = &**attachment;
                self.handshakes.insert(handshake.clone(), token.clone());
                self.sessions.insert(session.clone());
                if *stage == Stage::Attached && self.attached.insert(session.clone()) {
                    count(&mut self.counts, "attached");
                }
                let before = self.attachments.insert(*guest, (**attachment).clone());
                match before {
                    None => count(&mut self.counts, "adopted"),
                    Some(before) if before.handshake != attachment.handshake => {
                        count(&mut self.counts, "renegotiated");
                    }
                    Some(_) => {}
                }
                Ok(())
            }
            Change::DropAttachment { guest } | Change::Forget { guest } => {
                if self.attachments.remove(guest).is_some() {
                    count(&mut self.counts, "released");
                }
                self.release(guest);
                Ok(())
            }
            Change::SetAction(action) => self.take(action),
            Change::DropAction { number } => self.drop_action(*number),
            _ => Ok(()),
        }
    }

    /// What has to happen yet, now that nothing goes wrong: every adopted guest that can
    /// be is attached, and nothing waits for it.
    pub(crate) fn owed(&self, takes: impl Fn(&GuestName) -> Option<NodeId>) -> Option<(usize, String)> {
        let mut owed = 0;
        let mut first = None;
        for Attachment { guest, session, stage, .. } in self.attachments.values() {
            let Some(node) = takes(guest) else { continue };
            let agent = self.agents.get(&node).filter(|agent| agent.trusting);
            let Some(agent) = agent else { continue };
            let waiting = self.taken.values().filter(|taken| taken.waits && taken.guest == *guest).count();
            let both = *stage == Stage::Attached && agent.attached.as_ref() == Some(session);
            owed += waiting + usize::from(!both);
            if !both {
                let what = match (&agent.series, &agent.attached) {
                    (_, Some(other)) => format!("it is attached to {other}"),
                    (Some(series), None) => format!("its attempts: {series}"),
                    (None, None) => "it tries nothing".to_owned(),
                };
                first.get_or_insert(format!("{guest} is adopted as {session} ({stage:?}), and {what}"));
            } else if waiting > 0 {
                first.get_or_insert(format!("{waiting} actions wait for {guest}, which is attached"));
            }
        }
        first.map(|first| (owed, first))
    }

    /// A command prints that a guest is adopted.
    pub(crate) fn told_adopted(&self, session: &AttachId, stage: Stage) -> Checked {
        if !self.sessions.contains(session) {
            return Err(("S2", format!("{session} is printed as an attachment, and was never durable")));
        }
        if stage == Stage::Attached && !self.attached.contains(session) {
            return Err(("S2", format!("{session} is printed as attached, and never durably was")));
        }
        Ok(())
    }

    /// A command prints that a guest is released.
    pub(crate) fn told_released(&self, session: &AttachId) -> Checked {
        match self.attachments.values().find(|attachment| attachment.session == *session) {
            Some(_) => Err(("S2", format!("{session} is printed as released, and is still there"))),
            None => Ok(()),
        }
    }
}
