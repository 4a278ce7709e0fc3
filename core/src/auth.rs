//! Keys and proofs. Construction: `docs/PROTOCOL.md`, "Keys" (HMAC-SHA256, RFC 2104).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::hex::{self, InvalidHex};
use crate::id::{Epoch, GuestName, Nonce};

/// A guest's token as a key. Wiped on drop, never shown by `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    /// From the 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for storing.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The token's text: 64 hex digits. Shown once, when it is issued.
    #[must_use]
    pub fn expose_token(&self) -> String {
        let mut text = String::with_capacity(64);
        // Writing to a string can't fail.
        let _ = hex::write(&mut text, &self.0);
        text
    }
}

impl FromStr for Key {
    type Err = InvalidHex;

    fn from_str(token: &str) -> Result<Self, InvalidHex> {
        hex::decode(token.as_bytes()).map(Self)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

const GUEST: &[u8] = b"castra-link/1 guest\0";
const BROKER: &[u8] = b"castra-link/1 broker\0";
const SESSION: &[u8] = b"castra-link/1 session\0";

/// Everything both ends agree on before they prove themselves:
/// `u8 len(NAME) ‖ NAME ‖ broker nonce ‖ guest nonce ‖ epoch ‖ SHA-256(hello line)`.
#[derive(Clone, Debug)]
pub struct Transcript {
    length: usize,
    bytes: [u8; Self::MAX],
}

impl Transcript {
    const MAX: usize = 1 + GuestName::MAX + 16 + 16 + 8 + 32;

    /// `hello` is the line as sent, without its line end.
    #[must_use]
    pub fn new(name: &GuestName, broker: &Nonce, guest: &Nonce, epoch: Epoch, hello: &[u8]) -> Self {
        let mut transcript = Self { length: 0, bytes: [0; Self::MAX] };
        let name = name.as_str().as_bytes();
        // A name has at most 64 bytes.
        transcript.push(&[name.len() as u8]);
        transcript.push(name);
        transcript.push(&broker.0);
        transcript.push(&guest.0);
        transcript.push(&epoch.0.to_be_bytes());
        transcript.push(&Sha256::digest(hello));
        transcript
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    /// The bytes, for test vectors.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// What the guest must send.
    #[must_use]
    pub fn guest_proof(&self, key: &Key) -> Proof {
        Proof(self.mac(key, GUEST))
    }

    /// What the broker must send back.
    #[must_use]
    pub fn broker_proof(&self, key: &Key) -> Proof {
        Proof(self.mac(key, BROKER))
    }

    /// The key that tags every frame of the session.
    #[must_use]
    pub fn session_key(&self, key: &Key) -> SessionKey {
        SessionKey(Key(self.mac(key, SESSION)))
    }

    /// All three: what the guest must send, what the broker must send back, and
    /// the session's key. Cheaper than one by one.
    #[must_use]
    pub fn keys(&self, key: &Key) -> (Proof, Proof, SessionKey) {
        let mac = keyed(key);
        (
            Proof(self.finish(mac.clone(), GUEST)),
            Proof(self.finish(mac.clone(), BROKER)),
            SessionKey(Key(self.finish(mac, SESSION))),
        )
    }

    fn mac(&self, key: &Key, label: &[u8]) -> [u8; 32] {
        self.finish(keyed(key), label)
    }

    fn finish(&self, mut mac: Hmac<Sha256>, label: &[u8]) -> [u8; 32] {
        mac.update(label);
        mac.update(self.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// A keyed proof. Compared in constant time, never shown by `Debug`: the one
/// that is awaited would let anybody in.
#[derive(Clone, Copy)]
pub struct Proof(pub [u8; 32]);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

impl Proof {
    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl FromStr for Proof {
    type Err = InvalidHex;

    fn from_str(text: &str) -> Result<Self, InvalidHex> {
        hex::decode(text.as_bytes()).map(Self)
    }
}

/// Which way a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Guest to broker (`G`).
    ToBroker,
    /// Broker to guest (`B`).
    ToGuest,
}

/// The key of one session's frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionKey(Key);

/// Hex digits of a frame's tag.
pub const TAG_DIGITS: usize = 32;

impl SessionKey {
    /// The tag of the `count`th frame (from 0) in its direction: the first 16
    /// bytes of the HMAC over direction, count and JSON.
    #[must_use]
    pub fn tag(&self, direction: Direction, count: u64, json: &[u8]) -> [u8; 16] {
        let mut mac = keyed(&self.0);
        mac.update(match direction {
            Direction::ToBroker => b"G",
            Direction::ToGuest => b"B",
        });
        mac.update(&count.to_be_bytes());
        mac.update(json);
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut tag = [0; 16];
        tag.copy_from_slice(&whole[..16]);
        tag
    }

    /// Appends the tag of `json` to `out`, as hex.
    pub fn append_tag(&self, direction: Direction, count: u64, json: Range, out: &mut Vec<u8>) {
        let tag = self.tag(direction, count, &out[json]);
        hex::append(out, &tag);
    }

    /// Splits a frame's payload into its JSON and checks the tag behind it.
    ///
    /// # Errors
    /// Too short for a tag, or a wrong one.
    pub fn open<'a>(
        &self,
        direction: Direction,
        count: u64,
        payload: &'a [u8],
    ) -> Result<&'a [u8], WrongTag> {
        let split = payload.len().checked_sub(TAG_DIGITS).ok_or(WrongTag)?;
        let (json, tag) = payload.split_at(split);
        let tag: [u8; 16] = hex::decode(tag).map_err(|_| WrongTag)?;
        let valid: bool = tag.ct_eq(&self.tag(direction, count, json)).into();
        if valid { Ok(json) } else { Err(WrongTag) }
    }
}

type Range = core::ops::Range<usize>;

/// A keyed session's frame carried the wrong tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the frame's tag is wrong")]
pub struct WrongTag;

fn keyed(key: &Key) -> Hmac<Sha256> {
    // HMAC takes a key of any length; ours has 32 bytes.
    match Hmac::<Sha256>::new_from_slice(&key.0) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC-SHA256 accepts every key length"),
    }
}
