use super::*;
use crate::conformance::failing::Failing;
use crate::conformance::memory::{MemoryNet, MemoryPeer, MemoryWorld};
use crate::conformance::{Act, Harness, Peer, Remembered, Scripted, Seen, World};
use castra_core::boundary::{DialTarget, Effect, EffectError, EffectErrorKind, Source, Transport};
use castra_core::id::EffectId;
use castra_core::time::WallTime;
use std::time::Duration;

/// A shell that dials, on a clock moved by hand.
struct Dialler {
    world: MemoryWorld,
    shell: Shell<Scripted, Failing<MemoryNet>, Remembered>,
    now: Time,
}

impl Dialler {
    fn new(address: &str) -> Self {
        let (world, net, doors) = MemoryWorld::start();
        let dial = Some(address.parse().expect("an address"));
        let options = ShellOptions { doors, dial, ..ShellOptions::default() };
        let shell = Shell::new(Scripted::default(), Failing::new(net), Remembered::default(), options);
        Self { world, shell, now: Time::from_millis(5000) }
    }

    fn turn(&mut self, done: &[Done]) -> Next {
        let now = Now { boot: self.now, suspended: Duration::ZERO, wall: WallTime::default() };
        let mut ready = Vec::new();
        self.world.wait(crate::conformance::Inner::inner(self.shell.net()), &mut ready);
        let mut next = self.shell.turn(now, &ready, done);
        while next.more {
            next = self.shell.turn(now, &[], &[]);
        }
        next
    }

    fn act(&mut self, acts: impl IntoIterator<Item = Act>) -> Next {
        self.shell.engine().act(acts);
        let nudge = Done { job: JobId::Effect(Scripted::NUDGE), outcome: Outcome::Finished(Ok(())) };
        self.turn(&[nudge])
    }

    fn dial(&mut self, effect: u64, patience: Duration) -> Next {
        let deadline = self.now + patience;
        self.act([Act::Effect(EffectId(effect), Effect::Dial { deadline, to: DialTarget::Link })])
    }

    fn ends(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.shell.engine().seen)
    }
}

fn failed(effect: u64, kind: EffectErrorKind) -> Seen {
    Seen::Done(EffectId(effect), Err(kind))
}

