//! The one step that everything goes through on its way into a bundle: what looks like a
//! secret is replaced, and what is known to be one.
//!
//! Errs on the side of too much: a bundle is for strangers.

/// What stands in a secret's place.
pub(super) const MARK: &str = "[redacted]";

/// Shorter ones would be found in ordinary words: a variable may be called a token and be `true`.
const KNOWN_LEAST: usize = 8;

/// Keys and nonces have 64 and 32 hex digits.
const HEX_LEAST: usize = 32;

/// Tokens of others, in base64 or the like.
const RANDOM_LEAST: usize = 40;

/// What comes behind such a word and `=`, `:` or a space (of a flag) is a secret.
const KEYS: [&str; 14] = [
    "token",
    "password",
    "passwd",
    "passcode",
    "passphrase",
    "secret",
    "apikey",
    "api_key",
    "private_key",
    "attach_code",
    "credential",
    "authorization",
    "cookie",
    "bearer",
];

/// Values that say nothing.
const PLAIN: [&str; 9] = ["true", "false", "null", "none", "yes", "no", "-", "bearer", "basic"];

/// What is known to be a secret, beside what looks like one.
pub(super) struct Redaction {
    /// The longest first, so that none is cut by a shorter one.
    known: Vec<String>,
    /// How many were replaced.
    count: std::cell::Cell<u64>,
}

impl Redaction {
    pub(super) fn new(mut known: Vec<String>) -> Self {
        // A command of several lines may be quoted by the line.
        let lines: Vec<String> = known.iter().flat_map(|secret| secret.lines()).map(str::to_owned).collect();
        known.extend(lines);
        known.retain(|secret| secret.trim().len() >= KNOWN_LEAST);
        // As JSON writes them, too.
        let escaped: Vec<String> =
            known.iter().map(|secret| serde_json::Value::from(secret.as_str()).to_string()).collect();
        known.extend(escaped.iter().map(|text| text[1..text.len() - 1].to_owned()));
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        Self { known, count: std::cell::Cell::new(0) }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    /// The text without secrets, line by line.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut whole = text.to_owned();
        for secret in &self.known {
            let found = whole.matches(secret.as_str()).count();
            if found > 0 {
                self.counted(found);
                whole = whole.replace(secret.as_str(), MARK);
            }
        }
        let lines: Vec<String> = whole.split('\n').map(|line| self.line(line)).collect();
        lines.join("\n")
    }

    fn counted(&self, more: usize) {
        self.count.set(self.count.get() + more as u64);
    }

    fn line(&self, line: &str) -> String {
        let line = self.without(line, userinfo);
        let line = self.without(&line, value_of_key);
        self.without(&line, random)
    }

    /// Replaces what `find` finds, from left to right.
    fn without(&self, line: &str, find: fn(&str, usize) -> Option<(usize, usize)>) -> String {
        let (mut clean, mut at) = (String::with_capacity(line.len()), 0);
        while let Some((start, end)) = find(line, at) {
            clean.push_str(&line[at..start]);
            clean.push_str(MARK);
            at = end;
            self.counted(1);
        }
        clean.push_str(&line[at..]);
        clean
    }
}

/// `USER:PASSWORD` in `scheme://USER:PASSWORD@host`.
fn userinfo(line: &str, from: usize) -> Option<(usize, usize)> {
    let mut from = from;
    loop {
        let start = line[from..].find("://")? + from + 3;
        let ends = |character: char| character.is_whitespace() || "/?#\"'<>`\\,".contains(character);
        let end = line[start..].find(ends).map_or(line.len(), |length| start + length);
        match line[start..end].rfind('@') {
            Some(length) if &line[start..start + length] != MARK => return Some((start, start + length)),
            _ => from = end,
        }
    }
}

