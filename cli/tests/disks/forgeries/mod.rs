//! Text that attacks, in every field that a peer can set: none of it reaches a log, an
//! event file, another file or a terminal as it was written.

mod brokers;
mod clients;
mod guests;
mod terminals;
mod texts;

use std::fs;

use serde_json::Value;

use self::texts::{Forger, is_clean};
use crate::support::{Ran, World, files_below};

/// How many attempts there are in all, about.
fn attempts() -> usize {
    std::env::var("CASTRA_FORGERIES").map_or(2500, |count| count.parse().unwrap())
}

/// Both streams of a command are clean, however it ended.
#[track_caller]
fn says_nothing_raw(ran: &Ran, what: &str) {
    is_clean(what, ran.out.as_bytes());
    is_clean(what, ran.err.as_bytes());
}

/// Everything that shows what guests and clients said.
fn every_view(world: &World, views: &[&[&str]]) {
    for view in views {
        says_nothing_raw(&world.castra(view), &format!("castra {view:?}"));
    }
}

/// Every file but the databases, whose bytes nobody shows.
fn every_file(world: &World) {
    let files = files_below(&world.state());
    assert!(files.len() > 4, "{files:?}");
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?} is a file's name");
        if name.contains(".redb") {
            continue;
        }
        let content = fs::read(&path).unwrap();
        is_clean(&path.display().to_string(), &content);
        let text = String::from_utf8(content).unwrap();
        for line in text.lines() {
            if name.starts_with("broker.log") || name.starts_with("terminals.log") {
                let said = line.split(' ').nth(2).unwrap_or_default();
                let stamped = line.len() > 25 && line.as_bytes()[23] == b'Z' && line.starts_with("20");
                assert!(
                    stamped && ["INFO", "WARN", "ERROR", "DEBUG"].contains(&said),
                    "{name}: no line of ours: {line}"
                );
            } else if name.contains(".jsonl") {
                let event: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
                assert_ne!(event["kind"], "FORGED", "{line}");
            }
        }
    }
}

#[test]
fn nothing_that_a_guest_writes_on_its_link_reaches_a_file_or_a_terminal_raw() {
    let world = World::new();
    let mut forger = Forger::new(1);
    guests::attack(&world, &mut forger, attempts() * 2 / 5);
    eprintln!("{} attempts by guests", forger.made);
}

#[test]
fn nothing_that_a_client_writes_on_the_control_socket_or_over_http_reaches_a_file_or_a_terminal_raw() {
    let world = World::new();
    let mut forger = Forger::new(2);
    clients::attack(&world, &mut forger, attempts() / 5);
    clients::attack_over_http(&mut forger, attempts() / 5);
    eprintln!("{} attempts by clients", forger.made);
}

#[test]
fn nothing_that_a_broker_writes_reaches_its_agents_words_or_those_of_a_command_raw() {
    let mut forger = Forger::new(3);
    brokers::attack_an_agent(&mut forger, attempts() / 10);
    brokers::attack_commands(&mut forger, attempts() / 25);
    eprintln!("{} attempts by brokers", forger.made);
}

#[test]
fn nothing_that_a_terminal_is_called_or_shows_reaches_a_list_or_a_log_raw() {
    let mut forger = Forger::new(4);
    terminals::attack(&mut forger, attempts() / 100);
    eprintln!("{} attempts by terminals", forger.made);
}

#[test]
fn the_check_itself_finds_what_it_is_for() {
    let mut forger = Forger::new(5);
    let found = (0..400).filter(|_| texts::raw(&forger.text().replace('\n', "")).is_some()).count();
    assert!(found > 250, "{found}");
    for text in ["a\u{1b}[2J", "a\u{9b}", "a\u{202e}b", "a\u{7f}", "a\tb", "2001-02-03T04:05:06.789Z INFO x"]
    {
        assert!(texts::foreign(text.as_bytes()).is_some(), "{text:?}");
    }
    is_clean("this", "2026-11-20T12:00:00.000Z [host-broker] INFO \\u{1b}[2J\nü\n".as_bytes());
}
