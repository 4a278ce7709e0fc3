//! What a guest may say to a broker, and what a broker may have done in a guest.

use serde_json::json;

use crate::support::{Link, World, verdict};

/// Everything that only the operator may ask.
const OPERATORS: [(&str, &str); 14] = [
    ("token_issue", r#""guest":"devbox""#),
    ("token_revoke", r#""guest":"keyed""#),
    ("token_list", ""),
    ("forget", r#""guest":"keyed""#),
    ("events", ""),
    ("info", ""),
    ("terminals", r#""guest":"keyed""#),
    ("adopt", r#""guest":"keyed""#),
    ("release", r#""guest":"keyed""#),
    ("attachments", ""),
    ("action_send", r#""guest":"keyed","action_type":"terminal_write","payload":{"bytes":"x"}"#),
    ("action_list", ""),
    ("reload", ""),
    ("shutdown", ""),
];

#[test]
fn no_guest_has_any_of_an_operators_words() {
    let world = World::new();
    let broker = world.broker(&[]);
    let token = world.path("keyed.token");
    assert_eq!(world.castra(&["token", "issue", "keyed", "--out", token.to_str().unwrap()]).code, 0);
    let _keyed = world.agent("keyed", broker.address(), &["--token-file", token.to_str().unwrap()]);
    world.wait(&["keyed"], "reachable");
    let mut guest = Link::join(broker.port(), "devbox");
    for (method, params) in OPERATORS {
        let comma = if params.is_empty() { "" } else { "," };
        let json = format!(r#"{{"type":"{method}","id":1{comma}{params}}}"#);
        guest.send_frame(&json);
        let answer = guest.answer().unwrap();
        assert_eq!(
            (&answer["code"], &answer["of"]),
            (&json!("unknown-type"), &json!(method)),
            "{method}: {answer}"
        );
    }
    assert_eq!(verdict(&world.row("keyed")), "reachable");
    let tokens = world.json(&["token", "list", "--json"])["tokens"].clone();
    assert_eq!(tokens, json!([{"guest": "keyed", "valid": true}]));
}
