//! Programs: how they start, what they get and give, how they end.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use castra_core::boundary::EffectErrorKind;
use castra_core::terminals::{Deed, Launch, News, SignalScope};

use super::rig::{Daemon, FIRST, Holder, LAST, RING, exited, killed, runs, sh, until};

#[test]
fn every_end_is_told_after_the_last_byte_with_its_code() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    for code in 0..20 {
        daemon.spawn(code, &format!("printf 'words and the last'; exit {code}"));
    }
    for code in 0..20 {
        let (output, end) = daemon.all(code);
        assert_eq!(String::from_utf8_lossy(&output), "words and the last");
        assert_eq!(end, exited(code.cast_signed()));
    }
}

#[test]
fn a_program_that_is_killed_reports_its_signal_and_one_that_handled_it_its_code() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    daemon.spawn(1, "echo ready; exec sleep 1000");
    daemon.until(1, "ready");
    let (signal, scope) = (9, SignalScope::Shell);
    daemon.act(1, Deed::Signal { signal, scope }).unwrap();
    assert_eq!(daemon.all(1).1, killed(9));
    daemon.spawn(2, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    daemon.until(2, "ready");
    daemon.act(2, Deed::Signal { signal: 15, scope }).unwrap();
    assert_eq!(daemon.all(2).1, exited(7));
    assert!(daemon.act(2, Deed::Signal { signal: 15, scope }).is_err(), "nobody is there");
}

#[test]
fn a_flood_comes_whole_and_in_order_through_a_small_ring() {
    let holder = Holder::start();
    let daemon = Daemon::with_model(&holder);
    daemon.spawn(1, "stty -onlcr; seq 1 150000");
    let (output, end) = daemon.all(1);
    let expected: String = (1..=150_000).map(|number| format!("{number}\n")).collect();
    assert!(expected.len() as u64 > 10 * RING);
    assert!(output == expected.as_bytes(), "{} of {}", output.len(), expected.len());
    assert_eq!(end, exited(0));
    let snapshot = daemon.snapshot(1);
    assert_eq!(snapshot.offset, expected.len() as u64);
    let (first, last) = snapshot.content.split_at(FIRST);
    assert!(expected.starts_with(first) && expected.ends_with(last) && last.len() == LAST);
}

#[test]
fn what_a_shell_wrote_last_is_kept_when_nobody_makes_room_for_longer_than_a_drain() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    // Fills the ring, and the kernel's buffer behind it as far as that goes.
    let pid =
        daemon.spawn(1, &format!("stty -onlcr; head -c {} /dev/zero | tr '\\0' x; echo end", RING + 2000));
    until("the program's end", || !runs(pid));
    std::thread::sleep(Duration::from_millis(2300));
    let (output, end) = daemon.all(1);
    assert_eq!(output.len() as u64, RING + 2004);
    assert!(output.ends_with(b"xend\n"));
    assert_eq!(end, exited(0));
}

#[test]
fn what_cannot_be_started_says_why() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    let file = holder.directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let kind = |launch: Launch| daemon.launch(1, launch).unwrap_err().kind;
    let here = || sh("exit 0");
    assert_eq!(kind(Launch { cwd: "/no/such".to_owned(), ..here() }), EffectErrorKind::DirectoryMissing);
    assert_eq!(kind(Launch { cwd: file.clone(), ..here() }), EffectErrorKind::DirectoryMissing);
    assert_eq!(kind(Launch { program: "/no/such".to_owned(), ..here() }), EffectErrorKind::ProgramMissing);
    assert_eq!(kind(Launch { program: "no-such".to_owned(), ..here() }), EffectErrorKind::ProgramMissing);
    assert_eq!(kind(Launch { program: file, ..here() }), EffectErrorKind::PermissionDenied);
    let many = vec![("X".to_owned(), "x".repeat(3 << 20)); 2];
    assert_eq!(kind(Launch { env: many, ..here() }), EffectErrorKind::Terminal);
    // The number is free, and more than a packet's worth of environment is no trouble.
    let much = (0..40).map(|n| (format!("V{n}"), "y".repeat(4000))).collect();
    daemon.launch(1, Launch { env: much, ..sh("printf '%s' \"$V39\" | wc -c") }).unwrap();
    assert_eq!(daemon.all(1), (b"4000\r\n".to_vec(), exited(0)));
}

