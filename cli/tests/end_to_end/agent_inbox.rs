//! An agent keeps what other guests say, whatever becomes of it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Control, Link, PATIENCE, RawBroker, World, until};

fn id(number: u32) -> String {
    format!("msg-{number:032x}")
}

fn send(link: &mut Link, number: u32) {
    let message = json!({"type": "peer_message", "id": id(number), "from": "builder", "from_authenticated": true,
                         "text": format!("text {number}"), "sent_at": "2026-11-20T10:00:00.000Z", "wake": true});
    link.send_frame(&message.to_string());
}

fn acknowledged(link: &mut Link, number: u32) {
    assert_eq!(link.answer(), Some(json!({"type": "peer_ack", "id": id(number)})));
}

fn control(world: &World) -> Control {
    let socket = world.path("devbox.sock");
    assert!(until(PATIENCE, || socket.exists()));
    Control::connect(&socket)
}

fn texts(control: &mut Control) -> Vec<String> {
    let data = control.ask("inbox", &json!({})).unwrap().unwrap();
    let messages = data["messages"].as_array().unwrap();
    messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_message_is_in_the_inbox_once_however_often_the_agent_is_killed() {
    let world = World::new();
    let mut broker = RawBroker::new();
    let address = broker.address();
    let inbox = world.path("inbox");
    let start = || world.agent("devbox", &address, &["--inbox", inbox.to_str().unwrap()]);
    let mut agent = start();
    let (hello, mut link) = broker.session();
    assert!(hello.contains("capabilities=attach-v1,peers-v1,proof-v1 "), "{hello}");
    for number in 0..8 {
        send(&mut link, number);
        // Killed after it said so, or at whatever it does just then.
        if number % 2 == 0 {
            acknowledged(&mut link, number);
            assert_eq!(texts(&mut control(&world)).len(), number as usize + 1);
        }
        agent.kill();
        agent = start();
        link = broker.session().1;
        send(&mut link, number);
        acknowledged(&mut link, number);
    }
    let expected: Vec<String> = (0..8).map(|number| format!("text {number}")).collect();
    assert_eq!(texts(&mut control(&world)), expected);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&inbox), mode(&inbox.join("inbox.redb"))), (0o700, 0o600));
    agent.kill();
}

#[test]
fn local_clients_answer_hold_and_send_through_the_agent() {
    let world = World::new();
    let mut broker = RawBroker::new();
    let agent = world.agent("devbox", &broker.address(), &["--peers", "ask", "--require-authenticated"]);
    let (_, mut link) = broker.session();
    let policy = |hold: bool| {
        let mut frame = json!({"type": "peer_policy", "policy": "ask"});
        if hold {
            frame["hold"] = json!(true);
        }
        Some(frame)
    };
    assert_eq!(link.answer(), policy(false));
    let socket = world.path("devbox.sock");
    let socket = socket.to_str().unwrap();
    for (order, hold) in [("hold", true), ("resume", false)] {
        let ran = world.castra(&["agent", order, "--socket", socket, "--json"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "{}\n"), "{ran:?}");
        assert_eq!(link.answer(), policy(hold));
    }
    let offer = json!({"type": "peer_offer", "id": 5, "from": "builder", "from_authenticated": true});
    let mut control = control(&world);
    let kinds = json!({"kinds": ["peer.offer"]});
    link.send_frame(&offer.to_string());
    let offered = until(Duration::from_secs(1), || {
        let events = control.ask("events", &kinds).unwrap().unwrap();
        events["events"].as_array().is_some_and(|events| !events.is_empty())
    });
    assert!(offered);
    control.ask("peer_answer", &json!({"name": "builder", "accept": true})).unwrap().unwrap();
    assert_eq!(link.answer(), Some(json!({"type": "peer_answer", "id": 5, "accept": true})));
    let unproven = json!({"type": "peer_message", "id": id(1), "from": "builder", "from_authenticated": false,
                          "text": "psst", "sent_at": "2026-11-20T10:00:00.000Z", "wake": true});
    link.send_frame(&unproven.to_string());
    assert_eq!(link.answer(), Some(json!({"type": "peer_ack", "id": id(1), "rejected": true})));
    assert_eq!(texts(&mut control), [""; 0]);
    agent.kill();
    assert_eq!(world.castra(&["agent", "hold", "--socket", socket]).code, 3);
}

#[test]
fn an_agent_without_a_place_for_its_inbox_takes_no_part_unless_the_place_was_asked_for() {
    let world = World::new();
    let mut broker = RawBroker::new();
    let address = broker.address();
    let mut command = world.command(&["agent", "--name", "devbox", "--connect", &address]);
    command.env("XDG_STATE_HOME", "/proc/read-only").arg("--socket").arg(world.path("devbox.sock"));
    let agent = crate::support::Process::spawn(command);
    let (hello, _link) = broker.session();
    assert!(!hello.contains("peers-v1"), "{hello}");
    let warning = agent.err.after(0, "WARN", PATIENCE);
    assert!(
        warning.contains("--inbox DIR") && warning.contains("/proc/read-only/castra/devbox"),
        "{warning}"
    );
    let refused = control(&world).ask("inbox", &json!({})).unwrap().unwrap_err();
    assert_eq!(refused["code"], Value::from("forbidden"));
    agent.kill();
    let ran =
        world.castra(&["agent", "--name", "devbox", "--connect", &address, "--inbox", "/proc/read-only"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("/proc/read-only"), "{ran:?}");
}

#[test]
fn two_agents_do_not_share_an_inbox() {
    let world = World::new();
    let mut broker = RawBroker::new();
    let address = broker.address();
    let inbox = world.path("inbox");
    let inbox = inbox.to_str().unwrap();
    let first = world.agent("devbox", &address, &["--inbox", inbox]);
    let _link = broker.session();
    let ran = world.castra(&["agent", "--name", "other", "--connect", &address, "--inbox", inbox]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("another agent uses it"), "{ran:?}");
    first.kill();
}
