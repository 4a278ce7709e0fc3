//! Commands over a control socket that fails in the middle of anything: each ends in time, with
//! an answer that is whole or none.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::seeds;
use crate::support::World;
use crate::support::fault_proxy::{FaultProxy, Profile};

/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn commands_over_a_torn_control_socket_end_in_time_and_never_say_what_is_not_so() {
    for seed in seeds("control") {
        play(seed);
    }
}

fn play(seed: u64) {
    let world = World::new();
    let broker = world.broker(&["--guest", "ghost", "--window", "3s", "--interval", "1s"]);
    let alive = world.agent("alive", broker.address(), &[]);
    let dead = world.agent("dead", broker.address(), &[]);
    world.wait(&["alive", "dead"], "reachable");
    dead.kill();
    world.wait(&["dead"], "waiting");
    let target = format!("unix:{}", world.state().join("control.sock").display());
    let proxy = FaultProxy::new(&target, Profile::Torn, seed, &world.path("")).unwrap();
    let socket = proxy.address.strip_prefix("unix:").unwrap();
    let second = Duration::from_secs(1);
    // Command, its bound, the exit codes that may be.
    let cases: [(&[&str], Duration, &[i32]); 8] = [
        (&["status", "--json"], second, &[0, 3]),
        (&["status", "alive", "dead", "ghost"], second, &[1, 3]),
        (&["wait", "alive", "--timeout", "2s"], 2 * second, &[0, 3, 4]),
        (&["wait", "dead", "--timeout", "1s"], second, &[3, 4]),
        (&["ping", "alive", "-c", "1"], 2 * second, &[0, 3, 4]),
        (&["events", "--json"], 5 * second, &[0, 3]),
        (&["info", "--json"], 2 * second, &[0, 3]),
        (&["peers", "ghost"], 2 * second, &[0, 3, 4]),
    ];
    let mut codes = std::collections::BTreeMap::<i32, usize>::new();
    for round in 0..5 {
        let running = cases.map(|(args, ..)| world.spawn(&[args, &["--socket", socket]].concat()));
        for (process, (args, bound, allowed)) in running.into_iter().zip(cases) {
            let began = Instant::now();
            let ran = process.finish(bound + 2 * SLACK);
            let at = format!("seed {seed}, round {round}: castra {args:?} ({:?}): {ran:?}", began.elapsed());
            assert!(allowed.contains(&ran.code), "{at}");
            assert!(ran.took <= bound + SLACK, "{at}");
            *codes.entry(ran.code).or_default() += 1;
            for line in ran.out.lines().filter(|_| args.contains(&"--json")) {
                let document: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {at}"));
                let rows = document["guests"].as_array().into_iter().flatten();
                let lies = rows.filter(|row| row["reachable"] == true && row["name"] != "alive");
                assert_eq!(lies.count(), 0, "{at}");
                let offline = document["broker"]["state"].is_string() && ran.code == 3;
                assert!(!offline || !ran.out.contains("\"reachable\":true"), "{at}");
            }
            let others =
                ran.out.lines().filter(|line| line.starts_with("dead ") || line.starts_with("ghost "));
            assert!(!others.into_iter().any(|line| line.contains(" reachable ")), "{at}");
        }
    }
    println!("exit codes {codes:?}; {} connections, {:?}", proxy.connections(), proxy.faults());
    assert!(codes.keys().any(|code| *code == 0) && codes.keys().any(|code| *code != 0), "nothing was tested");
    // The broker is none the worse for it.
    proxy.make_peace();
    assert_eq!(world.castra(&["status", "alive", "--socket", socket]).code, 0);
    drop(proxy);
    alive.kill();
}
