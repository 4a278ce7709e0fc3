//! The terminal: taken, and given back as it was, however the program ends.

use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Arrived, End};

/// Whether the terminal is taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, until it is dropped.
pub(crate) struct Screen {
    /// Never dropped by itself: on a terminal that hung up that would be a panic.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<io::Stdout>>>,
}

impl Screen {
    /// Whether there is a terminal that can be drawn on.
    pub(crate) fn is_possible() -> bool {
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb
    }

    /// Takes it. From here on a panic gives it back first.
    pub(crate) fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        // Whether to colour is decided in the picture; the library's own way
        // against it would end bold text too.
        force_color_output(true);
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let taken = execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match taken {
            Ok(terminal) => Ok(Self { terminal: ManuallyDrop::new(terminal) }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws, unless a panic has given the terminal back.
    pub(crate) fn draw(&mut self, picture: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        if TAKEN.load(Ordering::SeqCst) {
            self.terminal.draw(picture)?;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once, whoever calls first. A terminal that is gone needs nothing back.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// Brings keys, pasted text and changes of size. It does not notice that the
/// terminal hung up: whoever draws does, within a second.
pub(crate) fn read<I: From<Arrived>>(inputs: &Sender<I>) {
    loop {
        let input = match event::read() {
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Release => continue,
            Ok(Event::Key(key)) => Arrived::Key(key),
            Ok(Event::Paste(text)) => Arrived::Paste(text),
            Ok(Event::Resize(..)) => Arrived::Redraw,
            Ok(_) => continue,
            Err(_) => Arrived::End(End::Signal(SIGHUP)),
        };
        let ends = matches!(input, Arrived::End(_));
        if inputs.send(input.into()).is_err() || ends {
            return;
        }
    }
}

/// The signals that end the program.
pub(crate) fn signals() -> io::Result<Signals> {
    Signals::new([SIGHUP, SIGINT, SIGTERM])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::tcgetattr;

    use super::Screen;

    const VICTIM: &str = "CASTRA_TEST_PANICS_ON_ITS_SCREEN";

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if std::env::var_os(VICTIM).is_some() {
            let _screen = Screen::take().unwrap();
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
        child.arg("tui::screen::tests::a_panic_gives_the_terminal_back_before_it_is_told");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut child = child.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut reader = File::from(master);
        let mut said = vec![];
        let mut chunk = [0; 4096];
        // Whatever it writes is taken, so that it never waits; the last words are not its own.
        while child.try_wait().unwrap().is_none() && !said.windows(13).any(|text| text == b"test result: ") {
            let mut fds = [PollFd::new(&reader, PollFlags::IN)];
            let bound = crate::client::timespec(Duration::from_secs(60));
            assert_eq!(rustix::event::poll(&mut fds, Some(&bound)), Ok(1), "{said:?}");
            let count = reader.read(&mut chunk).unwrap();
            said.extend_from_slice(&chunk[..count]);
        }
        assert!(!child.wait().unwrap().success());
        let said = String::from_utf8_lossy(&said);
        let place = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text:?} in {said:?}"));
        assert!(place("\u{1b}[?1049h") < place("\u{1b}[?1049l"), "{said:?}");
        assert!(place("\u{1b}[?2004l") < place("on purpose"), "{said:?}");
        assert!(place("\u{1b}[?1049l") < place("on purpose"), "{said:?}");
        assert_eq!(format!("{:?}", tcgetattr(&slave).unwrap()), format!("{before:?}"));
    }
}
