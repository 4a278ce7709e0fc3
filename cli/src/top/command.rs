//! The `:` commands: their words and their arguments. Pure.

use castra_core::control::reply::Target;
use castra_core::id::GuestName;
use castra_core::peers::TEXT_MAX;
use castra_core::status::State as Verdict;

use super::columns::{Column, SORTED};
use crate::output::printable;
use crate::tui::command::{Entry, TARGETS, cut, target};

/// What a command line says. Without a name: the guest that is selected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Look at one guest.
    Guest(Option<GuestName>),
    Ping(Option<GuestName>),
    Wait {
        guest: Option<GuestName>,
        target: Target,
    },
    Peer(GuestName, GuestName),
    Unpeer(GuestName, GuestName),
    Send {
        from: GuestName,
        to: GuestName,
        text: String,
    },
    Restore(GuestName),
    Forget(GuestName),
    Sort(Column),
    Reverse,
    Filter(String),
    /// Only these; `None`: all.
    State(Option<Verdict>),
    Help,
    Quit,
}

/// Words of `:state`.
const STATES: &[&str] = &["all", "offline", "reachable", "waiting"];

/// Words of `:sort`: those of [`SORTED`].
const COLUMNS: &[&str] =
    &["age", "flaps", "guest", "proofs", "reason", "rtt", "sess", "since", "state", "via"];

/// Every command.
pub(crate) const ENTRIES: [Entry; 14] = [
    entry("guest", ":guest [NAME]", "look at one; so does Enter", 1),
    entry("ping", ":ping [NAME]", "have it give a sign of life, within 2s", 1),
    Entry {
        words: TARGETS,
        ..entry("wait", ":wait [NAME] [reachable|waiting]", "say when it is so, for 30s at most", 1)
    },
    entry("peer", ":peer NAME NAME", "let two guests be peers of each other", 2),
    entry("unpeer", ":unpeer NAME NAME", "let them be peers no more", 2),
    entry("send", ":send FROM TO TEXT", "tell TO something in the name of FROM", 2),
    entry("restore", ":restore NAME", "run its start command, and wait 30s", 1),
    entry("forget", ":forget NAME", "delete its row and its record", 1),
    Entry { words: COLUMNS, ..entry("sort", ":sort COLUMN", "sort by it; so do s and S", 0) },
    entry("reverse", ":reverse", "sort the other way round; so does r", 0),
    entry("filter", ":filter [TEXT]", "in name, state, reason, link; so does /", 0),
    Entry { words: STATES, ..entry("state", ":state STATE|all", "only this state; f goes through them", 0) },
    entry("help", ":help", "show this; Esc ends it", 0),
    entry("quit", ":quit", "leave; so do q and Ctrl-C", 0),
];

const fn entry(word: &'static str, usage: &'static str, meaning: &'static str, guests: usize) -> Entry {
    Entry { word, usage, meaning, guests, words: &[] }
}