#[test]
fn a_program_has_its_terminal_and_nothing_else_of_the_holders() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    // Others are there whose masters could leak.
    daemon.spawn(1, "exec sleep 1000");
    let script = "ls -l /proc/$$/fd | grep -cE 'ptmx|memfd|eventfd|pidfd'; echo $TERM $COLUMNS; tty; stty size; ps -o pid=,sid=,tpgid= -p $$; \
                  echo $$; pwd; env | wc -l";
    let launch = Launch { cwd: "/tmp".to_owned(), cols: 91, rows: 33, ..sh(script) };
    let pid = daemon.launch(2, launch).unwrap();
    let (output, end) = daemon.all(2);
    assert_eq!(end, exited(0));
    let output = String::from_utf8(output).unwrap();
    let mut lines = output.split("\r\n");
    let mut line = || lines.next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(line(), "0", "{output}");
    assert_eq!(line(), "xterm-256color");
    assert!(line().starts_with("/dev/pts/"));
    assert_eq!(line(), "33 91");
    assert_eq!(line(), format!("{pid} {pid} {pid}"), "leads its session, in the foreground");
    assert_eq!(line(), pid.to_string());
    assert_eq!(line(), "/tmp");
    assert_eq!(line(), "4", "PATH, HOME, TERM, and the shell's PWD: {output}");
}

#[test]
fn input_reaches_the_program_and_is_done_only_when_it_was_taken() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    daemon.spawn(1, "stty raw -echo; echo ready; exec sleep 1000");
    daemon.until(1, "ready");
    let stuck = daemon.submit(1, Deed::Write(vec![b'x'; 64 * 1024]));
    // Another's isn't held up by it.
    daemon.spawn(2, "stty raw -echo; echo ready; head -c 65536 | md5sum; sleep 0");
    daemon.until(2, "ready");
    daemon.act(2, Deed::Write(b"z".repeat(65_536))).unwrap();
    let (output, end) = daemon.all(2);
    // md5 of 65 536 times z.
    let sum = std::process::Command::new("sh")
        .args(["-c", "head -c 65536 /dev/zero | tr '\\0' z | md5sum"])
        .output()
        .unwrap();
    assert_eq!(output.trim_ascii(), sum.stdout.trim_ascii());
    assert_eq!(end, exited(0));
    assert!(!daemon.is_done(stuck), "nobody reads it");
    daemon.spawn(3, "read line");
    daemon.act(3, Deed::Write(Vec::new())).unwrap();
}

#[test]
fn input_that_waits_fails_when_its_program_ends() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    daemon.spawn(1, "stty raw -echo; echo ready; exec sleep 1000");
    daemon.until(1, "ready");
    let stuck = daemon.submit(1, Deed::Write(vec![b'x'; 64 * 1024]));
    daemon.act(1, Deed::Kill).unwrap();
    assert_eq!(daemon.result(stuck).unwrap_err().kind, EffectErrorKind::Terminal);
    assert_eq!(daemon.all(1).1, killed(9));
    assert!(daemon.act(1, Deed::Write(b"x".to_vec())).is_err());
    assert!(daemon.act(1, Deed::Resize { cols: 1, rows: 1 }).is_err());
    daemon.act(1, Deed::Release).unwrap();
    assert!(daemon.act(1, Deed::Release).is_err(), "there is none any more");
}

#[test]
fn a_new_size_is_told_to_the_program_and_to_the_screen() {
    let holder = Holder::start();
    let daemon = Daemon::with_model(&holder);
    daemon.spawn(1, "trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done");
    daemon.until(1, "ready");
    daemon.act(1, Deed::Resize { cols: 132, rows: 50 }).unwrap();
    daemon.until(1, "50 132");
    let snapshot = daemon.snapshot(1);
    assert_eq!((snapshot.cols, snapshot.rows), (132, 50));
}

