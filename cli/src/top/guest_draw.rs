//! The picture of one guest.

use std::time::Duration;

use castra_core::event::{Event, Level};
use castra_core::id::Epoch;
use castra_core::status::{GuestStatus, State as Verdict};
use castra_core::time::WallTime;
use ratatui::style::Color;
use ratatui::text::{Line, Span};

use super::columns::via;
use super::draw::{beside, verdict};
use super::guest::{Page, Part};
use super::look::Look;
use super::state::State;
use super::table::{Now, Row};
use crate::duration::{age, age_or_never, format, micros, millis};
use crate::render::aligned;
use crate::term::list::HEADER as TERMINALS;
use crate::tui::paint::{BOLD, title};
use crate::tui::text::{clock, fit, wrap};

/// Most rows of a part that does not fill the screen.
const BRIEF: usize = 4;

/// The guest that is looked at.
pub(super) fn draw(state: &mut State, look: Look, width: usize, room: usize) -> Vec<Line<'static>> {
    let Some(page) = &state.page else { return vec![] };
    let Some(row) = state.table.get(&page.name) else {
        let name = Span::styled(page.name.to_string(), BOLD);
        return vec![Line::from(vec![name, Span::raw("  no guest is called so: Esc shows all")])];
    };
    let now = row.now(state.now, state.absent());
    let mut rows = header(row, &now, state, look, width);
    let parts = Parts { page, row, now: &now, state, look, width };
    let (mut scroll, mut reach) = (0, (0, 1));
    let left = room.saturating_sub(rows.len());
    if page.part == Part::All {
        for (head, lines, part) in [parts.sessions(), parts.peers(), parts.terminals()] {
            rows.push(title(&head, width));
            let hidden = (lines.len() + 1).saturating_sub(BRIEF);
            let most = if hidden > 1 { BRIEF - 1 } else { BRIEF };
            rows.extend(lines.into_iter().take(most));
            if hidden > 1 {
                rows.push(Line::raw(format!("... and {hidden} more: Tab shows {part}")));
            }
        }
        let (head, lines, _) = parts.events();
        rows.push(title(&head, width));
        rows.extend(lines);
        rows.truncate(room);
    } else {
        let (head, lines, _) = match page.part {
            Part::Sessions => parts.sessions(),
            Part::Peers => parts.peers(),
            Part::Terminals => parts.terminals(),
            Part::All | Part::Events => parts.events(),
        };
        let most = left.saturating_sub(1);
        reach = (lines.len().saturating_sub(most), most.max(1));
        scroll = page.scroll.min(reach.0);
        rows.push(title(&head, width));
        rows.extend(lines.into_iter().skip(scroll).take(most));
    }
    if let Some(page) = &mut state.page {
        (page.scroll, page.reach) = (scroll, reach);
    }
    rows
}

/// State, evidence, session, counters, abilities, attachment.
fn header(row: &Row, now: &Now, state: &State, look: Look, width: usize) -> Vec<Line<'static>> {
    let status = &row.status;
    let word = now.state.map_or("asking", Verdict::as_str);
    let mut words: Vec<String> = now.reason.iter().map(ToString::to_string).collect();
    words.extend(status.warnings.iter().map(|warning| format!("! {warning}")));
    let first = vec![
        Span::styled(status.name.to_string(), BOLD),
        Span::raw("  "),
        Span::styled(format!("{} {word}", look.mark(now.state)), verdict(look, now)),
        Span::raw(format!("  {}", words.join(" "))),
    ];
    let mut rows = vec![beside(first, "", width), evidence(status, now, look, width)];
    let session = match now.session {
        Some(session) => {
            let epoch = status.epoch.map_or_else(String::new, |epoch| format!(" {}", session_id(epoch)));
            let begun = state.wall.unix_millis().saturating_sub_unsigned(session);
            let since = clock(WallTime::from_unix_millis(begun), state.wall);
            format!("session{epoch} since {since} ({}) over {}", age(session), via(status))
        }
        None => "no session".into(),
    };
    let seen = status.last_handshake_at.map_or_else(|| "never".into(), |at| clock(at, state.wall));
    rows.push(Line::raw(fit(&session, width)));
    let counts = format!(
        "last proof {seen}  proofs {}  flaps {}  refused {}  superseded {}",
        status.handshakes, row.counts.flaps, status.refusals, status.takeovers
    );
    rows.push(Line::raw(fit(&counts, width)));
    let abilities: Vec<&str> = status.capabilities.iter().collect();
    let boot = status.boot.map_or_else(String::new, |boot| format!("boot {boot}  "));
    rows.push(Line::raw(fit(&format!("{boot}can {}", dash(abilities.join(" "))), width)));
    let attachment = wrap(&attachment(state.page.as_ref()), width, "");
    rows.extend(attachment.into_iter().take(2).map(Line::raw));
    rows
}

