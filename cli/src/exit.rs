//! Exit codes: frozen, and mapped in this one place.

use castra_driver::terminals::service::TerminalsError;
use std::io;
use std::process::ExitCode;

use castra_core::control::reply::ErrorCode;

use crate::client::ClientError;
use crate::run::RecordError;
use crate::run::agent::{AgentError, InboxError};
use crate::run::broker::BrokerError;

/// What a command's exit tells its caller. The numbers never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Yes, or done.
    Yes,
    /// No: not reachable, not as expected.
    No,
    /// The command line or the request makes no sense.
    Usage,
    /// No broker serves, or it does not answer within the bound.
    Offline,
    /// What was waited for did not come in time.
    Timeout,
    /// Refused or forbidden.
    Refused,
    /// No such guest.
    Unknown,
    /// Something broke: a bug, a full disk, an address that can't be bound.
    Internal,
    /// Another broker owns the state directory.
    Taken,
    /// A second signal of this number cut a leave-taking short.
    Signalled(i32),
}

impl Exit {
    /// The frozen number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Offline => 3,
            Self::Timeout => 4,
            Self::Refused => 5,
            Self::Unknown => 6,
            Self::Internal => 70,
            Self::Taken => 73,
            // As a shell would report it.
            Self::Signalled(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotReachable
            | ErrorCode::Full
            | ErrorCode::NotAttached
            | ErrorCode::MissingLease
            | ErrorCode::GuestOffline => Self::No,
            ErrorCode::InvalidRequest | ErrorCode::Itself | ErrorCode::Ambiguous | ErrorCode::TooLarge => {
                Self::Usage
            }
            ErrorCode::ShuttingDown => Self::Offline,
            ErrorCode::Timeout => Self::Timeout,
            // Busy is no verdict about a guest, so it must not look like one.
            ErrorCode::Forbidden
            | ErrorCode::Refused
            | ErrorCode::Rejected
            | ErrorCode::NotPeer
            | ErrorCode::Conflict
            | ErrorCode::Unsupported
            | ErrorCode::Busy => Self::Refused,
            ErrorCode::UnknownGuest | ErrorCode::Unknown => Self::Unknown,
            ErrorCode::UnknownMethod | ErrorCode::StorageFailed | ErrorCode::Internal => Self::Internal,
        }
    }
}

/// A command that can't go on: what to tell, and with which code to end.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, with what, and what to do.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An I/O error, with what was tried.
    pub(crate) fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::new(Exit::Internal, format!("{what}: {error}"))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::NoBroker { .. } | ClientError::NotAnswering { .. } | ClientError::Closed { .. } => {
                Exit::Offline
            }
            ClientError::Denied { .. } => Exit::Refused,
            ClientError::BadPath { .. } => Exit::Usage,
            ClientError::Refused(body) => body.code.into(),
            // A no that is newer than this program is a no.
            ClientError::RefusedOtherwise { .. } => Exit::Refused,
            _ => Exit::Internal,
        };
        Self { exit, message: error.to_string() }
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let exit = match &error {
            BrokerError::AlreadyRunning { .. } => Exit::Taken,
            BrokerError::Config(_)
            | BrokerError::ConfigFile(_)
            | BrokerError::Listen(_)
            | BrokerError::Directory { .. }
            | BrokerError::Record(RecordError::Exists { .. }) => Exit::Usage,
            BrokerError::Signalled(signal) => Exit::Signalled(*signal),
            BrokerError::Terminals(error) => exit_of(error),
            _ => Exit::Internal,
        };
        Self { exit, message: error.to_string() }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let exit = match &error {
            AgentError::Listen(_)
            | AgentError::Directory { .. }
            | AgentError::Exec(_)
            | AgentError::Inbox {
                error: InboxError::Taken | InboxError::OfAnother(_) | InboxError::Directory(_),
                ..
            }
            | AgentError::Record(RecordError::Exists { .. }) => Exit::Usage,
            AgentError::Signalled(signal) => Exit::Signalled(*signal),
            AgentError::Terminals(error) => exit_of(error),
            _ => Exit::Internal,
        };
        Self { exit, message: error.to_string() }
    }
}

impl From<TerminalsError> for Failure {
    fn from(error: TerminalsError) -> Self {
        Self { exit: exit_of(&error), message: error.to_string() }
    }
}

const fn exit_of(error: &TerminalsError) -> Exit {
    match error {
        TerminalsError::AlreadyRunning { .. } => Exit::Taken,
        TerminalsError::Listen(_) | TerminalsError::Directory { .. } => Exit::Usage,
        TerminalsError::Signalled(signal) => Exit::Signalled(*signal),
        _ => Exit::Internal,
    }
}

/// What every command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_frozen_ones() {
        let all = [
            (Exit::Yes, 0),
            (Exit::No, 1),
            (Exit::Usage, 2),
            (Exit::Offline, 3),
            (Exit::Timeout, 4),
            (Exit::Refused, 5),
            (Exit::Unknown, 6),
            (Exit::Internal, 70),
            (Exit::Taken, 73),
            (Exit::Signalled(15), 143),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn every_error_of_the_broker_has_its_code() {
        for (code, exit) in [
            (ErrorCode::InvalidRequest, Exit::Usage),
            (ErrorCode::UnknownMethod, Exit::Internal),
            (ErrorCode::UnknownGuest, Exit::Unknown),
            (ErrorCode::NotReachable, Exit::No),
            (ErrorCode::NotAttached, Exit::No),
            (ErrorCode::MissingLease, Exit::No),
            (ErrorCode::GuestOffline, Exit::No),
            (ErrorCode::Conflict, Exit::Refused),
            (ErrorCode::Timeout, Exit::Timeout),
            (ErrorCode::Forbidden, Exit::Refused),
            (ErrorCode::Refused, Exit::Refused),
            (ErrorCode::Busy, Exit::Refused),
            (ErrorCode::StorageFailed, Exit::Internal),
            (ErrorCode::ShuttingDown, Exit::Offline),
            (ErrorCode::Internal, Exit::Internal),
        ] {
            assert_eq!(Exit::from(code), exit, "{code}");
        }
    }
}
