//! The processes of a terminal: who they are, and signals to them alone.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    /// `Z` and `X`: it ended.
    state: u8,
    group: i32,
    session: i32,
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
}

impl Stat {
    /// `None` when there is no such process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses, which may hold anything.
        let rest = &text[text.iter().rposition(|&byte| byte == b')')? + 1..];
        let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let (_parent, group, session) = (fields.next()?, fields.next()?, fields.next()?);
        let start_time = fields.nth(15)?;
        Some(Self {
            pid,
            state,
            group: group.parse().ok()?,
            session: session.parse().ok()?,
            start_time: start_time.parse().ok()?,
        })
    }

    const fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// The session that a terminal's program leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// The program's process, and the session's number.
    pub(crate) leader: i32,
    /// When the leader started, in clock ticks since boot.
    pub(crate) start_time: u64,
}

impl Session {
    /// Its processes that run, or those of one process group of it.
    ///
    /// The kernel gives a session's number to no new process while the session has a
    /// process; after that it may, so a leader that started at another time leads
    /// another session.
    pub(crate) fn members(&self, group: Option<i32>) -> Vec<Stat> {
        if Stat::of(self.leader).is_some_and(|leader| leader.start_time != self.start_time) {
            return Vec::new();
        }
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        processes
            .flatten()
            .filter_map(|entry| Stat::of(entry.file_name().to_str()?.parse().ok()?))
            .filter(|it| it.session == self.leader && group.is_none_or(|group| it.group == group))
            .filter(|it| !it.ended() && it.start_time >= self.start_time)
            .collect()
    }

    /// Sends `signals`, in order, to each of its processes, or those of one group.
    pub(crate) fn signal(&self, group: Option<i32>, signals: &[Signal]) -> usize {
        self.members(group).iter().filter(|member| send(member, signals)).count()
    }

    /// Sends `signals` to the leader.
    pub(crate) fn signal_leader(&self, signals: &[Signal]) -> bool {
        Stat::of(self.leader)
            .is_some_and(|leader| leader.start_time == self.start_time && send(&leader, signals))
    }

    /// Hangs up: to whoever was stopped too.
    pub(crate) fn hang_up(&self) {
        self.signal(None, &[Signal::HUP, Signal::TERM, Signal::CONT]);
    }

    /// Kills every process, those that are forked meanwhile too.
    pub(crate) fn kill(&self) {
        for _ in 0..16 {
            if self.signal(None, &[Signal::KILL]) == 0 {
                return;
            }
        }
    }
}

/// To that process, never to one that got its number later.
fn send(to: &Stat, signals: &[Signal]) -> bool {
    let Some(pid) = Pid::from_raw(to.pid) else { return false };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // The handle may be of a later process: then its times differ.
    let same = Stat::of(to.pid).is_some_and(|now| now.start_time == to.start_time);
    same && signals.iter().all(|signal| pidfd_send_signal(&handle, *signal).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminals::holder::spawn::spawn;
    use crate::terminals::holder::wire::Program;

    #[test]
    fn a_session_whose_leader_started_at_another_time_is_another() {
        let program = Program {
            program: "/bin/sleep".into(),
            args: vec!["1000".into()],
            cwd: "/".into(),
            env: Vec::new(),
            cols: 80,
            rows: 24,
        };
        let mut spawned = spawn(&program).expect("a program");
        let leader = spawned.child.id().cast_signed();
        let its = Session { leader, start_time: spawned.start_time };
        let pids = |session: &Session, group| {
            session.members(group).iter().map(|member| member.pid).collect::<Vec<_>>()
        };
        assert_eq!(pids(&its, None), [leader]);
        assert_eq!(pids(&its, Some(leader)), [leader]);
        assert_eq!(pids(&its, Some(leader + 1)), [0_i32; 0]);
        // As if the number had been given to another process since.
        let gone = Session { start_time: its.start_time - 1, ..its };
        assert_eq!(pids(&gone, None), [0_i32; 0]);
        gone.kill();
        assert!(!gone.signal_leader(&[Signal::KILL]));
        assert!(!send(&Stat { start_time: its.start_time - 1, ..its.members(None)[0] }, &[Signal::KILL]));
        assert_eq!(pids(&its, None), [leader]);
        its.kill();
        spawned.child.wait().expect("an end");
        assert_eq!(pids(&its, None), [0_i32; 0]);
    }
}
