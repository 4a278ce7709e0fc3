//! Guests that are not castra's agent: boot scripts, castra 0.1, and hostile ones.

use std::time::Duration;

use castra_core::capabilities::Capabilities;
use castra_core::id::{GuestName, Nonce};
use castra_core::link::line::{BrokerLine, Challenge, Hello, PROOF_V1};
use castra_core::link::message::{BrokerFrame, append_proof};
use castra_core::time::Time;

use crate::choice::Choice;
use crate::net::{Door, EndId, Hub, Owner};
use crate::plan::GuestKind;
use crate::witness::{BROKER, MESSAGE, messages_in};

/// A scripted guest.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) kind: GuestKind,
    name: GuestName,
    /// Whose name an impostor claims.
    victim: GuestName,
    door: Door,
    window: Duration,
    end: Option<EndId>,
    inbox: Vec<u8>,
    unsent: Vec<u8>,
    greeted: bool,
    established: bool,
    /// Answers no challenge truthfully; decided with the first.
    liar: Option<bool>,
    next: Time,
    opened: Time,
}

impl Script {
    pub(crate) fn new(
        kind: GuestKind,
        name: GuestName,
        victim: GuestName,
        door: Door,
        window: Duration,
    ) -> Self {
        Self {
            kind,
            name,
            victim,
            door,
            window,
            end: None,
            inbox: Vec::new(),
            unsent: Vec::new(),
            greeted: false,
            established: false,
            liar: None,
            next: Time::ZERO,
            opened: Time::ZERO,
        }
    }

    /// Does what is to be done now; says when to come back.
    pub(crate) fn turn(&mut self, hub: &mut Hub, owner: Owner) -> Option<Time> {
        let now = hub.now;
        let Some(end) = self.end else {
            if now >= self.next {
                self.end = Some(hub.dial(owner, BROKER, self.door, true));
                self.inbox.clear();
                self.unsent.clear();
                (self.greeted, self.established, self.liar) = (false, false, None);
                self.opened = now;
                self.next = now + Duration::from_secs(6);
            }
            return Some(self.next);
        };
        let mute = self.kind == GuestKind::NeverReads && self.established;
        if !mute && !self.read(hub, end) || self.is_over(now) {
            return Some(self.hang_up(hub, end));
        }
        self.speak(hub, now);
        let (count, gone) = match self.portion() {
            0 => (0, false),
            portion => match hub.write(end, &self.unsent[..portion]) {
                Ok(count) => (count, false),
                Err(error) => (0, error.kind() != std::io::ErrorKind::WouldBlock),
            },
        };
        self.unsent.drain(..count);
        if gone {
            return Some(self.hang_up(hub, end));
        }
        let pace = match self.kind {
            GuestKind::Drip => Duration::from_millis(200),
            GuestKind::Garbage => Duration::from_millis(130),
            _ => Duration::from_secs(1),
        };
        Some(now + pace)
    }

