use super::*;
use alacritty_terminal::grid::Grid;
use alacritty_terminal::term::cell::Cell;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// What a cell amounts to: how a blank came about, and marks of wrapping that the
/// next line doesn't bear out, make no difference.
fn cell(cell: &Cell) -> Cell {
    let mut cell = cell.clone();
    if cell.c == '\t' {
        cell.c = ' ';
    }
    cell.flags.remove(Flags::LEADING_WIDE_CHAR_SPACER);
    let plain = cell.underline_color().is_none() && cell.hyperlink().is_none();
    if plain && cell.zerowidth().is_none_or(<[char]>::is_empty) {
        cell.extra = None;
    }
    cell
}

fn line(grid: &Grid<Cell>, line: i32) -> String {
    let row = &grid[Line(line)];
    let cells: Vec<_> = (0..grid.columns()).map(|column| cell(&row[Column(column)])).collect();
    let plain = Cell::default();
    let text: String = cells.iter().map(|cell| cell.c).collect();
    let rest: Vec<_> = cells
        .iter()
        .enumerate()
        .filter(|(_, cell)| Cell { c: plain.c, ..(*cell).clone() } != plain)
        .map(|(column, cell)| {
            format!("{column}: {:?} {:?} {:?} {:?}", cell.fg, cell.bg, cell.flags, cell.extra)
        })
        .collect();
    format!("{text:?} {rest:?}")
}

/// Whether the cursor is where origin mode lets none go. Bringing that about takes the
/// saved cursor's place.
fn is_outside(screen: &Screen) -> bool {
    let line = screen.inner.term.grid().cursor.point.line.0 as usize;
    let (top, bottom) = screen.inner.hidden.region;
    screen.inner.term.mode().contains(TermMode::ORIGIN) && !(top..=bottom).contains(&line)
}

/// Everything that there is to know of a screen, both its grids included.
fn state(screen: &mut Screen) -> Vec<String> {
    let mut lines = Vec::new();
    let mode = *screen.inner.term.mode();
    screen.inner.settle_wrap();
    let write = |lines: &mut Vec<String>, grid: &Grid<Cell>, name: &str| {
        for number in -(grid.history_size() as i32)..grid.screen_lines() as i32 {
            lines.push(format!("{name} {number}: {}", line(grid, number)));
        }
        let cursor = &grid.cursor;
        let pen = cell(&cursor.template);
        lines.push(format!(
            "{name} cursor {:?} {} {pen:?} {:?}",
            cursor.point, cursor.input_needs_wrap, cursor.charsets
        ));
    };
    write(&mut lines, screen.inner.term.grid(), "active");
    let saved = &screen.inner.term.grid().saved_cursor;
    if !is_outside(screen) {
        let pen = cell(&saved.template);
        lines
            .push(format!("saved {:?} {} {pen:?} {:?}", saved.point, saved.input_needs_wrap, saved.charsets));
    }
    if mode.contains(TermMode::ALT_SCREEN) {
        let alternate = screen.inner.term.grid().clone();
        screen.inner.switch();
        screen.inner.settle_wrap();
        write(&mut lines, screen.inner.term.grid(), "primary");
        screen.inner.term.swap_alt();
        *screen.inner.term.grid_mut() = alternate;
        screen.inner.set_keyboard_flags(mode & TermMode::KITTY_KEYBOARD_PROTOCOL);
    }
    assert_eq!(*screen.inner.term.mode(), mode, "looking changes nothing");
    lines.push(format!("{mode:?} {:?}", screen.inner.hidden));
    let colors = (0..269).filter_map(|index| screen.inner.term.colors()[index].map(|rgb| (index, rgb)));
    lines.push(format!("{:?}", colors.collect::<Vec<_>>()));
    lines
}

fn same(one: &mut Screen, other: &mut Screen, what: &str) {
    let (one, other) = (state(one), state(other));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other, "{what}");
    }
    assert_eq!(one.len(), other.len(), "{what}: as many lines");
}

fn fed(cols: u16, rows: u16, bytes: &[u8]) -> Screen {
    let mut screen = Screen::new(cols, rows, 50);
    screen.feed(bytes);
    screen
}

