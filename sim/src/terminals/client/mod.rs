//! A client: one process with one or two connections, a script, and a model of what
//! it may be told.

mod acts;
mod heard;
mod views;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use castra_core::terminals::wire::{CLIENT_FRAME_MAX, Frames, Message};
use castra_core::time::Time;
use castra_driver::net::ListenerId;

use super::host;
use super::plan::{Client as Plan, Deed, Kind, Reading};
use super::witness::{DAEMON, Witness};
use crate::net::{Door, EndId, Hub, Owner};

use views::View;

/// Where the daemon listens.
pub(super) const DOOR: Door = ListenerId(0);

/// What a client needs of the world.
pub(super) struct Around<'a> {
    pub(super) hub: &'a mut Hub,
    pub(super) witness: &'a mut Witness,
    pub(super) token: &'a str,
    /// Since when nothing keeps the daemon from answering; `None`: something does.
    pub(super) calm: Option<Time>,
    /// Faults are over.
    pub(super) peaceful: bool,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) plan: Plan,
    pub(super) index: usize,
    pub(super) owner: Owner,
    /// The one that asks, and that of a dual client on which output comes.
    links: Vec<Link>,
    /// What it never touches again.
    abandoned: Vec<EndId>,
    /// Numbers its connections.
    life: u16,
    /// When it comes, or comes again.
    returns: Time,
    /// Its next act, and when.
    act: usize,
    act_at: Time,
    paused_until: Time,
    reads_at: Time,
    /// When bytes last came.
    heard_at: Time,
    /// Since when its streams are only slowed by the network.
    pub(super) steady: Time,
    seq: u32,
    piece: u32,
    /// What it asked and has no answer to.
    asked: BTreeMap<u32, Asked>,
    views: BTreeMap<u32, View>,
    /// Where it stopped watching what it will watch again.
    stopped: BTreeMap<u32, u64>,
    pub(super) over: bool,
    /// It comes to end all terminals, when the faults are over.
    pub(super) is_operator: bool,
}

/// A connection.
#[derive(Debug)]
struct Link {
    end: EndId,
    frames: Frames,
    unsent: Vec<u8>,
    /// The daemon knows who this is.
    known: bool,
    finished: bool,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    deed: Deed,
    terminal: u32,
    at: Time,
    /// Where output is to begin, if it was said.
    from: Option<u64>,
}

/// How long an answer may take beyond the engine's own bound.
const GRACE: Duration = Duration::from_secs(2);
const BOUND: Duration = Duration::from_secs(10);
/// Between two looks of a client that reads slowly.
const PACE: Duration = Duration::from_millis(10);
/// Before it comes again after its stream broke.
const REST: Duration = Duration::from_millis(200);

impl Client {
    pub(super) fn new(plan: Plan, index: usize, owner: Owner, now: Time) -> Self {
        let returns = now + Duration::from_millis(plan.starts_ms);
        Self {
            plan,
            index,
            owner,
            links: Vec::new(),
            abandoned: Vec::new(),
            life: 0,
            returns,
            act: 0,
            act_at: returns,
            paused_until: Time::ZERO,
            reads_at: Time::ZERO,
            heard_at: Time::ZERO,
            steady: now,
            seq: 0,
            piece: 0,
            asked: BTreeMap::new(),
            views: BTreeMap::new(),
            stopped: BTreeMap::new(),
            over: false,
            is_operator: false,
        }
    }

    /// Does what is to be done now; says when to come back.
    pub(super) fn turn(&mut self, around: &mut Around<'_>) -> Option<Time> {
        let now = around.hub.now;
        if self.over {
            return None;
        }
        if self.links.is_empty() {
            if now < self.returns {
                return Some(self.returns);
            }
            self.connect(around);
        }
        if self.is_broken(around) {
            return self.rest(around, REST);
        }
        if self.send(around) || self.receive(around) {
            return self.rest(around, REST);
        }
        while !self.links.is_empty()
            && self.is_ready()
            && now >= self.act_at
            && self.act < self.plan.acts.len()
        {
            let act = self.plan.acts[self.act];
            self.act += 1;
            if let Some(next) = self.plan.acts.get(self.act) {
                self.act_at = now + Duration::from_millis(next.after_ms);
            }
            if !around.peaceful || self.is_operator {
                self.perform(act, around);
            }
        }
        if self.links.is_empty() {
            return Some(self.returns);
        }
        if self.send(around) {
            return self.rest(around, REST);
        }
        self.wait(now, around)
    }

