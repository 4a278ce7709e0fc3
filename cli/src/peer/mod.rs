//! `castra peer`, `peers`, `inbox` and `restore`: guests that know each other.

mod advice;
mod inbox;
mod send;

use std::time::Duration;

use castra_core::control::reply::{GuestRestored, PeerChanged, PeersListed};
use castra_core::id::GuestName;
use castra_core::peers::{Listed, Visibility};
use castra_core::time::WallTime;
use serde_json::{Value, json};

use crate::args::OneGuest;
use crate::client::{self, Client, ClientError, Reply};
use crate::duration::{age_or_never, millis};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say;
use crate::paths::{Place, Surroundings, peer_place};
use crate::peer_args::{Pair, Peer, Peers};
use crate::simple::finish;
use crate::wait::GRACE;
use crate::{Context, render};
use advice::About;

pub(crate) use inbox::inbox;

/// Default of `--timeout` for everything but `restore`.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Default of `--timeout` for `restore`.
const RESTORE: Duration = Duration::from_secs(60);

/// `castra peer`.
pub(crate) fn peer(cx: &mut Context, args: &Peer) -> Outcome {
    match args {
        Peer::Link(pair) => change(cx, "register_peer", pair, "are peers"),
        Peer::Unlink(pair) => change(cx, "unregister_peer", pair, "are no peers any more"),
        Peer::List(args) => peers(cx, args),
        Peer::Send(args) => send::send(cx, args),
        Peer::Accept(args) => {
            let params = json!({"name": args.name, "accept": true});
            let reply = ask(cx, "peer_answer", params, TIMEOUT, &About::the(args.name))?;
            finish(cx, &reply, args.format, format_args!("{} was told yes", args.name))
        }
        Peer::Refuse(args) => {
            let mut params = json!({"name": args.name, "accept": false});
            if let Some(reason) = &args.reason {
                params["reason"] = json!(reason);
            }
            let reply = ask(cx, "peer_answer", params, TIMEOUT, &About::the(args.name))?;
            finish(cx, &reply, args.format, format_args!("{} was told no", args.name))
        }
    }
}

fn change(cx: &mut Context, method: &str, pair: &Pair, words: &str) -> Outcome {
    let Some((source, name)) = pair.split() else {
        return Err(Failure::usage("name two guests; inside a guest, the other one alone"));
    };
    let mut params = json!({"name": name});
    insert(&mut params, "source", source);
    let reply = ask(cx, method, params, TIMEOUT, &About { own: source, other: Some(name) })?;
    let changed: PeerChanged = reply.parse()?;
    let names = changed.result;
    finish(cx, &reply, pair.format, format_args!("{} and {} {words}", names.source, names.peer))
}

/// `castra peers`.
pub(crate) fn peers(cx: &mut Context, args: &Peers) -> Outcome {
    let mut params = json!({});
    insert(&mut params, "name", args.name);
    let reply = ask(cx, "list_peers", params, TIMEOUT, &About { own: args.name, other: None })?;
    if args.format.json {
        cx.out.json(reply.data.get())?;
        return Ok(Exit::Yes);
    }
    let PeersListed { peers } = reply.parse()?;
    for line in table(&peers) {
        cx.out.line(&line)?;
    }
    if peers.iter().all(|listed| listed.visibility == Visibility::Itself) {
        let own = args.name.map_or_else(String::new, |name| format!("{name} "));
        say(format_args!("no peers yet: `castra peer link {own}NAME` makes one"));
    }
    Ok(Exit::Yes)
}

/// `castra restore`.
pub(crate) fn restore(cx: &mut Context, args: &OneGuest) -> Outcome {
    let params = json!({"guest": args.name});
    let reply = ask(cx, "restore", params, RESTORE, &About::the(args.name))?;
    let restored: GuestRestored = reply.parse()?;
    let how =
        if restored.started { "is reachable: its start command was run" } else { "is reachable already" };
    finish(cx, &reply, args.format, format_args!("{} {how}", restored.guest))
}

fn table(peers: &[Listed]) -> Vec<String> {
    let header = ["GUEST", "WHO", "STATE", "AGE", "LAST SENT", "LAST RECEIVED", "QUEUED"];
    let at = |at: Option<WallTime>| at.map_or_else(|| "-".into(), |at| at.to_string());
    let rows: Vec<_> = peers
        .iter()
        .map(|listed| {
            let who = match listed.visibility {
                Visibility::Itself => "self",
                Visibility::Peer => "peer",
            };
            [
                listed.name.to_string(),
                who.into(),
                listed.state.as_str().into(),
                age_or_never(listed.last_handshake_age_ms),
                at(listed.last_sent_at),
                at(listed.last_received_at),
                listed.queued.to_string(),
            ]
        })
        .collect();
    render::aligned(&header, &rows)
}

/// Whom peers' commands ask.
fn place(cx: &Context) -> Result<Place, Failure> {
    peer_place(&Surroundings::real(), cx.global.state_dir.as_deref(), cx.global.socket.as_deref())
}

/// Asks; `--timeout` bounds the answer.
fn ask(
    cx: &Context,
    method: &str,
    mut params: Value,
    default: Duration,
    about: &About,
) -> Result<Reply, Failure> {
    let (place, timeout) = (place(cx)?, cx.timeout(default));
    params["timeout_ms"] = json!(millis(timeout));
    client::ask(&place.socket, method, params, timeout + GRACE)
        .map_err(|error| advice::failure(error, method, about))
}

/// A connection that a stream may follow on, and its first answer.
fn open(cx: &Context, method: &str, params: Value, about: &About) -> Result<(Client, Reply), Failure> {
    let (place, timeout) = (place(cx)?, cx.timeout(TIMEOUT));
    let ask = || {
        let mut client = Client::connect(&place.socket, timeout)?;
        let reply = client.request(method, params, timeout)?;
        Ok((client, reply))
    };
    ask().map_err(|error: ClientError| advice::failure(error, method, about))
}

fn insert(params: &mut Value, name: &str, guest: Option<GuestName>) {
    if let Some(guest) = guest {
        params[name] = json!(guest);
    }
}
