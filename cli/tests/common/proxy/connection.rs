//! One connection through the proxy: a thread for each direction, and one for what
//! happens at a time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;

use super::plan::{Cut, Deed, Fault, Plan, Profile, Random};
use super::{GLANCE, Shared, lock};

pub(super) struct Connection {
    /// The client's and the server's, closed when the last thread is gone.
    ends: [OwnedFd; 2],
    /// Readable from the end on.
    over: OwnedFd,
    /// Stands still, for each direction.
    still: [AtomicBool; 2],
    /// Said its last, for each direction.
    finished: [AtomicBool; 2],
    shared: Arc<Shared>,
}

/// One direction of it.
struct Pump {
    connection: Arc<Connection>,
    /// The client's words go up.
    up: bool,
    random: Random,
    profile: Profile,
    cut: Option<Cut>,
    /// What it has passed on.
    bytes: u64,
    lines: u64,
}

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

impl Connection {
    pub(super) fn start(
        near: OwnedFd,
        far: OwnedFd,
        plan: Plan,
        shared: &Arc<Shared>,
    ) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        for end in [&near, &far] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        let over = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = || [const { AtomicBool::new(false) }; 2];
        let (still, finished, shared) = (flags(), flags(), Arc::clone(shared));
        let connection = Arc::new(Self { ends: [near, far], over, still, finished, shared });
        let Plan { profile, cut, deeds, random } = plan;
        let pumps = [true, false].map(|up| {
            let cut = cut.filter(|cut| cut.up == up);
            let random = random[usize::from(!up)];
            let connection = Arc::clone(&connection);
            let pump = Pump { connection, up, random, profile, cut, bytes: 0, lines: 0 };
            std::thread::spawn(move || pump.run())
        });
        let mut threads = Vec::from(pumps);
        if !deeds.is_empty() {
            let connection = Arc::clone(&connection);
            threads.push(std::thread::spawn(move || connection.suffer(&deeds)));
        }
        Ok((connection, threads))
    }

    /// Ends both directions, with a reset if asked for.
    pub(super) fn end(&self, reset: bool) {
        if reset {
            for end in &self.ends {
                let _ = set_socket_linger(end, Some(Duration::ZERO));
            }
        }
        let _ = rustix::io::write(&self.over, &1_u64.to_ne_bytes());
    }

    /// Waits; whether the connection is still there.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match rustix::event::poll(&mut [PollFd::new(&self.over, PollFlags::IN)], Some(&spec(left))) {
                Ok(0) if left.is_zero() => return true,
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// Carries out what was planned, unless peace is made before.
    fn suffer(&self, deeds: &[Deed]) {
        for deed in deeds {
            if !self.quiet_for(deed.after) {
                return;
            }
            self.shared.happened(deed.what);
            match deed.what {
                Fault::Hold | Fault::Stall => {
                    let still = &self.still[usize::from(!deed.up)];
                    still.store(true, Ordering::SeqCst);
                    let on = self.quiet_for(deed.lasts);
                    still.store(false, Ordering::SeqCst);
                    if !on {
                        return;
                    }
                    if deed.what == Fault::Stall {
                        self.end(true);
                    }
                }
                Fault::HalfClose => {
                    self.finish(deed.up);
                    // It is not to be mended: also in peace it ends soon.
                    self.rest(deed.lasts);
                    self.end(false);
                }
                Fault::Reset => self.end(true),
                Fault::Drop | Fault::Delay | Fault::Split | Fault::Join => self.end(false),
            }
        }
    }

    /// Waits; whether the connection is still there and no peace was made.
    fn quiet_for(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if self.shared.is_peace() || !self.rest(left.min(GLANCE)) {
                return false;
            }
        }
    }

    /// One direction has said its last: whoever hears it sees the end.
    fn finish(&self, up: bool) {
        self.finished[usize::from(!up)].store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.ends[usize::from(up)], rustix::net::Shutdown::Write);
    }

    fn stands_still(&self, up: bool) -> bool {
        self.still[usize::from(!up)].load(Ordering::SeqCst) && !self.shared.is_peace()
    }
}

