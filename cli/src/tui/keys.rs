//! What keys do to a line that is being written. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::line::Line;

/// What a key came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Edited {
    /// The line goes on.
    On,
    /// It is done: what was written.
    Done(String),
    /// It was given up.
    Left,
    /// It is to be completed.
    Complete,
}

/// Edits.
pub(crate) fn edit(line: &mut Line, key: KeyEvent) -> Edited {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Enter => return Edited::Done(line.take()),
        KeyCode::Esc => return leave(line),
        KeyCode::Char('c') if control => return leave(line),
        KeyCode::Tab => return Edited::Complete,
        KeyCode::Char('a') if control => line.home(),
        KeyCode::Char('e') if control => line.end(),
        KeyCode::Char('u') if control => line.cut_head(),
        KeyCode::Char('w') if control => line.cut_word(),
        KeyCode::Char(_) if control || key.modifiers.contains(KeyModifiers::ALT) => {}
        KeyCode::Char(character) => line.insert(character.encode_utf8(&mut [0; 4])),
        // As in other editors: behind the colon of an empty line it ends the line.
        KeyCode::Backspace if line.text().is_empty() => return leave(line),
        KeyCode::Backspace => line.backspace(),
        KeyCode::Delete => line.delete(),
        KeyCode::Left => line.left(),
        KeyCode::Right => line.right(),
        KeyCode::Home => line.home(),
        KeyCode::End => line.end(),
        KeyCode::Up => line.earlier(),
        KeyCode::Down => line.later(),
        _ => {}
    }
    Edited::On
}

fn leave(line: &mut Line) -> Edited {
    line.clear();
    Edited::Left
}
