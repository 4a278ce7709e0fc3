//! One stream, seen from either side.

use alloc::collections::VecDeque;

use super::TunnelSettings;
use super::end::End;
use super::streams::Line;
use super::wire::{self, TunnelFrame};
use crate::event::TunnelEnd;
use crate::time::Time;

#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) stage: Stage,
    /// The local connection, unless it isn't there yet or is gone.
    pub(super) end: Option<End>,
    /// Its bytes that are to be sent.
    pub(super) queue: VecDeque<u8>,
    /// How many more the other side takes.
    pub(super) credit: u64,
    pub(super) sending: Sending,
    /// The other side sends no more.
    pub(super) ended: bool,
    /// The other side has closed: what waits here is still handed on.
    pub(super) closed: Option<TunnelEnd>,
    /// This side closes, after what is to be sent.
    pub(super) closing: Option<TunnelEnd>,
    /// How many bytes the other side may send, and …
    pub(super) allowed: usize,
    /// … how many went on from here without being given back.
    pub(super) owed: usize,
    /// An answer, or progress of the last bytes, must come by then.
    pub(super) deadline: Option<Time>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) since: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It is asked for, or is to be.
    Asking {
        told: bool,
    },
    /// The local connection is dialled.
    Dialling,
    /// It is there; the other side isn't told yet.
    Dialled,
    Open,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sending {
    Open,
    /// The local connection ended; what it said is still sent.
    Ending,
    Ended,
}

/// A local connection is read from while less than this is to be sent, and again
/// below half of it.
pub(super) const QUEUE: usize = 64 * 1024;

impl Stream {
    pub(super) fn new(stage: Stage, end: Option<End>, window: usize, now: Time, deadline: Time) -> Self {
        Self {
            stage,
            end,
            queue: VecDeque::new(),
            credit: 0,
            sending: Sending::Open,
            ended: false,
            closed: None,
            closing: None,
            allowed: window,
            owed: 0,
            deadline: Some(deadline),
            sent: 0,
            received: 0,
            since: now,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Dialled | Stage::Open)
    }

    pub(super) fn waiting(&self) -> usize {
        self.end.as_ref().map_or(0, End::waiting)
    }

    /// Why it is over, if it is; the local connection has been given everything.
    pub(super) fn is_over(&self) -> Option<TunnelEnd> {
        if self.waiting() > 0 {
            return None;
        }
        let ended = self.ended && self.sending == Sending::Ended;
        self.closed.or_else(|| ended.then_some(TunnelEnd::Finished))
    }

    /// Bytes that may be sent, as far as the other side and the queue are concerned.
    pub(super) fn sendable(&self) -> usize {
        let credit = usize::try_from(self.credit).unwrap_or(usize::MAX);
        if self.stage == Stage::Open { self.queue.as_slices().0.len().min(credit) } else { 0 }
    }

    /// Its last bytes wait for somebody to take them; that is bounded.
    pub(super) fn is_lingering(&self) -> bool {
        self.closed.is_some() || self.closing.is_some() || (self.ended && self.sending != Sending::Open)
    }
}

impl Stream {
    /// What has to be said before any data.
    pub(super) fn greet(&mut self, id: u64, settings: &TunnelSettings, line: &mut impl Line) {
        let window = settings.window as u64;
        match self.stage {
            Stage::Asking { told: false } => {
                let told = line.send(wire::CONTROL_MAX, &TunnelFrame::Open { stream: id, window });
                self.stage = Stage::Asking { told };
            }
            Stage::Dialled => {
                if line.send(wire::CONTROL_MAX, &TunnelFrame::Opened { stream: id, window }) {
                    self.stage = Stage::Open;
                }
            }
            Stage::Asking { told: true } | Stage::Dialling | Stage::Open => {}
        }
        let worthwhile = self.owed >= settings.window / 4 && !self.ended && self.closed.is_none();
        let credit = TunnelFrame::Credit { stream: id, bytes: self.owed as u64 };
        if worthwhile && line.send(wire::CONTROL_MAX, &credit) {
            self.allowed += core::mem::take(&mut self.owed);
        }
    }

    /// What has to be said after all data.
    pub(super) fn take_leave(&mut self, id: u64, line: &mut impl Line) {
        if self.queue.is_empty()
            && self.sending == Sending::Ending
            && self.stage == Stage::Open
            && line.send(wire::CONTROL_MAX, &TunnelFrame::End { stream: id })
        {
            self.sending = Sending::Ended;
        }
    }
}
