//! One terminal: its program, its master, and its output as far as it must be kept.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use castra_core::terminals::{Exit, SignalScope};
use pty_process::blocking::Pts;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};

use super::ring::Ring;
use super::session::Session;
use super::spawn::Spawned;
use super::wire::Refusal;

/// What is read of one terminal before another's turn, in bytes.
pub(crate) const GATHER: usize = 64 * 1024;
/// Most bytes of input that wait for a program.
const INPUT_MAX: usize = 256 * 1024;
/// How long others may write to a terminal whose program ended.
const DRAIN: Duration = Duration::from_secs(2);
/// Most bytes that are kept beside a full ring once the program ended: more than the
/// kernel had buffered then.
const REST_MAX: usize = 256 * 1024;

/// Why something can't be done.
pub(crate) type Refused = (Refusal, String);

pub(crate) struct Terminal {
    pub(crate) session: Session,
    pub(crate) pts: String,
    pub(crate) size: (u16, u16),
    pub(crate) ring: Ring,
    /// The newest, and how many bytes of output are in it.
    pub(crate) snapshot: Option<(u64, OwnedFd)>,
    /// Whether this daemon heard how it ended.
    pub(crate) told: bool,
    master: Option<OwnedFd>,
    /// Kept open while the program runs: it may close its own and open it again.
    slave: Option<Pts>,
    child: Child,
    handle: OwnedFd,
    exit: Option<Exit>,
    /// When the master is closed, come what may.
    closes: Option<Instant>,
    /// Output for which the ring has no room, of a program that ended.
    rest: Vec<u8>,
    input: VecDeque<Input>,
    queued: usize,
}

struct Input {
    seq: u64,
    data: Vec<u8>,
    written: usize,
}

