//! Commands on the host: each connects to the control socket, asks, and leaves
//! with the answer or, after its own patience, without.

use std::io::ErrorKind;
use std::time::Duration;

use castra_core::control::reply::{Envelope, ErrorBody, Pong, Waited};
use castra_core::id::GuestName;
use castra_core::status::State;
use castra_core::time::Time;
use serde_json::value::RawValue;

use crate::net::{Door, EndId, Hub, Owner};
use crate::outcome::count;
use crate::plan::{Ask, Client};
use crate::witness::{BROKER, Witness, number};

/// A command at work.
#[derive(Debug)]
pub(crate) struct Command {
    plan: Client,
    door: Door,
    end: Option<EndId>,
    inbox: Vec<u8>,
    unsent: Vec<u8>,
    started: Time,
    replies: u32,
    pub(crate) over: bool,
}

/// What a reply takes beyond the time that its broker has for it.
const GRACE: Duration = Duration::from_secs(1);

impl Command {
    pub(crate) fn new(plan: Client, door: Door, now: Time) -> Self {
        let unsent = request(&plan);
        Self { plan, door, end: None, inbox: Vec::new(), unsent, started: now, replies: 0, over: false }
    }

    /// How long it waits for its answer.
    fn patience(&self) -> Duration {
        match self.plan.asks {
            Ask::Wait | Ask::Ping => Duration::from_millis(self.plan.timeout_ms) + GRACE,
            Ask::TokenIssue | Ask::TokenRevoke | Ask::Forget => Duration::from_secs(5) + GRACE,
            Ask::Status | Ask::Info | Ask::TokenList | Ask::Shutdown => GRACE,
            Ask::Events => Duration::from_millis(self.plan.timeout_ms),
            Ask::Flood | Ask::Half => Duration::from_secs(8),
        }
    }

    /// Does what is to be done now; says when to come back. `calm`: since when
    /// nothing kept the broker from answering.
    pub(crate) fn turn(
        &mut self,
        hub: &mut Hub,
        owner: Owner,
        witness: &mut Witness,
        calm: Option<Time>,
    ) -> Option<Time> {
        let now = hub.now;
        let end = *self.end.get_or_insert_with(|| hub.dial(owner, BROKER, self.door, false));
        if hub.is_refused(end) {
            count(&mut witness.outcome.replies, "no_broker");
            return self.leave(hub, end);
        }
        let gone = self.send(hub, end) || self.receive(hub, end, now, witness);
        let finished = self.replies > 0 && !matches!(self.plan.asks, Ask::Events | Ask::Flood | Ask::Half);
        if gone || finished {
            if gone && self.replies == 0 {
                count(&mut witness.outcome.replies, "hung_up_on");
            }
            return self.leave(hub, end);
        }
        let until = self.started + self.patience();
        if now >= until {
            self.give_up(now, witness, calm);
            return self.leave(hub, end);
        }
        let pace = if self.plan.slow { now + Duration::from_millis(30) } else { Time::MAX };
        Some(until.min(pace))
    }

    fn leave(&mut self, hub: &mut Hub, end: EndId) -> Option<Time> {
        hub.close(end);
        self.over = true;
        None
    }

