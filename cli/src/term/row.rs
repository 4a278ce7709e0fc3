//! One terminal of a list: kept, shown, and found by its name.

use castra_core::terminals::wire::{SessionInfo, State};
use serde_json::{Value, json};

use super::name::{Place, TermName, Which};
use super::signals;
use crate::duration::age;
use crate::output::printable;

/// What a list says of a terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) id: u32,
    pub(crate) key: Option<String>,
    pid: u32,
    pts: String,
    pub(crate) is_alive: bool,
    created_at: i64,
    last_attached_at: i64,
    state: Option<State>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) exit_signal: Option<i32>,
    cols: Option<u16>,
    rows: Option<u16>,
    cwd: Option<String>,
    command: Vec<String>,
    pub(crate) owner: Option<String>,
    owner_is_you: Option<bool>,
    subscribers: Option<u32>,
    recovery: Option<String>,
}

impl From<&SessionInfo<'_>> for Row {
    fn from(info: &SessionInfo<'_>) -> Self {
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            id: info.id,
            key: text(&info.session_key),
            pid: info.pid,
            pts: info.pts.clone().into_owned(),
            is_alive: info.is_alive,
            created_at: info.created_at,
            last_attached_at: info.last_attached_at,
            state: info.state,
            exit_code: info.exit_code,
            exit_signal: info.exit_signal,
            cols: info.cols,
            rows: info.rows,
            cwd: text(&info.cwd),
            command: info.command.iter().map(|word| word.clone().into_owned()).collect(),
            owner: text(&info.owner),
            owner_is_you: info.owner_is_you,
            subscribers: info.subscribers,
            recovery: text(&info.recovery),
        }
    }
}

/// The terminal of a name: of one key, the one that runs, else the newest.
pub(crate) fn find(rows: Vec<Row>, which: &Which) -> Option<Row> {
    rows.into_iter()
        .filter(|row| match which {
            Which::Id(id) => row.id == *id,
            Which::Key(key) => row.key.as_ref() == Some(key),
        })
        .max_by_key(|row| (row.is_alive, row.id))
}

impl Row {
    /// As the commands take it.
    pub(crate) fn name(&self, place: Place) -> TermName {
        let which = self.key.clone().map_or(Which::Id(self.id), Which::Key);
        TermName { place, which }
    }

    /// For the table; every cell is printable ASCII.
    pub(super) fn cells(&self, place: Place, now: i64) -> [String; 7] {
        let size = self.cols.zip(self.rows);
        let owner = match (&self.owner, self.owner_is_you) {
            (_, Some(true)) => "you".into(),
            (Some(owner), _) => printable(owner),
            (None, _) => "-".into(),
        };
        let seconds = u64::try_from(now.saturating_sub(self.created_at)).unwrap_or(0);
        [
            printable(&self.name(place).to_string()),
            self.state(),
            size.map_or_else(|| "-".into(), |(cols, rows)| format!("{cols}x{rows}")),
            owner,
            self.subscribers.map_or_else(|| "-".into(), |count| count.to_string()),
            // Its beginning is known to the second.
            if seconds < 10 { format!("{seconds}s") } else { age(seconds * 1000) },
            self.what(),
        ]
    }

    /// Whether its program ended, however.
    pub(crate) fn is_over(&self) -> bool {
        self.state.map_or(!self.is_alive, |state| state == State::Exited)
    }

    fn state(&self) -> String {
        let mut text = match (self.state, self.is_alive) {
            _ if self.is_over() => match (self.exit_code, self.exit_signal) {
                (_, Some(signal)) => format!("exited ({})", signals::name(signal)),
                (Some(code), None) if code >= 0 => format!("exited {code}"),
                _ => "exited".into(),
            },
            (Some(state), _) => state.to_string(),
            (None, _) => "running".into(),
        };
        if let Some(recovery) = &self.recovery {
            text = format!("{text}, {}", printable(recovery));
        }
        text
    }

    fn what(&self) -> String {
        if self.command.is_empty() {
            return self
                .cwd
                .as_ref()
                .map_or_else(|| "-".into(), |cwd| format!("(shell in {})", printable(cwd)));
        }
        let words: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }

