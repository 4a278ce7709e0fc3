//! What keys do. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::command::ENTRIES;
use super::inputs::Effect;
use super::state::{State, View};
use crate::tui::End;
use crate::tui::command::wants_guest;
use crate::tui::keys::{Edited, edit};

impl State {
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        self.notices.press(self.now);
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') && !self.is_writing
        {
            return vec![Effect::End(End::Quit)];
        }
        if self.scrolls(key.code) {
            return vec![];
        }
        if self.is_writing { self.on_written(key) } else { self.on_pressed(key) }
    }

    /// Keys that move what is shown, whether or not a command is being written.
    const fn scrolls(&mut self, key: KeyCode) -> bool {
        let (most, page) = self.reach;
        // Messages are read from their end, everything else from its beginning.
        let from_end = matches!(self.view, View::Both | View::Inbox);
        let back = match key {
            KeyCode::PageUp => from_end,
            KeyCode::PageDown => !from_end,
            _ => return false,
        };
        let far = if back { self.scroll.saturating_add(page) } else { self.scroll.saturating_sub(page) };
        self.scroll = if far > most { most } else { far };
        true
    }

    fn on_pressed(&mut self, key: KeyEvent) -> Vec<Effect> {
        match key.code {
            // Esc and the colon, when they arrive together.
            KeyCode::Char(':') if key.modifiers == KeyModifiers::ALT => {
                (self.view, self.scroll, self.is_writing) = (View::Both, 0, true);
                return self.want_names();
            }
            KeyCode::Char(_) if key.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::CONTROL) => {}
            KeyCode::Char(':') => {
                self.is_writing = true;
                return self.want_names();
            }
            KeyCode::Char('q') => return vec![Effect::End(End::Quit)],
            KeyCode::Char('?') => return self.look(View::Help),
            KeyCode::Esc => (self.view, self.scroll) = (View::Both, 0),
            KeyCode::Home => {
                self.scroll = if matches!(self.view, View::Both | View::Inbox) { self.reach.0 } else { 0 };
            }
            KeyCode::End => {
                self.scroll = if matches!(self.view, View::Both | View::Inbox) { 0 } else { self.reach.0 };
            }
            _ => {}
        }
        vec![]
    }

    fn on_written(&mut self, key: KeyEvent) -> Vec<Effect> {
        match edit(&mut self.line, key) {
            Edited::On => {}
            Edited::Left => self.is_writing = false,
            Edited::Done(line) => {
                self.is_writing = false;
                return self.run(&line);
            }
            Edited::Complete => {
                self.complete();
                if wants_guest(&ENTRIES, self.line.head()) {
                    return self.want_names();
                }
            }
        }
        vec![]
    }
}
