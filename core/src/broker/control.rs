//! Requests on control: who answers what.

use alloc::string::ToString;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::auth::Key;
use crate::broker::Broker;
use crate::broker::changes::StoreOp;
use crate::broker::clients::{Follow, problem};
use crate::broker::commands::{Asker, unknown};
use crate::broker::cx::Cx;
use crate::broker::facts::Notice;
use crate::broker::walk::{self, Envelope, Filter, Names, Walk};
use crate::control::reply::{Empty, ErrorCode, Info, Settings};
use crate::control::request::{Command, Request};
use crate::event::Cursor;
use crate::id::{ConnId, GuestName};
use crate::time::millis;

impl Broker {
    pub(crate) fn on_request_bytes(&mut self, conn: ConnId, mut bytes: &[u8]) {
        if self.clients.hold(conn, bytes) {
            return;
        }
        while let Some(request) = self.clients.next_request(&mut self.cx, conn, &mut bytes) {
            self.on_request(conn, request);
            // Requests are begun in their order, however they came in.
            self.settle();
        }
        // What comes after a request for terminals is for them.
        if !bytes.is_empty() {
            self.tunnels.on_bytes(&mut self.cx, conn, bytes);
        }
    }

    /// Requests that had to wait for answers to leave.
    pub(crate) fn resume_clients(&mut self) {
        for conn in self.clients.waiting() {
            if let Some(held) = self.clients.take_held(&mut self.cx, conn) {
                self.on_request_bytes(conn, &held);
                self.more = true;
            }
        }
    }

    fn on_request(&mut self, conn: ConnId, Request { id, command, timeout }: Request) {
        let Self { cx, guests, clients, commands, .. } = self;
        if cx.draining {
            let error = problem(ErrorCode::ShuttingDown, "the broker is stopping");
            return clients.error(conn, id, &error);
        }
        let asker = Asker::Client { conn, id: id.clone() };
        match command {
            Command::Info => clients.reply(conn, id, "info", &info(cx)),
            Command::Status { guests: names } => {
                if let Some(stranger) = names.iter().find(|name| guests.find(name).is_none()) {
                    return clients.error(conn, id, &unknown(stranger));
                }
                let names = if names.is_empty() { Names::All(None) } else { Names::Listed(sorted(names), 0) };
                clients.walk(conn, Walk::status(Envelope::Line(id), names, cx.now.wall), None);
            }
            Command::Wait { guests: names, target, any } => {
                commands.wait(cx, clients, guests, asker, (names, target, any), timeout);
            }
            Command::Ping { guest } => commands.ping(cx, clients, guests, asker, guest, timeout),
            Command::Events { since, follow, kinds, guests: names, limit } => {
                let filter = Filter { kinds, guests: sorted(names) };
                let (walk, follow) = events(cx, Envelope::Line(id), since, follow, filter, limit);
                clients.walk(conn, walk, follow);
            }
            Command::TokenIssue { guest } => {
                let mut bytes = Zeroizing::new([0; 32]);
                cx.entropy.fill(&mut *bytes);
                let key = Key::from_bytes(*bytes);
                commands.store(cx, clients, asker, StoreOp::Issue { guest, key }, timeout);
            }
            Command::TokenRevoke { guest } => {
                if guests.token(&guest).flatten().is_none() {
                    let message = alloc::format!("{guest} has no token; castra token list shows who has");
                    return clients.error(conn, id, &problem(ErrorCode::UnknownGuest, message));
                }
                commands.store(cx, clients, asker, StoreOp::Revoke { guest }, timeout);
            }
            Command::TokenList => clients.walk(conn, Walk::tokens(Envelope::Line(id)), None),
            Command::Forget { guest } => {
                if guests.find(&guest).is_none() && guests.token(&guest).is_none() {
                    return clients.error(conn, id, &unknown(&guest));
                }
                commands.store(cx, clients, asker, StoreOp::Forget { guest }, timeout);
            }
            Command::Terminals { guest } => self.on_terminals(conn, id, guest, timeout),
            Command::Restore { guest } => commands.restore(cx, clients, guests, asker, guest, timeout),
            Command::ListPeers { .. }
            | Command::RegisterPeer { .. }
            | Command::UnregisterPeer { .. }
            | Command::SendToPeer { .. }
            | Command::Inbox { .. }
            | Command::PeerAnswer { .. }
            | Command::Hold { .. } => self.on_peer_request(conn, id, command, timeout),
            Command::Adopt { .. }
            | Command::Release { .. }
            | Command::Attachments { .. }
            | Command::ActionSend { .. }
            | Command::ActionList { .. } => self.on_manager_request(conn, id, command, timeout),
            Command::Reload => commands.reload(cx, asker, timeout),
            Command::Shutdown => {
                clients.reply(conn, id, "shutting_down", &Empty {});
                cx.notify(Notice::Shutdown);
            }
        }
    }
}

/// What `events` answers, and what it goes on with.
fn events(
    cx: &Cx,
    envelope: Envelope,
    since: Option<Cursor>,
    follow: bool,
    filter: Filter,
    limit: usize,
) -> (Walk, Option<Follow>) {
    let newest = cx.ring.newest();
    let (next, gap) = match since {
        None if follow => (newest + 1, false),
        None => (cx.ring.oldest(), false),
        Some(cursor) if cursor.incarnation != cx.incarnation => (cx.ring.oldest(), true),
        Some(cursor) => (cursor.number.min(newest) + 1, cursor.number > newest),
    };
    let limit = if follow { u64::MAX } else { limit as u64 };
    let follow = follow.then(|| Follow { next: newest + 1, filter: filter.clone() });
    (Walk::events(envelope, next, newest, gap, filter, limit), follow)
}

fn info(cx: &Cx) -> Info {
    let identity = &cx.config.identity;
    Info {
        role: "broker".to_string(),
        version: identity.version.clone(),
        pid: identity.pid,
        incarnation: Some(cx.incarnation),
        state_dir: identity.state_dir.clone(),
        listen: identity.listen.clone(),
        started_at: identity.started_at,
        limits: walk::limits(cx),
        config: Settings {
            window_ms: millis(cx.config.window),
            interval_ms: millis(cx.config.interval),
            handshake_timeout_ms: millis(cx.config.handshake_timeout),
            require_token: cx.config.require_token,
            accept_unproven: cx.config.accept_unproven,
            only_known: cx.config.only_known,
        },
        link: None,
    }
}

fn sorted(mut names: Vec<GuestName>) -> Vec<GuestName> {
    names.sort_unstable();
    names.dedup();
    names
}
