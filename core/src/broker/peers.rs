//! Where peers meet the rest of the broker: requests in, answers and frames out.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::broker::Broker;
use crate::broker::clients::{Clients, problem};
use crate::broker::cx::Cx;
use crate::broker::facts::{Keep, Notice};
use crate::broker::guests::{Guests, Row};
use crate::broker::links::Links;
use crate::control::reply::{
    ErrorBody, ErrorCode, Inbox, MessageResult, PeerChanged, PeerNames, PeersListed,
};
use crate::control::request::Command;
use crate::id::{ConnId, GuestName, RequestId};
use crate::link::message::append_json;
use crate::peers::machine::{From, Post};
use crate::peers::post::Sending;
use crate::peers::requests::{Answer, Asker};
use crate::peers::wire::{PeerRequest, PeerResult};
use crate::peers::{Outcome, Pair, Relation};

/// Most messages written to one follower in one call.
const FEEDS: usize = 16;

/// Most guests that an answer names as perhaps meant.
const CANDIDATES_MAX: usize = 10;

impl Guests {
    /// The two are peers now, or not any more: a peer's row is there to stay.
    pub(crate) fn keep_rows(&mut self, cx: &mut Cx, pair: Pair) {
        for guest in pair.both() {
            let linked = self.relations.peers_of(&guest).next().is_some();
            // A full table only means that the row appears when the guest does.
            let id = if linked { self.ensure(cx, guest).ok() } else { self.find(&guest) };
            let Some(id) = id else { continue };
            let Some(row) = self.get_mut(id) else { continue };
            let has_no_session = row.has_no_session();
            if row.keep.set(Keep::LINKED, linked) == linked {
                continue;
            }
            if linked {
                self.leave_line(id);
            } else if has_no_session {
                self.mark_idle(id);
            }
        }
    }
}

impl Links {
    /// A guest says something about peers. What a session without a row says
    /// of itself counts for nothing.
    pub(crate) fn on_peer(&self, cx: &mut Cx, guests: &Guests, conn: ConnId, request: PeerRequest) {
        if let Some(row) = self.speaker(guests, conn) {
            let from = From { conn, guest: row.name(), since: row.since, authenticated: row.authenticated };
            cx.notify(Notice::Peer((from, request).into()));
        }
    }

    /// Whose session it is, if what it says of itself counts. Asked when the frame is read: a
    /// session that ends with the next frame has said what it said, however the bytes were cut.
    pub(super) fn speaker<'a>(&self, guests: &'a Guests, conn: ConnId) -> Option<&'a Row> {
        let session = self.table.get(conn)?.session.as_ref().filter(|session| !session.is_legacy())?;
        guests.get(session.row?).filter(|row| row.session == Some(conn) && row.proven)
    }

    /// Sends a frame that may wait, if there is still room for the answer to whatever the guest asks.
    pub(super) fn send_if_idle(&mut self, cx: &mut Cx, conn: ConnId, json: &[u8]) -> bool {
        let has_room = self.table.get(conn).is_some_and(|link| link.has_room_for_mail(json.len()));
        has_room && self.send(cx, conn, json.len(), |out| out.extend_from_slice(json))
    }
}

impl Broker {
    /// Every relation between two guests that there is a record of, and whether each
    /// of the two sees the other as its peer, the lower name first: for checks.
    pub fn relations(&self) -> impl Iterator<Item = (Pair, Relation, [bool; 2])> {
        let relations = &self.guests.relations;
        relations.pairs().map(|(pair, relation)| {
            let [low, high] = pair.both();
            let sees = |one: GuestName, other: GuestName| relations.peers_of(&one).any(|peer| peer == other);
            (*pair, relation, [sees(low, high), sees(high, low)])
        })
    }

