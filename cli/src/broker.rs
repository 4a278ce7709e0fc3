//! `castra broker`: the command line as the driver wants it.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use castra_core::attach::ManagerSettings;
use castra_core::config::{BrokerConfig, Identity};
use castra_core::peers::{PeerSettings, TEXT_MAX};
use castra_driver::config_file::{CONFIG_FILE, Settings as Reread};
use castra_driver::supervisor::Supervisor;
use rustix::process::{
    DumpableBehavior, Pid, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal, setsid,
};
use serde_json::json;

use crate::broker_args::{Broker, Child, Settings};
use crate::config::settings;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Out, printable, say};
use crate::paths::Surroundings;
use crate::run::broker::{BrokerOptions, Serving};
use crate::size;
use crate::{Context, term};

/// castra 0.1's port.
const PORT: u16 = 7070;

pub(crate) fn run(cx: &mut Context, args: &Broker) -> Outcome {
    if cx.global.socket.is_some() {
        return Err(Failure::usage(
            "a broker's control socket is control.sock in its state directory: use --state-dir instead of --socket",
        ));
    }
    let keep = args.settings.keep_listeners;
    // In the background it is nobody's service.
    let supervisor = if args.child.background { Supervisor::none() } else { crate::run::supervisor(keep)? };
    let state_dir = state_dir(&args.settings, cx.global.state_dir.as_deref())?;
    let mut options = options(&args.settings, state_dir, !args.child.background)?;
    let said_where = !args.settings.listen.is_empty() || args.settings.port.is_some();
    if !said_where && supervisor.passed_links() {
        options.listen.clear();
    }
    if keep && !supervisor.listens() {
        say("warning: no service manager is there to keep the listeners (NOTIFY_SOCKET is not set)");
    }
    let line = cx.layers.line.clone();
    options.settings = Some(Reread(Arc::new(move |file| {
        let variables = |name: &str| std::env::var_os(name);
        let told = settings(&line, &variables, Path::new(CONFIG_FILE), file)?;
        config(&told).map_err(|failure| failure.message)
    })));
    options.record.clone_from(&args.record);
    args.child.apply()?;
    keep_memory_private();
    crate::run::broker::run(options, &supervisor, |serving| ready(&mut cx.out, serving, args.json))?;
    Ok(Exit::Yes)
}

impl Child {
    /// Does what the parent asked for.
    pub(crate) fn apply(self) -> Result<(), Failure> {
        if self.background {
            // Fails only for who leads a session already: then there is nothing to leave.
            let _ = setsid();
            close_inherited();
        }
        if let Some(parent) = self.die_with_parent {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|error| Failure::io("can't ask to end with the parent", &error.into()))?;
            // It may have ended before the kernel was asked.
            if getppid() != Pid::from_raw(parent) {
                return Err(Failure::new(Exit::No, "the parent is gone"));
            }
        }
        Ok(())
    }
}

