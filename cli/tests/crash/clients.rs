//! Clients that look: status, wait, ping, events and the command line. Each question has one
//! answer, or the connection's end, and what is numbered only rises.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Desk, Load, Random, Said, Site};
use crate::promises::Cursors;

pub(crate) struct Clients {
    random: Random,
    desk: Desk,
    cursors: Cursors,
    /// Names in castra.toml that a broker said it read.
    known: u64,
}

impl Clients {
    pub(crate) fn new(site: &Site, seed: u64) -> Self {
        Self { random: Random(seed), desk: site.desk(), cursors: Cursors::default(), known: 0 }
    }

    fn take(&mut self, data: &Value) {
        let mut gap = data["gap"] == true;
        for event in data["events"].as_array().unwrap() {
            self.cursors.next(event["cursor"].as_str().unwrap(), gap);
            gap = false;
        }
        self.cursors.not_before(data["cursor"].as_str().unwrap());
    }

    /// One more name for everybody; that it is known is checked from then on.
    fn reload(&mut self, site: &Site) -> Option<()> {
        crate::restore::write_configuration(site, self.known + 1);
        let said = self.desk.ask("reload", &json!({}));
        // Whoever didn't read it now does so at its start.
        self.known += 1;
        match said {
            Said::Lost => return None,
            Said::Yes(_) => {}
            Said::No(code) => assert_eq!(code, "timeout", "reload"),
        }
        site.count("clients: reload");
        Some(())
    }
}

impl Load for Clients {
    fn check(&mut self, _site: &Site) {
        let since = self.cursors.last();
        let params = since.as_ref().map_or_else(|| json!({}), |since| json!({"since": since}));
        let data = self.desk.must("events", &params);
        assert!(since.is_none() || data["gap"] == true, "a new broker has no events of an old one: {data}");
        self.take(&data);
        self.check_known();
    }

    fn step(&mut self, site: &Site) -> Option<()> {
        let said = match self.random.below(32) {
            0..=9 => {
                let params = self.cursors.last().map_or_else(|| json!({}), |since| json!({"since": since}));
                let said = self.desk.ask("events", &params);
                if let Said::Yes(data) = &said {
                    self.take(data);
                }
                ("events", said)
            }
            10..=17 => {
                let said = self.desk.ask("status", &json!({}));
                if let Said::Yes(document) = &said {
                    for row in document["guests"].as_array().unwrap() {
                        let age = row["last_handshake_age_ms"].as_u64();
                        let old = age.is_none_or(|age| age > row["window_ms"].as_u64().unwrap());
                        assert!(row["reachable"] == false || !old, "reachable with an old proof: {row}");
                    }
                }
                ("status", said)
            }
            18..=21 => {
                let timeout = self.random.below(200);
                let target = if self.random.one_in(2) { "reachable" } else { "waiting" };
                let name = format!("a{}", self.random.below(3));
                let params = json!({"guests": [name], "for": target, "timeout_ms": timeout});
                ("wait", self.desk.ask("wait", &params))
            }
            22..=24 => {
                let name = format!("b{}", self.random.below(3));
                ("ping", self.desk.ask("ping", &json!({"guest": name, "timeout_ms": 100})))
            }
            25 | 26 => ("info", self.desk.ask("info", &json!({}))),
            27 | 28 => {
                let name = format!("a{}", self.random.below(3));
                ("inbox", self.desk.ask("inbox", &json!({"name": name, "limit": 20})))
            }
            29 if self.random.one_in(6) => return self.reload(site),
            _ if self.random.one_in(6) => {
                let ran = site.world.castra(&["status", "--json"]);
                // The broker is there, isn't, or ended while it answered.
                assert!(matches!(ran.code, 0 | 3), "{ran:?}");
                serde_json::from_str::<Value>(&ran.out).unwrap();
                ("the command line", Said::Yes(Value::Null))
            }
            _ => {
                std::thread::sleep(Duration::from_millis(3));
                return Some(());
            }
        };
        match said {
            (_, Said::Lost) => return None,
            (what, Said::Yes(_)) => site.count(&format!("clients: {what}")),
            (what, Said::No(code)) => {
                let plausible =
                    matches!(code.as_str(), "timeout" | "not_reachable" | "unknown_guest" | "unknown");
                assert!(plausible, "{what}: {code}");
                site.count(&format!("clients: {what}, {code}"));
            }
        }
        Some(())
    }

    fn end(&mut self, site: &Site) {
        let data = self.desk.must("events", &json!({"since": self.cursors.last()}));
        self.take(&data);
        self.check_known();
        site.add("guests in castra.toml", self.known as usize);
    }
}

impl Clients {
    fn check_known(&mut self) {
        let names: Vec<_> = (1..=self.known).map(|number| format!("known{number}")).collect();
        if !names.is_empty() {
            self.desk.must("status", &json!({"guests": names}));
        }
    }
}
