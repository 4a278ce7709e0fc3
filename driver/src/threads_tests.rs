use super::*;
use crate::files::Rotation;
use crate::store::Store;
use castra_core::auth::Key;
use castra_core::boundary::Change;
use castra_core::id::EffectId;
use castra_core::legacy::Record;
use castra_core::time::WallTime;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};

struct Fixture {
    directory: tempfile::TempDir,
    work: ThreadWork,
    woken: Receiver<()>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(directory.path(), WallTime::default()).expect("a store");
        let log = |name: &str| LogFile::new(directory.path().join(name), Rotation::default());
        let files = WorkFiles {
            log: log("broker.log"),
            events: log("events.jsonl"),
            handshakes: log("handshake-events.jsonl"),
            records: directory.path().to_owned(),
            config: None,
            echo: false,
        };
        let (sender, woken) = channel();
        let sender = std::sync::Mutex::new(sender);
        let wake = Arc::new(move || {
            if let Ok(sender) = sender.lock() {
                let _ = sender.send(());
            }
        });
        let work = ThreadWork::new(Some(Box::new(store)), Some(files), wake).expect("workers");
        Self { directory, work, woken }
    }

    /// Waits for this many ends.
    fn wait(&mut self, count: usize) -> Vec<Done> {
        let mut done = Vec::new();
        while done.len() < count {
            match self.woken.recv_timeout(Duration::from_secs(10)) {
                Ok(()) => self.work.collect(&mut done),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("only {done:?}"),
            }
        }
        done
    }

    fn read(&self, name: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).expect("a file")
    }
}

fn effect(number: u64) -> JobId {
    JobId::Effect(EffectId(number))
}

fn token(guest: &str, byte: u8) -> Job {
    let guest = guest.parse().expect("a name");
    Job::Persist(vec![Change::SetToken { guest, key: Some(Key::from_bytes([byte; 32])) }])
}

#[test]
fn commits_end_in_the_order_in_which_they_were_asked_for() {
    let mut it = Fixture::new();
    for number in 0..100 {
        it.work.submit(effect(number), token("devbox", number as u8));
    }
    let done = it.wait(100);
    let order: Vec<_> = done.iter().map(|done| done.job).collect();
    assert_eq!(order, (0..100).map(effect).collect::<Vec<_>>());
    assert!(done.iter().all(|done| matches!(done.outcome, Outcome::Finished(Ok(())))));
    assert!(it.work.stop(Duration::from_secs(10)));
    let (_, found) = Store::open(it.directory.path(), WallTime::default()).expect("a store");
    assert_eq!(found.tokens, vec![("devbox".parse().expect("a name"), Some(Key::from_bytes([99; 32])))]);
}

#[test]
fn records_are_written_whole_and_removed() {
    let mut it = Fixture::new();
    let vm = "devbox".parse().expect("a name");
    let record =
        Record { vm, timestamp: 7, capabilities: castra_core::capabilities::Capabilities::parse("a,b") };
    it.work.submit(effect(1), Job::WriteRecord(Box::new(record)));
    it.wait(1);
    let text = it.read("devbox.json");
    assert_eq!(
        text,
        "{\n  \"vm\": \"devbox\",\n  \"timestamp\": 7,\n  \"capabilities\": [\n    \"a\",\n    \"b\"\n  ]\n}"
    );
    for number in 2..4 {
        it.work.submit(effect(number), Job::RemoveRecord(vm));
    }
    let done = it.wait(2);
    assert!(done.iter().all(|done| matches!(done.outcome, Outcome::Finished(Ok(())))), "{done:?}");
    assert!(!it.directory.path().join("devbox.json").exists());
}

#[test]
fn lines_reach_their_files_and_a_failure_is_told() {
    let mut it = Fixture::new();
    let append =
        Append { log: b"a line\n".to_vec(), events: b"{}\n".to_vec(), handshakes: b"{\"vm\":1}\n".to_vec() };
    it.work.submit(JobId::Append, Job::Append(append.clone()));
    let done = it.wait(1);
    assert!(matches!(done[0].outcome, Outcome::Appended { bytes: 19, error: None }), "{done:?}");
    assert_eq!(it.read("broker.log"), "a line\n");
    assert_eq!(it.read("events.jsonl"), "{}\n");
    std::fs::remove_file(it.directory.path().join("broker.log")).expect("a removal");
    std::fs::create_dir(it.directory.path().join("broker.log")).expect("a directory");
    it.work.submit(JobId::Reopen, Job::Reopen);
    it.work.submit(JobId::Append, Job::Append(append));
    let done = it.wait(2);
    assert!(matches!(&done[0].outcome, Outcome::Finished(Err(_))), "{done:?}");
    assert!(matches!(&done[1].outcome, Outcome::Appended { error: Some(_), .. }), "{done:?}");
    assert_eq!(it.read("events.jsonl"), "{}\n{}\n", "the other files go on");
}

#[test]
fn names_are_looked_up_off_the_loop() {
    let mut it = Fixture::new();
    it.work.submit(effect(1), Job::Resolve { host: "localhost".to_owned(), port: 7070 });
    let done = it.wait(1);
    let Outcome::Resolved(Ok(addresses)) = &done[0].outcome else { panic!("{done:?}") };
    assert!(addresses.iter().any(|address| address.ip().is_loopback() && address.port() == 7070));
}

#[test]
fn a_look_up_without_a_thread_fails_as_a_look_up_and_the_next_one_may_have_one() {
    let mut it = Fixture::new();
    let look_up = || Job::Resolve { host: "127.0.0.1".to_owned(), port: 7070 };
    let usual = std::mem::replace(&mut it.work.names.stack_bytes, 1 << 60);
    it.work.submit(effect(1), look_up());
    let done = it.wait(1);
    assert!(matches!(&done[0].outcome, Outcome::Resolved(Err(_))), "{done:?}");
    it.work.names.stack_bytes = usual;
    it.work.submit(effect(2), look_up());
    let done = it.wait(1);
    assert!(matches!(&done[0].outcome, Outcome::Resolved(Ok(_))), "{done:?}");
}

#[test]
fn without_files_and_store_every_job_is_still_answered() {
    let (sender, _woken) = channel();
    let sender = std::sync::Mutex::new(sender);
    let wake = Arc::new(move || {
        let _ = sender.lock().map(|sender| sender.send(()));
    });
    let mut work = ThreadWork::new(None, None, wake).expect("workers");
    work.submit(effect(1), token("devbox", 1));
    work.submit(effect(2), Job::RemoveRecord("devbox".parse().expect("a name")));
    work.submit(effect(3), Job::Reopen);
    work.submit(JobId::Append, Job::Append(Append { log: b"x\n".to_vec(), ..Append::default() }));
    let mut done = Vec::new();
    work.collect(&mut done);
    let failed: Vec<_> = done.iter().map(|done| matches!(done.outcome, Outcome::Finished(Err(_)))).collect();
    assert_eq!(failed, [true, true, false, false]);
}
