//! A broker and its guests in network namespaces: packets are lost, everything is
//! swallowed, the interface goes down. `CASTRA_NETNS=required`: it must be possible.

use std::time::Duration;

use serde_json::{Value, json};

use crate::network::{BROKER, Means, Network, Weather};
use crate::site::end_terminals;
use crate::support::{PATIENCE, Process, Watch, World, Yardstick, until, verdict, wall_ms};

const NAMES: [&str; 2] = ["web", "db"];
const WINDOW: i64 = 3000;
const LINES: usize = 3000;
const PROGRAM: &str = "i=0; while [ $i -lt 3000 ]; do echo \"line $i\"; i=$((i + 1)); done; sleep 2";

struct Scene {
    agents: Vec<Process>,
    _broker: Process,
    network: Network,
    world: World,
}

impl Scene {
    fn new(network: Network) -> Self {
        let world = World::new();
        let listen = format!("tcp:{BROKER}:0");
        let args = ["broker", "--json", "--listen", &listen, "--window", "3s", "--interval", "1s"];
        let broker = Process::spawn(network.beside_the_broker(&world.command(&args)));
        let ready: Value = serde_json::from_str(&broker.out.first(PATIENCE)).unwrap();
        let address = ready["listen"][0].as_str().unwrap().to_owned();
        let mut agents = vec![];
        for name in NAMES {
            let token = world.json(&["token", "issue", name, "--json"])["token"].as_str().unwrap().to_owned();
            let token = world.secret(name, &token);
            let [socket, inbox] = ["sock", "inbox"].map(|end| world.path(&format!("{name}.{end}")));
            let mut args = vec!["agent", "--name", name, "--connect", &address, "--token-file", &token];
            args.extend(["--socket", socket.to_str().unwrap(), "--inbox", inbox.to_str().unwrap()]);
            if name == "db" {
                args.extend(["--exec", "/bin/sh", "-c", PROGRAM]);
            }
            agents.push(Process::spawn(network.beside_the_guests(&world.command(&args))));
        }
        Self { agents, _broker: broker, network, world }
    }

    fn reachable(&self) {
        let ran = self.world.castra(&[&["wait", "--timeout", "40s"], &NAMES[..]].concat());
        assert_eq!(ran.code, 0, "{ran:?}\n{}", self.world.log());
    }

    /// Takes both guests away, looks how soon that is seen, and brings them back.
    fn away(&self, what: &str, go: impl Fn(), come: impl Fn()) {
        self.reachable();
        let socket = self.world.state().join("control.sock");
        let watches = NAMES.map(|name| Watch::of(&socket, name));
        let yardstick = Yardstick::start();
        go();
        let gone = wall_ms();
        self.world.wait(&NAMES, "waiting");
        for name in NAMES {
            let row = self.world.row(name);
            assert_eq!(verdict(&row), "waiting/stale", "{what}: {row}");
            assert!(row["session_age_ms"].is_u64(), "{what}: the connection stays open: {row}");
        }
        std::thread::sleep(Duration::from_millis(500));
        let back = wall_ms();
        come();
        let late = yardstick.finish() as i64;
        for (name, watch) in NAMES.iter().zip(watches) {
            let seen = watch.finish();
            let last = seen.iter().rfind(|(when, row)| row["reachable"] == true && *when < back);
            let last = last.expect("it was reachable").0 - gone;
            println!("{what}: {name} was last said to be reachable {last} ms after, late by {late} ms");
            assert!(last <= WINDOW + 150 + 2 * late, "{what}: {name} {last} ms after, late by {late} ms");
        }
        self.reachable();
        println!("{what}: reachable again {} ms after its end", wall_ms() - back);
        for name in NAMES {
            assert_eq!(self.world.castra(&["ping", name, "-c", "1", "--timeout", "5s"]).code, 0, "{name}");
        }
    }

    fn end(self) {
        self.agents.into_iter().for_each(Process::kill);
        end_terminals(&self.world);
    }
}

#[test]
fn over_a_network_that_loses_every_tenth_packet_guests_come_talk_and_serve_terminals() {
    let Some(network) = Network::new() else { return };
    if network.means() == Means::Cable {
        println!("NOT TESTED: loss of packets, for which this machine lacks both tc netem and nft");
        return;
    }
    network.be(Weather::Lossy);
    let scene = Scene::new(network);
    scene.reachable();
    let world = &scene.world;
    assert_eq!(world.castra(&["peer", "link", "web", "db"]).code, 0);
    let send = |number: usize| {
        let params = json!({"from": "web", "to": "db", "text": format!("{number}"), "timeout_ms": 200});
        let sent = world.control().ask("send_to_peer", &params).unwrap().unwrap();
        assert!(matches!(sent["outcome"].as_str(), Some("delivered" | "queued")), "{sent}");
    };
    (0..30).for_each(send);
    let log = world.castra(&["term", "log", "db/main", "-f"]);
    let expected: String = (0..LINES).map(|line| format!("line {line}\r\n")).collect();
    assert_eq!(log.code, 0, "{}", log.err);
    assert!(log.out == expected, "{} of {} bytes, or others: {}", log.out.len(), expected.len(), log.err);
    let texts = || {
        let ran = world.castra(&["inbox", "--json", "--socket", world.path("db.sock").to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let messages = ran.json()["messages"].take();
        let texts = messages.as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().to_owned());
        texts.collect::<Vec<_>>()
    };
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    assert!(until(PATIENCE, || texts().len() >= 30), "{:?}", texts());
    assert_eq!(texts(), expected, "each once, and in order");
    scene.reachable();
    scene.end();
}

#[test]
fn a_network_that_swallows_everything_or_is_down_is_seen_in_a_window_and_guests_return_after_it() {
    let Some(network) = Network::new() else { return };
    let scene = Scene::new(network);
    let network = &scene.network;
    scene.away("blackhole", || network.be(Weather::Blackhole), || network.be(Weather::Fine));
    scene.away("interface down", || network.switch(false), || network.switch(true));
    scene.end();
}
