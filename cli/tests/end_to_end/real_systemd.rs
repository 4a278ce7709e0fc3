//! The shipped units under a real systemd: a manager of its own, in namespaces of its own.
//! What a user's manager can't do (users, capabilities, devices) is left out of the units.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{PATIENCE, Process, Ran, World, installed, until};

/// What of a unit's `[Service]` a user's manager understands.
const UNDERSTOOD: [&str; 11] = [
    "Type=",
    "NotifyAccess=",
    "Environment=",
    "ExecStart=",
    "ExecReload=",
    "WatchdogSec=",
    "FileDescriptorStoreMax=",
    "Restart=",
    "RestartSec=",
    "TimeoutStopSec=",
    "KillMode=",
];

/// A group of its own in every hierarchy that systemd uses, and a `/run` in which this
/// machine looks as if systemd had started it.
const BEGIN: &str = r#"
for top in systemd unified .; do
    if [ -e "/sys/fs/cgroup/$top/cgroup.procs" ]; then
        mkdir "/sys/fs/cgroup/$top/$GROUP" && echo $$ >"/sys/fs/cgroup/$top/$GROUP/cgroup.procs" || exit 9
    fi
done
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system || exit 9
exec /lib/systemd/systemd --user --log-target=console --unit=basic.target
"#;

struct Systemd<'a> {
    world: &'a World,
    process: Process,
    group: String,
}

impl<'a> Systemd<'a> {
    /// `None`: this machine lets nobody have one.
    fn start(world: &'a World) -> Option<Self> {
        let units = world.path("units");
        fs::create_dir(&units).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/systemd");
        let service = fs::read_to_string(shipped.join("castra-broker.service")).unwrap();
        let lines = service.lines().filter(|line| UNDERSTOOD.iter().any(|key| line.starts_with(key)));
        let service = format!("[Service]\n{}\n", lines.collect::<Vec<_>>().join("\n"))
            .replace("/usr/bin/castra", env!("CARGO_BIN_EXE_castra"))
            .replace("/var/lib/castra-broker", world.state().to_str().unwrap())
            .replace("WatchdogSec=30s", "WatchdogSec=3s")
            .replace("OPTIONS=\n", "OPTIONS='--listen=tcp:127.0.0.1:0'\n");
        fs::write(units.join("castra-broker.service"), &service).unwrap();
        let socket = fs::read_to_string(shipped.join("castra-broker.socket")).unwrap();
        let link = world.path("link.sock");
        let socket =
            socket.replace("\nListenStream=127.0.0.1:7070", &format!("\nListenStream={}", link.display()));
        fs::write(units.join("castra-broker.socket"), socket).unwrap();
        fs::create_dir_all(world.path("run")).unwrap();

        let group = format!("castra-test-{}", std::process::id());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", BEGIN]).env("GROUP", &group);
        let mut it = Self { world, process: Process::spawn(it_in(world, command)), group };
        let up = until(PATIENCE, || {
            !it.process.is_running()
                || ["running", "degraded"].contains(&it.systemctl(&["is-system-running"]).out.trim())
        });
        if up && it.process.is_running() {
            return Some(it);
        }
        let said = it.systemctl(&["is-system-running"]);
        println!(
            "NOT TESTED: units under a real systemd: it does not run here: {said:?}\n{}",
            it.process.err.text()
        );
        None
    }

    fn systemctl(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("nsenter");
        let inside = ["--mount", "--target", &self.process.pid().to_string()].map(str::to_owned);
        command.args(inside).args(["systemctl", "--user", "--no-pager"]).args(args);
        Process::spawn(it_in(self.world, command)).finish(PATIENCE)
    }

    fn does(&self, verb: &str, unit: &str) {
        let ran = self.systemctl(&[verb, unit]);
        assert_eq!(ran.code, 0, "{verb} {unit}: {ran:?}\n{}", self.process.err.text());
    }

