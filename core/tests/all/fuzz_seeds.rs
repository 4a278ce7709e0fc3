//! Replays the fuzz targets' committed seeds, so that what a fuzzer once found
//! stays found.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the seeds are files, and a failing one is named"
)]

#[path = "../../../fuzz/oracles/mod.rs"]
mod oracles;

/// Every committed input of a target.
fn replay(target: &str, check: fn(&[u8]), least: usize) {
    let directory = format!("{}/../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("the seeds are there") {
        let path = entry.expect("a seed").path();
        let bytes = std::fs::read(&path).expect("a seed can be read");
        println!("{}", path.display());
        check(&bytes);
        count += 1;
    }
    assert!(count >= least, "{count} seeds of {target}: were they moved?");
}

#[test]
fn every_seed_of_link_bytes_passes() {
    replay("link_bytes", oracles::link_bytes::check, 16);
}

#[test]
fn every_seed_of_control_lines_passes() {
    replay("control_lines", oracles::control_lines::check, 16);
}

#[test]
fn every_seed_of_terminal_frames_passes() {
    replay("terminal_frames", oracles::terminal_frames::check, 16);
}

#[test]
fn every_seed_of_http_bytes_passes() {
    replay("http_bytes", oracles::http_bytes::check, 16);
}

#[test]
fn every_seed_of_engine_ops_passes() {
    replay("engine_ops", oracles::engine_ops::check, 16);
}

#[test]
fn every_seed_of_saved_records_passes() {
    replay("saved_records", oracles::saved_records::check, 16);
}
