//! `castra.toml`: a broker's settings, and what it is told about single guests.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use castra_core::config::BrokerConfig;
use castra_core::id::GuestName;
use rustix::fs::OFlags;
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::start::Commands;

/// The file's name in a state directory.
pub const CONFIG_FILE: &str = "castra.toml";

/// Longest file that is read, in bytes.
const LENGTH_MAX: u64 = 1024 * 1024;

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfigFile {
    /// `[broker]`: settings, by the names of the program's options. What they mean
    /// is for whoever reads options to say.
    pub broker: BTreeMap<String, Setting>,
    /// `[guests.NAME]`: known from the start.
    pub guests: BTreeMap<GuestName, GuestConfig>,
}

/// One setting as the file has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// As on a command line; a list has several.
    pub values: Vec<String>,
    /// Where in the file, from 1.
    pub line: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    broker: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    guests: BTreeMap<GuestName, GuestConfig>,
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
    /// A setting in it, or together with the others, makes no sense.
    #[error("{path:?}: {what}")]
    Settings {
        /// Which file.
        path: PathBuf,
        /// What.
        what: String,
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
        let Raw { broker, guests } = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(at, error.message().replace('\n', "; "))
        })?;
        let mut file = Self { broker: BTreeMap::new(), guests };
        for (name, value) in broker {
            let at = name.span().start;
            let values = words(value).ok_or_else(|| {
                let what = "write text, a whole number, true or false, or a list of texts";
                wrong(at, format!("`{}` makes no sense: {what}", name.get_ref()))
            })?;
            let line = 1 + text[..at.min(text.len())].matches('\n').count();
            file.broker.insert(name.into_inner(), Setting { values, line });
        }
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
    /// What the command line said, and what was filled in since.
    pub base: BrokerConfig,
    /// What the command line and the file say together; without it the file's
    /// settings are not looked at.
    pub settings: Option<Settings>,
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
        let base = match &self.settings {
            None => self.base.clone(),
            Some(settings) => self.filled_in(
                (settings.0)(&file)
                    .map_err(|what| ConfigFileError::Settings { path: self.path.clone(), what })?,
            ),
        };
        let commands = file.starts().map(|(guest, command)| (*guest, command.clone())).collect();
        *self.commands.lock().unwrap_or_else(PoisonError::into_inner) = commands;
        let fresh = file.applied_to(&base);
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }

    /// What stays as it was when the broker started, whatever the file says now.
    fn filled_in(&self, told: BrokerConfig) -> BrokerConfig {
        BrokerConfig {
            identity: self.base.identity.clone(),
            manager: self.base.manager.clone(),
            half_open_max: self.base.half_open_max,
            ..told
        }
    }

    /// The newest configuration that was not taken yet.
    #[must_use]
    pub fn take(&self) -> Option<BrokerConfig> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the settings of a file and whatever else was said add up to, or why not.
pub type ReadSettings = dyn Fn(&ConfigFile) -> Result<BrokerConfig, String> + Send + Sync;

/// A shared [`ReadSettings`].
#[derive(Clone)]
pub struct Settings(pub Arc<ReadSettings>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

fn words(value: Value) -> Option<Vec<String>> {
    let word = |value| match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    };
    match value {
        Value::Array(values) => values.into_iter().map(word).collect(),
        value => Some(vec![word(value)?]),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
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
            ("\n[guest.devbox]\n", "line 2: unknown field `guest`, expected `broker` or `guests`"),
            ("window = 5\n", "line 1: unknown field `window`, expected `broker` or `guests`"),
            ("[guests.a]\nstart = 5\n", "line 2: invalid type: integer `5`, expected a string"),
            (
                "[guests.a]\n[guests.b]\nstart = ' '\n",
                "line 3: the start command of b is empty: leave it out",
            ),
            ("[guests.a]\n[guests.a]\n", "line 2: duplicate key"),
            ("[broker]\n\nwindow = 1.5\n", "line 3: `window` makes no sense: write text"),
            ("[broker]\nlisten = [[]]\n", "line 2: `listen` makes no sense"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}: {error:?}");
        }
        let error = read("[guests.a]\n[guests.\"../b\"]\n").expect_err("no name");
        assert!(error.starts_with("line 2: "), "{error}");
        assert!(!read("[guests.a\nx").expect_err("no table").contains('\n'));
    }

    #[test]
    fn settings_are_words_as_on_a_command_line_with_the_line_they_stand_in() {
        let file =
            read("[broker]\nlisten = ['a', 'b']\n\nmax-guests = 7\nrequire-token = true\n").expect("a file");
        let setting = |name: &str| {
            let setting = &file.broker[name];
            (setting.values.join(" "), setting.line)
        };
        assert_eq!(setting("listen"), ("a b".into(), 2));
        assert_eq!(setting("max-guests"), ("7".into(), 4));
        assert_eq!(setting("require-token"), ("true".into(), 5));
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
}
