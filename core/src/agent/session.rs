//! Phase B: frames, until somebody takes leave.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::link::Facts;
use super::wire::{Tags, Wire};
use super::{Context, LinkFact};
use crate::auth::Direction;
use crate::event::Escaped;
use crate::id::{Epoch, Nonce};
use crate::link::inbox::RESYNC;
use crate::link::line::Ok as Accepted;
use crate::link::message::{BrokerFrame, append_json, append_ping, append_proof};
use crate::peers::wire::PeerRequest;
use crate::time::Time;

/// A session that the broker granted.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) epoch: Epoch,
    pub(super) interval: Duration,
    pub(super) window: Duration,
    pub(super) since: Time,
    pub(super) tags: Option<Tags>,
    /// Without a challenge until here, the broker is gone.
    pub(super) quiet_until: Time,
    /// The broker was already given a second chance.
    pub(super) patient: bool,
    /// Since when a frame is coming.
    pub(super) frame_since: Option<Time>,
}

/// Why a session can't go on.
#[derive(Debug)]
pub(super) enum End {
    /// The broker said `bye`.
    Bye { code: String, retry_after: Option<Duration> },
    /// What came is not the protocol.
    Protocol(&'static str),
    /// Serial: the other end isn't in this session.
    Resynchronise,
}

/// What to answer a frame with.
enum Answer {
    Nothing,
    Proof(u64, Nonce),
    Pong(u64),
    Peer(PeerRequest),
}

/// An interval beyond this is a broker that never asks.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a frame that is coming counts as a sign of life: a damaged length may
/// promise one that never ends.
const FRAME_TIME: Duration = Duration::from_secs(10);

impl Session {
    pub(super) fn new(cx: &Context<'_>, accepted: &Accepted, tags: Option<Tags>) -> Self {
        let mut session = Self {
            epoch: accepted.epoch,
            interval: accepted.interval.min(INTERVAL_MAX),
            window: accepted.window,
            since: cx.now.boot,
            tags,
            quiet_until: cx.now.boot,
            patient: false,
            frame_since: None,
        };
        session.heard(cx);
        session
    }

    /// Reads frames. `input` moves past what was taken; `None`: all of it was.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        input: &mut &[u8],
        facts: Facts<'_>,
    ) -> Option<End> {
        let resync = if wire.serial { input.iter().position(|&byte| byte == RESYNC) } else { None };
        let whole = *input;
        let (mut frames, after) = whole.split_at(resync.unwrap_or(whole.len()));
        *input = after.get(1..).unwrap_or_default();
        while let Some(&first) = frames.first() {
            if wire.serial && first >= b' ' && wire.inbox.is_at_boundary() {
                // Perhaps it is the greeting that comes here.
                *input = &whole[whole.len() - after.len() - frames.len()..];
                return Some(End::Resynchronise);
            }
            let payload = match wire.inbox.frame(&mut frames) {
                Ok(Some(payload)) => payload,
                Ok(None) => {
                    // A long frame on a slow link holds the challenges back.
                    if cx.now.boot < *self.frame_since.get_or_insert(cx.now.boot) + FRAME_TIME {
                        self.heard(cx);
                    }
                    break;
                }
                Err(_) => return Some(End::Protocol("a frame of impossible length")),
            };
            self.frame_since = None;
            let json = match &mut self.tags {
                None => payload,
                Some(tags) => match tags.key.open(Direction::ToGuest, tags.received, payload) {
                    Ok(json) => {
                        tags.received += 1;
                        json
                    }
                    Err(_) => return Some(End::Protocol("a frame with a wrong tag")),
                },
            };
            let answer = match BrokerFrame::parse(json) {
                Err(_) => return Some(End::Protocol("a frame that is not the protocol")),
                Ok(BrokerFrame::Challenge { seq, nonce }) => Answer::Proof(seq, nonce),
                Ok(BrokerFrame::Ping { id }) => Answer::Pong(id),
                Ok(BrokerFrame::Bye(bye)) => return Some(taken_leave(&bye.code, bye.retry_after_ms)),
                Ok(BrokerFrame::Result { id, data }) => {
                    facts(cx, LinkFact::Answer { id, result: Ok(data) });
                    Answer::Nothing
                }
                Ok(BrokerFrame::Error { id, code }) => {
                    facts(cx, LinkFact::Answer { id, result: Err(code) });
                    Answer::Nothing
                }
                Ok(BrokerFrame::Peer(frame)) => {
                    self.heard(cx);
                    facts(cx, LinkFact::Peer(frame)).map_or(Answer::Nothing, Answer::Peer)
                }
                Ok(BrokerFrame::Manager(frame)) => {
                    self.heard(cx);
                    facts(cx, LinkFact::Manager(frame));
                    Answer::Nothing
                }
                Ok(BrokerFrame::Tunnel(frame)) => {
                    self.heard(cx);
                    facts(cx, LinkFact::Tunnel(frame));
                    Answer::Nothing
                }
                // An unknown type is not answered: two ends that answer each
                // other's errors never stop.
                Ok(BrokerFrame::Pong { .. } | BrokerFrame::Unknown) => Answer::Nothing,
            };
            match answer {
                Answer::Nothing => {}
                Answer::Proof(seq, nonce) => {
                    self.heard(cx);
                    wire.send_frame(cx, self.tags.as_mut(), |bytes| append_proof(bytes, seq, &nonce));
                }
                Answer::Pong(id) => {
                    wire.send_frame(cx, self.tags.as_mut(), |bytes| append_ping(bytes, id, true));
                }
                Answer::Peer(request) => {
                    wire.send_frame(cx, self.tags.as_mut(), |bytes| append_json(bytes, &request));
                }
            }
        }
        resync.map(|_| End::Resynchronise)
    }

    /// When the broker's silence has lasted too long.
    pub(super) const fn quiet_until(&self) -> Time {
        self.quiet_until
    }

    /// Whether the broker is silent for too long. If it was this agent that
    /// wasn't running, the broker's challenges may still lie unread: it gets one
    /// more period.
    pub(super) fn is_silent(&mut self, cx: &Context<'_>) -> bool {
        let late = cx.now.boot.since(self.quiet_until);
        if late > Duration::from_secs(1).max(self.interval / 2) && !self.patient {
            self.heard(cx);
            self.patient = true;
        }
        self.quiet_until <= cx.now.boot
    }

    fn heard(&mut self, cx: &Context<'_>) {
        self.quiet_until = cx.now.boot + self.interval.saturating_mul(cx.config.silent_intervals);
        self.patient = false;
    }
}

fn taken_leave(code: &str, retry_after_ms: Option<u64>) -> End {
    let code = code.chars().take(32).collect::<String>();
    End::Bye { code: format!("{}", Escaped(&code)), retry_after: retry_after_ms.map(Duration::from_millis) }
}
