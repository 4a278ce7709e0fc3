//! Peers and their messages: every outcome, with a real broker and guests that speak by bytes.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

use crate::support::{Broker, Link, PATIENCE, Process, Ran, World, until};

/// Guests stay reachable for longer than any test takes.
const CALM: [&str; 4] = ["--window", "120s", "--interval", "40s"];

/// A guest that takes part, as bytes.
struct Guest(Link);

impl Guest {
    fn join(broker: &Broker, name: &str, policy: &str) -> Self {
        let mut link = Link::greeted(broker.port());
        link.prove(name, ",peers-v1");
        let mut guest = Self(link);
        guest.say(&json!({"type": "peer_policy", "policy": policy}));
        guest
    }

    fn say(&mut self, frame: &Value) {
        self.0.send_frame(&frame.to_string());
    }

    /// The next frame of this kind.
    fn next(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.0.answer().unwrap_or_else(|| panic!("the link ended before {kind}"));
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Asks, and returns the outcome.
    fn ask(&mut self, mut request: Value) -> Value {
        request["id"] = json!(7);
        self.say(&request);
        let result = self.next("peer_result");
        assert_eq!(result["id"], 7);
        result
    }

    /// Everything that was sent to it before this question is in the list.
    fn messages_so_far(&mut self) -> Vec<Value> {
        self.say(&json!({"type": "peer_list", "id": 8}));
        let mut messages = vec![];
        loop {
            let frame = self.0.answer().unwrap();
            match frame["type"].as_str() {
                Some("peer_message") => messages.push(frame),
                Some("peer_result") => return messages,
                _ => {}
            }
        }
    }

    fn take(&mut self) -> Value {
        let message = self.next("peer_message");
        self.say(&json!({"type": "peer_ack", "id": message["id"]}));
        message
    }
}

fn calm(world: &World, args: &[&str]) -> Broker {
    world.broker(&[&CALM[..], args].concat())
}

fn link(world: &World, one: &str, other: &str) {
    let ran = world.castra(&["peer", "link", one, other]);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", world.log());
}

/// How it ended, which must be this.
fn ended(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word) || ran.out.contains(word), "{word:?} is missing: {ran:?}");
    }
}

fn peers_of(world: &World, name: &str) -> Value {
    let row = world.row(name);
    row["peers"].clone()
}

#[test]
fn a_link_is_on_both_sides_or_on_neither_and_survives_a_killed_broker() {
    let world = World::new();
    let known = ["--guest", "devbox", "--guest", "builder"];
    let broker = calm(&world, &known);
    let linked = world.json(&["peer", "link", "devbox", "builder", "--json"]);
    let expected = json!({"result": {"peer": "builder", "source": "devbox"}, "outcome": "registered"});
    assert_eq!(linked, expected);
    assert_eq!(world.json(&["peer", "link", "devbox", "builder", "--json"]), expected, "again");
    broker.process.kill();
    let broker = calm(&world, &[]);
    assert_eq!(
        (peers_of(&world, "devbox"), peers_of(&world, "builder")),
        (json!(["builder"]), json!(["devbox"]))
    );
    let listed = world.json(&["peers", "builder", "--json"]);
    let row = |row: &Value| (row["name"].clone(), row["visibility"].clone(), row["state"].clone());
    let rows: Vec<_> = listed["peers"].as_array().unwrap().iter().map(row).collect();
    let known = |name: &str, why: &str| (json!(name), json!(why), json!("known"));
    assert_eq!(rows, [known("builder", "self"), known("devbox", "peer")]);

    // Both hear of it, if they are there.
    let mut devbox = Guest::join(&broker, "devbox", "default");
    let mut builder = Guest::join(&broker, "builder", "default");
    ended(
        &world.castra(&["peer", "unlink", "builder", "devbox"]),
        0,
        &["builder and devbox are no peers any more"],
    );
    assert_eq!(devbox.next("peer_removed")["name"], "builder");
    assert_eq!(builder.next("peer_removed")["name"], "devbox");
    assert_eq!((peers_of(&world, "devbox"), peers_of(&world, "builder")), (json!([]), json!([])));
    link(&world, "builder", "devbox");
    assert_eq!(devbox.next("peer_added")["name"], "builder");
    assert_eq!(builder.next("peer_added")["name"], "devbox");
    // A forgotten guest is missing to its peer, until that unlinks.
    drop(devbox);
    assert_eq!(world.castra(&["forget", "devbox"]).code, 0);
    assert_eq!(world.json(&["peers", "builder", "--json"])["peers"][1]["state"], "missing");
    assert_eq!(world.castra(&["peer", "unlink", "builder", "devbox"]).code, 0);
    assert_eq!(world.json(&["peers", "builder", "--json"])["peers"].as_array().unwrap().len(), 1);
}

