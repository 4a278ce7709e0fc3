//! `castra support-bundle`: everything that somebody who helps asks for, in one file, without secrets.

mod archive;
mod gather;
mod redact;

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use castra_driver::config_file::ConfigFile;
use clap::Args;

use archive::Bundle;
use gather::Gathering;
use redact::Redaction;

use crate::Context;
use crate::client::shown;
use crate::config::{self, LayersError, Setting};
use crate::exit::{Exit, Failure, Outcome};
use crate::offline::wall_now;
use crate::output::say;
use crate::paths::Place;

/// Default of `--timeout`, for each question.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) const HELP: &str = "\
Collect what somebody who helps you asks for: versions, what `castra doctor` finds, the broker's \
settings and status, the newest events and log lines, names, modes and sizes of its files, the \
system and its limits. Works without a broker, too, and says in MANIFEST.json what is in it and \
what is not.

Never in it: keys, tokens, codes, the database, what guests tell each other, what terminals show, \
commands and what they print. Everything goes through one step that replaces what looks like a \
secret; names of guests and addresses stay, so look at it before you give it away.

The file is yours alone (mode 0600), and none is overwritten. Its name is printed. --timeout \
(default 2s) bounds each question.

Examples:
  castra support-bundle
  castra support-bundle --out - | tar tzv
  castra support-bundle --out bundle.tar.gz --last 5000";

#[derive(Args, Debug)]
pub(crate) struct SupportBundle {
    /// Where to; - is standard output [default: castra-support-DATE.tar.gz here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Most events and most log lines
    #[arg(long, value_name = "N", default_value = "1000")]
    last: usize,
}

pub(crate) fn run(cx: &mut Context, args: &SupportBundle) -> Outcome {
    let place = cx.place()?;
    let to_stdout = args.out.as_deref() == Some(Path::new("-"));
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage("a bundle is no text for a terminal: give --out FILE, or pipe it on"));
    }
    let path = args.out.clone().unwrap_or_else(name);
    // Before anything is looked at: whoever can't write need not wait.
    let file = if to_stdout { None } else { Some(create(&path)?) };
    let bundle = gathered(&place, cx.timeout(TIMEOUT), args.last);
    let written = match &file {
        Some(file) => bundle.write(file).and_then(|()| file.sync_all()),
        None => bundle.write(io::stdout().lock()),
    };
    if let Err(error) = written {
        if file.is_some() {
            // Half a bundle helps nobody.
            let _ = fs::remove_file(&path);
        }
        return Err(Failure::io(format_args!("can't write {}", shown(&path)), &error));
    }
    if file.is_some() {
        say("look at it before you give it away: names of guests and addresses are in it");
        cx.out.line(&shown(&path))?;
    }
    Ok(Exit::Yes)
}

fn gathered(place: &Place, bound: Duration, last: usize) -> Bundle {
    let (settings, starts) = settings(place);
    let known = gather::known(settings.as_deref().ok(), &starts);
    let mut bundle = Bundle::new(Redaction::new(known));
    Gathering { place, bound, last, settings }.into(&mut bundle);
    bundle
}

/// What a broker would be set to that is started here, and the start commands of its guests.
fn settings(place: &Place) -> (Result<Vec<Setting>, String>, Vec<String>) {
    let dir = place.state_dir.clone().into_os_string();
    let line: Vec<OsString> =
        vec!["castra".into(), "--state-dir".into(), dir, "config".into(), "show".into()];
    let settings = match config::read(line, &|name| std::env::var_os(name)) {
        Ok((_, layers)) => Ok(layers.settings),
        Err(LayersError::Line(error)) => Err(error.to_string()),
        Err(LayersError::Elsewhere(failure)) => Err(failure.to_string()),
    };
    let file = std::env::var_os("CASTRA_CONFIG")
        .map_or_else(|| place.state_dir.join(castra_driver::config_file::CONFIG_FILE), PathBuf::from);
    let file = ConfigFile::read(&file, false).unwrap_or_default();
    (settings, file.starts().map(|(_, command)| command.clone()).collect())
}

fn name() -> PathBuf {
    let at: String = wall_now().to_string().chars().filter(char::is_ascii_digit).take(14).collect();
    format!("castra-support-{at}.tar.gz").into()
}

fn create(path: &Path) -> Result<fs::File, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} exists, and is not overwritten: choose another name", shown(path)))
        }
        _ => Failure::io(format_args!("can't write {}", shown(path)), &error),
    })
}
