//! What a service manager and this process tell each other, as systemd's `sd_notify(3)`,
//! `sd_listen_fds(3)` and `sd_watchdog_enabled(3)` say it.
//!
//! The manager says where to speak (`NOTIFY_SOCKET`), how often (`WATCHDOG_USEC`), and hands
//! sockets over (`LISTEN_FDS`). We say when we serve, reload and stop, that the loop still
//! turns, and may leave listeners in its store for whoever comes next. Without a manager
//! all of it does nothing.

mod notify;
mod passed;
mod sockets;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::process::Command;
use std::time::Duration;

use castra_core::event::Escaped;
use castra_core::time::Time;

use notify::Notify;
use passed::Passed;

/// What the manager tells this process alone: its children would speak in its name.
pub const VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "FDSTORE",
];

/// Between two tries to say what the manager had no room for.
const AGAIN: Duration = Duration::from_millis(100);
/// The shortest time between two signs of life, whatever the manager asks for.
const BEAT_MIN: Duration = Duration::from_millis(1);
/// Longest status, in bytes.
const STATUS_MAX: usize = 1024;

/// The command's process hears nothing of this one's manager.
pub fn hide_from(command: &mut Command) {
    for variable in VARIABLES {
        command.env_remove(variable);
    }
}

/// The environment, so that tests can choose it.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Why a manager's words make no sense. All are mistakes of whoever set it up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// A variable is not what it should be.
    #[error("{variable} is {text:?}, which makes no sense: leave it to the service manager")]
    Variable {
        /// Which.
        variable: &'static str,
        /// What it says.
        text: OsString,
    },
    /// A descriptor that was announced isn't there, or can't be used.
    #[error("can't use descriptor {number} (\"{}\") of LISTEN_FDS: {error}", Escaped(.name))]
    Descriptor {
        /// Its number.
        number: i32,
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// It is no socket on which streams can be accepted.
    #[error(
        "descriptor {number} (\"{}\") of LISTEN_FDS is not a listening stream socket of TCP, unix or vsock: \
         its socket unit needs ListenStream= and Accept=no",
        Escaped(.name)
    )]
    NotListening {
        /// Its number.
        number: i32,
        /// Its name.
        name: String,
    },
    /// The notification socket can't be spoken to.
    #[error("can't use NOTIFY_SOCKET {path:?}: {error}")]
    Notify {
        /// Where it is.
        path: OsString,
        /// Why.
        error: io::Error,
    },
}

/// A service manager, or none.
#[derive(Debug, Default)]
pub struct Supervisor {
    told: RefCell<Told>,
    passed: RefCell<Vec<Passed>>,
    /// Listeners are left in the manager's store.
    keep: bool,
}

/// What the manager knows, and what it still has to hear.
#[derive(Debug, Default)]
struct Told {
    notify: Option<Notify>,
    /// From one sign of life to the next: half of what the manager allows.
    pulse: Option<Duration>,
    /// When the next one is due; at once, first.
    due: Option<Time>,
    ready: bool,
    /// Ready from then on, whatever comes.
    ready_by: Option<Time>,
    stopping: bool,
    reloads: u32,
    status: String,
}

