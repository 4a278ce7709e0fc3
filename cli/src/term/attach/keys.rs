//! The keys that are not for the program: Ctrl-\ and then d detaches.

/// Ctrl-\ as a terminal ordinarily sends it.
const PREFIX: u8 = 0x1c;

/// What a person typed, as the program gets it, and whether that was all.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What came as the prefix, while nobody knows what follows it.
    held: Option<Vec<u8>>,
}

/// One key, or a byte that needs no look.
#[derive(PartialEq, Eq, Debug)]
enum Key {
    Prefix,
    Detach,
    /// A modifier, or a key that is let go: the prefix still waits for the next.
    Silent,
    Other,
}

impl Keys {
    /// Takes what came from the terminal and appends to `program` what is for
    /// the program. True: detach; the rest is dropped.
    pub(super) fn feed(&mut self, mut typed: &[u8], program: &mut Vec<u8>) -> bool {
        while let Some((key, length)) = next(typed) {
            let (bytes, rest) = typed.split_at(length);
            typed = rest;
            match (self.held.take(), key) {
                (None, Key::Prefix) => self.held = Some(bytes.to_vec()),
                (None, _) => program.extend_from_slice(bytes),
                (Some(_), Key::Detach) => return true,
                (Some(held), Key::Prefix) => program.extend_from_slice(&held),
                (Some(held), Key::Silent) => self.held = Some(held),
                (Some(held), Key::Other) => {
                    program.extend_from_slice(&held);
                    program.extend_from_slice(bytes);
                }
            }
        }
        false
    }
}

/// The first key and how many bytes it has. Programs may ask the terminal to
/// send keys as sequences (kitty's `CSI number ; modifiers u` and xterm's
/// `CSI 27 ; modifiers ; number ~`); whatever is neither goes byte by byte.
fn next(typed: &[u8]) -> Option<(Key, usize)> {
    let key = match typed.first()? {
        &PREFIX => Key::Prefix,
        b'd' => Key::Detach,
        0x1b => return Some(sequence(typed).unwrap_or((Key::Other, 1))),
        _ => Key::Other,
    };
    Some((key, 1))
}

fn sequence(typed: &[u8]) -> Option<(Key, usize)> {
    let body = typed.strip_prefix(b"\x1b[")?;
    let length = body.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    let text = std::str::from_utf8(&body[..length]).ok()?;
    let mut parameters = text.split(';');
    let mut number = || -> Option<(u32, Option<u32>)> {
        let mut parts = parameters.next()?.split(':');
        let first = parts.next()?.parse().ok()?;
        Some((first, parts.next().and_then(|part| part.parse().ok())))
    };
    let (code, modifiers, kind) = match body[length] {
        b'u' => {
            let (code, _) = number()?;
            let (modifiers, kind) = number().unwrap_or((1, None));
            (code, modifiers, kind)
        }
        b'~' if number()?.0 == 27 => {
            let (modifiers, _) = number()?;
            (number()?.0, modifiers, None)
        }
        _ => return None,
    };
    // Shift, alt, control, super, hyper, meta; caps lock and num lock don't count.
    let held = modifiers.checked_sub(1)? & 0b11_1111;
    let key = match (code, held, kind) {
        // Of a release; or one of the modifiers' own keys.
        (_, _, Some(3)) | (57_441..=57_454, ..) => Key::Silent,
        (92, 4, _) | (28, 0, _) => Key::Prefix,
        (100, 0, _) => Key::Detach,
        _ => Key::Other,
    };
    Some((key, 2 + length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut keys, mut program) = (Keys::default(), vec![]);
        for chunk in chunks {
            if keys.feed(chunk, &mut program) {
                return (program, true);
            }
        }
        (program, false)
    }

    #[test]
    fn the_prefix_and_d_detach_also_when_they_come_apart() {
        assert_eq!(typed(&[b"ls\r\x1cdrest"]), (b"ls\r".to_vec(), true));
        assert_eq!(typed(&[b"\x1c", b"d"]), (vec![], true));
        assert_eq!(typed(&[b"d\x1c"]), (b"d".to_vec(), false));
    }

    #[test]
    fn the_prefix_twice_is_one_for_the_program_and_before_another_key_both_go_through() {
        assert_eq!(typed(&[b"\x1c\x1cd"]), (b"\x1cd".to_vec(), false));
        assert_eq!(typed(&[b"\x1c\x1c\x1c", b"d"]), (b"\x1c".to_vec(), true));
        assert_eq!(typed(&[b"\x1cx\x1c", b"\x1b[A"]), (b"\x1cx\x1c\x1b[A".to_vec(), false));
        assert_eq!(typed(&[b"\x1c\x03"]), (b"\x1c\x03".to_vec(), false), "Ctrl-C is the program's");
    }

    #[test]
    fn keys_that_are_sent_as_sequences_detach_too() {
        // Kitty's, with and without kinds of events; xterm's; with caps lock.
        for (prefix, d) in [
            ("\x1b[92;5u", "d"),
            ("\x1b[92;5u", "\x1b[100u"),
            ("\x1b[92;5:1u\x1b[92;5:3u\x1b[57442;5:3u", "\x1b[100;1:1u"),
            ("\x1b[92:124;69u", "d"),
            ("\x1b[27;5;92~", "d"),
        ] {
            let (program, detached) = typed(&[prefix.as_bytes(), d.as_bytes()]);
            assert!(detached && program.is_empty(), "{prefix:?} {d:?}");
        }
        assert_eq!(typed(&[b"\x1b[92;5u\x1b[92;5u"]), (b"\x1b[92;5u".to_vec(), false));
    }

    #[test]
    fn every_other_byte_and_sequence_goes_through_as_it_came() {
        let all: Vec<u8> = (0..=255).filter(|byte| *byte != PREFIX).collect();
        assert_eq!(typed(&[&all]), (all.clone(), false));
        for other in [
            "\x1b",
            "\x1b[",
            "\x1b[92;6u",
            "\x1b[92",
            "\x1b[<0;1;1M",
            "\x1b[200~a\x1b[201~",
            "\x1b[;u",
            "\x1bOA",
        ] {
            assert_eq!(typed(&[other.as_bytes()]), (other.as_bytes().to_vec(), false), "{other:?}");
        }
        assert_eq!(typed(&[b"\x1b", b"d"]), (b"\x1bd".to_vec(), false));
    }
}
