//! The real program in a real virtual machine: Debian's kernel boots in QEMU, in software, with our agent
//! inside, and the broker on the host has to tell the truth about it. `.ci/vm` gets what that needs and
//! runs this; without it the tests say that they tested nothing (`CASTRA_VM=required`: they fail).
//!
//! A machine takes some ten seconds to boot, so one serves many questions: there are as many tests as
//! machines, and no more of them than may run at once.
#![allow(clippy::unwrap_used)]

mod agents;
mod initramfs;
mod kit;
mod qemu;
mod readme;
#[allow(dead_code, unused_imports)]
#[path = "../end_to_end/support/mod.rs"]
mod support;
mod ways_in;
