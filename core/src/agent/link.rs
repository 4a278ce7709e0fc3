//! The link machine: dial, handshake, session, back off, for ever.
//!
//! | state | leaves it on | for |
//! |---|---|---|
//! | dialing | opened | handshaking |
//! | | failed, deadline | backoff |
//! | handshaking | `ok` | up (ended, if once) |
//! | | refused, unproven, not the protocol, closed, deadline | backoff |
//! | up | `bye`, not the protocol, closed, silence | backoff |
//! | | serial: the other end is out of step | handshaking |
//! | backoff | deadline | dialing (handshaking, if a serial stream is still open) |
//! | any | stop | ended |

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::handshake::{Failure, Handshake};
use super::session::{End, Session};
use super::wire::Wire;
use super::{Context, LinkFact, Question, Upstream};
use crate::backoff::Backoff;
use crate::boundary::{CloseReason, Deadline, DialTarget, Effect, EffectError, EffectErrorKind, Wakeup};
use crate::config::AgentConfig;
use crate::control::reply::{ErrorBody, ErrorCode, LinkInfo, Settings};
use crate::event::{self, Escaped, Fact, LinkEnd};
use crate::id::{ConnId, EffectId};
use crate::link::message::{append_goodbye, append_json};
use crate::peers::wire::PeerRequest;
use crate::time::{Time, millis};

/// The link.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) state: State,
    pub(super) backoff: Backoff,
    pub(super) attempt: u32,
    pub(super) last_error: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) enum State {
    Dialing {
        effect: EffectId,
        deadline: Time,
    },
    Handshaking {
        wire: Wire,
        handshake: Box<Handshake>,
        deadline: Time,
    },
    Up {
        wire: Wire,
        session: Session,
    },
    /// A serial stream stays open: what still arrives on it is dropped, so that
    /// the next handshake doesn't read the answers to the last one.
    Backoff {
        until: Time,
        wire: Option<Wire>,
    },
    #[default]
    Ended,
}

/// A link that ended or could not be had.
struct Loss {
    why: Why,
    message: String,
    retry_after: Option<Duration>,
    /// The connection is already gone.
    closed: bool,
    /// What the system said.
    system: Option<String>,
}

enum Why {
    Down(LinkEnd),
    Refused(String),
    Unproven,
}

/// Takes what the link tells; what it returns is said to the broker at once.
pub(super) type Facts<'a> = &'a mut dyn FnMut(&mut Context<'_>, LinkFact<'_>) -> Option<PeerRequest>;

/// Questions wait for room up to this many bytes; beyond it the broker is `busy`.
const BACKLOG_MAX: usize = 256 * 1024;

/// An error message's own part, in characters.
const MESSAGE_MAX: usize = 160;

impl Link {
    pub(super) fn start(&mut self, cx: &mut Context<'_>) {
        self.redial(cx, None);
    }

