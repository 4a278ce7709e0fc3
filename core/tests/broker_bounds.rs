//! Every table, queue and wait stays within its bound.
#![allow(clippy::unwrap_used)]

mod common;

use castra_core::Input;
use castra_core::boundary::Transport;
use castra_core::event::{Fact, SessionEnd};
use castra_core::id::ConnId;
use common::{ROOM, World, ms, name};

#[test]
fn a_row_that_was_shaking_hands_when_room_was_needed_can_go_later() {
    let mut world = World::new(|config| config.max_guests = 1);
    let first = world.join("first");
    world.close(first);
    let (again, _, _) = world.hello("first", "");
    let (second, nonce, _) = world.hello("second", "");
    world.write(second, format!("proof {nonce}\n").as_bytes());
    assert!(world.line(second).starts_with("error: busy: "), "the only row is in use");
    world.close(again);
    world.join("second");
    assert!(world.row("first").is_none());
}
