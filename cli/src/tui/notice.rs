//! Something to tell the person: an error until the next key, anything else for a while. Pure.

use std::time::{Duration, Instant};

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use super::paint::Paint;
use super::text::{fit, wrap};

/// How long a notice that is no error is shown.
const SHOWN: Duration = Duration::from_secs(4);

/// Most rows of a notice.
const ROWS: usize = 3;

/// What is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) is_error: bool,
    /// When it was shown first.
    since: Instant,
}

/// What is shown, and what waits behind it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Notices {
    pub(crate) shown: Option<Notice>,
    /// Comes when the error above it is read.
    next: Option<String>,
}

impl Notices {
    /// Shows `text`, unless there is an error to be read first.
    pub(crate) fn tell(&mut self, text: String, now: Instant) {
        if self.shown.as_ref().is_some_and(|notice| notice.is_error) {
            self.next = Some(text);
        } else {
            self.shown = Some(Notice { text, is_error: false, since: now });
        }
    }

    /// Shows an error.
    pub(crate) fn fail(&mut self, text: String, now: Instant) {
        self.shown = Some(Notice { text, is_error: true, since: now });
    }

    /// Any key takes an error away; what waited behind it is shown.
    pub(crate) fn press(&mut self, now: Instant) {
        if self.shown.as_ref().is_some_and(|notice| notice.is_error) {
            self.shown = None;
            if let Some(text) = self.next.take() {
                self.tell(text, now);
            }
        }
    }

    /// When what is shown goes by itself.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.shown.as_ref().filter(|notice| !notice.is_error).map(|notice| notice.since + SHOWN)
    }

    /// Whether something went by itself.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        let is_over = self.ends().is_some_and(|end| end <= now);
        if is_over {
            self.shown = None;
        }
        is_over
    }

    /// Its rows, of at most `width` columns.
    pub(crate) fn rows(&self, paint: Paint, width: usize) -> Vec<Line<'static>> {
        let Some(notice) = &self.shown else { return vec![] };
        let (text, style) = if notice.is_error {
            (format!("error: {}", notice.text), paint.of(Color::Red).add_modifier(Modifier::BOLD))
        } else {
            (notice.text.clone(), Style::new())
        };
        let mut lines = wrap(&text, width, "");
        if lines.len() > ROWS {
            let rest = lines.split_off(ROWS - 1).join(" ");
            lines.push(fit(&rest, width));
        }
        lines.into_iter().map(|line| Line::styled(line, style)).collect()
    }
}
