//! What clients ask: answered here, or asked of the broker.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use serde::Serialize;

use super::streams::{Follow, shown};
use super::{Around, Asked, Local, Pending, Seat};
use crate::agent::{Context, Events, Mailbox, Question, Upstream};
use crate::broker::walk::{Filter, append_head};
use crate::control::attach::Attachments;
use crate::control::reply::{Empty, ErrorBody, ErrorCode, Inbox as InboxReply, Info, Limits};
use crate::control::request::{Command, LINE_MAX, Request};
use crate::event::Cursor;
use crate::id::{GuestName, RequestId};
use crate::link::inbox::FRAME_MAX;
use crate::link::message::{GuestRequest, GuestRequestKind};
use crate::peers::post::INBOX_BYTES_MAX;
use crate::peers::wire::PeerRequest;
use crate::peers::{KEY_MAX, MessageId, Received, TEXT_MAX};
use crate::time::millis;

/// What is to be asked of the broker.
struct Asking {
    asked: Asked,
    /// `None`: the agent itself will know.
    question: Option<Question>,
    bound: Duration,
}

/// What is left of the caller's time for the broker's answer to get here.
const ON_THE_WAY: Duration = Duration::from_millis(500);

/// What was answered, in `peer_answered`.
#[derive(Serialize)]
struct Answered {
    name: GuestName,
    accept: bool,
}

impl Local {
    pub(super) fn on_request(
        &mut self,
        cx: &mut Context<'_>,
        index: usize,
        request: Request,
        around: &mut Around<'_>,
    ) {
        let Request { id, command, timeout } = request;
        let number = self.last_id + 1;
        let seat = &mut self.clients[index];
        let asked = seat
            .answer_here(cx, id.as_ref(), command, around)
            .and_then(|left| left.map(|command| asking(cx, number, command, timeout, around)).transpose())
            .and_then(|asking| asking.map(|asking| seat.ask(cx, asking, around)).transpose());
        match asked {
            Ok(None) => {}
            Ok(Some(Asking { asked, bound, .. })) => {
                self.last_id = number;
                let pending = Pending { conn: seat.client.conn(), id, asked, deadline: cx.now.boot + bound };
                self.pending.insert(number, pending);
            }
            Err(ErrorBody { code, message }) => seat.client.error(cx.out, id.as_ref(), code, message),
        }
    }
}

