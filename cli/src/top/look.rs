//! What the terminal can show. Colours never say anything that words or signs do not.

use castra_core::status::State as Verdict;

use crate::tui::paint::Paint;

/// Colours or none; signs of Unicode, or ASCII alone.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) paint: Paint,
    is_unicode: bool,
}

impl Look {
    /// `variable` reads the environment: its locale says which signs there are.
    pub(crate) fn new(color: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable);
        let locale = locale.filter(|value| !value.is_empty()).map(|value| value.to_ascii_lowercase()).next();
        let is_unicode = locale.is_some_and(|value| value.contains("utf-8") || value.contains("utf8"));
        Self { paint: Paint(color), is_unicode }
    }

    /// A sign for each state, of one column, told apart by its form.
    pub(super) const fn mark(self, state: Option<Verdict>) -> &'static str {
        match (state, self.is_unicode) {
            (Some(Verdict::Reachable), true) => "●",
            (Some(Verdict::Waiting), true) => "○",
            (Some(Verdict::Offline), true) => "✗",
            (Some(Verdict::Reachable), false) => "*",
            (Some(Verdict::Waiting), false) => "o",
            (Some(Verdict::Offline), false) => "x",
            (None, _) => "?",
        }
    }

    /// Before the row that is selected: it is seen without colours, too.
    pub(super) const fn pointer(self) -> &'static str {
        if self.is_unicode { "▶" } else { ">" }
    }

    /// Behind the column that is sorted by.
    pub(super) const fn arrow(self, is_reversed: bool) -> &'static str {
        match (self.is_unicode, is_reversed) {
            (true, false) => "▲",
            (true, true) => "▼",
            (false, false) => "^",
            (false, true) => "v",
        }
    }

    /// Age against window in `width` columns, two of them brackets. Full: the window is over.
    pub(super) fn bar(self, age: u64, window: u64, width: usize) -> String {
        let (full, empty) = if self.is_unicode { ("█", "░") } else { ("#", "-") };
        let cells = u64::try_from(width.saturating_sub(2)).unwrap_or(0);
        let filled = (age.saturating_mul(cells) / window.max(1)).min(cells);
        let times = |count: u64| usize::try_from(count).unwrap_or(0);
        format!("[{}{}]", full.repeat(times(filled)), empty.repeat(times(cells - filled)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_unicode(variables: &[(&str, &str)]) -> bool {
        let read =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Look::new(false, read).is_unicode
    }

    #[test]
    fn the_first_variable_that_says_something_is_the_locale() {
        assert!(is_unicode(&[("LANG", "de_DE.UTF-8")]));
        assert!(is_unicode(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!is_unicode(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!is_unicode(&[]));
    }

    #[test]
    fn a_bar_is_full_exactly_when_the_window_is_over() {
        let look = Look { paint: Paint(false), is_unicode: false };
        assert_eq!(look.bar(0, 15_000, 12), "[----------]");
        assert_eq!(look.bar(14_999, 15_000, 12), "[#########-]");
        assert_eq!(look.bar(15_000, 15_000, 12), "[##########]");
        assert_eq!(look.bar(u64::MAX, 15_000, 12), "[##########]");
        assert_eq!(look.bar(1, 0, 2), "[]");
    }
}
