//! Messages over links that come and go: each is in its inbox once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::site::{Site, seeds};
use crate::support::fault_proxy::FaultProxy;
use crate::support::{Control, PATIENCE, until};

const NAMES: [&str; 2] = ["web", "db"];
const EACH: usize = 40;
/// Who sends from inside a guest needs its link to get anything taken.
const FAULTS: Duration = Duration::from_secs(8);

#[test]
fn messages_over_links_that_come_and_go_are_in_each_inbox_exactly_once() {
    for seed in seeds("messages") {
        play(seed);
    }
}

fn play(seed: u64) {
    let args = ["--window", "1500ms", "--interval", "500ms", "--guest", "web", "--guest", "db"];
    let site = Site::new(&NAMES, &args, seed);
    assert_eq!(site.world.castra(&["peer", "link", "web", "db"]).code, 0);
    let agents: Vec<_> = (0..2)
        .map(|guest| {
            let inbox = site.world.path(&format!("{}.inbox", NAMES[guest]));
            let args = ["--inbox", inbox.to_str().unwrap()];
            site.world.agent(NAMES[guest], site.address(guest), &args)
        })
        .collect();
    let socket = |name: &str| site.world.path(&format!("{name}.sock"));
    assert!(until(PATIENCE, || NAMES.iter().all(|name| socket(name).exists())));
    // On the host for web; inside both guests.
    let ways = [("host", "web", "db"), ("web", "web", "db"), ("db", "db", "web")];
    std::thread::scope(|scope| {
        let mut senders = vec![];
        for (way, from, to) in ways {
            let path = if way == "host" { site.world.state().join("control.sock") } else { socket(way) };
            senders.push(scope.spawn(move || {
                for number in 0..EACH {
                    let mut params = json!({"to": to, "text": format!("{way} {number}"),
                        "key": format!("{way}-{number}"), "timeout_ms": 200});
                    if way == "host" {
                        params["from"] = json!(from);
                    }
                    taken(&mut Control::connect(&path), &params);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }));
        }
        until(FAULTS, || senders.iter().all(std::thread::ScopedJoinHandle::is_finished));
        site.proxies.iter().for_each(FaultProxy::make_peace);
    });
    site.peace(&NAMES);
    for name in NAMES {
        let mut expected: Vec<String> = ways
            .iter()
            .filter(|(_, _, to)| *to == name)
            .flat_map(|(way, ..)| (0..EACH).map(move |number| format!("{way} {number}")))
            .collect();
        let inbox = || Control::connect(&socket(name)).ask("inbox", &json!({})).unwrap().unwrap();
        let count = |data: &Value| data["messages"].as_array().unwrap().len();
        let came = until(PATIENCE, || count(&inbox()) >= expected.len());
        let data = inbox();
        assert!(came, "seed {seed}: {name} has {} of {}", count(&data), expected.len());
        let messages = data["messages"].as_array().unwrap().iter();
        let mut texts: Vec<_> = messages.map(|line| line["text"].as_str().unwrap().to_owned()).collect();
        // Of one sender they come in the order in which they were taken.
        for (way, ..) in ways.iter().filter(|(_, _, to)| *to == name) {
            let of: Vec<_> = texts.iter().filter(|text| text.starts_with(way)).collect();
            let numbers = of.iter().map(|text| text.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
            assert!(numbers.is_sorted(), "seed {seed}: {name}: {of:?}");
        }
        texts.sort();
        expected.sort();
        assert_eq!(texts, expected, "seed {seed}: the inbox of {name}");
    }
    site.report();
    agents.into_iter().for_each(crate::support::Process::kill);
}

/// Says it until the broker has it, which the key makes harmless; every answer has a bound.
fn taken(control: &mut Control, params: &Value) {
    let end = Instant::now() + 3 * PATIENCE;
    loop {
        let asked = Instant::now();
        let answer = control.ask("send_to_peer", params).expect("its server lives");
        assert!(asked.elapsed() < Duration::from_secs(10), "an answer after {:?}", asked.elapsed());
        match answer {
            Ok(data) if matches!(data["outcome"].as_str(), Some("delivered" | "queued")) => return,
            Ok(data) => panic!("{params}: {data}"),
            Err(error) => assert!(
                matches!(error["code"].as_str(), Some("not_reachable" | "timeout")),
                "{params}: {error}"
            ),
        }
        assert!(Instant::now() < end, "{params} was never taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}
