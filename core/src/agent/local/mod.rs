//! Local control clients, in guest scope: what concerns the guest itself is
//! answered here, what the broker knows is asked over the link.
//!
//! Here: the clients and what they wait for. `requests` reads what they ask,
//! `answers` what the broker says to it, `streams` writes what they follow.

mod answers;
mod requests;
mod streams;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::tunnel::Released;
use super::{Context, Mailbox, Upstream};
use crate::attach::agent::Controller;
use crate::boundary::{CloseReason, Deadline, PeerCred, Wakeup};
use crate::control::client::Client;
use crate::control::reply::ErrorCode;
use crate::control::request::{Command, Rejected, Request};
use crate::id::{ConnId, GuestName, RequestId};
use crate::link::message::GuestRequestKind;
use crate::time::Time;
use streams::Follow;

/// The local clients and what they wait for.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    pub(super) clients: Vec<Seat>,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) last_id: u64,
    pub(super) draining: bool,
    /// Clients that asked for the terminals, with what they said after that.
    pub(super) released: Vec<Released>,
}

#[derive(Clone, Debug)]
pub(super) struct Seat {
    client: Client,
    /// Unanswered requests.
    open: usize,
    /// The events that it follows.
    events: Option<Follow>,
    /// It follows the inbox, and was told of messages up to this number.
    inbox: Option<u64>,
}

/// What the clients' requests are about, besides themselves.
pub(super) struct Around<'a> {
    pub(super) upstream: &'a mut dyn Upstream,
    pub(super) attach: &'a Controller,
    /// Only in an agent that takes part.
    pub(super) mailbox: Option<&'a mut dyn Mailbox>,
}

/// A request that the broker has to answer.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    conn: ConnId,
    id: Option<RequestId>,
    asked: Asked,
    deadline: Time,
}

/// What the answer depends on.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Guest(GuestRequestKind),
    Register {
        peer: GuestName,
    },
    Unregister {
        peer: GuestName,
    },
    List,
    Send {
        to: GuestName,
        bytes: u64,
    },
    /// Nothing: the agent says so itself.
    Attached,
}

impl Local {
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(super) fn on_opened(
        &mut self,
        cx: &mut Context<'_>,
        conn: ConnId,
        cred: Option<PeerCred>,
        room: usize,
        serving: bool,
    ) {
        let mut client = Client::new(conn, room);
        let uid = cx.config.identity.uid;
        let (code, message, why) = if cred.is_none_or(|cred| cred.uid != uid && cred.uid != 0) {
            let message = format!("this socket is for user {uid} and root");
            (ErrorCode::Forbidden, message, CloseReason::Refused)
        } else if !serving {
            (ErrorCode::ShuttingDown, "the agent stops".to_string(), CloseReason::Drained)
        } else if self.clients.len() >= cx.config.control_clients_max {
            let message = format!("{} clients are connected already: try again", self.clients.len());
            (ErrorCode::Busy, message, CloseReason::Refused)
        } else {
            self.clients.push(Seat { client, open: 0, events: None, inbox: None });
            return;
        };
        client.error(cx.out, None, code, message);
        cx.out.close(conn, why);
    }

    /// False: no such client.
    pub(super) fn on_bytes(
        &mut self,
        cx: &mut Context<'_>,
        conn: ConnId,
        bytes: &[u8],
        around: &mut Around<'_>,
    ) -> bool {
        let Some(index) = self.find(conn) else { return false };
        if self.draining {
            return true;
        }
        let mut input = bytes;
        while !input.is_empty() && !self.clients[index].client.is_blocked() {
            let request = match self.clients[index].client.line(&mut input) {
                Ok(Some(line)) => Request::parse(line, cx.config.request_timeout_max),
                Ok(None) => break,
                Err(error) => {
                    let client = &mut self.clients[index].client;
                    client.error(cx.out, None, ErrorCode::InvalidRequest, error.to_string());
                    self.close(cx, index, CloseReason::Refused);
                    return true;
                }
            };
            match request {
                Ok(Request { id, command: Command::Terminals { guest }, .. }) => {
                    return self.release(cx, index, (id, guest), input);
                }
                Ok(request) => self.on_request(cx, index, request, around),
                Err(Rejected { id, error }) => {
                    let client = &mut self.clients[index].client;
                    client.error(cx.out, id.as_ref(), error.code, error.message);
                }
            }
        }
        self.clients[index].client.keep(input);
        self.settle(cx, index);
        true
    }

