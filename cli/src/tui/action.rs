//! What a command asks for, and what is said of the answer. Pure.

use std::time::Duration;

use castra_core::control::reply::{MessageResult, PeerChanged, Pong, Target};
use castra_core::id::GuestName;
use castra_core::peers::Outcome;
use serde_json::{Value, json};

use super::command::target_word;
use crate::client::{ClientError, Reply};
use crate::duration::{micros, millis};
use crate::wait::GRACE;

/// How long the broker may take for what it makes durable.
const OPERATION: Duration = Duration::from_secs(5);

/// How long `:wait` waits.
const WAIT: Duration = Duration::from_secs(30);

/// How long `:ping` waits.
const PING: Duration = Duration::from_secs(2);

/// How long the names of all guests may take.
const NAMES: Duration = Duration::from_secs(5);

/// Something to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Let two guests be peers.
    Link { source: GuestName, peer: GuestName },
    /// Let them be peers no more.
    Unlink { source: GuestName, peer: GuestName },
    /// Tell a peer.
    Send { from: GuestName, to: GuestName, text: String },
    /// Answer whoever wants to be a peer.
    Answer { peer: GuestName, accept: bool },
    /// Have a guest give a sign of life.
    Ping { guest: GuestName },
    /// Delete a guest's row.
    Forget { guest: GuestName },
    /// Run a guest's start command.
    Restore { guest: GuestName },
    /// Say when it is so.
    Wait { guest: GuestName, target: Target },
    /// Who is there? For completion.
    Names,
}

/// Actions of which only one may be unanswered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// What changes something: so that messages keep their order.
    Operation,
    /// What waits.
    Wait,
    /// What changes nothing and is over at once.
    Ping,
    /// What nobody asked for aloud.
    Names,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// It is done.
    Done(String),
    /// It is not.
    Failed(String),
    /// The names of all guests.
    Names(Vec<String>),
}

impl Action {
    pub(crate) const fn slot(&self) -> Slot {
        match self {
            Self::Link { .. } | Self::Unlink { .. } | Self::Send { .. } | Self::Answer { .. } => {
                Slot::Operation
            }
            Self::Forget { .. } => Slot::Operation,
            Self::Wait { .. } | Self::Restore { .. } => Slot::Wait,
            Self::Ping { .. } => Slot::Ping,
            Self::Names => Slot::Names,
        }
    }

    /// The method, its parameters, and how long the answer may take to arrive.
    pub(crate) fn request(&self) -> (&'static str, Value, Duration) {
        let timeout = millis(OPERATION);
        let operation = OPERATION + GRACE;
        match self {
            Self::Link { source, peer } => {
                let params = json!({"source": source, "name": peer, "timeout_ms": timeout});
                ("register_peer", params, operation)
            }
            Self::Unlink { source, peer } => {
                let params = json!({"source": source, "name": peer, "timeout_ms": timeout});
                ("unregister_peer", params, operation)
            }
            Self::Send { from, to, text } => {
                let params = json!({"from": from, "to": to, "text": text, "timeout_ms": timeout});
                ("send_to_peer", params, operation)
            }
            Self::Answer { peer, accept } => {
                ("peer_answer", json!({"name": peer, "accept": accept}), operation)
            }
            Self::Wait { guest, target } => {
                let params = json!({"guests": [guest], "for": target, "timeout_ms": millis(WAIT)});
                ("wait", params, WAIT + GRACE)
            }
            Self::Ping { guest } => {
                ("ping", json!({"guest": guest, "timeout_ms": millis(PING)}), PING + GRACE)
            }
            Self::Forget { guest } => ("forget", json!({"guest": guest, "timeout_ms": timeout}), operation),
            Self::Restore { guest } => {
                ("restore", json!({"guest": guest, "timeout_ms": millis(WAIT)}), WAIT + GRACE)
            }
            Self::Names => ("status", json!({}), NAMES),
        }
    }

