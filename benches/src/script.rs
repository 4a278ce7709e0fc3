//! What a client says to a server, and waits for: one dialogue per connection.

use std::ops::Range;

use castra_core::auth::{Key, Transcript};
use castra_core::id::{GuestName, Nonce};
use castra_core::link::inbox::{Inbox, LINE_MAX};
use castra_core::link::line::{Auth, BrokerLine, Challenge};

/// Which protocol, and as whom.
#[derive(Clone, Debug)]
pub enum Script {
    /// castra's link: hello, challenge, proof, ok. `tokens` are empty, or one per guest.
    Link {
        /// The guests' names.
        guests: Vec<GuestName>,
        /// Their keys, in the same order.
        tokens: Vec<Key>,
        /// More words of the hello.
        words: &'static str,
    },
    /// MQTT 3.1.1: CONNECT (clean session), CONNACK, DISCONNECT.
    Mqtt {
        /// The clients' names.
        guests: Vec<GuestName>,
    },
}

/// One connection's part of a script.
#[derive(Debug)]
pub enum Dialogue {
    /// castra's link.
    Link(Link),
    /// MQTT.
    Mqtt {
        /// Which client.
        guest: usize,
    },
}

/// A handshake on a link.
#[derive(Debug, Default)]
pub struct Link {
    guest: usize,
    inbox: Inbox,
    hello: Vec<u8>,
    proven: Option<Challenge>,
}

/// What has become of a dialogue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It is the server's turn.
    Waits,
    /// The client is through. What was read behind that is `rest`.
    Done {
        /// Within what was given.
        rest: Range<usize>,
    },
    /// The server said something else.
    Refused(String),
}

/// Ours; a load generator has no secrets.
const NONCE: Nonce = Nonce([0xA5; 16]);

/// Seconds until MQTT's server gives up on a silent client.
const KEEP_ALIVE: u8 = 60;

/// `count` names of the same length: `prefix` and five digits.
///
/// # Panics
/// `prefix` is no beginning of a name.
#[must_use]
pub fn guest_names(prefix: &str, count: usize) -> Vec<GuestName> {
    (0..count).map(|number| format!("{prefix}{number:05}").parse().expect("a name")).collect()
}

impl Script {
    /// Unkeyed guests on a link.
    #[must_use]
    pub const fn link(guests: Vec<GuestName>) -> Self {
        Self::Link { guests, tokens: Vec::new(), words: "" }
    }

    /// How many guests take turns.
    #[must_use]
    pub const fn guests(&self) -> usize {
        match self {
            Self::Link { guests, .. } | Self::Mqtt { guests } => guests.len(),
        }
    }

    /// The dialogue of one guest.
    #[must_use]
    pub fn begin(&self, guest: usize) -> Dialogue {
        match self {
            Self::Link { .. } => Dialogue::Link(Link { guest, ..Link::default() }),
            Self::Mqtt { .. } => Dialogue::Mqtt { guest },
        }
    }
}

impl Dialogue {
    /// What the client says as soon as it is connected. On a link, one that
    /// doesn't says it after the greeting.
    pub fn open(&mut self, script: &Script, out: &mut Vec<u8>) {
        match (self, script) {
            (Self::Link(link), Script::Link { guests, tokens, words }) => {
                link.say_hello(&guests[link.guest], !tokens.is_empty(), words, out);
            }
            (Self::Mqtt { guest }, Script::Mqtt { guests }) => {
                let id = guests[*guest].as_str().as_bytes();
                // A name has at most 64 bytes: both lengths fit into one.
                let length = id.len() as u8;
                out.extend_from_slice(&[0x10, 12 + length, 0, 4]);
                out.extend_from_slice(b"MQTT");
                out.extend_from_slice(&[4, 0x02, 0, KEEP_ALIVE, 0, length]);
                out.extend_from_slice(id);
            }
            _ => {}
        }
    }

    /// Takes what the server said; appends the answer to `out`.
    pub fn read(&mut self, script: &Script, bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        match self {
            Self::Link(link) => link.read(script, bytes, out),
            Self::Mqtt { .. } => match bytes {
                [0x20, 2, _, 0, ..] => {
                    out.extend_from_slice(&[0xE0, 0]);
                    Progress::Done { rest: 4..bytes.len() }
                }
                _ => Progress::Refused(format!("no CONNACK: {bytes:02x?}")),
            },
        }
    }
}

impl Link {
    fn say_hello(&mut self, name: &GuestName, keyed: bool, words: &str, out: &mut Vec<u8>) {
        self.hello.extend_from_slice(b"hello vm:");
        self.hello.extend_from_slice(name.as_str().as_bytes());
        self.hello.extend_from_slice(b" capabilities=proof-v1");
        if keyed {
            self.hello.extend_from_slice(format!(" nonce={NONCE}").as_bytes());
        }
        if !words.is_empty() {
            self.hello.extend_from_slice(format!(" {words}").as_bytes());
        }
        out.extend_from_slice(&self.hello);
        out.push(b'\n');
    }

    fn read(&mut self, script: &Script, bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        let Script::Link { guests, tokens, words } = script else {
            return Progress::Refused("not a link".into());
        };
        let mut input = bytes;
        loop {
            let line = match self.inbox.line(&mut input, LINE_MAX) {
                Ok(Some(line)) => line,
                Ok(None) => return Progress::Waits,
                Err(error) => return Progress::Refused(error.to_string()),
            };
            match BrokerLine::parse(line) {
                BrokerLine::Greeting if self.hello.is_empty() => {
                    self.say_hello(&guests[self.guest], !tokens.is_empty(), words, out);
                }
                BrokerLine::Greeting => {}
                BrokerLine::Challenge(challenge) => {
                    let proof = match (challenge.auth, tokens.get(self.guest)) {
                        (Auth::None, _) => format!("proof {}\n", challenge.nonce),
                        (Auth::Hmac, Some(key)) => {
                            let name = &guests[self.guest];
                            let (nonce, epoch) = (&challenge.nonce, challenge.epoch);
                            let transcript = Transcript::new(name, nonce, &NONCE, epoch, &self.hello);
                            format!("proof {}\n", transcript.guest_proof(key))
                        }
                        (Auth::Hmac, None) => return Progress::Refused("a token is asked for".into()),
                    };
                    self.proven = Some(challenge);
                    out.extend_from_slice(proof.as_bytes());
                }
                BrokerLine::Ok(ok) if self.proven.is_some_and(|challenge| challenge.epoch == ok.epoch) => {
                    return Progress::Done { rest: bytes.len() - input.len()..bytes.len() };
                }
                BrokerLine::Refused(code) => return Progress::Refused(code.to_owned()),
                BrokerLine::Ok(_) | BrokerLine::BareOk | BrokerLine::Unknown => {
                    return Progress::Refused(String::from_utf8_lossy(bytes).into_owned());
                }
            }
        }
    }
}
