//! Two guests that are linked, unlinked and written to, by the host or by themselves. Each
//! operation is repeated until it is answered, sends with their key.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Desk, Load, Random, Said, Site};
use crate::promises::Pair;
use crate::support::{Control, PATIENCE, until};

pub(crate) struct Peers {
    names: [String; 2],
    /// They ask for themselves, on their agents' sockets; what only the operator may do
    /// as often as he likes is asked on the broker's all the same.
    themselves: bool,
    pair: Pair,
    random: Random,
    desk: Desk,
    agents: [Desk; 2],
    /// What has no answer yet.
    open: Option<Operation>,
    sent: u64,
}

#[derive(Clone)]
struct Operation {
    method: &'static str,
    params: Value,
    /// Who asks, and whom it is about.
    from: usize,
    by_guest: bool,
}

impl Peers {
    pub(crate) fn new(site: &Site, number: usize, themselves: bool, seed: u64) -> Self {
        let names = [format!("a{number}"), format!("b{number}")];
        Self {
            pair: Pair::new(&names[0], &names[1]),
            agents: [site.agents_desk(&names[0]), site.agents_desk(&names[1])],
            names,
            themselves,
            random: Random(seed),
            desk: site.desk(),
            open: None,
            sent: 0,
        }
    }

    fn choose(&mut self) -> Operation {
        let from = self.random.below(2) as usize;
        let (source, name) = (&self.names[from], &self.names[1 - from]);
        let by_guest = self.themselves && !self.random.one_in(4);
        let relation = json!({"source": source, "name": name});
        match self.random.below(16) {
            // A guest may ask ten times a minute, and waits two seconds for a no.
            0..=2 => Operation { method: "register_peer", params: relation, from, by_guest: false },
            3 => Operation { method: "unregister_peer", params: relation, from, by_guest },
            4 if self.themselves => Operation { method: "register_peer", params: relation, from, by_guest },
            _ => {
                self.sent += 1;
                let key = format!("{}-{}", self.names[0], self.sent);
                let text = format!("message {key}");
                let params = json!({"from": source, "to": name, "text": text, "key": key, "timeout_ms": 300});
                Operation { method: "send_to_peer", params, from, by_guest }
            }
        }
    }

    /// What an answer means for what has to be true; the outcome, or none if it has to be asked again.
    fn note(&mut self, operation: &Operation, answer: Said) -> Option<String> {
        match (operation.method, answer) {
            (_, Said::Lost) => None,
            ("register_peer", Said::Yes(_)) => {
                self.pair.linked.is(true);
                Some("linked".to_owned())
            }
            ("unregister_peer", Said::Yes(_)) => {
                self.pair.unlinked();
                Some("unlinked".to_owned())
            }
            (_, Said::Yes(data)) => {
                let outcome = data["outcome"].as_str().unwrap();
                assert!(matches!(outcome, "delivered" | "queued"), "{data}");
                let [id, to, text] = [&data["id"], &operation.params["to"], &operation.params["text"]]
                    .map(|text| text.as_str().unwrap());
                self.pair.accepted(id, to, text, outcome == "delivered");
                Some(format!("sent, {outcome}"))
            }
            ("send_to_peer", Said::No(code)) if code == "not_peer" => {
                self.pair.linked.seen(false);
                Some("sent to no peer".to_owned())
            }
            ("register_peer", Said::No(code)) if operation.by_guest && code == "rejected" => {
                self.pair.linked.refused();
                Some("link rejected".to_owned())
            }
            // The disk was slower than that: nobody knows.
            (_, Said::No(code)) if code == "timeout" => None,
            // Its agent has no session, or lost it: nobody knows.
            (_, Said::No(code)) if operation.by_guest => {
                assert!(matches!(code.as_str(), "not_reachable" | "busy" | "forbidden"), "{code}");
                std::thread::sleep(Duration::from_millis(10));
                None
            }
            (method, Said::No(code)) => panic!("{method} {}: {code}", operation.params),
        }
    }

    fn sides(&mut self) {
        let mut sees = |name: &str, peer: &str| {
            let listed = self.desk.must("list_peers", &json!({"name": name}));
            let peers = listed["peers"].as_array().unwrap();
            peers.iter().any(|line| line["name"] == *peer && line["visibility"] == "peer")
        };
        let [one, other] = &self.names;
        let (first, second) = (sees(one, other), sees(other, one));
        self.pair.sides(first, second);
    }

    /// Compares an inbox, if its agent is there.
    fn inbox(&mut self, site: &Site, who: usize) {
        let socket = site.world.path(&format!("{}.sock", self.names[who]));
        // A connection of its own: agents are killed, too.
        let Some(mut agent) = Control::try_connect(&socket) else { return };
        let Some(Ok(data)) = agent.ask("inbox", &json!({})) else { return };
        let listed: Vec<_> = data["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| ["id", "text"].map(|name| line[name].as_str().unwrap().to_owned()))
            .map(|[id, text]| (id, text))
            .collect();
        self.pair.inbox(&self.names[who], &listed);
        site.count("inboxes read");
    }

    fn queued(&mut self, from: usize) -> u64 {
        let listed = self.desk.must("list_peers", &json!({"name": self.names[from]}));
        let peers = listed["peers"].as_array().unwrap();
        let line = peers.iter().find(|line| line["name"] == *self.names[1 - from]);
        line.map_or(0, |line| line["queued"].as_u64().unwrap())
    }
}

impl Load for Peers {
    fn check(&mut self, site: &Site) {
        self.sides();
        if self.random.one_in(4) {
            let who = self.random.below(2) as usize;
            self.inbox(site, who);
        }
    }

    fn step(&mut self, site: &Site) -> Option<()> {
        let operation = self.open.take().unwrap_or_else(|| self.choose());
        match operation.method {
            "register_peer" => self.pair.linked.asks(true),
            "unregister_peer" => {
                self.pair.linked.asks(false);
                self.pair.undo();
            }
            _ => {}
        }
        let desk = if operation.by_guest { &mut self.agents[operation.from] } else { &mut self.desk };
        let answer = desk.ask(operation.method, &operation.params);
        let lost = matches!(answer, Said::Lost);
        match self.note(&operation, answer) {
            Some(outcome) => site.count(&format!("peers: {outcome}")),
            None => {
                if lost {
                    site.count("peers: asked again");
                }
                // Whoever asks for itself may do without its broker for a while.
                self.open = Some(operation.clone());
                (!lost || operation.by_guest).then_some(())?;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if !self.themselves && self.random.one_in(8) {
            let who = self.random.below(2) as usize;
            self.inbox(site, who);
        }
        Some(())
    }

    fn end(&mut self, site: &Site) {
        let answered = until(PATIENCE * 3, || {
            if self.open.is_some() {
                self.step(site);
            }
            self.open.is_none()
        });
        assert!(answered, "{} is never answered", self.open.as_ref().unwrap().params);
        self.sides();
        for from in [0, 1] {
            let empty = until(PATIENCE * 2, || self.queued(from) == 0);
            assert!(empty, "{} messages of {} wait for ever", self.queued(from), self.names[from]);
            let name = self.names[1 - from].clone();
            let came = until(PATIENCE, || {
                self.inbox(site, 1 - from);
                self.pair.missing(&name).is_empty()
            });
            assert!(came, "broken promise: {:?} never came to {name}", self.pair.missing(&name));
        }
        site.add("messages in inboxes", self.pair.ends());
    }
}
