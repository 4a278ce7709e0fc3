//! The pictures of the documents are what the program draws.
#![cfg(feature = "planted")]

use std::path::Path;

use castra_core::planted::Bug;
use castra_sim::case::Case;
use castra_sim::choice::Replayed;
use castra_sim::picture;
use castra_sim::play::Player;

const CASE: &str = "sim/tests/regressions/age-from-receipt.case.json";
const PICTURE: &str = "docs/pictures/why-proofs-are-dated-from-the-challenge.svg";

/// `CASTRA_APPROVE=1` writes the picture.
#[test]
fn the_picture_of_evidence_dated_from_its_receipt_is_what_happens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let case = std::fs::read_to_string(root.join(CASE)).expect("the case");
    let case = Case::from_json(&case).expect("a case");
    // Without `only` it is seen earlier: at the first proof of all.
    let player = Player { planted: Some(Bug::AgeFromReceipt), only: Some("S1".into()), ..Player::default() };
    let (result, chronicle) = player.tell(&case.plan, Replayed::new(case.choices));
    let violation = result.expect_err("the bug is found").violation;
    assert_eq!(violation.promise, "S1");
    assert_eq!(violation.text, "called reachable, though it last ran 3.200 s ago");
    let again = format!("castra sim --case {CASE} --promise S1 --plant age_from_receipt");
    let drawn = picture::svg(&chronicle, Some(&again));
    let file = root.join(PICTURE);
    if std::env::var_os("CASTRA_APPROVE").is_some() {
        std::fs::write(&file, &drawn).expect("the picture is written");
    }
    let approved = std::fs::read_to_string(&file).expect("the picture");
    let difference = drawn.lines().zip(approved.lines()).find(|(drawn, approved)| drawn != approved);
    assert_eq!(difference, None, "look at it; then run again with CASTRA_APPROVE=1");
    assert_eq!(drawn.len(), approved.len());
}
