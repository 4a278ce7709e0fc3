//! What a daemon of terminals and its holder say to each other.
//!
//! A unix socket of packets (`SOCK_SEQPACKET`). One packet is one MessagePack map with
//! a `type`; descriptors travel beside it. Whoever reads ignores types and fields that
//! it doesn't know, so a daemon can be newer or older than the holder it meets.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use castra_core::boundary::EffectErrorKind;
use castra_core::terminals::SignalScope;
use serde::{Deserialize, Serialize};

/// What is spoken here.
pub const VERSION: u32 = 1;
/// Longest packet, in bytes.
pub const PACKET_MAX: usize = 64 * 1024;
/// Most bytes of input in one [`Request::Write`].
pub const PIECE_MAX: usize = 32 * 1024;
/// Longest encoded [`Program`], in bytes. The kernel takes no more than 2 MiB of
/// arguments and environment anyway.
pub const PROGRAM_MAX: u64 = 4 * 1024 * 1024;
/// Most descriptors beside a packet.
pub const DESCRIPTORS_MAX: usize = 3;

/// From a daemon. What has a `seq` is answered by [`Report::Done`],
/// [`Report::Spawned`] or [`Report::Refused`] with the same one; 0: not at all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// The first: from now on this connection is the daemon's, and an older one is
    /// closed. Answered by [`Report::Hello`], a [`Report::Held`] for each terminal,
    /// and [`Report::Listed`].
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Starts the [`Program`] in the descriptor beside this (a memfd).
    Spawn {
        /// For the answer.
        seq: u64,
        /// The new terminal's number.
        terminal: u32,
        /// What its output's first byte is numbered.
        first: u64,
    },
    /// Input. Done when the kernel took all of it.
    Write {
        /// For the answer.
        seq: u64,
        /// Which.
        terminal: u32,
        /// At most [`PIECE_MAX`] bytes.
        #[serde(with = "bytes")]
        data: Vec<u8>,
    },
    /// A new size.
    Resize {
        /// For the answer.
        seq: u64,
        /// Which.
        terminal: u32,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// Sends a signal.
    Signal {
        /// For the answer.
        seq: u64,
        /// Which.
        terminal: u32,
        /// Its number.
        signal: i32,
        /// To whom.
        scope: SignalScope,
    },
    /// HUP, TERM and CONT to every process of the terminal's session.
    HangUp {
        /// For the answer.
        seq: u64,
        /// Which.
        terminal: u32,
    },
    /// KILL to every process of the terminal's session.
    Kill {
        /// For the answer.
        seq: u64,
        /// Which.
        terminal: u32,
    },
    /// Output before this offset may be overwritten.
    Floor {
        /// Which.
        terminal: u32,
        /// Of the oldest byte to keep.
        offset: u64,
    },
    /// The descriptor beside this holds what the screen showed after `offset` bytes of
    /// output. The newest is kept, unread, for the next daemon.
    Snapshot {
        /// Which.
        terminal: u32,
        /// How many bytes of output are in it.
        offset: u64,
    },
    /// Forgets the terminal; a program that still runs there is hung up.
    Release {
        /// For the answer.
        seq: u64,
        /// Which.
        terminal: u32,
    },
    /// Hangs up every terminal, kills what is left after 3 s, and ends the holder.
    End,
    /// From a newer daemon.
    #[serde(other)]
    Unknown,
}

