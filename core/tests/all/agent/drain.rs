//! How an agent takes leave.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::support::*;
use castra_core::Input;
use castra_core::boundary::CloseReason;
use castra_core::event::{Fact, LinkEnd};

fn ended(reason: LinkEnd) -> Out {
    Out::Event(Fact::LinkDown { reason, retry_ms: None, error: None })
}

#[test]
fn a_drain_says_goodbye_and_is_over() {
    let mut world = World::new(config());
    let conn = world.up();
    world.give(Input::Drain { deadline: world.now + seconds(3) });
    assert_eq!(
        world.take(),
        [
            Out::Sent(conn, frame(r#"{"type":"goodbye"}"#)),
            Out::Close(conn, CloseReason::Drained),
            ended(LinkEnd::Stopping),
            Out::Stopped,
        ]
    );
    assert_eq!(world.wait, None);
    world.give(Input::Drain { deadline: world.now });
    world.live(seconds(100));
    assert_eq!(world.take(), []);
}

#[test]
fn a_drain_ends_a_dial_a_handshake_and_a_backoff_as_well() {
    let mut dialing = World::new(config());
    let effect = dialing.dialled();
    dialing.take();
    let mut handshaking = World::new(config());
    let conn = handshaking.connect();
    handshaking.take();
    let mut resting = World::new(config());
    resting.fail_dial();
    resting.take();
    for (world, first) in [
        (&mut dialing, Some(Out::Cancel(effect))),
        (&mut handshaking, Some(Out::Close(conn, CloseReason::Drained))),
        (&mut resting, None),
    ] {
        world.give(Input::Drain { deadline: world.now + seconds(3) });
        let rest = [ended(LinkEnd::Stopping), Out::Stopped];
        assert_eq!(world.take(), first.into_iter().chain(rest).collect::<Vec<_>>());
    }
    let late = dialing.open(effect, ROOM);
    assert_eq!(dialing.take(), [Out::Close(late, CloseReason::Finished)]);
}
