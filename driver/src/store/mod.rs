//! Durable state: one redb file per state directory.
//!
//! # The incarnation
//! Epochs must rise over every restart, so the incarnation is kept twice: in the
//! database and in the small file `incarnation`, both durable before anybody is
//! served. Each start takes the greater of the two plus one. If the database is
//! set aside and the small file is gone or damaged too, the count goes on from
//! the wall clock's seconds since 1970, which no number of restarts that really
//! happened can have reached.

mod peers;

use std::any::Any;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::auth::Key;
use castra_core::boundary::{Batch, Change};
use castra_core::id::GuestName;
use castra_core::peers::RestoredPeers;
use castra_core::time::WallTime;
use redb::{Database, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::files::{read_small, with_suffix, write_whole};

/// The database's name in a state directory.
pub const DATABASE_FILE: &str = "state.redb";
/// The name of the incarnation's second copy.
pub const INCARNATION_FILE: &str = "incarnation";

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
const INCARNATION: &str = "incarnation";
/// Memory for pages; the tables are small.
const CACHE_BYTES: usize = 1024 * 1024;
/// How often, and after what waits, a database that failed is opened again
/// before the failure is reported.
const REOPEN_WAITS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];

/// The open database.
pub struct Store {
    open: Opener,
    database: Option<Database>,
}

