//! Events as text, appended without formatting machinery: five of them come with
//! every handshake, and each is written twice.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{Escaped, Event, Fact};
use crate::capabilities::Capabilities;
use crate::endpoint::{Remote, Transport};
use crate::id::{Epoch, GuestName};
use crate::link::line::append_number;
use crate::peers::Expiry;

impl Event {
    /// Appends the log form: one line without time, prefix, level or line end;
    /// fixed field order. The greeting is that of `handshake.success`.
    pub fn append_line(&self, out: &mut Vec<u8>) {
        let mut line = Line(out);
        let guest = self.guest.as_ref();
        match &self.fact {
            Fact::Terminal(fact) => fact.append_line(&mut line),
            Fact::Attach(fact) => fact.append_line(&mut line, guest),
            Fact::BrokerStarted { guests } => {
                line.text("broker started incarnation=").number(self.cursor.incarnation);
                line.text(" guests=").number(*guests);
            }
            Fact::BrokerStopping => drop(line.text("broker stopping")),
            Fact::BrokerStalled { late_ms } => drop(line.text("broker stalled late_ms=").number(*late_ms)),
            Fact::ClockJumped { late_ms, suspended_ms } => {
                line.text("clock jumped late_ms=").number(*late_ms);
                line.text(" suspended_ms=").number(*suspended_ms);
            }
            Fact::BrokerReloaded => drop(line.text("configuration reloaded")),
            Fact::HandshakeStart { transport, remote } => {
                line.text("handshake start vm=").guest(guest).way(*transport, remote);
            }
            Fact::HandshakeSuccess {
                epoch,
                transport,
                remote,
                capabilities,
                proven,
                authenticated,
                once,
            } => {
                line.text("hello from vm:").guest(guest).session(*epoch).text(" epoch=").number(epoch.0);
                line.way(*transport, remote).text(" proven=").text(yes(*proven));
                line.text(" auth=").text(auth(*authenticated)).text(" once=").text(yes(*once));
                line.capabilities(capabilities);
            }
            Fact::HandshakeFailure { reason, transport, remote, capabilities } => {
                line.text("handshake failed vm=").guest(guest).text(" reason=").text(reason.as_str());
                line.way(*transport, remote).capabilities(capabilities);
            }
            Fact::SessionClosed { epoch, reason, lasted_ms } => {
                line.text("session closed vm=").guest(guest).session(*epoch);
                line.text(" reason=").text(reason.as_str()).text(" lasted_ms=").number(*lasted_ms);
            }
            Fact::VerdictChanged { from, to, reason, age_ms } => {
                line.text("verdict vm=").guest(guest).text(" from=").text(from.as_str());
                line.text(" to=").text(to.as_str());
                line.text(" reason=").text(reason.map_or("-", |reason| reason.as_str()));
                line.text(" age_ms=").number_or_none(*age_ms);
            }
            Fact::NameConflict { transport, remote, takeovers } => {
                line.text("name conflict vm=").guest(guest).way(*transport, remote);
                line.text(" takeovers=").number(*takeovers);
            }
            Fact::TokenIssued => drop(line.text("token issued vm=").guest(guest)),
            Fact::TokenRevoked => drop(line.text("token revoked vm=").guest(guest)),
            Fact::GuestForgotten => drop(line.text("guest forgotten vm=").guest(guest)),
            Fact::PeerRegistered { peer } => {
                line.text("peer registered vm=").guest(guest).text(" peer=").guest(Some(peer));
            }
            Fact::PeerUnregistered { peer } => {
                line.text("peer unregistered vm=").guest(guest).text(" peer=").guest(Some(peer));
            }
            Fact::PeerRefused { peer, outcome, reason } => {
                line.text("peer refused vm=").guest(guest).text(" peer=").guest(Some(peer));
                line.text(" outcome=").text(outcome.as_str()).text(" reason=\"").escaped(reason).text("\"");
            }
            Fact::MessageSent { id, to, bytes } => {
                line.text("message sent vm=").guest(guest).text(" id=").shown(id);
                line.text(" to=").guest(Some(to)).text(" bytes=").number(*bytes);
            }
            Fact::MessageDelivered { id, from } => {
                line.text("message delivered vm=").guest(guest).text(" id=").shown(id);
                line.text(" from=").guest(Some(from));
            }
            Fact::MessageExpired { id, to, reason } => {
                line.text("message expired vm=").guest(guest).text(" id=").shown(id);
                line.text(" to=").guest(Some(to)).text(" reason=");
                line.text(reason.map_or("rejected", Expiry::as_str));
            }
            Fact::GuestStarted => drop(line.text("start command run vm=").guest(guest)),
            Fact::PeerOffer { from, from_authenticated } => {
                line.text("peer offer from=")
                    .guest(Some(from))
                    .text(" auth=")
                    .text(auth(*from_authenticated));
            }
            Fact::TunnelOpened { stream } => {
                line.text("terminals opened vm=").guest(guest).text(" stream=").number(*stream);
            }
            Fact::TunnelClosed { stream, reason, to_guest_bytes, from_guest_bytes, lasted_ms } => {
                line.text("terminals closed vm=").guest(guest).text(" stream=").number(*stream);
                line.text(" reason=").text(reason.as_str()).text(" to_guest_bytes=").number(*to_guest_bytes);
                line.text(" from_guest_bytes=").number(*from_guest_bytes);
                line.text(" lasted_ms=").number(*lasted_ms);
            }
            Fact::StorageFailed { what, message } => {
                line.text("storage failed what=").text(what.as_str());
                line.text(" error=\"").escaped(message).text("\"");
            }
            Fact::StorageRecovered { what } => drop(line.text("storage recovered what=").text(what.as_str())),
            Fact::LinkDialing { attempt } => drop(line.text("link dialing attempt=").number(*attempt)),
            Fact::LinkUp { epoch, authenticated, interval_ms, window_ms } => {
                line.text("link up epoch=").number(epoch.0).text(" auth=").text(auth(*authenticated));
                line.text(" interval_ms=").number(*interval_ms).text(" window_ms=").number(*window_ms);
            }
            Fact::LinkDown { reason, retry_ms, error } => {
                line.text("link down reason=").text(reason.as_str());
                line.text(" retry_ms=").number_or_none(*retry_ms);
                if let Some(error) = error {
                    line.text(" error=\"").escaped(error).text("\"");
                }
            }
            Fact::LinkRefused { code, retry_ms } => {
                line.text("link refused code=").escaped(code).text(" retry_ms=").number_or_none(*retry_ms);
            }
            Fact::BrokerUnproven { retry_ms } => {
                line.text("broker unproven: it does not know this guest's token retry_ms=");
                line.number_or_none(*retry_ms);
            }
        }
    }

