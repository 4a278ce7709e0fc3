//! Reads the `vector` blocks of a Markdown text.

use std::cell::RefCell;

/// One block.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) kind: String,
    fields: Vec<(String, String)>,
    used: RefCell<Vec<String>>,
}

/// All blocks, in order.
pub(crate) fn vectors(text: &str) -> Vec<Vector> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```vector") else { continue };
        let mut name = None;
        let mut kind = None;
        for word in info.split_whitespace() {
            match word.split_once('=') {
                Some(("name", value)) => name = Some(value.to_owned()),
                Some(("kind", value)) => kind = Some(value.to_owned()),
                _ => panic!("{line:?}: what is {word:?}?"),
            }
        }
        let fields = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .map(|line| {
                let (key, value) = line
                    .split_once(" = ")
                    .or_else(|| Some((line.strip_suffix(" =")?, "")))
                    .unwrap_or_else(|| panic!("no key = value: {line:?}"));
                (key.to_owned(), value.to_owned())
            })
            .collect();
        let (Some(name), Some(kind)) = (name, kind) else { panic!("{line:?} needs a name and a kind") };
        found.push(Vector { name, kind, fields, used: RefCell::default() });
    }
    found
}

impl Vector {
    /// A value as it stands.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.used.borrow_mut().push(key.to_owned());
        let mut values = self.fields.iter().filter(|(name, _)| name == key).map(|(_, value)| value);
        let value = values.next().unwrap_or_else(|| panic!("{} has no {key:?}", self.name));
        assert!(values.next().is_none(), "{} has {key:?} twice", self.name);
        value
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.iter().any(|(name, _)| name == key)
    }

    /// A value, or `None` for `-`.
    pub(crate) fn optional(&self, key: &str) -> Option<&str> {
        Some(self.text(key)).filter(|value| *value != "-")
    }

    pub(crate) fn is(&self, key: &str) -> bool {
        match self.text(key) {
            "yes" => true,
            "no" => false,
            other => panic!("{}: {key:?} is {other:?}, not yes or no", self.name),
        }
    }

    pub(crate) fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or_else(|_| panic!("{}: {key:?} is no number", self.name))
    }

    /// A value parsed by its type.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, key: &str) -> T {
        self.text(key).parse().unwrap_or_else(|_| panic!("{}: {key:?} can't be read", self.name))
    }

    /// A value with `\n`, `\r`, `\t`, `\\` and `\xHH` replaced.
    pub(crate) fn line(&self, key: &str) -> Vec<u8> {
        let mut bytes = self.text(key).bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            out.push(match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                    hex(std::str::from_utf8(&digits).expect("hex is text"))[0]
                }
                other => panic!("{}: escape {other:?}", self.name),
            });
        }
        out
    }

    /// Hex, with text between single quotes standing for itself.
    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, part) in self.text(key).split('\'').enumerate() {
            if index % 2 == 0 { out.extend(hex(part)) } else { out.extend(part.bytes()) }
        }
        out
    }

    /// Keys that no check asked for.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        self.fields.iter().map(|(key, _)| key.as_str()).filter(|key| !used.iter().any(|u| u == key)).collect()
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.is_ascii() && digits.len().is_multiple_of(2), "no hex: {text:?}");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|_| panic!("no hex: {text:?}")))
        .collect()
}