/// Feeds the snapshot of a screen into a new one and compares, then goes on with both.
fn restored(mut screen: Screen, bytes: &[u8], further: &[u8]) {
    screen.feed(bytes);
    let snapshot = screen.snapshot(1000);
    let pending = screen.unsettled();
    let mut again = Screen::new(snapshot.cols, snapshot.rows, 50);
    again.feed(snapshot.content.as_bytes());
    assert!(again.take_replies().is_empty(), "a snapshot asks nothing");
    assert!(pending <= bytes.len());
    again.feed(&bytes[bytes.len() - pending..]);
    same(&mut screen, &mut again, "the snapshot");
    let second = again.snapshot(1000);
    let looks = |shot: &Snapshot| {
        (shot.cursor_x, shot.cursor_y, shot.modes, shot.title.clone(), shot.rehydrate.clone())
    };
    assert_eq!(looks(&second), looks(&snapshot), "the snapshot of the snapshot");
    if !is_outside(&screen) {
        screen.feed(further);
        again.feed(further);
        same(&mut screen, &mut again, "what follows");
    }
    let modes = screen.snapshot(0).rehydrate;
    again.feed(modes.as_bytes());
    assert_eq!(again.snapshot(0).modes, screen.snapshot(0).modes, "modes once more");
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z ]{1,30}",
        Just("\r\n".to_owned()),
        Just("\t".to_owned()),
        Just("\u{8}".to_owned()),
        Just("\r".to_owned()),
        Just("\n".to_owned()),
        Just("日本語の端末".to_owned()),
        Just("a\u{301}e\u{308}\u{323}".to_owned()),
        Just("🦀x🎉".to_owned()),
        Just("lqqqk\u{e}lqk\u{f}".to_owned()),
    ]
}

fn sequence() -> impl Strategy<Value = String> {
    let small = 0..14_u16;
    prop_oneof![
        4 => (small.clone(), small.clone()).prop_map(|(row, column)| format!("\x1b[{row};{column}H")),
        3 => (small.clone(), "[ABCDEFGIZ@PXLMSTdb`]").prop_filter("REP is not restored", |(_, end)| end != "b")
            .prop_map(|(count, end)| format!("\x1b[{count}{end}")),
        2 => (0..4_u8, "[JK]").prop_map(|(what, end)| format!("\x1b[{what}{end}")),
        4 => prop_oneof![
            (0..10_u8).prop_map(|number| format!("\x1b[{number}m")),
            (30..38_u8).prop_map(|number| format!("\x1b[{number}m")),
            (40..48_u8).prop_map(|number| format!("\x1b[{number}m")),
            (90..108_u8).prop_map(|number| format!("\x1b[{number}m")),
            any::<u8>().prop_map(|number| format!("\x1b[38;5;{number}m")),
            any::<(u8, u8, u8)>().prop_map(|(r, g, b)| format!("\x1b[48;2;{r};{g};{b}m")),
            (0..6_u8).prop_map(|kind| format!("\x1b[4:{kind}m")),
            any::<u8>().prop_map(|number| format!("\x1b[58;5;{number}m")),
            Just("\x1b[1;3;7m".to_owned()),
            Just("\x1b[m".to_owned()),
        ],
        1 => prop_oneof![
            "[a-z]{1,8}".prop_map(|page| format!("\x1b]8;id={page};http://x/{page}\x1b\\")),
            Just("\x1b]8;;\x1b\\".to_owned()),
        ],
        2 => (small.clone(), small).prop_map(|(top, bottom)| format!("\x1b[{top};{bottom}r")),
        1 => Just("\x1b[r".to_owned()),
        2 => prop_oneof![Just("\x1bH"), Just("\x1b[g"), Just("\x1b[3g"), Just("\x1b7"), Just("\x1b8"), Just("\x1bM"),
            Just("\x1bD"), Just("\x1bE"), Just("\x1b="), Just("\x1b>"), Just("\x1b(0"), Just("\x1b(B"), Just("\x1b)0"),
            Just("\x1b*0"), Just("\x1b#8"), Just("\x1b[?1049h"), Just("\x1b[?1049l"), Just("\x1b[?47h"), Just("\x1b[?1047l"),
            Just("\x1b[6n"), Just("\x1b[c"), Just("\x1b[22t"), Just("\x1b[23t"), Just("\x1b[>1u"), Just("\x1b[>5u"),
            Just("\x1b[<1u"), Just("\x1b[=3u"), Just("\x1b[>4;2m"), Just("\x1b[4 q"), Just("\x1b[5 q"), Just("\x1b[?2026h"),
            Just("\x1b[?2026l"), Just("\x1b]104\x1b\\"),
        ].prop_map(str::to_owned),
        2 => (prop_oneof![Just(1), Just(6), Just(7), Just(12), Just(25), Just(1000), Just(1002), Just(1003), Just(1004), Just(1005),
            Just(1006), Just(1007), Just(1016), Just(1042), Just(2004), Just(2031), Just(3)], any::<bool>())
            .prop_map(|(mode, on)| format!("\x1b[?{mode}{}", if on { 'h' } else { 'l' })),
        1 => (prop_oneof![Just(4), Just(20)], any::<bool>())
            .prop_map(|(mode, on)| format!("\x1b[{mode}{}", if on { 'h' } else { 'l' })),
        1 => "[a-z ]{0,10}".prop_map(|title| format!("\x1b]2;{title}\x07")),
        1 => (0..20_u8, any::<(u8, u8, u8)>())
            .prop_map(|(index, (r, g, b))| format!("\x1b]4;{index};rgb:{r:02x}/{g:02x}/{b:02x}\x1b\\")),
        1 => Just("\x1bc".to_owned()),
    ]
}

