//! A client that believes nothing: each frame is checked as it comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rmpv::Value;

use super::{Fields, PATIENCE, fields, frame, has, keys, number, numbered, text, value};

/// The published client takes no longer frame.
const FRAME_MAX: usize = 64 * 1024 * 1024;

/// What a client may do.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Control,
    Stream,
}

/// A connection.
pub(crate) struct Client {
    stream: UnixStream,
    unread: Vec<u8>,
    seq: u32,
    /// Events that came, and that no test has taken yet.
    events: VecDeque<Value>,
    replies: BTreeMap<u64, Value>,
    sessions: BTreeMap<u64, Followed>,
}

/// What came of one terminal since the newest attach.
#[derive(Default)]
struct Followed {
    /// Where its next output must begin.
    next: Option<u64>,
    output: Vec<u8>,
    ended: bool,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            unread: Vec::new(),
            seq: 0,
            events: VecDeque::new(),
            replies: BTreeMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// A handshake that must be taken; the reply.
    pub(crate) fn introduce(&mut self, token: &str, id: &str, role: Role, mut more: Fields) -> Value {
        let role = match role {
            Role::Control => "control",
            Role::Stream => "stream",
        };
        let mut all = fields! {
            "token" => token, "protocol_version" => 1, "client_id" => id, "role" => role,
        };
        all.append(&mut more);
        let reply = self.request("handshake", all);
        assert_eq!(text(&reply, "type"), "handshake", "{reply}");
        reply
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a request; its number.
    pub(crate) fn send(&mut self, kind: &str, fields: Fields) -> u32 {
        self.seq += 1;
        self.send_bytes(&frame(&numbered(kind, self.seq, fields)));
        self.seq
    }

    /// The reply to a request of that number.
    pub(crate) fn reply(&mut self, seq: u32) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(reply) = self.replies.remove(&u64::from(seq)) {
                return reply;
            }
            assert!(self.take_one(end), "closed without a reply to {seq}");
        }
    }

    /// A request and its reply.
    pub(crate) fn request(&mut self, kind: &str, fields: Fields) -> Value {
        let seq = self.send(kind, fields);
        self.reply(seq)
    }

    /// The same; `None`: the connection was closed instead.
    pub(crate) fn request_or_closed(&mut self, kind: &str) -> Option<Value> {
        self.seq += 1;
        let end = Instant::now() + PATIENCE;
        self.stream.write_all(&frame(&numbered(kind, self.seq, vec![]))).ok()?;
        while !self.replies.contains_key(&self.seq.into()) {
            self.take_one(end).then_some(())?;
        }
        self.replies.remove(&self.seq.into())
    }

    /// A request that must be granted.
    #[track_caller]
    pub(crate) fn ok(&mut self, kind: &str, fields: Fields) -> Value {
        let reply = self.request(kind, fields);
        assert_eq!(text(&reply, "type"), "ok", "{kind}: {reply}");
        reply
    }

    /// A request that must be refused: the code.
    #[track_caller]
    pub(crate) fn refused(&mut self, kind: &str, fields: Fields) -> String {
        let reply = self.request(kind, fields);
        assert_eq!(text(&reply, "type"), "error", "{kind}: {reply}");
        assert_eq!(keys(&reply), ["type", "seq", "code", "message"]);
        assert!(!text(&reply, "message").is_empty());
        text(&reply, "code").to_owned()
    }

    /// A new terminal.
    #[track_caller]
    pub(crate) fn create(&mut self, fields: Fields) -> u64 {
        number(&self.ok("create", fields), "session")
    }

    #[track_caller]
    pub(crate) fn attach(&mut self, session: u64) -> Value {
        self.ok("attach", fields! { "session" => session })
    }

    /// A new terminal that runs this line, and its output.
    #[track_caller]
    pub(crate) fn run(&mut self, script: &str) -> u64 {
        let session = self.create(fields! { "command" => super::sh(script) });
        let reply = self.ok("attach", fields! { "session" => session, "resume_from" => 0 });
        assert_eq!(reply["resumed"], Value::from(true), "too much output before the attach");
        session
    }

    /// A flood that goes on, and the offset from which on this client has it.
    #[track_caller]
    pub(crate) fn run_flood(&mut self) -> (u64, u64) {
        let session = self.create(fields! { "command" => super::sh(super::FLOOD) });
        let start = number(&self.attach(session), "offset");
        (session, start)
    }

    #[track_caller]
    pub(crate) fn input(&mut self, session: u64, data: impl AsRef<[u8]>) {
        self.ok("input", fields! { "session" => session, "data" => super::bin(data) });
    }

    /// A terminal's row in the list.
    #[track_caller]
    pub(crate) fn row(&mut self, session: u64) -> Value {
        self.rows().into_iter().find(|row| row["id"] == Value::from(session)).expect("a row")
    }

    #[track_caller]
    pub(crate) fn rows(&mut self) -> Vec<Value> {
        self.ok("list", vec![])["sessions"].as_array().expect("rows").clone()
    }

    /// The oldest event that no test has taken and that `wanted` takes.
    #[track_caller]
    pub(crate) fn event(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        let mut looked = 0;
        loop {
            while let Some(event) = self.events.get(looked) {
                if wanted(event) {
                    return self.events.remove(looked).unwrap();
                }
                looked += 1;
            }
            assert!(self.take_one(end), "closed before {what}");
        }
    }

    /// The oldest event of that type of a terminal.
    #[track_caller]
    pub(crate) fn event_of(&mut self, kind: &str, session: u64) -> Value {
        self.event(kind, |event| {
            event["type"] == Value::from(kind) && event["session"] == Value::from(session)
        })
    }

    /// How a terminal's program ended: code and signal.
    #[track_caller]
    pub(crate) fn exit(&mut self, session: u64) -> (i64, Option<i64>) {
        let exit = self.event_of("exit", session);
        (exit["code"].as_i64().unwrap(), exit["signal"].as_i64())
    }

    /// Reads until a terminal's output since the newest attach, or since it was last
    /// taken, holds `text`.
    #[track_caller]
    pub(crate) fn read_until(&mut self, session: u64, text: &str) {
        let end = Instant::now() + PATIENCE;
        let mut looked = 0;
        loop {
            let output = &self.sessions.entry(session).or_default().output;
            if output[looked..].windows(text.len()).any(|part| part == text.as_bytes()) {
                return;
            }
            looked = output.len().saturating_sub(text.len());
            let shown = output.len().saturating_sub(400);
            let shown = || String::from_utf8_lossy(&output[shown..]).into_owned();
            assert!(Instant::now() < end, "{text:?} never came: {:?}", shown());
            if !self.take_one(end) {
                panic!("closed before {text:?}");
            }
        }
    }

    /// Reads until the output goes on from `offset` or a later one.
    #[track_caller]
    pub(crate) fn read_to(&mut self, session: u64, offset: u64) {
        let end = Instant::now() + PATIENCE;
        while self.offset(session).is_none_or(|next| next < offset) {
            assert!(self.take_one(end), "closed before {offset}");
        }
    }

    /// What came of a terminal since the newest attach, or since this was asked.
    pub(crate) fn take_output(&mut self, session: u64) -> Vec<u8> {
        std::mem::take(&mut self.sessions.entry(session).or_default().output)
    }

    /// Where a terminal's next output begins.
    pub(crate) fn offset(&self, session: u64) -> Option<u64> {
        self.sessions.get(&session).and_then(|followed| followed.next)
    }

    /// Every message that comes until the connection is closed.
    #[track_caller]
    pub(crate) fn until_closed(&mut self) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        while self.take_one(end) {}
        let replies = std::mem::take(&mut self.replies).into_values();
        replies.chain(self.events.drain(..)).collect()
    }

    /// Events that came already: whatever the daemon sent before it answered a `list`.
    #[track_caller]
    pub(crate) fn events_so_far(&mut self) -> Vec<Value> {
        self.ok("list", vec![]);
        self.events.drain(..).collect()
    }

    /// The next frame's body as it comes; `None`: closed.
    #[track_caller]
    pub(crate) fn next_frame(&mut self, end: Instant) -> Option<Vec<u8>> {
        loop {
            if let Some(header) = self.unread.first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*header)).unwrap();
                assert!((1..=FRAME_MAX).contains(&length), "a frame of {length} bytes");
                if self.unread.len() >= 4 + length {
                    let body = self.unread[4..4 + length].to_vec();
                    self.unread.drain(..4 + length);
                    return Some(body);
                }
            }
            if !self.read_some(end) {
                assert!(self.unread.is_empty(), "closed inside a frame: {:x?}", self.unread);
                return None;
            }
        }
    }

    fn read_some(&mut self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut some = vec![0; 64 * 1024];
        match self.stream.read(&mut some) {
            Ok(0) => false,
            Ok(count) => {
                self.unread.extend_from_slice(&some[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}; waiting events: {:?}", self.events),
        }
    }

    /// Takes one message; false: closed.
    #[track_caller]
    fn take_one(&mut self, end: Instant) -> bool {
        let Some(body) = self.next_frame(end) else { return false };
        let message = value(&body);
        check(&message);
        if has(&message, "seq") {
            self.follow_reply(&message);
            let seq = number(&message, "seq");
            assert!(self.replies.insert(seq, message).is_none(), "two replies to {seq}");
        } else {
            self.follow_event(&message);
            // Output is kept as bytes.
            if text(&message, "type") != "output" {
                self.events.push_back(message);
            }
        }
        true
    }

    fn follow_reply(&mut self, reply: &Value) {
        // Only an attach says from where output follows.
        if has(reply, "resumed") || (has(reply, "snapshot") && has(reply, "owner_is_you")) {
            let next = reply["offset"].as_u64();
            self.sessions.insert(number(reply, "session"), Followed { next, ..Followed::default() });
        }
    }

    fn follow_event(&mut self, event: &Value) {
        let followed = self.sessions.entry(number(event, "session")).or_default();
        match text(event, "type") {
            "output" => {
                let data = event["data"].as_slice().unwrap();
                let offset = number(event, "offset");
                assert!(!data.is_empty() && !followed.ended, "{event}");
                assert!(followed.next.is_none_or(|next| next == offset), "{:?}, but {offset}", followed.next);
                followed.next = Some(offset + data.len() as u64);
                followed.output.extend_from_slice(data);
            }
            "resync" => {
                let (offset, skipped) = (number(event, "offset"), number(event, "skipped_bytes"));
                assert!(followed.next.is_none_or(|next| next + skipped == offset), "{:?}", followed.next);
                assert!(!followed.ended);
                followed.next = Some(offset);
            }
            "exit" => {
                assert!(!followed.ended, "a second exit: {event}");
                followed.ended = true;
            }
            _ => {}
        }
    }
}

/// Whether a message is one that the published client takes: it drops one with a nil.
#[track_caller]
fn check(message: &Value) {
    fn no_nil(value: &Value) -> bool {
        match value {
            Value::Nil => false,
            Value::Array(items) => items.iter().all(no_nil),
            Value::Map(pairs) => pairs.iter().all(|(key, value)| no_nil(key) && no_nil(value)),
            _ => true,
        }
    }
    assert!(no_nil(message), "a nil: {message}");
    let names = keys(message);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a key twice: {message}");
    match text(message, "type") {
        "output" => assert!(matches!(message["data"], Value::Binary(_)), "{message}"),
        "exit" => {
            assert!(message["code"].is_i64(), "{message}");
            assert!(!has(message, "signal") || message["signal"].is_i64(), "{message}");
        }
        "error" => assert!(message["code"].is_str() && message["message"].is_str(), "{message}"),
        "handshake" => {
            assert_eq!(number(message, "protocol_version"), 1);
            assert!(message["daemon_version"].is_str() && message["daemon_pid"].is_u64());
        }
        "ok" => assert!(message["seq"].is_u64(), "{message}"),
        "backpressure_warning" => {
            assert!(["green", "yellow", "red"].contains(&text(message, "level")), "{message}");
            number(message, "queue_size");
        }
        "owner_changed" => assert!(!has(message, "owner") || message["owner"].is_str(), "{message}"),
        "resized" => assert!(number(message, "cols") > 0 && number(message, "rows") > 0),
        "resync" => assert!(message["snapshot"].is_map(), "{message}"),
        other => panic!("unknown type {other}"),
    }
}