#[test]
fn names_that_do_not_fit_are_told_with_what_to_do() {
    let world = World::new();
    let names = ["--guest", "dev", "--guest", "devbox", "--guest", "desk", "--guest", "builder"];
    let _broker = calm(&world, &names);
    let link = |one: &str, other: &str| world.castra(&["peer", "link", one, other]);
    ended(&link("builder", "builder"), 2, &["(self)", "another guest"]);
    ended(&link("builder", "nobody"), 6, &["(unknown)", "castra status"]);
    ended(&link("nobody", "builder"), 6, &["(unknown)"]);
    ended(&link("builder", "de"), 2, &["(ambiguous)", "desk", "dev", "devbox"]);
    ended(&link("builder", "des"), 0, &["builder and desk are peers"]);
    ended(&link("builder", "dev"), 0, &["builder and dev are peers"]);
    ended(
        &world.castra(&["peer", "send", "builder", "devbox", "x"]),
        5,
        &["castra peer link builder devbox"],
    );
    ended(&world.castra(&["peer", "send", "builder", "nobody", "x"]), 6, &["(unknown)"]);
    ended(&world.castra(&["inbox", "nobody"]), 6, &["(unknown)"]);
    ended(&world.castra(&["peers", "nobody"]), 6, &["(unknown)"]);
    ended(&world.castra(&["peers"]), 2, &["say whose"]);
    ended(&world.castra(&["peer", "accept", "devbox"]), 5, &["inside the guest"]);
}

#[test]
fn a_guest_that_would_not_is_not_linked_whoever_asks() {
    let world = World::new();
    let broker = calm(&world, &["--guest", "off"]);
    let mut target = Guest::join(&broker, "target", "deny");
    let mut source = Guest::join(&broker, "source", "default");
    let link = |one: &str, other: &str| world.castra(&["peer", "link", one, other]);
    ended(&link("source", "target"), 5, &["(rejected)", "policy", "castra events"]);
    ended(&link("target", "source"), 5, &["(rejected)"]);
    // A question, and each answer to it.
    target.say(&json!({"type": "peer_policy", "policy": "ask"}));
    for (accept, code) in [(false, 5), (true, 0)] {
        let asking = world.spawn(&["peer", "link", "source", "target"]);
        let offer = target.next("peer_offer");
        assert_eq!((&offer["from"], &offer["from_authenticated"]), (&json!("source"), &json!(true)));
        target
            .say(&json!({"type": "peer_answer", "id": offer["id"], "accept": accept, "reason": "not today"}));
        let ran = asking.finish(PATIENCE);
        ended(&ran, code, if accept { &["are peers"] } else { &["not today"] });
    }
    assert_eq!(world.castra(&["peer", "unlink", "source", "target"]).code, 0);
    // No answer, and meanwhile the source is busy.
    let asking = world.spawn(&["peer", "link", "source", "target"]);
    target.next("peer_offer");
    ended(&link("source", "off"), 1, &["(busy)", "in progress"]);
    let ran = asking.finish(PATIENCE);
    ended(&ran, 5, &["(rejected)", "timeout"]);
    assert!(ran.took >= Duration::from_secs(2), "{ran:?}");
    // One that is off can't be asked, and is still refused what it refused while it was here.
    drop(target);
    world.wait(&["target"], "waiting");
    ended(&link("source", "target"), 5, &["ask_offline"]);
    // A guest's own wish: whoever is there is asked, and a stranger looks like one who would not.
    let wish = |name: &str| json!({"type": "peer_register", "name": name});
    let (unknown, off) = (source.ask(wish("nobody")), source.ask(wish("off")));
    assert_eq!((&unknown["outcome"], &off["outcome"]), (&json!("rejected"), &json!("rejected")));
    assert_eq!((&unknown["reason"], &off["reason"]), (&Value::Null, &Value::Null));
    source.say(&json!({"type": "peer_policy", "policy": "default", "hold": true}));
    ended(&link("source", "off"), 1, &["(busy)", "hold"]);
    let refused = world.events("peer.refused", "source");
    assert!(refused.iter().any(|event| event["reason"] == "ask_offline"), "{refused:?}");
}

