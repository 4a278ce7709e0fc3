//! The agent's engine: one link to the broker, and local clients that ask over it.
//!
//! `link` dials, backs off and owns the connection; `handshake` and `session`
//! read its two phases; `local` serves the clients. The machines don't call each
//! other: the link reports [`LinkFact`]s, and `local` asks through [`Upstream`].

#[cfg(feature = "model")]
mod fingerprint;
mod handshake;
mod link;
mod local;
#[cfg(feature = "model")]
mod obligations;
mod session;
mod wire;

use serde_json::value::RawValue;

use crate::boundary::{CloseReason, Deadline, Engine, Input, Origin, Output, Via, Wakeup};
use crate::config::AgentConfig;
use crate::control::reply::{ErrorBody, ErrorCode, LinkInfo, Settings};
use crate::entropy::Entropy;
use crate::event::{Cursor, Event, Fact};
use crate::id::ConnId;
use crate::link::message::GuestRequest;
use crate::peers::RestoredInbox;
use crate::queue::Outbox;
use crate::time::{Now, Time};
use link::Link;
use local::Local;

/// The agent.
#[derive(Clone, Debug)]
pub struct Agent {
    config: AgentConfig,
    entropy: Entropy,
    out: Outbox,
    now: Now,
    events: u64,
    ignored: u64,
    link: Link,
    local: Local,
    life: Life,
    #[cfg(feature = "model")]
    longest: obligations::Longest,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Serving,
    /// Clients are still being written to.
    Draining {
        deadline: Time,
    },
    Stopped,
}

/// What a machine works with while it handles something.
struct Context<'a> {
    now: Now,
    config: &'a AgentConfig,
    entropy: &'a mut Entropy,
    out: &'a mut Outbox,
    events: &'a mut u64,
}

impl Context<'_> {
    fn event(&mut self, fact: Fact) {
        *self.events += 1;
        self.out.event(Event {
            cursor: Cursor { incarnation: 0, number: *self.events },
            at: self.now.wall,
            guest: Some(self.config.name),
            fact,
        });
    }
}

