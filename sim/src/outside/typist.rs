//! A machine's terminals: they take what is typed after a while, belong to somebody, are
//! not there, take too long, or break. What really was typed is the witness's to know.

use std::time::Duration;

use castra_core::boundary::{EffectErrorKind, Typed};
use castra_core::time::Time;
use castra_driver::work::{JobId, Outcome};

use super::failed;
use crate::choice::Choice;
use crate::net::{Hub, NodeId};
use crate::plan::attach::Managed;
use crate::witness::Witness;

/// Something that is being typed.
#[derive(Debug)]
pub(super) struct Typing {
    pub(super) job: JobId,
    bytes: Typed,
    until: Time,
    deadline: Time,
    fate: Fate,
}

/// What the terminal makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Taken,
    Owned,
    Missing,
    Slow,
    Broken,
}

impl Typing {
    pub(super) fn new(
        hub: &mut Hub,
        managed: &Managed,
        job: JobId,
        terminal: &str,
        bytes: Typed,
        patience: Duration,
    ) -> Self {
        let fate = if terminal != "main" {
            Fate::Missing
        } else if hub.chooser.0.once_in(managed.odd_terminal) {
            hub.chooser.0.pick(&[Fate::Owned, Fate::Slow, Fate::Missing, Fate::Broken])
        } else {
            Fate::Taken
        };
        let takes = match fate {
            Fate::Slow => patience * 2,
            Fate::Missing => Duration::ZERO,
            _ => Duration::from_millis(hub.chooser.0.between(0, managed.typing_ms)),
        };
        Self { job, bytes, until: hub.now + takes, deadline: hub.now + patience, fate }
    }

    /// When the agent hears of it.
    pub(super) fn ends_at(&self) -> Time {
        self.until.min(self.deadline)
    }

    /// It is over.
    pub(super) fn end(self, hub: &mut Hub, node: NodeId, witness: &mut Witness) -> (JobId, Outcome) {
        let late = self.until > self.deadline;
        let outcome = match self.fate {
            Fate::Taken if !late => {
                self.typed(node, witness);
                Outcome::Finished(Ok(()))
            }
            Fate::Taken | Fate::Slow => {
                if hub.chooser.0.once_in(2) {
                    self.typed(node, witness);
                }
                failed(EffectErrorKind::TimedOut, "the terminal did not take it in time")
            }
            Fate::Owned => failed(EffectErrorKind::Owned, "somebody owns the terminal"),
            Fate::Missing => failed(EffectErrorKind::ProgramMissing, "there is no such terminal"),
            Fate::Broken => failed(EffectErrorKind::Terminal, "the terminal could not take it"),
        };
        (self.job, outcome)
    }

    /// Nobody waits for it any more: perhaps it was typed.
    pub(super) fn cut_off(self, hub: &mut Hub, node: NodeId, witness: &mut Witness) {
        if matches!(self.fate, Fate::Taken | Fate::Slow) && hub.chooser.0.once_in(2) {
            self.typed(node, witness);
        }
    }

    fn typed(&self, node: NodeId, witness: &mut Witness) {
        witness.of_attach(|attach| attach.typed(node, &self.bytes.0));
    }
}
