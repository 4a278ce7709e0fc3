//! Files that go with the process that made them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Files that are removed again when this is dropped: sockets and pid files. What
/// somebody else has put in their place meanwhile stays.
#[derive(Debug, Default)]
pub(crate) struct Created(Vec<(PathBuf, Option<OwnedFd>)>);

/// Device and inode of a file.
pub(crate) type Identity = (u64, u64);

impl Created {
    /// The file of that name was just made.
    pub(crate) fn add(&mut self, path: &Path) {
        // As long as it is open, no other file can have its inode.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.0.push((path.to_owned(), rustix::fs::open(path, flags, Mode::empty()).ok()));
    }

    /// The file of that name was just made.
    pub(crate) fn one(path: &Path) -> Self {
        let mut created = Self::default();
        created.add(path);
        created
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for (path, made) in &self.0 {
            let made = made.as_ref().and_then(|made| rustix::fs::fstat(made).ok());
            let made = made.map(|made| (made.st_dev, made.st_ino));
            if made.is_some() && identity(path).ok() == made {
                // Not ours to remove any more, perhaps: then nothing is left to do.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Which file it is, following no link.
///
/// # Errors
/// It can't be looked at.
pub(crate) fn identity(path: &Path) -> io::Result<Identity> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_removed_and_what_came_in_its_place_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let [ours, theirs, gone] = ["ours", "theirs", "gone"].map(|name| directory.path().join(name));
        let mut created = Created::default();
        for path in [&ours, &theirs, &gone] {
            fs::write(path, "ours").expect("a file");
            created.add(path);
        }
        fs::remove_file(&theirs).expect("a removal");
        fs::remove_file(&gone).expect("a removal");
        // A file system gives the number of a removed file away again at once.
        fs::write(&theirs, "theirs").expect("a file");
        drop(created);
        assert!(!ours.exists() && !gone.exists());
        assert_eq!(fs::read_to_string(&theirs).expect("the file"), "theirs");
    }
}
