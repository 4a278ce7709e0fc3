//! What is done about peers, by the operator or by a process in a guest: each
//! connects to a control socket, asks, and leaves with its answers or without.

use std::io::ErrorKind;
use std::time::Duration;

use castra_core::control::reply::{Envelope, ErrorBody, Inbox, MessageResult, PeersListed};
use castra_core::id::{GuestName, RequestId};
use castra_core::time::Time;
use serde_json::value::RawValue;

use super::birth::CONTROL;
use crate::net::{EndId, Hub, NodeId, Owner};
use crate::outcome::count;
use crate::plan::{Act, By, Deed};
use crate::witness::peers::{Answered, Asked};
use crate::witness::{BROKER, Witness};

/// An act at work.
#[derive(Debug)]
pub(crate) struct Errand {
    act: Act,
    /// The agent that it asks; `None`: the broker.
    agent: Option<NodeId>,
    end: Option<EndId>,
    inbox: Vec<u8>,
    unsent: Vec<u8>,
    /// Each request, and whether it was answered.
    asked: Vec<(Asked, bool)>,
    began: Time,
    pub(crate) over: bool,
}

/// What a reply takes beyond the time that was given for it.
const GRACE: Duration = Duration::from_secs(1);

/// The default bound of what is asked.
const BOUND: Duration = Duration::from_secs(5);

impl Errand {
    pub(crate) fn new(
        act: Act,
        index: usize,
        names: (GuestName, Option<GuestName>),
        agent: Option<NodeId>,
        now: Time,
    ) -> Self {
        let (guest, other) = names;
        let times = if matches!(act.deed, Deed::Accept | Deed::Refuse | Deed::Read) { 1 } else { act.times };
        let mut unsent = Vec::new();
        let asked = (1..=times).map(|request| {
            let text = if act.deed == Deed::Send { act.text(index, request) } else { String::new() };
            unsent.extend_from_slice(line(&act, request, (guest, other), &text).as_bytes());
            let key = act.key();
            (Asked { guest, other, agent, began: now, text, key, queue: act.queue }, false)
        });
        let asked = asked.collect();
        Self { act, agent, end: None, inbox: Vec::new(), unsent, asked, began: now, over: false }
    }

    /// How long it stays.
    fn patience(&self) -> Duration {
        let stated = self.act.timeout_ms.map(Duration::from_millis).filter(|_| self.act.deed != Deed::List);
        stated.unwrap_or(BOUND) + GRACE
    }

    /// Whether it stays although it has its answers.
    fn stays(&self) -> bool {
        matches!(self.act.deed, Deed::Accept | Deed::Refuse | Deed::Read)
    }

    /// Does what is to be done now; says when to come back. `calm`: since when
    /// nothing kept whom it asks from answering.
    pub(crate) fn turn(
        &mut self,
        hub: &mut Hub,
        owner: Owner,
        witness: &mut Witness,
        calm: Option<Time>,
    ) -> Option<Time> {
        let now = hub.now;
        let whom = self.agent.unwrap_or(BROKER);
        let end = *self.end.get_or_insert_with(|| hub.dial(owner, whom, CONTROL, false));
        if hub.is_refused(end) {
            return self.leave(hub, end, witness, "nobody_there");
        }
        let gone = self.send(hub, end) || self.receive(hub, end, witness) || self.send(hub, end);
        let answered = self.asked.iter().all(|(_, answered)| *answered);
        if gone || (answered && !self.stays()) {
            return self.leave(hub, end, witness, "hung_up_on");
        }
        let until = self.began + self.patience();
        if now >= until {
            if calm.is_some_and(|since| since < self.began) && !answered {
                let text = format!("{self} has no answer after {} ms", now.since(self.began).as_millis());
                witness.blame("L4", Some(self.act.guest), text);
            }
            return self.leave(hub, end, witness, "no_answer");
        }
        Some(until)
    }

    fn leave(
        &mut self,
        hub: &mut Hub,
        end: EndId,
        witness: &mut Witness,
        word: &'static str,
    ) -> Option<Time> {
        for _ in self.asked.iter().filter(|(_, answered)| !answered) {
            count(&mut witness.outcome.told, word);
        }
        hub.close(end);
        self.over = true;
        None
    }

