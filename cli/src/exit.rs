//! Exit codes: frozen, and mapped in this one place.

use std::io;
use std::process::ExitCode;

use castra_core::control::reply::ErrorCode;

use crate::client::ClientError;

/// What a command's exit tells its caller. The numbers never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Yes, or done.
    Yes = 0,
    /// No: not reachable, not as expected.
    No = 1,
    /// The command line or the request makes no sense.
    Usage = 2,
    /// No broker serves, or it does not answer within the bound.
    Offline = 3,
    /// What was waited for did not come in time.
    Timeout = 4,
    /// Refused or forbidden.
    Refused = 5,
    /// No such guest.
    Unknown = 6,
    /// Something broke: a bug, a full disk, an address that can't be bound.
    Internal = 70,
    /// Another broker owns the state directory.
    Taken = 73,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotReachable => Self::No,
            ErrorCode::InvalidRequest => Self::Usage,
            ErrorCode::ShuttingDown => Self::Offline,
            ErrorCode::Timeout => Self::Timeout,
            // Busy is no verdict about a guest, so it must not look like one.
            ErrorCode::Forbidden | ErrorCode::Refused | ErrorCode::Busy => Self::Refused,
            ErrorCode::UnknownGuest => Self::Unknown,
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
            ClientError::Protocol { .. } | ClientError::Io { .. } => Exit::Internal,
        };
        Self { exit, message: error.to_string() }
    }
}

/// What every command returns.
pub(crate) type Outcome = Result<Exit, Failure>;
