//! The picture of `castra top` in the documents is what the program draws.

use std::path::Path;

use ratatui::crossterm::event::KeyCode;

use super::draw_tests::{drawn, rich};
use super::state_tests::{online, press};
use crate::tui::svg::svg;

/// `CASTRA_APPROVE=1` writes the picture.
#[test]
fn the_picture_of_the_documents_is_what_is_drawn() {
    let mut state = online();
    for _ in 0..3 {
        press(&mut state, KeyCode::Down);
    }
    let screen = drawn(&mut state, rich(), 104, 16);
    let label = "castra top: nine guests with their states, the reasons, and how old their proofs are";
    let picture = svg(&screen, "castra top", label);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/top.svg");
    if std::env::var_os("CASTRA_APPROVE").is_some() {
        std::fs::write(&file, &picture).unwrap();
    }
    let approved = std::fs::read_to_string(&file).unwrap_or_default();
    let difference = picture.lines().zip(approved.lines()).find(|(drawn, approved)| drawn != approved);
    assert_eq!(difference, None, "look at it; then run again with CASTRA_APPROVE=1");
    assert_eq!(picture.len(), approved.len());
}
