//! How many system calls the broker's process makes, all threads and files
//! included: counted by strace, which need not be there (`CASTRA_STRACE=required`
//! says that it must).

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use common::{Broker, HANG, Scratch, ended};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A budget of DESIGN: what one handshake at a time may cost.
const HANDSHAKE: f64 = 14.0;
/// What a challenge and its proof may cost.
const KEEPALIVE: f64 = 4.0;

/// strace on a process.
struct Strace {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Strace {
    /// `None`: there is none here, or it may not look.
    fn attach(pid: u32) -> Option<Self> {
        let required = std::env::var_os("CASTRA_STRACE").is_some_and(|value| value == "required");
        let spawned = Command::new("strace")
            .args(["-f", "-c", "-U", "calls,name", "-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                assert!(!required, "strace: {error}");
                println!("NOT TESTED: no system call was counted, for strace can't be run: {error}");
                return None;
            }
        };
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if line.contains("attached") {
            return Some(Self { child, said });
        }
        ended(&mut child, HANG);
        assert!(!required, "strace: {line}");
        println!("NOT TESTED: no system call was counted, for strace says: {line}");
        None
    }

    /// Lets go, and says how often each call was made.
    fn counts(mut self) -> BTreeMap<String, u64> {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut counts = BTreeMap::new();
        for line in self.said.by_ref().lines().map_while(Result::ok) {
            let mut words = line.split_whitespace();
            if let (Some(Ok(count)), Some(name), None) =
                (words.next().map(str::parse::<u64>), words.next(), words.next())
                && name != "total"
            {
                counts.insert(name.to_owned(), count);
            }
        }
        if cfg!(debug_assertions) {
            // In a debug build, the standard library looks at each descriptor before it closes it.
            counts.remove("fcntl");
        }
        ended(&mut self.child, HANG);
        counts
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls for each of `operations`, told by name.
fn each(what: &str, counts: &BTreeMap<String, u64>, operations: u64) -> f64 {
    let total: u64 = counts.values().sum();
    let share = |count: u64| count as f64 / operations as f64;
    println!("{:.2} system calls for each of {operations} {what}", share(total));
    for (name, count) in counts {
        println!("{:8.3} {name}", share(*count));
    }
    share(total)
}

fn bench(scratch: &Scratch, broker: &Broker, args: &[&str]) {
    let pid = broker.child.id().to_string();
    let mut all = vec!["bench", args[0], "--against", broker.address(), "--pid", &pid, "--json"];
    all.extend(&args[1..]);
    let ran = scratch.run(&all);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

fn handshakes(scratch: &Scratch) -> u64 {
    let ran = scratch.run(&["status", "--json"]);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    document["guests"].as_array().unwrap().iter().map(|guest| guest["handshakes"].as_u64().unwrap()).sum()
}

#[test]
fn a_handshake_alone_costs_at_most_14_system_calls() {
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch, &[]);
    let Some(strace) = Strace::attach(broker.child.id()) else { return };
    bench(&scratch, &broker, &["handshake", "--concurrency", "1", "--guests", "100", "--seconds", "2"]);
    let counts = strace.counts();
    let done = handshakes(&scratch);
    assert!(done > 200, "{done}");
    assert_eq!(counts.get("setsockopt"), None, "accepted links inherit what they need");
    let cost = each("handshakes", &counts, done);
    assert!(cost <= HANDSHAKE, "{cost}");
}

#[test]
fn a_challenge_and_its_proof_cost_at_most_4_system_calls() {
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch, &["--interval", "100ms", "--window", "5s"]);
    let mut guests = scratch
        .command(&["bench", "keepalive", "--guests", "100", "--seconds", "30", "--against", broker.address()])
        .stdout(Stdio::null())
        .spawn()
        .map(common::Owned)
        .unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("bench-{number:06}")).collect();
    let mut wait = vec!["wait", "--timeout", "20s"];
    wait.extend(names.iter().map(String::as_str));
    let ran = scratch.run(&wait);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let Some(strace) = Strace::attach(broker.child.id()) else { return };
    // Four seconds of questions, ten a second to each.
    let ran = scratch.run(&["ping", "bench-000000", "--count", "4", "--interval", "1s"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let counts = strace.counts();
    assert_eq!(guests.end(), Some(1), "interrupted");
    // One write for each challenge; the few answers on control count as more of them.
    let challenges = counts["sendto"];
    assert!(challenges > 1000, "{counts:?}");
    let cost = each("keepalives", &counts, challenges);
    assert!(cost <= KEEPALIVE, "{cost}");
}

#[test]
fn a_broker_without_guests_sleeps() {
    let scratch = Scratch::new();
    let broker = Broker::start(&scratch, &[]);
    // What it said at its start is on disk once its log can be read.
    let started = || scratch.run(&["logs"]).stdout.contains("broker started");
    let end = std::time::Instant::now() + HANG;
    while !started() {
        assert!(std::time::Instant::now() < end, "no line in the log");
    }
    let Some(strace) = Strace::attach(broker.child.id()) else { return };
    // Nothing is waited for: that nothing happens is the point.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let counts = strace.counts();
    // Letting a tracer in interrupts what every thread waits in, once.
    let calls: u64 = counts.values().sum();
    assert!(calls <= 4, "{counts:?}");
}
