//! The README's main command.

use std::time::Duration;

use crate::support::World;

#[test]
fn the_demo_tells_its_story_within_40_s_and_leaves_nothing_behind() {
    let world = World::new();
    let ran = world.castra(&["demo", "--once"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.took < Duration::from_secs(40), "{ran:?}");
    assert!(ran.out.contains("Everything was as expected."), "{ran:?}");
    for word in ["reachable", "waiting", "offline", "stale", "disconnected", "goodbye"] {
        assert!(ran.out.contains(word), "{word} is part of the story: {ran:?}");
    }
    assert!(!ran.out.contains('\x1b'), "no colour, for nobody looks");
    assert_eq!(std::fs::read_dir(world.path("tmp")).unwrap().count(), 0, "its directory is gone");
    assert!(!world.path("state").exists(), "it has a state directory of its own");
}
