//! What a process that was killed left of a file that it was writing.

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Removes temporary files (`NAME.PID.tmp`, see [`write_whole`]) of processes that are no more
/// from a folder. What can't be looked at or removed stays: it is in nobody's way.
///
/// [`write_whole`]: crate::files::write_whole
pub(crate) fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer = name.to_str().and_then(|name| {
            let (rest, pid) = name.strip_suffix(".tmp")?.rsplit_once('.')?;
            (!rest.is_empty()).then(|| pid.parse().ok().and_then(Pid::from_raw)).flatten()
        });
        if writer.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_goes_and_everything_else_stays() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        let dead = child.id();
        child.wait().expect("its end");
        let left = format!("devbox.json.{dead}.tmp");
        let stay = [
            format!("devbox.json.{}.tmp", std::process::id()),
            "devbox.json".into(),
            format!("{dead}.tmp"),
            format!(".{dead}.tmp"),
            "devbox.json.0.tmp".into(),
            "devbox.json.x.tmp".into(),
            "notes.tmp".into(),
        ];
        for name in stay.iter().chain([&left]) {
            fs::write(folder.path().join(name), "{").expect("a file");
        }
        remove(folder.path());
        assert!(!folder.path().join(&left).exists());
        for name in &stay {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        remove(&folder.path().join("missing"));
    }
}
