//! Documents as people read them.

use std::fmt::Write;
use std::time::Duration;

use castra_core::status::{BrokerState, BrokerStatus, GuestStatus, State, StatusOutcome};

use crate::duration::{age_or_never, format};
use crate::output::printable;

/// What the columns mean, in one line.
pub(crate) const LEGEND: &str =
    "reachable: proven within WINDOW; waiting: not, see REASON. More: status --help";

const HEADER: [&str; 7] = ["GUEST", "BROKER", "REASON", "AGE", "WINDOW", "SESSION", "VIA"];
const STATE_COLUMN: usize = 1;
const GAP: usize = 3;

/// The table with its header, one line a guest, no borders.
///
/// Aligned by hand: every cell is ASCII by then, so width is length, and the
/// colour goes around the padding. A table library would bring more than the
/// dozen lines that it saves.
pub(crate) fn table(guests: &[GuestStatus], color: bool) -> Vec<String> {
    let rows: Vec<[String; 7]> = guests.iter().map(cells).collect();
    let mut widths = HEADER.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut lines = vec![line(&HEADER, &widths, None)];
    for (guest, row) in guests.iter().zip(&rows) {
        let cells = row.each_ref().map(String::as_str);
        lines.push(line(&cells, &widths, color.then(|| paint(guest.state))));
    }
    lines
}

/// Rows below a header, without borders or colour. Every cell must be ASCII.
pub(crate) fn aligned<const N: usize>(header: &[&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let rows = rows.iter().map(|row| line(&row.each_ref().map(String::as_str), &widths, None));
    std::iter::once(line(header, &widths, None)).chain(rows).collect()
}

fn line<const N: usize>(cells: &[&str; N], widths: &[usize; N], paint: Option<&str>) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let end = if column + 1 == cells.len() { 0 } else { width + GAP - cell.len() };
        // Writing to a string can't fail.
        let _ = match paint {
            Some(paint) if column == STATE_COLUMN => write!(text, "{paint}{cell}\x1b[0m{:end$}", ""),
            _ => write!(text, "{cell}{:end$}", ""),
        };
    }
    text
}

fn cells(guest: &GuestStatus) -> [String; 7] {
    [
        printable(guest.name.as_str()),
        guest.state.to_string(),
        reason(guest),
        age_or_never(guest.last_handshake_age_ms),
        // Without a broker nobody judges, by any window.
        guest.window_ms.map_or_else(|| "-".into(), |window| format(Duration::from_millis(window))),
        age_or_never(guest.session_age_ms),
        via(guest),
    ]
}

fn reason(guest: &GuestStatus) -> String {
    let mut text = guest.reason.map_or_else(|| "-".into(), |reason| reason.to_string());
    if !guest.warnings.is_empty() {
        let warnings: Vec<String> = guest.warnings.iter().map(ToString::to_string).collect();
        let _ = write!(text, " ({})", warnings.join(", "));
    }
    text
}

fn via(guest: &GuestStatus) -> String {
    let Some(transport) = guest.transport else { return "-".into() };
    let remote = guest.remote.map(|remote| remote.to_string()).filter(|remote| remote != "-");
    let remote = remote.map_or_else(String::new, |remote| format!(" {}", printable(&remote)));
    let keyed = if guest.authenticated { " keyed" } else { "" };
    format!("{transport}{remote}{keyed}")
}

/// Green, yellow, red; the word itself says the same to whoever sees no colour.
const fn paint(state: State) -> &'static str {
    match state {
        State::Reachable => "\x1b[32m",
        State::Waiting => "\x1b[33m",
        State::Offline => "\x1b[31m",
    }
}

/// The broker in one line.
pub(crate) fn broker(broker: &BrokerStatus) -> String {
    let pid = broker.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    match broker.state {
        BrokerState::Offline => "broker: offline".into(),
        BrokerState::NotAnswering => format!("broker: not answering{pid}"),
        BrokerState::Serving | BrokerState::Draining => {
            let word = if broker.state == BrokerState::Serving { "serving" } else { "draining" };
            let listen = match broker.listen.as_slice() {
                [] => String::new(),
                some => format!(" on {}", printable(&some.join(" "))),
            };
            format!("broker: {word}{listen}{pid}, {} of {} reachable", broker.reachable, broker.guests)
        }
    }
}