#[test]
fn a_message_for_a_guest_that_is_off_waits_and_arrives_exactly_once() {
    let world = World::new();
    let broker = calm(&world, &["--guest", "devbox", "--guest", "builder"]);
    link(&world, "devbox", "builder");
    let send = |args: &[&str]| world.castra(&[&["peer", "send", "devbox", "builder"], args].concat());
    let first = send(&["first", "--key", "once", "--no-wake"]);
    ended(&first, 0, &["queued", "it waits"]);
    let id = first.out.split(' ').next().unwrap().to_owned();
    broker.process.kill();
    let broker = calm(&world, &[]);
    let again = send(&["first", "--key", "once"]);
    assert_eq!((again.code, &again.out), (0, &first.out), "the same message");
    ended(&send(&["second \u{1b}[2J"]), 0, &["queued"]);
    assert_eq!(world.json(&["peers", "devbox", "--json"])["peers"][1]["queued"], 2);
    ended(&send(&["now", "--no-queue"]), 1, &["(not_reachable)", "castra"]);
    let waiting = world.castra(&["inbox", "builder"]);
    ended(&waiting, 0, &["waits", "\"second \\u{1b}[2J\""]);

    let mut follower = world.spawn(&["inbox", "builder", "--follow", "--json"]);
    follower.out.first(PATIENCE);
    let mark = follower.out.mark();
    let mut builder = Guest::join(&broker, "builder", "default");
    let messages = [builder.take(), builder.take()];
    assert_eq!(messages[0]["id"], id.as_str());
    assert_eq!((&messages[0]["text"], &messages[1]["text"]), (&json!("first"), &json!("second \u{1b}[2J")));
    assert_eq!((&messages[0]["wake"], &messages[1]["wake"]), (&json!(false), &json!(true)));
    assert!(
        messages.iter().all(|message| message["from"] == "devbox" && message["from_authenticated"] == true)
    );
    follower.out.after(mark, "second", PATIENCE);
    let followed: Value = serde_json::from_str(&follower.out.after(mark, "first", PATIENCE)).unwrap();
    assert_eq!(followed["messages"][0]["id"], id.as_str());
    assert!(!followed["messages"][0]["delivered_at"].is_null());
    assert!(follower.is_running());
    drop(follower);
    drop(builder);
    let broker = {
        broker.process.kill();
        calm(&world, &[])
    };
    let mut builder = Guest::join(&broker, "builder", "default");
    // Its policy was stated, so mail would be here before the answer.
    assert_eq!(builder.messages_so_far(), Vec::<Value>::new());
    let inbox = world.json(&["inbox", "builder", "--json"]);
    let delivered = |message: &Value| !message["delivered_at"].is_null();
    assert!(inbox["messages"].as_array().unwrap().iter().all(delivered), "{inbox}");
    let after = world.json(&["inbox", "builder", "--json", "--after", &id]);
    assert_eq!(after["messages"].as_array().unwrap().len(), 1);
    assert_eq!(world.events("peer.message.delivered", "builder").len(), 0, "not again by this broker");
}