    /// A client asks for the terminals: its connection is a stream from here on, or
    /// closed after the error. Whatever it said after the request is never a request.
    fn release(
        &mut self,
        cx: &mut Context<'_>,
        index: usize,
        (id, guest): (Option<RequestId>, Option<GuestName>),
        said: &[u8],
    ) -> bool {
        let seat = &mut self.clients[index];
        let own = cx.config.name;
        let refusal = if guest.is_some_and(|guest| guest != own) {
            let message = format!("this is the agent of {own}: ask the broker for others' terminals");
            Some((ErrorCode::Forbidden, message))
        } else if seat.open > 0 || seat.follows() {
            let message = "other requests of this connection are open: terminals need one of their own";
            Some((ErrorCode::InvalidRequest, message.to_string()))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            seat.client.error(cx.out, id.as_ref(), code, message);
            self.close(cx, index, CloseReason::Refused);
            return true;
        }
        let Seat { client, .. } = self.clients.swap_remove(index);
        let conn = client.conn();
        let (room, finished) = client.into_parts();
        self.released.push(Released { conn, room, id, said: said.to_vec(), finished });
        true
    }

    /// False: no such client.
    pub(super) fn on_writable(
        &mut self,
        cx: &mut Context<'_>,
        conn: ConnId,
        room: usize,
        around: &mut Around<'_>,
    ) -> bool {
        let Some(index) = self.find(conn) else { return false };
        let client = &mut self.clients[index].client;
        client.writable(cx.out, room);
        if client.is_blocked() {
            return true;
        }
        if self.draining {
            self.close(cx, index, CloseReason::Drained);
            return true;
        }
        let unread = client.take_unread();
        self.on_bytes(cx, conn, &unread, around)
    }

    /// The client will send no more. False: no such client.
    pub(super) fn on_finished(&mut self, cx: &mut Context<'_>, conn: ConnId) -> bool {
        let Some(index) = self.find(conn) else { return false };
        self.clients[index].client.finish();
        self.settle(cx, index);
        true
    }

    /// False: no such client.
    pub(super) fn on_closed(&mut self, conn: ConnId) -> bool {
        let Some(index) = self.find(conn) else { return false };
        self.clients.swap_remove(index);
        self.pending.retain(|_, pending| pending.conn != conn);
        true
    }

    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>, attach: &Controller) {
        let due = |pending: &Pending| pending.deadline <= cx.now.boot;
        let ids: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| due(pending)).map(|(&id, _)| id).collect();
        for id in ids {
            if let Some(pending) = self.pending.remove(&id) {
                let message = match pending.asked {
                    Asked::Attached => attach.explain(cx.now.boot),
                    _ => "the broker did not answer in time".into(),
                };
                self.fail(cx, &pending, ErrorCode::Timeout, &message);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        let at = self.pending.values().map(|pending| pending.deadline).min()?;
        Some(Deadline { at, why: Wakeup::Command })
    }

    #[cfg(feature = "model")]
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (ConnId, Time)> {
        self.pending.values().map(|pending| (pending.conn, pending.deadline))
    }

    /// Answers everything with `shutting_down` and closes every client that is not
    /// still being written to.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        self.fail_all(cx, ErrorCode::ShuttingDown, "the agent stops", |_| true);
        self.draining = true;
        self.clients.retain_mut(|seat| {
            (seat.events, seat.inbox) = (None, None);
            if !seat.client.is_blocked() {
                cx.out.close(seat.client.conn(), CloseReason::Drained);
            }
            seat.client.is_blocked()
        });
    }

    pub(super) fn close_all(&mut self, cx: &mut Context<'_>) {
        for seat in self.clients.drain(..) {
            cx.out.close(seat.client.conn(), CloseReason::Drained);
        }
    }

    fn fail(&mut self, cx: &mut Context<'_>, pending: &Pending, code: ErrorCode, message: &str) {
        self.conclude(cx, pending, |client, cx| client.error(cx.out, pending.id.as_ref(), code, message));
    }

    fn fail_all(
        &mut self,
        cx: &mut Context<'_>,
        code: ErrorCode,
        message: &str,
        which: impl Fn(&Pending) -> bool,
    ) {
        let failed: Vec<_> = self.pending.extract_if(.., |_, pending| which(pending)).collect();
        for (_, pending) in failed {
            self.fail(cx, &pending, code, message);
        }
    }

    /// The one reply to `pending`.
    fn conclude(
        &mut self,
        cx: &mut Context<'_>,
        pending: &Pending,
        reply: impl FnOnce(&mut Client, &mut Context<'_>),
    ) {
        let Some(index) = self.find(pending.conn) else { return };
        let seat = &mut self.clients[index];
        seat.open -= 1;
        reply(&mut seat.client, cx);
        self.settle(cx, index);
    }

    fn find(&self, conn: ConnId) -> Option<usize> {
        self.clients.iter().position(|seat| seat.client.conn() == conn)
    }

    /// Closes a client that has said and heard everything.
    fn settle(&mut self, cx: &mut Context<'_>, index: usize) {
        let seat = &self.clients[index];
        if seat.open == 0 && !seat.follows() && seat.client.is_finished() {
            self.close(cx, index, CloseReason::Finished);
        }
    }

    fn close(&mut self, cx: &mut Context<'_>, index: usize, why: CloseReason) {
        let conn = self.clients.swap_remove(index).client.conn();
        self.pending.retain(|_, pending| pending.conn != conn);
        cx.out.close(conn, why);
    }
}
