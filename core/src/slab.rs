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

#[cfg(test)]
mod tests {
    use super::{ConnTable, Entry};
    use crate::id::ConnId;

    #[derive(Debug, PartialEq, Eq)]
    struct Kept(u32, &'static str);

    impl Entry for Kept {
        fn generation(&self) -> u32 {
            self.0
        }
    }

    const fn conn(index: u32, generation: u32) -> ConnId {
        ConnId { index, generation }
    }

    #[test]
    fn a_late_id_finds_nothing_of_its_successor() {
        let mut table = ConnTable::default();
        table.insert(conn(2, 0), Kept(0, "old"));
        assert_eq!(table.remove(conn(2, 0)), Some(Kept(0, "old")));
        assert_eq!((table.len(), table.get(conn(2, 0))), (0, None));
        table.insert(conn(2, 1), Kept(1, "new"));
        table.insert(conn(0, 7), Kept(7, "other"));
        assert_eq!(table.len(), 2);
        for late in [conn(2, 0), conn(2, 2), conn(0, 0), conn(1, 0), conn(9, 0)] {
            assert_eq!(table.get(late), None, "{late:?}");
            assert_eq!(table.get_mut(late), None, "{late:?}");
            assert_eq!(table.remove(late), None, "{late:?}");
        }
        assert_eq!(table.get_mut(conn(2, 1)), Some(&mut Kept(1, "new")));
        assert_eq!(table.ids().collect::<alloc::vec::Vec<_>>(), [conn(0, 7), conn(2, 1)]);
        assert_eq!((table.next_from(0), table.next_from(1)), (Some(conn(0, 7)), Some(conn(2, 1))));
        assert_eq!((table.next_from(3), table.len()), (None, 2));
        // Whatever was in the slot is replaced.
        table.insert(conn(2, 3), Kept(3, "newest"));
        assert_eq!((table.len(), table.get(conn(2, 1))), (2, None));
    }
}