impl Supervisor {
    /// Nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whoever the environment speaks of. Takes over every descriptor that was passed, so
    /// call it before this process opens any, and once. `keep`: leave listeners in the
    /// manager's store.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub fn of_environment(variables: Variables<'_>, keep: bool) -> Result<Self, SupervisorError> {
        let passed = passed::take(variables)?;
        let notify = notify_socket(variables)?;
        let pulse = notify.as_ref().map(|_| watchdog(variables)).transpose()?.flatten();
        let told = Told { notify, pulse, ..Told::default() };
        Ok(Self { told: RefCell::new(told), passed: RefCell::new(passed), keep })
    }

    /// Somebody hears what is said here.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.told.borrow().notify.is_some()
    }

    /// Everything listens: whoever waited for this service may go on.
    pub fn ready(&self, status: &str) {
        let mut told = self.told.borrow_mut();
        told.ready = true;
        told.ready_by = None;
        told.status = shown(status);
        let text = format!("READY=1\nSTATUS={}", told.status);
        told.say(text);
    }

    /// Ready from `by` on, even if [`Self::ready`] was not called until then.
    pub fn ready_by(&self, by: Time) {
        let mut told = self.told.borrow_mut();
        told.ready_by = (!told.ready).then_some(by);
    }

    /// One line for people.
    pub fn status(&self, status: &str) {
        let mut told = self.told.borrow_mut();
        if !told.stopping {
            told.status = shown(status);
            let text = format!("STATUS={}", told.status);
            told.say(text);
        }
    }

    /// A reload begins. `monotonic`: that clock, now. Before it is ready it can't be ready
    /// again, so nothing is said then.
    pub(crate) fn reloading(&self, monotonic: Duration) {
        let mut told = self.told.borrow_mut();
        if !told.ready {
            return;
        }
        told.reloads = told.reloads.saturating_add(1);
        let mut text = "RELOADING=1\nMONOTONIC_USEC=".to_owned();
        // A String takes everything.
        let _ = write!(text, "{}", monotonic.as_micros());
        told.say(text);
    }

    /// One of them is over.
    pub(crate) fn reloaded(&self, well: bool) {
        let mut told = self.told.borrow_mut();
        if told.reloads == 0 {
            return;
        }
        told.reloads -= 1;
        if told.reloads == 0 && !told.stopping {
            let failed = if well { "" } else { " (the last reload failed: see the log)" };
            let text = format!("READY=1\nSTATUS={}{failed}", told.status);
            told.say(text);
        }
    }

    /// It takes leave. Said once.
    pub(crate) fn stopping(&self) {
        let mut told = self.told.borrow_mut();
        if !std::mem::replace(&mut told.stopping, true) {
            told.ready_by = None;
            told.say("STOPPING=1\nSTATUS=taking leave".to_owned());
        }
    }

    /// For the loop, once a turn, and so a sign that it turns: says what is due, and when
    /// to come again at the latest.
    pub(crate) fn beat(&self, now: Time) -> Option<Time> {
        let mut told = self.told.borrow_mut();
        if told.ready_by.is_some_and(|by| by <= now) {
            told.ready = true;
            told.ready_by = None;
            told.say("READY=1".to_owned());
        }
        let told = &mut *told;
        let notify = told.notify.as_mut()?;
        let mut next = told.ready_by;
        if !notify.flush() {
            next = earlier(next, now + AGAIN);
        }
        if let Some(pulse) = told.pulse {
            let mut due = told.due.unwrap_or(now);
            if due <= now {
                due = now + if notify.now("WATCHDOG=1") { pulse } else { AGAIN.min(pulse) };
            }
            told.due = Some(due);
            next = earlier(next, due);
        }
        next
    }
}

impl Told {
    fn say(&mut self, text: String) {
        if let Some(notify) = &mut self.notify {
            notify.say(text, None);
        }
    }
}

fn earlier(one: Option<Time>, other: Time) -> Option<Time> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// On one line, and not long.
fn shown(text: &str) -> String {
    let mut text = Escaped(text).to_string();
    text.truncate(STATUS_MAX);
    text
}

fn notify_socket(variables: Variables<'_>) -> Result<Option<Notify>, SupervisorError> {
    let Some(path) = variables("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return Ok(None) };
    Notify::open(&path).map(Some).map_err(|error| SupervisorError::Notify { path, error })
}

/// Half of what the manager allows, if it watches this process.
fn watchdog(variables: Variables<'_>) -> Result<Option<Duration>, SupervisorError> {
    let Some(allowed) = number("WATCHDOG_USEC", variables)? else { return Ok(None) };
    let whom = number("WATCHDOG_PID", variables)?;
    let ours = whom.is_none_or(|pid| pid == u64::from(std::process::id()));
    Ok((ours && allowed > 0).then(|| (Duration::from_micros(allowed) / 2).max(BEAT_MIN)))
}

fn number(variable: &'static str, variables: Variables<'_>) -> Result<Option<u64>, SupervisorError> {
    let Some(text) = variables(variable).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(SupervisorError::Variable { variable, text }),
    }
}
