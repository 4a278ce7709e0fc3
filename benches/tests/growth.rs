//! What a guest costs the engine is counted, and doesn't grow with the number of guests.
#![allow(missing_docs)]

use castra_benches::growth::{COSTS, document, measure, table};
use castra_benches::live::{self, Counting};
use castra_benches::plot::plot;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of the 512 bytes that a guest may cost the broker, the engine's part; a table of ten is never full.
const BYTES: [f64; 3] = [600.0, 480.0, 480.0];

#[test]
fn a_guests_memory_is_bounded_however_many_there_are() {
    let before = live::bytes();
    let held = vec![0_u8; 1000];
    assert_eq!(live::bytes() - before, held.len());
    drop(held);

    let rows = measure(&[10, 1000, 3000], 1, |_| {});
    for (row, most) in rows.iter().zip(BYTES) {
        let bytes = row.costs[0];
        assert!((50.0..most).contains(&bytes), "{bytes} bytes of each of {} guests", row.guests);
        assert!(row.costs[1..5].iter().all(|nanos| *nanos > 0.0), "{row:?}");
    }
    assert_eq!(document(&rows)["rows"][1]["costs"]["keepalive"]["ratio"], 1.0);
    assert_eq!(table(&rows).lines().count(), 4);
    assert!(COSTS.iter().all(|cost| plot(&rows).contains(cost)));
}
