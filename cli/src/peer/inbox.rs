//! `castra inbox`: what a guest was sent.

use std::os::fd::AsFd;

use castra_core::control::reply::{Inbox, InboxMessage};
use castra_core::event::Escaped;
use serde_json::json;

use super::advice::{About, failure};
use super::{insert, open};
use crate::Context;
use crate::client::{ClientError, Reply, next};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::peer_args::Inbox as Args;

/// `castra inbox`.
pub(crate) fn inbox(cx: &mut Context, args: &Args) -> Outcome {
    let about = About { own: args.name, other: None };
    let mut params = json!({"follow": args.follow});
    insert(&mut params, "name", args.name);
    if let Some(after) = args.after {
        params["after"] = json!(after);
    }
    if let Some(limit) = args.limit {
        params["limit"] = json!(limit);
    }
    let (mut client, first) = open(cx, "inbox", params, &about)?;
    let shown = show(cx, &first, args.format.json)?;
    if shown == 0 && !args.follow && !args.format.json {
        say("no messages");
    }
    while args.follow && !cx.out.gone() {
        let stdout = std::io::stdout();
        let line = match next(&mut client, stdout.as_fd()) {
            Ok(line) => line,
            Err(ClientError::Closed { .. }) => {
                let text = "the stream ended: the broker or agent stopped, or this reader was too slow; \
                            --after ID goes on behind the last message that was shown";
                return Err(Failure::new(Exit::Offline, text));
            }
            Err(refused @ ClientError::Refused(_)) => return Err(failure(refused, "inbox", &about)),
            Err(other) => return Err(other.into()),
        };
        match line {
            None => break,
            Some(reply) => {
                show(cx, &reply, args.format.json)?;
            }
        }
    }
    Ok(Exit::Yes)
}

/// Shows what came; how many messages that was.
fn show(cx: &mut Context, reply: &Reply, json: bool) -> Result<usize, Failure> {
    if json {
        cx.out.json(reply.data.get())?;
        return Ok(0);
    }
    let Inbox { messages } = reply.parse()?;
    let lines: Vec<String> = messages.iter().flat_map(lines).collect();
    for line in &lines {
        cx.out.line(line)?;
    }
    Ok(messages.len())
}

/// A message in two lines, whatever it says.
fn lines(message: &InboxMessage) -> [String; 2] {
    let notes: Vec<&str> = [
        (!message.from_authenticated, "unproven"),
        (!message.wake, "no wake"),
        (message.delivered_at.is_none(), "waits"),
    ]
    .into_iter()
    .filter_map(|(is, word)| is.then_some(word))
    .collect();
    let notes = if notes.is_empty() { String::new() } else { format!("   {}", notes.join(", ")) };
    let head = format!("{}   {}   {}{notes}", message.sent_at, message.from, message.id);
    [head, format!("    \"{}\"", Escaped(&message.text))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::time::WallTime;

    #[test]
    fn a_message_is_two_lines_whatever_it_says() {
        let at = WallTime::from_unix_millis(1_767_323_045_678);
        let message = InboxMessage {
            id: "msg-00112233445566778899aabbccddeeff".parse().unwrap(),
            from: "devbox".parse().unwrap(),
            from_authenticated: true,
            text: "build 4711 please".into(),
            sent_at: at,
            delivered_at: Some(at),
            wake: true,
        };
        assert_eq!(
            lines(&message),
            [
                "2026-01-02T03:04:05.678Z   devbox   msg-00112233445566778899aabbccddeeff",
                "    \"build 4711 please\"",
            ]
        );
        let text = "\u{1b}]0;owned\u{7}\nfrom: root \"\\ \u{202e}ü".into();
        let hostile =
            InboxMessage { text, from_authenticated: false, wake: false, delivered_at: None, ..message };
        let lines = lines(&hostile);
        assert!(lines[0].ends_with("eeff   unproven, no wake, waits"), "{lines:?}");
        assert_eq!(lines[1], r#"    "\u{1b}]0;owned\u{7}\u{a}from: root \"\\ \u{202e}\u{fc}""#);
    }
}
