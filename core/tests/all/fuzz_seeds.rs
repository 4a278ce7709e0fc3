//! Replays the fuzz targets' committed seeds, so that what a fuzzer once found
//! stays found.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the seeds are files, and a failing one is named"
)]

#[path = "../../../fuzz/oracles/link_bytes.rs"]
mod link_bytes;

#[test]
fn every_seed_of_link_bytes_passes() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/link_bytes");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("the seeds are there") {
        let path = entry.expect("a seed").path();
        let bytes = std::fs::read(&path).expect("a seed can be read");
        println!("{}", path.display());
        link_bytes::check(&bytes);
        count += 1;
    }
    assert!(count >= 16, "{count} seeds: were they moved?");
}
