//! Durable state: one redb file per state directory.
//!
//! # The incarnation
//! Epochs must rise over every restart, so the incarnation is kept twice: in the
//! database and in the small file `incarnation`, both durable before anybody is
//! served. Each start takes the greater of the two plus one. If the database is
//! set aside and the small file is gone or damaged too, the count goes on from
//! the wall clock's seconds since 1970, which no number of restarts that really
//! happened can have reached.
//!
//! # Keyed names
//! A name that ever had a token is never believed without one. So the names, not the
//! tokens, are kept twice as well: in the database and, written before it, in the
//! file `keyed-names`, which is asked when the database is lost.

mod attach;
mod names;
mod peers;

use std::io;
use std::path::{Path, PathBuf};

use castra_core::attach::RestoredManager;
use castra_core::auth::Key;
use castra_core::boundary::{Batch, Change};
use castra_core::id::GuestName;
use castra_core::peers::RestoredPeers;
use castra_core::time::WallTime;
use redb::{ReadableTable, TableDefinition};
use zeroize::Zeroizing;

use self::names::Names;
use crate::database::{Commit, DatabaseFile, Opened};
use crate::files::{read_small, write_whole};

/// The database's name in a state directory.
pub const DATABASE_FILE: &str = "state.redb";
pub use names::NAMES_FILE;

/// The name of the incarnation's second copy.
pub const INCARNATION_FILE: &str = "incarnation";

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
const INCARNATION: &str = "incarnation";
/// The open database.
#[derive(Debug)]
pub struct Store {
    file: DatabaseFile,
    names: Names,
}

/// What was found at start.
#[derive(Debug)]
pub struct Found {
    /// This start's number: greater than that of every start before.
    pub incarnation: u32,
    /// Every name that has, or ever had (`None`), a token.
    pub tokens: Vec<(GuestName, Option<Key>)>,
    /// Relations, policies and messages.
    pub peers: RestoredPeers,
    /// Attachments and actions.
    pub manager: RestoredManager,
    /// A damaged database was set aside under this name: its tokens are not
    /// known any more. Say so loudly.
    pub set_aside: Option<(PathBuf, String)>,
    /// There was no database though there were starts before: its tokens are
    /// not known any more. Say so loudly.
    pub vanished: bool,
}

/// Why there is no durable state.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be opened or written, and is not damaged.
    #[error("can't use the database {path:?}: {error}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        error: redb::Error,
    },
    /// A damaged database could not be set aside.
    #[error("the database {path:?} is damaged ({damage}) and can't be set aside: {error}")]
    SetAside {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: String,
        /// Why it can't be moved.
        error: io::Error,
    },
    /// A second copy, of the incarnation or of keyed names, can't be written or read.
    #[error("can't use {path:?}: {error}")]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// 2³² starts.
    #[error("{path:?} has counted as many starts as there can be: use a new state directory")]
    Exhausted {
        /// The file.
        path: PathBuf,
    },
}

impl Store {
    /// Opens the state directory's database, reads it, and counts this start.
    /// A damaged file is set aside as `state.redb.damaged-DATE`, never deleted.
    ///
    /// # Errors
    /// It can't be opened or written for a reason other than damage.
    pub fn open(state_dir: &Path, now: WallTime) -> Result<(Self, Found), StoreError> {
        let path = state_dir.join(DATABASE_FILE);
        let Opened { mut file, read, set_aside } = DatabaseFile::open(&path, now, read)?;
        let Read { incarnation: before, mut tokens, peers, manager } = read;
        let copy_path = state_dir.join(INCARNATION_FILE);
        let copy = read_copy(&copy_path);
        let fallback = match (&set_aside, copy) {
            // Nobody remembers: see the module's text.
            (Some(_), None) => u32::try_from(now.unix_seconds()).unwrap_or(u32::MAX - 1),
            _ => 0,
        };
        let incarnation = before.max(copy.unwrap_or(0)).max(fallback).checked_add(1);
        let incarnation = incarnation.ok_or_else(|| StoreError::Exhausted { path: path.clone() })?;
        write_whole(&copy_path, format!("{incarnation}\n").as_bytes(), true)
            .map_err(|error| StoreError::Copy { path: copy_path, error })?;
        // Every start that served has left its number in both.
        let vanished = before == 0 && copy.is_some() && set_aside.is_none();
        let names = Names::in_directory(state_dir);
        let unusable = |error| StoreError::Copy { path: names.path().to_owned(), error };
        let listed = names.read().map_err(unusable)?;
        if vanished || set_aside.is_some() {
            tokens.extend(listed.into_iter().map(|name| (name, None)));
        } else {
            // A database of a version before has no list beside it.
            names
                .add(tokens.iter().map(|(name, _)| name).filter(|name| !listed.contains(*name)))
                .map_err(unusable)?;
        }
        file.transact(|transaction| {
            transaction.open_table(META)?.insert(INCARNATION, u64::from(incarnation))?;
            let mut table = transaction.open_table(TOKENS)?;
            for (name, _) in tokens.iter().filter(|_| vanished || set_aside.is_some()) {
                table.insert(name.as_str(), &[] as &[u8])?;
            }
            Ok(())
        })
        .map_err(|error| StoreError::Database { path, error })?;
        Ok((Self { file, names }, Found { incarnation, tokens, peers, manager, set_aside, vanished }))
    }
}

