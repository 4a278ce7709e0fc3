//! Every case that once failed holds, for ever.

use std::path::Path;

use castra_sim::case::Case;
use castra_sim::play::Player;

#[test]
fn every_case_that_once_failed_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut files: Vec<_> =
        folder.read_dir().expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        let text = std::fs::read_to_string(file).expect("a readable file");
        let case = Case::from_json(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if let Err(failure) = Player::default().replay(&case.plan, case.choices) {
            panic!("{} fails again: {}", file.display(), failure.violation);
        }
    }
}
