//! A command that is run when a guest's verdict changes.
//!
//! One runs at a time, on a thread of its own, so that changes of one guest are told in
//! their order. What changes meanwhile waits, at most one entry a guest: a guest that
//! flaps is told of once, with how often it changed. None may take longer than
//! [`HOOK_MAX`]. Output is appended to `logs/on-change.log`, beside the broker's log.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use castra_core::event::{Event, Fact};
use castra_core::id::GuestName;
use castra_core::status::{Reason, State};
use castra_core::time::WallTime;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::start::{Log, within};
use crate::supervisor;

/// Longest run of one command; then its process group is killed.
pub const HOOK_MAX: Duration = Duration::from_secs(30);

/// How long the one that runs may go on when the broker stops.
const LAST: Duration = Duration::from_secs(2);

/// How often a run is looked at for an end that the broker's stop asks for.
const STEP: Duration = Duration::from_millis(50);

/// What is run, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookOptions {
    /// For `/bin/sh -c`.
    pub command: String,
    /// `CASTRA_STATE_DIR`, absolute.
    pub state_dir: PathBuf,
    /// Where `on-change.log` goes.
    pub logs: PathBuf,
}

/// The thread that runs them. Dropped, it tells nothing more, and ends.
#[derive(Debug)]
pub struct Hooks {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// In the order of their first change.
    order: VecDeque<GuestName>,
    changes: BTreeMap<GuestName, Change>,
    stopping: bool,
}

/// What became of one guest since it was told of last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Change {
    from: State,
    to: State,
    reason: Option<Reason>,
    at: WallTime,
    changes: u32,
}