impl Commit for Store {
    fn commit(&mut self, batches: &[&Batch]) -> Result<(), redb::Error> {
        let names = &self.names;
        self.file.commit(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            let mut keyed = Vec::new();
            let mut peers = peers::Tables::open(transaction)?;
            let mut attach = attach::Tables::open(transaction)?;
            for change in batches.iter().copied().flatten() {
                match change {
                    Change::SetToken { guest, key } => {
                        let value: &[u8] = key.as_ref().map_or(&[], |key| key.expose());
                        if tokens.insert(guest.as_str(), value)?.is_none() {
                            keyed.push(guest);
                        }
                    }
                    // A name that ever had a token stays keyed.
                    Change::Forget { guest } => {
                        let had = tokens.get(guest.as_str())?.is_some();
                        if had {
                            tokens.insert(guest.as_str(), &[] as &[u8])?;
                        }
                        peers.forget(guest)?;
                        attach.forget(guest)?;
                    }
                    Change::Incarnation(incarnation) => {
                        let mut meta = transaction.open_table(META)?;
                        let before = meta.get(INCARNATION)?.map_or(0, |value| value.value());
                        meta.insert(INCARNATION, before.max(u64::from(*incarnation)))?;
                    }
                    other if peers.apply(other)? || attach.apply(other)? => {}
                    _ => return Err(redb::Error::Corrupted("a change that a broker doesn't make".into())),
                }
            }
            // Before the token is anybody's.
            names.add(keyed).map_err(redb::Error::Io)
        })
    }
}

/// What is in the tables.
struct Read {
    incarnation: u32,
    tokens: Vec<(GuestName, Option<Key>)>,
    peers: RestoredPeers,
    manager: RestoredManager,
}

fn read(file: &mut DatabaseFile) -> Result<Read, redb::Error> {
    // Creates the tables of a new file, and those that an older one lacks.
    file.transact(|transaction| {
        transaction.open_table(META)?;
        transaction.open_table(TOKENS)?;
        peers::Tables::open(transaction)?;
        attach::Tables::open(transaction)?;
        Ok(())
    })?;
    let transaction = file.begin_read()?;
    let meta = transaction.open_table(META)?;
    let incarnation = meta.get(INCARNATION)?.map_or(0, |value| value.value());
    let incarnation =
        u32::try_from(incarnation).map_err(|_| redb::Error::Corrupted("the incarnation is no u32".into()))?;
    let mut tokens = Vec::new();
    for row in transaction.open_table(TOKENS)?.iter()? {
        let (name, value) = row?;
        let damaged = || redb::Error::Corrupted(format!("the token of {:?}", name.value()));
        let guest = name.value().parse::<GuestName>().map_err(|_| damaged())?;
        let key = match value.value() {
            [] => None,
            bytes => {
                let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.try_into().map_err(|_| damaged())?);
                Some(Key::from_bytes(*bytes))
            }
        };
        tokens.push((guest, key));
    }
    Ok(Read { incarnation, tokens, peers: peers::read(&transaction)?, manager: attach::read(&transaction)? })
}

fn read_copy(path: &Path) -> Option<u32> {
    let content = read_small(path).ok()?;
    std::str::from_utf8(&content).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod attach_tests;
#[cfg(test)]
mod peers_tests;
#[cfg(test)]
mod tests;
