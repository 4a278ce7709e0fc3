//! A broker, and guests that reach it over a network of their own each.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::fault_proxy::{FaultProxy, Profile, Random};
use crate::support::{Broker, PATIENCE, World, until};

/// How long a guest may need to come back in peace: the agent rests at most 10 s between
/// dials, and whatever it waits for in a handshake ends within 5 s.
const RETURN: &str = "40s";

pub(crate) struct Site {
    /// One for each guest, in their order.
    pub(crate) proxies: Vec<FaultProxy>,
    pub(crate) names: Vec<String>,
    pub(crate) random: Random,
    /// Ends before its world.
    pub(crate) broker: Broker,
    pub(crate) world: World,
}

/// The seeds to play with, and what is said of each before it.
pub(crate) fn seeds(scenario: &str) -> impl Iterator<Item = u64> {
    let list = std::env::var("CASTRA_FAULT_SEEDS").unwrap_or_else(|_| "1".to_owned());
    let seeds: Vec<u64> = list.split(',').map(|seed| seed.trim().parse().unwrap()).collect();
    seeds.into_iter().inspect(move |seed| println!("{scenario}: seed {seed}"))
}

impl Site {
    /// Every other guest comes by TCP, the others by a unix socket.
    pub(crate) fn new(names: &[&str], args: &[&str], seed: u64) -> Self {
        let world = World::new();
        let unix = format!("unix:{}", world.path("link.sock").display());
        let broker = world.broker(&[&["--listen", "tcp:127.0.0.1:0", "--listen", &unix], args].concat());
        let mut random = Random::new(seed);
        let proxies = (0..names.len()).map(|index| {
            let address = &broker.listen[index % 2];
            FaultProxy::new(address, Profile::Wild, random.next(), &world.path("")).unwrap()
        });
        let proxies = proxies.collect();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Self { proxies, names, random, broker, world }
    }

    /// Where this guest connects.
    pub(crate) fn address(&self, index: usize) -> &str {
        &self.proxies[index].address
    }

    /// From now on nothing happens to anybody; everybody who lives has to be reachable soon.
    pub(crate) fn peace(&self, alive: &[&str]) {
        self.proxies.iter().for_each(FaultProxy::make_peace);
        let ran = self.world.castra(&[&["wait", "--timeout", RETURN], alive].concat());
        assert_eq!(ran.code, 0, "{ran:?}\n{}", self.world.log());
    }

    /// What was done to the guests.
    pub(crate) fn report(&self) {
        for (name, proxy) in self.names.iter().zip(&self.proxies) {
            println!("{name}: {} connections, {:?}", proxy.connections(), proxy.faults());
        }
        let faults = self.proxies.iter().flat_map(FaultProxy::faults);
        let ends = faults.filter(|(fault, _)| fault.is_end()).map(|(_, count)| count).sum::<u64>();
        assert!(ends > 0, "no connection was lost: nothing was tested");
    }
}

/// The keepers of terminals, and what runs on them, outlive an agent on purpose.
pub(crate) fn end_terminals(world: &World) {
    let ours = |line: &str| line.contains("terminals-holder") || line.starts_with("cat ");
    for (pid, _) in world.processes().iter().filter(|(_, line)| ours(line)) {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(pid, Signal::KILL);
    }
    until(PATIENCE, || !world.processes().iter().any(|(_, line)| ours(line)));
}

/// A time between the two, in milliseconds.
pub(crate) fn some_time(random: &mut Random, least: u64, most: u64) -> Duration {
    Duration::from_millis(random.between(least, most))
}
