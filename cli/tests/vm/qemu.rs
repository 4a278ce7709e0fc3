//! A virtual machine: started, told what to do over QEMU's monitor (QMP), ended by its own number.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::kit::Kit;
use crate::support::{PATIENCE, Process, World, until};

/// A machine that runs. It ends when this is dropped, and with the thread that started it.
pub(crate) struct Machine {
    process: Process,
    monitor: BufReader<UnixStream>,
    console: PathBuf,
}

impl Machine {
    /// Starts a machine that runs `script` once it is up.
    pub(crate) fn boot(kit: &Kit, world: &World, script: &str, options: &[String]) -> Self {
        fs::write(world.path("initramfs"), kit.initramfs(script)).unwrap();
        Self::start(kit, world, "first", options)
    }

    /// Starts a machine of the same making as that of `saved`, which goes on where that one was.
    pub(crate) fn restore(kit: &Kit, world: &World, name: &str, saved: &Path, options: &[String]) -> Self {
        let incoming = ["-incoming".to_owned(), format!("exec:cat '{}'", saved.display())];
        let mut machine = Self::start(kit, world, name, &[options, &incoming].concat());
        let runs = until(BOOT, || machine.command("query-status", &json!({}))["status"] == "running");
        assert!(runs, "the machine was not restored");
        machine
    }

    fn start(kit: &Kit, world: &World, name: &str, options: &[String]) -> Self {
        let [console, monitor] = ["console", "monitor"].map(|what| world.path(&format!("{name}.{what}")));
        // It must not outlive a test that is killed, either; QEMU itself has no word for that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-m", "256"]);
        command.arg("-kernel").arg(kit.kernel()).arg("-initrd").arg(world.path("initramfs"));
        // Nothing attacks this guest from inside: it may boot without what slows it down. On a busy host
        // a timer in software comes too late for a kernel that tests it, and panics if it fails.
        command.args(["-append", "console=ttyS0 quiet mitigations=off no_timer_check"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        command.args(options);
        command.env("XDG_RUNTIME_DIR", world.path("run")).env("TMPDIR", world.path("tmp"));
        let mut process = Process::spawn(command);
        let mut stream = None;
        let listens = until(PATIENCE, || {
            stream = UnixStream::connect(&monitor).ok();
            stream.is_some() || !process.is_running()
        });
        let Some(stream) = stream else { panic!("QEMU has no monitor; ended: {listens}") };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut machine = Self { process, monitor: BufReader::new(stream), console };
        assert!(machine.heard()["QMP"].is_object());
        machine.command("qmp_capabilities", &json!({}));
        machine
    }

    /// Freezes all of it; QEMU itself, and with it the host's end of every connection, lives on.
    pub(crate) fn freeze(&mut self) {
        self.command("stop", &json!({}));
        assert_eq!(self.command("query-status", &json!({}))["status"], "paused");
    }

    pub(crate) fn thaw(&mut self) {
        self.command("cont", &json!({}));
    }

    /// Presses its reset button.
    pub(crate) fn reset(&mut self) {
        self.command("system_reset", &json!({}));
    }

    /// Writes all that it is to a file; it stands still from some moment of this on.
    pub(crate) fn save(&mut self, file: &Path) {
        let whole_speed = json!({ "max-bandwidth": 0 });
        self.command("migrate-set-parameters", &whole_speed);
        self.command("migrate", &json!({ "uri": format!("exec:cat >'{}'", file.display()) }));
        let mut state = Value::Null;
        let saved = until(BOOT, || {
            state = self.command("query-migrate", &json!({}));
            assert_ne!(state["status"], "failed", "{state}");
            state["status"] == "completed"
        });
        assert!(saved, "not saved: {state}");
    }

    /// Kills QEMU, and returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.exit(PATIENCE);
    }

    /// What the guest wrote to its console.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    fn command(&mut self, name: &str, arguments: &Value) -> Value {
        let line = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
        self.monitor.get_ref().write_all(line.as_bytes()).unwrap();
        loop {
            let mut said = self.heard();
            // Events come in between.
            if said["event"].is_null() {
                assert!(said["error"].is_null(), "{name}: {said}");
                return said["return"].take();
            }
        }
    }

    fn heard(&mut self) -> Value {
        let mut line = String::new();
        self.monitor.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("QEMU's monitor says {line:?}: {error}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the guest's console\n{}", self.console());
        }
    }
}

/// What booting may take on a busy machine.
pub(crate) const BOOT: Duration = Duration::from_secs(180);

/// Waits for a state of guests that a boot may lie before.
pub(crate) fn wait(world: &World, names: &[&str], state: &str) {
    let bound = format!("{}s", BOOT.as_secs());
    let mut args = vec!["wait", "--for", state, "--timeout", &bound];
    args.extend(names);
    let ran = world.spawn(&args).finish(BOOT + PATIENCE);
    assert_eq!(ran.code, 0, "castra {args:?}: {ran:?}\n{}", world.log());
}
