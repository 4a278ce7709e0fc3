//! The files that are made for these metrics name only what there is: alert rules, the
//! dashboard, and the document.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::scrape::{Asked, Scrape};
use super::url;
use crate::support::World;

fn read(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A scrape of a broker with whatever has series: a guest that is there, and one that isn't.
fn full() -> Scrape {
    let world = World::new();
    let broker = world.broker(&["--metrics", "0", "--guest", "ghost"]);
    let _agent = world.agent("alive", broker.address(), &[]);
    world.wait(&["alive"], "reachable");
    Scrape::of(&url(&broker))
}

/// The expressions of a rules file, each on a line of its own.
fn rules() -> Vec<String> {
    let text = read("packaging/prometheus/castra.rules.yml");
    let of = |key: &str| {
        let lines = text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key));
        lines.map(|value| value.trim().to_owned()).collect::<Vec<_>>()
    };
    let expressions = of("expr:");
    assert_eq!(expressions.len(), of("alert:").len(), "an expression that isn't on one line");
    assert!(expressions.len() > 10);
    expressions
}

/// Every text under `key`, wherever it is.
fn texts(document: &Value, key: &str, found: &mut Vec<String>) {
    match document {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

fn check(expression: &str, scrape: &Scrape) {
    // What Prometheus itself adds.
    let added = ["instance", "job", "le"];
    let asked = Asked::by(expression);
    assert!(!asked.metrics.is_empty(), "{expression}");
    for (name, matched) in asked.metrics.iter().filter(|(name, _)| name != "up") {
        let samples: Vec<_> = scrape.samples.iter().filter(|sample| sample.name == *name).collect();
        assert!(!samples.is_empty(), "there is no {name}: {expression}");
        for (label, words) in matched.iter().filter(|(label, _)| !added.contains(&label.as_str())) {
            assert!(
                samples.iter().all(|sample| sample.labels.contains_key(label)),
                "{name} has no {label}: {expression}"
            );
            // A guest's own series come and go; all of its reasons are counted elsewhere.
            let all = if name.starts_with("castra_guest_") { "castra_guests" } else { name };
            for word in words {
                let known = scrape.values(all, label).contains(word.as_str());
                assert!(known, "{label} of {name} is never {word}: {expression}");
            }
        }
    }
    for label in asked.grouped.iter().filter(|label| !added.contains(&label.as_str())) {
        let has = |name: &str| {
            scrape.samples.iter().any(|sample| sample.name == name && sample.labels.contains_key(label))
        };
        assert!(asked.metrics.iter().any(|(name, _)| has(name)), "no {label}: {expression}");
    }
}

#[test]
fn every_name_and_label_in_the_rules_and_the_dashboard_is_one_that_a_broker_serves() {
    let scrape = full();
    rules().iter().for_each(|expression| check(expression, &scrape));
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/castra.json")).unwrap();
    let (mut expressions, mut queries) = (vec![], vec![]);
    texts(&dashboard, "expr", &mut expressions);
    texts(&dashboard["templating"], "definition", &mut queries);
    assert!(expressions.len() > 20 && queries.len() == 3, "{expressions:?} {queries:?}");
    for query in queries {
        let inner = query.strip_prefix("label_values(").and_then(|inner| inner.strip_suffix(')')).unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        expressions.push(format!("sum by ({label}) ({series})"));
    }
    expressions.iter().for_each(|expression| check(expression, &scrape));
    let ids: Vec<_> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[test]
fn the_document_lists_every_series_with_its_type_and_its_labels_and_no_other() {
    let scrape = full();
    let text = read("docs/METRICS.md");
    let words = |cell: &str| {
        let words = cell.split('`').skip(1).step_by(2).map(str::to_owned);
        words.collect::<BTreeSet<String>>()
    };
    let rows = text.lines().filter(|line| line.starts_with("| `castra_") || line.starts_with("| `process_"));
    let mut listed = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        let name = cells[0].trim_matches('`').to_owned();
        assert!(listed.insert(name, (cells[1].to_owned(), words(cells[2]))).is_none(), "twice: {row}");
    }
    let served: BTreeMap<_, _> = scrape
        .types
        .iter()
        .map(|(name, kind)| {
            let labels = scrape.labels(name).into_iter().map(str::to_owned).collect();
            (name.clone(), (kind.clone(), labels))
        })
        .collect();
    assert_eq!(listed, served);
    for alert in
        read("packaging/prometheus/castra.rules.yml").lines().filter_map(|line| line.split_once("alert: "))
    {
        assert!(text.contains(&format!("`{}`", alert.1)), "{} is not in the document", alert.1);
    }
}
