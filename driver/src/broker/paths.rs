//! Where a broker's files are.

use std::path::{Path, PathBuf};

use super::error::{file_error, unusable};
use super::{BrokerError, BrokerOptions, CONTROL_SOCKET, PID_FILE};
use crate::config_file::ConfigReader;
use crate::files::{LogFile, Rotation};
use crate::own::{is_writable_by_others, own_directory};
use crate::threads::WorkFiles;

/// Where a broker's files are.
pub(super) struct Paths {
    pub(super) state: PathBuf,
    pub(super) control: PathBuf,
    pub(super) pid: PathBuf,
    pub(super) log: PathBuf,
    pub(super) events: PathBuf,
    pub(super) handshakes: PathBuf,
}

impl Paths {
    pub(super) fn of(options: &BrokerOptions) -> Self {
        let state = options.state_dir.clone();
        let or = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| state.join(name));
        let log = or(&options.logfile, "logs/broker.log");
        Self {
            control: state.join(CONTROL_SOCKET),
            pid: or(&options.pidfile, PID_FILE),
            events: log.with_file_name("events.jsonl"),
            handshakes: or(&options.handshake_dir, "handshakes"),
            log,
            state,
        }
    }

    pub(super) fn create(&self, warnings: &mut Vec<String>) -> Result<(), BrokerError> {
        let parents = [self.pid.parent(), self.log.parent()].into_iter().flatten();
        let all = [self.state.as_path(), self.handshakes.as_path()].into_iter().chain(parents);
        for directory in all.filter(|directory| !directory.as_os_str().is_empty()) {
            own_directory(directory, warnings).map_err(unusable(directory))?;
        }
        Ok(())
    }

    /// A directory that was there before is not ours to close; but it should be said.
    pub(super) fn check(&self, warnings: &mut Vec<String>) -> Result<(), BrokerError> {
        if is_writable_by_others(&self.state).map_err(file_error(&self.state))? {
            warnings.push(format!(
                "the state directory {} can be written by others: give it mode 0700",
                self.state.display()
            ));
        }
        Ok(())
    }

    pub(super) fn work_files(&self, config: ConfigReader, echo: bool) -> WorkFiles {
        let log = |path: &Path| LogFile::new(path.to_owned(), Rotation::default());
        WorkFiles {
            log: log(&self.log),
            events: log(&self.events),
            handshakes: log(&self.handshakes.join("handshake-events.jsonl")),
            records: self.handshakes.clone(),
            config: Some(config),
            echo,
        }
    }
}
