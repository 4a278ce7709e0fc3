//! Disks of one's own: a file system in memory within a mount namespace, small enough
//! to fill, and a limit on the size of files, which every kernel has.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::support::World;

/// A file system of its own. It lives in a namespace that a shell holds, and is
/// reached from outside through that shell's root in `/proc`.
pub(crate) struct Room {
    shell: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    place: TempDir,
    side: TempDir,
}

/// The variable that makes a missing namespace a failure.
const REQUIRED: &str = "CASTRA_NAMESPACES";

impl Room {
    /// A file system of this many KiB; `None`, loudly, where the kernel allows none.
    pub(crate) fn new(kib: usize) -> Option<Self> {
        let mut tried = vec![];
        // An unprivileged user needs a user namespace; root may have neither right nor need for one.
        for flags in [&["-Urm"][..], &["-m"]] {
            match Self::with(flags, kib) {
                Ok(room) => return Some(room),
                Err(why) => tried.push(format!("unshare {}: {why}", flags[0])),
            }
        }
        let why = format!("no file system of one's own can be had here: {}", tried.join("; "));
        assert!(std::env::var(REQUIRED).as_deref() != Ok("required"), "{REQUIRED}=required, and {why}");
        eprintln!("NOT TESTED: {why} (set {REQUIRED}=required to make that a failure)");
        None
    }

    fn with(flags: &[&str], kib: usize) -> Result<Self, String> {
        let [place, side] =
            [(); 2].map(|()| tempfile::Builder::new().prefix("castra-room-").tempdir().unwrap());
        let mut command = Command::new("unshare");
        command.args(flags).args(["--propagation", "private", "sh"]).stdin(Stdio::piped());
        let shell = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut shell = shell.map_err(|error| error.to_string())?;
        let answers = BufReader::new(shell.stdout.take().unwrap());
        let orders = shell.stdin.take();
        let mut room = Self { shell, orders, answers, place, side };
        let path = room.place.path().display().to_string();
        room.order(&format!("mount -t tmpfs -o size={kib}k,mode=700 castra-test '{path}'"))?;
        fs::metadata(room.path("")).map_err(|error| format!("{}: {error}", room.path("").display()))?;
        Ok(room)
    }

    fn order(&mut self, order: &str) -> Result<(), String> {
        // A shell that could not be started hears nothing, and its answer is an empty line.
        let _ = writeln!(self.orders.as_mut().unwrap(), "{order} && echo done || echo failed");
        let mut answer = String::new();
        let _ = self.answers.read_line(&mut answer);
        if answer.trim() == "done" { Ok(()) } else { Err(format!("{order}: {:?}", answer.trim())) }
    }

    /// A file in it, as everybody outside sees it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let place = self.place.path().strip_prefix("/").unwrap();
        Path::new("/proc").join(self.shell.id().to_string()).join("root").join(place).join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The world's state directory is in it from now on.
    pub(crate) fn holds_state_of(&self, world: &World) {
        fs::create_dir(self.path("state")).unwrap();
        symlink(self.path("state"), world.state()).unwrap();
    }

    /// Takes all of it, so that nobody can write any more, until [`Room::free`].
    pub(crate) fn fill(&self) {
        let mut ballast = File::options().append(true).create(true).open(self.path("ballast")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            let chunk = vec![b'x'; size];
            while ballast.write_all(&chunk).is_ok() {}
        }
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.path("ballast")).unwrap();
    }

    /// Whoever opens a file from now on may only read it; what is open stays as it is.
    pub(crate) fn read_only(&mut self) {
        let (path, side) = (self.place.path().display(), self.side.path().display());
        // Read-only before anybody can have it open.
        let order = format!(
            "mount --bind '{path}' '{side}' && mount -o remount,bind,ro '{side}' && mount --bind '{side}' '{path}'"
        );
        self.order(&order).unwrap();
    }

    pub(crate) fn writable(&mut self) {
        let path = self.place.path().display().to_string();
        let side = self.side.path().display().to_string();
        self.order(&format!("umount -l '{path}' && umount -l '{side}'")).unwrap();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // The shell reads to the end of its orders; the namespace ends with it.
        self.orders = None;
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// No file of that process grows beyond `bytes`, or is written there, until this is dropped.
pub(crate) struct Limited(Pid);

impl Limited {
    pub(crate) fn to(pid: u32, bytes: u64) -> Self {
        let limited = Self(Pid::from_raw(pid.cast_signed()).unwrap());
        limited.set(Some(bytes));
        limited
    }

    fn set(&self, current: Option<u64>) {
        let _ = prlimit(Some(self.0), Resource::Fsize, Rlimit { current, maximum: None });
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.set(None);
    }
}
