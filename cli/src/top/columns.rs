//! The columns: their cells, how rows are sorted by them, and which of them fit. Pure.

use std::cmp::Ordering;
use std::time::Instant;

use castra_core::status::{GuestStatus, State as Verdict};

use super::look::Look;
use super::table::{Now, Row, present_first};
use crate::duration::{age, age_or_never, micros};
use crate::output::printable;

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Column {
    Name,
    State,
    Reason,
    Age,
    Bar,
    Rtt,
    Flaps,
    Session,
    Sessions,
    Handshakes,
    Via,
}

use Column::{Age, Bar, Flaps, Handshakes, Name, Reason, Rtt, Session, Sessions, State, Via};

/// From left to right.
const ORDER: [Column; 11] = [Name, State, Reason, Age, Bar, Rtt, Flaps, Session, Sessions, Handshakes, Via];

/// What a narrow window shows first.
const IMPORTANCE: [Column; 11] =
    [Name, State, Age, Bar, Reason, Rtt, Flaps, Session, Sessions, Handshakes, Via];

/// What can be sorted by, in the order in which a key goes through them.
pub(crate) const SORTED: [Column; 10] =
    [State, Name, Reason, Age, Rtt, Flaps, Session, Sessions, Handshakes, Via];

/// Widths of a name, a bar and a link.
const NAME: (usize, usize) = (13, 64);
const BAR: (usize, usize) = (8, 22);
const VIA: (usize, usize) = (12, 40);

impl Column {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Name => "GUEST",
            State => "STATE",
            Reason => "REASON",
            Age => "AGE/OF",
            Bar => "WINDOW",
            Rtt => "RTT",
            Flaps => "FLAPS",
            Session => "SINCE",
            Sessions => "SESS",
            Handshakes => "PROOFS",
            Via => "VIA",
        }
    }

    /// As `:sort` takes it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Name => "guest",
            State => "state",
            Reason => "reason",
            Age => "age",
            Bar => "window",
            Rtt => "rtt",
            Flaps => "flaps",
            Session => "since",
            Sessions => "sess",
            Handshakes => "proofs",
            Via => "via",
        }
    }

    const fn least(self) -> usize {
        match self {
            Name => NAME.0,
            // A sign, a blank and the word.
            State => 11,
            Reason => 13,
            Age => 9,
            Bar => BAR.0,
            Rtt => 6,
            Flaps => 5,
            Session => 6,
            Sessions => 4,
            Handshakes => 7,
            Via => VIA.0,
        }
    }

    /// What needs looking at comes first: not reachable, old, slow, unsteady, young.
    pub(crate) fn compare(self, one: &Row, other: &Row, now: Instant) -> Ordering {
        let (a, b) = (&one.status, &other.status);
        match self {
            Name => a.name.cmp(&b.name),
            State => rank(a.state).cmp(&rank(b.state)),
            // Reachable ones have none.
            Reason => present_first(a.reason, b.reason, |a, b| a.as_str().cmp(b.as_str())),
            Age | Bar => present_first(one.now(now, None).age, other.now(now, None).age, |a, b| b.cmp(&a)),
            Rtt => present_first(a.rtt_us, b.rtt_us, |a, b| b.cmp(&a)),
            Flaps => other.counts.flaps.cmp(&one.counts.flaps),
            Session => {
                present_first(one.now(now, None).session, other.now(now, None).session, |a, b| a.cmp(&b))
            }
            Sessions => other.sessions().cmp(&one.sessions()),
            Handshakes => b.handshakes.cmp(&a.handshakes),
            Via => via(a).cmp(&via(b)),
        }
    }

    /// Its text, of at most `width` columns but for what is cut later.
    pub(crate) fn cell(self, row: &Row, now: &Now, look: Look, width: usize) -> String {
        let status = &row.status;
        let (is_here, window) = (now.state != Some(Verdict::Offline), status.window_ms);
        match self {
            Name => printable(status.name.as_str()),
            State => {
                let word = now.state.map_or("asking", Verdict::as_str);
                format!("{} {word}", look.mark(now.state))
            }
            Reason => reason(row, now),
            Age => match (now.age, window.filter(|_| is_here)) {
                (Some(then), Some(window)) => format!("{}/{}", age(then), age(window).replace(".0s", "s")),
                (then, _) => age_or_never(then),
            },
            Bar => match (now.age, window.filter(|_| is_here)) {
                (Some(age), Some(window)) => look.bar(age, window, width),
                _ => String::new(),
            },
            Rtt => status.rtt_us.filter(|_| is_here).map_or_else(|| "-".into(), micros),
            Flaps => row.counts.flaps.to_string(),
            Session => age_or_never(now.session),
            Sessions => row.sessions().to_string(),
            Handshakes => status.handshakes.to_string(),
            Via if is_here => via(status),
            Via => "-".into(),
        }
    }
}

