//! The real agents that stay: pairs of peers, and managed guests. They are killed and started, too.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::load::{Random, Site};
use crate::support::Process;

/// Three pairs.
pub(crate) const PEERS: [&str; 6] = ["a0", "b0", "a1", "b1", "a2", "b2"];
/// One is managed over its link, one over HTTP.
pub(crate) const MANAGED: [&str; 2] = ["m0", "m1"];
/// Those with a token.
pub(crate) const KEYED: [&str; 4] = ["a0", "b2", "m0", "m1"];

#[derive(Default)]
pub(crate) struct Agents {
    running: Mutex<BTreeMap<&'static str, Process>>,
    /// What managed ones said in the lives before this one.
    said: Mutex<BTreeMap<&'static str, String>>,
}

impl Agents {
    pub(crate) fn start(&self, site: &Site, name: &'static str) {
        let address = format!("unix:{}", site.link().display());
        let path = |end: &str| site.world.path(&format!("{name}.{end}")).to_str().unwrap().to_owned();
        let (token, inbox, typed) = (path("token"), path("inbox"), path("typed"));
        let mut args = vec!["--inbox", &inbox, "--peers", "accept"];
        if KEYED.contains(&name) {
            args.extend(["--token-file", &token]);
        }
        if MANAGED.contains(&name) {
            args.extend(["--exec", "/bin/sh", "-c", "exec cat >> \"$0\"", &typed]);
        }
        let agent = site.world.agent(name, &address, &args);
        self.running.lock().unwrap().insert(name, agent);
    }

    /// Kills an agent as it stands, and starts it again.
    fn restart(&self, site: &Site, name: &'static str) {
        site.ends(name);
        let agent = self.running.lock().unwrap().remove(name).unwrap();
        if MANAGED.contains(&name) {
            self.said.lock().unwrap().entry(name).or_default().push_str(&agent.err.text());
        }
        agent.kill();
        self.start(site, name);
        site.count("agents killed and started again");
    }

    /// Some of those that wait to connect again are killed instead, and now and then one of the others.
    pub(crate) fn shake(&self, site: &Site, reachable: &[String], random: &mut Random) {
        for name in PEERS.into_iter().chain(MANAGED) {
            let there = reachable.iter().any(|found| found == name);
            if random.one_in(if there { 24 } else { 2 }) {
                self.restart(site, name);
            }
        }
    }

    /// What an agent ever said.
    pub(crate) fn said(&self, name: &str) -> String {
        let before = self.said.lock().unwrap().get(name).cloned().unwrap_or_default();
        let now = self.running.lock().unwrap().get(name).map_or_else(String::new, |agent| agent.err.text());
        before + &now
    }

    pub(crate) fn end(&self) {
        for (_, agent) in std::mem::take(&mut *self.running.lock().unwrap()) {
            agent.kill();
        }
    }
}
