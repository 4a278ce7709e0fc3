//! Crowds of connections, and what a process uses.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::support::{Link, Stream, World};

/// Whether the whole numbers are asked for.
pub(crate) fn full() -> bool {
    std::env::var_os("CASTRA_LIMITS").is_some_and(|value| value == "full")
}

/// One figure for docs/RELIABILITY.md.
pub(crate) fn figure(text: &str) {
    println!("LIMIT {text}");
}

/// As many descriptors as may be; and where figures are wanted, one test at a time.
pub(crate) fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = full().then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    let maximum = descriptors();
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: Some(maximum) }).unwrap();
    alone
}

/// The hard limit of descriptors.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20)
}

/// What a process used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Of all its threads.
    pub(crate) cpu: Duration,
    /// Anonymous memory (`RssAnon`), in bytes.
    pub(crate) memory: u64,
    /// How often one of its threads went to sleep of its own will.
    pub(crate) sleeps: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Self {
        let (mut cpu, mut sleeps) = (0, 0);
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
            // A thread may end while they are listed.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            cpu += text.split(' ').next().unwrap().parse::<u64>().unwrap();
            let Ok(text) = fs::read_to_string(task.path().join("status")) else { continue };
            sleeps += field(&text, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        Self { cpu: Duration::from_nanos(cpu), memory: field(&status, "RssAnon:").unwrap() * 1024, sleeps }
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// In KiB, for people.
pub(crate) fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes / 1024)
}

/// Connects from 127.0.0.`host`: another source, as the broker sees it.
pub(crate) fn connect_from(host: u8, port: u16) -> std::io::Result<TcpStream> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)))?;
    rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A proven session from 127.0.0.`host`, as its bare stream; nothing waits on it.
pub(crate) fn proven_from(host: u8, port: u16, name: &str) -> TcpStream {
    let stream = connect_from(host, port).unwrap();
    let mut link = Link::over(Stream::Tcp(stream.try_clone().unwrap()));
    assert_eq!(link.line(), "castra-broker 0.1 ready");
    link.prove(name, "");
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Connections that nobody reads unless asked.
pub(crate) struct Crowd(pub(crate) Vec<TcpStream>);

impl Crowd {
    /// So many connections, from 127.0.0.`host`, each of which says `first`. The kernel takes
    /// them for the broker, also while it accepts nobody.
    pub(crate) fn come(host: u8, port: u16, count: usize, first: &[u8]) -> Self {
        let connect = |_| {
            let stream = connect_from(host, port).unwrap();
            stream.set_nonblocking(true).unwrap();
            let _ = (&stream).write(first);
            stream
        };
        Self((0..count).map(connect).collect())
    }

    /// How many the broker has hung up on. Reads what there is.
    pub(crate) fn ended(&self) -> usize {
        self.0.iter().filter(|stream| has_ended(stream)).count()
    }
}

/// Reads all that is there; whether the other side hung up.
pub(crate) fn has_ended(mut stream: &TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// How long each of `count` whole handshakes took, one after the other, from 127.0.0.1.
pub(crate) fn handshakes(port: u16, prefix: &str, count: usize) -> Vec<Duration> {
    let mut spans: Vec<_> = (0..count)
        .map(|number| {
            let began = Instant::now();
            let _link = Link::join(port, &format!("{prefix}-{number}"));
            began.elapsed()
        })
        .collect();
    spans.sort_unstable();
    spans
}

/// In milliseconds: the median and the longest.
pub(crate) fn shown(sorted: &[Duration]) -> String {
    let ms = |span: &Duration| span.as_secs_f64() * 1e3;
    format!("median {:.1} ms, longest {:.1} ms", ms(&sorted[sorted.len() / 2]), ms(sorted.last().unwrap()))
}

/// How many guests are reachable.
pub(crate) fn reachable(world: &World) -> usize {
    let document = world.control().patient(Duration::from_secs(60)).status().unwrap();
    document["broker"]["reachable"].as_u64().unwrap() as usize
}

/// A guest's row, with its epoch: who changes it was away.
pub(crate) fn standing(world: &World, name: &str) -> (String, Value) {
    let row = world.row(name);
    (crate::support::verdict(&row), row["epoch"].clone())
}
