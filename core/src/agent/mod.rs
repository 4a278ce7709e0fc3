//! The agent's engine: one link to the broker, and local clients that ask over it.
//!
//! `link` dials, backs off and owns the connection; `handshake` and `session`
//! read its two phases; `inbox` keeps what other guests said; `local` serves the
//! clients; `attach` joins managed attach to them. The machines don't call each other: the link reports [`LinkFact`]s,
//! which [`route`] brings to whom they concern, and `local` asks through
//! [`Upstream`] and [`Mailbox`].

mod attach;
#[cfg(feature = "model")]
mod fingerprint;
mod handshake;
mod inbox;
mod link;
mod local;
#[cfg(feature = "model")]
mod obligations;
mod restored;
mod session;
mod tunnel;
mod wire;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::value::RawValue;

use crate::attach::agent::Controller;
use crate::attach::wire::{AttachRequest, ManagerFrame};
use crate::boundary::{CloseReason, Deadline, EffectError, Engine, Input, Origin, Output, Via, Wakeup};
use crate::broker::ring::Ring;
use crate::config::AgentConfig;
use crate::control::reply::{ErrorBody, ErrorCode, LinkInfo, Settings};
use crate::entropy::Entropy;
use crate::event::{Cursor, Event, Fact, TunnelEnd};
use crate::id::{ConnId, EffectId, GuestName};
use crate::link::message::GuestRequest;
use crate::peers::wire::{PeerFrame, PeerRequest};
use crate::peers::{InboxSettings, Received};
use crate::queue::Outbox;
use crate::time::{Now, Time};
use crate::tunnel::wire::{Encoded, TunnelFrame};
use inbox::{Inbox, Incoming};
use link::Link;
use local::{Around, Local};
use tunnel::Tunnel;

pub use restored::RestoredAgent;

/// The agent.
#[derive(Clone, Debug)]
pub struct Agent {
    config: AgentConfig,
    entropy: Entropy,
    out: Outbox,
    now: Now,
    events: Events,
    ignored: u64,
    link: Link,
    local: Local,
    /// Only in an agent that takes part.
    inbox: Option<Inbox>,
    tunnel: Tunnel,
    attach: Box<Controller>,
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

/// What happened so far.
#[derive(Clone, Debug, Default)]
struct Events {
    count: u64,
    /// Tells this run's cursors from those of the last one; 0 without a ring.
    incarnation: u32,
    /// The newest, for clients that ask; in an agent that takes part.
    ring: Option<Ring>,
}

/// What a machine works with while it handles something.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a AgentConfig,
    pub(crate) entropy: &'a mut Entropy,
    pub(crate) out: &'a mut Outbox,
    events: &'a mut Events,
}

impl Context<'_> {
    pub(crate) fn event(&mut self, fact: Fact) {
        self.events.count += 1;
        let event = Event {
            cursor: Cursor { incarnation: self.events.incarnation, number: self.events.count },
            at: self.now.wall,
            guest: Some(self.config.name),
            fact,
        };
        if let Some(ring) = &mut self.events.ring {
            ring.push(&event);
        }
        self.out.event(event);
    }
}

