//! Logs and event files stay within their bounds, and records are as many as guests.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::support::{Link, PATIENCE, World, until};

/// A file is set aside when it has as many bytes, and so many stay aside (PROTOCOL.md, section 14).
const BYTES: u64 = 16 * 1024 * 1024;
const ASIDE: usize = 4;
/// Lines come in batches, and no batch is larger.
const BATCH: u64 = 8 * 1024 * 1024;

fn handshakes() -> usize {
    std::env::var("CASTRA_FLOOD").map_or(1500, |count| count.parse().unwrap())
}

/// Nothing more is said, by a guest that may have been hung up on; whatever comes until
/// the end is dropped.
pub(crate) fn hang_up(link: &mut Link) {
    let _ = link.try_shutdown_write();
    link.drained();
}

/// A handshake that is refused: a line of each log, and more.
fn flood(port: u16, count: usize) {
    for number in 0..count {
        let mut link = Link::tcp(port);
        link.try_send(format!("hello vm:{}{number} x={}\n", "!".repeat(100), "y".repeat(300)).as_bytes());
        hang_up(&mut link);
    }
}

fn sizes(folder: &Path, name: &str) -> Vec<u64> {
    let of = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let mut sizes = vec![of(&folder.join(name))];
    sizes.extend((1..=ASIDE + 2).map(|age| of(&folder.join(format!("{name}.{age}")))));
    sizes
}

#[test]
fn logs_under_a_flood_are_set_aside_in_time_and_the_oldest_goes() {
    let world = World::new();
    let logs = [
        (world.state().join("logs"), "broker.log", "2026-11-20T12:00:00.000Z [host-broker] INFO filled"),
        (world.state().join("logs"), "events.jsonl", "{\"cursor\":\"1-1\",\"kind\":\"filled\"}"),
        (world.state().join("handshakes"), "handshake-events.jsonl", "{\"timestamp\":1,\"vm\":\"filled\"}"),
    ];
    // As after a long life: each file nearly full, and as many aside as there may be.
    for (folder, name, line) in &logs {
        fs::create_dir_all(folder).unwrap();
        for age in 0..=ASIDE {
            let path = folder.join(if age == 0 { (*name).to_owned() } else { format!("{name}.{age}") });
            let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
            let lines = (BYTES - 64 * 1024) / (line.len() as u64 + 1);
            for _ in 0..if age == 0 { lines } else { 10 } {
                writeln!(file, "{line}").unwrap();
            }
            writeln!(file, "age {age}").unwrap();
        }
    }
    let broker = world.broker(&[]);
    flood(broker.port(), handshakes());
    let rotated = || {
        logs.iter().all(|(folder, name, _)| {
            fs::read_to_string(folder.join(format!("{name}.2"))).is_ok_and(|text| text.contains("age 1"))
                || handshakes() > 100_000
        })
    };
    assert!(until(PATIENCE, rotated), "{:?}", logs.each_ref().map(|(folder, name, _)| sizes(folder, name)));
    assert_eq!(world.castra(&["down"]).code, 0);
    for (folder, name, _) in &logs {
        let sizes = sizes(folder, name);
        eprintln!("{name}: {sizes:?} bytes after {} handshakes", handshakes());
        assert!(sizes.iter().all(|size| *size < BYTES + BATCH), "{name}: {sizes:?}");
        assert_eq!(sizes[ASIDE + 1..], [0, 0], "{name}: {sizes:?}");
        // Nothing but the oldest went: the newest lines are whole and in order.
        let newest = fs::read_to_string(folder.join(name)).unwrap();
        assert!(newest.ends_with('\n') && newest.lines().count() > 0, "{name}");
        assert!(!newest.contains("filled"), "{name} was never set aside");
    }
    let newest = world.read("logs/events.jsonl");
    let number = |line: &str| -> u64 {
        let event: Value = serde_json::from_str(line).unwrap();
        event["cursor"].as_str().unwrap().split_once('-').unwrap().1.parse().unwrap()
    };
    let numbers: Vec<u64> = newest.lines().map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "an event is missing or out of order");
}

#[test]
fn refused_names_make_no_records_and_forgotten_ones_leave_none() {
    let world = World::new();
    let broker = world.broker(&["--max-guests", "40"]);
    let mut held = vec![];
    for number in 0..60 {
        let mut link = Link::greeted(broker.port());
        let name = format!("guest-{number}");
        let challenge = link.hello(&name, "");
        link.send(format!("proof {}\n", challenge.nonce).as_bytes());
        link.try_line();
        held.push(link);
    }
    flood(broker.port(), 200);
    let rows = world.json(&["status", "--json"])["guests"].as_array().unwrap().len();
    assert_eq!(rows, 40);
    let folder = world.state().join("handshakes");
    let records = || -> Vec<String> {
        let entries = fs::read_dir(&folder).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with("handshake-events.jsonl")).collect()
    };
    assert!(until(PATIENCE, || records().len() == 40), "{:?}", records());
    assert!(records().iter().all(|name| name.ends_with(".json")), "{:?}", records());
    drop(held);
    for number in 0..10 {
        assert_eq!(world.castra(&["forget", &format!("guest-{number}")]).code, 0);
    }
    assert!(until(PATIENCE, || records().len() == 30), "{:?}", records());
    assert_eq!(world.castra(&["down"]).code, 0);
}
