//! `castra peer send`: a text, and what became of it.

use std::io::Read;

use castra_core::control::reply::MessageResult;
use castra_core::id::GuestName;
use castra_core::peers::{self, KEY_MAX, TEXT_MAX};
use serde_json::json;

use super::advice::About;
use super::{TIMEOUT, ask, insert};
use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};
use crate::peer_args::Send;

pub(super) fn send(cx: &mut Context, args: &Send) -> Outcome {
    let (from, to, text) = match &args.words[..] {
        [from, to, text] => (Some(name(from)?), name(to)?, text),
        [to, text] => (None, name(to)?, text),
        _ => {
            return Err(Failure::usage(
                "say who sends, to whom, and what: castra peer send FROM TO TEXT; inside a guest TO TEXT; quote the text",
            ));
        }
    };
    if args.key.as_ref().is_some_and(|key| key.chars().count() > KEY_MAX) {
        return Err(Failure::usage(format!("a key has at most {KEY_MAX} characters")));
    }
    let text = if text == "-" { read(std::io::stdin().lock())? } else { text.clone() };
    if text.len() > TEXT_MAX {
        return Err(too_long(format_args!("this one has {}", text.len())));
    }
    let mut params = json!({"to": to, "text": text, "wake": !args.no_wake, "queue": !args.no_queue});
    insert(&mut params, "from", from);
    if let Some(key) = &args.key {
        params["key"] = json!(key);
    }
    let reply = ask(cx, "send_to_peer", params, TIMEOUT, &About { own: from, other: Some(to) })?;
    let result: MessageResult = reply.parse()?;
    if args.format.json {
        cx.out.json(reply.data.get())?;
    } else {
        cx.out.line(&format!("{} {}", result.id, result.outcome))?;
    }
    let reason =
        result.reason.as_deref().map_or_else(String::new, |reason| format!(" ({})", printable(reason)));
    Ok(match result.outcome {
        peers::Outcome::Delivered => Exit::Yes,
        peers::Outcome::Queued => {
            if !args.format.json {
                let host = from.map_or_else(String::new, |from| format!(" {from}"));
                say(format_args!(
                    "{to} did not take it yet{reason}: it waits, and `castra peers{host}` shows it"
                ));
            }
            Exit::Yes
        }
        peers::Outcome::Rejected => {
            say(format_args!(
                "{to} would not have it{reason}: it may want senders that are proven with a key; `castra token \
                 issue` gives this guest one"
            ));
            Exit::Refused
        }
        _ => {
            say(format_args!(
                "it will not be delivered{reason}: send it anew, without --no-queue if it may wait"
            ));
            Exit::No
        }
    })
}

fn name(word: &str) -> Result<GuestName, Failure> {
    word.parse().map_err(|error| Failure::usage(format!("{}: {error}", printable(word))))
}

/// A text from a stream, without its last line's end. More than fits is not read.
fn read(stream: impl Read) -> Result<String, Failure> {
    let mut bytes = vec![];
    // One more for the line's end, one more to see that there is too much.
    stream
        .take(TEXT_MAX as u64 + 2)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("can't read standard input", &error))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > TEXT_MAX {
        return Err(too_long(format_args!("standard input has more")));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is not UTF-8: a message is a text"))
}

fn too_long(found: std::fmt::Arguments<'_>) -> Failure {
    Failure::usage(format!(
        "a message has at most {TEXT_MAX} bytes, and {found}: send it in parts, or say where it is"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_up_to_the_bound_and_without_its_last_end() {
        assert_eq!(read(&b"one\ntwo\n"[..]).unwrap(), "one\ntwo");
        assert_eq!(read(&b"\n\n"[..]).unwrap(), "\n");
        assert_eq!(read(&b""[..]).unwrap(), "");
        let longest = "x".repeat(TEXT_MAX);
        assert_eq!(read(longest.as_bytes()).unwrap(), longest);
        assert_eq!(read(format!("{longest}\n").as_bytes()).unwrap(), longest);
        for over in [format!("{longest}x"), format!("{longest}\n\n"), longest.repeat(9)] {
            let failure = read(over.as_bytes()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains("at most 32768 bytes"), "{failure}");
        }
        assert_eq!(read(&b"\xff"[..]).unwrap_err().exit, Exit::Usage);
    }
}
