//! Where these checks meet the others: frames on links.

use castra_core::attach::wire::{AttachRequest, Handshake};
use castra_core::attach::{AttachId, ManagerUrl, Secret};
use castra_core::id::ConnId;

use super::{Checked, Managing};
use crate::net::NodeId;
use crate::witness::Witness;

/// A handshake that was sent to a process.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) handshake: AttachId,
    pub(super) session: AttachId,
    pub(super) code: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) url: Option<ManagerUrl>,
}

impl Witness {
    /// Asks those checks that are about managed attach, in worlds that have it.
    pub(crate) fn of_attach(&mut self, check: impl FnOnce(&mut Managing) -> Checked) {
        let now = self.now.boot;
        if let Some(attach) = &mut self.attach {
            attach.at(now);
            if let Err((promise, text)) = check(attach) {
                self.blame(promise, None, text);
            }
        }
    }

    /// The broker says something on a connection.
    pub(in crate::witness) fn said_of_attach(&mut self, conn: ConnId, bytes: &[u8]) {
        if self.attach.is_none() || find(bytes, TYPE).is_none() {
            return;
        }
        let Some(node) = self.owner_of(conn).map(|owner| owner.node) else { return };
        for json in frames(bytes, HANDSHAKE) {
            if let Ok(handshake) = first::<Handshake>(json) {
                self.of_attach(|attach| attach.hands(node, &handshake));
            }
        }
        for json in frames(bytes, SETTLED) {
            if let Ok(Named { id }) = first(json) {
                self.of_attach(|attach| attach.settles(&id));
            }
        }
    }

    /// An agent says something.
    pub(in crate::witness) fn answered_about_attach(&mut self, node: NodeId, bytes: &[u8]) {
        if self.attach.is_none() {
            return;
        }
        for json in frames(bytes, ACK).chain(frames(bytes, ATTACH)) {
            if let Ok(request) = first::<AttachRequest>(json) {
                self.of_attach(|attach| attach.agent_sends(node, &request));
            }
        }
    }
}

impl Managing {
    /// The broker sends a handshake.
    fn hands(&mut self, node: NodeId, handshake: &Handshake) -> Checked {
        let id = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<AttachId>().ok());
        let (Some(name), Some(session)) = (id(&handshake.handshake_id), id(&handshake.session_id)) else {
            return Err(("A3", "the broker sends a handshake without a name".to_owned()));
        };
        // Durable before it leaves; it may be gone again.
        let durable = self.handshakes.get(&name).zip(handshake.controller_token.as_ref());
        let durable = durable.is_some_and(|(token, said)| token == said);
        let block = handshake.controller_auto_attach.as_ref();
        let url = block.and_then(|block| block.manager_url.as_ref()).and_then(|url| url.parse().ok());
        let code = block.and_then(|block| block.attach_code.clone());
        let token = handshake.controller_token.clone();
        let handed = Handed { handshake: name.clone(), session, code, token, url };
        self.handed.entry(node).or_default().push(handed);
        if durable { Ok(()) } else { Err(("A3", format!("handshake {name} is sent, and is not durable"))) }
    }

    fn agent_sends(&mut self, node: NodeId, request: &AttachRequest) -> Checked {
        match request {
            AttachRequest::Ack { id, status, .. } => self.acknowledges(id, *status),
            AttachRequest::Attach { session_id, code, handshake_id } => {
                let Some(agent) = self.agents.get(&node) else { return Ok(()) };
                let handed = self.handed.get(&node).into_iter().flatten();
                let mut same = handed.filter(|handed| {
                    handed.handshake == *handshake_id
                        && handed.session == *session_id
                        && handed.code.as_ref() == Some(code)
                        && handed.url == Some(ManagerUrl::Link)
                });
                let guest = agent.guest;
                if same.next().is_none() {
                    let text =
                        format!("{guest} attaches over its link by {handshake_id}, which it was not sent so");
                    return Err(("A3", text));
                }
                if !agent.trusting {
                    return Err((
                        "A4",
                        format!("{guest} attaches by {handshake_id}, which it may not trust"),
                    ));
                }
                if agent.asking.iter().any(|asking| asking.attaches) {
                    return Err(("A1", format!("{guest} attaches over its link, and asks over HTTP, too")));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[derive(serde::Deserialize)]
struct Named {
    id: AttachId,
}

const TYPE: &[u8] = b"{\"type\":\"";
const HANDSHAKE: &[u8] = b"{\"type\":\"manager_handshake\"";
const SETTLED: &[u8] = b"{\"type\":\"action_settled\"";
const ACK: &[u8] = b"{\"type\":\"action_ack\"";
const ATTACH: &[u8] = b"{\"type\":\"attach\"";

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Where frames of a kind begin.
fn frames<'a>(bytes: &'a [u8], kind: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let at = find(rest, kind)?;
        let json = &rest[at..];
        rest = &json[kind.len()..];
        Some(json)
    })
}

/// The first value of some text.
fn first<'a, T: serde::Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(json))
}
