//! What a client was told of one terminal that it watches: output in order, and what
//! was left out, and the end.

use castra_core::terminals::Exit;

use crate::terminals::host::Life;
use crate::terminals::pattern;

/// A subscription.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// The next byte; unknown before it is attached.
    next: Option<u64>,
    /// Of a dual client: where output began before the answer came.
    early: Option<u64>,
    exit: Option<Exit>,
    /// It asked to see no more, or asked again.
    pub(super) leaving: bool,
    /// The program ran when it was attached.
    ran: bool,
}

impl View {
    pub(super) const fn next(&self) -> Option<u64> {
        self.next
    }

    /// The answer to an attach.
    pub(super) fn attached(&mut self, offset: u64, ran: bool, ordered: bool) -> Result<(), String> {
        if let Some(early) = self.early.take().filter(|_| !ordered) {
            if early != offset {
                return Err(format!("output begins at {early}, and is said to begin at {offset}"));
            }
            return Ok(());
        }
        if let Some(exit) = self.exit.filter(|_| !ordered && self.next.is_none()) {
            // The end was already told on the other connection, and nothing before it.
            *self = Self { next: Some(offset), exit: Some(exit), ..Self::default() };
            return Ok(());
        }
        if self.early.is_some() {
            return Err("output comes before the answer to its attach".to_owned());
        }
        *self = Self { next: Some(offset), ran, ..Self::default() };
        Ok(())
    }

    pub(super) fn output(&mut self, terminal: u32, offset: u64, data: &[u8]) -> Result<(), String> {
        if self.exit.is_some() {
            return Err(format!("{} bytes at {offset} come after the end", data.len()));
        }
        if data.is_empty() {
            return Err("output without a byte".to_owned());
        }
        match self.next {
            None => (self.early, self.ran) = (Some(offset), true),
            Some(next) if next != offset => {
                return Err(format!("output goes on at {offset}, and {next} is next"));
            }
            Some(_) => {}
        }
        if !pattern::is_output(terminal, offset, data) {
            return Err(format!("{} bytes at {offset} are not what was written", data.len()));
        }
        self.next = Some(offset + data.len() as u64);
        Ok(())
    }

    pub(super) fn resync(&mut self, offset: u64, skipped: u64) -> Result<(), String> {
        if self.exit.is_some() {
            return Err(format!("a resync at {offset} comes after the end"));
        }
        match self.next {
            Some(next) if next.checked_add(skipped) == Some(offset) => {}
            next => return Err(format!("a resync skips {skipped} to {offset}, and {next:?} is next")),
        }
        self.next = Some(offset);
        Ok(())
    }

    pub(super) fn ended(&mut self, exit: Exit, lives: &[Life], ordered: bool) -> Result<(), String> {
        if let Some(before) = self.exit.replace(exit) {
            return Err(format!("it ended twice, {before:?} and {exit:?}"));
        }
        let next = match self.next {
            Some(next) => next,
            None if ordered => return Err("it ended before it was attached".to_owned()),
            None => lives.last().map_or(0, |life| life.end),
        };
        if exit.code == -1 && exit.signal.is_none() {
            // Nobody knows how; so it really is, then.
            let known = !lives.is_empty()
                && lives.iter().all(|life| life.exit.is_some() && !life.forgotten || !life.over);
            return if known { Err("its end is known, and nobody is told".to_owned()) } else { Ok(()) };
        }
        let ends = |life: &&Life| life.over && life.exit == Some(exit);
        let Some(life) = lives.iter().rfind(ends) else {
            return Err(format!("it is said to have ended with {exit:?}: {lives:?}"));
        };
        if self.ran && next != life.end {
            return Err(format!("its end is told at {next}, and it wrote until {}", life.end));
        }
        Ok(())
    }

    /// What is missing, when everything should have come.
    pub(super) fn lacks(&self, life: &Life, terminal: u32) -> Option<String> {
        if self.leaving {
            return None;
        }
        let next = self.next?;
        if next < life.end && life.first <= next && (self.ran || !life.over) {
            return Some(format!("lacks terminal {terminal}'s bytes from {next} to {}", life.end));
        }
        if life.over && self.exit.is_none() {
            return Some(format!("was not told that terminal {terminal} ended ({life:?})"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let mut view = View::default();
        view.attached(100, true, true).expect("attached");
        view
    }

    const OVER: Life =
        Life { first: 0, end: 110, over: true, exit: Some(Exit { code: 3, signal: None }), forgotten: false };

    #[test]
    fn output_and_what_is_left_out_make_what_was_written() {
        let mut it = view();
        it.output(4, 100, &pattern::output(4, 100, 10)).expect("the next bytes");
        it.output(4, 111, &pattern::output(4, 111, 10)).expect_err("a gap");
        it.output(4, 109, &pattern::output(4, 109, 10)).expect_err("a double byte");
        it.output(4, 110, &pattern::output(5, 110, 10)).expect_err("another terminal's");
        it.resync(200, 90).expect("90 skipped");
        it.resync(300, 90).expect_err("100 skipped");
    }

    #[test]
    fn an_end_is_told_once_and_last() {
        let exit = Exit { code: 3, signal: None };
        view().ended(exit, &[OVER], true).expect_err("10 bytes are missing");
        let mut it = view();
        it.output(4, 100, &pattern::output(4, 100, 10)).expect("the next bytes");
        it.clone().ended(Exit { code: 4, signal: None }, &[OVER], true).expect_err("another code");
        it.clone().ended(exit, &[Life { over: false, ..OVER }], true).expect_err("it runs");
        assert!(it.lacks(&OVER, 4).is_some());
        it.ended(exit, &[OVER], true).expect("the end");
        assert!(it.lacks(&OVER, 4).is_none());
        it.clone().ended(exit, &[OVER], true).expect_err("twice");
        it.output(4, 110, &pattern::output(4, 110, 1)).expect_err("after the end");
    }
}
