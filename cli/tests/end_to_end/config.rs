//! Where a broker's settings come from, and what a reload takes over.

use std::fs;

use crate::support::{PATIENCE, World, until};

#[test]
fn a_reload_takes_over_the_file_drops_no_link_and_a_wrong_file_changes_nothing() {
    let world = World::new();
    fs::create_dir_all(world.state()).unwrap();
    let file = world.state().join("castra.toml");
    fs::write(&file, "[broker]\nwindow = '30s'\ninterval = '2s'\n").unwrap();
    let broker = world.broker(&["--interval", "5s"]);
    let agent = world.agent("devbox", broker.address(), &[]);
    world.wait(&["devbox"], "reachable");
    let settings = || world.json(&["info", "--json"])["config"].clone();
    let config = settings();
    assert_eq!((&config["window_ms"], &config["interval_ms"]), (&30_000.into(), &5000.into()), "{config}");
    let epoch = world.row("devbox")["epoch"].clone();

    fs::write(&file, "[broker]\nwindow = '45s'\ninterval = '2s'\nrequire-token = true\n").unwrap();
    assert_eq!(world.castra(&["reload"]).code, 0);
    let config = settings();
    assert_eq!((&config["window_ms"], &config["interval_ms"]), (&45_000.into(), &5000.into()), "{config}");
    assert_eq!(config["require_token"], true, "{config}");
    assert_eq!(world.row("devbox")["epoch"], epoch, "the link was dropped");
    // Its environment says the same as its line: an operator sees what counts.
    assert_eq!(broker.listen.len(), 1);

    for wrong in ["[broker]\nwindow = '4s'\n", "[broker]\nwindow = 'soon'\n", "[broker]\nwindo = '50s'\n"] {
        fs::write(&file, wrong).unwrap();
        let ran = world.castra(&["reload"]);
        assert_ne!(ran.code, 0, "{wrong}: {ran:?}");
        assert!(ran.err.contains("castra.toml") && ran.err.contains("wind"), "{wrong}: {ran:?}");
        assert_eq!(settings(), config, "{wrong}");
        let ran = world.castra(&["config", "check"]);
        assert_eq!(ran.code, 2, "{wrong}: {ran:?}");
    }
    drop(agent);
}

#[test]
fn up_leaves_to_the_broker_what_it_was_not_told_itself() {
    let world = World::new();
    fs::create_dir_all(world.state()).unwrap();
    let file = world.state().join("castra.toml");
    fs::write(&file, "[broker]\nlisten = ['tcp:127.0.0.1:0']\nwindow = '30s'\n").unwrap();
    assert_eq!(world.castra(&["config", "check"]).code, 0);
    let advertised = "http://10.0.2.2:7171";
    let manager = ["--guest", "web-1", "--manager", "127.0.0.1:0", "--manager-advertise", advertised];
    let ran = world.castra(&[&["up", "--interval", "4s"], &manager[..]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("http://127.0.0.1:"), "{ran:?}");
    let window = || world.json(&["info", "--json"])["config"]["window_ms"].clone();
    assert_eq!(window(), 30_000);
    fs::write(&file, "[broker]\nlisten = ['tcp:127.0.0.1:0']\nwindow = '40s'\n").unwrap();
    assert_eq!(world.castra(&["reload"]).code, 0);
    assert_eq!(window(), 40_000);
    // A manager stays one, and is told of as before.
    assert_eq!(world.castra(&["adopt", "web-1", "--no-wait"]).code, 0);
    assert_eq!(world.json(&["attachments", "--json"])["attachments"][0]["manager_url"], advertised);
    assert_eq!(world.castra(&["down"]).code, 0);
    assert!(until(PATIENCE, || world.castra(&["status"]).code == 3));
}

#[test]
fn show_says_where_each_setting_comes_from_and_whether_a_broker_would_take_them() {
    let world = World::new();
    fs::create_dir_all(world.state()).unwrap();
    fs::write(world.state().join("castra.toml"), "[broker]\nwindow = '30s'\n").unwrap();
    let mut command = world.command(&["config", "show", "--json", "--interval", "3s"]);
    let ran = crate::support::Process::spawn({
        command.env("CASTRA_MAX_GUESTS", "77");
        command
    })
    .finish(PATIENCE);
    assert_eq!(ran.code, 0, "{ran:?}");
    let document = ran.json();
    let from = |name: &str| {
        let rows = document["settings"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        format!("{} {}", row["values"][0].as_str().unwrap(), row["source"].as_str().unwrap())
    };
    assert_eq!(
        ["interval", "max-guests", "window", "handshake-timeout"].map(from),
        ["3s flag", "77 environment", "30s file", "2s default"]
    );
    let ran = world.castra(&["config", "show", "--interval", "20s"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.out.contains("castra.toml:2") && ran.err.contains("three intervals"), "{ran:?}");
}

#[test]
fn a_command_is_run_when_a_verdict_changes() {
    let world = World::new();
    let out = world.path("changes");
    let command = format!("echo $CASTRA_GUEST $CASTRA_FROM $CASTRA_TO $CASTRA_REASON >>{}", out.display());
    let broker = world.broker(&["--on-change", &command]);
    let agent = world.agent("devbox", broker.address(), &[]);
    let told = |line: &str| fs::read_to_string(&out).unwrap_or_default().lines().any(|one| one == line);
    assert!(until(PATIENCE, || told("devbox waiting reachable")), "{:?}", fs::read_to_string(&out));
    agent.kill();
    assert!(
        until(PATIENCE, || told("devbox reachable waiting disconnected")),
        "{:?}",
        fs::read_to_string(&out)
    );
}