    fn shows(&self, property: &str) -> String {
        let ran = self.systemctl(&["show", "castra-broker.service", "--value", "--property", property]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().to_owned()
    }
}

/// Nothing stays: not even an empty group.
impl Drop for Systemd<'_> {
    fn drop(&mut self) {
        if self.process.is_running() {
            // What systemd calls "exit now".
            self.process.signal(Signal::TERM);
            until(PATIENCE, || !self.process.is_running());
        }
        until(PATIENCE, || {
            ["systemd", "unified", "."].iter().all(|top| {
                let group = PathBuf::from("/sys/fs/cgroup").join(top).join(&self.group);
                remove_groups(&group);
                !group.exists()
            })
        });
    }
}

fn it_in(world: &World, mut command: Command) -> Command {
    for (name, value) in world.command(&[]).get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("SYSTEMD_UNIT_PATH", format!("{}:/usr/lib/systemd/user", world.path("units").display()));
    command
}

fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

#[test]
fn the_shipped_units_do_under_a_real_systemd_what_they_promise() {
    let world = World::new();
    let required = std::env::var_os("CASTRA_SYSTEMD_MANAGER").is_some_and(|value| value == "required");
    let here = ["unshare", "nsenter", "systemctl"].into_iter().all(installed)
        && rustix::process::geteuid().is_root();
    let systemd = here.then(|| Systemd::start(&world)).flatten();
    let Some(systemd) = systemd else {
        assert!(!required, "no systemd can be started here");
        println!(
            "NOT TESTED: the units under a real systemd: that needs root, systemd and its control groups"
        );
        return;
    };
    // Started means serving.
    systemd.does("start", "castra-broker.service");
    assert_eq!(world.castra(&["status"]).code, 0);
    let status = systemd.shows("StatusText");
    assert!(status.starts_with("serving on tcp:127.0.0.1:"), "{status}");
    assert_eq!(systemd.shows("NFileDescriptorStore"), "2");

    // A reload says whether it went well.
    systemd.does("reload", "castra-broker.service");
    let file = world.state().join("castra.toml");
    fs::write(&file, "[broker]\nwindow = 'soon'\n").unwrap();
    assert_ne!(systemd.systemctl(&["reload", "castra-broker.service"]).code, 0);
    fs::remove_file(&file).unwrap();

    // A new process on the same sockets, and guests come back to it.
    let address = status.trim_start_matches("serving on ").to_owned();
    let agent = world.agent("devbox", &address, &[]);
    world.wait(&["devbox"], "reachable");
    let pid = |systemd: &Systemd<'_>| systemd.shows("MainPID");
    let first = pid(&systemd);
    systemd.does("restart", "castra-broker.service");
    assert_ne!(pid(&systemd), first);
    assert_eq!(systemd.shows("StatusText"), status, "the same port");
    world.wait(&["devbox"], "reachable");

    // A loop that doesn't turn is noticed, and the one after it has the sockets, too.
    let stuck = pid(&systemd);
    kill_process(Pid::from_raw(stuck.parse().unwrap()).unwrap(), Signal::STOP).unwrap();
    assert!(until(PATIENCE, || systemd.shows("NRestarts") == "1" && pid(&systemd) != stuck));
    world.wait(&["devbox"], "reachable");
    assert_eq!(systemd.shows("StatusText"), status);
    drop(agent);

    systemd.does("stop", "castra-broker.service");
    assert_eq!(systemd.shows("NFileDescriptorStore"), "0");
    assert_eq!(world.castra(&["status"]).code, 3, "nobody is behind the socket");

    // Who comes first starts it.
    systemd.does("start", "castra-broker.socket");
    assert_eq!(systemd.shows("ActiveState"), "inactive");
    let link = format!("unix:{}", world.path("link.sock").display());
    let came = world.agent("devbox", &link, &["--once"]).finish(PATIENCE);
    assert_eq!(came.code, 0, "{came:?}");
    let info: Value = world.json(&["info", "--json"]);
    let listen: Vec<_> = info["listen"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(listen.contains(&link.as_str()), "{listen:?}");
    systemd.does("stop", "castra-broker.socket");
    systemd.does("stop", "castra-broker.service");
}
