//! The units of `packaging/systemd`: what systemd says of them, and whether the program
//! takes what they start it with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{PATIENCE, Process, World};

/// The greatest exposure that `systemd-analyze security` may find, of 100.
const EXPOSURE: [(&str, Option<u32>); 3] = [
    ("castra-broker.service", Some(25)),
    ("castra-agent.service", Some(30)),
    // Shells may do what their user may.
    ("castra-terminals.service", None),
];

/// Its service stands beside it.
const SOCKET: &str = "castra-broker.socket";

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/systemd")
}

/// The units of a world in which the program is installed.
fn installed(world: &World) -> Vec<PathBuf> {
    let services = EXPOSURE.iter().map(|(name, _)| {
        let text = fs::read_to_string(units().join(name)).unwrap();
        assert!(text.contains("ExecStart=/usr/bin/castra "), "{name}");
        let path = world.path(name);
        fs::write(&path, text.replace("/usr/bin/castra", env!("CARGO_BIN_EXE_castra"))).unwrap();
        path
    });
    let mut paths: Vec<_> = services.collect();
    paths.push(world.path(SOCKET));
    fs::copy(units().join(SOCKET), world.path(SOCKET)).unwrap();
    paths
}

pub(crate) fn analyze(world: &World, args: &[&str]) -> Option<(i32, String)> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        let required = std::env::var_os("CASTRA_SYSTEMD").is_some_and(|value| value == "required");
        assert!(!required, "there is no systemd-analyze");
        println!("NOT TESTED: units are not looked at: there is no systemd-analyze");
        return None;
    }
    let mut command = Command::new("systemd-analyze");
    command.args(args).env("HOME", world.path("home")).env("SYSTEMD_COLORS", "0").env("PAGER", "cat");
    let ran = Process::spawn(command).finish(PATIENCE * 3);
    Some((ran.code, ran.out + &ran.err))
}

#[test]
fn systemd_understands_every_unit_without_a_warning() {
    let world = World::new();
    for unit in installed(&world) {
        let Some((code, said)) = analyze(&world, &["verify", "--man=no", unit.to_str().unwrap()]) else {
            return;
        };
        let name = unit.file_name().unwrap().to_str().unwrap();
        let about: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(code == 0 && about.is_empty(), "{code} {said}");
    }
    // It would say so.
    let wrong = world.path("wrong.service");
    fs::write(&wrong, "[Service]\nExecStart=/nowhere/castra\nNoSuchSetting=yes\n").unwrap();
    let (code, said) = analyze(&world, &["verify", "--man=no", wrong.to_str().unwrap()]).unwrap();
    assert!(code != 0 && said.contains("wrong.service"), "{code} {said}");
}

#[test]
fn units_are_as_closed_as_they_were_meant_to_be() {
    let world = World::new();
    installed(&world);
    for (name, most) in EXPOSURE {
        let Some(most) = most.map(|most| format!("--threshold={most}")) else { continue };
        let unit = world.path(name);
        let args = ["security", "--offline=true", &most, "--no-pager", unit.to_str().unwrap()];
        let Some((code, said)) = analyze(&world, &args) else { return };
        if said.contains("unrecognized option") {
            println!("NOT TESTED: this systemd-analyze judges no unit offline");
            return;
        }
        assert_eq!(code, 0, "{said}");
        let strict = ["security", "--offline=true", "--threshold=1", "--no-pager", unit.to_str().unwrap()];
        assert_ne!(analyze(&world, &strict).unwrap().0, 0, "nothing is so closed: it was not judged");
    }
}

#[test]
fn the_program_takes_what_its_units_start_it_with() {
    let world = World::new();
    for (name, _) in EXPOSURE {
        let text = fs::read_to_string(units().join(name)).unwrap();
        let setting = |key: &'static str| text.lines().filter_map(move |line| line.strip_prefix(key));
        let line = setting("ExecStart=/usr/bin/castra ").next().unwrap();
        let mut line = line.replace("%t", "/run").replace("%S", "/var/lib");
        for variable in setting("Environment=").flat_map(|all| all.split(' ')) {
            let (key, value) = variable.split_once('=').unwrap();
            let value = value.replace("%H", "devbox");
            line = line.replace(&format!("${{{key}}}"), &value).replace(&format!("${key}"), &value);
        }
        assert!(!line.contains('$') && !line.contains('%'), "{line}");
        let mut args: Vec<&str> = line.split_whitespace().collect();
        args.push("--help");
        let help = world.castra(&args);
        assert_eq!(help.code, 0, "{line}: {help:?}");
        let option = args.iter().position(|arg| arg.starts_with("--")).unwrap();
        args[option] = "--no-such-option";
        assert_eq!(world.castra(&args).code, 2, "options before --help are looked at");
        for line in setting("ExecReload=/usr/bin/castra ") {
            let args: Vec<&str> = line.split_whitespace().chain(["--help"]).collect();
            assert_eq!(world.castra(&args).code, 0, "{line}");
        }
        // Each says when it is ready, and that its loop turns.
        assert_eq!(setting("Type=").collect::<Vec<_>>(), ["notify"], "{name}");
        assert_eq!(setting("WatchdogSec=").count(), 1, "{name}");
        // Programs of terminals and start commands outlive a stop.
        assert!(text.contains("\nKillMode=process\n"), "{name}");
        for key in ["StateDirectoryMode=", "RuntimeDirectoryMode="] {
            assert!(setting(key).all(|mode| mode == "0700"), "{name}");
        }
        assert!(setting("StateDirectory=").count() == 1, "{name}");
    }
}

/// What the agent's unit loads is what the agent reads.
#[test]
fn the_agents_token_comes_as_a_credential() {
    let world = World::new();
    let text = fs::read_to_string(units().join("castra-agent.service")).unwrap();
    assert!(text.contains("\nLoadCredential=castra.token:/etc/castra/agent.token\n"));
    let broker = world.broker(&["--require-token"]);
    let folder = world.path("credentials");
    fs::create_dir(&folder).unwrap();
    let token = folder.join("castra.token");
    assert_eq!(world.castra(&["token", "issue", "devbox", "--out", token.to_str().unwrap()]).code, 0);
    let args = ["agent", "--name", "devbox", "--connect", broker.address(), "--once", "--timeout", "10s"];
    let mut command = world.command(&args);
    command.env("CREDENTIALS_DIRECTORY", &folder);
    let ran = Process::spawn(command).finish(PATIENCE);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(world.castra(&args).code, 5, "without it, it is refused");
}
