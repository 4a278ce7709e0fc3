//! A manager that somebody else made: an HTTP server that knows only the specification's bytes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::PATIENCE;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

/// What the manager does with an attempt to attach.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// This status, these header lines, this body.
    Status(u16, &'static str, &'static str),
    /// `200`, as the specification has it.
    Ok,
    /// Nothing, until the client is gone.
    Hang,
    /// A reset.
    Reset,
    /// The head, half of the body, and the end.
    EarlyClose,
    /// Two megabytes.
    Huge,
}

pub(crate) struct StandIn {
    port: u16,
    shared: Arc<Shared>,
    listener: TcpListener,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// Answers to attempts, in order; after the last one it repeats.
    script: Vec<Answer>,
    attempts: usize,
    /// Waits until it is acknowledged.
    actions: Vec<Value>,
    acks: Vec<Value>,
    /// Each poll answers with the action until then.
    ended: bool,
    live: Vec<TcpStream>,
}

impl StandIn {
    pub(crate) fn new(script: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Mutex::new(State { script: script.to_vec(), ..State::default() });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let (accepting, inner) = (listener.try_clone().unwrap(), Arc::clone(&shared));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let shared = Arc::clone(&inner);
                shared.state.lock().unwrap().live.push(stream.try_clone().unwrap());
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, shared, listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests whose path ends so, so far.
    pub(crate) fn requests(&self, end: &str) -> Vec<Request> {
        let state = self.shared.state.lock().unwrap();
        state.requests.iter().filter(|request| path(request).ends_with(end)).cloned().collect()
    }

    /// How many requests there were in all.
    pub(crate) fn count(&self) -> usize {
        self.shared.state.lock().unwrap().requests.len()
    }

    /// Gives the guest something to do.
    pub(crate) fn queue(&self, id: &str, payload: Value) {
        let action =
            json!({"id": id, "action_type": "terminal_write", "payload": payload, "expires_at": null});
        self.shared.state.lock().unwrap().actions.push(action);
        self.shared.changed.notify_all();
    }

    /// Waits until `is` holds of the acks that came.
    pub(crate) fn acked(&self, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let state = self.shared.state.lock().unwrap();
        let waited = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| !is(&state.acks));
        let (state, late) = waited.unwrap();
        assert!(!late.timed_out(), "acks: {:?}", state.acks);
        state.acks.clone()
    }

    /// Waits until so many requests whose path ends so have come.
    pub(crate) fn asked(&self, end: &str, count: usize) -> Vec<Request> {
        let state = self.shared.state.lock().unwrap();
        let is = |state: &State| {
            state.requests.iter().filter(|request| path(request).ends_with(end)).count() >= count
        };
        let waited = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| !is(state));
        assert!(!waited.unwrap().1.timed_out(), "no {count} requests for {end}");
        self.requests(end)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.ended = true;
        for stream in state.live.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn path(request: &Request) -> &str {
    request.line.split(' ').nth(1).unwrap_or_default()
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = read(&mut reader) {
            let line = request.line.clone();
            {
                let mut state = self.state.lock().unwrap();
                state.requests.push(request.clone());
                if line.contains("/actions/ack ") {
                    state.take(&request.body);
                }
            }
            self.changed.notify_all();
            let on = if line.starts_with("POST ") && line.contains("/attach-by-code ") {
                self.attach(&stream, &mut reader)
            } else if line.starts_with("GET /sessions/") && line.contains("/actions/poll ") {
                write(&stream, 200, "", &self.poll())
            } else if line.contains("/actions/ack ") {
                write(&stream, 200, "", r#"{"acknowledged":true}"#)
            } else if line.contains("/lease ") {
                write(&stream, 200, "", r#"{"lease_expires_at_ms":0,"lease_ttl_ms":30000}"#)
            } else {
                write(&stream, 404, "", r#"{"error":"not_found","message":null}"#)
            };
            if !on {
                break;
            }
        }
    }

    /// Whether the connection goes on.
    fn attach(&self, stream: &TcpStream, reader: &mut BufReader<TcpStream>) -> bool {
        let answer = {
            let mut state = self.state.lock().unwrap();
            let index = state.attempts.min(state.script.len() - 1);
            state.attempts += 1;
            state.script[index].clone()
        };
        match answer {
            Answer::Status(status, headers, body) => write(stream, status, headers, body),
            Answer::Ok => write(stream, 200, "", r#"{"ok":true,"attach_method":"code","session":{}}"#),
            Answer::Hang => {
                let _ = reader.read(&mut [0]);
                false
            }
            Answer::Reset => {
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
                let mut state = self.state.lock().unwrap();
                // Only the last descriptor's end sends it.
                let peer = stream.peer_addr().ok();
                state.live.retain(|live| live.peer_addr().ok() != peer);
                false
            }
            Answer::EarlyClose => {
                let mut stream = stream;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{\"ok\":true,");
                let _ = stream.shutdown(Shutdown::Both);
                false
            }
            Answer::Huge => {
                let mut stream = stream;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 << 20);
                let body = format!("{{\"ok\":true,\"more\":\"{}\"}}", "x".repeat((2 << 20) - 22));
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
                let _ = stream.shutdown(Shutdown::Both);
                false
            }
        }
    }

    /// What waits, or after a second nothing.
    fn poll(&self) -> String {
        let state = self.state.lock().unwrap();
        let idle = |state: &mut State| state.actions.is_empty() && !state.ended;
        let waited = self.changed.wait_timeout_while(state, Duration::from_secs(1), idle);
        json!(waited.unwrap().0.actions).to_string()
    }
}

impl State {
    fn take(&mut self, body: &str) {
        let acks: Vec<Value> = match serde_json::from_str(body).unwrap_or_default() {
            Value::Array(acks) => acks,
            one => vec![one],
        };
        self.actions.retain(|action| acks.iter().all(|ack| ack["id"] != action["id"]));
        self.acks.extend(acks);
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Request { line: line.trim_end().to_owned(), headers, body, at: Instant::now() })
}

fn write(mut stream: &TcpStream, status: u16, headers: &str, body: &str) -> bool {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).is_ok()
}

/// A door behind which nobody may ever come.
pub(crate) struct Trap(TcpListener);

impl Trap {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// Nobody came.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.accept().is_err()
    }

    /// Somebody came: what they said.
    pub(crate) fn caught(&self) -> Request {
        let mut caught = None;
        let came = crate::support::until(PATIENCE, || {
            caught = self.0.accept().ok();
            caught.is_some()
        });
        assert!(came, "nobody came");
        let stream = caught.unwrap().0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        read(&mut BufReader::new(stream)).unwrap()
    }
}
