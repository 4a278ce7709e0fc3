//! Events become lines: the log, the event file, and castra 0.1's handshake file.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use castra_core::boundary::Remote;
use castra_core::event::{Escaped, Event, Fact, Failure, Level};
use castra_core::time::{Now, Time, WallTime};

use crate::work::Append;

/// Lines leave when this many bytes wait: a batch costs two switches between
/// threads, which some hundreds of lines share …
const BATCH_BYTES: usize = 64 * 1024;
/// … or when the oldest has waited this long.
const BATCH_DELAY: Duration = Duration::from_millis(50);
/// Lines waiting to be written, in bytes, before new ones are dropped and counted.
const BACKLOG_BYTES: usize = 8 * 1024 * 1024;

/// Lines on their way to the files. Nothing waits, nothing wakes.
#[derive(Debug)]
pub(crate) struct Sink {
    prefix: &'static str,
    lines: Append,
    due: Option<Time>,
    in_flight: usize,
    suppressed: u64,
    suppressed_in_all: u64,
    failing: bool,
    stamp: Stamp,
}

impl Sink {
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            lines: Append::default(),
            due: None,
            in_flight: 0,
            suppressed: 0,
            suppressed_in_all: 0,
            failing: false,
            stamp: Stamp::default(),
        }
    }

    /// Writes down an event.
    pub(crate) fn event(&mut self, now: Time, event: &Event) {
        if !self.admit(now) {
            return;
        }
        self.stamp.set(event.at);
        let stamp = self.stamp.text.as_str();
        let Append { log, events, handshakes } = &mut self.lines;
        for part in [stamp, " [", self.prefix, "] ", event.fact.level().as_str(), " "] {
            log.extend_from_slice(part.as_bytes());
        }
        event.append_line(log);
        log.push(b'\n');
        event.append_json(Some(stamp), events);
        events.push(b'\n');
        append_attempt(event, &self.stamp.seconds, handshakes);
    }

    /// Writes down what only the shell knows. `text` may hold anything.
    pub(crate) fn line(&mut self, now: Now, level: Level, text: &str) {
        if self.admit(now.boot) {
            self.put(now, level, text);
        }
    }

    /// What is to be written now: enough, old enough, or everything (`all`).
    pub(crate) fn take(&mut self, now: Time, all: bool) -> Option<Append> {
        let wanted = all || self.lines.len() >= BATCH_BYTES || self.due.is_some_and(|due| due <= now);
        if !wanted || self.lines.is_empty() {
            return None;
        }
        self.due = None;
        self.in_flight += self.lines.len();
        // The next batch is about as large.
        let room = |lines: &Vec<u8>| Vec::with_capacity(lines.len() + lines.len() / 8);
        let Append { log, events, handshakes } = &self.lines;
        let next = Append { log: room(log), events: room(events), handshakes: room(handshakes) };
        Some(std::mem::replace(&mut self.lines, next))
    }

    /// An append ended.
    pub(crate) fn appended(&mut self, now: Now, bytes: usize, error: Option<&str>) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        match error {
            Some(error) if !self.failing => {
                self.failing = true;
                self.line(now, Level::Error, &format!("storage failed what=log error=\"{error}\""));
            }
            None if self.failing => {
                self.failing = false;
                self.line(now, Level::Info, "storage recovered what=log");
            }
            Some(_) | None => {}
        }
        if self.suppressed > 0 && self.backlog() < BACKLOG_BYTES / 2 {
            let text = format!("{} lines suppressed: the log files could not keep up", self.suppressed);
            self.suppressed = 0;
            self.start(now.boot);
            self.put(now, Level::Warn, &text);
        }
    }

    /// When [`Sink::take`] has something.
    pub(crate) const fn due(&self) -> Option<Time> {
        self.due
    }

    /// Everything is on disk, or given up.
    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.lines.is_empty()
    }

    /// Lines dropped so far because the files could not keep up.
    pub(crate) const fn suppressed_in_all(&self) -> u64 {
        self.suppressed_in_all
    }

    const fn backlog(&self) -> usize {
        self.in_flight + self.lines.len()
    }

    fn admit(&mut self, now: Time) -> bool {
        if self.backlog() >= BACKLOG_BYTES {
            self.suppressed += 1;
            self.suppressed_in_all += 1;
            return false;
        }
        self.start(now);
        true
    }

    fn start(&mut self, now: Time) {
        if self.due.is_none() {
            self.due = Some(now + BATCH_DELAY);
        }
    }

    fn put(&mut self, now: Now, level: Level, text: &str) {
        self.stamp.set(now.wall);
        let stamp = &self.stamp.text;
        let _ = writeln!(self.lines.log, "{stamp} [{}] {level} {}", self.prefix, Printable(text));
    }
}

