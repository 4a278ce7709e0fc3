//! `castra adopt`, `release`, `attachments` and `action`: guests that a manager adopted.

mod action;
mod advice;
pub(crate) mod environment;

use std::time::Duration;

use castra_core::attach::Stage;
use castra_core::control::attach::{Adopted, AttachmentRow, Attachments, Released};
use castra_core::id::GuestName;
use serde::Serialize;
use serde_json::json;

use crate::args::OneGuest;
use crate::attach_args::{Adopt, Attachments as Args};
use crate::client::{self, Reply};
use crate::duration::{age, age_or_never, millis};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};
use crate::paths::{Place, Surroundings, peer_place};
use crate::simple::{DURABLE, QUICK, finish};
use crate::wait::GRACE;
use crate::{Context, render};

pub(crate) use action::action;

/// Default of `--timeout` for what waits for a guest.
const WAIT: Duration = Duration::from_secs(30);

/// `castra adopt`.
pub(crate) fn adopt(cx: &mut Context, args: &Adopt) -> Outcome {
    let timeout = cx.timeout(if args.no_wait { DURABLE } else { WAIT });
    let mut params = json!({"guest": args.guest, "wait": !args.no_wait, "timeout_ms": millis(timeout)});
    if let Some(beach) = &args.beach {
        params["beach_id"] = json!(beach);
    }
    if args.link {
        params["link"] = json!(true);
    }
    let reply = ask(&cx.place()?, "adopt", params, timeout, Some(args.guest))?;
    let Adopted { guest, session_id, manager_url, stage, .. } = reply.parse()?;
    match stage {
        Stage::Attached => {
            let how = format_args!("{guest} is attached: session {session_id}, manager {manager_url}");
            finish(cx, &reply, args.format, how)
        }
        Stage::Pending => {
            let how = format_args!(
                "{guest} is adopted (session {session_id}) and will attach itself to {manager_url}: `castra \
                 attachments` shows how far it is"
            );
            finish(cx, &reply, args.format, how)
        }
    }
}

/// `castra release`.
pub(crate) fn release(cx: &mut Context, args: &OneGuest) -> Outcome {
    let timeout = cx.timeout(DURABLE);
    let params = json!({"guest": args.name, "timeout_ms": millis(timeout)});
    let reply = ask(&cx.place()?, "release", params, timeout, Some(args.name))?;
    let Released { guest, dropped, .. } = reply.parse()?;
    let lost = match dropped {
        0 => String::new(),
        1 => ": one action that waited is dropped".into(),
        some => format!(": {some} actions that waited are dropped"),
    };
    finish(cx, &reply, args.format, format_args!("{guest} is released{lost}"))
}

/// `castra attachments`.
pub(crate) fn attachments(cx: &mut Context, args: Args) -> Outcome {
    let place =
        peer_place(&Surroundings::real(), cx.global.state_dir.as_deref(), cx.global.socket.as_deref())?;
    let timeout = cx.timeout(if args.wait { WAIT } else { QUICK });
    let mut params = json!({"timeout_ms": millis(timeout)});
    if args.wait {
        params["wait"] = json!(true);
    }
    let reply = ask(&place, "attachments", params, timeout, None)?;
    let Attachments { attachments } = reply.parse()?;
    if args.format.json {
        cx.out.json(reply.data.get())?;
    } else if attachments.is_empty() {
        say("nobody is adopted: on the host, `castra adopt GUEST` adopts one");
    } else {
        for line in table(&attachments) {
            cx.out.line(&line)?;
        }
    }
    // Whoever waits asks a question.
    let attached = attachments.iter().any(|row| row.stage == Stage::Attached);
    Ok(if args.wait && !attached { Exit::No } else { Exit::Yes })
}

fn table(attachments: &[AttachmentRow]) -> Vec<String> {
    let header = [
        "GUEST",
        "STAGE",
        "ROUTE",
        "QUEUED",
        "LEASE",
        "POLLED",
        "ATTEMPT",
        "TRIED",
        "RETRY",
        "MANAGER",
        "SESSION",
        "LAST ERROR",
    ];
    let rows: Vec<_> = attachments
        .iter()
        .map(|row| {
            let error = row.last_error.as_ref();
            let error = error.map(|error| format!("{}: {}", error.code, error.message));
            [
                row.guest.to_string(),
                row.stage.as_str().into(),
                row.route.map_or("-", |route| route.as_str()).into(),
                row.queued.to_string(),
                age_or_never(row.lease_expires_in_ms),
                age_or_never(row.last_poll_age_ms),
                row.attempt.map_or_else(|| "-".into(), |attempt| attempt.to_string()),
                age_or_never(row.last_attempt_age_ms),
                row.next_retry_ms.map_or_else(|| "-".into(), |left| format!("in {}", age(left))),
                printable(&row.manager_url.to_string()),
                row.session_id.to_string(),
                // A guest wrote it.
                error.map_or_else(|| "-".into(), |error| printable(&error)),
            ]
        })
        .collect();
    render::aligned(&header, &rows)
}

/// Asks; the answer comes within `timeout`.
fn ask(
    place: &Place,
    method: &str,
    params: impl Serialize,
    timeout: Duration,
    guest: Option<GuestName>,
) -> Result<Reply, Failure> {
    client::ask(&place.socket, method, params, timeout + GRACE)
        .map_err(|error| advice::failure(error, method, guest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::attach::wire::AttachError;
    use castra_core::attach::{ManagerUrl, Route};

    #[test]
    fn the_table_is_aligned_and_a_guests_words_trouble_no_terminal() {
        let row = AttachmentRow {
            guest: "web-1".parse().unwrap(),
            session_id: "s-1".parse().unwrap(),
            private_beach_id: "b".parse().unwrap(),
            manager_url: "http://127.0.0.1:7171".parse().unwrap(),
            handshake_id: None,
            stage: Stage::Attached,
            route: Some(Route::Http),
            code_expires_in_ms: None,
            lease_expires_in_ms: Some(29_400),
            last_poll_age_ms: Some(812),
            queued: 3,
            attempt: Some(2),
            failure_count: Some(1),
            last_attempt_age_ms: Some(2000),
            next_retry_ms: None,
            last_error: None,
        };
        let error = AttachError { code: "http_500".into(), message: "\u{1b}]0;x\u{7}".into() };
        let waiting = AttachmentRow {
            guest: "a".parse().unwrap(),
            manager_url: ManagerUrl::Link,
            stage: Stage::Pending,
            route: None,
            lease_expires_in_ms: None,
            last_poll_age_ms: None,
            queued: 0,
            next_retry_ms: Some(1500),
            last_error: Some(error),
            ..row.clone()
        };
        assert_eq!(
            table(&[row, waiting]),
            [
                "GUEST   STAGE      ROUTE   QUEUED   LEASE   POLLED   ATTEMPT   TRIED   RETRY     MANAGER                 SESSION   LAST ERROR",
                "web-1   attached   http    3        29s     0.8s     2         2.0s    -         http://127.0.0.1:7171   s-1       -",
                r"a       pending    -       0        -       -        2         2.0s    in 1.5s   link:                   s-1       http_500: \u{1b}]0;x\u{7}",
            ]
        );
    }
}
