//! What stands between header and action bar: peers, messages, help.

use castra_core::control::reply::InboxMessage;
use castra_core::peers::Presence;
use castra_core::status::State as Verdict;
use castra_core::time::WallTime;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::command::ENTRIES;
use super::state::{Link, State, View};
use crate::duration::{age, age_or_never};
use crate::tui::paint::{BOLD, Paint, title};
use crate::tui::text::{clock, fit, wrap};

/// Text of a message that doesn't follow its head.
const INDENT: &str = "    ";

pub(super) fn body(state: &mut State, paint: Paint, width: usize, room: usize) -> Vec<Line<'static>> {
    match state.view {
        View::Help => {
            let mut rows = vec![title("COMMANDS", width)];
            rows.extend(scrolled(state, help(width), room.saturating_sub(1)));
            rows
        }
        View::Peers => {
            let (head, peers) = peers(state, paint, width);
            let mut rows = vec![title(&head, width)];
            rows.extend(scrolled(state, peers, room.saturating_sub(1)));
            rows
        }
        View::Inbox => messages(state, width, room),
        View::Both => {
            let (head, mut peers) = peers(state, paint, width);
            let most = (room / 3).max(2);
            if peers.len() > most {
                let hidden = peers.len() - most + 1;
                peers.truncate(most - 1);
                peers.push(Line::raw(fit(&format!("... and {hidden} more: :peers"), width)));
            }
            let mut rows = vec![title(&head, width)];
            rows.extend(peers);
            // On a tiny screen the messages matter more.
            if rows.len() + 2 > room {
                rows.clear();
            }
            let left = room - rows.len();
            rows.extend(messages(state, width, left));
            rows
        }
    }
}

/// A part of what is longer than the screen, read from its beginning.
fn scrolled(state: &mut State, rows: Vec<Line<'static>>, room: usize) -> Vec<Line<'static>> {
    state.reach = (rows.len().saturating_sub(room), room.max(1));
    state.scroll = state.scroll.min(state.reach.0);
    rows.into_iter().skip(state.scroll).take(room).collect()
}

fn help(width: usize) -> Vec<Line<'static>> {
    let keys = [
        ("Tab", "complete a command or a name"),
        ("Up, Down", "earlier commands, while one is written"),
        ("PgUp, PgDn", "scroll"),
        ("Esc", "back"),
    ];
    let commands = ENTRIES.iter().map(|entry| (entry.usage, entry.meaning));
    let wide = ENTRIES.iter().map(|entry| entry.usage.len()).max().unwrap_or(0) + 2;
    let mut rows = vec![];
    for (usage, meaning) in commands.chain(keys) {
        if wide + meaning.len() <= width {
            rows.push(Line::raw(format!("{usage:wide$}{meaning}")));
        } else {
            rows.push(Line::raw(usage));
            rows.extend(wrap(meaning, width, INDENT).into_iter().map(Line::raw));
        }
    }
    rows
}

