//! Actions over a link and a manager that come and go: each is applied at most once, and
//! what became of it is known.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::site::{Site, end_terminals, seeds};
use crate::support::fault_proxy::{FaultProxy, Profile};
use crate::support::{PATIENCE, until};

const ACTIONS: usize = 60;

#[test]
fn an_action_over_faulty_links_and_http_is_applied_at_most_once_and_none_is_forgotten() {
    for seed in seeds("actions") {
        play(seed);
    }
}

fn play(seed: u64) {
    // The manager's address is told to guests before it is known where it listens.
    let folder = tempfile::tempdir().unwrap();
    let http = FaultProxy::new("tcp:127.0.0.1:1", Profile::Wild, seed ^ 1, folder.path()).unwrap();
    let url = http.address.replace("tcp:", "http://");
    let args = ["--window", "1500ms", "--interval", "500ms", "--manager", "127.0.0.1:0"];
    let site = Site::new(&["web-1"], &[&args[..], &["--manager-advertise", &url]].concat(), seed);
    let ready: Value = serde_json::from_str(&site.broker.process.out.first(PATIENCE)).unwrap();
    http.lead_to(&format!(
        "tcp:127.0.0.1:{}",
        ready["manager"].as_str().unwrap().rsplit_once(':').unwrap().1
    ));
    let token = site.world.json(&["token", "issue", "web-1", "--json"])["token"].as_str().unwrap().to_owned();
    let token = site.world.secret("token", &token);
    let file = site.world.path("typed");
    let typed = || std::fs::read_to_string(&file).unwrap_or_default();
    let script = ["--exec", "/bin/sh", "-c", "exec cat >> \"$0\"", file.to_str().unwrap()];
    let args = [&["--token-file", &token], &script[..]].concat();
    let agent = site.world.agent("web-1", site.address(0), &args);
    assert_eq!(site.world.castra(&["adopt", "web-1", "--no-wait"]).code, 0);

    let mut ids = BTreeSet::new();
    for number in 0..ACTIONS {
        let params = json!({"guest": "web-1", "action_type": "terminal_write", "wait": false,
            "payload": {"bytes": format!("{number}\n")}});
        let end = Instant::now() + 3 * PATIENCE;
        loop {
            match site.world.control().ask("action_send", &params).unwrap() {
                Ok(data) => {
                    let id = data["action_id"].as_str().or(data["id"].as_str());
                    assert!(ids.insert(id.unwrap_or_else(|| panic!("{data}")).to_owned()), "twice: {data}");
                    break;
                }
                // Nothing was queued: neither link nor poll is there for a moment.
                Err(error) => {
                    let code = error["code"].as_str();
                    let passes = matches!(code, Some("guest_offline" | "missing_lease" | "not_attached"));
                    assert!(passes, "{error}");
                }
            }
            assert!(
                Instant::now() < end,
                "seed {seed}: action {number} was never taken\n{}",
                site.world.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    http.make_peace();
    site.peace(&["web-1"]);
    let settled = || site.world.events("manager.action.settled", "web-1");
    let done = until(2 * PATIENCE, || settled().len() >= ACTIONS);
    let settled = settled();
    assert!(done, "seed {seed}: {} of {ACTIONS} settled\n{}", settled.len(), site.world.log());
    assert_eq!(settled.len(), ACTIONS, "seed {seed}: each is settled once");
    let ok = settled.iter().filter(|event| event["status"] == "ok").count();
    let odd: Vec<&Value> = settled.iter().filter(|event| event["status"] != "ok").collect();
    assert!(until(PATIENCE, || typed().lines().count() >= ok), "seed {seed}: {ok} applied: {}", typed());
    let text = typed();
    let lines: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    let once: BTreeSet<_> = lines.iter().copied().collect();
    assert_eq!(once.len(), lines.len(), "seed {seed}: typed twice: {text}");
    assert!(once.len() >= ok && once.len() <= ok + odd.len(), "seed {seed}: {odd:?}\n{text}");
    // Nobody was killed: whatever was taken can be done.
    assert!(odd.is_empty(), "seed {seed}: {odd:?}");
    println!("manager: {} connections, {:?}", http.connections(), http.faults());
    site.report();
    agent.kill();
    end_terminals(&site.world);
}
