//! The `:` commands: their words and their arguments. Pure.

use castra_core::control::reply::Target;
use castra_core::id::GuestName;
use castra_core::peers::TEXT_MAX;

use crate::output::printable;
use crate::tui::command::{Entry, TARGETS, cut, target};

/// What a command line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Let the guest and this one be peers.
    Peer(GuestName),
    /// Let them be peers no more.
    Unpeer(GuestName),
    /// Tell a peer.
    Send { to: GuestName, text: String },
    /// Show the peers alone.
    Peers,
    /// Show the messages alone.
    Inbox,
    /// Say when a guest, or the console's own, is so.
    Wait { guest: Option<GuestName>, target: Target },
    /// Say yes to a guest that wants to be a peer.
    Accept(GuestName),
    /// Say no.
    Refuse(GuestName),
    /// List the commands.
    Help,
    /// Leave.
    Quit,
}

/// Every command.
pub(crate) const ENTRIES: [Entry; 10] = [
    entry("peer", ":peer NAME", "let NAME and this guest be peers of each other", 1),
    entry("unpeer", ":unpeer NAME", "let them be peers no more", 1),
    entry("send", ":send NAME TEXT", "tell a peer", 1),
    entry("peers", ":peers", "show the peers alone; Esc shows both again", 0),
    entry("inbox", ":inbox", "show the messages alone; Esc shows both again", 0),
    Entry {
        words: TARGETS,
        ..entry("wait", ":wait [NAME] [reachable|waiting]", "say when it is so, for 30s at most", 1)
    },
    entry("accept", ":accept NAME", "inside a guest: take who wants to be a peer", 1),
    entry("refuse", ":refuse NAME", "inside a guest: do not take it", 1),
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
    // Exactly one name.
    let only = || match cut(rest) {
        ("", _) => Err(wrong("a guest's name is missing")),
        (guest, "") => name(guest),
        _ => Err(wrong("one guest's name and nothing else")),
    };
    let alone = |command| if rest.is_empty() { Ok(command) } else { Err(wrong("it takes no arguments")) };
    match word {
        "peer" => only().map(Command::Peer),
        "unpeer" => only().map(Command::Unpeer),
        "accept" => only().map(Command::Accept),
        "refuse" => only().map(Command::Refuse),
        "send" => match cut(rest) {
            ("", _) => Err(wrong("a guest's name and a text are missing")),
            (_, "") => Err(wrong("the text is missing")),
            (_, text) if text.len() > TEXT_MAX => {
                Err(wrong(&format!("the text has {} bytes, and at most {TEXT_MAX} fit", text.len())))
            }
            (to, text) => Ok(Command::Send { to: name(to)?, text: text.to_owned() }),
        },
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
        "peers" => alone(Command::Peers),
        "inbox" => alone(Command::Inbox),
        "help" => alone(Command::Help),
        _ => alone(Command::Quit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::command::{complete, wants_guest};

    fn name(text: &str) -> GuestName {
        text.parse().unwrap()
    }

    #[test]
    fn every_command_is_read_with_its_arguments() {
        let send = |to: &str, text: &str| Command::Send { to: name(to), text: text.into() };
        let wait = |guest: Option<&str>, target| Command::Wait { guest: guest.map(name), target };
        for (line, command) in [
            ("peer builder", Command::Peer(name("builder"))),
            ("  unpeer   builder  ", Command::Unpeer(name("builder"))),
            ("send builder  two  words ", send("builder", "two  words")),
            ("peers", Command::Peers),
            ("inbox", Command::Inbox),
            ("wait", wait(None, Target::Reachable)),
            ("wait waiting", wait(None, Target::Waiting)),
            ("wait builder", wait(Some("builder"), Target::Reachable)),
            ("wait builder waiting", wait(Some("builder"), Target::Waiting)),
            ("wait waiting waiting", wait(Some("waiting"), Target::Waiting)),
            ("accept builder", Command::Accept(name("builder"))),
            ("refuse builder", Command::Refuse(name("builder"))),
            ("help", Command::Help),
            ("q", Command::Quit),
            ("quit", Command::Quit),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
        assert_eq!(ENTRIES.iter().filter(|entry| parse(entry.word).is_ok()).count(), 5);
    }

    #[test]
    fn wrong_arguments_are_told_with_the_usage_and_unknown_commands_with_the_help() {
        for (line, what) in [
            ("peer", "a guest's name is missing. Usage: :peer NAME"),
            ("peer a b", "one guest's name and nothing else. Usage: :peer NAME"),
            ("unpeer", "a guest's name is missing. Usage: :unpeer NAME"),
            ("send", "a guest's name and a text are missing. Usage: :send NAME TEXT"),
            ("send builder ", "the text is missing. Usage: :send NAME TEXT"),
            ("peers now", "it takes no arguments. Usage: :peers"),
            ("wait a b", "the state is reachable or waiting. Usage: :wait [NAME] [reachable|waiting]"),
            (
                "wait a waiting c",
                "a name and a state and nothing else. Usage: :wait [NAME] [reachable|waiting]",
            ),
            ("quit now", "it takes no arguments. Usage: :quit"),
            ("sned x", "there is no command sned; :help lists all"),
            ("\u{1b}[2J", "there is no command \\u{1b}[2J; :help lists all"),
        ] {
            assert_eq!(parse(line), Err(what.into()), "{line}");
        }
        let bad = parse("peer ../etc").unwrap_err();
        assert!(bad.starts_with("a guest name has") && bad.ends_with("Usage: :peer NAME"), "{bad}");
        let long = parse(&format!("send builder {}", "x".repeat(TEXT_MAX + 1))).unwrap_err();
        assert!(long.starts_with("the text has 32769 bytes, and at most 32768 fit"), "{long}");
        assert!(parse(&format!("send builder {}", "x".repeat(TEXT_MAX))).is_ok());
    }

    fn completed(line: &str) -> Option<(String, Vec<String>)> {
        let names = ["build-1", "build-2", "devbox", "reacher"];
        complete(&ENTRIES, line, names.into_iter()).map(|done| (done.line, done.candidates))
    }

    #[test]
    fn a_single_fit_is_completed_and_several_as_far_as_they_agree() {
        let line = |line: &str, candidates: &[&str]| {
            Some((line.to_owned(), candidates.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()))
        };
        assert_eq!(completed("un"), line("unpeer ", &[]));
        assert_eq!(completed("pe"), line("peer", &["peer", "peers"]));
        assert_eq!(completed("peer d"), line("peer devbox ", &[]));
        assert_eq!(completed("peer b"), line("peer build-", &["build-1", "build-2"]));
        assert_eq!(completed("peer build-2"), line("peer build-2 ", &[]));
        assert_eq!(completed("wait reach"), line("wait reach", &["reachable", "reacher"]));
        assert_eq!(completed("wait devbox w"), line("wait devbox waiting ", &[]));
        assert_eq!(completed("peer x"), None);
        assert_eq!(completed("send devbox b"), None);
        assert_eq!(completed("peers b"), None);
        assert_eq!(completed("sned b"), None);
        assert_eq!(completed("send "), line("send ", &["build-1", "build-2", "devbox", "reacher"]));
    }

    #[test]
    fn only_the_first_argument_is_a_guest() {
        assert!(wants_guest(&ENTRIES, "peer "));
        assert!(wants_guest(&ENTRIES, "peer b"));
        assert!(!wants_guest(&ENTRIES, "peer"));
        assert!(!wants_guest(&ENTRIES, "peer builder "));
        assert!(!wants_guest(&ENTRIES, "send builder te"));
        assert!(!wants_guest(&ENTRIES, "inbox "));
        assert!(!wants_guest(&ENTRIES, ""));
    }
}
