//! The last lines of a log, and lines in a row that say the same as one.

use std::collections::VecDeque;

/// The newest lines, so many at most.
pub(super) struct Last {
    most: usize,
    fold: bool,
    lines: VecDeque<Line>,
}

struct Line {
    text: String,
    /// What it says, without its time and numbers.
    gist: String,
    /// How many more like it came behind it, and when the last of them.
    more: u64,
    until: String,
}

impl Last {
    pub(super) fn new(most: usize, fold: bool) -> Self {
        Self { most, fold, lines: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn push(&mut self, line: &str) {
        let gist = if self.fold { gist(line) } else { String::new() };
        if let Some(before) = self.lines.back_mut().filter(|before| self.fold && before.gist == gist) {
            before.more += 1;
            line.split(' ').next().unwrap_or_default().clone_into(&mut before.until);
            return;
        }
        self.lines.push_back(Line { text: line.to_owned(), gist, more: 0, until: String::new() });
        if self.lines.len() > self.most {
            self.lines.pop_front();
        }
    }

    pub(super) fn lines(self) -> impl Iterator<Item = String> {
        self.lines.into_iter().flat_map(|line| {
            let more = (line.more > 0)
                .then(|| format!("    ... and {} more like it, until {}", line.more, line.until));
            [Some(line.text), more].into_iter().flatten()
        })
    }
}

/// The line from its second word on, each run of digits as one `#`. A name's digits tell
/// guests apart and stay.
fn gist(line: &str) -> String {
    let mut gist = String::with_capacity(line.len());
    for word in line.split(' ').skip(1) {
        gist.push(' ');
        if word.starts_with("vm=") || word.starts_with("vm:") || word.starts_with("peer=") {
            gist.push_str(word);
            continue;
        }
        let mut digits = false;
        for character in word.chars() {
            if !character.is_ascii_digit() {
                gist.push(character);
            } else if !digits {
                gist.push('#');
            }
            digits = character.is_ascii_digit();
        }
    }
    gist
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "[host-broker] WARN handshake failure vm=web-1 reason=bad-proof via=tcp remote=";

    fn shown(most: usize, fold: bool, lines: &[String]) -> Vec<String> {
        let mut last = Last::new(most, fold);
        lines.iter().for_each(|line| last.push(line));
        last.lines().collect()
    }

    #[test]
    fn lines_that_say_the_same_are_shown_once_with_their_number() {
        let lines: Vec<String> = (0..5).map(|n| format!("T{n} {REFUSED}127.0.0.1:5000{n}")).collect();
        let folded = shown(10, true, &lines);
        assert_eq!(folded, [lines[0].clone(), "    ... and 4 more like it, until T4".into()]);
        assert_eq!(shown(10, false, &lines), lines);
    }

    #[test]
    fn another_guest_or_another_word_between_is_another_line() {
        let line = |at: u32, name: &str| format!("T{at} [host-broker] INFO verdict vm={name} age_ms={at}");
        let lines = [line(1, "web-1"), line(2, "web-2"), line(3, "web-2"), line(4, "web-1")];
        let folded = shown(10, true, &lines);
        let more = "    ... and 1 more like it, until T3".to_owned();
        assert_eq!(folded, [lines[0].clone(), lines[1].clone(), more, lines[3].clone()]);
    }

    #[test]
    fn a_storm_counts_as_one_of_the_lines_that_were_asked_for() {
        let mut lines = vec!["T0 [host-broker] INFO broker started incarnation=1 guests=0".to_owned()];
        lines.extend((0..1000).map(|n| format!("T{n} {REFUSED}127.0.0.1:{n}")));
        assert_eq!(shown(2, true, &lines).len(), 3);
        assert_eq!(shown(2, true, &lines)[0], lines[0]);
    }
}
