//! Programs that ask a broker, as `docs/CLIENTS.md` shows them: run for real.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use castra_client::{Client, Error, ErrorCode, Filter, Notice, Place, State, Subscription, Target, Who};
use serde_json::{Value, json};

use crate::support::{Link, PATIENCE, Process, World, installed};

#[allow(dead_code)]
#[path = "../../../client/examples/follow.rs"]
mod follow;
#[allow(dead_code)]
#[path = "../../../client/examples/status.rs"]
mod status;
#[allow(dead_code)]
#[path = "../../../client/examples/wait.rs"]
mod wait;

fn place(world: &World) -> Place {
    Place::in_dir(world.state())
}

/// What the subscription brings next, quiet moments left out.
fn next(events: &mut Subscription) -> Result<Notice, Error> {
    let mut steps = events.filter(|step| !matches!(step, Ok(Notice::Quiet))).take(1);
    steps.next().expect("a stream that goes on")
}

fn following(world: &World, kinds: &[&str], bound: Duration) -> Subscription {
    let filter = Filter { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), ..Filter::default() };
    Client::subscribe(&place(world).socket, filter, bound).unwrap()
}

#[test]
fn the_typed_calls_say_what_a_broker_says_and_how_a_broker_is_absent() {
    let world = World::new();
    let bound = Duration::from_secs(10);
    let absent = Client::connect(&place(&world).socket, bound).unwrap_err();
    assert!(matches!(absent, Error::NoBroker { .. }), "{absent}");

    let broker = world.broker(&["--guest", "ghost"]);
    let agent = world.agent("devbox", broker.address(), &[]);
    let mut client = Client::connect(&place(&world).socket, bound).unwrap();
    let (devbox, ghost) = ("devbox".parse().unwrap(), "ghost".parse().unwrap());
    let waited = client.wait(&[devbox, ghost], Target::Reachable, Who::Any, PATIENCE).unwrap();
    assert_eq!(waited.guests.iter().filter(|guest| guest.reachable).count(), 1, "{waited:?}");
    let status = client.status().unwrap();
    assert_eq!(status.guests.iter().map(|guest| guest.name).collect::<Vec<_>>(), [devbox, ghost]);
    let only = client.status_of(&[ghost]).unwrap();
    assert_eq!((only.guests.len(), only.guests[0].state), (1, State::Waiting));
    assert!(client.status_of(&[]).unwrap().guests.is_empty(), "nobody was asked for");
    let stranger = client.status_of(&["stranger".parse().unwrap()]).unwrap_err();
    assert_eq!(stranger.code(), Some(ErrorCode::UnknownGuest), "{stranger}");
    assert_eq!(client.ping(devbox, PATIENCE).unwrap().guest, devbox);
    assert_eq!(client.info().unwrap().pid, broker.process.pid());
    let listed: Value = client.call("token_list", json!({}), bound).unwrap();
    assert_eq!(listed, json!({"tokens": []}));
    let timeout = Duration::from_millis(50);
    let late = client.wait(&[ghost], Target::Reachable, Who::All, timeout).unwrap_err();
    assert_eq!(late.code(), Some(ErrorCode::Timeout), "{late}");

    // A stopped one is no verdict; and an answer that comes late is nobody else's.
    broker.process.stop();
    client.set_bound(Duration::from_millis(300));
    let silent = client.status().unwrap_err();
    assert!(matches!(silent, Error::NotAnswering { .. }), "{silent}");
    broker.process.go_on();
    client.set_bound(PATIENCE);
    assert_eq!(client.info().unwrap().pid, broker.process.pid());
    agent.kill();
    broker.process.kill();
    let gone = client.status().unwrap_err();
    assert!(matches!(gone, Error::Closed { .. }), "{gone}");
}

