//! An agent's own database: the messages that it received, and the ids that it
//! remembers.

use std::path::{Path, PathBuf};

use castra_core::RestoredAgent;
use castra_core::attach::Applied;
use castra_core::boundary::{Batch, Change};
use castra_core::id::GuestName;
use castra_core::peers::{MessageId, Received};
use castra_core::time::WallTime;
use redb::{Error, ReadableTable, TableDefinition};

use crate::database::{Commit, DatabaseFile, Opened};
use crate::store::StoreError;

/// The database's name in an inbox directory.
pub const INBOX_FILE: &str = "inbox.redb";

/// Messages by number, as JSON.
const RECEIVED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("received");
/// When each id was received, in milliseconds since the Unix epoch.
const SEEN: TableDefinition<'_, &[u8; 16], i64> = TableDefinition::new("seen");

/// Actions that were begun, by session and id, as JSON.
const APPLIED: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("applied");

/// The guest's name.
const WHOSE: TableDefinition<'_, (), &str> = TableDefinition::new("whose");

/// The open database. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct InboxStore {
    file: DatabaseFile,
}

/// What was found at start.
#[derive(Debug)]
pub struct InboxFound {
    /// Whose messages these are, if they are another guest's: they are not to be shown.
    pub of_another: Option<String>,
    /// What is in it.
    pub restored: RestoredAgent,
    /// A damaged database was set aside under this name, and what is wrong with
    /// it: its messages are not known any more. Say so loudly.
    pub set_aside: Option<(PathBuf, String)>,
}

impl InboxStore {
    /// Opens the directory's database and reads it, as that of `guest`; one that says
    /// of none yet whose it is becomes that guest's. A damaged file is set aside as
    /// `inbox.redb.damaged-DATE`, never deleted.
    ///
    /// # Errors
    /// It can't be opened or written for a reason other than damage.
    pub fn open(
        directory: &Path,
        guest: &GuestName,
        now: WallTime,
    ) -> Result<(Self, InboxFound), StoreError> {
        let Opened { file, read: (whose, restored), set_aside } =
            DatabaseFile::open(&directory.join(INBOX_FILE), now, |file| read(file, guest))?;
        let of_another = (whose != guest.as_str()).then_some(whose);
        Ok((Self { file }, InboxFound { of_another, restored, set_aside }))
    }
}

impl Commit for InboxStore {
    fn commit(&mut self, batches: &[&Batch]) -> Result<(), Error> {
        self.file.commit(|transaction| {
            let mut received = transaction.open_table(RECEIVED)?;
            let mut seen = transaction.open_table(SEEN)?;
            let mut applied = transaction.open_table(APPLIED)?;
            for change in batches.iter().copied().flatten() {
                match change {
                    Change::SetReceived(message) => {
                        let row = serde_json::to_vec(message).map_err(std::io::Error::from)?;
                        received.insert(message.number, row.as_slice())?;
                    }
                    Change::DropReceived { number } => {
                        received.remove(number)?;
                    }
                    Change::SetSeen { id, at: Some(at) } => {
                        seen.insert(&id.0, at.unix_millis())?;
                    }
                    Change::SetSeen { id, at: None } => {
                        seen.remove(&id.0)?;
                    }
                    Change::SetApplied(change) => {
                        let row = serde_json::to_vec(change).map_err(std::io::Error::from)?;
                        applied.insert((change.session.as_str(), change.id.as_str()), row.as_slice())?;
                    }
                    Change::DropApplied { session, id } => {
                        applied.remove((session.as_str(), id.as_str()))?;
                    }
                    _ => return Err(Error::Corrupted("a change that an agent doesn't make".into())),
                }
            }
            Ok(())
        })
    }
}

