//! `castra term snapshot`: what a terminal shows, without attaching.

use castra_core::terminals::Snapshot;
use castra_core::terminals::wire::{Attach, Request, Role};

use super::client::Within;
use super::error::failure;
use super::{Found, TIMEOUT};
use crate::Context;
use crate::exit::{Exit, Failure, Outcome};
use crate::term_args::{Door as DoorArgs, Snapshot as Args};

/// `castra term snapshot`.
pub(super) fn snapshot(cx: &mut Context, at: &DoorArgs, args: &Args) -> Outcome {
    let within = Within::new(cx.timeout(TIMEOUT));
    let mut found = Found::find(cx, at, &args.terminal.name, Role::Stream, within)?;
    let (session, history_lines) = (found.row.id, Some(args.history));
    let request = if found.client.extended {
        Request::Snapshot { session, history_lines }
    } else {
        // A published server shows it only to who attaches.
        Request::Attach(Attach { session, history_lines, ..Attach::default() })
    };
    let grant = found.client.call(&request, within).map_err(|error| failure(error, &found.name))?;
    let Some(snapshot) = grant.snapshot.filter(|snapshot| !snapshot.content.is_empty()) else {
        let text =
            "the server keeps no picture of its screens (--screen off): `castra term log` shows output";
        return Err(Failure::new(Exit::No, text));
    };
    if args.format.json {
        let document = serde_json::to_string(&snapshot)
            .map_err(|error| Failure::new(Exit::Internal, format!("can't write the document: {error}")))?;
        cx.out.json(&document)?;
    } else if args.ansi {
        cx.out.put(&snapshot.content)?;
    } else {
        for line in lines(&snapshot, args.history) {
            cx.out.line(&line)?;
        }
    }
    Ok(Exit::Yes)
}

/// The characters alone, line by line, without what is empty at the end.
fn lines(snapshot: &Snapshot, history: u32) -> Vec<String> {
    let (rows, cols) = (snapshot.rows.max(1), snapshot.cols.max(1));
    let cells = |count: u16| std::num::NonZeroU16::new(count).unwrap_or(std::num::NonZeroU16::MIN);
    let history = usize::try_from(history).unwrap_or(usize::MAX);
    let mut parser = vt100::Parser::new(cells(rows), cells(cols), history);
    parser.process(snapshot.content.as_bytes());
    let screen = parser.screen_mut();
    screen.set_scrollback(usize::MAX);
    let above = screen.scrollback();
    let mut lines = vec![];
    for back in (1..=above).rev() {
        screen.set_scrollback(back);
        lines.extend(screen.rows(0, cols).next());
    }
    screen.set_scrollback(0);
    lines.extend(screen.rows(0, cols));
    let lines: Vec<String> = lines.iter().map(|line| line.trim_end().to_owned()).map(safe).collect();
    let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines[..end].to_vec()
}

/// Letters of all languages, and nothing that a terminal obeys.
fn safe(line: String) -> String {
    let bad = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if line.chars().any(bad) {
        line.chars().map(|character| if bad(character) { '\u{fffd}' } else { character }).collect()
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str, history: u32) -> Vec<String> {
        lines(&Snapshot { content: content.into(), cols: 20, rows: 3, ..Snapshot::default() }, history)
    }

    #[test]
    fn the_characters_are_left_where_they_stood_and_nothing_else() {
        let picture =
            "\u{1b}c\u{1b}[1;31mred\u{1b}[0m and \u{65e5}\u{672c}  \r\n\u{1b}[5Cindented\u{1b}[?1003h";
        assert_eq!(text(picture, 0), ["red and \u{65e5}\u{672c}", "     indented"]);
        assert_eq!(text("", 0), [""; 0]);
        assert_eq!(text("\u{1b}[2;1H\u{1b}[?1049h\u{1b}[3;2Hother", 0), ["", "", " other"]);
    }

    #[test]
    fn history_stands_above_the_screen_as_far_as_it_was_asked_for() {
        let long = "one\r\ntwo\r\nthree\r\nfour\r\nfive";
        assert_eq!(text(long, 10), ["one", "two", "three", "four", "five"]);
        assert_eq!(text(long, 1), ["two", "three", "four", "five"]);
        assert_eq!(text(long, 0), ["three", "four", "five"]);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(safe("a\u{202e}b\u{9b}c".into()), "a\u{fffd}b\u{fffd}c");
    }
}
