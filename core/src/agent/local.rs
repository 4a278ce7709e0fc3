//! Local control clients, in guest scope: what concerns the guest itself is
//! answered here, what the broker knows is asked over the link.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use serde_json::value::RawValue;

use super::{Context, LinkFact, Upstream};
use crate::boundary::{CloseReason, Deadline, PeerCred, Wakeup};
use crate::control::client::Client;
use crate::control::reply::{ErrorCode, Info, Limits};
use crate::control::request::{Command, LINE_MAX, Rejected, Request};
use crate::id::{ConnId, RequestId};
use crate::link::inbox::FRAME_MAX;
use crate::link::message::{GuestRequest, GuestRequestKind, append_json};
use crate::time::{Time, millis};

/// The local clients and what they wait for.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    pub(super) clients: Vec<Seat>,
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) last_id: u64,
    pub(super) draining: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Seat {
    client: Client,
    /// Unanswered requests.
    open: usize,
}

/// A request that the broker has to answer.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    conn: ConnId,
    id: Option<RequestId>,
    kind: GuestRequestKind,
    deadline: Time,
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
            self.clients.push(Seat { client, open: 0 });
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
        upstream: &mut dyn Upstream,
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
                Ok(request) => self.on_request(cx, index, request, upstream),
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

    /// False: no such client.
    pub(super) fn on_writable(
        &mut self,
        cx: &mut Context<'_>,
        conn: ConnId,
        room: usize,
        upstream: &mut dyn Upstream,
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
        self.on_bytes(cx, conn, &unread, upstream)
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

    pub(super) fn on_fact(&mut self, cx: &mut Context<'_>, fact: LinkFact<'_>) {
        match fact {
            LinkFact::Lost(message) => self.fail_all(cx, ErrorCode::NotReachable, message),
            LinkFact::Answer { id, result } => {
                // Late: it was answered with `timeout`, or the client is gone.
                let Some(pending) = self.pending.remove(&id) else { return };
                match result {
                    Ok(data) => self.answer(cx, &pending, data),
                    Err(code) => self.fail(cx, &pending, code, &explain(code)),
                }
            }
        }
    }

    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>) {
        let due = |pending: &Pending| pending.deadline <= cx.now.boot;
        let ids: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| due(pending)).map(|(&id, _)| id).collect();
        for id in ids {
            if let Some(pending) = self.pending.remove(&id) {
                self.fail(cx, &pending, ErrorCode::Timeout, "the broker did not answer in time");
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
        self.fail_all(cx, ErrorCode::ShuttingDown, "the agent stops");
        self.draining = true;
        self.clients.retain(|seat| {
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

    fn on_request(
        &mut self,
        cx: &mut Context<'_>,
        index: usize,
        request: Request,
        upstream: &mut dyn Upstream,
    ) {
        let Request { id, command, timeout } = request;
        let config = cx.config;
        let seat = &mut self.clients[index];
        let (kind, guests, target, any, default) = match command {
            Command::Info => {
                let info = describe(cx, upstream);
                seat.client.reply(cx.out, id.as_ref(), "info", info);
                return;
            }
            Command::Status { guests } => {
                (GuestRequestKind::Status, guests, None, false, config.ping_timeout)
            }
            Command::Wait { guests, target, any } => {
                (GuestRequestKind::Wait, guests, Some(target), any, config.wait_timeout)
            }
            Command::Ping { guest } => {
                (GuestRequestKind::PingGuest, Vec::from([guest]), None, false, config.ping_timeout)
            }
            _ => {
                let message = "an agent answers info, status, wait and ping: ask the broker, on the host";
                seat.client.error(cx.out, id.as_ref(), ErrorCode::Forbidden, message);
                return;
            }
        };
        if seat.open >= config.control_requests_max {
            let message = format!("{} requests of this client are unanswered: wait for one", seat.open);
            seat.client.error(cx.out, id.as_ref(), ErrorCode::Busy, message);
            return;
        }
        let timeout: Duration = timeout.unwrap_or(default);
        let question = GuestRequest {
            kind,
            id: self.last_id + 1,
            guests,
            target,
            any,
            timeout_ms: Some(millis(timeout)),
        };
        if let Err(error) = upstream.ask(cx, &question) {
            seat.client.error(cx.out, id.as_ref(), error.code, error.message);
            return;
        }
        self.last_id += 1;
        seat.open += 1;
        let pending = Pending { conn: seat.client.conn(), id, kind, deadline: cx.now.boot + timeout };
        self.pending.insert(self.last_id, pending);
    }

    fn answer(&mut self, cx: &mut Context<'_>, pending: &Pending, data: &RawValue) {
        let event = match pending.kind {
            GuestRequestKind::Status => "status",
            GuestRequestKind::Wait => "waited",
            GuestRequestKind::PingGuest => "pong",
            GuestRequestKind::Restore => "restored",
        };
        self.conclude(cx, pending, |client, cx| {
            client.send(cx.out, |bytes| {
                bytes.push(b'{');
                if let Some(id) = &pending.id {
                    bytes.extend_from_slice(br#""id":"#);
                    append_json(bytes, id);
                    bytes.push(b',');
                }
                bytes.extend_from_slice(br#""event":""#);
                bytes.extend_from_slice(event.as_bytes());
                bytes.extend_from_slice(br#"","data":"#);
                // A line end within JSON is white space; here it would end the reply.
                let one_line = |byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
                bytes.extend(data.get().bytes().map(one_line));
                bytes.extend_from_slice(b"}\n");
            });
        });
    }

    fn fail(&mut self, cx: &mut Context<'_>, pending: &Pending, code: ErrorCode, message: &str) {
        self.conclude(cx, pending, |client, cx| client.error(cx.out, pending.id.as_ref(), code, message));
    }

    fn fail_all(&mut self, cx: &mut Context<'_>, code: ErrorCode, message: &str) {
        for pending in core::mem::take(&mut self.pending).into_values() {
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
        if seat.open == 0 && seat.client.is_finished() {
            self.close(cx, index, CloseReason::Finished);
        }
    }

    fn close(&mut self, cx: &mut Context<'_>, index: usize, why: CloseReason) {
        let conn = self.clients.swap_remove(index).client.conn();
        self.pending.retain(|_, pending| pending.conn != conn);
        cx.out.close(conn, why);
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
            ..Limits::default()
        },
        config,
        link: Some(link),
    }
}

fn explain(code: ErrorCode) -> String {
    match code {
        ErrorCode::UnknownGuest => "the broker tells a guest about itself and its peers only".into(),
        ErrorCode::Timeout => "not within the time given".into(),
        ErrorCode::NotReachable => "the broker has no proven session with that guest".into(),
        ErrorCode::Busy => "the broker has too many questions open: try again".into(),
        ErrorCode::ShuttingDown => "the broker takes leave: try again".into(),
        other => format!("the broker answered {other}"),
    }
}
