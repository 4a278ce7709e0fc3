//! Benchmarks of castra: they are in `benches/`, and what they share is here.
//! Times on a shared machine say little by themselves: compare within one run.

pub mod crowd;
