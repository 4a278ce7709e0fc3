//! A client on the host reaches the terminals' socket in a guest, through the broker.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::{PATIENCE, World, until};

/// Stands in for the terminals: returns what it gets, and ends when it is ended.
struct Echo {
    path: PathBuf,
    thread: JoinHandle<()>,
}

impl Echo {
    /// Serves so many clients, one after the other.
    fn start(world: &World, clients: usize) -> Self {
        let path = world.path("terminals.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            for _ in 0..clients {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let _ = std::io::copy(&mut &stream, &mut &stream);
                let _ = stream.shutdown(Shutdown::Write);
            }
        });
        Self { path, thread }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// Asks for a guest's terminals: the reply, and the stream after it.
fn ask(socket: &Path, params: &Value) -> (Value, BufReader<UnixStream>) {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = json!({"id": 1, "method": "terminals", "params": params});
    (&stream).write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    (serde_json::from_str(&line).unwrap(), stream)
}

/// Sends much, ends, and reads until the other side ends, too.
fn exchange(stream: BufReader<UnixStream>, length: usize) {
    let said: Vec<u8> = (0..length).map(|index| (index * 7 + index / 251) as u8).collect();
    let writer = stream.get_ref().try_clone().unwrap();
    let expected = said.clone();
    let thread = std::thread::spawn(move || {
        (&writer).write_all(&said).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    { stream }.read_to_end(&mut got).unwrap();
    thread.join().unwrap();
    assert!(got == expected, "{} of {length} bytes came back", got.len());
}

#[test]
fn a_clients_bytes_reach_the_terminals_in_a_guest_and_come_back() {
    let world = World::new();
    let broker = world.broker(&[]);
    let token = world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
    let token = world.secret("token", &token);
    let echo = Echo::start(&world, 2);
    let args = ["--token-file", &token, "--terminals-socket", echo.path()];
    let agent = world.agent("devbox", broker.address(), &args);
    world.wait(&["devbox"], "reachable");
    let (reply, stream) = ask(&world.state().join("control.sock"), &json!({"guest": "devbox"}));
    assert_eq!(reply, json!({"id": 1, "event": "terminals", "data": {"guest": "devbox"}}));
    exchange(stream, 5_000_000);
    // The same from inside the guest.
    let (reply, stream) = ask(&world.path("devbox.sock"), &json!({}));
    assert_eq!(reply["event"], "terminals", "{reply}");
    exchange(stream, 1_000_000);
    assert!(until(PATIENCE, || !world.events("terminal.tunnel.closed", "devbox").is_empty()));
    let closed = world.events("terminal.tunnel.closed", "devbox").remove(0);
    assert_eq!(closed["reason"], "finished", "{closed}");
    assert_eq!(
        (&closed["to_guest_bytes"], &closed["from_guest_bytes"]),
        (&json!(5_000_000), &json!(5_000_000))
    );
    assert_eq!(world.verdict("devbox"), "reachable");
    echo.thread.join().unwrap();
    agent.kill();
    broker.process.kill();
}

#[test]
fn an_agent_without_a_token_keeps_its_terminals_unless_it_trusts_the_broker() {
    let world = World::new();
    let broker = world.broker(&[]);
    let echo = Echo::start(&world, 1);
    let socket = world.state().join("control.sock");
    let wary = world.agent("wary", broker.address(), &["--terminals-socket", echo.path()]);
    let args = ["--terminals-socket", echo.path(), "--trust-unkeyed-broker"];
    let trusting = world.agent("trusting", broker.address(), &args);
    let bare = world.agent("bare", broker.address(), &[]);
    world.wait(&["wary", "trusting", "bare"], "reachable");
    let code = |guest: &str| {
        let (reply, mut stream) = ask(&socket, &json!({"guest": guest}));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "the error is the end");
        reply["data"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("wary"), "forbidden");
    assert_eq!(code("bare"), "unsupported");
    assert_eq!(code("nobody"), "unknown_guest");
    let (reply, stream) = ask(&socket, &json!({"guest": "trusting"}));
    assert_eq!(reply["event"], "terminals", "{reply}");
    exchange(stream, 10_000);
    echo.thread.join().unwrap();
    std::fs::remove_file(&echo.path).unwrap();
    assert_eq!(code("trusting"), "refused");
    for process in [wary, trusting, bare, broker.process] {
        process.kill();
    }
}
