//! The picture: what all views share, and the table. Everything that somebody else
//! wrote is escaped, so every character of it is ASCII and one column wide.

use std::time::Duration;

use castra_core::id::GuestName;
use castra_core::status::{BrokerState, State as Verdict};
use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::columns::{Column, fitting};
use super::command::ENTRIES;
use super::guest_draw;
use super::look::Look;
use super::state::{Link, State, View, Writing};
use super::table::Now;
use crate::duration::format;
use crate::output::printable;
use crate::tui::paint::{BOLD, title, written};
use crate::tui::text::{clock, fit, wrap};

/// Less than this shows nothing that helps.
const LEAST: (u16, u16) = (40, 8);

/// Columns before a row: the pointer and a blank.
const POINTER: usize = 2;

const KEYS: [(&str, &str); 13] = [
    ("Up, Down, j, k", "select; PgUp, PgDn, Home, End, g, G as well"),
    ("Enter", "look at the guest that is selected; Esc comes back"),
    ("/", "only guests with a text; Enter keeps it, Esc ends it"),
    ("f", "only waiting, only reachable, all again"),
    ("s, S, r", "sort by the next column, the one before, in reverse"),
    ("Esc", "no filter; back"),
    ("Tab, Right, Left", "of one guest: sessions, peers, terminals, events alone"),
    ("u", "of one guest: ask for its terminals again"),
    (": then Tab", "complete a command or a name"),
    (": then Up, Down", "earlier commands"),
    ("q, Ctrl-C", "leave"),
    ("AGE/OF, WINDOW", "age of its newest proof against the window it has to be in"),
    ("FLAPS", "how often it stopped being reachable, in the newest 8192 events"),
];

/// Draws all of it, and notes how far one can move.
pub(crate) fn draw(frame: &mut Frame<'_>, state: &mut State, look: Look) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return too_small(frame, area);
    }
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let notice = state.notices.rows(look.paint, width);
    let mut rows = vec![first(state, look, width)];
    // The last row is the command line's.
    let room = height.saturating_sub(rows.len() + notice.len() + 1);
    rows.extend(match state.view {
        View::Table => table(state, look, width, room),
        View::Guest => guest_draw::draw(state, look, width, room),
        View::Help => help(state, width, room),
    });
    rows.resize(height.saturating_sub(notice.len() + 1), Line::default());
    rows.extend(notice);
    frame.render_widget(Paragraph::new(rows), area);
    let last = Rect { y: area.bottom().saturating_sub(1), height: area.height.min(1), ..area };
    match state.writing {
        Writing::Command => written(frame, ':', &state.line, last),
        Writing::Filter => written(frame, '/', &state.filter, last),
        Writing::Nothing => {
            let hint = match state.view {
                View::Table => "Enter look  / filter  f state  s sort  r reverse  : command  ? help  q quit",
                View::Guest => "Esc back  Tab next part  PgUp PgDn scroll  : command  ? help  q quit",
                View::Help => "Esc back  PgUp PgDn scroll",
            };
            frame.render_widget(Paragraph::new(fit(hint, width)), last);
        }
    }
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!(
        "castra top needs {} columns and {} rows; here are {} and {}. Please make the window larger, or press q.",
        LEAST.0, LEAST.1, area.width, area.height
    );
    let text = Paragraph::new(text).wrap(Wrap { trim: true }).alignment(Alignment::Left);
    frame.render_widget(text, area);
}

/// The broker, and what time it is.
fn first(state: &State, look: Look, width: usize) -> Line<'static> {
    let mut spans = vec![Span::styled("castra top", BOLD), Span::raw("  ")];
    match (&state.link, &state.broker) {
        (Link::Offline(reason, why), _) => {
            let style = look.paint.verdict(Verdict::Offline);
            spans.push(Span::styled(format!("offline ({reason})"), style));
            spans.push(Span::raw(format!(": {}", printable(why))));
        }
        (Link::Connecting, _) | (Link::Online, None) => spans.push(Span::raw("asking the broker")),
        (Link::Online, Some(broker)) => {
            let (word, color) = match broker.state {
                BrokerState::Draining => ("broker stopping", Color::Yellow),
                _ => ("broker serving", Color::Green),
            };
            spans.push(Span::styled(word, look.paint.of(color).add_modifier(Modifier::BOLD)));
            let pid = broker.pid.map_or_else(String::new, |pid| format!(" pid {pid}"));
            spans.push(Span::raw(pid));
            for (what, range) in [
                ("window", state.table.range(|row| row.window_ms)),
                ("interval", state.table.range(|row| row.interval_ms)),
            ] {
                let Some((least, most)) = range else { continue };
                let span = |millis| format(Duration::from_millis(millis));
                let least = if least < most { format!("{}..", span(least)) } else { String::new() };
                spans.push(Span::raw(format!(", {what} {least}{}", span(most))));
            }
        }
    }
    beside(spans, &clock(state.wall, state.wall), width)
}

