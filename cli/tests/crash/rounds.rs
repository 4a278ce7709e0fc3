//! Brokers that serve and are killed, one after the other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::agents::{KEYED, MANAGED, PEERS};
use crate::clients::Clients;
use crate::files::Files;
use crate::gate::{Gate, Place};
use crate::guests::Guests;
use crate::load::{Load, Random, Site};
use crate::managed::Managed;
use crate::peers::Peers;
use crate::restore::{Restores, write_configuration};
use crate::support::{Broker, PATIENCE, Process, World, until};
use crate::terminals::Terminals;
use crate::tokens::Tokens;
use crate::wire_of_guests::Wire;

/// What the brokers have in common, and who kills them.
struct Rounds<'a> {
    site: &'a Site,
    gate: &'a Gate,
    http: &'a Wire,
    random: Random,
    files: Files,
    incarnation: u64,
    /// How long a start takes here.
    start: Duration,
    moments: BTreeMap<&'static str, usize>,
}

/// Runs so many rounds, each of which ends with a broker that is no more.
pub(crate) fn run(rounds: usize, seed: u64) {
    let (site, gate, http) = (Site::new(World::new()), Gate::default(), Wire::new());
    write_configuration(&site, 0);
    let mut all = Rounds {
        site: &site,
        gate: &gate,
        http: &http,
        random: Random(seed),
        files: Files::default(),
        incarnation: 0,
        start: Duration::ZERO,
        moments: BTreeMap::new(),
    };
    let mut broker = all.serve();
    for name in KEYED {
        let token = site.desk().must("token_issue", &json!({"guest": name}));
        site.world.secret(&format!("{name}.token"), token["token"].as_str().unwrap());
    }
    PEERS.into_iter().chain(MANAGED).for_each(|name| site.agents.start(&site, name));
    site.world.wait(&PEERS, "reachable");
    site.world.wait(&MANAGED, "reachable");
    let mut loads: Vec<Box<dyn Load>> = vec![
        Box::new(Peers::new(&site, 0, false, seed + 1)),
        Box::new(Peers::new(&site, 1, false, seed + 2)),
        Box::new(Peers::new(&site, 2, true, seed + 3)),
        Box::new(Tokens::new(&site, seed + 4)),
        Box::new(Guests::new(&site, seed + 5)),
        Box::new(Clients::new(&site, seed + 6)),
        Box::new(Restores::new(&site, seed + 7)),
        Box::new(Terminals::new(seed + 8)),
        Box::new(Managed::new(&site, MANAGED[0], true, seed + 9)),
        Box::new(Managed::new(&site, MANAGED[1], false, seed + 10)),
    ];
    let broker = std::thread::scope(|scope| {
        // Whoever waits learns that this thread failed.
        let _own = gate.watch();
        for load in &mut loads {
            let (place, site) = (gate.join(), &site);
            scope.spawn(move || work(load.as_mut(), site, &place));
        }
        for round in 1..=rounds {
            broker = all.round(broker);
            if round % 25 == 0 {
                println!("{round} rounds: {:?}", all.moments);
            }
        }
        gate.open(true);
        gate.await_ended();
        broker
    });
    all.end(broker);
    drop(loads);
    let (moments, kills) = (&all.moments, all.moments.values().sum::<usize>());
    println!("{rounds} rounds, seed {seed}, {kills} kills: {moments:?}");
    for (what, count) in site.counts() {
        println!("  {count:>8}  {what}");
    }
    println!("{rounds} rounds, {kills} kills, losses 0");
}

/// One load's whole life.
fn work(load: &mut dyn Load, site: &Site, place: &Place<'_>) {
    let mut life = 0;
    loop {
        let (next, peace) = place.next(life);
        life = next;
        load.check(site);
        place.checked();
        if peace {
            return load.end(site);
        }
        while place.is_open() && load.step(site).is_some() {}
    }
}

