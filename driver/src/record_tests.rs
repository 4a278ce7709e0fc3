use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{RecvTimeoutError, channel as events};

use castra_core::config::BrokerConfig;
use castra_core::trace::{Outcome, Recorded, Seed, replay};
use castra_core::{Engine, Output, Restored};

use super::*;
use crate::clock;

const PATIENCE: Duration = Duration::from_secs(20);

/// The text of the trouble, which must come, with a wake.
fn woken(recording: &Recording, wakes: &Receiver<()>) -> String {
    assert_ne!(wakes.recv_timeout(PATIENCE), Err(RecvTimeoutError::Timeout));
    recording.trouble().expect("a wake has a reason")
}

fn drain(engine: &mut impl Engine) {
    while !matches!(engine.poll_output(), Output::Wait(_)) {}
}

#[test]
fn a_trace_is_private_whole_and_never_written_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("t.jsonl");
    let (recording, sink) = start(&path, Arc::new(|| {}), false).expect("a recording");
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    let error = start(&path, Arc::new(|| {}), false).err().expect("the file exists");
    assert!(matches!(&error, RecordError::Exists { .. }), "{error}");
    let (config, restored) = (BrokerConfig::default(), Restored { incarnation: 1, ..Restored::default() });
    let mut broker = Recorded::broker(config, restored, Seed::Seeded([1; 32]), clock::now(), Some(sink));
    drain(&mut broker);
    broker.finish();
    assert!(recording.stop(PATIENCE));
    let outcome = replay(&std::fs::read(&path).expect("a file")).expect("a trace");
    let Outcome::Equal(report) = outcome else { panic!("{outcome:?}") };
    assert_eq!((report.ended, report.torn), (Some(Ended::Complete), false));
}

#[test]
fn a_full_disk_ends_the_recording_and_wakes_the_loop() {
    let (wake, wakes) = events();
    let file = OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let wake = Arc::new(move || wake.send(()).unwrap_or_default());
    let (recording, mut sink) = run(file, Path::new("/x"), 1000, wake, false).expect("a recording");
    assert!(sink("a line\n".to_owned()));
    let trouble = woken(&recording, &wakes);
    assert!(trouble.contains("/x") && trouble.contains("No space left"), "{trouble}");
    assert!(!sink("another\n".to_owned()));
    assert_eq!(recording.trouble(), None, "it is said once");
}

#[test]
fn a_disk_that_hangs_ends_the_recording_and_never_holds_the_loop() {
    let (mut reader, writer) =
        rustix::pipe::pipe().map(|(r, w)| (File::from(r), File::from(w))).expect("a pipe");
    let (wake, wakes) = events();
    let wake = Arc::new(move || wake.send(()).unwrap_or_default());
    let (recording, mut sink) = run(writer, Path::new("/x"), 1 << 20, wake, false).expect("a recording");
    let line = format!("{}\n", "x".repeat(99_999));
    // Nobody reads: what the pipe doesn't hold waits, up to the bound.
    let taken = (0..100).take_while(|_| sink(line.clone())).count();
    assert!((10..=12).contains(&taken), "{taken}");
    assert!(woken(&recording, &wakes).contains(TOO_SLOW));
    assert!(!sink(line), "nothing comes after a hole");
    drop(sink);
    let mut all = vec![];
    reader.read_to_end(&mut all).expect("a pipe");
    assert_eq!(all.len(), taken * 100_000, "what was taken is written");
    assert!(recording.stop(PATIENCE));
}

#[test]
fn the_last_line_says_that_the_disk_was_too_slow() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("t.jsonl");
    let file = File::create(&path).expect("a file");
    let (recording, mut sink) = run(file, &path, 10, Arc::new(|| {}), false).expect("a recording");
    assert!(sink("123456789\n".to_owned()));
    while recording.shared.waiting.load(Ordering::Relaxed) > 0 {
        thread::yield_now();
    }
    assert!(!sink("too long for it\n".to_owned()));
    drop(sink);
    assert!(recording.stop(PATIENCE));
    let text = std::fs::read_to_string(&path).expect("a file");
    assert_eq!(text, format!("123456789\n{{\"end\":{{\"stopped\":{{\"why\":\"{TOO_SLOW}\"}}}}}}\n"));
}
