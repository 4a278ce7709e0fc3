//! A broker that is killed at random moments while guests are linked, unlinked and
//! written to: no relation on one side, no message lost, none twice.
//!
//! `CASTRA_CRASH_OPERATIONS` says how many operations (`.ci/crash` runs 1000).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Broker, Control, PATIENCE, World, until};

/// Pairs that are worked on at the same time, each by a thread of its own.
const PAIRS: usize = 3;

const EVERYBODY: [&str; 2 * PAIRS] = ["a0", "b0", "a1", "b1", "a2", "b2"];

/// What one pair went through, and what has to be true of it now.
#[derive(Default)]
struct Told {
    linked: bool,
    messages: BTreeMap<String, Accepted>,
    counts: BTreeMap<String, usize>,
}

/// A message that the broker took.
struct Accepted {
    to: String,
    /// Its sender was told so.
    delivered: bool,
    /// It must be in the inbox in the end.
    due: bool,
}

#[test]
fn a_broker_killed_at_any_moment_loses_no_relation_and_no_message() {
    let operations = std::env::var("CASTRA_CRASH_OPERATIONS").map_or(60, |text| text.parse().unwrap());
    let world = World::new();
    let address = format!("unix:{}", world.path("link.sock").display());
    let broker = || world.broker(&["--listen", &address, "--window", "3s", "--interval", "1s"]);
    let mut running = broker();
    let names = |pair: usize| [format!("a{pair}"), format!("b{pair}")];
    let agents: Vec<_> = (0..PAIRS).flat_map(names).map(|name| start(&world, &name, &address)).collect();
    world.wait(&EVERYBODY, "reachable");

    // How many threads still work; how many operations were begun, and how many may be.
    let [left, done, granted] = [PAIRS, 0, 0].map(AtomicUsize::new);
    let mut kills = 0;
    let told: Vec<Told> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..PAIRS)
            .map(|pair| {
                let (world, left, turns) = (&world, &left, (&done, &granted));
                scope.spawn(move || {
                    let _leaves = Leaves(left);
                    work(world, names(pair), operations / PAIRS, pair as u64, turns)
                })
            })
            .collect();
        let mut random = Random(7);
        while left.load(Ordering::Relaxed) > 0 {
            // In every other life the agents are there before anything is asked.
            if random.below(2) == 0 {
                world.wait(&EVERYBODY, "reachable");
            }
            granted.fetch_add(1 + random.below(30) as usize, Ordering::Relaxed);
            let used_up = || {
                left.load(Ordering::Relaxed) == 0
                    || done.load(Ordering::Relaxed) >= granted.load(Ordering::Relaxed)
            };
            until(Duration::from_millis(random.below(250)), used_up);
            kill_process(Pid::from_raw(running.process.pid() as i32).unwrap(), Signal::KILL).unwrap();
            running.process.exit(PATIENCE);
            kills += 1;
            running = broker();
        }
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });

    world.wait(&EVERYBODY, "reachable");
    let mut sum = BTreeMap::<String, usize>::new();
    for (pair, told) in told.iter().enumerate() {
        let [one, other] = names(pair);
        same_on_both_sides(&mut world.control(), &one, &other, told.linked);
        for (from, to) in [(&one, &other), (&other, &one)] {
            let empty = until(PATIENCE, || queued(&world, from, to) == 0);
            assert!(
                empty,
                "{from} to {to}: {} messages wait for ever\n{}",
                queued(&world, from, to),
                world.log()
            );
        }
        for name in [&one, &other] {
            inbox_is_right(&world, name, told, &mut sum);
        }
        for (what, count) in &told.counts {
            *sum.entry(what.clone()).or_default() += count;
        }
    }
    println!("{operations} operations, {kills} kills: {sum:?}");
    assert!(kills > 1, "nothing was tested");
    drop(agents);
    stopped(running);
}

/// Operations on one pair, each repeated until it is answered.
fn work(
    world: &World,
    names: [String; 2],
    operations: usize,
    seed: u64,
    turns: (&AtomicUsize, &AtomicUsize),
) -> Told {
    let mut told = Told::default();
    let mut random = Random(seed + 1);
    let mut control = None;
    for number in 0..operations {
        let (done, granted) = turns;
        let turn = done.fetch_add(1, Ordering::Relaxed);
        let came = until(PATIENCE * 3, || turn < granted.load(Ordering::Relaxed));
        assert!(came, "no operation is granted any more");
        let flip = random.below(2) as usize;
        let (from, to) = (&names[flip], &names[1 - flip]);
        let (method, params) = match random.below(16) {
            0..=2 => ("register_peer", json!({"source": from, "name": to})),
            3 => ("unregister_peer", json!({"source": from, "name": to})),
            _ => {
                let key = format!("{seed}-{number}");
                let text = format!("message {number}");
                let params = json!({"from": from, "to": to, "text": text, "key": key, "timeout_ms": 300});
                ("send_to_peer", params)
            }
        };
        let answer = ask_until_answered(world, &mut control, method, &params);
        let outcome = note(&mut told, method, to, answer);
        *told.counts.entry(outcome).or_default() += 1;
        if let Some(control) = &mut control {
            // The broker may die in between: then there is nothing to compare.
            compare(control, from, to, told.linked);
        }
    }
    told
}

