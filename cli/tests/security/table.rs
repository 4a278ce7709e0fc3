//! docs/SECURITY.md is true as far as its tests go: each cell of who may do what names
//! tests, and each of them is in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The cells of a line of a table.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// What a cell says, and the numbers of its tests: `no [4, 17]`.
fn judgement(cell: &str) -> Option<(&str, Vec<u32>)> {
    let (said, rest) = cell.split_once('[')?;
    let numbers = rest.strip_suffix(']')?.split(',').map(|number| number.trim().parse().ok());
    Some((said.trim(), numbers.collect::<Option<Vec<u32>>>()?))
}

/// Whether a file has that test.
fn is_there(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let begins = line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
        begins.is_some_and(|rest| rest.starts_with('('))
            && lines[at.saturating_sub(4)..at].contains(&"#[test]")
    })
}

/// The sections of the document that begin with `## Who may`, and the list of tests.
struct Document {
    /// By section: who, and then what with its cells.
    tables: Vec<(Vec<String>, Vec<Vec<String>>)>,
    /// File and test.
    tests: BTreeMap<u32, (String, String)>,
}

fn document(text: &str) -> Document {
    let mut found = Document { tables: Vec::new(), tests: BTreeMap::new() };
    let mut section = "";
    let mut in_table = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            section = name;
        }
        if !line.starts_with('|') {
            in_table = false;
            continue;
        }
        let row: Vec<String> = cells(line).into_iter().map(str::to_owned).collect();
        if row.iter().all(|cell| cell.chars().all(|character| "-:".contains(character))) {
            continue;
        }
        match (section.starts_with("Who may"), section == "Tests") {
            (true, _) if !in_table => found.tables.push((row, Vec::new())),
            (true, _) => found.tables.last_mut().unwrap().1.push(row),
            (_, true) if in_table => {
                let [number, file, test] = &row[..] else { panic!("three cells: {line}") };
                let plain = |text: &str| text.trim_matches('`').to_owned();
                let before = found.tests.insert(number.parse().unwrap(), (plain(file), plain(test)));
                assert!(before.is_none(), "{number} is there twice");
            }
            _ => {}
        }
        in_table = true;
    }
    found
}

#[test]
fn every_cell_of_who_may_do_what_names_tests_that_are_in_the_tree() {
    let text = fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let Document { tables, tests } = document(&text);
    assert!(tables.len() >= 4, "{} tables", tables.len());
    let (mut used, mut judged, mut wrong) = (BTreeSet::new(), 0, Vec::new());
    for (who, rows) in &tables {
        assert!(!rows.is_empty());
        for row in rows {
            assert_eq!(row.len(), who.len(), "{row:?}");
            for (who, cell) in who.iter().zip(row).skip(1) {
                judged += 1;
                match judgement(cell) {
                    Some((said, numbers)) if !said.is_empty() && !numbers.is_empty() => {
                        wrong.extend(
                            numbers
                                .iter()
                                .filter(|number| !tests.contains_key(number))
                                .map(|number| format!("{}, {who}: there is no test {number}", row[0])),
                        );
                        used.extend(numbers);
                    }
                    _ => wrong.push(format!("{}, {who}: {cell:?} is no judgement with its tests", row[0])),
                }
            }
        }
    }
    for (number, (file, name)) in &tests {
        if !is_there(&root().join(file), name) {
            wrong.push(format!("{number}: {file} has no test {name}"));
        }
        if !used.contains(number) {
            wrong.push(format!("{number}: no cell names it"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(judged >= 100, "{judged} cells");
}

#[test]
fn a_cell_without_a_test_and_a_test_that_is_not_there_are_noticed() {
    assert_eq!(judgement("no [4, 17]"), Some(("no", vec![4, 17])));
    assert_eq!(judgement("no"), None);
    assert_eq!(judgement("no [4, x]"), None);
    let here = root().join("cli/tests/security/table.rs");
    assert!(is_there(&here, "a_cell_without_a_test_and_a_test_that_is_not_there_are_noticed"));
    assert!(!is_there(&here, "a_cell_without_a_test"));
    assert!(!is_there(&here, "judgement"), "no test");
    let read = document(
        "## Who may x\n| what | one |\n|---|---|\n| a | no [1] |\n## Tests\n| n | f | t |\n|-|-|-|\n| 1 | `f` | `t` |\n",
    );
    assert_eq!(read.tables[0].1, [["a", "no [1]"]]);
    assert_eq!(read.tests[&1], ("f".to_owned(), "t".to_owned()));
}
