//! `castra bench` against real brokers: it measures what happened, and ends what it started.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Ran, Scratch};
use serde_json::Value;

fn measured(what: &str, more: &[&str]) -> Value {
    let mut args = vec!["bench", what, "--seconds", "1", "--json"];
    args.extend(more);
    let ran = Scratch::new().run(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr, "", "nobody watches");
    document(&ran)
}

fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

#[test]
fn handshakes_are_counted_and_timed_and_their_cost_is_the_brokers() {
    for keyed in [&["--keyed"][..], &[]] {
        let more = [&["--guests", "12", "--concurrency", "4"], keyed].concat();
        let document = measured("handshake", &more);
        let done = document["done"].as_u64().unwrap();
        assert!(done > 20, "{document}");
        assert_eq!(document["failures"], serde_json::json!({}), "{document}");
        let latency = |name: &str| document["latency_us"][name].as_u64().unwrap();
        assert!(0 < latency("p50") && latency("p50") <= latency("p99") && latency("p99") <= latency("max"));
        let server = &document["server"];
        let each = server["cpu_us_per_operation"].as_f64().unwrap();
        assert!((each * done as f64 - server["cpu_us"].as_f64().unwrap()).abs() < done as f64, "{document}");
        assert!(each > 1.0, "no broker is that fast: {document}");
        assert_eq!(document["keyed"], !keyed.is_empty());
    }
}

#[test]
fn a_rate_is_kept_and_latency_counts_from_when_a_handshake_was_due() {
    let document = measured("handshake", &["--rate", "100", "--guests", "50"]);
    let done = document["done"].as_u64().unwrap();
    assert!((90..=110).contains(&done), "{document}");
    assert_eq!(document["rate"], 100.0);
}

#[test]
fn guests_stay_and_answer_while_they_are_counted() {
    let more = ["--guests", "20", "--interval", "100ms", "--window", "3s"];
    let document = measured("keepalive", &more);
    let done = document["done"].as_u64().unwrap();
    assert!((100..=260).contains(&done), "20 guests, ten times a second: {document}");
    assert_eq!(document["proven_at_end"], 20);
    let document = measured("status", &more);
    assert!(
        document["done"].as_u64() > Some(0) && document["reply_bytes"].as_u64() > Some(1000),
        "{document}"
    );
}

#[test]
fn everybody_is_back_after_the_broker_was_killed() {
    let document = measured("restart", &["--guests", "20"]);
    assert_eq!((&document["done"], &document["proven_at_end"]), (&20.into(), &20.into()), "{document}");
}

#[test]
fn a_broker_that_is_not_there_is_no_measurement() {
    let nobody = ["bench", "handshake", "--against", "tcp:127.0.0.1:1", "--seconds", "1"];
    let ran = Scratch::new().run(&nobody);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("nobody was proven at tcp:127.0.0.1:1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("unreachable"), "{}", ran.stderr);
    let ran = Scratch::new().run(&["bench", "restart", "--against", "tcp:127.0.0.1:1"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("one of its own only"), "{}", ran.stderr);
}