    /// True: the stream is broken.
    fn send(&mut self, hub: &mut Hub, end: EndId) -> bool {
        while !self.unsent.is_empty() {
            match hub.write(end, &self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) => {
                    if let Some(end) = hub.end(end) {
                        end.wants_write = true;
                    }
                    return error.kind() != ErrorKind::WouldBlock;
                }
            }
        }
        false
    }

    /// True: the stream is over.
    fn receive(&mut self, hub: &mut Hub, end: EndId, witness: &mut Witness) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match hub.read(end, &mut buffer) {
                Ok((0, _)) => return true,
                Ok((count, _)) => {
                    self.inbox.extend_from_slice(&buffer[..count]);
                    self.lines(witness);
                }
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }

    fn lines(&mut self, witness: &mut Witness) {
        while let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.inbox.drain(..=end).collect();
            match serde_json::from_slice::<Envelope<&RawValue>>(&line) {
                Ok(reply) => match &reply.id {
                    Some(RequestId::Number(id)) => self.reply(*id, &reply.event, reply.data, witness),
                    Some(RequestId::Text(_)) => {
                        witness.blame("L4", Some(self.act.guest), format!("{self}: an id that nobody gave"));
                    }
                    None => self.news(&reply.event, reply.data, witness),
                },
                Err(error) => witness.blame("L4", None, format!("a reply can't be read: {error}")),
            }
        }
    }

    fn reply(&mut self, id: u64, event: &str, data: &RawValue, witness: &mut Witness) {
        let request = usize::try_from(id).ok().and_then(|id| self.asked.get_mut(id.checked_sub(1)?));
        let Some((asked, answered)) = request else {
            return witness.blame("L4", Some(self.act.guest), format!("{self}: an answer to no question"));
        };
        if std::mem::replace(answered, true) {
            return witness.blame("L4", Some(self.act.guest), format!("{self} is answered twice"));
        }
        let asked = asked.clone();
        match event {
            "peer_message_result" => match serde_json::from_str::<MessageResult>(data.get()) {
                Ok(MessageResult { id, outcome, .. }) => {
                    count(&mut witness.outcome.told, outcome.as_str());
                    let answered = Answered::Message(id, outcome);
                    witness.of_peers(|peers| peers.told_of_message(&asked, answered));
                }
                Err(error) => unreadable(witness, &error),
            },
            "error" => match serde_json::from_str::<ErrorBody>(data.get()) {
                Ok(ErrorBody { code, .. }) => {
                    count(&mut witness.outcome.told, code.as_str());
                    self.failed(&asked, code.as_str(), witness);
                }
                Err(error) => unreadable(witness, &error),
            },
            "peer_registered" | "peer_unregistered" => {
                let register = event == "peer_registered";
                let word = if register { "registered" } else { "unregistered" };
                count(&mut witness.outcome.told, word);
                witness.of_peers(|peers| peers.told_of_relation(&asked, register, word));
            }
            "peers_listed" => match serde_json::from_str::<PeersListed>(data.get()) {
                Ok(listed) => {
                    count(&mut witness.outcome.told, "listed");
                    witness.of_peers(|peers| peers.listed(&asked, &listed.peers));
                }
                Err(error) => unreadable(witness, &error),
            },
            "status" => match serde_json::from_str::<Rows>(data.get()) {
                Ok(Rows { guests }) => {
                    count(&mut witness.outcome.told, "status");
                    for Row { name, peers } in &guests {
                        witness.of_peers(|of| of.looked(&asked, *name, peers));
                    }
                }
                Err(error) => unreadable(witness, &error),
            },
            "inbox" => {
                count(&mut witness.outcome.told, "inbox");
                self.shown(data, witness);
            }
            "held" => count(&mut witness.outcome.told, "held"),
            "resumed" => count(&mut witness.outcome.told, "resumed"),
            "peer_answered" => count(&mut witness.outcome.told, "peer_answered"),
            "events" => count(&mut witness.outcome.told, "events"),
            other => witness.blame("L4", None, format!("an unknown reply: {other:?}")),
        }
    }

    fn failed(&self, asked: &Asked, word: &'static str, witness: &mut Witness) {
        witness.of_peers(|peers| match self.act.deed {
            Deed::Send => peers.told_of_message(asked, Answered::Error(word)),
            Deed::Register => peers.told_of_relation(asked, true, word),
            Deed::Unregister => peers.told_of_relation(asked, false, word),
            _ => Ok(()),
        });
    }

    fn shown(&self, data: &RawValue, witness: &mut Witness) {
        match serde_json::from_str::<Inbox>(data.get()) {
            Ok(Inbox { messages }) => {
                let asked = self.asked[0].0.clone();
                witness.of_peers(|peers| peers.shown(&asked, &messages));
            }
            Err(error) => unreadable(witness, &error),
        }
    }

    /// Something that it follows.
    fn news(&mut self, event: &str, data: &RawValue, witness: &mut Witness) {
        match event {
            "inbox" => {
                count(&mut witness.outcome.told, "inbox_followed");
                self.shown(data, witness);
            }
            "peer.offer" => {
                let Ok(offer) = serde_json::from_str::<Offer>(data.get()) else {
                    return witness.blame("L4", None, format!("an offer can't be read: {data}"));
                };
                count(&mut witness.outcome.told, "offered");
                let accept = self.act.deed == Deed::Accept;
                let answer = format!(
                    "{{\"id\":{},\"method\":\"peer_answer\",\"params\":{{\"name\":\"{}\",\"accept\":{accept}}}}}\n",
                    self.asked.len() + 1,
                    offer.from
                );
                self.unsent.extend_from_slice(answer.as_bytes());
                let asked = self.asked[0].0.clone();
                self.asked.push((asked, false));
            }
            _ => {}
        }
    }
}

