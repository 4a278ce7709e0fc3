//! A broker, a keyed guest, and the wires between them.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Broker, PATIENCE, Process, Ran, World, until};
use crate::wire::Wire;

/// What every program on the terminal `main` does: it writes down what is typed.
const SCRIPT: &str = "exec cat >> \"$0\"";

pub(crate) struct Site {
    pub(crate) broker: Option<Broker>,
    /// To the broker's link.
    pub(crate) link: Wire,
    /// To its manager.
    pub(crate) http: Wire,
    pub(crate) token: String,
    pub(crate) said: RefCell<String>,
    args: Vec<&'static str>,
    pub(crate) world: World,
}

impl Site {
    /// A broker with these options; guests that speak HTTP go through the wire.
    pub(crate) fn new(args: &[&'static str]) -> Self {
        let (link, http) = (Wire::new(), Wire::new());
        let (args, said) = (args.to_vec(), RefCell::default());
        let mut site =
            Self { broker: None, link, http, token: String::new(), said, args, world: World::new() };
        site.start_broker();
        let issued = site.world.json(&["token", "issue", "web-1", "--json"]);
        site.token = issued["token"].as_str().unwrap().to_owned();
        site.world.secret("token", &site.token);
        site
    }

    /// A broker with a manager.
    pub(crate) fn with_manager(args: &[&'static str]) -> Self {
        Self::new(&[&["--manager", "127.0.0.1:0"], args].concat())
    }

    pub(crate) fn start_broker(&mut self) {
        let (url, mut args) = (self.http.url(), self.args.clone());
        let manager = args.contains(&"--manager");
        if manager {
            args.extend(["--manager-advertise", &url]);
        }
        let broker = self.world.broker(&args);
        self.link.lead_to(broker.port());
        if manager {
            let ready: Value = serde_json::from_str(&broker.process.out.first(PATIENCE)).unwrap();
            let manager = ready["manager"].as_str().unwrap();
            self.http.lead_to(manager.rsplit_once(':').unwrap().1.parse().unwrap());
        }
        self.broker = Some(broker);
    }

    pub(crate) fn kill_broker(&mut self) {
        let broker = self.broker.take().unwrap();
        self.note(&broker.process);
        broker.process.kill();
    }

    /// Where what is typed into `main` is written down.
    pub(crate) fn typed(&self) -> PathBuf {
        self.world.path("typed")
    }

    pub(crate) fn typed_text(&self) -> String {
        std::fs::read_to_string(self.typed()).unwrap_or_default()
    }

    /// Waits until so much was typed.
    pub(crate) fn await_typed(&self, text: &str) {
        let came = until(PATIENCE, || self.typed_text() == text);
        assert!(came, "typed: {:?}\n{}", self.typed_text(), self.world.log());
    }

    /// The agent of web-1 with its token, and a program on `main`.
    pub(crate) fn agent(&self, args: &[&str]) -> Process {
        let token = self.world.path("token");
        self.agent_with(&[&["--token-file", token.to_str().unwrap()], args].concat(), |_| {})
    }

    pub(crate) fn agent_with(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Process {
        agent(&self.world, &self.link.address(), args, change)
    }

    /// Waits until a proven session is there.
    pub(crate) fn reachable(&self) {
        self.world.wait(&["web-1"], "reachable");
    }

    /// Runs a command to its end, and remembers what it said.
    pub(crate) fn castra(&self, args: &[&str]) -> Ran {
        let ran = self.world.castra(args);
        self.said.borrow_mut().push_str(&format!("{}{}", ran.out, ran.err));
        ran
    }

    /// A command that must succeed; what it said on standard output.
    pub(crate) fn does(&self, args: &[&str]) -> String {
        let ran = self.castra(args);
        assert_eq!(ran.code, 0, "castra {args:?}: {ran:?}\n{}", self.world.log());
        ran.out
    }

    /// Types a line into `main`, which must succeed.
    pub(crate) fn types(&self, line: &str) {
        let payload = json!({"bytes": format!("{line}\n")}).to_string();
        let out = self.does(&["action", "send", "web-1", "--type", "terminal_write", "--payload", &payload]);
        assert!(out.ends_with(" ok\n"), "{out}");
    }

    /// The attachment, as the broker has it.
    pub(crate) fn attachment(&self) -> Value {
        let mut listed: Value = serde_json::from_str(&self.does(&["attachments", "--json"])).unwrap();
        assert_eq!(listed["attachments"].as_array().unwrap().len(), 1, "{listed}");
        listed["attachments"][0].take()
    }

    /// Waits until the broker has the attachment so.
    pub(crate) fn await_attachment(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut row = self.attachment();
        let came = until(PATIENCE, || {
            row = self.attachment();
            is(&row)
        });
        assert!(came, "not {what}: {row}\n{}", self.world.log());
        row
    }

    /// Keeps what a process said, for whoever looks for secrets in it.
    pub(crate) fn note(&self, process: &Process) {
        self.said.borrow_mut().push_str(&format!("{}{}", process.out.text(), process.err.text()));
    }

    /// Kills an agent, and keeps what it said.
    pub(crate) fn kill(&self, agent: Process) {
        self.note(&agent);
        agent.kill();
    }
}

/// An agent of web-1 with a program on `main`; its socket is `web-1.sock`.
pub(crate) fn agent(
    world: &World,
    address: &str,
    args: &[&str],
    change: impl FnOnce(&mut Command),
) -> Process {
    let socket = world.path("web-1.sock");
    let file = world.path("typed");
    let mut all =
        vec!["agent", "--name", "web-1", "--connect", address, "--socket", socket.to_str().unwrap()];
    all.extend(args);
    all.extend(["--exec", "/bin/sh", "-c", SCRIPT, file.to_str().unwrap()]);
    let mut command = world.command(&all);
    change(&mut command);
    Process::spawn(command)
}

/// The keepers of terminals, and what runs on them, outlive an agent on purpose.
pub(crate) fn end_terminals(world: &World) {
    for (pid, line) in world.processes() {
        // Children of this test are ended by whoever has them.
        if line.contains("terminals-holder") || line.starts_with("cat ") || line.starts_with("/bin/sh ") {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    until(PATIENCE, || {
        !world
            .processes()
            .iter()
            .any(|(_, line)| line.contains("terminals-holder") || line.starts_with("cat"))
    });
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.broker.take());
        end_terminals(&self.world);
    }
}
