//! What to do when a peers' command comes to nothing.

use castra_core::control::reply::ErrorCode;
use castra_core::id::GuestName;
use castra_core::peers::TEXT_MAX;

use crate::client::ClientError;
use crate::exit::{Exit, Failure};

/// Whom a question was about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About {
    /// In whose name; `None`: the guest that this is.
    pub(super) own: Option<GuestName>,
    /// The other one.
    pub(super) other: Option<GuestName>,
}

impl About {
    /// A question about one guest, in nobody's name.
    pub(super) const fn the(other: GuestName) -> Self {
        Self { own: None, other: Some(other) }
    }
}

/// The failure that a refused question is, with its own exit code and what to do.
pub(super) fn failure(error: ClientError, method: &str, about: &About) -> Failure {
    let ClientError::Refused(body) = &error else { return error.into() };
    let code = body.code;
    // Whoever wrote the message may have said it already.
    let said = ["castra ", "castra.toml"].iter().any(|word| body.message.contains(word));
    let advice = advice(code, method, about).filter(|_| !said || code == ErrorCode::Full);
    let exit = match code {
        // Here it is a verdict: nothing was done, and later it may be.
        ErrorCode::Busy => Exit::No,
        code => code.into(),
    };
    let message = error.to_string();
    Failure::new(exit, advice.map_or_else(|| message.clone(), |advice| format!("{message}: {advice}")))
}

fn advice(code: ErrorCode, method: &str, about: &About) -> Option<String> {
    let other = about.other.map_or_else(|| "NAME".to_owned(), |name| name.to_string());
    let pair = about.own.map_or_else(|| other.clone(), |own| format!("{own} {other}"));
    Some(match code {
        ErrorCode::Unknown | ErrorCode::UnknownGuest if method == "peer_answer" => {
            format!(
                "nobody of that name waits for an answer; `castra peer link {other}` asks the other way round"
            )
        }
        ErrorCode::Unknown | ErrorCode::UnknownGuest => {
            "`castra status` lists all guests, and inside a guest `castra peers` those it knows".into()
        }
        ErrorCode::NotPeer => format!("`castra peer link {pair}` makes them peers"),
        ErrorCode::Rejected => {
            "it may be unknown, or would not; on the host, `castra events --kind 'peer.*'` says why".into()
        }
        ErrorCode::Full => format!(
            "what waits must be delivered or expire first; on the host, `castra peers {}` shows it, and `castra \
             broker --queue-messages` and `--queue-bytes` set how much may wait",
            about.own.map_or_else(|| "NAME".to_owned(), |own| own.to_string())
        ),
        ErrorCode::TooLarge => {
            format!("a text has at most {TEXT_MAX} bytes: send it in parts, or say where it is")
        }
        ErrorCode::NotReachable if method == "send_to_peer" => format!(
            "without --no-queue it waits until {other} returns; `castra restore {other}` runs its start command"
        ),
        ErrorCode::Refused if method == "restore" => format!(
            "a start command is [guests.{other}] start = \"...\" in castra.toml, in the broker's state directory; \
             `castra reload` makes the broker read it"
        ),
        ErrorCode::Timeout if method == "restore" => format!(
            "on the host, logs/start-{other}.log in the state directory has what its start command said"
        ),
        ErrorCode::Forbidden => "a guest speaks in its own name and of its peers alone".into(),
        ErrorCode::InvalidRequest if about.own.is_none() && method != "restore" => {
            "on the host, say whose: `castra help peers` shows both forms".into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::control::reply::ErrorBody;

    fn refused(code: ErrorCode, message: &str, method: &str, about: &About) -> Failure {
        failure(ClientError::Refused(ErrorBody { code, message: message.into() }), method, about)
    }

    #[test]
    fn every_outcome_of_the_specification_has_its_exit_code() {
        for (code, exit) in [
            (ErrorCode::Unknown, 6),
            (ErrorCode::UnknownGuest, 6),
            (ErrorCode::Rejected, 5),
            (ErrorCode::NotPeer, 5),
            (ErrorCode::Forbidden, 5),
            (ErrorCode::Refused, 5),
            (ErrorCode::Itself, 2),
            (ErrorCode::Ambiguous, 2),
            (ErrorCode::TooLarge, 2),
            (ErrorCode::InvalidRequest, 2),
            (ErrorCode::Busy, 1),
            (ErrorCode::Full, 1),
            (ErrorCode::NotReachable, 1),
            (ErrorCode::Timeout, 4),
            (ErrorCode::ShuttingDown, 3),
            (ErrorCode::StorageFailed, 70),
        ] {
            assert_eq!(refused(code, "x", "register_peer", &About::default()).exit.code(), exit, "{code}");
        }
    }

    #[test]
    fn advice_names_the_guests_and_is_not_given_twice() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let both = About { own: Some(a), other: Some(b) };
        let failure = refused(ErrorCode::NotPeer, "they are no peers", "send_to_peer", &both);
        assert_eq!(failure.message, "they are no peers (not_peer): `castra peer link a b` makes them peers");
        let inside = refused(ErrorCode::NotPeer, "no", "send_to_peer", &About::the(b));
        assert_eq!(inside.message, "no (not_peer): `castra peer link b` makes them peers");
        let said = refused(ErrorCode::NotPeer, "no: `castra peer link a b`", "send_to_peer", &both);
        assert_eq!(said.message, "no: `castra peer link a b` (not_peer)");
    }
}
