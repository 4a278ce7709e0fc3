//! The scripts over the kernel, and over memory.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use castra_core::boundary::Via;
use rustix::net::sockopt::set_socket_linger;

use super::memory::MemoryWorld;
use super::{Peer, World, scripts};
use crate::address::{ConnectAddress, ListenAddress};
use crate::listen::listen_on;
use crate::mio_net::MioNet;
use crate::net::{ListenerId, Ready};

/// How long a turn waits for the kernel; scripts end by what they see, not by time.
const PATIENCE: Duration = Duration::from_millis(5);

struct Tcp {
    address: SocketAddr,
    elsewhere: TcpListener,
}

struct Unix {
    directory: tempfile::TempDir,
    elsewhere: UnixListener,
}

fn start(address: &ListenAddress) -> (MioNet, Vec<(ListenerId, Via)>, String) {
    let mut net = MioNet::new().expect("a poller");
    let mut warnings = Vec::new();
    let bound = listen_on(address, &mut warnings).expect("a listener");
    assert_eq!(warnings, Vec::<String>::new());
    let (via, address) = (bound.via, bound.address.clone());
    let id = net.listen(bound).expect("a watched listener");
    (net, vec![(id, via)], address)
}

impl World for Tcp {
    type Net = MioNet;
    type Peer = TcpStream;

    fn start() -> (Self, MioNet, Vec<(ListenerId, Via)>) {
        let (net, doors, address) = start(&"tcp:127.0.0.1:0".parse().expect("an address"));
        let address = address.strip_prefix("tcp:").and_then(|text| text.parse().ok()).expect("a real port");
        let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a listener");
        elsewhere.set_nonblocking(true).expect("a setting");
        (Self { address, elsewhere }, net, doors)
    }

    fn dial(&mut self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_nonblocking(true).expect("a setting");
        stream.set_nodelay(true).expect("a setting");
        stream
    }

    fn elsewhere(&mut self) -> Option<ConnectAddress> {
        let port = self.elsewhere.local_addr().expect("an address").port();
        Some(ConnectAddress::Tcp { host: "127.0.0.1".to_owned(), port })
    }

    fn answer(&mut self) -> Option<TcpStream> {
        let (stream, _) = self.elsewhere.accept().ok()?;
        stream.set_nonblocking(true).expect("a setting");
        Some(stream)
    }

    fn wait(&mut self, net: &mut MioNet, ready: &mut Vec<Ready>) {
        net.wait(Some(PATIENCE), ready).expect("a poller");
    }
}

impl Peer for TcpStream {
    const RESETS: bool = true;

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(self, buffer)
    }

    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).expect("a half-close");
    }

    fn reset(self) {
        set_socket_linger(&self, Some(Duration::ZERO)).expect("a setting");
    }
}

impl World for Unix {
    type Net = MioNet;
    type Peer = UnixStream;

    fn start() -> (Self, MioNet, Vec<(ListenerId, Via)>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("link.sock");
        let (net, doors, _) = start(&ListenAddress::Unix { path, serial: false });
        let elsewhere = UnixListener::bind(directory.path().join("elsewhere")).expect("a listener");
        elsewhere.set_nonblocking(true).expect("a setting");
        (Self { directory, elsewhere }, net, doors)
    }

    fn dial(&mut self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.path().join("link.sock")).expect("a connection");
        stream.set_nonblocking(true).expect("a setting");
        stream
    }

    fn elsewhere(&mut self) -> Option<ConnectAddress> {
        Some(ConnectAddress::Unix { path: self.directory.path().join("elsewhere") })
    }

    fn answer(&mut self) -> Option<UnixStream> {
        let (stream, _) = self.elsewhere.accept().ok()?;
        stream.set_nonblocking(true).expect("a setting");
        Some(stream)
    }

    fn wait(&mut self, net: &mut MioNet, ready: &mut Vec<Ready>) {
        net.wait(Some(PATIENCE), ready).expect("a poller");
    }
}

impl Peer for UnixStream {
    const RESETS: bool = false;

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(self, buffer)
    }

    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).expect("a half-close");
    }

    fn reset(self) {}
}

macro_rules! conformance {
    ($($script:ident),* $(,)?) => {
        mod memory { $(#[test] fn $script() { super::scripts::$script::<super::MemoryWorld>(); })* }
        mod tcp { $(#[test] fn $script() { super::scripts::$script::<super::Tcp>(); })* }
        mod unix { $(#[test] fn $script() { super::scripts::$script::<super::Unix>(); })* }
    };
}

conformance!(
    bytes_travel_both_ways_in_order,
    a_half_close_is_heard_and_answered,
    a_reset_ends_the_connection,
    a_farewell_before_a_close_is_heard,
    without_credit_nothing_is_read,
    a_peer_that_does_not_read_blocks_only_itself,
    what_was_said_before_the_close_arrives,
    a_close_that_cannot_be_said_is_given_up,
    a_close_cut_short_by_a_full_buffer_has_a_deadline,
    bytes_that_come_with_the_connect_are_not_forgotten,
    a_refusal_is_read_by_a_peer_that_said_too_much,
    a_burst_is_accepted_in_batches_and_within_credit,
    running_out_of_descriptors_heals_itself,
    a_dead_id_reaches_nobody,
    an_echo_costs_one_read_and_one_write,
    a_dial_reaches_its_end_or_is_cancelled,
    a_discard_drops_what_the_kernel_has_not_taken,
    a_flood_does_not_starve_the_others,
);
