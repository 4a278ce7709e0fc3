//! Reading a manager's handshake: whether it may be followed, and what it asks for.

use core::time::Duration;

use crate::attach::wire::{AttachErrorCode, Block, Handshake, SCHEMA};
use crate::attach::{AttachId, AttachSettings, Hint, ManagerUrl, Secret};
use crate::entropy::Entropy;
use crate::event::AttachSource;
use crate::time::{Now, Time};

/// Where to attach, and with what.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) session: AttachId,
    /// `None`: the configuration says so.
    pub(super) handshake: Option<AttachId>,
    pub(super) beach: AttachId,
    pub(super) url: ManagerUrl,
    pub(super) code: Secret,
    /// Goes to `url` alone; nothing over the link carries one.
    pub(super) token: Option<Secret>,
    /// When the code is too old, if that is known.
    pub(super) expires: Option<Time>,
    /// How long the first lease lasts, if that is known.
    pub(super) lease_ttl: Option<Duration>,
}

/// What an acceptable handshake asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// Attach there.
    Attach(Target),
    /// Stay attached as you are.
    Refresh(Option<Duration>),
}

impl Target {
    /// What the operator configured.
    pub(super) fn configured(hint: &Hint, entropy: &mut Entropy) -> Self {
        Self {
            session: AttachId::random(entropy),
            handshake: None,
            beach: hint.beach.clone(),
            url: hint.manager.clone(),
            code: hint.code.clone(),
            token: Some(hint.token.clone()),
            expires: None,
            lease_ttl: None,
        }
    }

    pub(super) const fn source(&self) -> AttachSource {
        match self.handshake {
            Some(_) => AttachSource::Handshake,
            None => AttachSource::Environment,
        }
    }

    pub(super) fn is_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// What `handshake` asks for, or the first reason against it. `trusted`: the broker
/// proved itself, or needn't; then it may name any address.
pub(super) fn judge(
    handshake: &Handshake,
    trusted: bool,
    attached: Option<&AttachId>,
    settings: &AttachSettings,
    now: Now,
) -> Result<Asked, AttachErrorCode> {
    if !trusted {
        return Err(AttachErrorCode::UnkeyedLink);
    }
    if handshake.schema != Some(SCHEMA) {
        return Err(AttachErrorCode::Malformed);
    }
    let session = id(handshake.session_id.as_deref());
    let refresh = handshake.handshake_kind.as_deref() == Some("refresh");
    if refresh && attached.is_some() && attached == session.as_ref().ok() {
        return Ok(Asked::Refresh(handshake.lease_ttl_ms.map(Duration::from_millis)));
    }
    let block = handshake.controller_auto_attach.as_ref().ok_or(AttachErrorCode::NoBlock)?;
    let (handshake_id, session) = (id(handshake.handshake_id.as_deref())?, session?);
    let beach = id(block.private_beach_id.as_deref())?;
    let code = block.attach_code.clone().ok_or(AttachErrorCode::Malformed)?;
    let named = url(block.manager_url.as_deref())?;
    let outside = url(handshake.manager_url.as_deref())?;
    let other_beach = handshake.private_beach_id.as_deref().is_some_and(|other| other != beach.as_str());
    let url = match named {
        Some(named) => named,
        None => settings.managers.first().cloned().ok_or(AttachErrorCode::UntrustedUrl)?,
    };
    if other_beach || outside.is_some_and(|outside| outside != url) {
        return Err(AttachErrorCode::Mismatch);
    }
    let token = handshake.controller_token.clone().or_else(|| configured_token(&url, settings));
    if token.is_none() && url != ManagerUrl::Link {
        return Err(AttachErrorCode::NoToken);
    }
    let expires = expiry(block, settings.clock_slack, now);
    let lease_ttl = handshake.lease_ttl_ms.map(Duration::from_millis);
    let target =
        Target { session, handshake: Some(handshake_id), beach, url, code, token, expires, lease_ttl };
    if target.is_expired(now.boot) {
        return Err(AttachErrorCode::Expired);
    }
    Ok(Asked::Attach(target))
}

/// A configured bearer, for the address that it is configured for.
fn configured_token(url: &ManagerUrl, settings: &AttachSettings) -> Option<Secret> {
    settings.hint.as_ref().filter(|hint| hint.manager == *url).map(|hint| hint.token.clone())
}

/// From when on the code is too old, on the boot-time clock. The manager's absolute
/// time decides only if it says no other, and then with some slack.
fn expiry(block: &Block, slack: Duration, now: Now) -> Option<Time> {
    let left = match (block.ttl_ms, block.expires_at_ms) {
        (Some(ttl), _) => Duration::from_millis(ttl),
        (None, Some(at)) => left_until(at, slack, now),
        (None, None) => return None,
    };
    Some(now.boot + left)
}

/// How long it is until `at`, in milliseconds since 1970, and `slack` after that.
pub(super) fn left_until(at: i64, slack: Duration, now: Now) -> Duration {
    let slack = i64::try_from(slack.as_millis()).unwrap_or(i64::MAX);
    let left = at.saturating_add(slack).saturating_sub(now.wall.unix_millis());
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

/// The id of a handshake that is not even one.
pub(super) fn id(text: Option<&str>) -> Result<AttachId, AttachErrorCode> {
    text.and_then(|text| text.parse().ok()).ok_or(AttachErrorCode::Malformed)
}

fn url(text: Option<&str>) -> Result<Option<ManagerUrl>, AttachErrorCode> {
    text.map(|text| text.parse().map_err(|_| AttachErrorCode::Malformed)).transpose()
}

/// Why a handshake is refused or an attempt failed, for people.
pub(super) const fn explained(code: AttachErrorCode) -> &'static str {
    match code {
        AttachErrorCode::UnkeyedLink => {
            "the link is not keyed: give this guest a token, or start its agent with --trust-unkeyed-broker"
        }
        AttachErrorCode::UntrustedUrl => {
            "the handshake names no manager, and none is configured: --manager-url"
        }
        AttachErrorCode::Mismatch => {
            "a field outside controller_auto_attach says something else than the block"
        }
        AttachErrorCode::NoBlock => "the handshake has no controller_auto_attach",
        AttachErrorCode::Malformed => "the handshake is of another schema, or a field is missing or wrong",
        AttachErrorCode::NoToken => {
            "neither the handshake nor the configuration has a token for that manager"
        }
        AttachErrorCode::Expired => "the code is too old",
        AttachErrorCode::Unreachable => "the manager can't be reached",
        AttachErrorCode::TimedOut => "no answer in time",
        AttachErrorCode::BadAnswer => "the answer is too long, or not what it should be",
        AttachErrorCode::LinkLost => "the link was lost",
        AttachErrorCode::UnknownSession => "the manager knows no such attachment",
        AttachErrorCode::InvalidCode => "the code is wrong, was used for something else, or is too old",
        AttachErrorCode::StorageFailed => "the manager could not make it durable",
        AttachErrorCode::Released => "the manager released this guest",
    }
}
