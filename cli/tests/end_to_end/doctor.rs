//! `castra doctor` beside real processes: what it finds is what is wrong.

use serde_json::Value;

use crate::support::{PATIENCE, World};

fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let mut found = report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check);
    found.next().unwrap_or_else(|| panic!("nothing about {check}: {report}"))
}

#[test]
fn the_doctor_tells_a_healthy_broker_from_an_absent_a_stopped_and_a_killed_one() {
    let world = World::new();
    let absent = world.castra(&["doctor"]);
    assert_eq!(absent.code, 1, "{absent:?}");
    assert!(absent.out.contains("no broker serves") && absent.out.contains("do: `castra up`"), "{absent:?}");

    let broker = world.broker(&["--guest", "ghost"]);
    let healthy = world.json(&["doctor", "--json"]);
    assert_eq!(finding(&healthy, "guests")["subject"], "ghost", "{healthy}");
    assert_eq!(finding(&healthy, "guests")["level"], "note", "{healthy}");
    assert_eq!(healthy["skipped"], Value::Array(vec![]), "{healthy}");
    let broker_line = healthy["healthy"].as_array().unwrap().iter().find(|line| line["check"] == "broker");
    assert!(broker_line.unwrap()["what"].as_str().unwrap().contains(&broker.process.pid().to_string()));

    // A guest without the token of its name.
    assert_eq!(world.castra(&["token", "issue", "devbox", "--json"]).code, 0);
    let thief = world.agent("devbox", broker.address(), &[]);
    thief.err.after(0, "link refused", PATIENCE);
    let ran = world.castra(&["doctor", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let refused = finding(&ran.json(), "guests").clone();
    assert_eq!((&refused["subject"], &refused["level"]), (&"devbox".into(), &"problem".into()));
    assert!(refused["fix"].as_str().unwrap().contains("castra token issue devbox"), "{refused}");
    thief.kill();

    broker.process.stop();
    let stopped = world.castra(&["doctor", "--json", "--timeout", "300ms"]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    let what = finding(&stopped.json(), "broker")["what"].to_string();
    assert!(what.contains(&format!("process {} holds", broker.process.pid())), "{what}");

    broker.process.kill();
    let killed = world.castra(&["doctor", "--json"]);
    assert!(finding(&killed.json(), "broker")["what"].to_string().contains("left behind"), "{killed:?}");
}
