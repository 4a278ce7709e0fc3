//! The `:` commands of a program on the whole terminal: how they are listed, cut and
//! completed. Which there are is the program's own. Pure.

use castra_core::control::reply::Target;

/// One command for people.
pub(crate) struct Entry {
    /// Its word.
    pub(crate) word: &'static str,
    /// How it is written.
    pub(crate) usage: &'static str,
    /// What it does.
    pub(crate) meaning: &'static str,
    /// How many of its first arguments are guests.
    pub(crate) guests: usize,
    /// Words that fit as any argument.
    pub(crate) words: &'static [&'static str],
}

/// The words of the states that can be waited for.
pub(crate) const TARGETS: &[&str] = &["reachable", "waiting"];

/// The state's word.
pub(crate) const fn target_word(target: Target) -> &'static str {
    match target {
        Target::Reachable => "reachable",
        Target::Waiting => "waiting",
    }
}

/// The state of a word.
pub(crate) fn target(word: &str) -> Option<Target> {
    [Target::Reachable, Target::Waiting].into_iter().find(|target| target_word(*target) == word)
}

/// The first word, and what follows the blanks behind it.
pub(crate) fn cut(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// What Tab makes of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Completed {
    /// The line up to the cursor.
    pub(crate) line: String,
    /// What it could go on as, if that is more than one.
    pub(crate) candidates: Vec<String>,
}

/// Whether the last word of `line`, as far as it is written, would be a guest's name.
pub(crate) fn wants_guest(entries: &[Entry], line: &str) -> bool {
    let mut words = line.split_whitespace();
    let first = words.next();
    let place = words.count() + usize::from(line.ends_with(char::is_whitespace));
    place > 0 && entries.iter().any(|entry| place <= entry.guests && Some(entry.word) == first)
}

/// Completes the last word of `line`, which ends at the cursor: a command's
/// word, a guest's name, or a word of the command's own. `None`: nothing fits.
pub(crate) fn complete<'a>(
    entries: &'a [Entry],
    line: &str,
    names: impl Iterator<Item = &'a str>,
) -> Option<Completed> {
    let start = line.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    let (before, written) = line.split_at(start);
    let mut candidates: Vec<&str> = if before.trim().is_empty() {
        entries.iter().map(|entry| entry.word).collect()
    } else if wants_guest(entries, line) {
        names.collect()
    } else {
        vec![]
    };
    let first = before.split_whitespace().next();
    if let Some(entry) = entries.iter().find(|entry| Some(entry.word) == first) {
        candidates.extend(entry.words);
    }
    candidates.retain(|candidate| candidate.starts_with(written));
    candidates.sort_unstable();
    candidates.dedup();
    let (first, last) = (candidates.first()?, candidates.last()?);
    // They are sorted: what the outermost share, all share.
    let shared = first.bytes().zip(last.bytes()).take_while(|(one, other)| one == other).count();
    let end = if candidates.len() == 1 { " " } else { "" };
    let line = format!("{before}{}{end}", first.get(..shared)?);
    let candidates = if candidates.len() > 1 { candidates } else { vec![] };
    Some(Completed { line, candidates: candidates.into_iter().map(str::to_owned).collect() })
}
