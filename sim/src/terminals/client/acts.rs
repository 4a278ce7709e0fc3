//! What a client does.

use std::time::Duration;

use castra_core::terminals::wire::{
    Attach, CAPABILITIES, ChannelMode, Create, Handshake, Request, Role, Scope, Secret,
};

use super::{Around, Asked, Client, Link};
use crate::choice::Choice;
use crate::outcome::count;
use crate::terminals::pattern::{self, Author};
use crate::terminals::plan::{Act, Deed, Kind};

/// A terminal that never was.
const NOBODY: u32 = 4_000_000_000;

impl Client {
    /// The first words on a connection.
    pub(super) fn greet(&mut self, place: usize, link: &mut Link, around: &mut Around<'_>) {
        let name = format!("client-{}", self.plan.name);
        let role = if self.plan.kind == Kind::Stream || place == 1 { Role::Stream } else { Role::Control };
        let token = if self.plan.kind == Kind::WrongToken { "none" } else { around.token };
        let mut handshake = Handshake::new(token, &name, role);
        if self.plan.kind == Kind::Dual {
            handshake.channel_mode = Some(ChannelMode::Dual);
        }
        if self.plan.modern {
            handshake.capabilities = CAPABILITIES.to_vec();
        }
        match self.plan.kind {
            Kind::Mute | Kind::Rude => {}
            Kind::Garbage => {
                let odd = around.hub.chooser.0.below(3);
                // No frame; a frame that is none of MessagePack; one that announces too much.
                link.unsent = match odd {
                    0 => vec![0, 0, 0, 0, 1, 2, 3],
                    1 => vec![0, 0, 0, 3, 0xc1, 0xff, 0x00],
                    _ => vec![0xff; 64],
                };
            }
            Kind::Old => {
                // {"type": "handshake", "seq": 1, "token": "", "protocol_version": 1}
                let body = b"\x84\xa4type\xa9handshake\xa3seq\x01\xa5token\xa0\xb0protocol_version\x01";
                link.unsent.extend_from_slice(&(body.len() as u32).to_be_bytes());
                link.unsent.extend_from_slice(body);
            }
            Kind::Half => {
                Request::Handshake(handshake).append(1, &mut link.unsent);
                link.unsent.truncate(17);
            }
            Kind::Control | Kind::Stream | Kind::Dual | Kind::WrongToken => {
                self.seq += 1;
                let at = around.hub.now;
                self.asked.insert(self.seq, Asked { deed: Deed::List, terminal: 0, at, from: None });
                Request::Handshake(handshake).append(self.seq, &mut link.unsent);
            }
        }
    }

    /// Asks for something on the connection for requests.
    fn ask(
        &mut self,
        deed: Deed,
        terminal: u32,
        from: Option<u64>,
        request: &Request<'_>,
        around: &Around<'_>,
    ) {
        self.seq += 1;
        let asked = Asked { deed, terminal, at: around.hub.now, from };
        self.asked.insert(self.seq, asked);
        if let Some(link) = self.links.first_mut().filter(|link| !link.finished) {
            request.append(self.seq, &mut link.unsent);
        } else {
            self.asked.remove(&self.seq);
        }
    }

