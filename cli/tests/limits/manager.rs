//! The manager's HTTP listener, with all its places taken by one source.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::World;
use crate::tools::{Crowd, Usage, alone, connect_from, figure, kib};

/// Most HTTP connections: docs/PROTOCOL.md, section 16.
const PLACES: usize = 256;
/// What the broker may hold for one that sent a part of a request.
const CONNECTION: u64 = 16 * 1024;

/// How long a request takes that is refused, because its bearer is none.
fn refused(mut stream: TcpStream, port: u16) -> Duration {
    let began = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!(
        "GET /sessions/x/actions/poll HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    began.elapsed()
}

#[test]
fn one_source_that_holds_every_http_connection_keeps_nobody_else_out() {
    let _alone = alone();
    let world = World::new();
    let broker = world.broker(&["--manager", "127.0.0.1:0"]);
    let address = broker.listen.iter().find_map(|address| address.strip_prefix("http://127.0.0.1:")).unwrap();
    let port: u16 = address.parse().unwrap();
    let quiet = refused(connect_from(1, port).unwrap(), port);
    let before = Usage::of(broker.process.pid());
    // More than there are places, half of them in the middle of a request.
    let silent = Crowd::come(2, port, PLACES, b"");
    let begun = Crowd::come(2, port, PLACES, b"POST /sessions/x/lease HTTP/1.1\r\nHost: ");
    let busy: Vec<_> = (0..5).map(|_| refused(connect_from(1, port).unwrap(), port)).collect();
    let held = Usage::of(broker.process.pid());
    let gone = silent.ended() + begun.ended();
    assert!(gone > 0, "somebody made room");
    let longest = *busy.iter().max().unwrap();
    // Far below the minute that each of them may be idle: two graces of 250 ms, on a slow machine.
    assert!(longest < Duration::from_secs(8), "{busy:?}");
    let grown = held.memory.saturating_sub(before.memory);
    assert!(grown <= PLACES as u64 * CONNECTION + (8 << 20), "{grown}");
    figure(&format!(
        "the manager's HTTP connections: {} of one source at {PLACES} places; another's request took {quiet:.1?} before, \
         {longest:.1?} at most with them; {gone} made room; RssAnon {} more",
        2 * PLACES,
        kib(grown)
    ));
    broker.process.kill();
}
