//! A holder on a thread, a daemon's side, and what it was told.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castra_core::boundary::EffectError;
use castra_core::id::{EffectId, TerminalId};
use castra_core::terminals::{Deed, Exit, Held, Launch, News, Snapshot};
use castra_driver::terminals::holder::{self, Door};
use castra_driver::terminals::porter::{MakeModel, Model, Options, Porter, Tell};
use castra_driver::work::{JobId, Outcome};
use tempfile::TempDir;

/// Nothing here takes longer unless it hangs.
pub const HANG: Duration = Duration::from_secs(20);
pub const RING: u64 = 64 * 1024;

/// A holder on a thread of this process.
pub struct Holder {
    pub directory: TempDir,
    thread: Option<JoinHandle<io::Result<()>>>,
    stop: UnixStream,
}

impl Holder {
    pub fn start() -> Self {
        Self::lingering(Duration::from_secs(60))
    }

    pub fn lingering(linger: Duration) -> Self {
        let directory = tempfile::Builder::new().prefix("castra-holder-").tempdir().unwrap();
        let door = Door::open(&directory.path().join("t.holder")).unwrap().expect("no other");
        let (stop, theirs) = UnixStream::pair().unwrap();
        let options = holder::Options { ring: RING, linger, stop: Some(theirs.into()) };
        // Tests tell holders apart by the end of the directory's name.
        let name = directory.path().to_str().unwrap();
        let thread = std::thread::Builder::new().name(name[name.len() - 6..].to_owned());
        let thread = Some(thread.spawn(move || holder::serve(door, options)).unwrap());
        Self { directory, thread, stop }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("t.holder")
    }

    /// Its thread's name.
    pub fn name(&self) -> &str {
        self.thread.as_ref().unwrap().thread().name().unwrap()
    }