    /// Appends the JSON form, as [`serde::Serialize`] gives it. `at` is
    /// [`Event::at`] as text, if the caller has it: many events share one.
    pub fn append_json(&self, at: Option<&str>, out: &mut Vec<u8>) {
        let mut json = Line(out);
        json.text(r#"{"cursor":""#).number(self.cursor.incarnation).text("-").number(self.cursor.number);
        json.text(r#"","at":""#);
        match at {
            Some(at) => json.text(at),
            None => json.shown(self.at),
        };
        if let Some(guest) = &self.guest {
            json.text(r#"","guest":""#).bytes(guest.as_bytes());
        }
        json.text(r#"","kind":""#).text(self.fact.kind()).text("\"");
        match &self.fact {
            Fact::Terminal(fact) => fact.append_fields(&mut json),
            Fact::Attach(fact) => fact.append_fields(&mut json),
            Fact::BrokerStarted { guests } => drop(json.field_number("guests", *guests)),
            Fact::BrokerStalled { late_ms } => drop(json.field_number("late_ms", *late_ms)),
            Fact::ClockJumped { late_ms, suspended_ms } => {
                json.field_number("late_ms", *late_ms).field_number("suspended_ms", *suspended_ms);
            }
            Fact::HandshakeStart { transport, remote } => drop(json.fields_way(*transport, remote)),
            Fact::HandshakeSuccess {
                epoch,
                transport,
                remote,
                capabilities,
                proven,
                authenticated,
                once,
            } => {
                json.field_number("epoch", epoch.0).fields_way(*transport, remote);
                json.field_capabilities(capabilities).field_flag("proven", *proven);
                json.field_flag("authenticated", *authenticated).field_flag("once", *once);
            }
            Fact::HandshakeFailure { reason, transport, remote, capabilities } => {
                json.field_word("reason", reason.as_str()).fields_way(*transport, remote);
                json.field_capabilities(capabilities);
            }
            Fact::SessionClosed { epoch, reason, lasted_ms } => {
                json.field_number("epoch", epoch.0).field_word("reason", reason.as_str());
                json.field_number("lasted_ms", *lasted_ms);
            }
            Fact::VerdictChanged { from, to, reason, age_ms } => {
                json.field_word("from", from.as_str()).field_word("to", to.as_str());
                match reason {
                    Some(reason) => json.field_word("reason", reason.as_str()),
                    None => json.text(r#","reason":null"#),
                };
                json.field_number_or_null("age_ms", *age_ms);
            }
            Fact::NameConflict { transport, remote, takeovers } => {
                json.fields_way(*transport, remote).field_number("takeovers", *takeovers);
            }
            Fact::PeerRegistered { peer } | Fact::PeerUnregistered { peer } => {
                json.field_word("peer", peer.as_str());
            }
            Fact::PeerRefused { peer, outcome, reason } => {
                json.field_word("peer", peer.as_str()).field_word("outcome", outcome.as_str());
                json.field_foreign("reason", reason);
            }
            Fact::MessageSent { id, to, bytes } => {
                json.field("id").text("\"").shown(id).text("\"");
                json.field_word("to", to.as_str()).field_number("bytes", *bytes);
            }
            Fact::MessageDelivered { id, from } => {
                json.field("id").text("\"").shown(id).text("\"");
                json.field_word("from", from.as_str());
            }
            Fact::MessageExpired { id, to, reason } => {
                json.field("id").text("\"").shown(id).text("\"");
                json.field_word("to", to.as_str());
                match reason {
                    Some(reason) => json.field_word("reason", reason.as_str()),
                    None => json.text(r#","reason":null"#),
                };
            }
            Fact::PeerOffer { from, from_authenticated } => {
                json.field_word("from", from.as_str()).field_flag("from_authenticated", *from_authenticated);
            }
            Fact::TunnelOpened { stream } => drop(json.field_number("stream", *stream)),
            Fact::TunnelClosed { stream, reason, to_guest_bytes, from_guest_bytes, lasted_ms } => {
                json.field_number("stream", *stream).field_word("reason", reason.as_str());
                json.field_number("to_guest_bytes", *to_guest_bytes);
                json.field_number("from_guest_bytes", *from_guest_bytes);
                json.field_number("lasted_ms", *lasted_ms);
            }
            Fact::StorageFailed { what, message } => {
                json.field_word("what", what.as_str()).field_foreign("message", message);
            }
            Fact::StorageRecovered { what } => drop(json.field_word("what", what.as_str())),
            Fact::LinkDialing { attempt } => drop(json.field_number("attempt", u64::from(*attempt))),
            Fact::LinkUp { epoch, authenticated, interval_ms, window_ms } => {
                json.field_number("epoch", epoch.0).field_flag("authenticated", *authenticated);
                json.field_number("interval_ms", *interval_ms).field_number("window_ms", *window_ms);
            }
            Fact::LinkDown { reason, retry_ms, error } => {
                json.field_word("reason", reason.as_str()).field_number_or_null("retry_ms", *retry_ms);
                if let Some(error) = error {
                    json.field_foreign("error", error);
                }
            }
            Fact::LinkRefused { code, retry_ms } => {
                json.field_foreign("code", code).field_number_or_null("retry_ms", *retry_ms);
            }
            Fact::BrokerUnproven { retry_ms } => drop(json.field_number_or_null("retry_ms", *retry_ms)),
            Fact::BrokerStopping
            | Fact::BrokerReloaded
            | Fact::TokenIssued
            | Fact::TokenRevoked
            | Fact::GuestForgotten
            | Fact::GuestStarted => {}
        }
        json.text("}");
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        self.append_line(&mut line);
        // It is made of text.
        f.write_str(core::str::from_utf8(&line).unwrap_or_default())
    }
}

/// Appends words. Writing to memory can't fail. Inlined, a word that is known
/// beforehand is two or three moves instead of a call.
pub(super) struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    #[inline(always)]
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    #[inline(always)]
    pub(super) fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        append_number(self.0, number.into());
        self
    }

    pub(super) fn number_or_none(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.text("-"),
        }
    }

    pub(super) fn shown(&mut self, value: impl fmt::Display) -> &mut Self {
        let _ = write!(self, "{value}");
        self
    }

    pub(super) fn escaped(&mut self, text: &str) -> &mut Self {
        self.shown(Escaped(text))
    }

    pub(super) fn guest(&mut self, guest: Option<&GuestName>) -> &mut Self {
        self.bytes(guest.map_or(b"-", GuestName::as_bytes))
    }

    #[inline(always)]
    fn session(&mut self, epoch: Epoch) -> &mut Self {
        self.text(" session=sess-").number(epoch.incarnation()).text("-").number(epoch.counter())
    }

    #[inline(always)]
    fn way(&mut self, transport: Transport, remote: &Remote) -> &mut Self {
        self.text(" via=").text(transport.as_str()).text(" remote=").remote(remote)
    }

    fn remote(&mut self, remote: &Remote) -> &mut Self {
        remote.append(self.0);
        self
    }

    fn capabilities(&mut self, capabilities: &Capabilities) -> &mut Self {
        let words = if capabilities.is_empty() { "-" } else { capabilities.as_str() };
        self.text(" capabilities=[").text(words).text("]")
    }

    #[inline(always)]
    pub(super) fn field(&mut self, name: &str) -> &mut Self {
        self.text(",\"").text(name).text("\":")
    }

    #[inline(always)]
    pub(super) fn field_number(&mut self, name: &str, number: u64) -> &mut Self {
        self.field(name).number(number)
    }

    pub(super) fn field_number_or_null(&mut self, name: &str, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.field_number(name, number),
            None => self.field(name).text("null"),
        }
    }

    #[inline(always)]
    pub(super) fn field_flag(&mut self, name: &str, flag: bool) -> &mut Self {
        self.field(name).text(if flag { "true" } else { "false" })
    }

    /// `word` is ours, or was let in only without anything that JSON escapes.
    #[inline(always)]
    pub(super) fn field_word(&mut self, name: &str, word: &str) -> &mut Self {
        self.field(name).text("\"").text(word).text("\"")
    }

    pub(super) fn field_foreign(&mut self, name: &str, text: &str) -> &mut Self {
        // A text can always be written.
        let quoted = serde_json::to_string(text).unwrap_or_default();
        self.field(name).text(&quoted)
    }

    pub(super) fn field_foreign_or_null(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.field_foreign(name, text),
            None => self.field(name).text("null"),
        }
    }

    pub(super) fn quoted_or_none(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text("\"").escaped(text).text("\""),
            None => self.text("-"),
        }
    }

    #[inline(always)]
    fn fields_way(&mut self, transport: Transport, remote: &Remote) -> &mut Self {
        self.field_word("transport", transport.as_str()).field("remote").text("\"").remote(remote).text("\"")
    }

    fn field_capabilities(&mut self, capabilities: &Capabilities) -> &mut Self {
        self.field("capabilities").text("[");
        for (index, word) in capabilities.iter().enumerate() {
            self.text(if index > 0 { ",\"" } else { "\"" }).text(word).text("\"");
        }
        self.text("]")
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

pub(super) const fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

const fn auth(authenticated: bool) -> &'static str {
    if authenticated { "hmac-sha256" } else { "none" }
}
