//! Whole screens, compared with those in `screens/`. `CASTRA_APPROVE=1` writes them.

use std::path::Path;
use std::time::Duration;

use castra_core::attach::wire::AttachError;
use castra_core::attach::{Route, Stage};
use castra_core::control::attach::AttachmentRow;
use castra_core::status::Reason;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::Color;

use super::draw::draw;
use super::inputs::Input;
use super::look::Look;
use super::state::State;
use super::state_tests::{
    answer, later, looked_at, name, new, offline, online, press, reachable, waiting, write,
};

/// In colours, with Unicode.
pub(super) fn rich() -> Look {
    Look::new(true, |name| (name == "LANG").then(|| "C.UTF-8".into()))
}

/// As with NO_COLOR, in a locale of ASCII.
fn plain() -> Look {
    Look::new(false, |_| None)
}

pub(super) fn drawn(state: &mut State, look: Look, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, look)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    cells.chunks(width).map(|row| row.concat().trim_end().to_owned() + "\n").collect()
}

/// The screen is the one of that name.
fn is_as_approved(name: &str, state: &mut State, look: Look, width: u16, height: u16) {
    let shown = text(&drawn(state, look, width, height));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/screens").join(format!("{name}.txt"));
    if std::env::var_os("CASTRA_APPROVE").is_some() {
        std::fs::write(&file, &shown).unwrap();
    }
    let approved = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(shown == approved, "{name}: look at it, then run again with CASTRA_APPROVE=1:\n{shown}");
}

#[test]
fn the_table_is_shown_at_every_size_as_far_as_it_fits() {
    is_as_approved("table-80x24", &mut online(), rich(), 80, 24);
    is_as_approved("table-120x40", &mut online(), rich(), 120, 40);
    is_as_approved("table-40x10", &mut online(), rich(), 40, 10);
}

#[test]
fn without_colours_and_unicode_the_screen_says_the_same() {
    is_as_approved("plain-80x24", &mut online(), plain(), 80, 24);
    for mut state in [online(), looked_at()] {
        let buffer = drawn(&mut state, plain(), 80, 24);
        assert!(text(&buffer).is_ascii());
        for cell in buffer.content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
        }
        assert!(drawn(&mut state, rich(), 80, 24).content().iter().any(|cell| cell.fg == Color::Yellow));
    }
    // The colours alone are another matter: every sign is the same without them.
    let unicode = Look::new(false, |_| Some("C.UTF-8".into()));
    let (one, other) = (drawn(&mut online(), unicode, 80, 24), drawn(&mut online(), rich(), 80, 24));
    assert_eq!(text(&one), text(&other));
}

#[test]
fn without_a_broker_the_screen_calls_nobody_reachable() {
    let mut state = online();
    offline(&mut state);
    is_as_approved("offline-80x24", &mut state, rich(), 80, 24);
    assert!(!text(&drawn(&mut state, rich(), 120, 40)).contains("reachable"));
    // Nor of one that is looked at.
    let mut state = looked_at();
    offline(&mut state);
    let shown = text(&drawn(&mut state, rich(), 120, 40));
    assert!(shown.contains("web-2  ✗ offline  no_broker") && !shown.contains("live"), "{shown}");
}

#[test]
fn a_guest_is_shown_with_its_history_at_every_size() {
    is_as_approved("guest-80x24", &mut looked_at(), rich(), 80, 24);
    is_as_approved("guest-120x40", &mut looked_at(), rich(), 120, 40);
    is_as_approved("guest-40x10", &mut looked_at(), rich(), 40, 10);
    let mut state = looked_at();
    press(&mut state, KeyCode::Tab);
    is_as_approved("sessions-80x24", &mut state, rich(), 80, 24);
}

#[test]
fn a_guest_is_shown_with_its_session_its_terminals_and_its_attachment() {
    let mut state = looked_at();
    state.apply(Input::Answer(Box::new(answer(vec![reachable("web-2", 700)], false))));
    let now = state.now;
    let page = state.page.as_mut().unwrap();
    page.attachment = Some(Ok(Some(AttachmentRow {
        guest: name("web-2"),
        session_id: "s-1".parse().unwrap(),
        private_beach_id: "b".parse().unwrap(),
        manager_url: "http://127.0.0.1:7171".parse().unwrap(),
        handshake_id: None,
        stage: Stage::Attached,
        route: Some(Route::Http),
        code_expires_in_ms: None,
        lease_expires_in_ms: Some(29_400),
        last_poll_age_ms: Some(812),
        queued: 3,
        attempt: None,
        failure_count: None,
        last_attempt_age_ms: None,
        next_retry_ms: None,
        last_error: Some(AttachError { code: "http_500".into(), message: "\u{1b}]0;x\u{7}".into() }),
    })));
    let terminal =
        |name: &str, state: &str| [name, state, "80x24", "you", "1", "3m12s", "make -j4"].map(str::to_owned);
    let rows = (1..=6).map(|number| terminal(&format!("web-2/build-{number}"), "running")).collect();
    page.terminals = Some((Ok(rows), now));
    is_as_approved("guest-100x30", &mut state, rich(), 100, 30);
}

