//! Every command ends by itself, on time, with the exit code that answers the question.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{PATIENCE, World, until};

/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_millis(2500);

#[test]
fn every_command_ends_by_its_default_bound_while_the_broker_is_stopped() {
    let world = World::new();
    let mut broker = world.broker(&["--guest", "devbox"]);
    let address = broker.address().to_owned();
    let pid = broker.process.pid().to_string();
    assert!(until(PATIENCE, || !world.log().is_empty()), "the log is written behind");
    broker.process.stop();
    let second = Duration::from_secs(1);
    // Command, exit code, and the default bound of each.
    let cases: [(&[&str], i32, Duration); 18] = [
        (&["status"], 3, second),
        (&["status", "devbox", "--json"], 3, second),
        (&["wait", "devbox"], 4, 30 * second),
        (&["wait", "devbox", "--timeout", "700ms"], 4, second),
        (&["ping", "devbox"], 3, 2 * second),
        (&["events"], 3, 5 * second),
        (&["events", "--follow"], 3, 5 * second),
        (&["info"], 3, 2 * second),
        (&["logs"], 0, second),
        (&["reload"], 3, 6 * second),
        (&["forget", "devbox"], 3, 6 * second),
        (&["token", "list"], 3, 2 * second),
        (&["token", "issue", "devbox"], 3, 6 * second),
        (&["token", "revoke", "devbox"], 3, 6 * second),
        (&["up"], 3, second),
        (&["down"], 3, 10 * second),
        (&["broker", "--listen", "tcp:127.0.0.1:0"], 73, second),
        (&["agent", "--name", "devbox", "--connect", &address, "--once"], 4, 30 * second),
    ];
    thread::scope(|scope| {
        for (args, code, bound) in cases {
            let (world, pid) = (&world, &pid);
            scope.spawn(move || {
                let ran = world.spawn(args).finish(bound + Duration::from_secs(15));
                assert_eq!(ran.code, code, "castra {args:?}: {ran:?}");
                assert!(ran.took <= bound + SLACK, "castra {args:?} took {:?} of {bound:?}", ran.took);
                if matches!(args[0], "broker" | "down") {
                    assert!(ran.err.contains(&format!("pid {pid}")), "{ran:?}");
                }
                if args[0] == "broker" {
                    assert!(ran.err.contains(world.state().to_str().unwrap()), "{ran:?}");
                }
            });
        }
    });
    // What was given up is not done when it goes on: `forget` and `down` were.
    broker.process.go_on();
    assert_eq!(world.castra(&["status", "devbox"]).code, 1);
    assert_eq!(world.castra(&["down"]).code, 0);
    assert_eq!(broker.process.exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_broker_that_does_not_answer_is_ended_by_force_only() {
    let world = World::new();
    let mut broker = world.broker(&[]);
    let pid = format!("pid {}", broker.process.pid());
    broker.process.stop();
    thread::scope(|scope| {
        // Its parent has to reap it before it is gone.
        let reaper = scope.spawn(move || broker.process.exit(PATIENCE));
        let ran = world.castra(&["down", "--force"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains(&pid) && ran.took < Duration::from_secs(10), "{ran:?}");
        assert_eq!(reaper.join().unwrap().code(), None, "a stopped process can't take leave");
    });
    assert_eq!(world.castra(&["status"]).code, 3);
    assert_eq!(world.castra(&["down"]).code, 0, "nothing to stop");
}

#[test]
fn exit_codes_answer_the_question() {
    let world = World::new();
    let broker = world.broker(&["--window", "900ms", "--interval", "300ms", "--guest", "waiting"]);
    let _other = world.agent("other", broker.address(), &[]);
    let stopped = world.agent("stopped", broker.address(), &[]);
    world.wait(&["stopped", "other"], "reachable");
    stopped.stop();
    let socket = world.state().join("control.sock");
    let socket = socket.to_str().unwrap();
    let elsewhere = world.path("nowhere");
    let cases: [(&[&str], i32, &str); 21] = [
        (&["ping", "other", "-c", "1"], 0, ""),
        (&["ping", "stopped", "-c", "1", "--timeout", "400ms"], 4, "no answer"),
        (&["ping", "waiting", "-c", "1"], 1, ""),
        (&["ping", "ghost", "-c", "1"], 6, "ghost"),
        (&["status", "ghost"], 6, "ghost"),
        (&["status", "other"], 0, ""),
        (&["status", "other", "waiting"], 1, ""),
        (&["status", "--socket", socket], 0, ""),
        (&["wait", "other"], 0, ""),
        (&["wait", "other", "ghost", "--any"], 0, ""),
        (&["wait", "waiting", "--for", "waiting"], 0, ""),
        (&["wait", "other", "ghost", "--timeout", "600ms"], 4, "ghost was never seen"),
        (&["wait", "other", "--for", "waiting", "--timeout", "600ms"], 4, "other is reachable"),
        (&["forget", "ghost"], 6, "ghost"),
        (&["status", "--state-dir", elsewhere.to_str().unwrap()], 3, "castra up"),
        (&["logs", "--state-dir", elsewhere.to_str().unwrap()], 3, "state-dir"),
        (&["status", "--no-such-option"], 2, "no-such-option"),
        (&["status", "no/name"], 2, "no/name"),
        (&["wait"], 2, "NAME"),
        (&["agent", "--name", "x", "--connect", "carrier-pigeon:7"], 2, "carrier-pigeon"),
        (&["broker", "--listen", "tcp:127.0.0.1:0", "--window", "14s"], 2, "three intervals"),
    ];
    thread::scope(|scope| {
        for (args, code, said) in cases {
            let world = &world;
            scope.spawn(move || {
                let ran = world.castra(args);
                assert_eq!(ran.code, code, "castra {args:?}: {ran:?}");
                assert!(ran.err.contains(said), "castra {args:?} must say {said:?}: {ran:?}");
                assert!(ran.took < Duration::from_millis(600) + SLACK, "castra {args:?}: {ran:?}");
            });
        }
    });
    // On time, not only in time.
    let ran = world.castra(&["wait", "ghost", "--timeout", "1s"]);
    assert_eq!(ran.code, 4);
    assert!((1000..1000 + SLACK.as_millis()).contains(&ran.took.as_millis()), "{ran:?}");
}

#[test]
fn json_output_is_one_document_and_help_explains_every_state_and_reason() {
    let world = World::new();
    let broker = world.broker(&["--guest", "devbox"]);
    for args in [&["status", "--json"][..], &["info", "--json"], &["token", "list", "--json"]] {
        let ran = world.castra(args);
        assert_eq!((ran.code, ran.out.lines().count()), (0, 1), "{args:?}: {ran:?}");
        ran.json();
    }
    let info = world.json(&["info", "--json"]);
    assert_eq!((&info["role"], &info["pid"]), (&"broker".into(), &broker.process.pid().into()));
    assert_eq!(info["listen"][0], broker.listen[0].as_str());
    let events = world.castra(&["events", "--json"]);
    for line in events.out.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(
            event["cursor"].is_string() && event["at"].is_string() && event["kind"].is_string(),
            "{line}"
        );
    }
    let last = events.cursor();
    assert_eq!(world.castra(&["events", "--json", "--since", &last]).out, "", "nothing came after the last");

    // A follower hears what happens from then on, and ends when the broker does.
    let follower = ["events", "--follow", "--json", "--kind", "handshake.*", "--since", &last];
    let follower = world.spawn(&follower);
    let agent = world.agent("devbox", broker.address(), &["--once"]);
    assert_eq!(agent.finish(PATIENCE).code, 0);
    world.wait(&["devbox"], "reachable");
    assert!(follower.out.after(0, "handshake.success", PATIENCE).contains("\"once\":true"));

    let help = world.castra(&["status", "--help"]).out;
    let schema_words = [
        "offline",
        "waiting",
        "reachable",
        "never_seen",
        "handshaking",
        "stale",
        "disconnected",
        "goodbye",
        "refused",
        "unproven",
        "broker_started",
        "broker_stalled",
        "clock_jumped",
        "name_conflict",
        "no_broker",
        "broker_not_answering",
    ];
    let row = world.row("devbox");
    let fields = row.as_object().unwrap().keys().map(String::as_str);
    for word in schema_words.into_iter().chain(fields) {
        assert!(help.contains(word), "status --help does not explain {word}");
    }
    assert_eq!(world.castra(&["down"]).code, 0);
    assert_eq!(follower.finish(PATIENCE).code, 3, "the stream ended because the broker did");
    assert!(fs::read_dir(world.path("tmp")).unwrap().next().is_none());
}
