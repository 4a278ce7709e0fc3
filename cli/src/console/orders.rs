//! What becomes of a written command: it is completed, checked, and asked for. Pure.

use std::time::Duration;

use castra_core::status::{BrokerState, State as Verdict};

use super::command::{self, Command, ENTRIES};
use super::inputs::{Effect, Role, Standing};
use super::state::{Link, State, View};
use crate::tui::End;
use crate::tui::action::{Action, Slot};
use crate::tui::command::complete;

/// How old the names for completion may be.
const NAMES_AGE: Duration = Duration::from_secs(15);

impl State {
    /// Asks for the names of all guests, unless they are fresh.
    pub(super) fn want_names(&mut self) -> Vec<Effect> {
        let fresh = self.names_asked.is_some_and(|asked| self.now.duration_since(asked) < NAMES_AGE);
        if fresh || self.link != Link::Online {
            return vec![];
        }
        self.names_asked = Some(self.now);
        vec![Effect::Ask(Action::Names)]
    }

    /// Tab.
    pub(super) fn complete(&mut self) {
        let peers = self.peers().and_then(Result::ok).unwrap_or_default();
        let peers: Vec<String> = peers.iter().map(|peer| peer.name.to_string()).collect();
        let names = peers.iter().chain(&self.names).map(String::as_str);
        match complete(&ENTRIES, self.line.head(), names) {
            Some(done) => {
                self.line.set_head(&done.line);
                if !done.candidates.is_empty() {
                    self.tell(done.candidates.join("  "));
                }
            }
            None if self.names.is_empty() && self.link == Link::Online => self.wants_completion = true,
            None => self.tell("nothing begins so".into()),
        }
    }

    /// Carries out what was written.
    pub(super) fn run(&mut self, line: &str) -> Vec<Effect> {
        if line.trim().is_empty() {
            return vec![];
        }
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(wrong) => {
                self.fail(wrong);
                return vec![];
            }
        };
        let name = self.name;
        let action = match command {
            Command::Quit => return vec![Effect::End(End::Quit)],
            Command::Help => return self.look(View::Help),
            Command::Peers => return self.look(View::Peers),
            Command::Inbox => return self.look(View::Inbox),
            Command::Peer(peer) => Action::Link { source: name, peer },
            Command::Unpeer(peer) => Action::Unlink { source: name, peer },
            Command::Send { to, text } => Action::Send { from: name, to, text },
            Command::Accept(peer) => Action::Answer { peer, accept: true },
            Command::Refuse(peer) => Action::Answer { peer, accept: false },
            Command::Wait { guest, target } => Action::Wait { guest: guest.unwrap_or(name), target },
        };
        if let Err(why) = self.may(&action) {
            self.fail(format!("{why}; nothing was sent"));
            return vec![];
        }
        self.tell(format!("{} ...", action.in_words()));
        match action.slot() {
            Slot::Operation => self.operation = Some(action.clone()),
            Slot::Wait => self.wait = Some(action.clone()),
            Slot::Ping | Slot::Names => {}
        }
        vec![Effect::Ask(action)]
    }

    pub(super) fn look(&mut self, view: View) -> Vec<Effect> {
        (self.view, self.scroll) = (view, 0);
        vec![Effect::Refresh { inbox: true }]
    }

    /// Whether it can be asked for now: attached, and not busy.
    fn may(&self, action: &Action) -> Result<(), String> {
        let busy = match action.slot() {
            Slot::Operation => &self.operation,
            Slot::Wait => &self.wait,
            Slot::Ping | Slot::Names => &None,
        };
        if let Some(busy) = busy {
            return Err(format!("{} is busy: {} is not answered yet", self.name, busy.in_words()));
        }
        let snapshot = match (&self.link, &self.snapshot) {
            (Link::Online, Some((snapshot, _))) => snapshot,
            (Link::Offline(why), _) => return Err(format!("not attached: {why}")),
            _ => return Err("not attached: nobody answered yet".into()),
        };
        if snapshot.broker.as_ref().is_some_and(|broker| broker.state == BrokerState::Draining) {
            return Err("not attached: the broker is stopping".into());
        }
        match (action, &snapshot.standing) {
            (Action::Answer { .. }, _) if snapshot.role == Role::Broker => {
                Err("not attached: only inside the guest can be answered for it".into())
            }
            (Action::Wait { .. } | Action::Names, _) => Ok(()),
            (_, Standing::Unknown) => Err(format!("not attached: no guest is called {}", self.name)),
            (_, Standing::Silent(why)) => Err(format!("not attached: {why}")),
            // Whether two are peers is settled without them, so one that is off may be linked.
            (Action::Send { .. }, Standing::Known(guest)) if guest.state != Verdict::Reachable => {
                let reason = guest.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
                Err(format!("not attached: {} is {}{reason}", self.name, guest.state))
            }
            (_, Standing::Known(_)) => Ok(()),
        }
    }
}
