//! Terminals that the broker serves: created, written to, read without a gap, ended and killed.

use crate::flood::flooded;
use crate::load::{Load, Random, Site};
use crate::promises::Echoes;
use crate::support::{PATIENCE, until};
use crate::terminals_client::Client;
use crate::wire::{bin, fields, flag, number, sh, text};

/// Running at the same time.
const MOST: usize = 4;
/// Ended ones that are looked for in later lives.
const REMEMBERED: usize = 6;

const FLOOD: &str = "i=0; while :; do seq -f %015.0f $i $((i + 499)); i=$((i + 500)); sleep 0.2; done";
const ECHO: &str = "stty -echo; echo ready; while read line; do echo \"<$line>\"; done";

pub(crate) struct Terminals {
    random: Random,
    client: Option<Client>,
    running: Vec<Terminal>,
    /// Keys and codes.
    ended: Vec<(String, i64)>,
    /// Keys of those that could not be created.
    refused: Vec<String>,
    created: u64,
    holders_killed: u64,
    /// The same, when this life began.
    holders_before: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Flood,
    Echo,
    /// Waits for a line, and ends with that code.
    Exit(i64),
}

struct Terminal {
    key: String,
    kind: Kind,
    /// Known once it was told to be there.
    id: Option<u64>,
    pid: Option<u64>,
    /// Where its next output begins.
    offset: u64,
    /// Output that isn't a line yet, except a flood's.
    part: Vec<u8>,
    ready: bool,
    /// Its shell had last words.
    told: bool,
    echoes: Echoes,
    /// Its end was asked for: perhaps in vain.
    may_end: bool,
    /// Its end was promised.
    must_end: bool,
    /// By a kill.
    killed: bool,
    /// Its holder was killed.
    excused: bool,
    code: Option<i64>,
}

impl Terminals {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            client: None,
            running: vec![],
            ended: vec![],
            refused: vec![],
            created: 0,
            holders_killed: 0,
            holders_before: 0,
        }
    }

    /// Takes what has come, and compares it.
    fn drain(&mut self, site: &Site) {
        self.excuse(site);
        let Some(client) = &mut self.client else { return };
        for event in client.take_events() {
            let session = number(&event, "session");
            let Some(terminal) = self.running.iter_mut().find(|terminal| terminal.id == Some(session)) else {
                let known = matches!(text(&event, "type"), "output" | "exit");
                assert!(!known, "a word after the last: {event}");
                continue;
            };
            match text(&event, "type") {
                "output" => {
                    let data = event["data"].as_slice().unwrap();
                    terminal.output(number(&event, "offset"), data);
                    site.add("terminals: bytes compared", data.len());
                }
                "exit" => {
                    assert!(terminal.code.is_none(), "a second exit: {event}");
                    terminal.code = event["code"].as_i64();
                }
                "resync" => panic!("broken promise: output of {} is skipped: {event}", terminal.key),
                _ => {}
            }
        }
        let over: Vec<_> = self.running.extract_if(.., |terminal| terminal.code.is_some()).collect();
        for terminal in over {
            terminal.check_end();
            site.count(if terminal.excused { "terminals: lost their holder" } else { "terminals: ended" });
            self.ended.push((terminal.key, terminal.code.unwrap()));
        }
        let old = self.ended.len().saturating_sub(REMEMBERED);
        self.ended.drain(..old);
    }

    /// A holder that is killed takes its programs along.
    fn excuse(&mut self, site: &Site) {
        let killed = site.times_ended("holder");
        if killed != self.holders_killed {
            self.holders_killed = killed;
            self.running.iter_mut().for_each(|terminal| terminal.excused = true);
        }
    }

    fn create(&mut self, site: &Site) -> Option<()> {
        self.created += 1;
        let kind = match self.random.below(4) {
            0 => Kind::Flood,
            1 | 2 => Kind::Echo,
            _ => Kind::Exit(self.random.below(100) as i64 + 1),
        };
        let script = match kind {
            Kind::Flood => FLOOD.to_owned(),
            Kind::Echo => ECHO.to_owned(),
            Kind::Exit(code) => format!("echo ready; read line; exit {code}"),
        };
        let key = format!("t{}", self.created);
        self.running.push(Terminal::new(key.clone(), kind));
        let client = self.client.as_mut()?;
        let wanted =
            fields! { "session_key" => key, "command" => sh(&script), "exclusive" => true, "cwd" => "/" };
        let created = client.request("create_or_attach", wanted)?;
        let Ok(reply) = created else {
            let holder = site.times_ended("holder") != self.holders_before;
            assert!(holder, "{created:?}");
            // Refused: it is never there.
            self.refused.push(self.running.pop().unwrap().key);
            return Some(());
        };
        let id = number(&reply, "session");
        self.running.last_mut().unwrap().id = Some(id);
        site.count("terminals: created");
        let attached = client.request("attach", fields! { "session" => id, "resume_from" => 0 })?;
        assert!(attached.is_ok() || site.times_ended("holder") != self.holders_before, "{attached:?}");
        Some(())
    }

    /// Types a line into a terminal, and whether it is certainly there.
    fn types(&mut self, chosen: usize) -> Option<bool> {
        let terminal = &mut self.running[chosen];
        let line = match terminal.kind {
            Kind::Echo => format!("{}\n", terminal.echoes.asks()),
            _ => {
                terminal.may_end = true;
                "\n".to_owned()
            }
        };
        let (id, client) = (terminal.id.unwrap(), self.client.as_mut()?);
        let given = client.request("input", fields! { "session" => id, "data" => bin(line) })?;
        let there = given.is_ok() && client.request("flush", fields! { "session" => id })?.is_ok();
        Some(there)
    }

    fn write(&mut self, site: &Site, chosen: usize) -> Option<()> {
        let there = self.types(chosen)?;
        let terminal = &mut self.running[chosen];
        if there {
            match terminal.kind {
                Kind::Echo => terminal.echoes.arrived(terminal.echoes.newest()),
                _ => terminal.must_end = true,
            }
            site.count("terminals: lines typed");
        }
        Some(())
    }

    fn kill(&mut self, site: &Site, chosen: usize) -> Option<()> {
        let terminal = &mut self.running[chosen];
        terminal.may_end = true;
        let session = fields! { "session" => terminal.id.unwrap() };
        if self.client.as_mut()?.request("kill", session)?.is_ok() {
            self.running[chosen].must_end = true;
            self.running[chosen].killed = true;
            site.count("terminals: killed");
        }
        Some(())
    }
}

