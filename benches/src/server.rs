//! Servers as child processes: started, measured, and ended with their folders.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use castra_core::auth::Key;
use castra_core::id::GuestName;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::load::PATIENCE;
use crate::turns::Turns;

/// A server that listens, on the loopback. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    state: Option<TempDir>,
    turns: Option<Mutex<Turns>>,
}

/// CPU time of a process by thread, in nanoseconds since each began.
///
/// It is the first field of `/proc/PID/task/*/schedstat`, which is exact. What
/// threads that have ended used is not in it.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    threads: BTreeMap<u32, (String, u64)>,
}

/// A client of a broker's control socket.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
    requests: u64,
}

impl Server {
    /// The yardstick. With `keepalive`, it challenges that often.
    ///
    /// # Errors
    /// It can't be started.
    pub fn yardstick(program: &Path, keepalive: Option<Duration>) -> io::Result<Self> {
        let mut command = Command::new(program);
        if let Some(interval) = keepalive {
            command.args(["--keepalive", &interval.as_millis().to_string()]);
        }
        let (child, line) = start(&mut command, Stdio::null())?;
        let mut server = Self { child, address: nowhere(), state: None, turns: None };
        server.address = line.parse().map_err(|_| said(program, &line))?;
        Ok(server)
    }

    /// A broker with a state directory of its own; log and events are on.
    ///
    /// # Errors
    /// It can't be started.
    pub fn broker(program: &Path, args: &[String]) -> io::Result<Self> {
        Self::any_broker(program, args, false)
    }

    /// The same, and it says how long its turns take, which costs it a little.
    ///
    /// # Errors
    /// It can't be started.
    pub fn measured_broker(program: &Path, args: &[String]) -> io::Result<Self> {
        Self::any_broker(program, args, true)
    }

    fn any_broker(program: &Path, args: &[String], measured: bool) -> io::Result<Self> {
        let state = state_dir()?;
        let mut command = Command::new(program);
        command.args(["broker", "--json", "--listen", "tcp:127.0.0.1:0", "--state-dir"]).arg(state.path());
        command.args(["--die-with-parent", &std::process::id().to_string()]).args(args);
        let (mut turns, mut errors) = (None, Stdio::null());
        if measured {
            command.env("CASTRA_TRACE", "castra::turns=debug").env("NO_COLOR", "1");
            let file = tempfile::tempfile()?;
            errors = file.try_clone()?.into();
            turns = Some(Mutex::new(Turns::new(file)));
        }
        let (child, line) = start(&mut command, errors)?;
        let mut server = Self { child, address: nowhere(), state: Some(state), turns };
        let ready: Value = serde_json::from_str(&line)?;
        let address = ready["listen"][0].as_str().and_then(|address| address.strip_prefix("tcp:"));
        server.address = address.and_then(|text| text.parse().ok()).ok_or_else(|| said(program, &line))?;
        Ok(server)
    }

