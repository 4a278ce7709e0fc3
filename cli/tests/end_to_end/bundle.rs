//! `castra support-bundle`: what somebody who helps needs, and no secret.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::support::{PATIENCE, Process, World};

/// Every file of a bundle, by its name in it.
fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let name = entry.path().unwrap().strip_prefix("castra-support").unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    entries.collect()
}

fn json(files: &BTreeMap<String, String>, name: &str) -> Value {
    serde_json::from_str(&files[name]).unwrap_or_else(|error| panic!("{name}: {error}: {}", files[name]))
}

fn append(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_bundle_holds_what_helps_and_no_secret_of_the_world_around_it() {
    let world = World::new();
    let hex = |digit: char| format!("{digit}0f1e2d3c4b5a69788796a5b4c3d2e1f").repeat(2);
    let secrets: Vec<String> = [
        "HookPassword-1",
        "StartPassword-2",
        "EnvToken-3",
        "UnknownVariable-4",
        "UrlUser-5:UrlPass-5",
        "Bearer6.abc.def",
        "Logged-Password-7",
        "Attach-Code-8",
        "Start-Output-9",
        "Hook-Output-10",
        "TokenFile-11",
        "TraceSecret-12",
        "Passcode-13",
        "ManagerToken-14",
        "Event-Bearer-15",
        "Inbox-Text-16",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([hex('a'), hex('b'), hex('c')])
    .collect();
    let secret = |number: usize| secrets[number - 1].as_str();

    // In the configuration, of the broker and of its guests; on the broker's command line and in its environment.
    let config = format!(
        "[broker]\non-change = \"curl -u admin:{} http://127.0.0.1:1/ || true\"\n\
         [guests.devbox]\nstart = \"sshpass -p '{}' true\"\n",
        secret(1),
        secret(2)
    );
    append(&world.state().join("castra.toml"), &config);
    fs::set_permissions(world.state(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = world.command(&["broker", "--json", "--listen", "tcp:127.0.0.1:0"]);
    command.env("CASTRA_WEBHOOK", format!("https://{}@host/", secret(5)));
    let broker = Process::spawn(command);
    let ready: Value = serde_json::from_str(&broker.out.first(PATIENCE)).unwrap();
    let address = ready["listen"][0].as_str().unwrap().to_owned();

    // Tokens: issued, lying around, in a file's name; a keyed guest with it, and messages.
    let issued = world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
    world.secret("token", &issued);
    append(&world.state().join("agent.token"), secret(11));
    append(&world.state().join(format!("left-{}", secret(17))), secret(18));
    let token = world.path("token");
    let _keyed = world.agent("devbox", &address, &["--token-file", token.to_str().unwrap()]);
    let _peer = world.agent("builder", &address, &[]);
    world.wait(&["devbox", "builder"], "reachable");
    world.json(&["peer", "link", "devbox", "builder", "--json"]);
    world.json(&["peer", "send", "devbox", "builder", secret(16), "--json"]);

    // What others wrote into logs.
    let logs = world.state().join("logs");
    let line = |text: &str| format!("2026-01-02T03:04:05.678Z [host-broker] WARN storage failed {text}\n");
    append(
        &logs.join("broker.log"),
        &[
            line(&format!("Authorization: Bearer {}", secret(6))),
            line(&format!("url=https://{}@manager.example/attach", secret(5))),
            line(&format!("message=\"password={}\"", secret(7))),
            line(&format!(r#"body={{"attach_code":"{}","n":1}}"#, secret(8))),
            line(&format!("key {} and PRIVATE_BEACH_SESSION_PASSCODE={}", secret(19), secret(13))),
            line(&format!("the command was {}", config.lines().nth(3).unwrap())),
            line(&format!("token of devbox: {issued}")),
        ]
        .concat(),
    );
    let event = format!(r#"{{"cursor":"1-1","kind":"x","authorization":"Bearer {}"}}"#, secret(15));
    append(&logs.join("events.jsonl"), &format!("{event}\n"));
    append(&logs.join("start-devbox.log"), secret(9));
    append(&logs.join("on-change.log"), secret(10));

    let bundle = |args: &[&str]| {
        let mut command = world.command(&["support-bundle"]);
        command.args(args).current_dir(world.path("tmp"));
        command.env("CASTRA_TOKEN", secret(3)).env("CASTRA_PIGEON", secret(4));
        command.env("CASTRA_TRACE", format!("error,token={}", secret(12)));
        command.env("PRIVATE_BEACH_MANAGER_TOKEN", secret(14)).env("CASTRA_ON_CHANGE", "");
        command
    };
    let assert_clean = |files: &BTreeMap<String, String>, said: &str| {
        for secret in secrets.iter().chain([&issued]) {
            for part in secret.split(':') {
                let holds = files.iter().find(|(_, text)| text.contains(part));
                assert!(holds.is_none(), "{secret} is in {holds:?}");
                assert!(!said.contains(part), "{secret} was said: {said}");
            }
        }
    };

    let ran = Process::spawn(bundle(&[])).finish(PATIENCE);
    assert_eq!(ran.code, 0, "{ran:?}");
    let path = world.path("tmp").join(ran.out.trim());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let files = unpacked(&fs::read(&path).unwrap());
    assert_clean(&files, &(ran.out.clone() + &ran.err));
    assert!(ran.err.contains("castra: looking at the broker"), "{}", ran.err);

    // What helps is there.
    assert_eq!(json(&files, "info.json")["pid"], broker.pid());
    assert_eq!(json(&files, "status.json")["guests"][1]["name"], "devbox");
    assert!(json(&files, "doctor.json")["healthy"].is_array());
    assert_eq!(json(&files, "version.json")["control"], 1);
    let settings = json(&files, "config.json");
    let on_change = settings["settings"].as_array().unwrap().iter().find(|row| row["name"] == "on-change");
    assert_eq!(on_change.unwrap()["values"][0], "[redacted]");
    assert_eq!(on_change.unwrap()["source"], "file", "where it is from helps");
    assert!(files["broker.log"].contains("broker started incarnation=1"), "{}", files["broker.log"]);
    assert!(files["broker.log"].contains("Authorization: Bearer [redacted]"), "{}", files["broker.log"]);
    assert!(files["events.jsonl"].contains(r#""kind":"peer.message.delivered","id":"msg-"#));
    assert!(
        files["files.txt"].lines().any(|line| line.starts_with("100600 ") && line.ends_with("state.redb"))
    );
    assert!(files["files.txt"].contains(" left-[redacted]"), "{}", files["files.txt"]);
    assert!(
        files["environment.txt"].contains("CASTRA_PIGEON (set; not shown)"),
        "{}",
        files["environment.txt"]
    );
    assert!(files["limits.txt"].matches("Max open files").count() == 2, "{}", files["limits.txt"]);
    let manifest = json(&files, "MANIFEST.json");
    let named: Vec<&str> =
        manifest["files"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    let others: Vec<&str> =
        files.keys().map(String::as_str).filter(|name| *name != "MANIFEST.json").collect();
    assert_eq!(named.iter().collect::<std::collections::BTreeSet<_>>(), others.iter().collect());
    assert!(manifest["redacted"].as_u64().unwrap() >= 8, "{manifest}");
    assert!(manifest["left_out"].to_string().contains("state.redb"), "{manifest}");

    // None is overwritten.
    let again = Process::spawn(bundle(&["--out", path.to_str().unwrap()])).finish(PATIENCE);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.err.contains("is not overwritten"), "{again:?}");

    // Without a broker: from the files, to standard output; a pipe in a log's place is no reason to wait.
    broker.kill();
    fs::remove_file(logs.join("broker.log")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, logs.join("broker.log"), 0o600.into()).unwrap();
    let output = bundle(&["--out", "-", "--last", "3"]).stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let files = unpacked(&output.stdout);
    assert_clean(&files, &String::from_utf8_lossy(&output.stderr));
    assert_eq!(files["events.jsonl"].lines().count(), 3, "{}", files["events.jsonl"]);
    assert!(json(&files, "doctor.json")["findings"].to_string().contains("no broker serves"));
    let left_out = json(&files, "MANIFEST.json")["left_out"].to_string();
    assert!(left_out.contains("no ordinary file") && left_out.contains("no broker serves"), "{left_out}");
    assert!(!files.contains_key("status.json"));
}
