//! Who listens for HTTP: a thread that accepts, and one for each of a few connections.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Desk;
use super::http::{Answer, Page, Request, Timed, read};
use super::scrape::{Build, text};

/// Most connections at once; who comes next is told so.
const CONNECTIONS_MAX: usize = 16;
/// From a connection's beginning to the end of its request.
const REQUEST: Duration = Duration::from_secs(5);
/// How long the loop may take for a snapshot, …
const SNAPSHOT: Duration = Duration::from_secs(5);
/// … and for saying that it turns.
const ALIVE: Duration = Duration::from_secs(2);
/// How long an answer may take on its way.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the last bytes of a client are waited for.
const LAST: Duration = Duration::from_millis(500);
/// After an accept that failed for want of descriptors.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Address space for the stack of a connection's thread.
const STACK_BYTES: usize = 512 * 1024;

/// The listener's thread. Dropped, it listens no more.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What an answer is made of.
#[derive(Debug)]
struct Source {
    desk: Arc<Desk>,
    build: Build,
    loopback: bool,
    alive_bound: Duration,
}

impl Server {
    /// Answers whoever connects to `listener`, which does not block.
    ///
    /// # Errors
    /// There is no thread for it, or no descriptor.
    pub(crate) fn start(
        listener: TcpListener,
        desk: Arc<Desk>,
        started_at: castra_core::time::WallTime,
    ) -> io::Result<Self> {
        let loopback = listener.local_addr()?.ip().is_loopback();
        let build = Build { version: env!("CARGO_PKG_VERSION"), started_at };
        Self::of(listener, Source { desk, build, loopback, alive_bound: ALIVE })
    }

    fn of(listener: TcpListener, source: Source) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("castra-metrics".to_owned()).stack_size(STACK_BYTES);
        let source = Arc::new(source);
        let thread = thread.spawn(move || accept(&listener, &stopped, &source))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An event counter takes a 1.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It panics only if it has a bug, and then it has ended too.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &OwnedFd, source: &Arc<Source>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut both = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) if !both[1].revents().is_empty() => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        match listener.accept() {
            Ok((stream, _)) => take(stream, &open, source),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // Without descriptors the poller would call again at once.
            Err(_) => drop(poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&REST))),
        }
    }
}

/// Gives a connection a thread, if there is one left.
fn take(stream: TcpStream, open: &Arc<AtomicUsize>, source: &Arc<Source>) {
    let stream = Timed::new(stream, REQUEST);
    if open.fetch_add(1, Ordering::AcqRel) < CONNECTIONS_MAX {
        let (theirs, source) = (Place(Arc::clone(open)), Arc::clone(source));
        let thread = thread::Builder::new().name("castra-scrape".to_owned()).stack_size(STACK_BYTES);
        // Without a thread the connection ends, and its place is free again.
        let _ = thread.spawn(move || {
            let _theirs = theirs;
            source.serve(stream);
        });
        return;
    }
    drop(Place(Arc::clone(open)));
    let mut stream = stream;
    let answer = Answer::words("503 Service Unavailable", "too many connections at once\n");
    // So few bytes wait for nobody.
    let _ = answer.send(&mut stream, false);
}

/// One of [`CONNECTIONS_MAX`].
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Source {
    fn serve(&self, mut stream: Timed) {
        let Some(asked) = read(&mut stream, self.loopback) else { return };
        let (answer, head) = match asked {
            Ok(Request { page, head }) => (self.answer(page), head),
            Err(answer) => (answer, false),
        };
        stream.renew(ANSWER);
        if answer.send(&mut stream, head).is_ok() {
            stream.finish(LAST);
        }
    }

    fn answer(&self, page: Page) -> Answer {
        match page {
            Page::Metrics(format) => match self.desk.snapshot(SNAPSHOT) {
                Some(snapshot) => Answer {
                    status: "200 OK",
                    content_type: format.content_type(),
                    body: text(snapshot, self.build, format),
                },
                None => stuck(SNAPSHOT),
            },
            Page::Health => match self.desk.alive(self.alive_bound) {
                Some(_) => Answer::words("200 OK", "ok\n"),
                None => stuck(self.alive_bound),
            },
            Page::Ready => match self.desk.alive(self.alive_bound) {
                Some(alive) if alive.draining => {
                    Answer::words("503 Service Unavailable", "the broker takes leave\n")
                }
                Some(_) => Answer::words("200 OK", "ready\n"),
                None => stuck(self.alive_bound),
            },
            Page::Index => Answer::words("200 OK", "castra broker: /metrics /healthz /readyz\n"),
        }
    }
}

fn stuck(bound: Duration) -> Answer {
    let text = format!("the broker's loop has not answered within {} s\n", bound.as_secs_f64());
    Answer::words("503 Service Unavailable", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_core::time::WallTime;
    use std::io::{Read, Write};
    use std::net::SocketAddr;

    /// A server whose loop, if there is one, is for the test to play.
    fn server() -> (Server, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let build = Build { version: "0", started_at: WallTime::from_unix_millis(0) };
        let desk = Arc::new(Desk::new(Arc::new(|| {})));
        let alive_bound = Duration::from_millis(10);
        let source = Source { desk, build, loopback: true, alive_bound };
        (Server::of(listener, source).expect("a thread"), address)
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        stream
    }

    /// Whatever came before the end, which is a reset for who is refused while asking.
    fn answer(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8(bytes).expect("text")
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = connect(address);
        let _ = stream.write_all(request.as_bytes());
        answer(stream)
    }

    #[test]
    fn a_loop_that_does_not_turn_is_neither_healthy_nor_ready() {
        let (_server, address) = server();
        for page in ["/healthz", "/readyz"] {
            let text = ask(address, &format!("GET {page} HTTP/1.1\r\n\r\n"));
            assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("not answered"), "{page}: {text}");
        }
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn who_comes_when_all_places_are_taken_is_told_so_and_a_place_that_is_left_is_free() {
        let (_server, address) = server();
        let mut silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(address)).collect();
        assert!(answer(connect(address)).contains("too many connections"));
        silent.pop();
        let index = || ask(address, "GET / HTTP/1.1\r\n\r\n");
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !index().starts_with("HTTP/1.1 200 ") {
            assert!(std::time::Instant::now() < until, "no place became free");
        }
    }

    #[test]
    fn a_server_that_is_dropped_listens_no_more() {
        let (server, address) = server();
        drop(server);
        TcpStream::connect(address).expect_err("nobody");
    }
}