/// Keeps what this process knows to itself: no core dump is written of it, and other
/// processes of this user can neither trace it nor read its memory, descriptors or
/// environment (root can). Programs that it starts are as they would be without it.
/// `CASTRA_DUMPABLE=1` leaves it out, for who debugs castra.
pub(crate) fn keep_memory_private() {
    if std::env::var_os("CASTRA_DUMPABLE").is_none_or(|value| value != "1") {
        // A kernel that refuses leaves everything as it was: nothing is lost by going on.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Whoever called `castra up` may have had more than the three standard
/// descriptors open for its children: a lock, or a pipe whose end somebody waits
/// for. A broker must not hold them for the rest of its life.
pub(crate) fn close_inherited() {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // This process has opened none yet; the one that listed them is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Becomes a guest's start command, which outlives the broker that ran this.
pub(crate) fn start_command(command: &OsStr) -> Failure {
    // Fails only for who leads a session already: then there is nothing to leave.
    let _ = setsid();
    let error = std::process::Command::new("/bin/sh").arg("-c").arg(command).exec();
    Failure::io("can't run /bin/sh", &error)
}

/// castra 0.1's form keeps its state beside the pidfile.
pub(crate) fn state_dir(settings: &Settings, given: Option<&Path>) -> Result<PathBuf, Failure> {
    match (given, &settings.pidfile) {
        (None, Some(pidfile)) => {
            let folder = pidfile.parent().filter(|folder| !folder.as_os_str().is_empty());
            Ok(folder.unwrap_or(Path::new(".")).to_path_buf())
        }
        _ => Ok(Surroundings::real().state_dir(given)?),
    }
}

/// Checked options for the driver.
pub(crate) fn options(settings: &Settings, state_dir: PathBuf, echo: bool) -> Result<BrokerOptions, Failure> {
    let config = config(settings)?;
    let mut listen = settings.listen.clone();
    if listen.is_empty() {
        let port = settings.port.unwrap_or(PORT);
        let address = format!("tcp:127.0.0.1:{port}");
        listen.push(address.parse().map_err(|error| Failure::usage(format!("{address}: {error}")))?);
    }
    let log = state_dir.join("logs/terminals.log");
    let socket = state_dir.join(term::serve::SOCKET);
    Ok(BrokerOptions {
        config,
        terminals: term::serve::beside_it(settings.hosted, socket, Some(log)),
        state_dir,
        listen,
        manager: settings.manager.manager,
        pidfile: settings.pidfile.clone(),
        logfile: settings.logfile.clone(),
        handshake_dir: settings.handshake_dir.clone(),
        config_file: settings.config.clone(),
        settings: None,
        on_change: settings.on_change.clone(),
        metrics: settings.metrics.options(),
        // This program, also when its file was replaced since.
        launcher: vec!["/proc/self/exe".into(), "start-command".into(), "--".into()],
        echo,
        record: None,
    })
}

/// The protocol's side of it, checked.
fn config(settings: &Settings) -> Result<BrokerConfig, Failure> {
    let config = BrokerConfig {
        window: settings.window,
        interval: settings.interval,
        handshake_timeout: settings.handshake_timeout,
        require_token: settings.require_token,
        accept_unproven: settings.accept_unproven,
        only_known: settings.only_known,
        guests: settings.guests.clone(),
        max_guests: usize::try_from(settings.max_guests).unwrap_or(usize::MAX),
        peers: PeerSettings {
            queue_messages: usize::try_from(settings.queue_messages).unwrap_or(usize::MAX),
            queue_bytes: settings.queue_bytes,
            message_ttl: settings.message_ttl,
            ..PeerSettings::default()
        },
        manager: ManagerSettings {
            advertise: settings.manager.advertise.clone(),
            ..ManagerSettings::default()
        },
        // The driver fills in the rest.
        identity: Identity { version: env!("CARGO_PKG_VERSION").into(), ..Identity::default() },
        #[cfg(feature = "planted")]
        planted: crate::planted::bug(),
        ..BrokerConfig::default()
    };
    config.check().map_err(|error| Failure::usage(error.to_string()))?;
    let most = config.peers.mail_bytes_max;
    if !(TEXT_MAX..=most).contains(&config.peers.queue_bytes) {
        return Err(Failure::usage(format!(
            "--queue-bytes must be between {} and {}, not {}",
            size::format(TEXT_MAX),
            size::format(most),
            size::format(settings.queue_bytes)
        )));
    }
    Ok(config)
}

/// Says where it serves: the first line of standard output.
fn ready(out: &mut Out, serving: &Serving, json: bool) {
    let text = if json {
        document(serving).to_string()
    } else {
        printable(&format!(
            "serving on {} (control {}, pid {})",
            serving.listen.join(" "),
            serving.control.display(),
            serving.pid
        ))
    };
    // A broker serves whether or not somebody reads this.
    let _ = out.line(&text);
    for warning in &serving.warnings {
        say(format_args!("warning: {warning}"));
    }
}

fn document(serving: &Serving) -> serde_json::Value {
    json!({
        "ready": true,
        "listen": serving.listen,
        "control": serving.control.display().to_string(),
        "pid": serving.pid,
        // With its real port, for whoever asked for any free one.
        "manager": serving
            .listen
            .iter()
            .find(|address| address.starts_with("http://") && Some(*address) != serving.metrics.as_ref()),
        "metrics": serving.metrics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parse(args: &[&str]) -> Settings {
        let line = ["castra", "broker"].iter().chain(args);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Broker(broker) => broker.settings,
            other => panic!("not a broker: {other:?}"),
        }
    }

    #[test]
    fn a_window_under_three_intervals_is_refused_with_the_rule() {
        let settings = parse(&["--window", "14s"]);
        let failure = options(&settings, "/s".into(), true).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("three intervals"), "{}", failure.message);
    }

    #[test]
    fn bounds_of_the_mail_that_make_no_sense_are_refused_with_the_rule() {
        for (args, rule) in [
            (["--queue-bytes", "32767"], "between 32KiB and 256MiB, not 32767"),
            (["--queue-bytes", "1GiB"], "between 32KiB and 256MiB, not 1GiB"),
            (["--message-ttl", "8d"], "message ttl must be between"),
        ] {
            let failure = options(&parse(&args), "/s".into(), true).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(rule), "{}", failure.message);
        }
    }

    #[test]
    fn the_old_form_means_loopback_and_a_state_directory_beside_the_pidfile() {
        let settings = parse(&["--port", "7171", "--pidfile", "/s/broker.pid"]);
        let dir = state_dir(&settings, None).unwrap();
        assert_eq!(dir, Path::new("/s"));
        let options = options(&settings, dir, true).unwrap();
        assert_eq!(options.listen[0].to_string(), "tcp:127.0.0.1:7171");
        assert_eq!(state_dir(&settings, Some(Path::new("/d"))).unwrap(), Path::new("/d"));
    }
}
