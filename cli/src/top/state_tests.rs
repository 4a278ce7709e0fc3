//! What `castra top` does about what it is told, without a terminal or a broker.

use std::time::{Duration, Instant};

use castra_core::capabilities::Capabilities;
use castra_core::control::reply::{Events, Target};
use castra_core::endpoint::{Remote, Transport};
use castra_core::event::{Cursor, Event};
use castra_core::id::{Epoch, GuestName};
use castra_core::peers::{Listed, Presence, Visibility};
use castra_core::status::{
    BrokerState, BrokerStatus, GuestStatus, Reason, State as Verdict, StatusOutcome, Warning,
};
use castra_core::time::WallTime;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::columns::Column;
use super::inputs::{Answer, Ask, Effect, Input, PageAnswer};
use super::state::{Link, State, View};
use crate::offline::{absent_guest, document};
use crate::tui::End;
use crate::tui::action::{Action, Told};
use crate::tui::feed::Followed;

/// 2026-11-21T18:50:09Z.
const WALL: i64 = 1_795_287_009_000;

pub(super) fn name(text: &str) -> GuestName {
    text.parse().unwrap()
}

pub(super) fn wall(before_ms: i64) -> WallTime {
    WallTime::from_unix_millis(WALL - before_ms)
}

pub(super) fn new() -> State {
    State::new(Instant::now(), wall(0))
}

pub(super) fn reachable(text: &str, age: u64) -> GuestStatus {
    GuestStatus {
        state: Verdict::Reachable,
        reachable: true,
        reason: None,
        proven: true,
        authenticated: true,
        last_handshake_age_ms: Some(age),
        last_handshake_at: Some(wall(i64::try_from(age).unwrap())),
        session_age_ms: Some(192_500),
        window_ms: Some(15_000),
        interval_ms: Some(5000),
        epoch: Some(Epoch(0x0003_0000_0007)),
        transport: Some(Transport::Tcp),
        remote: Some(Remote::Ip("10.0.2.15:51234".parse().unwrap())),
        rtt_us: Some(312),
        handshakes: 39,
        ..absent_guest(name(text), None, Reason::NoBroker)
    }
}

pub(super) fn waiting(text: &str, reason: Reason, age: Option<u64>) -> GuestStatus {
    GuestStatus {
        state: Verdict::Waiting,
        reason: Some(reason),
        last_handshake_age_ms: age,
        window_ms: Some(15_000),
        interval_ms: Some(5000),
        ..absent_guest(name(text), None, reason)
    }
}

/// One of everything that can be seen.
pub(super) fn guests() -> Vec<GuestStatus> {
    let vsock = GuestStatus {
        transport: Some(Transport::Vsock),
        remote: None,
        rtt_us: Some(87_000),
        session_age_ms: Some(7_502_000),
        handshakes: 1500,
        ..reachable("ci-runner-with-a-long-name", 11_900)
    };
    let old = GuestStatus {
        warnings: vec![Warning::Unproven],
        proven: false,
        authenticated: false,
        rtt_us: None,
        ..reachable("old-box", 300)
    };
    vec![
        reachable("builder", 1200),
        vsock,
        waiting("db-1", Reason::NeverSeen, None),
        reachable("devbox", 4800),
        waiting("laptop", Reason::ClockJumped, Some(63_000)),
        old,
        waiting("sandbox", Reason::Goodbye, Some(125_000)),
        waiting("web-1", Reason::Stale, Some(17_400)),
        waiting("web-2", Reason::Disconnected, Some(8200)),
    ]
}

pub(super) fn answer(guests: Vec<GuestStatus>, is_full: bool) -> Answer {
    let mut document = StatusOutcome { as_of: wall(0), ..document(guests, BrokerState::Serving) };
    document.broker = BrokerStatus { pid: Some(4711), incarnation: Some(3), ..document.broker };
    Answer { is_full, document, page: None }
}

pub(super) fn event(json: &str) -> Event {
    serde_json::from_str(&format!("{{{json}}}")).unwrap()
}