    /// mosquitto, with persistence and log off.
    ///
    /// # Errors
    /// It can't be started.
    pub fn mosquitto(program: &Path) -> io::Result<Self> {
        let state = state_dir()?;
        // It can't say which port it got; the kernel doesn't give this one away soon again.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let configuration = state.path().join("mosquitto.conf");
        let port = address.port();
        // It would give root's rights up, and then couldn't read its own file.
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        std::fs::write(
            &configuration,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n\
                 set_tcp_nodelay true\nuser {user}\n"
            ),
        )?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&configuration).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { child, address, state: Some(state), turns: None };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("{} ended: {status}", program.display())));
            }
            if Instant::now() >= end {
                return Err(io::Error::other(format!("{} does not listen", program.display())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It is gone, or the kernel keeps no such figures.
    pub fn cpu(&self) -> io::Result<Cpu> {
        Cpu::of(self.pid())
    }

    /// What it said of its turns since this was asked last belongs to this phase.
    ///
    /// # Errors
    /// What it said can't be read.
    pub fn turns(&self, phase: &'static str) -> io::Result<()> {
        let Some(turns) = &self.turns else { return Ok(()) };
        turns.lock().unwrap_or_else(PoisonError::into_inner).phase(phase)
    }

    /// All that it said of its turns, if it does: a document, and the same for people.
    ///
    /// # Errors
    /// It should, and told of none: a first turn is always longer than all before it.
    pub fn turns_told(&self) -> io::Result<Option<(Value, String)>> {
        let Some(turns) = &self.turns else { return Ok(None) };
        let turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.is_empty() {
            return Err(io::Error::other("the broker told nothing of its turns: is its trace still read?"));
        }
        Ok(Some((turns.document(), turns.table())))
    }

    /// A client of its control socket.
    ///
    /// # Errors
    /// It is no broker, or doesn't answer.
    pub fn control(&self) -> io::Result<Control> {
        let state = self.state.as_ref().ok_or_else(|| io::Error::other("no broker"))?;
        let stream = UnixStream::connect(state.path().join("control.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Control { stream: BufReader::new(stream), requests: 0 })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cpu {
    /// Of any process.
    ///
    /// # Errors
    /// It is gone, or the kernel keeps no such figures.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            let id = path.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or_default();
            // A thread may end while the others are read.
            let Ok(line) = std::fs::read_to_string(path.join("schedstat")) else { continue };
            let used = line.split(' ').next().and_then(|field| field.parse().ok());
            let used = used.ok_or_else(|| io::Error::other("schedstat says nothing"))?;
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            threads.insert(id, (name.trim_end().to_owned(), used));
        }
        Ok(Self { threads })
    }

    /// Nanoseconds since `before`, of all threads together.
    #[must_use]
    pub fn since(&self, before: &Self) -> u64 {
        self.threads_since(before).values().sum()
    }

    /// Nanoseconds since `before`, by the threads' names.
    #[must_use]
    pub fn threads_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let mut by_name = BTreeMap::new();
        for (id, (name, used)) in &self.threads {
            let earlier = before.threads.get(id).map_or(0, |(_, used)| *used);
            *by_name.entry(name.clone()).or_default() += used.saturating_sub(earlier);
        }
        by_name
    }
}

impl Control {
    /// Sends a request and returns its document.
    ///
    /// # Errors
    /// The broker refuses, or doesn't answer in time.
    pub fn ask(&mut self, method: &str, params: &Value) -> io::Result<Value> {
        self.requests += 1;
        let request = json!({"id": self.requests, "method": method, "params": params});
        self.stream.get_ref().write_all(format!("{request}\n").as_bytes())?;
        let mut reply = self.line()?;
        let data = reply["data"].take();
        if reply["event"] == "error" {
            return Err(io::Error::other(format!("{method}: {data}")));
        }
        Ok(data)
    }

    /// The next line, whatever it is.
    ///
    /// # Errors
    /// None comes in time, or it is no JSON.
    pub fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// A token for each guest.
    ///
    /// # Errors
    /// See [`Control::ask`].
    pub fn tokens(&mut self, guests: &[GuestName]) -> io::Result<Vec<Key>> {
        let token = |guest: &GuestName| {
            let issued = self.ask("token_issue", &json!({"guest": guest}))?;
            let token = issued["token"].as_str().and_then(|token| token.parse().ok());
            token.ok_or_else(|| io::Error::other("a token that is none"))
        };
        guests.iter().map(token).collect()
    }
}

/// The program `name`, where a shell or root's shell would find it.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Starts a server that says on its first line where it is.
fn start(command: &mut Command, errors: Stdio) -> io::Result<(Child, String)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.is_empty() {
        let status = child.wait()?;
        return Err(io::Error::other(format!("{command:?} ended: {status}")));
    }
    Ok((child, line.trim_end().to_owned()))
}

fn said(program: &Path, line: &str) -> io::Error {
    io::Error::other(format!("{} said {line:?}", program.display()))
}

/// In memory, as the default (`/run`, or `$XDG_RUNTIME_DIR`) is on most systems;
/// `TMPDIR` says otherwise.
fn state_dir() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("castra-benches-");
    if std::env::var_os("TMPDIR").is_none() && memory.is_dir() {
        builder.tempdir_in(memory)
    } else {
        builder.tempdir()
    }
}

fn nowhere() -> SocketAddr {
    ([0, 0, 0, 0], 0).into()
}
