//! Guests that come and go: real agents, scripted ones that prove themselves once, ones of castra
//! 0.1, and ones that never finish.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::load::{Desk, Load, Random, Said, Site};
use crate::scripted::{Scripted, Verdict};
use crate::support::{PATIENCE, Process};

pub(crate) struct Guests {
    random: Random,
    desk: Desk,
    /// A session that stays open beside the others.
    held: Option<Scripted>,
    agent: Option<Process>,
}

impl Guests {
    pub(crate) fn new(site: &Site, seed: u64) -> Self {
        Self { random: Random(seed), desk: site.desk(), held: None, agent: None }
    }

    /// A real agent starts, or the one that is there leaves: kindly or at once.
    fn churn(&mut self, site: &Site) {
        match self.agent.take() {
            None => {
                let address = format!("unix:{}", site.link().display());
                let inbox = site.world.path("visitor.inbox");
                let args = ["--inbox", inbox.to_str().unwrap()];
                self.agent = Some(site.world.agent("visitor", &address, &args));
                site.count("guests: agents started");
            }
            Some(agent) if self.random.one_in(2) => {
                agent.kill();
                site.count("guests: agents killed");
            }
            Some(mut agent) => {
                agent.signal(Signal::TERM);
                agent.exit(PATIENCE);
                site.count("guests: agents ended");
            }
        }
    }
}

impl Load for Guests {
    /// Only this load plays them, so none of them can have proven itself to a new broker.
    fn check(&mut self, _site: &Site) {
        self.held = None;
        let document = self.desk.must("status", &json!({}));
        for row in document["guests"].as_array().unwrap() {
            let name = row["name"].as_str().unwrap();
            let ours = ["once", "old", "half", "held"].iter().any(|kind| name.starts_with(kind));
            assert!(!ours || row["reachable"] == false, "broken promise: reachable without a proof: {row}");
        }
    }

    fn step(&mut self, site: &Site) -> Option<()> {
        let number = self.random.below(4);
        let kind = self.random.below(24);
        if kind == 0 {
            self.churn(site);
            return Some(());
        }
        let mut guest = Scripted::connect(&site.link())?;
        let (what, verdict) = match kind {
            1..=8 => ("once", guest.prove(&format!("once{number}"), None, true)),
            9..=12 => ("of 0.1, frames", guest.of_0_1(&format!("old{number}"), true)),
            13..=15 => ("of 0.1", guest.of_0_1(&format!("old{number}"), false)),
            16..=18 => {
                guest.send(b"hello vm:half capabilities=proof-v1\n")?;
                guest.line()?;
                ("half a handshake", Verdict::Ok)
            }
            _ => {
                let name = format!("held{number}");
                let began = Instant::now();
                let verdict = guest.prove(&name, None, false);
                if verdict == Verdict::Ok {
                    // Its word was sent, so a question after it sees that, for a window.
                    let said = self.desk.ask("status", &json!({"guests": [name]}));
                    if let (Said::Yes(document), true) = (said, began.elapsed() < Duration::from_secs(2)) {
                        assert_eq!(document["guests"][0]["reachable"], true, "{document}");
                    }
                    self.held = Some(guest);
                }
                ("sessions", verdict)
            }
        };
        match verdict {
            Verdict::Lost => return None,
            Verdict::Ok => site.count(&format!("guests: {what}")),
            Verdict::Refused(code) => {
                assert!(matches!(code.as_str(), "name-in-use" | "busy" | "timeout"), "{what}: {code}");
                site.count(&format!("guests: {code}"));
            }
        }
        std::thread::sleep(Duration::from_millis(self.random.below(4)));
        Some(())
    }

    fn end(&mut self, _site: &Site) {
        self.held = None;
        if let Some(mut agent) = self.agent.take() {
            agent.signal(Signal::TERM);
            agent.exit(PATIENCE);
        }
    }
}
