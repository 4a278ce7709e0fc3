//! The rows' order by name: numbers of rows, in pieces. Four to eight bytes a
//! row, where a map that holds the names again needs a hundred.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::broker::facts::RowId;

/// Most rows of one piece.
const PIECE: usize = 128;

/// Rows in order. Every method asks for a comparison of a row's name with the wanted one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// None of them is empty.
    pieces: Vec<Vec<RowId>>,
    count: usize,
}

/// Where a name is, or would be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    piece: usize,
    index: usize,
}

impl Names {
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, place: Place) -> Option<RowId> {
        self.pieces.get(place.piece)?.get(place.index).copied()
    }

    /// Where the row is that `compare` calls equal; otherwise where one would be.
    pub(crate) fn find(&self, compare: impl Fn(RowId) -> Ordering) -> Result<Place, Place> {
        // The last piece that begins no later.
        let after = self.pieces.partition_point(|piece| compare(piece[0]).is_le());
        let piece = after.saturating_sub(1);
        let Some(rows) = self.pieces.get(piece) else { return Err(Place { piece: 0, index: 0 }) };
        match rows.binary_search_by(|row| compare(*row)) {
            Ok(index) => Ok(Place { piece, index }),
            Err(index) => Err(Place { piece, index }),
        }
    }

    /// The first row that `compare` calls greater.
    pub(crate) fn after(&self, compare: impl Fn(RowId) -> Ordering) -> Option<RowId> {
        let Place { piece, index } = match self.find(compare) {
            Ok(place) => Place { index: place.index + 1, ..place },
            Err(place) => place,
        };
        let next = || self.pieces.get(piece + 1)?.first().copied();
        self.get(Place { piece, index }).or_else(next)
    }

    /// Puts a row where [`Names::find`] said.
    pub(crate) fn insert(&mut self, Place { piece, index }: Place, row: RowId) {
        self.count += 1;
        let Some(rows) = self.pieces.get_mut(piece) else {
            return self.pieces.push(alloc::vec![row]);
        };
        if rows.len() < PIECE {
            return rows.insert(index, row);
        }
        // Names that come in order fill their pieces.
        let split = if index == PIECE { PIECE } else { PIECE / 2 };
        let mut tail = Vec::with_capacity(PIECE);
        tail.extend(rows.drain(split..));
        match index.checked_sub(split).filter(|_| index > split || tail.is_empty()) {
            Some(index) => tail.insert(index, row),
            None => rows.insert(index, row),
        }
        self.pieces.insert(piece + 1, tail);
    }

    /// Takes the row there out.
    pub(crate) fn remove(&mut self, Place { piece, index }: Place) {
        let rows = &mut self.pieces[piece];
        rows.remove(index);
        self.count -= 1;
        if rows.is_empty() {
            self.pieces.remove(piece);
        }
    }

    /// All, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RowId> {
        self.pieces.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Names;
    use crate::broker::facts::RowId;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    /// Rows whose names are their numbers.
    fn check(steps: impl Iterator<Item = usize>) {
        let (mut names, mut model) = (Names::default(), BTreeSet::new());
        for number in steps {
            match names.find(|row| row.index().cmp(&number)) {
                Ok(place) => {
                    assert_eq!(names.get(place), Some(RowId::new(number)));
                    assert!(model.remove(&number));
                    names.remove(place);
                }
                Err(place) => {
                    assert!(model.insert(number));
                    names.insert(place, RowId::new(number));
                }
            }
            assert_eq!(names.len(), model.len());
            let next = names.after(|row| row.index().cmp(&number));
            assert_eq!(next.map(|row| row.index()), model.range(number + 1..).next().copied());
        }
        assert!(names.iter().map(|row| row.index()).eq(model.iter().copied()));
        let rows: Vec<usize> = model.into_iter().collect();
        for number in rows {
            let place =
                names.find(|row| row.index().cmp(&number)).unwrap_or_else(|_| panic!("{number} is lost"));
            names.remove(place);
        }
        assert_eq!((names.len(), names.pieces.len()), (0, 0));
    }

    #[test]
    fn names_stay_in_order_however_they_come_and_go() {
        check(0..1000);
        check((0..1000).rev());
        // Every number below 1009 in a scrambled order, then half of them again: gone.
        check((0..1500).map(|step| step * 389 % 1009));
        check((0..3000).map(|step| step * step % 1013));
    }

    #[test]
    fn names_that_come_in_order_fill_their_pieces() {
        let mut names = Names::default();
        for number in 0..1280 {
            if let Err(place) = names.find(|row| row.index().cmp(&number)) {
                names.insert(place, RowId::new(number));
            }
        }
        assert_eq!(names.pieces.len(), 10);
    }
}
