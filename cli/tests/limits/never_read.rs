//! Peers that ask and never read the answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Link, PATIENCE, Watch, World, until, verdict};
use crate::tools::{Usage, alone, figure, full, handshakes, kib, proven_from, shown};

/// What the broker may hold for one connection: its send buffer, and what it read of it.
const CONNECTION: u64 = 128 * 1024 + 64 * 1024 + 64 * 1024;
/// Of everything else that happens meanwhile: the ring of events, buffers of files.
const BASE: u64 = 12 << 20;

#[test]
fn guests_that_ask_and_never_read_are_held_back_and_then_ended() {
    let _alone = alone();
    let count = if full() { 40 } else { 6 };
    let world = World::new();
    let broker = world.broker(&["--window", "3s", "--interval", "1s"]);
    let (port, pid) = (broker.port(), broker.process.pid());
    let bystander = Link::join(port, "bystander").live();
    let watch = Watch::of(&world.state().join("control.sock"), "bystander");
    let quiet = handshakes(port, "quiet", 20);
    let before = Usage::of(pid);
    let streams: Vec<_> = (0..count)
        .map(|number| {
            let stream = proven_from(2, port, &format!("deaf-{number}"));
            // A small window, as a real link has: what isn't read soon is the broker's.
            rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
            stream
        })
        .collect();
    let ping = br#"{"type":"ping","id":7}"#;
    let frame = [&(ping.len() as u32).to_be_bytes()[..], ping].concat();
    let flood: Vec<u8> = frame.iter().copied().cycle().take(frame.len() * 1000).collect();
    // Everybody asks as fast as it may, until the broker hangs up on all of them.
    let mut offsets = vec![0_usize; count];
    let mut most = before.memory;
    let began = Instant::now();
    let closed = || {
        let events = world.events("session.closed", "");
        events
            .iter()
            .filter(|event| event["guest"].as_str().is_some_and(|name| name.starts_with("deaf-")))
            .cloned()
            .collect::<Vec<_>>()
    };
    let all_ended = until(Duration::from_secs(180), || {
        for _ in 0..20 {
            for (stream, offset) in streams.iter().zip(&mut offsets) {
                if let Ok(sent) = (&*stream).write(&flood[*offset..]) {
                    *offset = (*offset + sent) % flood.len();
                }
            }
        }
        most = most.max(Usage::of(pid).memory);
        closed().len() == count
    });
    let took = began.elapsed();
    assert!(all_ended, "{} of {count} were ended", closed().len());
    for event in closed() {
        assert_eq!(event["reason"], "slow", "{event}");
    }
    let busy = handshakes(port, "busy", 20);
    figure(&format!(
        "guests that never read: {count}, all ended as `slow` after {took:.1?}; RssAnon {} before, {} at most (bound {}); \
         honest handshakes without them {}, after them {}",
        kib(before.memory),
        kib(most),
        kib(before.memory + count as u64 * CONNECTION + BASE),
        shown(&quiet),
        shown(&busy)
    ));
    assert!(most - before.memory <= count as u64 * CONNECTION + BASE);
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "reachable", "{row}");
    }
    broker.process.kill();
    bystander.join().unwrap();
}

#[test]
fn clients_that_follow_events_and_never_read_cost_a_buffer_each_and_nobody_anything() {
    let _alone = alone();
    let followers = if full() { 200 } else { 50 };
    let world = World::new();
    let broker = world.broker(&["--window", "30s", "--interval", "10s"]);
    let (port, pid) = (broker.port(), broker.process.pid());
    let before = Usage::of(pid);
    let clients: Vec<_> = (0..followers)
        .map(|_| {
            let stream = UnixStream::connect(world.state().join("control.sock")).unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
            (&stream).write_all(b"{\"id\":1,\"method\":\"events\",\"params\":{\"follow\":true}}\n").unwrap();
            stream
        })
        .collect();
    // More events than the ring keeps, and far more than a buffer holds.
    let rounds = if full() { 12_000 } else { 4_000 };
    let quiet = handshakes(port, "first", 20);
    let rest = handshakes(port, "flood", rounds);
    let held = Usage::of(pid);
    let grown = held.memory.saturating_sub(before.memory);
    let bound = followers as u64 * CONNECTION + BASE + 2 * 1024 * rounds as u64;
    figure(&format!(
        "followers that never read: {followers} beside {rounds} handshakes; RssAnon {} before, {} after (bound {}); \
         handshakes at first {}, then {}",
        kib(before.memory),
        kib(held.memory),
        kib(bound),
        shown(&quiet),
        shown(&rest)
    ));
    assert!(grown <= bound, "{grown}");
    // One of them begins to read: it hears that it missed something, and goes on.
    let follower = BufReader::new(clients[0].try_clone().unwrap());
    clients[0].set_read_timeout(Some(PATIENCE)).unwrap();
    let last = Link::join(port, "last");
    let mut gap = false;
    for line in follower.lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        gap |= line["event"] == "gap";
        if line["data"]["guest"] == "last" {
            break;
        }
    }
    assert!(gap || rounds < 4_000, "the ring went on without it");
    drop(last);
    drop(clients);
}

