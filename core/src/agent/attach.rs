//! Where managed attach meets the link, local clients and the end.

use super::link::{Link, State};
use super::local::Local;
use super::{Agent, Context, Life};
use crate::attach::HttpAnswer;
use crate::attach::agent::Controller;
use crate::attach::wire::AttachRequest;
use crate::id::EffectId;
use crate::link::message::append_json;
use crate::sender::Sender;

impl Agent {
    pub(super) fn on_answered(&mut self, effect: EffectId, answer: &HttpAnswer<'_>) -> bool {
        self.parts(|parts, cx| parts.attach.on_answered(cx, effect, answer))
    }

    /// After anything that happened: whatever can begin begins, what is to be said is
    /// said as far as there is room, and whoever waited is answered.
    pub(super) fn attach(&mut self) {
        if !self.attach.is_astir() {
            return;
        }
        self.parts(|parts, cx| {
            let attach = parts.attach;
            attach.advance(cx);
            say(attach, parts.link, cx);
            if attach.is_attached() && parts.local.awaits_attach() {
                answer(parts.local, attach, cx);
            }
        });
    }

    /// Whether the agent may end, as far as actions are concerned.
    pub(super) fn is_drained(&self) -> bool {
        match self.life {
            Life::Draining { deadline } => self.attach.is_drained() || deadline <= self.now.boot,
            Life::Serving | Life::Stopped => true,
        }
    }
}

fn say(attach: &mut Controller, link: &mut Link, cx: &mut Context<'_>) {
    let now = cx.now.boot;
    attach.say(now, &mut |request| link.offer(cx, request));
}

fn answer(local: &mut Local, attach: &Controller, cx: &mut Context<'_>) {
    if let Some(row) = attach.row(cx.config.name, cx.now.boot) {
        local.on_attached(cx, &row);
    }
}

impl Link {
    /// Says something of managed attach, unless that would hold up anything else.
    /// False: there is no room, or no session; the shell says when there is.
    fn offer(&mut self, cx: &mut Context<'_>, request: &AttachRequest) -> bool {
        let State::Up { wire, session } = &mut self.state else { return false };
        if !wire.sender.has_room_for(FRAME_MOST) {
            return false;
        }
        wire.send_frame(cx, session.tags.as_mut(), |bytes| append_json(bytes, request));
        true
    }

    /// Says something of managed attach as one of a session's first frames.
    pub(super) fn begin_with(&mut self, cx: &mut Context<'_>, request: &AttachRequest) {
        if let State::Up { wire, session } = &mut self.state {
            wire.send_frame(cx, session.tags.as_mut(), |bytes| append_json(bytes, request));
        }
    }
}

/// No frame of managed attach that an agent sends is longer, with its tag, its length
/// and its padding: a code of 512 bytes and two ids, or a message that is escaped.
const FRAME_MOST: usize = 2048;

impl Sender {
    /// Whether so many bytes leave a third of the buffer free. While less than half is,
    /// the shell will say when there is more.
    fn has_room_for(&self, bytes: usize) -> bool {
        let capacity = self.capacity();
        !self.is_blocked() && self.room() >= (capacity / 3 + bytes).min(capacity / 2)
    }
}