#[test]
fn a_proof_that_is_too_old_is_no_longer_called_one() {
    let mut state = online();
    later(&mut state, Duration::from_millis(10_201));
    let shown = text(&drawn(&mut state, plain(), 80, 24));
    let row = |name: &str| shown.lines().find(|line| line.contains(name)).unwrap();
    assert!(row("devbox").contains("? asking") && row("devbox").contains("15s/15s"), "{shown}");
    assert!(row("builder").contains("* reachable"), "{shown}");
    // devbox, and the one with a long name.
    assert!(shown.contains("9 guests: 2 reachable, 5 waiting, 2 asking"), "{shown}");
}

#[test]
fn the_help_an_error_and_what_is_written_are_shown() {
    let mut state = online();
    write(&mut state, "?");
    is_as_approved("help-80x24", &mut state, rich(), 80, 24);
    press(&mut state, KeyCode::PageDown);
    assert!(text(&drawn(&mut state, rich(), 80, 24)).contains(":quit"));
    press(&mut state, KeyCode::Esc);
    write(&mut state, ":peer x");
    press(&mut state, KeyCode::Enter);
    write(&mut state, "/");
    let shown = text(&drawn(&mut state, rich(), 80, 24));
    assert!(shown.ends_with("\n/\n"), "{shown}");
    press(&mut state, KeyCode::Esc);
    write(&mut state, ":peer x");
    press(&mut state, KeyCode::Enter);
    let shown = text(&drawn(&mut state, rich(), 80, 24));
    assert!(shown.contains("error: the names of two guests are missing. Usage: :peer NAME NAME"), "{shown}");
}

#[test]
fn a_window_that_is_too_small_says_so_and_every_size_can_be_drawn() {
    let shown = text(&drawn(&mut online(), rich(), 39, 10));
    assert!(shown.starts_with("castra top needs 40 columns and 8 rows;"), "{shown}");
    for mut state in [new(), online(), looked_at()] {
        for keys in ["", "?", ":", "/"] {
            write(&mut state, keys);
            for (width, height) in [(80, 24), (40, 8), (41, 9), (20, 5), (1, 1), (3, 2), (500, 9), (50, 100)]
            {
                drawn(&mut state, rich(), width, height);
            }
            press(&mut state, KeyCode::Esc);
        }
        for _ in 0..5 {
            press(&mut state, KeyCode::Tab);
            drawn(&mut state, plain(), 60, 12);
        }
    }
}

#[test]
fn no_guest_brings_a_control_character_to_the_screen() {
    let mut state = looked_at();
    let evil = "a\u{1b}[2J\u{9b}31m\u{202e}b";
    let page = state.page.as_mut().unwrap();
    page.peers = Some(Err(evil.into()));
    page.attachment = Some(Err(evil.into()));
    page.terminals = Some((Err(evil.into()), state.now));
    page.events_missing = Some(evil.into());
    let shown = text(&drawn(&mut state, plain(), 120, 40));
    assert!(shown.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{shown:?}");
    assert_eq!(shown.matches(r"a\u{1b}[2J\u{9b}31m\u{202e}b").count(), 4, "{shown}");
}

#[test]
fn a_selection_far_down_is_on_the_screen() {
    let mut state = new();
    state.due();
    let rows = (0..1000).map(|number| waiting(&format!("guest-{number:04}"), Reason::Stale, None)).collect();
    state.apply(Input::Answer(Box::new(answer(rows, true))));
    drawn(&mut state, plain(), 80, 24);
    press(&mut state, KeyCode::End);
    let shown = text(&drawn(&mut state, plain(), 80, 24));
    assert!(shown.contains("> guest-0999") && shown.contains("  guest-0980"), "{shown}");
    state.apply(Input::Redraw);
    let shown = text(&drawn(&mut state, plain(), 80, 10));
    assert!(shown.contains("> guest-0999") && !shown.contains("guest-0980"), "{shown}");
}