fn peers(state: &State, paint: Paint, width: usize) -> (String, Vec<Line<'static>>) {
    let peers = match state.peers() {
        None => return ("PEERS".into(), vec![]),
        Some(Err(why)) => return ("PEERS".into(), vec![Line::raw(fit(why, width))]),
        Some(Ok(peers)) if peers.is_empty() => {
            return ("PEERS 0".into(), vec![Line::raw(fit("none yet: :peer NAME", width))]);
        }
        Some(Ok(peers)) => peers,
    };
    let wide = width >= 66;
    let longest = peers.iter().map(|peer| peer.name.as_str().len()).max().unwrap_or(4);
    let name = longest.clamp(4, (width / 3).max(8));
    let line = |cells: [&str; 6]| {
        let [peer, presence, age, queued, sent, received] = cells;
        let rest = format!("  {age:<7} {queued:<7}");
        let last = if wide { format!(" {sent:<10} {received}") } else { String::new() };
        (format!("{:<name$}  ", fit(peer, name)), format!("{presence:<10}"), rest + &last)
    };
    let (one, two, three) = line(["NAME", "STATE", "AGE", "QUEUED", "SENT TO", "RECEIVED FROM"]);
    let mut rows = vec![Line::raw(fit(&(one + &two + &three), width))];
    let ago =
        |at: Option<WallTime>| at.map_or_else(|| "-".into(), |at| format!("{} ago", since(at, state.wall)));
    // Without an answer nobody can tell how they are now.
    let current = state.link == Link::Online;
    for peer in &peers {
        let style = match peer.state {
            _ if !current => Style::new(),
            Presence::Live => paint.verdict(Verdict::Reachable),
            Presence::Restorable | Presence::Known => paint.verdict(Verdict::Waiting),
            Presence::Missing => paint.verdict(Verdict::Offline),
        };
        let (name, presence, rest) = line([
            peer.name.as_str(),
            if current { peer.state.as_str() } else { "-" },
            &age_or_never(peer.last_handshake_age_ms.filter(|_| current)),
            &peer.queued.to_string(),
            &ago(peer.last_sent_at),
            &ago(peer.last_received_at),
        ]);
        rows.push(Line::from(vec![Span::raw(name), Span::styled(presence, style), Span::raw(rest)]));
    }
    let told = if current { "" } else { " (as last told)" };
    (format!("PEERS {}{told}", peers.len()), rows)
}

fn since(at: WallTime, now: WallTime) -> String {
    age(u64::try_from(now.unix_millis().saturating_sub(at.unix_millis())).unwrap_or(0))
}

/// The newest messages that fit, the newest last: made from the end, as far
/// back as there is something to see.
fn messages(state: &mut State, width: usize, room: usize) -> Vec<Line<'static>> {
    let page = room.saturating_sub(1);
    let messages = match &state.inbox {
        Ok(messages) => messages,
        Err(why) => return vec![title("MESSAGES", width), Line::raw(fit(why, width))],
    };
    let waiting = messages.iter().filter(|message| message.delivered_at.is_none()).count();
    let waits = if waiting > 0 { format!(" ({waiting} waiting)") } else { String::new() };
    // From the last line to the first.
    let mut lines: Vec<Line<'static>> = vec![];
    let mut all = true;
    for message in messages.iter().rev() {
        if lines.len() >= state.scroll.saturating_add(page) {
            all = false;
            break;
        }
        lines.extend(told(message, state.wall, width).into_iter().rev());
    }
    let most = if all { lines.len().saturating_sub(page) } else { usize::MAX };
    state.reach = (most, page.max(1));
    state.scroll = state.scroll.min(most);
    let below = if state.scroll > 0 { format!(", {} lines below", state.scroll) } else { String::new() };
    let mut rows = vec![title(&format!("MESSAGES {}{waits}{below}", messages.len()), width)];
    if messages.is_empty() {
        rows.push(Line::raw("none yet"));
    }
    let shown: Vec<_> = lines.into_iter().skip(state.scroll).take(page).collect();
    rows.extend(shown.into_iter().rev());
    rows.truncate(room);
    rows
}

/// One message: who and when, then its text, whose further lines are indented
/// so that none of them looks like another message.
fn told(message: &InboxMessage, now: WallTime, width: usize) -> Vec<Line<'static>> {
    let marks = [
        (message.from_authenticated, "keyed"),
        (message.delivered_at.is_none(), "waiting"),
        (!message.wake, "quiet"),
    ];
    let marks: Vec<&str> = marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect();
    let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
    let at = clock(message.sent_at, now);
    let head = format!("{at} {}{marks}: ", message.from);
    let mut lines = wrap(&message.text, width, INDENT);
    let mut first = vec![Span::raw(format!("{at} ")), Span::styled(message.from.to_string(), BOLD)];
    first.push(Span::raw(format!("{marks}: ")));
    let begins = lines.first().map(|line| line[INDENT.len()..].to_owned());
    if let Some(begins) = begins.filter(|begins| head.len() + begins.len() <= width) {
        first.push(Span::raw(begins));
        lines.remove(0);
    }
    std::iter::once(Line::from(first)).chain(lines.into_iter().map(Line::raw)).collect()
}
