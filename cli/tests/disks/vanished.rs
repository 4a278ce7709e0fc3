//! State directories that can't be written, or are taken away from under a broker.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;
use serde_json::json;

use crate::full::{QUICK, ended};
use crate::room::Room;
use crate::support::{PATIENCE, World, until};

#[test]
fn a_state_directory_that_is_read_only_at_the_start_is_said_and_nothing_serves() {
    let world = World::new();
    let Some(mut room) = Room::new(4 * 1024) else { return };
    room.holds_state_of(&world);
    // An old broker's files are there, and can't be changed either.
    drop(world.broker(&QUICK));
    room.read_only();
    ended(&world.castra(&["broker", "--listen", "tcp:127.0.0.1:0"]), 70, &["Read-only file system"]);
    ended(&world.castra(&["up", "--listen", "tcp:127.0.0.1:0"]), 70, &["Read-only file system"]);
    assert_eq!(world.castra(&["status"]).code, 3);
    assert_eq!(world.castra(&["down"]).code, 0);
    room.writable();
    let broker = world.broker(&QUICK);
    assert_eq!(world.castra(&["status"]).code, 0);
    drop(broker);
}

#[test]
fn a_state_directory_that_becomes_read_only_costs_records_and_no_verdict() {
    let world = World::new();
    let Some(mut room) = Room::new(4 * 1024) else { return };
    room.holds_state_of(&world);
    let broker = world.broker(&[&QUICK[..], &["--guest", "devbox", "--guest", "builder"]].concat());
    let guest = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    room.read_only();
    let failed = || world.events("storage.failed", "").iter().any(|event| event["what"] == "records");
    assert!(until(PATIENCE, failed), "{}", world.log());
    guest.stop();
    world.wait(&["devbox"], "waiting");
    guest.go_on();
    world.wait(&["devbox"], "reachable");
    // What was open is written to still.
    assert_eq!(world.castra(&["peer", "link", "devbox", "builder"]).code, 0);
    room.writable();
    let recovered = || world.events("storage.recovered", "").iter().any(|event| event["what"] == "records");
    assert!(until(PATIENCE, recovered), "{}", world.log());
    assert_eq!(world.castra(&["down"]).code, 0);
    assert!(!world.state().join("control.sock").exists() && !world.state().join("broker.pid").exists());
}

#[test]
fn a_broker_whose_state_directory_is_deleted_promises_nothing_durable_and_leaves_its_successor_alone() {
    let world = World::new();
    let listen = ["--guest", "devbox", "--guest", "builder", "--background"];
    let mut first = world.broker(&[&QUICK[..], &listen].concat());
    let guest = world.agent("devbox", first.address(), &[]);
    world.wait(&["devbox"], "reachable");
    // Somebody is connected already: nobody else ever will be.
    let mut control = world.control();
    fs::remove_dir_all(world.state()).unwrap();

    let storage_failed = |answer: Option<Result<serde_json::Value, serde_json::Value>>| {
        let error = answer.unwrap().unwrap_err();
        assert_eq!(error["code"], "storage_failed", "{error}");
    };
    storage_failed(control.ask("token_issue", &json!({"guest": "keyed"})));
    storage_failed(control.ask("register_peer", &json!({"source": "devbox", "name": "builder"})));
    assert_eq!(control.row("devbox")["reachable"], true);
    let why = control.events("storage.failed", "");
    assert!(why.iter().any(|event| event["message"].to_string().contains("was removed")), "{why:?}");
    // It can't be asked any more, and nobody says that it could.
    assert_eq!(world.castra(&["status"]).code, 3);
    assert_eq!(world.castra(&["status", "devbox"]).code, 3);
    assert_eq!(world.castra(&["down"]).code, 0);
    assert!(first.process.is_running());

    let up = world.json(&["up", "--json", "--listen", "tcp:127.0.0.1:0", "--guest", "devbox"]);
    assert_eq!(up["started"], true, "{up}");
    assert_ne!(up["pid"], first.process.pid());
    assert_eq!(world.verdict("devbox"), "waiting/never_seen", "it is the first one's guest");
    storage_failed(control.ask("token_issue", &json!({"guest": "keyed"})));
    assert_eq!(world.json(&["token", "list", "--json"])["tokens"], json!([]));
    // The first one takes leave, and what the second one made stays.
    first.process.signal(Signal::TERM);
    assert!(first.process.exit(PATIENCE).success());
    assert_eq!(world.json(&["info", "--json"])["pid"], up["pid"]);
    assert_eq!(fs::read_to_string(world.state().join("broker.pid")).unwrap().trim(), up["pid"].to_string());
    assert_eq!(world.castra(&["token", "issue", "keyed"]).code, 0);
    assert_eq!(world.castra(&["down"]).code, 0);
    assert!(!world.state().join("control.sock").exists());
    drop(guest);
}

