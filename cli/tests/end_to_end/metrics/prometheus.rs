//! The real Prometheus, if it is installed; `CASTRA_PROMETHEUS=required` says that it must be.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::scrape::get;
use super::url;
use crate::support::{PATIENCE, Process, World, installed, until};

fn has(program: &str) -> bool {
    let required = std::env::var_os("CASTRA_PROMETHEUS").is_some_and(|value| value == "required");
    if !installed(program) {
        assert!(!required, "{program} is not installed (Debian: prometheus)");
        println!("NOT TESTED: {program} is not installed (Debian: prometheus)");
    }
    installed(program)
}

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/prometheus")
}

fn promtool(args: &[&str]) -> String {
    let ran = Command::new("promtool").args(args).current_dir(rules()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "promtool {args:?}: {said}");
    said
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics_and_the_rules_do_what_their_tests_say() {
    if !has("promtool") {
        return;
    }
    let world = World::new();
    let broker = world.broker(&["--metrics", "0", "--guest", "ghost"]);
    let _agent = world.agent("alive", broker.address(), &[]);
    world.wait(&["alive"], "reachable");
    let (_, text) = get(&url(&broker), "");
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr) + String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.is_empty(), "{said}\n{text}");

    assert!(promtool(&["check", "rules", "castra.rules.yml"]).contains("SUCCESS"));
    assert!(promtool(&["test", "rules", "castra.rules.test.yml"]).contains("SUCCESS"));
}

/// What a query gives: each result's labels, and its value.
fn query(api: &str, query: &str) -> Vec<(Value, f64)> {
    let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (_, body) = get(&format!("{api}/query?query={query}"), "");
    // Prometheus answers in chunks, unless it is short.
    let found: Value =
        serde_json::from_str(&body[body.find('{').unwrap()..=body.rfind('}').unwrap()]).unwrap();
    let results = found["data"]["result"].as_array().unwrap().iter();
    results
        .map(|result| (result["metric"].clone(), result["value"][1].as_str().unwrap().parse().unwrap()))
        .collect()
}

#[test]
fn a_real_prometheus_sees_the_broker_its_guests_and_the_rules() {
    if !has("prometheus") {
        return;
    }
    let world = World::new();
    let broker = world.broker(&["--metrics", "0", "--guest", "ghost"]);
    let _agent = world.agent("alive", broker.address(), &[]);
    world.wait(&["alive"], "reachable");
    let url = url(&broker);
    let target = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let config = world.path("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n  \
         - job_name: castra\n    static_configs: [{{targets: [{target:?}]}}]\n",
        rules().join("castra.rules.yml")
    );
    fs::write(&config, text).unwrap();
    // Free a moment ago; Prometheus can't say which port the kernel chose.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", world.path("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null());
    let prometheus = Process::spawn(command);
    prometheus.err.after(0, "Server is ready to receive web requests", PATIENCE);
    let api = format!("http://127.0.0.1:{port}/api/v1");
    let mut guests = vec![];
    assert!(until(PATIENCE, || {
        guests = query(&api, r#"castra_guests{state="reachable"}"#);
        guests.len() == 1
    }));
    assert_eq!((&guests[0].0["job"], &guests[0].0["instance"]), (&"castra".into(), &target.into()));
    assert_eq!(guests[0].1, 1.0);
    assert_eq!(query(&api, "up")[0].1, 1.0);
    assert_eq!(query(&api, "castra_guest_waiting")[0].0["reason"], "never_seen");
    let ages = query(&api, r#"castra_guest_proof_age_seconds{guest="alive"} <= castra_guest_window_seconds"#);
    assert_eq!(ages.len(), 1, "{ages:?}");
    let (_, targets) = get(&format!("{api}/targets"), "");
    assert!(targets.contains(r#""health":"up""#) && targets.contains(r#""lastError":"""#), "{targets}");
    let (_, found) = get(&format!("{api}/rules"), "");
    assert!(found.contains("CastraGuestLost") && !found.contains(r#""health":"err""#), "{found}");
    prometheus.kill();
}
