//! A joint state: the engines, what is between them, and the truth.

use core::time::Duration;
use std::collections::VecDeque;
use std::rc::Rc;

use castra_core::config::BrokerConfig;
use castra_core::entropy::Entropy;
use castra_core::fingerprint::Canon;
use castra_core::id::{ConnId, EffectId, GuestName};
use castra_core::time::{Now, Time, WallTime};
use castra_core::{Agent, Broker, Restored};

use super::{Bounds, Jitter, TICK};

/// What ages are compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) window: Duration,
    /// Beyond it no age matters.
    horizon: Duration,
    /// How long it takes at most until who lives is reachable: the dead connections
    /// have to be given up, a dial, a handshake and a conflict over the name to
    /// fail, and a second try to succeed.
    pub(super) patience: Duration,
}

impl Limits {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let config = &bounds.broker;
        let longest = [config.window, config.linger(), config.handshake_timeout, config.takeover_period];
        let horizon = longest.into_iter().max().unwrap_or_default() + TICK;
        let agent = &bounds.agent;
        let attempt = agent.dial_timeout + agent.handshake_timeout + config.conflict_timeout;
        let pause = agent.backoff_most + agent.retry_after_max;
        let patience = config.linger() + (attempt + pause) * 2;
        Self { window: config.window, horizon, patience }
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) now: Time,
    pub(super) broker: Broker,
    pub(super) incarnation: u32,
    pub(super) broker_deadline: Option<Time>,
    pub(super) guests: Vec<Guest>,
    /// In the order in which they came to be.
    pub(super) streams: Vec<Stream>,
    pub(super) dialled: u32,
}

/// A guest, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) name: GuestName,
    /// Its life; `None`: it is dead.
    pub(super) agent: Option<Agent>,
    pub(super) deadline: Option<Time>,
    /// When it froze.
    pub(super) frozen: Option<Time>,
    /// The dial in progress.
    pub(super) dial: Option<EffectId>,
    /// What the broker's events say: a session was greeted and not ended.
    pub(super) greeted: bool,
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) conn: ConnId,
    pub(super) guest: usize,
    /// When the life that dialled it last ran; `None`: it is the guest's present one.
    pub(super) died: Option<Time>,
    pub(super) broker_open: bool,
    pub(super) guest_open: bool,
    /// What the broker knows to be free of its send buffer.
    pub(super) room: usize,
    pub(super) to_broker: VecDeque<Parcel>,
    pub(super) to_guest: VecDeque<Parcel>,
}

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Bytes(Rc<[u8]>),
    /// The other end is gone.
    End,
}

impl State {
    /// The broker and all guests have just started.
    pub(super) fn new(bounds: &Bounds) -> Self {
        // Far from boot, so that no age is cut off there.
        let now = Time::from_millis(1_000_000);
        let broker = broker(bounds, 1, now);
        let guests = (0..bounds.guests).map(|guest| Guest {
            name: name(guest),
            agent: None,
            deadline: None,
            frozen: None,
            dial: None,
            greeted: false,
        });
        Self {
            now,
            broker,
            incarnation: 1,
            broker_deadline: None,
            guests: guests.collect(),
            streams: Vec::new(),
            dialled: 0,
        }
    }

    pub(super) fn clock(&self) -> Now {
        // The wall clock stands still: records are for the bulk runner.
        Now { boot: self.now, suspended: Duration::ZERO, wall: WallTime::default() }
    }

    pub(super) fn stream(&self, conn: ConnId) -> Option<usize> {
        self.streams.iter().position(|stream| stream.conn == conn)
    }

    /// When the life that dialled the stream last ran.
    pub(super) fn last_ran(&self, stream: &Stream) -> Time {
        stream.died.or(self.guests[stream.guest].frozen).unwrap_or(self.now)
    }

    /// A number for all states that go on alike. Which guest is which doesn't matter.
    pub(super) fn fingerprint(&self, limits: &Limits) -> u128 {
        let orders: &[&[usize]] = if self.guests.len() == 2 { &[&[0, 1], &[1, 0]] } else { &[&[0]] };
        let fingerprint = |order: &&[usize]| self.fingerprint_in(order, limits);
        orders.iter().map(fingerprint).min().unwrap_or_default()
    }

    fn fingerprint_in(&self, order: &[usize], &Limits { window, horizon, .. }: &Limits) -> u128 {
        let mut canon = Canon::new(self.now, horizon);
        for guest in order {
            canon.introduce_name(self.guests[*guest].name);
        }
        let streams = || order.iter().flat_map(|guest| self.streams.iter().filter(|s| s.guest == *guest));
        for stream in streams() {
            canon.introduce_conn(stream.conn);
        }
        self.broker.canonical(&mut canon);
        for (place, guest) in order.iter().enumerate() {
            let Guest { name: _, agent, deadline: _, frozen, dial, greeted } = &self.guests[*guest];
            canon.word(place as u64);
            canon.word(
                u64::from(dial.is_some()) << 2 | u64::from(*greeted) << 1 | u64::from(frozen.is_some()),
            );
            if let Some(at) = frozen {
                canon.recent(*at, window);
            }
            match agent {
                Some(agent) => agent.canonical(&mut canon),
                None => canon.word(0),
            }
        }
        for stream in streams() {
            let Stream { conn, guest, died, broker_open, guest_open, room: _, to_broker, to_guest } = stream;
            let place = order.iter().position(|other| other == guest).unwrap_or_default();
            canon.word((place as u64) << 2 | u64::from(*broker_open) << 1 | u64::from(*guest_open));
            match died {
                Some(at) => canon.recent(*at, window),
                None => canon.word(0),
            }
            canon.word((to_broker.len() as u64) << 32 | to_guest.len() as u64);
            for parcel in to_broker {
                match parcel {
                    Parcel::Bytes(bytes) => canon.to_broker(*conn, bytes),
                    Parcel::End => canon.word(u64::MAX),
                }
            }
            for parcel in to_guest {
                match parcel {
                    Parcel::Bytes(bytes) => canon.to_guest(*conn, bytes),
                    Parcel::End => canon.word(u64::MAX),
                }
            }
        }
        canon.fingerprint()
    }
}

pub(super) fn name(guest: usize) -> GuestName {
    match ["ant", "bee"][guest].parse() {
        Ok(name) => name,
        Err(_) => unreachable!("they are names"),
    }
}

pub(super) fn entropy(bounds: &Bounds) -> Entropy {
    Entropy::chosen(match bounds.jitter {
        Jitter::Least => 0,
        Jitter::Most => u32::MAX,
    })
}

pub(super) fn broker(bounds: &Bounds, incarnation: u32, now: Time) -> Broker {
    let config = BrokerConfig { guests: (0..bounds.guests).map(name).collect(), ..bounds.broker.clone() };
    let restored = Restored { incarnation, ..Restored::default() };
    let now = Now { boot: now, ..Now::default() };
    Broker::new(config, restored, entropy(bounds), now)
}