    /// A request about peers from control.
    pub(super) fn on_peer_request(
        &mut self,
        conn: ConnId,
        id: Option<RequestId>,
        command: Command,
        timeout: Option<Duration>,
    ) {
        let Self { cx, guests, clients, peers, .. } = self;
        let missing =
            |what: &str| problem(ErrorCode::InvalidRequest, format!("the broker needs params.{what}"));
        let asker = Asker::Client { conn, id: id.clone() };
        let unknown = |name: &GuestName| problem(ErrorCode::Unknown, unknown_text(name));
        match command {
            Command::RegisterPeer { source: None, .. } | Command::UnregisterPeer { source: None, .. } => {
                clients.error(conn, id, &missing("source"));
            }
            Command::RegisterPeer { source: Some(source), .. } if guests.find(&source).is_none() => {
                clients.error(conn, id, &unknown(&source));
            }
            Command::RegisterPeer { source: Some(source), name } => match meant(guests, &name) {
                Ok(target) => peers.register(cx, guests, asker, (source, Some(target)), timeout),
                Err(candidates) if candidates.is_empty() => clients.error(conn, id, &unknown(&name)),
                Err(candidates) => {
                    let text = ambiguous_text(&name, &candidates);
                    clients.error(conn, id, &problem(ErrorCode::Ambiguous, text));
                }
            },
            Command::UnregisterPeer { source: Some(source), name } => {
                let known =
                    |guest: &GuestName| guests.find(guest).is_some() || guests.relations.count(guest) > 0;
                match [source, name].iter().find(|guest| !known(guest)) {
                    Some(stranger) => clients.error(conn, id, &unknown(stranger)),
                    None => peers.unregister(cx, guests, asker, (source, Some(name)), timeout),
                }
            }
            Command::SendToPeer { from: None, .. } => clients.error(conn, id, &missing("from")),
            Command::SendToPeer { from: Some(from), .. } if guests.find(&from).is_none() => {
                clients.error(conn, id, &unknown(&from));
            }
            Command::SendToPeer { from: Some(from), to, text, wake, queue, key } => {
                // Whoever may use this socket may speak for every guest.
                let sending =
                    Sending { from, from_authenticated: true, to: Some(to), text, wake, queue, key };
                peers.send(cx, guests, asker, sending, timeout);
            }
            Command::ListPeers { name } | Command::Inbox { name, .. } if name.is_none() => {
                clients.error(conn, id, &missing("name"));
            }
            Command::ListPeers { name: Some(name) } | Command::Inbox { name: Some(name), .. }
                if guests.find(&name).is_none() =>
            {
                clients.error(conn, id, &unknown(&name));
            }
            Command::ListPeers { name: Some(name) } => {
                let peers = peers.list(cx, guests, name);
                clients.reply(conn, id, "peers_listed", &PeersListed { peers });
            }
            Command::Inbox { name: Some(name), after, follow, limit } => {
                let messages = peers.inbox(name, after.as_ref(), limit);
                clients.reply(conn, id, "inbox", &Inbox { messages });
                if follow {
                    peers.follow(conn, name);
                    clients.stream(conn);
                }
            }
            _ => {
                let text = "only an agent answers this: ask inside the guest";
                clients.error(conn, id, &problem(ErrorCode::Forbidden, text));
            }
        }
    }

    /// A frame about peers, over a guest's own session.
    pub(super) fn on_peer_frame(&mut self, from: From, request: PeerRequest) {
        let Self { cx, guests, peers, .. } = self;
        let conn = from.conn;
        let asker = |id| Asker::Guest { conn, id };
        let too_long = cx.config.request_timeout_max;
        let bound = |timeout_ms: Option<u64>| timeout_ms.map(|ms| Duration::from_millis(ms).min(too_long));
        let (PeerRequest::Register { id, .. }
        | PeerRequest::Unregister { id, .. }
        | PeerRequest::List { id }
        | PeerRequest::Send { id, .. }) = request
        else {
            return match request {
                PeerRequest::Policy { policy, hold } => peers.on_policy(cx, guests, &from, policy, hold),
                PeerRequest::Answer { id, accept, reason } => {
                    let answer = if accept { Ok(()) } else { Err(reason.as_deref()) };
                    peers.on_offer_answer(cx, guests, &from, id, answer);
                }
                PeerRequest::Ack { id, rejected } => peers.on_ack(cx, guests, &from, &id, rejected),
                _ => {}
            };
        };
        if peers.is_busy(conn) {
            let answer = Answer::new(Outcome::Busy).because("too many requests are unanswered");
            return peers.post.push_back(Post::Answer(asker(id), answer));
        }
        match request {
            PeerRequest::Register { name, timeout_ms, .. } => {
                let pair = (from.guest, name.parse().ok());
                peers.register(cx, guests, asker(id), pair, bound(timeout_ms));
            }
            PeerRequest::Unregister { name, timeout_ms, .. } => {
                let known = name.parse().ok().filter(|name| knows(guests, &from.guest, name));
                peers.unregister(cx, guests, asker(id), (from.guest, known), bound(timeout_ms));
            }
            PeerRequest::Send { to, text, wake, queue, key, timeout_ms, .. } => {
                let to = to.parse().ok();
                let (guest, from_authenticated) = (from.guest, from.authenticated);
                let sending = Sending { from: guest, from_authenticated, to, text, wake, queue, key };
                peers.send(cx, guests, asker(id), sending, bound(timeout_ms));
            }
            PeerRequest::List { .. } => {
                let listed = peers.list(cx, guests, from.guest);
                let answer = Answer { peers: Some(listed), ..Answer::new(Outcome::Listed) };
                peers.post.push_back(Post::Answer(asker(id), answer));
            }
            PeerRequest::Policy { .. } | PeerRequest::Answer { .. } | PeerRequest::Ack { .. } => {}
        }
    }

