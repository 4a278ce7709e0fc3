//! What a client is told, held against what really happened.

use castra_core::terminals::Snapshot;
use castra_core::terminals::wire::{Answer, ErrorCode, Event, Granted};

use super::{Around, Client};
use crate::outcome::count;
use crate::terminals::pattern;
use crate::terminals::plan::{Deed, Kind};

impl Client {
    fn wrong(&self, promise: &'static str, terminal: u32, text: &str, around: &mut Around<'_>) {
        let text = format!("client {} of terminal {terminal}: {text}", self.index);
        around.witness.blame(promise, text);
    }

    pub(super) fn replied(&mut self, place: usize, seq: u32, answer: &Answer<'_>, around: &mut Around<'_>) {
        let Some(asked) = self.asked.remove(&seq) else {
            if !self.is_honest() || seq == 0 {
                count(&mut around.witness.outcome.told, code(answer));
                return;
            }
            return self.wrong("L4", 0, &format!("an answer to nothing, number {seq}: {answer:?}"), around);
        };
        match answer {
            Answer::Handshake { .. } => {
                count(&mut around.witness.outcome.told, "handshake");
                if let Some(link) = self.links.get_mut(place) {
                    link.known = true;
                }
                if matches!(self.plan.kind, Kind::WrongToken) {
                    self.wrong("O1", 0, "is let in with another token", around);
                }
            }
            Answer::Granted(granted) => {
                count(&mut around.witness.outcome.told, asked.deed.as_str());
                if !self.is_honest() && !matches!(self.plan.kind, Kind::Rude) {
                    self.wrong("O1", asked.terminal, "is served, and nobody knows it", around);
                }
                self.granted(asked, granted, around);
            }
            Answer::Error { .. } => {
                count(&mut around.witness.outcome.told, code(answer));
                if matches!(asked.deed, Deed::Attach | Deed::Observe | Deed::Resume)
                    && let Some(view) = self.views.get(&asked.terminal)
                    && view.next().is_none()
                {
                    self.views.remove(&asked.terminal);
                }
                if answer.code().is_none() {
                    self.wrong(
                        "L4",
                        asked.terminal,
                        &format!("an error of no known code: {answer:?}"),
                        around,
                    );
                }
            }
        }
    }

    fn granted(&mut self, asked: super::Asked, granted: &Granted<'_>, around: &mut Around<'_>) {
        let terminal = asked.terminal;
        match asked.deed {
            Deed::Attach | Deed::Observe | Deed::Resume => self.attached(asked, granted, around),
            Deed::Detach => {
                if self.plan.kind != Kind::Dual {
                    self.views.remove(&terminal);
                } else if let Some(view) = self.views.get_mut(&terminal) {
                    // Something may still come on the other connection.
                    view.leaving = true;
                }
                self.stopped.remove(&terminal);
            }
            Deed::Snapshot => match &granted.snapshot {
                Some(snapshot) => self.shown(terminal, snapshot, around),
                None => self.wrong("O2", terminal, "a snapshot without one", around),
            },
            Deed::List | Deed::Flood => {
                let Some(rows) = &granted.sessions else {
                    return self.wrong("L4", 0, "a list without one", around);
                };
                if !rows.is_sorted_by(|one, other| one.id < other.id) {
                    self.wrong("S2", 0, "a list is out of order, or has a terminal twice", around);
                }
                for row in rows {
                    if row.recovery.is_some() {
                        count(&mut around.witness.outcome.told, "recovery");
                    }
                    if row.state.is_some_and(|state| state.as_str() == "exited") {
                        count(&mut around.witness.outcome.told, "exited_row");
                    }
                }
            }
            Deed::Metrics if granted.metrics.as_ref().is_none_or(Vec::is_empty) => {
                self.wrong("L4", 0, "metrics without any", around);
            }
            _ => {}
        }
    }

