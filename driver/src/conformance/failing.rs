//! A network that runs out of descriptors when told, and counts what is asked of it.

use std::io;

use castra_core::boundary::Remote;
use castra_core::id::ConnId;

use super::Inner;
use crate::net::{Accepted, ListenerId, Net, Received, Target};

/// A wrapper around any network.
#[derive(Debug)]
pub struct Failing<N> {
    inner: N,
    /// Errors (raw) that the next accepts give instead of a connection.
    pub accept_errors: Vec<i32>,
    /// How often a connect that has ended says that it has not.
    pub pending_connects: usize,
    /// Errors that the next connects give.
    pub connect_errors: Vec<io::ErrorKind>,
    /// Accepts tried.
    pub accepts: usize,
    /// Reads.
    pub reads: usize,
    /// Writes.
    pub writes: usize,
    /// Changes of what is watched.
    pub interests: usize,
}

impl<N> Failing<N> {
    /// Around `inner`.
    pub const fn new(inner: N) -> Self {
        Self {
            inner,
            accept_errors: Vec::new(),
            pending_connects: 0,
            connect_errors: Vec::new(),
            accepts: 0,
            reads: 0,
            writes: 0,
            interests: 0,
        }
    }
}

impl<N> Inner<N> for Failing<N> {
    fn inner(&mut self) -> &mut N {
        &mut self.inner
    }
}

impl<N: Net> Net for Failing<N> {
    fn accept(&mut self, listener: ListenerId, conn: ConnId) -> io::Result<Accepted> {
        self.accepts += 1;
        match self.accept_errors.pop() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => self.inner.accept(listener, conn),
        }
    }

    fn connect(&mut self, conn: ConnId, target: &Target) -> io::Result<()> {
        match self.connect_errors.pop() {
            Some(error) => Err(error.into()),
            None => self.inner.connect(conn, target),
        }
    }

    fn connected(&mut self, conn: ConnId) -> io::Result<Remote> {
        if let Some(fewer) = self.pending_connects.checked_sub(1) {
            self.pending_connects = fewer;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.inner.connected(conn)
    }

    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Received> {
        self.reads += 1;
        self.inner.read(conn, buffer)
    }

    fn write(&mut self, conn: ConnId, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        self.inner.write(conn, bytes)
    }

    fn want_write(&mut self, conn: ConnId, wanted: bool) -> io::Result<()> {
        self.interests += 1;
        self.inner.want_write(conn, wanted)
    }

    fn finish(&mut self, conn: ConnId) {
        self.inner.finish(conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.inner.close(conn);
    }

    fn close_listener(&mut self, listener: ListenerId) {
        self.inner.close_listener(listener);
    }
}