/// The whole of `castra status` for people. `rows` cuts the table to a screen.
pub(crate) fn status(document: &StatusOutcome, color: bool, rows: Option<usize>) -> Vec<String> {
    let mut lines = vec![];
    if document.guests.is_empty() {
        lines.push(
            match document.broker.state {
                BrokerState::Serving | BrokerState::Draining => {
                    "no guest yet: in one, run `castra agent --name NAME --connect ADDRESS`"
                }
                BrokerState::NotAnswering | BrokerState::Offline => "no guest is known here",
            }
            .into(),
        );
    } else {
        lines = table(&document.guests, color);
        // Four more lines follow the table, and the cursor wants one.
        let most = rows.map_or(usize::MAX, |rows| rows.saturating_sub(5).max(2));
        if lines.len() > most {
            let hidden = lines.len() - most + 1;
            lines.truncate(most - 1);
            lines.push(format!("... and {hidden} more: name the ones to watch"));
        }
    }
    lines.push(String::new());
    lines.push(broker(&document.broker));
    lines.push(LEGEND.into());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::absent_guest;
    use castra_core::boundary::{Remote, Transport};
    use castra_core::status::{Reason, Warning};

    fn devbox() -> GuestStatus {
        GuestStatus {
            state: State::Reachable,
            reachable: true,
            reason: None,
            last_handshake_age_ms: Some(812),
            session_age_ms: Some(192_500),
            window_ms: Some(15_000),
            transport: Some(Transport::Tcp),
            remote: Some(Remote::Ip("127.0.0.1:51234".parse().unwrap())),
            ..absent_guest("devbox".parse().unwrap(), None, Reason::NoBroker)
        }
    }

    #[test]
    fn columns_are_aligned_and_absent_values_are_dashes() {
        let waiting = GuestStatus {
            state: State::Waiting,
            reason: Some(Reason::NeverSeen),
            window_ms: Some(15_000),
            ..absent_guest("a-much-longer-name".parse().unwrap(), None, Reason::NoBroker)
        };
        assert_eq!(
            table(&[waiting, devbox()], false),
            [
                "GUEST                BROKER      REASON       AGE    WINDOW   SESSION   VIA",
                "a-much-longer-name   waiting     never_seen   -      15s      -         -",
                "devbox               reachable   -            0.8s   15s      3m12s     tcp 127.0.0.1:51234",
            ]
        );
    }

    #[test]
    fn colour_changes_nothing_but_the_state_word() {
        let plain = table(&[devbox()], false);
        let colored = table(&[devbox()], true);
        assert_eq!(colored[0], plain[0]);
        assert_eq!(colored[1], plain[1].replace("reachable", "\x1b[32mreachable\x1b[0m"));
    }

    #[test]
    fn warnings_and_keys_are_shown_beside_the_verdict() {
        let guest = GuestStatus {
            warnings: vec![Warning::Unproven, Warning::NameConflict],
            authenticated: true,
            remote: None,
            ..devbox()
        };
        let cells = cells(&guest);
        assert_eq!(cells[2], "- (unproven, name_conflict)");
        assert_eq!(cells[6], "tcp keyed");
    }

    #[test]
    fn a_guest_without_a_broker_shows_no_window() {
        let row = cells(&absent_guest("devbox".parse().unwrap(), None, Reason::NoBroker));
        assert_eq!(row, ["devbox", "offline", "no_broker", "-", "-", "-", "-"]);
    }

    #[test]
    fn a_long_table_is_cut_to_the_screen_and_says_so() {
        let document = crate::offline::document(vec![devbox(); 50], BrokerState::Offline);
        let lines = status(&document, false, Some(20));
        assert_eq!(lines.len(), 18);
        assert_eq!(lines[14], "... and 37 more: name the ones to watch");
        assert_eq!(status(&document, false, None).len(), 54);
    }
}
