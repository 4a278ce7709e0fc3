//! `castra man`: manual pages out of the same tree as `--help`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use crate::Context;
use crate::args::Cli;
use crate::exit::{Exit, Failure, Outcome};

#[derive(Args, Debug)]
pub(crate) struct Manual {
    /// Of which command, like `peer link` [default: of castra itself]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write all of them into DIR, one file each
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    out: Option<PathBuf>,
}

/// A page's name without its section, and its text.
type Page = (String, String);

pub(crate) fn run(cx: &mut Context, args: &Manual) -> Outcome {
    let pages = pages()?;
    if let Some(dir) = &args.out {
        return write(cx, dir, &pages);
    }
    let wanted = args.command.iter().fold("castra".to_owned(), |name, word| format!("{name}-{word}"));
    let Some((_, text)) = pages.iter().find(|(name, _)| *name == wanted) else {
        let command = args.command.join(" ");
        return Err(Failure::usage(format!("there is no command {command:?}: `castra --help` lists them")));
    };
    cx.out.put(text)?;
    Ok(Exit::Yes)
}

fn write(cx: &mut Context, dir: &Path, pages: &[Page]) -> Outcome {
    fs::create_dir_all(dir).map_err(|error| Failure::io("can't make the directory", &error))?;
    for (name, text) in pages {
        let path = dir.join(format!("{name}.1"));
        fs::write(&path, text).map_err(|error| Failure::io("can't write a page", &error))?;
        cx.out.line(&path.display().to_string())?;
    }
    Ok(Exit::Yes)
}

/// Every command that is shown, `castra` first.
pub(crate) fn pages() -> Result<Vec<Page>, Failure> {
    let mut root = Cli::command();
    root.build();
    let mut pages = Vec::new();
    collect(&root, "castra", &mut pages).map_err(|error| Failure::io("can't write a page", &error))?;
    Ok(pages)
}

fn collect(command: &Command, name: &str, pages: &mut Vec<Page>) -> std::io::Result<()> {
    pages.push((name.to_owned(), page(command, name)?));
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    for sub in shown {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> std::io::Result<String> {
    let man = Man::new(command.clone())
        .manual("castra manual")
        .source(concat!("castra ", env!("CARGO_PKG_VERSION")));
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    man.render_name_section(&mut roff)?;
    man.render_synopsis_section(&mut roff)?;
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    roff.extend_from_slice(section("DESCRIPTION", &about.unwrap_or_default()).as_bytes());
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut roff)?;
    }
    if let Some(last) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        roff.extend_from_slice(section("NOTES", &last.to_string()).as_bytes());
    }
    let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    let names: Vec<String> = subs.map(|sub| format!("{name}-{}(1)", sub.get_name())).collect();
    if !names.is_empty() {
        roff.extend_from_slice(section("SEE ALSO", &names.join(", ")).as_bytes());
    }
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

/// Paragraphs are filled; lines that begin with a space stand as they are.
fn section(title: &str, text: &str) -> String {
    let mut roff = format!(".SH \"{title}\"\n");
    let mut as_is = false;
    for line in text.lines() {
        let indented = line.starts_with(' ');
        if indented != as_is && !line.is_empty() {
            roff.push_str(if indented { ".nf\n" } else { ".fi\n" });
            as_is = indented;
        }
        if line.is_empty() {
            roff.push_str(".PP\n");
        } else {
            let _ = writeln!(roff, "{}", escaped(line));
        }
    }
    if as_is {
        roff.push_str(".fi\n");
    }
    roff
}

fn escaped(line: &str) -> String {
    let text = line.replace('\\', r"\e").replace('-', r"\-");
    if text.starts_with(['.', '\'']) { format!(r"\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_none_that_is_hidden() {
        let pages = pages().expect("pages");
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for wanted in
            ["castra", "castra-status", "castra-peer-link", "castra-term-attach", "castra-token-issue"]
        {
            assert!(names.contains(&wanted), "{wanted} is missing in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("holder") || name.contains("help")), "{names:?}");
        for (name, text) in &pages {
            assert!(text.contains(".SH NAME") && text.contains(".SH \"DESCRIPTION\"\n"), "{name}: {text}");
        }
    }

    #[test]
    fn text_that_looks_like_a_command_of_the_typesetter_is_text() {
        let roff = section("X", ".so /etc/passwd\n'x\n  a\\b --c\nend");
        assert_eq!(roff, ".SH \"X\"\n\\&.so /etc/passwd\n\\&'x\n.nf\n  a\\eb \\-\\-c\n.fi\nend\n");
    }
}
