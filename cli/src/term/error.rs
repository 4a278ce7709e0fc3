//! Why there is no answer about a terminal, and what to do about it.

use std::io;
use std::time::Duration;

use castra_core::control::reply::ErrorCode as ControlCode;
use castra_core::terminals::wire::ErrorCode;

use super::name::{TermName, Which};
use crate::client::ClientError;
use crate::exit::{Exit, Failure};
use crate::output::printable;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(
        "no server of terminals at {path}: start one with `castra up --terminals` or `castra terminals serve`, \
         or say where it is with --terminals-socket"
    )]
    NoServer { path: String },
    #[error(
        "the server of terminals at {place} did not answer within {}: it is stopped or overloaded",
        crate::duration::format(Duration::from_millis(crate::duration::millis(*bound + Duration::from_micros(500))))
    )]
    NotAnswering { place: String, bound: Duration },
    #[error("the server of terminals at {place} closed the connection: it is stopping, or gone; try again")]
    Closed { place: String },
    #[error(
        "may not talk to the server of terminals at {path}: its socket belongs to another user; be that user, or root"
    )]
    Denied { path: String },
    #[error(
        "can't read the token of the server of terminals in {path}: {error}; --terminals-token says where it is"
    )]
    Token { path: String, error: io::Error },
    #[error("{} ({})", printable(message), printable(code))]
    Refused { code: String, message: String },
    #[error("what {place} says is not wire version 1 of terminals ({what})")]
    Protocol { place: String, what: String },
    #[error("talking to {place} failed: {error}")]
    Io { place: String, error: io::Error },
    #[error(transparent)]
    Control(#[from] ClientError),
}

impl WireError {
    /// The code of a refusal, if it is known here.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        if let Self::Refused { code, .. } = self { ErrorCode::parse(code) } else { None }
    }

    /// Whether it may be otherwise in a moment: a server or a broker that starts again,
    /// or a guest that is away.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::NoServer { .. }
            | Self::NotAnswering { .. }
            | Self::Closed { .. }
            | Self::Token { .. }
            | Self::Io { .. } => true,
            Self::Refused { .. } => matches!(
                self.code(),
                // A new server has a new token, and writes it while this reads it.
                Some(ErrorCode::AuthFailed | ErrorCode::ShuttingDown | ErrorCode::LimitReached)
            ),
            Self::Control(ClientError::Refused(body)) => matches!(
                body.code,
                ControlCode::NotReachable
                    | ControlCode::Busy
                    | ControlCode::Timeout
                    | ControlCode::ShuttingDown
                    | ControlCode::UnknownGuest
                    | ControlCode::Unknown
            ),
            Self::Control(
                ClientError::NoBroker { .. }
                | ClientError::NotAnswering { .. }
                | ClientError::Closed { .. }
                | ClientError::Io { .. },
            ) => true,
            Self::Control(_) | Self::Denied { .. } | Self::Protocol { .. } => false,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NoServer { .. } | Self::NotAnswering { .. } | Self::Closed { .. } => Exit::Offline,
            Self::Denied { .. } | Self::Token { .. } => Exit::Refused,
            Self::Protocol { .. } | Self::Io { .. } => Exit::Internal,
            Self::Refused { .. } => self.code().map_or(Exit::Internal, exit),
            // Only what the control protocol says has a code of its own there.
            Self::Control(_) => Exit::Internal,
        }
    }
}

fn exit(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::AlreadyExists | ErrorCode::SessionTerminating => Exit::No,
        ErrorCode::CwdMissing
        | ErrorCode::InvalidArgument
        | ErrorCode::InvalidSignal
        | ErrorCode::ShellNotFound => Exit::Usage,
        ErrorCode::ShuttingDown => Exit::Offline,
        ErrorCode::AuthFailed
        | ErrorCode::LimitReached
        | ErrorCode::OwnerRequired
        | ErrorCode::PermissionDenied
        | ErrorCode::RoleForbidden => Exit::Refused,
        ErrorCode::NotFound => Exit::Unknown,
        _ => Exit::Internal,
    }
}

/// The failure that an error is for who asked for this terminal, with what to do.
pub(crate) fn failure(error: WireError, name: &TermName) -> Failure {
    let advice = advice(&error, name);
    let exit = error.exit();
    let message = advice.map_or_else(|| error.to_string(), |advice| format!("{error}: {advice}"));
    match error {
        WireError::Control(error) => Failure { message, ..Failure::from(error) },
        _ => Failure::new(exit, message),
    }
}