fn resolved(effect: u64, addresses: &[&str]) -> Done {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Done { job: JobId::Effect(EffectId(effect)), outcome: Outcome::Resolved(Ok(addresses)) }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_name_is_looked_up_and_its_addresses_are_tried_in_turn() {
    let mut it = Dialler::new("tcp:broker.test:7070");
    it.dial(1, SECOND);
    assert!(
        matches!(&it.shell.work().0[..], [(JobId::Effect(EffectId(1)), Job::Resolve { host, port: 7070 })]
        if host == "broker.test")
    );
    it.shell.net().connect_errors = vec![io::ErrorKind::ConnectionRefused];
    it.turn(&[resolved(1, &["192.0.2.1:7070", "192.0.2.2:7070"])]);
    assert!(matches!(
        it.ends()[..],
        [Seen::Opened(_, Via::Link(Transport::Tcp), Origin::Dialled(EffectId(1)), None)]
    ));

    it.shell.net().connect_errors = vec![io::ErrorKind::ConnectionRefused; 2];
    it.dial(2, SECOND);
    it.turn(&[resolved(2, &["192.0.2.1:7070", "192.0.2.2:7070"])]);
    assert_eq!(it.ends(), [failed(2, EffectErrorKind::Unreachable)]);
    it.dial(3, SECOND);
    let error = EffectError { kind: EffectErrorKind::Unreachable, message: "no such name".to_owned() };
    it.turn(&[Done { job: JobId::Effect(EffectId(3)), outcome: Outcome::Resolved(Err(error)) }]);
    assert_eq!(it.ends(), [failed(3, EffectErrorKind::Unreachable)]);
    it.dial(4, SECOND);
    it.turn(&[resolved(4, &[])]);
    assert_eq!(it.ends(), [failed(4, EffectErrorKind::Unreachable)]);
    assert_eq!(it.shell.work().0.len(), 4, "each dial asks anew: addresses change");
}

#[test]
fn terminals_are_dialled_beside_the_link_any_number_at_once() {
    let mut it = Dialler::new("tcp:broker.test:7070");
    let to = DialTarget::Terminals;
    let deadline = it.now + SECOND;
    it.dial(1, SECOND);
    it.act([Act::Effect(EffectId(2), Effect::Dial { deadline, to })]);
    assert_eq!(it.ends(), [failed(2, EffectErrorKind::Unreachable)], "there is no such socket");

    let (world, net, doors) = MemoryWorld::start();
    let terminals = Some("terminals.sock".into());
    let options = ShellOptions { doors, terminals, ..ShellOptions::default() };
    it.shell = Shell::new(Scripted::default(), Failing::new(net), Remembered::default(), options);
    it.world = world;
    let dials = (1..=3).map(|effect| Act::Effect(EffectId(effect), Effect::Dial { deadline, to }));
    it.act(dials.collect::<Vec<_>>());
    let opened: Vec<_> = it.ends();
    for effect in 1..=3 {
        assert!(
            opened.iter().any(|seen| matches!(seen, Seen::Opened(_, Via::Terminals, Origin::Dialled(EffectId(id)), None) if *id == effect)),
            "{opened:?}"
        );
    }
    assert_eq!(it.shell.connections(), (0, 3));
    it.act([Act::Effect(EffectId(4), Effect::Dial { deadline, to: DialTarget::Link })]);
    assert_eq!(it.ends(), [failed(4, EffectErrorKind::Unreachable)], "a link has an address of its own");
}

#[test]
fn what_terminals_said_last_is_heard_when_it_is_wanted_again() {
    let (mut world, net, doors) = MemoryWorld::start();
    let terminals = Some("terminals.sock".into());
    let options = ShellOptions { doors, terminals, ..ShellOptions::default() };
    let shell = Shell::new(Scripted::default(), Failing::new(net), Remembered::default(), options);
    let mut it = Dialler { world, shell, now: Time::from_millis(5000) };
    let deadline = it.now + SECOND;
    it.act([Act::Effect(EffectId(1), Effect::Dial { deadline, to: DialTarget::Terminals })]);
    let conn = it.shell.engine().opened()[0];
    it.act([Act::Read(Source::Conn(conn), 0)]);
    world = it.world;
    let mut peer = world.answer().expect("a peer");
    it.world = world;
    peer.write(b"last words").expect("room");
    drop(peer);
    let ready =
        |hangup| Ready { finished: true, hangup, ..Ready::readable(crate::net::Endpoint::Conn(conn)) };
    let now = Now { boot: it.now, suspended: Duration::ZERO, wall: WallTime::default() };
    it.shell.turn(now, &[ready(true)], &[]);
    it.turn(&[]);
    assert_eq!(it.shell.engine().read(conn), b"", "not wanted yet");
    assert!(!it.shell.engine().saw(&Seen::Closed(conn, CloseCause::Reset)), "and not given up");
    it.act([Act::Read(Source::Conn(conn), 64)]);
    assert_eq!(it.shell.engine().read(conn), b"last words");
    assert!(it.shell.engine().saw(&Seen::Closed(conn, CloseCause::Eof)));
}

#[test]
fn a_dead_name_server_is_asked_once_and_the_dial_still_ends_in_time() {
    let mut it = Dialler::new("tcp:broker.test:7070");
    for effect in 1..=5 {
        let next = it.dial(effect, SECOND);
        assert_eq!(next.deadline, Some(it.now + SECOND));
        it.now = it.now + SECOND;
        let next = it.turn(&[]);
        assert_eq!(it.ends(), [failed(effect, EffectErrorKind::TimedOut)]);
        assert_eq!(next.deadline, None);
    }
    assert_eq!(it.shell.work().0.len(), 1, "questions don't pile up");
    it.dial(6, SECOND);
    it.turn(&[resolved(1, &["192.0.2.1:7070"])]);
    assert!(
        matches!(it.ends()[..], [Seen::Opened(_, _, Origin::Dialled(EffectId(6)), None)]),
        "the answer serves"
    );
}

#[test]
fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    let mut it = Dialler::new("tcp:broker.test:7070");
    it.dial(1, SECOND);
    it.shell.net().pending_connects = usize::MAX;
    let next = it.turn(&[resolved(1, &["192.0.2.1:7070", "192.0.2.2:7070"])]);
    assert_eq!(next.deadline, Some(it.now + SECOND / 2));
    it.now = it.now + SECOND / 2;
    it.shell.net().pending_connects = 0;
    it.turn(&[]);
    assert!(matches!(it.ends()[..], [Seen::Opened(..)]));
    assert_eq!(it.shell.connections(), (1, 0));

    it.shell.net().pending_connects = usize::MAX;
    it.dial(2, SECOND);
    it.turn(&[resolved(2, &["192.0.2.1:7070"])]);
    it.now = it.now + SECOND;
    assert_eq!(it.turn(&[]).deadline, None);
    assert_eq!(it.ends(), [failed(2, EffectErrorKind::TimedOut)]);
    assert_eq!(it.shell.connections(), (1, 0), "the half-made connection is gone");
}

