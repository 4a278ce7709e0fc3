//! What a run comes to: its fingerprint and its counts.

use super::Witness;
use crate::outcome::Outcome;

impl Witness {
    /// Folds one more word into the fingerprint.
    pub(crate) fn digest(&mut self, word: u64) {
        let mixed = (self.outcome.digest.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.outcome.digest = mixed;
    }

    /// Folds bytes into the fingerprint.
    pub(crate) fn digest_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.digest(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.digest(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    /// What it came to.
    pub(crate) fn finish(&mut self) -> Outcome {
        for (wakeup, times) in WAKEUPS.iter().zip(self.wakeups) {
            if times > 0 {
                self.outcome.wakeups.insert(wakeup, times);
            }
        }
        if let Some(peers) = &mut self.peers {
            self.outcome.mail = std::mem::take(&mut peers.counts);
        }
        if let Some(attach) = &mut self.attach {
            self.outcome.attach = std::mem::take(&mut attach.counts);
        }
        std::mem::take(&mut self.outcome)
    }
}

/// In the order of [`Wakeup`].
const WAKEUPS: [&str; 16] = [
    "handshake",
    "eviction",
    "session",
    "one_shot",
    "conflict",
    "command",
    "record",
    "drain",
    "redial",
    "dial",
    "more",
    "offer",
    "mail",
    "terminal",
    "tunnel",
    "attach",
];
