//! Commands that are one question and one answer.

use std::time::Duration;

use castra_core::control::reply::Info;
use serde_json::{Value, json};

use crate::Context;
use crate::args::{Json, OneGuest};
use crate::client::{self, Reply};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};

/// Default of `--timeout` for what needs no disk.
pub(crate) const QUICK: Duration = Duration::from_secs(2);

/// Default of `--timeout` for what the broker makes durable first: its own
/// bound is 5 s, and its answer must still arrive.
pub(crate) const DURABLE: Duration = Duration::from_secs(6);

/// `castra info`.
pub(crate) fn info(cx: &mut Context, format: Json) -> Outcome {
    let reply = ask(cx, "info", json!({}), QUICK)?;
    if format.json {
        cx.out.json(reply.data.get())?;
        return Ok(Exit::Yes);
    }
    for line in lines(&reply.parse()?) {
        cx.out.line(&line)?;
    }
    Ok(Exit::Yes)
}

/// `castra forget`.
pub(crate) fn forget(cx: &mut Context, args: &OneGuest) -> Outcome {
    let reply = ask(cx, "forget", json!({"guest": args.name}), DURABLE)?;
    finish(cx, &reply, args.format, format_args!("{} is forgotten", args.name))
}

/// `castra reload`.
pub(crate) fn reload(cx: &mut Context, format: Json) -> Outcome {
    let reply = ask(cx, "reload", json!({}), DURABLE)?;
    finish(cx, &reply, format, format_args!("the configuration was read again"))
}

/// Asks whom the command line points at.
pub(crate) fn ask(cx: &Context, method: &str, params: Value, default: Duration) -> Result<Reply, Failure> {
    let place = cx.place()?;
    Ok(client::ask(&place.socket, method, params, cx.timeout(default))?)
}

/// The document, or what was done in words.
pub(crate) fn finish(
    cx: &mut Context,
    reply: &Reply,
    format: Json,
    done: std::fmt::Arguments<'_>,
) -> Outcome {
    if format.json {
        cx.out.json(reply.data.get())?;
    } else {
        say(done);
    }
    Ok(Exit::Yes)
}

fn lines(info: &Info) -> Vec<String> {
    let span = |millis| crate::duration::format(Duration::from_millis(millis));
    let config = &info.config;
    let mut rows = vec![
        ("role", info.role.clone()),
        ("version", info.version.clone()),
        ("pid", info.pid.to_string()),
        ("started", info.started_at.to_string()),
    ];
    if let Some(incarnation) = info.incarnation {
        rows.push(("incarnation", incarnation.to_string()));
        rows.push(("state dir", info.state_dir.clone()));
    }
    rows.push((if info.link.is_some() { "broker" } else { "listen" }, info.listen.join(" ")));
    if let Some(link) = &info.link {
        rows.push(("guest", link.name.to_string()));
        rows.push(("link", link.state.clone()));
        rows.push(("broker proven", (if link.authenticated { "yes" } else { "no" }).into()));
        rows.extend(link.last_error.clone().map(|error| ("last error", error)));
    } else {
        rows.push((
            "window",
            format!("{} (challenged every {})", span(config.window_ms), span(config.interval_ms)),
        ));
        rows.push(("handshake", format!("within {}", span(config.handshake_timeout_ms))));
        let rules: Vec<&str> = [
            (config.require_token, "a token is required"),
            (config.only_known, "only known names"),
            (config.accept_unproven, "castra 0.1 guests count, unproven"),
        ]
        .into_iter()
        .filter_map(|(on, text)| on.then_some(text))
        .collect();
        rows.push(("rules", if rules.is_empty() { "-".into() } else { rules.join("; ") }));
        let limits = &info.limits;
        rows.push((
            "limits",
            format!(
                "{} guests, {} half-open, {} clients, {} events",
                limits.guests, limits.half_open, limits.control_clients, limits.events
            ),
        ));
    }
    rows.into_iter().map(|(key, value)| format!("{:15}{}", format!("{key}:"), printable(&value))).collect()
}
