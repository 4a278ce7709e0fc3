//! Managed attach: guests are adopted and released, and type what they are told, at most once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::load::{Desk, Load, Random, Said, Site};
use crate::promises::{Actions, Fate, Promise};
use crate::support::{PATIENCE, until};

pub(crate) struct Managed {
    name: &'static str,
    /// Over the guest's link, even if there is HTTP.
    link: bool,
    random: Random,
    desk: Desk,
    session: Promise<Session>,
    actions: Actions,
    asked: u64,
    deaths: u64,
}

#[derive(Clone, PartialEq, Debug)]
enum Session {
    None,
    Is(String),
    /// It was adopted, and the answer that says as what was lost.
    Unknown,
}

impl Managed {
    pub(crate) fn new(site: &Site, name: &'static str, link: bool, seed: u64) -> Self {
        Self {
            name,
            link,
            random: Random(seed),
            desk: site.desk(),
            session: Promise::new(format!("the session of {name}"), Session::None),
            actions: Actions::default(),
            asked: 0,
            deaths: 0,
        }
    }

    fn is(&mut self, session: &str) {
        let session = Session::Is(session.to_owned());
        if !self.session.may_be(&session) && self.session.may_be(&Session::Unknown) {
            return self.session.is(session);
        }
        self.session.seen(session);
    }

    /// An agent that is killed leaves what it was applying undone, or half done.
    fn excuse(&mut self, site: &Site) {
        let deaths = site.times_ended(self.name);
        if deaths != self.deaths {
            self.deaths = deaths;
            self.actions.excuse();
        }
    }

    fn typed(&self, site: &Site) {
        let file = site.world.path(&format!("{}.typed", self.name));
        let read = || std::fs::read_to_string(&file).unwrap_or_default();
        // What is in the terminal is in the file a moment later.
        until(PATIENCE, || self.actions.arrived(&read()));
        self.actions.typed(&read());
    }

    fn send(&mut self, site: &Site) -> Option<()> {
        self.asked += 1;
        let line = format!("{}-{}", self.name, self.asked);
        self.actions.asks(&line);
        let wait = self.random.one_in(3);
        let params = json!({"guest": self.name, "action_type": "terminal_write",
            "payload": {"bytes": format!("{line}\n")}, "wait": wait, "timeout_ms": 400});
        match self.desk.ask("action_send", &params) {
            Said::Yes(data) => {
                let fate = match data["status"].as_str().unwrap() {
                    "queued" => Fate::Queued,
                    "ok" => Fate::Applied,
                    _ => Fate::Failed,
                };
                self.actions.answered(&line, data["id"].as_str(), fate);
                site.count(&format!("actions: {}", data["status"].as_str().unwrap()));
            }
            Said::No(code) if code == "timeout" => site.count("actions: not in time"),
            Said::No(code) => {
                let no = ["not_attached", "guest_offline", "missing_lease", "full"].contains(&code.as_str());
                assert!(no, "action_send: {code}");
                self.actions.answered(&line, None, Fate::Refused);
                std::thread::sleep(std::time::Duration::from_millis(20));
                site.count(&format!("actions: {code}"));
            }
            Said::Lost => return None,
        }
        Some(())
    }

    fn adopt(&mut self, site: &Site) -> Option<()> {
        if self.session.may_be(&Session::None) {
            self.session.asks(Session::Unknown);
        }
        let params = json!({"guest": self.name, "link": self.link, "wait": false});
        match self.desk.ask("adopt", &params) {
            Said::Yes(data) => self.is(data["session_id"].as_str().unwrap()),
            Said::No(code) if code == "timeout" => return Some(()),
            Said::No(code) => panic!("adopt {}: {code}", self.name),
            Said::Lost => return None,
        }
        site.count("guests adopted");
        Some(())
    }

    fn release(&mut self, site: &Site) -> Option<()> {
        let may = self.session.known() != Some(&Session::None);
        self.session.asks(Session::None);
        self.actions.excuse();
        match self.desk.ask("release", &json!({"guest": self.name})) {
            Said::Yes(_) => {
                assert!(may, "{} was released, and nobody had adopted it", self.name);
                self.session.is(Session::None);
                site.count("guests released");
            }
            Said::No(code) if code == "timeout" => {}
            Said::No(code) => {
                assert_eq!(code, "not_attached");
                self.session.seen(Session::None);
            }
            Said::Lost => return None,
        }
        Some(())
    }

    /// What was promised to wait and doesn't has come to an end, of which the guest knows.
    fn queue(&mut self, site: &Site) {
        let listed = self.desk.must("action_list", &json!({"guest": self.name}));
        let ids: BTreeSet<String> = listed["actions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|action| action["id"].as_str().unwrap().to_owned())
            .collect();
        for (line, id) in self.actions.gone(&ids) {
            let mut fate = None;
            let told = until(PATIENCE, || {
                let said = site.agents.said(self.name);
                let applied = said.lines().find(|line| line.contains(&format!(" id={id} status=")));
                fate = applied
                    .map(|line| if line.contains(" status=ok ") { Fate::Applied } else { Fate::Failed });
                self.excuse(site);
                fate.is_some() || !self.actions.gone(&ids).iter().any(|(_, gone)| *gone == id)
            });
            assert!(told, "broken promise: {id} ({line}) left the queue and was never applied");
            if let Some(fate) = fate {
                self.actions.settled(&line, fate);
            }
        }
    }

    fn row(&mut self) -> Option<Value> {
        let listed = self.desk.must("attachments", &json!({}));
        listed["attachments"].as_array().unwrap().iter().find(|row| row["guest"] == self.name).cloned()
    }
}

impl Load for Managed {
    fn check(&mut self, site: &Site) {
        self.excuse(site);
        match self.row() {
            Some(row) => self.is(row["session_id"].as_str().unwrap()),
            None => self.session.seen(Session::None),
        }
        self.queue(site);
        self.typed(site);
    }

    fn step(&mut self, site: &Site) -> Option<()> {
        self.excuse(site);
        std::thread::sleep(std::time::Duration::from_millis(self.random.below(12)));
        match self.random.below(128) {
            0 => self.release(site),
            1 | 2 => self.adopt(site),
            3..=40 if self.session.known() == Some(&Session::None) => self.adopt(site),
            3..=6 => {
                self.desk.forget();
                Some(())
            }
            _ => self.send(site),
        }
    }

    fn end(&mut self, site: &Site) {
        if let Some(row) = self.row() {
            let drained = until(PATIENCE * 2, || self.row().is_some_and(|row| row["queued"] == 0));
            assert!(drained, "broken promise: actions wait for ever: {row} {:?}", self.row());
        }
        self.queue(site);
        self.typed(site);
        let (asked, applied) = self.actions.count();
        site.add("actions asked for", asked);
        site.add("actions known to be applied", applied);
    }
}
