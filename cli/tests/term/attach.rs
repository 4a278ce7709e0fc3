//! `castra term attach` on a real pseudo-terminal, as a person sees it.

use std::cmp::Ordering;

use rustix::process::Signal;

use crate::common::Scratch;
use crate::fake::Fake;
use crate::terminal::Terminal;

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

struct World {
    scratch: Scratch,
    fake: Fake,
    id: u32,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let fake = Fake::serve(scratch.path());
        let id = fake.add("build");
        Self { scratch, fake, id }
    }

    fn attach(&self, args: &[&str]) -> Terminal {
        Terminal::run(&self.scratch.command(&[&["term", "attach", "build"], args].concat()), ROWS, COLUMNS)
    }
}

/// Which of two texts was written first.
fn order(terminal: &Terminal, one: &str, other: &str) -> Ordering {
    let bytes = String::from_utf8_lossy(&terminal.bytes()).into_owned();
    let place = |text: &str| bytes.find(text).unwrap_or_else(|| panic!("no {text:?} in {bytes:?}"));
    place(one).cmp(&place(other))
}

#[test]
fn a_person_sees_the_screen_types_and_detaches_and_the_program_goes_on() {
    let world = World::new();
    world.fake.output(world.id, b"hello there");
    let terminal = world.attach(&[]);
    terminal.shows("hello there");
    world.fake.output(world.id, b"\r\nand more");
    terminal.shows("and more");
    terminal.press("ls\r\x03");
    world.fake.until(world.id, "what was typed", |terminal| terminal.typed == b"ls\r\x03");
    assert!(world.fake.terminal(world.id).owner.is_some());
    terminal.press("\x1cd");
    terminal.shows("detached from build: `castra term attach build` returns");
    assert_eq!(terminal.ends(), 0);
    let after = world.fake.terminal(world.id);
    assert_eq!((after.owner, after.exit), (None, None));
    assert_eq!(after.typed, b"ls\r\x03");
}

