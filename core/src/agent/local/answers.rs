//! What the broker answered, as the client that asked reads it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::{Asked, Local, Pending};
use crate::agent::Context;
use crate::broker::walk::append_head;
use crate::control::attach::{AttachmentRow, Attachments};
use crate::control::reply::{ErrorCode, MessageResult, PeerChanged, PeerNames, PeersListed};
use crate::event::Fact;
use crate::id::GuestName;
use crate::link::message::GuestRequestKind;
use crate::peers::wire::PeerResult;
use crate::peers::{Outcome, bounded_reason};

impl Local {
    /// The session is over: nothing that was asked over it will be answered.
    pub(in crate::agent) fn on_lost(&mut self, cx: &mut Context<'_>, message: &str) {
        let asked_there = |pending: &Pending| !matches!(pending.asked, Asked::Attached);
        self.fail_all(cx, ErrorCode::NotReachable, message, asked_there);
    }

    /// Whether somebody waits for the agent to be attached.
    pub(in crate::agent) fn awaits_attach(&self) -> bool {
        self.pending.values().any(|pending| matches!(pending.asked, Asked::Attached))
    }

    /// The agent is attached.
    pub(in crate::agent) fn on_attached(&mut self, cx: &mut Context<'_>, row: &AttachmentRow) {
        let waited = |pending: &Pending| matches!(pending.asked, Asked::Attached);
        let waited: Vec<_> = self.pending.extract_if(.., |_, pending| waited(pending)).collect();
        for (_, pending) in waited {
            self.conclude(cx, &pending, |client, cx| {
                let data = Attachments { attachments: [row.clone()].into() };
                client.reply(cx.out, pending.id.as_ref(), "attachments", data);
            });
        }
    }

    /// The answer to a question about who is there.
    pub(in crate::agent) fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        result: Result<&RawValue, ErrorCode>,
    ) {
        // Late: it was answered with `timeout`, or the client is gone.
        let Some(pending) = self.pending.remove(&id) else { return };
        match (result, &pending.asked) {
            (Ok(data), Asked::Guest(kind)) => self.answer(cx, &pending, *kind, data),
            (Ok(_), _) => self.fail(cx, &pending, ErrorCode::Internal, "the broker answered something else"),
            (Err(code), _) => self.fail(cx, &pending, code, &explain(code)),
        }
    }

    /// The answer to a question about peers.
    pub(in crate::agent) fn on_result(&mut self, cx: &mut Context<'_>, result: PeerResult) {
        let Some(pending) = self.pending.remove(&result.id) else { return };
        let PeerResult { outcome, reason, message_id, peers, .. } = result;
        let reason = reason.map(|reason| bounded_reason(&reason));
        match (&pending.asked, outcome, message_id) {
            (Asked::Register { peer }, Outcome::Registered, _) => {
                self.changed(cx, &pending, "peer_registered", *peer, outcome);
            }
            (Asked::Unregister { peer }, Outcome::Unregistered, _) => {
                self.changed(cx, &pending, "peer_unregistered", *peer, outcome);
            }
            (Asked::List, Outcome::Listed, _) => {
                let listed = PeersListed { peers: peers.unwrap_or_default() };
                self.conclude(cx, &pending, |client, cx| {
                    client.reply(cx.out, pending.id.as_ref(), "peers_listed", listed);
                });
            }
            (
                &Asked::Send { to, bytes },
                Outcome::Delivered | Outcome::Queued | Outcome::Rejected | Outcome::Expired,
                Some(id),
            ) => {
                cx.event(Fact::MessageSent { id, to, bytes });
                self.conclude(cx, &pending, |client, cx| {
                    let data = MessageResult { id, outcome, reason };
                    client.reply(cx.out, pending.id.as_ref(), "peer_message_result", data);
                });
            }
            (_, other, _) => {
                let code = ErrorCode::from_word(other.as_str()).unwrap_or(ErrorCode::Internal);
                let mut message = explain(code);
                if let Some(reason) = reason {
                    message += &format!(": {reason}");
                }
                self.fail(cx, &pending, code, &message);
            }
        }
    }

    fn changed(
        &mut self,
        cx: &mut Context<'_>,
        pending: &Pending,
        event: &str,
        peer: GuestName,
        outcome: Outcome,
    ) {
        let result = PeerNames { peer, source: cx.config.name };
        self.conclude(cx, pending, |client, cx| {
            client.reply(cx.out, pending.id.as_ref(), event, PeerChanged { result, outcome });
        });
    }

    fn answer(&mut self, cx: &mut Context<'_>, pending: &Pending, kind: GuestRequestKind, data: &RawValue) {
        let event = match kind {
            GuestRequestKind::Status => "status",
            GuestRequestKind::Wait => "waited",
            GuestRequestKind::PingGuest => "pong",
            GuestRequestKind::Restore => "restored",
        };
        self.conclude(cx, pending, |client, cx| {
            client.send(cx.out, |bytes| {
                append_head(bytes, pending.id.as_ref(), event);
                // A line end within JSON is white space; here it would end the reply.
                let one_line = |byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
                bytes.extend(data.get().bytes().map(one_line));
                bytes.extend_from_slice(b"}\n");
            });
        });
    }
}

fn explain(code: ErrorCode) -> String {
    match code {
        ErrorCode::UnknownGuest => "the broker tells a guest about itself and its peers only".into(),
        ErrorCode::Timeout => "not within the time given".into(),
        ErrorCode::NotReachable => "the broker has no proven session with that guest".into(),
        ErrorCode::Busy => {
            "the broker has too much to do for this guest, or this guest is on hold: try again \
                            (`castra agent resume` ends a hold)"
                .into()
        }
        ErrorCode::ShuttingDown => "the broker takes leave: try again".into(),
        ErrorCode::Itself => "a guest is no peer of its own".into(),
        ErrorCode::Rejected => "there is no such guest, or it would not".into(),
        ErrorCode::NotPeer => "the two are no peers: link them first".into(),
        ErrorCode::Full => "what waits for that guest is as much as is kept: try again later".into(),
        ErrorCode::TooLarge => "the message is longer than one can be".into(),
        ErrorCode::StorageFailed => "the broker could not make it durable; nothing changed".into(),
        other => format!("the broker answered {other}"),
    }
}