#[test]
fn a_database_that_is_removed_or_replaced_underfoot_fails_what_is_durable_until_it_is_back() {
    let world = World::new();
    let broker = world.broker(&[&QUICK[..], &["--guest", "a", "--guest", "b"]].concat());
    let (place, aside) = (world.state().join("state.redb"), world.path("aside.redb"));
    let refused = |why: &str| {
        for args in [&["token", "issue", "a"][..], &["peer", "link", "a", "b"]] {
            ended(&world.castra(args), 70, &["storage_failed"]);
        }
        let last = world.events("storage.failed", "").pop().unwrap();
        assert!(last["message"].as_str().unwrap().contains(why), "{last}");
        assert_eq!(world.json(&["token", "list", "--json"])["tokens"], json!([]));
    };
    fs::rename(&place, &aside).unwrap();
    refused("was removed");
    assert!(!place.exists(), "a new one would know nothing");
    fs::copy(&aside, &place).unwrap();
    refused("was replaced");
    fs::remove_file(&place).unwrap();
    symlink(&aside, &place).unwrap();
    refused("was replaced");
    // The very same comes back: nothing happened.
    fs::rename(&aside, &place).unwrap();
    assert_eq!(world.castra(&["token", "issue", "a"]).code, 0, "{}", world.log());
    assert_eq!(world.castra(&["peer", "link", "a", "b"]).code, 0);
    assert_eq!(world.castra(&["down"]).code, 0);
    drop(broker);
    let _broker = world.broker(&QUICK);
    assert_eq!(world.json(&["token", "list", "--json"])["tokens"][0]["guest"], "a");
}

#[test]
fn logs_and_records_that_are_deleted_are_made_again() {
    let world = World::new();
    let broker = world.broker(&QUICK);
    let guest = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    let names = [
        "logs/broker.log",
        "logs/events.jsonl",
        "handshakes/handshake-events.jsonl",
        "handshakes/devbox.json",
    ];
    let files: Vec<_> = names.iter().map(|name| world.state().join(name)).collect();
    assert!(until(PATIENCE, || files.iter().all(|file| file.exists())));
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    let again = until(PATIENCE, || {
        // Each of them is a line of each log.
        world.agent("devbox", broker.address(), &["--once"]).finish(PATIENCE);
        files.iter().all(|file| file.exists())
    });
    assert!(again, "{:?}", files.iter().map(|file| file.exists()).collect::<Vec<_>>());
    drop(guest);
    // A link in a log's place is followed neither then nor later.
    let victim = world.secret("victim", "untouched");
    fs::remove_file(&files[0]).unwrap();
    symlink(&victim, &files[0]).unwrap();
    let lost = until(PATIENCE, || {
        world.agent("devbox", broker.address(), &["--once"]).finish(PATIENCE);
        world.read("logs/events.jsonl").lines().count() > 0
            && broker.process.err.text().contains("hello from")
    });
    assert!(lost);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(world.castra(&["down"]).code, 0);
}
