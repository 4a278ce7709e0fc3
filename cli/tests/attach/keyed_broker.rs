//! A broker that is played by bytes, with or without the guest's key: `docs/PROTOCOL.md`, sections 2 to 4.

use std::net::TcpListener;

use castra_core::auth::{Direction, Key, SessionKey, Transcript};
use castra_core::id::{Epoch, Nonce};
use serde_json::Value;

use crate::support::{Link, PATIENCE, Stream, until};

const NONCE: &str = "00112233445566778899aabbccddeeff";

pub(crate) struct KeyedBroker {
    listener: TcpListener,
    epoch: u64,
}

/// A session whose frames carry tags.
pub(crate) struct Session {
    link: Link,
    key: SessionKey,
    sent: u64,
    read: u64,
}

impl KeyedBroker {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, epoch: 0 }
    }

    /// Where agents connect.
    pub(crate) fn address(&self) -> String {
        format!("tcp:{}", self.listener.local_addr().unwrap())
    }

    /// The next guest's session, with the key of `token`, which may be the wrong one.
    pub(crate) fn session(&mut self, token: &str) -> Session {
        let mut accepted = None;
        let came = until(PATIENCE, || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        assert!(came, "no guest came");
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut link = Link::over(Stream::Tcp(stream));
        self.epoch += 1;
        let epoch = self.epoch;
        link.send(b"castra-broker 0.1 ready\n");
        let hello = link.line();
        link.send(format!("challenge {NONCE} epoch={epoch} auth=hmac-sha256\n").as_bytes());
        let name = hello.split(' ').nth(1).unwrap().strip_prefix("vm:").unwrap().parse().unwrap();
        let own = hello.split(' ').find_map(|word| word.strip_prefix("nonce=")).unwrap();
        let (broker, guest): (Nonce, Nonce) = (NONCE.parse().unwrap(), own.parse().unwrap());
        let key: Key = token.parse().unwrap();
        let transcript = Transcript::new(&name, &broker, &guest, Epoch(epoch), hello.as_bytes());
        assert!(link.line().starts_with("proof "));
        let proof = transcript.broker_proof(&key);
        let ok = format!(
            "ok session=sess-0-{epoch} epoch={epoch} interval_ms=60000 window_ms=180000 proof={proof}\n"
        );
        link.send(ok.as_bytes());
        Session { link, key: transcript.session_key(&key), sent: 0, read: 0 }
    }
}

impl Session {
    pub(crate) fn send(&mut self, frame: &Value) {
        let json = frame.to_string();
        let tag = self.key.tag(Direction::ToGuest, self.sent, json.as_bytes());
        self.sent += 1;
        self.link.send_frame(&format!("{json}{}", hex(&tag)));
    }

    /// A frame that somebody on the way changed after it was tagged.
    pub(crate) fn send_tampered(&mut self, frame: &Value, from: &str, to: &str) {
        let json = frame.to_string();
        let tag = self.key.tag(Direction::ToGuest, self.sent, json.as_bytes());
        let changed = json.replace(from, to);
        assert_ne!(changed, json);
        self.link.send_frame(&format!("{changed}{}", hex(&tag)));
    }

    /// The guest's next frame; `None`: it hung up.
    pub(crate) fn frame(&mut self) -> Option<Value> {
        let payload = self.link.payload()?;
        let json = self.key.open(Direction::ToBroker, self.read, &payload).unwrap();
        self.read += 1;
        Some(serde_json::from_slice(json).unwrap())
    }

    /// The guest's next frame of a type; those before it are dropped.
    pub(crate) fn await_frame(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame().unwrap_or_else(|| panic!("the guest hung up before its {kind}"));
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
