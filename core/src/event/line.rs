//! The log form of an event, and text made safe for it.

use core::fmt;

use super::{Event, Fact};

/// The log form: one line, no time, no prefix, no level; fixed field order.
/// The greeting is that of `handshake.success`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = Optional(self.guest.as_ref());
        match &self.fact {
            Fact::BrokerStarted { guests } => {
                write!(f, "broker started incarnation={} guests={guests}", self.cursor.incarnation)
            }
            Fact::BrokerStopping => f.write_str("broker stopping"),
            Fact::BrokerStalled { late_ms } => write!(f, "broker stalled late_ms={late_ms}"),
            Fact::ClockJumped { late_ms, suspended_ms } => {
                write!(f, "clock jumped late_ms={late_ms} suspended_ms={suspended_ms}")
            }
            Fact::BrokerReloaded => f.write_str("configuration reloaded"),
            Fact::HandshakeStart { transport, remote } => {
                write!(f, "handshake start vm={guest} via={transport} remote={remote}")
            }
            Fact::HandshakeSuccess {
                epoch,
                transport,
                remote,
                capabilities,
                proven,
                authenticated,
                once,
            } => write!(
                f,
                "hello from vm:{guest} session=sess-{}-{} epoch={epoch} via={transport} remote={remote} proven={} auth={} once={} capabilities=[{capabilities}]",
                epoch.incarnation(),
                epoch.counter(),
                yes(*proven),
                if *authenticated { "hmac-sha256" } else { "none" },
                yes(*once),
            ),
            Fact::HandshakeFailure { reason, transport, remote, capabilities } => write!(
                f,
                "handshake failed vm={guest} reason={reason} via={transport} remote={remote} capabilities=[{capabilities}]"
            ),
            Fact::SessionClosed { epoch, reason, lasted_ms } => write!(
                f,
                "session closed vm={guest} session=sess-{}-{} reason={reason} lasted_ms={lasted_ms}",
                epoch.incarnation(),
                epoch.counter()
            ),
            Fact::VerdictChanged { from, to, reason, age_ms } => write!(
                f,
                "verdict vm={guest} from={from} to={to} reason={} age_ms={}",
                Optional(reason.as_ref()),
                Optional(age_ms.as_ref())
            ),
            Fact::NameConflict { transport, remote, takeovers } => {
                write!(f, "name conflict vm={guest} via={transport} remote={remote} takeovers={takeovers}")
            }
            Fact::TokenIssued => write!(f, "token issued vm={guest}"),
            Fact::TokenRevoked => write!(f, "token revoked vm={guest}"),
            Fact::GuestForgotten => write!(f, "guest forgotten vm={guest}"),
            Fact::StorageFailed { what, message } => {
                write!(f, "storage failed what={} error=\"{}\"", what.as_str(), Escaped(message))
            }
            Fact::StorageRecovered { what } => write!(f, "storage recovered what={}", what.as_str()),
            Fact::LinkDialing { attempt } => write!(f, "link dialing attempt={attempt}"),
            Fact::LinkUp { epoch, authenticated, interval_ms, window_ms } => write!(
                f,
                "link up epoch={epoch} auth={} interval_ms={interval_ms} window_ms={window_ms}",
                if *authenticated { "hmac-sha256" } else { "none" }
            ),
            Fact::LinkDown { reason, retry_ms, error } => {
                write!(f, "link down reason={} retry_ms={}", reason.as_str(), Optional(retry_ms.as_ref()))?;
                error.as_ref().map_or(Ok(()), |error| write!(f, " error=\"{}\"", Escaped(error)))
            }
            Fact::LinkRefused { code, retry_ms } => {
                write!(f, "link refused code={} retry_ms={}", Escaped(code), Optional(retry_ms.as_ref()))
            }
            Fact::BrokerUnproven { retry_ms } => write!(
                f,
                "broker unproven: it does not know this guest's token retry_ms={}",
                Optional(retry_ms.as_ref())
            ),
        }
    }
}

struct Optional<'a, T>(Option<&'a T>);

impl<T: fmt::Display> fmt::Display for Optional<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

const fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// Text from outside, safe for a log and a terminal: everything that is not
/// printable ASCII, and `"` and `\`, is escaped.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                ' '..='~' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_unicode())?,
            }
        }
        Ok(())
    }
}
