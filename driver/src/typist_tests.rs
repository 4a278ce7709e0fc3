use super::*;
use crate::terminals::client::Client;
use crate::terminals::rig::{HANG, Rig, read, until};
use crate::threads::ThreadWork;
use crate::work::{Done, Job, Work};
use castra_core::id::EffectId;
use castra_core::terminals::TerminalsConfig;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

const SHORT: Duration = Duration::from_millis(300);

/// Whoever has something typed.
struct Asker {
    work: ThreadWork,
    woken: Receiver<()>,
    done: Vec<Done>,
    next: u64,
}

impl Asker {
    fn new(socket: &Path) -> Self {
        let (sender, woken) = channel();
        let sender = std::sync::Mutex::new(sender);
        let wake = Arc::new(move || {
            let _ = sender.lock().expect("no panic").send(());
        });
        let work = ThreadWork::new(None, None, wake).expect("workers").with_typist(socket.to_owned());
        Self { work, woken, done: Vec::new(), next: 0 }
    }

    fn submit(&mut self, terminal: &str, bytes: &[u8], patience: Duration) -> JobId {
        self.next += 1;
        let id = JobId::Effect(EffectId(self.next));
        let bytes = Typed(bytes.to_vec());
        self.work.submit(id, Job::Type { terminal: terminal.to_owned(), bytes, patience });
        id
    }

    fn end(&mut self, id: JobId) -> Result<(), EffectErrorKind> {
        loop {
            self.work.collect(&mut self.done);
            if let Some(at) = self.done.iter().position(|done| done.job == id) {
                let Outcome::Finished(end) = self.done.remove(at).outcome else { panic!("an outcome") };
                return end.map_err(|error| {
                    assert!(!error.message.is_empty());
                    error.kind
                });
            }
            self.woken.recv_timeout(HANG).expect("an end");
        }
    }

    fn ask(&mut self, terminal: &str, bytes: &[u8]) -> Result<(), EffectErrorKind> {
        let id = self.submit(terminal, bytes, HANG);
        self.end(id)
    }
}

