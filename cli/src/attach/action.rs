//! `castra action`: what an adopted guest is to do, and what became of it.

use std::io::Read;

use castra_core::attach::{KIND_MAX, PAYLOAD_MAX};
use castra_core::control::attach::{ActionAnswer, ActionRow, Actions};
use castra_core::id::GuestName;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{WAIT, ask};
use crate::attach_args::{Action, List, Send};
use crate::duration::{age, format, millis};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};
use crate::simple::{DURABLE, QUICK};
use crate::{Context, render};

/// `castra action`.
pub(crate) fn action(cx: &mut Context, args: &Action) -> Outcome {
    match args {
        Action::Send(args) => send(cx, args),
        Action::List(args) => list(cx, *args),
    }
}

#[derive(Serialize)]
struct Request<'a> {
    guest: GuestName,
    action_type: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    wait: bool,
    timeout_ms: u64,
}

fn send(cx: &mut Context, args: &Send) -> Outcome {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=KIND_MAX).contains(&args.kind.len()) || !args.kind.bytes().all(fits) {
        return Err(Failure::usage(format!(
            "a --type has 1 to {KIND_MAX} letters, digits, dots, underscores or hyphens, like terminal_write"
        )));
    }
    let payload = payload(&match args.payload.as_str() {
        "-" => read(std::io::stdin().lock())?,
        text => text.to_owned(),
    })?;
    let timeout = cx.timeout(if args.no_wait { DURABLE } else { WAIT });
    let request = Request {
        guest: args.guest,
        action_type: &args.kind,
        payload: &payload,
        ttl_ms: args.ttl.map(millis),
        wait: !args.no_wait,
        timeout_ms: millis(timeout),
    };
    let reply = ask(&cx.place()?, "action_send", &request, timeout, Some(args.guest))?;
    let answer: ActionAnswer = reply.parse()?;
    if args.format.json {
        cx.out.json(reply.data.get())?;
    } else {
        cx.out.line(&format!("{} {}", answer.id, printable(&answer.status)))?;
    }
    let exit = exit(&answer.status, args.no_wait);
    if let Some(text) = explained(&answer, exit, &format(timeout)) {
        say(text);
    }
    Ok(exit)
}

/// What an outcome means.
fn exit(status: &str, no_wait: bool) -> Exit {
    match status {
        "ok" => Exit::Yes,
        "queued" if no_wait => Exit::Yes,
        "queued" | "expired" => Exit::Timeout,
        _ => Exit::Refused,
    }
}

/// An outcome for people; nothing where it was applied, or only asked for.
fn explained(answer: &ActionAnswer, exit: Exit, bound: &str) -> Option<String> {
    let guest = answer.guest;
    let code = answer.error_code.as_deref();
    let why = code.map_or_else(String::new, |code| format!(" ({code})"));
    Some(match (answer.status.as_str(), exit) {
        (_, Exit::Yes) => return None,
        ("queued", _) => format!(
            "{guest} did not take it within {bound}: it stays until it is taken or expires; `castra action list \
             {guest}` shows it, and `castra attachments` how {guest} is reached"
        ),
        ("expired", _) => format!(
            "{guest} did not take it in time, and it was not applied{why}: send it anew, with a longer --ttl if it \
             may wait"
        ),
        ("preempted", _) => format!(
            "somebody else owns the terminal{why}: `castra term ls {guest}/` says who; send it anew when they are \
             done"
        ),
        _ => format!("{guest} did not apply it{why}{}", advice(code, guest)),
    })
}

/// What to do about the guest's word, as the rest of a sentence.
fn advice(code: Option<&str>, guest: GuestName) -> String {
    match code.unwrap_or_default() {
        "interrupted" => {
            ": its agent ended meanwhile; look at the terminal before you send it anew, it may have been typed in part"
                .into()
        }
        "timed_out" => {
            ": its program takes no input; look at the terminal before you send it anew, it may have been typed in part"
                .into()
        }
        "unkeyed_link" => format!(
            ": the broker has not proven itself to it; `castra token issue {guest}`, or start its agent with \
             --trust-unkeyed-broker"
        ),
        "not_attached" => format!(": it is not attached; `castra adopt {guest}`"),
        "unknown_type" => ": its agent knows no such --type; terminal_write is one".into(),
        "bad_payload" => {
            ": a terminal_write is {\"bytes\": \"...\"}, with \"terminal\": \"NAME\" if it is not for `main`".into()
        }
        "no_terminal" => {
            format!(": no program runs on that terminal; `castra term ls {guest}/` lists those that it has")
        }
        "no_terminals" => ": its agent hosts no terminals; start it with --exec COMMAND or --terminals".into(),
        "no_storage" => {
            ": its agent can't remember what it did; it needs a directory to write to, see `castra agent --inbox`"
                .into()
        }
        "busy" => ": it has too much to do; send it anew later".into(),
        _ => String::new(),
    }
}

/// The object in one line, as it was written.
fn payload(text: &str) -> Result<Box<RawValue>, Failure> {
    let wrong = |what: &str| {
        Failure::usage(format!(
            "--payload {what}: a terminal_write is {{\"bytes\": \"uptime\\n\"}}, quoted for the shell"
        ))
    };
    // A string holds no such character as it is: they stand between tokens only.
    let line = text.replace(['\n', '\r'], " ");
    let line = line.trim();
    if line.len() > PAYLOAD_MAX {
        return Err(Failure::usage(format!(
            "a payload has at most {PAYLOAD_MAX} bytes, and this one more: send it in parts"
        )));
    }
    // What was wrong with it would show what is in it.
    let value =
        serde_json::from_str::<&RawValue>(text.trim()).ok().and(RawValue::from_string(line.into()).ok());
    match value {
        Some(value) if line.starts_with('{') => Ok(value),
        Some(_) => Err(wrong("must be a JSON object")),
        None => Err(wrong("is no JSON")),
    }
}

