use super::*;
use crate::database::{CACHE_BYTES, Opener};
use redb::{Database, StorageBackend, StorageError};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

impl Store {
    pub(super) fn read(&mut self) -> Result<Read, redb::Error> {
        read(&mut self.file)
    }
}

pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn at(seconds: i64) -> WallTime {
    WallTime::from_unix_millis(seconds * 1000)
}

pub(super) fn name(text: &str) -> GuestName {
    text.parse().expect("a name")
}

fn set(guest: &str, key: Option<u8>) -> Batch {
    vec![Change::SetToken { guest: name(guest), key: key.map(|byte| Key::from_bytes([byte; 32])) }]
}

pub(super) fn open(directory: &Path) -> (Store, Found) {
    Store::open(directory, at(1_800_000_000)).expect("a store")
}

#[test]
fn the_incarnation_rises_with_every_start() {
    let directory = scratch();
    for expected in 1..=3 {
        let (store, found) = open(directory.path());
        assert_eq!(found.incarnation, expected);
        assert!(found.set_aside.is_none() && !found.vanished);
        drop(store);
    }
    let mode = fs::metadata(directory.path().join(DATABASE_FILE)).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_deleted_or_older_database_does_not_turn_the_incarnation_back() {
    let directory = scratch();
    let path = directory.path().join(DATABASE_FILE);
    drop(open(directory.path()));
    fs::copy(&path, directory.path().join("backup")).expect("a copy");
    drop(open(directory.path()));
    drop(open(directory.path()));
    fs::rename(directory.path().join("backup"), &path).expect("a restore");
    assert_eq!(open(directory.path()).1.incarnation, 4);
    fs::remove_file(&path).expect("a removal");
    assert_eq!(open(directory.path()).1.incarnation, 5);
    // The copy alone may go as well.
    fs::write(directory.path().join(INCARNATION_FILE), "nonsense").expect("a file");
    assert_eq!(open(directory.path()).1.incarnation, 6);
}

#[test]
fn a_database_that_vanished_is_told_and_its_keyed_names_stay_keyed() {
    for empty in [false, true] {
        let directory = scratch();
        let path = directory.path().join(DATABASE_FILE);
        open(directory.path()).0.commit(&[&set("devbox", Some(1))]).expect("a commit");
        fs::remove_file(&path).expect("a removal");
        if empty {
            File::create(&path).expect("a file");
        }
        let (store, found) = open(directory.path());
        assert!(found.vanished);
        assert_eq!(found.tokens, [(name("devbox"), None)]);
        drop(store);
        fs::remove_file(directory.path().join(NAMES_FILE)).expect("a removal");
        let found = open(directory.path()).1;
        assert!(!found.vanished, "once is enough");
        assert_eq!(found.tokens, [(name("devbox"), None)], "the new database knows them, too");
    }
}

#[test]
fn keyed_names_are_listed_once_before_their_tokens_and_what_is_no_name_is_left_out() {
    let directory = scratch();
    let list = directory.path().join(NAMES_FILE);
    let text = || fs::read_to_string(&list).unwrap_or_default();
    let (mut store, _) = open(directory.path());
    let batches = [set("a", Some(1)), set("b", Some(2)), set("a", Some(3)), set("b", None)];
    batches.iter().for_each(|batch| store.commit(&[batch]).expect("a commit"));
    assert_eq!(text(), "a\nb\n");
    // A token whose name can't be listed is not issued.
    fs::rename(&list, directory.path().join("aside")).expect("a rename");
    fs::create_dir(&list).expect("a directory");
    store.commit(&[&set("c", Some(4))]).expect_err("no list");
    fs::remove_dir(&list).expect("a removal");
    drop(store);
    // As one of the version before, and as one that somebody wrote into.
    assert_eq!(open(directory.path()).1.tokens.len(), 2);
    assert_eq!(text(), "a\nb\n");
    fs::write(&list, "a\n../../etc\n\u{1b}[2J\n\nb").expect("a file");
    fs::remove_file(directory.path().join(DATABASE_FILE)).expect("a removal");
    assert_eq!(open(directory.path()).1.tokens, [(name("a"), None), (name("b"), None)]);
}

#[test]
fn a_file_that_was_removed_or_replaced_takes_nothing_until_it_is_back() {
    let directory = scratch();
    let path = directory.path().join(DATABASE_FILE);
    let aside = directory.path().join("aside");
    let (mut store, _) = open(directory.path());
    fs::rename(&path, &aside).expect("a rename");
    let error = store.commit(&[&set("a", Some(1))]).expect_err("removed").to_string();
    assert!(error.contains("was removed"), "{error}");
    assert!(!path.exists(), "an empty one in its place would be believed by the next broker");
    fs::copy(&aside, &path).expect("a copy");
    let error = store.commit(&[&set("a", Some(1))]).expect_err("replaced").to_string();
    assert!(error.contains("was replaced"), "{error}");
    fs::rename(&aside, &path).expect("a rename");
    store.commit(&[&set("b", Some(2))]).expect("it is back");
    drop(store);
    assert_eq!(open(directory.path()).1.tokens, [(name("b"), Some(Key::from_bytes([2; 32])))]);
}

#[test]
fn a_changed_bit_in_a_row_is_damage() {
    let directory = scratch();
    let path = directory.path().join(DATABASE_FILE);
    let (mut store, _) = open(directory.path());
    store.commit(&[&set("devbox", Some(0x5a))]).expect("a commit");
    drop(store);
    let mut content = fs::read(&path).expect("the file");
    let key = content.windows(32).position(|bytes| bytes == [0x5a; 32]).expect("the key");
    content[key] ^= 1;
    fs::write(&path, content).expect("a write");
    let found = open(directory.path()).1;
    assert!(found.set_aside.is_some());
    assert_eq!(found.tokens, [(name("devbox"), None)]);
}

#[test]
fn tokens_and_tombstones_survive() {
    let directory = scratch();
    let (mut store, found) = open(directory.path());
    assert!(found.tokens.is_empty());
    let batches = [set("devbox", Some(1)), set("gone", Some(2)), set("gone", None), set("devbox", Some(3))];
    store.commit(&batches.iter().collect::<Vec<_>>()).expect("a commit");
    drop(store);
    let (_, found) = open(directory.path());
    let expected = vec![(name("devbox"), Some(Key::from_bytes([3; 32]))), (name("gone"), None)];
    assert_eq!(found.tokens, expected, "in order, and the last word counts");
}

#[test]
fn a_forgotten_name_that_had_a_token_stays_keyed_and_others_leave_no_trace() {
    let directory = scratch();
    let (mut store, _) = open(directory.path());
    let forget = |guest| vec![Change::Forget { guest: name(guest) }];
    let batches = [set("keyed", Some(1)), forget("keyed"), forget("plain")];
    store.commit(&batches.iter().collect::<Vec<_>>()).expect("a commit");
    drop(store);
    assert_eq!(open(directory.path()).1.tokens, [(name("keyed"), None)]);
}

#[test]
fn a_reserved_incarnation_is_never_given_out_again() {
    let directory = scratch();
    let (mut store, _) = open(directory.path());
    store.commit(&[&vec![Change::Incarnation(9)], &vec![Change::Incarnation(4)]]).expect("a commit");
    drop(store);
    assert_eq!(open(directory.path()).1.incarnation, 10);
}

#[test]
fn a_damaged_database_is_set_aside_whole_and_the_incarnation_still_rises() {
    let directory = scratch();
    let path = directory.path().join(DATABASE_FILE);
    let (mut store, _) = open(directory.path());
    store.commit(&[&set("devbox", Some(1))]).expect("a commit");
    drop(store);
    let healthy = fs::read(&path).expect("the file");
    let mut before = 1;
    let mut aside_count = 0;
    let damages: [(&str, Vec<u8>); 4] = [
        ("no database at all", b"this is not a database".repeat(400)),
        ("cut short", healthy[..healthy.len() / 2].to_vec()),
        ("a header of zeros", [vec![0; 4096], healthy[4096..].to_vec()].concat()),
        ("pages of noise", {
            let mut bytes = healthy.clone();
            for (index, byte) in bytes.iter_mut().enumerate().skip(4096) {
                *byte ^= (index % 255) as u8;
            }
            bytes
        }),
    ];
    for (what, damaged) in damages {
        fs::write(&path, &damaged).expect("a file");
        let (store, found) = open(directory.path());
        assert!(found.incarnation > before, "{what}: {} after {before}", found.incarnation);
        before = found.incarnation;
        if let Some((aside, damage)) = &found.set_aside {
            aside_count += 1;
            assert!(!damage.is_empty());
            assert_eq!(fs::read(aside).expect(what).len(), damaged.len(), "{what}: kept whole");
            assert!(found.tokens.iter().all(|(_, key)| key.is_none()));
            assert!(aside.to_string_lossy().contains("state.redb.damaged-2027-01-15T08-00-00"), "{aside:?}");
        }
        drop(store);
        assert!(open(directory.path()).1.set_aside.is_none(), "{what}: the new one is healthy");
        before += 1;
    }
    assert_eq!(aside_count, 4);
}

#[test]
fn when_nobody_remembers_the_wall_clock_counts_on() {
    let directory = scratch();
    fs::write(directory.path().join(DATABASE_FILE), "damaged").expect("a file");
    let (_, found) = open(directory.path());
    assert_eq!(found.incarnation, 1_800_000_001);
}

#[test]
fn a_database_that_cannot_be_read_is_an_error_and_stays_where_it_is() {
    let directory = scratch();
    fs::create_dir(directory.path().join(DATABASE_FILE)).expect("a directory");
    let error = Store::open(directory.path(), at(1)).expect_err("a directory");
    assert!(matches!(error, StoreError::Database { .. }), "{error}");
}

/// A file on a disk that fails on demand.
#[derive(Debug)]
struct Disk {
    file: File,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Writes that go well, and …
    pub(super) well: AtomicUsize,
    /// … those after them that will fail.
    pub(super) full: AtomicUsize,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        let next = |count: &AtomicUsize| {
            count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        };
        if !next(&self.faults.well) && next(&self.faults.full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check().and_then(|()| self.file.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check().and_then(|()| self.file.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check().and_then(|()| self.file.write_all_at(data, offset))
    }
}

/// A store, and what will go wrong.
pub(super) fn on_a_failing_disk(directory: &Path) -> (Store, Arc<Faults>) {
    let path = directory.join(DATABASE_FILE);
    let faults = Arc::<Faults>::default();
    let disk = Arc::clone(&faults);
    let opener: Opener = Box::new(move || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StorageError::Io)?;
        let disk = Disk { file, faults: Arc::clone(&disk) };
        Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(disk)?)
    });
    (Store { file: DatabaseFile::over(opener), names: Names::in_directory(directory) }, faults)
}

#[test]
fn a_failed_commit_changes_nothing_and_the_next_one_works() {
    let directory = scratch();
    let (mut store, faults) = on_a_failing_disk(directory.path());
    store.commit(&[&set("devbox", Some(1))]).expect("a commit");
    faults.full.store(1, Ordering::SeqCst);
    store.commit(&[&set("devbox", Some(2))]).expect_err("one write fails");
    assert!(store.file.is_open(), "open again before the failure is told");
    faults.full.store(usize::MAX, Ordering::SeqCst);
    store.commit(&[&set("devbox", Some(2))]).expect_err("a full disk");
    store.commit(&[&set("devbox", Some(3))]).expect_err("still full");
    faults.full.store(0, Ordering::SeqCst);
    store.read().expect("the file is sound");
    store.commit(&[&set("second", Some(4))]).expect("it works again at once");
    let tokens = store.read().expect("rows").tokens;
    let expected = vec![
        (name("devbox"), Some(Key::from_bytes([1; 32]))),
        (name("second"), Some(Key::from_bytes([4; 32]))),
    ];
    assert_eq!(tokens, expected);
}
