//! Benchmarks of castra; they are in `benches/`. Times on a shared machine say
//! little by themselves: compare within one run.