fn evidence(status: &GuestStatus, now: &Now, look: Look, width: usize) -> Line<'static> {
    let mut spans = vec![Span::raw(format!("age {}", age_or_never(now.age)))];
    if now.state != Some(Verdict::Offline) {
        let span = |millis| format(Duration::from_millis(millis));
        if let Some(window) = status.window_ms {
            spans.push(Span::raw(format!(" of {} ", span(window))));
            let bar = look.bar(now.age.unwrap_or(window), window, if width < 70 { 12 } else { 22 });
            spans.extend(now.age.map(|_| Span::styled(bar, verdict(look, now))));
        }
        let rtt = status.rtt_us.map_or_else(|| "-".into(), micros);
        spans.push(Span::raw(format!("  rtt {rtt}")));
        if let Some(interval) = status.interval_ms {
            spans.push(Span::raw(format!("  asked every {}", span(interval))));
        }
    }
    beside(spans, "", width)
}

fn attachment(page: Option<&Page>) -> String {
    let text = match page.and_then(|page| page.attachment.as_ref()) {
        None => "...".into(),
        Some(Err(why)) => format!("unknown: {why}"),
        Some(Ok(None)) => "none".into(),
        Some(Ok(Some(row))) => {
            let route = row.route.map_or("no route", |route| route.as_str());
            let error = row.last_error.as_ref();
            let error = error
                .map_or_else(String::new, |error| format!(", last error {}: {}", error.code, error.message));
            let lease =
                row.lease_expires_in_ms.map_or_else(String::new, |left| format!(", lease {}", age(left)));
            let (stage, url) = (row.stage.as_str(), &row.manager_url);
            format!("{stage} to {url} ({route}{lease}), {} actions wait{error}", row.queued)
        }
    };
    format!("attachment {text}")
}

/// As the log calls it.
fn session_id(epoch: Epoch) -> String {
    format!("sess-{}-{}", epoch.incarnation(), epoch.counter())
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// Its parts: a heading, rows, and how the part is called.
struct Parts<'a> {
    page: &'a Page,
    row: &'a Row,
    now: &'a Now,
    state: &'a State,
    look: Look,
    width: usize,
}

type Drawn = (String, Vec<Line<'static>>, &'static str);

