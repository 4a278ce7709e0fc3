//! The lines of phase A.

use alloc::vec::Vec;
use core::time::Duration;

use crate::auth::Proof;
use crate::capabilities::Capabilities;
use crate::event::Failure;
use crate::hex;
use crate::id::{Epoch, GuestName, Nonce};
use crate::time::millis;

/// The broker's first line.
pub const GREETING: &[u8] = b"castra-broker 0.1 ready";

/// The capability that asks for a challenge.
pub const PROOF_V1: &str = "proof-v1";

/// The 0.1 capability that asks for frames.
pub const BUS_V1: &str = "bus-v1";

/// The 0.1 capability of the host's own bus client.
pub const HOST_BUS: &str = "host-bus";

/// How a guest has to prove itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Return the nonce.
    None,
    /// Return an HMAC under the token.
    Hmac,
}

impl Auth {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Hmac => "hmac-sha256",
        }
    }
}

/// A guest's hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Who it says it is.
    pub name: GuestName,
    /// What it says it can do.
    pub capabilities: Capabilities,
    /// Its boot id.
    pub boot: Option<[u8; 16]>,
    /// Its fresh nonce.
    pub nonce: Option<Nonce>,
    /// It wants no session.
    pub once: bool,
}

/// Whether a hello without its line end has to be all that was meant: a name and nothing more, as
/// castra 0.1's guests say it. Of a list or a nonce nobody can tell whether its end is missing.
#[must_use]
pub fn is_bare_hello(line: &[u8]) -> bool {
    line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).count() == 2
}

/// Whether a proof without its line end has the length of one: with a key 32 bytes, without 16, in hex.
#[must_use]
pub fn is_whole_proof(line: &[u8]) -> bool {
    line.rsplit(|byte| *byte == b' ').next().is_some_and(|word| matches!(word.len(), 32 | 64))
}

impl Hello {
    /// Reads a hello line, without its end.
    ///
    /// # Errors
    /// [`Failure::BadLine`] or [`Failure::BadName`].
    pub fn parse(line: &[u8]) -> Result<Self, Failure> {
        if str::from_utf8(line).is_err() {
            return Err(Failure::BadLine);
        }
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"hello")) {
            return Err(Failure::BadLine);
        }
        let name = words.next().ok_or(Failure::BadLine)?;
        // castra 0.1 guests may leave the prefix out.
        let name =
            GuestName::from_bytes(name.strip_prefix(b"vm:").unwrap_or(name)).map_err(|_| Failure::BadName)?;
        let (mut boot, mut nonce, mut once) = (None, None, false);
        // There is one list of capabilities; some say them in more.
        let (mut list, mut more) = (None, Vec::new());
        for word in words {
            match split_once(word) {
                Some((key, value)) if key.eq_ignore_ascii_case(b"capabilities") => match list {
                    None => list = Some(value),
                    Some(_) => more.push(value),
                },
                Some((b"boot", value)) => boot = Some(hex::decode(value).map_err(|_| Failure::BadLine)?),
                Some((b"nonce", value)) => {
                    nonce = Some(Nonce(hex::decode(value).map_err(|_| Failure::BadLine)?));
                }
                None if word == b"once" => once = true,
                Some(_) | None => {}
            }
        }
        let list = list.iter().chain(&more).flat_map(|value| value.split(|byte| *byte == b','));
        // What the protocol itself asks is never what the bound drops.
        let own = list.clone().filter(|word| is_own(word));
        let capabilities = Capabilities::gather(own.chain(list.clone().filter(|word| !is_own(word))));
        Ok(Self { name, capabilities, boot, nonce, once })
    }

    /// Appends the line, without its end.
    pub fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"hello vm:");
        out.extend_from_slice(self.name.as_str().as_bytes());
        if !self.capabilities.is_empty() {
            out.extend_from_slice(b" capabilities=");
            out.extend_from_slice(self.capabilities.as_str().as_bytes());
        }
        if let Some(boot) = &self.boot {
            out.extend_from_slice(b" boot=");
            hex::append(out, boot);
        }
        if let Some(nonce) = &self.nonce {
            out.extend_from_slice(b" nonce=");
            hex::append(out, &nonce.0);
        }
        if self.once {
            out.extend_from_slice(b" once");
        }
    }
}

fn is_own(capability: &[u8]) -> bool {
    [PROOF_V1, BUS_V1, HOST_BUS].iter().any(|own| own.as_bytes().eq_ignore_ascii_case(capability))
}

/// `KEY=VALUE`.
fn split_once(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = word.iter().position(|byte| *byte == b'=')?;
    Some((&word[..at], &word[at + 1..]))
}

/// The broker's challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// Fresh.
    pub nonce: Nonce,
    /// The session's number, should it come to one.
    pub epoch: Epoch,
    /// What to answer with.
    pub auth: Auth,
}