fn unreadable(witness: &mut Witness, error: &serde_json::Error) {
    witness.blame("L4", None, format!("a reply about peers can't be read: {error}"));
}

impl std::fmt::Display for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Act { by, deed, guest, other, .. } = &self.act;
        let place = if *by == By::Host { "for" } else { "in" };
        match deed {
            Deed::Send | Deed::Register | Deed::Unregister | Deed::Look => {
                write!(f, "{} {place} guest-{guest} with guest-{other}", deed.as_str())
            }
            _ => write!(f, "{} {place} guest-{guest}", deed.as_str()),
        }
    }
}

/// The part of a status document that a guest may see, or not.
#[derive(serde::Deserialize)]
struct Rows {
    guests: Vec<Row>,
}

#[derive(serde::Deserialize)]
struct Row {
    name: GuestName,
    #[serde(default)]
    peers: Vec<GuestName>,
}

#[derive(serde::Deserialize)]
struct Offer {
    from: GuestName,
}

fn line(act: &Act, id: u32, names: (GuestName, Option<GuestName>), text: &str) -> String {
    let (guest, other) = names;
    // The beginning of all names is one that nobody has.
    let other = other.map_or_else(|| "guest".to_owned(), |other| other.to_string());
    let own = |field: &str| match act.by {
        By::Host => format!("\"{field}\":\"{guest}\","),
        By::Guest => String::new(),
    };
    let timeout = act.timeout_ms.map_or_else(String::new, |ms| format!(",\"timeout_ms\":{ms}"));
    let (method, params) = match act.deed {
        Deed::Send => {
            let text = serde_json::Value::from(text);
            let key = act.key().map_or_else(String::new, |key| format!(",\"key\":\"{key}\""));
            let queue = act.queue;
            let params = format!("{}\"to\":\"{other}\",\"text\":{text},\"queue\":{queue}{key}", own("from"));
            ("send_to_peer", params)
        }
        Deed::Register => ("register_peer", format!("{}\"name\":\"{other}\"", own("source"))),
        Deed::Unregister => ("unregister_peer", format!("{}\"name\":\"{other}\"", own("source"))),
        Deed::List => ("list_peers", own("name").trim_end_matches(',').to_owned()),
        Deed::Read => ("inbox", format!("{}\"follow\":true", own("name"))),
        Deed::Look => ("status", format!("\"guests\":[\"{other}\"]")),
        Deed::Accept | Deed::Refuse => ("events", "\"follow\":true,\"kinds\":[\"peer.offer\"]".to_owned()),
        Deed::Hold => ("hold", String::new()),
        Deed::Resume => ("resume", String::new()),
    };
    let timeout = match act.deed {
        Deed::Send | Deed::Register | Deed::Unregister | Deed::Look => timeout,
        _ => String::new(),
    };
    format!("{{\"id\":{id},\"method\":\"{method}\",\"params\":{{{params}{timeout}}}}}\n")
}
