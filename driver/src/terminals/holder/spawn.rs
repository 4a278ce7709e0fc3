//! A program on a new pseudo-terminal.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, PoisonError};

use pty_process::Size;
use pty_process::blocking::{Command, Pts, Pty, open};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::{InputModes, OptionalActions, tcgetattr, tcsetattr};

use super::session::Stat;
use super::terminal::Refused;
use super::wire::{Program, Refusal};

/// A program that runs.
pub(crate) struct Spawned {
    pub(crate) master: OwnedFd,
    pub(crate) slave: Pts,
    pub(crate) child: Child,
    pub(crate) pts: String,
    pub(crate) start_time: u64,
}

/// A new master becomes close-on-exec only a moment after it was opened: a program that
/// another thread started in between would inherit it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Starts it: in a session of its own, with the terminal as its controlling one and as
/// its standard descriptors, and with no other.
pub(crate) fn spawn(program: &Program) -> Result<Spawned, Refused> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let name = program.program.as_os_str().display();
    let cwd = Path::new(program.cwd.as_os_str());
    check_directory(cwd)?;
    let (master, slave) = open().map_err(|error| failed("no pseudo-terminal", &error))?;
    master
        .resize(Size::new(program.rows, program.cols))
        .map_err(|error| failed("can't give a terminal its size", &error))?;
    let pts = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd()))
        .map_err(|error| failed("can't tell a terminal's name", &error))?;
    prepare(&master, &slave).map_err(|error| failed("can't prepare a terminal", &error))?;
    let mut command = Command::new(program.program.as_os_str())
        .args(program.args.iter().map(|argument| argument.as_os_str()))
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())))
        .current_dir(cwd);
    let child = command.spawn_borrowed(&slave).map_err(|error| {
        let pty_process::Error::Io(error) = error else { return failed("can't start it", &error) };
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Refusal::ProgramMissing,
            io::ErrorKind::PermissionDenied => Refusal::PermissionDenied,
            _ => Refusal::Failed,
        };
        (kind, format!("can't run {name}: {error}"))
    })?;
    // It is there until it is waited for.
    let start_time = Stat::of(child.id().cast_signed()).map_or(0, |stat| stat.start_time);
    let pts = pts.display().to_string();
    Ok(Spawned { master: master.into(), slave, child, pts, start_time })
}

fn prepare(master: &Pty, slave: &Pts) -> rustix::io::Result<()> {
    fcntl_setfl(master, fcntl_getfl(master)? | OFlags::NONBLOCK)?;
    // So that the kernel's own line editing erases characters, not bytes.
    let mut modes = tcgetattr(slave)?;
    modes.input_modes |= InputModes::IUTF8;
    tcsetattr(slave, OptionalActions::Now, &modes)
}

fn check_directory(path: &Path) -> Result<(), Refused> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err((Refusal::DirectoryMissing, format!("{shown} is no directory"))),
        Ok(_) if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() => {
            Err((Refusal::PermissionDenied, format!("{shown} may not be entered")))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err((Refusal::PermissionDenied, format!("{shown}: {error}")))
        }
        Err(error) => Err((Refusal::DirectoryMissing, format!("{shown}: {error}"))),
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Refused {
    (Refusal::Failed, format!("{what}: {error}"))
}
