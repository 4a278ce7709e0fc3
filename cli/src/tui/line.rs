//! The line being written, and those written before. Pure.

use castra_core::peers::TEXT_MAX;

/// Longest line, in bytes: a command with the longest text.
const LINE_MAX: usize = TEXT_MAX + 256;

/// Most lines to remember.
const HISTORY_MAX: usize = 200;

/// An editor of one line.
#[derive(Clone, Default, Debug)]
pub(crate) struct Line {
    text: String,
    /// In bytes, between characters.
    cursor: usize,
    history: Vec<String>,
    /// Which remembered line is shown, and what was being written before.
    recalled: Option<(usize, String)>,
}

impl Line {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What stands before the cursor.
    pub(crate) fn head(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// What was written, which is remembered; the line is empty again.
    pub(crate) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        self.clear();
        if !text.trim().is_empty() && self.history.last() != Some(&text) {
            if self.history.len() == HISTORY_MAX {
                self.history.remove(0);
            }
            self.history.push(text.clone());
        }
        text
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.recalled = None;
    }

    /// Writes at the cursor. A line end becomes a blank, so that pasting
    /// executes nothing; what can't be seen is left out.
    pub(crate) fn insert(&mut self, text: &str) {
        for character in text.chars() {
            let character = if matches!(character, '\n' | '\r' | '\t') { ' ' } else { character };
            if is_hidden(character) || self.text.len() + character.len_utf8() > LINE_MAX {
                continue;
            }
            self.text.insert(self.cursor, character);
            self.cursor += character.len_utf8();
        }
    }

    /// Puts `head` in the place of what stands before the cursor.
    pub(crate) fn set_head(&mut self, head: &str) {
        self.text.replace_range(..self.cursor, head);
        self.cursor = head.len();
    }

    pub(crate) fn left(&mut self) {
        self.cursor -= self.head().chars().next_back().map_or(0, char::len_utf8);
    }

    pub(crate) fn right(&mut self) {
        self.cursor += self.text[self.cursor..].chars().next().map_or(0, char::len_utf8);
    }

    pub(crate) const fn home(&mut self) {
        self.cursor = 0;
    }

    pub(crate) const fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Removes the character before the cursor.
    pub(crate) fn backspace(&mut self) {
        let end = self.cursor;
        self.left();
        self.text.replace_range(self.cursor..end, "");
    }

    /// Removes the character behind the cursor.
    pub(crate) fn delete(&mut self) {
        if self.cursor < self.text.len() {
            self.text.remove(self.cursor);
        }
    }

    /// Removes all that stands before the cursor.
    pub(crate) fn cut_head(&mut self) {
        self.set_head("");
    }

    /// Removes the word before the cursor.
    pub(crate) fn cut_word(&mut self) {
        let head = self.head().trim_end();
        let start = head.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        let kept = head[..start].to_owned();
        self.set_head(&kept);
    }

    /// The line before this one in the history.
    pub(crate) fn earlier(&mut self) {
        let place = self.recalled.as_ref().map_or(self.history.len(), |(place, _)| *place);
        let Some(place) = place.checked_sub(1) else { return };
        let draft = self.recalled.take().map_or_else(|| self.text.clone(), |(_, draft)| draft);
        self.show(self.history[place].clone());
        self.recalled = Some((place, draft));
    }

    /// The line after this one; after the last, what was being written.
    pub(crate) fn later(&mut self) {
        let Some((place, draft)) = self.recalled.take() else { return };
        match self.history.get(place + 1).cloned() {
            Some(line) => {
                self.show(line);
                self.recalled = Some((place + 1, draft));
            }
            None => self.show(draft),
        }
    }

    fn show(&mut self, text: String) {
        self.text = text;
        self.end();
    }
}

/// Characters that move, hide or turn others.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let mut line = Line::default();
        line.insert(text);
        line
    }

    #[test]
    fn editing_respects_characters_of_any_length() {
        let mut line = line("gr\u{fc}n");
        line.left();
        line.backspace();
        assert_eq!((line.text(), line.head()), ("grn", "gr"));
        line.insert("\u{fc}");
        line.home();
        line.delete();
        assert_eq!((line.text(), line.head()), ("r\u{fc}n", ""));
        line.left();
        line.backspace();
        line.end();
        line.right();
        line.delete();
        assert_eq!(line.text(), "r\u{fc}n");
        line.insert(" one two ");
        line.cut_word();
        assert_eq!(line.text(), "r\u{fc}n one ");
        line.cut_head();
        assert_eq!(line.text(), "");
    }

    #[test]
    fn what_is_pasted_executes_nothing_and_hides_nothing() {
        assert_eq!(line("a\nb\r\u{1b}[2J\u{202e}c\u{7}").text(), "a b [2Jc");
        assert_eq!(line(&"x".repeat(LINE_MAX + 5)).text().len(), LINE_MAX);
    }

    #[test]
    fn the_history_goes_back_and_returns_to_what_was_being_written() {
        let mut line = line("first");
        assert_eq!(line.take(), "first");
        line.insert("second");
        line.take();
        line.insert("second");
        line.take();
        line.insert("draft");
        line.earlier();
        assert_eq!(line.text(), "second");
        line.earlier();
        line.earlier();
        assert_eq!((line.text(), line.head()), ("first", "first"));
        line.later();
        line.later();
        assert_eq!(line.text(), "draft");
        line.later();
        assert_eq!(line.text(), "draft");
    }
}
