//! Connections: who they are, what they send, when they leave.

use alloc::format;

use super::CLIENT_ID_MAX;
use super::client::{Client, Known, Stage};
use super::cx::TimerKey;
use super::engine::Terminals;
use super::wire::{
    CAPABILITIES, ChannelMode, ErrorCode, FRAME_MAX, Frames, GREETING_MAX, Handshake, PROTOCOL_VERSION,
    Rejection, Request, append_error, append_welcome,
};
use crate::boundary::{CloseReason, PeerCred, Wakeup};
use crate::event::{TerminalFact, shortened};
use crate::id::ConnId;

impl Terminals {
    pub(super) fn on_opened(&mut self, conn: ConnId, cred: Option<PeerCred>, room: usize) {
        let identity = &self.cx.config.identity;
        let ours = cred.filter(|cred| cred.uid == identity.uid || cred.uid == 0);
        let refusal = if ours.is_none() {
            let message = format!("this socket serves user {} and root", identity.uid);
            Some((ErrorCode::PermissionDenied, message))
        } else if self.is_draining() {
            Some((ErrorCode::ShuttingDown, "the daemon is stopping".into()))
        } else if self.clients.len() >= self.cx.config.connections_max {
            Some((ErrorCode::LimitReached, format!("{} clients are connected already", self.clients.len())))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            let mut frame = alloc::vec::Vec::new();
            append_error(0, code, &message, &mut frame);
            if frame.len() <= room {
                self.cx.out.transmit(conn, |out| out.extend_from_slice(&frame));
            }
            self.cx.out.close(conn, CloseReason::Refused);
            return;
        }
        let vouched = identity.pid != 0 && ours.is_some_and(|cred| cred.pid == identity.pid);
        let timer = self.cx.timers.insert(TimerKey::Client(conn));
        let by = self.cx.at() + self.cx.config.handshake_timeout;
        self.cx.timers.arm(timer, by, Wakeup::Handshake);
        let mut client = Client::new(conn, timer, vouched, by, room);
        client.number = self.opened;
        self.opened += 1;
        self.clients.insert(conn, client);
        self.cx.door(self.clients.len(), false);
    }