    /// What it is, while it is unanswered.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Link { source, peer } => format!("linking {source} <-> {peer}"),
            Self::Unlink { source, peer } => format!("unlinking {source} <-> {peer}"),
            Self::Send { to, .. } => format!("sending to {to}"),
            Self::Answer { peer, .. } => format!("answering {peer}"),
            Self::Wait { guest, target } => format!("waiting until {guest} is {}", target_word(*target)),
            Self::Ping { guest } => format!("asking {guest}"),
            Self::Forget { guest } => format!("forgetting {guest}"),
            Self::Restore { guest } => format!("starting {guest}"),
            Self::Names => "asking for names".into(),
        }
    }

    /// What came of it, in words.
    pub(crate) fn told(&self, answer: Result<Reply, ClientError>) -> Told {
        let reply = match answer {
            Ok(reply) => reply,
            Err(error @ ClientError::Refused(_)) => return Told::Failed(error.to_string()),
            Err(error) => return Told::Failed(format!("{error}{}", self.doubt(&error))),
        };
        match self.told_of(&reply) {
            Ok(told) => told,
            Err(error) => Told::Failed(error.to_string()),
        }
    }

    fn told_of(&self, reply: &Reply) -> Result<Told, ClientError> {
        Ok(match self {
            Self::Link { .. } => Told::Done(linked(&reply.parse()?)),
            Self::Unlink { .. } => {
                let PeerChanged { result, .. } = reply.parse()?;
                Told::Done(unlinked(result.source, result.peer))
            }
            Self::Send { to, .. } => {
                let MessageResult { id, outcome, reason } = reply.parse()?;
                let because = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
                match outcome {
                    Outcome::Delivered => Told::Done(format!("delivered to {to}: {id}")),
                    Outcome::Queued => Told::Done(format!("queued for {to}{because}: {id}")),
                    other => Told::Failed(format!("the message to {to} is {other}{because}: {id}")),
                }
            }
            Self::Answer { peer, accept: true } => Told::Done(format!("accepted {peer}")),
            Self::Answer { peer, accept: false } => Told::Done(format!("refused {peer}")),
            Self::Wait { guest, target } => Told::Done(format!("{guest} is {}", target_word(*target))),
            Self::Ping { guest } => {
                let Pong { rtt_us, .. } = reply.parse()?;
                Told::Done(format!("{guest} answered after {}", micros(rtt_us)))
            }
            Self::Forget { guest } => Told::Done(format!("{guest} is forgotten")),
            Self::Restore { guest } => Told::Done(format!("{guest} is reachable")),
            Self::Names => Told::Names(names(reply)?),
        })
    }

    /// Nobody answered, and perhaps it was done all the same.
    const fn doubt(&self, error: &ClientError) -> &'static str {
        let asked = !matches!(error, ClientError::NoBroker { .. } | ClientError::Denied { .. });
        match self.slot() {
            Slot::Operation if asked => "; it may have been done all the same: look before you repeat it",
            _ => "",
        }
    }
}

fn linked(changed: &PeerChanged) -> String {
    linked_names(changed.result.source, changed.result.peer)
}

/// The notice about a new relation, whoever made it.
pub(crate) fn linked_names(one: GuestName, other: GuestName) -> String {
    format!("linked {one} <-> {other}")
}

/// The notice about its end.
pub(crate) fn unlinked(one: GuestName, other: GuestName) -> String {
    format!("unlinked {one} <-> {other}")
}

/// Only the names: the rest of a long status is skipped.
fn names(reply: &Reply) -> Result<Vec<String>, ClientError> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: GuestName,
    }
    #[derive(serde::Deserialize)]
    struct Names {
        guests: Vec<Named>,
    }
    let Names { guests } = reply.parse()?;
    Ok(guests.into_iter().map(|row| row.name.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::control::reply::{ErrorBody, ErrorCode};

    fn name(text: &str) -> GuestName {
        text.parse().unwrap()
    }

    fn told(action: &Action, data: &Value) -> Told {
        let data = serde_json::value::RawValue::from_string(data.to_string()).unwrap();
        action.told(Ok(Reply { event: "x".into(), data }))
    }

    fn link() -> Action {
        Action::Link { source: name("devbox"), peer: name("build") }
    }

    #[test]
    fn answers_are_told_with_the_names_that_the_broker_understood() {
        let result = json!({"result": {"peer": "builder", "source": "devbox"}, "outcome": "registered"});
        assert_eq!(told(&link(), &result), Told::Done("linked devbox <-> builder".into()));
        let send = Action::Send { from: name("devbox"), to: name("builder"), text: "hi".into() };
        let id = "msg-000102030405060708090a0b0c0d0e0f";
        let outcome =
            |word: &str, reason: Value| told(&send, &json!({"id": id, "outcome": word, "reason": reason}));
        assert_eq!(outcome("delivered", Value::Null), Told::Done(format!("delivered to builder: {id}")));
        let queued = Told::Done(format!("queued for builder (not reachable): {id}"));
        assert_eq!(outcome("queued", json!("not reachable")), queued);
        let expired = Told::Failed(format!("the message to builder is expired (unlinked): {id}"));
        assert_eq!(outcome("expired", json!("unlinked")), expired);
        let all = json!({"guests": [{"name": "a", "more": 1}, {"name": "b"}], "broker": {}});
        let ping = Action::Ping { guest: name("builder") };
        let answered = Told::Done("builder answered after 1.2ms".into());
        assert_eq!(told(&ping, &json!({"guest": "builder", "rtt_us": 1234})), answered);
        assert_eq!(told(&Action::Names, &all), Told::Names(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn an_error_is_told_with_its_code_and_silence_with_the_doubt_that_it_leaves() {
        let body = ErrorBody { code: ErrorCode::Rejected, message: "would not".into() };
        let refused = link().told(Err(ClientError::Refused(body)));
        assert_eq!(refused, Told::Failed("would not (rejected)".into()));
        let closed = || ClientError::Closed { path: "x".into() };
        let Told::Failed(silence) = link().told(Err(closed())) else { panic!() };
        assert!(silence.ends_with("look before you repeat it"), "{silence}");
        let Told::Failed(silence) = Action::Names.told(Err(closed())) else { panic!() };
        assert!(!silence.contains("repeat"), "{silence}");
        let absent = link().told(Err(ClientError::NoBroker { path: "x".into() }));
        assert!(matches!(absent, Told::Failed(text) if !text.contains("repeat")));
    }
}
