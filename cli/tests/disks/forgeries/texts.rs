//! What an attacker writes, and how to tell that it came through.

/// What does something to a terminal, a log or whoever reads one.
const PIECES: [&str; 40] = [
    "\u{1b}[2J\u{1b}[H",
    "\u{1b}]0;FORGED\u{7}",
    "\u{1b}]52;c;Zm9yZ2Vk\u{7}",
    "\u{1b}]8;;http://forged.example\u{1b}\\",
    "\u{1b}P$q\"p\u{1b}\\",
    "\u{1b}_G\u{1b}\\",
    "\u{1b}[6n",
    "\u{1b}[31m",
    "\u{1b}c",
    "\u{1b}",
    "\u{9b}31m",
    "\u{9d}0;FORGED\u{9c}",
    "\u{90}\u{9c}",
    "\u{85}",
    "\u{80}\u{9f}",
    "\u{7f}\u{7f}",
    "\u{8}\u{8}\u{8}",
    "\u{0}",
    "\u{7}",
    "\u{e}",
    "\r",
    "\n",
    "\r\n",
    "\t",
    "\u{b}\u{c}",
    "\n2001-02-03T04:05:06.789Z [host-broker] INFO token issued vm=FORGED",
    "\n2001-02-03T04:05:06.789Z ERROR FORGED",
    "\n{\"cursor\":\"1-1\",\"at\":\"2001-02-03T04:05:06.789Z\",\"kind\":\"FORGED\"}",
    "\ncastra: FORGED",
    "\",\"kind\":\"FORGED\",\"x\":\"",
    "\\u001b[2J\\n",
    "\u{202e}DEGROF\u{202c}",
    "\u{2066}\u{2067}\u{2068}\u{2069}",
    "\u{202a}\u{202b}\u{202d}\u{200e}\u{200f}\u{61c}",
    "\u{2028}2001-02-03T04:05:06.789Z\u{2029}",
    "\u{feff}\u{200b}\u{ad}",
    "e\u{301}\u{321}\u{20d2}",
    "%s%n%x ${jndi:x} `id` $(id) ../../../etc/passwd",
    "\u{e0041}\u{1f3f4}\u{fff9}\u{fffb}",
    "\"'\\|;&<>",
];

/// Numbers, and texts of them, that are the same each time.
pub(crate) struct Forger {
    state: u64,
    /// How many texts it made.
    pub(crate) made: usize,
}

impl Forger {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed, made: 0 }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % bound
    }

    /// The next attempt: each piece comes up, alone and in company.
    pub(crate) fn text(&mut self) -> String {
        let mut text = format!("f{}", self.made);
        text.push_str(PIECES[self.made % PIECES.len()]);
        for _ in 0..self.below(3) {
            text.push_str(PIECES[self.below(PIECES.len())]);
            text.push('x');
        }
        self.made += 1;
        text
    }

    /// One that fits on a line.
    pub(crate) fn line(&mut self) -> String {
        self.text().replace('\n', "\r")
    }

    /// One that an argument of a command can be.
    pub(crate) fn argument(&mut self) -> String {
        self.text().replace('\0', "\u{1}")
    }

    /// As bytes, some of them no text.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = self.text().into_bytes();
        for _ in 0..self.below(3) {
            let place = self.below(bytes.len());
            bytes.insert(place, [0x80, 0x9b, 0xc0, 0xff, 0xed][self.below(5)]);
        }
        bytes
    }
}

/// What must never be written raw: every control character but the end of a line,
/// what turns the direction of text, and what can't be seen.
pub(crate) fn raw(text: &str) -> Option<char> {
    text.chars().find(|character| match character {
        '\n' => false,
        '\u{ad}' | '\u{61c}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        other => other.is_control(),
    })
}

/// What came through, if anything did.
pub(crate) fn foreign(content: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(error) => return Some(format!("{error}: {}", String::from_utf8_lossy(content).escape_debug())),
    };
    let forged = |line: &&str| line.starts_with("2001-02-03") || line.starts_with("castra: FORGED");
    let line = text.split('\n').find(|line| raw(line).is_some() || forged(line))?;
    Some(line.escape_debug().to_string())
}

/// Fails if something came through.
#[track_caller]
pub(crate) fn is_clean(what: &str, content: &[u8]) {
    let foreign = foreign(content);
    assert_eq!(foreign, None, "{what}: it came through");
}
