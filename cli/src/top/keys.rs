//! What keys do. Pure.

use castra_core::status::State as Verdict;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::columns::SORTED;
use super::inputs::Effect;
use super::state::{State, View, Writing};
use crate::tui::End;
use crate::tui::keys::{Edited, edit};

impl State {
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        self.notices.press(self.now);
        match self.writing {
            Writing::Command => self.on_command_key(key),
            Writing::Filter => {
                self.on_filter_key(key);
                vec![]
            }
            Writing::Nothing => self.on_pressed(key),
        }
    }

    pub(super) fn paste(&mut self, text: &str) {
        match self.writing {
            Writing::Command => self.line.insert(text),
            Writing::Filter => {
                self.filter.insert(text);
                self.filtered();
            }
            Writing::Nothing => {}
        }
    }

    fn on_command_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        match edit(&mut self.line, key) {
            Edited::On => {}
            Edited::Left => self.writing = Writing::Nothing,
            Edited::Complete => self.complete(),
            Edited::Done(line) => {
                self.writing = Writing::Nothing;
                return self.run(&line);
            }
        }
        vec![]
    }

    /// What is written filters at once; Enter keeps it, Esc takes it away.
    fn on_filter_key(&mut self, key: KeyEvent) {
        match key.code {
            KeyCode::Up | KeyCode::Down | KeyCode::PageUp | KeyCode::PageDown => self.moves(key.code),
            _ => match edit(&mut self.filter, key) {
                Edited::On | Edited::Complete => self.filtered(),
                Edited::Done(text) => {
                    self.writing = Writing::Nothing;
                    self.filter_by(text);
                }
                Edited::Left => {
                    self.writing = Writing::Nothing;
                    self.filter_by(String::new());
                }
            },
        }
    }

    fn filtered(&mut self) {
        self.filter_by(self.filter.text().to_owned());
    }

    pub(super) fn filter_by(&mut self, text: String) {
        self.wish.text = text.trim().to_lowercase();
        self.mix();
    }

    fn on_pressed(&mut self, key: KeyEvent) -> Vec<Effect> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return vec![Effect::End(End::Quit)],
            // Esc and the colon, when they arrive together.
            KeyCode::Char(':') if key.modifiers == KeyModifiers::ALT => self.writing = Writing::Command,
            KeyCode::Char(_) if key.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::CONTROL) => {}
            KeyCode::Char(':') => self.writing = Writing::Command,
            KeyCode::Char('q') => return vec![Effect::End(End::Quit)],
            KeyCode::Char('?') => self.help(),
            _ => {
                return match self.view {
                    View::Table => self.on_table_key(key.code),
                    View::Guest => self.on_guest_key(key.code),
                    View::Help => {
                        self.on_help_key(key.code);
                        vec![]
                    }
                };
            }
        }
        vec![]
    }

    fn on_table_key(&mut self, key: KeyCode) -> Vec<Effect> {
        match key {
            KeyCode::Enter => return self.selected.map_or_else(Vec::new, |guest| self.look_at(guest)),
            KeyCode::Char('/') => {
                self.writing = Writing::Filter;
                self.filter.clear();
                self.filter.insert(&self.wish.text);
            }
            KeyCode::Char('s') => self.sort_next(1),
            KeyCode::Char('S') => self.sort_next(SORTED.len() - 1),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Char('f') => {
                let next = match self.wish.state {
                    None => Some(Verdict::Waiting),
                    Some(Verdict::Waiting) => Some(Verdict::Reachable),
                    Some(_) => None,
                };
                self.only(next);
            }
            KeyCode::Esc => {
                self.filter_by(String::new());
                self.only(None);
            }
            other => self.moves(other),
        }
        vec![]
    }

    fn moves(&mut self, key: KeyCode) {
        let last = self.table.order().len().saturating_sub(1);
        let at = match key {
            KeyCode::Up | KeyCode::Char('k') => self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.at + 1,
            KeyCode::PageUp => self.at.saturating_sub(self.room),
            KeyCode::PageDown => self.at + self.room,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => return,
        };
        self.at = at.min(last);
        self.selected = self.table.order().get(self.at).copied();
    }

    fn sort_next(&mut self, step: usize) {
        let at = SORTED.iter().position(|column| *column == self.wish.column).unwrap_or(0);
        self.wish.column = SORTED[(at + step) % SORTED.len()];
        self.mix();
    }

    pub(super) fn reverse(&mut self) {
        self.wish.is_reversed = !self.wish.is_reversed;
        self.mix();
    }

    pub(super) fn only(&mut self, state: Option<Verdict>) {
        self.wish.state = state;
        self.mix();
    }

    pub(super) const fn help(&mut self) {
        (self.view, self.scroll) = (View::Help, 0);
    }

    fn on_guest_key(&mut self, key: KeyCode) -> Vec<Effect> {
        let Some(page) = &mut self.page else { return vec![] };
        match key {
            KeyCode::Esc | KeyCode::Backspace => (self.view, self.page) = (View::Table, None),
            KeyCode::Tab | KeyCode::Right => page.turn(true),
            KeyCode::BackTab | KeyCode::Left => page.turn(false),
            KeyCode::Char('u') => return self.want_terminals(),
            other => page.scroll = scrolled(other, page.scroll, page.reach),
        }
        vec![]
    }

    fn on_help_key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Esc => {
                self.view = if self.page.is_some() { View::Guest } else { View::Table };
            }
            other => self.scroll = scrolled(other, self.scroll, self.reach),
        }
    }
}

/// Where what is longer than the screen begins, after a key.
fn scrolled(key: KeyCode, scroll: usize, (most, page): (usize, usize)) -> usize {
    let to = match key {
        KeyCode::Up | KeyCode::Char('k') => scroll.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => scroll + 1,
        KeyCode::PageUp => scroll.saturating_sub(page),
        KeyCode::PageDown => scroll + page,
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => most,
        _ => scroll,
    };
    to.min(most)
}
