//! The person's terminal: taken, and given back usable, however attach ends.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

use crate::client::timespec;
use crate::term::size::Size;

/// How long a terminal that is stopped may take for the last bytes.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// Whatever a program may have switched on, switched off; what it drew stays.
/// Sequences that a terminal doesn't know, it ignores.
const RESET: &str = concat!(
    // The end of a sequence that was cut off.
    "\x18",
    // A synchronized update that nobody ended; keyboard protocols of the other screen.
    "\x1b[?2026l\x1b[<99u\x1b[=0u\x1b[>4m",
    // The first screen, and its keyboard protocols. Not by 1049, which would
    // move the cursor to where nobody left it.
    "\x1b[?47l\x1b[?1047l\x1b[<99u\x1b[=0u",
    // Mouse, focus, reports of sizes and colours, pasting.
    "\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l",
    "\x1b[?1004l\x1b[?2048l\x1b[?2031l\x1b[?2004l",
    // Keys, margins, wrapping, inserting, tab stops.
    "\x1b[?1l\x1b>\x1b[?66l\x1b[?69l\x1b[?6l\x1b[r\x1b[?7h\x1b[?45l\x1b[?5l\x1b[4l\x1b[20l\x1b[?5W",
    // Characters, colours, links, the cursor.
    "\x1b(B\x1b)B\x0f\x1b[0m\x1b]8;;\x1b\\\x1b[0 q\x1b[?25h",
);

/// The title is kept meanwhile.
const KEEP_TITLE: &str = "\x1b[22;0t";

/// And comes back; the cursor is below everything.
const LEAVE: &str = "\x1b[23;0t\x1b[999;1H\r\n";

/// What the terminal was before it was taken, and where to write.
static TAKEN: Mutex<Option<(Termios, OwnedFd)>> = Mutex::new(None);

/// The person's terminal, until it is dropped.
pub(super) struct Screen {
    /// Another description of the same terminal, so that writing to one that is
    /// stopped blocks nobody, and whoever shares standard output notices nothing.
    pub(super) output: OwnedFd,
}

impl Screen {
    /// Whether there is one to be on.
    pub(super) fn is_possible() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Takes it. What it shows moves up, into its own history. From here on a
    /// panic gives it back first.
    pub(super) fn take() -> io::Result<Self> {
        let output = OpenOptions::new()
            .write(true)
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
            .open("/proc/self/fd/1")
            .map(OwnedFd::from)
            // Another user's, as after `su`: then writing may block.
            .or_else(|_| io::stdout().as_fd().try_clone_to_owned())?;
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            hook(info);
        }));
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some((before, output.try_clone()?));
        let screen = Self { output };
        // From here on its end gives it back.
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let rows = Size::of(io::stdout()).map_or(0, |size| usize::from(size.rows));
        let mut stdout = io::stdout().lock();
        write!(stdout, "{KEEP_TITLE}\x1b[999;1H{}\x1b[H", "\n".repeat(rows))?;
        stdout.flush()?;
        Ok(screen)
    }
}

impl Screen {
    /// Writes, if the terminal takes it soon.
    pub(super) fn write_last(&self, bytes: &[u8]) {
        let _ = write_within(&self.output, bytes, Instant::now() + LAST_BYTES);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// What makes the terminal like new before a picture is drawn on it.
pub(super) fn renew() -> String {
    format!("{RESET}\x1b[2J\x1b[H")
}

/// Once, whoever calls first. A terminal that is gone needs nothing back.
fn give_back() {
    let before = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((before, output)) = before {
        let end = Instant::now() + LAST_BYTES;
        let _ = write_within(&output, RESET.as_bytes(), end);
        let _ = write_within(&output, LEAVE.as_bytes(), end);
        // What was typed and not read was meant for the program, not for the shell.
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

fn write_within(output: &OwnedFd, mut bytes: &[u8], end: Instant) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(output, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let left = end.saturating_duration_since(Instant::now());
                let mut fds = [PollFd::new(output, PollFlags::OUT)];
                if rustix::event::poll(&mut fds, Some(&timespec(left)))? == 0 {
                    return Err(Errno::AGAIN);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen() -> vt100::Parser {
        let cells = |count| std::num::NonZeroU16::new(count).unwrap();
        vt100::Parser::new(cells(24), cells(80), 0)
    }

    #[test]
    fn whatever_a_program_switched_on_is_off_again() {
        let mut parser = screen();
        parser.process(
            b"\x1b[?1049h\x1b[?1003h\x1b[?1006h\x1b[?2004h\x1b[?25l\x1b[?1h\x1b=\x1b[31;44;1mred\x1b[5;10r\x1b[?6h",
        );
        parser.process(RESET.as_bytes());
        let screen = parser.screen();
        assert!(!screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor());
        assert!(!screen.application_cursor() && !screen.application_keypad());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        assert_eq!(screen.mouse_protocol_encoding(), vt100::MouseProtocolEncoding::Default);
        assert_eq!(screen.fgcolor(), vt100::Color::Default);
        assert!(!screen.bold());
        // The cursor reaches the last row, so there are no margins and no origin.
        parser.process(LEAVE.as_bytes());
        assert_eq!(parser.screen().cursor_position(), (23, 0));
    }

    const VICTIM: &str = "CASTRA_TEST_PANICS_ATTACHED";

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        use std::fs::File;
        use std::io::Read;
        use std::process::{Command, Stdio};

        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

        if std::env::var_os(VICTIM).is_some() {
            let screen = Screen::take().unwrap();
            screen.write_last(b"\x1b[?1049h\x1b[?1003h");
            panic!("on purpose");
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let device = ptsname(&master, vec![]).unwrap();
        let slave = File::options().read(true).write(true).open(device.to_str().unwrap()).unwrap();
        let before = tcgetattr(&slave).unwrap();
        // This test itself, in a process that owns the terminal.
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "--nocapture", "--test-threads=1"]).env(VICTIM, "1");
        child.arg("term::attach::screen::tests::a_panic_gives_the_terminal_back_before_it_is_told");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut child = child.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (mut reader, mut said, mut chunk) = (File::from(master), vec![], [0; 4096]);
        while child.try_wait().unwrap().is_none() && !said.windows(13).any(|text| text == b"test result: ") {
            let mut fds = [PollFd::new(&reader, PollFlags::IN)];
            let bound = timespec(Duration::from_secs(60));
            assert_eq!(rustix::event::poll(&mut fds, Some(&bound)), Ok(1), "{said:?}");
            let count = reader.read(&mut chunk).unwrap();
            said.extend_from_slice(&chunk[..count]);
        }
        assert!(!child.wait().unwrap().success());
        let said = String::from_utf8_lossy(&said);
        let place = |text: &str| said.rfind(text).unwrap_or_else(|| panic!("no {text:?} in {said:?}"));
        assert!(place("\u{1b}[?1049h") < place("\u{1b}[?1047l"), "{said:?}");
        assert!(place("\u{1b}[?1003l") < place("on purpose"), "{said:?}");
        assert_eq!(format!("{:?}", tcgetattr(&slave).unwrap()), format!("{before:?}"));
    }

    #[test]
    fn a_renewed_screen_is_empty() {
        let mut parser = screen();
        parser.process(b"\x1b[5;10Hleft over");
        parser.process(renew().as_bytes());
        assert_eq!(parser.screen().contents(), "");
        assert_eq!(parser.screen().cursor_position(), (0, 0));
    }
}