    /// Waits until it ended by itself.
    pub fn ended(&mut self) {
        let end = Instant::now() + HANG;
        while !self.thread.as_ref().unwrap().is_finished() {
            assert!(Instant::now() < end, "the holder did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// A daemon's side, told things one after another.
pub struct Daemon {
    pub porter: Porter,
    pub held: Vec<Held>,
    told: Receiver<(JobId, Outcome)>,
    /// What came while something else was waited for.
    aside: Mutex<Vec<(JobId, Outcome)>>,
    ids: AtomicU64,
    /// How much each terminal's output holds so far.
    pub ends: Mutex<BTreeMap<u32, u64>>,
}

pub fn options(socket: PathBuf) -> Options {
    Options {
        socket,
        launcher: Vec::new(),
        ring: RING,
        linger: Duration::from_secs(60),
        log: None,
        environment: [("PATH", std::env::var("PATH").unwrap()), ("HOME", "/".to_owned())]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
        model: None,
        stored_history: 100,
    }
}

impl Daemon {
    pub fn new(holder: &Holder) -> Self {
        Self::with(options(holder.socket()))
    }

    pub fn with_model(holder: &Holder) -> Self {
        Self::with(Options { model: Some(tape()), ..options(holder.socket()) })
    }

    pub fn with(options: Options) -> Self {
        let (sender, told) = channel();
        let tell: Tell = Arc::new(move |id, outcome| drop(sender.send((id, outcome))));
        let (porter, held) = Porter::open(options, tell).unwrap();
        let ends = held.iter().map(|held| (held.terminal.0, held.first)).collect();
        Self { porter, held, told, aside: Mutex::default(), ids: AtomicU64::new(1), ends: Mutex::new(ends) }
    }

    pub fn submit(&self, terminal: u32, deed: Deed) -> JobId {
        let id = JobId::Effect(EffectId(self.ids.fetch_add(1, Ordering::Relaxed)));
        self.porter.submit(id, TerminalId(terminal), deed);
        id
    }

    /// Does it and waits for its result.
    pub fn act(&self, terminal: u32, deed: Deed) -> Result<(), EffectError> {
        let id = self.submit(terminal, deed);
        self.result(id)
    }

    pub fn result(&self, of: JobId) -> Result<(), EffectError> {
        match self.find(|id, _| id == of) {
            Outcome::Finished(result) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Whether it has its result; waits for nothing.
    pub fn is_done(&self, of: JobId) -> bool {
        let mut aside = self.aside.lock().unwrap();
        aside.extend(self.told.try_iter());
        aside.iter().any(|(id, _)| *id == of)
    }

    /// Runs a shell script; its process.
    pub fn spawn(&self, terminal: u32, script: &str) -> u32 {
        self.launch(terminal, sh(script)).unwrap()
    }

    pub fn launch(&self, terminal: u32, launch: Launch) -> Result<u32, EffectError> {
        self.ends.lock().unwrap().insert(terminal, 0);
        self.act(terminal, Deed::Spawn { launch: Box::new(launch), first: 0, tail: None })?;
        match self.news(terminal) {
            News::Started { pid, .. } => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    pub fn adopt(&self, terminal: u32) {
        self.act(terminal, Deed::Adopt).unwrap();
    }

    /// The next thing told of a terminal.
    pub fn news(&self, terminal: u32) -> News<'static> {
        match self.find(|id, _| id == JobId::Terminal(TerminalId(terminal))) {
            Outcome::Terminal(news) => news,
            other => panic!("{other:?}"),
        }
    }

    fn find(&self, wanted: impl Fn(JobId, &Outcome) -> bool) -> Outcome {
        let mut aside = self.aside.lock().unwrap();
        if let Some(at) = aside.iter().position(|(id, outcome)| wanted(*id, outcome)) {
            return aside.remove(at).1;
        }
        let end = Instant::now() + HANG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let (id, outcome) = self.told.recv_timeout(left).expect("nothing came");
            if wanted(id, &outcome) {
                return outcome;
            }
            aside.push((id, outcome));
        }
    }

    /// Grants once and waits for the answer: output, or how it ended. News of other
    /// kinds are passed over.
    pub fn more(&self, terminal: u32, most: usize) -> Result<Vec<u8>, News<'static>> {
        self.porter.grant(TerminalId(terminal), most);
        loop {
            match self.news(terminal) {
                News::Output { offset, bytes } => {
                    let mut ends = self.ends.lock().unwrap();
                    let end = ends.entry(terminal).or_default();
                    assert_eq!(offset, *end, "a gap or an overlap");
                    assert!(!bytes.is_empty() && bytes.len() <= most);
                    *end += bytes.len() as u64;
                    return Ok(bytes.into_owned());
                }
                end @ (News::Exited(_) | News::Lost { .. }) => return Err(end),
                _ => {}
            }
        }
    }

    /// All output to its end.
    pub fn all(&self, terminal: u32) -> (Vec<u8>, News<'static>) {
        let mut all = Vec::new();
        loop {
            match self.more(terminal, 50_000) {
                Ok(bytes) => all.extend(bytes),
                Err(end) => return (all, end),
            }
        }
    }

    /// Output until it holds `text`.
    pub fn until(&self, terminal: u32, text: &str) -> String {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(text) {
            match self.more(terminal, 50_000) {
                Ok(bytes) => all.extend(bytes),
                Err(end) => panic!("{end:?} after {:?}", String::from_utf8_lossy(&all)),
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    pub fn snapshot(&self, terminal: u32) -> Snapshot {
        let id = self.submit(terminal, Deed::Snapshot { history_lines: 10 });
        let of = JobId::Terminal(TerminalId(terminal));
        let outcome =
            self.find(|id, outcome| id == of && matches!(outcome, Outcome::Terminal(News::Snapshot(_))));
        self.result(id).unwrap();
        match outcome {
            Outcome::Terminal(News::Snapshot(snapshot)) => *snapshot,
            other => panic!("{other:?}"),
        }
    }
}

pub fn sh(script: &str) -> Launch {
    Launch {
        program: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        cwd: "/".to_owned(),
        env: Vec::new(),
        cols: 80,
        rows: 24,
    }
}

pub fn exited(code: i32) -> News<'static> {
    News::Exited(Exit { code, signal: None })
}

pub fn killed(signal: i32) -> News<'static> {
    News::Exited(Exit { code: 128 + signal, signal: Some(signal) })
}

/// Waits for what nothing announces.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < end, "{what} never came true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs (and is no zombie).
pub fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// A screen that shows the first and the last bytes it was fed: written to another it
/// shows the same.
struct Tape {
    first: Vec<u8>,
    last: Vec<u8>,
    size: (u16, u16),
    replies: Vec<u8>,
}

pub const FIRST: usize = 10;
pub const LAST: usize = 200;

pub fn tape() -> MakeModel {
    Arc::new(|cols, rows| {
        Box::new(Tape { first: Vec::new(), last: Vec::new(), size: (cols, rows), replies: Vec::new() })
    })
}

impl Model for Tape {
    fn feed(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes.iter().filter(|&&byte| byte == b'?').map(|_| b'!'));
        let (first, last) = bytes.split_at(bytes.len().min(FIRST - self.first.len()));
        self.first.extend(first);
        self.last.extend(last);
        let over = self.last.len().saturating_sub(LAST);
        self.last.drain(..over);
    }
    fn resize(&mut self, cols: u16, rows: u16) {
        self.size = (cols, rows);
    }
    fn snapshot(&mut self, _: u32) -> Snapshot {
        let content = String::from_utf8([self.first.as_slice(), &self.last].concat()).unwrap();
        Snapshot { content, cols: self.size.0, rows: self.size.1, ..Snapshot::default() }
    }
    fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }
    fn clear_scrollback(&mut self) {
        self.first.clear();
        self.last.clear();
    }
}
