//! Daemons come and go.

use std::time::{Duration, Instant};

use castra_core::id::TerminalId;
use castra_core::terminals::{Deed, News};

use super::rig::{Daemon, FIRST, Holder, LAST, RING, exited, runs, until};

/// What `seq` writes.
fn numbers(to: u32) -> Vec<u8> {
    (1..=to).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

#[test]
fn a_new_daemon_finds_every_terminal_and_no_byte_is_missing_or_doubled() {
    let holder = Holder::start();
    let expected = numbers(60_000);
    let mut got = Vec::new();
    let mut daemon = Daemon::with_model(&holder);
    let flooding = daemon.spawn(1, "stty -onlcr; seq 1 60000; exit 5");
    let quiet = daemon.spawn(2, "echo hello; read line; echo \"$line\"; exit 6");
    daemon.until(2, "hello");
    // Whether with a screen model or without, one after the other.
    for turn in 0..6 {
        for _ in 0..turn {
            got.extend(daemon.more(1, 7000).unwrap());
        }
        let end = got.len() as u64;
        drop(daemon);
        daemon = if turn % 2 == 0 { Daemon::new(&holder) } else { Daemon::with_model(&holder) };
        let held: Vec<u32> = daemon.held.iter().map(|held| held.terminal.0).collect();
        assert_eq!(held, [1, 2]);
        assert_eq!([daemon.held[0].pid, daemon.held[1].pid], [flooding, quiet]);
        let first = daemon.held[0].first;
        assert!(first <= end, "{first} {end}: some were lost");
        daemon.adopt(1);
        daemon.adopt(2);
        got.truncate(first as usize);
    }
    let (rest, end) = daemon.all(1);
    got.extend(rest);
    assert!(got == expected, "{} of {}", got.len(), expected.len());
    assert_eq!(end, exited(5));
    assert_eq!(daemon.until(2, "hello"), "hello\r\n");
    daemon.act(2, Deed::Write(b"bye\n".to_vec())).unwrap();
    let (rest, end) = daemon.all(2);
    assert_eq!((rest.as_slice(), end), (b"bye\r\nbye\r\n".as_slice(), exited(6)));
}

#[test]
fn the_screen_is_as_it_was_after_any_amount_of_output() {
    let holder = Holder::start();
    let expected = numbers(40_000);
    let daemon = Daemon::with_model(&holder);
    daemon.spawn(1, "stty -onlcr; seq 1 40000; exec sleep 1000");
    // More than half a ring, so that one is stored; then the last bytes before it goes.
    let mut end = 0;
    while end < RING as usize * 3 / 4 {
        end += daemon.more(1, 3000).unwrap().len();
    }
    let before = daemon.snapshot(1);
    assert_eq!(before.offset, end as u64);
    let shown = |end: usize| [&expected[..FIRST], &expected[end - LAST..end]].concat();
    assert_eq!(before.content.as_bytes(), shown(end));
    drop(daemon);
    let daemon = Daemon::with_model(&holder);
    daemon.adopt(1);
    let asked = daemon.submit(1, Deed::Snapshot { history_lines: 0 });
    let mut end = daemon.held[0].first as usize;
    while end < expected.len() {
        end += daemon.more(1, 50_000).unwrap().len();
    }
    daemon.result(asked).unwrap();
    let after = daemon.snapshot(1);
    assert_eq!(after.offset as usize, expected.len());
    // What it showed first left the ring long ago.
    assert_eq!(after.content.as_bytes(), shown(expected.len()));
}

#[test]
fn a_snapshot_never_runs_ahead_of_the_output_that_was_told() {
    let holder = Holder::start();
    let daemon = Daemon::with_model(&holder);
    daemon.spawn(1, "stty -onlcr; seq 1 40000; exec sleep 1000");
    while daemon.ends.lock().unwrap()[&1] < RING * 3 / 4 {
        daemon.more(1, 3000).unwrap();
    }
    drop(daemon);
    let daemon = Daemon::with_model(&holder);
    daemon.adopt(1);
    let asked = daemon.submit(1, Deed::Snapshot { history_lines: 0 });
    let mut told = daemon.held[0].first;
    daemon.porter.grant(TerminalId(1), 1000);
    loop {
        match daemon.news(1) {
            News::Output { offset, bytes } => {
                told = offset + bytes.len() as u64;
                daemon.porter.grant(TerminalId(1), 1000);
            }
            News::Snapshot(snapshot) => {
                assert!(snapshot.offset <= told, "{} {told}", snapshot.offset);
                break;
            }
            _ => {}
        }
    }
    daemon.result(asked).unwrap();
}

#[test]
fn without_a_daemon_programs_wait_once_the_ring_is_full() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    let marks = holder.directory.path().join("marks");
    let script = format!(
        "stty -onlcr; while :; do echo 0123456789012345678901234567890123456789; echo >> {}; done",
        marks.display()
    );
    let pid = daemon.spawn(1, &script);
    drop(daemon);
    let size = || std::fs::metadata(&marks).map_or(0, |marks| marks.len());
    until("a full ring", || size() * 41 > RING);
    let mut last = (size(), Instant::now());
    // Blocked in its write: for a second it makes no mark.
    until("a program that waits", || {
        if size() != last.0 {
            last = (size(), Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(1)
    });
    assert!(last.0 * 41 < 2 * RING, "{}", last.0);
    let daemon = Daemon::new(&holder);
    assert!(daemon.held[0].end - daemon.held[0].first <= RING);
    daemon.adopt(1);
    while daemon.ends.lock().unwrap()[&1] < 4 * RING {
        daemon.more(1, 50_000).unwrap();
    }
    assert!(runs(pid));
}

#[test]
fn an_end_without_a_daemon_is_told_to_the_next_until_it_is_released() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    let pid = daemon.spawn(1, "echo ready; read line; echo last; exit 9");
    daemon.until(1, "ready");
    daemon.act(1, Deed::Write(b"go\n".to_vec())).unwrap();
    drop(daemon);
    until("the end", || !runs(pid));
    for _ in 0..2 {
        let daemon = Daemon::new(&holder);
        daemon.adopt(1);
        let (output, end) = daemon.all(1);
        assert_eq!(String::from_utf8_lossy(&output), "ready\r\ngo\r\nlast\r\n");
        assert_eq!(end, exited(9));
    }
    let daemon = Daemon::new(&holder);
    daemon.act(1, Deed::Release).unwrap();
    drop(daemon);
    assert_eq!(Daemon::new(&holder).held.len(), 0);
}

#[test]
fn the_newest_daemon_has_the_terminals_and_the_older_hears_that_it_lost_them() {
    let holder = Holder::start();
    let older = Daemon::new(&holder);
    older.spawn(1, "stty raw -echo; echo one; exec cat");
    older.until(1, "one");
    let stuck = older.submit(1, Deed::Snapshot { history_lines: 0 });
    assert!(older.result(stuck).is_err(), "there is no model");
    let newer = Daemon::new(&holder);
    newer.adopt(1);
    let News::Lost { why } = older.all(1).1 else { panic!("not lost") };
    assert!(why.contains("another daemon"), "{why}");
    assert!(older.act(1, Deed::Write(b"x".to_vec())).is_err());
    assert!(older.act(1, Deed::Kill).is_err());
    older.act(1, Deed::Release).unwrap();
    let error = older.launch(2, super::rig::sh("exit 0")).unwrap_err();
    assert!(error.message.contains("another daemon"), "{error:?}");
    newer.act(1, Deed::Write(b"two".to_vec())).unwrap();
    newer.until(1, "two");
}

#[test]
fn what_is_known_to_be_in_the_ring_is_told_before_the_loss() {
    let holder = Holder::start();
    let older = Daemon::new(&holder);
    let pid = older.spawn(1, "stty -onlcr -echo; echo first; read line; seq 1 2000; exec sleep 1000");
    older.until(1, "first");
    // Nobody asks for what comes then: it is not even counted.
    older.act(1, Deed::Write(b"go\n".to_vec())).unwrap();
    let path = format!("/proc/{pid}/cmdline");
    until("the flood's end", || std::fs::read(&path).is_ok_and(|line| line.starts_with(b"sleep")));
    // The holder is single-threaded: what it read before a daemon came is counted.
    std::thread::sleep(Duration::from_millis(100));
    let _newer = Daemon::new(&holder);
    let (rest, end) = older.all(1);
    assert!(matches!(end, News::Lost { .. }), "{end:?}");
    assert_eq!(String::from_utf8_lossy(&rest), String::from_utf8_lossy(&numbers(2000)));
}

#[test]
fn a_released_program_is_hung_up_and_its_number_can_be_used_again() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    let pid = daemon.spawn(1, "exec sleep 1000");
    daemon.submit(1, Deed::Release);
    let again = daemon.spawn(1, "echo again");
    until("the end of the first", || !runs(pid));
    assert_ne!(pid, again);
    assert_eq!(daemon.all(1), (b"again\r\n".to_vec(), exited(0)));
}
