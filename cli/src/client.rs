//! The control protocol's client, as the commands use it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

pub(crate) use castra_client::{Client, Error as ClientError, Reply, ask, dial, shown};

/// The next line of a stream, for as long as it takes; `None` when
/// `stdout` lost its reader meanwhile.
pub(crate) fn next(client: &mut Client, stdout: BorrowedFd<'_>) -> Result<Option<Reply>, ClientError> {
    loop {
        if let Some(line) = client.next_line(Duration::ZERO)? {
            return Ok(Some(line));
        }
        let mut fds = [
            PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdout, PollFlags::empty()),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => {}
            Ok(_) if fds[1].revents().intersects(PollFlags::ERR | PollFlags::NVAL) => return Ok(None),
            // A terminal that hung up brings its own signal.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(ClientError::Io { path: "the broker".into(), error: error.into() }),
        }
    }
}

/// As the system calls want it.
pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}
