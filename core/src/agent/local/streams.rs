//! What clients follow: events, and what comes into the inbox. A stream is
//! written one line at a time, as fast as its client reads.

use alloc::collections::VecDeque;

use super::{Local, Seat};
use crate::agent::{Context, Events};
use crate::broker::walk::{Filter, append_head};
use crate::control::reply::{Gap, Inbox as InboxReply, InboxMessage};
use crate::event::Cursor;
use crate::link::message::append_json;
use crate::peers::Received;

/// A stream of events.
#[derive(Clone, Debug)]
pub(super) struct Follow {
    pub(super) next: u64,
    pub(super) filter: Filter,
}

impl Local {
    /// Tells followers what is new, as far as they read.
    pub(in crate::agent) fn stream(&mut self, cx: &mut Context<'_>, inbox: Option<&VecDeque<Received>>) {
        for seat in &mut self.clients {
            while !seat.client.is_blocked() && (seat.next_event(cx) || seat.next_message(cx, inbox)) {}
        }
    }
}

impl Seat {
    pub(super) fn follows(&self) -> bool {
        self.events.is_some() || self.inbox.is_some()
    }

    /// Sends the next event, or a gap; false: there is none.
    fn next_event(&mut self, cx: &mut Context<'_>) -> bool {
        let Events { incarnation, ring: Some(ring), .. } = &*cx.events else { return false };
        let Some(follow) = &mut self.events else { return false };
        if follow.next < ring.oldest() {
            follow.next = ring.oldest();
            let cursor = Cursor { incarnation: *incarnation, number: follow.next - 1 };
            self.client.reply(cx.out, None, "gap", Gap { cursor });
            return true;
        }
        while let Some(event) = ring.get(follow.next) {
            follow.next += 1;
            if follow.filter.admits(&event) {
                self.client.send(cx.out, |line| {
                    append_head(line, None, event.fact.kind());
                    event.append_json(None, line);
                    line.extend_from_slice(b"}\n");
                });
                return true;
            }
        }
        false
    }

    /// Sends the next message; false: there is none.
    fn next_message(&mut self, cx: &mut Context<'_>, inbox: Option<&VecDeque<Received>>) -> bool {
        let (Some(told), Some(inbox)) = (&mut self.inbox, inbox) else { return false };
        let next = inbox.get(inbox.partition_point(|message| message.number <= *told));
        let Some(message) = next else { return false };
        *told = message.number;
        self.client.send(cx.out, |line| {
            append_head(line, None, "inbox");
            append_json(line, &InboxReply { messages: [shown(message)].into() });
            line.extend_from_slice(b"}\n");
        });
        true
    }
}

/// A message, as a client reads it.
pub(super) fn shown(message: &Received) -> InboxMessage {
    InboxMessage {
        id: message.id,
        from: message.from,
        from_authenticated: message.from_authenticated,
        text: message.text.as_ref().into(),
        sent_at: message.sent_at,
        delivered_at: Some(message.delivered_at),
        wake: message.wake,
    }
}