impl Terminal {
    fn new(key: String, kind: Kind) -> Self {
        Self {
            key,
            kind,
            id: None,
            pid: None,
            offset: 0,
            part: vec![],
            ready: false,
            told: false,
            echoes: Echoes::default(),
            may_end: false,
            must_end: false,
            killed: false,
            excused: false,
            code: None,
        }
    }

    #[track_caller]
    fn output(&mut self, offset: u64, data: &[u8]) {
        assert_eq!(offset, self.offset, "broken promise: output of {} is not where it should be", self.key);
        self.offset += data.len() as u64;
        if self.kind == Kind::Flood {
            // The shell may tell of the program that was hung up just before itself.
            let foreign = |byte: &u8| !byte.is_ascii_digit() && !byte.is_ascii_whitespace();
            let last = data.iter().position(foreign).filter(|_| self.may_end || self.excused);
            if !self.told {
                let right = flooded(offset, &data[..last.unwrap_or(data.len())]);
                assert!(right.is_ok(), "broken promise: output of {}: {right:?}", self.key);
            }
            self.told |= last.is_some();
            return;
        }
        self.part.extend_from_slice(data);
        while let Some(end) = self.part.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            let echo = line.strip_prefix('<').and_then(|line| line.strip_suffix(">\r\n"));
            match echo {
                Some(number) => self.echoes.heard(number.parse().unwrap()),
                None if line == "ready\r\n" => {
                    assert!(!self.ready, "broken promise: {} began twice", self.key);
                    self.ready = true;
                }
                // The line that ends it, echoed.
                None => {
                    assert!(line == "\r\n" && matches!(self.kind, Kind::Exit(_)), "{}: {line:?}", self.key)
                }
            }
        }
    }

    fn check_end(&self) {
        let (key, code) = (&self.key, self.code.unwrap());
        if self.excused {
            return;
        }
        assert!(self.may_end, "broken promise: {key} ended with {code}, and nobody asked for that");
        if let (Kind::Exit(expected), true) = (self.kind, self.must_end) {
            assert!(
                code == expected || code > 128,
                "broken promise: {key} ended with {expected}, told is {code}"
            );
        }
        assert_ne!(code, -1, "broken promise: nobody knows how {key} ended");
    }
}