    pub(super) fn owns(&self, conn: ConnId) -> bool {
        self.wire().is_some_and(|wire| wire.conn() == conn)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// A dial succeeded. False: nobody waits for it any more.
    pub(super) fn on_opened(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        conn: ConnId,
        room: usize,
    ) -> bool {
        match self.state {
            State::Dialing { effect: current, .. } if current == effect => {
                let wire = Wire::new(conn, room, cx.config.serial);
                self.shake_hands(cx, wire);
                true
            }
            _ => {
                cx.out.close(conn, CloseReason::Finished);
                false
            }
        }
    }

    /// A dial ended without a connection. False: nobody waits for it any more.
    pub(super) fn on_done(
        &mut self,
        cx: &mut Context<'_>,
        effect: EffectId,
        result: Result<(), EffectError>,
    ) -> bool {
        match (&self.state, result) {
            (State::Dialing { effect: current, .. }, Err(error)) if *current == effect => {
                let reason = match error.kind {
                    EffectErrorKind::TimedOut => LinkEnd::Timeout,
                    _ => LinkEnd::Unreachable,
                };
                let system = Some(event::shortened(&error.message, event::MESSAGE_MAX));
                let loss = Loss { system, ..Loss::down(reason, &error.message) };
                self.lose(cx, loss, &mut |_, _| None);
                true
            }
            _ => false,
        }
    }

    pub(super) fn on_bytes(&mut self, cx: &mut Context<'_>, bytes: &[u8], facts: Facts<'_>) {
        let mut input = bytes;
        while !input.is_empty() {
            match &mut self.state {
                State::Handshaking { wire, handshake, .. } => match handshake.read(cx, wire, &mut input) {
                    None => {}
                    Some(Ok(session)) => self.establish(cx, session, facts),
                    Some(Err(failure)) => self.lose(cx, Loss::from(failure), facts),
                },
                State::Up { wire, session } => match session.read(cx, wire, &mut input, facts) {
                    None => {}
                    Some(End::Resynchronise) => self.resynchronise(cx, facts),
                    Some(End::Bye { code, retry_after }) => {
                        let loss = Loss::down(LinkEnd::Bye, &code);
                        self.lose(cx, Loss { retry_after, ..loss }, facts);
                    }
                    Some(End::Protocol(what)) => self.lose(cx, Loss::down(LinkEnd::Protocol, what), facts),
                },
                State::Backoff { .. } | State::Dialing { .. } | State::Ended => return,
            }
        }
    }

    pub(super) fn on_writable(&mut self, cx: &mut Context<'_>, room: usize) {
        if let Some(wire) = self.wire_mut() {
            wire.sender.writable(cx.out, room);
        }
    }

    /// The connection is gone (`closed`), or the broker will send no more.
    pub(super) fn on_end(&mut self, cx: &mut Context<'_>, closed: bool, facts: Facts<'_>) {
        if let State::Backoff { wire, .. } = &mut self.state {
            if let Some(wire) = wire.take().filter(|_| !closed) {
                cx.out.close(wire.conn(), CloseReason::Finished);
            }
            return;
        }
        if !closed && let Some(wire) = self.wire() {
            cx.out.close(wire.conn(), CloseReason::Finished);
        }
        let loss = Loss::down(LinkEnd::Disconnected, "the broker closed the link");
        self.lose(cx, Loss { closed: true, ..loss }, facts);
    }

    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>, facts: Facts<'_>) {
        if self.next_deadline().is_none_or(|deadline| cx.now.boot < deadline.at) {
            return;
        }
        let loss = match &mut self.state {
            State::Dialing { effect, .. } => {
                cx.out.cancel(*effect);
                Loss::down(LinkEnd::Timeout, "the dial took too long")
            }
            State::Handshaking { .. } => Loss::down(LinkEnd::Timeout, "the handshake took too long"),
            State::Up { session, .. } => {
                if !session.is_silent(cx) {
                    return;
                }
                Loss::down(LinkEnd::Silent, "the broker stopped asking")
            }
            State::Backoff { wire, .. } => {
                let wire = wire.take();
                self.redial(cx, wire);
                return;
            }
            State::Ended => return,
        };
        self.lose(cx, loss, facts);
    }

    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        let (at, why) = match &self.state {
            State::Dialing { deadline, .. } => (*deadline, Wakeup::Dial),
            State::Handshaking { deadline, .. } => (*deadline, Wakeup::Handshake),
            State::Up { session, .. } => (session.quiet_until(), Wakeup::Session),
            State::Backoff { until, .. } => (*until, Wakeup::Redial),
            State::Ended => return None,
        };
        Some(Deadline { at, why })
    }

    /// Takes leave, for good.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        let wire = match core::mem::take(&mut self.state) {
            State::Ended => return,
            State::Backoff { wire, .. } => wire,
            State::Dialing { effect, .. } => {
                cx.out.cancel(effect);
                None
            }
            State::Handshaking { wire, .. } => Some(wire),
            State::Up { mut wire, mut session } => {
                wire.send_frame(cx, session.tags.as_mut(), append_goodbye);
                Some(wire)
            }
        };
        if let Some(wire) = wire {
            cx.out.close(wire.conn(), CloseReason::Drained);
        }
        cx.event(Fact::LinkDown { reason: LinkEnd::Stopping, retry_ms: None, error: None });
    }

    fn redial(&mut self, cx: &mut Context<'_>, wire: Option<Wire>) {
        self.attempt = self.attempt.saturating_add(1);
        cx.event(Fact::LinkDialing { attempt: self.attempt });
        if let Some(mut wire) = wire {
            wire.sender.discard(cx.out);
            self.shake_hands(cx, wire);
            return;
        }
        let deadline = cx.now.boot + cx.config.dial_timeout;
        self.state = State::Dialing {
            effect: cx.out.effect(Effect::Dial { deadline, to: DialTarget::Link }),
            deadline,
        };
    }

    fn shake_hands(&mut self, cx: &mut Context<'_>, mut wire: Wire) {
        let handshake = Box::new(Handshake::begin(cx, &mut wire));
        let deadline = cx.now.boot + cx.config.handshake_timeout;
        self.state = State::Handshaking { wire, handshake, deadline };
    }

    fn establish(&mut self, cx: &mut Context<'_>, session: Session, facts: Facts<'_>) {
        let State::Handshaking { wire, .. } = core::mem::take(&mut self.state) else { return };
        self.attempt = 0;
        self.last_error = None;
        cx.event(Fact::LinkUp {
            epoch: session.epoch,
            authenticated: session.tags.is_some(),
            interval_ms: millis(session.interval),
            window_ms: millis(session.window),
        });
        if cx.config.once {
            cx.event(Fact::LinkDown { reason: LinkEnd::Finished, retry_ms: None, error: None });
            cx.out.close(wire.conn(), CloseReason::Finished);
            return;
        }
        let keyed = session.tags.is_some();
        self.state = State::Up { wire, session };
        let mut first = Vec::new();
        let stated = facts(cx, LinkFact::Up { keyed, first: &mut first });
        first.iter().for_each(|request| self.begin_with(cx, request));
        if let Some(stated) = stated {
            self.tell(cx, &stated);
        }
    }

    /// Serial: the broker is out of step; starts again on the same stream.
    fn resynchronise(&mut self, cx: &mut Context<'_>, facts: Facts<'_>) {
        let State::Up { wire, session } = core::mem::take(&mut self.state) else { return };
        self.rest_after(cx, &session);
        self.last_error = Some("disconnected: the broker started again".into());
        cx.event(Fact::LinkDown { reason: LinkEnd::Disconnected, retry_ms: Some(0), error: None });
        facts(cx, LinkFact::Lost("the broker started again; the link is being renewed"));
        self.redial(cx, Some(wire));
    }

    fn lose(&mut self, cx: &mut Context<'_>, loss: Loss, facts: Facts<'_>) {
        let (wire, was_up) = match core::mem::take(&mut self.state) {
            State::Up { wire, session } => {
                self.rest_after(cx, &session);
                (Some(wire), true)
            }
            State::Handshaking { wire, .. } => (Some(wire), false),
            State::Backoff { .. } | State::Dialing { .. } | State::Ended => (None, false),
        };
        let wire = wire.filter(|_| !loss.closed).and_then(|wire| {
            if wire.serial {
                return Some(wire);
            }
            cx.out.close(wire.conn(), loss.close_reason());
            None
        });
        let most = if planted!(cx.config, UnboundedBackoff) { Duration::MAX } else { cx.config.backoff_most };
        let range = self.backoff.next(cx.config.backoff_first, most);
        let pause = if planted!(cx.config, UnjitteredBackoff) { range } else { cx.entropy.jitter(range) };
        let wait = loss.retry_after.unwrap_or_default().min(cx.config.retry_after_max) + pause;
        self.state = State::Backoff { until: cx.now.boot + wait, wire };
        let retry_ms = Some(millis(wait));
        cx.event(match loss.why {
            Why::Down(reason) => Fact::LinkDown { reason, retry_ms, error: loss.system },
            Why::Refused(code) => Fact::LinkRefused { code, retry_ms },
            Why::Unproven => Fact::BrokerUnproven { retry_ms },
        });
        if was_up {
            facts(cx, LinkFact::Lost(&self.explain(cx.now.boot, Some(&loss.message))));
        }
        self.last_error = Some(loss.message);
    }

    fn rest_after(&mut self, cx: &Context<'_>, session: &Session) {
        if cx.now.boot.since(session.since) >= cx.config.backoff_reset {
            self.backoff.reset();
        }
    }

    fn wire(&self) -> Option<&Wire> {
        match &self.state {
            State::Handshaking { wire, .. } | State::Up { wire, .. } => Some(wire),
            State::Backoff { wire, .. } => wire.as_ref(),
            State::Dialing { .. } | State::Ended => None,
        }
    }

    fn wire_mut(&mut self) -> Option<&mut Wire> {
        match &mut self.state {
            State::Handshaking { wire, .. } | State::Up { wire, .. } => Some(wire),
            State::Backoff { wire, .. } => wire.as_mut(),
            State::Dialing { .. } | State::Ended => None,
        }
    }

    fn word(&self) -> &'static str {
        match self.state {
            State::Dialing { .. } => "dialing",
            State::Handshaking { .. } => "handshaking",
            State::Up { .. } => "up",
            State::Backoff { .. } => "backoff",
            State::Ended => "stopped",
        }
    }

    fn retry_ms(&self, now: Time) -> Option<u64> {
        match self.state {
            State::Backoff { until, .. } => Some(millis(until.since(now))),
            _ => None,
        }
    }

    /// Why a question can't be asked now, for people.
    fn explain(&self, now: Time, error: Option<&str>) -> String {
        let mut text = format!("there is no session with the broker: the link is {}", self.word());
        if let Some(retry_ms) = self.retry_ms(now) {
            text += &format!(", next try in {retry_ms} ms");
        }
        if let Some(error) = error {
            text += &format!(" (last error: {error})");
        }
        text
    }
}

