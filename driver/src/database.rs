//! A redb file: opened, set aside when it is damaged, opened again when it failed.

use std::any::Any;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_core::boundary::Batch;
use castra_core::time::WallTime;
use redb::{Database, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction};
use rustix::fs::OFlags;

use crate::created::{Identity, identity};
use crate::files::with_suffix;
use crate::store::StoreError;

/// Memory for pages; the tables are small.
pub(crate) const CACHE_BYTES: usize = 1024 * 1024;
/// How often, and after what waits, a database that failed is opened again
/// before the failure is reported.
const REOPEN_WAITS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];

/// Whatever makes batches durable.
pub trait Commit: Send {
    /// Commits batches together, durably, in their order; all or none.
    ///
    /// # Errors
    /// Nothing was committed, as far as can be known.
    fn commit(&mut self, batches: &[&Batch]) -> Result<(), redb::Error>;
}

pub(crate) type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// The file.
pub(crate) struct DatabaseFile {
    open: Opener,
    database: Option<Database>,
    place: Option<Place>,
}

/// Under which name a file was opened, and which one that was.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    identity: Identity,
}

/// A file that was opened and read.
pub(crate) struct Opened<T> {
    pub(crate) file: DatabaseFile,
    /// What was read.
    pub(crate) read: T,
    /// A damaged file was set aside under this name, and what is wrong with it.
    pub(crate) set_aside: Option<(PathBuf, String)>,
}

impl std::fmt::Debug for DatabaseFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseFile").field("open", &self.database.is_some()).finish_non_exhaustive()
    }
}

impl DatabaseFile {
    /// Opens the file (0600) and reads it with `read`. A damaged one is set aside
    /// as `NAME.damaged-DATE`, never deleted, and a new one takes its place.
    pub(crate) fn open<T>(
        path: &Path,
        now: WallTime,
        read: impl Fn(&mut Self) -> Result<T, redb::Error>,
    ) -> Result<Opened<T>, StoreError> {
        let trouble = |error| StoreError::Database { path: path.to_owned(), error };
        match Self::open_and_read(path, &read) {
            Ok((file, read)) => Ok(Opened { file, read, set_aside: None }),
            Err(Unusable::Trouble(error)) => Err(trouble(error)),
            Err(Unusable::Damaged(damage)) => {
                let aside = free_name(path, now);
                fs::rename(path, &aside).map_err(|error| StoreError::SetAside {
                    path: path.to_owned(),
                    damage: damage.clone(),
                    error,
                })?;
                match Self::open_and_read(path, &read) {
                    Ok((file, read)) => Ok(Opened { file, read, set_aside: Some((aside, damage)) }),
                    Err(Unusable::Trouble(error)) => Err(trouble(error)),
                    Err(Unusable::Damaged(damage)) => Err(trouble(redb::Error::Corrupted(damage))),
                }
            }
        }
    }

    /// A file that `open` opens, when it is needed first.
    pub(crate) fn over(open: Opener) -> Self {
        Self { open, database: None, place: None }
    }

    /// Does `work` in one transaction, durably. A database that failed is opened
    /// again, with patience, before this returns: a transaction after an I/O error
    /// would be refused otherwise.
    ///
    /// # Errors
    /// Nothing was committed, as far as can be known.
    pub(crate) fn commit(
        &mut self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        self.in_place()?;
        // A worker that panics would leave its jobs unanswered.
        let caught = catch_unwind(AssertUnwindSafe(|| self.transact(work)));
        let result = caught.unwrap_or_else(|panic| {
            std::mem::forget(self.database.take());
            Err(redb::Error::Corrupted(panic_text(&*panic)))
        });
        // What was written to a file that nobody will find again is not durable. It
        // stays open: no other file can be taken for it, and it may be put back.
        self.in_place()?;
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

    /// The same, without patience.
    pub(crate) fn transact(
        &mut self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
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

    /// To read what is there.
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        Ok(self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?)
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    fn open_and_read<T>(
        path: &Path,
        read: &impl Fn(&mut Self) -> Result<T, redb::Error>,
    ) -> Result<(Self, T), Unusable> {
        let owned = path.to_owned();
        let mut file = Self::over(Box::new(move || open_file(&owned)));
        // redb asserts what a damaged file may contradict.
        let caught = catch_unwind(AssertUnwindSafe(|| {
            file.reopen()?;
            file.place = Some(Place::of(path)?);
            file.check()?;
            read(&mut file)
        }));
        match caught {
            Ok(Ok(read)) => Ok((file, read)),
            Ok(Err(error)) => Err(Unusable::from(error)),
            Err(panic) => {
                // Its locks may be poisoned; what is left of it must not write.
                std::mem::forget(file);
                Err(Unusable::Damaged(panic_text(&*panic)))
            }
        }
    }

    fn reopen(&mut self) -> Result<(), redb::Error> {
        self.database = None;
        // A new file in its place would know nothing of what was acknowledged so far.
        self.in_place()?;
        self.database = Some((self.open)()?);
        Ok(())
    }

    /// Compares every page with its checksum. redb does so by itself only after a crash,
    /// and whatever a changed bit makes of a row would be believed.
    fn check(&mut self) -> Result<(), redb::Error> {
        let database = self.database.as_mut().ok_or(redb::Error::DatabaseClosed)?;
        if database.check_integrity()? {
            return Ok(());
        }
        Err(redb::Error::Corrupted("a page differs from its checksum".into()))
    }

    /// That the file which was opened first is still the one of its name.
    fn in_place(&self) -> Result<(), redb::Error> {
        let Some(place) = &self.place else { return Ok(()) };
        match identity(&place.path) {
            Ok(found) if found == place.identity => Ok(()),
            Ok(_) => Err(place.lost("was replaced")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(place.lost("was removed")),
            Err(error) => Err(redb::Error::Io(error)),
        }
    }
}

impl Place {
    fn of(path: &Path) -> Result<Self, redb::Error> {
        Ok(Self { path: path.to_owned(), identity: identity(path).map_err(redb::Error::Io)? })
    }

    fn lost(&self, how: &str) -> redb::Error {
        redb::Error::Io(io::Error::other(format!(
            "the database {} {how} while it was in use: put it back, or start again",
            self.path.display()
        )))
    }
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
