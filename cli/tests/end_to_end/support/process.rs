//! Child processes: signalled by number, read line by line, never left behind.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

use super::PATIENCE;

/// A child, killed and reaped on drop.
pub(crate) struct Process {
    child: Child,
    what: String,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
    began: Instant,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Process {
    pub(crate) fn spawn(command: Command) -> Self {
        Self::spawn_saying(command, Stdio::piped())
    }

    /// The same, with its standard output somewhere else.
    pub(crate) fn spawn_saying(mut command: Command, out: Stdio) -> Self {
        let what = format!("{command:?}");
        let mut child = command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        // What holds the other end of what was given to the child.
        drop(command);
        let out = child.stdout.take().map_or_else(|| Lines::of(std::io::empty()), Lines::of);
        let err = Lines::of(child.stderr.take().unwrap());
        Self { child, what, out, err, began: Instant::now() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Not reaped yet: the number is still its own.
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it, and returns when it is stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = until(PATIENCE, || self.stat() == 'T');
        assert!(stopped, "{} did not stop", self.what);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it, and returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its exit, which must come within `bound`.
    pub(crate) fn exit(&mut self, bound: Duration) -> ExitStatus {
        let handle = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let end = Instant::now() + bound;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
                Ok(0) => panic!("{} still runs after {bound:?}\n{}", self.what, self.err.text()),
                Ok(_) => return self.child.wait().unwrap(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("waiting for {}: {error}", self.what),
            }
        }
    }

    /// Its end and all that it said, within `bound`.
    pub(crate) fn finish(mut self, bound: Duration) -> Ran {
        let status = self.exit(bound);
        let took = self.began.elapsed();
        let code = status.code().unwrap_or_else(|| panic!("{} ended with {status}", self.what));
        Ran { code, out: self.out.whole(), err: self.err.whole(), took }
    }

    fn stat(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name in parentheses may hold anything.
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}{}", self.what, self.out.text(), self.err.text());
        }
    }
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The cursor of the last line of `castra events --json`: a follower that
    /// begins there misses nothing, however late it comes.
    pub(crate) fn cursor(&self) -> String {
        let last = self.out.lines().last().unwrap_or_else(|| panic!("no events: {self:?}"));
        let event: Value = serde_json::from_str(last).unwrap();
        event["cursor"].as_str().unwrap().to_owned()
    }
}

/// What a process says, kept from its first line on.
pub(crate) struct Lines {
    said: Arc<(Mutex<Said>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let said = Arc::new((Mutex::new(Said::default()), Condvar::new()));
        let shared = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = vec![];
            while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                locked(&shared.0).lines.push(text);
                shared.1.notify_all();
                line.clear();
            }
            locked(&shared.0).ended = true;
            shared.1.notify_all();
        });
        Self { said, reader: Some(reader) }
    }

    /// How many lines there are: a place to wait from.
    pub(crate) fn mark(&self) -> usize {
        self.lock().lines.len()
    }

    /// The first line after `mark` that holds `needle`; it must come within `bound`.
    pub(crate) fn after(&self, mark: usize, needle: &str, bound: Duration) -> String {
        let end = Instant::now() + bound;
        let mut said = self.lock();
        loop {
            let found = said.lines.iter().skip(mark).find(|line| line.contains(needle));
            if let Some(line) = found {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            let text = said.lines.join("\n");
            assert!(
                !said.ended && !left.is_zero(),
                "{needle:?} did not come (ended: {}): {text}",
                said.ended
            );
            said = self.said.1.wait_timeout(said, left).unwrap().0;
        }
    }

    /// The first line.
    pub(crate) fn first(&self, bound: Duration) -> String {
        self.after(0, "", bound)
    }

    pub(crate) fn text(&self) -> String {
        let said = self.lock();
        said.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        locked(&self.said.0)
    }

    /// All of it, once the stream has ended.
    fn whole(&mut self) -> String {
        self.reader.take().unwrap().join().unwrap();
        self.text()
    }
}

/// A failed assertion under the lock must not hide what was said.
fn locked(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks again and again, for what nothing announces; whether it came about within `bound`.
pub(crate) fn until(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + bound;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Milliseconds since the epoch, as in events.
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

pub(super) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