/// What an answer means for what has to be true from now on.
fn note(told: &mut Told, method: &str, to: &str, answer: Result<Value, Value>) -> String {
    match (method, answer) {
        ("register_peer", Ok(_)) => {
            told.linked = true;
            "registered".to_owned()
        }
        ("unregister_peer", Ok(_)) => {
            told.linked = false;
            // What was not said to be delivered may have expired, or have been delivered just before.
            told.messages.values_mut().for_each(|message| message.due &= message.delivered);
            "unregistered".to_owned()
        }
        (_, Ok(data)) => {
            let outcome = data["outcome"].as_str().unwrap().to_owned();
            let id = data["id"].as_str().unwrap().to_owned();
            assert!(told.linked, "{outcome} between guests that are no peers");
            assert!(matches!(outcome.as_str(), "delivered" | "queued"), "{data}");
            let message = Accepted { to: to.to_owned(), delivered: outcome == "delivered", due: true };
            let before = told.messages.insert(id, message);
            assert!(before.is_none(), "one id for two messages: {data}");
            outcome
        }
        (_, Err(error)) => {
            let code = error["code"].as_str().unwrap().to_owned();
            assert_eq!((code.as_str(), told.linked), ("not_peer", false), "{error}");
            code
        }
    }
}

/// Asks whichever broker serves, until one answers.
fn ask_until_answered(
    world: &World,
    control: &mut Option<Control>,
    method: &str,
    params: &Value,
) -> Result<Value, Value> {
    let end = Instant::now() + PATIENCE * 3;
    loop {
        assert!(Instant::now() < end, "{method} {params} is not answered\n{}", world.log());
        if control.is_none() {
            *control = Control::try_connect(&world.state().join("control.sock"));
        }
        match control.as_mut().and_then(|control| control.ask(method, params)) {
            // It takes leave, or cannot say: neither happens to a broker that is killed.
            Some(answer) => return answer,
            None => {
                *control = None;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// P1, unless the broker is gone.
fn compare(control: &mut Control, one: &str, other: &str, linked: bool) -> Option<()> {
    let mut sees = |name: &str, peer: &str| {
        let listed = control.ask("list_peers", &json!({"name": name}))?.unwrap();
        let peers = listed["peers"].as_array().unwrap();
        Some(peers.iter().any(|line| line["name"] == *peer && line["visibility"] == "peer"))
    };
    let sides = (sees(one, other)?, sees(other, one)?);
    assert_eq!(sides, (linked, linked), "{one} and {other}");
    Some(())
}

fn same_on_both_sides(control: &mut Control, one: &str, other: &str, linked: bool) {
    compare(control, one, other, linked).expect("the broker is not killed any more");
}

fn queued(world: &World, from: &str, to: &str) -> u64 {
    let listed = world.control().ask("list_peers", &json!({"name": from})).unwrap().unwrap();
    let line = listed["peers"].as_array().unwrap().iter().find(|line| line["name"] == *to).cloned();
    line.map_or(0, |line| line["queued"].as_u64().unwrap())
}

/// P3: what was accepted is in the inbox, once.
fn inbox_is_right(world: &World, name: &str, told: &Told, sum: &mut BTreeMap<String, usize>) {
    let mut agent = Control::connect(&world.path(&format!("{name}.sock")));
    let data = agent.ask("inbox", &json!({})).unwrap().unwrap();
    let ids: Vec<_> =
        data["messages"].as_array().unwrap().iter().map(|line| line["id"].as_str().unwrap()).collect();
    let once: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(once.len(), ids.len(), "a message is twice in the inbox of {name}");
    for (id, message) in told.messages.iter().filter(|(_, message)| message.to == name && message.due) {
        assert!(
            once.contains(id.as_str()),
            "{id} is lost (delivered: {}): {name} has it not",
            message.delivered
        );
    }
    let known = |id: &&&str| told.messages.get(**id).is_some_and(|message| message.to == name);
    assert_eq!(ids.iter().filter(known).count(), ids.len(), "{name} got what nobody sent it");
    *sum.entry("in inboxes".to_owned()).or_default() += ids.len();
}

fn start(world: &World, name: &str, address: &str) -> crate::support::Process {
    let inbox = world.path(&format!("{name}.inbox"));
    world.agent(name, address, &["--inbox", inbox.to_str().unwrap()])
}

fn stopped(broker: Broker) {
    broker.process.kill();
}

/// Counts a thread down, also when it panics.
struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Enough for choosing what to do: a linear congruential generator (Knuth, TAOCP 3.3.4).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