    fn wait(&self, now: Time, around: &mut Around<'_>) -> Option<Time> {
        self.check_patience(now, around);
        let mut wake = Time::MAX;
        if self.act < self.plan.acts.len() && self.is_ready() {
            wake = wake.min(self.act_at);
        }
        for at in [self.paused_until, self.reads_at] {
            if at > now {
                wake = wake.min(at);
            }
        }
        if let Some(oldest) = self.asked.values().map(|asked| asked.at).min() {
            let due = oldest + BOUND + GRACE;
            wake = wake.min(if due > now { due } else { now + GRACE });
        }
        (wake < Time::MAX).then_some(wake)
    }

    /// L4: each request is answered in time.
    fn check_patience(&self, now: Time, around: &mut Around<'_>) {
        let slow = matches!(self.plan.reads, Reading::Slowly(_)) || self.paused_until > Time::ZERO;
        let Some(calm) = around.calm.filter(|_| !slow && self.is_ready()) else { return };
        for asked in self.asked.values() {
            // While bytes come, what was asked earlier is being answered.
            let since = asked.at.max(calm).max(self.steady).max(self.heard_at);
            if now.since(since) > BOUND + GRACE {
                let waited = now.since(asked.at).as_millis();
                let text = format!(
                    "client {} has no answer to {} of terminal {} after {waited} ms",
                    self.index,
                    asked.deed.as_str(),
                    asked.terminal
                );
                around.witness.blame("L4", text);
            }
        }
    }

    fn is_ready(&self) -> bool {
        let minds = !matches!(self.plan.kind, Kind::Rude);
        !self.links.is_empty() && (!minds || self.links.iter().all(|link| link.known))
    }

    /// Whether it behaves, so that it may expect something.
    pub(super) const fn is_honest(&self) -> bool {
        matches!(self.plan.kind, Kind::Control | Kind::Stream | Kind::Dual)
    }

    fn connect(&mut self, around: &mut Around<'_>) {
        self.life += 1;
        let count = if self.plan.kind == Kind::Dual { 2 } else { 1 };
        for place in 0..count {
            let end = around.hub.dial(self.owner, DAEMON, DOOR, false);
            let mut link =
                Link { end, frames: Frames::default(), unsent: Vec::new(), known: false, finished: false };
            self.greet(place, &mut link, around);
            self.links.push(link);
        }
    }

    fn is_broken(&self, around: &mut Around<'_>) -> bool {
        self.links.iter().any(|link| around.hub.is_refused(link.end))
    }

    /// Gives up its connections, and comes again.
    pub(super) fn rest(&mut self, around: &mut Around<'_>, pause: Duration) -> Option<Time> {
        for link in std::mem::take(&mut self.links) {
            around.hub.close(link.end);
        }
        self.forget(around.hub.now + pause);
        if around.peaceful && !self.is_honest() {
            self.over = true;
            return None;
        }
        Some(self.returns)
    }

    /// Its connections are gone.
    fn forget(&mut self, returns: Time) {
        self.links.clear();
        self.asked.clear();
        self.stopped.extend(self.views.iter().filter_map(|(terminal, view)| Some((*terminal, view.next()?))));
        self.views.clear();
        self.returns = returns;
        self.act_at = self.act_at.max(returns);
    }

