//! Streams to a guest's terminals, from a client of the broker to the terminals'
//! socket and back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use crate::strait::*;
use castra_core::event::{Fact, TunnelEnd};
use castra_core::time::Time;

/// Says `bytes` at both ends, in pieces, while readers come and go, until all is there.
fn exchange(strait: &mut Strait, seed: usize) {
    let (client, terminal) = strait.stream();
    let (up, down) = (pattern(seed, 400_000), pattern(seed + 1, 700_000));
    let (mut up_rest, mut down_rest) = (&up[..], &down[..]);
    for step in 0.. {
        assert!(step < 60_000, "{} {}", strait.terminal(terminal).got.len(), strait.at(client).got.len());
        for (rest, host) in [(&mut up_rest, true), (&mut down_rest, false)] {
            let count = rest.len().min(strait.dice.below(30_000));
            let (now, later) = rest.split_at(count);
            *rest = later;
            let port = if host { strait.at_mut(client) } else { strait.terminal_mut(terminal) };
            port.inbound.extend(now);
        }
        let reads = [strait.dice.below(3) > 0, strait.dice.below(3) > 0];
        (strait.at_mut(client).reads, strait.terminal_mut(terminal).reads) = (reads[0], reads[1]);
        strait.pass(ms(1));
        if strait.terminal(terminal).got.len() >= up.len() && strait.at(client).got.len() >= down.len() {
            break;
        }
    }
    assert!(strait.terminal(terminal).got == up, "to the terminals, byte for byte");
    assert!(strait.at(client).got == down, "and back");
    (strait.at_mut(client).reads, strait.terminal_mut(terminal).reads) = (true, true);
    // One direction ends, and the other goes on.
    strait.at_mut(client).ends = true;
    strait.pass(ms(100));
    assert!(strait.terminal(terminal).finished && !strait.terminal(terminal).closed);
    strait.terminal_mut(terminal).inbound.extend(b"last words");
    strait.terminal_mut(terminal).ends = true;
    strait.pass(ms(500));
    assert!(strait.at(client).got[down.len()..] == *b"last words");
    assert!(strait.at(client).closed && strait.terminal(terminal).closed);
    assert_eq!(strait.ends(), (vec![TunnelEnd::Finished], vec![TunnelEnd::Finished]));
    let closed = |fact: &Fact| match fact {
        Fact::TunnelClosed { to_guest_bytes, from_guest_bytes, .. } => {
            Some((*to_guest_bytes, *from_guest_bytes))
        }
        _ => None,
    };
    let counts = Some((400_000, 700_010));
    assert_eq!(strait.broker.facts.iter().find_map(closed), counts);
    assert_eq!(strait.agent.facts.iter().find_map(closed), counts);
    assert_eq!((strait.broker.engine.sizes().streams, strait.broker.engine.sizes().stream_bytes), (0, 0));
}

#[test]
fn bytes_arrive_as_they_were_said_in_both_directions_whatever_the_cut_and_whoever_reads() {
    for seed in 1..=6 {
        exchange(&mut Strait::with(seed, |_| {}, |_| {}), seed as usize);
    }
}

#[test]
fn so_they_do_without_a_key_if_the_guest_trusts_its_broker_and_over_slow_links() {
    let unkeyed = |config: &mut castra_core::config::AgentConfig| {
        (config.token, config.trust_unkeyed_broker) = (None, true);
    };
    exchange(&mut Strait::with(7, |_| {}, unkeyed), 7);
    let mut slow = Strait::new();
    slow.rate = Some(200_000);
    exchange(&mut slow, 8);
    // Windows of a size of their own.
    exchange(
        &mut Strait::with(9, |config| config.tunnel.window = 700, |config| config.tunnel.window = 4097),
        9,
    );
}

