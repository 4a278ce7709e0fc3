//! What to do when a command about attachments comes to nothing.

use castra_core::control::reply::ErrorCode;
use castra_core::id::GuestName;

use crate::client::ClientError;
use crate::exit::{Exit, Failure};

/// The failure that a refused question is, with its own exit code and what to do.
pub(super) fn failure(error: ClientError, method: &str, guest: Option<GuestName>) -> Failure {
    let body = match &error {
        ClientError::Refused(body) => body,
        // It took the question and fell silent: the wait is over all the same.
        ClientError::NotAnswering { .. } if method == "adopt" || method == "action_send" => {
            let more =
                "whether it was done is not known: `castra attachments` and `castra action list` will say";
            return Failure::new(Exit::Offline, format!("{error}; {more}"));
        }
        _ => return error.into(),
    };
    // Whoever wrote the message may have said it already.
    let said = body.message.contains("castra ") && body.code != ErrorCode::Refused;
    let guest = guest.map_or_else(|| "GUEST".to_owned(), |guest| guest.to_string());
    let advice = advice(body.code, method, &guest, &body.message).filter(|_| !said);
    let exit = match body.code {
        // Here it is a verdict: nothing was done, and later it may be.
        ErrorCode::Busy => Exit::No,
        code => code.into(),
    };
    let message = error.to_string();
    Failure::new(exit, advice.map_or_else(|| message.clone(), |advice| format!("{message}: {advice}")))
}

fn advice(code: ErrorCode, method: &str, guest: &str, message: &str) -> Option<String> {
    Some(match code {
        ErrorCode::UnknownGuest | ErrorCode::Unknown => {
            "`castra status` lists all guests; one is known once its agent connected, or by `castra broker --guest`"
                .into()
        }
        ErrorCode::Refused if method == "adopt" => {
            format!("{}; `castra release {guest}` gives up", refusal(message, guest))
        }
        ErrorCode::Timeout if method == "adopt" => format!(
            "the adoption stays, and goes on by itself; `castra attachments` shows why it is not attached yet, \
             `castra status {guest}` whether it is there, and `castra release {guest}` gives up"
        ),
        ErrorCode::Timeout if method == "attachments" => {
            "without --wait it shows which attempt it is at, and why the last one failed".into()
        }
        ErrorCode::Conflict => format!("`castra release {guest}` first; what waits for it is dropped then"),
        ErrorCode::NotAttached if method == "release" => "`castra attachments` lists who is adopted".into(),
        ErrorCode::NotAttached => {
            format!("`castra adopt {guest}`; `castra attachments` shows how far an adoption is")
        }
        ErrorCode::GuestOffline => format!(
            "`castra status {guest}` says why it is not reachable; what is queued already stays, and \
             `castra action list {guest}` shows it"
        ),
        ErrorCode::MissingLease => format!(
            "its agent renews the lease by itself within seconds: try again, and see `castra attachments`; an \
             agent that does not is stopped or can't reach its manager (`castra status {guest}`)"
        ),
        ErrorCode::Full if method == "action_send" => format!(
            "what waits must be taken or expire first: `castra action list {guest}` shows it, and `castra release \
             {guest}` drops it"
        ),
        ErrorCode::Full => "as many guests are adopted as may be: `castra release` lets go of one".into(),
        ErrorCode::TooLarge => "send it in parts".into(),
        ErrorCode::Unsupported => {
            format!("the agent of {guest} can't be adopted: run one of this version in it")
        }
        ErrorCode::StorageFailed => "nothing was changed; `castra logs` has what the disk said".into(),
        ErrorCode::Forbidden | ErrorCode::UnknownMethod => {
            "guests are adopted on the host; --state-dir says where its broker is".into()
        }
        _ => return None,
    })
}

/// What to do about the guest's own reason, which stands in the message.
fn refusal(message: &str, guest: &str) -> String {
    let has = |word: &str| {
        message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|part| part == word)
    };
    if has("unkeyed_link") {
        return format!(
            "an agent is adopted only by a broker that proved itself with the guest's token: `castra token issue \
             {guest}`, and start the agent with --token-file; or start it with --trust-unkeyed-broker"
        );
    }
    if has("untrusted_url") {
        return "start the agent with --manager-url URL".into();
    }
    if ["unreachable", "timed_out", "link_lost", "bad_answer"].into_iter().any(has)
        || message.contains("http_")
    {
        return format!(
            "the guest can't use that address: `castra broker --manager-advertise URL` names another, and after \
             `castra release {guest}`, `castra adopt {guest} --link` needs none"
        );
    }
    "`castra help attachments` says what each reason means".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::control::reply::ErrorBody;

    fn refused(code: ErrorCode, message: &str, method: &str) -> Failure {
        let body = ErrorBody { code, message: message.into() };
        failure(ClientError::Refused(body), method, Some("web-1".parse().unwrap()))
    }

    #[test]
    fn every_refusal_has_its_exit_code_and_says_what_to_do() {
        for (code, method, exit, word) in [
            (ErrorCode::UnknownGuest, "adopt", 6, "castra status"),
            (ErrorCode::Conflict, "adopt", 5, "castra release web-1"),
            (ErrorCode::Timeout, "adopt", 4, "castra attachments"),
            (ErrorCode::Refused, "adopt", 5, "castra help attachments"),
            (ErrorCode::Full, "adopt", 1, "castra release"),
            (ErrorCode::Unsupported, "adopt", 5, "web-1"),
            (ErrorCode::StorageFailed, "adopt", 70, "castra logs"),
            (ErrorCode::NotAttached, "release", 1, "castra attachments"),
            (ErrorCode::NotAttached, "action_send", 1, "castra adopt web-1"),
            (ErrorCode::GuestOffline, "action_send", 1, "castra status web-1"),
            (ErrorCode::MissingLease, "action_send", 1, "castra attachments"),
            (ErrorCode::Full, "action_send", 1, "castra action list web-1"),
            (ErrorCode::TooLarge, "action_send", 2, "parts"),
            (ErrorCode::Busy, "action_send", 1, ""),
            (ErrorCode::Timeout, "attachments", 4, "--wait"),
            (ErrorCode::Forbidden, "adopt", 5, "on the host"),
        ] {
            let failure = refused(code, "no", method);
            assert_eq!(failure.exit.code(), exit, "{code} of {method}");
            assert!(failure.message.contains(word), "{failure}");
        }
    }

    #[test]
    fn a_guest_that_refuses_has_its_own_advice_and_none_is_given_twice() {
        for (reason, word) in [
            ("unkeyed_link", "castra token issue web-1"),
            ("untrusted_url", "--manager-url"),
            ("unreachable", "--link"),
            ("http_503", "--manager-advertise"),
        ] {
            let failure = refused(ErrorCode::Refused, &format!("web-1 refused: {reason}: so it is"), "adopt");
            assert!(failure.message.contains(word), "{failure}");
        }
        let said = refused(ErrorCode::Conflict, "adopted: `castra release web-1` first", "adopt");
        assert_eq!(said.message, "adopted: `castra release web-1` first (conflict)");
    }
}
