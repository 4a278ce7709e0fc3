//! What the console does about what it is told, without a terminal or a broker.

use std::time::{Duration, Instant};

use castra_core::control::reply::{InboxMessage, Target};
use castra_core::event::Event;
use castra_core::id::GuestName;
use castra_core::peers::{Listed, MessageId, Presence, Visibility};
use castra_core::status::{BrokerState, GuestStatus, Reason, State as Verdict};
use castra_core::time::WallTime;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::inputs::{Effect, Input, Role, Snapshot, Standing};
use super::state::{Link, State, View};
use crate::offline::{absent_guest, document};
use crate::tui::End;
use crate::tui::action::{Action, Told};

pub(super) fn name(text: &str) -> GuestName {
    text.parse().unwrap()
}

pub(super) fn new() -> State {
    State::new(name("devbox"), Instant::now(), WallTime::from_unix_millis(1_795_287_009_000))
}

pub(super) fn row(verdict: Verdict) -> GuestStatus {
    let reason = (verdict != Verdict::Reachable).then_some(Reason::Stale);
    GuestStatus {
        state: verdict,
        reachable: reason.is_none(),
        reason,
        last_handshake_age_ms: Some(4800),
        window_ms: Some(15_000),
        session_age_ms: Some(192_500),
        ..absent_guest(name("devbox"), None, Reason::Stale)
    }
}

pub(super) fn listed(text: &str, visibility: Visibility) -> Listed {
    Listed {
        name: name(text),
        visibility,
        state: Presence::Live,
        reachable: true,
        last_handshake_age_ms: Some(300),
        last_sent_at: Some(WallTime::from_unix_millis(1_795_286_909_000)),
        last_received_at: None,
        queued: 2,
    }
}

pub(super) fn message(number: u8, text: &str) -> InboxMessage {
    InboxMessage {
        id: MessageId([number; 16]),
        from: name("builder"),
        from_authenticated: number.is_multiple_of(2),
        text: text.into(),
        sent_at: WallTime::from_unix_millis(1_795_286_909_000),
        delivered_at: (number > 1).then(|| WallTime::from_unix_millis(1_795_286_909_500)),
        wake: true,
    }
}

pub(super) fn snapshot(standing: Standing) -> Snapshot {
    let broker = document(vec![], BrokerState::Serving).broker;
    Snapshot {
        role: Role::Broker,
        standing,
        broker: Some(broker),
        peers: Ok(vec![listed("devbox", Visibility::Itself), listed("builder", Visibility::Peer)]),
        inbox: None,
    }
}

pub(super) fn online(verdict: Verdict) -> State {
    let mut state = new();
    state.apply(Input::Snapshot(Box::new(snapshot(Standing::Known(Box::new(row(verdict)))))));
    state
}

