//! A guest that speaks the link protocol by bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use castra_core::auth::{Direction, Key, Transcript};
use castra_core::id::{Epoch, Nonce};
use serde_json::{Value, json};

use super::PATIENCE;

pub(crate) const GREETING: &str = "castra-broker 0.1 ready";

/// Any stream to the broker.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub(crate) struct Link {
    stream: Stream,
    unread: Vec<u8>,
}

/// The broker's challenge line.
pub(crate) struct Challenge {
    pub(crate) nonce: String,
    pub(crate) epoch: u64,
    pub(crate) auth: String,
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn limit(&self, bound: Duration) {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(bound)).unwrap(),
            Self::Unix(stream) => stream.set_read_timeout(Some(bound)).unwrap(),
        }
    }
}

impl Link {
    pub(crate) fn tcp(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(Stream::Tcp(stream))
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::over(Stream::Unix(UnixStream::connect(path).unwrap()))
    }

    pub(crate) fn over(stream: Stream) -> Self {
        stream.limit(PATIENCE);
        Self { stream, unread: vec![] }
    }

    /// Connects, and reads the greeting.
    pub(crate) fn greeted(port: u16) -> Self {
        let mut link = Self::tcp(port);
        assert_eq!(link.line(), GREETING);
        link
    }

    /// A proven session, unkeyed.
    pub(crate) fn join(port: u16, name: &str) -> Self {
        let mut link = Self::greeted(port);
        link.prove(name, "");
        link
    }

    /// The whole handshake after the greeting; the `ok` line.
    pub(crate) fn prove(&mut self, name: &str, words: &str) -> String {
        let challenge = self.hello(name, words);
        assert_eq!(challenge.auth, "none");
        self.send(format!("proof {}\n", challenge.nonce).as_bytes());
        let ok = self.line();
        assert!(ok.starts_with("ok session=sess-"), "{ok}");
        ok
    }

    pub(crate) fn hello(&mut self, name: &str, words: &str) -> Challenge {
        self.hello_line(&format!("hello vm:{name} capabilities=proof-v1{words}"))
    }

    fn hello_line(&mut self, hello: &str) -> Challenge {
        self.send(format!("{hello}\n").as_bytes());
        let line = self.line();
        let mut parts = line.split(' ');
        assert_eq!(parts.next(), Some("challenge"), "{line}");
        let nonce = parts.next().unwrap().to_owned();
        let epoch = parts.next().unwrap().strip_prefix("epoch=").unwrap().parse().unwrap();
        let auth = parts.next().unwrap().strip_prefix("auth=").unwrap().to_owned();
        Challenge { nonce, epoch, auth }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends where the broker may have hung up already.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn send_frame(&mut self, json: &str) {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        self.send(&[&length, json.as_bytes()].concat());
    }

    /// The next line, which must come.
    pub(crate) fn line(&mut self) -> String {
        self.try_line().expect("a line before the end")
    }

    /// The next line; `None` at the end.
    pub(crate) fn try_line(&mut self) -> Option<String> {
        let end = loop {
            match self.unread.iter().position(|byte| *byte == b'\n') {
                Some(end) => break end,
                None if self.fill() => {}
                None => {
                    assert!(self.unread.is_empty(), "an unfinished line: {:?}", self.unread);
                    return None;
                }
            }
        };
        let line = self.unread.drain(..=end).collect::<Vec<_>>();
        Some(String::from_utf8(line).unwrap().trim_end().to_owned())
    }

    /// The next frame's payload; `None` at the end.
    pub(crate) fn payload(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = self.unread.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.unread.len() >= 4 + length {
                    let frame = self.unread.drain(..4 + length).collect::<Vec<_>>();
                    return Some(frame[4..].to_vec());
                }
            }
            if !self.fill() {
                assert!(self.unread.is_empty(), "an unfinished frame: {:?}", self.unread);
                return None;
            }
        }
    }

    /// The next frame of an unkeyed session; `None` at the end.
    pub(crate) fn frame(&mut self) -> Option<Value> {
        self.payload().map(|payload| serde_json::from_slice(&payload).unwrap())
    }

    /// The next frame that is no challenge.
    pub(crate) fn answer(&mut self) -> Option<Value> {
        loop {
            let frame = self.frame()?;
            if frame["type"] != "challenge" {
                return Some(frame);
            }
        }
    }

    /// The next challenge, and the frame that answers it.
    pub(crate) fn challenge(&mut self) -> Option<String> {
        loop {
            let frame = self.frame()?;
            if frame["type"] == "challenge" {
                return Some(
                    json!({"type": "proof", "seq": frame["seq"], "proof": frame["nonce"]}).to_string(),
                );
            }
        }
    }

    /// Answers every challenge, on a thread, until the link ends.
    pub(crate) fn live(mut self) -> std::thread::JoinHandle<()> {
        self.stream.limit(Duration::from_secs(60));
        std::thread::spawn(move || {
            while let Some(answer) = self.challenge() {
                let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
                self.try_send(&[&length, answer.as_bytes()].concat());
            }
        })
    }

    /// Sends one byte a second, the first after half of one, on a thread, until
    /// the broker hangs up.
    pub(crate) fn drip(&self, bytes: &'static [u8]) {
        let Stream::Tcp(stream) = &self.stream else { panic!("only over TCP") };
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            for byte in bytes {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }

    /// Whatever comes until the end is dropped; the end must come.
    pub(crate) fn drained(&mut self) {
        while self.fill() {
            self.unread.clear();
        }
    }

    pub(crate) fn shutdown_write(&self) {
        self.try_shutdown_write().unwrap();
    }

    /// The same where the broker may have hung up already.
    pub(crate) fn try_shutdown_write(&self) -> std::io::Result<()> {
        let how = std::net::Shutdown::Write;
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }

    /// Closes with a reset instead of an end.
    pub(crate) fn reset(self) {
        let Stream::Tcp(stream) = self.stream else { panic!("only TCP has resets") };
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(OwnedFd::from(stream));
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.fill(),
            Err(error) => panic!("the broker said nothing: {error}; so far {:?}", self.unread),
        }
    }
}

