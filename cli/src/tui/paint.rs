//! Colours, or none; and the command line. Pure.

use castra_core::status::State as Verdict;
use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::line::Line as Written;
use super::text::fit;

/// Colours, or none.
#[derive(Clone, Copy)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    pub(crate) fn of(self, color: Color) -> Style {
        if self.0 { Style::new().fg(color) } else { Style::new() }
    }

    /// As in `castra status`; the word itself says the same.
    pub(crate) fn verdict(self, state: Verdict) -> Style {
        self.of(match state {
            Verdict::Reachable => Color::Green,
            Verdict::Waiting => Color::Yellow,
            Verdict::Offline => Color::Red,
        })
        .add_modifier(Modifier::BOLD)
    }
}

pub(crate) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// A heading with a rule behind it.
pub(crate) fn title(text: &str, width: usize) -> Line<'static> {
    let text = fit(text, width);
    let rule = "-".repeat(width.saturating_sub(text.len() + 1));
    Line::from(vec![Span::styled(text, BOLD), Span::raw(format!(" {rule}"))])
}

/// The line that is being written, behind `mark`, with the cursor.
pub(crate) fn written(frame: &mut Frame<'_>, mark: char, line: &Written, area: Rect) {
    // What does not fit is left out at the beginning: the cursor stays in sight.
    let room = usize::from(area.width).saturating_sub(2);
    let (text, mut head) = (line.text(), line.head());
    while Span::raw(head).width() > room {
        let mut rest = head.chars();
        rest.next();
        head = rest.as_str();
    }
    let from = line.head().len() - head.len();
    frame.render_widget(Paragraph::new(format!("{mark}{}", &text[from..])), area);
    let column = u16::try_from(Span::raw(head).width() + 1).unwrap_or(u16::MAX);
    frame.set_cursor_position(Position { x: area.x.saturating_add(column), y: area.y });
}
