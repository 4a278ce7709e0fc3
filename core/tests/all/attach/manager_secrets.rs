//! No code, token or bearer is in any event, error, answer or debugging text.
#![allow(clippy::unwrap_used)]

use crate::managing::{Shore, Told, attach_request, get, poll, post, secs};
use serde_json::json;

/// Everything of the broker that somebody may read, and nothing that a guest is meant to.
fn readable(shore: &mut Shore) -> String {
    let mut text = Vec::new();
    for event in &shore.world.events {
        event.append_line(&mut text);
        event.append_json(None, &mut text);
        text.extend_from_slice(format!("{event:?}\n").as_bytes());
    }
    let mut text = String::from_utf8(text).unwrap();
    text += &format!("{:?} {:?}", shore.world.broker, shore.ledger);
    for method in ["attachments", "action_list", "status", "events"] {
        text += &shore.ask(method, json!({})).to_string();
    }
    text
}

#[test]
fn nothing_that_is_written_down_holds_a_secret() {
    let mut shore = Shore::http();
    let mut secrets = vec!["hunter2-typed".to_owned(), "forged-token".to_owned(), "FORGED-CODE".to_owned()];
    let mut said = String::new();
    let keep =
        |secrets: &mut Vec<String>, told: &Told| secrets.extend([told.token.clone(), told.code.clone()]);
    shore.join("web-1");
    let id = shore.order("adopt", json!({"guest": "web-1"}));
    let told = shore.told("web-1");
    keep(&mut secrets, &told);
    let forged = Told { code: "FORGED-CODE".into(), ..told.clone() };
    shore.attach("web-1", &forged);
    for request in [
        attach_request(&forged),
        attach_request(&Told { token: "forged-token".into(), ..told.clone() }),
        attach_request(&told)
            .replace("by-code HTTP", &format!("by-code?controller_token={} HTTP", told.token)),
        get(&format!("/{}", told.token), &told.token),
        post(
            "/private-beaches/b/sessions/attach-by-code",
            &told.token,
            &format!("{{\"code\":\"{}\"", told.code),
        ),
        attach_request(&told).replace("Host: 10.0.2.2:7171", &format!("Host: {}", told.token)),
        attach_request(&told).replace("Host:", &format!("{} x\r\nHost:", told.code)),
    ] {
        said += &format!("{:?}", shore.exchange(&request));
    }
    shore.stuck = true;
    shore.attach("web-1", &told);
    let waiting = shore.connect();
    shore.write(waiting, attach_request(&told).as_bytes());
    let half = shore.connect();
    shore.write(half, &attach_request(&told).as_bytes()[..300]);
    said += &format!("{:?}", shore.world.broker);
    shore.release();
    said += &shore.answer(id).unwrap().to_string();
    said += &format!("{:?} {:?}", shore.answers(waiting), shore.hear("web-1"));
    let params = json!({"guest": "web-1", "action_type": "terminal_write", "payload": {"bytes": "hunter2-typed"}, "wait": false});
    said += &shore.ask("action_send", params).to_string();
    shore.leave("web-1");
    let polls = shore.connect();
    shore.write(polls, poll(&told).as_bytes());
    said += &readable(&mut shore);
    shore.join("web-1");
    shore.pass(secs(1));
    keep(&mut secrets, &shore.told("web-1"));
    shore.pass(secs(601));
    keep(&mut secrets, &shore.told("web-1"));
    shore.failing = true;
    said += &shore.ask("release", json!({"guest": "web-1"})).to_string();
    shore.failing = false;
    shore.restart(secs(1));
    said += &readable(&mut shore);
    said += &shore.ask("release", json!({"guest": "web-1"})).to_string();
    said += &readable(&mut shore);
    assert!(
        secrets.len() > 8
            && said.contains("manager.handshake.accepted")
            && said.contains("manager.request.refused")
    );
    for secret in &secrets {
        assert!(!said.contains(&**secret), "{secret} is in {}", around(&said, secret));
        // As bytes that somebody prints.
        let bytes = format!("{:?}", secret.as_bytes());
        let bytes = bytes.trim_matches(['[', ']']);
        assert!(!said.contains(bytes), "{secret} is in {}", around(&said, bytes));
    }
}

fn around<'a>(text: &'a str, what: &str) -> &'a str {
    let at = text.find(what).unwrap();
    text.get(at.saturating_sub(200)..(at + 200).min(text.len())).unwrap_or_default()
}