type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// What was found at start.
#[derive(Debug)]
pub struct Found {
    /// This start's number: greater than that of every start before.
    pub incarnation: u32,
    /// Every name that has, or ever had (`None`), a token.
    pub tokens: Vec<(GuestName, Option<Key>)>,
    /// Relations, policies and messages.
    pub peers: RestoredPeers,
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
    /// The incarnation's second copy can't be written.
    #[error("can't write {path:?}: {error}")]
    Incarnation {
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

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("open", &self.database.is_some()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the state directory's database, reads it, and counts this start.
    /// A damaged file is set aside as `state.redb.damaged-DATE`, never deleted.
    ///
    /// # Errors
    /// It can't be opened or written for a reason other than damage.
    pub fn open(state_dir: &Path, now: WallTime) -> Result<(Self, Found), StoreError> {
        let path = state_dir.join(DATABASE_FILE);
        let mut set_aside = None;
        let (store, read) = match Self::open_and_read(&path) {
            Ok(read) => read,
            Err(Unusable::Trouble(error)) => return Err(StoreError::Database { path, error }),
            Err(Unusable::Damaged(damage)) => {
                let aside = free_name(&path, now);
                fs::rename(&path, &aside).map_err(|error| StoreError::SetAside {
                    path: path.clone(),
                    damage: damage.clone(),
                    error,
                })?;
                set_aside = Some((aside, damage));
                match Self::open_and_read(&path) {
                    Ok(read) => read,
                    Err(Unusable::Trouble(error)) => return Err(StoreError::Database { path, error }),
                    Err(Unusable::Damaged(damage)) => {
                        return Err(StoreError::Database { path, error: redb::Error::Corrupted(damage) });
                    }
                }
            }
        };
        let Read { incarnation: before, tokens, peers } = read;
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
            .map_err(|error| StoreError::Incarnation { path: copy_path, error })?;
        let mut store = store;
        store
            .transact(|transaction| {
                transaction.open_table(META)?.insert(INCARNATION, u64::from(incarnation))?;
                Ok(())
            })
            .map_err(|error| StoreError::Database { path, error })?;
        // Every start that served has left its number in both.
        let vanished = before == 0 && copy.is_some() && set_aside.is_none();
        Ok((store, Found { incarnation, tokens, peers, set_aside, vanished }))
    }

    /// Commits batches together, durably, in their order; all or none.
    /// A database that failed is opened again, with patience, before this
    /// returns: a transaction after an I/O error would be refused otherwise.
    ///
    /// # Errors
    /// Nothing was committed, as far as can be known.
    pub fn commit(&mut self, batches: &[&Batch]) -> Result<(), redb::Error> {
        let commit = |transaction: &redb::WriteTransaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            let mut peers = peers::Tables::open(transaction)?;
            for change in batches.iter().copied().flatten() {
                match change {
                    Change::SetToken { guest, key } => {
                        let value: &[u8] = key.as_ref().map_or(&[], |key| key.expose());
                        tokens.insert(guest.as_str(), value)?;
                    }
                    // A name that ever had a token stays keyed.
                    Change::Forget { guest } => {
                        let had = tokens.get(guest.as_str())?.is_some();
                        if had {
                            tokens.insert(guest.as_str(), &[] as &[u8])?;
                        }
                        peers.forget(guest)?;
                    }
                    Change::Incarnation(incarnation) => {
                        let mut meta = transaction.open_table(META)?;
                        let before = meta.get(INCARNATION)?.map_or(0, |value| value.value());
                        meta.insert(INCARNATION, before.max(u64::from(*incarnation)))?;
                    }
                    other if peers.apply(other)? => {}
                    _ => return Err(redb::Error::Corrupted("a change that a broker doesn't make".into())),
                }
            }
            Ok(())
        };
        // A worker that panics would leave its jobs unanswered.
        let caught = catch_unwind(AssertUnwindSafe(|| self.transact(commit)));
        let result = caught.unwrap_or_else(|panic| {
            std::mem::forget(self.database.take());
            Err(redb::Error::Corrupted(panic_text(&*panic)))
        });
        if result.is_err() {
            self.database = None;
            for wait in REOPEN_WAITS {
                std::thread::sleep(wait);
                if self.reopen().is_ok() {
                    break;
                }
            }
        }
        result
    }

    fn open_and_read(path: &Path) -> Result<(Self, Read), Unusable> {
        let owned = path.to_owned();
        let opener: Opener = Box::new(move || open_file(&owned));
        let mut store = Self { open: opener, database: None };
        // redb asserts what a damaged file may contradict.
        let caught = catch_unwind(AssertUnwindSafe(|| {
            store.reopen()?;
            store.read()
        }));
        match caught {
            Ok(Ok(read)) => Ok((store, read)),
            Ok(Err(error)) => Err(Unusable::from(error)),
            Err(panic) => {
                // Its locks may be poisoned; what is left of it must not write.
                std::mem::forget(store);
                Err(Unusable::Damaged(panic_text(&*panic)))
            }
        }
    }

    fn reopen(&mut self) -> Result<(), redb::Error> {
        self.database = None;
        self.database = Some((self.open)()?);
        Ok(())
    }

    fn read(&mut self) -> Result<Read, redb::Error> {
        // Creates the tables of a new file, and those that an older one lacks.
        self.transact(|transaction| {
            transaction.open_table(META)?;
            transaction.open_table(TOKENS)?;
            peers::Tables::open(transaction)?;
            Ok(())
        })?;
        let database = self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let incarnation = meta.get(INCARNATION)?.map_or(0, |value| value.value());
        let incarnation = u32::try_from(incarnation)
            .map_err(|_| redb::Error::Corrupted("the incarnation is no u32".into()))?;
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
        Ok(Read { incarnation, tokens, peers: peers::read(&transaction)? })
    }

    fn transact(
        &mut self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        if self.database.is_none() {
            self.reopen()?;
        }
        let database = self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let transaction = database.begin_write()?;
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

/// What is in the tables.
struct Read {
    incarnation: u32,
    tokens: Vec<(GuestName, Option<Key>)>,
    peers: RestoredPeers,
}

enum Unusable {
    Damaged(String),
    Trouble(redb::Error),
}

impl From<redb::Error> for Unusable {
    fn from(error: redb::Error) -> Self {
        let damaged = match &error {
            redb::Error::Corrupted(_)
            | redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => true,
            redb::Error::Io(error) => {
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
            }
            _ => false,
        };
        if damaged { Self::Damaged(error.to_string()) } else { Self::Trouble(error) }
    }
}

fn open_file(path: &Path) -> Result<Database, redb::Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(StorageError::Io)?;
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_file(file)?)
}

fn read_copy(path: &Path) -> Option<u32> {
    let content = read_small(path).ok()?;
    std::str::from_utf8(&content).ok()?.trim_end().parse().ok()
}

fn free_name(path: &Path, now: WallTime) -> PathBuf {
    // Colons are no good in file names that travel.
    let date = now.to_string().replace([':', '.'], "-");
    let mut name = with_suffix(path, &format!(".damaged-{date}"));
    let mut number = 2;
    while name.symlink_metadata().is_ok() {
        name = with_suffix(path, &format!(".damaged-{date}-{number}"));
        number += 1;
    }
    name
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the database gave up".to_owned())
}

#[cfg(test)]
mod peers_tests;
#[cfg(test)]
mod tests;
