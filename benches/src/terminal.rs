//! Terminals under measurement: a client of their wire, a bare relay to stand
//! beside the daemon, and the programs that run on both.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use castra_core::terminals::wire::{
    Answer, Attach, CLIENT_FRAME_MAX, Create, Event, Frames, Handshake, Message, Request, Role, Secret,
};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tempfile::TempDir;

/// How long anything may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a reader takes at once.
const CHUNK: usize = 256 * 1024;

/// A line of coloured text, as programs write it.
pub const LINE: &[u8] = b"\x1b[1;34mdrwxr-xr-x\x1b[0m  2 user group  4096 Nov 21 2026 \x1b[32mtarget/release/build\x1b[0m and more\r\n";

/// Writes `bytes` bytes of text to a raw terminal: the program that floods.
///
/// # Errors
/// Standard output is no terminal, or is gone.
pub fn flood(bytes: u64) -> io::Result<()> {
    raw()?;
    let block: Vec<u8> = LINE.iter().copied().cycle().take(64 * 1024).collect();
    let mut out = io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let count = left.min(block.len() as u64);
        out.write_all(&block[..count as usize])?;
        left -= count;
    }
    out.flush()
}

/// Sends back what comes, on a raw terminal: the program that echoes. First says `!`.
///
/// # Errors
/// Standard input is no terminal.
pub fn echo() -> io::Result<()> {
    raw()?;
    let mut buffer = [0; 1024];
    let (mut input, mut out) = (io::stdin().lock(), io::stdout().lock());
    out.write_all(b"!")?;
    loop {
        out.flush()?;
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            count => out.write_all(&buffer[..count])?,
        }
    }
}

fn raw() -> io::Result<()> {
    let stdin = io::stdin();
    let mut modes = tcgetattr(&stdin)?;
    modes.make_raw();
    Ok(tcsetattr(&stdin, OptionalActions::Now, &modes)?)
}

