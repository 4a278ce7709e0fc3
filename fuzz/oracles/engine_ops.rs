//! What must hold of a broker and two agents whatever their shells do to them.
//!
//! The bytes are operations: connections open, bring bytes, are cut and end; effects end
//! well, ill or wrongly; clocks run, jump and go back; configurations change; whoever is
//! gone is spoken of. The shells keep the rules of the boundary, and nobody else does.

use std::time::Duration;

use castra_core::Input;
use castra_core::attach::HttpAnswer;
use castra_core::boundary::{CloseCause, Effect, EffectError, EffectErrorKind, Origin, Transport, Via};
use castra_core::id::{ConnId, EffectId, TerminalId};
use castra_core::terminals::{Exit, News};
use castra_core::time::{Time, WallTime};

use super::choices::Choices;
use super::host::Host;
use super::phrases::{ANSWERS, phrase, proof};
use super::rig::{Rig, with};
use super::scene::{agent_config, broker_config};
use super::subject::Subject;

/// Longer lists of operations find nothing that shorter ones don't.
const OPS_MAX: usize = 300;

/// Panics if something that must hold doesn't.
pub(crate) fn check(data: &[u8]) {
    let first = play(data);
    // Once in four: it takes as long again.
    if data.first().is_some_and(|byte| byte % 4 == 0) {
        assert_eq!(first, play(data), "S7: the same inputs, other outputs");
    }
}

fn play(data: &[u8]) -> [u64; 3] {
    let mut choices = Choices(data);
    let mut rig = Rig::new(choices.byte());
    for _ in 0..OPS_MAX {
        if choices.is_empty() {
            break;
        }
        step(&mut rig, &mut choices);
    }
    rig.finish()
}

const SPANS_MS: [u64; 10] = [0, 1, 50, 250, 500, 1000, 2000, 5000, 15_000, 60_000];
const ROOMS: [usize; 6] = [64 * 1024, 0, 1, 300, 5000, usize::MAX / 2];

fn step(rig: &mut Rig, choices: &mut Choices<'_>) {
    match choices.byte() % 16 {
        0 => {
            let (who, span) = (choices.byte(), Duration::from_millis(choices.pick(&SPANS_MS)));
            rig.pass(who, span);
        }
        1 => rig.deliver(choices),
        2 => rig.flow(),
        3 => rig.dial(choices),
        4 => {
            let who = choices.byte();
            with!(rig, who, |host| end_effect(host, choices));
        }
        5 => http(rig, choices),
        6 => {
            let who = choices.byte();
            with!(rig, who, |host| accept(host, choices));
        }
        7 => {
            let who = choices.byte();
            with!(rig, who, |host| {
                let conn = some_conn(host, choices);
                host.write_all(conn, choices.bytes());
            });
        }
        8 | 9 => {
            let who = choices.byte();
            with!(rig, who, |host| {
                let conn = some_conn(host, choices);
                let via = host.wires.get(&conn).map(|wire| wire.via);
                let said = phrase(via, choices);
                host.write_all(conn, &said);
            });
        }
        10 => {
            let who = choices.byte();
            with!(rig, who, |host| change(host, choices));
        }
        11 => reload(rig, choices),
        12 => {
            let who = choices.byte();
            with!(rig, who, |host| nonsense(host, choices));
        }
        13 => {
            let who = choices.byte();
            with!(rig, who, |host| clock(host, choices));
        }
        14 => {
            let conn = some_conn(&rig.broker, choices);
            if let Some(said) = rig.broker.wires.get_mut(&conn).and_then(|wire| proof(&mut wire.sent)) {
                rig.broker.write_all(conn, &said);
            }
        }
        _ => {
            let (who, span) = (choices.byte(), Duration::from_millis(choices.pick(&SPANS_MS)));
            // Drains are rare: little happens after one.
            if who >= 0xf0 {
                with!(rig, who, |host| host.give(Input::Drain { deadline: host.now.boot + span }));
            } else {
                rig.flow();
                rig.pass(3, span);
            }
        }
    }
}

/// A connection that is there, if there is one.
fn some_conn<E: Subject>(host: &Host<E>, choices: &mut Choices<'_>) -> ConnId {
    let conns: Vec<ConnId> = host.wires.keys().copied().collect();
    choices.place(conns.len()).map_or(ConnId { index: 0, generation: 0 }, |place| conns[place])
}

fn accept<E: Subject>(host: &mut Host<E>, choices: &mut Choices<'_>) {
    const VIAS: [Via; 8] = [
        Via::Control,
        Via::Link(Transport::Tcp),
        Via::Link(Transport::Serial),
        Via::Manager,
        Via::Control,
        Via::Link(Transport::Unix),
        Via::Terminals,
        Via::Link(Transport::Vsock),
    ];
    let (via, room) = (choices.pick(&VIAS), choices.pick(&ROOMS));
    let uid = choices.pick(&[Some(1000), Some(0), Some(1001), None]);
    // An engine may be asked to take what it has no use for.
    host.accept(via, room, uid);
}

fn end_effect<E: Subject>(host: &mut Host<E>, choices: &mut Choices<'_>) {
    let Some(place) = choices.place(host.effects.len()) else { return };
    let (effect, _) = host.effects[place];
    host.done(effect, !choices.byte().is_multiple_of(4));
}

