//! Where managed attach meets the rest of the broker: requests in, answers and frames out.

use core::time::Duration;

use crate::attach::manager::{Asker, Call, Post, Reply, Wanted};
use crate::attach::server::{Answer, Request};
use crate::attach::wire::AttachRequest;
use crate::broker::Broker;
use crate::broker::commands::unknown;
use crate::broker::cx::Cx;
use crate::broker::facts::Notice;
use crate::broker::guests::Guests;
use crate::broker::links::Links;
use crate::control::request::Command;
use crate::id::{ConnId, RequestId};

impl Links {
    /// A guest says something of managed attach. What a session without a row says
    /// of itself counts for nothing.
    pub(crate) fn on_attach(&self, cx: &mut Cx, guests: &Guests, conn: ConnId, request: AttachRequest) {
        if let Some(row) = self.speaker(guests, conn) {
            cx.notify(Notice::Attach((conn, row.name(), request).into()));
        }
    }
}

impl Broker {
    /// A request about attachments from control.
    pub(super) fn on_manager_request(
        &mut self,
        conn: ConnId,
        id: Option<RequestId>,
        command: Command,
        timeout: Option<Duration>,
    ) {
        let Self { cx, guests, clients, manager, .. } = self;
        let asker = Asker { conn, id: id.clone() };
        match command {
            Command::Adopt { guest, beach, link, wait } => {
                manager.adopt(cx, guests, asker, guest, (beach, link, wait), timeout);
            }
            Command::Release { guest } => manager.release(cx, guests, asker, guest, timeout),
            Command::ActionSend { guest, kind, payload, ttl, wait } => {
                let wanted = Wanted { kind, payload, ttl, wait };
                manager.send_action(cx, guests, asker, guest, wanted, timeout);
            }
            Command::ActionList { guest: Some(guest) }
                if guests.find(&guest).is_none() && !manager.knows(&guest) =>
            {
                clients.error(conn, id, &unknown(&guest));
            }
            Command::ActionList { guest } => {
                clients.reply(conn, id, "actions", &manager.list_actions(cx, guest));
            }
            _ => clients.reply(conn, id, "attachments", &manager.list(cx, guests)),
        }
    }

    /// Bytes of an HTTP client.
    pub(super) fn on_http_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        self.server.on_bytes(&mut self.cx, conn, bytes);
        self.serve(conn);
    }

    /// Takes requests of an HTTP client, as long as each is answered at once.
    fn serve(&mut self, conn: ConnId) {
        let Self { cx, guests, manager, server, .. } = self;
        while let Some(Request { call, ask }) = server.next(cx, conn) {
            let answer = match ask {
                Ok((bearer, ask)) => manager.on_ask(cx, guests, call, &bearer, ask),
                Err(answer) => {
                    manager.note_refusal(cx, None, answer.status, answer.error);
                    Some(answer)
                }
            };
            if let Some(answer) = answer {
                server.answer(cx, call, &answer);
            }
        }
    }

    pub(super) fn on_http_writable(&mut self, conn: ConnId, room: usize) {
        self.server.on_writable(&mut self.cx, conn, room);
        self.serve(conn);
    }

    pub(super) fn on_http_finished(&mut self, conn: ConnId) {
        if let Some(poll) = self.server.on_finished(&mut self.cx, conn) {
            return self.end_http(poll, &Answer::actions(alloc::vec::Vec::new()));
        }
        // What came before may be a whole request, or never will.
        self.serve(conn);
    }

    pub(super) fn on_http_timer(&mut self, conn: ConnId) {
        if let Some((call, answer)) = self.server.on_timer(&mut self.cx, conn) {
            self.end_http(call, &answer);
        }
    }

    pub(super) fn on_http_door_timer(&mut self) {
        let Self { cx, manager, server, .. } = self;
        if let Some(answer) = server.on_door_timer(cx) {
            manager.note_refusal(cx, None, answer.status, "evicted");
        }
    }

    fn end_http(&mut self, call: Call, answer: &Answer) {
        let Self { cx, manager, server, .. } = self;
        manager.end_call(cx, call);
        server.answer(cx, call, answer);
        self.serve(call.conn);
    }

    pub(super) fn on_http_closed(&mut self, conn: ConnId) {
        let Self { cx, manager, server, .. } = self;
        if let Some(call) = server.on_closed(cx, conn) {
            manager.end_call(cx, call);
        }
    }

    /// Writes what may be written, sends the actions that may flow, and says what there
    /// is to say.
    pub(super) fn pump_manager(&mut self) {
        if self.manager.is_quiet() {
            return;
        }
        loop {
            let Self { cx, guests, links, commands, manager, .. } = self;
            manager.advance(cx, guests, |guest| commands.is_forgetting(guest));
            manager
                .catch_up(|conn, json| links.send(cx, conn, json.len(), |out| out.extend_from_slice(json)));
            while let Some(post) = self.manager.post.pop_front() {
                self.post_one(post);
            }
            // Behind what was said before: nobody takes actions before it is told that it is attached.
            let Self { cx, guests, links, manager, .. } = self;
            manager.flow(cx, guests, |cx, conn, json| links.send_if_idle(cx, conn, json));
            if self.manager.post.is_empty() {
                break;
            }
        }
        let Self { cx, manager, .. } = self;
        manager.rearm(cx);
    }

    fn post_one(&mut self, post: Post) {
        let Self { cx, links, clients, manager, server, .. } = self;
        match post {
            Post::Reply(Asker { conn, id }, Ok(Reply::Adopted(adopted))) => {
                clients.reply(conn, id, "adopted", &adopted);
            }
            Post::Reply(Asker { conn, id }, Ok(Reply::Released(released))) => {
                clients.reply(conn, id, "released", &released);
            }
            Post::Reply(Asker { conn, id }, Ok(Reply::Action(action))) => {
                clients.reply(conn, id, "action", &action);
            }
            Post::Reply(Asker { conn, id }, Err(error)) => clients.error(conn, id, &error),
            Post::Frame(conn, frame) => {
                let json = &frame.0;
                let sent = !manager.has_backlog(conn)
                    && links.send(cx, conn, json.len(), |out| out.extend_from_slice(json));
                if !sent {
                    manager.put_off(conn, frame);
                }
            }
            Post::Http(call, answer) => {
                server.answer(cx, call, &answer);
                self.serve(call.conn);
            }
        }
    }
}