/// Whose state needs looking at first.
const fn rank(state: Verdict) -> u8 {
    match state {
        Verdict::Offline => 0,
        Verdict::Waiting => 1,
        Verdict::Reachable => 2,
    }
}

/// Why not; and a warning's sign, whose word the guest's own page has.
fn reason(row: &Row, now: &Now) -> String {
    let word = now.reason.map_or("-", castra_core::status::Reason::as_str);
    match row.status.warnings.first().filter(|_| now.state != Some(Verdict::Offline)) {
        Some(warning) if now.reason.is_none() => format!("! {warning}"),
        Some(_) => format!("! {word}"),
        None => word.into(),
    }
}

/// What carries its link, and whether it showed a key.
pub(crate) fn via(status: &GuestStatus) -> String {
    let Some(transport) = status.transport else { return "-".into() };
    let keyed = if status.authenticated { " keyed" } else { "" };
    let remote = status.remote.map(|remote| remote.to_string()).filter(|remote| remote != "-");
    let remote = remote.map_or_else(String::new, |remote| format!(" {}", printable(&remote)));
    format!("{transport}{keyed}{remote}")
}

/// Which columns fit into `width`, and how wide each is; one blank lies between two.
/// `longest`: the longest name.
pub(crate) fn fitting(width: usize, longest: usize) -> Vec<(Column, usize)> {
    let mut left = width;
    let mut chosen: Vec<(Column, usize)> = vec![];
    for column in IMPORTANCE {
        let needs = column.least() + usize::from(!chosen.is_empty());
        if needs > left {
            break;
        }
        left -= needs;
        chosen.push((column, column.least()));
    }
    // What is left over: to names first, then to links, then to the bar.
    for (column, most) in [(Name, longest.min(NAME.1)), (Via, VIA.1), (Bar, BAR.1)] {
        if let Some((_, width)) = chosen.iter_mut().find(|(one, _)| *one == column) {
            let more = left.min(most.saturating_sub(*width));
            *width += more;
            left -= more;
        }
    }
    chosen.sort_by_key(|(column, _)| ORDER.iter().position(|one| one == column));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_room_there_is_the_more_columns_are_shown() {
        let shown = |width| fitting(width, 10).into_iter().map(|(column, _)| column).collect::<Vec<_>>();
        assert_eq!(shown(34), [Name, State]);
        assert_eq!(shown(38), [Name, State, Age]);
        assert_eq!(shown(78), [Name, State, Reason, Age, Bar, Rtt, Flaps, Session]);
        assert_eq!(shown(118), ORDER);
        assert_eq!(shown(3), []);
        for width in 0..300 {
            let columns = fitting(width, 64);
            let used: usize = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(used <= width + 1, "{width}: {columns:?}");
        }
    }

    #[test]
    fn a_long_name_is_shown_before_a_wide_bar() {
        assert_eq!(fitting(100, 30)[0], (Name, 22));
        assert_eq!(fitting(200, 30)[0], (Name, 30));
    }
}
