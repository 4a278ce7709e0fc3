//! `castra down`: a broker takes leave, or is ended, and it is known to be the broker.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use castra_core::control::reply::ErrorCode;
use castra_driver::lock::{Holder, LOCK_FILE};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use serde_json::json;

use crate::Context;
use crate::args::Down;
use crate::client::{Client, ClientError, timespec};
use crate::duration::format;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::paths::Place;

/// Default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a broker may take to say that it goes.
const ANSWER: Duration = Duration::from_secs(2);

/// From TERM to KILL: a drain takes 3 s at most.
const TERM: Duration = Duration::from_secs(4);

/// A process that can't be mistaken for another one with the same number.
struct Process {
    pid: Pid,
    handle: OwnedFd,
}

pub(crate) fn run(cx: &Context, args: &Down) -> Outcome {
    let place = cx.place()?;
    let start = Instant::now();
    let bound = cx.timeout(TIMEOUT);
    let left = || bound.saturating_sub(start.elapsed());
    let mut client = match Client::connect(&place.socket, ANSWER.min(bound)) {
        Ok(client) => client,
        Err(ClientError::NoBroker { .. }) => {
            return match Process::by_lock(&place.state_dir) {
                // It owns the directory, so it is a broker, but nobody can talk to it.
                Some(process) => silent(args, Some(process), left()),
                None => {
                    say("no broker is running: nothing to stop");
                    Ok(Exit::Yes)
                }
            };
        }
        Err(ClientError::NotAnswering { .. }) => {
            return silent(args, Process::by_lock(&place.state_dir), left());
        }
        Err(other) => return Err(other.into()),
    };
    let process = Process::by_lock(&place.state_dir);
    match client.request("shutdown", json!({}), ANSWER.min(left())) {
        Ok(_) | Err(ClientError::Closed { .. }) => {}
        Err(ClientError::Refused(body)) if body.code == ErrorCode::ShuttingDown => {}
        Err(ClientError::NotAnswering { .. }) => return silent(args, process, left()),
        Err(other) => return Err(other.into()),
    }
    let gone = match &process {
        Some(process) => process.ended_within(left()),
        None => socket_gone(&place, left()),
    };
    let named = process.as_ref().map_or_else(String::new, |process| format!(" (pid {})", process.pid));
    match process {
        _ if gone => {
            say(format_args!("the broker{named} took leave and ended"));
            Ok(Exit::Yes)
        }
        Some(process) if args.force => end(&process, TERM),
        _ => Err(Failure::new(
            Exit::Timeout,
            format!(
                "the broker{named} said that it stops and still runs after {}: wait, or use `castra down --force`",
                format(bound)
            ),
        )),
    }
}

/// A broker that is there and says nothing.
fn silent(args: &Down, process: Option<Process>, left: Duration) -> Outcome {
    let Some(process) = process else {
        return Err(Failure::new(
            Exit::Offline,
            "the broker does not answer, and the kernel does not tell which process it is: \
             find it by the files it holds open in the state directory, and end it",
        ));
    };
    if args.force {
        return end(&process, TERM.min(left));
    }
    Err(Failure::new(
        Exit::Offline,
        format!(
            "the broker (pid {0}) does not answer: it is stopped or stuck; \
             if it was stopped, `kill -CONT {0}` lets it go on; `castra down --force` ends it",
            process.pid
        ),
    ))
}

fn end(process: &Process, patience: Duration) -> Outcome {
    for (signal, name, patience) in
        [(Signal::TERM, "TERM", patience), (Signal::KILL, "KILL", Duration::from_secs(2))]
    {
        match pidfd_send_signal(&process.handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(rustix::io::Errno::PERM) => {
                return Err(Failure::new(
                    Exit::Refused,
                    format!("may not end the broker (pid {}): it belongs to another user", process.pid),
                ));
            }
            Err(error) => return Err(Failure::io("can't signal the broker", &error.into())),
        }
        if process.ended_within(patience) {
            say(format_args!("the broker (pid {}) was ended with {name}", process.pid));
            return Ok(Exit::Yes);
        }
    }
    Err(Failure::new(
        Exit::Timeout,
        format!("the broker (pid {}) survived KILL: the kernel holds it", process.pid),
    ))
}

