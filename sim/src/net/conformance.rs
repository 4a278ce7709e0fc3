//! The simulated network does what the kernel does: the same scripts run over both.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use castra_core::boundary::{Transport, Via};
use castra_core::time::Time;
use castra_driver::address::ConnectAddress;
use castra_driver::conformance::{Peer, World, scripts};
use castra_driver::net::{ListenerId, Ready};

use super::stream::Phase;
use super::{Door, EndId, Hub, Node, Owner, Shared, SimNet};
use crate::choice::{Choice, Seeded};
use crate::plan::Network;

const DOOR: Door = ListenerId(1);
const ELSEWHERE: Door = ListenerId(2);
/// The shell's process, and the one at the other ends.
const SHELL: usize = 0;
const OTHERS: usize = 1;

/// `ROUGH`: writes are cut, reads are short, edges come for nothing.
struct SimWorld<const ROUGH: bool>(Shared);

struct SimPeer {
    hub: Shared,
    end: EndId,
}

fn hub(network: Network, choice: impl Choice + 'static) -> Shared {
    let mut hub = Hub::new(network, Box::new(choice), Time::from_millis(1));
    for door in [DOOR, ELSEWHERE] {
        hub.nodes.push(Node { exists: true, doors: vec![(door, Default::default())], ..Node::default() });
    }
    Rc::new(RefCell::new(hub))
}

/// Time goes on until nothing is under way any more.
fn settle(hub: &Shared) {
    let mut hub = hub.borrow_mut();
    while let Some(at) = hub.next() {
        hub.now = hub.now.max(at);
        hub.run();
    }
}

const PLAIN: Network = Network {
    latency_min_us: 0,
    latency_max_us: 0,
    cut: 0,
    join: 0,
    short_read: 0,
    spurious: 0,
    buffer: 65_536,
    backlog: 1024,
};

const ROUGHLY: Network =
    Network { latency_max_us: 900, cut: 3, join: 5, short_read: 3, spurious: 3, ..PLAIN };

impl<const ROUGH: bool> World for SimWorld<ROUGH> {
    type Net = SimNet;
    type Peer = SimPeer;

    fn start() -> (Self, SimNet, Vec<(ListenerId, Via)>) {
        let hub = hub(if ROUGH { ROUGHLY } else { PLAIN }, Seeded::new(1));
        let mut net = SimNet::listener(Rc::clone(&hub), SHELL, ListenerId(0), vec![(DOOR, Transport::Tcp)]);
        net.dials(OTHERS, ELSEWHERE, false);
        (Self(hub), net, vec![(DOOR, Via::Link(Transport::Tcp))])
    }

    fn dial(&mut self) -> SimPeer {
        let owner = Owner { node: OTHERS, life: 0 };
        let end = self.0.borrow_mut().dial(owner, SHELL, DOOR, false);
        settle(&self.0);
        assert_eq!(self.0.borrow_mut().stream(end).map(|stream| stream.phase), Some(Phase::Open));
        SimPeer { hub: Rc::clone(&self.0), end }
    }

    fn elsewhere(&mut self) -> Option<ConnectAddress> {
        Some(ConnectAddress::Unix { path: "elsewhere".into() })
    }

    fn answer(&mut self) -> Option<SimPeer> {
        settle(&self.0);
        let end = self.0.borrow_mut().nodes[OTHERS].doors[0].1.pop_front()?;
        Some(SimPeer { hub: Rc::clone(&self.0), end })
    }

    fn wait(&mut self, _net: &mut SimNet, ready: &mut Vec<Ready>) {
        settle(&self.0);
        ready.append(&mut self.0.borrow_mut().nodes[SHELL].edges);
    }
}

impl Peer for SimPeer {
    const RESETS: bool = true;

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hub.borrow_mut().write(self.end, bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        settle(&self.hub);
        self.hub.borrow_mut().read(self.end, buffer).map(|(count, _)| count)
    }

    fn finish(&mut self) {
        self.hub.borrow_mut().finish(self.end);
    }

    fn reset(self) {
        self.hub.borrow_mut().reset(self.end);
        settle(&self.hub);
    }
}

impl Drop for SimPeer {
    fn drop(&mut self) {
        self.hub.borrow_mut().close(self.end);
    }
}

macro_rules! conformance {
    ($rough:literal: $($script:ident),* $(,)?) => {
        $(#[test] fn $script() { super::scripts::$script::<super::SimWorld<$rough>>(); })*
    };
}

mod plain {
    conformance!(
        false:
        bytes_travel_both_ways_in_order,
        a_half_close_is_heard_and_answered,
        a_reset_ends_the_connection,
        a_farewell_before_a_close_is_heard,
        without_credit_nothing_is_read,
        a_peer_that_does_not_read_blocks_only_itself,
        what_was_said_before_the_close_arrives,
        a_close_that_cannot_be_said_is_given_up,
        a_close_cut_short_by_a_full_buffer_has_a_deadline,
        bytes_that_come_with_the_connect_are_not_forgotten,
        a_refusal_is_read_by_a_peer_that_said_too_much,
        a_burst_is_accepted_in_batches_and_within_credit,
        running_out_of_descriptors_heals_itself,
        a_dead_id_reaches_nobody,
        an_echo_costs_one_read_and_one_write,
        a_dial_reaches_its_end_or_is_cancelled,
        a_discard_drops_what_the_kernel_has_not_taken,
        a_flood_does_not_starve_the_others,
    );
}

/// All but the one that counts reads and writes.
mod rough {
    conformance!(
        true:
        bytes_travel_both_ways_in_order,
        a_half_close_is_heard_and_answered,
        a_reset_ends_the_connection,
        a_farewell_before_a_close_is_heard,
        without_credit_nothing_is_read,
        a_peer_that_does_not_read_blocks_only_itself,
        what_was_said_before_the_close_arrives,
        a_close_that_cannot_be_said_is_given_up,
        a_close_cut_short_by_a_full_buffer_has_a_deadline,
        bytes_that_come_with_the_connect_are_not_forgotten,
        a_refusal_is_read_by_a_peer_that_said_too_much,
        a_burst_is_accepted_in_batches_and_within_credit,
        running_out_of_descriptors_heals_itself,
        a_dead_id_reaches_nobody,
        a_dial_reaches_its_end_or_is_cancelled,
        a_discard_drops_what_the_kernel_has_not_taken,
        a_flood_does_not_starve_the_others,
    );
}
