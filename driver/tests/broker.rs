//! The broker as a whole process. One test, as signals reach the whole process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use castra_core::config::BrokerConfig;
use castra_driver::broker::{BrokerError, BrokerOptions, run};
use castra_driver::supervisor::Supervisor;
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::low_level::raise;

fn options(state_dir: &Path) -> BrokerOptions {
    BrokerOptions {
        terminals: None,
        config: BrokerConfig::default(),
        state_dir: state_dir.to_owned(),
        listen: vec!["tcp:127.0.0.1:0".parse().expect("an address")],
        manager: Some("127.0.0.1:0".parse().expect("an address")),
        pidfile: None,
        logfile: None,
        handshake_dir: None,
        config_file: None,
        settings: None,
        on_change: None,
        launcher: Vec::new(),
        echo: false,
        record: None,
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

#[test]
fn a_broker_serves_alone_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    let log = state.join("logs/broker.log");
    let (sender, ready) = channel();
    let first = options(&state);
    let broker = thread::spawn(move || {
        run(first, &Supervisor::none(), |serving| sender.send(serving.clone()).expect("a listener"))
    });
    let serving = ready.recv_timeout(Duration::from_secs(10)).expect("a broker");

    assert!(serving.warnings.is_empty(), "{serving:?}");
    assert_eq!(fs::read_to_string(state.join("broker.pid")).expect("a pid"), format!("{}\n", serving.pid));
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&serving.control), 0o600);
    UnixStream::connect(&serving.control).expect("the control socket");
    let [address, manager] = serving.listen.as_slice() else { panic!("{serving:?}") };
    let manager = manager.strip_prefix("http://").expect("the manager's address, last");
    assert!(!manager.ends_with(":0"), "{manager}: not the real port");
    std::net::TcpStream::connect(manager).expect("the manager's listener");
    let address = address.strip_prefix("tcp:").expect("tcp");
    assert!(!address.ends_with(":0"), "{address}: not the real port");
    std::net::TcpStream::connect(address).expect("the link listener");

    match run(options(&state), &Supervisor::none(), |_| panic!("a second broker")) {
        Err(error @ BrokerError::AlreadyRunning { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&format!("pid {}", serving.pid)) && text.contains(address), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(serving.control.exists(), "the second one took nothing away");

    eventually("the first lines", || log.exists());
    fs::rename(&log, state.join("moved")).expect("a rename");
    raise(SIGHUP).expect("a signal");
    eventually("a new log", || log.exists());
    raise(SIGTERM).expect("a signal");
    // An engine that does not stop is stopped by the second one.
    eventually("the end", || {
        if !broker.is_finished() {
            thread::sleep(Duration::from_millis(10));
            raise(SIGTERM).expect("a signal");
        }
        broker.is_finished()
    });
    match broker.join().expect("no panic") {
        Ok(()) | Err(BrokerError::Signalled(SIGTERM)) => {}
        other => panic!("{other:?}"),
    }
    assert!(!state.join("broker.pid").exists());
    assert!(!serving.control.exists());
    let line = fs::read_to_string(state.join("moved")).expect("the log");
    assert!(
        line.contains(&format!("[host-broker] INFO listening on tcp:{address} http://{manager}")),
        "{line}"
    );
}
