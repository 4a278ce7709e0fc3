//! An event in few bytes. It never leaves the process: nothing but what is
//! packed here is unpacked.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::boundary::{Remote, Transport};
use crate::capabilities::Capabilities;
use crate::event::{Cursor, Event, Fact, Failure, SessionEnd};
use crate::id::{Epoch, GuestName};
use crate::status::{Reason, State};
use crate::time::WallTime;

/// Appends events to a page.
pub(super) struct Packer<'a> {
    pub(super) bytes: &'a mut Vec<u8>,
    /// What their times are counted from.
    pub(super) at: WallTime,
    pub(super) said: &'a mut Vec<Capabilities>,
    pub(super) rare: &'a mut Vec<Fact>,
}

/// Reads one again.
pub(super) struct Unpacker<'a> {
    /// From its first byte on.
    pub(super) bytes: &'a [u8],
    pub(super) at: WallTime,
    pub(super) said: &'a [Capabilities],
    pub(super) rare: &'a [Fact],
}

/// The first byte. What a peer can cause often has a form of its own.
const RARE: u8 = 0;
const START: u8 = 1;
const SUCCESS: u8 = 2;
const FAILURE: u8 = 3;
const CLOSED: u8 = 4;
const VERDICT: u8 = 5;

const PROVEN: u8 = 1;
const AUTHENTICATED: u8 = 2;
const ONCE: u8 = 4;

/// As far back as capabilities are compared with those said before.
const SAID_LATELY: usize = 8;

