//! Everything that has a bound filled to it at once: memory stays within what the settings add up to.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use crate::connections::limited_broker;
use crate::support::{Link, World};
use crate::tools::{Crowd, Usage, alone, figure, full, kib};

const KIB: u64 = 1024;
/// A connection: what was read of it and isn't consumed, a longest frame, and its send buffer.
const CONNECTION: u64 = (64 + 64 + 128) * KIB;
/// A row: the name, its capabilities, and what the broker keeps of peers' names.
const ROW: u64 = 2 * KIB;
/// The event ring: 8192 events of at most 512 bytes, and as much again for the way to the files.
const EVENTS: u64 = 2 * 8192 * 512;
/// Empty tables, file buffers, the database's cache.
const BASE: u64 = 8 << 20;

#[test]
fn a_flood_of_everything_stays_within_what_the_settings_add_up_to() {
    let _alone = alone();
    let (guests, descriptors, pairs) = if full() { (2_000, 4_096, 100) } else { (200, 600, 20) };
    let queue = 256 * KIB;
    let world = World::new();
    let args = [
        "--max-guests",
        &guests.to_string(),
        "--queue-bytes",
        "256KiB",
        "--queue-messages",
        "16",
        "--window",
        "300s",
        "--interval",
        "100s",
    ];
    let (broker, port) = limited_broker(&world, &format!("-n {descriptors}"), &args);
    let before = Usage::of(broker.pid());
    let bound = guests * (CONNECTION + ROW) + pairs as u64 * 2 * queue + EVENTS + BASE;
    let mut most = before.memory;
    let mut look = || most = most.max(Usage::of(broker.pid()).memory);

    // All rows.
    let mut links: Vec<Link> = (0..guests)
        .map(|number| {
            let mut link = Link::greeted(port);
            link.prove(&format!("guest-{number}"), ",peers-v1");
            link
        })
        .collect();
    look();
    // All queues: the receivers acknowledge nothing.
    let text = "x".repeat(32 * 1024);
    let (mut control, mut full_queues) = (world.control(), 0);
    for pair in 0..pairs {
        let (from, to) = (format!("guest-{}", 2 * pair), format!("guest-{}", 2 * pair + 1));
        let params = json!({"source": from, "name": to});
        control.ask("register_peer", &params).unwrap().unwrap();
        full_queues += usize::from(fill(&world, &from, &to, &text));
        look();
    }
    assert!(full_queues >= pairs * 3 / 4, "each queue takes eight of 32 KiB: {full_queues} were full");
    // Names that there is no row for, and connections that there is no place for.
    for number in 0..200 {
        let mut link = Link::greeted(port);
        let challenge = link.hello(&format!("late-{number}"), "");
        link.send(format!("proof {}\n", challenge.nonce).as_bytes());
        assert!(link.line().starts_with("error: busy: "));
    }
    let crowd = Crowd::come(2, port, descriptors / 2, b"hello vm:x capabilities=proof-v1\n");
    look();
    // An unfinished frame of the longest kind from everybody.
    let frame = [&65_536_u32.to_be_bytes()[..], &vec![b' '; 65_535]].concat();
    for (number, link) in links.iter_mut().enumerate() {
        link.try_send(&frame);
        if number % 50 == 0 {
            look();
        }
    }
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        look();
    }
    figure(&format!(
        "a flood of everything: {guests} guests, {pairs} full queues of 256 KiB, {guests} unfinished frames of 64 KiB, a \
         crowd of {}; RssAnon {} before, {} at most, bound {}",
        descriptors / 2,
        kib(before.memory),
        kib(most),
        kib(before.memory + bound)
    ));
    assert!(most - before.memory <= bound, "{} of {}", kib(most - before.memory), kib(bound));
    // It still answers.
    assert!(control.ask("info", &json!({})).unwrap().is_ok());
    drop((crowd, links));
    broker.kill();
}

/// Sends nine messages at once, where eight of them have room; whether one heard that there is none.
fn fill(world: &World, from: &str, to: &str, text: &str) -> bool {
    let stream = UnixStream::connect(world.state().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let params = json!({"from": from, "to": to, "text": text, "timeout_ms": 400});
    let requests: String = (0..9)
        .map(|id| format!("{}\n", json!({"id": id, "method": "send_to_peer", "params": params})))
        .collect();
    (&stream).write_all(requests.as_bytes()).unwrap();
    let answers: Vec<String> = BufReader::new(&stream).lines().take(9).map(Result::unwrap).collect();
    answers.iter().any(|answer| answer.contains("\"full\""))
}