    fn attached(&mut self, asked: super::Asked, granted: &Granted<'_>, around: &mut Around<'_>) {
        let terminal = asked.terminal;
        let Some(offset) = granted.offset else {
            return self.wrong("O2", terminal, "is attached, and not told where output begins", around);
        };
        if granted.resumed == Some(true) {
            count(&mut around.witness.outcome.told, "resumed");
            if asked.from != Some(offset) {
                let text = format!("is to resume at {:?}, and resumes at {offset}", asked.from);
                self.wrong("O2", terminal, &text, around);
            }
        } else if let Some(snapshot) = &granted.snapshot {
            if snapshot.offset != offset && !snapshot.content.is_empty() {
                let text = format!("a snapshot of {} bytes, and output from {offset} on", snapshot.offset);
                self.wrong("O2", terminal, &text, around);
            }
            self.shown(terminal, snapshot, around);
        } else {
            self.wrong("O2", terminal, "is attached with neither a snapshot nor what follows", around);
        }
        let ran = around
            .witness
            .host
            .borrow()
            .life(terminal)
            .is_some_and(|life| !life.over && offset >= life.first);
        let ordered = self.plan.kind != Kind::Dual;
        if let Err(text) = self.views.entry(terminal).or_default().attached(offset, ran, ordered) {
            self.wrong("O2", terminal, &text, around);
        }
    }

    /// A snapshot that says what it shows.
    fn shown(&self, terminal: u32, snapshot: &Snapshot, around: &mut Around<'_>) {
        if snapshot.content.is_empty() {
            // Nobody has a screen of what ended before this daemon began.
            count(&mut around.witness.outcome.told, "blank_snapshot");
            return;
        }
        let shown = match pattern::check_snapshot(terminal, snapshot) {
            Ok(shown) => shown,
            Err(text) => return self.wrong("O2", terminal, &text, around),
        };
        let written = around.witness.host.borrow().life(terminal).map_or(0, |life| life.end);
        if shown > written {
            let text = format!("a snapshot shows {shown} bytes, and {written} were written");
            self.wrong("O2", terminal, &text, around);
        }
    }

    pub(super) fn told(&mut self, place: usize, event: &Event<'_>, around: &mut Around<'_>) {
        if self.plan.kind == Kind::Dual && place == 0 && !matches!(event, Event::BackpressureWarning { .. }) {
            self.wrong("O2", 0, &format!("an event on the control connection: {event:?}"), around);
        }
        let (terminal, result) = match event {
            Event::Output { session, data, offset } => {
                around.witness.outcome.bytes += data.len() as u64;
                let Some(offset) = offset else { return self.wrong("O2", *session, "no offset", around) };
                (*session, self.view(*session).and_then(|view| view.output(*session, *offset, data)))
            }
            Event::Resync { session, snapshot, offset, skipped_bytes } => {
                count(&mut around.witness.outcome.told, "resync");
                around.witness.outcome.skipped += skipped_bytes;
                if snapshot.offset != *offset {
                    let text = format!("a resync at {offset} with a screen of {} bytes", snapshot.offset);
                    self.wrong("O2", *session, &text, around);
                }
                self.shown(*session, snapshot, around);
                (*session, self.view(*session).and_then(|view| view.resync(*offset, *skipped_bytes)))
            }
            Event::Exit { session, exit } => {
                count(&mut around.witness.outcome.told, "exit");
                let host = around.witness.host.borrow();
                let lives = host.lives.get(session).cloned().unwrap_or_default();
                drop(host);
                let ordered = self.plan.kind != Kind::Dual;
                let result = self.view(*session).and_then(|view| view.ended(*exit, &lives, ordered));
                if let Err(text) = result {
                    self.wrong("O3", *session, &text, around);
                }
                return;
            }
            Event::BackpressureWarning { level, .. } => {
                let word = match level.as_str() {
                    "green" => "warned_green",
                    "yellow" => "warned_yellow",
                    _ => "warned_red",
                };
                return count(&mut around.witness.outcome.told, word);
            }
            Event::OwnerChanged { .. } => return count(&mut around.witness.outcome.told, "owner_changed"),
            Event::Resized { .. } => return count(&mut around.witness.outcome.told, "resized"),
            _ => return,
        };
        if let Err(text) = result {
            self.wrong("O2", terminal, &text, around);
        }
    }

    fn view(&mut self, terminal: u32) -> Result<&mut super::View, String> {
        self.views.get_mut(&terminal).ok_or_else(|| "is told of it, and does not watch it".to_owned())
    }
}

fn code(answer: &Answer<'_>) -> &'static str {
    answer.code().map_or("other", ErrorCode::as_str)
}
