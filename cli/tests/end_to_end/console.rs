//! `castra console` on a real pseudo-terminal, as a person sees it.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Link, PATIENCE, Terminal, World};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

fn console(world: &World, args: &[&str]) -> Terminal {
    Terminal::run(&world.command(&[&["console"], args].concat()), ROWS, COLUMNS)
}

/// Writes a command and carries it out.
fn order(terminal: &Terminal, line: &str) {
    terminal.press(&format!(":{line}\r"));
}

/// Carries out a command as soon as the one before is answered: what came of that is heard
/// of before its answer is, and until then the guest is busy.
fn order_next(terminal: &Terminal, line: &str, told: &str) {
    let end = Instant::now() + PATIENCE;
    let mut screen = String::new();
    while !screen.contains(told) {
        assert!(Instant::now() < end, "{told:?} did not come about:\n{screen}");
        // The first key takes away what was said before.
        terminal.press(":");
        terminal.hides(" is busy: ");
        terminal.press(&format!("{line}\r"));
        let answered = |text: &str| text.contains(told) || text.contains(" is busy: ");
        screen = terminal.until(told, |screen| answered(&screen.contents()));
    }
}

/// A guest that takes part in peers by bytes, and acknowledges each message, until its link ends.
fn guest(port: u16, name: &str) {
    let mut link = Link::greeted(port);
    let challenge = link.hello(name, ",peers-v1");
    link.send(format!("proof {}\n", challenge.nonce).as_bytes());
    assert!(link.line().starts_with("ok session="));
    std::thread::spawn(move || {
        while let Some(frame) = link.frame() {
            let answer = match frame["type"].as_str() {
                Some("challenge") => json!({"type": "proof", "seq": frame["seq"], "proof": frame["nonce"]}),
                Some("peer_message") => json!({"type": "peer_ack", "id": frame["id"]}),
                _ => continue,
            };
            let answer = answer.to_string();
            let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
            link.try_send(&[&length, answer.as_bytes()].concat());
        }
    });
}

fn ask(world: &World, method: &str, params: &Value) -> Value {
    world.control().ask(method, params).unwrap().unwrap()
}