/// `VALUE` in `password=VALUE`, `"password":"VALUE"`, `Password: VALUE`, `--password VALUE`, `Bearer VALUE`.
fn value_of_key(line: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = line.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        let key = line[start..at].to_lowercase().replace('-', "_");
        let singular = key.strip_suffix('s').unwrap_or(&key);
        if !KEYS.iter().any(|word| key.ends_with(word) || singular.ends_with(word)) {
            continue;
        }
        let flag = line[start..].starts_with("--") || key == "bearer";
        if let Some(found) = value(line, at, flag) {
            return Some(found);
        }
    }
    None
}

fn value(line: &str, behind_key: usize, flag: bool) -> Option<(usize, usize)> {
    let bytes = line.as_bytes();
    let skip = |mut at: usize, set: &[u8]| {
        while at < bytes.len() && set.contains(&bytes[at]) {
            at += 1;
        }
        at
    };
    let assigned = skip(skip(behind_key, b"\\\"' "), b":=");
    let separated = assigned > behind_key
        && line[behind_key..assigned].contains([':', '='])
        && !line[behind_key..assigned].contains("::");
    let (behind, before): (usize, &[u8]) = match (separated, flag) {
        (true, _) => (assigned, b" ["),
        (false, true) => (behind_key, b" "),
        (false, false) => return None,
    };
    if line[behind..].trim_start_matches([' ', '\\', '"', '\'']).starts_with(MARK) {
        return None;
    }
    let start = skip(behind, before);
    // Quotes that are themselves quoted: JSON in JSON.
    let opened = skip(start, b"\\");
    let quote = bytes.get(opened).copied().filter(|byte| b"\"'".contains(byte));
    let (start, end) = match quote {
        Some(quote) => (opened + 1, closed(bytes, opened + 1, quote, opened - start)),
        None => {
            let ends = |character: char| character.is_whitespace() || ",;&}])\"'".contains(character);
            (start, line[start..].find(ends).map_or(line.len(), |length| start + length))
        }
    };
    let (start, end) = scheme(line, start, end, quote.is_some());
    let word = line.get(start..end)?;
    let plain = word.is_empty()
        || PLAIN.contains(&word.to_lowercase().as_str())
        || word.bytes().all(|byte| byte.is_ascii_digit()) && word.len() < 6;
    (!plain).then_some((start, end))
}

/// Where the text ends that began at `start`, behind a quote with `level` backslashes before it.
fn closed(bytes: &[u8], start: usize, quote: u8, level: usize) -> usize {
    for at in (start..bytes.len()).filter(|&at| bytes[at] == quote) {
        let before = bytes[start..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        let closes = if level == 0 { before % 2 == 0 } else { before <= level };
        if closes {
            return if level == 0 { at } else { at - before };
        }
    }
    bytes.len()
}

/// `Authorization: Bearer VALUE` has its value behind the scheme.
fn scheme(line: &str, start: usize, end: usize, quoted: bool) -> (usize, usize) {
    let word = line.get(start..end).unwrap_or_default().to_lowercase();
    if quoted || !["bearer", "basic", "digest"].contains(&word.as_str()) {
        return (start, end);
    }
    let next = line[end..].find(|character: char| character != ' ').map_or(line.len(), |length| end + length);
    let ends = |character: char| character.is_whitespace() || ",;\"'".contains(character);
    (next, line[next..].find(ends).map_or(line.len(), |length| next + length))
}

/// A long run of hex digits, or of what tokens are made of.
fn random(line: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = line.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && (is_word(bytes[at]) || b"+=".contains(&bytes[at])) {
            at += 1;
        }
        let word = &line[start..at];
        if word.len() >= RANDOM_LEAST && looks_random(word) {
            return Some((start, at));
        }
        // Ids of messages are no secrets, and are what a report is about.
        if word.starts_with("msg-") {
            continue;
        }
        if let Some((begin, length)) = longest_hex(word)
            && length >= HEX_LEAST
        {
            return Some((start + begin, start + begin + length));
        }
    }
    None
}

