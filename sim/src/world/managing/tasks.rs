//! What is done about managed attach, by the operator or by a process in a guest.

use std::io::ErrorKind;
use std::time::Duration;

use castra_core::control::attach::{ActionAnswer, Actions, Adopted, Attachments, Released};
use castra_core::control::reply::{Envelope, ErrorBody};
use castra_core::id::RequestId;
use castra_core::time::Time;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::net::{EndId, Hub, NodeId, Owner};
use crate::outcome::count;
use crate::plan::attach::{Step, Task};
use crate::witness::{BROKER, Witness};
use crate::world::birth::CONTROL;
use crate::world::name;

/// A step at work.
#[derive(Debug)]
pub(crate) struct Tasking {
    step: Step,
    /// The agent that it asks; `None`: the broker.
    agent: Option<NodeId>,
    end: Option<EndId>,
    inbox: Vec<u8>,
    unsent: Vec<u8>,
    /// Whether each request was answered.
    answered: Vec<bool>,
    began: Time,
    pub(crate) over: bool,
}

/// What a reply takes beyond the time that was given for it.
const GRACE: Duration = Duration::from_secs(1);

impl Tasking {
    pub(crate) fn new(step: Step, index: usize, agent: Option<NodeId>, now: Time) -> Self {
        let lines = (1..=step.times).map(|request| line(&step, index, request)).collect::<String>();
        let answered = vec![false; step.times as usize];
        let unsent = lines.into_bytes();
        Self { step, agent, end: None, inbox: Vec::new(), unsent, answered, began: now, over: false }
    }

    /// How long it stays.
    fn patience(&self) -> Duration {
        let stated = self.step.timeout_ms.map(Duration::from_millis);
        let bound = match self.step.task {
            Task::Act | Task::Adopt | Task::Look => stated.unwrap_or(Duration::from_secs(30)),
            Task::Release => stated.unwrap_or(Duration::from_secs(5)),
            Task::Attachments | Task::Actions => Duration::ZERO,
        };
        bound + GRACE
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
        let gone = self.send(hub, end) || self.receive(hub, end, witness);
        let answered = self.answered.iter().all(|answered| *answered);
        if gone || answered {
            return self.leave(hub, end, witness, "hung_up_on");
        }
        let until = self.began + self.patience();
        if now >= until {
            if calm.is_some_and(|since| since < self.began) {
                let text = format!("{self} has no answer after {} ms", now.since(self.began).as_millis());
                witness.blame("L4", Some(self.step.guest), text);
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
        for _ in self.answered.iter().filter(|answered| !**answered) {
            count(&mut witness.outcome.steps, word);
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
                    hub.end(end).into_iter().for_each(|end| end.wants_write = true);
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
                    while let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = self.inbox.drain(..=end).collect();
                        self.line(&line, witness);
                    }
                }
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }

    fn line(&mut self, line: &[u8], witness: &mut Witness) {
        let guest = Some(self.step.guest);
        let reply = match serde_json::from_slice::<Envelope<&RawValue>>(line) {
            Ok(reply) => reply,
            Err(error) => return unreadable(witness, &error),
        };
        let id = match &reply.id {
            Some(RequestId::Number(id)) => id,
            Some(RequestId::Text(_)) => {
                return witness.blame("L4", guest, format!("{self}: an id that nobody gave"));
            }
            // It is not let in, or not any more.
            None => return,
        };
        let index = usize::try_from(*id).ok().and_then(|id| id.checked_sub(1));
        match index.and_then(|index| self.answered.get_mut(index)) {
            None => witness.blame("L4", guest, format!("{self}: an answer to no question")),
            Some(answered) => {
                if std::mem::replace(answered, true) {
                    witness.blame("L4", guest, format!("{self} is answered twice"));
                }
                if let Err(error) = self.reply(&reply.event, reply.data, witness) {
                    unreadable(witness, &error);
                }
            }
        }
    }

    fn reply(&self, event: &str, data: &RawValue, witness: &mut Witness) -> Result<(), serde_json::Error> {
        match (event, self.step.task) {
            ("adopted", Task::Adopt) => {
                let Adopted { session_id, stage, .. } = read(data)?;
                count(&mut witness.outcome.steps, stage.as_str());
                witness.of_attach(|attach| attach.told_adopted(&session_id, stage));
            }
            ("released", Task::Release) => {
                let Released { session_id, .. } = read(data)?;
                count(&mut witness.outcome.steps, "released");
                witness.of_attach(|attach| attach.told_released(&session_id));
            }
            ("action", Task::Act) => {
                let ActionAnswer { id, status, .. } = read(data)?;
                let word = ["queued", "ok", "rejected", "expired", "preempted"];
                let word = word.into_iter().find(|word| *word == status).unwrap_or("another");
                count(&mut witness.outcome.steps, word);
                witness.of_attach(|attach| attach.told_of_action(&id, &status));
            }
            ("actions", Task::Actions) => {
                let Actions { .. } = read(data)?;
                count(&mut witness.outcome.steps, "actions");
            }
            ("attachments", Task::Attachments | Task::Look) => {
                let Attachments { .. } = read(data)?;
                count(&mut witness.outcome.steps, "listed");
            }
            ("error", _) => {
                let ErrorBody { code, .. } = read(data)?;
                count(&mut witness.outcome.steps, code.as_str());
            }
            (other, _) => {
                witness.blame("L4", Some(self.step.guest), format!("{self}: {other:?} is its answer"))
            }
        }
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(data: &'a RawValue) -> Result<T, serde_json::Error> {
    serde_json::from_str(data.get())
}

fn unreadable(witness: &mut Witness, error: &serde_json::Error) {
    witness.blame("L4", None, format!("a reply about attachments can't be read: {error}"));
}

impl std::fmt::Display for Tasking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} guest-{}", self.step.task.as_str(), self.step.guest)
    }
}

fn line(step: &Step, index: usize, id: u32) -> String {
    let Step { task, guest, link, wait, ttl_ms, timeout_ms, .. } = step;
    let guest = name(*guest);
    let timeout = timeout_ms.map_or_else(String::new, |ms| format!(",\"timeout_ms\":{ms}"));
    let params = match task {
        Task::Adopt => format!("\"guest\":\"{guest}\",\"link\":{link},\"wait\":{wait}{timeout}"),
        Task::Release => format!("\"guest\":\"{guest}\"{timeout}"),
        Task::Act => {
            let ttl = ttl_ms.map_or_else(String::new, |ms| format!(",\"ttl_ms\":{ms}"));
            let payload = serde_json::json!({ "bytes": step.text(index, id) });
            format!(
                "\"guest\":\"{guest}\",\"action_type\":\"terminal_write\",\"payload\":{payload},\
                 \"wait\":{wait}{ttl}{timeout}"
            )
        }
        Task::Attachments => String::new(),
        Task::Actions => format!("\"guest\":\"{guest}\""),
        Task::Look => format!("\"wait\":{wait}{timeout}"),
    };
    let method = if *task == Task::Look { "attachments" } else { task.as_str() };
    format!("{{\"id\":{id},\"method\":\"{method}\",\"params\":{{{params}}}}}\n")
}