#[test]
fn guests_are_linked_told_and_unlinked_and_names_are_completed() {
    let world = World::new();
    let broker = world.broker(&[]);
    guest(broker.port(), "devbox");
    guest(broker.port(), "builder");
    let terminal = console(&world, &["devbox"]);
    let screen = terminal.shows("devbox  reachable");
    assert!(screen.contains("of 15s ["), "{screen}");
    terminal.shows("PEERS 0");

    terminal.press(":pee");
    terminal.press("\t");
    terminal.shows(":peer");
    terminal.press(" bui\t");
    terminal.shows(":peer builder ");
    terminal.press("\r");
    terminal.shows("linked devbox <-> builder");
    let screen = terminal.shows("PEERS 1");
    let row = screen.lines().find(|line| line.starts_with("builder")).unwrap();
    assert!(row.contains("live"), "{screen}");

    order(&terminal, "send builder two words");
    terminal.shows("delivered to builder: msg-");
    let inbox = ask(&world, "inbox", &json!({"name": "builder"}));
    assert_eq!(inbox["messages"][0]["text"], "two words");
    assert_eq!(inbox["messages"][0]["from"], "devbox");

    ask(&world, "send_to_peer", &json!({"from": "builder", "to": "devbox", "text": "and back"}));
    let screen = terminal.shows("and back");
    assert!(screen.contains("MESSAGES 1") && screen.contains("Z builder (keyed): and back"), "{screen}");

    // The history, and what was written is carried out as it stands.
    terminal.press(":\u{1b}[A");
    terminal.shows(":send builder two words");
    terminal.press("\u{15}unpeer builder\r");
    terminal.shows("unlinked devbox <-> builder");
    terminal.shows("PEERS 0");

    order(&terminal, "quit");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn wrong_commands_are_told_with_their_usage_until_the_next_key_and_nothing_is_sent() {
    let world = World::new();
    let broker = world.broker(&[]);
    guest(broker.port(), "devbox");
    let terminal = console(&world, &["devbox"]);
    terminal.shows("devbox  reachable");
    for (line, told) in [
        ("peer", "error: a guest's name is missing. Usage: :peer NAME"),
        ("send devbox", "error: the text is missing. Usage: :send NAME TEXT"),
        ("sned devbox", "error: there is no command sned; :help lists all"),
        // The broker's own word.
        ("peer ghost", "(unknown)"),
        ("peer devbox", "(self)"),
    ] {
        order(&terminal, line);
        terminal.shows(told);
    }
    terminal.press("x");
    terminal.hides("(self)");
    order(&terminal, "help");
    terminal.shows(":wait [NAME] [reachable|waiting]");
    terminal.press("\u{1b}");
    terminal.shows("MESSAGES 0");
    order(&terminal, "wait reachable");
    terminal.shows("devbox is reachable");
    // Shown for 4 s, and then gone by itself.
    terminal.hides("devbox is reachable");
    assert_eq!(world.events("peer.registered", ""), [Value::Null; 0]);
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn who_is_unknown_or_off_says_so_and_sends_nothing_but_a_known_one_can_be_linked() {
    let world = World::new();
    let _broker = world.broker(&["--guest", "devbox", "--guest", "builder"]);
    let terminal = console(&world, &["ghost"]);
    terminal.shows("ghost  unknown");
    for line in ["peer builder", "unpeer builder", "send builder hello"] {
        order(&terminal, line);
        terminal.shows("error: not attached: no guest is called ghost; nothing was sent");
        terminal.press("x");
        terminal.hides("error:");
    }
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);

    let terminal = console(&world, &["devbox"]);
    terminal.shows("devbox  waiting  never_seen");
    order(&terminal, "peer builder");
    terminal.shows("linked devbox <-> builder");
    order(&terminal, "send builder hello");
    terminal.shows("error: not attached: devbox is waiting (never_seen); nothing was sent");
    assert_eq!(ask(&world, "inbox", &json!({"name": "builder"}))["messages"], json!([]));
    order(&terminal, "accept builder");
    terminal.shows("only inside the guest");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_broker_that_dies_is_offline_and_one_that_returns_is_found() {
    let world = World::new();
    let socket = format!("unix:{}", world.path("guests.sock").to_str().unwrap());
    let fast = ["--listen", &socket, "--window", "3s", "--interval", "500ms", "--guest", "builder"];
    let broker = world.broker(&fast);
    let mut agent = world.agent("devbox", &socket, &[]);
    world.wait(&["devbox"], "reachable");
    let terminal = console(&world, &["devbox"]);
    terminal.shows("devbox  reachable");
    broker.process.kill();
    let screen = terminal.shows("devbox  offline");
    assert!(!screen.contains("reachable"), "{screen}");
    order(&terminal, "peer builder");
    let screen = terminal.shows("nothing was sent");
    assert!(screen.contains("error: not attached: "), "{screen}");
    let broker = world.broker(&fast);
    terminal.shows("devbox  reachable");
    order(&terminal, "peer builder");
    terminal.shows("linked devbox <-> builder");
    // One that does not answer is none.
    broker.process.stop();
    terminal.shows("devbox  offline");
    broker.process.go_on();
    // Its agent may have given the silent broker up, and dials again.
    terminal.shows("devbox  reachable");
    agent.signal(Signal::TERM);
    agent.exit(Duration::from_secs(10));
    terminal.shows("devbox  waiting  goodbye");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_message_with_escape_sequences_is_shown_and_does_nothing() {
    let world = World::new();
    let broker = world.broker(&["--guest", "builder"]);
    guest(broker.port(), "devbox");
    ask(&world, "register_peer", &json!({"source": "builder", "name": "devbox"}));
    let text = "a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}b\n12:00:00Z builder: forged";
    ask(&world, "send_to_peer", &json!({"from": "builder", "to": "devbox", "text": text}));
    let terminal = console(&world, &["devbox"]);
    let screen = terminal.shows("forged");
    assert!(screen.contains(r"a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}b"), "{screen}");
    assert!(screen.contains("\n    12:00:00Z builder: forged"), "{screen}");
    assert!(screen.starts_with("devbox  reachable"), "{screen}");
    let bytes = String::from_utf8(terminal.bytes()).unwrap();
    assert!(!bytes.contains("\u{1b}]") && !bytes.contains(['\u{7}', '\u{9b}', '\u{202e}']), "{bytes:?}");
    // Ctrl-C is a key here.
    terminal.press("\u{3}");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn signals_end_it_and_give_the_terminal_back() {
    let world = World::new();
    let _broker = world.broker(&["--guest", "devbox"]);
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let terminal = console(&world, &["devbox"]);
        terminal.shows("never_seen");
        terminal.signal(signal);
        assert_eq!(terminal.ends(), code);
    }
    let terminal = console(&world, &["devbox"]);
    terminal.shows("never_seen");
    assert_eq!(terminal.hangs_up(), 129);
    // Without a controlling terminal there is no signal about it.
    let terminal = Terminal::run_detached(&world.command(&["console", "devbox"]), ROWS, COLUMNS);
    terminal.shows("never_seen");
    assert_eq!(terminal.hangs_up(), 129);
}

#[test]
fn it_follows_the_terminals_size_and_colours_only_if_it_may() {
    let world = World::new();
    let _broker = world.broker(&["--guest", "devbox"]);
    let terminal = console(&world, &["devbox"]);
    terminal.shows("devbox  waiting  never_seen");
    terminal.resize(10, 40);
    terminal.shows(": command");
    terminal.until("ten rows", |screen| {
        screen.contents().lines().nth(9).is_some_and(|line| line.starts_with(": command"))
    });
    terminal.resize(40, 120);
    terminal.until("forty rows", |screen| {
        screen.contents().lines().nth(39).is_some_and(|line| line.starts_with(": command"))
    });
    let colored = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        ["38;5;3", "[33", "[93"].iter().any(|code| text.contains(code))
    };
    assert!(colored(terminal.bytes()), "{:?}", String::from_utf8(terminal.bytes()));
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
    let mut plain = world.command(&["console", "devbox"]);
    let terminal = Terminal::run(plain.env("NO_COLOR", "1"), ROWS, COLUMNS);
    terminal.shows("devbox  waiting  never_seen");
    assert!(!colored(terminal.bytes()), "{:?}", String::from_utf8(terminal.bytes()));
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn without_a_terminal_it_names_the_commands_that_need_none() {
    let world = World::new();
    let ran = world.castra(&["console", "devbox"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("castra status") && ran.err.contains("castra peers"), "{ran:?}");
    let mut dumb = world.command(&["console", "devbox"]);
    let terminal = Terminal::run(dumb.env("TERM", "dumb"), ROWS, COLUMNS);
    terminal.shows("needs a terminal");
    assert_eq!(terminal.ends(), 2);
    // Nor without a name, on the host.
    let _broker = world.broker(&[]);
    let terminal = console(&world, &[]);
    terminal.shows("which guest?");
    assert_eq!(terminal.ends(), 2);
}

#[test]
fn inside_a_guest_it_needs_no_name_and_answers_those_who_want_to_be_peers() {
    let world = World::new();
    let broker = world.broker(&[]);
    let mut agents = vec![];
    for (name, policy) in [("devbox", "ask"), ("builder", "accept")] {
        let inbox = world.path(&format!("{name}.inbox"));
        let args = ["--inbox", inbox.to_str().unwrap(), "--peers", policy];
        agents.push(world.agent(name, broker.address(), &args));
    }
    world.wait(&["devbox", "builder"], "reachable");
    let inside = |args: &[&str]| {
        let mut command = world.command(&[&["console"], args].concat());
        command.env_remove("CASTRA_STATE_DIR").env("CASTRA_AGENT_SOCKET", world.path("devbox.sock"));
        Terminal::run(&command, ROWS, COLUMNS)
    };
    let terminal = inside(&[]);
    terminal.shows("devbox  reachable  [inside the guest]");
    terminal.shows("PEERS 0");
    let socket = world.path("devbox.sock");
    for (word, told) in [("hold", "(busy)"), ("resume", "linked devbox <-> builder")] {
        assert_eq!(world.castra(&["agent", word, "--socket", socket.to_str().unwrap()]).code, 0);
        order(&terminal, "peer builder");
        terminal.shows(told);
    }
    order_next(&terminal, "unpeer builder", "unlinked devbox <-> builder");
    terminal.shows("PEERS 0");
    // An offer stands for 2 s: on a machine that is busy for longer it is made again.
    let linked = (0..5).any(|_| {
        let link = world.spawn(&["peer", "link", "builder", "devbox"]);
        terminal.shows("builder wants to be a peer: :accept builder or :refuse builder");
        order(&terminal, "accept builder");
        link.finish(Duration::from_secs(20)).code == 0
    });
    assert!(linked);
    terminal.shows("PEERS 1");
    order_next(&terminal, "send builder from inside", "delivered to builder: msg-");
    ask(&world, "send_to_peer", &json!({"from": "builder", "to": "devbox", "text": "and back"}));
    terminal.shows("builder (keyed): and back");
    order(&terminal, "wait builder");
    terminal.shows("builder is reachable");
    // Without its link the agent knows no more than its own inbox.
    broker.process.kill();
    let screen = terminal.shows("nobody can tell");
    assert!(screen.contains("and back"), "{screen}");
    order(&terminal, "send builder hello");
    terminal.shows("error: not attached: ");
    terminal.press("q");
    assert_eq!(terminal.ends(), 0);

    let terminal = inside(&["builder"]);
    terminal.shows("this is the agent of devbox");
    assert_eq!(terminal.ends(), 2);
}
