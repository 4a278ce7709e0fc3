//! One HTTP request: a connection across the simulated network, the bytes of the request,
//! and those of the answer.

use std::io::ErrorKind;

use castra_core::attach::{HttpRequest, Method};
use castra_core::boundary::EffectErrorKind;
use castra_core::time::Time;
use castra_driver::work::JobId;

use super::answer::{self, Answer};
use crate::net::{EndId, Hub};

/// A request under way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) job: JobId,
    pub(super) request: Box<HttpRequest>,
    pub(super) deadline: Time,
    pub(super) end: Option<EndId>,
    unsent: Vec<u8>,
    inbox: Vec<u8>,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Progress {
    Answered { answer: Answer, reusable: bool },
    Failed(EffectErrorKind, &'static str),
}

impl Exchange {
    pub(super) fn new(job: JobId, request: Box<HttpRequest>, deadline: Time, end: Option<EndId>) -> Self {
        let unsent = written(&request);
        Self { job, request, deadline, end, unsent, inbox: Vec::new() }
    }

    /// Does what can be done now. `None`: it goes on.
    pub(super) fn turn(&mut self, hub: &mut Hub) -> Option<Progress> {
        let broken = |why| Some(Progress::Failed(EffectErrorKind::Unreachable, why));
        if hub.now >= self.deadline {
            return Some(Progress::Failed(EffectErrorKind::TimedOut, "no answer in time"));
        }
        let Some(end) = self.end else { return broken("nobody is at that address") };
        if hub.is_refused(end) {
            return broken("nobody listens there");
        }
        if hub.is_dialling(end) {
            return None;
        }
        while !self.unsent.is_empty() {
            match hub.write(end, &self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    hub.end(end).into_iter().for_each(|end| end.wants_write = true);
                    break;
                }
                // An answer may have come before the rest was wanted.
                Err(_) => break,
            }
        }
        let mut buffer = [0; 4096];
        loop {
            let over = match hub.read(end, &mut buffer) {
                Ok((0, _)) => true,
                Ok((count, _)) => {
                    self.inbox.extend_from_slice(&buffer[..count]);
                    false
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => true,
            };
            match answer::read(&self.inbox, self.request.answer_max) {
                Ok(Some(answer)) => {
                    let whole = answer.length == self.inbox.len() && self.unsent.is_empty();
                    let reusable = answer.goes_on && whole && !over;
                    return Some(Progress::Answered { answer, reusable });
                }
                Ok(None) if over => return broken("the connection ended before the answer was whole"),
                Ok(None) => {}
                Err(why) => return Some(Progress::Failed(EffectErrorKind::BadAnswer, why)),
            }
        }
    }
}

/// The request as it stands on the wire.
fn written(request: &HttpRequest) -> Vec<u8> {
    let HttpRequest { method, to, path, bearer, handshake, body, .. } = request;
    let (method, authority, bearer) = (*method, to.authority(), bearer.expose());
    let mut text = format!("{} {path} HTTP/1.1\r\nhost: {authority}\r\n", method.as_str());
    text.push_str(&format!("authorization: Bearer {bearer}\r\naccept: application/json\r\n"));
    if let Some(handshake) = handshake {
        text.push_str(&format!("x-beach-handshake-id: {handshake}\r\n"));
    }
    if method == Method::Post {
        text.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.0.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&body.0);
    bytes
}
