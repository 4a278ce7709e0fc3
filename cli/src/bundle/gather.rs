//! What a bundle is made of. Whatever can't be had is said to be left out, and why.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use castra_core::control::reply::Info;
use clap::CommandFactory;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::archive::Bundle;
use super::redact::MARK;
use crate::args::Cli;
use crate::client::{self, shown};
use crate::config::{self, Setting};
use crate::doctor::{self, Facts};
use crate::logs;
use crate::output::{printable, say};
use crate::paths::Place;

/// How deep a state directory is listed, and how many entries.
const DEPTH_MAX: usize = 4;
const ENTRIES_MAX: usize = 5000;

/// A part of the kernel's word that is longer is cut.
const PROC_MAX: usize = 64 * 1024;

/// Variables that may be shown, beside those of settings. All others that begin with
/// `CASTRA_` are named without their values.
const SHOWN: [&str; 9] = [
    "CASTRA_STATE_DIR",
    "CASTRA_AGENT_SOCKET",
    "CASTRA_CONFIG",
    "CASTRA_TRACE",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "TERM",
    "NO_COLOR",
    "LANG",
];

/// What was looked at, so that it is looked at once.
pub(super) struct Gathering<'a> {
    pub(super) place: &'a Place,
    /// Of each question.
    pub(super) bound: Duration,
    /// Most events and lines.
    pub(super) last: usize,
    /// A broker's, as this process would start it; none: why not.
    pub(super) settings: Result<Vec<Setting>, String>,
}

impl Gathering<'_> {
    pub(super) fn into(self, bundle: &mut Bundle) {
        say("looking at the broker");
        bundle.add("version.json", "this program, and the formats it speaks", &crate::version::json());
        let info = self.answers(bundle);
        say("looking for what is wrong");
        let report = doctor::report(&Facts::gather(self.place, self.bound));
        add_json(bundle, "doctor.json", "what `castra doctor` finds", &report);
        self.events(bundle, info.is_some());
        self.log(bundle);
        say("looking at settings, files and limits");
        self.config(bundle);
        self.listing(bundle);
        self.machine(bundle, info.map(|info| info.pid));
        for (what, why) in [
            (
                "the content of state.redb, keyed-names, tokens and traces",
                "they hold keys; files.txt has their sizes",
            ),
            ("logs/start-*.log and logs/on-change.log", "what commands print may be anything"),
            ("castra.toml itself", "config.json has its settings; commands in it may hold passwords"),
            (
                "messages of peers, what terminals show, the command lines of processes",
                "they are nobody's business",
            ),
        ] {
            bundle.leave_out(what, why);
        }
    }

    fn answers(&self, bundle: &mut Bundle) -> Option<Info> {
        let mut info = None;
        for (method, name, what) in [
            ("info", "info.json", "who answers, and its settings in force"),
            ("status", "status.json", "every guest, and its verdict"),
        ] {
            match client::ask(&self.place.socket, method, json!({}), self.bound) {
                Ok(reply) => {
                    add_json(bundle, name, what, &reply.data);
                    info = info.or_else(|| reply.parse().ok());
                }
                Err(error) => bundle.leave_out(name, &error.to_string()),
            }
        }
        info
    }

    /// From the broker, which knows the newest; else from its file.
    fn events(&self, bundle: &mut Bundle, serving: bool) {
        #[derive(Deserialize)]
        struct Kept {
            events: Vec<Box<RawValue>>,
        }
        say("reading events and the log");
        let asked = serving.then(|| client::ask(&self.place.socket, "events", json!({}), self.bound));
        let kept = asked.and_then(|answer| answer.and_then(|reply| reply.parse::<Kept>()).ok());
        if let Some(Kept { events }) = kept {
            let from = events.len().saturating_sub(self.last);
            let lines: Vec<&str> = events[from..].iter().map(|event| event.get()).collect();
            return bundle.add(
                "events.jsonl",
                "the newest events, as the broker has them",
                &lines.join("\n"),
            );
        }
        self.tail(bundle, "logs/events.jsonl", "events.jsonl", "the newest events, from the file");
    }

    fn log(&self, bundle: &mut Bundle) {
        self.tail(bundle, "logs/broker.log", "broker.log", "the end of the log");
    }

    fn tail(&self, bundle: &mut Bundle, path: &str, name: &str, what: &'static str) {
        let path = self.place.state_dir.join(path);
        // Neither somebody else's file by way of a link, nor a pipe that never ends.
        for file in logs::files(&path) {
            match fs::symlink_metadata(&file) {
                Ok(meta) if !meta.is_file() => {
                    return bundle.leave_out(name, &format!("{} is no ordinary file", shown(&file)));
                }
                Ok(_) => {}
                Err(error) => return bundle.leave_out(name, &format!("{}: {error}", shown(&file))),
            }
        }
        match logs::last(&path, self.last) {
            Ok(lines) => bundle.add(name, what, &lines.join("\n")),
            Err(failure) => bundle.leave_out(name, &failure.to_string()),
        }
    }

    fn config(&self, bundle: &mut Bundle) {
        let settings = match &self.settings {
            Ok(settings) => settings,
            Err(why) => return bundle.leave_out("config.json", why),
        };
        let mut settings = settings.clone();
        let commands = command_settings();
        for setting in settings.iter_mut().filter(|setting| commands.contains(&setting.name)) {
            setting.values.iter_mut().for_each(|value| *value = MARK.into());
        }
        let document = config::document(&settings);
        add_json(bundle, "config.json", "as `castra config show --json`; commands are left out", &document);
    }

    fn listing(&self, bundle: &mut Bundle) {
        let mut lines =
            String::from("mode   owner:group bytes modified path (relative to the state directory)\n");
        let mut left = ENTRIES_MAX;
        list(&self.place.state_dir, &self.place.state_dir, DEPTH_MAX, &mut left, &mut lines);
        if left == 0 {
            let _ = writeln!(lines, "… and more than these {ENTRIES_MAX}");
        }
        bundle.add("files.txt", "names, modes and sizes in the state directory; no contents", &lines);
    }

    fn machine(&self, bundle: &mut Bundle, broker: Option<u32>) {
        let mut text = String::new();
        for path in ["/proc/version", "/proc/uptime", "/proc/loadavg", "/etc/os-release"] {
            let _ = writeln!(text, "== {path}\n{}", read(path));
        }
        bundle.add("machine.txt", "the kernel and the system; no host name", &text);
        let mut text = format!("== this process\n{}\n", read("/proc/self/limits"));
        if let Some(pid) = broker {
            let _ = writeln!(text, "== the broker ({pid})\n{}", read(&format!("/proc/{pid}/limits")));
            let _ = writeln!(text, "{}", read(&format!("/proc/{pid}/status")));
        }
        bundle.add("limits.txt", "limits of this process and the broker's; what the broker uses", &text);
        bundle.add("environment.txt", "this process's; values only where none is a secret", &environment());
    }
}