impl Rounds<'_> {
    /// Starts a broker that serves, and compares what only a whole start can show.
    fn serve(&mut self) -> Broker {
        let began = Instant::now();
        let args = arguments(self.site, self.http);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let broker = self.site.world.broker(&args);
        self.start = began.elapsed();
        let mut desk = self.site.desk();
        let document = desk.must("status", &json!({}));
        let incarnation = desk.must("info", &json!({}))["incarnation"].as_u64().unwrap();
        assert!(
            incarnation > self.incarnation,
            "broken promise: incarnation {incarnation} after {}",
            self.incarnation
        );
        self.incarnation = incarnation;
        for row in document["guests"].as_array().unwrap() {
            // Who is reachable has proven itself to this broker.
            let here = row["epoch"].as_u64().is_some_and(|epoch| epoch >> 32 == incarnation);
            assert!(row["reachable"] == false || here, "broken promise: reachable without a proof: {row}");
        }
        Files::after_a_start(self.site, broker.process.pid());
        let ready: Value = serde_json::from_str(&broker.process.out.first(PATIENCE)).unwrap();
        let manager = ready["manager"].as_str().unwrap();
        self.http.lead_to(manager.rsplit_once(':').unwrap().1.parse().unwrap());
        broker
    }

    fn round(&mut self, broker: Broker) -> Broker {
        self.gate.open(false);
        self.gate.await_checked();
        let reachable = self.reachable();
        self.site.add("agents there when the load began", reachable.len());
        if self.random.one_in(2) {
            // They wait up to 10 s before they connect again; new ones are there at once.
            self.site.agents.shake(self.site, &reachable, &mut self.random);
            until(Duration::from_secs(1), || self.reachable().len() > 5);
        }
        let pid = broker.process.pid();
        self.kill(broker);
        self.gate.close();
        until(PATIENCE, || !std::path::Path::new(&format!("/proc/{pid}")).exists());
        self.files.after_a_kill(self.site, &mut self.random);
        if self.random.one_in(3) {
            for _ in 0..=self.random.below(3) {
                self.kill_a_start();
            }
        }
        self.serve()
    }

    /// Who of the agents is reachable.
    fn reachable(&self) -> Vec<String> {
        let document = self.site.desk().must("status", &json!({}));
        let rows = document["guests"].as_array().unwrap();
        let agents: Vec<_> = PEERS.into_iter().chain(MANAGED).collect();
        rows.iter()
            .filter(|row| row["reachable"] == true)
            .map(|row| row["name"].as_str().unwrap().to_owned())
            .filter(|name| agents.contains(&name.as_str()))
            .collect()
    }

    /// Ends a broker, at a moment of chance.
    fn kill(&mut self, mut broker: Broker) {
        if self.random.one_in(12) {
            let holders = holders(self.site);
            if !holders.is_empty() {
                std::thread::sleep(Duration::from_millis(self.random.below(100)));
                self.site.ends("holder");
                holders.into_iter().for_each(kill);
                self.site.count("holders of terminals killed");
            }
        }
        let moment = match self.random.below(10) {
            0..=4 => {
                std::thread::sleep(Duration::from_micros(self.random.below(400_000)));
                "under load"
            }
            5 | 6 => {
                // The moment at which somebody just got an answer.
                let wanted = self.site.total() + 1 + self.random.below(60) as usize;
                until_quickly(Duration::from_millis(600), || self.site.total() >= wanted);
                "as an answer came"
            }
            7 | 8 => return self.kill_a_leaving(broker),
            _ => {
                std::thread::sleep(Duration::from_micros(self.random.below(200_000)));
                broker.process.signal(Signal::TERM);
                std::thread::sleep(Duration::from_micros(self.random.below(20_000)));
                "after TERM"
            }
        };
        self.killed(&mut broker.process, moment);
    }

    /// During `castra down`, or after it.
    fn kill_a_leaving(&mut self, mut broker: Broker) {
        std::thread::sleep(Duration::from_micros(self.random.below(200_000)));
        let down = self.site.world.spawn(&["down"]);
        if self.random.one_in(3) {
            let ran = down.finish(PATIENCE);
            assert_eq!(ran.code, 0, "{ran:?}");
            broker.process.exit(PATIENCE);
            self.site.count("brokers that took leave");
            return;
        }
        let mark = self.site.total();
        // Its own start takes most of it.
        let pause = Duration::from_micros(self.random.below(self.start.as_micros() as u64 + 1));
        until_quickly(pause, || self.site.total() > mark + 1000);
        self.killed(&mut broker.process, "during down");
        let ran = down.finish(PATIENCE);
        assert!(matches!(ran.code, 0 | 3), "{ran:?}");
    }

    fn killed(&mut self, process: &mut Process, moment: &'static str) {
        // It isn't waited for yet, so the number is its own.
        process.signal(Signal::KILL);
        let status = process.exit(PATIENCE);
        if status.code().is_none() {
            *self.moments.entry(moment).or_default() += 1;
        } else {
            assert_eq!(status.code(), Some(0), "{status}: {}", process.err.text());
            self.site.count("brokers that took leave");
        }
    }

    /// A broker that is killed before it serves, or just after.
    fn kill_a_start(&mut self) {
        let args = arguments(self.site, self.http);
        let all: Vec<_> = ["broker", "--json"].into_iter().chain(args.iter().map(String::as_str)).collect();
        let mut process = self.site.world.spawn(&all);
        let most = self.start.as_micros() as u64;
        std::thread::sleep(Duration::from_micros(self.random.below(most + 1)));
        self.killed(&mut process, "during its start");
    }

    /// Everybody leaves, and nothing is left behind.
    fn end(&mut self, mut broker: Broker) {
        let down = self.site.world.castra(&["down"]);
        assert_eq!(down.code, 0, "{down:?}");
        broker.process.exit(PATIENCE);
        self.files.after_a_kill(self.site, &mut Random(1));
        self.site.agents.end();
        // Start commands have a bound of their own.
        let only = until(PATIENCE, || others(self.site).is_empty());
        assert!(only, "left behind: {:?}", others(self.site));
        let all = self.site.world.processes();
        for (pid, line) in &all {
            if line.contains("terminals-holder") {
                kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::TERM).unwrap();
            }
        }
        let gone = until(PATIENCE, || self.site.world.processes().is_empty());
        assert!(gone, "left behind: {:?}", self.site.world.processes());
        Files::after_the_end(self.site);
    }
}

