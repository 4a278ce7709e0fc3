//! What the tests share: a scratch state directory, the program, a control
//! server that says what a test wants, and a real broker.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing in these tests takes longer unless it hangs.
pub const HANG: Duration = Duration::from_secs(30);

/// A state directory of one's own, and the program pointed at it.
pub struct Scratch {
    dir: TempDir,
}

/// How a run of the program ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Scratch {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("castra-test-").tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    /// Writes a file below the state directory.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// The program with nothing of this process's surroundings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_castra"));
        command.env_clear().env("CASTRA_STATE_DIR", self.path()).env("TERM", "xterm").args(args);
        command.env("XDG_STATE_HOME", self.path().join("state-home"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    /// Starts it, with a pipe to read from.
    pub fn start(&self, args: &[&str]) -> Running {
        start(&mut self.command(args))
    }
}

/// Starts `command`, with a pipe to read from; it is ended when that is dropped.
pub fn start(command: &mut Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    Running { child, stdout: Some(Lines::new(stdout)) }
}

/// Runs `command` to its end, and fails the test if it hangs.
pub fn run(command: &mut Command) -> Ran {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = ended(&mut child, HANG);
    Ran {
        code: status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        took: start.elapsed(),
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// The exit code of a child, within `bound`.
pub fn ended(child: &mut Child, bound: Duration) -> Option<i32> {
    let end = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() >= end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("process {} did not end within {bound:?}", child.id());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A program that goes on.
pub struct Running {
    pub child: Child,
    stdout: Option<Lines>,
}

impl Running {
    /// The next line of its output.
    pub fn line(&mut self) -> String {
        self.stdout.as_mut().unwrap().next_line()
    }

    /// Nobody reads its output any more.
    pub fn hang_up(&mut self) {
        self.stdout = None;
    }

    /// Its exit code and what it said on standard error.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let stderr = drain(self.child.stderr.take().unwrap());
        (ended(&mut self.child, HANG), stderr.join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that a failed test doesn't leave behind.
pub struct Owned(pub Child);

impl Owned {
    /// Asks it to end, and returns its exit code.
    pub fn end(&mut self) -> Option<i32> {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        ended(&mut self.0, HANG)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of a pipe, each waited for but not for ever; dropped, the pipe is closed.
struct Lines {
    pipe: ChildStdout,
    buffer: Vec<u8>,
}

impl Lines {
    const fn new(pipe: ChildStdout) -> Self {
        Self { pipe, buffer: vec![] }
    }

    fn next_line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8(line[..end].to_vec()).unwrap();
            }
            let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
            let bound = Timespec { tv_sec: HANG.as_secs().cast_signed(), tv_nsec: 0 };
            assert_ne!(rustix::event::poll(&mut fds, Some(&bound)), Ok(0), "no line of output");
            let mut chunk = [0; 4096];
            let count = self.pipe.read(&mut chunk).unwrap();
            assert_ne!(count, 0, "the output ended");
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }
}

/// What the control server does with a request.
pub enum Answer {
    /// An ordinary reply: its event and data.
    Data(&'static str, Value),
    /// An error reply.
    Error(&'static str),
    /// These bytes; `ID` in them stands for the request's id.
    Raw(String),
    /// These bytes, then the connection ends.
    RawThenClose(String),
    /// Nothing, for ever.
    Silence,
    /// The connection ends.
    Close,
}

/// A control server that answers as told, one thread a connection.
pub struct Fake {
    requests: Receiver<Value>,
}

impl Fake {
    pub fn serve(
        scratch: &Scratch,
        answer: impl Fn(&Value) -> Answer + Send + Sync + Clone + 'static,
    ) -> Self {
        let listener = UnixListener::bind(scratch.socket()).unwrap();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, sender) = (answer.clone(), sender.clone());
                thread::spawn(move || {
                    let _ = converse(stream, &answer, |request| {
                        let _ = sender.send(request);
                    });
                });
            }
        });
        Self { requests }
    }

    /// The next request that came in.
    pub fn request(&self) -> Value {
        self.requests.recv_timeout(HANG).expect("a request")
    }

    /// Whether another request came in.
    pub fn idle(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

fn converse(
    stream: UnixStream,
    answer: &impl Fn(&Value) -> Answer,
    heard: impl Fn(Value),
) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line?).unwrap();
        heard(request.clone());
        let id = request["id"].clone();
        let reply =
            |event: &str, data: Value| format!("{}\n", json!({"id": id, "event": event, "data": data}));
        match answer(&request) {
            Answer::Data(event, data) => writer.write_all(reply(event, data).as_bytes())?,
            Answer::Error(code) => {
                let data = json!({"code": code, "message": format!("the server says {code}")});
                writer.write_all(reply("error", data).as_bytes())?;
            }
            Answer::Raw(text) => writer.write_all(text.replace("ID", &id.to_string()).as_bytes())?,
            Answer::RawThenClose(text) => {
                writer.write_all(text.replace("ID", &id.to_string()).as_bytes())?;
                return writer.shutdown(std::net::Shutdown::Both);
            }
            Answer::Silence => {}
            Answer::Close => return writer.shutdown(std::net::Shutdown::Both),
        }
    }
    Ok(())
}

/// A row as a broker writes it.
pub fn guest(name: &str, state: &str, reason: Option<&str>) -> Value {
    json!({
        "name": name, "state": state, "reachable": state == "reachable", "reason": reason, "warnings": [],
        "proven": true, "authenticated": false, "last_handshake_age_ms": 812,
        "last_handshake_at": "2026-01-02T03:04:05.678Z", "session_age_ms": 60211, "window_ms": 15000,
        "interval_ms": 5000, "epoch": 30_064_771_075_u64, "boot": "1f3a9c02", "transport": "tcp",
        "remote": "127.0.0.1:51234", "rtt_us": 180, "handshakes": 13, "refusals": 0, "takeovers": 0,
        "capabilities": ["proof-v1"], "peers": [], "attachment": null,
    })
}

/// A status document as a broker writes it.
pub fn document(state: &str, guests: &[Value]) -> Value {
    let reachable = guests.iter().filter(|guest| guest["reachable"] == true).count();
    json!({
        "schema": 1, "as_of": "2026-01-02T03:04:06.000Z", "guests": guests,
        "broker": {
            "state": state, "pid": 4711, "version": "0.2.0", "started_at": "2026-01-02T03:00:00.000Z",
            "incarnation": 7, "listen": ["tcp:127.0.0.1:7070"], "guests": guests.len(), "reachable": reachable,
        },
    })
}

/// A real broker on a port of the kernel's choice; ended by its own number when dropped.
pub struct Broker {
    pub child: Child,
    /// Its first line.
    pub ready: Value,
}

impl Broker {
    pub fn start(scratch: &Scratch, args: &[&str]) -> Self {
        let log = File::create(scratch.path().join("broker.err")).unwrap();
        let mut child = scratch
            .command(&["broker", "--json", "--listen", "tcp:127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let ready = Lines::new(child.stdout.take().unwrap()).next_line();
        Self { child, ready: serde_json::from_str(&ready).unwrap() }
    }

    /// Where guests connect, like `tcp:127.0.0.1:40123`.
    pub fn address(&self) -> &str {
        self.ready["listen"][0].as_str().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
