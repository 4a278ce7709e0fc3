//! Phase A: lines, until the broker's `ok`.

use alloc::string::String;
use alloc::vec::Vec;

use super::Context;
use super::session::Session;
use super::wire::{Tags, Wire};
use crate::attach::ATTACH_V1;
use crate::auth::{Key, Transcript};
use crate::capabilities::Capabilities;
use crate::event::{CODE_MAX, shortened};
use crate::hex;
use crate::id::{GuestName, Nonce};
use crate::link::inbox::LINE_MAX;
use crate::link::line::{Auth, BrokerLine, Challenge, GREETING, Hello, Ok as Accepted, PROOF_V1};
use crate::peers::PEERS_V1;
use crate::tunnel::TERMINALS_V1;

/// A handshake in progress.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    pub(super) name: GuestName,
    pub(super) token: Option<Key>,
    /// Ours; fresh if there is a token.
    pub(super) nonce: Nonce,
    /// As sent, without its end; empty until then.
    pub(super) hello: Vec<u8>,
    pub(super) stage: Stage,
    /// Serial: the rest of this line is dropped, it is too long.
    pub(super) skipping: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Serial: skips to a line that ends with the greeting. Holds the end of the
    /// line so far.
    Seeking(Vec<u8>),
    /// The hello is sent.
    Greeted(bool),
    /// The proof is sent.
    Proving { challenge: Challenge, transcript: Option<Transcript> },
}

/// Why a handshake came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// What came is not the protocol.
    Protocol(&'static str),
    /// The broker refused, or demands a token that this guest doesn't have.
    Refused(String),
    /// The broker didn't prove that it knows the token.
    Unproven,
}

/// What a line leads to.
enum Step {
    Skip,
    Greeted,
    Prove(Challenge),
    Accept(Accepted),
    Fail(Failure),
}

impl Handshake {
    /// Says hello: on a socket at once, on a serial stream after the greeting.
    pub(super) fn begin(cx: &mut Context<'_>, wire: &mut Wire) -> Self {
        let token = cx.config.token.clone();
        let nonce = if token.is_some() { cx.entropy.nonce() } else { Nonce([0; 16]) };
        let mut handshake = Self {
            name: cx.config.name,
            token,
            nonce,
            hello: Vec::new(),
            stage: Stage::Seeking(Vec::new()),
            skipping: false,
        };
        if wire.serial {
            wire.resynchronise(cx);
        } else {
            handshake.say_hello(cx, wire);
        }
        handshake
    }

