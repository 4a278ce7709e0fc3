//! The holder's own life.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use castra_driver::terminals::holder::Door;
use castra_driver::terminals::porter::Porter;

use super::rig::{Daemon, HANG, Holder, options, runs, until};

#[test]
fn a_holder_without_a_terminal_and_a_daemon_ends_itself() {
    let mut holder = Holder::lingering(Duration::from_millis(200));
    let daemon = Daemon::new(&holder);
    daemon.spawn(1, "exit 3");
    daemon.all(1);
    std::thread::sleep(Duration::from_millis(400));
    drop(daemon);
    // It still has a terminal, of which somebody may want to know.
    std::thread::sleep(Duration::from_millis(400));
    let daemon = Daemon::new(&holder);
    assert_eq!(daemon.held.len(), 1);
    daemon.act(1, castra_core::terminals::Deed::Release).unwrap();
    drop(daemon);
    let start = Instant::now();
    holder.ended();
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    assert!(!holder.socket().exists());
}

#[test]
fn a_holder_that_can_never_be_found_again_ends_and_takes_its_programs_along() {
    let mut holder = Holder::lingering(Duration::from_millis(300));
    let daemon = Daemon::new(&holder);
    let pid = daemon.spawn(1, "exec sleep 1000");
    std::fs::remove_file(holder.socket()).unwrap();
    drop(daemon);
    holder.ended();
    assert!(!runs(pid));
}

#[test]
fn ending_hangs_up_everything_and_kills_what_stays_after_three_seconds() {
    let mut holder = Holder::start();
    let daemon = Daemon::new(&holder);
    let meek = daemon.spawn(1, "exec sleep 1000");
    let stubborn = daemon.spawn(2, "trap '' HUP TERM; echo ready; while :; do sleep 0.05; done");
    daemon.until(2, "ready");
    let start = Instant::now();
    daemon.porter.end_all();
    until("the first's end", || !runs(meek));
    assert!(start.elapsed() < Duration::from_secs(2) && runs(stubborn));
    holder.ended();
    assert!(start.elapsed() >= Duration::from_secs(3) && start.elapsed() < HANG, "{:?}", start.elapsed());
    assert!(!runs(stubborn));
}

#[test]
fn one_holder_serves_a_path_and_its_owner_alone() {
    let holder = Holder::start();
    assert!(Door::open(&holder.socket()).unwrap().is_none(), "a second one");
    let mode = std::fs::metadata(holder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other = holder.directory.path().join("other");
    std::fs::write(&other, "precious").unwrap();
    assert!(Door::open(&other).is_err());
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "precious");
    // A socket that a dead one left behind is no obstacle.
    let stale = holder.directory.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(Door::open(&stale).unwrap().is_some());
    assert!(!stale.exists(), "removed when dropped");
}

#[test]
fn without_a_holder_and_a_way_to_start_one_the_daemon_hears_why() {
    let directory = tempfile::tempdir().unwrap();
    let tell = std::sync::Arc::new(|_, _| {});
    let socket = directory.path().join("t.holder");
    let why = |launcher: &[&str]| {
        let launcher = launcher.iter().map(Into::into).collect();
        let options = castra_driver::terminals::porter::Options { launcher, ..options(socket.clone()) };
        match Porter::open(options, tell.clone()) {
            Ok(_) => panic!("a holder"),
            Err(error) => error.to_string(),
        }
    };
    assert!(why(&[]).contains("nothing is set to start one"));
    assert!(why(&["/no/such/program"]).contains("can't be run: No such file"));
    let said = why(&["sh", "-c", "echo 'no room at the inn' >&2; exit 1"]);
    assert!(said.contains("did not start: no room at the inn"), "{said}");
    let start = Instant::now();
    let said = why(&["sh", "-c", "exec sleep 1000"]);
    assert!(said.contains("in time") && start.elapsed() < Duration::from_secs(7), "{said}");
}

/// How often the thread of this name gave up the processor on its own.
fn sleeps(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .filter(|status| status.starts_with(&format!("Name:\t{name}\n")))
        .map(|status| {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

#[test]
fn nothing_wakes_up_while_nothing_happens() {
    let holder = Holder::start();
    let daemon = Daemon::with_model(&holder);
    // A number that no other test here uses: threads are told apart by it.
    daemon.spawn(4711, "echo ready; exec sleep 1000");
    daemon.until(4711, "ready");
    // A grant is open, as always when a client watches.
    daemon.porter.grant(castra_core::id::TerminalId(4711), 1000);
    std::thread::sleep(Duration::from_millis(1500));
    let names = ["castra-tty-4711", holder.name()];
    let before = names.map(sleeps);
    assert!(before.iter().all(|sleeps| *sleeps > 0));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(names.map(sleeps), before);
}
