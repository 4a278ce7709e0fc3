//! A run in numbered sentences, for people: what happened, when, and last of
//! all what should not have.

use core::fmt::Write as _;

use castra_core::time::Time;

use crate::chronicle::{Arrow, Band, Chronicle, MarkKind};
use crate::picture::{clock, seconds, span};

/// One sentence, before it has a number.
struct Sentence {
    at: Time,
    text: String,
    /// Answered challenges that it stands for, and whose.
    routine: Option<usize>,
}

/// Tells a run; `rerun` is the command that runs it again. A line a sentence,
/// each with its time. Challenges that were answered as they should be are
/// counted, not told. All characters that a terminal might obey are escaped.
#[must_use]
pub fn tell(chronicle: &Chronicle, rerun: Option<&str>) -> String {
    let mut sentences: Vec<Sentence> = Vec::new();
    for mark in chronicle.marks.iter().filter(|mark| mark.kind != MarkKind::Window) {
        let whom = mark.column.map_or("", |column| name(chronicle, column));
        let lasting = match mark.until {
            Some(until) if until > mark.at => format!(", for {}", span(mark.at, until)),
            _ => String::new(),
        };
        let colon = if whom.is_empty() { "" } else { ": " };
        sentences.push(Sentence {
            at: mark.at,
            text: format!("{whom}{colon}{}{lasting}", mark.text),
            routine: None,
        });
    }
    for arrow in &chronicle.arrows {
        let routine = arrow.is_routine().then(|| usize::from(arrow.label.starts_with("proof")));
        sentences.push(Sentence { at: arrow.sent, text: message(chronicle, arrow), routine });
    }
    for band in &chronicle.bands {
        sentences.push(Sentence { at: band.from, text: verdict(chronicle, band), routine: None });
    }
    // Stable: at one moment a mark comes before a message, a message before a verdict.
    sentences.sort_by_key(|sentence| sentence.at);
    let mut story = String::new();
    for (name, value) in &chronicle.settings {
        let _ = writeln!(story, "{}: {}", safe(name), safe(value));
    }
    if !chronicle.settings.is_empty() {
        story.push('\n');
    }
    let mut number = 0;
    let mut say = |story: &mut String, at: Time, text: &str| {
        number += 1;
        let _ = writeln!(story, "{number:>4}. {:>9}  {}", clock(at), safe(text));
    };
    let mut rest = sentences.iter().peekable();
    while let Some(sentence) = rest.next() {
        let Some(mut answered) = sentence.routine else {
            say(&mut story, sentence.at, &sentence.text);
            continue;
        };
        while let Some(next) = rest.next_if(|next| next.routine.is_some()) {
            answered += next.routine.unwrap_or(0);
        }
        match answered {
            // Questions whose answers are told below.
            0 => {}
            1 => say(&mut story, sentence.at, "1 challenge answered"),
            _ => say(&mut story, sentence.at, &format!("{answered} challenges answered")),
        }
    }
    say(&mut story, chronicle.end, "the run ends");
    if let Some(rerun) = rerun {
        let _ = write!(story, "\nAgain: {}\n", safe(rerun));
    }
    if let Some(broken) = &chronicle.violation {
        let _ = write!(
            story,
            "\n{} is broken at {}: {}\n",
            safe(&broken.promise),
            seconds(broken.at),
            safe(&chronicle.wrong().unwrap_or_default())
        );
    }
    story
}

fn message(chronicle: &Chronicle, arrow: &Arrow) -> String {
    let (from, to) = (name(chronicle, arrow.from), name(chronicle, arrow.to));
    let fate = match arrow.arrived {
        None => "it never arrives".to_owned(),
        Some(at) if at > chronicle.end => "still under way at the end".to_owned(),
        Some(at) if arrow.delayed => {
            format!("held back, it arrives at {}, {} late", clock(at), span(arrow.sent, at))
        }
        Some(at) => format!("there after {}", span(arrow.sent, at)),
    };
    format!("{from} to {to}: {}; {fate}", arrow.label)
}

fn verdict(chronicle: &Chronicle, band: &Band) -> String {
    let guest = name(chronicle, band.guest);
    if band.reachable {
        format!("the broker calls {guest} reachable")
    } else {
        format!("the broker calls {guest} waiting: {}", band.reason)
    }
}

fn name(chronicle: &Chronicle, column: usize) -> &str {
    chronicle.columns.get(column).map_or("somebody", |process| process.name.as_str())
}

/// On one line, and nothing that a terminal obeys.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => safe.push(character),
            _ => safe.extend(character.escape_unicode()),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::tests::example;

    #[test]
    fn a_story_tells_what_matters_in_the_order_of_time_and_the_violation_last() {
        let story = tell(&example(), Some("castra sim --seed 17"));
        let lines: Vec<&str> = story.lines().collect();
        assert_eq!(lines[..2], ["window: 3 s", "interval: 1 s"]);
        let expected = [
            "   1.   0.000 s  broker: starts",
            "   2.   0.000 s  the broker calls guest-0 waiting: never_seen",
            "   3.   0.000 s  the broker calls guest-1 waiting: never_seen",
            "   4.   0.100 s  guest-0: starts",
            "   5.   0.100 s  guest-0 to broker: hello; there after 20.0 ms",
            "   6.   0.120 s  1 challenge answered",
            "   7.   0.160 s  guest-0 to broker: welcome; there after 20.0 ms",
        ];
        assert_eq!(lines[3..9], expected[..6]);
        assert_eq!(lines[9], expected[6].replace("guest-0 to broker", "broker to guest-0"));
        assert!(story.contains("48 challenges answered"), "{story}");
        assert!(story.contains("guest-0 to broker: proof; held back, it arrives at 28.300 s, 3.120 s late"));
        assert!(story.contains("guest-0: dead, for 4.000 s"));
        assert!(story.contains("broker to guest-0: challenge; it never arrives"));
        let last = &lines[lines.len() - 3..];
        assert_eq!(last[0], "Again: castra sim --seed 17");
        assert!(last[2].starts_with("S1 is broken at 29.400 s: guest-0 is called reachable"));
    }

    #[test]
    fn a_story_is_plain_text_whatever_was_said() {
        let mut hostile = example();
        hostile.arrows[0].label = "\u{1b}[2J\nfake line".into();
        let story = tell(&hostile, None);
        assert!(story.contains(r"\u{1b}[2J\u{a}fake line"), "{story}");
        assert!(!story.contains("Again"));
    }
}
