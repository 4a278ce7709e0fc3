//! The journal of a daemon that is away, changed as only time could.

use castra_core::boundary::{Batch, Change};
use castra_core::terminals::TerminalRecord;
use castra_core::time::WallTime;
use castra_driver::database::Commit;
use castra_driver::terminals::journal::Journal;

use super::World;

/// Changes every record.
pub(crate) fn edit_journal(world: &World, mut change: impl FnMut(&mut TerminalRecord)) {
    let now = WallTime::from_unix_millis(1_800_000_000_000);
    let (mut journal, found) = Journal::open(&world.journal(), now).unwrap();
    assert!(found.set_aside.is_none(), "{:?}", found.set_aside);
    assert!(!found.records.is_empty());
    let mut batch: Batch = Vec::new();
    for (mut record, _) in found.records {
        change(&mut record);
        batch.push(Change::SetTerminal(Box::new(record)));
    }
    journal.commit(&[&batch]).unwrap();
}