#[test]
fn a_subscription_goes_on_where_it_was_and_tells_what_was_lost() {
    let world = World::new();
    let broker = world.broker(&["--guest", "ghost"]);
    let mut all = following(&world, &[], PATIENCE);
    let mut quiet = following(&world, &["verdict.changed"], Duration::from_millis(20));
    assert!(matches!(quiet.next(), Some(Ok(Notice::Quiet))), "nothing happens");
    // Whoever saw nothing still knows where it is.
    let begin = quiet.cursor().expect("a place from the first answer");

    let mut link = Link::greeted(broker.port());
    link.prove("devbox", " once");
    let proven = loop {
        if let Notice::Event(event) = next(&mut all).unwrap()
            && event.fact.kind() == "verdict.changed"
        {
            break event;
        }
    };
    assert_eq!(all.cursor(), Some(proven.cursor));
    // Another process, later: what came between is there, once.
    let filter = Filter { since: Some(begin), kinds: vec!["verdict.*".into()], ..Filter::default() };
    let mut later = Client::subscribe(&place(&world).socket, filter, PATIENCE).unwrap();
    let Notice::Event(again) = next(&mut later).unwrap() else { panic!("an event") };
    assert_eq!(again, proven);

    // The broker goes and comes: told, ended, resumed with a gap.
    broker.process.kill();
    let ended = next(&mut all).unwrap_err();
    assert!(matches!(ended, Error::Closed { .. }), "{ended}");
    assert!(all.next().is_none(), "an ended stream says no more");
    assert!(matches!(all.resume(), Err(Error::NoBroker { .. })));
    let _second = world.broker(&[]);
    all.resume().unwrap();
    assert!(matches!(next(&mut all).unwrap(), Notice::Gap(cursor) if cursor.number == 0));
    let Notice::Event(started) = next(&mut all).unwrap() else { panic!("an event") };
    assert_eq!(started.fact.kind(), "broker.started");
    assert!(started.cursor.incarnation > proven.cursor.incarnation);
}

#[test]
fn a_slow_reader_a_newer_event_and_a_newer_refusal_have_types() {
    // A broker of a later version, as far as this needs one.
    let world = World::new();
    fs::create_dir_all(world.state()).unwrap();
    let listener = UnixListener::bind(place(&world).socket).unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
        let lines = [
            r#"{"id":1,"event":"events","data":{"events":[],"cursor":"7-41"}}"#,
            r#"{"event":"gap","data":{"cursor":"7-9000"}}"#,
            r#"{"event":"new.kind","data":{"cursor":"7-9001","at":"later","kind":"new.kind","x":[1]}}"#,
            r#"{"event":"error","data":{"code":"new_code","message":"no"}}"#,
        ];
        stream.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        serde_json::from_str::<Value>(&request).unwrap()
    });
    let filter = Filter { guests: vec!["devbox".parse().unwrap()], ..Filter::default() };
    let mut events = Client::subscribe(&place(&world).socket, filter, PATIENCE).unwrap();
    let request = served.join().unwrap();
    assert_eq!(request["params"], json!({"kinds": [], "guests": ["devbox"], "follow": true}));
    assert_eq!(events.cursor().unwrap().to_string(), "7-41");
    assert!(matches!(next(&mut events).unwrap(), Notice::Gap(cursor) if cursor.number == 9000));
    let Notice::Other(newer) = next(&mut events).unwrap() else { panic!("an event") };
    assert_eq!((newer.kind.as_str(), newer.cursor.number), ("new.kind", 9001));
    assert!(newer.json.get().ends_with(r#""x":[1]}"#));
    let refused = next(&mut events).unwrap_err();
    assert!(matches!(&refused, Error::RefusedOtherwise { code, .. } if code == "new_code"), "{refused}");
    assert_eq!(events.cursor().unwrap().number, 9001, "where it goes on");
}

#[test]
fn the_examples_in_rust_do_what_they_say() {
    let world = World::new();
    let broker = world.broker(&["--guest", "ghost"]);
    let agent = world.agent("devbox", broker.address(), &[]);
    let names = ["devbox".parse().unwrap()];
    let mut out = vec![];
    assert!(wait::run(&place(&world), &names, PATIENCE, &mut out).unwrap());
    let said = String::from_utf8(out).unwrap();
    assert!(said.starts_with("devbox answered after ") && said.ends_with(" us\n"), "{said}");
    let ghost = ["ghost".parse().unwrap()];
    assert!(!wait::run(&place(&world), &ghost, Duration::from_millis(50), &mut vec![]).unwrap());

    let mut out = vec![];
    assert!(!status::run(&place(&world), &mut out).unwrap(), "the ghost is not there");
    let said = String::from_utf8(out).unwrap();
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[0][0], rows[0][1], rows[0][2]), ("devbox", "reachable", "proven"), "{said}");
    assert_eq!(rows[1], ["ghost", "waiting", "never_seen"], "{said}");

    // From the beginning on, and through a restart of the broker.
    let mut lines = vec![];
    let since = Some("1-0".parse().unwrap());
    let (mut agent, mut process) = (Some(agent), Some(broker.process));
    let mut second = None;
    follow::run(&place(&world), since, &mut std::io::sink(), &mut |line| {
        lines.push(line.to_owned());
        if line.ends_with("devbox is reachable") && second.is_none() {
            agent.take().unwrap().kill();
        } else if line.ends_with("devbox is waiting (disconnected)") {
            process.take().unwrap().kill();
            let broker = world.broker(&[]);
            let back = world.agent("devbox", broker.address(), &[]);
            second = Some((broker, back));
        }
        !(second.is_some() && line.ends_with("devbox is reachable"))
    })
    .unwrap();
    assert!(lines.iter().any(|line| line.starts_with("- ")), "the absence was told: {lines:?}");
    let lost = |line: &String| line.starts_with("2-") && line.ends_with(" something was lost here");
    assert!(lines.iter().any(lost), "{lines:?}");
}

