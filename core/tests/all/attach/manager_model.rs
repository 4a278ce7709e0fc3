//! Whatever happens in whatever order, no action is lost or doubled as far as the queue
//! goes: it leaves by ack, expiry or release alone, and is brought again until then.
#![allow(clippy::unwrap_used)]

use crate::managing;
use std::collections::{BTreeMap, BTreeSet};

use crate::common::ms;
use crate::managing::{Shore, Told, poll, post, secs};
use castra_core::id::ConnId;
use proptest::prelude::*;
use serde_json::json;

#[derive(Clone, Debug)]
enum Step {
    Queue { ttl: bool },
    Ack { which: usize, status: usize, http: bool },
    Poll { cut: usize },
    Lease,
    Lose,
    Join { says: bool },
    Attach,
    Pass { millis: u64 },
    Restart { later: u64 },
    Disk { works: bool },
    Stick { stuck: bool },
    Release,
    Adopt,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(|ttl| Step::Queue { ttl }),
        6 => (0..8usize, 0..4usize, any::<bool>()).prop_map(|(which, status, http)| Step::Ack { which, status, http }),
        4 => (0..200usize).prop_map(|cut| Step::Poll { cut }),
        2 => Just(Step::Lease),
        2 => Just(Step::Lose),
        4 => any::<bool>().prop_map(|says| Step::Join { says }),
        4 => Just(Step::Attach),
        3 => (0..9000u64).prop_map(|millis| Step::Pass { millis }),
        1 => (0..2000u64).prop_map(|later| Step::Restart { later }),
        2 => any::<bool>().prop_map(|works| Step::Disk { works }),
        2 => any::<bool>().prop_map(|stuck| Step::Stick { stuck }),
        1 => Just(Step::Release),
        3 => Just(Step::Adopt),
    ]
}

