//! A program on a terminal of its own, and a person who looks at the screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::{PATIENCE, until};

pub(crate) struct Terminal {
    master: OwnedFd,
    /// Held open, so that its modes can be looked at.
    slave: File,
    program: Program,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    before: Termios,
    closed: Arc<AtomicBool>,
    reading: JoinHandle<()>,
}

/// Killed and reaped on drop.
struct Program(Child);

struct Seen {
    parser: vt100::Parser,
    /// All that was written to the terminal.
    bytes: Vec<u8>,
}

impl Terminal {
    /// Runs `command` on a screen of `rows` and `columns`, as its controlling terminal.
    pub(crate) fn run(command: &Command, rows: u16, columns: u16) -> Self {
        Self::start(command, rows, columns, &["--ctty"])
    }

    /// As [`Terminal::run`], but as no controlling terminal: no signal comes from it.
    pub(crate) fn run_detached(command: &Command, rows: u16, columns: u16) -> Self {
        Self::start(command, rows, columns, &[])
    }

    fn start(command: &Command, rows: u16, columns: u16, how: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let device = ptsname(&master, vec![]).unwrap();
        tcsetwinsize(&master, size(rows, columns)).unwrap();
        let slave = File::options().read(true).write(true).open(device.to_str().unwrap()).unwrap();
        let before = tcgetattr(&slave).unwrap();
        // It becomes the program itself, with the same process id.
        let mut leader = Command::new("setsid");
        leader.args(how).arg(command.get_program()).args(command.get_args());
        leader.env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        let end = || slave.try_clone().unwrap();
        let child = leader.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let parser = vt100::Parser::new(cells(rows), cells(columns), 0);
        let seen = Arc::new((Mutex::new(Seen { parser, bytes: vec![] }), Condvar::new()));
        let (shared, mut reader) = (Arc::clone(&seen), File::from(master.try_clone().unwrap()));
        let closed = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&closed);
        let reading = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let mut fds = [PollFd::new(&reader, PollFlags::IN)];
                let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                match rustix::event::poll(&mut fds, Some(&pause)) {
                    _ if gone.load(Ordering::SeqCst) => return,
                    Ok(0) | Err(_) => continue,
                    Ok(_) => {}
                }
                let Ok(count @ 1..) = reader.read(&mut chunk) else { return };
                let mut seen = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                seen.parser.process(&chunk[..count]);
                seen.bytes.extend_from_slice(&chunk[..count]);
                shared.1.notify_all();
            }
        });
        Self { master, slave, program: Program(child), seen, before, closed, reading }
    }

    pub(crate) fn press(&self, keys: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is as `is` wants it; the screen.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&vt100::Screen) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let screen = seen.parser.screen();
            if is(screen) {
                return screen.contents();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come about:\n{}", screen.contents());
            let waited = self.seen.1.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the screen shows `text`; the screen.
    pub(crate) fn shows(&self, text: &str) -> String {
        self.until(&format!("{text:?}"), |screen| screen.contents().contains(text))
    }

    /// Waits until the screen no longer shows `text`; the screen.
    pub(crate) fn hides(&self, text: &str) -> String {
        self.until(&format!("the end of {text:?}"), |screen| !screen.contents().contains(text))
    }

    /// All that was ever written to the terminal.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.clone()
    }

    /// Gives it another size, which the kernel tells the program.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let mut seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.parser.screen_mut().set_size(cells(rows), cells(columns));
        tcsetwinsize(&self.master, size(rows, columns)).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program.0), signal).unwrap();
    }

    /// The terminal goes away, as when its window is closed; the program's code.
    pub(crate) fn hangs_up(self) -> i32 {
        let Self { master, slave, mut program, reading, closed, .. } = self;
        closed.store(true, Ordering::SeqCst);
        reading.join().unwrap();
        drop((master, slave));
        program.code(|| "its terminal is gone".into())
    }

    /// Waits for the program's end: its code. The terminal must be as it was before.
    pub(crate) fn ends(mut self) -> i32 {
        let seen = Arc::clone(&self.seen);
        let code = self
            .program
            .code(|| seen.0.lock().unwrap_or_else(PoisonError::into_inner).parser.screen().contents());
        self.until("the first screen", |screen| {
            !screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor()
        });
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before), "the terminal's modes");
        code
    }
}

impl Program {
    /// Waits for its end; `picture` is for the message if it doesn't come.
    fn code(&mut self, picture: impl Fn() -> String) -> i32 {
        let ended = until(PATIENCE, || self.0.try_wait().unwrap().is_some());
        assert!(ended, "it still runs:\n{}", picture());
        let status = self.0.wait().unwrap();
        status.code().unwrap_or_else(|| panic!("ended with {status}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}