/// The shell's own text with quotes left alone and everything unprintable escaped.
struct Printable<'a>(&'a str);

impl std::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, part) in self.0.split('"').enumerate() {
            if index > 0 {
                f.write_char('"')?;
            }
            Escaped(part).fmt(f)?;
        }
        Ok(())
    }
}

/// The last time stamp written, as many lines share one.
#[derive(Debug, Default)]
struct Stamp {
    of: Option<WallTime>,
    text: String,
    /// The whole second since the Unix epoch.
    seconds: String,
}

impl Stamp {
    fn set(&mut self, at: WallTime) {
        let (second, millis) = split(at);
        match self.of.replace(at) {
            Some(before) if before == at => {}
            // Only its milliseconds are others: `…:17.042Z`.
            Some(before) if split(before).0 == second => {
                self.text.truncate(self.text.len().saturating_sub(4));
                for unit in [100, 10, 1] {
                    self.text.push(char::from(b'0' + (millis / unit % 10) as u8));
                }
                self.text.push('Z');
            }
            _ => {
                self.text.clear();
                self.seconds.clear();
                let _ = write!(self.text, "{at}");
                let _ = write!(self.seconds, "{}", at.unix_seconds());
            }
        }
    }
}

/// Seconds since the Unix epoch, and milliseconds.
const fn split(at: WallTime) -> (i64, i64) {
    (at.unix_millis().div_euclid(1000), at.unix_millis().rem_euclid(1000))
}

/// Appends a line of castra 0.1's `handshake-events.jsonl`, if the event makes
/// one; the order of the fields is part of the format. Nothing in it can need
/// escapes: names, capabilities and addresses were let in without.
fn append_attempt(event: &Event, seconds: &str, out: &mut Vec<u8>) {
    let (outcome, reason, remote, capabilities) = match &event.fact {
        Fact::HandshakeSuccess { remote, capabilities, .. } => ("granted", None, remote, capabilities),
        Fact::HandshakeFailure { reason, remote, capabilities, .. } => {
            let (outcome, word) = legacy_reason(*reason);
            (outcome, Some(word), remote, capabilities)
        }
        _ => return,
    };
    for part in ["{\"timestamp\":", seconds, ",\"vm\":\""] {
        out.extend_from_slice(part.as_bytes());
    }
    match &event.guest {
        Some(guest) => out.extend_from_slice(guest.as_bytes()),
        None => remote.append(out),
    }
    out.extend_from_slice(b"\",\"capabilities\":[");
    for (index, word) in capabilities.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",\"" } else { b"\"" });
        out.extend_from_slice(word.as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b"],\"session_kind\":\"guest\",\"session_outcome\":\"");
    out.extend_from_slice(outcome.as_bytes());
    if let Some(reason) = reason {
        out.extend_from_slice(b"\",\"reason\":\"");
        out.extend_from_slice(reason.as_bytes());
    }
    if *remote != Remote::Unknown {
        out.extend_from_slice(b"\",\"remote_addr\":\"");
        remote.append(out);
    }
    out.extend_from_slice(b"\"}\n");
}