impl Load for Terminals {
    fn check(&mut self, site: &Site) {
        self.client = None;
        self.excuse(site);
        self.holders_before = self.holders_killed;
        let mut client =
            Client::connect(site).expect("the terminals are served before the broker says that it is ready");
        let rows = client.request("list", vec![]).unwrap().unwrap()["sessions"].as_array().unwrap().clone();
        let find = |key: &str| rows.iter().find(|row| row["session_key"].as_str() == Some(key));
        for (key, code) in &self.ended {
            let row = find(key).unwrap_or_else(|| panic!("broken promise: {key}, which ended, is forgotten"));
            assert!(!flag(row, "is_alive"), "broken promise: {key} ended, and is alive: {row}");
            assert!(
                row["exit_code"].as_i64() == Some(*code),
                "broken promise: {key} ended with {code}: {row}"
            );
        }
        for key in &self.refused {
            assert!(find(key).is_none_or(|row| !flag(row, "is_alive")), "broken promise: {key} was refused");
        }
        self.running.retain_mut(|terminal| {
            let Some(row) = find(&terminal.key) else {
                assert!(terminal.id.is_none(), "broken promise: {} is gone", terminal.key);
                return false;
            };
            let (id, pid) = (number(row, "id"), number(row, "pid"));
            assert_eq!(*terminal.id.get_or_insert(id), id, "{row}");
            // It was created after that, on the next holder.
            terminal.excused &= !flag(row, "is_alive");
            if !terminal.excused {
                assert_eq!(*terminal.pid.get_or_insert(pid), pid, "broken promise: another process: {row}");
                if flag(row, "is_alive") {
                    assert_eq!(row["recovery"].as_str(), Some("adopted"), "{row}");
                }
            }
            let from = fields! { "session" => id, "resume_from" => terminal.offset };
            let reply = client.request("attach", from).unwrap().unwrap();
            let at = (flag(&reply, "resumed"), number(&reply, "offset"));
            // One that ended has its last screen, and its output as long as nobody needs the room.
            let kept = at == (true, terminal.offset);
            let free = terminal.excused || !flag(row, "is_alive");
            assert!(kept || free, "broken promise: {} lost output: {reply} {row}", terminal.key);
            if !kept {
                terminal.offset = at.1;
                terminal.part.clear();
            }
            site.count("terminals: adopted");
            true
        });
        self.client = Some(client);
        // What was promised to end does.
        let ended = until(PATIENCE, || {
            self.client.as_mut().unwrap().request("list", vec![]).unwrap().unwrap();
            self.drain(site);
            !self.running.iter().any(|terminal| terminal.must_end || terminal.excused)
        });
        if !ended {
            let rows = self.client.as_mut().unwrap().request("list", vec![]);
            let left = self.running.iter().filter(|terminal| terminal.must_end || terminal.excused);
            let left: Vec<_> = left
                .map(|terminal| (&terminal.key, terminal.kind, terminal.killed, terminal.excused))
                .collect();
            panic!("broken promise: {left:?} never end: {rows:?}");
        }
    }

    fn step(&mut self, site: &Site) -> Option<()> {
        if self.client.is_none() {
            self.client = Some(Client::connect(site)?);
        }
        let usable: Vec<_> = (0..self.running.len())
            .filter(|index| self.running[*index].id.is_some() && !self.running[*index].must_end)
            .collect();
        let writable: Vec<_> = usable
            .iter()
            .copied()
            .filter(|index| self.running[*index].ready && !self.running[*index].may_end)
            .collect();
        let kind = self.random.below(64);
        let some = |random: &mut Random, of: &[usize]| of[random.below(of.len() as u64) as usize];
        match kind {
            0..=5 if self.running.len() < MOST => self.create(site)?,
            6 if !usable.is_empty() => {
                let chosen = some(&mut self.random, &usable);
                self.kill(site, chosen)?;
            }
            7..=31 if !writable.is_empty() => {
                let chosen = some(&mut self.random, &writable);
                let ends = matches!(self.running[chosen].kind, Kind::Exit(_));
                if !ends || self.random.one_in(12) {
                    self.write(site, chosen)?;
                }
            }
            _ => {
                self.client.as_mut()?.request("list", vec![])?.unwrap();
            }
        }
        self.drain(site);
        Some(())
    }

    fn end(&mut self, site: &Site) {
        let complete = until(PATIENCE, || {
            self.client.as_mut().unwrap().request("list", vec![]).unwrap().unwrap();
            self.drain(site);
            self.running.iter().all(|terminal| terminal.echoes.complete())
        });
        assert!(complete, "broken promise: what was typed is not echoed");
        let client = self.client.as_mut().unwrap();
        client.request("kill_all", vec![]).unwrap().unwrap();
        self.running.iter_mut().for_each(|terminal| terminal.may_end = true);
        let over = until(PATIENCE, || {
            self.client.as_mut().unwrap().request("list", vec![]).unwrap().unwrap();
            self.drain(site);
            self.running.is_empty()
        });
        assert!(over, "{} terminals live on", self.running.len());
        self.client = None;
    }
}