/// At `at` on the day of the test.
pub(super) fn fact(number: u64, at: &str, guest: &str, fact: &str) -> Event {
    let guest = if guest.is_empty() { String::new() } else { format!(r#""guest":"{guest}","#) };
    event(&format!(r#""cursor":"3-{number}","at":"2026-11-21T{at}Z",{guest}{fact}"#))
}

const LOST: &str =
    r#""kind":"verdict.changed","from":"reachable","to":"waiting","reason":"disconnected","age_ms":4000"#;
const CLOSED: &str =
    r#""kind":"session.closed","epoch":12884901891,"reason":"disconnected","lasted_ms":61000"#;

/// What happened before: two losses of one guest, one of another.
pub(super) fn history() -> Vec<Event> {
    vec![
        fact(1, "17:00:00.000", "web-2", CLOSED),
        fact(2, "17:00:00.001", "web-2", LOST),
        fact(3, "18:00:00.000", "web-2", CLOSED),
        fact(4, "18:00:00.001", "web-2", LOST),
        fact(5, "18:00:00.001", "web-1", LOST),
    ]
}

/// It was told everything.
pub(super) fn online() -> State {
    let mut state = new();
    assert!(matches!(state.due(), Some(Effect::Poll(Ask { names, page: None })) if names.is_empty()));
    state.apply(Input::Followed(Followed::Gap(history())));
    state.apply(Input::Answer(Box::new(answer(guests(), true))));
    state.show(20);
    state
}

pub(super) fn offline(state: &mut State) {
    let document = document(vec![], BrokerState::Offline);
    let why = "no broker serves at /run/castra/control.sock: start one with `castra up`";
    state.apply(Input::Offline(why.into(), Box::new(document)));
}

pub(super) fn press(state: &mut State, code: KeyCode) -> Vec<Effect> {
    let effects = state.apply(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    state.show(20);
    effects
}

pub(super) fn write(state: &mut State, text: &str) -> Vec<Effect> {
    text.chars().flat_map(|character| press(state, KeyCode::Char(character))).collect()
}

fn order(state: &mut State, line: &str) -> Vec<Effect> {
    write(state, &format!(":{line}"));
    press(state, KeyCode::Enter)
}

pub(super) fn later(state: &mut State, by: Duration) {
    let wall = state.wall.unix_millis() + i64::try_from(by.as_millis()).unwrap();
    state.tick(state.now + by, WallTime::from_unix_millis(wall));
}

fn names(state: &State) -> Vec<&str> {
    state.table.order().iter().map(GuestName::as_str).collect()
}

fn notice(state: &State) -> (&str, bool) {
    state.notices.shown.as_ref().map_or(("", false), |notice| (notice.text.as_str(), notice.is_error))
}

fn now(state: &State, guest: &str) -> (Option<Verdict>, Option<u64>) {
    let now = state.table.get(&name(guest)).unwrap().now(state.now, state.absent());
    (now.state, now.age)
}

#[test]
fn what_needs_looking_at_comes_first_and_keys_sort_otherwise() {
    let mut state = online();
    assert_eq!(names(&state)[..5], ["db-1", "laptop", "sandbox", "web-1", "web-2"]);
    assert_eq!(state.selected, Some(name("db-1")));
    let firsts: Vec<_> = (0..10)
        .map(|_| {
            press(&mut state, KeyCode::Char('s'));
            (state.wish.column, names(&state)[0].to_owned())
        })
        .collect();
    let firsts: Vec<_> = firsts.iter().map(|(column, first)| (*column, first.as_str())).collect();
    assert_eq!(
        firsts,
        [
            (Column::Name, "builder"),
            (Column::Reason, "laptop"),
            (Column::Age, "sandbox"),
            (Column::Rtt, "ci-runner-with-a-long-name"),
            (Column::Flaps, "web-2"),
            (Column::Session, "builder"),
            (Column::Sessions, "web-2"),
            (Column::Handshakes, "ci-runner-with-a-long-name"),
            (Column::Via, "db-1"),
            (Column::State, "db-1"),
        ]
    );
    press(&mut state, KeyCode::Char('r'));
    assert_eq!(state.table.get(&name(names(&state)[0])).unwrap().status.state, Verdict::Reachable);
    press(&mut state, KeyCode::Char('S'));
    assert_eq!((state.wish.column, names(&state)[8]), (Column::Via, "web-2"));
}

#[test]
fn a_filter_works_while_it_is_written_and_escape_ends_it() {
    let mut state = online();
    write(&mut state, "/WEB");
    assert_eq!(names(&state), ["web-1", "web-2"]);
    press(&mut state, KeyCode::Enter);
    assert_eq!((names(&state), state.selected), (vec!["web-1", "web-2"], Some(name("web-1"))));
    // What it finds are reasons and links, too.
    write(&mut state, "/");
    for _ in 0..3 {
        press(&mut state, KeyCode::Backspace);
    }
    write(&mut state, "vsock");
    assert_eq!(names(&state), ["ci-runner-with-a-long-name"]);
    press(&mut state, KeyCode::Esc);
    assert_eq!(names(&state).len(), 9);
    let seen: Vec<_> = (0..3)
        .map(|_| {
            press(&mut state, KeyCode::Char('f'));
            names(&state).len()
        })
        .collect();
    assert_eq!(seen, [5, 4, 9]);
    order(&mut state, "state reachable");
    order(&mut state, "filter old");
    assert_eq!(names(&state), ["old-box"]);
    assert_eq!(state.selected, Some(name("old-box")));
    press(&mut state, KeyCode::Esc);
    assert_eq!(names(&state).len(), 9);
}

#[test]
fn who_is_selected_stays_so_wherever_it_goes() {
    let mut state = online();
    for _ in 0..3 {
        press(&mut state, KeyCode::Down);
    }
    assert_eq!(state.selected, Some(name("web-1")));
    order(&mut state, "sort guest");
    assert_eq!((state.selected, state.at), (Some(name("web-1")), 7));
    // It is forgotten: the next one is selected.
    let event = fact(9, "18:50:10.000", "web-1", r#""kind":"guest.forgotten""#);
    state.apply(Input::Followed(Followed::Event(Box::new(event))));
    state.show(20);
    assert_eq!((state.selected, names(&state).len()), (Some(name("web-2")), 8));
    press(&mut state, KeyCode::Home);
    assert_eq!(state.selected, Some(name("builder")));
    press(&mut state, KeyCode::End);
    assert_eq!(state.selected, Some(name("web-2")));
}

#[test]
fn a_row_is_never_called_reachable_past_its_window_whatever_was_told() {
    let mut state = online();
    assert_eq!(now(&state, "devbox"), (Some(Verdict::Reachable), Some(4800)));
    later(&mut state, Duration::from_millis(10_200));
    assert_eq!(now(&state, "devbox"), (Some(Verdict::Reachable), Some(15_000)));
    later(&mut state, Duration::from_millis(1));
    assert_eq!(now(&state, "devbox"), (None, Some(15_001)));
    // The next answer knows.
    state.due();
    state.apply(Input::Answer(Box::new(answer(vec![reachable("devbox", 20)], false))));
    assert_eq!(now(&state, "devbox"), (Some(Verdict::Reachable), Some(20)));
}

#[test]
fn an_event_changes_its_row_at_once_unless_the_row_is_newer() {
    let mut state = online();
    assert_eq!(state.table.get(&name("web-2")).unwrap().counts.flaps, 2);
    assert_eq!(state.table.get(&name("web-2")).unwrap().sessions(), 2);
    let told = |state: &mut State, at: &str| {
        let event = fact(9, at, "devbox", LOST);
        state.apply(Input::Followed(Followed::Event(Box::new(event))));
        (now(state, "devbox"), state.table.get(&name("devbox")).unwrap().counts.flaps)
    };
    // It was on its way while the answer came.
    assert_eq!(told(&mut state, "18:50:08.999"), ((Some(Verdict::Reachable), Some(4800)), 1));
    assert_eq!(told(&mut state, "18:50:10.000"), ((Some(Verdict::Waiting), Some(4000)), 2));
    assert_eq!(state.table.tally(), [3, 6, 0]);
    // And the rest of it is asked for, without waiting for the next second.
    later(&mut state, Duration::from_millis(100));
    assert!(state.due().is_some());
}

#[test]
fn without_a_broker_nobody_is_reachable_and_with_one_again_all_is_asked_anew() {
    let mut state = online();
    offline(&mut state);
    for row in state.table.rows() {
        let now = row.now(state.now, state.absent());
        assert_eq!((now.state, now.reason), (Some(Verdict::Offline), Some(Reason::NoBroker)));
        assert_eq!((now.age, now.session), (None, None));
    }
    assert_eq!(order(&mut state, "ping"), []);
    assert!(notice(&state).0.starts_with("nobody to ask: no broker serves at /run"), "{:?}", notice(&state));
    assert!(notice(&state).1 && notice(&state).0.ends_with("; nothing was sent"));
    later(&mut state, Duration::from_millis(100));
    assert_eq!(state.due(), Some(Effect::Poll(Ask { names: vec![], page: None })));
    state.apply(Input::Answer(Box::new(answer(guests(), true))));
    assert_eq!((&state.link, now(&state, "devbox").0), (&Link::Online, Some(Verdict::Reachable)));
}

#[test]
fn only_what_is_on_the_screen_is_asked_for_every_second() {
    let mut state = new();
    state.due();
    let many = (0..10_000).map(|number| reachable(&format!("guest-{number:05}"), 100)).collect();
    state.apply(Input::Answer(Box::new(answer(many, true))));
    state.show(20);
    let asked = |state: &mut State| match state.due() {
        Some(Effect::Poll(Ask { names, .. })) => names,
        other => panic!("{other:?}"),
    };
    later(&mut state, Duration::from_secs(1));
    let names = asked(&mut state);
    assert_eq!((names.len(), names[0]), (20, name("guest-00000")));
    state.apply(Input::Answer(Box::new(answer(vec![], false))));
    // What was not on the screen before is asked for soon.
    press(&mut state, KeyCode::End);
    later(&mut state, Duration::from_millis(100));
    let names = asked(&mut state);
    assert_eq!((names.len(), names[19]), (20, name("guest-09999")));
    assert_eq!(state.broker.as_ref().unwrap().guests, 10_000);
    // Nothing is on the screen: one row says whether the broker is there.
    state.apply(Input::Answer(Box::new(answer(vec![], false))));
    write(&mut state, "/nobody");
    later(&mut state, Duration::from_secs(1));
    assert_eq!(asked(&mut state).len(), 1);
}

#[test]
fn every_command_asks_for_what_it_says_one_of_a_kind_at_a_time() {
    for (line, action) in [
        ("ping", Action::Ping { guest: name("db-1") }),
        ("ping devbox", Action::Ping { guest: name("devbox") }),
        ("wait devbox waiting", Action::Wait { guest: name("devbox"), target: Target::Waiting }),
        ("peer devbox builder", Action::Link { source: name("devbox"), peer: name("builder") }),
        ("unpeer devbox builder", Action::Unlink { source: name("devbox"), peer: name("builder") }),
        ("restore db-1", Action::Restore { guest: name("db-1") }),
        ("forget db-1", Action::Forget { guest: name("db-1") }),
    ] {
        let mut state = online();
        assert_eq!(order(&mut state, line), [Effect::Ask(action.clone())], "{line}");
        assert_eq!(notice(&state), (format!("{} ...", action.in_words()).as_str(), false));
        assert_eq!(order(&mut state, line), [], "{line}");
        assert!(notice(&state).0.ends_with("is not answered yet; nothing was sent"), "{:?}", notice(&state));
        state.apply(Input::Told(action, Told::Failed("no (busy)".into())));
        assert_eq!(notice(&state), ("no (busy)", true));
        assert_eq!(order(&mut state, line).len(), 1, "{line}");
    }
    let mut state = online();
    assert_eq!(order(&mut state, "peer devbox"), []);
    assert_eq!(notice(&state), ("the names of two guests are missing. Usage: :peer NAME NAME", true));
    assert_eq!(order(&mut state, "guest nobody"), []);
    assert_eq!(notice(&state), ("no guest is called nobody", true));
    assert_eq!(order(&mut state, "quit"), [Effect::End(End::Quit)]);
    assert_eq!(press(&mut state, KeyCode::Char('q')), [Effect::End(End::Quit)]);
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.apply(Input::Key(control)), [Effect::End(End::Quit)]);
}

#[test]
fn tab_completes_the_names_of_guests() {
    let mut state = online();
    write(&mut state, ":peer devbox web");
    press(&mut state, KeyCode::Tab);
    assert_eq!((state.line.text(), notice(&state).0), ("peer devbox web-", "web-1  web-2"));
    write(&mut state, "x");
    press(&mut state, KeyCode::Tab);
    assert_eq!(notice(&state).0, "nothing begins so");
    assert_eq!(state.apply(Input::Paste("\n:quit\n".into())), []);
    assert_eq!(state.line.text(), "peer devbox web-x :quit ");
}

/// `web-2`, looked at, with all that there is to know.
pub(super) fn looked_at() -> State {
    let mut state = online();
    assert_eq!(order(&mut state, "guest web-2"), []);
    later(&mut state, Duration::from_millis(100));
    let Some(Effect::Poll(ask)) = state.due() else { panic!() };
    let page = ask.page.unwrap();
    assert_eq!((page.guest, page.since, page.attachment), (name("web-2"), None, true));
    let events = history().into_iter().filter(|event| event.guest == Some(name("web-2"))).collect();
    let cursor = Cursor { incarnation: 3, number: 5 };
    let peer = Listed {
        name: name("devbox"),
        visibility: Visibility::Peer,
        state: Presence::Live,
        reachable: true,
        last_handshake_age_ms: Some(300),
        last_sent_at: Some(wall(100_000)),
        last_received_at: None,
        queued: 2,
    };
    let page = PageAnswer {
        guest: name("web-2"),
        events: Ok(Events { events, cursor, gap: false }),
        peers: Ok(vec![peer]),
        attachment: Some(Ok(None)),
    };
    let row = waiting("web-2", Reason::Disconnected, Some(8300));
    state.apply(Input::Answer(Box::new(Answer { page: Some(page), ..answer(vec![row], false) })));
    state
}

#[test]
fn a_guest_that_is_looked_at_is_asked_for_alone_and_goes_on_after_what_came() {
    let mut state = looked_at();
    assert_eq!(state.view, View::Guest);
    let page = state.page.as_ref().unwrap();
    let ended: Vec<_> = page.ended().map(|ended| (ended.at.to_string(), ended.reason.as_str())).collect();
    assert_eq!(
        ended,
        [
            ("2026-11-21T18:00:00.000Z".to_owned(), "disconnected"),
            ("2026-11-21T17:00:00.000Z".to_owned(), "disconnected")
        ]
    );
    later(&mut state, Duration::from_secs(1));
    let Some(Effect::Poll(Ask { page, .. })) = state.due() else { panic!() };
    let page = page.unwrap();
    assert_eq!((page.since, page.attachment), (Some(Cursor { incarnation: 3, number: 5 }), false));
    press(&mut state, KeyCode::Esc);
    assert_eq!((state.view, state.page.is_none(), state.selected), (View::Table, true, Some(name("web-2"))));
}

#[test]
fn terminals_are_asked_for_once_and_by_a_key_because_asking_is_an_event() {
    let mut state = online();
    let serving = GuestStatus {
        capabilities: Capabilities::parse("proof-v1,terminals-v1"),
        ..reachable("devbox", 100)
    };
    state.due();
    state.apply(Input::Answer(Box::new(answer(vec![serving], false))));
    assert_eq!(order(&mut state, "guest devbox"), [Effect::Terminals(name("devbox"))]);
    state.apply(Input::Terminals(name("web-1"), Err("of somebody else".into())));
    assert!(state.page.as_ref().unwrap().terminals.is_none());
    state.apply(Input::Terminals(name("devbox"), Ok(vec![])));
    assert!(state.page.as_ref().unwrap().terminals.is_some());
    assert_eq!(press(&mut state, KeyCode::Char('u')), [Effect::Terminals(name("devbox"))]);
    // One that serves none, or is away, is not asked.
    assert_eq!(order(&mut state, "guest builder"), []);
}
