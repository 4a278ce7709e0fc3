//! Whoever is depended on directly is listed in docs/DEPENDENCIES.md, with a reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names in the sections of dependencies of a manifest, ours left out.
fn direct(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut listing = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            listing = section.ends_with("dependencies");
            // As a table of its own: [dependencies.NAME].
            if let Some((_, name)) = section.rsplit_once("dependencies.") {
                found.insert(name.to_owned());
            }
        } else if listing && line.contains('=') && !line.starts_with('#') {
            let name = line.split(['=', '.']).next().unwrap().trim();
            found.insert(name.trim_matches('"').to_owned());
        }
    }
    found.retain(|name| !name.starts_with("castra"));
    found
}

/// Names in the first column of the tables: `serde, serde_json`, `rmp (without std)`.
fn listed(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| "));
    let first = rows.filter_map(|row| {
        let columns: Vec<&str> = row.split(" | ").collect();
        // A crate, and what it is for, why, version, date, MSRV, licence.
        (columns.len() == 7 && columns.iter().all(|column| !column.trim().is_empty())).then(|| columns[0])
    });
    let names = first.flat_map(|cell| cell.split(" (").next().unwrap_or_default().split(", "));
    names.filter(|name| *name != "crate").map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn every_direct_dependency_has_a_row_with_its_reason_and_every_row_a_dependency() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let listed = listed(&read("docs/DEPENDENCIES.md"));
    let mut needed = BTreeSet::new();
    for folder in ["core", "client", "driver", "sim", "cli", "benches", "fuzz"] {
        let found = direct(&read(&format!("{folder}/Cargo.toml")));
        assert!(!found.is_empty(), "{folder}");
        needed.extend(found);
    }
    let missing: Vec<_> = needed.difference(&listed).collect();
    assert!(missing.is_empty(), "without a row in docs/DEPENDENCIES.md: {missing:?}");
    let idle: Vec<_> = listed.difference(&needed).collect();
    assert!(idle.is_empty(), "with a row, and nobody depends on them: {idle:?}");
    // What is named for all members is used by one of them.
    let idle: Vec<String> = direct(&read("Cargo.toml")).difference(&needed).cloned().collect();
    assert!(idle.is_empty(), "in [workspace.dependencies], and nobody depends on them: {idle:?}");
}

#[test]
fn names_are_found_in_every_form() {
    let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\ncastra-core.workspace = true\n\
        [features]\nx = []\n[target.'cfg(unix)'.dev-dependencies]\nc = { version = \"1\" }\n\
        [dependencies.d]\nversion = \"1\"\n";
    assert_eq!(direct(manifest), ["a", "b", "c", "d"].map(str::to_owned).into());
    let document = "| crate | for | why | version | released | MSRV | licence |\n|---|---|\n\
        | e, f (without `std`) | x | y | 1 | – | – | MIT |\n| g | | | 1 | – | – | MIT |\n| other | table |\n";
    assert_eq!(listed(document), ["e", "f"].map(str::to_owned).into());
}