/// Terminals that never stop talking.
struct Flood {
    path: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Flood {
    fn start(world: &World) -> Self {
        let path = world.path("terminals.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut streams: Vec<UnixStream> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    streams.push(stream);
                }
                let sent =
                    streams.iter().filter(|stream| (&**stream).write(&[b'y'; 16 * 1024]).is_ok()).count();
                if sent == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self { path, stop }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A stream to a guest's terminals.
fn stream(socket: &Path, guest: &str) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = json!({"id": 1, "method": "terminals", "params": {"guest": guest}});
    (&stream).write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.contains("\"terminals\""), "{line}");
    stream
}

#[test]
fn streams_of_terminals_that_nobody_reads_stand_still_and_the_one_beside_them_flows() {
    let _alone = alone();
    let world = World::new();
    let broker = world.broker(&["--window", "3s", "--interval", "1s"]);
    let flood = Flood::start(&world);
    let args = ["--terminals-socket", flood.path.to_str().unwrap(), "--trust-unkeyed-broker"];
    let agent = world.agent("devbox", broker.address(), &args);
    world.wait(&["devbox"], "reachable");
    let socket = world.state().join("control.sock");
    let watch = Watch::of(&socket, "devbox");
    let before = (Usage::of(broker.process.pid()), Usage::of(agent.pid()));
    // All but one of the streams that a guest may have.
    let deaf: Vec<_> = (0..15).map(|_| stream(&socket, "devbox")).collect();
    let mut reader = stream(&socket, "devbox");
    let (mut got, began) = (0, Instant::now());
    let wanted = if full() { 256 << 20 } else { 16 << 20 };
    let mut chunk = vec![0; 64 * 1024];
    while got < wanted {
        got += reader.read(&mut chunk).unwrap();
    }
    let took = began.elapsed();
    let held = (Usage::of(broker.process.pid()), Usage::of(agent.pid()));
    let grown =
        (held.0.memory.saturating_sub(before.0.memory), held.1.memory.saturating_sub(before.1.memory));
    // 128 KiB ahead of credit for each, on either side, and the buffers of its connection.
    let bound = 16 * (128 * 1024 + CONNECTION) + (4 << 20);
    figure(&format!(
        "streams of terminals that nobody reads: 15, beside one that got {} MiB in {took:.1?}; RssAnon of the broker {} \
         more, of the agent {} more (bound {})",
        got >> 20,
        kib(grown.0),
        kib(grown.1),
        kib(bound)
    ));
    assert!(grown.0 <= bound && grown.1 <= bound, "{grown:?}");
    for (_, row) in watch.finish() {
        assert_eq!(verdict(&row), "reachable", "{row}");
    }
    drop((deaf, reader));
    agent.kill();
    broker.process.kill();
}

#[test]
fn mail_for_a_guest_that_never_reads_stays_within_its_queue() {
    let _alone = alone();
    let world = World::new();
    let broker = world.broker(&[
        "--window",
        "120s",
        "--interval",
        "1s",
        "--queue-bytes",
        "1MiB",
        "--queue-messages",
        "100",
    ]);
    let (port, pid) = (broker.port(), broker.process.pid());
    let mut to = Link::greeted(port);
    to.prove("deaf", ",peers-v1");
    to.send_frame(r#"{"type":"peer_policy","policy":"accept"}"#);
    let before = Usage::of(pid);
    let mut sender = Link::greeted(port);
    sender.prove("sender", ",peers-v1");
    world.json(&["peer", "link", "sender", "deaf", "--json"]);
    let mut control = world.control();
    let text = "x".repeat(32 * 1024);
    let mut outcomes = std::collections::BTreeMap::new();
    for _ in 0..120 {
        let params = json!({"from": "sender", "to": "deaf", "text": text, "timeout_ms": 20});
        let outcome = match control.ask("send_to_peer", &params).unwrap() {
            Ok(data) => data["outcome"].as_str().unwrap().to_owned(),
            Err(error) => error["code"].as_str().unwrap().to_owned(),
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    let held = Usage::of(pid);
    let grown = held.memory.saturating_sub(before.memory);
    // The queue, and what of it is on its way: its copy in the database's cache and the link's buffer.
    let bound = 8 * (1 << 20) + CONNECTION + BASE;
    figure(&format!(
        "mail for a guest that never reads: 120 of 32 KiB at a queue of 1 MiB: {outcomes:?}; RssAnon {} more (bound {})",
        kib(grown),
        kib(bound)
    ));
    assert!(outcomes.get("full").is_some_and(|full| *full >= 40), "{outcomes:?}");
    assert!(grown <= bound, "{grown}");
    broker.process.kill();
}
