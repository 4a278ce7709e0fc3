//! The holder of terminals as a process, and daemons that are killed.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use castra_core::id::{EffectId, TerminalId};
use castra_core::terminals::{Deed, Exit, Held, Launch, News};
use castra_driver::terminals::porter::{Options, Porter, Tell};
use castra_driver::work::{JobId, Outcome};
use common::{HANG, Owned, Scratch, ended, run};

const RING: u64 = 256 * 1024;
const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
/// Tells a run of this test program that it is a daemon that will be killed.
const DAEMON: &str = "CASTRA_TEST_DAEMON_SOCKET";
const FLOOD: u32 = 250_000;

fn options(socket: &Path) -> Options {
    Options {
        socket: socket.to_owned(),
        launcher: vec![CASTRA.into(), "terminals-holder".into()],
        ring: RING,
        linger: Duration::from_millis(500),
        log: Some(socket.with_extension("log")),
        environment: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
        model: None,
        stored_history: 0,
    }
}

/// A daemon in this process.
struct Daemon {
    porter: Porter,
    told: Receiver<(JobId, Outcome)>,
    held: Vec<Held>,
}

impl Daemon {
    fn open(options: Options) -> Self {
        let (sender, told) = channel();
        let tell: Tell = Arc::new(move |id, outcome| drop(sender.send((id, outcome))));
        let (porter, held) = Porter::open(options, tell).unwrap();
        Self { porter, told, held }
    }

    fn act(&self, terminal: u32, deed: Deed) {
        self.porter.submit(JobId::Effect(EffectId(1)), TerminalId(terminal), deed);
    }

    fn spawn(&self, terminal: u32, script: &str) {
        let launch = Launch {
            program: "/bin/sh".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            cwd: "/".to_owned(),
            env: Vec::new(),
            cols: 80,
            rows: 24,
        };
        self.act(terminal, Deed::Spawn { launch: Box::new(launch), first: 0, tail: None });
        self.grant(terminal);
    }

    /// Waits for the next result of a deed.
    fn done(&self) {
        loop {
            if let (_, Outcome::Finished(result)) = self.told.recv_timeout(HANG).expect("a result") {
                return result.unwrap();
            }
        }
    }

    fn grant(&self, terminal: u32) {
        self.porter.grant(TerminalId(terminal), 20_000);
    }

