//! What nobody may do who only reached a socket.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use crate::managing::{Shore, Told, attach_request, get, post};

/// Every request that a manager takes, with a bearer of one's own choice.
fn requests(told: &Told, bearer: &str) -> [String; 4] {
    let of = |end: &str| format!("/sessions/{}/{end}", told.session);
    [
        attach_request(&Told { token: bearer.to_owned(), ..told.clone() }),
        get(&of("actions/poll"), bearer),
        post(&of("actions/ack"), bearer, r#"[{"id":"a","status":"ok"}]"#),
        post(&of("lease"), bearer, ""),
    ]
}

#[test]
fn no_request_is_answered_to_whoever_has_not_its_sessions_bearer() {
    let mut shore = Shore::http();
    for guest in ["web-1", "web-2"] {
        shore.join(guest);
        shore.ask("adopt", json!({"guest": guest, "wait": false}));
    }
    let (told, others) = (shore.told("web-1"), shore.told("web-2"));
    let (first, rest) = told.token.split_at(1);
    let wrong = [
        others.token,
        others.code,
        told.code.clone(),
        rest.to_owned(),
        format!("{first}{rest}x"),
        format!("{}{rest}", if first == "0" { "1" } else { "0" }),
        told.session.clone(),
    ];
    for bearer in &wrong {
        for request in requests(&told, bearer) {
            let answer = shore.exchange(&request);
            assert_eq!(answer.status, 401, "{request}");
        }
    }
    // With none at all, and with one where nobody looks for it.
    for request in requests(&told, &told.token) {
        let line = format!("Authorization: Bearer {}\r\n", told.token);
        assert!(request.contains(&line));
        for instead in
            ["", "Authorization: Basic x\r\n", "Cookie: token=x\r\n", &format!("X-Token: {}\r\n", told.token)]
        {
            assert_eq!(shore.exchange(&request.replace(&line, instead)).status, 401, "{instead}");
        }
        let in_query = request.replacen(" HTTP/1.1", &format!("?token={} HTTP/1.1", told.token), 1);
        assert_eq!(shore.exchange(&in_query).status, 400);
    }
    assert!(shore.rows().iter().all(|row| row["stage"] == "pending"), "{:?}", shore.rows());
    // It is the bearer that makes the difference.
    assert_eq!(shore.post_attach(&told).status, 200);
    for request in &requests(&told, &told.token)[2..] {
        assert_eq!(shore.exchange(request).status, 200);
    }
}
