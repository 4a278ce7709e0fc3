//! The castra program.

fn main() {}
