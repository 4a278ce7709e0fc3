//! `castra config`: what a broker would be set to, and who says so.

mod layers;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use castra_driver::config_file::{CONFIG_FILE, ConfigFile};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::Json;
use crate::broker_args::Settings;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, say};
use crate::paths::Surroundings;
use crate::{Context, broker, help};

pub(crate) use layers::{Layers, LayersError, Setting, Source, read, read_again, variable};

#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    /// Every setting of a broker, its value, and where that comes from
    #[command(long_about = help::CONFIG_SHOW)]
    Show(Box<Show>),
    /// Read a configuration file as a broker would, and say what is wrong with it
    #[command(long_about = help::CONFIG_CHECK)]
    Check(Check),
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Json,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Which [default: castra.toml in the state directory]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) fn run(cx: &mut Context, config: &Config) -> Outcome {
    match config {
        Config::Show(args) => show(cx, args),
        Config::Check(args) => check(cx, args),
    }
}

fn show(cx: &mut Context, args: &Show) -> Outcome {
    let state_dir = broker::state_dir(&args.settings, cx.global.state_dir.as_deref())?;
    let checked = broker::options(&args.settings, state_dir, false);
    let settings = cx.layers.settings.clone();
    if args.format.json {
        cx.out.line(&document(&settings).to_string())?;
    } else {
        for line in table(&settings) {
            cx.out.line(&line)?;
        }
    }
    // Shown all the same: it is what somebody looks for who was refused.
    checked.map(|_| Exit::Yes)
}

/// As JSON.
pub(crate) fn document(settings: &[Setting]) -> Value {
    let rows: Vec<Value> = settings.iter().map(row).collect();
    json!({"schema": 1, "settings": rows})
}

fn row(setting: &Setting) -> Value {
    let (file, line) = match &setting.source {
        Source::File { path, line } => (Some(path.display().to_string()), Some(line)),
        _ => (None, None),
    };
    let source = match &setting.source {
        Source::Flag => "flag",
        Source::Variable(_) => "environment",
        Source::File { .. } => "file",
        Source::Default => "default",
    };
    json!({"name": setting.name, "values": setting.values, "source": source, "file": file, "line": line,
        "variable": variable(&setting.name)})
}

fn table(settings: &[Setting]) -> Vec<String> {
    let value = |setting: &Setting| match setting.values.join(" ") {
        text if text.is_empty() => "-".to_owned(),
        text => printable(&text),
    };
    let width = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0);
    let first = width(&mut settings.iter().map(|setting| setting.name.len()).chain([7]));
    let second = width(&mut settings.iter().map(|setting| value(setting).len()).chain([5]));
    let line = |name: &str, value: &str, from: &str| format!("{name:first$}   {value:second$}   {from}");
    let rows = settings
        .iter()
        .map(|setting| line(&setting.name, &value(setting), &printable(&setting.source.to_string())));
    [line("SETTING", "VALUE", "FROM")].into_iter().chain(rows).collect()
}

fn check(cx: &Context, args: &Check) -> Outcome {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => Surroundings::real().state_dir(cx.global.state_dir.as_deref())?.join(CONFIG_FILE),
    };
    if args.file.is_none() && !path.exists() {
        say(format_args!(
            "there is no {}, and no need for one: flags, variables and defaults count (`castra config show`)",
            path.display()
        ));
        return Ok(Exit::Yes);
    }
    let file = ConfigFile::read(&path, true).map_err(|error| Failure::usage(error.to_string()))?;
    let settings = settings(&["castra".into(), "broker".into()], &|_| None, &path, &file);
    let settings = settings.map_err(Failure::usage)?;
    broker::options(&settings, "/".into(), false)?;
    let (count, guests) = (file.broker.len(), file.guests.len());
    say(format_args!("{} makes sense: {count} settings, {guests} guests", path.display()));
    Ok(Exit::Yes)
}

/// What a broker's command line and a file add up to.
pub(crate) fn settings(
    line: &[std::ffi::OsString],
    variables: &dyn Fn(&str) -> Option<std::ffi::OsString>,
    path: &std::path::Path,
    file: &ConfigFile,
) -> Result<Settings, String> {
    match read_again(line, variables, path, file)?.command {
        crate::args::Command::Broker(broker) => Ok(broker.settings),
        _ => Err("not a broker's command line".into()),
    }
}
