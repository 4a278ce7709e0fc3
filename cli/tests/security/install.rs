//! What `castra install-agent` prints: read by the shells, systemd and the YAML that will
//! read it, and run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{PATIENCE, Process, Ran, World, installed};
use crate::units::analyze;

const FORMS: [&str; 4] = ["--cloud-init", "--systemd", "--openrc", "--sh"];

/// Words that any of the readers could take for something else.
const HOSTILE: &str = r#"/tmp/a  b'c"$(touch pwned)`touch pwned`%h\n;#&&: - x"#;

fn printed(world: &World, args: &[&str]) -> String {
    let ran = world.castra(&[&["install-agent", "devbox"], args].concat());
    assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
    ran.out
}

fn run(world: &World, program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(args).current_dir(world.path("tmp"));
    Process::spawn(command).finish(PATIENCE)
}

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn hostile_words_reach_the_agent_as_they_were_given_whatever_shell_reads_them() {
    let world = World::new();
    let connect = format!("unix:{HOSTILE}");
    let stub = script(&world, "castra stub", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n");
    let options = ["--", "--capability", "it's", "--inbox", HOSTILE];
    let all = |form: &'static str| {
        let args =
            [&[form, "--connect", &connect, "--binary", &stub, "--token-file", "/dev/null"], &options[..]];
        printed(&world, &args.concat())
    };
    let end = ["--token-file", "/dev/null", "--capability", "it's", "--inbox", HOSTILE];
    let expected =
        [&["agent", "--name", "devbox", "--connect", &connect], &end[..]].concat().join("\n") + "\n";
    let plain = script(&world, "plain.sh", &all("--sh"));
    let read_twice = format!("{}\neval \"$command $command_args\"\n", all("--openrc"));
    let openrc = script(&world, "openrc.sh", &read_twice);
    let mut shells = vec![("sh", vec![])];
    shells.extend([("dash", vec![]), ("bash", vec!["--posix"])].into_iter().filter(|one| installed(one.0)));
    shells.extend([("busybox", vec!["sh"])].into_iter().filter(|one| installed(one.0)));
    for (shell, first) in &shells {
        for file in [&plain, &openrc] {
            let checked = run(&world, shell, &[&first[..], &["-n", file]].concat());
            assert!(checked.code == 0 && checked.err.is_empty(), "{shell} -n: {checked:?}");
            let ran = run(&world, shell, &[&first[..], &[file.as_str()]].concat());
            assert_eq!((ran.code, &ran.out), (0, &expected), "{shell}: {ran:?}");
        }
    }
    assert!(!world.path("tmp").join("pwned").exists() && !Path::new("pwned").exists());
}