impl Upstream for Link {
    fn ask(&mut self, cx: &mut Context<'_>, question: &Question) -> Result<(), ErrorBody> {
        let State::Up { wire, session } = &mut self.state else {
            let message = self.explain(cx.now.boot, self.last_error.as_deref());
            return Err(ErrorBody { code: ErrorCode::NotReachable, message });
        };
        let mut json = Vec::new();
        let (code, advice) = match question {
            Question::Guest(request) => {
                append_json(&mut json, request);
                (ErrorCode::InvalidRequest, "name fewer guests")
            }
            Question::Peer(request) => {
                append_json(&mut json, request);
                (ErrorCode::TooLarge, "say less")
            }
        };
        let most = wire.json_max(session.tags.is_some());
        if json.len() > most {
            let message =
                format!("the question takes {} bytes, one frame holds {most}: {advice}", json.len());
            return Err(ErrorBody { code, message });
        }
        if wire.sender.waiting() + json.len() > BACKLOG_MAX {
            let message = "the broker does not read as fast as it is asked: try again".to_string();
            return Err(ErrorBody { code: ErrorCode::Busy, message });
        }
        wire.send_frame(cx, session.tags.as_mut(), |bytes| bytes.extend_from_slice(&json));
        Ok(())
    }

    fn tell(&mut self, cx: &mut Context<'_>, request: &PeerRequest) {
        if let State::Up { wire, session } = &mut self.state {
            wire.send_frame(cx, session.tags.as_mut(), |bytes| append_json(bytes, request));
        }
    }