#[test]
fn the_prefix_twice_is_typed_once() {
    let world = World::new();
    let terminal = world.attach(&[]);
    world.fake.until_attached(world.id);
    terminal.shows("[picture");
    terminal.press("\x1c\x1cx");
    world.fake.until(world.id, "what was typed", |terminal| terminal.typed == b"\x1cx");
    terminal.press("\x1c");
    terminal.press("d");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn the_program_gets_the_size_of_who_owns_it_also_when_that_changes() {
    let world = World::new();
    let terminal = Terminal::run(&world.scratch.command(&["term", "attach", "build"]), 30, 100);
    world.fake.until(world.id, "the size", |terminal| (terminal.cols, terminal.rows) == (100, 30));
    // Drawn for this size, and not before for another.
    let screen = terminal.shows("[picture 100x30]");
    assert!(!screen.contains("80x24"), "{screen}");
    terminal.resize(40, 120);
    world.fake.until(world.id, "the new size", |terminal| (terminal.cols, terminal.rows) == (120, 40));
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn who_does_not_own_it_watches_is_told_whose_it_is_and_changes_nothing() {
    let world = World::new();
    world.fake.change(world.id, |terminal| {
        terminal.owner = Some("ann@box:7".into());
        (terminal.cols, terminal.rows) = (100, 30);
    });
    let terminal = world.attach(&[]);
    terminal.shows("[picture 100x30]");
    terminal.press("typed");
    world.fake.output(world.id, b"seen by all");
    terminal.shows("seen by all");
    terminal.resize(30, 90);
    terminal.press("\x1cd");
    terminal.shows("ann@box:7 owns build, so you only watch: `castra term attach build --takeover`");
    assert_eq!(terminal.ends(), 0);
    let after = world.fake.terminal(world.id);
    assert_eq!(after.owner.as_deref(), Some("ann@box:7"));
    assert_eq!((after.cols, after.rows), (100, 30));
    assert!(after.typed.is_empty());
}

#[test]
fn an_observer_watches_also_what_nobody_owns() {
    let world = World::new();
    let terminal = world.attach(&["--observe"]);
    terminal.shows("[picture 80x24]");
    terminal.press("typed");
    world.fake.output(world.id, b"on screen");
    terminal.shows("on screen");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
    let after = world.fake.terminal(world.id);
    assert!(after.typed.is_empty() && after.owner.is_none());
}

#[test]
fn a_takeover_owns_it_at_once_and_whoever_loses_it_is_told_at_the_end() {
    let world = World::new();
    world.fake.change(world.id, |terminal| {
        terminal.owner = Some("ann@box:7".into());
        terminal.cols = 100;
    });
    let terminal = world.attach(&["--takeover"]);
    world.fake.until(world.id, "the size", |terminal| terminal.cols == 80);
    terminal.press("mine");
    world.fake.until(world.id, "what was typed", |terminal| terminal.typed == b"mine");
    world.fake.own(world.id, Some("eve\u{1b}[2J"));
    world.fake.output(world.id, b"a mark behind the news");
    let screen = terminal.shows("a mark behind the news");
    assert!(!screen.contains("eve"), "told on the program's screen: {screen}");
    terminal.press("lost");
    terminal.press("\x1cd");
    terminal.shows("eve\\u{1b}[2J took build over: from then on you only watched");
    assert_eq!(terminal.ends(), 0);
    assert_eq!(world.fake.terminal(world.id).typed, b"mine");
}

#[test]
fn a_terminal_that_becomes_free_belongs_to_who_types_first() {
    let world = World::new();
    world.fake.change(world.id, |terminal| terminal.owner = Some("ann@box:7".into()));
    let terminal = world.attach(&[]);
    world.fake.until_attached(world.id);
    world.fake.own(world.id, None);
    world.fake.output(world.id, b"a mark behind the news");
    terminal.shows("a mark behind the news");
    terminal.press("x");
    world
        .fake
        .until(world.id, "what was typed", |terminal| terminal.typed == b"x" && terminal.owner.is_some());
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn the_programs_end_ends_it_behind_the_last_byte_with_its_code() {
    for (code, signal, exit, words) in
        [(0, None, 0, "build exited 0"), (3, None, 1, "build exited 3"), (137, Some(9), 1, "(signal KILL)")]
    {
        let world = World::new();
        let terminal = world.attach(&[]);
        terminal.shows("[picture");
        world.fake.output(world.id, b"last words");
        world.fake.exit(world.id, code, signal);
        terminal.shows(words);
        assert_eq!(order(&terminal, "last words", words), Ordering::Less);
        assert_eq!(terminal.ends(), exit);
    }
    let world = World::new();
    world.fake.output(world.id, b"long gone");
    world.fake.exit(world.id, 7, None);
    let terminal = world.attach(&[]);
    terminal.shows("build exited 7");
    assert_eq!(order(&terminal, "long gone", "build exited 7"), Ordering::Less);
    assert_eq!(terminal.ends(), 1);
}

#[test]
fn whatever_the_program_switched_on_is_off_after_detaching_and_after_signals() {
    const ALL: &[u8] =
        b"\x1b[?1049h\x1b[?1003h\x1b[?1006h\x1b[?2004h\x1b[?1004h\x1b[?25l\x1b[>1u\x1b[31;1mfull screen";
    type End = fn(&Terminal);
    let ends: [(End, i32); 4] = [
        (|terminal| terminal.press("\x1cd"), 0),
        (|terminal| terminal.signal(Signal::TERM), 143),
        (|terminal| terminal.signal(Signal::INT), 130),
        (|terminal| terminal.signal(Signal::HUP), 129),
    ];
    for (end, code) in ends {
        let world = World::new();
        let terminal = world.attach(&[]);
        terminal.shows("[picture");
        world.fake.output(world.id, ALL);
        terminal.until("the program's modes", |screen| {
            screen.alternate_screen() && screen.hide_cursor() && screen.contents().contains("full screen")
        });
        end(&terminal);
        terminal.until("the shell's modes", |screen| {
            !screen.alternate_screen()
                && !screen.hide_cursor()
                && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
        });
        let bytes = terminal.bytes();
        let off = |sequence: &[u8]| bytes.windows(sequence.len()).any(|window| window == sequence);
        assert!(off(b"\x1b[?1004l") && off(b"\x1b[<99u") && off(b"\x1b[0m") && off(b"\x1b[?1003l"));
        assert_eq!(terminal.ends(), code);
        // Given back at once, so that the next one need not wait.
        assert_eq!(world.fake.terminal(world.id).owner, None);
    }
}

#[test]
fn a_terminal_that_hangs_up_ends_it() {
    let world = World::new();
    let command = world.scratch.command(&["term", "attach", "build"]);
    let terminal = Terminal::run_detached(&command, ROWS, COLUMNS);
    terminal.shows("[picture");
    assert_eq!(terminal.hangs_up(), 129);
}

#[test]
fn a_lost_connection_is_made_again_and_nothing_is_missing_or_doubled() {
    let world = World::new();
    let terminal = world.attach(&[]);
    terminal.shows("[picture");
    world.fake.output(world.id, b"one ");
    terminal.shows("one");
    world.fake.lose();
    world.fake.output(world.id, b"two ");
    // While nobody is there; it waits.
    terminal.press("typed");
    world.fake.back();
    terminal.shows("one two");
    world.fake.until(world.id, "what was typed", |terminal| terminal.typed == b"typed");
    world.fake.cut();
    world.fake.until_attached(world.id);
    world.fake.output(world.id, b"three");
    let screen = terminal.shows("three");
    assert!(screen.contains("one two three"), "{screen}");
    let bytes = String::from_utf8(terminal.bytes()).unwrap();
    assert!(!bytes.contains("connection is lost"), "it was back at once");
    for word in ["two ", "three"] {
        assert_eq!(bytes.matches(word).count(), 1, "{word} is doubled");
    }
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_connection_that_stays_lost_is_told_after_a_second_and_wiped_away_when_it_is_back() {
    let world = World::new();
    let terminal = world.attach(&[]);
    terminal.shows("[picture");
    world.fake.lose();
    terminal.shows("the connection is lost; trying for 60 s; Ctrl-\\ d detaches");
    world.fake.output(world.id, b"meanwhile");
    world.fake.back();
    terminal.hides("the connection is lost");
    terminal.shows("meanwhile");
    world.fake.lose();
    terminal.shows("the connection is lost");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_resync_draws_the_screen_anew_and_output_goes_on_behind_it() {
    let world = World::new();
    let terminal = world.attach(&[]);
    terminal.shows("[picture");
    world.fake.output(world.id, b"garbage on the screen\x1b[5;5H");
    terminal.shows("garbage");
    world.fake.skip(world.id, b"\x1b[2J\x1b[Hclean");
    world.fake.output(world.id, b" and on");
    let screen = terminal.shows("clean and on");
    assert!(!screen.contains("garbage"), "{screen}");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_watcher_sees_the_screen_anew_when_its_owner_changes_its_size() {
    let world = World::new();
    world.fake.change(world.id, |terminal| terminal.owner = Some("ann@box:7".into()));
    let terminal = world.attach(&[]);
    terminal.shows("[picture 80x24]");
    world.fake.resize(world.id, 60, 20);
    terminal.shows("[picture 60x20]");
    terminal.hides("[picture 80x24]");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn what_comes_while_a_picture_is_made_is_neither_missing_nor_doubled() {
    let world = World::new();
    world.fake.change(world.id, |terminal| {
        terminal.cols = 100;
        terminal.burst = b"burst".to_vec();
    });
    let terminal = world.attach(&[]);
    terminal.shows("[picture 80x24]");
    world.fake.output(world.id, b" and on");
    let screen = terminal.shows("burst and on");
    assert_eq!(screen.matches("burst").count(), 1, "{screen}");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_picture_that_does_not_come_holds_nothing_up_for_long() {
    let world = World::new();
    world.fake.change(world.id, |terminal| {
        terminal.cols = 100;
        terminal.blind = true;
    });
    let terminal = world.attach(&[]);
    world.fake.until(world.id, "the size", |terminal| terminal.cols == 80);
    world.fake.output(world.id, b"it goes on");
    terminal.shows("it goes on");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_new_terminal_can_be_attached_to_at_once() {
    let world = World::new();
    let command = world.scratch.command(&["term", "new", "shell", "--attach"]);
    let terminal = Terminal::run(&command, ROWS, COLUMNS);
    terminal.shows("[picture 80x24]");
    terminal.press("x");
    world.fake.until(2, "what was typed", |terminal| terminal.typed == b"x");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
    assert_eq!(world.fake.terminal(2).owner, None);
}

#[test]
fn what_the_shell_showed_before_is_in_the_terminals_history() {
    let world = World::new();
    let terminal = world.attach(&[]);
    terminal.shows("[picture");
    let bytes = String::from_utf8(terminal.bytes()).unwrap();
    assert!(!bytes.contains("\x1bc"), "a full reset would forget it");
    assert!(bytes.contains(&"\n".repeat(usize::from(ROWS))), "it is not moved up: {bytes:?}");
    terminal.press("\x1cd");
    assert_eq!(terminal.ends(), 0);
}
