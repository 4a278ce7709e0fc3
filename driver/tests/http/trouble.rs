//! Requests that are not answered.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use castra_core::attach::Origin;
use castra_core::boundary::EffectErrorKind;
use rustix::net::sockopt::set_socket_linger;

use super::rig::{Client, Server, failure, get, post, request};

const SHORT: Duration = Duration::from_millis(300);

/// Asks with little patience; how it failed, and after how long.
fn late(client: &mut Client, to: Origin) -> Duration {
    let begun = Instant::now();
    let id = client.submit(post(to), SHORT);
    let outcome = client.end(id);
    failure(outcome, EffectErrorKind::TimedOut);
    let took = begun.elapsed();
    assert!(took >= SHORT && took < Duration::from_secs(5), "{took:?}");
    took
}

#[test]
fn a_server_that_hangs_is_waited_for_as_long_as_the_patience_lasts() {
    let mut client = Client::new();
    // Without a word.
    let server = Server::raw(|mut stream, _| drop(stream.read_to_end(&mut Vec::new())));
    late(&mut client, server.origin());
    // In the head, and in the body.
    for begun in ["HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"] {
        let server = Server::raw(move |mut stream, _| {
            request(&mut stream);
            stream.write_all(begun.as_bytes()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        late(&mut client, server.origin());
    }
    // Nobody takes the connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    late(&mut client, Origin { tls: false, host: address.ip().to_string(), port: address.port() });
    // Nor shakes hands.
    late(&mut client, Origin { tls: true, host: address.ip().to_string(), port: address.port() });
}

#[test]
fn a_server_that_drips_gets_no_longer() {
    let server = Server::raw(|mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.set_nodelay(true).unwrap();
        while stream.write_all(b"1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    late(&mut Client::new(), server.origin());
    // Nor one that always has another byte ready.
    let server = Server::raw(|mut stream, _| {
        request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n");
        let trailers = "x: y\r\n".repeat(1000);
        while stream.write_all(trailers.as_bytes()).is_ok() {}
    });
    late(&mut Client::new(), server.origin());
}

#[test]
fn a_server_that_takes_nothing_gets_no_longer() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let server = Server::raw(move |stream, _| {
        // Until the test lets go.
        let _ = held.lock().unwrap().recv();
        drop(stream);
    });
    let mut client = Client::new();
    let mut request = post(server.origin());
    request.body.0 = vec![b' '; 64 * 1024 * 1024];
    let id = client.submit(request, SHORT);
    let outcome = client.end(id);
    failure(outcome, EffectErrorKind::TimedOut);
    drop(release);
}

#[test]
fn nobody_there_a_reset_and_an_early_end_are_unreachable() {
    let mut client = Client::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = Origin { tls: false, host: "127.0.0.1".to_owned(), port: closed.port() };
    let message = client.failure(get(to.clone()), EffectErrorKind::Unreachable);
    assert!(message.contains("refused") && message.contains("127.0.0.1"), "{message}");
    // By name: loopback has one everywhere.
    client.failure(get(Origin { host: "localhost".to_owned(), ..to }), EffectErrorKind::Unreachable);

    let server = Server::raw(|mut stream, _| {
        request(&mut stream);
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    client.failure(get(server.origin()), EffectErrorKind::Unreachable);
    for begun in ["", "HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"] {
        let server = Server::raw(move |mut stream, _| {
            request(&mut stream);
            stream.write_all(begun.as_bytes()).unwrap();
        });
        let message = client.failure(post(server.origin()), EffectErrorKind::Unreachable);
        assert!(message.contains("closed"), "{begun:?}: {message}");
    }
}

#[test]
fn a_name_without_an_address_is_unreachable() {
    let to = Origin { tls: false, host: "no-such-host.invalid".to_owned(), port: 80 };
    let message = Client::new().failure(get(to), EffectErrorKind::Unreachable);
    assert!(message.starts_with("no-such-host.invalid:80: "), "{message}");
}

#[test]
fn a_name_with_an_address_is_asked() {
    let server = Server::saying("HTTP/1.1 204 Done\r\n\r\n");
    let to = Origin { host: "localhost".to_owned(), ..server.origin() };
    assert_eq!(Client::new().answer(get(to)).0, 204);
    assert!(server.next().text.contains(&format!("host: localhost:{}\r\n", server.address.port())));
}

#[test]
fn what_is_no_http_is_a_bad_answer() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let answers = [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
        "HTTP/1.1 xx OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: some\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        long,
    ];
    let mut client = Client::new();
    for answer in answers {
        let text = answer.clone();
        let server = Server::raw(move |mut stream, _| {
            request(&mut stream);
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let outcome = client.ask(post(server.origin()));
        failure(outcome, EffectErrorKind::BadAnswer);
    }
}
