//! Terminals with hostile names, folders, arguments, variables and titles.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::texts::{Forger, is_clean};
use super::{every_file, every_view, says_nothing_raw};
use crate::support::{PATIENCE, World, until};

pub(super) fn attack(forger: &mut Forger, attempts: usize) {
    let world = World::new();
    let broker = world.broker(&["--terminals", "--terminals-on-stop", "end"]);
    for attempt in 0..attempts.clamp(8, 60) {
        let (text, title) = (forger.argument(), forger.argument());
        let folder = world.path("tmp").join(Path::new(&text.replace('/', "_")));
        // Too long for a folder's name, perhaps.
        let _ = std::fs::create_dir(&folder);
        let folder = std::ffi::OsStr::from_bytes(folder.as_os_str().as_bytes()).to_str().unwrap().to_owned();
        let variable = format!("FORGED={text}");
        let name = if attempt % 2 == 0 { text.clone() } else { format!("plain-{attempt}") };
        let name = format!("/{name}");
        let script = "printf '\\033]0;%s\\007\\033]2;%s\\007%s' \"$1\" \"$1\" \"$1\"; exec sleep 600";
        let mut args = vec!["term", "new", &name, "--env", &variable];
        if attempt % 3 == 0 {
            args.extend(["--cwd", &folder]);
        }
        args.extend(["--", "sh", "-c", script, &text, &title]);
        says_nothing_raw(&world.castra(&args), &format!("castra {args:?}"));
        if attempt % 4 == 0 {
            // Its lines are the program's; what they do to a terminal is not.
            let shown = world.castra(&["term", "snapshot", &name]);
            assert!(!shown.out.chars().any(|shown| shown.is_control() && shown != '\n'), "{shown:?}");
            for args in [
                vec!["term", "wait", &name, "--timeout", "1ms"],
                vec!["term", "kill", &text],
                vec!["term", "new", "plain", "--cwd", &text, "--", &text],
                vec!["term", "new", "plain", "--", &text],
                vec!["term", "ls", &text],
            ] {
                says_nothing_raw(&world.castra(&args), &format!("castra {args:?}"));
            }
        }
    }
    every_view(&world, &[&["term", "ls"], &["term", "ls", "--json"], &["status"], &["logs"], &["events"]]);
    let listed = world.castra(&["term", "ls"]);
    assert!(listed.out.contains("\\u{"), "{listed:?}");
    assert_eq!(world.castra(&["down"]).code, 0);
    is_clean("the broker's standard error", broker.process.err.text().as_bytes());
    every_file(&world);
    assert!(until(PATIENCE, || world.processes().is_empty()));
}
