//! A broker that is played by bytes: it says what a test wants, when it wants.

use std::net::TcpListener;

use super::{Link, PATIENCE, Stream, until};

pub(crate) struct RawBroker {
    listener: TcpListener,
    sessions: u64,
}

const NONCE: &str = "00112233445566778899aabbccddeeff";

impl RawBroker {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, sessions: 0 }
    }

    /// Where agents connect.
    pub(crate) fn address(&self) -> String {
        format!("tcp:{}", self.listener.local_addr().unwrap())
    }

    /// The next guest's hello, and its session, unkeyed, which asks for nothing by itself.
    pub(crate) fn session(&mut self) -> (String, Link) {
        let mut accepted = None;
        let came = until(PATIENCE, || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        assert!(came, "no guest came");
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut link = Link::over(Stream::Tcp(stream));
        self.sessions += 1;
        let epoch = self.sessions;
        link.send(b"castra-broker 0.1 ready\n");
        let hello = link.line();
        link.send(format!("challenge {NONCE} epoch={epoch} auth=none\n").as_bytes());
        assert_eq!(link.line(), format!("proof {NONCE}"));
        let ok = format!("ok session=sess-0-{epoch} epoch={epoch} interval_ms=60000 window_ms=180000\n");
        link.send(ok.as_bytes());
        (hello, link)
    }
}
