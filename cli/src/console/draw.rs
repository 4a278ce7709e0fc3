//! The picture. Everything that somebody else wrote is escaped, so every
//! character of it is ASCII and one column wide.

use std::time::Duration;

use castra_core::status::{BrokerState, GuestStatus, State as Verdict};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::inputs::{Role, Standing};
use super::panels::body;
use super::state::{Link, State, View};
use crate::duration::{age, age_or_never, format, millis};
use crate::output::printable;
use crate::tui::paint::{BOLD, Paint, written};
use crate::tui::text::fit;

/// Draws all of it, and notes how far one can scroll.
pub(crate) fn draw(frame: &mut Frame<'_>, state: &mut State, color: bool) {
    let (paint, area) = (Paint(color), frame.area());
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let notice = state.notices.rows(paint, width);
    let (head, foot) = (2.min(height), notice.len().max(1) + 1);
    let room = height.saturating_sub(head + foot);
    let mut rows = header(state, paint, width);
    rows.truncate(head);
    rows.extend(body(state, paint, width, room));
    rows.resize(height.saturating_sub(foot), Line::default());
    rows.extend(notice);
    rows.resize(height.saturating_sub(1), Line::default());
    frame.render_widget(Paragraph::new(rows), area);
    let last = Rect { y: area.bottom().saturating_sub(1), height: area.height.min(1), ..area };
    command_line(frame, state, last);
}

fn header(state: &State, paint: Paint, width: usize) -> Vec<Line<'static>> {
    let name = Span::styled(state.name.to_string(), BOLD);
    let (word, style, rest, second) = match (&state.link, &state.snapshot) {
        (Link::Connecting, _) => ("...", Style::new(), String::new(), "asking".to_owned()),
        (Link::Offline(why), _) => {
            ("offline", paint.verdict(Verdict::Offline), "nobody can tell".into(), printable(why))
        }
        (Link::Online, Some((snapshot, at))) => match &snapshot.standing {
            Standing::Known(guest) => {
                let since = millis(state.now.saturating_duration_since(*at));
                let rest = beside(guest, state.role());
                (guest.state.as_str(), paint.verdict(guest.state), rest, evidence(guest, since, width))
            }
            Standing::Unknown => {
                let help = "no guest is called so; castra status lists all".to_owned();
                ("unknown", paint.verdict(Verdict::Waiting), String::new(), help)
            }
            Standing::Silent(why) => ("...", Style::new(), "nobody can tell".into(), why.clone()),
        },
        (Link::Online, None) => ("...", Style::new(), String::new(), String::new()),
    };
    let mut first = vec![name, Span::raw("  "), Span::styled(word, style)];
    if !rest.is_empty() {
        first.push(Span::raw(format!("  {rest}")));
    }
    let broker = state.snapshot.as_ref().and_then(|(snapshot, _)| snapshot.broker.as_ref());
    let right = broker.map(|broker| match broker.state {
        BrokerState::Draining => "broker stopping",
        _ => "broker serving",
    });
    let used: usize = first.iter().map(Span::width).sum();
    if let Some(right) = right.filter(|right| state.link == Link::Online && used + right.len() + 2 <= width) {
        first.push(Span::raw(format!("{right:>0$}", width - used)));
    }
    vec![Line::from(first), Line::raw(fit(&second, width))]
}

/// Reason and warnings; and where one is.
fn beside(guest: &GuestStatus, role: Role) -> String {
    let mut words: Vec<String> = guest.reason.iter().map(ToString::to_string).collect();
    if !guest.warnings.is_empty() {
        let warnings: Vec<String> = guest.warnings.iter().map(ToString::to_string).collect();
        words.push(format!("({})", warnings.join(", ")));
    }
    if role == Role::Agent {
        words.push("[inside the guest]".into());
    }
    words.join(" ")
}

/// Age against window, session, way. `since`: milliseconds since that was told.
fn evidence(guest: &GuestStatus, since: u64, width: usize) -> String {
    let now = guest.last_handshake_age_ms.map(|then| then + since);
    let mut text = format!("age {}", age_or_never(now));
    if let Some(window) = guest.window_ms {
        text += &format!(" of {}", format(Duration::from_millis(window)));
        if let Some(now) = now {
            let cells = if width < 70 { 8 } else { 20 };
            let full = usize::try_from(now.saturating_mul(cells) / window.max(1)).unwrap_or(usize::MAX);
            let cells = usize::try_from(cells).unwrap_or(0);
            let full = full.min(cells);
            text += &format!(" [{}{}]", "#".repeat(full), "-".repeat(cells - full));
        }
    }
    if let Some(session) = guest.session_age_ms {
        text += &format!("  session {}", age(session + since));
    }
    if let Some(transport) = guest.transport {
        text += &format!("  {transport}");
        if let Some(remote) = guest.remote.map(|remote| remote.to_string()).filter(|remote| remote != "-") {
            text += &format!(" {}", printable(&remote));
        }
        text += if guest.authenticated { " keyed" } else { "" };
    }
    text
}

fn command_line(frame: &mut Frame<'_>, state: &State, area: Rect) {
    if !state.is_writing {
        let hint = if state.view == View::Both {
            ": command   ? help   q quit"
        } else {
            "Esc back   PgUp PgDn scroll   : command"
        };
        frame.render_widget(Paragraph::new(fit(hint, area.width.into())), area);
        return;
    }
    written(frame, ':', &state.line, area);
}
