//! Pseudo-terminals: who keeps them, who reads them, and what they show.

pub mod holder;
pub mod porter;
