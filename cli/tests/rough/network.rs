//! A network of the test's own: two namespaces and a cable between them that can lose,
//! delay and swallow packets. The namespaces are held by processes, so nothing of them
//! outlives the test, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// Where the broker is, from the guests.
pub(crate) const BROKER: &str = "10.77.0.1";
const GUESTS: &str = "10.77.0.2";
/// The cable's ends.
const ENDS: [&str; 2] = ["castra0", "castra1"];

pub(crate) struct Network {
    /// The broker's and the guests'.
    spaces: [Space; 2],
    /// The test is root only inside them.
    user: bool,
    means: Means,
}

/// A namespace lives as long as the process that was born in it.
struct Space(Child);

/// What this kernel can do to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// `tc netem`.
    Netem,
    /// A filter that drops at random, and a slow queue.
    Filter,
    /// The cable can be unplugged at the guests' end, and nothing else.
    Cable,
}

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    Lossy,
    /// Everything is swallowed, and nobody is told.
    Blackhole,
}

impl Network {
    /// `None`: this machine can't; it is said why, and is a failure if `CASTRA_NETNS=required`.
    pub(crate) fn new() -> Option<Self> {
        let required = std::env::var_os("CASTRA_NETNS").is_some_and(|value| value == "required");
        match Self::build() {
            Ok(network) if network.means == Means::Cable && required => {
                panic!("neither tc netem nor nft can lose a packet here")
            }
            Ok(network) => {
                println!("packets are lost by {:?}", network.means);
                Some(network)
            }
            Err(error) if required => panic!("no network of one's own: {error}"),
            Err(error) => {
                println!("NOT TESTED: no network of one's own, for {error}");
                None
            }
        }
    }

    fn build() -> Result<Self, String> {
        let user = !rustix::process::geteuid().is_root();
        let mut first = Command::new("unshare");
        if user {
            first.args(["--user", "--map-root-user"]);
        }
        first.args(["--net", "cat"]);
        let first = Space::of(first)?;
        let mut second = if user { enter(&first, true) } else { Command::new("unshare") };
        if user {
            second.arg("unshare");
        }
        second.args(["--net", "cat"]);
        let second = Space::of(second)?;
        let guests = second.0.id().to_string();
        let mut network = Self { spaces: [first, second], user, means: Means::Cable };
        let veth =
            ["link", "add", ENDS[0], "type", "veth", "peer", "name", ENDS[1], "netns", guests.as_str()];
        network.run(0, "ip", &veth)?;
        for (space, address) in [BROKER, GUESTS].into_iter().enumerate() {
            let address = format!("{address}/24");
            network.run(space, "ip", &["address", "add", &address, "dev", ENDS[space]])?;
            for device in ["lo", ENDS[space]] {
                network.run(space, "ip", &["link", "set", device, "up"])?;
            }
        }
        for means in [Means::Netem, Means::Filter] {
            network.means = means;
            match network.try_be(Weather::Lossy).and_then(|()| network.try_be(Weather::Fine)) {
                Ok(()) => return Ok(network),
                Err(error) => println!("not by {means:?}: {error}"),
            }
        }
        network.means = Means::Cable;
        Ok(network)
    }

    pub(crate) const fn means(&self) -> Means {
        self.means
    }

    /// The same command on the broker's side of the cable.
    pub(crate) fn beside_the_broker(&self, command: &Command) -> Command {
        self.within(0, command)
    }

    /// The same command on the guests' side.
    pub(crate) fn beside_the_guests(&self, command: &Command) -> Command {
        self.within(1, command)
    }

    /// From now on the network is so.
    pub(crate) fn be(&self, weather: Weather) {
        self.try_be(weather).unwrap();
    }

    /// The broker's end of the cable is switched off, or on.
    pub(crate) fn switch(&self, on: bool) {
        self.run(0, "ip", &["link", "set", ENDS[0], if on { "up" } else { "down" }]).unwrap();
    }

    fn try_be(&self, weather: Weather) -> Result<(), String> {
        for (space, device) in ENDS.into_iter().enumerate() {
            match self.means {
                Means::Netem => {
                    let root = ["dev", device, "root"];
                    let lossy = "netem delay 20ms 10ms loss 10% reorder 5%";
                    let how = match weather {
                        Weather::Fine => "",
                        Weather::Lossy => lossy,
                        Weather::Blackhole => "netem loss 100%",
                    };
                    // There may be none to delete.
                    let _ = self.run(space, "tc", &[&["qdisc", "delete"], &root[..]].concat());
                    if !how.is_empty() {
                        let how: Vec<&str> = how.split(' ').collect();
                        self.run(space, "tc", &[&["qdisc", "add"], &root[..], &how].concat())?;
                    }
                }
                Means::Filter => {
                    let rule = match weather {
                        Weather::Fine => "",
                        Weather::Lossy => "numgen random mod 100 < 10 drop",
                        Weather::Blackhole => "drop",
                    };
                    let hook = format!("type filter hook ingress device {device} priority 0; policy accept;");
                    // Made, so that it can be deleted; and then made as it has to be.
                    let table = format!(
                        "table netdev castra {{ }}\ndelete table netdev castra\n\
                         table netdev castra {{\nchain in {{\n{hook}\n{rule}\n}}\n}}\n"
                    );
                    self.run(space, "nft", &[&table])?;
                    // A queue that is too short for the burst, so that packets wait. Not every kernel has it.
                    let _ = self.run(space, "tc", &["qdisc", "delete", "dev", device, "root"]);
                    if weather == Weather::Lossy {
                        let how = ["tbf", "rate", "4mbit", "burst", "4kb", "latency", "200ms"];
                        let _ = self.run(
                            space,
                            "tc",
                            &[&["qdisc", "add", "dev", device, "root"], &how[..]].concat(),
                        );
                    }
                }
                Means::Cable if space == 1 => {
                    let state = if weather == Weather::Blackhole { "down" } else { "up" };
                    self.run(space, "ip", &["link", "set", device, state])?;
                }
                Means::Cable => {}
            }
        }
        Ok(())
    }

    fn within(&self, space: usize, command: &Command) -> Command {
        let mut inside = enter(&self.spaces[space], self.user);
        inside.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    fn run(&self, space: usize, program: &str, args: &[&str]) -> Result<(), String> {
        let output = enter(&self.spaces[space], self.user).arg(program).args(args).output();
        let output = output.map_err(|error| format!("nsenter: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Space {
    fn of(mut command: Command) -> Result<Self, String> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut space = Self(spawned.map_err(|error| format!("{command:?}: {error}"))?);
        // An echo comes from inside.
        let _ = space.0.stdin.as_ref().unwrap().write_all(b"inside\n");
        let mut line = String::new();
        let _ = BufReader::new(space.0.stdout.as_mut().unwrap()).read_line(&mut line);
        if line == "inside\n" {
            return Ok(space);
        }
        drop(space.0.stdin.take());
        let _ = BufReader::new(space.0.stderr.as_mut().unwrap()).read_line(&mut line);
        Err(format!("{command:?}: {}", line.trim()))
    }
}

/// Its process ends by itself when this one is gone; here nobody waits for that.
impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs what comes after it inside; it becomes that program, with the same process id.
fn enter(space: &Space, user: bool) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &space.0.id().to_string(), "--net"]);
    if user {
        command.args(["--user", "--preserve-credentials"]);
    }
    command
}
