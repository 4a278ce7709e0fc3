//! `castra.toml`: what a broker is told about single guests.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use castra_core::config::BrokerConfig;
use castra_core::id::GuestName;
use rustix::fs::OFlags;
use serde::Deserialize;

use crate::own::check_owner;
use crate::start::Commands;

/// The file's name in a state directory.
pub const CONFIG_FILE: &str = "castra.toml";

/// Longest file that is read, in bytes.
const LENGTH_MAX: u64 = 1024 * 1024;

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// `[guests.NAME]`: known from the start.
    #[serde(default)]
    pub guests: BTreeMap<GuestName, GuestConfig>,
}

/// What the file says of one guest.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// What `/bin/sh -c` runs to start it; without one it can't be restored.
    pub start: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It can't be read.
    #[error("can't read {path:?}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It says something that makes no sense.
    #[error("{path:?}, line {line}: {what}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What.
        what: String,
    },
}

impl ConfigFile {
    /// Reads the file. A link is followed. Where none needs to be, a missing one is empty.
    ///
    /// # Errors
    /// It can't be read, or says what nobody understands.
    pub fn read(path: &Path, needed: bool) -> Result<Self, ConfigFileError> {
        let text = match read_text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => return Ok(Self::default()),
            text => text.map_err(|error| ConfigFileError::File { path: path.to_owned(), error })?,
        };
        let wrong = |at: usize, what: String| {
            let line = 1 + text[..at.min(text.len())].matches('\n').count();
            ConfigFileError::Content { path: path.to_owned(), line, what }
        };
        let file: Self = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(at, error.message().replace('\n', "; "))
        })?;
        for (guest, config) in &file.guests {
            if config.start.as_ref().is_some_and(|command| command.trim().is_empty()) {
                let table = text.find(guest.as_str()).unwrap_or(0);
                let at = text[table..].find("start").map_or(table, |at| table + at);
                let what =
                    format!("the start command of {guest} is empty: leave it out, or say what starts it");
                return Err(wrong(at, what));
            }
        }
        Ok(file)
    }

    /// `base`, and the guests of the file.
    #[must_use]
    pub fn applied_to(&self, base: &BrokerConfig) -> BrokerConfig {
        let mut config = base.clone();
        config.guests.extend(self.guests.keys().filter(|guest| !base.guests.contains(guest)));
        config.peers.restorable = self.starts().map(|(guest, _)| *guest).collect();
        config
    }

    /// The guests that have a start command, and what it is.
    pub fn starts(&self) -> impl Iterator<Item = (&GuestName, &String)> {
        self.guests.iter().filter_map(|(guest, config)| Some((guest, config.start.as_ref()?)))
    }
}

/// Reads the file again, off the loop, and leaves what came of it for the loop.
#[derive(Clone, Debug)]
pub struct ConfigReader {
    /// The file.
    pub path: PathBuf,
    /// Whether it has to be there.
    pub needed: bool,
    /// What the command line said.
    pub base: BrokerConfig,
    /// What the workers start guests with.
    pub commands: Commands,
    /// A configuration that the engine has not heard of yet.
    pub fresh: Arc<Mutex<Option<BrokerConfig>>>,
}

impl ConfigReader {
    /// Reads the file. One that is wrong changes nothing.
    ///
    /// # Errors
    /// See [`ConfigFileError`].
    pub fn read(&self) -> Result<(), ConfigFileError> {
        let file = ConfigFile::read(&self.path, self.needed)?;
        let commands = file.starts().map(|(guest, command)| (*guest, command.clone())).collect();
        *self.commands.lock().unwrap_or_else(PoisonError::into_inner) = commands;
        let fresh = file.applied_to(&self.base);
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }

    /// The newest configuration that was not taken yet.
    #[must_use]
    pub fn take(&self) -> Option<BrokerConfig> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // What it says is run as this user.
    check_owner(&found)?;
    if found.mode() & 0o002 != 0 {
        let text = "everybody may write to it, and what it says is run as this user: give it mode 0600";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let mut text = String::new();
    if file.take(LENGTH_MAX + 1).read_to_string(&mut text)? as u64 > LENGTH_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ConfigFile, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(CONFIG_FILE);
        std::fs::write(&path, text).expect("a file");
        ConfigFile::read(&path, true).map_err(|error| {
            let text = error.to_string();
            text.split_once("castra.toml\", ").map_or(text.clone(), |(_, rest)| rest.to_owned())
        })
    }

    #[test]
    fn guests_are_known_and_those_with_a_command_can_be_restored() {
        let file = read(
            "# comment\n[guests.devbox]\nstart = \"virsh start devbox\"\n[guests.builder]\n\
             [guests.\"a.b\"]\nstart = '''\nfirst\nsecond\n'''\n",
        )
        .expect("a file");
        let base =
            BrokerConfig { guests: vec!["devbox".parse().expect("a name")], ..BrokerConfig::default() };
        let config = file.applied_to(&base);
        let names = |names: &[GuestName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&config.guests), "devbox a.b builder");
        assert_eq!(names(&config.peers.restorable), "a.b devbox");
        let commands: Vec<_> = file.starts().map(|(_, command)| command.as_str()).collect();
        assert_eq!(commands, ["first\nsecond\n", "virsh start devbox"]);
        assert_eq!(read(""), Ok(ConfigFile::default()));
    }

    #[test]
    fn what_nobody_understands_is_told_with_its_line() {
        for (text, expected) in [
            ("[guests.devbox]\n\nstrat = \"x\"\n", "line 3: unknown field `strat`, expected `start`"),
            ("\n[guest.devbox]\n", "line 2: unknown field `guest`, expected `guests`"),
            ("window = 5\n", "line 1: unknown field `window`, expected `guests`"),
            ("[guests.a]\nstart = 5\n", "line 2: invalid type: integer `5`, expected a string"),
            (
                "[guests.a]\n[guests.b]\nstart = ' '\n",
                "line 3: the start command of b is empty: leave it out",
            ),
            ("[guests.a]\n[guests.a]\n", "line 2: duplicate key"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}: {error:?}");
        }
        let error = read("[guests.a]\n[guests.\"../b\"]\n").expect_err("no name");
        assert!(error.starts_with("line 2: "), "{error}");
        assert!(!read("[guests.a\nx").expect_err("no table").contains('\n'));
    }

    #[test]
    fn a_missing_file_is_an_empty_one_unless_it_was_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(CONFIG_FILE);
        assert_eq!(ConfigFile::read(&path, false).expect("empty"), ConfigFile::default());
        let error = ConfigFile::read(&path, true).expect_err("missing").to_string();
        assert!(error.contains("can't read"), "{error}");
        std::fs::create_dir(&path).expect("a directory");
        ConfigFile::read(&path, false).expect_err("not a file");
    }

    #[test]
    fn commands_that_another_user_could_have_written_are_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(CONFIG_FILE);
        std::fs::write(&path, "[guests.a]\nstart = 'true'\n").expect("a file");
        let refusal = || ConfigFile::read(&path, false).expect_err("refused").to_string();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o602)).expect("a mode");
        assert!(refusal().contains("everybody may write to it"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        ConfigFile::read(&path, false).expect("ours");
        if let Err(error) = std::os::unix::fs::chown(&path, Some(65_534), None) {
            println!("NOT TESTED: nothing can be given to another user: {error}");
            return;
        }
        assert!(refusal().contains("belongs to user 65534"));
    }
}