/// Types as somebody else; false: the terminal is owned.
fn types(client: &mut Client, session: u32) -> bool {
    let typed = client.ask(&Request::Input { session, data: Secret(b"x") }, &Call::alone(HANG));
    match typed {
        Ok(_) => true,
        Err(ClientError::Refused { code: Some(ErrorCode::OwnerRequired), .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn everything_is_typed_in_the_order_asked_for() {
    let rig = Rig::start();
    rig.notes("one");
    rig.notes("two");
    let mut asker = Asker::new(&rig.socket);
    let (mut first, mut second, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..200_usize {
        let text = format!("{number}\u{1b}\r\n\0").into_bytes();
        let (name, whole) = if number % 3 == 0 { ("two", &mut second) } else { ("one", &mut first) };
        whole.extend_from_slice(&text);
        ids.push(asker.submit(name, &text, HANG));
    }
    let long: Vec<u8> = (0..INPUT * 3 + 7).map(|at| (at % 251) as u8).collect();
    first.extend_from_slice(&long);
    ids.push(asker.submit("one", &long, HANG));
    for id in ids {
        assert_eq!(asker.end(id), Ok(()));
    }
    rig.noted("one", &first);
    rig.noted("two", &second);
    assert_eq!(asker.ask("one", b""), Ok(()));
}

#[test]
fn a_terminal_that_is_not_there_or_has_ended_is_missing() {
    let rig = Rig::start();
    rig.run("ended", "exit 3");
    rig.run("other", "exec sleep 1000");
    let mut asker = Asker::new(&rig.socket);
    assert_eq!(asker.ask("main", b"x"), Err(EffectErrorKind::ProgramMissing));
    until("an end", || asker.ask("ended", b"") == Err(EffectErrorKind::ProgramMissing));
    assert_eq!(asker.ask("ended", b"x"), Err(EffectErrorKind::ProgramMissing));
    // The next one of the name is another terminal, also when nobody asked in between.
    let (mut person, call) = (rig.client("person"), Call::alone(HANG));
    let mut runs = move || {
        let running = person.ask(&Request::List, &call).expect("a list").running;
        running.iter().any(|(name, _)| name == "main")
    };
    for script in ["stty raw; : > up; head -c 3 > got", "stty raw; : > up; head -c 3 > again"] {
        let _ = std::fs::remove_file(rig.path("up"));
        rig.run("main", script);
        until("a raw terminal", || rig.path("up").exists());
        assert_eq!(asker.ask("main", b"abc"), Ok(()));
        until("its end", || !runs());
    }
    assert_eq!(asker.ask("main", b""), Err(EffectErrorKind::ProgramMissing));
    assert_eq!((read(&rig.path("got")), read(&rig.path("again"))), (b"abc".to_vec(), b"abc".to_vec()));
}

#[test]
fn a_terminal_of_somebody_else_is_left_alone() {
    let rig = Rig::start();
    let session = rig.notes("main");
    let mut person = rig.client("person");
    assert!(types(&mut person, session));
    let mut asker = Asker::new(&rig.socket);
    assert_eq!(asker.ask("main", b"no"), Err(EffectErrorKind::Owned));
    assert!(types(&mut person, session), "it is still theirs");
    person.ask(&Request::Detach { session }, &Call::alone(HANG)).expect("given back");
    assert_eq!(asker.ask("main", b"yes"), Ok(()));
    rig.noted("main", b"xxyes");
    // Who takes it over has it.
    person.ask(&Request::Takeover { session }, &Call::alone(HANG)).expect("taken");
    assert_eq!(asker.ask("main", b"no"), Err(EffectErrorKind::Owned));
}

#[test]
fn a_terminal_is_let_go_a_moment_after_the_last_byte() {
    let rig = Rig::start();
    let session = rig.notes("main");
    let mut person = rig.client("person");
    let mut asker = Asker::new(&rig.socket);
    assert_eq!(asker.ask("main", b"a"), Ok(()));
    let begun = Instant::now();
    assert!(!types(&mut person, session), "more may follow");
    until("a free terminal", || types(&mut person, session));
    let took = begun.elapsed();
    assert!(took > LET_GO / 2 && took < LET_GO * 5, "{took:?}");
    person.ask(&Request::Detach { session }, &Call::alone(HANG)).expect("given back");
    assert_eq!(asker.ask("main", b"b"), Ok(()));
    rig.noted("main", b"axb");
}

#[test]
fn a_program_that_does_not_read_is_waited_for_in_bounds_and_not_when_it_is_cancelled() {
    let rig = Rig::with(TerminalsConfig { input_max: 100_000, ..TerminalsConfig::default() });
    rig.run("deaf", "stty raw -echo; exec sleep 1000");
    rig.notes("main");
    let mut asker = Asker::new(&rig.socket);
    let long = vec![b'x'; 1_000_000];
    let begun = Instant::now();
    let late = asker.submit("deaf", &long, SHORT);
    let behind = asker.submit("main", b"late", SHORT / 3);
    assert_eq!(asker.end(behind), Err(EffectErrorKind::TimedOut));
    assert!(begun.elapsed() < SHORT, "not when the one before it ended");
    assert_eq!(asker.end(late), Err(EffectErrorKind::TimedOut));
    assert!(begun.elapsed() >= SHORT);
    let cancelled = asker.submit("deaf", &long, HANG * 10);
    let waiting = asker.submit("main", b"never", HANG * 10);
    let next = asker.submit("main", b"typed", HANG);
    asker.work.cancel(waiting);
    assert_eq!(asker.end(waiting), Err(EffectErrorKind::Cancelled));
    asker.work.cancel(cancelled);
    assert_eq!(asker.end(cancelled), Err(EffectErrorKind::Cancelled));
    assert_eq!(asker.end(next), Ok(()));
    rig.noted("main", b"typed");
}

#[test]
fn without_terminals_nobody_is_there_and_the_next_daemon_is_found() {
    let mut rig = Rig::start();
    rig.notes("main");
    let mut asker = Asker::new(&rig.socket);
    assert_eq!(asker.ask("main", b"a"), Ok(()));
    rig.end();
    assert_eq!(asker.ask("main", b"b"), Err(EffectErrorKind::Unreachable));
    rig.restart();
    assert_eq!(asker.ask("main", b"c"), Ok(()));
    rig.restart();
    assert_eq!(asker.ask("main", b"d"), Ok(()));
    rig.noted("main", b"acd");
}

#[test]
fn a_daemon_that_does_not_answer_takes_no_longer_than_it_may() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("t.sock");
    let _listener = UnixListener::bind(&socket).expect("a listener");
    let mut asker = Asker::new(&socket);
    let begun = Instant::now();
    let id = asker.submit("main", b"x", SHORT);
    assert_eq!(asker.end(id), Err(EffectErrorKind::TimedOut));
    assert!(begun.elapsed() >= SHORT);
    let id = asker.submit("main", b"x", HANG * 10);
    asker.work.cancel(id);
    assert_eq!(asker.end(id), Err(EffectErrorKind::Cancelled));
    let begun = Instant::now();
    asker.submit("main", b"x", HANG * 10);
    asker.work.stop(HANG);
    assert!(begun.elapsed() < HANG / 2, "the end waits for nobody");
}