#[test]
fn a_full_queue_is_tried_again_by_the_clock() {
    let mut it = Dialler::new("unix:/broker");
    it.shell.net().connect_errors = vec![io::ErrorKind::WouldBlock];
    let next = it.dial(1, SECOND);
    assert_eq!(next.deadline, Some(it.now + Duration::from_millis(20)));
    assert_eq!(it.ends(), []);
    it.now = it.now + Duration::from_millis(20);
    it.turn(&[]);
    assert!(matches!(it.ends()[..], [Seen::Opened(_, Via::Link(Transport::Unix), _, None)]));
}

#[test]
fn a_cancelled_dial_is_answered_once() {
    let mut it = Dialler::new("tcp:192.0.2.1:7070");
    it.shell.net().pending_connects = usize::MAX;
    it.dial(1, SECOND);
    it.act([Act::Cancel(EffectId(1)), Act::Cancel(EffectId(1))]);
    it.now = it.now + SECOND;
    it.turn(&[]);
    assert_eq!(it.ends(), [failed(1, EffectErrorKind::Cancelled)]);
    assert_eq!(it.shell.connections(), (0, 0));
}

#[test]
fn effects_become_jobs_and_their_ends_come_back() {
    let mut it = Harness::<MemoryWorld, MemoryNet>::new();
    it.act([
        Act::Effect(EffectId(1), Effect::Persist(Vec::new())),
        Act::Effect(EffectId(2), Effect::RemoveRecord("devbox".parse().expect("a name"))),
        Act::Effect(EffectId(3), Effect::Reload),
    ]);
    let jobs = &it.shell.work().0;
    assert!(matches!(
        jobs[..],
        [
            (JobId::Effect(EffectId(1)), Job::Persist(_)),
            (JobId::Effect(EffectId(2)), Job::RemoveRecord(_)),
            (JobId::Effect(EffectId(3)), Job::Reopen)
        ]
    ));
    let error = EffectError { kind: EffectErrorKind::Storage, message: "full".to_owned() };
    it.finish(Done { job: JobId::Effect(EffectId(1)), outcome: Outcome::Finished(Err(error)) });
    it.finish(Done { job: JobId::Effect(EffectId(2)), outcome: Outcome::Finished(Ok(())) });
    it.turn();
    let ends = [failed(1, EffectErrorKind::Storage), Seen::Done(EffectId(2), Ok(()))];
    assert_eq!(it.shell.engine().seen, ends);
}

#[test]
fn a_tick_comes_when_it_is_due_and_after_what_was_said_in_time() {
    let mut it = Harness::<MemoryWorld, MemoryNet>::new();
    let (mut peer, conn) = it.connection();
    it.shell.engine().seen.clear();
    it.shell.engine().wake = Some(it.now + SECOND);
    it.act([]);
    assert_eq!(it.next, Next { deadline: Some(it.now + SECOND), more: false });
    it.turn();
    assert_eq!(it.shell.engine().seen, []);
    peer.write(b"in time").expect("room");
    it.advance(SECOND);
    it.turn();
    assert_eq!(it.shell.engine().seen, [Seen::Bytes(conn, 7), Seen::Tick]);
    assert_eq!(it.next.deadline, None);
}

