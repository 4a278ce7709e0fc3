//! A scrape as a test reads it, and the series that an expression names.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::PATIENCE;

/// Prometheus' text format, read.
#[derive(Debug)]
pub(super) struct Scrape {
    /// What kind of metric each family is.
    pub(super) types: BTreeMap<String, String>,
    pub(super) samples: Vec<Sample>,
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// `GET http://ADDRESS/PATH`: the status line, and the body.
pub(super) fn get(url: &str, fields: &str) -> (String, String) {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

impl Scrape {
    pub(super) fn of(url: &str) -> Self {
        let (status, text) = get(url, "");
        assert_eq!(status, "HTTP/1.1 200 OK", "{text}");
        let (mut types, mut samples) = (BTreeMap::new(), vec![]);
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').unwrap();
                assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "twice: {line}");
            } else if !line.starts_with('#') {
                samples.push(sample(line));
            }
        }
        Self { types, samples, text }
    }

    /// The one sample of this name with these labels; `None`: there is none.
    pub(super) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.samples.iter().filter(|sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).map(String::as_str) == Some(*value))
        });
        let value = found.next().map(|sample| sample.value);
        assert!(found.next().is_none(), "{name} {labels:?} more than once");
        value
    }

    /// The same, which must be there.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?} in {}", self.text))
    }

    pub(super) fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// The values of a label, of one name or (empty) of all.
    pub(super) fn values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let samples = self.samples.iter().filter(|sample| name.is_empty() || sample.name == name);
        samples.filter_map(|sample| sample.labels.get(label).map(String::as_str)).collect()
    }

    /// The labels of a family's samples, those of buckets left out.
    pub(super) fn labels(&self, family: &str) -> BTreeSet<&str> {
        let samples = self.samples.iter().filter(|sample| self.family(&sample.name) == family);
        samples
            .flat_map(|sample| sample.labels.keys().map(String::as_str))
            .filter(|label| *label != "le")
            .collect()
    }

    /// Whose sample it is: a histogram's have three names.
    fn family<'a>(&self, name: &'a str) -> &'a str {
        let ends = ["_bucket", "_sum", "_count"].into_iter();
        let base = ends
            .filter_map(|end| name.strip_suffix(end))
            .find(|base| self.types.get(*base).is_some_and(|kind| kind == "histogram"));
        base.unwrap_or(name)
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (series, ""),
    };
    // No value in these tests holds a quote or a comma.
    let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
        let (label, value) = pair.split_once('=').unwrap();
        (label.to_owned(), value.trim_matches('"').to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
}

/// A label, and the words that it is matched with.
pub(super) type Matcher = (String, Vec<String>);

/// What an expression of PromQL asks for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked {
    /// Names of metrics, and what their labels are matched with.
    pub(super) metrics: Vec<(String, Vec<Matcher>)>,
    /// Labels by which is grouped or joined.
    pub(super) grouped: Vec<String>,
}

impl Asked {
    pub(super) fn by(expression: &str) -> Self {
        let mut asked = Self::default();
        let mut rest = expression;
        while let Some(first) = rest.chars().next() {
            if first == '"' || first == '[' {
                let close = if first == '"' { '"' } else { ']' };
                rest = rest[1..].split_once(close).map_or("", |(_, after)| after);
            } else if first.is_ascii_alphanumeric() || first == '_' {
                let end = rest.find(|next: char| !next.is_ascii_alphanumeric() && next != '_' && next != '.');
                let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
                rest = after.trim_start();
                if word == "up" || word.starts_with("castra_") || word.starts_with("process_") {
                    let inner = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
                    let matched = inner.map_or(vec![], |(inner, after)| {
                        rest = after;
                        matchers(inner)
                    });
                    asked.metrics.push((word.to_owned(), matched));
                } else if matches!(word, "by" | "without" | "on" | "ignoring") {
                    let (inner, after) = rest.strip_prefix('(').unwrap().split_once(')').unwrap();
                    rest = after;
                    asked.grouped.extend(inner.split(',').map(|label| label.trim().to_owned()));
                }
            } else {
                rest = &rest[first.len_utf8()..];
            }
        }
        asked
    }
}

/// `a="x",b=~"y|z"`: each label with its words; a dashboard's variables are none.
fn matchers(inner: &str) -> Vec<Matcher> {
    let pairs = inner.split(',').filter(|pair| !pair.is_empty());
    let read = pairs.map(|pair| {
        let (label, words) = pair.split_at(pair.find(['=', '!']).unwrap());
        let words = words.trim_start_matches(['=', '!', '~']).trim_matches('"').split('|');
        let words = words.filter(|word| !word.starts_with('$')).map(str::to_owned).collect();
        (label.to_owned(), words)
    });
    read.collect()
}

#[test]
fn an_expression_is_taken_apart() {
    let asked = Asked::by(
        r#"histogram_quantile(0.99, sum by (job, le) (rate(castra_x_bucket{kind!~"a|b",job=~"$job"}[5m]))) > 0.8 * up"#,
    );
    let matched = vec![("kind".to_owned(), vec!["a".into(), "b".into()]), ("job".to_owned(), vec![])];
    assert_eq!(asked.metrics, [("castra_x_bucket".to_owned(), matched), ("up".to_owned(), vec![])]);
    assert_eq!(asked.grouped, ["job", "le"]);
}
