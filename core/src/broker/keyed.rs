//! Who has a token, and that nobody without one takes the place of their rows.

use core::ops::Bound;

use crate::auth::Key;
use crate::broker::facts::{Keep, RowId};
use crate::broker::guests::Guests;
use crate::id::GuestName;

impl Guests {
    /// `None`: never had a token. `Some(None)`: it was taken away.
    pub(crate) fn token(&self, name: &GuestName) -> Option<Option<&Key>> {
        self.tokens.get(name).map(Option::as_ref)
    }

    pub(crate) fn set_token(&mut self, name: GuestName, key: Option<Key>) {
        let keyed = key.is_some();
        self.tokens.insert(name, key);
        if let Some(id) = self.find(&name) {
            self.keep_keyed(id, keyed);
            self.line_up(&name);
        }
    }

    /// The first name after `last` that has, or had, a token, and whether it has one.
    pub(crate) fn token_after(&self, last: Option<&GuestName>) -> Option<(GuestName, bool)> {
        let lower = last.map_or(Bound::Unbounded, Bound::Excluded);
        let (name, key) = self.tokens.range::<GuestName, _>((lower, Bound::Unbounded)).next()?;
        Some((*name, key.is_some()))
    }

    /// Whether `--only-known` admits the name.
    pub(crate) fn is_known(&self, name: &GuestName) -> bool {
        self.has_token(name)
            || self.find(name).and_then(|id| self.get(id)).is_some_and(|row| row.keep.is(Keep::CONFIGURED))
    }

    /// Whether the name has a token now.
    pub(super) fn has_token(&self, name: &GuestName) -> bool {
        self.tokens.get(name).is_some_and(Option::is_some)
    }

    /// The row is there to stay as long as its name has a token. So rows of names that
    /// anybody may invent never keep out a guest that the operator gave a token.
    pub(super) fn keep_keyed(&mut self, id: RowId, keyed: bool) {
        let Some(row) = self.get_mut(id) else { return };
        let before = row.keep.set(Keep::KEYED, keyed);
        match (before, keyed) {
            (false, true) => {
                self.keyed_rows += 1;
                self.leave_line(id);
            }
            (true, false) => self.keyed_rows -= 1,
            (false, false) | (true, true) => {}
        }
    }
}