#[test]
fn a_job_that_holds_the_terminal_after_its_shell_loses_it_after_two_seconds() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    let script = "(trap '' HUP; while echo still; do sleep 0.1; done) & echo $!; read line; exit 3";
    let shell = daemon.spawn(1, script);
    let mut output = daemon.until(1, "still").into_bytes();
    let start = Instant::now();
    daemon.act(1, Deed::Write(b"go\n".to_vec())).unwrap();
    let (rest, end) = daemon.all(1);
    output.extend(rest);
    assert_eq!(end, exited(3));
    assert!((Duration::from_millis(1900)..Duration::from_secs(6)).contains(&start.elapsed()));
    let output = String::from_utf8(output).unwrap();
    let job = output.split("\r\n").find_map(|line| line.parse().ok()).unwrap();
    assert!(!runs(shell) && output.matches("still").count() > 5);
    // Its next word fails.
    until("the job's end", || !runs(job));
}

#[test]
fn a_program_may_close_its_terminal_and_open_it_again() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    daemon.spawn(1, "t=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.3; exec >$t; echo back; exit 4");
    assert_eq!(daemon.all(1), (b"back\r\n".to_vec(), exited(4)));
}

#[test]
fn hanging_up_reaches_every_process_of_the_session_and_killing_those_that_ignore_it() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    let script = "sleep 1000 & a=$!; sh -c 'trap \"\" HUP TERM; echo $$; while :; do sleep 0.05; done' & \
                  kill -STOP $a; sleep 0.2; echo $a $! ready; wait";
    let shell = daemon.spawn(1, script);
    let output = daemon.until(1, "ready");
    let mut pids = output.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
    let (stubborn, meek) = (pids.next().unwrap(), pids.next().unwrap());
    assert!(runs(stubborn) && runs(meek) && runs(shell));
    daemon.act(1, Deed::HangUp).unwrap();
    until("the end of who was stopped", || !runs(meek) && !runs(shell));
    assert!(runs(stubborn), "it ignores that");
    daemon.act(1, Deed::Kill).unwrap();
    until("the end of who ignored it", || !runs(stubborn));
    // A shell that lets no signal in just then may find both, and die of the second.
    let end = daemon.all(1).1;
    assert!([killed(1), killed(15)].contains(&end), "{end:?}");
}

#[test]
fn a_signal_to_the_foreground_spares_the_shell() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    daemon.spawn(1, "set -m; sh -c 'echo ready; exec sleep 1000'; echo \"it said $?\"; sleep 1000");
    daemon.until(1, "ready");
    let foreground = SignalScope::Foreground;
    daemon.act(1, Deed::Signal { signal: 15, scope: foreground }).unwrap();
    daemon.until(1, "it said 143");
    assert!(daemon.act(1, Deed::Signal { signal: 4711, scope: foreground }).is_err());
    daemon.act(1, Deed::Signal { signal: 9, scope: SignalScope::Session }).unwrap();
    assert_eq!(daemon.all(1).1, killed(9));
}

#[test]
fn the_programs_directory_is_followed_also_after_its_last_word() {
    let holder = Holder::start();
    let daemon = Daemon::new(&holder);
    daemon.spawn(1, "echo one; sleep 0.2; cd /tmp; echo two; read line; exit 0");
    daemon.porter.grant(castra_core::id::TerminalId(1), 1000);
    let mut seen = Vec::new();
    while !seen.contains(&"/tmp".to_owned()) {
        match daemon.news(1) {
            News::Directory(path) => seen.push(path),
            _ => daemon.porter.grant(castra_core::id::TerminalId(1), 1000),
        }
    }
    assert_eq!(seen, ["/", "/tmp"]);
}

#[test]
fn the_screens_answers_are_told_and_its_history_can_be_forgotten() {
    let holder = Holder::start();
    let daemon = Daemon::with_model(&holder);
    daemon.spawn(1, "printf 'who? where?'; read line");
    daemon.porter.grant(castra_core::id::TerminalId(1), 1000);
    let News::Output { .. } = daemon.news(1) else { panic!("no output") };
    let mut replies = Vec::new();
    while replies.len() < 2 {
        match daemon.news(1) {
            News::Reply(reply) => replies.extend_from_slice(&reply),
            News::Output { .. } | News::Directory(_) => {
                daemon.porter.grant(castra_core::id::TerminalId(1), 9)
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(replies, b"!!");
    assert_eq!(daemon.snapshot(1).content, "who? where?");
    daemon.act(1, Deed::ClearScrollback).unwrap();
    assert_eq!(daemon.snapshot(1).content, "");
}
