//! What becomes of a written command: it is completed, checked, and asked for. Pure.

use castra_core::id::GuestName;
use castra_core::status::BrokerState;

use super::command::{self, Command, ENTRIES};
use super::inputs::Effect;
use super::state::{Link, State, View};
use crate::tui::End;
use crate::tui::action::Action;
use crate::tui::command::complete;

/// Most names that are offered at once.
const OFFERED: usize = 40;

impl State {
    /// Tab.
    pub(super) fn complete(&mut self) {
        let names = self.table.rows().map(|row| row.status.name.as_str());
        match complete(&ENTRIES, self.line.head(), names) {
            Some(mut done) => {
                self.line.set_head(&done.line);
                if !done.candidates.is_empty() {
                    let hidden = done.candidates.len().saturating_sub(OFFERED);
                    done.candidates.truncate(OFFERED);
                    let more = if hidden > 0 { format!("  and {hidden} more") } else { String::new() };
                    self.tell(done.candidates.join("  ") + &more);
                }
            }
            None => self.tell("nothing begins so".into()),
        }
    }

    /// Carries out what was written.
    pub(super) fn run(&mut self, line: &str) -> Vec<Effect> {
        if line.trim().is_empty() {
            return vec![];
        }
        match command::parse(line).and_then(|command| self.carry_out(command)) {
            Ok(effects) => effects,
            Err(wrong) => {
                self.fail(wrong);
                vec![]
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<Vec<Effect>, String> {
        let action = match command {
            Command::Quit => return Ok(vec![Effect::End(End::Quit)]),
            Command::Help => {
                self.help();
                return Ok(vec![]);
            }
            Command::Sort(column) => {
                self.wish.column = column;
                self.mix();
                return Ok(self.see_table());
            }
            Command::Reverse => {
                self.reverse();
                return Ok(self.see_table());
            }
            Command::Filter(text) => {
                self.filter_by(text);
                return Ok(self.see_table());
            }
            Command::State(state) => {
                self.only(state);
                return Ok(self.see_table());
            }
            Command::Guest(guest) => {
                let guest = self.meant(guest)?;
                if self.table.get(&guest).is_none() {
                    return Err(format!("no guest is called {guest}"));
                }
                return Ok(self.look_at(guest));
            }
            Command::Ping(guest) => Action::Ping { guest: self.meant(guest)? },
            Command::Wait { guest, target } => Action::Wait { guest: self.meant(guest)?, target },
            Command::Peer(source, peer) => Action::Link { source, peer },
            Command::Unpeer(source, peer) => Action::Unlink { source, peer },
            Command::Send { from, to, text } => Action::Send { from, to, text },
            Command::Restore(guest) => Action::Restore { guest },
            Command::Forget(guest) => Action::Forget { guest },
        };
        self.may(&action).map_err(|why| format!("{why}; nothing was sent"))?;
        self.tell(format!("{} ...", action.in_words()));
        self.asked.push(action.clone());
        Ok(vec![Effect::Ask(action)])
    }

    fn see_table(&mut self) -> Vec<Effect> {
        (self.view, self.page) = (View::Table, None);
        vec![]
    }

    /// The one that was named, that is looked at, or that is selected.
    fn meant(&self, named: Option<GuestName>) -> Result<GuestName, String> {
        let looked_at = self.page.as_ref().map(|page| page.name);
        named.or(looked_at).or(self.selected).ok_or_else(|| "which guest? None is selected".to_owned())
    }

    /// Whether it can be asked for now.
    fn may(&self, action: &Action) -> Result<(), String> {
        if let Some(busy) = self.asked.iter().find(|asked| asked.slot() == action.slot()) {
            return Err(format!("{} is not answered yet", busy.in_words()));
        }
        match (&self.link, &self.broker) {
            (Link::Offline(_, why), _) => Err(format!("nobody to ask: {why}")),
            (Link::Connecting, _) => Err("nobody to ask: no broker answered yet".into()),
            (Link::Online, Some(broker)) if broker.state == BrokerState::Draining => {
                Err("nobody to ask: the broker is stopping".into())
            }
            (Link::Online, _) => Ok(()),
        }
    }
}
