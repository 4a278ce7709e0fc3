//! What is known and shown: inputs change it, and say what is to be asked. Pure.

use std::time::Instant;

use castra_core::event::{Event, Fact};
use castra_core::id::GuestName;
use castra_core::status::{BrokerStatus, Reason, StatusOutcome};
use castra_core::time::WallTime;

use super::columns::Column;
use super::guest::Page;
use super::inputs::{Answer, Ask, Effect, Input};
use super::pulse::{Extent, Pulse};
use super::table::{Table, Wish, absence};
use crate::tui::action::{Action, Slot, Told};
use crate::tui::feed::Followed;
use crate::tui::line::Line;
use crate::tui::notice::Notices;

/// How things stand with the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    Connecting,
    Online,
    /// With the reason, for rows and for people.
    Offline(Reason, String),
}

/// What is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    Table,
    Guest,
    Help,
}

/// What is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writing {
    Nothing,
    Command,
    Filter,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) link: Link,
    pub(crate) broker: Option<BrokerStatus>,
    pub(crate) table: Table,
    pub(crate) wish: Wish,
    /// Whether the order is to be made anew.
    is_mixed: bool,
    pub(crate) selected: Option<GuestName>,
    /// Its place in the order, and the first that is shown.
    pub(super) at: usize,
    pub(super) offset: usize,
    /// How many rows there is room for: as drawn last.
    pub(super) room: usize,
    /// Those on the screen.
    shown: Vec<GuestName>,
    pub(crate) view: View,
    pub(crate) page: Option<Page>,
    /// Of the help: where it begins, and how far one can scroll and how much a page is.
    pub(crate) scroll: usize,
    pub(crate) reach: (usize, usize),
    pub(crate) notices: Notices,
    pub(crate) line: Line,
    pub(crate) filter: Line,
    pub(crate) writing: Writing,
    /// Commands that are not answered.
    pub(super) asked: Vec<Action>,
    pub(super) pulse: Pulse,
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    /// Whether the screen shows something else by now.
    pub(crate) is_stale: bool,
    /// And whether a person waits for it.
    pub(crate) is_pressed: bool,
}

impl State {
    pub(crate) fn new(now: Instant, wall: WallTime) -> Self {
        Self {
            link: Link::Connecting,
            broker: None,
            table: Table::default(),
            wish: Wish { column: Column::State, is_reversed: false, text: String::new(), state: None },
            is_mixed: true,
            selected: None,
            at: 0,
            offset: 0,
            room: 1,
            shown: vec![],
            view: View::Table,
            page: None,
            scroll: 0,
            reach: (0, 1),
            notices: Notices::default(),
            line: Line::default(),
            filter: Line::default(),
            writing: Writing::Nothing,
            asked: vec![],
            pulse: Pulse::new(now),
            now,
            wall,
            is_stale: true,
            is_pressed: false,
        }
    }

    /// Why nobody can tell how the guests are.
    pub(crate) const fn absent(&self) -> Option<Reason> {
        match self.link {
            Link::Offline(reason, _) => Some(reason),
            Link::Connecting | Link::Online => None,
        }
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: Instant, wall: WallTime) {
        (self.now, self.wall) = (now, wall);
        self.is_stale |= self.notices.tick(now);
    }

    /// When there is something to ask, or a notice goes.
    pub(crate) fn next_ask(&self) -> Option<Instant> {
        [self.pulse.next(), self.notices.ends()].into_iter().flatten().min()
    }

    /// Asks what is due.
    pub(crate) fn due(&mut self) -> Option<Effect> {
        let extent = self.pulse.due(self.now)?;
        let looked_at = self.page.as_ref().filter(|_| self.view == View::Guest);
        let names = match (extent, looked_at) {
            (Extent::All, _) => vec![],
            (Extent::Shown, Some(page)) => vec![page.name],
            // Whether the broker is there at all, one row says as well as all.
            (Extent::Shown, None) if self.shown.is_empty() => {
                self.table.rows().next().map(|row| row.status.name).into_iter().collect()
            }
            (Extent::Shown, None) => self.shown.clone(),
        };
        Some(Effect::Poll(Ask { names, page: looked_at.map(|page| page.ask(self.now)) }))
    }

    /// Takes what arrived.
    pub(crate) fn apply(&mut self, input: Input) -> Vec<Effect> {
        // Most events are about somebody who is not on the screen, but its counts are.
        self.is_stale = true;
        match input {
            Input::Answer(answer) => self.on_answer(*answer),
            Input::Offline(why, document) => self.on_offline(why, *document),
            Input::Followed(Followed::Event(event)) => {
                if self.happened(&event) {
                    self.pulse.hurry_all();
                }
            }
            Input::Followed(Followed::Gap(events)) => {
                for event in &events {
                    self.happened(event);
                }
                self.pulse.hurry_all();
                self.pulse.hurry(self.now);
            }
            // Most likely it is gone: see at once.
            Input::Followed(Followed::Ended) => self.pulse.hurry(self.now),
            Input::Told(action, told) => {
                self.asked.retain(|asked| *asked != action);
                match told {
                    Told::Done(text) => self.tell(text),
                    Told::Failed(text) => self.fail(text),
                    // Never asked for: the rows have them.
                    Told::Names(_) => {}
                }
                if action.slot() == Slot::Operation {
                    self.pulse.hurry_all();
                    self.pulse.hurry(self.now);
                }
            }
            Input::Terminals(guest, terminals) => {
                if let Some(page) = self.page.as_mut().filter(|page| page.name == guest) {
                    page.terminals = Some((terminals, self.now));
                }
            }
            Input::Key(key) => {
                self.is_pressed = true;
                return self.on_key(key);
            }
            Input::Paste(text) => {
                self.is_pressed = true;
                self.notices.press(self.now);
                self.paste(&text);
            }
            Input::Redraw => self.is_pressed = true,
            Input::End(end) => return vec![Effect::End(end)],
        }
        vec![]
    }

