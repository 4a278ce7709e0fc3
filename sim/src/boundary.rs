//! What a shell owes its engine (DESIGN, 4.1), held against the simulated kernel.

use castra_core::boundary::{CloseCause, Deadline, Source};
use castra_core::id::ConnId;
use castra_core::time::Time;
use castra_core::{Input, Output};

use crate::net::{Hub, NodeId};

/// The promise: what stands in the boundary's documentation.
pub(crate) const BOUNDARY: &str = "4.1";

/// What one engine asked for, as far as its shell can break it.
#[derive(Debug, Default)]
pub(crate) struct Boundary {
    /// Connections whose bytes it does not want now.
    paused: Vec<ConnId>,
    /// What it waits for, and when it said so.
    wait: Option<(Deadline, Time)>,
}

impl Boundary {
    /// An engine said something. False: nothing that is of interest here.
    pub(crate) fn output(&mut self, hub: &mut Hub, node: NodeId, output: &Output<'_>) {
        match output {
            Output::Transmit { conn, bytes } => hub.say(node, *conn, bytes),
            Output::Discard { conn } => hub.unsay(node, *conn),
            Output::Read { source: Source::Conn(conn), credit } => {
                self.paused.retain(|other| other != conn);
                if *credit == 0 {
                    self.paused.push(*conn);
                }
            }
            Output::Close { conn, .. } => self.paused.retain(|other| other != conn),
            Output::Wait(wait) => self.wait = wait.map(|wait| (wait, hub.now)),
            _ => {}
        }
    }

    /// An input is about to go in: may it?
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn input<C>(&mut self, hub: &Hub, node: NodeId, input: &Input<'_, C>) -> Result<(), String> {
        match input {
            Input::Bytes { conn, .. } if self.paused.contains(conn) => {
                Err(format!("bytes of {conn:?}, from which the engine wants none"))
            }
            Input::Finished { conn } if !hub.is_finished(node, *conn) => {
                Err(format!("{conn:?} is said to be finished, and its other end may go on"))
            }
            Input::Closed { conn, why } => {
                self.paused.retain(|other| other != conn);
                if *why != CloseCause::Shell && hub.nodes[node].closed_last == Some((*conn, false)) {
                    return Err(format!("{conn:?} is said to be gone ({why:?}), and its stream was whole"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// By how much the engine is called too late, if it has run since `awake`.
    pub(crate) fn lateness(&self, awake: Time, now: Time) -> Option<(Deadline, core::time::Duration)> {
        let (wait, said) = self.wait?;
        let due = wait.at.max(said).max(awake);
        (due < now).then(|| (wait, now.since(due)))
    }
}
