//! The oracle: what was promised, and so must be true of every broker that follows. It knows
//! nothing of sockets or processes; loads tell it what they asked and what they were answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// What one durable thing may be: exactly one value, or one of several while an answer is missing.
pub(crate) struct Promise<V> {
    what: String,
    possible: Vec<V>,
    /// What was asked for, unless it was possible before.
    asked: Option<V>,
}

impl<V: PartialEq + Clone + Debug> Promise<V> {
    pub(crate) fn new(what: impl Into<String>, value: V) -> Self {
        Self { what: what.into(), possible: vec![value], asked: None }
    }

    /// From now on it may be this.
    pub(crate) fn asks(&mut self, value: V) {
        self.asked = (!self.may_be(&value)).then(|| value.clone());
        self.possible.extend(self.asked.clone());
    }

    /// The answer was yes, or says so: it is this.
    pub(crate) fn is(&mut self, value: V) {
        self.possible = vec![value];
        self.asked = None;
    }

    /// The answer was no: what was asked for never comes about.
    pub(crate) fn refused(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.possible.retain(|value| *value != asked);
        }
    }

    pub(crate) fn may_be(&self, value: &V) -> bool {
        self.possible.contains(value)
    }

    /// The one value that it can have, unless an answer is missing.
    pub(crate) fn known(&self) -> Option<&V> {
        match &self.possible[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// A broker says that it is this, and so it stays.
    #[track_caller]
    pub(crate) fn seen(&mut self, value: V) {
        assert!(
            self.may_be(&value),
            "broken promise: {} is {value:?}, promised was {:?}",
            self.what,
            self.possible
        );
        self.is(value);
    }
}

/// What passed between two guests.
pub(crate) struct Pair {
    pub(crate) linked: Promise<bool>,
    /// By id.
    messages: BTreeMap<String, Accepted>,
    inboxes: BTreeMap<String, BTreeMap<String, String>>,
}

/// A message that the broker took.
struct Accepted {
    to: String,
    text: String,
    /// Its sender was told so.
    delivered: bool,
    /// It must be in the inbox in the end.
    due: bool,
}

impl Pair {
    pub(crate) fn new(one: &str, other: &str) -> Self {
        let linked = Promise::new(format!("the relation of {one} and {other}"), false);
        Self { linked, messages: BTreeMap::new(), inboxes: BTreeMap::new() }
    }

    /// A relation is on both sides or on none.
    #[track_caller]
    pub(crate) fn sides(&mut self, one: bool, other: bool) {
        assert_eq!(one, other, "broken promise: {} is one-sided", self.linked.what);
        self.linked.seen(one);
    }

    pub(crate) fn unlinked(&mut self) {
        self.linked.is(false);
        self.undo();
    }

    /// They may be unlinked: what was not said to be delivered may have expired, or have been
    /// delivered just before.
    pub(crate) fn undo(&mut self) {
        self.messages.values_mut().for_each(|message| message.due &= message.delivered);
    }

    #[track_caller]
    pub(crate) fn accepted(&mut self, id: &str, to: &str, text: &str, delivered: bool) {
        self.linked.seen(true);
        let message = Accepted { to: to.to_owned(), text: text.to_owned(), delivered, due: true };
        let before = self.messages.insert(id.to_owned(), message);
        assert!(before.is_none(), "broken promise: one id for two messages: {id}");
    }

    /// What an inbox lists: ids and texts.
    #[track_caller]
    pub(crate) fn inbox(&mut self, name: &str, listed: &[(String, String)]) {
        let ids: BTreeSet<_> = listed.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), listed.len(), "broken promise: a message is twice in the inbox of {name}");
        self.inboxes.entry(name.to_owned()).or_default().extend(listed.iter().cloned());
    }

    /// The messages that must be in an inbox and that nobody has seen there.
    pub(crate) fn missing(&self, name: &str) -> Vec<&str> {
        let seen = self.inboxes.get(name);
        let due = self.messages.iter().filter(|(_, message)| message.to == name && message.due);
        due.map(|(id, _)| id.as_str()).filter(|id| seen.is_none_or(|seen| !seen.contains_key(*id))).collect()
    }

    /// In the end nothing is lost, nothing came twice, and nothing came from nowhere; how many
    /// messages were in inboxes.
    #[track_caller]
    pub(crate) fn ends(&self) -> usize {
        for (name, seen) in &self.inboxes {
            let missing = self.missing(name);
            assert!(missing.is_empty(), "broken promise: {missing:?} never came to {name}");
            let texts: BTreeSet<_> = seen.values().collect();
            assert_eq!(
                texts.len(),
                seen.len(),
                "broken promise: a message has two ids in the inbox of {name}"
            );
            for (id, text) in seen {
                let known = self.messages.get(id);
                let same = known.is_some_and(|message| message.to == *name && message.text == *text);
                assert!(same, "broken promise: {name} has {id}, which was never taken for it: {text}");
            }
        }
        self.inboxes.values().map(BTreeMap::len).sum()
    }
}

/// Actions of one managed guest: applied at most once, and gone only for a reason.
#[derive(Default)]
pub(crate) struct Actions {
    lines: BTreeMap<String, Action>,
}