/// The same, where nobody named a terminal.
pub(crate) fn plain(error: WireError) -> Failure {
    let name = TermName { place: super::name::Place(None), which: Which::Key("NAME".into()) };
    failure(error, &name)
}

fn advice(error: &WireError, name: &TermName) -> Option<String> {
    if let WireError::Control(ClientError::Refused(body)) = error {
        // Whoever wrote the message may have said it already.
        if body.message.contains("castra ") {
            return None;
        }
        return Some(match body.code {
            ControlCode::UnknownGuest | ControlCode::Unknown => {
                "`castra status` lists all guests; a terminal here whose own name has a / is /NAME".into()
            }
            ControlCode::NotReachable => format!(
                "`castra status` says why; its terminals need `castra agent --terminals` there{}",
                guest(name)
            ),
            code if code == ControlCode::Forbidden || ["refused", "unsupported"].contains(&code.as_str()) => {
                "terminals of a guest need `castra agent --terminals` in it, with a token (or \
                 --trust-unkeyed-broker)"
                    .into()
            }
            _ => return None,
        });
    }
    Some(match error.code()? {
        ErrorCode::OwnerRequired => format!("`castra term attach {name} --takeover` takes it over"),
        ErrorCode::NotFound => format!("`castra term ls {}` lists all", name.place).replace("ls `", "ls`"),
        ErrorCode::AlreadyExists => {
            format!("`castra term attach {name}` attaches to it, `castra term kill {name}` ends it")
        }
        ErrorCode::InvalidSignal => {
            "it is one of HUP, INT, QUIT, TERM, KILL, USR1, USR2, CONT, STOP, TSTP, WINCH".into()
        }
        ErrorCode::LimitReached => "`castra term ls` shows what there is, and `castra term kill` ends one; \
                                    `castra help terminals serve` tells the bounds"
            .into(),
        ErrorCode::AuthFailed => "--terminals-token says where the server's token is".into(),
        _ => return None,
    })
}

fn guest(name: &TermName) -> String {
    name.place.0.map_or_else(String::new, |guest| format!(" ({guest})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Failure {
        let error = WireError::Refused { code: code.into(), message: "no\u{1b}[2J".into() };
        failure(error, &"devbox/build".parse().unwrap())
    }

    #[test]
    fn every_refusal_has_its_exit_code_and_its_text_is_safe() {
        for (code, exit) in [
            ("ALREADY_EXISTS", 1),
            ("SESSION_TERMINATING", 1),
            ("CWD_MISSING", 2),
            ("SHELL_NOT_FOUND", 2),
            ("INVALID_ARGUMENT", 2),
            ("INVALID_SIGNAL", 2),
            ("SHUTTING_DOWN", 3),
            ("AUTH_FAILED", 5),
            ("LIMIT_REACHED", 5),
            ("OWNER_REQUIRED", 5),
            ("ROLE_FORBIDDEN", 5),
            ("PERMISSION_DENIED", 5),
            ("NOT_FOUND", 6),
            ("IO_ERROR", 70),
            ("SESSION_ERROR", 70),
            ("SOMETHING_NEW", 70),
        ] {
            let failure = refused(code);
            assert_eq!(failure.exit.code(), exit, "{code}");
            assert!(failure.message.starts_with(&format!("no\\u{{1b}}[2J ({code})")), "{}", failure.message);
        }
    }

    #[test]
    fn advice_names_the_terminal() {
        assert!(refused("OWNER_REQUIRED").message.contains("castra term attach devbox/build --takeover"));
        assert!(refused("NOT_FOUND").message.contains("castra term ls devbox/"));
    }

    #[test]
    fn without_a_server_the_exit_code_is_3_and_a_broker_that_says_no_has_its_own() {
        let name = "devbox/build".parse().unwrap();
        let none = failure(WireError::NoServer { path: "/s".into() }, &name);
        assert_eq!(none.exit, Exit::Offline);
        assert!(none.message.contains("castra up --terminals") && none.message.contains("terminals serve"));
        let body = castra_core::control::reply::ErrorBody {
            code: ControlCode::UnknownGuest,
            message: "unknown".into(),
        };
        assert_eq!(failure(ClientError::Refused(body).into(), &name).exit, Exit::Unknown);
    }
}
