//! `castra term log`: bytes as they were written, none missing and none twice.

use crate::common::{Running, Scratch};
use crate::fake::Fake;

fn served() -> (Scratch, Fake, u32) {
    let scratch = Scratch::new();
    let fake = Fake::serve(scratch.path());
    let id = fake.add("build");
    (scratch, fake, id)
}

fn lines(running: &mut Running, count: usize) -> Vec<String> {
    (0..count).map(|_| running.line()).collect()
}

#[test]
fn what_is_kept_is_printed_byte_for_byte_and_that_is_all() {
    let (scratch, fake, id) = served();
    fake.output(id, b"\x1b[31mred\x1b[0m\r\ntwo\n");
    let ran = scratch.run(&["term", "log", "build"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), "\x1b[31mred\x1b[0m\r\ntwo\n", "")
    );
    let part = scratch.run(&["term", "log", "build", "--from", "14"]);
    assert_eq!((part.code, part.stdout.as_str()), (Some(0), "two\n"), "{}", part.stderr);
    let beyond = scratch.run(&["term", "log", "build", "--from", "99"]);
    assert_eq!(beyond.code, Some(2), "{}", beyond.stderr);
    assert!(beyond.stderr.contains("has written 18 bytes"), "{}", beyond.stderr);
}

#[test]
fn what_is_no_longer_kept_is_counted() {
    let (scratch, fake, id) = served();
    let text: Vec<u8> = (0..60_000_u32).map(|number| b'a' + (number % 26) as u8).collect();
    fake.output(id, &text);
    fake.change(id, |terminal| terminal.gone = 20_000);
    let ran = scratch.run(&["term", "log", "build"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.as_bytes() == &text[20_000..], "{} bytes", ran.stdout.len());
    assert!(ran.stderr.is_empty(), "nothing was asked for that is missing: {}", ran.stderr);
    let from = scratch.run(&["term", "log", "build", "--from", "100"]);
    assert!(from.stderr.contains("19900 bytes of output are missing"), "{}", from.stderr);
}

#[test]
fn followed_it_goes_on_over_lost_connections_until_the_program_ends() {
    let (scratch, fake, id) = served();
    fake.output(id, b"one\n");
    let mut log = scratch.start(&["term", "log", "build", "-f"]);
    fake.until_attached(id);
    fake.output(id, b"two\n");
    assert_eq!(lines(&mut log, 2), ["one", "two"]);
    fake.lose();
    fake.output(id, b"three\n");
    fake.back();
    assert_eq!(lines(&mut log, 1), ["three"]);
    fake.cut();
    fake.until_attached(id);
    fake.output(id, b"four\n");
    assert_eq!(lines(&mut log, 1), ["four"]);
    fake.skip(id, b"never seen\n");
    fake.output(id, b"five\n");
    assert_eq!(lines(&mut log, 1), ["five"]);
    fake.exit(id, 0, None);
    let (code, stderr) = log.finish();
    assert_eq!(code, Some(0));
    assert_eq!(stderr, "castra: 11 bytes of output are missing here: they are no longer kept\n");
}

#[test]
fn nobody_reading_any_more_ends_it_quietly() {
    let (scratch, fake, id) = served();
    fake.output(id, b"one\n");
    let mut log = scratch.start(&["term", "log", "build", "-f"]);
    assert_eq!(log.line(), "one");
    log.hang_up();
    assert_eq!(log.finish(), (Some(0), String::new()));
    assert!(!fake.terminal(id).output.is_empty());
}

#[test]
fn an_ended_programs_output_is_there_as_long_as_it_is_listed() {
    let (scratch, fake, id) = served();
    fake.output(id, b"last words\n");
    fake.exit(id, 1, None);
    for args in [&["term", "log", "build"][..], &["term", "log", "build", "-f"]] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "last words\n", ""));
    }
}
