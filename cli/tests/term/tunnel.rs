//! Terminals of a guest, through a broker, and inside a guest, through its agent.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::common::{HANG, Scratch, guest, run};
use crate::fake::Fake;

/// A control socket that opens tunnels to a server of terminals, and answers otherwise
/// where it is told; null is silence.
fn control(
    socket: &Path,
    fake: &Fake,
    answer: impl Fn(&Value) -> Option<Value> + Send + Sync + Clone + 'static,
) -> Receiver<Value> {
    let listener = UnixListener::bind(socket).unwrap();
    let (sender, requests) = channel();
    let fake = fake.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (fake, sender, answer) = (fake.clone(), sender.clone(), answer.clone());
            std::thread::spawn(move || {
                let request = line(&stream);
                let mut reply = match answer(&request) {
                    Some(Value::Null) => return std::mem::forget(stream),
                    Some(reply) => reply,
                    None => json!({"event": "terminals", "data": {}}),
                };
                let tunnel = reply["event"] == "terminals";
                reply["id"] = request["id"].clone();
                let _ = sender.send(request);
                let _ = (&stream).write_all(format!("{reply}\n").as_bytes());
                if tunnel {
                    // The kernel vouches for whoever comes this way.
                    fake.talk(stream, "");
                }
            });
        }
    });
    requests
}

/// The first line, and not a byte more.
fn line(stream: &UnixStream) -> Value {
    let mut text = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_guests_terminals_are_reached_through_the_broker() {
    let (scratch, fake) = (Scratch::new(), Fake::default());
    let id = fake.add("build");
    let requests = control(&scratch.socket(), &fake, |_| None);
    let ran = scratch.run(&["term", "send", "devbox/build", "hello"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fake.terminal(id).typed, b"hello");
    let request = requests.recv_timeout(HANG).unwrap();
    assert_eq!((&request["method"], &request["params"]["guest"]), (&json!("terminals"), &json!("devbox")));
    let ran = scratch.run(&["term", "ls", "devbox/"]);
    assert!(ran.stdout.contains("\ndevbox/build "), "{}", ran.stdout);
    // A directory of this machine means nothing there.
    assert_eq!(scratch.run(&["term", "new", "devbox/shell"]).code, Some(0));
    assert_eq!(fake.terminal(2).cwd, None);
    let log = scratch.start(&["term", "log", "devbox/build", "-f"]);
    fake.until_attached(id);
    fake.exit(id, 0, None);
    assert_eq!(log.finish().0, Some(0));
}

#[test]
fn inside_a_guest_its_agent_is_asked_and_names_no_guest() {
    let (scratch, fake) = (Scratch::new(), Fake::default());
    fake.add("build");
    let folder = scratch.path().join("castra/devbox");
    std::fs::create_dir_all(&folder).unwrap();
    let requests = control(&folder.join("agent.sock"), &fake, |_| None);
    let mut command = scratch.command(&["term", "ls"]);
    command.env_remove("CASTRA_STATE_DIR").env("XDG_RUNTIME_DIR", scratch.path());
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("\nbuild "), "{}", ran.stdout);
    let request = requests.recv_timeout(HANG).unwrap();
    assert_eq!((&request["method"], &request["params"]["guest"]), (&json!("terminals"), &Value::Null));
}

#[test]
fn what_the_broker_refuses_has_its_exit_code_and_says_what_to_do() {
    for (code, exit, advice) in [
        ("unknown_guest", 6, "`castra status` lists all guests"),
        ("not_reachable", 1, "`castra status` says why"),
        ("forbidden", 5, "`castra agent --terminals`"),
        ("timeout", 4, ""),
        ("shutting_down", 3, ""),
    ] {
        let (scratch, fake) = (Scratch::new(), Fake::default());
        let _requests = control(&scratch.socket(), &fake, move |_| {
            Some(json!({"event": "error", "data": {"code": code, "message": "the broker says no"}}))
        });
        let ran = scratch.run(&["term", "ls", "devbox/"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(exit), ""), "{code}: {}", ran.stderr);
        assert!(ran.stderr.contains(code) && ran.stderr.contains(advice), "{code}: {}", ran.stderr);
    }
    let nobody = Scratch::new().run(&["term", "ls", "devbox/"]);
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("castra up"), "{}", nobody.stderr);
}

#[test]
fn on_the_host_the_list_has_every_guest_that_serves_and_names_who_does_not_answer() {
    let scratch = Scratch::new();
    let (here, there) = (Fake::serve(scratch.path()), Fake::default());
    here.add("own");
    there.add("build");
    let _requests = control(&scratch.socket(), &there, |request| match request["method"].as_str() {
        Some("status") => {
            let mut guests = ["devbox", "silent", "plain"].map(|name| guest(name, "reachable", None));
            guests[0]["capabilities"] = json!(["terminals-v1"]);
            guests[1]["capabilities"] = json!(["terminals-v1"]);
            let document = crate::common::document("serving", &guests);
            Some(json!({"event": "status", "data": document}))
        }
        _ if request["params"]["guest"] == "silent" => Some(Value::Null),
        _ => None,
    });
    let ran = scratch.run(&["term", "ls", "--timeout", "1s"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let names: Vec<&str> = ran.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "own", "devbox/build"]);
    assert!(ran.stderr.contains("silent: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("plain"), "{}", ran.stderr);
}