/// A keyed guest's handshake.
pub(crate) struct Keyed {
    pub(crate) link: Link,
    pub(crate) epoch: u64,
    key: Key,
    transcript: Transcript,
    sent: u64,
}

impl Keyed {
    const NONCE: &str = "0f0e0d0c0b0a09080706050403020100";

    /// Up to the challenge.
    pub(crate) fn begin(port: u16, name: &str, token: &str) -> Self {
        Self::begin_with(port, name, token, "proof-v1")
    }

    /// The same, by a guest that can do this.
    pub(crate) fn begin_with(port: u16, name: &str, token: &str, capabilities: &str) -> Self {
        let mut link = Link::greeted(port);
        let hello = format!("hello vm:{name} capabilities={capabilities} nonce={}", Self::NONCE);
        let challenge = link.hello_line(&hello);
        assert_eq!(challenge.auth, "hmac-sha256");
        let (broker, own): (Nonce, Nonce) = (challenge.nonce.parse().unwrap(), Self::NONCE.parse().unwrap());
        let epoch = challenge.epoch;
        let transcript =
            Transcript::new(&name.parse().unwrap(), &broker, &own, Epoch(epoch), hello.as_bytes());
        Self { link, epoch, key: token.parse().unwrap(), transcript, sent: 0 }
    }

    pub(crate) fn proof(&self) -> String {
        self.transcript.guest_proof(&self.key).to_string()
    }

    /// Sends the proof; the broker's verdict.
    pub(crate) fn prove(&mut self) -> String {
        let proof = self.proof();
        self.link.send(format!("proof {proof}\n").as_bytes());
        self.link.line()
    }

    /// What the broker must show in its `ok`.
    pub(crate) fn broker_proof(&self) -> String {
        self.transcript.broker_proof(&self.key).to_string()
    }

    /// A tagged frame; that the broker has hung up already is told by what is read next.
    pub(crate) fn send_frame(&mut self, json: &str) {
        let key = self.transcript.session_key(&self.key);
        let tag = key.tag(Direction::ToBroker, self.sent, json.as_bytes());
        self.sent += 1;
        let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        let frame = format!("{json}{tag}");
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.link.try_send(&[&length, frame.as_bytes()].concat());
    }

    /// The next tagged frame's JSON text; the tag is checked.
    pub(crate) fn frame(&mut self, count: u64) -> Option<String> {
        let payload = self.link.payload()?;
        let key = self.transcript.session_key(&self.key);
        let json = key.open(Direction::ToGuest, count, &payload).unwrap();
        Some(String::from_utf8(json.to_vec()).unwrap())
    }
}
