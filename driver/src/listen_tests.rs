use super::*;
use crate::conformance::Inner;
use crate::mio_net::MioNet;
use crate::net::{Endpoint, Net, Ready};
use castra_core::boundary::Transport;
use castra_core::id::ConnId;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

const CONN: ConnId = ConnId { index: 0, generation: 7 };

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Waits for an edge of [`CONN`].
fn edge(net: &mut MioNet) -> Ready {
    let mut ready = Vec::new();
    for _ in 0..100 {
        net.wait(Some(Duration::from_millis(100)), &mut ready).expect("a poller");
        if let Some(edge) = ready.iter().find(|edge| edge.source == Endpoint::Conn(CONN)) {
            return *edge;
        }
    }
    panic!("no edge; {ready:?}");
}

#[test]
fn a_unix_listener_is_for_its_owner_alone_whatever_the_umask() {
    let directory = scratch();
    let path = directory.path().join("control.sock");
    let bound = listen_for_clients(&path).expect("a listener");
    assert_eq!(std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);
    assert_eq!(bound.via, Via::Control);
    assert_eq!(bound.path.as_deref(), Some(path.as_path()));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = scratch();
    let path = directory.path().join("control.sock");
    drop(UnixListener::bind(&path).expect("a listener"));
    let live = listen_for_clients(&path).expect("the stale one is replaced");
    let error = listen_for_clients(&path).expect_err("somebody listens");
    assert!(matches!(error, ListenError::Taken { .. }), "{error}");
    assert!(path.exists());
    drop(live);
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").expect("a file");
    let error = listen_for_clients(&file).expect_err("not a socket");
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "precious");
    let deep = directory.path().join("d".repeat(120));
    let error = listen_for_clients(&deep).expect_err("too long").to_string();
    assert!(error.contains("at most 107"), "{error}");
}

#[test]
fn of_two_who_find_the_same_stale_socket_one_listens_and_is_found_there() {
    let directory = scratch();
    let path = directory.path().join("control.sock");
    for round in 0..200 {
        let _ = std::fs::remove_file(&path);
        drop(UnixListener::bind(&path).expect("a stale socket"));
        let both: Vec<_> = std::thread::scope(|scope| {
            let start = || scope.spawn(|| listen_for_clients(&path));
            let both = [start(), start()];
            both.into_iter().map(|one| one.join().expect("a thread")).collect()
        });
        let listening = both.iter().filter(|one| one.is_ok()).count();
        assert_eq!(listening, 1, "round {round}: {both:?}");
        UnixStream::connect(&path).expect("the one that listens is there");
    }
}

#[test]
fn control_clients_come_with_their_credentials() {
    let directory = scratch();
    let path = directory.path().join("control.sock");
    let mut net = MioNet::new().expect("a poller");
    let id = net.listen(listen_for_clients(&path).expect("a listener")).expect("a watched one");
    assert_eq!(net.accept(id, CONN).expect_err("nobody").kind(), io::ErrorKind::WouldBlock);
    let _client = UnixStream::connect(&path).expect("a connection");
    let accepted = net.accept(id, CONN).expect("a client");
    let cred = accepted.peer_cred.expect("credentials");
    assert_eq!(cred.uid, rustix::process::geteuid().as_raw());
    assert_eq!(cred.pid, std::process::id());
    assert_eq!(accepted.remote, Remote::Process { uid: cred.uid, pid: cred.pid });
}

#[test]
fn a_taken_port_says_so_and_a_public_one_warns() {
    let mut warnings = Vec::new();
    let first = listen_on(&"tcp:127.0.0.1:0".parse().expect("an address"), &mut warnings).expect("a port");
    assert!(warnings.is_empty());
    let again: ListenAddress = first.address.parse().expect("the real address");
    assert!(matches!(again, ListenAddress::Tcp { port: 1.., .. }));
    let error = listen_on(&again, &mut warnings).expect_err("taken");
    assert!(matches!(&error, ListenError::Taken { address } if *address == first.address), "{error}");
    let public = listen_on(&"tcp:0.0.0.0:0".parse().expect("an address"), &mut warnings).expect("a port");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("other machines"), "{warnings:?}");
    drop(public);
}

#[test]
fn metrics_on_a_wider_address_than_the_loopback_are_warned_of() {
    let mut warnings = Vec::new();
    for (address, count) in [("127.0.0.1:0", 0), ("0.0.0.0:0", 1)] {
        let address = address.parse().expect("an address");
        let (_, bound) = listen_for_metrics(address, &mut warnings).expect("a port");
        assert_ne!(bound.port(), 0);
        assert_eq!(warnings.len(), count, "{warnings:?}");
    }
    assert!(warnings[0].contains("names and states of all guests"), "{warnings:?}");
}