    /// For `--json`.
    pub(super) fn document(&self, place: Place) -> Value {
        json!({
            "guest": place.0, "name": self.name(place).to_string(), "id": self.id, "session_key": self.key,
            "state": self.state.map_or(if self.is_alive { "running" } else { "exited" }, State::as_str),
            "is_alive": self.is_alive, "exit_code": self.exit_code, "exit_signal": self.exit_signal,
            "pid": self.pid, "pts": self.pts, "cols": self.cols, "rows": self.rows, "cwd": self.cwd,
            "command": self.command, "owner": self.owner, "owner_is_you": self.owner_is_you.unwrap_or(false),
            "subscribers": self.subscribers, "recovery": self.recovery,
            "created_at": self.created_at, "last_attached_at": self.last_attached_at,
        })
    }
}

/// A word of a command so that one sees where it ends.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte);
    let safe = printable(word);
    if !word.is_empty() && word.bytes().all(plain) { safe } else { format!("'{safe}'") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::term) fn build() -> Row {
        Row {
            id: 3,
            key: Some("build".into()),
            pid: 4711,
            pts: "/dev/pts/4".into(),
            is_alive: true,
            created_at: 1000,
            last_attached_at: 1000,
            state: Some(State::Running),
            exit_code: None,
            exit_signal: None,
            cols: Some(80),
            rows: Some(24),
            cwd: Some("/src".into()),
            command: vec!["make".into(), "-j4".into(), "two words".into()],
            owner: Some("ann@box:7".into()),
            owner_is_you: Some(false),
            subscribers: Some(2),
            recovery: None,
        }
    }

    const HERE: Place = Place(None);

    #[test]
    fn a_row_says_what_there_is_and_dashes_where_nothing_is_known() {
        assert_eq!(
            build().cells(HERE, 1192),
            ["build", "running", "80x24", "ann@box:7", "2", "3m12s", "make -j4 'two words'"]
        );
        let published = Row {
            key: None,
            state: None,
            cols: None,
            cwd: None,
            command: vec![],
            owner: None,
            owner_is_you: None,
            subscribers: None,
            ..build()
        };
        let guest = Place(Some("devbox".parse().unwrap()));
        assert_eq!(published.cells(guest, 1003), ["devbox/#3", "running", "-", "-", "-", "3s", "-"]);
        let shell = Row { command: vec![], owner_is_you: Some(true), ..build() };
        assert_eq!(shell.cells(HERE, 0)[3..], ["you", "2", "0s", "(shell in /src)"]);
    }

    #[test]
    fn an_exited_one_says_how_and_a_recovered_one_what_became_of_it() {
        let exited = |code, signal| Row {
            state: Some(State::Exited),
            is_alive: false,
            exit_code: code,
            exit_signal: signal,
            ..build()
        };
        assert_eq!(exited(Some(3), None).state(), "exited 3");
        assert_eq!(exited(Some(137), Some(9)).state(), "exited (signal KILL)");
        assert_eq!(exited(Some(-1), None).state(), "exited");
        let lost = Row { recovery: Some("unrecoverable:rebooted".into()), ..exited(None, None) };
        assert_eq!(lost.state(), "exited, unrecoverable:rebooted");
        assert_eq!(Row { recovery: Some("adopted".into()), ..build() }.state(), "running, adopted");
    }

    #[test]
    fn what_others_wrote_can_not_reach_the_terminal() {
        let hostile = Row {
            key: Some("a\u{1b}[2J".into()),
            owner: Some("\u{9b}x".into()),
            command: vec!["\u{7}\n".into()],
            recovery: Some("\u{202e}".into()),
            ..build()
        };
        for cell in hostile.cells(HERE, 0) {
            assert!(cell.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{cell:?}");
        }
    }

    #[test]
    fn of_one_name_the_one_that_runs_is_meant_else_the_newest() {
        let row = |id, is_alive| Row { id, is_alive, ..build() };
        let key = Which::Key("build".into());
        let found = |rows: Vec<Row>, which: &Which| find(rows, which).map(|row| row.id);
        assert_eq!(found(vec![row(1, false), row(2, true), row(3, false)], &key), Some(2));
        assert_eq!(found(vec![row(4, false), row(3, false)], &key), Some(4));
        assert_eq!(found(vec![row(4, false), row(3, true)], &Which::Id(4)), Some(4));
        assert_eq!(found(vec![row(4, true)], &Which::Key("other".into())), None);
    }
}
