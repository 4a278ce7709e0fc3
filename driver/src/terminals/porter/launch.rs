//! From what a client asks for to what is run, in this process's surroundings.

use std::ffi::{OsStr, OsString};

use castra_core::terminals::Launch;

use crate::terminals::holder::wire::Program;

/// Variables that say something of a terminal which a new one isn't.
const STALE: [&str; 4] = ["COLUMNS", "LINES", "TERMCAP", "TERM"];
/// What a terminal claims to be.
const TERM: &str = "xterm-256color";

/// Fills in what the launch leaves open: the shell, the directory, the environment.
pub(super) fn program(launch: &Launch, surroundings: &[(OsString, OsString)]) -> Program {
    let mut env: Vec<(OsString, OsString)> =
        surroundings.iter().filter(|(name, _)| !STALE.iter().any(|stale| name == stale)).cloned().collect();
    set(&mut env, "TERM".into(), TERM.into());
    for (name, value) in &launch.env {
        set(&mut env, name.into(), value.into());
    }
    let mut args = launch.args.clone();
    let mut program = OsString::from(&launch.program);
    if program.is_empty() {
        program = get(&env, "SHELL").unwrap_or_else(|| "/bin/sh".into());
        let path = program.to_string_lossy();
        if args.is_empty() && ["zsh", "bash", "fish"].iter().any(|shell| path.contains(shell)) {
            args.push("-l".to_owned());
        }
    }
    let cwd = match launch.cwd.as_str() {
        "" => get(&env, "HOME").unwrap_or_else(|| "/".into()),
        cwd => cwd.into(),
    };
    Program {
        program: program.into(),
        args: args.iter().map(|argument| argument.as_str().into()).collect(),
        cwd: cwd.into(),
        env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        cols: launch.cols,
        rows: launch.rows,
    }
}

fn set(env: &mut Vec<(OsString, OsString)>, name: OsString, value: OsString) {
    match env.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => env.push((name, value)),
    }
}

fn get(env: &[(OsString, OsString)], name: &str) -> Option<OsString> {
    let found = env.iter().find(|(known, _)| known == OsStr::new(name));
    found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(env: &[(&str, &str)]) -> Launch {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Launch { program: String::new(), args: vec![], cwd: String::new(), env, cols: 80, rows: 24 }
    }

    fn variable(program: &Program, name: &str) -> Option<String> {
        let found = program.env.iter().find(|(known, _)| known.as_os_str() == name);
        found.map(|(_, value)| value.as_os_str().to_str().expect("text").to_owned())
    }

    #[test]
    fn a_terminal_is_an_xterm_unless_the_launch_says_otherwise() {
        let here = [("TERM", "linux"), ("COLUMNS", "132"), ("HOME", "/home/me"), ("SHELL", "/bin/bash")];
        let here = here.map(|(name, value)| (name.into(), value.into()));
        let plain = program(&launch(&[]), &here);
        assert_eq!(variable(&plain, "TERM").as_deref(), Some("xterm-256color"));
        assert_eq!(variable(&plain, "COLUMNS"), None);
        assert_eq!(plain.cwd.as_os_str(), "/home/me");
        assert_eq!((plain.program.as_os_str(), plain.args), (OsStr::new("/bin/bash"), vec!["-l".into()]));
        let other = program(&launch(&[("TERM", "vt100"), ("SHELL", "/bin/dash"), ("HOME", "/")]), &here);
        assert_eq!(variable(&other, "TERM").as_deref(), Some("vt100"));
        assert_eq!((other.program.as_os_str(), other.args.len()), (OsStr::new("/bin/dash"), 0));
        assert_eq!(other.cwd.as_os_str(), "/");
        assert_eq!(program(&launch(&[]), &[]).program.as_os_str(), "/bin/sh");
    }
}