    fn describe(&self, now: Time, config: &AgentConfig) -> (LinkInfo, Settings) {
        let session = match &self.state {
            State::Up { session, .. } => Some(session),
            _ => None,
        };
        let info = LinkInfo {
            name: config.name,
            state: self.word().into(),
            epoch: session.map(|session| session.epoch),
            authenticated: session.is_some_and(|session| session.tags.is_some()),
            retry_ms: self.retry_ms(now),
            last_error: self.last_error.clone(),
        };
        let settings = Settings {
            window_ms: session.map_or(0, |session| millis(session.window)),
            interval_ms: session.map_or(0, |session| millis(session.interval)),
            handshake_timeout_ms: millis(config.handshake_timeout),
            ..Settings::default()
        };
        (info, settings)
    }
}

impl Loss {
    fn down(reason: LinkEnd, message: &str) -> Self {
        let message = message.chars().take(MESSAGE_MAX).collect::<String>();
        let message = format!("{}: {}", reason.as_str(), Escaped(&message));
        Self { why: Why::Down(reason), message, retry_after: None, closed: false, system: None }
    }

    fn close_reason(&self) -> CloseReason {
        match self.why {
            Why::Refused(_) | Why::Unproven => CloseReason::Refused,
            Why::Down(_) => CloseReason::Ended,
        }
    }
}

impl From<Failure> for Loss {
    fn from(failure: Failure) -> Self {
        let (why, message) = match failure {
            Failure::Protocol(what) => return Self::down(LinkEnd::Protocol, what),
            Failure::Refused(code) => {
                let message = format!("refused: {}", Escaped(&code));
                (Why::Refused(code), message)
            }
            Failure::Unproven => {
                (Why::Unproven, "broker_unproven: it does not know this guest's token".to_string())
            }
        };
        Self { why, message, retry_after: None, closed: false, system: None }
    }
}
