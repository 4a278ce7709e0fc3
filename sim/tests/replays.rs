//! Every trace in `regressions/` is replayed: what production recorded stays as it was.

use std::path::{Path, PathBuf};

use castra_core::trace::{Outcome, replay};

fn traces() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut traces: Vec<_> =
        files.filter(|path| path.to_str().is_some_and(|path| path.ends_with(".trace.jsonl"))).collect();
    traces.sort();
    traces
}

#[test]
fn every_recorded_trace_gives_the_same_outputs_again() {
    let traces = traces();
    assert!(!traces.is_empty(), "a suite without traces proves nothing");
    for path in traces {
        let name = path.display();
        match replay(&std::fs::read(&path).expect("a readable trace")) {
            Ok(Outcome::Equal(report)) => assert!(report.inputs > 0, "{name} holds no input"),
            // The texts are in the file already, which is public here.
            Ok(Outcome::Different(_, found)) => panic!(
                "{name}: line {}, {:?} after the start, output {}\n  input:    {}\n  expected: {}\n  got:      {}",
                found.line, found.after, found.output, found.input, found.expected, found.got
            ),
            Err(error) => panic!("{name}, {error}"),
        }
    }
}

#[test]
fn a_changed_trace_is_noticed() {
    for path in traces() {
        let text = std::fs::read_to_string(&path).expect("a readable trace");
        let place = text.rfind(r#"{"event":{"#).expect("an event");
        let changed =
            format!("{}{}", &text[..place], text[place..].replacen(r#""cursor":""#, r#""cursor":"9"#, 1));
        let outcome = replay(changed.as_bytes());
        assert!(matches!(outcome, Ok(Outcome::Different(..))), "{}: {outcome:?}", path.display());
    }
}