/// A daemon of terminals with a directory of its own. Dropping it ends it and
/// everything that runs in it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Starts `castra terminals serve`.
    ///
    /// # Errors
    /// It can't be started, or isn't ready in time.
    pub fn start(program: &Path, screen: bool) -> io::Result<Self> {
        let directory = TempDir::new()?;
        let mut command = Command::new(program);
        command.args([
            "terminals",
            "serve",
            "--on-stop",
            "end",
            "--screen",
            if screen { "on" } else { "off" },
        ]);
        command.arg("--state-dir").arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Self { child: command.spawn()?, directory };
        let began = Instant::now();
        while UnixStream::connect(daemon.socket()).is_err() {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other("the daemon of terminals is not ready in time"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("terminals.sock")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A control client of it.
    ///
    /// # Errors
    /// It doesn't let us in.
    pub fn client(&self, name: &str) -> io::Result<Client> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let token = fs::read_to_string(self.directory.path().join("terminals.token"))?;
        let mut client = Client { stream, frames: Frames::default(), seq: 0, buffer: vec![0; CHUNK] };
        client.ask(&Request::Handshake(Handshake::new(token.trim(), name, Role::Control)))?;
        Ok(client)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // Gone already, or it goes now.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// A client of a daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    frames: Frames,
    seq: u32,
    buffer: Vec<u8>,
}

impl Client {
    /// Asks, and waits for the answer; what else comes before it is dropped. The
    /// terminal that it names, if it names one.
    ///
    /// # Errors
    /// The daemon says no, or nothing.
    pub fn ask(&mut self, request: &Request<'_>) -> io::Result<Option<u32>> {
        self.seq += 1;
        let mut frame = Vec::new();
        request.append(self.seq, &mut frame);
        self.stream.write_all(&frame)?;
        let wanted = self.seq;
        let mut answer = None;
        self.read(|message| {
            if let Message::Reply { seq, answer: given } = message
                && seq == wanted
            {
                answer = Some(match given {
                    Answer::Granted(granted) => Ok(granted.session),
                    Answer::Handshake { .. } => Ok(None),
                    Answer::Error { code, message } => Err(format!("{code}: {message}")),
                });
            }
            answer.is_none()
        })?;
        answer.unwrap_or_else(|| Err("no answer".into())).map_err(io::Error::other)
    }

    /// Runs a program on a new terminal, and attaches to it.
    ///
    /// # Errors
    /// The daemon says no.
    pub fn run(&mut self, command: &[&str]) -> io::Result<u32> {
        let create = Create { command: command.to_vec(), ..Create::default() };
        let session = self.ask(&Request::Create(Box::new(create)))?.unwrap_or(0);
        self.ask(&Request::Attach(Attach { session, ..Attach::default() }))?;
        Ok(session)
    }

    /// Reads to the end of the terminal's program; how many bytes of output came,
    /// and how many were left out.
    ///
    /// # Errors
    /// The daemon fell silent.
    pub fn drain(&mut self) -> io::Result<(u64, u64)> {
        let (mut bytes, mut skipped, mut first) = (0, 0, None);
        self.read(|message| {
            match message {
                Message::Event(Event::Output { data, offset, .. }) => {
                    first = first.or(offset);
                    bytes += data.len() as u64;
                }
                Message::Event(Event::Resync { skipped_bytes, .. }) => skipped += skipped_bytes,
                Message::Event(Event::Exit { .. }) => return false,
                _ => {}
            }
            true
        })?;
        Ok((bytes + first.unwrap_or(0), skipped))
    }

    /// Waits for output of the terminal.
    ///
    /// # Errors
    /// The daemon fell silent.
    pub fn output(&mut self) -> io::Result<()> {
        self.read(|message| !matches!(message, Message::Event(Event::Output { .. })))
    }

    /// Waits for output with that byte in it.
    ///
    /// # Errors
    /// The daemon fell silent.
    pub fn output_with(&mut self, byte: u8) -> io::Result<()> {
        let has = |message: &Message<'_>| matches!(message, Message::Event(Event::Output { data, .. }) if data.contains(&byte));
        self.read(|message| !has(&message))
    }

    /// Types, without waiting for the answer.
    ///
    /// # Errors
    /// The daemon is gone.
    pub fn input(&mut self, session: u32, data: &[u8]) -> io::Result<()> {
        self.seq += 1;
        let mut frame = Vec::new();
        Request::Input { session, data: Secret(data) }.append(self.seq, &mut frame);
        self.stream.write_all(&frame)
    }

    fn read(&mut self, mut each: impl FnMut(Message<'_>) -> bool) -> io::Result<()> {
        loop {
            let count = self.stream.read(&mut self.buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut input = &self.buffer[..count];
            let mut more = true;
            while let Some(frame) =
                self.frames.next(&mut input, CLIENT_FRAME_MAX).map_err(io::Error::other)?
            {
                more &= each(Message::parse(frame).map_err(io::Error::other)?);
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// A bare relay from a pseudo-terminal to a socket: nothing but reads and writes.
#[derive(Debug)]
pub struct Relay {
    reader: UnixStream,
    child: Child,
    thread: JoinHandle<io::Result<()>>,
}

impl Relay {
    /// Runs a program on a pseudo-terminal, and relays what it writes.
    ///
    /// # Errors
    /// No terminal, no process, no thread.
    pub fn start(program: &Path, args: &[&str]) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = ptsname(&master, Vec::new())?;
        let slave = || fs::OpenOptions::new().read(true).write(true).open(name.to_string_lossy().as_ref());
        let child = Command::new(program).args(args).stdin(slave()?).stdout(slave()?).spawn()?;
        let (reader, writer) = UnixStream::pair()?;
        let thread = thread::spawn(move || relay(&master, writer));
        Ok(Self { reader, child, thread })
    }

    /// Reads to the end; how many bytes came.
    ///
    /// # Errors
    /// The relay broke.
    pub fn drain(mut self) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        loop {
            match self.reader.read(&mut buffer)? {
                0 => break,
                count => bytes += count as u64,
            }
        }
        self.child.wait()?;
        self.thread.join().map_err(|_| io::Error::other("the relay died"))??;
        Ok(bytes)
    }
}

fn relay(master: &OwnedFd, mut writer: UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match rustix::io::read(master, &mut buffer) {
            // The last slave is closed.
            Ok(0) | Err(rustix::io::Errno::IO) => return Ok(()),
            Ok(count) => writer.write_all(&buffer[..count])?,
            Err(error) => return Err(error.into()),
        }
    }
}