    /// Takes what is there. False: the stream is over.
    fn read(&mut self, hub: &mut Hub, end: EndId) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match hub.read(end, &mut buffer) {
                Ok((0, _)) => return false,
                Ok((count, _)) => self.inbox.extend_from_slice(&buffer[..count]),
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock && !hub.is_refused(end),
            }
        }
    }

    fn is_over(&self, now: Time) -> bool {
        match self.kind {
            GuestKind::OneShot => self.established || now >= self.opened + Duration::from_secs(5),
            GuestKind::Mute | GuestKind::Impostor => now >= self.opened + Duration::from_secs(4),
            GuestKind::NeverReads => now >= self.opened + self.window * 8,
            _ => false,
        }
    }

    fn hang_up(&mut self, hub: &mut Hub, end: EndId) -> Time {
        hub.close(end);
        self.end = None;
        let pause = match self.kind {
            GuestKind::OneShot if self.established => self.window / 2,
            GuestKind::Impostor | GuestKind::Mute => Duration::from_millis(300),
            _ => Duration::from_secs(1),
        };
        self.next = hub.now + pause;
        self.next
    }

    /// How much to send at once.
    fn portion(&self) -> usize {
        if self.kind == GuestKind::Drip { self.unsent.len().min(1) } else { self.unsent.len() }
    }

    fn speak(&mut self, hub: &mut Hub, now: Time) {
        match self.kind {
            GuestKind::Mute => {}
            GuestKind::Garbage => {
                let count = 1 + hub.chooser.0.below(60);
                for _ in 0..count {
                    self.unsent.push(hub.chooser.0.below(256) as u8);
                }
            }
            GuestKind::Legacy => {
                if !self.greeted {
                    self.greeted = true;
                    let hello = format!("hello vm:{} capabilities=bus-v1,metrics\n", self.name);
                    self.unsent.extend_from_slice(hello.as_bytes());
                } else if now >= self.next {
                    self.next = now + Duration::from_secs(10);
                    self.unsent.extend_from_slice(b"\0\0\0\x14{\"type\":\"heartbeat\"}");
                }
            }
            GuestKind::Forger if self.established => self.forge(hub),
            _ => self.handshake(hub),
        }
    }

    /// Answers challenges with what no challenge said, or says what is no frame.
    fn forge(&mut self, hub: &mut Hub) {
        let (now, end) = (hub.now, self.end);
        let liar = *self.liar.get_or_insert_with(|| {
            let liar = hub.chooser.0.once_in(2);
            if let Some(end) = end.and_then(|end| hub.end(end)).filter(|_| liar) {
                end.lies_from = Some(now);
            }
            liar
        });
        while let Some(length) =
            self.inbox.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize)
            && self.inbox.len() >= 4 + length
        {
            let frame: Vec<u8> = self.inbox.drain(..4 + length).skip(4).collect();
            self.forge_acknowledgements(hub, &frame);
            let Ok(BrokerFrame::Challenge { seq, nonce }) = BrokerFrame::parse(&frame) else { continue };
            let mut json = Vec::new();
            match hub.chooser.0.below(6) {
                0 => json.extend_from_slice(b"{no frame"),
                1 if !liar => append_proof(&mut json, seq, &nonce),
                2 => append_proof(&mut json, seq + 1000, &nonce),
                _ => append_proof(&mut json, seq, &Nonce([0; 16])),
            }
            self.unsent.extend_from_slice(&(json.len() as u32).to_be_bytes());
            self.unsent.extend_from_slice(&json);
        }
    }

    /// Acknowledges what it never kept, more than once; and what is another's.
    fn forge_acknowledgements(&mut self, hub: &mut Hub, frame: &[u8]) {
        let own = messages_in(frame, MESSAGE);
        if own.is_empty() && (hub.overheard.is_none() || !hub.chooser.0.once_in(8)) {
            return;
        }
        let times = if own.is_empty() { 1 } else { 1 + hub.chooser.0.below(60) };
        let others = hub.overheard;
        for id in own.into_iter().chain(others) {
            let rejected = hub.chooser.0.once_in(3);
            let json = format!("{{\"type\":\"peer_ack\",\"id\":\"{id}\",\"rejected\":{rejected}}}");
            for _ in 0..times {
                self.unsent.extend_from_slice(&(json.len() as u32).to_be_bytes());
                self.unsent.extend_from_slice(json.as_bytes());
            }
        }
    }

    fn handshake(&mut self, hub: &mut Hub) {
        if !self.greeted {
            self.greeted = true;
            let impostor = self.kind == GuestKind::Impostor;
            if impostor
                && let Some(tap) = hub.tap.as_ref().filter(|tap| !tap.1.is_empty()).map(|tap| tap.1.clone())
                && hub.chooser.0.once_in(2)
            {
                // Whatever the victim once said.
                self.unsent = tap;
                return;
            }
            let name = if impostor { self.victim } else { self.name };
            let hello = Hello {
                name,
                capabilities: Capabilities::parse(PROOF_V1),
                boot: None,
                nonce: impostor.then_some(Nonce([7; 16])),
                once: self.kind == GuestKind::OneShot,
            };
            hello.append(&mut self.unsent);
            self.unsent.push(b'\n');
        }
        while !self.established
            && let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.inbox.drain(..=end).collect();
            match BrokerLine::parse(line.trim_ascii_end()) {
                BrokerLine::Challenge(Challenge { nonce, .. }) => {
                    self.unsent.extend_from_slice(format!("proof {nonce}\n").as_bytes());
                }
                BrokerLine::Ok(_) => self.established = true,
                _ => {}
            }
        }
    }
}