    /// Says what there is to say, and sends the mail that may flow.
    pub(super) fn pump_peers(&mut self) {
        let Self { cx, guests, links, clients, peers, .. } = self;
        if peers.is_quiet(cx) {
            return;
        }
        if !cx.draining {
            peers.deliver(cx, guests, |cx, conn, json| links.send_if_idle(cx, conn, json));
        }
        while let Some(post) = peers.post.pop_front() {
            match post {
                Post::Answer(Asker::Client { conn, id }, answer) => reply(clients, conn, id, answer),
                Post::Answer(Asker::Guest { conn, id }, answer) => {
                    let json = frame(id, answer);
                    if !links.send(cx, conn, json.len(), |out| out.extend_from_slice(&json)) {
                        let busy = frame(id, Answer::new(Outcome::Busy).because("no room for the answer"));
                        links.send(cx, conn, busy.len(), |out| out.extend_from_slice(&busy));
                    }
                }
                Post::Frame(conn, frame) => {
                    let mut json = Vec::new();
                    append_json(&mut json, &frame);
                    links.send(cx, conn, json.len(), |out| out.extend_from_slice(&json));
                }
            }
        }
        peers.rearm(cx);
    }

    /// Writes what clients are owed, and to followers of inboxes one message after the
    /// other, as they read. True: there is more to do at once.
    pub(super) fn pump_clients(&mut self) -> bool {
        let Self { cx, guests, clients, peers, .. } = self;
        for _ in 0..FEEDS {
            let more = clients.pump(cx, guests);
            let mut fed = false;
            for conn in peers.followers(|conn| clients.is_streaming(conn)) {
                if clients.has_said_all(conn)
                    && let Some(message) = peers.next_for(conn)
                {
                    clients.say(conn, "inbox", &Inbox { messages: alloc::vec![message] });
                    fed = true;
                }
            }
            if !fed {
                return more;
            }
        }
        true
    }
}

/// A guest may ask about itself, and about its peers.
pub(crate) fn may_ask_about(guests: &Guests, guest: GuestName, other: GuestName) -> bool {
    guest == other || guests.relations.are_linked(guest, other)
}

/// Whether there is a record of the two.
fn knows(guests: &Guests, guest: &GuestName, other: &GuestName) -> bool {
    guests.relations.seen_by(guest).any(|(name, _)| name == *other)
}

/// The guest that a name, or the beginning of one, stands for.
fn meant(guests: &Guests, name: &GuestName) -> Result<GuestName, Vec<GuestName>> {
    if guests.find(name).is_some() {
        return Ok(*name);
    }
    let mut candidates = Vec::new();
    let mut next = guests.after(Some(name));
    while let Some(other) = next.and_then(|id| guests.get(id)).map(Row::name) {
        if !other.as_bytes().starts_with(name.as_bytes()) || candidates.len() > CANDIDATES_MAX {
            break;
        }
        candidates.push(other);
        next = guests.after(Some(&other));
    }
    match candidates[..] {
        [only] => Ok(only),
        _ => Err(candidates),
    }
}

