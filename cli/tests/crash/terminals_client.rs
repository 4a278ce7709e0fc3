//! A client of terminals that puts up with a server that goes away at any moment.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use rmpv::Value;

use crate::load::Site;
use crate::support::PATIENCE;
use crate::wire::{Fields, fields, frame, has, number, numbered, text, value};

pub(crate) struct Client {
    stream: UnixStream,
    unread: Vec<u8>,
    seq: u32,
    events: VecDeque<Value>,
}

impl Client {
    pub(crate) fn connect(site: &Site) -> Option<Self> {
        let token = std::fs::read_to_string(site.world.state().join("terminals.token")).ok()?;
        let stream = UnixStream::connect(site.world.state().join("terminals.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { stream, unread: vec![], seq: 0, events: VecDeque::new() };
        let words = fields! {
            "token" => token.trim(), "protocol_version" => 1, "client_id" => "crash", "role" => "control",
        };
        client.request("handshake", words)?.unwrap();
        Some(client)
    }

    /// The answer, or the refusal; `None`: closed without one.
    pub(crate) fn request(&mut self, kind: &str, fields: Fields) -> Option<Result<Value, String>> {
        self.seq += 1;
        self.stream.write_all(&frame(&numbered(kind, self.seq, fields))).ok()?;
        loop {
            let message = self.next()?;
            if !has(&message, "seq") {
                self.events.push_back(message);
                continue;
            }
            assert_eq!(number(&message, "seq"), u64::from(self.seq), "{kind}: {message}");
            return Some(match text(&message, "type") {
                "error" if text(&message, "code") == "SHUTTING_DOWN" => return None,
                "error" => Err(message.to_string()),
                _ => Ok(message),
            });
        }
    }

    /// What came beside answers.
    pub(crate) fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(header) = self.unread.first_chunk::<4>() {
                let end = 4 + usize::try_from(u32::from_be_bytes(*header)).unwrap();
                if self.unread.len() >= end {
                    let message = value(&self.unread[4..end]);
                    self.unread.drain(..end);
                    return Some(message);
                }
            }
            let mut some = vec![0; 64 * 1024];
            match self.stream.read(&mut some) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&some[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("terminals: no answer"),
                Err(_) => return None,
            }
        }
    }
}