impl Process {
    /// The one that holds the state directory's lock. It is looked for again
    /// once the handle is open: the number was still its own then.
    fn by_lock(state_dir: &Path) -> Option<Self> {
        let pid = lock_holder(state_dir)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (lock_holder(state_dir) == Some(pid)).then_some(Self { pid, handle })
    }

    fn ended_within(&self, span: Duration) -> bool {
        let end = Instant::now() + span;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Where the kernel does not name the process: its socket tells.
fn socket_gone(place: &Place, span: Duration) -> bool {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if matches!(Client::connect(&place.socket, Duration::ZERO), Err(ClientError::NoBroker { .. })) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The process that the state directory's lock names, if it really has that
/// file open: the number alone could be anybody's by now.
pub(crate) fn lock_holder(state_dir: &Path) -> Option<Pid> {
    let lock = state_dir.join(LOCK_FILE);
    if !lock.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(&lock).ok()?.take(64 * 1024).read_to_string(&mut text).ok()?;
    let pid = Pid::from_raw(i32::try_from(serde_json::from_str::<Holder>(&text).ok()?.pid?).ok()?)?;
    // Itself it never is, and has the file open only if somebody gave it to it.
    (pid != getpid() && (has_open(pid, &lock) || has_locked(pid, &lock))).then_some(pid)
}

/// A broker shows its descriptors to root alone; the kernel shows its locks to everybody.
fn has_locked(pid: Pid, file: &Path) -> bool {
    let Ok(wanted) = fs::metadata(file) else { return false };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let ours = |line: &str| {
        // NUMBER: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next();
        let (Some(holder), Some(place)) = (words.nth(2), words.next()) else { return false };
        kind == Some("FLOCK")
            && holder.parse() == Ok(pid.as_raw_pid())
            && place.rsplit(':').next().and_then(|inode| inode.parse().ok()) == Some(wanted.ino())
    };
    locks.lines().any(ours)
}

fn has_open(pid: Pid, file: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(wanted) = identity(file) else { return false };
    let open = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid()));
    open.into_iter().flatten().flatten().any(|entry| identity(&entry.path()) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_a_lock_is_known_without_a_look_at_its_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let lock = castra_driver::lock::StateLock::acquire(dir.path()).unwrap();
        let path = dir.path().join(LOCK_FILE);
        assert!(has_locked(getpid(), &path));
        assert!(!has_locked(Pid::INIT, &path));
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        assert!(!has_locked(getpid(), &other));
        drop(lock);
        assert!(!has_locked(getpid(), &path));
    }

    #[test]
    fn only_a_process_that_has_the_lock_open_is_taken_for_the_broker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        assert_eq!(lock_holder(dir.path()), None);
        let lock = File::create(&path).unwrap();
        let mut holder = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(lock)
            .spawn()
            .unwrap();
        fs::write(&path, format!("{{\"pid\":{}}}\n", holder.id())).unwrap();
        let pid = Pid::from_child(&holder);
        // The child opens nothing itself: it has the file from its first moment on.
        assert_eq!(lock_holder(dir.path()), Some(pid));
        let process = Process::by_lock(dir.path()).unwrap();
        assert!(!process.ended_within(Duration::ZERO));
        drop(holder.stdin.take());
        assert!(process.ended_within(Duration::from_secs(10)));
        holder.wait().unwrap();
        assert_eq!(lock_holder(dir.path()), None);
        // A number that lives, of a process that has nothing to do with it.
        fs::write(&path, "{\"pid\":1}").unwrap();
        assert_eq!(lock_holder(dir.path()), None);
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(lock_holder(dir.path()), None);
    }
}
