//! What belongs to this user alone: directories that nobody else can put things
//! into, and files that nobody else wrote.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Who may have made what we rely on: this user, and root, who can do anything anyway.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Refuses what another user made.
///
/// # Errors
/// It belongs to neither this user nor root.
pub(crate) fn check_owner(found: &Metadata) -> io::Result<()> {
    if is_trusted(found.uid()) {
        return Ok(());
    }
    Err(refused(format!(
        "it belongs to user {}, not to user {} or root: whoever made it could have put anything there; choose \
         another place, or give it to this user (chown)",
        found.uid(),
        rustix::process::geteuid().as_raw()
    )))
}

/// Creates a directory (0700) and its parents, and sees to it that it is ours: one
/// that exists must belong to this user or root, and not everybody may put files
/// into it, or take others' away. Its mode stays as it is. What is legal but unwise
/// is added to `warnings`.
///
/// # Errors
/// It can't be created, something else has its name, or another user has power
/// over it; the message says what to do.
pub fn own_directory(path: &Path, warnings: &mut Vec<String>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // Whoever made a link may turn it elsewhere.
    check_owner(&fs::symlink_metadata(path)?)?;
    let found = fs::metadata(path)?;
    check_owner(&found)?;
    if is_open_to_all(&found) {
        return Err(refused(
            "everybody may remove and replace what is in it: give it mode 0700 (chmod 700)".to_owned(),
        ));
    }
    // Through the kernel's own links (/proc/PID/root) there may be no other way to it, and no parents to tell of.
    let Ok(path) = fs::canonicalize(path) else { return Ok(()) };
    for parent in path.ancestors().skip(1) {
        let Ok(found) = fs::metadata(parent) else { continue };
        let why = if !is_trusted(found.uid()) {
            format!("belongs to user {}", found.uid())
        } else if is_open_to_all(&found) {
            "can be written by everybody".to_owned()
        } else {
            continue;
        };
        let (path, parent) = (path.display(), parent.display());
        let warning = format!("{parent} {why}, who can put another directory in the place of {path}");
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    Ok(())
}

/// Whether everybody may remove and replace what others put there.
fn is_open_to_all(directory: &Metadata) -> bool {
    directory.mode() & 0o002 != 0 && directory.mode() & 0o1000 == 0
}

/// Whether others than the owner may create files there.
///
/// # Errors
/// It can't be looked at.
pub fn is_writable_by_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.mode() & 0o022 != 0)
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::*;

    /// Anybody but this user and root.
    const STRANGER: Option<u32> = Some(65_534);

    fn as_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("NOT TESTED: nothing can be given to another user: this is not root");
        }
        root
    }

    fn refusal(path: &Path) -> String {
        let error = own_directory(path, &mut Vec::new()).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        error.to_string()
    }

    #[test]
    fn a_new_directory_is_closed_to_others_and_so_are_its_parents() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("one/two");
        own_directory(&path, &mut Vec::new()).expect("made");
        own_directory(&path, &mut Vec::new()).expect("there already");
        for made in ["one", "one/two"] {
            let mode = fs::metadata(scratch.path().join(made)).expect("a directory").mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
    }

    #[test]
    fn a_directory_that_everybody_may_write_to_is_refused_with_what_to_do() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("open");
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("a mode");
        assert!(refusal(&path).contains("chmod 700"));
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).expect("a mode");
        own_directory(&path, &mut Vec::new()).expect("nobody may remove what isn't theirs");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("a mode");
        let mut warnings = Vec::new();
        own_directory(&path.join("inside"), &mut warnings).expect("made");
        assert!(warnings.iter().any(|warning| warning.contains("can be written by everybody")));
    }

    #[test]
    fn a_directory_or_a_link_of_another_user_is_refused_with_what_to_do() {
        if !as_root() {
            return;
        }
        let scratch = tempfile::tempdir().expect("a directory");
        let theirs = scratch.path().join("theirs");
        fs::create_dir(&theirs).expect("a directory");
        chown(&theirs, STRANGER, STRANGER).expect("given away");
        let said = refusal(&theirs);
        assert!(said.contains("belongs to user 65534") && said.contains("chown"), "{said}");
        let (ours, link) = (scratch.path().join("ours"), scratch.path().join("link"));
        fs::create_dir(&ours).expect("a directory");
        symlink(&ours, &link).expect("a link");
        own_directory(&link, &mut Vec::new()).expect("a link of our own");
        lchown(&link, STRANGER, STRANGER).expect("given away");
        refusal(&link);
        let mut warnings = Vec::new();
        own_directory(&theirs.join("inside"), &mut warnings).expect("legal");
        assert!(warnings.iter().any(|warning| warning.contains("belongs to user 65534")), "{warnings:?}");
    }

    #[test]
    fn a_file_that_is_no_directory_or_a_link_to_nothing_is_an_error() {
        let scratch = tempfile::tempdir().expect("a directory");
        let (file, link) = (scratch.path().join("file"), scratch.path().join("link"));
        fs::write(&file, "").expect("a file");
        symlink(scratch.path().join("nowhere"), &link).expect("a link");
        for path in [&file, &link] {
            own_directory(path, &mut Vec::new()).expect_err("no directory");
        }
    }
}