/// Text from a stream. More than can be sent is not read.
fn read(stream: impl Read) -> Result<String, Failure> {
    let mut bytes = vec![];
    stream
        .take(4 * PAYLOAD_MAX as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("can't read standard input", &error))?;
    String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is not UTF-8: a payload is JSON"))
}

fn list(cx: &mut Context, args: List) -> Outcome {
    let timeout = cx.timeout(QUICK);
    let mut params = json!({"timeout_ms": millis(timeout)});
    if let Some(guest) = args.guest {
        params["guest"] = json!(guest);
    }
    let reply = ask(&cx.place()?, "action_list", params, timeout, args.guest)?;
    if args.format.json {
        cx.out.json(reply.data.get())?;
        return Ok(Exit::Yes);
    }
    let Actions { actions, total } = reply.parse()?;
    if actions.is_empty() {
        say("no actions wait");
        return Ok(Exit::Yes);
    }
    for line in table(&actions) {
        cx.out.line(&line)?;
    }
    let shown = u64::try_from(actions.len()).unwrap_or(u64::MAX);
    if total > shown {
        say(format_args!("{} more wait: name a guest", total - shown));
    }
    Ok(Exit::Yes)
}

fn table(actions: &[ActionRow]) -> Vec<String> {
    let rows: Vec<_> = actions
        .iter()
        .map(|row| {
            [
                row.guest.to_string(),
                row.id.to_string(),
                printable(&row.action_type),
                if row.sent { "sent" } else { "queued" }.into(),
                age(row.age_ms),
                format!("in {}", age(row.expires_in_ms)),
            ]
        })
        .collect();
    render::aligned(&["GUEST", "ID", "TYPE", "STATE", "AGE", "EXPIRES"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::attach::{ActionCode, ActionStatus};

    #[test]
    fn a_payload_is_an_object_in_one_line_and_is_never_repeated() {
        let good = |text: &str| payload(text).unwrap().get().to_owned();
        assert_eq!(good("{\"b\": 1.50,\n \"a\": \"x\\n\"}\n"), "{\"b\": 1.50,  \"a\": \"x\\n\"}");
        assert_eq!(good("{\"bytes\":[255]}"), "{\"bytes\":[255]}");
        for bad in ["", "[\"hush\"]", "hush", "\"hush\"", "{\"hush\": 1", "{} hush", "{\"hush\": \"a\nb\"}"] {
            let failure = payload(bad).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{bad:?}");
            assert!(!failure.message.contains("hush"), "{failure}");
        }
        let long = format!("{{\"bytes\":\"{}\"}}", "x".repeat(PAYLOAD_MAX));
        assert!(payload(&long).unwrap_err().message.contains("at most 15360 bytes"));
        assert_eq!(read(&b"{}\n"[..]).unwrap(), "{}\n");
        assert_eq!(read(&b"\xff"[..]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn every_outcome_has_its_exit_code_and_says_what_to_do() {
        let say = |status: &str, code: Option<&str>, no_wait| {
            let code = code.map(Into::into);
            let (guest, id) = ("web-1".parse().unwrap(), "a".parse().unwrap());
            let answer = ActionAnswer { guest, id, status: status.into(), error_code: code };
            let exit = exit(status, no_wait);
            (exit.code(), explained(&answer, exit, "30s"))
        };
        assert_eq!(say(ActionStatus::Ok.as_str(), None, false), (0, None));
        assert_eq!(say("queued", None, true), (0, None));
        let (code, text) = say("queued", None, false);
        assert_eq!(code, 4);
        assert!(text.unwrap().contains("it stays"), "a queued action is not lost");
        assert_eq!(say(ActionStatus::Expired.as_str(), None, false).0, 4);
        let (code, text) = say(ActionStatus::Preempted.as_str(), Some("owned"), false);
        assert!(code == 5 && text.unwrap().contains("(owned): `castra term ls web-1/`"));
        for (code, word) in [
            (ActionCode::Interrupted, "in part"),
            (ActionCode::UnkeyedLink, "castra token issue web-1"),
            (ActionCode::NotAttached, "castra adopt web-1"),
            (ActionCode::UnknownType, "terminal_write"),
            (ActionCode::BadPayload, "\"bytes\""),
            (ActionCode::NoTerminal, "castra term ls web-1/"),
            (ActionCode::NoTerminals, "--exec"),
            (ActionCode::TimedOut, "in part"),
            (ActionCode::Failed, "(failed)"),
            (ActionCode::NoStorage, "--inbox"),
            (ActionCode::Busy, "later"),
            (ActionCode::Other, "(other)"),
        ] {
            let (exit, text) = say("rejected", Some(code.as_str()), false);
            assert_eq!(exit, 5);
            let text = text.unwrap();
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn the_table_says_what_was_sent_and_what_only_waits() {
        let row = |id: &str, sent| ActionRow {
            guest: "web-1".parse().unwrap(),
            id: id.parse().unwrap(),
            action_type: "terminal_write".into(),
            age_ms: 1200,
            expires_in_ms: 598_800,
            sent,
        };
        assert_eq!(
            table(&[row("a1", true), row("a22", false)]),
            [
                "GUEST   ID    TYPE             STATE    AGE    EXPIRES",
                "web-1   a1    terminal_write   sent     1.2s   in 9m58s",
                "web-1   a22   terminal_write   queued   1.2s   in 9m58s",
            ]
        );
    }
}