/// Output, as a person can read it.
#[derive(Clone)]
struct Output(Vec<u8>);

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Output of programs, good and bad.
fn output() -> impl Strategy<Value = Output> {
    let piece = prop_oneof![
        6 => text().prop_map(String::into_bytes),
        8 => sequence().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..6),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| Output(pieces.concat()))
}

/// 300 cases, always the same; `PROPTEST_CASES` others, each time.
fn cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig {
        failure_persistence: None,
        cases: asked.unwrap_or(300),
        rng_seed,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_snapshot_brings_everything_about_again(
        size in (2..24_u16, 1..12_u16),
        bytes in output(),
        further in output(),
    ) {
        restored(Screen::new(size.0, size.1, 50), &bytes.0, &further.0);
    }

    #[test]
    fn so_it_does_after_a_resize(
        size in (2..24_u16, 1..12_u16),
        before in output(),
        then in (2..24_u16, 1..12_u16),
        bytes in output(),
        further in output(),
    ) {
        let mut screen = Screen::new(size.0, size.1, 50);
        screen.feed(&before.0);
        screen.resize(then.0, then.1);
        // What was unfinished is finished, so that it needn't be given again.
        screen.feed(b"\x18");
        restored(screen, &bytes.0, &further.0);
    }

    #[test]
    fn however_a_stream_is_cut_the_screen_is_the_same(
        bytes in output(),
        cuts in prop::collection::vec(0..400_usize, 0..8),
    ) {
        let bytes = bytes.0;
        let mut whole = fed(20, 6, &bytes);
        let mut cut = Screen::new(20, 6, 50);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            cut.feed(&bytes[pair[0]..pair[1]]);
        }
        same(&mut whole, &mut cut, "cut");
        prop_assert_eq!(whole.unsettled(), cut.unsettled());
        prop_assert_eq!(whole.take_replies(), cut.take_replies());
    }
}

#[test]
fn a_last_line_of_one_wide_character_is_restored() {
    let mut screen = fed(2, 9, "日本語の端末日本語の端末\x1b[0;2r".as_bytes());
    screen.resize(2, 3);
    restored(screen, b"", b"");
}

#[test]
fn what_is_saved_counts_no_more_where_the_cursor_is_outside_of_its_origin() {
    for (size, before, then, bytes) in [
        ((2, 1), "\x1b[?6h", (2, 5), "\x1b[38;5;0m\x1b[2;3r\x1b[2F"),
        ((3, 4), "", (3, 4), "\x1b[?6h\x1b[3;4r\x1b8a\u{301}e\u{308}\u{323}"),
    ] {
        let mut screen = fed(size.0, size.1, before.as_bytes());
        screen.resize(then.0, then.1);
        restored(screen, bytes.as_bytes(), "🦀x🎉".as_bytes());
    }
}