/// What the test knows.
struct Model {
    shore: Shore,
    told: Option<Told>,
    poller: Option<ConnId>,
    /// Sends without an answer so far.
    asked: Vec<u64>,
    /// Whatever the operator was told is queued.
    taken: BTreeSet<String>,
    /// Acknowledged by the agent at some time.
    acked: BTreeSet<String>,
    short: BTreeMap<u64, bool>,
    /// Those that may expire in the test's time.
    brief: BTreeSet<String>,
    /// Everything that an agent was brought.
    brought: BTreeSet<String>,
    released: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            shore: Shore::with(|config| {
                managing::with_http(config);
                config.manager.in_flight_max = 3;
                config.manager.queue_max = 12;
                config.manager.lease_ttl = secs(600);
                config.manager.polled_within = secs(600);
                config.guests = vec!["g".parse().unwrap()];
            }),
            told: None,
            poller: None,
            asked: Vec::new(),
            taken: BTreeSet::new(),
            acked: BTreeSet::new(),
            short: BTreeMap::new(),
            brief: BTreeSet::new(),
            brought: BTreeSet::new(),
            released: false,
        }
    }

    fn durable(&self) -> BTreeSet<String> {
        self.shore.ledger.restored().actions.iter().map(|action| action.id.as_str().to_owned()).collect()
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Queue { ttl } => {
                let mut params = json!({"guest": "g", "action_type": "x", "payload": {}, "wait": false});
                if *ttl {
                    params["ttl_ms"] = json!(4000);
                }
                let id = self.shore.order("action_send", params);
                self.asked.push(id);
                self.short.insert(id, *ttl);
            }
            Step::Ack { which, status, http } => {
                self.ack(*which, ["ok", "rejected", "expired", "preempted"][*status], *http)
            }
            Step::Poll { cut } => {
                if let Some(told) = self.told.clone() {
                    let conn = match self.poller.filter(|conn| !self.shore.world.is_closed(*conn)) {
                        Some(conn) => conn,
                        None => self.shore.connect(),
                    };
                    self.poller = Some(conn);
                    let request = poll(&told);
                    let (head, rest) = request.as_bytes().split_at((*cut).min(request.len()));
                    if !head.is_empty() {
                        self.shore.write(conn, head);
                    }
                    if !rest.is_empty() && !self.shore.world.is_closed(conn) {
                        self.shore.write(conn, rest);
                    }
                }
            }
            Step::Lease => {
                if let Some(told) = self.told.clone().filter(|_| self.shore.guests.contains_key("g")) {
                    self.shore
                        .say("g", &format!(r#"{{"type":"lease_renew","session_id":"{}"}}"#, told.session));
                }
            }
            Step::Lose => {
                if self.shore.guests.contains_key("g") {
                    self.shore.leave("g");
                }
            }
            Step::Join { says } => {
                if self.shore.guests.contains_key("g") {
                    self.shore.leave("g");
                }
                self.shore.join("g");
                if let Some(told) = self.told.clone().filter(|_| *says) {
                    self.shore.say("g", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
                }
            }
            Step::Attach => {
                if let Some(told) = self.told.clone().filter(|_| self.shore.guests.contains_key("g")) {
                    self.shore.attach("g", &told);
                }
            }
            Step::Pass { millis } => self.shore.pass(ms(*millis)),
            Step::Restart { later } => {
                // What was not answered is not known to anybody.
                self.shore.stuck = false;
                self.shore.world.effects.clear();
                self.shore.restart(ms(*later));
                self.asked.clear();
                self.poller = None;
            }
            Step::Disk { works } => self.shore.failing = !works,
            Step::Stick { stuck } => {
                self.shore.stuck = *stuck;
                self.shore.pump();
            }
            Step::Release => {
                self.shore.order("release", json!({"guest": "g"}));
            }
            Step::Adopt => {
                self.shore.order("adopt", json!({"guest": "g", "wait": false}));
            }
        }
    }

    fn ack(&mut self, which: usize, status: &str, http: bool) {
        let Some(id) = self.brought.iter().nth(which).cloned() else { return };
        if http {
            let Some(told) = self.told.clone() else { return };
            let path = format!("/sessions/{}/actions/ack", told.session);
            let conn = self.shore.connect();
            self.shore.write(
                conn,
                post(&path, &told.token, &json!([{"id": id, "status": status}]).to_string()).as_bytes(),
            );
        } else if self.shore.guests.contains_key("g") {
            self.shore.ack("g", &id, status);
        }
        self.acked.insert(id);
    }

    /// What came, and what must be so.
    fn look(&mut self) {
        if let Some(told) = self.shore.frames("g", "manager_handshake").pop() {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            self.told = Some(Told {
                id: text(&told["handshake_id"]),
                session: text(&told["session_id"]),
                beach: text(&told["private_beach_id"]),
                token: text(&told["controller_token"]),
                code: text(&told["controller_auto_attach"]["attach_code"]),
                url: text(&told["manager_url"]),
                kind: text(&told["handshake_kind"]),
            });
        }
        self.released |= self.shore.count("manager.released") > 0;
        let acked = self.shore.frames("g", "action_settled");
        let durable = self.durable();
        for settled in acked {
            assert!(!durable.contains(settled["id"].as_str().unwrap()), "confirmed before it was durable");
        }
        let mut brought = self.shore.actions("g");
        if let Some(conn) = self.poller {
            for answer in self.shore.answers(conn) {
                let actions = answer.body.as_array().cloned().unwrap_or_default();
                brought.extend(actions.iter().map(|action| action["id"].as_str().unwrap().to_owned()));
            }
        }
        self.brought.extend(brought);
        for id in std::mem::take(&mut self.asked) {
            match self.shore.answer(id) {
                None => self.asked.push(id),
                Some(answer) if answer["event"] == "action" => {
                    assert_eq!(answer["data"]["status"], "queued");
                    let action = answer["data"]["id"].as_str().unwrap().to_owned();
                    if self.short[&id] {
                        self.brief.insert(action.clone());
                    }
                    assert!(self.taken.insert(action));
                }
                Some(_) => {}
            }
        }
        // Each settled event is for one action, once.
        let mut settled = BTreeSet::new();
        for event in &self.shore.world.events {
            let castra_core::event::Fact::Attach(castra_core::event::AttachFact::Settled { id, .. }) =
                &event.fact
            else {
                continue;
            };
            assert!(settled.insert(id.as_str().to_owned()), "{id} was settled twice");
        }
        if !self.released {
            for id in self.taken.difference(&durable) {
                let acked = self.acked.contains(id);
                assert!(acked || self.brief.contains(id), "{id} is lost");
            }
        }
        assert!(durable.len() <= 12);
        if !self.shore.stuck {
            let shown: BTreeSet<String> = self.shore.queued().into_iter().collect();
            assert_eq!(shown, durable, "memory is what is durable");
        }
    }

    /// In the end, with a disk that works and an agent that is there, everything is brought.
    fn settle(&mut self) {
        (self.shore.failing, self.shore.stuck) = (false, false);
        self.shore.pump();
        self.apply(&Step::Adopt);
        self.apply(&Step::Join { says: false });
        self.shore.pass(secs(15));
        self.look();
        self.apply(&Step::Attach);
        self.look();
        for _ in 0..20 {
            for id in self.durable() {
                if self.brought.contains(&id) {
                    self.shore.ack("g", &id, "ok");
                    self.acked.insert(id);
                }
            }
            self.shore.pass(secs(1));
            self.look();
        }
        assert!(self.durable().is_empty(), "{:?} was never brought", self.durable());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_action_is_lost_or_doubled(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        model.apply(&Step::Join { says: false });
        model.apply(&Step::Adopt);
        model.shore.pass(secs(1));
        model.look();
        model.apply(&Step::Attach);
        for step in &steps {
            model.apply(step);
            model.look();
        }
        model.settle();
    }
}