#[test]
fn a_plain_shells_script_makes_a_guest_reachable_by_its_token_which_nobody_else_reads() {
    let world = World::new();
    let broker = world.broker(&["--require-token"]);
    let token = world.path("devbox.token");
    let token = token.to_str().unwrap();
    assert_eq!(world.castra(&["token", "issue", "devbox", "--out", token]).code, 0);
    let root = world.path("guest root");
    let root = root.to_str().unwrap();
    let args = ["--sh", "--connect", broker.address(), "--with-token", token, "--prefix", root];
    let binary = ["--binary", env!("CARGO_BIN_EXE_castra")];
    let ran = world.castra(&[&["install-agent", "devbox"], &args[..], &binary[..]].concat());
    let secret = fs::read_to_string(token).unwrap().trim().to_owned();
    assert!(ran.out.contains(&secret) && ran.out.contains("\n# SECRET: "), "{ran:?}");
    assert!(ran.err.contains("WARNING") && ran.err.contains("devbox's token"), "{ran:?}");
    let script = script(&world, "run.sh", &ran.out);

    // A second time, as after a crash: the same again.
    for _ in 0..2 {
        let mut command = Command::new("sh");
        command.arg(&script);
        for (name, value) in world.command(&[]).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut agent = Process::spawn(command);
        world.wait(&["devbox"], "reachable");
        assert_eq!(world.row("devbox")["authenticated"], true);
        let line = fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(line.contains("agent --name devbox") && !line.contains(&secret), "{line}");
        for (place, mode) in [("etc/castra/agent.token", 0o600), ("etc/castra", 0o700)] {
            let found = fs::metadata(Path::new(root).join(place)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{place}");
        }
        assert!(Path::new(root).join("run/castra/devbox/agent.sock").exists());
        agent.signal(Signal::TERM);
        assert_eq!(agent.exit(PATIENCE).code(), Some(0));
        world.wait(&["devbox"], "waiting");
    }
    // Without the program it says what is missing.
    let absent = printed(&world, &["--sh", "--connect", "tcp:h:1", "--binary", "/nowhere/castra"]);
    let ran = run(&world, "sh", &["-c", &absent]);
    assert!(ran.code == 1 && ran.err.contains("static build at /nowhere/castra"), "{ran:?}");
}

#[test]
fn a_token_is_in_no_form_that_was_not_asked_for_it_and_in_no_file_for_everybody() {
    let world = World::new();
    let secret = "0123456789abcdef".repeat(4);
    let token = world.secret("token", &secret);
    let connect = ["--connect", "vsock:2:7070"];
    for form in FORMS {
        let text = printed(&world, &[&[form], &connect[..], &["--token-file", &token]].concat());
        assert!(text.contains(&token) && !text.contains(&secret) && !text.contains("SECRET"), "{text}");
        let bare = printed(&world, &[&[form], &connect[..]].concat());
        let spoken_of = ["LoadCredential", "--token-file", "token issue"].map(|word| bare.contains(word));
        assert_eq!(spoken_of, [false; 3], "{bare}");
        assert!(bare.contains("crt-static") && bare.contains("/usr/local/bin/castra"), "{bare}");
    }
    // A unit and an init script are everybody's to read.
    for form in ["--systemd", "--openrc"] {
        let args = [&["install-agent", "devbox", form], &connect[..], &["--with-token", &token]].concat();
        let ran = world.castra(&args);
        assert!(ran.code == 2 && !ran.err.contains(&secret), "{ran:?}");
    }
    let none = world.castra(&[&["install-agent", "devbox"], &connect[..]].concat());
    assert!(none.code == 2 && none.err.contains("--cloud-init"), "{none:?}");

    let text = printed(&world, &[&["--cloud-init"], &connect[..], &["--with-token", &token]].concat());
    assert!(text.starts_with("#cloud-config\n# SECRET: "), "{text}");
    assert_eq!(text.matches(&secret).count(), 1);
    let Some(data) = yaml(&world, &text) else { return };
    let files = data["write_files"].as_array().unwrap();
    let file =
        |path: &str| files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("{path}"));
    let held = file("/etc/castra/agent.token");
    assert_eq!((&held["permissions"], &held["owner"]), (&"0600".into(), &"root:root".into()));
    assert_eq!(held["content"], format!("{secret}\n"));
    let unit = file("/etc/systemd/system/castra-agent.service");
    assert!(
        unit["content"].as_str().unwrap().contains("\nLoadCredential=castra.token:/etc/castra/agent.token\n")
    );
    assert_eq!(data["runcmd"][1][3], "castra-agent.service", "{data}");

    // Hostile words, and the unit that --systemd prints.
    let connect = format!("unix:{HOSTILE}");
    let args = ["--connect", &connect, "--token-file", HOSTILE];
    let data = yaml(&world, &printed(&world, &[&["--cloud-init"], &args[..]].concat())).unwrap();
    let alone = printed(&world, &[&["--systemd"], &args[..]].concat());
    let body = data["write_files"][0]["content"].as_str().unwrap();
    assert!(body.starts_with("[Unit]\n") && alone.ends_with(body), "{body}");
}

/// Read by somebody else's reader, which is python's.
fn yaml(world: &World, text: &str) -> Option<Value> {
    let program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let file = world.path("user-data");
    fs::write(&file, text).unwrap();
    let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        Command::new(python).args(["-c", "import yaml"]).output().is_ok_and(|ran| ran.status.success())
    });
    let Some(python) = python else {
        let required = std::env::var_os("CASTRA_YAML").is_some_and(|value| value == "required");
        assert!(!required, "there is no YAML for python");
        println!("NOT TESTED: user data is not read: there is no YAML for python (Debian: python3-yaml)");
        return None;
    };
    Some(run(world, python, &["-c", program, file.to_str().unwrap()]).json())
}

#[test]
fn systemd_understands_the_unit_and_finds_it_as_closed_as_the_one_that_is_shipped() {
    let world = World::new();
    let device = "serial:/dev/ttyS1";
    let args = ["--systemd", "--connect", device, "--token-file", "/etc/castra/a token%"];
    let binary = ["--binary", env!("CARGO_BIN_EXE_castra"), "--", "--capability", "a$b%c\"d\\e"];
    let text = printed(&world, &[&args[..], &binary[..]].concat());
    assert!(text.contains("\nDeviceAllow=/dev/ttyS1 rw\n") && text.contains("a token%%\n"), "{text}");
    assert!(!text.contains("EnvironmentFile") && !text.contains("${"), "{text}");
    let unit = world.path("castra-agent.service");
    fs::write(&unit, &text).unwrap();
    let unit = unit.to_str().unwrap();
    let Some((code, said)) = analyze(&world, &["verify", "--man=no", unit]) else { return };
    let about: Vec<&str> = said.lines().filter(|line| line.contains("castra-agent")).collect();
    assert!(code == 0 && about.is_empty(), "{code} {said}\n{text}");
    let args = ["security", "--offline=true", "--threshold=30", "--no-pager", unit];
    let (code, said) = analyze(&world, &args).unwrap();
    assert!(code == 0 || said.contains("unrecognized option"), "{said}");
}
