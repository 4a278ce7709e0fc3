//! A database that is gone, cut off, overwritten or changed by a bit: it is used whole,
//! or it is set aside loudly. Nothing is deleted, and nothing in it is believed in part.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::full::ended;
use crate::support::{Broker, PATIENCE, World};

/// A state directory with something to lose.
struct Victim {
    world: World,
    token: String,
    database: Vec<u8>,
    messages: Value,
}

impl Victim {
    /// Left in peace, or killed.
    fn new(killed: bool) -> Self {
        let world = World::new();
        let broker = world.broker(&["--guest", "builder", "--guest", "third"]);
        let token = world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
        world.secret("token", &token);
        for (a, b) in [("devbox", "builder"), ("builder", "third")] {
            assert_eq!(world.castra(&["peer", "link", a, b]).code, 0);
        }
        for number in 0..8 {
            let text = format!("{number} {}", "text ".repeat(40));
            assert_eq!(world.castra(&["peer", "send", "devbox", "builder", &text]).code, 0);
        }
        let messages = world.json(&["inbox", "builder", "--json"])["messages"].take();
        if killed {
            broker.process.kill();
        } else {
            assert_eq!(world.castra(&["down"]).code, 0);
        }
        let database = fs::read(world.state().join("state.redb")).unwrap();
        Self { world, token, database, messages }
    }

    fn place(&self) -> PathBuf {
        self.world.state().join("state.redb")
    }

    fn aside(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.world.state()).unwrap().flatten().map(|entry| entry.path());
        let found =
            |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("state.redb.damaged-");
        entries.filter(found).collect()
    }

    /// Everything is as it was, but for this many of the newest commits.
    fn lacks(&self, broker: &Broker) -> Option<usize> {
        let names = |guest| {
            let peers = self.world.json(&["peers", guest, "--json"])["peers"].take();
            peers.as_array().unwrap().iter().map(|row| row["name"].clone()).collect::<Vec<_>>()
        };
        let messages = self.world.json(&["inbox", "builder", "--json"])["messages"].take();
        let (found, all) = (messages.as_array().unwrap(), self.messages.as_array().unwrap());
        let tokens = self.world.json(&["token", "list", "--json"])["tokens"].take();
        let sound = names("builder") == ["builder", "devbox", "third"]
            && all.starts_with(found)
            && tokens == json!([{"guest": "devbox", "valid": true}])
            && self.guest(broker, true).0 == 0;
        sound.then(|| all.len() - found.len())
    }

    /// How a guest with, or without, the token ends that wants to be proven once.
    fn guest(&self, broker: &Broker, keyed: bool) -> (i32, String) {
        let token = self.world.path("token");
        let mut args = vec!["--once", "--timeout", "2s"];
        if keyed {
            args.extend(["--token-file", token.to_str().unwrap()]);
        }
        let ran = self.world.agent("devbox", broker.address(), &args).finish(PATIENCE);
        (ran.code, ran.err)
    }

    /// Starts over this file. It is used, and then it says how many of the newest commits
    /// are missing; or it is set aside, and said so.
    fn survives(&self, content: &[u8], what: &str) -> Option<usize> {
        fs::write(self.place(), content).unwrap();
        let broker = self.world.broker(&["--guest", "builder", "--guest", "third"]);
        let aside = self.aside();
        let mut used = None;
        if aside.is_empty() {
            let lacks = self.lacks(&broker);
            assert!(lacks.is_some(), "{what}: believed, and not what it was");
            used = lacks;
        } else {
            assert_eq!(aside.len(), 1);
            self.says_what_is_lost(&broker, what);
            fs::remove_file(&aside[0]).unwrap();
        }
        broker.process.kill();
        used
    }

    fn says_what_is_lost(&self, broker: &Broker, what: &str) {
        broker.process.err.after(0, "not known any more", PATIENCE);
        let ran = self.guest(broker, true);
        assert_eq!(ran.0, 5, "{what}: {}", ran.1);
        assert!(ran.1.contains("castra token issue"), "{what}: {}", ran.1);
        let ran = self.guest(broker, false);
        assert_eq!(ran.0, 5, "{what}: whoever has no token takes the name: {}", ran.1);
        let status = self.world.json(&["status", "--json"]);
        let guests = status["guests"].as_array().unwrap();
        assert!(guests.iter().all(|guest| guest["reachable"] == false), "{what}: {status}");
    }
}

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn rounds() -> usize {
    std::env::var("CASTRA_DAMAGES").map_or(12, |rounds| rounds.parse().unwrap())
}

