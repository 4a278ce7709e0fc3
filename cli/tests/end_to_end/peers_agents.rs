//! Peers from inside their guests: the real agents, asked over their own sockets.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Broker, Link, PATIENCE, Process, Ran, World, until};

struct Agents {
    world: World,
    broker: Broker,
    running: Vec<(String, Process)>,
}

impl Agents {
    fn new(broker: &[&str]) -> Self {
        let world = World::new();
        let broker = world.broker(broker);
        Self { world, broker, running: vec![] }
    }

    fn start(&mut self, name: &str, args: &[&str]) {
        let inbox = self.world.path(&format!("{name}.inbox"));
        let mut all = vec!["--inbox", inbox.to_str().unwrap()];
        all.extend(args);
        let address = self.broker.address().to_owned();
        let agent = self.world.agent(name, &address, &all);
        self.world.wait(&[name], "reachable");
        // The broker knows first: an agent that has not read its `ok` yet has nobody to ask.
        agent.err.after(0, "link up", PATIENCE);
        self.running.push((name.to_owned(), agent));
    }

    fn kill(&mut self, name: &str) {
        let index = self.running.iter().position(|(other, _)| other == name).unwrap();
        self.running.remove(index).1.kill();
    }

    fn command(&self, name: &str, args: &[&str]) -> std::process::Command {
        let socket = self.world.path(&format!("{name}.sock"));
        let mut command = self.world.command(args);
        command.env_remove("CASTRA_STATE_DIR").env("CASTRA_AGENT_SOCKET", socket);
        command
    }

    fn begin(&self, name: &str, args: &[&str]) -> Process {
        Process::spawn(self.command(name, args))
    }

    /// A command inside a guest.
    fn inside(&self, name: &str, args: &[&str]) -> Ran {
        self.begin(name, args).finish(Duration::from_secs(45))
    }

    fn json(&self, name: &str, args: &[&str]) -> Value {
        let ran = self.inside(name, args);
        assert_eq!(ran.code, 0, "{name}: castra {args:?}: {ran:?}");
        ran.json()
    }

