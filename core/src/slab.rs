//! What the engine keeps of each connection, by the shell's id.

use crate::id::ConnId;
use crate::pages::Pages;

/// A table by [`ConnId`]: a late id of an earlier generation finds nothing.
#[derive(Clone, Debug)]
pub(crate) struct ConnTable<T> {
    entries: Pages<Option<T>>,
    count: usize,
}

/// What is kept of a connection keeps its generation, too: beside it, the table
/// would need twice the room for that.
pub(crate) trait Entry {
    /// [`ConnId::generation`].
    fn generation(&self) -> u32;
}

impl<T> Default for ConnTable<T> {
    fn default() -> Self {
        Self { entries: Pages::default(), count: 0 }
    }
}

impl<T: Entry> ConnTable<T> {
    /// Whatever was in the slot is replaced.
    pub(crate) fn insert(&mut self, conn: ConnId, value: T) {
        debug_assert_eq!(conn.generation, value.generation());
        let index = conn.index as usize;
        while self.entries.len() <= index {
            self.entries.push(None);
        }
        if self.entries[index].replace(value).is_none() {
            self.count += 1;
        }
    }

    pub(crate) fn get(&self, conn: ConnId) -> Option<&T> {
        let entry = self.entries.get(conn.index as usize)?.as_ref();
        entry.filter(|value| value.generation() == conn.generation)
    }

    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        let entry = self.entries.get_mut(conn.index as usize)?.as_mut();
        entry.filter(|value| value.generation() == conn.generation)
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<T> {
        self.get(conn)?;
        self.count -= 1;
        self.entries[conn.index as usize].take()
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// All with their ids, in order of their slots.
    #[cfg(feature = "model")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let value = entry.as_ref()?;
            // The index came from a u32.
            Some((ConnId { index: index as u32, generation: value.generation() }, value))
        })
    }

    /// The first in this slot or behind.
    pub(crate) fn next_from(&self, first: u32) -> Option<ConnId> {
        // They came from numbers as large.
        (first..self.entries.len() as u32).find_map(|index| {
            let generation = self.entries.get(index as usize)?.as_ref()?.generation();
            Some(ConnId { index, generation })
        })
    }

    /// All, in order of their slots.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let generation = entry.as_ref()?.generation();
            // The index came from a u32.
            Some(ConnId { index: index as u32, generation })
        })
    }
}
