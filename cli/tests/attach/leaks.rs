//! No secret in anything that a run leaves or shows.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{World, files_below};
use crate::wire::Wire;
use crate::worlds::Site;

/// Codes, tokens and bearers that went over a wire.
pub(crate) fn secrets_of(wires: &[&Wire]) -> BTreeSet<String> {
    let mut secrets = BTreeSet::new();
    for wire in wires {
        for text in [wire.asked(), wire.answered()] {
            for mark in ["\"attach_code\":\"", "\"controller_token\":\"", "\"code\":\"", "Bearer "] {
                let found = text.split(mark).skip(1).filter_map(|rest| rest.split(['"', '\r', '\n']).next());
                // `code` is also a word of an error.
                secrets.extend(found.filter(|secret| secret.len() >= 16).map(str::to_owned));
            }
        }
    }
    secrets
}

/// Looks for them in every file but the databases and the token's own, in every command
/// line and environment, and in what was said.
pub(crate) fn assert_none(world: &World, said: &str, secrets: &BTreeSet<String>) {
    assert!(!secrets.is_empty(), "there were no secrets to look for");
    let holds = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        secrets.iter().any(|secret| text.contains(secret.as_str()))
    };
    assert!(!holds(said.as_bytes()), "a secret was said");
    let mut looked = 0;
    for path in files_below(&world.path("")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".redb") || name == "token" || name == "terminals.token" {
            continue;
        }
        assert!(!name.starts_with("core"), "{} is a core", path.display());
        looked += 1;
        assert!(!holds(&fs::read(&path).unwrap_or_default()), "a secret is in {}", path.display());
    }
    assert!(looked >= 2, "only {looked} files");
    for (pid, line) in world.processes() {
        assert!(!holds(line.as_bytes()), "a secret is in the arguments of {pid}");
        if line.contains("terminals-holder") || !line.contains("castra") {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            assert!(!holds(&environment), "a secret is in the environment of {line}");
        }
    }
}

impl Site {
    /// Nothing that this run showed or left holds a secret of its attachments.
    pub(crate) fn assert_no_leaks(&self) {
        let mut secrets = secrets_of(&[&self.link, &self.http]);
        secrets.insert(self.token.clone());
        assert!(secrets.len() >= 3, "a token, a code and the guest's own: {}", secrets.len());
        let broker =
            self.broker.as_ref().map(|broker| broker.process.out.text() + &broker.process.err.text());
        let mut said = self.said.borrow().clone() + &broker.unwrap_or_default();
        said.push_str(
            &self.world.control().ask("events", &serde_json::json!({})).unwrap().unwrap().to_string(),
        );
        assert_none(&self.world, &said, &secrets);
    }
}

#[test]
#[should_panic(expected = "a secret is in")]
fn a_secret_in_a_file_is_found() {
    let world = World::new();
    for name in ["one", "two", "three"] {
        fs::write(world.path(name), format!("code={name}-of-many-secrets")).unwrap();
    }
    assert_none(&world, "nothing", &["two-of-many-secrets".to_owned()].into());
}

#[test]
#[should_panic(expected = "a secret was said")]
fn a_secret_that_was_said_is_found() {
    assert_none(&World::new(), "Bearer hush", &["hush".to_owned()].into());
}
