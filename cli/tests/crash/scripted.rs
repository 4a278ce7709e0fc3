//! Guests that are played by bytes, and put up with a broker that goes away at any moment.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use castra_core::auth::{Key, Transcript};
use castra_core::id::{Epoch, Nonce};

use crate::support::PATIENCE;

const NONCE: &str = "0f0e0d0c0b0a09080706050403020100";

pub(crate) struct Scripted(BufReader<UnixStream>);

/// How a handshake ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Ok,
    Refused(String),
    Lost,
}

impl Scripted {
    pub(crate) fn connect(link: &Path) -> Option<Self> {
        let stream = UnixStream::connect(link).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut guest = Self(BufReader::new(stream));
        guest.line().map(|_| guest)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.get_mut().write_all(bytes).ok()
    }

    /// A whole line; `None`: the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the link says nothing"),
            Ok(_) if line.ends_with('\n') => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// A hello without `proof-v1`, as castra 0.1 said it.
    pub(crate) fn of_0_1(&mut self, name: &str, bus: bool) -> Verdict {
        let words = if bus { " capabilities=bus-v1" } else { "" };
        self.send(format!("hello vm:{name}{words}\n").as_bytes());
        verdict(self.line())
    }

    /// The whole handshake, with a token where one is asked for.
    pub(crate) fn prove(&mut self, name: &str, token: Option<&str>, once: bool) -> Verdict {
        let once = if once { " once" } else { "" };
        let hello = format!("hello vm:{name} capabilities=proof-v1 nonce={NONCE}{once}");
        self.send(format!("{hello}\n").as_bytes());
        let line = match self.line() {
            Some(line) if line.starts_with("challenge ") => line,
            other => return verdict(other),
        };
        let words: Vec<_> = line.split(' ').collect();
        let proof = if words[3] == "auth=none" {
            words[1].to_owned()
        } else {
            let (broker, own): (Nonce, Nonce) = (words[1].parse().unwrap(), NONCE.parse().unwrap());
            let epoch = Epoch(words[2].strip_prefix("epoch=").unwrap().parse().unwrap());
            let transcript = Transcript::new(&name.parse().unwrap(), &broker, &own, epoch, hello.as_bytes());
            let key: Key = token.unwrap_or(&"0".repeat(64)).parse().unwrap();
            transcript.guest_proof(&key).to_string()
        };
        self.send(format!("proof {proof}\n").as_bytes());
        verdict(self.line())
    }
}

fn verdict(line: Option<String>) -> Verdict {
    match line {
        None => Verdict::Lost,
        Some(line) if line == "ok" || line.starts_with("ok session=") => Verdict::Ok,
        Some(line) => {
            let code = line.strip_prefix("error: ").unwrap_or_else(|| panic!("{line}"));
            Verdict::Refused(code.split(':').next().unwrap().to_owned())
        }
    }
}