/// A program that may be missing; when `CASTRA_SOCAT` says so, it may not.
fn has(programs: &[&str], variable: &str) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !installed(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os(variable).is_none_or(|word| word != "required"), "not installed: {missing:?}");
    eprintln!("SKIPPED: not installed: {missing:?} ({variable}=required makes this an error)");
    false
}

fn example(world: &World, program: &str, args: &[&str]) -> Command {
    let path = format!("{}/../docs/examples/{program}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(path);
    command.args(args).env("CASTRA_STATE_DIR", world.state());
    command
}

#[test]
fn the_example_in_shell_does_what_it_says() {
    if !has(&["socat", "jq"], "CASTRA_SOCAT") {
        return;
    }
    let world = World::new();
    let run = |args: &[&str]| Process::spawn(example(&world, "status.sh", args)).finish(PATIENCE);
    assert_eq!(run(&[]).code, 3, "no broker");
    let broker = world.broker(&["--guest", "ghost"]);
    let _agent = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    let all = run(&[]);
    assert_eq!(all.code, 1, "{all:?}");
    let rows: Vec<Vec<&str>> = all.out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((rows[0][0], rows[0][1]), ("devbox", "reachable"), "{all:?}");
    assert_eq!(rows[1], ["ghost", "waiting", "never_seen"], "{all:?}");
    let one = run(&["devbox"]);
    assert_eq!((one.code, one.out.lines().count()), (0, 1), "{one:?}");
    let stranger = run(&["stranger"]);
    assert_eq!(stranger.code, 3, "{stranger:?}");
    assert!(stranger.err.contains("unknown_guest"), "{stranger:?}");
    broker.process.stop();
    let stopped = run(&[]);
    assert_eq!(stopped.code, 3, "{stopped:?}");
    broker.process.go_on();
}

#[test]
fn the_example_in_python_does_what_it_says() {
    if !has(&["python3"], "CASTRA_PYTHON") {
        return;
    }
    let world = World::new();
    let spawn = |args: &[&str]| Process::spawn(example(&world, "castra_client.py", args));
    let run = |args: &[&str]| spawn(args).finish(PATIENCE);
    assert_eq!(run(&["status"]).code, 3, "no broker");
    let broker = world.broker(&["--guest", "ghost"]);
    let agent = world.agent("devbox", broker.address(), &[]);
    let waited = run(&["wait", "devbox"]);
    assert_eq!(waited.code, 0, "{waited:?}");
    let all = run(&["status"]);
    assert_eq!(all.code, 1, "{all:?}");
    let rows: Vec<Vec<&str>> = all.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[0][0], rows[0][1]), ("devbox", "reachable"), "{all:?}");
    assert_eq!(rows[1], ["ghost", "waiting", "never_seen"], "{all:?}");
    assert_eq!(run(&["status", "devbox"]).code, 0);
    assert_eq!(run(&["status", "stranger"]).code, 5);

    let follower = spawn(&["follow", "1-0"]);
    follower.out.after(0, "devbox is reachable", PATIENCE);
    let mark = follower.out.mark();
    agent.kill();
    follower.out.after(mark, "devbox is waiting (disconnected)", PATIENCE);
    broker.process.kill();
    let mark = follower.out.mark();
    let second = world.broker(&[]);
    follower.out.after(mark, "something was lost here", PATIENCE);
    let _back = world.agent("devbox", second.address(), &[]);
    let line = follower.out.after(mark, "devbox is reachable", PATIENCE);
    assert!(line.starts_with("2-"), "{line}");
    follower.kill();
}
