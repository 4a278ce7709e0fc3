//! A blocking client of a daemon of terminals, for what this process itself wants there.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use castra_core::event::Escaped;
use castra_core::terminals::wire::{
    Answer, CLIENT_FRAME_MAX, ErrorCode, Frames, Granted, Handshake, Message, PROTOCOL_VERSION, Request, Role,
};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::listen;
use crate::net::Target;
use crate::pool::Call;

/// Between two tries where nothing tells when the next one is worth it.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// A connection after its handshake.
pub(crate) struct Client {
    stream: OwnedFd,
    frames: Frames,
    sequence: u32,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The connection, its deadline or its cancellation. The connection is of no use any more.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not this protocol. The connection is of no use any more.
    #[error("not a daemon of terminals: {0}")]
    Protocol(String),
    /// The daemon's word.
    #[error("{message}")]
    Refused {
        /// Its code, if it is one that is known here.
        code: Option<ErrorCode>,
        /// Its message.
        message: String,
    },
}

/// What an answer says that anybody here asks for.
#[derive(Default)]
pub(crate) struct Reply {
    /// Of which terminal.
    pub(crate) session: Option<u32>,
    /// To a list: the running ones that have a name.
    pub(crate) running: Vec<(String, u32)>,
}

impl Client {
    /// Connects as `id`, without a token: the daemon is of this process.
    pub(crate) fn open(socket: &Path, id: &str, call: &Call) -> Result<Self, ClientError> {
        let target = Target::Unix(socket.to_owned());
        let stream = loop {
            match listen::connect(&target) {
                Ok((stream, _)) => break stream,
                // Its queue is full, and no edge tells when it isn't.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    call.wait_until(None, Instant::now() + RETRY)?;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let mut client = Self { stream, frames: Frames::default(), sequence: 0 };
        client.ask(&Request::Handshake(Handshake::new("", id, Role::Control)), call)?;
        Ok(client)
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, request: &Request<'_>, call: &Call) -> Result<Reply, ClientError> {
        self.sequence += 1;
        let mut frame = Vec::new();
        request.append(self.sequence, &mut frame);
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            call.check()?;
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::AGAIN) => call.wait(&self.stream, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        let mut chunk = [0; 16 * 1024];
        loop {
            call.check()?;
            match recv(&self.stream, &mut chunk, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok((_, received)) => {
                    if let Some(answer) = self.take(&chunk[..received])? {
                        return answer;
                    }
                }
                Err(Errno::AGAIN) => call.wait(&self.stream, PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Whether the daemon is still there. What it told unasked is passed over.
    pub(crate) fn is_open(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        loop {
            match recv(&self.stream, &mut chunk, RecvFlags::empty()) {
                Ok((_, 0)) => return false,
                Ok((_, received)) if self.take(&chunk[..received]).is_err() => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return error == Errno::AGAIN,
            }
        }
    }

    /// Takes what came; the answer to the newest request, if it is among it.
    fn take(&mut self, mut bytes: &[u8]) -> Result<Option<Result<Reply, ClientError>>, ClientError> {
        let mut answered = None;
        let protocol = |error: &dyn std::fmt::Display| ClientError::Protocol(error.to_string());
        loop {
            let frame = self.frames.next(&mut bytes, CLIENT_FRAME_MAX).map_err(|error| protocol(&error))?;
            let Some(frame) = frame else { return Ok(answered) };
            let message = Message::parse(frame).map_err(|error| protocol(&error))?;
            // An error without a number is of the request that couldn't be read.
            if let Message::Reply { seq, answer } = message
                && (seq == self.sequence || seq == 0)
            {
                answered = Some(reply(answer));
            }
        }
    }
}

fn reply(answer: Answer<'_>) -> Result<Reply, ClientError> {
    match answer {
        Answer::Error { code, message } => {
            let message = Escaped(message).to_string();
            Err(ClientError::Refused { code: ErrorCode::parse(code), message })
        }
        Answer::Handshake { protocol_version: PROTOCOL_VERSION, .. } => Ok(Reply::default()),
        Answer::Handshake { protocol_version, .. } => {
            Err(ClientError::Protocol(format!("it is of version {protocol_version}")))
        }
        Answer::Granted(granted) => {
            let Granted { session, sessions, .. } = *granted;
            let rows = sessions.into_iter().flatten().filter(|row| row.is_alive);
            let running = rows.filter_map(|row| Some((row.session_key?.into_owned(), row.id))).collect();
            Ok(Reply { session, running })
        }
    }
}
