//! Why there is no broker.

use std::io;
use std::path::{Path, PathBuf};

use castra_core::config::ConfigError;

use crate::config_file::ConfigFileError;
use crate::listen::ListenError;
use crate::lock::Holder;
use crate::record::RecordError;
use crate::store::StoreError;
use crate::terminals::service::TerminalsError;

/// Why there is no broker (any more).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Exit code 73: the state directory is taken.
    #[error(
        "a broker already serves {state_dir:?} ({holder}): use it, stop it with `castra down`, or choose another --state-dir"
    )]
    AlreadyRunning {
        /// The state directory.
        state_dir: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The configuration contradicts itself: usage.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration file makes no sense: usage.
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// An address can't be listened on: usage.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A file or directory can't be used.
    #[error("can't use {path:?}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A directory can't be made, or is not this user's: usage.
    #[error("can't use the directory {path:?}: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no recording: usage, if the file exists.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The host's terminals can't be served.
    #[error(transparent)]
    Terminals(#[from] Box<TerminalsError>),
    /// The kernel refused something that it never should.
    #[error("{what} failed: {error}")]
    Internal {
        /// What.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A second signal cut the drain short; exit with 128 plus its number.
    #[error("stopped at once by a second signal ({0})")]
    Signalled(i32),
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> BrokerError + '_ {
    move |error| BrokerError::File { path: path.to_owned(), error }
}

pub(super) fn unusable(path: &Path) -> impl FnOnce(io::Error) -> BrokerError + '_ {
    move |error| BrokerError::Directory { path: path.to_owned(), error }
}

pub(super) fn internal(what: &'static str) -> impl FnOnce(io::Error) -> BrokerError {
    move |error| BrokerError::Internal { what, error }
}
