//! A manager that is not this broker: it answers those who were configured to ask it,
//! as it should, late, or not at all.

use std::time::Duration;

use castra_core::time::Time;

use crate::choice::Choice;
use crate::net::{Door, EndId, Hub, NodeId};

/// The other manager.
#[derive(Debug)]
pub(crate) struct StandIn {
    door: Door,
    /// Once in so many answers it does not answer as it should; 0: never.
    odd: u32,
    callers: Vec<Caller>,
}

#[derive(Debug)]
struct Caller {
    end: EndId,
    inbox: Vec<u8>,
    unsent: Vec<u8>,
    /// When it says what.
    due: Option<(Time, Vec<u8>)>,
    /// It is left without an answer.
    left: bool,
}

impl StandIn {
    pub(crate) fn new(door: Door, odd: u32) -> Self {
        Self { door, odd, callers: Vec::new() }
    }

    /// Does what is to be done now; says when to come back.
    pub(crate) fn turn(&mut self, hub: &mut Hub, node: NodeId) -> Option<Time> {
        let queue = hub.nodes[node].doors.iter_mut().find(|(door, _)| *door == self.door);
        for end in queue.into_iter().flat_map(|(_, queue)| queue.drain(..)) {
            let (inbox, unsent) = (Vec::new(), Vec::new());
            self.callers.push(Caller { end, inbox, unsent, due: None, left: false });
        }
        let odd = self.odd;
        self.callers.retain_mut(|caller| {
            let stays = caller.turn(hub, odd);
            if !stays {
                hub.close(caller.end);
            }
            stays
        });
        self.callers.iter().filter_map(|caller| caller.due.as_ref().map(|(at, _)| *at)).min()
    }
}

impl Caller {
    /// False: it is gone.
    fn turn(&mut self, hub: &mut Hub, odd: u32) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match hub.read(self.end, &mut buffer) {
                Ok((0, _)) => return false,
                Ok((count, _)) => self.inbox.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if self.due.is_none() && !self.left && self.unsent.is_empty() {
            self.hear(hub, odd);
        }
        if let Some((_, answer)) = self.due.take_if(|(at, _)| *at <= hub.now) {
            self.unsent = answer;
        }
        while !self.unsent.is_empty() {
            match hub.write(self.end, &self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    hub.end(self.end).into_iter().for_each(|end| end.wants_write = true);
                    break;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// A request, if a whole one is there.
    fn hear(&mut self, hub: &mut Hub, odd: u32) {
        let Some(end) = self.inbox.windows(4).position(|window| window == b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&self.inbox[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length = length.and_then(|digits| digits.parse::<usize>().ok()).unwrap_or(0);
        if self.inbox.len() < end + 4 + length {
            return;
        }
        self.inbox.drain(..end + 4 + length);
        let (waits, body) = match head.split(' ').nth(1).unwrap_or_default() {
            path if path.ends_with("/attach-by-code") => (0, "{\"ok\":true,\"attach_method\":\"code\"}"),
            path if path.ends_with("/lease") => (0, "{\"lease_ttl_ms\":30000}"),
            path if path.ends_with("/poll") => (2000, "[]"),
            _ => (0, "{\"acknowledged\":true}"),
        };
        let answer = if hub.chooser.0.once_in(odd) { odd_answer(hub) } else { Some(answer(200, "", body)) };
        match answer {
            Some(answer) => self.due = Some((hub.now + Duration::from_millis(waits), answer)),
            None => self.left = true,
        }
    }
}

fn answer(status: u16, header: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} x\r\n{header}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Something else than it should be; `None`: nothing at all.
fn odd_answer(hub: &mut Hub) -> Option<Vec<u8>> {
    match hub.chooser.0.below(9) {
        0 => Some(answer(500, "", "{}")),
        1 => Some(answer(429, "Retry-After: 3\r\n", "{}")),
        2 => Some(answer(503, "Retry-After: 100\r\n", "")),
        3 => Some(answer(200, "", "{\"ok\":false}")),
        4 => Some(answer(200, "", &"x".repeat(70_000))),
        5 => Some(b"220 this is no HTTP\r\n\r\n".to_vec()),
        6 => Some(answer(401, "", "{}")),
        7 => Some(answer(302, "Location: http://elsewhere.test/\r\n", "")),
        _ => None,
    }
}