    pub(super) fn perform(&mut self, act: Act, around: &mut Around<'_>) {
        let Act { deed, which, .. } = act;
        let known = &around.witness.created;
        let place = which as usize % known.len().max(1);
        // The newest are the most interesting.
        let session = known.iter().rev().nth(place).copied().unwrap_or(1);
        count(&mut around.witness.outcome.deeds, deed.as_str());
        match deed {
            Deed::Create | Deed::CreateOrAttach | Deed::CreateExclusive => self.create(deed, which, around),
            Deed::Attach | Deed::Observe | Deed::Resume => self.attach(deed, session, around),
            Deed::Detach => {
                if let Some(view) = self.views.get_mut(&session) {
                    view.leaving = true;
                }
                self.ask(deed, session, None, &Request::Detach { session }, around);
            }
            Deed::Input | Deed::Paste => {
                let most = if deed == Deed::Paste { 200_000 } else { 40 };
                let filling = around.hub.chooser.0.below(most) as usize;
                self.piece += 1;
                let author = Author { client: self.index as u8, life: self.life, number: self.piece };
                let data = pattern::input(author, filling);
                self.ask(deed, session, None, &Request::Input { session, data: Secret(&data) }, around);
            }
            Deed::EmptyInput => {
                self.ask(deed, session, None, &Request::Input { session, data: Secret(b"") }, around);
            }
            Deed::Resize => {
                let (cols, rows) = (around.hub.chooser.0.below(200) as u16, 24);
                self.ask(deed, session, None, &Request::Resize { session, cols, rows }, around);
            }
            Deed::Signal => {
                let signal =
                    ["TERM", "SIGINT", "winch", "KILL", "NONSENSE"][around.hub.chooser.0.below(5) as usize];
                self.ask(deed, session, None, &Request::Signal { session, signal, scope: None }, around);
            }
            Deed::Clear => self.ask(deed, session, None, &Request::ClearScrollback { session }, around),
            Deed::Kill => self.ask(deed, session, None, &Request::Kill { session }, around),
            Deed::KillOwned => {
                self.ask(deed, 0, None, &Request::KillAll { scope: Some(Scope::Owned) }, around);
            }
            Deed::KillAll => self.ask(deed, 0, None, &Request::KillAll { scope: None }, around),
            Deed::Takeover => self.ask(deed, session, None, &Request::Takeover { session }, around),
            Deed::List => self.ask(deed, 0, None, &Request::List, around),
            Deed::Snapshot => {
                self.ask(deed, session, None, &Request::Snapshot { session, history_lines: None }, around);
            }
            Deed::Metrics => self.ask(deed, 0, None, &Request::Metrics, around),
            Deed::Flood => {
                for _ in 0..100 {
                    self.ask(deed, 0, None, &Request::List, around);
                }
            }
            Deed::Nobody => self.ask(deed, NOBODY, None, &Request::Kill { session: NOBODY }, around),
            Deed::Pause => {
                let most = [100, 1500, 8000][which as usize % 3];
                let millis = u64::from(around.hub.chooser.0.below(most));
                self.paused_until = around.hub.now + Duration::from_millis(millis);
            }
            Deed::HalfClose => self.links.iter_mut().for_each(|link| link.finished = true),
            Deed::Leave => {
                let pause = self.pause(which, around);
                self.rest(around, pause);
            }
            Deed::Abandon => {
                let pause = self.pause(which, around);
                self.abandoned.extend(self.links.iter().map(|link| link.end));
                self.forget(around.hub.now + pause);
            }
        }
    }

    /// Shorter than a lease, or longer.
    fn pause(&self, which: u32, around: &mut Around<'_>) -> Duration {
        let most = if which.is_multiple_of(2) { 1500 } else { 5000 };
        Duration::from_millis(around.hub.chooser.0.below(most).into())
    }

    fn create(&mut self, deed: Deed, which: u32, around: &Around<'_>) {
        let key = format!("key-{which}");
        let program = which.to_string();
        let command = ["prog", &program];
        let create = Create {
            session_key: (deed != Deed::Create).then_some(&*key),
            exclusive: deed == Deed::CreateExclusive,
            // A shell, sometimes: that is what a cold start starts anew.
            command: if which == 0 { Vec::new() } else { command.to_vec() },
            cols: Some(80),
            rows: Some(24),
            initial_commands: if which.is_multiple_of(2) { vec!["echo ready"] } else { Vec::new() },
            ..Create::default()
        };
        self.ask(deed, 0, None, &Request::Create(Box::new(create)), around);
    }

    pub(super) fn attach(&mut self, deed: Deed, session: u32, around: &Around<'_>) {
        // On another connection nobody knows what comes first.
        if self.plan.kind == Kind::Dual && self.views.contains_key(&session) {
            return;
        }
        let from = self.views.get(&session).and_then(super::View::next);
        let from = from.or_else(|| self.stopped.get(&session).copied()).filter(|_| deed == Deed::Resume);
        let attach =
            Attach { session, resume_from: from, history_lines: Some(100), observe: deed == Deed::Observe };
        self.views.entry(session).or_default();
        self.ask(deed, session, from, &Request::Attach(attach), around);
    }
}