#[test]
fn a_full_table_leaves_room_for_local_clients() {
    let (mut world, net, mut doors) = MemoryWorld::start();
    let options =
        |doors: &[_]| ShellOptions { doors: doors.to_vec(), connections_max: 16, ..ShellOptions::default() };
    let mut shell = Shell::new(Scripted::default(), net, Remembered::default(), options(&doors));
    let mut peers: Vec<MemoryPeer> = (0..20).map(|_| world.dial()).collect();
    let now = Now { boot: Time::from_millis(1), ..Now::default() };
    let next = shell.turn(now, &[], &[]);
    assert_eq!(shell.connections(), (14, 0), "an eighth is kept");
    assert!(!next.more, "a full table keeps nobody awake");
    let first = shell.engine().opened()[0];
    let mut ready = Vec::new();
    peers.swap_remove(0).reset();
    world.wait(shell.net(), &mut ready);
    let next = shell.turn(now, &ready, &[]);
    assert!(shell.engine().closed(first).is_some());
    assert_eq!(shell.engine().opened().len(), 15, "somebody waited and there was room");
    assert_eq!(shell.connections(), (14, 0));
    assert!(!next.more, "a full table keeps nobody awake");

    doors[0].1 = Via::Control;
    let (mut world, net, _) = MemoryWorld::start();
    let mut shell = Shell::new(Scripted::default(), net, Remembered::default(), options(&doors));
    let clients: Vec<MemoryPeer> = (0..20).map(|_| world.dial()).collect();
    shell.turn(now, &[], &[]);
    assert_eq!(shell.connections(), (0, 16));
    drop(clients);
}

#[test]
fn a_turn_reads_and_writes_only_so_many_and_the_others_have_their_turn() {
    const PEERS: usize = 100;
    let mut it = Harness::<MemoryWorld, MemoryNet>::new();
    let mut peers: Vec<_> = (0..PEERS).map(|_| it.connection()).collect();
    it.quiet();
    for (peer, _) in &mut peers {
        peer.write(b"in").expect("room");
    }
    let mut turns = Vec::new();
    it.until("all read", |it| {
        let read = peers.iter().filter(|(_, conn)| !it.shell.engine().read(*conn).is_empty()).count();
        turns.push(read);
        read == PEERS
    });
    assert_eq!(turns, [0, 24, 48, 72, 96, PEERS]);
    it.quiet();

    let mut heard = Vec::new();
    it.act(peers.iter().map(|(_, conn)| Act::Transmit(*conn, b"out".to_vec())).collect::<Vec<_>>());
    while heard.iter().sum::<usize>() < PEERS {
        assert!(heard.len() < 3 && it.next.more == (heard.len() < 2), "{heard:?}");
        heard.push(peers.iter_mut().filter_map(|(peer, _)| peer.read(&mut [0; 8]).ok()).count());
        it.turn();
    }
    assert_eq!(heard, [48, 48, 4]);
}

#[test]
fn a_drain_closes_the_doors_for_links() {
    let mut it = Harness::<MemoryWorld, MemoryNet>::new();
    let (_peer, _) = it.connection();
    let now = Now { boot: it.now, ..Now::default() };
    it.shell.drain(now, it.now + SECOND);
    assert_eq!(it.shell.engine().seen.last(), Some(&Seen::Drain));
    let _late = it.world.dial();
    it.quiet();
    assert_eq!(it.shell.engine().opened().len(), 1);
    assert!(!it.shell.stopped());
    it.act([Act::Stopped]);
    assert!(it.shell.stopped() && it.shell.settled());
}

#[test]
fn a_transmit_over_the_room_ends_the_connection_and_is_counted() {
    let mut it = Harness::<MemoryWorld, MemoryNet>::new();
    let (_peer, conn) = it.connection();
    it.act([Act::Transmit(conn, vec![0; 128 * 1024 + 1])]);
    assert_eq!(it.shell.engine().closed(conn), Some(CloseCause::Shell));
    assert_eq!(it.shell.counters().overruns, 1);
}

#[test]
fn a_door_of_one_kind_does_not_feel_the_other_kinds_credit() {
    let mut it = Harness::<MemoryWorld, MemoryNet>::new();
    it.act([Act::Read(Source::ControlDoor, 0)]);
    it.connection();
}

#[cfg(feature = "planted")]
#[test]
fn a_bug_acts_in_the_shell_where_it_is_planted_and_nowhere_else() {
    use castra_core::planted::Bug;

    for planted in [None, Some(Bug::SlotWithoutGeneration)] {
        let (mut world, net, doors) = MemoryWorld::start();
        let options = ShellOptions { doors, planted, ..ShellOptions::default() };
        let mut shell = Shell::new(Scripted::default(), net, Remembered::default(), options);
        for _ in 0..2 {
            let mut ready = Vec::new();
            let peer = world.dial();
            world.wait(shell.net(), &mut ready);
            shell.turn(Now::default(), &ready, &[]);
            peer.reset();
            ready.clear();
            world.wait(shell.net(), &mut ready);
            shell.turn(Now::default(), &ready, &[]);
        }
        let opened = shell.engine().opened();
        assert_eq!(opened[0] == opened[1], planted.is_some());
    }
}
