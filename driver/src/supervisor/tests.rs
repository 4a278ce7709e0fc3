//! A manager that is played by the test.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use castra_core::time::Time;

use super::*;

/// Listens at `path`, as one of the manager's store does.
fn kept(path: &Path) -> Passed {
    let fd = std::os::unix::net::UnixListener::bind(path).expect("a socket").into();
    let name = format!("kept-unix={}", path.display());
    Passed { fd, name, at: passed::At::Unix(Some(path.to_owned())) }
}

#[test]
fn a_listener_that_was_kept_is_used_as_long_as_its_file_leads_to_it() {
    let manager = Manager::new(&[]);
    let supervisor = manager.supervisor().expect("a manager");
    let [here, gone, unwanted] = ["here", "gone", "unwanted"].map(|name| manager.directory.path().join(name));
    supervisor.passed.borrow_mut().extend([&here, &gone, &unwanted].map(|path| kept(path)));
    std::fs::remove_file(&gone).expect("a socket");
    let mut warnings = Vec::new();
    let mut listen = |path: &Path| {
        let address = format!("unix:{}", path.display()).parse().expect("an address");
        supervisor.listen_on(&address, &mut warnings).expect("a listener")
    };
    let bound = [listen(&here), listen(&gone)];
    assert!(bound.iter().all(|bound| bound.path.is_none()), "their files stay for the next one");
    let name = |path: &Path| format!("FDNAME=kept-unix={}", path.display());
    let again = [format!("FDSTOREREMOVE=1\n{}", name(&gone)), format!("FDSTORE=1\n{}", name(&gone))];
    assert_eq!(manager.heard(), again);
    supervisor.let_go(&mut warnings);
    assert_eq!(manager.heard(), [format!("FDSTOREREMOVE=1\n{}", name(&unwanted))]);
    assert!(!unwanted.exists() && here.exists() && gone.exists() && warnings.is_empty(), "{warnings:?}");
}

/// A manager's socket, and what it tells a process.
struct Manager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
    variables: Vec<(&'static str, OsString)>,
}

impl Manager {
    fn new(variables: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a mode");
        let mut all = vec![("NOTIFY_SOCKET", path.into_os_string())];
        all.extend(variables.iter().map(|(name, value)| (*name, value.into())));
        Self { directory, socket, variables: all }
    }

    fn supervisor(&self) -> Result<Supervisor, SupervisorError> {
        let find = |name: &str| self.variables.iter().find(|(key, _)| *key == name);
        Supervisor::of_environment(&|name| find(name).map(|(_, value)| value.clone()), true)
    }

    /// What was said since the last time.
    fn heard(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| self.socket.recv(&mut buffer).ok().map(|count| text(&buffer[..count])))
            .collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

#[test]
fn the_manager_hears_that_it_serves_reloads_and_stops_in_this_order_and_on_one_line() {
    let manager = Manager::new(&[]);
    let supervisor = manager.supervisor().expect("a manager");
    supervisor.reloading(Duration::from_micros(16));
    supervisor.reloaded(true);
    assert_eq!(manager.heard().len(), 0, "it would be taken for ready");
    supervisor.ready("serving on tcp:127.0.0.1:7070\nSTOPPING=1");
    assert_eq!(manager.heard(), ["READY=1\nSTATUS=serving on tcp:127.0.0.1:7070\\u{a}STOPPING=1"]);
    supervisor.reloading(Duration::from_micros(17));
    supervisor.reloading(Duration::from_micros(18));
    supervisor.reloaded(true);
    assert_eq!(manager.heard().len(), 2, "both have to be over");
    supervisor.reloaded(false);
    let [last] = &manager.heard()[..] else { panic!("one word") };
    assert!(last.starts_with("READY=1\nSTATUS=serving on") && last.contains("last reload failed"), "{last}");
    supervisor.stopping();
    supervisor.stopping();
    supervisor.status("late");
    assert_eq!(manager.heard(), ["STOPPING=1\nSTATUS=taking leave"]);
}

#[test]
fn a_sign_of_life_is_given_twice_in_the_time_that_the_manager_allows_and_not_more_often() {
    let manager = Manager::new(&[("WATCHDOG_USEC", "2000000")]);
    let supervisor = manager.supervisor().expect("a manager");
    for (now, next, said) in [(0, 1000, 1), (1, 1000, 0), (999, 1000, 0), (1000, 2000, 1), (9000, 10_000, 1)]
    {
        assert_eq!(supervisor.beat(at(now)), Some(at(next)), "at {now}");
        assert_eq!(manager.heard(), vec!["WATCHDOG=1"; said], "at {now}");
    }
}

#[test]
fn nobody_is_told_what_was_meant_for_another_process_and_nothing_keeps_the_loop_awake() {
    let manager = Manager::new(&[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "1")]);
    assert_eq!(manager.supervisor().expect("a manager").beat(at(0)), None);
    assert_eq!(manager.heard().len(), 0);
    let nobody = Supervisor::none();
    nobody.ready("x");
    nobody.ready_by(at(5));
    assert_eq!(nobody.beat(at(9)), None);
    assert!(!nobody.listens());
    // Passed to another process, whose variables this one got.
    let theirs = Manager::new(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
    assert!(!theirs.supervisor().expect("a manager").passed_links());
}

#[test]
fn words_for_which_the_manager_has_no_room_wait_in_their_order() {
    let manager = Manager::new(&[]);
    let supervisor = manager.supervisor().expect("a manager");
    let full = UnixDatagram::unbound().expect("a socket");
    full.set_nonblocking(true).expect("a mode");
    let path = &manager.variables[0].1;
    while full.send_to(b"x", Path::new(path)).is_ok() {}
    supervisor.ready("serving");
    supervisor.status("one");
    supervisor.status("two");
    assert_eq!(supervisor.beat(at(7)), Some(at(107)), "it comes again");
    assert!(manager.heard().iter().all(|said| said == "x"));
    assert_eq!(supervisor.beat(at(107)), None);
    assert_eq!(manager.heard(), ["READY=1\nSTATUS=serving", "STATUS=two"]);
}

#[test]
fn who_waits_for_readiness_waits_no_longer_than_it_was_said() {
    let manager = Manager::new(&[]);
    let supervisor = manager.supervisor().expect("a manager");
    supervisor.ready_by(at(10));
    assert_eq!(supervisor.beat(at(3)), Some(at(10)));
    assert_eq!(supervisor.beat(at(10)), None);
    assert_eq!(manager.heard(), ["READY=1"]);
    supervisor.ready("linked");
    supervisor.ready_by(at(20));
    assert_eq!(supervisor.beat(at(20)), None, "it is ready already");
}

#[test]
fn what_makes_no_sense_is_told_with_its_variable() {
    for variables in [
        &[("WATCHDOG_USEC", "soon")][..],
        &[("LISTEN_FDS", "-1")],
        &[("NOTIFY_SOCKET", "relative"), ("X", "")],
    ] {
        let mut manager = Manager::new(variables);
        if variables.len() == 2 {
            manager.variables.remove(0);
        }
        let error = manager.supervisor().expect_err("no sense").to_string();
        assert!(error.contains(variables[0].0) && error.contains(variables[0].1), "{error}");
    }
    // A manager that is gone: it serves all the same.
    let gone = Manager::new(&[("WATCHDOG_USEC", "2000")]);
    std::fs::remove_file(&gone.variables[0].1).expect("a socket");
    let supervisor = gone.supervisor().expect("a manager");
    supervisor.ready("serving");
    assert_eq!(supervisor.beat(at(5)), Some(at(6)));
}