    /// True: a stream is broken.
    fn send(&mut self, around: &mut Around<'_>) -> bool {
        for link in &mut self.links {
            while !link.unsent.is_empty() {
                match around.hub.write(link.end, &link.unsent) {
                    Ok(count) => drop(link.unsent.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return true,
                }
            }
            if link.unsent.is_empty() && link.finished {
                around.hub.finish(link.end);
            }
            if let Some(end) = around.hub.end(link.end) {
                end.wants_write = !link.unsent.is_empty();
            }
        }
        false
    }

    /// True: a stream is over.
    fn receive(&mut self, around: &mut Around<'_>) -> bool {
        let now = around.hub.now;
        if now < self.paused_until || matches!(self.plan.kind, Kind::Mute | Kind::Half) {
            let reset =
                |hub: &mut Hub, link: &Link| hub.end(link.end).is_none_or(|end| end.reset || end.finished);
            return self.links.iter().any(|link| reset(around.hub, link));
        }
        self.paused_until = Time::ZERO;
        let mut buffer = [0; 16 * 1024];
        for place in 0..self.links.len() {
            let mut left = match self.plan.reads {
                _ if around.peaceful => usize::MAX,
                Reading::Freely => usize::MAX,
                Reading::Slowly(_) if now < self.reads_at => continue,
                Reading::Slowly(most) => most,
            };
            // What comes after a reset is not what follows.
            if around.hub.end(self.links[place].end).is_none_or(|end| end.reset) {
                return true;
            }
            while left > 0 {
                let portion = left.min(buffer.len());
                match around.hub.read(self.links[place].end, &mut buffer[..portion]) {
                    Ok((0, _)) => return true,
                    Ok((count, _)) => {
                        left -= count;
                        self.heard_at = now;
                        self.hear(place, &buffer[..count], around);
                        if self.links.is_empty() {
                            return false;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return true,
                }
            }
            if left == 0 {
                self.reads_at = now + PACE;
            }
        }
        false
    }

    fn hear(&mut self, place: usize, mut bytes: &[u8], around: &mut Around<'_>) {
        let Some(link) = self.links.get_mut(place) else { return };
        let mut frames = std::mem::take(&mut link.frames);
        loop {
            match frames.next(&mut bytes, CLIENT_FRAME_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => match Message::parse(frame) {
                    Ok(Message::Reply { seq, answer }) => self.replied(place, seq, &answer, around),
                    Ok(Message::Event(event)) => self.told(place, &event, around),
                    Ok(Message::Unknown) => {}
                    Err(error) => around.witness.blame("L4", format!("a message can't be read: {error}")),
                },
                Err(error) => {
                    around.witness.blame("L4", format!("a message can't be read: {error}"));
                    break;
                }
            }
        }
        if let Some(link) = self.links.get_mut(place) {
            link.frames = frames;
        }
    }

    /// Its streams, for faults.
    pub(super) fn ends(&self) -> Vec<EndId> {
        self.links.iter().map(|link| link.end).collect()
    }

    /// Faults are over: it reads everything, and what it left open is closed.
    pub(super) fn calm_down(&mut self, hub: &mut Hub) {
        self.abandoned.drain(..).for_each(|end| hub.close(end));
        self.paused_until = Time::ZERO;
        self.reads_at = Time::ZERO;
    }

    /// Whether it has seen all that there is to be seen; otherwise what is missing.
    pub(super) fn lacks(&self, host: &host::Host) -> Option<String> {
        if !self.is_honest() {
            return None;
        }
        if !self.is_ready() {
            return Some(format!("client {} is not served", self.index));
        }
        if self.is_operator && self.act < self.plan.acts.len() {
            return Some("nobody has ended all terminals yet".to_owned());
        }
        if let Some(asked) = self.asked.values().next() {
            let (deed, terminal) = (asked.deed.as_str(), asked.terminal);
            return Some(format!("client {} has no answer to {deed} of terminal {terminal}", self.index));
        }
        let lacking =
            self.views.iter().find_map(|(terminal, view)| view.lacks(host.life(*terminal)?, *terminal));
        lacking.map(|text| format!("client {} {text}", self.index))
    }
}
