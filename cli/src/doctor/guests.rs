//! The checks that are about guests: why each is not reachable, and what to do.

use castra_core::event::{Fact, Failure};
use castra_core::id::GuestName;
use castra_core::status::{GuestStatus, Reason, StatusOutcome, Warning};

use super::checks::finding;
use super::facts::Answers;
use super::{Finding, Level};

/// Most guests that are named; the rest is a number.
pub(super) const MOST: usize = 20;

/// Guests that are not reachable or whose state has a warning, conflicts apart.
pub(super) fn unwell(answers: &Answers, status: &StatusOutcome) -> Vec<Finding> {
    let mut found = Vec::new();
    for row in &status.guests {
        let name = row.name.as_str();
        if row.warnings.contains(&Warning::Unproven) {
            let fix = "run castra's agent in it: `castra agent`; until then its word is all there is";
            found.push(finding(
                "guests",
                Level::Warning,
                name,
                "it speaks castra 0.1, which proves nothing",
                fix,
            ));
        }
        if row.warnings.contains(&Warning::VersionSkew) {
            let fix = "update the older of the two";
            found.push(finding(
                "guests",
                Level::Warning,
                name,
                "its agent and the broker speak different versions",
                fix,
            ));
        }
        let Some(reason) = row.reason.filter(|reason| *reason != Reason::NameConflict) else { continue };
        let refusal = (reason == Reason::Refused).then(|| refusal(answers, row.name)).flatten();
        let (level, what, fix) = advice(reason, row, refusal);
        found.push(finding("guests", level, name, what, fix));
    }
    shortened(found)
}

/// Names that several guests fight for.
pub(super) fn conflicts(status: &StatusOutcome) -> Vec<Finding> {
    let fought = |row: &&GuestStatus| {
        row.warnings.contains(&Warning::NameConflict) || row.reason == Some(Reason::NameConflict)
    };
    let fix = |name: &GuestName| {
        format!(
            "give each guest a name of its own, or the right one a token: `castra token issue {name} --out FILE`"
        )
    };
    let rows = status.guests.iter().filter(fought);
    shortened(
        rows.map(|row| {
            let what = format!("several guests claim this name ({} takeovers)", row.takeovers);
            finding("conflicts", Level::Problem, row.name.as_str(), what, fix(&row.name))
        })
        .collect(),
    )
}

fn advice(reason: Reason, row: &GuestStatus, refusal: Option<Failure>) -> (Level, String, String) {
    let age = row
        .last_handshake_age_ms
        .map_or_else(|| "never since the broker started".to_owned(), |age| format!("{} s ago", age / 1000));
    let said = |level, what: &str, fix: &str| (level, what.to_owned(), fix.to_owned());
    match reason {
        Reason::Stale => (
            Level::Warning,
            format!(
                "its link is open, but its newest proof is of {age}: frozen, overloaded, or cut off one way"
            ),
            "look at the guest itself (console, `virsh domstate`); `castra ping` asks it again".into(),
        ),
        Reason::Disconnected => (
            Level::Warning,
            format!("its link ended without a goodbye; its newest proof is of {age}"),
            "is the guest running, and the agent in it? `castra restore` starts it if it has a start command"
                .into(),
        ),
        Reason::Refused => refused(row.name, refusal),
        Reason::Unproven => said(
            Level::Warning,
            "it speaks castra 0.1, which proves nothing, and does not count",
            "run castra's agent in it, or let it count with --accept-unproven",
        ),
        Reason::Handshaking => {
            said(Level::Note, "it is just saying hello", "nothing: ask again in two seconds")
        }
        Reason::NeverSeen => said(
            Level::Note,
            "it was never seen",
            "start its agent: `castra agent --name NAME --connect ADDRESS`, ADDRESS being one of `castra info`",
        ),
        Reason::Goodbye => said(Level::Note, "it took leave", "nothing, if it was meant to stop"),
        Reason::BrokerStarted => said(
            Level::Note,
            "it has not come back since the broker started",
            "agents dial at most 10 s apart; after that, look at the guest",
        ),
        Reason::BrokerStalled | Reason::ClockJumped => said(
            Level::Note,
            "the broker itself did not run for a while, and is asking it",
            "nothing: ask again after one window",
        ),
        Reason::NameConflict | Reason::NoBroker | Reason::BrokerNotAnswering => {
            said(Level::Note, reason.as_str(), "see above")
        }
    }
}

fn refused(name: GuestName, refusal: Option<Failure>) -> (Level, String, String) {
    let Some(code) = refusal else {
        return (
            Level::Problem,
            "its last handshake was refused".into(),
            format!("`castra logs --guest {name}` says why"),
        );
    };
    let fix = match code {
        Failure::TokenRequired => format!(
            "the name has, or needs, a token: `castra token issue {name} --out FILE`, and give the file to its agent (--token-file)"
        ),
        Failure::BadProof => format!(
            "its token is not the one issued last: `castra token issue {name} --out FILE`, and give the file to its agent"
        ),
        Failure::BadLine => format!(
            "if `castra token list` names it, its agent lacks the token (--token-file; `castra token issue {name} --out FILE` makes a new one); else the two are of different versions"
        ),
        Failure::UnknownName => format!("only known names are let in: add `--guest {name}` or a token"),
        Failure::NameInUse => {
            "another guest holds the name and answers: give one of them another name, or a token".into()
        }
        _ => format!("`castra logs --guest {name}` has the whole story"),
    };
    (Level::Problem, format!("its last handshake was refused: {}", code.as_str()), fix)
}

/// Why this guest was refused last.
fn refusal(answers: &Answers, name: GuestName) -> Option<Failure> {
    answers.events.iter().rev().find_map(|event| match &event.fact {
        Fact::HandshakeFailure { reason, .. } if event.guest == Some(name) => Some(*reason),
        _ => None,
    })
}

/// The worst [`MOST`], and how many more there are.
fn shortened(mut found: Vec<Finding>) -> Vec<Finding> {
    found.sort_by_key(|finding| finding.level);
    if found.len() > MOST {
        let (check, level) = (found[MOST].check, found[MOST].level);
        let more = found.len() - MOST;
        found.truncate(MOST);
        let fix = "`castra status` shows all";
        found.push(finding(check, level, "others", format!("{more} more are not as they should be"), fix));
    }
    found
}