fn arguments(site: &Site, http: &Wire) -> Vec<String> {
    let link = format!("unix:{}", site.link().display());
    let (url, config) = (http.url(), site.world.path("castra.toml"));
    let all =
        ["--listen", &link, "--window", "3s", "--interval", "1s", "--terminals", "--manager", "127.0.0.1:0"];
    let more = ["--manager-advertise", &url, "--config", config.to_str().unwrap()];
    all.into_iter().chain(more).map(str::to_owned).collect()
}

/// The holder of the broker's terminals.
fn holders(site: &Site) -> Vec<u32> {
    let state = site.world.state();
    let state = state.to_str().unwrap();
    let all = site.world.processes().into_iter();
    all.filter(|(_, line)| line.contains("terminals-holder") && line.contains(state))
        .map(|(pid, _)| pid)
        .collect()
}

/// What is neither a holder of terminals nor the program on a managed guest's.
fn others(site: &Site) -> Vec<(u32, String)> {
    let ours = |line: &str| line.contains("terminals-holder") || line.starts_with("cat ");
    site.world.processes().into_iter().filter(|(_, line)| !ours(line)).collect()
}

fn kill(pid: u32) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
}

/// As `until`, for moments that are short.
fn until_quickly(bound: Duration, condition: impl Fn() -> bool) {
    let end = Instant::now() + bound;
    while !condition() && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(200));
    }
}