impl Parts<'_> {
    fn lines(&self, lines: Vec<String>) -> Vec<Line<'static>> {
        lines.into_iter().map(|line| Line::raw(fit(&line, self.width))).collect()
    }

    /// The one that there is, and those that ended, newest first.
    fn sessions(&self) -> Drawn {
        let open = self.now.session.map(|session| {
            let epoch = self.row.status.epoch.map_or_else(|| "-".into(), session_id);
            [epoch, "now".into(), age(session), "open".into()]
        });
        let ended: Vec<_> = self
            .page
            .ended()
            .map(|ended| {
                let at = clock(ended.at, self.state.wall);
                [session_id(ended.epoch), at, age(ended.lasted_ms), ended.reason.to_string()]
            })
            .collect();
        let head = format!("SESSIONS {} ended", ended.len());
        let rows: Vec<_> = open.into_iter().chain(ended).collect();
        let lines = match rows.as_slice() {
            [] => vec!["none that the broker remembers".into()],
            rows => aligned(&["SESSION", "UNTIL", "LASTED", "WHY IT ENDED"], rows),
        };
        (head, self.lines(lines), "sessions")
    }

    fn peers(&self) -> Drawn {
        let (head, lines) = match &self.page.peers {
            None => ("PEERS".into(), vec!["...".into()]),
            Some(Err(why)) => ("PEERS".into(), wrap(why, self.width, "")),
            Some(Ok(peers)) if peers.is_empty() => ("PEERS 0".into(), vec!["none: :peer NAME NAME".into()]),
            Some(Ok(peers)) => {
                let is_told = self.state.absent().is_none();
                let ago =
                    |at: Option<WallTime>| at.map_or_else(|| "-".into(), |at| clock(at, self.state.wall));
                let rows: Vec<_> = peers
                    .iter()
                    .map(|peer| {
                        [
                            peer.name.to_string(),
                            if is_told { peer.state.as_str() } else { "-" }.into(),
                            age_or_never(peer.last_handshake_age_ms.filter(|_| is_told)),
                            peer.queued.to_string(),
                            ago(peer.last_sent_at),
                            ago(peer.last_received_at),
                        ]
                    })
                    .collect();
                let heads = ["NAME", "STATE", "AGE", "QUEUED", "SENT TO", "RECEIVED FROM"];
                (format!("PEERS {}", peers.len()), aligned(&heads, &rows))
            }
        };
        (head, self.lines(lines), "peers")
    }

    fn terminals(&self) -> Drawn {
        let serves = self.row.status.capabilities.iter().any(|word| word == crate::term::list::CAPABILITY);
        let (head, lines) = match &self.page.terminals {
            None if serves => ("TERMINALS".into(), vec!["not told: u asks".into()]),
            None => ("TERMINALS".into(), vec!["it serves none".into()]),
            Some((Err(why), _)) => ("TERMINALS".into(), wrap(why, self.width, "")),
            Some((Ok(rows), at)) => {
                let since = age(millis(self.state.now.saturating_duration_since(*at)));
                let head = format!("TERMINALS {} (told {since} ago; u asks again)", rows.len());
                let lines = if rows.is_empty() { vec!["none".into()] } else { aligned(&TERMINALS, rows) };
                (head, lines)
            }
        };
        (head, self.lines(lines), "terminals")
    }

    /// Newest first, as the log has them.
    fn events(&self) -> Drawn {
        let mut lines = vec![];
        if let Some(why) = &self.page.events_missing {
            lines.push(Line::raw(fit(why, self.width)));
        }
        for event in self.page.events() {
            lines.extend(self.event(event));
        }
        let count = self.page.events().count();
        if count == 0 && lines.is_empty() {
            lines.push(Line::raw("none that the broker remembers"));
        }
        (format!("EVENTS {count}, newest first"), lines, "events")
    }

    fn event(&self, event: &Event) -> Vec<Line<'static>> {
        let (level, style) = match event.fact.level() {
            Level::Info => ("", ratatui::style::Style::new()),
            Level::Warn => ("! ", self.look.paint.of(Color::Yellow)),
            Level::Error => ("!! ", self.look.paint.of(Color::Red)),
        };
        let head = format!("{} {level}", clock(event.at, self.state.wall));
        // What does not fit goes on below, so that no reason is cut off.
        let indent = " ".repeat(head.len().min(self.width / 4));
        let mut lines = wrap(&format!("{event}"), self.width, &indent);
        if let Some(first) = lines.first_mut() {
            *first = format!("{head}{}", first.get(indent.len()..).unwrap_or_default());
        }
        lines.into_iter().map(|line| Line::styled(fit(&line, self.width), style)).collect()
    }
}