#[test]
fn what_becomes_of_a_message_to_a_guest_that_is_there() {
    let world = World::new();
    let broker = calm(&world, &["--guest", "devbox", "--queue-messages", "2", "--queue-bytes", "40KiB"]);
    let mut builder = Guest::join(&broker, "builder", "default");
    link(&world, "devbox", "builder");
    let send = |args: &[&str]| world.spawn(&[&["peer", "send", "devbox", "builder"], args].concat());
    let sending = send(&["hello", "--json"]);
    let message = builder.take();
    let ran = sending.finish(PATIENCE);
    assert_eq!((ran.code, ran.json()), (0, json!({"id": message["id"], "outcome": "delivered"})));
    // It would not have it.
    let sending = send(&["hello"]);
    let id = builder.next("peer_message")["id"].clone();
    builder.say(&json!({"type": "peer_ack", "id": id, "rejected": true}));
    ended(&sending.finish(PATIENCE), 5, &["rejected", "castra token issue"]);
    // It says nothing.
    let ran = send(&["now", "--no-queue", "--timeout", "300ms"]).finish(PATIENCE);
    ended(&ran, 1, &["expired", "not_queued"]);
    // Too much.
    let ran = send(&[&"\u{1}".repeat(20_000)]).finish(PATIENCE);
    ended(&ran, 2, &["(too_large)", "32768"]);
    for _ in 0..2 {
        ended(&send(&["waits", "--timeout", "100ms"]).finish(PATIENCE), 0, &["queued"]);
    }
    ended(&send(&["one more"]).finish(PATIENCE), 1, &["(full)", "--queue-messages"]);
    // What waits between two that are peers no more is for nobody.
    assert_eq!(world.castra(&["peer", "unlink", "devbox", "builder"]).code, 0);
    let expired = || world.events("peer.message.expired", "devbox");
    assert!(until(PATIENCE, || expired().iter().filter(|event| event["reason"] == "unlinked").count() == 2));
    assert_eq!(world.json(&["inbox", "builder", "--json"])["messages"].as_array().unwrap().len(), 1);
    ended(&send(&["still there?"]).finish(PATIENCE), 5, &["(not_peer)"]);
}

#[test]
fn what_could_not_be_made_durable_did_not_happen() {
    let world = World::new();
    // A write over the limit fails for a process that ignores the signal for it.
    let mut command = std::process::Command::new("/bin/sh");
    let plain =
        world.command(&["broker", "--json", "--listen", "tcp:127.0.0.1:0", "--guest", "a", "--guest", "b"]);
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let broker = Process::spawn(command);
    broker.out.first(PATIENCE);
    let limit = |bytes: Option<u64>| {
        let pid = rustix::process::Pid::from_raw(broker.pid() as i32);
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    };
    limit(Some(0));
    ended(&world.castra(&["peer", "link", "a", "b"]), 70, &["(storage_failed)", "disk"]);
    assert_eq!((peers_of(&world, "a"), peers_of(&world, "b")), (json!([]), json!([])));
    limit(None);
    link(&world, "a", "b");
    limit(Some(0));
    ended(&world.castra(&["peer", "send", "a", "b", "x"]), 70, &["(storage_failed)"]);
    ended(&world.castra(&["peer", "unlink", "a", "b"]), 70, &["(storage_failed)"]);
    assert_eq!(peers_of(&world, "b"), json!(["a"]));
    assert_eq!(world.json(&["inbox", "b", "--json"])["messages"], json!([]));
    limit(None);
    ended(&world.castra(&["peer", "send", "a", "b", "x"]), 0, &["queued"]);
    broker.signal(Signal::TERM);
    broker.finish(PATIENCE);
    let _broker = calm(&world, &[]);
    assert_eq!(world.json(&["inbox", "b", "--json"])["messages"].as_array().unwrap().len(), 1);
}