#[test]
fn accepted_tcp_connections_do_not_wait_for_more_bytes() {
    let mut net = MioNet::new().expect("a poller");
    let mut warnings = Vec::new();
    let bound = listen_on(&"tcp:127.0.0.1:0".parse().expect("an address"), &mut warnings).expect("a port");
    let address = bound.address.strip_prefix("tcp:").expect("tcp").to_owned();
    let listener = bound.fd.try_clone().expect("a descriptor");
    let id = net.listen(bound).expect("a watched one");
    let _client = std::net::TcpStream::connect(address).expect("a connection");
    let (fd, _) = acceptfrom_with(&listener, FLAGS).expect("a connection");
    assert!(rustix::net::sockopt::tcp_nodelay(&fd).expect("a setting"));
    assert_eq!(net.accept(id, CONN).expect_err("nobody else").kind(), io::ErrorKind::WouldBlock);
}

/// To which of our addresses the next connection came.
fn local_of_next(bound: Bound, to: SocketAddr) -> Option<SocketAddr> {
    let mut net = MioNet::new().expect("a poller");
    let id = net.listen(bound).expect("a watched one");
    let _client = std::net::TcpStream::connect(to).expect("a connection");
    net.accept(id, CONN).expect("a client").local
}

#[test]
fn which_address_a_guest_came_to_is_told_where_somebody_wants_to_know() {
    let port = |bound: &Bound| bound.address.rsplit(':').next().expect("a port").parse().expect("a port");
    for address in ["tcp:127.0.0.2:0", "tcp:0.0.0.0:0"] {
        for told in [false, true] {
            let mut bound =
                listen_on(&address.parse().expect("an address"), &mut Vec::new()).expect("a port");
            let to = SocketAddr::from(([127, 0, 0, 2], port(&bound)));
            if told {
                bound.tell_local();
                // No question for each connection where the answer is known.
                let asks = bound.local == Local::Each;
                assert_eq!(asks, address.contains("0.0.0.0"), "{:?}", bound.local);
            }
            assert_eq!(local_of_next(bound, to), told.then_some(to), "{address}");
        }
    }
    let directory = scratch();
    let mut bound = listen_for_clients(&directory.path().join("control.sock")).expect("a listener");
    bound.tell_local();
    assert_eq!(bound.local, Local::Unasked);
}

#[test]
fn the_managers_listener_warns_where_others_can_reach_it() {
    let mut warnings = Vec::new();
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let (bound, address) = listen_for_manager(loopback, &mut warnings).expect("a port");
    assert_eq!((bound.via, bound.address.as_str()), (Via::Manager, format!("http://{address}").as_str()));
    assert!(warnings.is_empty() && address.port() != 0);
    let error = listen_for_manager(address, &mut warnings).expect_err("taken");
    assert!(matches!(error, ListenError::Taken { .. }), "{error}");
    assert_eq!(local_of_next(bound, address), None);
    let public = "0.0.0.0:0".parse().expect("an address");
    listen_for_manager(public, &mut warnings).expect("a port");
    assert!(warnings.len() == 1 && warnings[0].contains("not encrypted"), "{warnings:?}");
}

#[test]
fn a_vsock_listener_binds_where_the_kernel_has_vsock() {
    let mut warnings = Vec::new();
    match listen_on(&"vsock:4294967295".parse().expect("an address"), &mut warnings) {
        Ok(bound) => {
            assert_eq!(bound.via, Via::Link(Transport::Vsock));
            let port = bound.address.strip_prefix("vsock:").expect("vsock").parse::<u32>().expect("a port");
            assert_ne!(port, u32::MAX, "the kernel chose one");
        }
        Err(error) => eprintln!("NOT TESTED: this kernel has no vsock ({error})"),
    }
}

#[test]
fn a_serial_device_is_a_raw_stream() {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&controller).expect("a terminal");
    unlockpt(&controller).expect("a terminal");
    let name = ptsname(&controller, Vec::new()).expect("a name").into_string().expect("text");
    let mut host = std::fs::File::from(controller);
    let mut net = MioNet::new().expect("a poller");
    net.connect(CONN, &Target::Serial(PathBuf::from(name))).expect("a device");
    assert_eq!(net.connected(CONN).expect("open"), Remote::Unknown);
    host.write_all(b"no newline\r\x03\xff").expect("a write");
    while !edge(&mut net).readable {}
    let mut buffer = [0; 64];
    let received = net.read(CONN, &mut buffer).expect("bytes");
    assert_eq!(&buffer[..received.bytes], b"no newline\r\x03\xff", "nothing is edited or translated");
    assert!(!received.drained, "a device may hold more than one read gives");
    assert_eq!(net.read(CONN, &mut buffer).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
    assert_eq!(net.write(CONN, b"a\nb").expect("a write"), 3);
    let mut got = [0; 3];
    host.read_exact(&mut got).expect("bytes");
    assert_eq!(&got, b"a\nb", "and nothing is echoed");
    net.inner().close(CONN);
    assert!(net.read(CONN, &mut buffer).is_err());
}

#[test]
fn what_is_no_serial_device_is_refused_by_name() {
    let directory = scratch();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    let mut net = MioNet::new().expect("a poller");
    let error = net.connect(CONN, &Target::Serial(file)).expect_err("a file").to_string();
    assert!(error.contains("not a character device"), "{error}");
    let error =
        net.connect(CONN, &Target::Serial(PathBuf::from("/dev/null"))).expect_err("no poll").to_string();
    assert!(error.contains("can't wait"), "{error}");
}
