//! One source of choices for the network, the host and the world.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::choice::Choice;

/// A handle on the source.
#[derive(Clone)]
pub(super) struct Draws(Rc<RefCell<Box<dyn Choice>>>);

impl Draws {
    pub(super) fn new(choice: Box<dyn Choice>) -> Self {
        Self(Rc::new(RefCell::new(choice)))
    }

    /// Up to `most`.
    pub(super) fn delay(&mut self, most: Duration) -> Duration {
        self.span(most)
    }
}

impl Choice for Draws {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.borrow_mut().below(bound)
    }
}

impl std::fmt::Debug for Draws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Draws")
    }
}