impl Terminal {
    pub(crate) fn new(spawned: Spawned, size: (u16, u16), ring: Ring) -> Result<Self, Refused> {
        let Spawned { master, slave, mut child, pts, start_time } = spawned;
        let handle = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err((Refusal::Failed, format!("can't watch the program: {error}")));
            }
        };
        let session = Session { leader: child.id().cast_signed(), start_time };
        Ok(Self {
            session,
            pts,
            size,
            ring,
            snapshot: None,
            told: false,
            master: Some(master),
            slave: Some(slave),
            child,
            handle,
            exit: None,
            closes: None,
            rest: Vec::new(),
            input: VecDeque::new(),
            queued: 0,
        })
    }

    /// What to wait for at the master; `None`: not for it.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        if self.capacity() > 0 {
            flags |= PollFlags::IN;
        }
        if !self.input.is_empty() {
            flags |= PollFlags::OUT;
        }
        // Not even for a hang-up, which would wake without end.
        (!flags.is_empty()).then_some((self.master.as_ref()?.as_fd(), flags))
    }

    /// Readable when the program ended; `None` once that is known.
    pub(crate) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.exit.is_none().then(|| self.handle.as_fd())
    }

    /// When to call [`Self::on_time`].
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.closes
    }

    /// How it ended and where its output ends, once all of that was read.
    pub(crate) fn ended(&self) -> Option<(Exit, u64)> {
        let end = self.ring.end() + self.rest.len() as u64;
        self.exit.filter(|_| self.master.is_none()).map(|exit| (exit, end))
    }

    fn capacity(&self) -> usize {
        let room = self.ring.room();
        if self.exit.is_none() { room } else { (room + REST_MAX).saturating_sub(self.rest.len()) }
    }

    /// Reads what is there, up to [`GATHER`] bytes.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) {
        let Some(master) = &self.master else { return };
        let most = buffer.len().min(self.capacity());
        let (mut filled, mut over) = (0, false);
        while filled < most {
            match rustix::io::read(master, &mut buffer[filled..most]) {
                Ok(0) => over = true,
                Ok(count) => {
                    filled += count;
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                // The last slave is closed.
                Err(_) => over = true,
            }
            break;
        }
        if self.keep(&buffer[..filled]).is_err() || over {
            self.close();
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (now, later) =
            bytes.split_at(if self.rest.is_empty() { bytes.len().min(self.ring.room()) } else { 0 });
        self.ring.append(now)?;
        self.rest.extend_from_slice(later);
        Ok(())
    }

    /// Output before `offset` may go.
    pub(crate) fn raise_floor(&mut self, offset: u64) {
        self.ring.raise_floor(offset);
        let fits = self.rest.len().min(self.ring.room());
        if fits > 0 && self.ring.append(&self.rest[..fits]).is_ok() {
            self.rest.drain(..fits);
        }
    }

    /// The program may have ended.
    pub(crate) fn on_exit(&mut self, now: Instant) {
        let status = match self.child.try_wait() {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(_) => std::process::ExitStatus::default(),
        };
        use std::os::unix::process::ExitStatusExt;
        let signal = status.signal();
        let code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0));
        self.exit = Some(Exit { code, signal });
        self.slave = None;
        self.closes = Some(now + DRAIN);
    }

    /// Whoever still writes loses the terminal.
    pub(crate) fn on_time(&mut self, now: Instant, buffer: &mut [u8]) {
        if self.closes.is_some_and(|closes| closes <= now) {
            self.read(buffer);
            self.close();
        }
    }

    /// Takes the terminal away from its processes.
    pub(crate) fn hang_up(&mut self) {
        self.slave = None;
        self.close();
    }

    fn close(&mut self) {
        self.master = None;
        self.closes = None;
    }

    /// Takes input; it is written when the program reads.
    pub(crate) fn write(&mut self, seq: u64, data: Vec<u8>) -> Result<(), Refused> {
        self.running()?;
        if self.queued + data.len() > INPUT_MAX {
            return Err((Refusal::Failed, "too much input waits already".to_owned()));
        }
        self.queued += data.len();
        self.input.push_back(Input { seq, data, written: 0 });
        Ok(())
    }

    /// Writes what the program takes; which requests are answered with that, and how.
    pub(crate) fn flush(&mut self) -> Vec<(u64, Result<(), Refused>)> {
        let mut answers = Vec::new();
        while let Some(input) = self.input.front_mut() {
            let result = match (&self.master, self.exit) {
                (Some(master), None) if input.written < input.data.len() => {
                    match rustix::io::write(master, &input.data[input.written..]) {
                        Ok(count) => {
                            input.written += count;
                            continue;
                        }
                        Err(Errno::INTR) => continue,
                        Err(Errno::AGAIN) => break,
                        Err(error) => Err((Refusal::Failed, format!("can't write: {error}"))),
                    }
                }
                (Some(_), None) => Ok(()),
                _ => Err(gone()),
            };
            self.queued -= input.data.len();
            answers.push((input.seq, result));
            self.input.pop_front();
        }
        answers
    }

    /// Nobody reads its output or waits for an answer any more.
    pub(crate) fn forget_daemon(&mut self) {
        self.ring.unsubscribe();
        self.input.iter_mut().for_each(|input| input.seq = 0);
    }

    pub(crate) fn resize(&mut self, cols: u16, rows: u16) -> Result<(), Refused> {
        self.running()?;
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        let master = self.master.as_ref().ok_or_else(gone)?;
        tcsetwinsize(master, size).map_err(|error| (Refusal::Failed, format!("can't resize: {error}")))?;
        self.size = (cols, rows);
        Ok(())
    }

    pub(crate) fn signal(&self, signal: i32, scope: SignalScope) -> Result<(), Refused> {
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| (Refusal::Failed, format!("{signal} is no signal")))?;
        let sent = match scope {
            SignalScope::Shell => self.running().is_ok() && self.session.signal_leader(&[signal]),
            SignalScope::Session => self.session.signal(None, &[signal]) > 0,
            SignalScope::Foreground => {
                let group = self.master.as_ref().and_then(|master| tcgetpgrp(master).ok());
                group.is_some_and(|group| {
                    self.session.signal(Some(group.as_raw_nonzero().get()), &[signal]) > 0
                })
            }
        };
        if sent { Ok(()) } else { Err((Refusal::Gone, "there is nobody to signal".to_owned())) }
    }

    /// Whether the program's end was seen.
    pub(crate) const fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    fn running(&self) -> Result<(), Refused> {
        if self.is_running() { Ok(()) } else { Err(gone()) }
    }
}

fn gone() -> Refused {
    (Refusal::Gone, "its program has ended".to_owned())
}
