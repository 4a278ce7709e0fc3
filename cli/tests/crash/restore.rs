//! A guest that is off and is started by command.

use std::time::Duration;

use serde_json::json;

use crate::load::{Desk, Load, Random, Said, Site};

pub(crate) struct Restores {
    random: Random,
    desk: Desk,
    asked: usize,
    /// Told to have been started.
    started: usize,
}

/// Whom castra.toml names: the guest that is started, and so many others.
pub(crate) fn write_configuration(site: &Site, others: u64) {
    let (runs, link) = (site.world.path("runs"), site.link());
    let start = format!(
        "echo run >> {}; exec {} agent --name off --connect unix:{} --once --timeout 3s",
        runs.display(),
        env!("CARGO_BIN_EXE_castra"),
        link.display()
    );
    let others: String = (1..=others).map(|number| format!("[guests.known{number}]\n")).collect();
    // Whole, as an editor writes it: a broker may start at any moment.
    let path = site.world.path("castra.toml");
    let fresh = site.world.path("castra.toml.new");
    std::fs::write(&fresh, format!("[guests.off]\nstart = '''{start}'''\n{others}")).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

impl Restores {
    pub(crate) fn new(site: &Site, seed: u64) -> Self {
        Self { random: Random(seed), desk: site.desk(), asked: 0, started: 0 }
    }

    fn runs(site: &Site) -> usize {
        std::fs::read_to_string(site.world.path("runs")).map_or(0, |text| text.lines().count())
    }

    fn compare(&self, site: &Site) {
        let runs = Self::runs(site);
        assert!(
            (self.started..=self.asked).contains(&runs),
            "broken promise: {runs} runs of the start command; asked {} times, told {} times",
            self.asked,
            self.started
        );
    }
}

impl Load for Restores {
    fn check(&mut self, site: &Site) {
        self.compare(site);
    }

    fn step(&mut self, site: &Site) -> Option<()> {
        std::thread::sleep(Duration::from_millis(self.random.below(60)));
        self.asked += 1;
        match self.desk.ask("restore", &json!({"guest": "off", "timeout_ms": 1500})) {
            Said::Yes(data) if data["started"] == true => {
                self.started += 1;
                site.count("restores: started");
            }
            Said::Yes(_) => site.count("restores: there already"),
            Said::No(code) => {
                // Its command may have tried a broker that was killed.
                assert!(matches!(code.as_str(), "timeout" | "refused"), "{code}");
                site.count(&format!("restores: {code}"));
            }
            Said::Lost => return None,
        }
        self.compare(site);
        Some(())
    }

    fn end(&mut self, site: &Site) {
        self.compare(site);
        site.add("runs of the start command", Self::runs(site));
    }
}
