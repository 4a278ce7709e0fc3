//! What is checked of peers notices what is planted.
#![allow(clippy::unwrap_used)]

use crate::peering::Town;
use castra_core::planted::Bug;

fn town(change: fn(&mut castra_core::config::BrokerConfig)) -> Town {
    let mut town = Town::with(change);
    town.enter("a");
    town.enter("b");
    town
}

#[test]
#[should_panic(expected = "[true, false]")]
fn a_relation_on_one_side_is_noticed() {
    let mut town = town(|config| config.planted = Some(Bug::OneSidedPeer));
    town.link("a", "b");
    town.peers();
}

#[test]
#[should_panic(expected = "told of a delivery")]
fn a_delivery_that_was_only_sent_is_noticed() {
    let mut town = town(|config| config.planted = Some(Bug::DeliveredWhenSent));
    town.link("a", "b");
    town.acks = false;
    let id = town.order_send("a", "b", "x");
    assert_eq!(town.told(id), None, "told of a delivery");
}

#[test]
#[should_panic(expected = "assertion")]
fn a_commit_that_failed_and_counts_is_noticed() {
    let mut town = town(|config| config.planted = Some(Bug::CommitFailureIgnored));
    town.failing = true;
    town.order_link("a", "b");
    town.peers();
}
