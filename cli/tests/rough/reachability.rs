//! Verdicts against the truth: who is stopped or dead, and what went through the network.

use crate::site::{Site, seeds, some_time};
use crate::support::{PATIENCE, Process, Watch, Yardstick, wall_ms};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];
const WINDOW: i64 = 1500;

/// When a guest did not run (wall clock, in milliseconds).
struct Down {
    guest: usize,
    from: i64,
    to: i64,
}

/// How an agent is.
enum Agent {
    Runs(Process),
    Frozen(Process, i64),
    Dead(i64),
}

#[test]
fn nobody_who_is_frozen_dead_or_unheard_is_reachable_and_everybody_is_again_when_the_faults_end() {
    for seed in seeds("reachability") {
        play(seed);
    }
}

fn play(seed: u64) {
    // Known from the beginning, so that every answer has a row.
    let known = NAMES.iter().flat_map(|name| ["--guest", name]);
    let args: Vec<&str> = ["--window", "1500ms", "--interval", "500ms"].into_iter().chain(known).collect();
    let mut site = Site::new(&NAMES, &args, seed);
    let socket = site.world.state().join("control.sock");
    let watches = NAMES.map(|name| Watch::of(&socket, name));
    let yardstick = Yardstick::start();
    let start = |site: &Site, guest: usize| site.world.agent(NAMES[guest], site.address(guest), &[]);
    let mut agents: Vec<Agent> = (0..NAMES.len()).map(|guest| Agent::Runs(start(&site, guest))).collect();
    let mut down = vec![];
    for _ in 0..16 {
        std::thread::sleep(some_time(&mut site.random, 200, 800));
        let guest = site.random.below(NAMES.len() as u64) as usize;
        let kill = site.random.chance(1, 3);
        let agent = std::mem::replace(&mut agents[guest], Agent::Dead(0));
        agents[guest] = match agent {
            Agent::Runs(process) if kill => {
                process.kill();
                Agent::Dead(wall_ms())
            }
            Agent::Runs(process) => {
                process.stop();
                Agent::Frozen(process, wall_ms())
            }
            other => revive(other, guest, &mut down, || start(&site, guest)),
        };
    }
    for (guest, agent) in agents.iter_mut().enumerate() {
        let taken = std::mem::replace(agent, Agent::Dead(0));
        *agent = revive(taken, guest, &mut down, || start(&site, guest));
    }
    site.peace(&NAMES);
    let late = yardstick.finish() as i64;
    let slack = 150 + 2 * late;
    let mut checked = 0;
    for (guest, watch) in watches.into_iter().enumerate() {
        for (when, row) in watch.finish().iter().filter(|(_, row)| row["reachable"] == true) {
            let name = NAMES[guest];
            let excuse = |down: &&Down| *when > down.from + WINDOW + slack && *when < down.to;
            if let Some(down) = down.iter().filter(|down| down.guest == guest).find(excuse) {
                let since = when - down.from;
                panic!(
                    "seed {seed}: {name} is reachable {since} ms after it stopped (late {late} ms): {row}"
                );
            }
            let passed = site.proxies[guest].last_passed(*when).unwrap_or(0);
            let unheard = when - passed;
            assert!(unheard <= WINDOW + slack, "seed {seed}: {name} was not heard for {unheard} ms: {row}");
            checked += 1;
        }
    }
    println!("{checked} answers said reachable; {} times somebody did not run; late {late} ms", down.len());
    site.report();
    // And in peace everything is as it always is.
    for name in NAMES {
        assert_eq!(site.world.castra(&["ping", name, "-c", "1"]).code, 0, "{name}");
    }
    let Some(Agent::Runs(last)) = agents.pop() else { unreachable!() };
    last.kill();
    site.world.wait(&[NAMES[3]], "waiting");
    for agent in agents {
        let Agent::Runs(mut agent) = agent else { unreachable!() };
        agent.signal(rustix::process::Signal::TERM);
        assert_eq!(agent.exit(PATIENCE).code(), Some(0));
    }
}

/// It runs from now on.
fn revive(agent: Agent, guest: usize, down: &mut Vec<Down>, start: impl Fn() -> Process) -> Agent {
    let (from, to, process) = match agent {
        Agent::Runs(process) => return Agent::Runs(process),
        Agent::Frozen(process, from) => {
            let to = wall_ms();
            process.go_on();
            (from, to, process)
        }
        Agent::Dead(from) => (from, wall_ms(), start()),
    };
    down.push(Down { guest, from, to });
    Agent::Runs(process)
}
