//! How a terminal's thread comes by its terminal: a new one, or one that was held.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use castra_core::boundary::EffectError;
use castra_core::terminals::{Launch, News, Snapshot, Tail};

use super::directory::Directory;
use super::link::{HeldTerminal, Link};
use super::model::showing;
use super::output::{Output, Start};
use super::terminal::{Keeper, Live, Phase, Starting, Waiting, failed};
use super::{launch, memory};
use crate::terminals::holder::ring::View;
use crate::terminals::holder::wire::{PROGRAM_MAX, Request};
use crate::work::JobId;

impl Keeper {
    pub(super) fn spawn(
        &mut self,
        id: JobId,
        launch: &Launch,
        first: u64,
        tail: Option<&Tail>,
    ) -> Result<(), EffectError> {
        if !matches!(self.phase, Phase::Blank) {
            return Err(failed("there is such a terminal already"));
        }
        let link = self.shared.link().map_err(|error| EffectError::from(&error))?;
        let options = &self.shared.options;
        let size = (launch.cols, launch.rows);
        let model = options.model.as_ref().map(|make| match tail {
            Some(tail) => showing(make, &tail.content, (tail.cols, tail.rows), size),
            None => make(size.0, size.1),
        });
        let program = memory::write(&launch::program(launch, &options.environment))
            .map_err(|error| failed(format!("can't say what to start: {error}")))?;
        if rustix::fs::fstat(&program).is_ok_and(|stat| stat.st_size.cast_unsigned() > PROGRAM_MAX) {
            return Err(failed("the arguments and the environment are too long"));
        }
        let seq = self.expect(Waiting::Spawn(id));
        let terminal = self.terminal;
        if let Err(error) = link.send(&Request::Spawn { seq, terminal, first }, vec![program]) {
            self.forget(seq);
            return Err(failed(format!("the holder of the terminals doesn't listen: {error}")));
        }
        self.phase = Phase::Starting(Box::new(Starting { link, first, model }));
        Ok(())
    }

    /// What was held, aside until it is adopted.
    pub(super) fn held(&self, link: Arc<Link>, held: HeldTerminal) -> Live {
        let options = &self.shared.options;
        let snapshot = held
            .snapshot
            // A daemon without a model may have let go what follows an older one's.
            .filter(|(offset, _)| (held.first..=held.end).contains(offset))
            .and_then(|(offset, memory)| Some((offset, memory::read::<Snapshot>(memory).ok()?)));
        let mut seen = held.first;
        let model = options.model.as_ref().map(|make| match &snapshot {
            Some((offset, snapshot)) => {
                seen = *offset;
                showing(make, &snapshot.content, (snapshot.cols, snapshot.rows), held.size)
            }
            None => make(held.size.0, held.size.1),
        });
        let start = Start { first: held.first, end: held.end, seen };
        let ring = link.ring;
        let source = (View::new(held.memory, ring), held.counter);
        let output = Output::new(self.terminal, source, ring, &start, model, options.stored_history);
        let directory = Directory::new(held.pid, held.start_time);
        Live { link, output, directory, aside: true, exit: None, lost: None, told: false }
    }

    pub(super) fn started(
        &mut self,
        id: JobId,
        (pid, start_time, pts): (u32, u64, String),
        source: Option<(OwnedFd, OwnedFd)>,
    ) {
        let phase = std::mem::replace(&mut self.phase, Phase::Blank);
        let Phase::Starting(starting) = phase else {
            return self.finish(id, Err(failed("nobody waits for a program")));
        };
        let Starting { link, first, model } = *starting;
        let Some((memory, counter)) = source else {
            // It runs, and nobody will ever see it.
            let terminal = self.terminal;
            let _ = link.send(&Request::Kill { seq: 0, terminal }, Vec::new());
            let _ = link.send(&Request::Release { seq: 0, terminal }, Vec::new());
            return self.finish(id, Err(failed("its output can't be read: there are no descriptors left")));
        };
        let ring = link.ring;
        let start = Start { first, end: first, seen: first };
        let source = (View::new(memory, ring), counter);
        let history = self.shared.options.stored_history;
        let output = Output::new(self.terminal, source, ring, &start, model, history);
        let directory = Directory::new(pid, start_time);
        let live = Live { link, output, directory, aside: false, exit: None, lost: None, told: false };
        self.phase = Phase::Live(Box::new(live));
        self.shared.news(self.terminal, News::Started { pid, pts, start_time });
        self.finish(id, Ok(()));
    }
}