/// From the holder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Report {
    /// Answers [`Request::Hello`].
    Hello {
        /// The holder's [`VERSION`].
        version: u32,
        /// Its process.
        pid: u32,
        /// The size of each ring, in bytes.
        ring: u64,
    },
    /// A terminal that ran on. Beside it: the ring (read only), a counter of new bytes
    /// (an eventfd, 0 at `end`), and the newest snapshot if there is one.
    Held {
        /// Its number.
        terminal: u32,
        /// Its process.
        pid: u32,
        /// In clock ticks since boot.
        start_time: u64,
        /// Its device.
        pts: String,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
        /// What its output's first byte was numbered.
        begin: u64,
        /// The oldest byte of output in the ring.
        first: u64,
        /// Where output ends so far.
        end: u64,
        /// How many bytes of output are in the snapshot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<u64>,
    },
    /// That was the last [`Report::Held`].
    Listed,
    /// Answers [`Request::Spawn`]. Beside it: the ring and the counter, as in
    /// [`Report::Held`].
    Spawned {
        /// The request's.
        seq: u64,
        /// The process.
        pid: u32,
        /// In clock ticks since boot.
        start_time: u64,
        /// The device.
        pts: String,
    },
    /// It is done.
    Done {
        /// The request's.
        seq: u64,
    },
    /// It can't be done.
    Refused {
        /// The request's.
        seq: u64,
        /// Why.
        kind: Refusal,
        /// Why, for people.
        message: String,
    },
    /// The program ended, and `end` is where its output ends.
    Exited {
        /// Which.
        terminal: u32,
        /// Its exit code, or 128 plus the signal.
        code: i32,
        /// The signal that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        /// Where output ends.
        end: u64,
    },
    /// A newer daemon said [`Request::Hello`]: this connection ends.
    Replaced,
    /// From a newer holder.
    #[serde(other)]
    Unknown,
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The working directory isn't there.
    DirectoryMissing,
    /// The program isn't there.
    ProgramMissing,
    /// The program or the directory may not be used.
    PermissionDenied,
    /// There is no such terminal, or its program ended.
    Gone,
    /// Anything else.
    #[serde(other)]
    Failed,
}

impl From<Refusal> for EffectErrorKind {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::DirectoryMissing => Self::DirectoryMissing,
            Refusal::ProgramMissing => Self::ProgramMissing,
            Refusal::PermissionDenied => Self::PermissionDenied,
            Refusal::Gone | Refusal::Failed => Self::Terminal,
        }
    }
}

/// What [`Request::Spawn`] starts: everything said, nothing left to surroundings.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// A path, or a name to be looked up in the `PATH` of `env`.
    pub program: Text,
    /// Without its name.
    pub args: Vec<Text>,
    /// Where it starts.
    pub cwd: Text,
    /// All of its environment.
    pub env: Vec<(Text, Text)>,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// The environment may hold secrets.
impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("program", &self.program.as_os_str()).finish_non_exhaustive()
    }
}

/// What the system takes for a name, a path or a variable: any bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(#[serde(with = "bytes")] Vec<u8>);

impl Text {
    /// As the system has it.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<OsString> for Text {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

/// MessagePack's `bin`, where serde alone would write an array of numbers.
mod bytes {
    use serde::de::{Deserializer, SeqAccess, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = sequence.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_newer_side_are_known_as_unknown_and_new_fields_are_ignored() {
        let newer = serde_json::json!({"type": "levitate", "seq": 1, "height": [1, 2]});
        let packet = rmp_serde::to_vec_named(&newer).expect("bytes");
        assert_eq!(rmp_serde::from_slice::<Request>(&packet).expect("a request"), Request::Unknown);
        assert_eq!(rmp_serde::from_slice::<Report>(&packet).expect("a report"), Report::Unknown);
        let newer = serde_json::json!({"type": "done", "seq": 7, "took": 3});
        let packet = rmp_serde::to_vec_named(&newer).expect("bytes");
        assert_eq!(rmp_serde::from_slice::<Report>(&packet).expect("a report"), Report::Done { seq: 7 });
        let newer = serde_json::json!({"type": "refused", "seq": 7, "kind": "tired", "message": "no"});
        let packet = rmp_serde::to_vec_named(&newer).expect("bytes");
        let refused = Report::Refused { seq: 7, kind: Refusal::Failed, message: "no".to_owned() };
        assert_eq!(rmp_serde::from_slice::<Report>(&packet).expect("a report"), refused);
    }

    #[test]
    fn input_travels_as_bytes_not_as_numbers() {
        let write = Request::Write { seq: 1, terminal: 2, data: vec![200; PIECE_MAX] };
        let packet = rmp_serde::to_vec_named(&write).expect("bytes");
        assert!(packet.len() < PIECE_MAX + 64, "{}", packet.len());
        assert_eq!(rmp_serde::from_slice::<Request>(&packet).expect("a request"), write);
    }
}