#[test]
fn what_a_client_says_together_with_its_request_is_for_the_terminals() {
    let mut strait = Strait::new();
    let client = strait.client();
    strait.say(client, REQUEST);
    strait.say(client, b"{\"id\":2,\"method\":\"shutdown\"}\n\x93\x01");
    strait.at_mut(client).ends = true;
    strait.pass(ms(100));
    assert_eq!(strait.reply(client)["event"], "terminals");
    let terminal = strait.dialled[0];
    assert_eq!(strait.terminal(terminal).got, b"{\"id\":2,\"method\":\"shutdown\"}\n\x93\x01");
    assert!(strait.terminal(terminal).finished);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_else() {
    let mut strait = Strait::new();
    let (stuck, flooding) = strait.stream();
    let (client, terminal) = strait.stream();
    strait.at_mut(stuck).reads = false;
    strait.terminal_mut(flooding).inbound.extend(pattern(1, 4_000_000));
    strait.pass(ms(500));
    let left = strait.terminal(flooding).inbound.len();
    assert!(left > 3_400_000, "what nobody reads stays where it is: {left}");
    assert!(strait.broker.engine.sizes().stream_bytes <= 128 * 1024);
    let said = pattern(2, 2_000_000);
    strait.terminal_mut(terminal).inbound.extend(&said);
    strait.pass(ms(500));
    assert!(strait.at(client).got == said);
    strait.at_mut(stuck).reads = true;
    strait.pass(ms(500));
    assert!(strait.at(stuck).got == pattern(1, 4_000_000));
}

#[test]
fn streams_of_a_link_take_turns() {
    let mut strait = Strait::new();
    strait.rate = Some(100_000);
    let pairs: Vec<_> = (0..4).map(|_| strait.stream()).collect();
    for (_, terminal) in &pairs[..3] {
        strait.terminal_mut(*terminal).inbound.extend(pattern(0, 1_000_000));
    }
    strait.pass(ms(4000));
    let got: Vec<_> = pairs[..3].iter().map(|(client, _)| strait.at(*client).got.len()).collect();
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(*least > 40_000 && most - least <= 32 * 1024, "{got:?}");
    let (client, terminal) = pairs[3];
    strait.terminal_mut(terminal).inbound.extend(b"$ ");
    strait.pass(ms(400));
    assert_eq!(strait.at(client).got, b"$ ", "a prompt doesn't wait for floods to end");
}

/// The longest that a challenge or a proof was under way, from `after` on.
fn worst(strait: &Strait, after: Time) -> (usize, Duration) {
    let late = strait.delays.iter().filter(|(at, _)| *at > after);
    (late.clone().count(), late.map(|(_, delay)| *delay).max().unwrap_or_default())
}

#[test]
fn no_challenge_waits_long_behind_a_flood_however_slow_the_line() {
    for rate in [11_520, 40_000, 200_000, 1_000_000] {
        let mut strait = Strait::new();
        strait.rate = Some(rate);
        let (client, terminal) = strait.stream();
        strait.terminal_mut(terminal).inbound.extend(pattern(1, 20_000_000));
        strait.say(client, &pattern(2, 20_000_000));
        strait.pass(ms(5000));
        let begun = strait.now.boot;
        let before = strait.at(client).got.len();
        strait.pass(ms(15_000));
        let (count, delay) = worst(&strait, begun);
        assert!(count > 50, "{count} at {rate}");
        assert!(delay <= ms(300), "{delay:?} at {rate} bytes a second");
        let carried = (strait.at(client).got.len() - before) as u64;
        assert!(carried >= rate * 15 / 2, "{carried} bytes in 15 s at {rate} bytes a second");
        assert!(strait.broker.engine.status(strait.now).next().unwrap().reachable);
    }
}

#[test]
fn an_idle_stream_sends_nothing() {
    let mut strait = Strait::new();
    let (client, _) = strait.stream();
    strait.pass(ms(100));
    let streams = |strait: &Strait| strait.at(client).got.len();
    let before = (streams(&strait), strait.broker.facts.len());
    strait.pass(ms(10_000));
    assert_eq!((streams(&strait), strait.broker.facts.len()), before);
    assert_eq!(strait.broker.engine.sizes().streams, 1);
}

#[test]
fn a_client_that_leaves_takes_the_terminals_connection_along_after_its_last_words() {
    let mut strait = Strait::new();
    let (client, terminal) = strait.stream();
    strait.rate = Some(50_000);
    strait.terminal_mut(terminal).inbound.extend(pattern(1, 100_000));
    let said = pattern(2, 30_000);
    strait.say(client, &said);
    strait.settle();
    let now = strait.now;
    strait.broker.cut(now, client);
    strait.pass(ms(3000));
    assert!(strait.terminal(terminal).got == said);
    assert!(strait.terminal(terminal).closed);
    assert_eq!(strait.ends(), (vec![TunnelEnd::ClientLeft], vec![TunnelEnd::ClientLeft]));
    assert_eq!(strait.broker.engine.sizes().streams, 0);
}

#[test]
fn what_the_terminals_said_before_they_closed_reaches_the_client() {
    let mut strait = Strait::new();
    let (client, terminal) = strait.stream();
    let said = pattern(1, 90_000);
    strait.at_mut(client).reads = false;
    strait.terminal_mut(terminal).inbound.extend(&said);
    strait.pass(ms(100));
    assert!(strait.terminal(terminal).inbound.is_empty());
    let now = strait.now;
    strait.agent.cut(now, terminal);
    strait.pass(ms(1000));
    strait.at_mut(client).reads = true;
    strait.pass(ms(100));
    assert!(strait.at(client).got == said && strait.at(client).closed);
    assert_eq!(strait.ends(), (vec![TunnelEnd::GuestClosed], vec![TunnelEnd::GuestClosed]));
}

#[test]
fn last_words_that_nobody_takes_are_given_up_in_time() {
    let mut strait = Strait::new();
    let (client, terminal) = strait.stream();
    strait.at_mut(client).reads = false;
    strait.terminal_mut(terminal).inbound.extend(pattern(1, 1_000_000));
    strait.pass(ms(200));
    let now = strait.now;
    strait.agent.cut(now, terminal);
    strait.pass(ms(4900));
    assert!(!strait.at(client).closed);
    strait.pass(ms(5300));
    assert!(strait.at(client).closed);
    assert_eq!(strait.broker.engine.sizes().streams, 0);
    assert_eq!(strait.ends().1, [TunnelEnd::GuestClosed]);
}

#[test]
fn streams_end_with_their_session_and_the_next_session_has_new_ones() {
    let mut strait = Strait::new();
    let (client, terminal) = strait.stream();
    strait.terminal_mut(terminal).inbound.extend(pattern(1, 300_000));
    strait.say(client, &pattern(2, 300_000));
    strait.settle();
    let asking = strait.client();
    strait.terminals = Answer::Nothing;
    strait.say(asking, REQUEST);
    strait.settle();
    strait.break_link();
    assert!(strait.at(client).closed && strait.terminal(terminal).closed, "at once");
    assert_eq!(strait.refused(asking), "not_reachable");
    assert_eq!(strait.ends(), (vec![TunnelEnd::SessionLost], vec![TunnelEnd::SessionLost]));
    assert_eq!(strait.broker.engine.sizes().streams, 0);
    strait.terminals = Answer::Opened;
    strait.pass(ms(3000));
    strait.broker.facts.clear();
    strait.agent.facts.clear();
    exchange(&mut strait, 3);
}

#[test]
fn a_drain_closes_streams_on_either_side() {
    for host in [true, false] {
        let mut strait = Strait::new();
        let (client, terminal) = strait.stream();
        strait.terminals = Answer::Nothing;
        let asking = strait.client();
        strait.say(asking, REQUEST);
        strait.settle();
        let (now, deadline) = (strait.now, strait.now.boot + ms(2000));
        if host {
            strait.broker.give(now, castra_core::Input::Drain { deadline });
        } else {
            strait.agent.give(now, castra_core::Input::Drain { deadline });
        }
        strait.settle();
        assert!(strait.at(client).closed && strait.terminal(terminal).closed, "{host}");
        assert_eq!(strait.refused(asking), if host { "shutting_down" } else { "not_reachable" });
        let (broker, agent) = strait.ends();
        assert_eq!(if host { broker } else { agent }, [TunnelEnd::Stopping]);
    }
}