impl Packer<'_> {
    pub(super) fn event(&mut self, event: &Event) {
        let kind = match event.fact {
            Fact::HandshakeStart { .. } => START,
            Fact::HandshakeSuccess { .. } => SUCCESS,
            Fact::HandshakeFailure { .. } => FAILURE,
            Fact::SessionClosed { .. } => CLOSED,
            Fact::VerdictChanged { .. } => VERDICT,
            _ => RARE,
        };
        self.byte(kind);
        self.number(zigzag(event.at.unix_millis().wrapping_sub(self.at.unix_millis())));
        let name = event.guest.as_ref().map_or(&[][..], GuestName::as_bytes);
        // A name has at most 64 bytes.
        self.byte(name.len() as u8);
        self.bytes.extend_from_slice(name);
        match &event.fact {
            Fact::HandshakeStart { transport, remote } => self.way(*transport, remote),
            Fact::HandshakeSuccess {
                epoch,
                transport,
                remote,
                capabilities,
                proven,
                authenticated,
                once,
            } => {
                self.epoch(*epoch);
                self.way(*transport, remote);
                self.capabilities(capabilities);
                let flag = |set: bool, bit: u8| if set { bit } else { 0 };
                self.byte(flag(*proven, PROVEN) | flag(*authenticated, AUTHENTICATED) | flag(*once, ONCE));
            }
            Fact::HandshakeFailure { reason, transport, remote, capabilities } => {
                self.byte(reason.byte());
                self.way(*transport, remote);
                self.capabilities(capabilities);
            }
            Fact::SessionClosed { epoch, reason, lasted_ms } => {
                self.epoch(*epoch);
                self.byte(reason.byte());
                self.number(*lasted_ms);
            }
            Fact::VerdictChanged { from, to, reason, age_ms } => {
                self.byte(from.byte());
                self.byte(to.byte());
                self.byte(reason.map_or(NONE, Word::byte));
                self.byte(u8::from(age_ms.is_some()));
                self.number(age_ms.unwrap_or(0));
            }
            rare => {
                self.number(self.rare.len() as u64);
                self.rare.push(rare.clone());
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Seven bits a byte, the lowest first; all but the last have the eighth set.
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    fn epoch(&mut self, epoch: Epoch) {
        self.number(epoch.incarnation().into());
        self.number(epoch.counter().into());
    }

    fn way(&mut self, transport: Transport, remote: &Remote) {
        self.byte(transport.byte());
        match remote {
            Remote::Unknown => self.byte(0),
            Remote::Ip(SocketAddr::V4(address)) => {
                self.byte(1);
                self.bytes.extend_from_slice(&address.ip().octets());
                self.bytes.extend_from_slice(&address.port().to_le_bytes());
            }
            Remote::Ip(SocketAddr::V6(address)) => {
                self.byte(2);
                self.bytes.extend_from_slice(&address.ip().octets());
                self.bytes.extend_from_slice(&address.port().to_le_bytes());
                self.number(address.flowinfo().into());
                self.number(address.scope_id().into());
            }
            Remote::Process { uid, pid } => {
                self.byte(3);
                self.number((*uid).into());
                self.number((*pid).into());
            }
            Remote::Vsock { cid, port } => {
                self.byte(4);
                self.number((*cid).into());
                self.number((*port).into());
            }
        }
    }

    fn capabilities(&mut self, capabilities: &Capabilities) {
        let lately = self.said.len().saturating_sub(SAID_LATELY);
        let known = self.said[lately..].iter().position(|known| known == capabilities);
        let place = known.map_or(self.said.len(), |place| lately + place);
        if known.is_none() {
            self.said.push(capabilities.clone());
        }
        self.number(place as u64);
    }
}

impl Unpacker<'_> {
    /// The event; nothing only if the bytes are not what [`Packer`] wrote.
    pub(super) fn event(mut self, cursor: Cursor) -> Option<Event> {
        let kind = self.byte()?;
        let at = self.at.unix_millis().wrapping_add(unzigzag(self.number()?));
        let at = WallTime::from_unix_millis(at);
        let guest = match usize::from(self.byte()?) {
            0 => None,
            length => Some(GuestName::from_bytes(self.take(length)?).ok()?),
        };
        let fact = self.fact(kind)?;
        Some(Event { cursor, at, guest, fact })
    }

    fn fact(&mut self, kind: u8) -> Option<Fact> {
        Some(match kind {
            START => {
                let (transport, remote) = self.way()?;
                Fact::HandshakeStart { transport, remote }
            }
            SUCCESS => {
                let epoch = self.epoch()?;
                let (transport, remote) = self.way()?;
                let capabilities = self.capabilities()?;
                let flags = self.byte()?;
                Fact::HandshakeSuccess {
                    epoch,
                    transport,
                    remote,
                    capabilities,
                    proven: flags & PROVEN != 0,
                    authenticated: flags & AUTHENTICATED != 0,
                    once: flags & ONCE != 0,
                }
            }
            FAILURE => {
                let reason = self.word()?;
                let (transport, remote) = self.way()?;
                Fact::HandshakeFailure { reason, transport, remote, capabilities: self.capabilities()? }
            }
            CLOSED => {
                let epoch = self.epoch()?;
                Fact::SessionClosed { epoch, reason: self.word()?, lasted_ms: self.number()? }
            }
            VERDICT => {
                let (from, to) = (self.word()?, self.word()?);
                let reason = match self.byte()? {
                    NONE => None,
                    byte => Some(Word::of(byte)?),
                };
                let known = self.byte()? != 0;
                let age_ms = Some(self.number()?).filter(|_| known);
                Fact::VerdictChanged { from, to, reason, age_ms }
            }
            _ => self.rare.get(self.number()? as usize)?.clone(),
        })
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn word<W: Word>(&mut self) -> Option<W> {
        W::of(self.byte()?)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn epoch(&mut self) -> Option<Epoch> {
        Some(Epoch::new(self.small()?, self.small()?))
    }

    fn way(&mut self) -> Option<(Transport, Remote)> {
        let transport = self.word()?;
        let remote = match self.byte()? {
            1 => {
                let ip = Ipv4Addr::from(self.array::<4>()?);
                Remote::Ip((ip, u16::from_le_bytes(self.array()?)).into())
            }
            2 => {
                let ip = Ipv6Addr::from(self.array::<16>()?);
                let port = u16::from_le_bytes(self.array()?);
                Remote::Ip(SocketAddrV6::new(ip, port, self.small()?, self.small()?).into())
            }
            3 => Remote::Process { uid: self.small()?, pid: self.small()? },
            4 => Remote::Vsock { cid: self.small()?, port: self.small()? },
            _ => Remote::Unknown,
        };
        Some((transport, remote))
    }

    fn capabilities(&mut self) -> Option<Capabilities> {
        self.said.get(self.number()? as usize).cloned()
    }
}

/// Small numbers of either sign become small numbers.
const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// No word's byte.
const NONE: u8 = u8::MAX;

/// One of few.
trait Word: Copy {
    fn byte(self) -> u8;
    fn of(byte: u8) -> Option<Self>;
}

/// All words of a type: one that is forgotten doesn't compile.
macro_rules! words {
    ($($type:ident: $($word:ident)+;)+) => {
        $(impl Word for $type {
            fn byte(self) -> u8 {
                match self {
                    $(Self::$word => Self::$word as u8,)+
                }
            }

            fn of(byte: u8) -> Option<Self> {
                [$(Self::$word),+].into_iter().find(|word| word.byte() == byte)
            }
        })+
    };
}

words! {
    Transport: Tcp Unix Vsock Serial;
    State: Offline Waiting Reachable;
    Reason: NeverSeen Handshaking Stale Disconnected Goodbye Refused Unproven BrokerStarted BrokerStalled
        ClockJumped NameConflict NoBroker BrokerNotAnswering;
    Failure: BadLine BadName UnknownName TokenRequired BadProof NameInUse Busy Timeout Disconnected Evicted
        Shutdown;
    SessionEnd: Goodbye Disconnected Superseded Strikes BadMac BadFrame Stale Slow TokenChanged Forgotten
        HeartbeatTimeout Shutdown Replaced Resynchronised;
}