fn add_json(bundle: &mut Bundle, name: &str, what: &'static str, document: &impl serde::Serialize) {
    match serde_json::to_value(document) {
        Ok(value) => bundle.add(name, what, &format!("{value:#}")),
        Err(error) => bundle.leave_out(name, &error.to_string()),
    }
}

/// Settings whose values are commands: they may hold anything.
pub(super) fn command_settings() -> Vec<String> {
    let root = Cli::command();
    let broker = root.find_subcommand("broker").into_iter().flat_map(clap::Command::get_arguments);
    let is_command = |arg: &&clap::Arg| {
        arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "COMMAND"))
    };
    broker.filter(is_command).filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

fn list(root: &Path, folder: &Path, depth: usize, left: &mut usize, lines: &mut String) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let _ = writeln!(lines, "{}: {error}", shown(folder));
            return;
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).take(*left).collect();
    paths.sort();
    for path in paths {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if *left == 0 {
            return;
        }
        *left -= 1;
        let name = path.strip_prefix(root).unwrap_or(&path);
        let _ = writeln!(
            lines,
            "{:06o} {}:{} {} {} {}{}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.len(),
            meta.mtime(),
            shown(name),
            if meta.is_symlink() { " (a link)" } else { "" }
        );
        if meta.is_dir() && depth > 1 {
            list(root, &path, depth - 1, left, lines);
        }
    }
}

fn environment() -> String {
    let root = Cli::command();
    let of = |name: &str| root.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    let commands = command_settings();
    let settings: Vec<String> = of("broker")
        .chain(of("agent"))
        .filter_map(clap::Arg::get_long)
        .filter(|name| !commands.iter().any(|command| command == name))
        .map(config::variable)
        .collect();
    let mut lines: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let (name, value) = (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned());
            let may = SHOWN.contains(&name.as_str()) || settings.contains(&name);
            match may {
                true => Some(printable(&format!("{name}={value}"))),
                false => name.starts_with("CASTRA_").then(|| printable(&format!("{name} (set; not shown)"))),
            }
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

/// A file of the kernel, or why it can't be read.
fn read(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(PROC_MAX)]).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// Secrets that this process can see: they are replaced wherever they are.
pub(super) fn known(settings: Option<&[Setting]>, starts: &[String]) -> Vec<String> {
    let secret = |name: &str| {
        let upper = name.to_uppercase();
        ["TOKEN", "PASS", "SECRET", "CREDENTIAL", "API_KEY"].iter().any(|word| upper.contains(word))
    };
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_string_lossy().into_owned();
        // Where secrets are is none.
        let place = name.ends_with("_FILE") || name.ends_with("_DIRECTORY") || name.ends_with("_DIR");
        (secret(&name) && !place).then(|| value.to_string_lossy().into_owned())
    });
    let commands = command_settings();
    let commands = settings
        .into_iter()
        .flatten()
        .filter(|setting| commands.contains(&setting.name))
        .flat_map(|setting| setting.values.clone());
    variables.chain(commands).chain(starts.iter().cloned()).collect()
}
