mod flow;
mod handshakes;
mod model;
mod recovery;
mod regressions;
mod sessions;
mod wire;