    /// Reads lines. `input` moves past what was taken; `None`: all of it was.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        input: &mut &[u8],
    ) -> Option<Result<Session, Failure>> {
        while !input.is_empty() {
            if let Stage::Seeking(tail) = &mut self.stage {
                if seek(tail, input) {
                    self.say_hello(cx, wire);
                }
                continue;
            }
            if self.skipping {
                self.skipping = !take_line(input).1;
                continue;
            }
            let step = match wire.inbox.line(input, LINE_MAX) {
                Ok(Some(line)) => self.judge(line, wire.serial),
                Ok(None) => return None,
                Err(_) if wire.serial => {
                    wire.inbox.clear();
                    self.skipping = true;
                    continue;
                }
                Err(_) => Step::Fail(Failure::Protocol("a line over 512 bytes")),
            };
            match step {
                Step::Skip => {}
                Step::Greeted => self.stage = Stage::Greeted(true),
                Step::Prove(challenge) => self.prove(cx, wire, challenge),
                Step::Accept(accepted) => return Some(Ok(self.accept(cx, &accepted))),
                Step::Fail(failure) => return Some(Err(failure)),
            }
        }
        None
    }

    /// What `line` means at this stage. On a serial stream what doesn't belong
    /// there is the remains of something older; the deadline bounds the patience.
    fn judge(&self, line: &[u8], serial: bool) -> Step {
        let odd = |what| if serial { Step::Skip } else { Step::Fail(Failure::Protocol(what)) };
        let keyed = self.token.is_some();
        match (BrokerLine::parse(line), &self.stage) {
            (BrokerLine::Greeting, Stage::Greeted(false)) if line == GREETING => Step::Greeted,
            (BrokerLine::Greeting, _) => odd("a greeting out of place"),
            (BrokerLine::Challenge(challenge), Stage::Greeted(_)) => match (challenge.auth, keyed) {
                (Auth::None, true) => Step::Fail(Failure::Unproven),
                (Auth::Hmac, false) => Step::Fail(Failure::Refused("token-required".into())),
                (Auth::None, false) | (Auth::Hmac, true) => Step::Prove(challenge),
            },
            (BrokerLine::Challenge(_), _) => odd("a second challenge"),
            (BrokerLine::Ok(accepted), Stage::Proving { challenge, transcript }) => {
                if accepted.epoch != challenge.epoch && serial {
                    Step::Skip
                } else if keyed && !self.is_proven(&accepted, transcript.as_ref()) {
                    Step::Fail(Failure::Unproven)
                } else if accepted.epoch != challenge.epoch || accepted.interval.is_zero() {
                    Step::Fail(Failure::Protocol("an ok that is not for this session"))
                } else {
                    Step::Accept(accepted)
                }
            }
            (BrokerLine::Ok(_) | BrokerLine::BareOk, _) if keyed => Step::Fail(Failure::Unproven),
            (BrokerLine::Ok(_), _) => odd("an ok without a challenge"),
            (BrokerLine::BareOk, _) => {
                Step::Fail(Failure::Protocol("the broker speaks castra 0.1, which asks for no proof"))
            }
            (BrokerLine::Refused(code), _) => Step::Fail(Failure::Refused(shortened(code, CODE_MAX))),
            (BrokerLine::Unknown, _) => odd("a line that is not the protocol"),
        }
    }

    fn is_proven(&self, accepted: &Accepted, transcript: Option<&Transcript>) -> bool {
        match (&self.token, transcript, &accepted.proof) {
            (Some(key), Some(transcript), Some(proof)) => transcript.broker_proof(key).matches(proof),
            _ => false,
        }
    }

    fn say_hello(&mut self, cx: &mut Context<'_>, wire: &mut Wire) {
        let peers = cx.config.inbox.as_ref().map(|_| PEERS_V1);
        let terminals = cx.config.terminals.then_some(TERMINALS_V1);
        let attach = (!cx.config.once).then_some(ATTACH_V1);
        let own = [PROOF_V1].into_iter().chain(peers).chain(terminals).chain(attach);
        let capabilities = Capabilities::collect(own.chain(cx.config.capabilities.iter()));
        let hello = Hello {
            name: self.name,
            capabilities,
            boot: Some(cx.config.boot),
            nonce: self.token.is_some().then_some(self.nonce),
            once: cx.config.once,
        };
        hello.append(&mut self.hello);
        wire.send(cx, |bytes| {
            bytes.extend_from_slice(&self.hello);
            bytes.push(b'\n');
        });
        self.stage = Stage::Greeted(false);
    }

    fn prove(&mut self, cx: &mut Context<'_>, wire: &mut Wire, challenge: Challenge) {
        let transcript = self.token.as_ref().map(|key| {
            let transcript =
                Transcript::new(&self.name, &challenge.nonce, &self.nonce, challenge.epoch, &self.hello);
            (transcript.guest_proof(key), transcript)
        });
        wire.send(cx, |bytes| {
            bytes.extend_from_slice(b"proof ");
            match &transcript {
                Some((proof, _)) => hex::append(bytes, &proof.0),
                None => hex::append(bytes, &challenge.nonce.0),
            }
            bytes.push(b'\n');
        });
        let transcript = transcript.map(|(_, transcript)| transcript);
        self.stage = Stage::Proving { challenge, transcript };
    }

    fn accept(&self, cx: &Context<'_>, accepted: &Accepted) -> Session {
        let tags = match (&self.token, &self.stage) {
            (Some(key), Stage::Proving { transcript: Some(transcript), .. }) => {
                Some(Tags { key: transcript.session_key(key), sent: 0, received: 0 })
            }
            _ => None,
        };
        Session::new(cx, accepted, tags)
    }
}

/// Moves `input` past the next line end, if there is one; what was taken, and
/// whether it ends a line.
fn take_line<'a>(input: &mut &'a [u8]) -> (&'a [u8], bool) {
    let end = input.iter().position(|&byte| byte == b'\n');
    let (head, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
    *input = rest;
    (head, end.is_some())
}

/// Whether the line that ends in `input` ends with the greeting. However long the
/// line is, no more of it is kept than that takes.
fn seek(tail: &mut Vec<u8>, input: &mut &[u8]) -> bool {
    const KEPT: usize = GREETING.len() + 2;
    let (head, ended) = take_line(input);
    tail.extend_from_slice(&head[head.len().saturating_sub(KEPT)..]);
    tail.drain(..tail.len().saturating_sub(KEPT));
    if !ended {
        return false;
    }
    let line = tail.strip_suffix(b"\n").unwrap_or(tail);
    let found = line.strip_suffix(b"\r").unwrap_or(line).ends_with(GREETING);
    tail.clear();
    found
}