impl Hooks {
    /// Nothing has changed yet.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(options: HookOptions) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("castra-hooks".to_owned());
        let thread = thread.spawn(move || {
            while let Some((guest, change)) = theirs.next() {
                theirs.run(&options, guest, change);
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Remembers a change of verdict; other events are none of its business. Never blocks
    /// for longer than it takes to say so.
    pub fn event(&self, event: &Event) {
        let (Some(guest), Fact::VerdictChanged { from, to, reason, .. }) = (event.guest, &event.fact) else {
            return;
        };
        self.shared.locked().changed(guest, *from, *to, *reason, event.at);
        self.shared.wake.notify_one();
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.shared.locked().stopping = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It panics only if it has a bug, and then it has ended too.
            let _ = thread.join();
        }
    }
}

impl Waiting {
    fn changed(&mut self, guest: GuestName, from: State, to: State, reason: Option<Reason>, at: WallTime) {
        match self.changes.get_mut(&guest) {
            Some(change) => {
                *change = Change { to, reason, at, changes: change.changes.saturating_add(1), ..*change };
            }
            None => {
                self.order.push_back(guest);
                self.changes.insert(guest, Change { from, to, reason, at, changes: 1 });
            }
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest that waits longest; `None` when the broker stops.
    fn next(&self) -> Option<(GuestName, Change)> {
        let mut waiting = self.locked();
        loop {
            if waiting.stopping {
                return None;
            }
            if let Some(guest) = waiting.order.pop_front()
                && let Some(change) = waiting.changes.remove(&guest)
            {
                return Some((guest, change));
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, options: &HookOptions, guest: GuestName, change: Change) {
        // Without a log there is nowhere to say why.
        let Ok(mut log) = Log::open(options.logs.join("on-change.log")) else { return };
        let told = match spawn(options, guest, change, &log) {
            Ok(child) => self.watched(child),
            Err(error) => Some(format!("can't be run: {error}")),
        };
        if let Some(told) = told {
            let _ = writeln!(log.file, "castra: {} {guest} {} {}: {told}", change.at, change.from, change.to);
        }
    }

    /// How it ended, if not well.
    fn watched(&self, mut child: Child) -> Option<String> {
        let mut left = HOOK_MAX;
        loop {
            match within(&mut child, STEP) {
                Ok(Some(status)) if status.success() => return None,
                Ok(Some(status)) => return Some(status.to_string()),
                Ok(None) if !left.is_zero() => {
                    left = left.saturating_sub(STEP);
                    if self.locked().stopping {
                        left = left.min(LAST);
                    }
                }
                Ok(None) | Err(_) => {
                    // Ours, and not reaped: the number is nobody else's.
                    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                    let _ = child.wait();
                    return Some("took too long, and was killed".into());
                }
            }
        }
    }
}

fn spawn(options: &HookOptions, guest: GuestName, change: Change, log: &Log) -> io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    supervisor::hide_from(&mut command);
    command
        .arg("-c")
        .arg(&options.command)
        .process_group(0)
        .current_dir("/")
        .env("CASTRA_GUEST", guest.as_str())
        .env("CASTRA_FROM", change.from.as_str())
        .env("CASTRA_TO", change.to.as_str())
        .env("CASTRA_REASON", change.reason.map_or("", Reason::as_str))
        .env("CASTRA_AT", change.at.to_string())
        .env("CASTRA_CHANGES", change.changes.to_string())
        .env("CASTRA_STATE_DIR", &options.state_dir)
        .stdin(Stdio::null())
        .stdout(log.file.try_clone()?)
        .stderr(log.file.try_clone()?)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Instant;

    fn event(guest: &str, from: State, to: State) -> Event {
        Event {
            cursor: "1-1".parse().expect("a cursor"),
            at: WallTime::from_unix_millis(0),
            guest: Some(guest.parse().expect("a name")),
            fact: Fact::VerdictChanged {
                from,
                to,
                reason: (to == State::Waiting).then_some(Reason::Stale),
                age_ms: None,
            },
        }
    }

    fn hooks(dir: &Path, command: &str) -> Hooks {
        let command = command.to_owned();
        Hooks::start(HookOptions { command, state_dir: dir.to_owned(), logs: dir.to_owned() })
            .expect("a thread")
    }

    fn until(path: &Path, lines: usize) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= lines {
                return text;
            }
            assert!(Instant::now() < deadline, "{lines} lines of {text:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_guest_that_flaps_while_a_command_runs_is_told_of_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (out, go) = (dir.path().join("out"), dir.path().join("go"));
        rustix::fs::mknodat(rustix::fs::CWD, &go, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a pipe");
        let command = format!(
            "echo $CASTRA_GUEST $CASTRA_FROM $CASTRA_TO $CASTRA_REASON $CASTRA_CHANGES >>{}; read x <{}",
            out.display(),
            go.display()
        );
        let hooks = hooks(dir.path(), &command);
        hooks.event(&event("a", State::Waiting, State::Reachable));
        until(&out, 1);
        for _ in 0..3 {
            hooks.event(&event("b", State::Reachable, State::Waiting));
            hooks.event(&event("b", State::Waiting, State::Reachable));
        }
        hooks.event(&event("c", State::Reachable, State::Waiting));
        for told in 1..=3 {
            until(&out, told);
            std::fs::write(&go, "\n").expect("somebody reads");
        }
        let text = until(&out, 3);
        assert_eq!(text, "a waiting reachable 1\nb reachable reachable 6\nc reachable waiting stale 1\n");
    }

    #[test]
    fn a_command_that_fails_is_told_in_its_log_and_the_next_is_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let hooks = hooks(dir.path(), "echo words; exit 3");
        hooks.event(&event("a", State::Waiting, State::Reachable));
        hooks.event(&event("b", State::Waiting, State::Reachable));
        let text = until(&dir.path().join("on-change.log"), 4);
        assert_eq!(text.matches("words\n").count(), 2, "{text}");
        assert!(text.contains("a waiting reachable: exit status: 3"), "{text}");
    }

    #[test]
    fn a_command_that_never_ends_does_not_outlive_the_broker() {
        let dir = tempfile::tempdir().expect("a directory");
        let out = dir.path().join("out");
        let hooks = hooks(dir.path(), &format!("echo $$ >>{}; sleep 1000 & sleep 1000", out.display()));
        hooks.event(&event("a", State::Waiting, State::Reachable));
        let group = until(&out, 1).trim().parse().expect("a number");
        drop(hooks);
        let group = Pid::from_raw(group).expect("a group");
        let deadline = Instant::now() + Duration::from_secs(30);
        // Its orphans are reaped by whoever adopts them.
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < deadline, "something of it still runs");
            thread::sleep(Duration::from_millis(5));
        }
        let text = std::fs::read_to_string(dir.path().join("on-change.log")).expect("a log");
        assert!(text.contains("took too long"), "{text}");
    }
}