    fn peers(&self, name: &str) -> Vec<String> {
        let listed = self.json(name, &["peers", "--json"]);
        let lines = listed["peers"].as_array().unwrap().iter();
        let peers = lines.filter(|line| line["visibility"] == "peer");
        peers.map(|line| line["name"].as_str().unwrap().to_owned()).collect()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let inbox = self.json(name, &["inbox", "--json"]);
        let messages = inbox["messages"].as_array().unwrap().iter();
        messages.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Ends everybody, so that nothing outlives the test.
    fn end(self) {
        for (_, agent) in self.running {
            agent.kill();
        }
        self.broker.process.kill();
    }
}

fn refused(ran: &Ran, code: i32, word: &str) {
    let said = ran.err.contains(word) || ran.out.contains(word);
    assert!(ran.code == code && said, "expected {code} and {word:?}: {ran:?}");
}

#[test]
fn a_guest_is_asked_and_its_answer_counts() {
    let mut agents = Agents::new(&[]);
    agents.start("web", &[]);
    agents.start("db", &[]);
    let now = agents.inside("db", &["events", "--json"]).cursor();
    let offers = agents.begin("db", &["events", "--follow", "--since", &now, "--kind", "peer.offer"]);
    let ask = agents.begin("web", &["peer", "link", "db"]);
    offers.out.after(0, "peer offer from=web", PATIENCE);
    assert_eq!(agents.inside("db", &["peer", "accept", "web"]).code, 0);
    assert_eq!(ask.finish(PATIENCE).code, 0);
    assert_eq!((agents.peers("web"), agents.peers("db")), (vec!["db".to_owned()], vec!["web".to_owned()]));
    // Repeating it asks nobody.
    assert_eq!(agents.inside("web", &["peer", "link", "db"]).code, 0);

    assert_eq!(agents.inside("db", &["peer", "unlink", "web"]).code, 0);
    assert_eq!((agents.peers("web"), agents.peers("db")), (vec![], vec![]));
    let mark = offers.out.mark();
    let ask = agents.begin("web", &["peer", "link", "db"]);
    offers.out.after(mark, "peer offer from=web", PATIENCE);
    assert_eq!(agents.inside("db", &["peer", "refuse", "web", "--reason", "not today"]).code, 0);
    refused(&ask.finish(PATIENCE), 5, "rejected");
    // The operator is told why, the guest isn't.
    let why = agents.world.events("peer.refused", "web");
    assert!(why[0]["reason"].as_str().unwrap().contains("not today"), "{why:?}");
    offers.kill();
    agents.end();
}

#[test]
fn a_guest_cannot_tell_strangers_from_nobody() {
    let mut agents = Agents::new(&[]);
    agents.start("web", &[]);
    agents.start("grump", &["--peers", "deny"]);
    let mut answers = vec![];
    // Nobody answers for `quiet`; `grump` would not; `ghost` is nobody.
    agents.start("quiet", &["--peers", "ask"]);
    for name in ["grump", "quiet", "ghost"] {
        let began = Instant::now();
        let ran = agents.inside("web", &["peer", "link", name, "--json"]);
        assert!(began.elapsed() >= Duration::from_secs(2), "{name}: {:?}", began.elapsed());
        refused(&ran, 5, "rejected");
        answers.push(ran.err.replace(name, "NAME"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    // Nor from what it may ask about them.
    for name in ["grump", "ghost"] {
        refused(&agents.inside("web", &["status", name]), 6, "unknown_guest");
        refused(&agents.inside("web", &["ping", name]), 6, "unknown_guest");
        refused(&agents.inside("web", &["restore", name]), 6, "unknown_guest");
        refused(&agents.inside("web", &["peer", "send", name, "hello"]), 5, "not_peer");
    }
    let inbox = agents.inside("web", &["inbox", "grump"]);
    assert_ne!(inbox.code, 0, "another's inbox: {inbox:?}");
    agents.end();
}

#[test]
fn policies_count_for_the_operator_too_and_hold_makes_a_guest_busy() {
    let mut agents = Agents::new(&[]);
    agents.start("web", &[]);
    agents.start("grump", &["--peers", "deny"]);
    agents.start("open", &["--peers", "accept"]);
    refused(&agents.world.castra(&["peer", "link", "web", "grump"]), 5, "rejected");
    refused(&agents.world.castra(&["peer", "link", "grump", "web"]), 5, "rejected");
    assert_eq!(agents.inside("web", &["peer", "link", "open"]).code, 0, "it takes everybody");
    refused(&agents.world.castra(&["peer", "link", "web", "web"]), 2, "self");
    assert_eq!(agents.inside("open", &["agent", "hold"]).code, 0);
    agents.start("late", &[]);
    refused(&agents.inside("open", &["peer", "link", "late"]), 1, "busy");
    refused(&agents.world.castra(&["peer", "link", "open", "late"]), 1, "busy");
    assert_eq!(agents.inside("open", &["agent", "resume"]).code, 0);
    // What the agent says travels over its link, and the operator's question does not.
    let linked = || agents.world.castra(&["peer", "link", "open", "late"]).code == 0;
    assert!(until(PATIENCE, linked), "busy for ever");
    // The policy of a guest that is off is known from when it was there.
    agents.kill("open");
    agents.kill("grump");
    agents.world.wait(&["open", "grump"], "waiting");
    assert_eq!(agents.inside("late", &["peer", "link", "open"]).code, 0);
    refused(&agents.inside("late", &["peer", "link", "grump"]), 5, "rejected");
    agents.end();
}

#[test]
fn two_guests_that_want_each_other_at_once_and_ten_that_want_the_same_are_all_linked() {
    let mut agents = Agents::new(&[]);
    for name in ["a", "b"] {
        agents.start(name, &[]);
    }
    let both = [agents.begin("a", &["peer", "link", "b"]), agents.begin("b", &["peer", "link", "a"])];
    for ask in both {
        let ran = ask.finish(PATIENCE);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!((agents.peers("a"), agents.peers("b")), (vec!["b".to_owned()], vec!["a".to_owned()]));

    agents.start("hub", &["--peers", "accept"]);
    let names: Vec<String> = (0..10).map(|number| format!("spoke-{number}")).collect();
    for name in &names {
        agents.start(name, &[]);
    }
    let asked: Vec<_> = names.iter().map(|name| agents.begin(name, &["peer", "link", "hub"])).collect();
    for ask in asked {
        let ran = ask.finish(PATIENCE);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(agents.peers("hub"), names);
    for name in &names {
        assert_eq!(agents.peers(name), ["hub"], "{name}");
    }
    agents.end();
}

#[test]
fn messages_between_guests_reach_each_inbox_once_whatever_was_off_meanwhile() {
    let mut agents = Agents::new(&[]);
    agents.start("web", &[]);
    agents.start("db", &[]);
    assert_eq!(agents.world.castra(&["peer", "link", "web", "db"]).code, 0);
    let sent = agents.json("web", &["peer", "send", "db", "first", "--key", "one", "--json"]);
    assert_eq!(sent["outcome"], "delivered");
    let again = agents.json("web", &["peer", "send", "db", "first", "--key", "one", "--json"]);
    assert_eq!(again["id"], sent["id"], "the same key is the same message");

    agents.kill("db");
    agents.world.wait(&["db"], "waiting");
    let queued = agents.json("web", &["peer", "send", "db", "second", "--json"]);
    assert_eq!(queued["outcome"], "queued");
    refused(&agents.inside("web", &["peer", "send", "db", "now", "--no-queue"]), 1, "not_reachable");
    agents.start("db", &[]);
    assert!(until(PATIENCE, || agents.texts("db") == ["first", "second"]), "{:?}", agents.texts("db"));
    // On the host the same is seen, with when it was delivered.
    let delivered = || {
        let host = agents.world.json(&["inbox", "db", "--json"]);
        host["messages"].as_array().unwrap().iter().filter(|line| line["delivered_at"].is_string()).count()
    };
    assert!(until(PATIENCE, || delivered() == 2));
    // A registration leaves every inbox as it was.
    assert_eq!(agents.texts("web"), Vec::<String>::new());
    agents.end();
}

#[test]
fn a_guest_with_a_key_is_told_from_the_others_and_may_be_demanded() {
    let world = World::new();
    let broker = world.broker(&[]);
    let mut agents = Agents { world, broker, running: vec![] };
    let token = agents.world.json(&["token", "issue", "keyed", "--json"]);
    let file = agents.world.secret("keyed.token", token["token"].as_str().unwrap());
    agents.start("keyed", &["--token-file", &file]);
    agents.start("plain", &[]);
    agents.start("strict", &["--require-authenticated"]);
    for name in ["keyed", "plain"] {
        assert_eq!(agents.world.castra(&["peer", "link", name, "strict"]).code, 0);
    }
    let sent = agents.json("keyed", &["peer", "send", "strict", "with a key", "--json"]);
    assert_eq!(sent["outcome"], "delivered");
    refused(&agents.inside("plain", &["peer", "send", "strict", "without"]), 5, "rejected");
    let inbox = agents.json("strict", &["inbox", "--json"]);
    assert_eq!(
        (agents.texts("strict"), &inbox["messages"][0]["from_authenticated"]),
        (vec!["with a key".to_owned()], &true.into())
    );
    agents.end();
}

#[test]
fn a_peer_may_bring_a_guest_back_and_has_no_other_power_over_it() {
    let world = World::new();
    std::fs::create_dir(world.state()).unwrap();
    let listen = format!("unix:{}", world.path("link.sock").display());
    let start = format!(
        "exec {} agent --name db --connect {listen} --socket {} --inbox {}",
        env!("CARGO_BIN_EXE_castra"),
        world.path("db.sock").display(),
        world.path("db.inbox").display()
    );
    let config = format!("[guests.db]\nstart = '''{start}'''\n");
    std::fs::write(world.path("state/castra.toml"), config).unwrap();
    let broker = world.broker(&["--listen", &listen]);
    let mut agents = Agents { world, broker, running: vec![] };
    agents.start("web", &[]);
    agents.start("third", &[]);
    refused(&agents.inside("web", &["restore", "db"]), 6, "unknown_guest");
    for pair in [["web", "db"], ["db", "third"]] {
        assert_eq!(agents.world.castra(&["peer", "link", pair[0], pair[1]]).code, 0);
    }
    let listed = agents.json("web", &["peers", "--json"]);
    assert_eq!(
        (&listed["peers"][1]["name"], &listed["peers"][1]["state"]),
        (&"db".into(), &"restorable".into())
    );
    let restored = agents.json("web", &["restore", "db", "--json"]);
    assert_eq!(restored, serde_json::json!({"guest": "db", "started": true}));
    // A peer's row, and in it nothing of its other peers; of a third nothing at all.
    let row = agents.json("web", &["status", "db", "--json"])["guests"][0].clone();
    assert_eq!((&row["state"], &row["peers"]), (&"reachable".into(), &serde_json::json!(["web"])));
    refused(&agents.inside("web", &["status", "third"]), 6, "unknown_guest");
    // What belongs to the operator stays his.
    for args in
        [&["forget", "db"][..], &["token", "issue", "db"], &["down"], &["peer", "link", "db", "third"]]
    {
        let ran = agents.inside("web", args);
        assert!(ran.code == 5 || ran.code == 2, "castra {args:?}: {ran:?}");
    }
    assert_eq!(agents.world.verdict("db"), "reachable");
    // Its own session outlives the broker; it ends by its own pid.
    agents.running.retain(|(name, _)| name != "db");
    let processes = agents.world.processes();
    let agent = processes.iter().find(|(_, line)| line.contains("--name db")).expect("it runs").0;
    kill_process(Pid::from_raw(agent as i32).unwrap(), Signal::TERM).unwrap();
    assert!(until(PATIENCE, || agents.world.processes().iter().all(|(pid, _)| *pid != agent)));
    agents.end();
}

#[test]
fn a_session_gives_a_peer_no_terminal_and_no_action() {
    let world = World::new();
    let broker = world.broker(&[]);
    let mut agents = Agents { world, broker, running: vec![] };
    agents.start("db", &[]);
    let mut link = Link::join(agents.broker.port(), "web");
    assert_eq!(agents.world.castra(&["peer", "link", "web", "db"]).code, 0);
    for kind in ["terminals", "action", "manager_handshake", "peer_inbox"] {
        link.send_frame(
            &serde_json::json!({"type": kind, "to": "db", "guest": "db", "payload": {}}).to_string(),
        );
        let answer = std::iter::from_fn(|| link.answer()).find(|frame| frame["type"] == "error").unwrap();
        assert_eq!((&answer["code"], &answer["of"]), (&"unknown-type".into(), &kind.into()));
    }
    agents.end();
}