#[test]
fn inside_their_guests_two_agents_link_talk_and_restore_nobody_else() {
    let world = World::new();
    let broker = calm(&world, &["--guest", "third"]);
    let token = world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
    let token = world.secret("token", &token);
    let agent = |name: &str, more: &[&str]| {
        let inbox = world.path(&format!("inbox-{name}"));
        world.agent(name, broker.address(), &[&["--inbox", inbox.to_str().unwrap()], more].concat())
    };
    let _devbox = agent("devbox", &["--token-file", &token]);
    let builder = agent("builder", &["--peers", "ask"]);
    world.wait(&["devbox", "builder"], "reachable");
    let inside = |name: &str, args: &[&str]| {
        let mut command = world.command(args);
        command.env_remove("CASTRA_STATE_DIR");
        command.env("CASTRA_AGENT_SOCKET", world.path(&format!("{name}.sock")));
        Process::spawn(command)
    };
    let run = |name: &str, args: &[&str]| inside(name, args).finish(PATIENCE);

    ended(&run("devbox", &["peer", "send", "builder", "x"]), 5, &["(not_peer)", "castra peer link"]);
    // Nobody answers; then somebody does.
    ended(&run("devbox", &["peer", "link", "builder"]), 5, &["(rejected)"]);
    let now = run("builder", &["events", "--json"]).cursor();
    let offers = inside("builder", &["events", "--follow", "--since", &now, "--kind", "peer.offer"]);
    let follows = || world.path("builder.sock").exists() && offers.out.mark() > 0;
    let linking = inside("devbox", &["peer", "link", "builder", "--json"]);
    let accepted = until(Duration::from_secs(2), || run("builder", &["peer", "accept", "devbox"]).code == 0);
    assert!(accepted, "{}", world.log());
    let linked = linking.finish(PATIENCE);
    assert_eq!((linked.code, &linked.json()["outcome"]), (0, &json!("registered")), "{linked:?}");
    assert!(until(PATIENCE, follows), "the offer is an event");

    let hello = "two\nlines \u{1b}[2J";
    ended(&run("devbox", &["peer", "send", "builder", hello]), 0, &["delivered"]);
    ended(&run("builder", &["inbox"]), 0, &["devbox", "\"two\\u{a}lines \\u{1b}[2J\""]);
    let back = run("builder", &["peer", "send", "devbox", "back", "--json"]);
    assert_eq!((back.code, &back.json()["outcome"]), (0, &json!("delivered")));
    // A name that was proven with a key is told from one that was not.
    let proven =
        |name: &str| run(name, &["inbox", "--json"]).json()["messages"][0]["from_authenticated"].clone();
    assert_eq!((proven("builder"), proven("devbox")), (json!(true), json!(false)));
    // On behalf of another, about a stranger: no.
    ended(&run("devbox", &["peer", "send", "builder", "devbox", "forged"]), 5, &["(forbidden)"]);
    ended(&run("devbox", &["inbox", "builder"]), 5, &["(forbidden)"]);
    ended(&run("devbox", &["peers", "third"]), 5, &["(forbidden)"]);
    ended(&run("devbox", &["restore", "third"]), 6, &["(unknown_guest)"]);
    ended(&run("devbox", &["restore", "builder"]), 0, &["reachable already"]);
    let listed = run("devbox", &["peers", "--json"]).json();
    let names: Vec<_> = listed["peers"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["devbox", "builder"]);
    // Its peer goes, and comes back to what was said meanwhile.
    builder.kill();
    world.wait(&["builder"], "waiting");
    ended(&run("devbox", &["peer", "send", "builder", "later"]), 0, &["queued", "`castra peers` shows it"]);
    let _builder = agent("builder", &["--peers", "ask"]);
    world.wait(&["builder"], "reachable");
    let texts = || {
        let inbox = run("builder", &["inbox", "--json"]).json();
        inbox["messages"].as_array().unwrap().iter().map(|m| m["text"].clone()).collect::<Vec<_>>()
    };
    assert!(until(PATIENCE, || texts().len() == 2), "{:?}", texts());
    assert_eq!(texts(), [hello, "later"]);
    ended(&run("builder", &["peer", "unlink", "devbox"]), 0, &["are no peers"]);
    assert_eq!((peers_of(&world, "devbox"), peers_of(&world, "builder")), (json!([]), json!([])));
    assert_eq!(texts().len(), 2, "what was said was said");
}
