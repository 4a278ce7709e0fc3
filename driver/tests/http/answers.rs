//! Requests that are answered.

use std::io::Write;
use std::time::Duration;

use castra_core::attach::{Body, HttpRequest};
use castra_core::boundary::EffectErrorKind;

use super::rig::{CODE, Client, Server, TOKEN, get, post, request};

const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

/// The lines of a head without the values that depend on the server, sorted.
fn lines(text: &str) -> Vec<String> {
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head.lines().skip(1).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn exactly_what_the_request_says_goes_out() {
    let server = Server::saying(OK);
    let mut client = Client::new();
    assert_eq!(client.answer(post(server.origin())), (200, None, b"{\"ok\":true}".to_vec()));
    let heard = server.next().text;
    assert!(heard.starts_with("POST /private-beaches/b-1/sessions/attach-by-code HTTP/1.1\r\n"), "{heard}");
    let body = format!("{{\"code\":\"{CODE}\"}}");
    assert!(heard.ends_with(&format!("\r\n\r\n{body}")), "{heard}");
    let mut expected = [
        "accept: application/json".to_owned(),
        format!("authorization: Bearer {TOKEN}"),
        format!("content-length: {}", body.len()),
        "content-type: application/json".to_owned(),
        format!("host: {}", server.address),
        format!("user-agent: castra/{}", env!("CARGO_PKG_VERSION")),
        "x-beach-handshake-id: h-1".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(lines(&heard), expected);

    client.answer(get(server.origin()));
    let heard = server.next().text;
    assert!(heard.starts_with("GET /sessions/s-1/actions/poll HTTP/1.1\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n"), "{heard}");
    let without = |line: &String| !["content-", "x-beach"].iter().any(|start| line.starts_with(start));
    expected.sort_unstable();
    assert_eq!(lines(&heard), expected.iter().filter(|line| without(line)).cloned().collect::<Vec<_>>());

    client.answer(HttpRequest { body: Body::default(), ..post(server.origin()) });
    let heard = server.next().text;
    assert!(lines(&heard).contains(&"content-length: 0".to_owned()), "{heard}");
    assert!(!heard.contains("content-type"), "{heard}");
}

#[test]
fn any_status_is_an_answer_and_a_redirect_is_not_followed() {
    let answers = [
        (500, "HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno"),
        (408, "HTTP/1.1 408 Late\r\ncontent-length: 2\r\n\r\nno"),
        (401, "HTTP/1.1 401 Who\r\ncontent-length: 2\r\n\r\nno"),
        (302, "HTTP/1.1 302 There\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nno"),
        (307, "HTTP/1.1 307 There\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nno"),
    ];
    for (status, answer) in answers {
        let server = Server::saying(answer);
        let mut client = Client::new();
        assert_eq!(client.answer(post(server.origin())), (status, None, b"no".to_vec()));
        assert_eq!(client.answer(get(server.origin())), (status, None, b"no".to_vec()));
        assert!(!server.next().text.contains("elsewhere") && !server.next().text.contains("elsewhere"));
        assert!(server.heard.try_recv().is_err(), "it asked again");
    }
}

#[test]
fn retry_after_is_told_in_either_form() {
    let server = Server::saying("HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n");
    let mut client = Client::new();
    assert_eq!(client.answer(get(server.origin())), (429, Some(Duration::from_secs(7)), Vec::new()));
    let past = "HTTP/1.1 429 Slow\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n";
    let server = Server::saying(past);
    assert_eq!(client.answer(get(server.origin())), (429, Some(Duration::ZERO), Vec::new()));
    let future =
        "HTTP/1.1 503 Slow\r\nRetry-After: Fri, 06 Nov 2893 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n";
    let server = Server::saying(future);
    let (status, wait, _) = client.answer(get(server.origin()));
    assert!(status == 503 && wait.is_some_and(|wait| wait > Duration::from_secs(86_400 * 365)), "{wait:?}");
}

#[test]
fn a_body_comes_whole_however_it_is_cut() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
    let mut client = Client::new();
    let server = Server::saying(chunked);
    assert_eq!(client.answer(get(server.origin())).2, b"hello world");
    // To the connection's end.
    let server = Server::answering(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end").unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    assert_eq!(client.answer(get(server.origin())).2, b"to the end");
    // Byte by byte.
    let server = Server::answering(|stream, _| {
        stream.set_nodelay(true).unwrap();
        for byte in OK.as_bytes() {
            stream.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(client.answer(get(server.origin())).2, b"{\"ok\":true}");
}

#[test]
fn an_answer_is_as_long_as_it_may_be_and_one_byte_more_is_none() {
    let lengths = [1000, 1001, 2 * 1024 * 1024];
    for chunked in [false, true] {
        for length in lengths {
            let server = Server::answering(move |stream, _| {
                let body = "x".repeat(length);
                let text = if chunked {
                    format!(
                        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
                    )
                } else {
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
                };
                // Whoever has enough hangs up.
                let _ = stream.write_all(text.as_bytes());
            });
            let request = HttpRequest { answer_max: 1000, ..get(server.origin()) };
            let mut client = Client::new();
            if length == 1000 {
                assert_eq!(client.answer(request).2.len(), 1000);
            } else {
                let message = client.failure(request, EffectErrorKind::BadAnswer);
                assert!(message.contains("more than 1000 bytes"), "{message}");
            }
        }
    }
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = Server::saying(OK);
    let mut client = Client::new();
    for _ in 0..20 {
        client.answer(get(server.origin()));
        client.answer(post(server.origin()));
    }
    let connections: Vec<usize> = (0..40).map(|_| server.next().connection).collect();
    assert_eq!(connections, [0; 40]);
}

#[test]
fn a_connection_that_the_server_gave_up_meanwhile_is_replaced_in_silence() {
    // With its answer, or when the next request comes: that one is not lost.
    for at_once in [true, false] {
        let server = Server::raw(move |mut stream, _| {
            request(&mut stream);
            stream.write_all(OK.as_bytes()).unwrap();
            if !at_once {
                request(&mut stream);
            }
        });
        let mut client = Client::new();
        for _ in 0..20 {
            assert_eq!(client.answer(post(server.origin())).0, 200);
        }
    }
}