struct Action {
    /// Known once the broker said that it took it.
    id: Option<String>,
    fate: Fate,
    /// Something ended that applied it, or let go of it.
    excused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// No answer: it is there or it isn't.
    Asked,
    Refused,
    Queued,
    Applied,
    /// Its end was told, and was not `ok`.
    Failed,
}

impl Actions {
    pub(crate) fn asks(&mut self, line: &str) {
        self.lines.insert(line.to_owned(), Action { id: None, fate: Fate::Asked, excused: false });
    }

    pub(crate) fn answered(&mut self, line: &str, id: Option<&str>, fate: Fate) {
        let action = self.lines.get_mut(line).unwrap();
        action.id = id.map(str::to_owned);
        action.fate = fate;
    }

    /// The agent, its terminals or the adoption ended: what was not told to be over may be.
    pub(crate) fn excuse(&mut self) {
        self.lines
            .values_mut()
            .filter(|action| action.fate != Fate::Applied)
            .for_each(|action| action.excused = true);
    }

    /// The ids that were promised to wait, and are not among these.
    pub(crate) fn gone(&self, listed: &BTreeSet<String>) -> Vec<(String, String)> {
        self.lines
            .iter()
            .filter(|(_, action)| action.fate == Fate::Queued && !action.excused)
            .filter_map(|(line, action)| Some((line.clone(), action.id.clone()?)))
            .filter(|(_, id)| !listed.contains(id))
            .collect()
    }

    pub(crate) fn settled(&mut self, line: &str, fate: Fate) {
        self.lines.get_mut(line).unwrap().fate = fate;
    }

    /// Whether everything that was told to be applied is in this text.
    pub(crate) fn arrived(&self, text: &str) -> bool {
        let lines: BTreeSet<_> = text.lines().collect();
        self.lines.iter().all(|(line, action)| action.fate != Fate::Applied || lines.contains(line.as_str()))
    }

    /// What the program on the terminal read.
    #[track_caller]
    pub(crate) fn typed(&self, text: &str) {
        let mut once = BTreeSet::new();
        for line in text.split_inclusive('\n') {
            // The program may be in the middle of one.
            let Some(line) = line.strip_suffix('\n') else { continue };
            assert!(once.insert(line), "broken promise: {line} was applied twice");
            let action = self.lines.get(line);
            assert!(action.is_some(), "broken promise: nobody asked for {line:?}");
            assert_ne!(
                action.unwrap().fate,
                Fate::Refused,
                "broken promise: {line} was refused, and applied"
            );
        }
        for (line, action) in &self.lines {
            let done = action.fate != Fate::Applied || once.contains(line.as_str());
            assert!(done, "broken promise: {line} was told to be applied, and was not");
        }
    }

    /// How many were asked for, and how many are known to have been applied.
    pub(crate) fn count(&self) -> (usize, usize) {
        let applied = self.lines.values().filter(|action| action.fate == Fate::Applied).count();
        (self.lines.len(), applied)
    }
}

/// The numbers of events, and of brokers: they only rise.
#[derive(Default)]
pub(crate) struct Cursors {
    last: (u64, u64),
}

impl Cursors {
    /// The next event of a list that has no gap behind the last one.
    #[track_caller]
    pub(crate) fn next(&mut self, cursor: &str, gap: bool) {
        let at = parse(cursor);
        let (incarnation, number) = self.last;
        let follows = at == (incarnation, number + 1) || (gap || incarnation == 0) && at > self.last;
        assert!(follows, "broken promise: event {cursor} after {incarnation}-{number}, gap {gap}");
        self.last = at;
    }

    #[track_caller]
    pub(crate) fn not_before(&self, cursor: &str) {
        assert!(parse(cursor) >= self.last, "broken promise: cursor {cursor} is before {:?}", self.last);
    }

    pub(crate) fn last(&self) -> Option<String> {
        let (incarnation, number) = self.last;
        (incarnation > 0).then(|| format!("{incarnation}-{number}"))
    }
}

fn parse(cursor: &str) -> (u64, u64) {
    let (incarnation, number) = cursor.split_once('-').unwrap();
    (incarnation.parse().unwrap(), number.parse().unwrap())
}

/// Lines of which each is echoed once, in order; those that are known to have arrived are all there.
#[derive(Default)]
pub(crate) struct Echoes {
    next: u64,
    certain: BTreeSet<u64>,
    heard: Vec<u64>,
}

impl Echoes {
    /// The number of a new line.
    pub(crate) fn asks(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn newest(&self) -> u64 {
        self.next
    }

    pub(crate) fn arrived(&mut self, number: u64) {
        self.certain.insert(number);
    }

    #[track_caller]
    pub(crate) fn heard(&mut self, number: u64) {
        let before = self.heard.last().copied().unwrap_or(0);
        assert!(before < number && number <= self.next, "broken promise: echo {number} after {before}");
        let skipped = self.certain.range(before + 1..number).next();
        assert!(skipped.is_none(), "broken promise: {skipped:?} was in the terminal, and is not echoed");
        self.heard.push(number);
    }

    /// Whether everything that arrived was heard.
    pub(crate) fn complete(&self) -> bool {
        self.certain.last().is_none_or(|last| self.heard.last().is_some_and(|heard| heard >= last))
    }
}
