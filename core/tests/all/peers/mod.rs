mod consent;
mod drain;
mod expiry;
mod forget;
mod inbox;
mod keyed;
mod keys;
mod messages;
mod model;
#[cfg(feature = "planted")]
mod planted;
mod privacy;
mod registration;
mod restore;
mod room;
mod storage;
