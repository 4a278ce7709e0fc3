//! Words that mean something to a shell, a unit or YAML come out as they went in.

use super::quote::{shell, unit};
use super::*;

#[test]
fn what_is_quoted_is_one_word() {
    assert_eq!(shell("tcp:10.0.2.2:7070"), "tcp:10.0.2.2:7070");
    assert_eq!(shell("a b'c"), r"'a b'\''c'");
    assert_eq!((shell(""), unit("")), ("''".to_owned(), "\"\"".to_owned()));
    assert_eq!(unit("a b\"\\%h$X"), r#""a b\"\\%%h$$X""#);
    assert_eq!(unit("50%$"), "50%%$$");
}

#[test]
fn what_no_snippet_can_hold_is_refused_and_so_is_what_the_agent_would_refuse() {
    let plan = |words: &[&str]| {
        let line = ["castra", "install-agent", "devbox", "--sh"].iter().chain(words);
        match Cli::try_parse_from(line).unwrap().command {
            crate::args::Command::InstallAgent(args) => Plan::of(&args).map(|_| ()),
            other => panic!("{other:?}"),
        }
    };
    let connect = ["--connect", "tcp:10.0.2.2:7070"];
    for (words, said) in [
        (&["--connect", "unix:/a\nb"][..], "printable ASCII"),
        (&["--connect", "unix:relative"], "whole path"),
        (&["--connect", "serial:/dev/\u{e9}"], "printable ASCII"),
        (&[&connect[..], &["--token-file", "token"]].concat(), "whole path"),
        (&[&connect[..], &["--binary", "castra"]].concat(), "whole path"),
        (&[&connect[..], &["--", "--no-such-option"]].concat(), "--no-such-option"),
        (&[&connect[..], &["--with-token", "/nonexistent/token"]].concat(), "can't read the token"),
    ] {
        let failure = plan(words).unwrap_err();
        assert!(failure.message.contains(said), "{words:?}: {}", failure.message);
    }
    plan(&[&connect[..], &["--", "--terminals", "--peers", "accept"]].concat()).unwrap();
}