#[test]
fn a_database_with_flipped_bits_is_used_whole_or_not_at_all() {
    for killed in [false, true] {
        let victim = Victim::new(killed);
        let used: Vec<usize> =
            (0..victim.database.len()).filter(|place| victim.database[*place] != 0).collect();
        let mut dice = Dice(u64::from(killed));
        let (mut whole, mut back) = (0, 0);
        for _ in 0..rounds() {
            let mut content = victim.database.clone();
            // Where there is something, and now and then anywhere.
            let place =
                if dice.below(8) > 0 { used[dice.below(used.len())] } else { dice.below(content.len()) };
            let bit = dice.below(8);
            content[place] ^= 1 << bit;
            match victim.survives(&content, &format!("killed {killed}: bit {bit} of byte {place}")) {
                None => {}
                Some(0) => whole += 1,
                // After a crash redb can't tell what a bit changed in the newest commit from
                // one that was cut short, and takes the one before; it never takes a part.
                Some(1) if killed => back += 1,
                Some(lost) => {
                    panic!("killed {killed}: bit {bit} of byte {place}: {lost} commits are lost in silence")
                }
            }
        }
        let (rounds, aside) = (rounds(), rounds() - whole - back);
        eprintln!(
            "killed {killed}: {rounds} bits: {whole} made no difference, {aside} set it aside, {back} one commit back"
        );
        assert_eq!(victim.survives(&victim.database, "untouched"), Some(0));
    }
}

#[test]
fn a_database_that_is_cut_off_or_garbage_is_set_aside_and_kept() {
    let victim = Victim::new(false);
    let length = victim.database.len();
    let zeros = |from: usize, count: usize| {
        let mut content = victim.database.clone();
        content[from..from + count].fill(0);
        content
    };
    let noise: Vec<u8> = {
        let mut dice = Dice(7);
        (0..length).map(|_| dice.below(256) as u8).collect()
    };
    let mut cases = vec![
        ("garbage", noise),
        ("text", b"no database\n".to_vec()),
        ("one byte", vec![0x72]),
        ("an empty header", zeros(0, 4096)),
        ("half zeros", zeros(4096, length - 4096)),
    ];
    for (what, bytes) in
        [("cut in the header", 100), ("cut behind it", 4096), ("cut in the middle", length / 2 + 1)]
    {
        cases.push((what, victim.database[..bytes].to_vec()));
    }
    for (what, content) in cases {
        fs::write(victim.place(), &content).unwrap();
        let broker = victim.world.broker(&[]);
        let [aside] = &victim.aside()[..] else { panic!("{what}: {:?}", victim.aside()) };
        assert_eq!(fs::read(aside).unwrap().len(), content.len(), "{what}");
        victim.says_what_is_lost(&broker, what);
        fs::remove_file(aside).unwrap();
        broker.process.kill();
    }
}

#[test]
fn a_database_that_is_missing_or_empty_is_said_and_its_names_stay_keyed() {
    let victim = Victim::new(false);
    for what in ["missing", "empty"] {
        fs::remove_file(victim.place()).unwrap();
        if what == "empty" {
            fs::write(victim.place(), "").unwrap();
        }
        let broker = victim.world.broker(&[]);
        victim.says_what_is_lost(&broker, what);
        // A new token, and everything is well again.
        let token = victim.world.json(&["token", "issue", "devbox", "--json"])["token"].clone();
        assert_ne!(token, json!(victim.token));
        victim.world.secret("token", token.as_str().unwrap());
        assert_eq!(victim.guest(&broker, true).0, 0);
        broker.process.kill();
        victim.world.secret("token", &victim.token);
    }
}

#[test]
fn what_is_no_file_in_the_databases_place_is_named_and_left_alone() {
    let victim = Victim::new(false);
    let start = || victim.world.castra(&["broker", "--listen", "tcp:127.0.0.1:0"]);
    fs::remove_file(victim.place()).unwrap();
    fs::create_dir(victim.place()).unwrap();
    ended(&start(), 70, &["state.redb"]);
    assert!(victim.place().is_dir());
    fs::remove_dir(victim.place()).unwrap();
    let elsewhere = victim.world.path("elsewhere.redb");
    fs::write(&elsewhere, &victim.database).unwrap();
    std::os::unix::fs::symlink(&elsewhere, victim.place()).unwrap();
    ended(&start(), 70, &["state.redb"]);
    assert_eq!(fs::read(&elsewhere).unwrap(), victim.database);
    assert_eq!(victim.world.castra(&["status"]).code, 3);
}
