//! What monitoring reads of a broker.

mod files;
mod prometheus;
mod scrape;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;

use serde_json::Value;

use self::scrape::{Scrape, get};
use crate::support::{Broker, Link, PATIENCE, World, until};

/// Where a broker says that its metrics are.
fn url(broker: &Broker) -> String {
    broker.listen.iter().find(|address| address.ends_with("/metrics")).unwrap().clone()
}

/// Each guest's verdict is the same in a scrape and in the status document.
fn agrees_with_status(scrape: &Scrape, status: &Value) {
    let rows = status["guests"].as_array().unwrap();
    let names: BTreeSet<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(scrape.values("castra_guest_reachable", "guest"), names);
    for row in rows {
        let guest = ("guest", row["name"].as_str().unwrap());
        let reachable = scrape.value("castra_guest_reachable", &[guest]);
        assert_eq!(reachable == 1.0, row["reachable"] == true, "{row} {}", scrape.text);
        let reasons = scrape
            .samples
            .iter()
            .filter(|sample| sample.name == "castra_guest_waiting" && sample.labels["guest"] == guest.1);
        let reasons: Vec<&str> = reasons.map(|sample| sample.labels["reason"].as_str()).collect();
        let expected: Vec<&str> = row["reason"].as_str().into_iter().collect();
        assert_eq!(reasons, expected, "{row}");
        let age = scrape.get("castra_guest_proof_age_seconds", &[guest]);
        assert_eq!(age.is_none(), row["last_handshake_age_ms"].is_null(), "{row}");
        if let Some(age) = age.filter(|_| reachable == 1.0) {
            assert!(age <= scrape.value("castra_guest_window_seconds", &[guest]), "{age} {row}");
        }
        let (state, reason) = (row["state"].as_str().unwrap(), row["reason"].as_str().unwrap_or(""));
        let alike = rows.iter().filter(|other| other["reason"] == row["reason"]).count();
        let labels = [("state", state), ("reason", reason)];
        assert_eq!(scrape.value("castra_guests", &labels), alike as f64, "{row}");
    }
    assert_eq!(scrape.sum("castra_guests"), rows.len() as f64);
}