impl Seat {
    /// Carries out what needs no broker; what does is returned.
    fn answer_here(
        &mut self,
        cx: &mut Context<'_>,
        id: Option<&RequestId>,
        command: Command,
        around: &mut Around<'_>,
    ) -> Result<Option<Command>, ErrorBody> {
        match command {
            Command::Info => {
                let info = describe(cx, around.upstream);
                self.client.reply(cx.out, id, "info", info);
            }
            Command::Events { since, follow, kinds, mut guests, limit } => {
                around.mailbox()?;
                guests.sort_unstable();
                self.show_events(cx, id, since, follow, Filter { kinds, guests }, limit);
            }
            Command::Inbox { name, after, follow, limit } => {
                own(cx, name)?;
                let mailbox = around.mailbox()?;
                self.show_inbox(cx, id, mailbox, after, follow, limit);
            }
            Command::PeerAnswer { name, accept, reason } => {
                let answer = around.mailbox()?.answer(&name, accept, reason)?;
                around.upstream.tell(cx, &answer);
                self.client.reply(cx.out, id, "peer_answered", Answered { name, accept });
            }
            Command::Attachments { wait } if !wait || around.attach.is_attached() => {
                let attachments = around.attach.row(cx.config.name, cx.now.boot).into_iter().collect();
                self.client.reply(cx.out, id, "attachments", Attachments { attachments });
            }
            Command::Hold { hold } => {
                if let Some(stated) = around.mailbox()?.hold(hold) {
                    around.upstream.tell(cx, &stated);
                }
                self.client.reply(cx.out, id, if hold { "held" } else { "resumed" }, Empty {});
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    fn show_events(
        &mut self,
        cx: &mut Context<'_>,
        id: Option<&RequestId>,
        since: Option<Cursor>,
        follow: bool,
        filter: Filter,
        limit: usize,
    ) {
        let Events { incarnation, ring: Some(ring), .. } = &*cx.events else { return };
        let (mut next, gap) = match since {
            None if follow => (ring.newest() + 1, false),
            None => (ring.oldest(), false),
            Some(cursor) if cursor.incarnation != *incarnation => (ring.oldest(), true),
            Some(cursor) => {
                let next = cursor.number.min(ring.newest()) + 1;
                (next.max(ring.oldest()), cursor.number > ring.newest() || next < ring.oldest())
            }
        };
        let mut left = if follow { usize::MAX } else { limit };
        self.client.send(cx.out, |line| {
            append_head(line, id, "events");
            line.extend_from_slice(br#"{"events":["#);
            let start = line.len();
            while let Some(event) = ring.get(next).filter(|_| left > 0) {
                next += 1;
                if filter.admits(&event) {
                    if line.len() > start {
                        line.push(b',');
                    }
                    event.append_json(None, line);
                    left -= 1;
                }
            }
            let cursor = Cursor { incarnation: *incarnation, number: next - 1 };
            let gap = if gap { r#","gap":true"# } else { "" };
            line.extend_from_slice(format!(r#"],"cursor":"{cursor}"{gap}}}}}"#).as_bytes());
            line.push(b'\n');
        });
        if follow {
            self.events = Some(Follow { next, filter });
        }
    }

    fn show_inbox(
        &mut self,
        cx: &mut Context<'_>,
        id: Option<&RequestId>,
        mailbox: &dyn Mailbox,
        after: Option<MessageId>,
        follow: bool,
        limit: usize,
    ) {
        let kept = mailbox.kept();
        // One that is gone was older than all that are kept.
        let next = after.and_then(|after| kept.iter().position(|message| message.id == after));
        let mut bytes = 0;
        let mut fits = |message: &&Received| {
            bytes += message.text.len();
            bytes <= INBOX_BYTES_MAX
        };
        let (first, count) = match next {
            Some(index) => (
                index + 1,
                kept.iter().skip(index + 1).take(limit).take_while(|message| fits(message)).count(),
            ),
            None => {
                let count = kept.iter().rev().take(limit).take_while(|message| fits(message)).count();
                (kept.len() - count, count)
            }
        };
        let messages = kept.iter().skip(first).take(count).map(shown).collect();
        self.client.reply(cx.out, id, "inbox", InboxReply { messages });
        if follow {
            // Whatever was too much for the answer follows at once.
            let last = (first + count).checked_sub(1).and_then(|index| kept.get(index));
            self.inbox = Some(last.map_or(0, |message| message.number));
        }
    }

    fn ask(
        &mut self,
        cx: &mut Context<'_>,
        asking: Asking,
        around: &mut Around<'_>,
    ) -> Result<Asking, ErrorBody> {
        if self.open >= cx.config.control_requests_max {
            let message = format!("{} requests of this client are unanswered: wait for one", self.open);
            return Err(ErrorBody { code: ErrorCode::Busy, message });
        }
        if let Some(question) = &asking.question {
            around.upstream.ask(cx, question)?;
        }
        self.open += 1;
        Ok(asking)
    }
}

/// The question that `command` puts to the broker.
fn asking(
    cx: &Context<'_>,
    number: u64,
    command: Command,
    timeout: Option<Duration>,
    around: &mut Around<'_>,
) -> Result<Asking, ErrorBody> {
    let config = cx.config;
    let guest = |kind, guests, target, any, default: Duration| {
        let bound = timeout.unwrap_or(default);
        let question = Question::Guest(GuestRequest {
            kind,
            id: number,
            guests,
            target,
            any,
            timeout_ms: Some(millis(bound)),
        });
        Asking { asked: Asked::Guest(kind), question: Some(question), bound }
    };
    let mut peer = |asked, request: &dyn Fn(Option<u64>) -> PeerRequest| {
        let bound = timeout.unwrap_or(around.mailbox()?.settings().timeout);
        // The broker's answer says more than a timeout here: it gets a little less time.
        let within = millis(bound - ON_THE_WAY.min(bound / 4));
        Ok(Asking { asked, question: Some(Question::Peer(request(Some(within)))), bound })
    };
    match command {
        Command::Status { guests } => {
            Ok(guest(GuestRequestKind::Status, guests, None, false, config.ping_timeout))
        }
        Command::Wait { guests, target, any } => {
            Ok(guest(GuestRequestKind::Wait, guests, Some(target), any, config.wait_timeout))
        }
        Command::Ping { guest: name } => {
            Ok(guest(GuestRequestKind::PingGuest, Vec::from([name]), None, false, config.ping_timeout))
        }
        Command::Restore { guest: name } => {
            Ok(guest(GuestRequestKind::Restore, Vec::from([name]), None, false, config.wait_timeout))
        }
        Command::Attachments { .. } => {
            let bound = timeout.unwrap_or(config.attach.wait_timeout);
            Ok(Asking { asked: Asked::Attached, question: None, bound })
        }
        Command::RegisterPeer { source, name } => {
            own(cx, source)?;
            peer(Asked::Register { peer: name }, &|timeout_ms| PeerRequest::Register {
                id: number,
                name: name.to_string(),
                timeout_ms,
            })
        }
        Command::UnregisterPeer { source, name } => {
            own(cx, source)?;
            peer(Asked::Unregister { peer: name }, &|timeout_ms| PeerRequest::Unregister {
                id: number,
                name: name.to_string(),
                timeout_ms,
            })
        }
        Command::ListPeers { name } => {
            own(cx, name)?;
            peer(Asked::List, &|_| PeerRequest::List { id: number })
        }
        Command::SendToPeer { from, to, text, wake, queue, key } => {
            own(cx, from)?;
            fits(&text, key.as_deref())?;
            let asked = Asked::Send { to, bytes: text.len() as u64 };
            peer(asked, &|timeout_ms| PeerRequest::Send {
                id: number,
                to: to.to_string(),
                text: text.clone(),
                wake,
                queue,
                key: key.clone(),
                timeout_ms,
            })
        }
        _ => Err(forbidden("an agent speaks for its own guest: ask the broker, on the host".into())),
    }
}

/// Whoever is spoken of must be the guest itself.
fn own(cx: &Context<'_>, name: Option<GuestName>) -> Result<(), ErrorBody> {
    let own = cx.config.name;
    match name {
        Some(name) if name != own => {
            Err(forbidden(format!("this is the agent of {own}: it does nothing in the name of {name}")))
        }
        _ => Ok(()),
    }
}

fn fits(text: &str, key: Option<&str>) -> Result<(), ErrorBody> {
    if text.len() > TEXT_MAX {
        let message = format!("a message has at most {TEXT_MAX} bytes, not {}", text.len());
        return Err(ErrorBody { code: ErrorCode::TooLarge, message });
    }
    if key.is_some_and(|key| key.chars().count() > KEY_MAX) {
        let message = format!("a key has at most {KEY_MAX} characters");
        return Err(ErrorBody { code: ErrorCode::InvalidRequest, message });
    }
    Ok(())
}

fn forbidden(message: String) -> ErrorBody {
    ErrorBody { code: ErrorCode::Forbidden, message }
}

impl Around<'_> {
    fn mailbox(&mut self) -> Result<&mut dyn Mailbox, ErrorBody> {
        match &mut self.mailbox {
            Some(mailbox) => Ok(&mut **mailbox),
            None => Err(forbidden("this agent has no inbox, so its guest has no peers: --inbox DIR".into())),
        }
    }
}

fn describe(cx: &Context<'_>, upstream: &dyn Upstream) -> Info {
    let identity = &cx.config.identity;
    let (link, config) = upstream.describe(cx.now.boot, cx.config);
    Info {
        role: "agent".into(),
        version: identity.version.clone(),
        pid: identity.pid,
        incarnation: None,
        state_dir: String::new(),
        listen: identity.listen.clone(),
        started_at: identity.started_at,
        limits: Limits {
            control_clients: cx.config.control_clients_max as u64,
            control_requests: cx.config.control_requests_max as u64,
            request_bytes: LINE_MAX as u64,
            frame_bytes: FRAME_MAX as u64,
            events: cx.config.inbox.as_ref().map_or(0, |inbox| inbox.event_ring as u64),
            ..Limits::default()
        },
        config,
        link: Some(link),
    }
}
