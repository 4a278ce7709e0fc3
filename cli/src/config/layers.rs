//! Where each setting comes from: a flag, else a variable, else the file, else the default.
//!
//! What is not on the command line becomes the default of its option, so that one
//! parser judges a value wherever it was written.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use castra_driver::config_file::{CONFIG_FILE, ConfigFile, Setting as InFile};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::exit::Failure;
use crate::output::printable;
use crate::paths::Surroundings;

/// The environment, so that tests can choose it.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Commands whose options may be written elsewhere. Only the first reads the file's `[broker]`.
const LAYERED: [&[&str]; 4] = [&["broker"], &["up"], &["config", "show"], &["agent"]];
const OF_BROKERS: usize = 3;

/// Options that are said anew each time: no settings.
const NO_SETTINGS: [&str; 6] = ["json", "record", "config", "once", "exec", "help"];

/// Who said so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Flag,
    Variable(String),
    File { path: PathBuf, line: usize },
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One setting: the option's name, its values (none: it has no value), and who said so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
    pub(crate) source: Source,
}

/// The command line with everything below it.
#[derive(Debug)]
pub(crate) struct Layers {
    pub(crate) settings: Vec<Setting>,
    /// Settings that were given as flags, as flags.
    pub(crate) given: Vec<OsString>,
    /// As it was typed.
    pub(crate) line: Vec<OsString>,
}

/// Why there is no command line.
#[derive(Debug)]
pub(crate) enum LayersError {
    /// For clap to say; also help and version.
    Line(clap::Error),
    Elsewhere(Failure),
}

impl From<clap::Error> for LayersError {
    fn from(error: clap::Error) -> Self {
        Self::Line(error)
    }
}

impl From<Failure> for LayersError {
    fn from(failure: Failure) -> Self {
        Self::Elsewhere(failure)
    }
}

/// Reads a command line, and whatever it leaves open.
pub(crate) fn read(line: Vec<OsString>, variables: Variables<'_>) -> Result<(Cli, Layers), LayersError> {
    let Some((path, first)) = layered(&line) else {
        let cli = Cli::from_arg_matches(&Cli::command().try_get_matches_from(&line)?)?;
        return Ok((cli, Layers { settings: vec![], given: vec![], line }));
    };
    let first = innermost(&first, path);
    let file = match LAYERED[..OF_BROKERS].contains(&path) {
        true => read_file(first, variables)?,
        false => None,
    };
    let file = file.as_ref().map(|(path, file)| (path.as_path(), file));
    let (cli, settings) = parse(&line, path, first, variables, file)?;
    let given = given(path, first);
    Ok((cli, Layers { settings, given, line }))
}

/// The same line, with what the file says by now.
pub(crate) fn read_again(
    line: &[OsString],
    variables: Variables<'_>,
    path: &Path,
    file: &ConfigFile,
) -> Result<Cli, String> {
    let Some((command, first)) = layered(line) else { return Err("not a broker's command line".into()) };
    match parse(line, command, innermost(&first, command), variables, Some((path, file))) {
        Ok((cli, _)) => Ok(cli),
        Err(LayersError::Line(error)) => Err(first_line(&error)),
        Err(LayersError::Elsewhere(failure)) => Err(failure.message),
    }
}

/// Which of [`LAYERED`] the line is, and what it says itself.
fn layered(line: &[OsString]) -> Option<(&'static [&'static str], ArgMatches)> {
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(line).ok()?;
    LAYERED.into_iter().find_map(|path| {
        let mut at = &matches;
        for name in path {
            at = at.subcommand_matches(name)?;
        }
        Some((path, matches.clone()))
    })
}

fn innermost<'a>(matches: &'a ArgMatches, path: &[&str]) -> &'a ArgMatches {
    path.iter().fold(matches, |at, name| at.subcommand_matches(name).unwrap_or(at))
}

fn command_at<'a>(root: &'a Command, path: &[&str]) -> &'a Command {
    path.iter().fold(root, |at, name| at.find_subcommand(name).unwrap_or(at))
}

/// Its settings: options that are shown, that no other command has, and that last.
fn settings_of(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let old = arg.get_help_heading().is_some_and(|heading| heading.contains("0.1"));
        let name = arg.get_long().unwrap_or_default();
        !name.is_empty() && !old && !arg.is_hide_set() && !arg.is_global_set() && !NO_SETTINGS.contains(&name)
    })
}

fn parse(
    line: &[OsString],
    path: &[&str],
    first: &ArgMatches,
    variables: Variables<'_>,
    file: Option<(&Path, &ConfigFile)>,
) -> Result<(Cli, Vec<Setting>), LayersError> {
    let mut root = Cli::command();
    let command = command_at(&root, path).clone();
    if let Some((path, file)) = file {
        unknown(&command, path, file)?;
    }
    let mut settings = Vec::new();
    for arg in settings_of(&command) {
        let setting = setting(arg, first, variables, file)?;
        if matches!(setting.source, Source::Variable(_) | Source::File { .. }) {
            let id = arg.get_id().clone();
            let values = setting.values.clone();
            root = changed(root, path, move |command| {
                command.mut_arg(&id, |arg| arg.required(false).default_values(values))
            });
        }
        settings.push(setting);
    }
    if let (Some(config), None) =
        (variables("CASTRA_CONFIG"), first.try_get_one::<PathBuf>("config").ok().flatten())
        && file.is_some()
    {
        root = changed(root, path, |command| command.mut_arg("config", |arg| arg.default_value(config)));
    }
    let cli = Cli::from_arg_matches(&root.try_get_matches_from(line)?)?;
    Ok((cli, settings))
}

