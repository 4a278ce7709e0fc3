//! The loop: one thread, one `poll`, nothing that blocks.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Options;
use super::door::Door;
use super::packet::{Packet, receive};
use super::terminal::{GATHER, Refused, Terminal};
use super::wire::{PACKET_MAX, Report, Request};

/// After a hang-up for all, until KILL.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often survivors of that hang-up are looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Packets that wait for a daemon, above which it is not read.
const QUEUE_MAX: usize = 1024;
/// Packets read of a daemon before the terminals' turn.
const BATCH: usize = 64;
/// Until connections are accepted again after descriptors ran out.
const BREATH: Duration = Duration::from_secs(1);

/// Serves until nothing is left to do. See [`super::serve`].
pub(super) fn run(door: Door, options: Options) -> io::Result<()> {
    let now = Instant::now();
    let mut it = Serve {
        door,
        options,
        terminals: BTreeMap::new(),
        released: Vec::new(),
        daemon: None,
        guest: None,
        alone: Some(now),
        checked: false,
        ending: None,
        accepts: now,
        packet: Box::new([0; PACKET_MAX]),
        gathered: vec![0; GATHER].into_boxed_slice(),
    };
    while !it.is_done(Instant::now()) {
        let ready = it.wait()?;
        it.turn(&ready)?;
    }
    Ok(())
}

pub(super) struct Serve {
    pub(super) door: Door,
    pub(super) options: Options,
    pub(super) terminals: BTreeMap<u32, Terminal>,
    /// Programs whose terminals are forgotten: they are still to be buried.
    pub(super) released: Vec<Terminal>,
    pub(super) daemon: Option<Connection>,
    /// Who has not said yet that it is a daemon.
    pub(super) guest: Option<Connection>,
    /// Since when there has been no daemon.
    pub(super) alone: Option<Instant>,
    /// Whether the way to the socket was looked at since.
    pub(super) checked: bool,
    /// Since when it ends, and whether what is left was killed.
    pub(super) ending: Option<(Instant, bool)>,
    /// From when on connections are accepted.
    pub(super) accepts: Instant,
    pub(super) packet: Box<[u8; PACKET_MAX]>,
    pub(super) gathered: Box<[u8]>,
}

pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) queue: VecDeque<Packet>,
}

/// What [`Serve::wait`] found ready.
#[derive(Clone, Copy)]
enum Ready {
    Stop,
    Door,
    Daemon(PollFlags),
    Guest,
    Master(u32, PollFlags),
    Ended(u32),
    Released,
}