impl Pump {
    fn run(mut self) {
        let mut chunk = vec![0; CHUNK];
        loop {
            if !self.passable() {
                return;
            }
            match self.read(&mut chunk) {
                Some(0) => {
                    // The other direction may have more to say.
                    self.connection.finish(self.up);
                    if self.connection.finished.iter().all(|done| done.load(Ordering::SeqCst)) {
                        self.connection.end(false);
                    }
                    return;
                }
                Some(count) => {
                    if !self.pass(&chunk[..count]) {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// Waits while the direction stands still; whether the connection is still there.
    fn passable(&self) -> bool {
        while self.connection.stands_still(self.up) {
            if !self.connection.rest(GLANCE) {
                return false;
            }
        }
        true
    }

    /// `None`: it is over.
    fn read(&mut self, chunk: &mut [u8]) -> Option<usize> {
        loop {
            if !self.ready(PollFlags::IN, usize::from(!self.up)) {
                return None;
            }
            // What comes within this time comes together.
            if self.random.chance(1, 12) {
                self.connection.shared.happened(Fault::Join);
                let time = Duration::from_millis(self.random.between(1, 15));
                if !self.connection.rest(time) {
                    return None;
                }
            }
            match rustix::io::read(&self.connection.ends[usize::from(!self.up)], &mut *chunk) {
                Ok(count) => return Some(count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => {
                    self.connection.end(error == Errno::CONNRESET);
                    return None;
                }
            }
        }
    }

    /// Brings bytes to the other end, as roughly as it has to; whether there may be more.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let (allowed, cut) = self.until_the_cut(bytes);
        let mut rest = &bytes[..allowed];
        while !rest.is_empty() {
            let length = self.piece(rest.len());
            let (piece, more) = rest.split_at(length);
            if !self.late(bytes.len()) || !self.passable() || !self.write(piece) {
                return false;
            }
            rest = more;
        }
        cut.is_none_or(|cut| self.cut(cut))
    }

    /// How much may still pass, and what comes then; a cut comes with the byte that it keeps back.
    fn until_the_cut(&mut self, bytes: &[u8]) -> (usize, Option<Cut>) {
        let Some(cut) = self.cut else { return (bytes.len(), None) };
        for (index, byte) in bytes.iter().enumerate() {
            self.lines += u64::from(*byte == b'\n');
            if self.bytes >= cut.after || self.lines == cut.lines {
                return (index, Some(cut));
            }
            self.bytes += 1;
        }
        (bytes.len(), None)
    }

    /// Ends the connection so; always false.
    fn cut(&self, cut: Cut) -> bool {
        let connection = &self.connection;
        connection.shared.happened(cut.how);
        match cut.how {
            Fault::Stall => drop(connection.rest(cut.lasts)),
            Fault::HalfClose => {
                connection.finish(self.up);
                connection.rest(cut.lasts);
            }
            _ => {}
        }
        connection.end(matches!(cut.how, Fault::Stall | Fault::Reset));
        false
    }

    /// How much of it goes at once: more pieces where there is little, so that much is not endless.
    fn piece(&mut self, length: usize) -> usize {
        if length < 2 || !self.random.chance(1, 4) {
            return length;
        }
        self.connection.shared.happened(Fault::Split);
        if length <= 1024 && self.random.chance(1, 2) {
            return self.random.between(1, length.min(9) as u64) as usize;
        }
        self.random.between(1 + length as u64 / 4, length as u64) as usize
    }

    /// Delays and short holds; whether the connection is still there.
    fn late(&mut self, all: usize) -> bool {
        let bulk = all > 4096;
        if self.profile == Profile::Rough && self.random.chance(1, 48) {
            self.connection.shared.happened(Fault::Hold);
            return self.connection.rest(Duration::from_millis(self.random.between(60, 220)));
        }
        if self.random.chance(1, if bulk { 16 } else { 4 }) {
            self.connection.shared.happened(Fault::Delay);
            let most = if bulk { 4 } else { 30 };
            return self.connection.rest(Duration::from_millis(self.random.between(1, most)));
        }
        true
    }

    /// Writes all of it; whether the connection is still there.
    fn write(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match rustix::io::write(&self.connection.ends[usize::from(self.up)], bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN | Errno::INTR) => {
                    if !self.ready(PollFlags::OUT, usize::from(self.up)) {
                        return false;
                    }
                }
                Err(_) if self.connection.finished[usize::from(!self.up)].load(Ordering::SeqCst) => {
                    // We ended this direction ourselves: nobody is told that nobody listens.
                    return true;
                }
                Err(error) => {
                    self.connection.end(error == Errno::CONNRESET);
                    return false;
                }
            }
        }
        if self.up {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            lock(&self.connection.shared.passed).push(now.as_millis() as i64);
        }
        true
    }

    /// Waits for an end; whether the connection is still there.
    fn ready(&self, what: PollFlags, end: usize) -> bool {
        loop {
            let mut fds = [
                PollFd::new(&self.connection.over, PollFlags::IN),
                PollFd::from_borrowed_fd(self.connection.ends[end].as_fd(), what),
            ];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) if !fds[0].revents().is_empty() => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

fn spec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}