/// What the link tells the other machines.
enum LinkFact<'a> {
    /// There is a session; `keyed`: the broker proved itself with the token. What is to
    /// be said before anything else goes into `first`.
    Up { keyed: bool, first: &'a mut Vec<AttachRequest> },
    /// The session is over, and why: nothing that was asked will be answered.
    Lost(&'a str),
    /// The broker answered a request.
    Answer { id: u64, result: Result<&'a RawValue, ErrorCode> },
    /// The broker told something of peers.
    Peer(PeerFrame<'a>),
    /// The broker told something of managed attach.
    Manager(ManagerFrame<'a>),
    /// The broker told something of a stream.
    Tunnel(TunnelFrame<Encoded<'a>>),
}

/// A question to the broker, with its number.
enum Question {
    /// About who is there.
    Guest(GuestRequest),
    /// About peers.
    Peer(PeerRequest),
}

/// The link, as local clients need it.
trait Upstream {
    /// Sends a question to the broker.
    ///
    /// # Errors
    /// What to tell the client: there is no session, or it can't take the question.
    fn ask(&mut self, cx: &mut Context<'_>, question: &Question) -> Result<(), ErrorBody>;

    /// Tells the broker something that has no answer, if there is a session.
    fn tell(&mut self, cx: &mut Context<'_>, request: &PeerRequest);

    /// The link's state, for `info`.
    fn describe(&self, now: Time, config: &AgentConfig) -> (LinkInfo, Settings);
}

/// The inbox, as local clients need it.
trait Mailbox {
    /// Its bounds and times.
    fn settings(&self) -> &InboxSettings;

    /// The messages, by number.
    fn kept(&self) -> &VecDeque<Received>;

    /// Answers whoever waits to be a peer; what to tell the broker.
    ///
    /// # Errors
    /// What to tell the client: nobody of that name waits.
    fn answer(
        &mut self,
        name: &GuestName,
        accept: bool,
        reason: Option<String>,
    ) -> Result<PeerRequest, ErrorBody>;

    /// Whether nothing is to be registered from here; what to tell the broker.
    fn hold(&mut self, hold: bool) -> Option<PeerRequest>;
}

/// Brings what the link tells to whom it concerns; what to say in return.
fn route(
    local: &mut Local,
    inbox: &mut Option<Inbox>,
    tunnel: &mut Tunnel,
    attach: &mut Controller,
    cx: &mut Context<'_>,
    fact: LinkFact<'_>,
) -> Option<PeerRequest> {
    match fact {
        LinkFact::Up { keyed, first } => {
            tunnel.on_up(cx, keyed);
            attach.on_up(cx, keyed, first);
            return inbox.as_mut()?.on_up();
        }
        LinkFact::Tunnel(frame) => tunnel.on_frame(cx, frame),
        LinkFact::Manager(frame) => attach.on_frame(cx, frame),
        LinkFact::Lost(message) => {
            tunnel.on_lost(cx, TunnelEnd::SessionLost);
            attach.on_lost(cx);
            local.on_lost(cx, message);
            inbox.as_mut()?.on_lost();
        }
        LinkFact::Answer { id, result } => local.on_answer(cx, id, result),
        LinkFact::Peer(PeerFrame::Result(result)) => local.on_result(cx, result),
        LinkFact::Peer(PeerFrame::Offer { id, from, from_authenticated }) => {
            inbox.as_mut()?.on_offer(cx, id, from, from_authenticated);
        }
        LinkFact::Peer(PeerFrame::Added { name }) => inbox.as_mut()?.on_added(cx, name),
        LinkFact::Peer(PeerFrame::Removed { name }) => inbox.as_mut()?.on_removed(cx, name),
        LinkFact::Peer(PeerFrame::Message { id, from, from_authenticated, text, sent_at, wake }) => {
            let incoming = Incoming { id, from, from_authenticated, text: &text, sent_at, wake };
            return inbox.as_mut()?.on_message(cx, &incoming);
        }
    }
    None
}

/// The machines.
struct Parts<'a> {
    link: &'a mut Link,
    local: &'a mut Local,
    inbox: &'a mut Option<Inbox>,
    tunnel: &'a mut Tunnel,
    attach: &'a mut Controller,
}

impl Agent {
    /// An agent that dials at once: drain it before the first [`Engine::handle`].
    #[must_use]
    pub fn new(mut config: AgentConfig, mut restored: RestoredAgent, entropy: Entropy, now: Now) -> Self {
        // Whoever stops at once can't keep what it is told.
        config.inbox = config.inbox.filter(|_| !config.once);
        #[cfg(feature = "model")]
        let longest = obligations::Longest::new(&config);
        let mut entropy = entropy;
        let mut events = Events::default();
        if let Some(settings) = &config.inbox {
            let mut drawn = [0; 4];
            entropy.fill(&mut drawn);
            events.incarnation = u32::from_be_bytes(drawn);
            events.ring = Some(Ring::new(events.incarnation, settings.event_ring));
        }
        let mut applied = core::mem::take(&mut restored.applied);
        if planted!(config, ReapplyAfterCrash) {
            applied.retain(|applied| applied.outcome.is_some());
        }
        let attach = Controller::new(&config.attach, applied, now);
        let inbox = config.inbox.clone().map(|settings| Inbox::new(settings, restored, now));
        let mut agent = Self {
            config,
            entropy,
            out: Outbox::default(),
            now,
            events,
            ignored: 0,
            link: Link::default(),
            local: Local::default(),
            inbox,
            tunnel: Tunnel::default(),
            attach: Box::new(attach),
            life: Life::Serving,
            #[cfg(feature = "model")]
            longest,
        };
        agent.parts(|parts, cx| {
            parts.link.start(cx);
            parts.attach.start(cx);
        });
        agent.attach();
        agent
    }

    /// Inputs so far for connections and effects that were gone.
    #[must_use]
    pub fn ignored_inputs(&self) -> u64 {
        self.ignored
    }

    fn parts<R>(&mut self, work: impl FnOnce(Parts<'_>, &mut Context<'_>) -> R) -> R {
        let mut cx = Context {
            now: self.now,
            config: &self.config,
            entropy: &mut self.entropy,
            out: &mut self.out,
            events: &mut self.events,
        };
        let Self { link, local, inbox, tunnel, attach, .. } = self;
        work(Parts { link, local, inbox, tunnel, attach }, &mut cx)
    }

    fn on_opened(&mut self, conn: ConnId, input: &Input<'_, AgentConfig>) -> bool {
        let &Input::Opened { via, origin, peer_cred, room, .. } = input else { return false };
        let serving = self.life == Life::Serving;
        match (origin, via) {
            (Origin::Dialled(effect), Via::Terminals) if serving => {
                self.parts(|parts, cx| parts.tunnel.on_opened(cx, effect, conn, room))
            }
            (Origin::Dialled(effect), _) if serving => {
                self.parts(|parts, cx| parts.link.on_opened(cx, effect, conn, room))
            }
            (Origin::Accepted, Via::Control) => {
                self.parts(|parts, cx| parts.local.on_opened(cx, conn, peer_cred, room, serving));
                true
            }
            (Origin::Dialled(_) | Origin::Accepted, _) => {
                self.out.close(conn, CloseReason::Finished);
                false
            }
        }
    }

    fn on_bytes(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        self.parts(|Parts { link, local, inbox, tunnel, attach }, cx| {
            if link.owns(conn) {
                link.on_bytes(cx, bytes, &mut |cx, fact| route(local, inbox, tunnel, attach, cx, fact));
                return true;
            }
            if tunnel.owns(conn) {
                tunnel.on_bytes(cx, conn, bytes);
                return true;
            }
            local.on_bytes(cx, conn, bytes, &mut around(link, inbox, attach))
        })
    }

    fn on_writable(&mut self, conn: ConnId, room: usize) -> bool {
        self.parts(|Parts { link, local, inbox, tunnel, attach }, cx| {
            if link.owns(conn) {
                link.on_writable(cx, room);
                return true;
            }
            if tunnel.owns(conn) {
                tunnel.on_writable(cx, conn, room);
                return true;
            }
            local.on_writable(cx, conn, room, &mut around(link, inbox, attach))
        })
    }

    /// `closed`: the connection is gone. Otherwise only its other half is.
    fn on_end(&mut self, conn: ConnId, closed: bool) -> bool {
        self.parts(|Parts { link, local, inbox, tunnel, attach }, cx| {
            if link.owns(conn) {
                link.on_end(cx, closed, &mut |cx, fact| route(local, inbox, tunnel, attach, cx, fact));
                return true;
            }
            if tunnel.owns(conn) {
                tunnel.on_end(cx, conn, closed);
                return true;
            }
            if closed { local.on_closed(conn) } else { local.on_finished(cx, conn) }
        })
    }

    fn on_done(&mut self, effect: EffectId, result: Result<(), EffectError>) -> bool {
        self.parts(|Parts { link, inbox, tunnel, attach, .. }, cx| {
            if tunnel.on_done(cx, effect, &result) {
                return true;
            }
            if attach.on_done(cx, effect, &result) {
                return true;
            }
            let written = inbox.as_mut().and_then(|inbox| inbox.on_done(cx, effect, &result));
            let Some(acks) = written else { return link.on_done(cx, effect, result) };
            acks.iter().for_each(|ack| link.tell(cx, ack));
            true
        })
    }

    /// What is open already keeps its old bounds; what the session was told of
    /// peers is said anew. Taking part begins and ends with the process.
    fn on_reload(&mut self, config: AgentConfig) {
        #[cfg(feature = "model")]
        self.longest.widen(&config);
        #[cfg(feature = "planted")]
        let config = AgentConfig { planted: self.config.planted, ..config };
        let before = core::mem::replace(&mut self.config, config);
        self.config.inbox = before.inbox.map(|inbox| self.config.inbox.take().unwrap_or(inbox));
        let settings = self.config.inbox.clone();
        self.parts(|Parts { link, inbox, .. }, cx| {
            if let (Some(inbox), Some(settings)) = (inbox, settings) {
                inbox.settings = settings;
                inbox.state().iter().for_each(|stated| link.tell(cx, stated));
            }
        });
    }

    fn on_timer(&mut self) {
        self.parts(|Parts { link, local, inbox, tunnel, attach }, cx| {
            link.on_timer(cx, &mut |cx, fact| route(local, inbox, tunnel, attach, cx, fact));
            tunnel.on_timer(cx);
            attach.on_timer(cx);
            if let Some(inbox) = inbox {
                inbox.on_timer(cx.now.boot);
            }
            local.on_timer(cx, attach);
        });
        if let Life::Draining { deadline } = self.life
            && deadline <= self.now.boot
        {
            self.parts(|parts, cx| {
                parts.local.close_all(cx);
                parts.attach.cut(cx);
            });
        }
    }

    fn drain(&mut self, deadline: Time) {
        if self.life != Life::Serving {
            return;
        }
        self.life = Life::Draining { deadline };
        self.parts(|Parts { link, local, inbox, tunnel, attach }, cx| {
            tunnel.drain(cx);
            attach.drain(cx);
            link.stop(cx);
            local.drain(cx);
            if let Some(inbox) = inbox {
                inbox.on_lost();
            }
        });
    }

    fn next_deadline(&self) -> Option<Deadline> {
        let drain = match self.life {
            Life::Serving => None,
            Life::Draining { deadline } => Some(Deadline { at: deadline, why: Wakeup::Drain }),
            Life::Stopped => return None,
        };
        let offers = self.inbox.as_ref().and_then(Inbox::next_deadline);
        let (link, local) = (self.link.next_deadline(), self.local.next_deadline());
        let (tunnel, attach) = (self.tunnel.next_deadline(), self.attach.next_deadline());
        [link, local, tunnel, attach, offers, drain].into_iter().flatten().min_by_key(|deadline| deadline.at)
    }
}

fn around<'a>(link: &'a mut Link, inbox: &'a mut Option<Inbox>, attach: &'a Controller) -> Around<'a> {
    Around { upstream: link, attach, mailbox: inbox.as_mut().map(|inbox| inbox as &mut dyn Mailbox) }
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
            Input::Done { effect, result } => self.on_done(effect, result),
            Input::Answered { effect, answer } => self.on_answered(effect, &answer),
            Input::Terminal { .. } => false,
            Input::Tick => true,
            Input::Drain { deadline } => {
                self.drain(deadline);
                true
            }
            // A session that stands is not asked again: what it rests on takes
            // effect with the next handshake.
            Input::Reload(config) => {
                self.on_reload(*config);
                true
            }
        };
        self.ignored += u64::from(!known);
        // Who waits for what has just happened is answered before its time is up.
        self.attach();
        self.on_timer();
        if self.life == Life::Serving && self.link.has_ended() {
            self.drain(self.now.boot);
            self.parts(|parts, cx| parts.local.close_all(cx));
        }
        self.attach();
        self.parts(|Parts { link, local, inbox, tunnel, .. }, cx| {
            local.stream(cx, inbox.as_ref().map(Mailbox::kept));
            for released in local.released.drain(..) {
                tunnel.on_client(cx, released);
            }
            tunnel.pump(cx, link);
        });
        if matches!(self.life, Life::Draining { .. }) && self.local.is_empty() && self.is_drained() {
            self.life = Life::Stopped;
            self.out.stopped();
        }
    }

    fn poll_output(&mut self) -> Output<'_> {
        let deadline = if self.out.is_empty() { self.next_deadline() } else { None };
        self.out.poll(|| deadline)
    }
}