    pub(super) fn on_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&conn) else {
            self.cx.statistics.stale_inputs += 1;
            return;
        };
        if client.held.is_empty() {
            self.take(conn, bytes);
        } else {
            client.held.extend_from_slice(bytes);
        }
    }

    /// Every whole request, as far as the client may ask.
    fn take(&mut self, conn: ConnId, mut bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        // A request is read in place, while everything else may change.
        let mut frames = core::mem::take(&mut client.frames);
        let goes_on = self.take_frames(conn, &mut frames, &mut bytes);
        if let Some(client) = self.clients.get_mut(&conn) {
            client.frames = frames;
            client.held.extend_from_slice(bytes);
            client.pace(&mut self.cx.out, self.cx.config.requests_max);
            if !goes_on {
                self.leave(conn, CloseReason::Refused);
            }
        }
    }

    /// False: the stream can't be followed.
    fn take_frames(&mut self, conn: ConnId, frames: &mut Frames, bytes: &mut &[u8]) -> bool {
        loop {
            let Some(client) = self.clients.get(&conn) else { return true };
            if !client.may_ask(self.cx.config.requests_max) {
                return true;
            }
            let known = client.known().is_some();
            let limit = if known { FRAME_MAX } else { GREETING_MAX };
            let frame = match frames.next(bytes, limit) {
                Ok(None) => return true,
                Ok(Some(frame)) => frame,
                Err(error) => {
                    self.refuse(conn, 0, ErrorCode::ProtocolError, &format!("{error}"));
                    return false;
                }
            };
            match Request::parse(frame) {
                Ok((seq, request)) => self.on_request(conn, seq, &request),
                Err(rejected) => {
                    let code = match rejected.why {
                        Rejection::TooOld => ErrorCode::ProtoBreakingChange,
                        Rejection::Malformed(_) | Rejection::UnknownType => ErrorCode::ProtocolError,
                    };
                    self.refuse(conn, rejected.seq, code, &format!("{}", rejected.why));
                    // What a later version knows is refused, and the connection goes on.
                    if !known || rejected.why != Rejection::UnknownType {
                        return false;
                    }
                }
            }
        }
    }

    pub(super) fn on_handshake(&mut self, conn: ConnId, seq: u32, handshake: &Handshake<'_>) {
        let Some(client) = self.clients.get(&conn) else { return };
        let id = handshake.client_id;
        let known = client.vouched
            || self.cx.config.token.as_ref().is_some_and(|token| token.matches(handshake.token.0));
        let refusal = if client.known().is_some() {
            Some((ErrorCode::AlreadyAuthenticated, "there was a handshake on this connection".into()))
        } else if handshake.protocol_version != PROTOCOL_VERSION {
            let theirs = handshake.protocol_version;
            Some((
                ErrorCode::ProtocolMismatch,
                format!("this daemon speaks version {PROTOCOL_VERSION}, not {theirs}"),
            ))
        } else if !known {
            Some((ErrorCode::AuthFailed, "the token is not this daemon's: read its token file again".into()))
        } else if id.trim().is_empty() || id.len() > CLIENT_ID_MAX {
            Some((ErrorCode::InvalidClientId, format!("a client id has 1 to {CLIENT_ID_MAX} bytes")))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            self.cx.statistics.refused_handshakes += 1;
            // Whoever guesses fills no log: a connection's refusals are one line.
            if self.clients.get_mut(&conn).is_some_and(|client| client.note_refusal()) {
                self.cx.event(TerminalFact::Refused { client: shown(id), code: code.as_str().into() });
            }
            return self.refuse(conn, seq, code, &message);
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.stage = Stage::Known(Known {
            id: id.into(),
            role: handshake.role,
            dual: handshake.channel_mode == Some(ChannelMode::Dual),
            modest: handshake.capabilities.contains(&CAPABILITIES[0]),
        });
        self.cx.timers.disarm(client.timer);
        self.cx.statistics.handshakes += 1;
        let identity = &self.cx.config.identity;
        client.send(&mut self.cx.out, |out| {
            append_welcome(seq, &identity.version, identity.pid, &CAPABILITIES, out);
        });
        self.wake(conn);
    }

    pub(super) fn on_writable(&mut self, conn: ConnId, room: usize) {
        let Some(client) = self.clients.get_mut(&conn) else {
            self.cx.statistics.stale_inputs += 1;
            return;
        };
        client.writable(&mut self.cx.out, room);
        self.note_progress(conn);
        self.wake(conn);
    }

    pub(super) fn on_finished(&mut self, conn: ConnId) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.finished = true;
            self.wake(conn);
        }
    }

    pub(super) fn on_closed(&mut self, conn: ConnId) {
        if self.clients.contains_key(&conn) {
            self.remove(conn);
        } else {
            self.cx.statistics.stale_inputs += 1;
        }
    }

    pub(super) fn on_client_timer(&mut self, conn: ConnId) {
        if self.clients.get(&conn).is_some_and(|client| client.known().is_none()) {
            self.refuse(conn, 0, ErrorCode::NotAuthenticated, "no handshake in time");
            self.leave(conn, CloseReason::Refused);
        }
    }

    /// Closes a connection.
    pub(super) fn leave(&mut self, conn: ConnId, why: CloseReason) {
        self.remove(conn);
        self.cx.out.close(conn, why);
    }

    fn remove(&mut self, conn: ConnId) {
        let Some(client) = self.clients.remove(&conn) else { return };
        self.cx.timers.remove(client.timer);
        self.forget_asks(conn);
        for watch in &client.watches {
            self.end_watch(conn, watch.terminal);
        }
        self.release_all(conn);
        self.cx.door(self.clients.len(), self.is_draining());
    }

    /// Takes requests that had to wait; closes whoever has said and heard all.
    pub(super) fn resume(&mut self) {
        let most = self.cx.config.requests_max;
        while let Some(conn) = self.next_resumable(most) {
            let Some(client) = self.clients.get_mut(&conn) else { return };
            let held = core::mem::take(&mut client.held);
            self.take(conn, &held);
            self.wake(conn);
            self.pump();
        }
    }

    fn next_resumable(&mut self, most: usize) -> Option<ConnId> {
        while let Some(conn) = self.resumable.pop_front() {
            let Some(client) = self.clients.get_mut(&conn) else { continue };
            if !client.held.is_empty() && client.may_ask(most) {
                return Some(conn);
            }
            client.pace(&mut self.cx.out, most);
            if client.is_done() {
                self.leave(conn, CloseReason::Finished);
            }
        }
        None
    }
}

/// A client's own word, for an event.
pub(super) fn shown(id: &str) -> alloc::string::String {
    shortened(id, 64)
}
