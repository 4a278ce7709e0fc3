//! `castra top` on a real pseudo-terminal, with a real broker and real guests.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Terminal, World};

/// What runs `castra top`: a locale of its own, so that the signs are the same everywhere.
fn top(world: &World, variables: &[(&str, &str)], rows: u16, columns: u16) -> Terminal {
    let mut command = world.command(&["top"]);
    command.env_remove("LC_ALL").env_remove("LC_CTYPE").env("LANG", "C.UTF-8");
    command.envs(variables.iter().copied());
    Terminal::run(&command, rows, columns)
}

/// Waits until the guest's row has all the words; the screen. A picture arrives in
/// pieces, so nothing is looked for in a row that is not waited for.
fn row_says(terminal: &Terminal, guest: &str, words: &[&str]) -> String {
    let name = format!(" {guest} ");
    terminal.until(&format!("{guest}: {words:?}"), |screen| {
        let screen = screen.contents();
        let mut rows = screen.lines().filter(|line| line.contains(&name));
        rows.any(|row| words.iter().all(|word| row.contains(word)))
    })
}

#[test]
fn guests_come_stop_die_and_are_looked_at_filtered_and_resized() {
    let world = World::new();
    let broker = world.broker(&["--window", "3s", "--interval", "1s", "--guest", "never"]);
    let dying = world.agent("dying", broker.address(), &[]);
    let stopping = world.agent("stopping", broker.address(), &[]);
    let mut leaving = world.agent("leaving", broker.address(), &[]);
    world.wait(&["dying", "stopping", "leaving"], "reachable");
    let terminal = top(&world, &[], 24, 80);
    let screen = terminal.shows("4 guests: 3 reachable, 1 waiting");
    assert!(screen.starts_with("castra top  broker serving pid "), "{screen}");
    assert!(screen.contains("window 3s, interval 1s"), "{screen}");
    row_says(&terminal, "never", &["○ waiting", "never_seen"]);
    // An age against the window, and a bar of it.
    row_says(&terminal, "dying", &["● reachable", "s/3s ", "[", "]"]);

    // One that is killed, one that hangs, one that takes leave: each is told apart.
    dying.kill();
    row_says(&terminal, "dying", &["○ waiting", "disconnected"]);
    stopping.stop();
    row_says(&terminal, "stopping", &["○ waiting", "stale"]);
    leaving.signal(Signal::TERM);
    leaving.exit(Duration::from_secs(10));
    row_says(&terminal, "leaving", &["○ waiting", "goodbye"]);
    terminal.shows("4 guests: 0 reachable, 4 waiting");
    stopping.go_on();
    // It is back: its row says how often it was away.
    terminal.until("a flap of stopping", |screen| {
        let screen = screen.contents();
        let mut rows =
            screen.lines().filter(|line| line.contains(" stopping ") && line.contains("● reachable"));
        // The last columns are FLAPS and SINCE.
        let flaps = |row: &str| row.split_whitespace().rev().nth(1).and_then(|count| count.parse().ok());
        rows.any(|row| flaps(row).is_some_and(|count: u32| count > 0))
    });

    terminal.press("/dy");
    terminal.shows("with \"dy\": 1");
    terminal.hides("stopping");
    terminal.press("\r");
    terminal.shows("Enter look");
    // Its history: why its session ended.
    terminal.press("\r");
    terminal.shows("SESSIONS 1 ended");
    let screen = terminal.shows("hello from vm:dying");
    assert!(screen.contains("\ndying  ○ waiting  disconnected"), "{screen}");
    let mut ended = screen.lines().filter(|line| line.starts_with("sess-"));
    assert!(ended.any(|line| line.trim_end().ends_with("disconnected")), "{screen}");
    // What happens now is seen now.
    world.control().ask("register_peer", &json!({"source": "dying", "name": "never"})).unwrap().unwrap();
    terminal.shows("PEERS 1");
    terminal.shows("peer registered vm=dying");
    let _again = world.agent("dying", broker.address(), &[]);
    terminal.shows("dying  ● reachable");
    terminal.shows(" open");
    terminal.press("\u{1b}");
    terminal.shows("with \"dy\": 1");
    terminal.press("\u{1b}");
    terminal.hides("with \"dy\"");

    // Every size, and too small a one.
    terminal.resize(12, 42);
    terminal.until("twelve rows", |screen| {
        let screen = screen.contents();
        screen.lines().nth(11).is_some_and(|line| line.starts_with("Enter look")) && screen.contains("STATE")
    });
    terminal.resize(5, 30);
    terminal.shows("castra top needs 40");
    terminal.resize(40, 120);
    let screen = terminal.until("forty rows", |screen| {
        screen.contents().lines().nth(39).is_some_and(|line| line.starts_with("Enter look"))
    });
    assert!(screen.contains("VIA") && screen.contains("tcp 127.0.0.1"), "{screen}");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn commands_are_carried_out_completed_and_checked() {
    let world = World::new();
    let broker = world.broker(&["--guest", "builder"]);
    let _agent = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    let terminal = top(&world, &[], 24, 80);
    terminal.shows("2 guests: 1 reachable, 1 waiting");
    terminal.press(":pin\tdev\t");
    terminal.shows(":ping devbox ");
    terminal.press("\r");
    terminal.shows("devbox answered after ");
    for (line, told) in [
        ("ping builder", "(not_reachable)"),
        ("peer devbox", "the names of two guests are missing. Usage: :peer NAME NAME"),
        ("peer devbox ghost", "(unknown)"),
        ("pign", "there is no command pign; :help lists all"),
    ] {
        terminal.press(&format!(":{line}\r"));
        terminal.shows(told);
        terminal.press("x");
        terminal.hides(told);
    }
    terminal.press(":peer devbox builder\r");
    terminal.shows("linked devbox <-> builder");
    terminal.press(":send devbox builder hello there\r");
    terminal.shows("queued for builder");
    terminal.press(":wait builder waiting\r");
    terminal.shows("builder is waiting");
    let once = world.agent("passing", broker.address(), &["--once"]).finish(Duration::from_secs(10));
    assert_eq!(once.code, 0, "{once:?}");
    terminal.shows("3 guests: 2 reachable, 1 waiting");
    terminal.press(":forget pas\t\r");
    terminal.shows("2 guests: 1 reachable, 1 waiting");
    terminal.press(":quit\r");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_broker_that_goes_away_is_said_at_once_and_one_that_returns_is_found() {
    let world = World::new();
    let socket = format!("unix:{}", world.path("guests.sock").to_str().unwrap());
    let fast = ["--listen", &socket, "--window", "3s", "--interval", "500ms"];
    let broker = world.broker(&fast);
    let _agent = world.agent("devbox", &socket, &[]);
    world.wait(&["devbox"], "reachable");
    // Without colours and in ASCII it says the same.
    let terminal = top(&world, &[("NO_COLOR", "1"), ("LC_ALL", "C")], 24, 80);
    row_says(&terminal, "devbox", &["* reachable"]);
    broker.process.kill();
    let screen = row_says(&terminal, "devbox", &["x offline", "no_broker"]);
    assert!(!screen.contains("reachable") && screen.contains("nobody can tell how they are"), "{screen}");
    terminal.press(":ping\r");
    terminal.shows("error: nobody to ask: no broker serves at ");
    let broker = world.broker(&fast);
    row_says(&terminal, "devbox", &["* reachable"]);
    // One that does not answer is none.
    broker.process.stop();
    let screen = row_says(&terminal, "devbox", &["x offline", "broker_not_"]);
    assert!(!screen.contains("reachable"), "{screen}");
    broker.process.go_on();
    row_says(&terminal, "devbox", &["* reachable"]);
    let bytes = String::from_utf8(terminal.bytes()).unwrap();
    assert!(bytes.is_ascii());
    assert!(!["[33", "[93", "[32", "38;5"].iter().any(|code| bytes.contains(code)), "{bytes:?}");
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.ends(), 143);
}

#[test]
fn without_a_terminal_it_names_the_command_that_needs_none() {
    let world = World::new();
    let ran = world.castra(&["top"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("castra status --watch"), "{ran:?}");
    // Before there is a broker it waits for one.
    let terminal = top(&world, &[], 24, 80);
    terminal.shows("offline (no_broker)");
    let _broker = world.broker(&["--guest", "devbox"]);
    terminal.shows("1 guest: 0 reachable, 1 waiting");
    assert_eq!(terminal.hangs_up(), 129);
}