fn frame(id: u64, answer: Answer) -> Vec<u8> {
    let Answer { outcome, reason, names, message, peers } = answer;
    let peer = names.map(|(name, _)| name);
    let result = PeerResult { id, outcome, reason, peer, message_id: message, peers };
    let mut json = Vec::new();
    append_json(&mut json, &crate::peers::wire::PeerFrame::Result(result));
    json
}

fn reply(clients: &mut Clients, conn: ConnId, id: Option<RequestId>, answer: Answer) {
    match (answer.outcome, answer.names, answer.message) {
        (Outcome::Registered, Some((peer, source)), _) => {
            let changed = PeerChanged { result: PeerNames { peer, source }, outcome: answer.outcome };
            clients.reply(conn, id, "peer_registered", &changed);
        }
        (Outcome::Unregistered, Some((peer, source)), _) => {
            let changed = PeerChanged { result: PeerNames { peer, source }, outcome: answer.outcome };
            clients.reply(conn, id, "peer_unregistered", &changed);
        }
        (Outcome::Delivered | Outcome::Queued | Outcome::Rejected | Outcome::Expired, _, Some(message)) => {
            let result = MessageResult { id: message, outcome: answer.outcome, reason: answer.reason };
            clients.reply(conn, id, "peer_message_result", &result);
        }
        _ => clients.error(conn, id, &explained(&answer)),
    }
}

/// An outcome as an error, with what happened and what to do.
fn explained(answer: &Answer) -> ErrorBody {
    let because = answer.reason.as_deref().map_or(String::new(), |reason| format!(" ({reason})"));
    let (name, source) = match &answer.names {
        Some((name, source)) => (name.as_str(), source.as_str()),
        None => ("it", "it"),
    };
    let (code, text) = match answer.outcome {
        Outcome::Itself => {
            (ErrorCode::Itself, format!("{name} can't be a peer of itself: name another guest"))
        }
        Outcome::Unknown => {
            (ErrorCode::Unknown, format!("no guest is called {name}; castra status lists all"))
        }
        Outcome::Rejected => {
            (ErrorCode::Rejected, format!("not between {source} and {name}: one of them would not{because}"))
        }
        Outcome::Busy => (ErrorCode::Busy, format!("{source} can't do this now{because}; try again")),
        Outcome::NotPeer => {
            let text =
                format!("{source} and {name} are no peers; castra peer link {source} {name} joins them");
            (ErrorCode::NotPeer, text)
        }
        Outcome::Full => (ErrorCode::Full, format!("there is no room for it{because}")),
        Outcome::TooLarge => (ErrorCode::TooLarge, format!("the message is too large{because}")),
        Outcome::NotReachable => {
            let text = format!("{name} is not reachable now; castra status {name} says why");
            (ErrorCode::NotReachable, text)
        }
        Outcome::StorageFailed if answer.message.is_some() => {
            (ErrorCode::StorageFailed, format!("the database failed{because}"))
        }
        Outcome::StorageFailed => {
            let text = format!("nothing changed{because}; see that the disk has room and works");
            (ErrorCode::StorageFailed, text)
        }
        Outcome::Timeout => (ErrorCode::Timeout, format!("not in time{because}")),
        Outcome::ShuttingDown => (ErrorCode::ShuttingDown, "the broker is stopping".into()),
        Outcome::InvalidRequest => (ErrorCode::InvalidRequest, format!("that makes no sense{because}")),
        Outcome::Ambiguous => (ErrorCode::Ambiguous, "several guests are called so".into()),
        Outcome::Registered
        | Outcome::Unregistered
        | Outcome::Listed
        | Outcome::Delivered
        | Outcome::Queued
        | Outcome::Expired
        | Outcome::Other => (ErrorCode::Internal, format!("unexpected: {}", answer.outcome)),
    };
    problem(code, text)
}

fn unknown_text(name: &GuestName) -> String {
    format!("no guest is called {name}, and none begins so; castra status lists all")
}

fn ambiguous_text(name: &GuestName, candidates: &[GuestName]) -> String {
    let listed = candidates.iter().take(CANDIDATES_MAX).map(GuestName::as_str).collect::<Vec<_>>().join(", ");
    let more = if candidates.len() > CANDIDATES_MAX { ", …" } else { "" };
    format!("{name} could be any of {listed}{more}: write the whole name")
}