    /// The next news, of whichever terminal.
    fn news(&self) -> (u32, News<'static>) {
        loop {
            match self.told.recv_timeout(HANG).expect("news") {
                (JobId::Terminal(terminal), Outcome::Terminal(news)) => return (terminal.0, news),
                (_, Outcome::Finished(result)) => result.unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Everything told of a terminal until it ended, or its output holds `until`.
    fn hear(&self, wanted: u32, until: &str) -> (String, Option<News<'static>>) {
        let mut output = Vec::new();
        loop {
            match self.news() {
                (terminal, News::Output { bytes, .. }) if terminal == wanted => {
                    output.extend_from_slice(&bytes);
                    let text = String::from_utf8_lossy(&output);
                    if !until.is_empty() && text.contains(until) {
                        return (text.into_owned(), None);
                    }
                    self.grant(terminal);
                }
                (terminal, end @ (News::Exited(_) | News::Lost { .. })) if terminal == wanted => {
                    return (String::from_utf8(output).unwrap(), Some(end));
                }
                _ => {}
            }
        }
    }
}

/// Ends every holder of a directory, and sees that its programs end too.
struct Ended<'a>(&'a Path);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let Ok((porter, held)) =
            Porter::open(Options { launcher: Vec::new(), ..options(self.0) }, Arc::new(|_, _| {}))
        else {
            return;
        };
        let pids: Vec<u32> = held.iter().map(|held| held.pid).collect();
        porter.end_all();
        until("the holder's end", || !self.0.exists());
        if !std::thread::panicking() {
            assert!(pids.iter().all(|pid| !runs(*pid)), "orphans");
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < end, "{what} never came true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat[0] != "Z")
}

/// The one process that holds `socket`.
fn holder(socket: &Path) -> u32 {
    let is = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut words = line.split('\0');
        words.clone().any(|word| word == "terminals-holder")
            && words.any(|word| Path::new(word) == socket)
            && !line.contains("--detach")
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut found = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is);
    let one = found.next().expect("a holder");
    assert_eq!(found.next(), None, "a second holder");
    one
}

/// Not a test of its own: what the next one runs and kills.
#[test]
#[ignore = "run by another test"]
fn a_daemon_that_will_be_killed() {
    let Some(socket) = std::env::var_os(DAEMON).map(PathBuf::from) else { return };
    let daemon = Daemon::open(options(&socket));
    let log = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(socket.with_extension("flood"))
        .unwrap();
    if daemon.held.is_empty() {
        daemon.spawn(0, &format!("stty -onlcr; seq 1 {FLOOD}; exit 5"));
        for terminal in 1..10 {
            daemon.spawn(terminal, &format!("echo ready; read line; exit {terminal}"));
        }
    }
    for held in &daemon.held {
        daemon.act(held.terminal.0, Deed::Adopt);
        daemon.grant(held.terminal.0);
    }
    loop {
        if let (terminal, News::Output { offset, bytes }) = daemon.news() {
            if terminal == 0 {
                log.write_all_at(&bytes, offset).unwrap();
                println!("offset {}", offset + bytes.len() as u64);
            } else {
                println!("terminal {terminal}");
            }
            daemon.grant(terminal);
        }
    }
}

#[test]
fn killed_daemons_lose_no_terminal_and_no_byte_and_ends_in_between_are_told() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("t.holder");
    let _end = Ended(&socket);
    let mut held = BTreeMap::new();
    for round in 0..4 {
        let mut daemon = Command::new(std::env::current_exe().unwrap());
        daemon.args(["a_daemon_that_will_be_killed", "--exact", "--ignored", "--nocapture"]);
        let daemon = daemon.env(DAEMON, &socket).stdout(Stdio::piped()).spawn().unwrap();
        let mut daemon = Owned(daemon);
        let mut lines = BufReader::new(daemon.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut ready = 0;
        let goal = 150_000 * (round + 1);
        let mut offset = 0;
        while offset < goal || (round == 0 && ready < 9) {
            let line = lines.next().expect("a daemon that lives");
            if let Some(reached) = line.strip_prefix("offset ") {
                offset = reached.parse().unwrap();
            }
            ready += usize::from(line.starts_with("terminal "));
        }
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
        let pid = holder(&socket);
        assert_eq!(*held.entry("holder").or_insert(pid), pid, "the same holder");
    }
    let flood = socket.with_extension("flood");
    let known = std::fs::metadata(&flood).unwrap().len();
    let daemon = Daemon::open(options(&socket));
    assert_eq!(daemon.held.iter().map(|held| held.terminal.0).collect::<Vec<_>>(), Vec::from_iter(0..10));
    let first = daemon.held[0].first;
    assert!(first <= known, "bytes {known} to {first} are lost");
    let waiting = daemon.held[4].pid;
    for held in &daemon.held {
        daemon.act(held.terminal.0, Deed::Adopt);
        daemon.grant(held.terminal.0);
    }
    daemon.act(4, Deed::Write(b"go\n".to_vec()));
    let log = OpenOptions::new().write(true).open(&flood).unwrap();
    let mut next = first;
    let mut ends = BTreeMap::new();
    while ends.len() < 2 {
        match daemon.news() {
            (0, News::Output { offset, bytes }) => {
                assert_eq!(offset, next);
                next += bytes.len() as u64;
                log.write_all_at(&bytes, offset).unwrap();
                daemon.grant(0);
            }
            (terminal, News::Output { .. }) => daemon.grant(terminal),
            (terminal, News::Exited(exit)) => drop(ends.insert(terminal, exit)),
            (_, News::Directory(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ends[&0], Exit { code: 5, signal: None });
    assert_eq!(ends[&4], Exit { code: 4, signal: None });
    until("the end", || !runs(waiting));
    let expected: String = (1..=FLOOD).map(|number| format!("{number}\n")).collect();
    assert!(std::fs::read(&flood).unwrap() == expected.as_bytes(), "not what was written");
    // One is killed while nobody is there, by nobody we know.
    let victim = daemon.held[7].pid;
    drop(daemon);
    assert!(run(Command::new("kill").args(["-9", &victim.to_string()])).code == Some(0));
    until("its end", || !runs(victim));
    let daemon = Daemon::open(options(&socket));
    daemon.act(7, Deed::Adopt);
    daemon.grant(7);
    let (output, end) = daemon.hear(7, "");
    assert_eq!(output, "ready\r\n");
    assert_eq!(end, Some(News::Exited(Exit { code: 137, signal: Some(9) })));
}

#[test]
fn a_killed_holder_is_said_to_be_lost_and_a_new_one_is_started_for_the_next_terminal() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("t.holder");
    let _end = Ended(&socket);
    let daemon = Daemon::open(options(&socket));
    daemon.spawn(1, "echo ready; exec sleep 1000");
    daemon.hear(1, "ready");
    let first = holder(&socket);
    let killed = run(Command::new("kill").args(["-9", &first.to_string()]));
    assert_eq!(killed.code, Some(0));
    let (_, end) = daemon.hear(1, "");
    assert!(matches!(end, Some(News::Lost { .. })), "{end:?}");
    daemon.act(1, Deed::Release);
    // The same number again, as a cold restore does.
    daemon.spawn(1, "echo again; exit 3");
    let (output, end) = daemon.hear(1, "");
    assert_eq!((output.as_str(), end), ("again\r\n", Some(News::Exited(Exit { code: 3, signal: None }))));
    assert_ne!(holder(&socket), first);
}

#[test]
fn a_holder_is_nobodys_child_and_holds_nothing_of_whoever_started_it() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("t.holder");
    let _end = Ended(&socket);
    // Signals are ignored and blocked, and a descriptor is open, in whoever starts it.
    let launcher = "trap '' HUP INT QUIT TERM USR1 TSTP CHLD PIPE; exec 9</etc/passwd; exec \"$@\"";
    let launcher: Vec<OsString> =
        ["bash", "-c", launcher, "sh", CASTRA, "terminals-holder"].map(OsString::from).to_vec();
    let daemon = Daemon::open(Options { launcher, ..options(&socket) });
    let pid = holder(&socket);
    let its = stat(pid).unwrap();
    assert_ne!(its[1], std::process::id().to_string(), "its parent");
    assert_eq!(its[3], pid.to_string(), "its session");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let open = |pid: u32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
    };
    assert!(!open(pid).contains(&PathBuf::from("/etc/passwd")), "{:?}", open(pid));
    assert!(open(pid).contains(&PathBuf::from("/dev/null")));
    daemon.spawn(1, "grep -E 'Sig(Ign|Blk)' /proc/self/status");
    let (output, _) = daemon.hear(1, "");
    for line in output.lines() {
        // 32 and 33 are the C library's own; nobody else can have them.
        let set = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        assert_eq!(set & !(0b11 << 31), 0, "{output}");
    }
    assert_eq!(output.lines().count(), 2);
    daemon.spawn(2, "echo $$; exec cat");
    let (output, _) = daemon.hear(2, "\n");
    let program = output.trim().parse().unwrap();
    let terminal = open(program);
    assert_eq!(terminal.len(), 3, "{terminal:?}");
    assert!(terminal.iter().all(|path| *path == terminal[0] && path.starts_with("/dev/pts")), "{terminal:?}");
    // A second one finds it, and ends.
    let second = run(scratch.command(&["terminals-holder", "--socket"]).arg(&socket));
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), "taken\n"), "{}", second.stderr);
    // TERM ends it and its programs.
    assert_eq!(run(Command::new("kill").arg(pid.to_string())).code, Some(0));
    until("its end", || !runs(pid) && !runs(program));
    assert!(!socket.exists());
}

#[test]
fn a_holder_without_a_terminal_ends_itself_and_its_log_says_nothing() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("t.holder");
    let mut held = scratch.command(&["terminals-holder", "--linger-ms", "300", "--socket"]);
    let mut held = Owned(held.arg(&socket).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(held.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    let daemon = Daemon::open(Options { launcher: Vec::new(), ..options(&socket) });
    daemon.spawn(1, "exit 0");
    assert!(matches!(daemon.hear(1, "").1, Some(News::Exited(_))));
    daemon.act(1, Deed::Release);
    daemon.done();
    drop(daemon);
    assert_eq!(ended(&mut held.0, HANG), Some(0));
    assert!(!socket.exists());
    assert!(!scratch.run(&["--help"]).stdout.contains("holder"));
    let elsewhere = run(scratch.command(&["terminals-holder", "--socket"]).arg("/no/such/directory/t"));
    assert!(elsewhere.code != Some(0) && elsewhere.stderr.contains("can't hold terminals"));
}