fn press(state: &mut State, code: KeyCode) -> Vec<Effect> {
    state.apply(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

pub(super) fn write(state: &mut State, text: &str) -> Vec<Effect> {
    text.chars().flat_map(|character| press(state, KeyCode::Char(character))).collect()
}

/// Writes a command and carries it out, without what it asks for by the way.
fn order(state: &mut State, line: &str) -> Vec<Effect> {
    write(state, &format!(":{line}"));
    press(state, KeyCode::Enter)
}

fn notice(state: &State) -> (&str, bool) {
    state.notices.shown.as_ref().map_or(("", false), |notice| (notice.text.as_str(), notice.is_error))
}

fn link() -> Action {
    Action::Link { source: name("devbox"), peer: name("builder") }
}

fn event(json: &str) -> Input {
    let json = format!("{{\"cursor\":\"1-1\",\"at\":\"2026-01-02T03:04:05Z\",{json}}}");
    Input::Event(Box::new(serde_json::from_str::<Event>(&json).unwrap()))
}

#[test]
fn every_command_asks_for_what_it_says() {
    let send = Action::Send { from: name("devbox"), to: name("builder"), text: "a b".into() };
    let wait = |guest, target| Action::Wait { guest: name(guest), target };
    for (line, action) in [
        ("peer builder", link()),
        ("unpeer builder", Action::Unlink { source: name("devbox"), peer: name("builder") }),
        ("send builder a b", send),
        ("wait", wait("devbox", Target::Reachable)),
        ("wait builder waiting", wait("builder", Target::Waiting)),
    ] {
        let mut state = online(Verdict::Reachable);
        assert_eq!(order(&mut state, line), [Effect::Ask(action.clone())], "{line}");
        assert_eq!(notice(&state), (format!("{} ...", action.in_words()).as_str(), false));
        assert!(!state.is_writing);
    }
    let mut state = online(Verdict::Reachable);
    assert_eq!(order(&mut state, "quit"), [Effect::End(End::Quit)]);
    assert_eq!(order(&mut state, "  "), []);
    order(&mut state, "peers");
    assert_eq!(state.view, View::Peers);
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.view, View::Both);
    assert_eq!(press(&mut state, KeyCode::Char('q')), [Effect::End(End::Quit)]);
}

/// A snapshot, what came after it, commands, and why nothing is sent.
type Detached<'a> = (Option<Snapshot>, Option<Input>, &'a [&'a str], &'a str);

#[test]
fn nothing_is_sent_unless_it_is_attached() {
    let known = |verdict| Standing::Known(Box::new(row(verdict)));
    let agent = |standing| Snapshot { role: Role::Agent, ..snapshot(standing) };
    let mut draining = snapshot(known(Verdict::Reachable));
    draining.broker.as_mut().unwrap().state = BrokerState::Draining;
    let off = Input::Offline("no broker serves".into());
    let [link, unlink, send, wait, accept] =
        ["peer builder", "unpeer builder", "send builder x", "wait", "accept builder"];
    let cases: [Detached<'_>; 7] = [
        (None, None, &[link, unlink, send, wait, accept], "nobody answered yet"),
        (Some(snapshot(known(Verdict::Reachable))), Some(off), &[link, send, wait], "no broker serves"),
        (Some(snapshot(Standing::Unknown)), None, &[link, unlink, send], "no guest is called devbox"),
        (Some(snapshot(known(Verdict::Waiting))), None, &[send], "devbox is waiting (stale)"),
        (Some(draining), None, &[link, send, wait], "the broker is stopping"),
        (
            Some(snapshot(known(Verdict::Reachable))),
            None,
            &[accept],
            "only inside the guest can be answered for it",
        ),
        (Some(agent(Standing::Silent("no link".into()))), None, &[link, send, accept], "no link"),
    ];
    for (snapshot, then, lines, why) in cases {
        let mut state = new();
        if let Some(snapshot) = snapshot {
            state.apply(Input::Snapshot(Box::new(snapshot)));
        }
        if let Some(then) = then {
            state.apply(then);
        }
        for line in lines {
            assert_eq!(order(&mut state, line), [], "{line}: {why}");
            let told = format!("not attached: {why}; nothing was sent");
            assert_eq!(notice(&state), (told.as_str(), true), "{line}");
        }
    }
    // Whether two are peers is settled without them.
    for line in [link, unlink] {
        assert_eq!(order(&mut online(Verdict::Waiting), line).len(), 1, "{line}");
    }
    let mut inside = new();
    inside.apply(Input::Snapshot(Box::new(agent(known(Verdict::Reachable)))));
    let accepted = Action::Answer { peer: name("builder"), accept: true };
    assert_eq!(order(&mut inside, accept), [Effect::Ask(accepted)]);
}

#[test]
fn one_operation_and_one_wait_at_a_time() {
    let mut state = online(Verdict::Reachable);
    order(&mut state, "peer builder");
    assert_eq!(order(&mut state, "send builder x"), []);
    let busy = "devbox is busy: linking devbox <-> builder is not answered yet; nothing was sent";
    assert_eq!(notice(&state), (busy, true));
    assert_eq!(order(&mut state, "wait").len(), 1);
    assert_eq!(order(&mut state, "wait builder"), []);
    let effects = state.apply(Input::Answer(link(), Told::Failed("no".into())));
    assert_eq!(effects, [Effect::Refresh { inbox: true }]);
    assert_eq!(notice(&state), ("no", true));
    assert_eq!(order(&mut state, "send builder x").len(), 1);
}

#[test]
fn an_info_goes_after_four_seconds_and_an_error_with_the_next_key() {
    let mut state = online(Verdict::Reachable);
    let (start, wall) = (state.now, state.wall);
    state.apply(Input::Answer(link(), Told::Done("done".into())));
    state.tick(start + Duration::from_millis(3999), wall);
    assert_eq!(notice(&state), ("done", false));
    state.is_stale = false;
    state.tick(start + Duration::from_secs(4), wall);
    assert_eq!((notice(&state), state.is_stale), (("", false), true));

    order(&mut state, "foo");
    state.tick(start + Duration::from_secs(4000), wall);
    assert_eq!(notice(&state), ("there is no command foo; :help lists all", true));
    // What comes meanwhile waits, and has its whole time.
    state.apply(Input::Answer(link(), Told::Done("done".into())));
    assert!(notice(&state).1);
    press(&mut state, KeyCode::Char('x'));
    assert_eq!(notice(&state), ("done", false));
    assert_eq!(state.notices.ends(), Some(start + Duration::from_secs(4004)));
}

#[test]
fn events_about_the_guest_are_told_and_looked_into_and_others_change_nothing() {
    let mut state = online(Verdict::Reachable);
    let told = |state: &mut State, json: &str| {
        state.notices.shown = None;
        let effects = state.apply(event(json));
        (effects, notice(state).0.to_owned())
    };
    let refresh = |inbox| vec![Effect::Refresh { inbox }];
    let id = "msg-000102030405060708090a0b0c0d0e0f";
    for (json, effects, text) in [
        (
            r#""guest":"new","kind":"peer.registered","peer":"devbox""#,
            refresh(false),
            "linked new <-> devbox",
        ),
        (
            r#""guest":"devbox","kind":"peer.registered","peer":"new""#,
            refresh(false),
            "linked devbox <-> new",
        ),
        (
            r#""guest":"devbox","kind":"peer.unregistered","peer":"new""#,
            refresh(true),
            "unlinked devbox <-> new",
        ),
        (
            &format!(r#""guest":"other","kind":"peer.message.sent","id":"{id}","to":"devbox","bytes":1"#),
            refresh(true),
            "",
        ),
        (
            &format!(r#""guest":"devbox","kind":"peer.message.delivered","id":"{id}","from":"other""#),
            refresh(true),
            "",
        ),
        (
            r#""kind":"peer.offer","from":"new","from_authenticated":true"#,
            refresh(false),
            "new wants to be a peer: :accept new or :refuse new",
        ),
        (
            r#""guest":"builder","kind":"verdict.changed","from":"reachable","to":"waiting","reason":"stale","age_ms":1"#,
            refresh(false),
            "",
        ),
        (r#""guest":"other","kind":"peer.registered","peer":"third""#, vec![], ""),
    ] {
        assert_eq!(told(&mut state, json), (effects, text.into()), "{json}");
    }
    state.is_stale = false;
    state.apply(event(r#""guest":"other","kind":"peer.registered","peer":"third""#));
    assert!(!state.is_stale);
    assert_eq!(state.apply(Input::Gap), refresh(true));
}

#[test]
fn tab_completes_now_or_when_the_names_are_there() {
    let mut state = online(Verdict::Reachable);
    assert_eq!(write(&mut state, ":"), [Effect::Ask(Action::Names)]);
    // A peer is known already.
    write(&mut state, "peer bu");
    press(&mut state, KeyCode::Tab);
    assert_eq!(state.line.text(), "peer builder ");
    state.line.clear();
    write(&mut state, "peer s");
    press(&mut state, KeyCode::Tab);
    assert_eq!(state.line.text(), "peer s");
    let names = || Told::Names(vec!["sandbox".into(), "sandpit".into()]);
    state.apply(Input::Answer(Action::Names, names()));
    assert_eq!((state.line.text(), notice(&state).0), ("peer sand", "sandbox  sandpit"));
    write(&mut state, "x");
    press(&mut state, KeyCode::Tab);
    assert_eq!(notice(&state).0, "nothing begins so");
    // Fresh names are not asked for again.
    press(&mut state, KeyCode::Esc);
    assert_eq!((state.is_writing, write(&mut state, ":")), (false, vec![]));
}

#[test]
fn keys_with_a_modifier_are_others_but_for_an_escape_that_came_with_the_colon() {
    let mut state = online(Verdict::Reachable);
    let key = |code, modifiers| Input::Key(KeyEvent::new(KeyCode::Char(code), modifiers));
    assert_eq!(state.apply(key('q', KeyModifiers::ALT)), []);
    assert_eq!(state.apply(key('q', KeyModifiers::CONTROL)), []);
    state.view = View::Help;
    state.apply(key(':', KeyModifiers::ALT));
    assert_eq!((state.view, state.is_writing), (View::Both, true));
    // In a command it takes the command away, and nothing else.
    write(&mut state, "peer");
    assert_eq!(state.apply(key('c', KeyModifiers::CONTROL)), []);
    assert_eq!((state.line.text(), state.is_writing), ("", false));
    assert_eq!(state.apply(key('c', KeyModifiers::CONTROL)), [Effect::End(End::Quit)]);
}

#[test]
fn pasting_executes_nothing() {
    let mut state = online(Verdict::Reachable);
    state.apply(Input::Paste(":peer builder\n".into()));
    assert_eq!(state.line.text(), "");
    write(&mut state, ":");
    assert_eq!(state.apply(Input::Paste("peer builder\n:quit\n".into())), []);
    assert_eq!((state.line.text(), state.is_writing), ("peer builder :quit ", true));
}

#[test]
fn messages_stay_until_others_come_and_scrolling_stays_within_them() {
    let mut state = online(Verdict::Reachable);
    let standing = || Standing::Known(Box::new(row(Verdict::Reachable)));
    let inbox = Some(Ok(vec![message(1, "one")]));
    state.apply(Input::Snapshot(Box::new(Snapshot { inbox, ..snapshot(standing()) })));
    state.apply(Input::Snapshot(Box::new(snapshot(standing()))));
    assert_eq!(state.inbox.as_ref().unwrap().len(), 1);
    state.reach = (25, 10);
    for (key, scroll) in [
        (KeyCode::PageDown, 0),
        (KeyCode::PageUp, 10),
        (KeyCode::PageUp, 20),
        (KeyCode::PageUp, 25),
        (KeyCode::PageDown, 15),
        (KeyCode::Home, 25),
        (KeyCode::End, 0),
    ] {
        press(&mut state, key);
        assert_eq!(state.scroll, scroll, "{key:?}");
    }
    state.view = View::Help;
    press(&mut state, KeyCode::PageDown);
    assert_eq!(state.scroll, 10);
    state.apply(Input::Offline("gone".into()));
    assert_eq!(state.link, Link::Offline("gone".into()));
}
