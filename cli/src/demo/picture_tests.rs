//! The picture of the demo in the documents: a run that was recorded with
//! `castra demo --once --color always`, scene after scene. That a run still
//! tells the same is another test's to see.

use std::num::NonZeroU16;
use std::path::Path;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::tui::svg::animated;
use crate::tui::text::wrap;

const RECORDED: &str = include_str!("recorded.txt");

/// The screen of the picture, and how long a scene is shown, in seconds.
const COLUMNS: u16 = 92;
const ROWS: u16 = 12;
const SCENE: f32 = 4.0;

/// The sentences with what they show; the last word belongs to the last of them.
fn scenes() -> Vec<String> {
    let mut scenes: Vec<String> = RECORDED.split("\n* ").skip(1).map(str::to_owned).collect();
    let end = scenes.pop().unwrap();
    scenes.last_mut().unwrap().push_str(&format!("\n{end}"));
    scenes
}

/// What a terminal shows of it.
fn screen(scene: &str) -> Buffer {
    let mut parser = vt100::Parser::new(NonZeroU16::new(ROWS).unwrap(), NonZeroU16::new(COLUMNS).unwrap(), 0);
    let (sentence, rest) = scene.split_once('\n').unwrap();
    let sentence = wrap(sentence, COLUMNS.into(), "  ").join("\r\n");
    let rest = rest.trim_end().replace('\n', "\r\n");
    parser.process(format!("$ castra demo\r\n\r\n*{}\r\n\r\n{rest}", &sentence[1..]).as_bytes());
    let mut buffer = Buffer::empty(Rect::new(0, 0, COLUMNS, ROWS));
    for (x, y) in (0..ROWS).flat_map(|y| (0..COLUMNS).map(move |x| (x, y))) {
        let Some(cell) = parser.screen().cell(y, x) else { continue };
        if cell.contents().is_empty() {
            continue;
        }
        let color = match cell.fgcolor() {
            vt100::Color::Idx(1) => Color::Red,
            vt100::Color::Idx(2) => Color::Green,
            vt100::Color::Idx(3) => Color::Yellow,
            _ => Color::Reset,
        };
        let weight = if color == Color::Reset { Modifier::empty() } else { Modifier::BOLD };
        buffer[(x, y)].set_symbol(cell.contents()).set_style(Style::new().fg(color).add_modifier(weight));
    }
    buffer
}

/// `CASTRA_APPROVE=1` writes the picture.
#[test]
fn the_picture_of_the_documents_is_what_was_recorded() {
    let frames: Vec<_> = scenes().iter().map(|scene| screen(scene)).collect();
    assert_eq!(frames.len(), 7);
    let label = "castra demo: guests are frozen, killed and stopped, and the table says so each time";
    // Where nothing moves, the third scene stands for all: one is frozen.
    let picture = animated(&frames, SCENE, 2, "castra demo", label);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/demo.svg");
    if std::env::var_os("CASTRA_APPROVE").is_some() {
        std::fs::write(&file, &picture).unwrap();
    }
    let approved = std::fs::read_to_string(&file).unwrap_or_default();
    let difference = picture.lines().zip(approved.lines()).find(|(drawn, approved)| drawn != approved);
    assert_eq!(difference, None, "look at it; then run again with CASTRA_APPROVE=1");
    assert_eq!(picture.len(), approved.len());
}