    fn on_answer(&mut self, answer: Answer) {
        let Answer { is_full, document, page } = answer;
        let guests = document.guests.len();
        let broker = &document.broker;
        // Of some guests it says only how many of them there are.
        let (all, reachable) =
            self.broker.as_ref().map_or((0, 0), |broker| (broker.guests, broker.reachable));
        let broker =
            if is_full { broker.clone() } else { BrokerStatus { guests: all, reachable, ..broker.clone() } };
        (self.link, self.broker) = (Link::Online, Some(broker));
        self.table.take(document, is_full, self.now);
        if let Some((mine, answer)) = self.page.as_mut().zip(page)
            && mine.name == answer.guest
        {
            mine.take(answer, self.now);
        }
        self.pulse.answered(is_full.then_some(guests), self.now);
        self.mix();
    }

    fn on_offline(&mut self, why: String, document: StatusOutcome) {
        self.link = Link::Offline(absence(document.broker.state), why);
        self.pulse.failed(self.now);
        if self.table.len() == 0 {
            self.table.take(document, true, self.now);
        }
        self.mix();
    }

    /// Whether it is about a guest that is not known yet.
    fn happened(&mut self, event: &Event) -> bool {
        let stranger = self.table.happened(event, self.now);
        let looked_at = self.page.as_ref().map(|page| page.name);
        let is_shown = |name| looked_at == Some(name) || self.shown.contains(&name);
        let concerns = match (event.guest, &event.fact) {
            // The broker itself.
            (None, _) => true,
            (Some(name), Fact::PeerRegistered { peer } | Fact::PeerUnregistered { peer }) => {
                is_shown(name) || is_shown(*peer)
            }
            (Some(name), _) => is_shown(name),
        };
        if concerns {
            self.pulse.hurry(self.now);
        }
        self.mix();
        stranger
    }

    /// The order is to be made anew.
    pub(super) const fn mix(&mut self) {
        self.is_mixed = true;
    }

    /// Puts the rows in order, with room for so many: the place of the first that is shown.
    pub(crate) fn show(&mut self, room: usize) -> usize {
        if std::mem::take(&mut self.is_mixed) {
            let absent = self.absent();
            self.table.arrange(&self.wish, self.now, absent);
        }
        let order = self.table.order();
        let found = self.selected.and_then(|name| order.iter().position(|one| *one == name));
        // Who is selected stays so, wherever it goes; where it is gone, the next one is.
        self.at = found.unwrap_or(self.at).min(order.len().saturating_sub(1));
        if found.is_none() && self.writing != Writing::Filter {
            self.selected = order.get(self.at).copied();
        }
        self.room = room.max(1);
        let last = order.len().saturating_sub(self.room);
        self.offset = self.offset.min(self.at).max((self.at + 1).saturating_sub(self.room)).min(last);
        let shown: Vec<GuestName> = order.iter().skip(self.offset).take(room).copied().collect();
        if self.shown != shown {
            let is_new = shown.iter().any(|name| !self.shown.contains(name));
            self.shown = shown;
            // They may not have been asked for since long.
            if is_new {
                self.pulse.hurry(self.now);
            }
        }
        self.offset
    }

    /// How many on the screen were called reachable, and no longer are until the next
    /// answer. What is off the screen is asked for too seldom to tell by its age; an event
    /// tells of it.
    pub(crate) fn asking(&self) -> usize {
        let rows = self.shown.iter().filter_map(|name| self.table.get(name));
        rows.filter(|row| row.now(self.now, self.absent()).state.is_none()).count()
    }

    /// Looks at a guest.
    pub(super) fn look_at(&mut self, guest: GuestName) -> Vec<Effect> {
        self.view = View::Guest;
        self.selected = Some(guest);
        self.page = Some(Page::new(guest));
        self.pulse.hurry(self.now);
        self.want_terminals()
    }

    /// Asks for its terminals, if it says that it serves some. Not again and again:
    /// each time is an event of the guest's own.
    pub(super) fn want_terminals(&self) -> Vec<Effect> {
        let Some(page) = &self.page else { return vec![] };
        let serves = self.table.get(&page.name).is_some_and(|row| {
            row.status.reachable
                && row.status.capabilities.iter().any(|word| word == crate::term::list::CAPABILITY)
        });
        if serves && self.link == Link::Online { vec![Effect::Terminals(page.name)] } else { vec![] }
    }

    pub(super) fn tell(&mut self, text: String) {
        self.is_stale = true;
        self.notices.tell(text, self.now);
    }

    pub(super) fn fail(&mut self, text: String) {
        self.notices.fail(text, self.now);
    }
}
