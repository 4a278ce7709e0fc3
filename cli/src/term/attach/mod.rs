//! `castra term attach`: a person on a terminal.
//!
//! One loop: what is typed, what the server says, and signals, each taken when it is
//! there; nothing blocks but the wait for all of them.

mod keys;
mod screen;
mod session;
mod status;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use castra_core::terminals::wire::Role;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::client::{Client, Within};
use super::door::Door;
use super::error::failure;
use super::follow::{Follow, READABLE, Wanted};
use super::name::TermName;
use super::{Found, TIMEOUT, signals};
use crate::Context;
use crate::client::timespec;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};
use crate::term_args::{Attach, Door as DoorArgs, How};
use screen::Screen;
use session::{End, Session};

/// What is attached to.
pub(super) struct Target {
    pub(super) name: TermName,
    pub(super) door: Door,
    pub(super) client: Client,
    pub(super) id: u32,
}

/// `castra term attach`.
pub(super) fn attach(cx: &Context, at: &DoorArgs, args: &Attach) -> Outcome {
    check()?;
    let within = Within::new(cx.timeout(TIMEOUT));
    let role = if args.how.observe { Role::Stream } else { Role::Control };
    let Found { name, door, client, row } = Found::find(cx, at, &args.terminal.name, role, within)?;
    run(Target { name, door, client, id: row.id }, &args.how, within)
}

/// Whether there is a terminal to be on.
pub(super) fn check() -> Result<(), Failure> {
    if Screen::is_possible() {
        return Ok(());
    }
    Err(Failure::usage(
        "attaching needs a terminal on both standard input and output; castra term log -f, send and snapshot do without",
    ))
}

/// Is on the terminal until detached, or its end.
pub(super) fn run(target: Target, how: &How, within: Within) -> Outcome {
    let Target { name, door, client, id } = target;
    let role = if how.observe { Role::Stream } else { Role::Control };
    let how = How { history: Some(how.history.unwrap_or(0)), ..*how };
    let wanted = Wanted { session: id, role, observe: how.observe, history: how.history };
    let failed = |error| failure(error, &name);
    let (follow, grant) = Follow::attach(door, client, wanted, None, within).map_err(failed)?;
    if !how.observe
        && !how.takeover
        && !grant.owner_is_you
        && let Some(owner) = &grant.owner
    {
        say(format_args!("{}", watching(&name, owner)));
    }
    let (receiver, sender) = UnixStream::pair().map_err(|error| Failure::io("can't make a pipe", &error))?;
    let mut signals =
        SignalDelivery::with_pipe(receiver, sender, SignalOnly, [SIGHUP, SIGINT, SIGTERM, SIGWINCH])
            .map_err(|error| Failure::io("can't listen for signals", &error))?;
    let mut session = Session::new(follow, id, &name, how, &grant);
    let ended = {
        let screen = Screen::take().map_err(|error| Failure::io("can't use this terminal", &error))?;
        turns(&screen, &mut session, &mut signals)
    };
    session.leave();
    let shown = printable(&name.to_string());
    let notes = session.notes();
    let outcome = match ended {
        End::Detached => {
            say(format_args!("detached from {shown}: `castra term attach {shown}` returns"));
            Ok(Exit::Yes)
        }
        End::Exited(exit) => {
            say(format_args!("{shown} {}", signals::ended(exit)));
            Ok(signals::verdict(exit))
        }
        End::Signal(signal) => Ok(Exit::Signalled(signal)),
        End::Failed(error) => Err(failure(error, &name)),
        End::Terminal(error) => Err(Failure::io("can't use this terminal any more", &error.into())),
    };
    for note in notes {
        say(note);
    }
    outcome
}

fn watching(name: &TermName, owner: &str) -> String {
    format!("{owner} owns {name}, so you only watch: `castra term attach {name} --takeover` takes it over")
}

/// The loop.
fn turns(
    screen: &Screen,
    session: &mut Session,
    signals: &mut SignalDelivery<UnixStream, SignalOnly>,
) -> End {
    let stdin = std::io::stdin();
    loop {
        if let Some(end) = session.advance(Instant::now()) {
            // What came before the end is still shown.
            session.flush_within(screen);
            return end;
        }
        if let Err(error) = session.write(screen) {
            return if error == Errno::IO { End::Signal(SIGHUP) } else { End::Terminal(error) };
        }
        let (link, what) = session.follow.interest(session.wants_output());
        let mut shown = PollFlags::empty();
        shown.set(PollFlags::OUT, session.has_output());
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(&screen.output, shown),
            PollFd::from_borrowed_fd(signals.get_read().as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(link, what),
        ];
        // Without anything wanted of it, only its end would come, again and again.
        let watched = if what.is_empty() { 3 } else { 4 };
        let left = session.wake().map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match rustix::event::poll(&mut fds[..watched], left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return End::Terminal(error),
        }
        let [typed, _, _, link] = fds.map(|fd| fd.revents());
        for signal in signals.pending() {
            if signal != SIGWINCH {
                return End::Signal(signal);
            }
            session.resized();
        }
        if typed.intersects(READABLE) {
            match session.read(&stdin) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return End::Terminal(error),
            }
        }
        if let Err(error) = session.follow.turn(link.intersects(READABLE)) {
            return End::Failed(error);
        }
    }
}