fn changed(root: Command, path: &[&str], change: impl FnOnce(Command) -> Command) -> Command {
    match path {
        [] => change(root),
        [name, rest @ ..] => root.mut_subcommand(name, |sub| changed(sub, rest, change)),
    }
}

fn setting(
    arg: &Arg,
    first: &ArgMatches,
    variables: Variables<'_>,
    file: Option<(&Path, &ConfigFile)>,
) -> Result<Setting, Failure> {
    let name = arg.get_long().unwrap_or_default().to_owned();
    let id = arg.get_id().as_str();
    if first.value_source(id) == Some(ValueSource::CommandLine) {
        let raw = first.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        return Ok(Setting { name, values: raw.collect(), source: Source::Flag });
    }
    let variable = variable(&name);
    if let Some(text) = variables(&variable).filter(|text| !text.is_empty()) {
        let text = text.into_string().map_err(|_| Failure::usage(format!("{variable} is not UTF-8")))?;
        let values: Vec<String> = match arg.get_action() {
            ArgAction::Append => text.split_whitespace().map(str::to_owned).collect(),
            _ => vec![text],
        };
        judge(arg, &values).map_err(|what| Failure::usage(format!("{variable}: {what}")))?;
        return Ok(Setting { name, values, source: Source::Variable(variable) });
    }
    if let Some((path, InFile { values, line })) =
        file.and_then(|(path, file)| Some((path, file.broker.get(&name)?)))
        && !overruled(&name, first)
    {
        let source = Source::File { path: path.to_owned(), line: *line };
        judge(arg, values).map_err(|what| Failure::usage(printable(&format!("{source}: {what}"))))?;
        return Ok(Setting { name, values: values.clone(), source });
    }
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    Ok(Setting { name, values, source: Source::Default })
}

/// castra 0.1's `--port` says where to listen, too.
fn overruled(name: &str, first: &ArgMatches) -> bool {
    name == "listen" && first.try_contains_id("port").unwrap_or(false) && first.contains_id("port")
}

/// `--require-token` is `CASTRA_REQUIRE_TOKEN`.
pub(crate) fn variable(name: &str) -> String {
    format!("CASTRA_{}", name.to_uppercase().replace('-', "_"))
}

/// Whether the option would take these values.
fn judge(arg: &Arg, values: &[String]) -> Result<(), String> {
    let name = arg.get_long().unwrap_or_default().to_owned();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match values {
            [word] if word == "true" || word == "false" => Ok(()),
            _ => Err(format!("`{name}` is true or false, not '{}'", values.join(" "))),
        };
    }
    if !matches!(arg.get_action(), ArgAction::Append) && values.len() != 1 {
        return Err(format!("`{name}` is one value, not {}", values.len()));
    }
    let alone = Arg::new("value")
        .long(name)
        .value_name(arg.get_value_names().and_then(|names| names.first()).cloned().unwrap_or_default())
        .value_parser(arg.get_value_parser().clone())
        .action(ArgAction::Append);
    let line = values.iter().map(|value| format!("--{}={value}", arg.get_long().unwrap_or_default()));
    let alone = Command::new("castra").no_binary_name(true).arg(alone).try_get_matches_from(line);
    alone.map(|_| ()).map_err(|error| first_line(&error))
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn unknown(command: &Command, path: &Path, file: &ConfigFile) -> Result<(), Failure> {
    let known: Vec<&str> = settings_of(command).filter_map(Arg::get_long).collect();
    let Some((name, setting)) = file.broker.iter().find(|(name, _)| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    Err(Failure::usage(printable(&format!(
        "{}:{}: there is no setting `{name}`; there are {}",
        path.display(),
        setting.line,
        known.join(", ")
    ))))
}

/// What a broker's line points at, if it is there.
fn read_file(first: &ArgMatches, variables: Variables<'_>) -> Result<Option<(PathBuf, ConfigFile)>, Failure> {
    let path = |id: &str| first.try_get_one::<PathBuf>(id).ok().flatten().cloned();
    let named = path("config").or_else(|| variables("CASTRA_CONFIG").map(PathBuf::from));
    let needed = named.is_some();
    let surroundings = Surroundings { env: variables, root: rustix::process::geteuid().is_root() };
    let beside = || match (path("state_dir"), path("pidfile")) {
        (None, Some(pidfile)) => pidfile.parent().map(Path::to_path_buf),
        (given, _) => surroundings.state_dir(given.as_deref()).ok(),
    };
    let Some(path) = named.or_else(|| Some(beside()?.join(CONFIG_FILE))) else { return Ok(None) };
    let file = ConfigFile::read(&path, needed).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Some((path, file)))
}

/// What was given as flags, for another process that reads the rest itself.
fn given(path: &[&str], first: &ArgMatches) -> Vec<OsString> {
    let root = Cli::command();
    let mut given = Vec::new();
    let own = command_at(&root, path).get_arguments().filter(|arg| !arg.is_global_set());
    for arg in own.filter(|arg| arg.get_long().is_some_and(|name| name != "json")) {
        let id = arg.get_id().as_str();
        if first.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let flag = OsString::from(format!("--{}", arg.get_long().unwrap_or_default()));
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            given.push(flag);
            continue;
        }
        for value in first.get_raw(id).into_iter().flatten() {
            given.extend([flag.as_os_str(), value].map(OsStr::to_owned));
        }
    }
    given
}