/// Reads a command line, without its colon.
///
/// # Errors
/// What is wrong, with the usage; or that there is no such command.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let (word, rest) = cut(line);
    let word = if word == "q" { "quit" } else { word };
    let Some(entry) = ENTRIES.iter().find(|entry| entry.word == word) else {
        return Err(format!("there is no command {}; :help lists all", printable(word)));
    };
    let wrong = |what: &str| format!("{what}. Usage: {}", entry.usage);
    let name = |text: &str| text.parse::<GuestName>().map_err(|error| wrong(&error.to_string()));
    let maybe = || match cut(rest) {
        ("", _) => Ok(None),
        (guest, "") => name(guest).map(Some),
        _ => Err(wrong("one guest's name and nothing else")),
    };
    let only = || maybe()?.ok_or_else(|| wrong("a guest's name is missing"));
    let two = || match (cut(rest), cut(cut(rest).1)) {
        ((one, _), (other, "")) if !other.is_empty() => Ok((name(one)?, name(other)?)),
        ((_, _), (_, "")) => Err(wrong("the names of two guests are missing")),
        _ => Err(wrong("the names of two guests and nothing else")),
    };
    let alone = |command| if rest.is_empty() { Ok(command) } else { Err(wrong("it takes no arguments")) };
    match word {
        "guest" => maybe().map(Command::Guest),
        "ping" => maybe().map(Command::Ping),
        "wait" => match (cut(rest), cut(cut(rest).1)) {
            (("", _), _) => Ok(Command::Wait { guest: None, target: Target::Reachable }),
            // A guest may be called so too: then both words are needed.
            ((one, ""), _) => match target(one) {
                Some(target) => Ok(Command::Wait { guest: None, target }),
                None => Ok(Command::Wait { guest: Some(name(one)?), target: Target::Reachable }),
            },
            ((guest, _), (state, "")) => match target(state) {
                Some(target) => Ok(Command::Wait { guest: Some(name(guest)?), target }),
                None => Err(wrong("the state is reachable or waiting")),
            },
            _ => Err(wrong("a name and a state and nothing else")),
        },
        "peer" => two().map(|(one, other)| Command::Peer(one, other)),
        "unpeer" => two().map(|(one, other)| Command::Unpeer(one, other)),
        "send" => {
            let (from, rest) = cut(rest);
            match cut(rest) {
                ("", _) => Err(wrong("the names of two guests and a text are missing")),
                (_, "") => Err(wrong("the text is missing")),
                (_, text) if text.len() > TEXT_MAX => {
                    Err(wrong(&format!("the text has {} bytes, and at most {TEXT_MAX} fit", text.len())))
                }
                (to, text) => Ok(Command::Send { from: name(from)?, to: name(to)?, text: text.to_owned() }),
            }
        }
        "restore" => only().map(Command::Restore),
        "forget" => only().map(Command::Forget),
        "sort" => SORTED
            .into_iter()
            .find(|column| column.word() == rest)
            .map(Command::Sort)
            .ok_or_else(|| wrong(&format!("the column is one of {}", COLUMNS.join(", ")))),
        "reverse" => alone(Command::Reverse),
        "filter" => Ok(Command::Filter(rest.to_owned())),
        "state" => match rest {
            "all" => Ok(Command::State(None)),
            _ => [Verdict::Reachable, Verdict::Waiting, Verdict::Offline]
                .into_iter()
                .find(|state| state.as_str() == rest)
                .map(|state| Command::State(Some(state)))
                .ok_or_else(|| wrong(&format!("the state is one of {}", STATES.join(", ")))),
        },
        "help" => alone(Command::Help),
        _ => alone(Command::Quit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::command::complete;

    fn name(text: &str) -> GuestName {
        text.parse().unwrap()
    }

    #[test]
    fn every_command_is_read_with_its_arguments() {
        let wait = |guest: Option<&str>, target| Command::Wait { guest: guest.map(name), target };
        for (line, command) in [
            ("guest", Command::Guest(None)),
            ("guest a", Command::Guest(Some(name("a")))),
            ("ping", Command::Ping(None)),
            (" ping  a ", Command::Ping(Some(name("a")))),
            ("wait", wait(None, Target::Reachable)),
            ("wait waiting", wait(None, Target::Waiting)),
            ("wait a", wait(Some("a"), Target::Reachable)),
            ("wait a waiting", wait(Some("a"), Target::Waiting)),
            ("peer a b", Command::Peer(name("a"), name("b"))),
            ("unpeer a b", Command::Unpeer(name("a"), name("b"))),
            (
                "send a b two  words",
                Command::Send { from: name("a"), to: name("b"), text: "two  words".into() },
            ),
            ("restore a", Command::Restore(name("a"))),
            ("forget a", Command::Forget(name("a"))),
            ("sort rtt", Command::Sort(Column::Rtt)),
            ("reverse", Command::Reverse),
            ("filter web 1", Command::Filter("web 1".into())),
            ("filter", Command::Filter(String::new())),
            ("state waiting", Command::State(Some(Verdict::Waiting))),
            ("state all", Command::State(None)),
            ("help", Command::Help),
            ("q", Command::Quit),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
        let mut words = SORTED.map(Column::word);
        words.sort_unstable();
        assert_eq!(words, COLUMNS);
    }

    #[test]
    fn wrong_arguments_are_told_with_the_usage_and_unknown_commands_with_the_help() {
        for (line, what) in [
            ("ping a b", "one guest's name and nothing else. Usage: :ping [NAME]"),
            ("peer a", "the names of two guests are missing. Usage: :peer NAME NAME"),
            ("peer a b c", "the names of two guests and nothing else. Usage: :peer NAME NAME"),
            ("send a b", "the text is missing. Usage: :send FROM TO TEXT"),
            ("send a", "the names of two guests and a text are missing. Usage: :send FROM TO TEXT"),
            ("forget", "a guest's name is missing. Usage: :forget NAME"),
            ("wait a b", "the state is reachable or waiting. Usage: :wait [NAME] [reachable|waiting]"),
            ("reverse x", "it takes no arguments. Usage: :reverse"),
            ("state up", "the state is one of all, offline, reachable, waiting. Usage: :state STATE|all"),
            ("pnig a", "there is no command pnig; :help lists all"),
            ("\u{1b}[2J", "there is no command \\u{1b}[2J; :help lists all"),
        ] {
            assert_eq!(parse(line), Err(what.into()), "{line}");
        }
        let sort = parse("sort size").unwrap_err();
        assert!(sort.contains("age, flaps") && sort.ends_with("Usage: :sort COLUMN"), "{sort}");
        let bad = parse("peer ../etc b").unwrap_err();
        assert!(bad.starts_with("a guest name has") && bad.ends_with("Usage: :peer NAME NAME"), "{bad}");
    }

    #[test]
    fn names_words_and_commands_are_completed() {
        let names = ["build-1", "build-2", "devbox"];
        let done = |line| complete(&ENTRIES, line, names.into_iter()).map(|done| done.line);
        assert_eq!(done("pi"), Some("ping ".into()));
        assert_eq!(done("peer devbox bui"), Some("peer devbox build-".into()));
        assert_eq!(done("peer devbox build-1 d"), None);
        assert_eq!(done("sort pr"), Some("sort proofs ".into()));
        assert_eq!(done("state w"), Some("state waiting ".into()));
        assert_eq!(done("re"), Some("re".into()));
    }
}