fn http(rig: &mut Rig, choices: &mut Choices<'_>) {
    let (who, number, status) = (choices.byte(), choices.byte(), choices.byte());
    let after = choices.pick(&[None, Some(0), Some(1), Some(60), Some(u64::MAX)]).map(Duration::from_secs);
    let host = rig.agent(who);
    let asked = host.effects.iter().find(|(_, effect)| matches!(effect, Effect::Http(_)));
    let Some((effect, _)) = asked.cloned() else { return };
    const STATUSES: [u16; 10] = [200, 200, 200, 204, 400, 401, 404, 409, 429, 500];
    let status = STATUSES[usize::from(status) % STATUSES.len()];
    let body = ANSWERS[usize::from(number) % ANSWERS.len()];
    let body = if body.is_empty() { choices.bytes() } else { body.as_bytes() };
    host.give(Input::Answered { effect, answer: HttpAnswer { status, retry_after: after, body } });
}

/// Something becomes of a connection.
fn change<E: Subject>(host: &mut Host<E>, choices: &mut Choices<'_>) {
    let conn = some_conn(host, choices);
    if !host.wires.contains_key(&conn) {
        return;
    }
    match choices.byte() % 4 {
        0 => {
            let room = choices.pick(&ROOMS);
            host.give(Input::Writable { conn, room });
        }
        1 => host.give(Input::Finished { conn }),
        2 => host.give(Input::Closed { conn, why: choices.pick(&[CloseCause::Eof, CloseCause::Reset]) }),
        _ => host.give(Input::Closed { conn, why: CloseCause::Shell }),
    }
}

fn reload(rig: &mut Rig, choices: &mut Choices<'_>) {
    let (who, how) = (choices.byte(), choices.byte());
    if who % 3 == 0 {
        let mut config = broker_config();
        match how % 8 {
            0 => (config.window, config.interval) = (Duration::from_secs(60), Duration::from_secs(20)),
            1 => (config.window, config.interval) = (Duration::from_millis(30), Duration::from_millis(10)),
            2 => config.require_token = true,
            3 => config.only_known = true,
            4 => config.accept_unproven = true,
            5 => config.max_guests = 1,
            6 => {
                config.guests.clear();
                config.manager.http = None;
            }
            _ => (config.half_open_max, config.control_clients_max) = (1, 1),
        }
        config.check().expect("a configuration that a broker may have");
        return rig.broker.give(Input::Reload(Box::new(config)));
    }
    let mut config = agent_config(if who % 3 == 1 { "devbox" } else { "keyed" });
    match how % 4 {
        0 => config.trust_unkeyed_broker = false,
        1 => config.inbox = None,
        2 => config.control_clients_max = 1,
        _ => config.attach.attempts_max = 1,
    }
    rig.agent(who).give(Input::Reload(Box::new(config)));
}

/// Clocks jump and go back; only the boot-time clock counts.
fn clock<E: Subject>(host: &mut Host<E>, choices: &mut Choices<'_>) {
    let (how, span) = (choices.byte(), Duration::from_millis(choices.pick(&SPANS_MS)));
    match how % 5 {
        0 => {
            host.now.boot = Time::from_nanos(host.now.boot.as_nanos().saturating_sub(span.as_nanos() as u64))
        }
        1 => {
            host.now.boot = host.now.boot + span;
            host.now.suspended += span;
        }
        2 => host.now.suspended = Duration::ZERO,
        3 => host.now.wall = WallTime::from_unix_millis(choices.pick(&[0, 1 << 40, 253_402_300_799_000 / 2])),
        _ => host.now.boot = host.now.boot + Duration::from_secs(3600 * u64::from(choices.byte())),
    }
    host.give(Input::Tick);
}

/// What is said of whom nobody knows changes nothing, and what ends wrongly harms nobody.
fn nonsense<E: Subject>(host: &mut Host<E>, choices: &mut Choices<'_>) {
    let known = some_conn(host, choices);
    let index = choices.pick(&[known.index, 0, 77, u32::MAX]);
    let generation = choices.pick(&[known.generation.wrapping_sub(1), known.generation.wrapping_add(1), 0]);
    let conn = ConnId { index, generation };
    if host.wires.contains_key(&conn) {
        return;
    }
    let effect = EffectId(choices.pick(&[0, u64::MAX, 1 << 40]));
    let open = choices.place(host.effects.len()).map(|place| host.effects[place].0);
    let error = || EffectError { kind: EffectErrorKind::Owned, message: "\u{7}".repeat(5000) };
    let answer = HttpAnswer { status: 200, retry_after: None, body: b"[]" };
    let terminal = TerminalId(choices.byte().into());
    match choices.byte() % 12 {
        0 => host.give(Input::Bytes { conn, bytes: b"{}\n" }),
        1 => host.give(Input::Finished { conn }),
        2 => host.give(Input::Writable { conn, room: 1 << 20 }),
        3 => host.give(Input::Closed { conn, why: CloseCause::Reset }),
        4 => host.give(Input::Done { effect, result: Ok(()) }),
        5 => host.give(Input::Done { effect, result: Err(error()) }),
        6 => host.give(Input::Answered { effect, answer }),
        7 => host.give(Input::Terminal { terminal, news: News::Exited(Exit { code: 1, signal: None }) }),
        8 => host.give(Input::Terminal { terminal, news: News::Output { offset: 7, bytes: b"x".into() } }),
        9 => {
            if let Some(effect) = open {
                host.give(Input::Done { effect, result: Err(error()) });
            }
        }
        how => {
            let via = if how == 10 { Via::Link(Transport::Tcp) } else { Via::Terminals };
            host.open(via, Origin::Dialled(effect), 100, None);
        }
    }
}