impl Serve {
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let now = Instant::now();
        let (mut fds, mut which) = (Vec::new(), Vec::new());
        let mut add = |fd, flags, ready| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            which.push(ready);
        };
        if let (Some(stop), None) = (&self.options.stop, self.ending) {
            add(stop.as_fd(), PollFlags::IN, Ready::Stop);
        }
        if self.accepts <= now {
            add(self.door.as_fd(), PollFlags::IN, Ready::Door);
        }
        if let Some(daemon) = &self.daemon {
            let mut flags = PollFlags::empty();
            if daemon.queue.len() < QUEUE_MAX {
                flags |= PollFlags::IN;
            }
            if !daemon.queue.is_empty() {
                flags |= PollFlags::OUT;
            }
            add(daemon.socket.as_fd(), flags, Ready::Daemon(PollFlags::empty()));
        }
        if let Some(guest) = &self.guest {
            add(guest.socket.as_fd(), PollFlags::IN, Ready::Guest);
        }
        for (&number, terminal) in &self.terminals {
            if let Some((master, flags)) = terminal.interest() {
                add(master, flags, Ready::Master(number, PollFlags::empty()));
            }
            if let Some(handle) = terminal.handle() {
                add(handle, PollFlags::IN, Ready::Ended(number));
            }
        }
        for handle in self.released.iter().filter_map(Terminal::handle) {
            add(handle, PollFlags::IN, Ready::Released);
        }
        let timeout = self.deadline().map(|at| {
            let left = at.saturating_duration_since(now);
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let found = fds.iter().zip(which).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(found
            .map(|(fd, ready)| match ready {
                Ready::Master(number, _) => Ready::Master(number, fd.revents()),
                Ready::Daemon(_) => Ready::Daemon(fd.revents()),
                other => other,
            })
            .collect())
    }

    /// The next moment at which something is due without a word about it.
    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let drains = self.terminals.values().filter_map(Terminal::deadline);
        let lingers = self.alone.filter(|_| !self.checked).map(|alone| alone + self.options.linger);
        let look = self.ending.map(|_| now + LOOK);
        let accepts = Some(self.accepts).filter(|accepts| *accepts > now);
        drains.chain(lingers).chain(look).chain(accepts).min()
    }

    fn turn(&mut self, ready: &[Ready]) -> io::Result<()> {
        for &ready in ready {
            match ready {
                Ready::Stop => self.end(),
                Ready::Door => self.accept(),
                Ready::Daemon(flags) => self.on_daemon(flags),
                Ready::Guest => self.on_guest(),
                Ready::Ended(number) => {
                    if let Some(terminal) = self.terminals.get_mut(&number) {
                        terminal.on_exit(Instant::now());
                    }
                    self.flush_input(number);
                }
                Ready::Master(number, flags) => {
                    if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                        && let Some(terminal) = self.terminals.get_mut(&number)
                    {
                        terminal.read(&mut self.gathered);
                    }
                    if flags.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
                        self.flush_input(number);
                    }
                }
                Ready::Released => {
                    let now = Instant::now();
                    self.released.iter_mut().for_each(|terminal| terminal.on_exit(now));
                    self.released.retain(Terminal::is_running);
                }
            }
        }
        self.on_time(Instant::now());
        self.tell_ends()?;
        self.flush_daemon();
        Ok(())
    }

    fn on_time(&mut self, now: Instant) {
        for terminal in self.terminals.values_mut() {
            terminal.on_time(now, &mut self.gathered);
        }
        let lingered = self.alone.is_some_and(|alone| alone + self.options.linger <= now);
        if lingered && !self.checked {
            self.checked = true;
            if !self.door.is_reachable() {
                // Nobody will ever come.
                self.end();
            }
        }
        if let Some((since, killed)) = &mut self.ending
            && !*killed
            && *since + PATIENCE <= now
        {
            *killed = true;
            self.terminals.values().chain(&self.released).for_each(|terminal| terminal.session.kill());
        }
    }

    fn is_done(&self, now: Instant) -> bool {
        if let Some((since, killed)) = self.ending {
            let mut all = self.terminals.values().chain(&self.released);
            return (killed && since + 2 * PATIENCE <= now)
                || all.all(|it| !it.is_running() && it.session.members(None).is_empty());
        }
        let idle = self.terminals.is_empty() && self.released.is_empty();
        idle && self.alone.is_some_and(|alone| alone + self.options.linger <= now)
    }

    pub(super) fn end(&mut self) {
        if self.ending.is_none() {
            self.ending = Some((Instant::now(), false));
            self.terminals.values().for_each(|terminal| terminal.session.hang_up());
        }
    }

    fn accept(&mut self) {
        match self.door.accept() {
            // Whoever came before and said nothing gives way.
            Ok(Some(socket)) => self.guest = Some(Connection { socket, queue: VecDeque::new() }),
            Ok(None) => {}
            Err(_) => self.accepts = Instant::now() + BREATH,
        }
    }

    fn on_guest(&mut self) {
        let Some(mut guest) = self.guest.take() else { return };
        match receive::<Request>(&guest.socket, &mut self.packet) {
            Ok(Some((Request::Hello { .. }, _))) => {
                if let Some(former) = self.daemon.take() {
                    self.terminals.values_mut().for_each(Terminal::forget_daemon);
                    if let Ok(packet) = Packet::new(&Report::Replaced, Vec::new()) {
                        let _ = packet.send(&former.socket);
                    }
                }
                if self.list(&mut guest).is_ok() {
                    self.daemon = Some(guest);
                    self.alone = None;
                } else {
                    self.orphaned();
                }
            }
            Ok(Some((Request::End, _))) => self.end(),
            Ok(Some(_)) => self.guest = Some(guest),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.guest = Some(guest),
            Ok(None) | Err(_) => {}
        }
    }

    fn on_daemon(&mut self, flags: PollFlags) {
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        for _ in 0..BATCH {
            let Some(daemon) = self.daemon.as_ref().filter(|daemon| daemon.queue.len() < QUEUE_MAX) else {
                return;
            };
            match receive::<Request>(&daemon.socket, &mut self.packet) {
                Ok(Some((request, descriptors))) => self.on_request(request, descriptors),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => return self.orphaned(),
            }
        }
    }

    /// The daemon is gone.
    fn orphaned(&mut self) {
        self.daemon = None;
        self.alone = Some(Instant::now());
        self.checked = false;
        self.terminals.values_mut().for_each(Terminal::forget_daemon);
    }

    pub(super) fn flush_input(&mut self, number: u32) {
        if let Some(terminal) = self.terminals.get_mut(&number) {
            for (seq, result) in terminal.flush() {
                self.answer(seq, result);
            }
        }
    }

    fn tell_ends(&mut self) -> io::Result<()> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        for (&number, terminal) in &mut self.terminals {
            if terminal.told {
                continue;
            }
            if let Some((exit, end)) = terminal.ended() {
                terminal.told = true;
                let (code, signal) = (exit.code, exit.signal);
                daemon.say(&Report::Exited { terminal: number, code, signal, end }, Vec::new())?;
            }
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, seq: u64, result: Result<(), Refused>) {
        if seq == 0 {
            return;
        }
        let report = match result {
            Ok(()) => Report::Done { seq },
            Err((kind, message)) => Report::Refused { seq, kind, message },
        };
        self.say(&report, Vec::new());
    }

    pub(super) fn say(&mut self, report: &Report, descriptors: Vec<OwnedFd>) {
        if let Some(daemon) = &mut self.daemon {
            // What fits no packet is never said: messages are short.
            let _ = daemon.say(report, descriptors);
        }
    }

    fn flush_daemon(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        while let Some(packet) = daemon.queue.front() {
            match packet.send(&daemon.socket) {
                Ok(()) => drop(daemon.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.orphaned(),
            }
        }
    }
}

impl Connection {
    pub(super) fn say(&mut self, report: &Report, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.queue.push_back(Packet::new(report, descriptors)?);
        Ok(())
    }
}