#[test]
fn a_scrape_says_of_each_guest_what_status_says_and_counts_what_happened() {
    let world = World::new();
    fs::create_dir_all(world.state()).unwrap();
    let file = world.state().join("castra.toml");
    fs::write(&file, "[broker]\nmetrics = '127.0.0.1:0'\ninterval = '500ms'\nwindow = '5s'\n").unwrap();
    let broker = world.broker(&["--guest", "ghost"]);
    let url = url(&broker);
    assert_eq!(world.castra(&["token", "issue", "locked", "--json"]).code, 0);
    let alive = world.agent("alive", broker.address(), &[]);
    let gone = world.agent("gone", broker.address(), &[]);
    world.wait(&["alive", "gone"], "reachable");
    gone.kill();
    world.wait(&["gone"], "waiting");
    let thief = world.agent("locked", broker.address(), &[]);
    thief.err.after(0, "link refused", PATIENCE);
    thief.kill();

    // A log line is written, and a keepalive due, a moment after what it is about.
    let mut scrape = Scrape::of(&url);
    let written = [("kind", "append"), ("outcome", "ok")];
    assert!(until(PATIENCE, || {
        scrape = Scrape::of(&url);
        scrape.get("castra_effects_total", &written).is_some_and(|count| count >= 1.0)
            && scrape.value("castra_loop_lag_seconds_count", &[]) >= 1.0
    }));
    agrees_with_status(&scrape, &world.control().status().unwrap());
    let value = |name: &str, labels: &[(&str, &str)]| scrape.value(name, labels);
    assert_eq!(value("castra_handshakes_completed_total", &[("proof", "echoed")]), 2.0);
    assert_eq!(value("castra_handshake_seconds_count", &[]), 2.0);
    assert!(value("castra_handshakes_begun_total", &[]) >= 3.0);
    // A keyed name's hello without a nonce is not a line of the protocol.
    assert!(value("castra_handshakes_failed_total", &[("code", "bad-line")]) >= 1.0);
    assert_eq!(value("castra_handshakes_failed_total", &[("code", "bad-proof")]), 0.0);
    assert_eq!(value("castra_sessions_ended_total", &[("reason", "disconnected")]), 1.0);
    assert_eq!(value("castra_session_seconds_count", &[]), 1.0);
    assert_eq!(value("castra_verdict_changes_total", &[("to", "reachable")]), 2.0);
    let lost = [("from", "reachable"), ("to", "waiting"), ("reason", "disconnected")];
    assert_eq!(value("castra_verdict_changes_total", &lost), 1.0);
    assert_eq!(value("castra_events_total", &[("kind", "token.issued")]), 1.0);
    assert_eq!(value("castra_sessions", &[]), 1.0);
    assert_eq!(value("castra_effects_total", &[("kind", "persist"), ("outcome", "ok")]), 1.0);
    assert_eq!(value("castra_effect_seconds_count", &[("kind", "persist")]), 1.0);
    assert!(value("castra_loop_turn_seconds_count", &[]) > 5.0);
    assert!(value("castra_connections_accepted_total", &[]) >= 4.0);
    assert!(
        value("castra_received_bytes_total", &[]) > 100.0 && value("castra_sent_bytes_total", &[]) > 100.0
    );
    assert!(value("process_open_fds", &[]) > 5.0 && value("process_resident_memory_bytes", &[]) > 1e6);
    let started = value("process_start_time_seconds", &[]);
    assert!((crate::support::wall_ms() as f64 / 1e3 - started).abs() < 300.0, "{started}");

    // A frozen guest answers nothing: its age grows past its window, and nothing hides it.
    alive.stop();
    world.wait(&["alive"], "waiting");
    let scrape = Scrape::of(&url);
    agrees_with_status(&scrape, &world.control().status().unwrap());
    assert_eq!(scrape.get("castra_guest_waiting", &[("guest", "alive"), ("reason", "stale")]), Some(1.0));
    assert!(scrape.value("castra_guest_proof_age_seconds", &[("guest", "alive")]) > 5.0);
    alive.go_on();
    world.wait(&["alive"], "reachable");
    agrees_with_status(&Scrape::of(&url), &world.control().status().unwrap());

    fs::write(&file, "[broker]\nmetrics = '127.0.0.1:0'\ninterval = '500ms'\nwindow = '6s'\n").unwrap();
    assert_eq!(world.castra(&["reload"]).code, 0);
    assert_eq!(Scrape::of(&url).value("castra_window_seconds", &[]), 6.0);
    let (_, text) = get(&url, "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert!(text.contains("# UNIT castra_window_seconds seconds\n") && text.ends_with("\n# EOF\n"), "{text}");
}

#[test]
fn every_guest_has_its_series_up_to_the_bound_and_none_beyond_it() {
    let world = World::new();
    // More than are looked at between two turns of the loop.
    let names: Vec<String> = (0..300).map(|number| format!("guest-{number}")).collect();
    let mut args = vec!["--metrics", "0", "--metrics-guests", "300"];
    names.iter().for_each(|name| args.extend(["--guest", name.as_str()]));
    let broker = world.broker(&args);
    let scrape = Scrape::of(&url(&broker));
    agrees_with_status(&scrape, &world.control().status().unwrap());
    assert_eq!(scrape.value("castra_guest_series_omitted", &[]), 0.0);
    assert_eq!(scrape.value("castra_guests", &[("reason", "never_seen")]), 300.0);

    // One more, and some of them would look like all.
    let _newcomer = Link::join(broker.port(), "newcomer");
    let scrape = Scrape::of(&url(&broker));
    let single: Vec<&str> =
        scrape.types.keys().map(String::as_str).filter(|name| name.contains("_guest_")).collect();
    assert_eq!(single, ["castra_guest_series_omitted"]);
    assert_eq!(scrape.value("castra_guest_series_omitted", &[]), 1.0);
    assert_eq!(scrape.sum("castra_guests"), 301.0);
    assert_eq!(scrape.value("castra_guests", &[("state", "reachable")]), 1.0);
}

#[test]
fn probes_are_answered_where_the_broker_says_and_end_with_it() {
    let world = World::new();
    let ran = world.castra(&[
        "up",
        "--json",
        "--listen",
        "tcp:127.0.0.1:0",
        "--metrics",
        "0",
        "--metrics-guests",
        "none",
        "--guest",
        "ghost",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let listen = ran.json()["listen"].clone();
    let url = listen[1].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/metrics"), "{listen}");
    assert_eq!(world.json(&["info", "--json"])["listen"], listen);
    for path in ["/healthz", "/readyz"] {
        let (status, body) = get(&url.replace("/metrics", path), "");
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}: {body}");
    }
    let scrape = Scrape::of(&url);
    assert_eq!(scrape.value("castra_guest_series_omitted", &[]), 1.0);
    assert!(scrape.values("", "guest").is_empty(), "{}", scrape.text);

    let taken = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let other = world.path("other");
    let other = ["broker", "--state-dir", other.to_str().unwrap(), "--listen", "tcp:127.0.0.1:0"];
    let ran = world.castra(&[&other[..], &["--metrics", taken]].concat());
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("is taken by another program"), "{ran:?}");

    assert_eq!(world.castra(&["down"]).code, 0);
    assert!(until(PATIENCE, || TcpStream::connect(taken).is_err()));
}