fn longest_hex(word: &str) -> Option<(usize, usize)> {
    let mut found = None;
    let mut start = 0;
    for run in word.split_inclusive(|character: char| !character.is_ascii_hexdigit()) {
        let length = run.trim_end_matches(|character: char| !character.is_ascii_hexdigit()).len();
        if found.is_none_or(|(_, most)| length > most) {
            found = Some((start, length));
        }
        start += run.len();
    }
    found
}

fn looks_random(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase)
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> String {
        let known = ["hunter2 \"quoted\"", "true", "#!/bin/sh\nexec start --with words\n"];
        Redaction::new(known.map(str::to_owned).into()).clean(text)
    }

    #[test]
    fn what_looks_like_a_secret_is_replaced() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, expected) in [
            (format!("key {hex} end"), "key [redacted] end"),
            (format!("{{\"x\":\"{hex}\"}}"), "{\"x\":\"[redacted]\"}"),
            (format!("state.redb.{hex}"), "state.redb.[redacted]"),
            ("GET https://user:pw@host/x".into(), "GET https://[redacted]@host/x"),
            ("a://u@h b://u:p@h".into(), "a://[redacted]@h b://[redacted]@h"),
            ("Authorization: Bearer abcd.efgh".into(), "Authorization: Bearer [redacted]"),
            ("used bearer s3cr3t-word".into(), "used bearer [redacted]"),
            ("password=pw,next=1".into(), "password=[redacted],next=1"),
            ("Password: pw".into(), "Password: [redacted]"),
            ("--manager-token pw --x y".into(), "--manager-token [redacted] --x y"),
            ("PRIVATE_BEACH_SESSION_PASSCODE='a b'".into(), "PRIVATE_BEACH_SESSION_PASSCODE='[redacted]'"),
            (r#"{"controller_token":"a\"b","n":1}"#.into(), r#"{"controller_token":"[redacted]","n":1}"#),
            (
                r#"{"text":"{\"attach_code\":\"C-42\"}"}"#.into(),
                r#"{"text":"{\"attach_code\":\"[redacted]\"}"}"#,
            ),
            ("ghp_AAAAbbbb1111CCCCdddd2222EEEEffff3333GGGG".into(), "[redacted]"),
        ] {
            assert_eq!(clean(&text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_known_is_replaced_also_as_json_writes_it() {
        assert_eq!(clean("say hunter2 \"quoted\"!"), "say [redacted]!");
        assert_eq!(clean(r#"{"x":"hunter2 \"quoted\""}"#), r#"{"x":"[redacted]"}"#);
        assert_eq!(clean("sh: exec start --with words: not found"), "sh: [redacted]: not found");
        assert_eq!(clean(r#"{"ready":true}"#), r#"{"ready":true}"#, "too short to be told from a word");
    }

    #[test]
    fn what_a_report_is_about_stays() {
        for text in [
            "2026-01-02T03:04:05.678Z [host-broker] INFO token issued vm=devbox",
            "2026-01-02T03:04:05.678Z [host-broker] WARN handshake failed vm=devbox reason=token_required",
            r#"{"require_token":false,"config":{"only_known":true},"name":"require-token"}"#,
            r#"{"kind":"peer.message.sent","id":"msg-00112233445566778899aabbccddeeff","to":"b"}"#,
            r#"{"error":{"code":"unknown_guest"},"boot":"00112233","remote":"127.0.0.1:51234"}"#,
            "http://127.0.0.1:7080/ and tcp:127.0.0.1:7070",
            "SETTING   VALUE   FROM",
        ] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn no_text_makes_it_fail() {
        let parts =
            ["token", "=", "\"", "\\", "é", ":", " ", "://", "@", "--password", "[", "Bearer", "\n", "'"];
        // Every sequence of three, and each with itself again.
        for one in parts {
            for two in parts {
                for three in parts {
                    let text = format!("{one}{two}{three}{two}{one}");
                    assert_eq!(clean(&text).lines().count(), text.lines().count(), "{text:?}");
                }
            }
        }
    }
}
