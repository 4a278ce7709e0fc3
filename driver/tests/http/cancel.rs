//! Requests that nobody wants any more, threads, and the end.

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use castra_core::boundary::EffectErrorKind;
use castra_driver::work::{Outcome, Work};

use super::rig::{Client, HANG, PATIENCE, Server, alone, failure, get, request, threads};

/// A server that never answers, and says when a request came and when its connection ended.
fn silent() -> (Server, std::sync::mpsc::Receiver<&'static str>) {
    let (tell, told) = channel();
    let server = Server::raw(move |mut stream, _| {
        if request(&mut stream).is_some() {
            let _ = tell.send("asked");
            let _ = stream.read_to_end(&mut Vec::new());
            let _ = tell.send("ended");
        }
    });
    (server, told)
}

#[test]
fn a_cancelled_request_ends_at_once_on_both_sides_and_once() {
    let (server, told) = silent();
    let mut client = Client::new();
    let id = client.submit(get(server.origin()), PATIENCE);
    assert_eq!(told.recv_timeout(HANG), Ok("asked"));
    client.work.cancel(id);
    let outcome = client.end(id);
    failure(outcome, EffectErrorKind::Cancelled);
    assert_eq!(told.recv_timeout(Duration::from_secs(1)), Ok("ended"));
    // Again, or one that never was: nothing happens.
    client.work.cancel(id);
    // Its thread is free, and has nothing more to say about it.
    let quick = Server::saying("HTTP/1.1 204 Done\r\n\r\n");
    assert_eq!(client.answer(get(quick.origin())).0, 204);
    assert!(!client.has_more());
}

#[test]
fn threads_come_with_requests_and_are_at_most_four() {
    // It counts the threads of this process.
    if !alone("cancel::threads_come_with_requests_and_are_at_most_four", &[]) {
        return;
    }
    let mut client = Client::new();
    let quick = Server::saying("HTTP/1.1 204 Done\r\n\r\n");
    assert_eq!(threads("castra-http"), 0);
    for _ in 0..3 {
        client.answer(get(quick.origin()));
        assert_eq!(threads("castra-http"), 1);
    }
    let (server, told) = silent();
    let ids: Vec<_> = (0..4).map(|_| client.submit(get(server.origin()), PATIENCE)).collect();
    (0..4).for_each(|_| assert_eq!(told.recv_timeout(HANG), Ok("asked")));
    // A fifth waits its turn, and not longer than it can.
    let begun = Instant::now();
    let fifth = client.submit(get(server.origin()), Duration::from_millis(300));
    let outcome = client.end(fifth);
    let message = failure(outcome, EffectErrorKind::TimedOut);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?} {message}");
    // One that waits can be cancelled …
    let sixth = client.submit(get(server.origin()), PATIENCE);
    client.work.cancel(sixth);
    let outcome = client.end(sixth);
    failure(outcome, EffectErrorKind::Cancelled);
    assert!(told.try_recv().is_err(), "nobody asked for them");
    assert_eq!(threads("castra-http"), 4);
    // … and one that gets a thread is served.
    let seventh = client.submit(get(quick.origin()), PATIENCE);
    client.work.cancel(ids[2]);
    let outcome = client.end(ids[2]);
    failure(outcome, EffectErrorKind::Cancelled);
    assert!(matches!(client.end(seventh), Outcome::Answered { status: 204, .. }));
    // The end waits for none of them, and their connections end.
    let begun = Instant::now();
    client.work.stop(Duration::from_secs(10));
    assert!(begun.elapsed() < Duration::from_secs(1));
    (0..4).for_each(|_| assert_eq!(told.recv_timeout(Duration::from_secs(1)), Ok("ended")));
    let by = Instant::now() + HANG;
    while threads("castra-http") > 0 {
        assert!(Instant::now() < by, "a thread lingers");
        std::thread::yield_now();
    }
}

#[test]
fn a_request_is_cancelled_wherever_it_is() {
    let mut client = Client::new();
    // In the head, in the body, and while the server takes no more.
    for begun in ["HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"] {
        let (tell, told) = channel();
        let server = Server::raw(move |mut stream, _| {
            request(&mut stream);
            stream.write_all(begun.as_bytes()).unwrap();
            tell.send("asked").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
            tell.send("ended").unwrap();
        });
        let id = client.submit(get(server.origin()), PATIENCE);
        assert_eq!(told.recv_timeout(HANG), Ok("asked"));
        client.work.cancel(id);
        let outcome = client.end(id);
        failure(outcome, EffectErrorKind::Cancelled);
        assert_eq!(told.recv_timeout(Duration::from_secs(1)), Ok("ended"));
    }
    let (tell, told) = channel();
    let server = Server::raw(move |mut stream, _| {
        stream.read_exact(&mut [0; 10]).unwrap();
        tell.send("asked").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let _ = stream.read_to_end(&mut Vec::new());
        tell.send("ended").unwrap();
    });
    let mut long = super::rig::post(server.origin());
    long.body.0 = vec![b' '; 64 * 1024 * 1024];
    let id = client.submit(long, PATIENCE);
    assert_eq!(told.recv_timeout(HANG), Ok("asked"));
    client.work.cancel(id);
    let outcome = client.end(id);
    failure(outcome, EffectErrorKind::Cancelled);
    assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok("ended"));
}
