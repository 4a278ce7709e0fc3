//! The same tests once more with a worse network: `CASTRA_TEST_PROXY=slow:SEED` or
//! `rough:SEED` leads every agent that dials to a proxy of its own, in front of the
//! address that it was given. `CASTRA_TEST_PROXY_LOG` names a file that gets a line
//! for each world (`.ci/faults` counts them).

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use super::fault_proxy::{FaultProxy, Profile, Random};

/// What a test with a played broker has against connections that end early.
const PLAYED: &str = "its broker is played by bytes, and takes the first connection for the session";
/// What tests have against it whose agents have little time.
const HASTE: &str = "its agents have 2 s, and one that was cut off rests for up to 3 s";

/// What tests have against it that count.
const COUNTED: &str = "it counts handshakes and sessions, of which each cut makes more";

/// Tests, by how their names begin, for which it is meaningless from this profile on, and why.
const EXCEPT: [(&str, Profile, &str); 7] = [
    ("agent_inbox::", Profile::Rough, PLAYED),
    ("forged::", Profile::Rough, PLAYED),
    ("impostors::a_broker_that_does_not_know_the_token", Profile::Rough, PLAYED),
    ("impostors::an_agent_with_the_wrong_token", Profile::Rough, HASTE),
    ("metrics::", Profile::Rough, COUNTED),
    ("tokens::", Profile::Rough, HASTE),
    (
        "broker_stops::a_broker_that_did_not_run",
        Profile::Rough,
        "its mute guest stays reachable for 3 s, which may be less than the agents need to come",
    ),
];

/// What lies around the agents of one world.
pub(super) struct Faults {
    test: String,
    profile: Profile,
    seed: u64,
    proxies: Mutex<Vec<FaultProxy>>,
}

impl Faults {
    /// `None`: the network is as good as it is.
    pub(super) fn asked_for() -> Option<Self> {
        let asked = std::env::var("CASTRA_TEST_PROXY").ok()?;
        let (profile, seed) = asked
            .split_once(':')
            .and_then(|(name, seed)| Some((Profile::named(name)?, seed.parse().ok()?)))
            .unwrap_or_else(|| panic!("CASTRA_TEST_PROXY is PROFILE:SEED, not {asked:?}"));
        let thread = std::thread::current();
        let test = thread.name().filter(|name| *name != "main").expect("the thread has its test's name");
        let test = test.to_owned();
        if let Some((_, _, why)) =
            EXCEPT.iter().find(|(name, from, _)| test.starts_with(name) && profile >= *from)
        {
            log(&format!("except {test}: {why}"));
            return None;
        }
        println!("CASTRA_TEST_PROXY={asked} stands between the agents of {test} and their broker");
        Some(Self { test, profile, seed, proxies: Mutex::default() })
    }

    /// The same arguments; an agent's with a proxy's address.
    pub(super) fn lead_around(&self, args: &[&str], folder: &Path) -> Vec<String> {
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let connect = args.iter().position(|arg| arg == "--connect");
        if let (Some("agent"), Some(at)) = (args.first().map(String::as_str), connect)
            && (args[at + 1].starts_with("tcp:") || args[at + 1].starts_with("unix:"))
        {
            let mut proxies = self.proxies.lock().unwrap();
            let number = proxies.len() as u64;
            let name = self.test.bytes().fold(0, |hash, byte| Random::new(hash ^ u64::from(byte)).next());
            let seed = Random::new(self.seed ^ name).fork(number).next();
            let proxy = FaultProxy::new(&args[at + 1], self.profile, seed, folder).unwrap();
            args[at + 1].clone_from(&proxy.address);
            proxies.push(proxy);
        }
        args
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let proxies = std::mem::take(&mut *self.proxies.lock().unwrap());
        let connections: u64 = proxies.iter().map(FaultProxy::connections).sum();
        let mut line = format!("through {}: agents={} connections={connections}", self.test, proxies.len());
        let counts: Vec<_> = proxies.iter().flat_map(FaultProxy::faults).collect();
        for fault in super::fault_proxy::Fault::ALL {
            let sum: u64 = counts.iter().filter(|(which, _)| *which == fault).map(|(_, count)| count).sum();
            let _ = write!(line, " {fault:?}={sum}");
        }
        println!("{line}");
        log(&line);
    }
}

fn log(line: &str) {
    if let Some(path) = std::env::var_os("CASTRA_TEST_PROXY_LOG") {
        let file = File::options().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}
