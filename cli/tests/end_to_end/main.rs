//! The real program, as its users run it: processes, sockets, signals and files.
#![allow(clippy::unwrap_used)]

mod agent_inbox;
mod broker_stops;
mod bundle;
mod clients;
mod commands;
mod compatibility;
mod config;
mod console;
mod doctor;
mod goldens;
mod impostors;
mod liveness;
mod metrics;
mod misbehaviour;
mod peers;
mod peers_agents;
mod real_systemd;
mod recordings;
mod restore;
mod service;
mod supervised;
mod support;
mod terminals;
mod tokens;
mod top;
mod transports;
