//! The frames that a broker sends: their tags, and what becomes of a guest that
//! doesn't read them.
#![allow(clippy::unwrap_used)]

use crate::common::{World, ends, ms, name};
use castra_core::auth::{Direction, Key, Transcript};
use castra_core::event::SessionEnd;
use castra_core::id::{ConnId, Epoch, Nonce};
use castra_core::{Input, Restored};

const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The payload of the next frame, with its tag.
fn payload(world: &mut World, conn: ConnId) -> Vec<u8> {
    let bytes = &mut world.wires.get_mut(&conn).unwrap().bytes;
    let head: Vec<u8> = bytes.drain(..4).collect();
    let length = u32::from_be_bytes(head.try_into().unwrap()) as usize;
    bytes.drain(..length).collect()
}

#[test]
fn each_frame_of_a_keyed_session_is_tagged_with_its_own_count() {
    let key: Key = TOKEN.parse().unwrap();
    let tokens = vec![(name("keyed"), Some(key.clone()))];
    let mut world = World::restored(|_| {}, Restored { incarnation: 7, tokens, ..Restored::default() });
    let own: Nonce = "0f0e0d0c0b0a09080706050403020100".parse().unwrap();
    let hello = "hello vm:keyed capabilities=proof-v1 nonce=0f0e0d0c0b0a09080706050403020100";
    let (conn, nonce, epoch) = world.hello("keyed", " nonce=0f0e0d0c0b0a09080706050403020100");
    let broker = nonce.parse().unwrap();
    let transcript = Transcript::new(&name("keyed"), &broker, &own, Epoch(epoch), hello.as_bytes());
    world.write(conn, format!("proof {}\n", transcript.guest_proof(&key)).as_bytes());
    assert!(world.line(conn).starts_with("ok "));
    let session = transcript.session_key(&key);
    for count in 0..3 {
        let json = br#"{"type":"ping","id":1}"#;
        let tag = session.tag(Direction::ToBroker, count, json);
        let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        world.send(conn, &format!("{}{tag}", str::from_utf8(json).unwrap()));
        let pong = payload(&mut world, conn);
        session.open(Direction::ToGuest, count, &pong).unwrap();
    }
}

#[test]
fn a_guest_that_does_not_read_has_one_window() {
    let mut world = World::new(|_| {});
    let conn = world.join("devbox");
    let wire = world.wires.get_mut(&conn).unwrap();
    (wire.blocked, wire.room) = (true, 0);
    world.handle(Input::Writable { conn, room: 0 });
    for _ in 0..5001 {
        if world.broker.statistics().challenges_blocked == 0 {
            world.advance(ms(1));
        }
    }
    assert_eq!(world.broker.statistics().challenges_blocked, 1);
    // It was noticed at most a millisecond ago.
    world.advance(ms(14_998));
    assert!(!world.is_closed(conn));
    world.advance(ms(2));
    assert!(world.is_closed(conn));
    assert_eq!(ends(&world), [SessionEnd::Slow]);
}