impl Challenge {
    /// Appends the line with its end.
    pub fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"challenge ");
        hex::append(out, &self.nonce.0);
        out.extend_from_slice(b" epoch=");
        append_number(out, self.epoch.0);
        out.extend_from_slice(b" auth=");
        out.extend_from_slice(self.auth.as_str().as_bytes());
        out.push(b'\n');
    }
}

/// The broker's `ok`.
#[derive(Clone, Copy, Debug)]
pub struct Ok {
    /// The session's number.
    pub epoch: Epoch,
    /// How often the broker will ask.
    pub interval: Duration,
    /// How long it trusts an answer.
    pub window: Duration,
    /// Its own proof, in a keyed session.
    pub proof: Option<Proof>,
}

impl Ok {
    /// Appends the line with its end.
    pub fn append(&self, out: &mut Vec<u8>) {
        append_session(out, self.epoch);
        out.extend_from_slice(b" epoch=");
        append_number(out, self.epoch.0);
        out.extend_from_slice(b" interval_ms=");
        append_number(out, millis(self.interval));
        out.extend_from_slice(b" window_ms=");
        append_number(out, millis(self.window));
        if let Some(proof) = &self.proof {
            out.extend_from_slice(b" proof=");
            hex::append(out, &proof.0);
        }
        out.push(b'\n');
    }
}

/// Appends `ok session=sess-N-N`, castra 0.1's whole answer, without its end.
pub fn append_session(out: &mut Vec<u8>, epoch: Epoch) {
    out.extend_from_slice(b"ok session=sess-");
    append_number(out, u64::from(epoch.incarnation()));
    out.push(b'-');
    append_number(out, u64::from(epoch.counter()));
}

/// Appends `error: CODE: text\n`.
pub fn append_refusal(out: &mut Vec<u8>, code: Failure, text: &str) {
    out.extend_from_slice(b"error: ");
    out.extend_from_slice(code.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

/// What a broker says in phase A, as an agent reads it.
#[derive(Clone, Debug)]
pub enum BrokerLine<'a> {
    /// The greeting, possibly behind remains of an older stream.
    Greeting,
    /// A challenge.
    Challenge(Challenge),
    /// The session stands.
    Ok(Ok),
    /// castra 0.1's `ok`, which promises nothing.
    BareOk,
    /// A refusal, by its code (castra 0.1 brokers send free text).
    Refused(&'a str),
    /// Anything else.
    Unknown,
}

impl<'a> BrokerLine<'a> {
    /// Reads one line, without its end. Never fails: what can't be read is [`BrokerLine::Unknown`].
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Self {
        if line.ends_with(GREETING) {
            return Self::Greeting;
        }
        let Ok(text) = str::from_utf8(line) else { return Self::Unknown };
        if let Some(refusal) = text.strip_prefix("error: ") {
            return Self::Refused(refusal.split(':').next().unwrap_or_default().trim());
        }
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        match words.next() {
            Some("challenge") => challenge(words).map_or(Self::Unknown, Self::Challenge),
            Some("ok") => {
                let words = words.collect::<Vec<_>>();
                match ok(&words) {
                    Some(ok) => Self::Ok(ok),
                    // An `ok` with some of v1's words but not all is not 0.1's.
                    None if words.iter().any(|word| word.starts_with("epoch=")) => Self::Unknown,
                    None => Self::BareOk,
                }
            }
            _ => Self::Unknown,
        }
    }
}

fn challenge<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let nonce = words.next()?.parse().ok()?;
    let (mut epoch, mut auth) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("epoch", value)) => epoch = Some(Epoch(value.parse().ok()?)),
            Some(("auth", "none")) => auth = Some(Auth::None),
            Some(("auth", "hmac-sha256")) => auth = Some(Auth::Hmac),
            Some(("auth", _)) => return None,
            Some(_) | None => {}
        }
    }
    Some(Challenge { nonce, epoch: epoch?, auth: auth? })
}

fn ok(words: &[&str]) -> Option<Ok> {
    let (mut epoch, mut interval, mut window, mut proof) = (None, None, None, None);
    for word in words {
        match word.split_once('=') {
            Some(("epoch", value)) => epoch = Some(Epoch(value.parse().ok()?)),
            Some(("interval_ms", value)) => interval = Some(Duration::from_millis(value.parse().ok()?)),
            Some(("window_ms", value)) => window = Some(Duration::from_millis(value.parse().ok()?)),
            Some(("proof", value)) => proof = Some(value.parse().ok()?),
            Some(_) | None => {}
        }
    }
    Some(Ok { epoch: epoch?, interval: interval?, window: window?, proof })
}

/// Appends a number in decimal.
pub(crate) fn append_number(out: &mut Vec<u8>, number: u64) {
    // Most are of one digit.
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