/// Whose it is, and what is in it.
fn read(file: &mut DatabaseFile, guest: &GuestName) -> Result<(String, RestoredAgent), Error> {
    // Creates the tables of a new file.
    file.transact(|transaction| {
        transaction.open_table(RECEIVED)?;
        transaction.open_table(SEEN)?;
        transaction.open_table(APPLIED)?;
        let mut whose = transaction.open_table(WHOSE)?;
        if whose.get(())?.is_none() {
            whose.insert((), guest.as_str())?;
        }
        Ok(())
    })?;
    let transaction = file.begin_read()?;
    let whose = transaction.open_table(WHOSE)?;
    let whose = whose.get(())?.map(|name| name.value().to_owned()).unwrap_or_default();
    let mut restored = RestoredAgent::default();
    for row in transaction.open_table(RECEIVED)?.iter()? {
        let (number, row) = row?;
        let number = number.value();
        let message = serde_json::from_slice::<Received>(row.value()).ok();
        let message = message.filter(|message| message.number == number);
        let damaged = || Error::Corrupted(format!("the message of number {number}"));
        restored.messages.push(message.ok_or_else(damaged)?);
    }
    for row in transaction.open_table(SEEN)?.iter()? {
        let (id, at) = row?;
        restored.seen.push((MessageId(*id.value()), WallTime::from_unix_millis(at.value())));
    }
    for row in transaction.open_table(APPLIED)?.iter()? {
        let (key, row) = row?;
        let (session, id) = key.value();
        let applied = serde_json::from_slice::<Applied>(row.value()).ok();
        let applied = applied.filter(|read| read.session.as_str() == session && read.id.as_str() == id);
        let damaged = || Error::Corrupted(format!("the action {session:?} {id:?}"));
        restored.applied.push(applied.ok_or_else(damaged)?);
    }
    Ok((whose, restored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn open(directory: &Path) -> (InboxStore, InboxFound) {
        open_as(directory, "devbox")
    }

    fn open_as(directory: &Path, guest: &str) -> (InboxStore, InboxFound) {
        let guest = guest.parse().expect("a name");
        InboxStore::open(directory, &guest, WallTime::from_unix_millis(1_800_000_000_000)).expect("a store")
    }

    fn message(number: u64) -> Received {
        Received {
            number,
            id: MessageId([number as u8; 16]),
            from: "builder".parse().expect("a name"),
            from_authenticated: number.is_multiple_of(2),
            text: "a text with \"quotes\" and \u{1f980}".into(),
            sent_at: WallTime::from_unix_millis(1_763_000_000_001),
            delivered_at: WallTime::from_unix_millis(1_763_000_000_002),
            wake: true,
        }
    }

    #[test]
    fn messages_and_remembered_ids_survive_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut store, found) = open(directory.path());
        assert_eq!(found.restored, RestoredAgent::default());
        let at = WallTime::from_unix_millis(1_763_000_000_002);
        let set = |number: u64| {
            let message = message(number);
            [Change::SetSeen { id: message.id, at: Some(at) }, Change::SetReceived(Box::new(message))]
        };
        let first: Batch = [set(300), set(2), set(1)].concat();
        let forget = Change::SetSeen { id: MessageId([1; 16]), at: None };
        let second = vec![Change::DropReceived { number: 2 }, forget];
        store.commit(&[&first, &second]).expect("a commit");
        let alien = vec![Change::DropReceived { number: 1 }, Change::Incarnation(7)];
        store.commit(&[&alien]).expect_err("a broker's change");
        drop(store);
        let (_store, found) = open(directory.path());
        let seen = vec![(MessageId([2; 16]), at), (MessageId([44; 16]), at)];
        assert_eq!(
            found.restored,
            RestoredAgent { messages: vec![message(1), message(300)], seen, ..RestoredAgent::default() }
        );
        let mode = fs::metadata(directory.path().join(INBOX_FILE)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = InboxStore::open(directory.path(), &"devbox".parse().expect("a name"), at)
            .expect_err("one at a time");
        assert!(matches!(second, StoreError::Database { error: Error::DatabaseAlreadyOpen, .. }), "{second}");
    }

    #[test]
    fn an_inbox_knows_whose_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(open(directory.path()).1.of_another, None);
        assert_eq!(open_as(directory.path(), "builder").1.of_another.as_deref(), Some("devbox"));
        assert_eq!(open(directory.path()).1.of_another, None, "looking at it did not make it another's");
    }

    #[test]
    fn a_damaged_inbox_is_set_aside_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(INBOX_FILE);
        fs::write(&path, "not a database").expect("a file");
        let (mut store, found) = open(directory.path());
        let (aside, _) = found.set_aside.expect("set aside");
        assert!(aside.to_string_lossy().contains("inbox.redb.damaged-2027-01-15T08-00-00"), "{aside:?}");
        assert_eq!(fs::read(&aside).expect("the old file"), b"not a database");
        // A message under a number that is not its own is damage, too.
        let planted = store.file.transact(|transaction| {
            let row = serde_json::to_vec(&message(1)).expect("a row");
            transaction.open_table(RECEIVED)?.insert(2, row.as_slice())?;
            Ok(())
        });
        planted.expect("a commit");
        drop(store);
        let (_, damage) = open(directory.path()).1.set_aside.expect("set aside");
        assert!(damage.contains("number 2"), "{damage}");
    }
}
