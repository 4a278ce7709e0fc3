//! What is to be seen, on screens of several sizes.

use castra_core::peers::Visibility;
use castra_core::status::State as Verdict;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::draw::draw;
use super::inputs::{Input, Snapshot, Standing};
use super::state::{State, View};
use super::state_tests::{listed, message, new, online, row, snapshot, write};

/// The rows of a screen of that size, without trailing blanks.
fn shown(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, true)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    cells.chunks(width.into()).map(|row| row.concat().trim_end().to_owned()).collect()
}

fn full() -> State {
    let mut state = online(Verdict::Reachable);
    let inbox = Some(Ok((1..=5).map(|number| message(number, "hello there")).collect()));
    let standing = Standing::Known(Box::new(row(Verdict::Reachable)));
    state.apply(Input::Snapshot(Box::new(Snapshot { inbox, ..snapshot(standing) })));
    state
}

#[test]
fn a_screen_of_80_by_24_shows_all_of_it() {
    let rows = shown(&mut full(), 80, 24);
    let rule = |title: &str| format!("{title} {}", "-".repeat(79 - title.len()));
    assert_eq!(rows[0], format!("devbox  reachable{:>63}", "broker serving"));
    assert_eq!(rows[1], "age 4.8s of 15s [######--------------]  session 3m12s");
    assert_eq!(rows[2], rule("PEERS 1"));
    assert_eq!(rows[3], "NAME     STATE       AGE     QUEUED  SENT TO    RECEIVED FROM");
    assert_eq!(rows[4], "builder  live        0.3s    2       1m40s ago  -");
    assert_eq!(rows[5], rule("MESSAGES 5 (1 waiting)"));
    assert_eq!(rows[6], "18:48:29Z builder (waiting): hello there");
    assert_eq!(rows[7], "18:48:29Z builder (keyed): hello there");
    assert_eq!(rows[10], "18:48:29Z builder (keyed): hello there".replace(" (keyed)", ""));
    assert_eq!(rows[22..], ["", ": command   ? help   q quit"]);
}

#[test]
fn nobody_is_called_live_while_there_is_no_broker() {
    let mut state = full();
    state.apply(Input::Offline("no broker serves".into()));
    let rows = shown(&mut state, 80, 24);
    assert_eq!(rows[..2], ["devbox  offline  nobody can tell", "no broker serves"]);
    assert!(rows[2].starts_with("PEERS 1 (as last told) ---"), "{rows:?}");
    assert_eq!(rows[4], "builder  -           -       2       1m40s ago  -");
    assert!(!rows.iter().any(|row| row.contains("reachable")), "{rows:?}");
}

#[test]
fn a_notice_that_is_too_long_ends_with_dots() {
    let mut state = full();
    state.fail("word ".repeat(100));
    let rows = shown(&mut state, 40, 24);
    assert!(rows[20].starts_with("error: word") && rows[22].ends_with(".."), "{rows:?}");
}

#[test]
fn every_size_and_every_view_can_be_drawn() {
    let silent = Standing::Silent("the agent has no link".into());
    let mut offline = full();
    offline.apply(Input::Offline("no broker serves".into()));
    let mut others = [new(), full(), offline, new(), new()];
    others[3].apply(Input::Snapshot(Box::new(snapshot(Standing::Unknown))));
    let broken =
        Snapshot { peers: Err("x".repeat(200)), inbox: Some(Err("no inbox".into())), ..snapshot(silent) };
    others[4].apply(Input::Snapshot(Box::new(broken)));
    for state in &mut others {
        write(state, ":send builder g\u{fc}n\u{4e16}\u{754c}");
        for view in [View::Both, View::Peers, View::Inbox, View::Help] {
            for (width, height) in [(80, 24), (120, 40), (40, 10), (20, 5), (1, 1), (3, 2), (500, 3)] {
                state.view = view;
                let rows = shown(state, width, height);
                assert_eq!(rows.len(), usize::from(height));
                if width >= 40 && height > 3 {
                    assert!(rows[0].starts_with("devbox"), "{rows:?}");
                    assert!(rows.last().unwrap().starts_with(":send"), "{rows:?}");
                }
            }
        }
    }
}

#[test]
fn a_small_screen_keeps_the_newest_message_and_the_state() {
    let rows = shown(&mut full(), 40, 10);
    assert_eq!(rows[0], "devbox  reachable         broker serving");
    assert_eq!(rows[1], "age 4.8s of 15s [##------]  session 3m..");
    assert_eq!(rows[4], "builder  live        0.3s    2");
    assert!(rows[7].starts_with("18:48:29Z builder: hello"), "{rows:?}");
}

#[test]
fn long_messages_are_wrapped_and_read_page_by_page() {
    let mut state = full();
    let text = format!("{}\nend of it", "word ".repeat(60).trim_end());
    state.inbox = Ok(vec![message(2, "first"), message(4, &text)]);
    state.view = View::Inbox;
    let rows = shown(&mut state, 40, 12);
    assert_eq!(rows[2], format!("MESSAGES 2 {}", "-".repeat(29)));
    assert_eq!(rows[9], "    end of it");
    assert!(rows[3..9].iter().all(|row| row.starts_with("    word")), "{rows:?}");
    state.scroll = usize::MAX;
    let rows = shown(&mut state, 40, 12);
    assert_eq!(rows[3], "18:48:29Z builder (keyed): first");
    assert!(rows[2].starts_with("MESSAGES 2, ") && rows[2].contains(" lines below"), "{rows:?}");
    assert_eq!(state.scroll, state.reach.0);
}

#[test]
fn more_peers_than_fit_are_counted() {
    let mut state = full();
    let (snapshot, _) = state.snapshot.as_mut().unwrap();
    let peers = (0..30).map(|number| listed(&format!("guest-{number}"), Visibility::Peer));
    snapshot.peers = Ok(peers.collect());
    let rows = shown(&mut state, 80, 24);
    assert!(rows.contains(&"... and 26 more: :peers".to_owned()), "{rows:?}");
    state.view = View::Peers;
    state.scroll = usize::MAX;
    let rows = shown(&mut state, 80, 24);
    assert!(rows[21].starts_with("guest-29 "), "{rows:?}");
}

#[test]
fn an_error_is_marked_by_a_word_and_colour_is_never_needed() {
    let mut state = full();
    write(&mut state, ":");
    state.line.insert("foo");
    state.apply(Input::Key(ratatui::crossterm::event::KeyCode::Enter.into()));
    let rows = shown(&mut state, 80, 24);
    assert_eq!(rows[22], "error: there is no command foo; :help lists all");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &mut state, false)).unwrap();
    assert!(terminal.backend().buffer().content().iter().all(|cell| cell.fg == Color::Reset));
}

#[test]
fn a_long_command_keeps_its_cursor_in_sight() {
    let mut state = full();
    write(&mut state, ":");
    state.line.insert(&format!("send builder {}", "\u{754c}".repeat(40)));
    let rows = shown(&mut state, 40, 10);
    // Wide characters take two columns each.
    assert!(rows[9].starts_with(":\u{754c}"), "{rows:?}");
    let mut terminal = Terminal::new(TestBackend::new(40, 10)).unwrap();
    terminal.draw(|frame| draw(frame, &mut state, true)).unwrap();
    assert_eq!(terminal.backend().cursor_position().y, 9);
    assert_eq!(terminal.backend().cursor_position().x, 39);
}