/// The nearest of castra 0.1's words.
const fn legacy_reason(failure: Failure) -> (&'static str, &'static str) {
    match failure {
        Failure::Timeout => ("timeout", "read-timeout"),
        Failure::BadLine | Failure::BadName => ("denied", "protocol-error"),
        // The name is not this guest's to take.
        Failure::UnknownName | Failure::TokenRequired | Failure::BadProof | Failure::NameInUse => {
            ("denied", "reserved-identity")
        }
        Failure::Busy | Failure::Disconnected | Failure::Evicted | Failure::Shutdown => {
            ("denied", "io-error")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::boundary::Transport;
    use castra_core::capabilities::Capabilities;
    use castra_core::event::Cursor;
    use castra_core::id::Epoch;

    fn now(millis: u64) -> Now {
        Now {
            boot: Time::from_millis(millis),
            suspended: Duration::ZERO,
            wall: WallTime::from_unix_millis(1_795_188_257_042),
        }
    }

    fn event(guest: Option<&str>, fact: Fact) -> Event {
        Event {
            cursor: Cursor { incarnation: 7, number: 1 },
            at: now(0).wall,
            guest: guest.map(|name| name.parse().expect("a name")),
            fact,
        }
    }

    fn remote() -> Remote {
        Remote::Ip("127.0.0.1:51234".parse().expect("an address"))
    }

    #[test]
    fn an_event_becomes_a_line_in_each_file() {
        let mut sink = Sink::new("host-broker");
        sink.event(
            Time::ZERO,
            &event(
                Some("devbox"),
                Fact::HandshakeSuccess {
                    epoch: Epoch::new(7, 1),
                    transport: Transport::Tcp,
                    remote: remote(),
                    capabilities: Capabilities::parse("proof-v1,metrics"),
                    proven: true,
                    authenticated: false,
                    once: false,
                },
            ),
        );
        let lines = sink.take(Time::ZERO, true).expect("lines");
        let log = String::from_utf8(lines.log).expect("text");
        assert!(
            log.starts_with(
                "2026-11-20T15:24:17.042Z [host-broker] INFO hello from vm:devbox session=sess-7-1 "
            ),
            "{log}"
        );
        assert!(log.ends_with('\n') && log.lines().count() == 1);
        let events = String::from_utf8(lines.events).expect("text");
        let read: Event = serde_json::from_str(&events).expect("the event again");
        assert_eq!(read.cursor.number, 1);
        assert_eq!(
            String::from_utf8(lines.handshakes).expect("text"),
            "{\"timestamp\":1795188257,\"vm\":\"devbox\",\"capabilities\":[\"metrics\",\"proof-v1\"],\
             \"session_kind\":\"guest\",\"session_outcome\":\"granted\",\"remote_addr\":\"127.0.0.1:51234\"}\n"
        );
    }

    #[test]
    fn an_attempt_without_a_name_carries_its_address_as_castra_0_1_did() {
        let failure = event(
            None,
            Fact::HandshakeFailure {
                reason: Failure::Timeout,
                transport: Transport::Tcp,
                remote: remote(),
                capabilities: Capabilities::default(),
            },
        );
        let mut line = Vec::new();
        append_attempt(&failure, "1795188257", &mut line);
        assert_eq!(
            String::from_utf8(line).expect("text"),
            "{\"timestamp\":1795188257,\"vm\":\"127.0.0.1:51234\",\"capabilities\":[],\"session_kind\":\"guest\",\
             \"session_outcome\":\"timeout\",\"reason\":\"read-timeout\",\"remote_addr\":\"127.0.0.1:51234\"}\n"
        );
    }

    #[test]
    fn a_stamp_is_the_time_as_it_is_shown_whatever_came_before() {
        let mut stamp = Stamp::default();
        let steps = [0, 1, 9, 10, 999, 1000, 1001, 999, -1, -2, -1000, 61_000, 1_795_188_257_042, 60_999];
        for millis in steps.into_iter().chain(1_795_188_256_990..1_795_188_258_110) {
            let at = WallTime::from_unix_millis(millis);
            stamp.set(at);
            assert_eq!(
                (stamp.text.as_str(), stamp.seconds.as_str()),
                (at.to_string().as_str(), at.unix_seconds().to_string().as_str())
            );
        }
    }

    #[test]
    fn lines_leave_by_age_or_size_and_nothing_waits_otherwise() {
        let mut sink = Sink::new("host-broker");
        assert_eq!(sink.due(), None);
        sink.line(now(100), Level::Info, "first");
        sink.line(now(120), Level::Info, "second");
        assert_eq!(sink.due(), Some(Time::from_millis(150)));
        assert!(sink.take(Time::from_millis(149), false).is_none());
        let lines = sink.take(Time::from_millis(150), false).expect("old enough");
        assert_eq!(lines.log.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(sink.due(), None);
        assert!(!sink.is_idle());
        sink.appended(now(151), lines.len(), None);
        assert!(sink.is_idle());

        while sink.take(Time::from_millis(200), false).is_none() {
            sink.line(now(200), Level::Info, &"x".repeat(100));
        }
        assert_eq!(sink.due(), None);
    }

    #[test]
    fn lines_that_the_disk_cannot_follow_are_counted_not_kept() {
        let mut sink = Sink::new("host-broker");
        let text = "x".repeat(1000);
        let mut taken = Vec::new();
        for _ in 0..20_000 {
            sink.line(now(1), Level::Info, &text);
            taken.extend(sink.take(Time::from_millis(1), false).map(|lines| lines.len()));
        }
        assert!(sink.suppressed_in_all() > 10_000);
        assert!(sink.backlog() < BACKLOG_BYTES + BATCH_BYTES);
        for bytes in taken {
            sink.appended(now(2), bytes, None);
        }
        let lines = sink.take(Time::from_millis(2), true).expect("the last ones");
        let log = String::from_utf8(lines.log).expect("text");
        assert!(
            log.contains(&format!("WARN {} lines suppressed", sink.suppressed_in_all())),
            "{}",
            &log[log.len() - 200..]
        );
    }

    #[test]
    fn the_shells_own_text_cannot_forge_a_line() {
        let mut sink = Sink::new("host-broker");
        sink.line(now(1), Level::Warn, "accept failed: \"a\nb\u{1b}\"");
        let log = String::from_utf8(sink.take(Time::ZERO, true).expect("lines").log).expect("text");
        assert_eq!(log.lines().count(), 1);
        assert!(log.contains("\"a\\u{a}b\\u{1b}\""), "{log}");
    }
}