/// `spans`, cut, and `right` at the right end if there is room.
pub(super) fn beside(spans: Vec<Span<'static>>, right: &str, width: usize) -> Line<'static> {
    let mut left = width;
    let mut line: Vec<Span<'static>> = vec![];
    for span in spans {
        // Names of states and guests are short; what is long comes last.
        let cut = if span.width() > left { Span::styled(fit(&span.content, left), span.style) } else { span };
        left -= cut.width();
        line.push(cut);
    }
    if left >= right.len() + 2 {
        line.push(Span::raw(format!("{right:>left$}")));
    }
    Line::from(line)
}

/// How many there are, and which of them are shown how.
fn second(state: &State, look: Look, width: usize) -> Line<'static> {
    let total = state.table.len();
    let mut spans = vec![Span::raw(format!("{total} guest{}", if total == 1 { "" } else { "s" }))];
    if state.absent().is_some() {
        spans.push(Span::raw(": nobody can tell how they are"));
    } else {
        let [reachable, waiting, _] = state.table.tally();
        let asking = state.asking();
        let reachable = reachable.saturating_sub(asking);
        for (before, count, verdict) in
            [(": ", reachable, Verdict::Reachable), (", ", waiting, Verdict::Waiting)]
        {
            spans.push(Span::raw(before));
            let style = if count > 0 { look.paint.verdict(verdict) } else { Style::new() };
            spans.push(Span::styled(format!("{count} {verdict}"), style));
        }
        if asking > 0 {
            spans.push(Span::styled(format!(", {asking} asking"), BOLD));
        }
    }
    let mut wishes = vec![];
    if let Some(only) = state.wish.state {
        wishes.push(format!("only {only}"));
    }
    if !state.wish.text.is_empty() {
        wishes.push(format!("with \"{}\"", printable(&state.wish.text)));
    }
    if !wishes.is_empty() {
        let shown = state.table.order().len();
        spans.push(Span::styled(format!("; {}: {shown}", wishes.join(" ")), BOLD));
    }
    let direction = if state.wish.is_reversed { ", reversed" } else { "" };
    beside(spans, &format!("by {}{direction}", state.wish.column.title()), width)
}

fn table(state: &mut State, look: Look, width: usize, room: usize) -> Vec<Line<'static>> {
    let from = state.show(room.saturating_sub(2));
    let mut rows = vec![second(state, look, width)];
    if state.table.len() == 0 {
        rows.push(Line::raw(fit(nobody(&state.link), width)));
        return rows;
    }
    let to = state.table.order().len().min(from + room.saturating_sub(2));
    let order = &state.table.order()[from.min(to)..to];
    let longest = order.iter().map(|name| name.as_str().len()).max().unwrap_or(0);
    let columns = fitting(width.saturating_sub(POINTER), longest);
    rows.push(heads(state, look, &columns));
    rows.extend(order.iter().map(|name| row(state, look, &columns, *name)));
    if order.is_empty() {
        rows.push(Line::raw("none is so: Esc shows all"));
    }
    rows
}

const fn nobody(link: &Link) -> &'static str {
    match link {
        Link::Connecting => "",
        Link::Online => "no guest yet: in one, run `castra agent --name NAME --connect ADDRESS`",
        Link::Offline(..) => "no guest is known here",
    }
}

fn heads(state: &State, look: Look, columns: &[(Column, usize)]) -> Line<'static> {
    let mut text = " ".repeat(POINTER - 1);
    for (column, width) in columns {
        let mark = if *column == state.wish.column { look.arrow(state.wish.is_reversed) } else { "" };
        // The sign is one column wide, of whatever bytes.
        let padding = width.saturating_sub(column.title().len() + mark.chars().count());
        text += &format!(" {}{mark}{:padding$}", column.title(), "");
    }
    Line::styled(text, BOLD)
}

fn row(state: &State, look: Look, columns: &[(Column, usize)], name: GuestName) -> Line<'static> {
    let Some(row) = state.table.get(&name) else { return Line::default() };
    let now = row.now(state.now, state.absent());
    let is_selected = state.selected == Some(name);
    let mut spans = vec![Span::styled(if is_selected { look.pointer() } else { " " }, BOLD)];
    for (column, width) in columns {
        let text = column.cell(row, &now, look, *width);
        let text = if matches!(column, Column::State | Column::Bar) { text } else { fit(&text, *width) };
        let padding = width.saturating_sub(text.chars().count());
        let style = match column {
            Column::State | Column::Bar => verdict(look, &now),
            Column::Name if is_selected => BOLD.add_modifier(Modifier::REVERSED),
            _ => Style::new(),
        };
        spans.extend([Span::raw(" "), Span::styled(text, style), Span::raw(" ".repeat(padding))]);
    }
    Line::from(spans)
}

/// The colour of a state; one that is not known has none.
pub(super) fn verdict(look: Look, now: &Now) -> Style {
    now.state.map_or(BOLD, |state| look.paint.verdict(state))
}

fn help(state: &mut State, width: usize, room: usize) -> Vec<Line<'static>> {
    let commands: Vec<_> = ENTRIES.iter().map(|entry| (entry.usage, entry.meaning)).collect();
    let mut rows = listed(&KEYS, width);
    rows.push(Line::default());
    rows.extend(listed(&commands, width));
    let room = room.saturating_sub(1);
    state.reach = (rows.len().saturating_sub(room), room.max(1));
    state.scroll = state.scroll.min(state.reach.0);
    let shown = rows.into_iter().skip(state.scroll).take(room);
    std::iter::once(title("KEYS AND COMMANDS", width)).chain(shown).collect()
}

/// What is said, and what it means; below it where there is no room beside it.
fn listed(entries: &[(&str, &str)], width: usize) -> Vec<Line<'static>> {
    let wide = entries.iter().map(|(said, _)| said.len()).max().unwrap_or(0) + 2;
    let mut rows = vec![];
    for (said, meaning) in entries {
        if wide + meaning.len() <= width {
            rows.push(Line::raw(format!("{said:wide$}{meaning}")));
        } else {
            rows.push(Line::raw((*said).to_owned()));
            rows.extend(wrap(meaning, width, "    ").into_iter().map(Line::raw));
        }
    }
    rows
}
