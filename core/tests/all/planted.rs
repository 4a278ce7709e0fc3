//! A planted bug acts, and a reload doesn't weed it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::common::{REACHABLE, World, waiting};
use castra_core::Input;
use castra_core::config::BrokerConfig;
use castra_core::planted::Bug;
use castra_core::status::Reason;

#[test]
fn a_bug_acts_where_it_is_planted_and_after_a_reload_and_nowhere_else() {
    for (planted, end) in [(Some(Bug::OneShotForever), REACHABLE), (None, waiting(Reason::Stale))] {
        let mut world = World::new(|config| config.planted = planted);
        let (conn, nonce, _) = world.hello("devbox", " once");
        world.write(conn, format!("proof {nonce}\n").as_bytes());
        world.handle(Input::Reload(Box::new(BrokerConfig::default())));
        world.advance(Duration::from_secs(3600));
        assert_eq!(world.verdict("devbox"), end);
    }
}