    /// True: the stream is broken.
    fn send(&mut self, hub: &mut Hub, end: EndId) -> bool {
        while !self.unsent.is_empty() {
            match hub.write(end, &self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// True: the stream is over.
    fn receive(&mut self, hub: &mut Hub, end: EndId, now: Time, witness: &mut Witness) -> bool {
        if matches!(self.plan.asks, Ask::Flood | Ask::Half) {
            // It never reads.
            return hub.end(end).is_none_or(|end| end.reset);
        }
        let mut buffer = [0; 4096];
        let portion = if self.plan.slow { 16 } else { buffer.len() };
        loop {
            let over = match hub.read(end, &mut buffer[..portion]) {
                Ok((0, _)) => true,
                Ok((count, _)) => {
                    self.inbox.extend_from_slice(&buffer[..count]);
                    self.lines(now, witness);
                    if self.plan.slow {
                        return false;
                    }
                    continue;
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            return over;
        }
    }

    fn lines(&mut self, now: Time, witness: &mut Witness) {
        while let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.inbox.drain(..=end).collect();
            match serde_json::from_slice::<Envelope<&RawValue>>(&line) {
                Ok(reply) if reply.id.is_some() => self.reply(&reply, now, witness),
                Ok(_) => {}
                Err(error) => witness.blame("L4", None, format!("a reply can't be read: {error}")),
            }
        }
    }

    fn reply(&mut self, reply: &Envelope<&RawValue>, now: Time, witness: &mut Witness) {
        self.replies += 1;
        if self.replies > 1 {
            let text = format!("{:?} was answered twice", self.plan.asks);
            witness.blame("L4", Some(self.plan.guest), text);
        }
        let data = reply.data.get();
        match reply.event.as_str() {
            "status" => {
                count(&mut witness.outcome.replies, "status");
                match serde_json::from_str::<Rows>(data) {
                    Ok(rows) => rows.guests.iter().for_each(|row| self.printed(row, witness)),
                    Err(error) => witness.blame("S2", None, format!("a status can't be read: {error}")),
                }
            }
            "waited" => {
                count(&mut witness.outcome.replies, "waited");
                if let Ok(waited) = serde_json::from_str::<Waited>(data) {
                    for row in &waited.guests {
                        self.printed(&StatusRow { name: row.name, state: row.state }, witness);
                    }
                }
            }
            "pong" => {
                count(&mut witness.outcome.replies, "pong");
                if let Ok(pong) = serde_json::from_str::<Pong>(data) {
                    self.ponged(&pong, witness);
                }
            }
            "error" => {
                let code =
                    serde_json::from_str::<ErrorBody>(data).map_or("unreadable", |body| body.code.as_str());
                count(&mut witness.outcome.replies, code);
            }
            "info" => count(&mut witness.outcome.replies, "info"),
            "events" => count(&mut witness.outcome.replies, "events"),
            "token_issued" => {
                count(&mut witness.outcome.replies, "token_issued");
                self.issued(data, witness);
            }
            "token_listed" => count(&mut witness.outcome.replies, "token_listed"),
            "token_revoked" => count(&mut witness.outcome.replies, "token_revoked"),
            "forgotten" => count(&mut witness.outcome.replies, "forgotten"),
            "shutting_down" => count(&mut witness.outcome.replies, "shutting_down"),
            other => witness.blame("L4", None, format!("an unknown reply: {other:?}")),
        }
        let _ = now;
    }

    /// S2: what is said to be durable is.
    fn issued(&self, data: &str, witness: &mut Witness) {
        let Ok(issued) = serde_json::from_str::<Issued<'_>>(data) else { return };
        if !witness.durable.iter().any(|token| token == issued.token) {
            let text = "a client prints a token that was never durable".to_owned();
            witness.blame("S2", Some(self.plan.guest), text);
        }
    }

    /// S2: what it prints was true at some moment since it began.
    fn printed(&self, row: &StatusRow, witness: &mut Witness) {
        let Some(index) = number(&row.name).filter(|index| *index < witness.rows.len()) else {
            return;
        };
        let seen = &witness.rows[index];
        let held = match row.state {
            State::Reachable => seen.reachable_at,
            State::Waiting => seen.waiting_at,
            State::Offline => None,
        };
        if held.is_none_or(|held| held < self.started) {
            let text = format!("a client prints {}, which it was not since the client began", row.state);
            witness.blame("S2", Some(index), text);
        }
    }

    fn ponged(&self, pong: &Pong, witness: &mut Witness) {
        let Some(index) = number(&pong.guest).filter(|index| *index < witness.rows.len()) else {
            return;
        };
        let owner = witness.rows[index].owner;
        if owner.is_none_or(|owner| !witness.truth.ran_since(owner, self.started)) {
            let text = "a client prints pong of a guest that did not run since the client began".to_owned();
            witness.blame("S2", Some(index), text);
        }
    }

    fn give_up(&self, now: Time, witness: &mut Witness, calm: Option<Time>) {
        count(&mut witness.outcome.replies, "no_answer");
        let expects = !self.plan.slow && !matches!(self.plan.asks, Ask::Events | Ask::Flood | Ask::Half);
        if expects && self.replies == 0 && calm.is_some_and(|since| since < self.started) {
            let waited = now.since(self.started).as_millis();
            let text = format!("{:?} has no answer after {waited} ms", self.plan.asks);
            witness.blame("L4", Some(self.plan.guest), text);
        }
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.plan.asks {
            Ask::Wait | Ask::Ping | Ask::TokenIssue | Ask::TokenRevoke | Ask::Forget => {
                write!(f, "{:?} guest-{}", self.plan.asks, self.plan.guest)
            }
            _ => write!(f, "{:?}", self.plan.asks),
        }
    }
}

/// The part of a status document that is checked.
#[derive(serde::Deserialize)]
struct Rows {
    guests: Vec<StatusRow>,
}

#[derive(serde::Deserialize)]
struct Issued<'a> {
    token: &'a str,
}

#[derive(serde::Deserialize)]
struct StatusRow {
    name: GuestName,
    state: State,
}

fn request(plan: &Client) -> Vec<u8> {
    let guest = format!("guest-{}", plan.guest);
    let timeout = plan.timeout_ms;
    let line = |method: &str, params: String| {
        format!("{{\"id\":1,\"method\":\"{method}\",\"params\":{{{params}}}}}\n")
    };
    match plan.asks {
        Ask::Status => line("status", String::new()),
        Ask::Info => line("info", String::new()),
        Ask::TokenList => line("token_list", String::new()),
        Ask::Shutdown => line("shutdown", String::new()),
        Ask::TokenIssue => line("token_issue", format!("\"guest\":\"{guest}\"")),
        Ask::TokenRevoke => line("token_revoke", format!("\"guest\":\"{guest}\"")),
        Ask::Forget => line("forget", format!("\"guest\":\"{guest}\"")),
        Ask::Ping => line("ping", format!("\"guest\":\"{guest}\",\"timeout_ms\":{timeout}")),
        Ask::Events => line("events", "\"follow\":true".to_owned()),
        Ask::Wait => {
            let target = if timeout.is_multiple_of(3) { "waiting" } else { "reachable" };
            line("wait", format!("\"guests\":[\"{guest}\"],\"for\":\"{target}\",\"timeout_ms\":{timeout}"))
        }
        Ask::Flood => line("status", String::new()).repeat(400),
        Ask::Half => {
            let mut half = line("status", String::new());
            half.truncate(12);
            half
        }
    }
    .into_bytes()
}