/// What the link tells the local clients' machine.
enum LinkFact<'a> {
    /// The session is over, and why: nothing that was asked will be answered.
    Lost(&'a str),
    /// The broker answered a request.
    Answer { id: u64, result: Result<&'a RawValue, ErrorCode> },
}

/// The link, as local clients need it.
trait Upstream {
    /// Sends a question to the broker.
    ///
    /// # Errors
    /// What to tell the client: there is no session, or it can't take the question.
    fn ask(&mut self, cx: &mut Context<'_>, request: &GuestRequest) -> Result<(), ErrorBody>;

    /// The link's state, for `info`.
    fn describe(&self, now: Time, config: &AgentConfig) -> (LinkInfo, Settings);
}

impl Agent {
    /// An agent that dials at once: drain it before the first [`Engine::handle`].
    #[must_use]
    pub fn new(config: AgentConfig, restored: RestoredInbox, entropy: Entropy, now: Now) -> Self {
        #[cfg(feature = "model")]
        let longest = obligations::Longest::new(&config);
        let _ = restored;
        let mut agent = Self {
            config,
            entropy,
            out: Outbox::default(),
            now,
            events: 0,
            ignored: 0,
            link: Link::default(),
            local: Local::default(),
            life: Life::Serving,
            #[cfg(feature = "model")]
            longest,
        };
        agent.parts(|link, _, cx| link.start(cx));
        agent
    }

    /// Inputs so far for connections and effects that were gone.
    #[must_use]
    pub fn ignored_inputs(&self) -> u64 {
        self.ignored
    }

    fn parts<R>(&mut self, work: impl FnOnce(&mut Link, &mut Local, &mut Context<'_>) -> R) -> R {
        let mut cx = Context {
            now: self.now,
            config: &self.config,
            entropy: &mut self.entropy,
            out: &mut self.out,
            events: &mut self.events,
        };
        work(&mut self.link, &mut self.local, &mut cx)
    }

    fn on_opened(&mut self, conn: ConnId, input: &Input<'_, AgentConfig>) -> bool {
        let &Input::Opened { via, origin, peer_cred, room, .. } = input else { return false };
        let serving = self.life == Life::Serving;
        match (origin, via) {
            (Origin::Dialled(effect), _) if serving => {
                self.parts(|link, _, cx| link.on_opened(cx, effect, conn, room))
            }
            (Origin::Accepted, Via::Control) => {
                self.parts(|_, local, cx| local.on_opened(cx, conn, peer_cred, room, serving));
                true
            }
            (Origin::Dialled(_) | Origin::Accepted, _) => {
                self.out.close(conn, CloseReason::Finished);
                false
            }
        }
    }

    fn on_bytes(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        self.parts(|link, local, cx| {
            if link.owns(conn) {
                link.on_bytes(cx, bytes, &mut |cx, fact| local.on_fact(cx, fact));
                return true;
            }
            local.on_bytes(cx, conn, bytes, link)
        })
    }

    fn on_writable(&mut self, conn: ConnId, room: usize) -> bool {
        self.parts(|link, local, cx| {
            if link.owns(conn) {
                link.on_writable(cx, room);
                return true;
            }
            local.on_writable(cx, conn, room, link)
        })
    }

    /// `closed`: the connection is gone. Otherwise only its other half is.
    fn on_end(&mut self, conn: ConnId, closed: bool) -> bool {
        self.parts(|link, local, cx| {
            if link.owns(conn) {
                link.on_end(cx, closed, &mut |cx, fact| local.on_fact(cx, fact));
                return true;
            }
            if closed { local.on_closed(conn) } else { local.on_finished(cx, conn) }
        })
    }

    fn on_timer(&mut self) {
        self.parts(|link, local, cx| {
            link.on_timer(cx, &mut |cx, fact| local.on_fact(cx, fact));
            local.on_timer(cx);
        });
        if let Life::Draining { deadline } = self.life
            && deadline <= self.now.boot
        {
            self.parts(|_, local, cx| local.close_all(cx));
        }
    }

    fn drain(&mut self, deadline: Time) {
        if self.life != Life::Serving {
            return;
        }
        self.life = Life::Draining { deadline };
        self.parts(|link, local, cx| {
            link.stop(cx);
            local.drain(cx);
        });
    }

    fn next_deadline(&self) -> Option<Deadline> {
        let drain = match self.life {
            Life::Serving => None,
            Life::Draining { deadline } => Some(Deadline { at: deadline, why: Wakeup::Drain }),
            Life::Stopped => return None,
        };
        [self.link.next_deadline(), self.local.next_deadline(), drain]
            .into_iter()
            .flatten()
            .min_by_key(|deadline| deadline.at)
    }
}

impl Engine for Agent {
    type Config = AgentConfig;

    fn handle(&mut self, now: Now, input: Input<'_, AgentConfig>) {
        // A clock that goes back stands still.
        self.now = Now { boot: now.boot.max(self.now.boot), ..now };
        let known = match input {
            Input::Opened { conn, .. } => self.on_opened(conn, &input),
            Input::Bytes { conn, bytes } => self.on_bytes(conn, bytes),
            Input::Writable { conn, room } => self.on_writable(conn, room),
            Input::Finished { conn } => self.on_end(conn, false),
            Input::Closed { conn, .. } => self.on_end(conn, true),
            Input::Done { effect, result } => self.parts(|link, _, cx| link.on_done(cx, effect, result)),
            Input::Tick => true,
            Input::Drain { deadline } => {
                self.drain(deadline);
                true
            }
            // A session that stands is not asked again: what it rests on takes
            // effect with the next handshake.
            Input::Reload(config) => {
                #[cfg(feature = "model")]
                self.longest.widen(&config);
                #[cfg(feature = "planted")]
                let config = alloc::boxed::Box::new(AgentConfig { planted: self.config.planted, ..*config });
                self.config = *config;
                true
            }
        };
        self.ignored += u64::from(!known);
        self.on_timer();
        if self.life == Life::Serving && self.link.has_ended() {
            self.drain(self.now.boot);
            self.parts(|_, local, cx| local.close_all(cx));
        }
        if matches!(self.life, Life::Draining { .. }) && self.local.is_empty() {
            self.life = Life::Stopped;
            self.out.stopped();
        }
    }

    fn poll_output(&mut self) -> Output<'_> {
        let deadline = if self.out.is_empty() { self.next_deadline() } else { None };
        self.out.poll(|| deadline)
    }
}
