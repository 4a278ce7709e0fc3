//! What agents ask over HTTP: of whom, by what right.

use castra_core::attach::{ActionStatus, AttachId, HttpRequest, ManagerUrl, Origin, Secret};
use castra_driver::work::JobId;
use serde::Deserialize;

use super::frames::Handed;
use super::{Checked, Managing, Watched};
use crate::net::NodeId;
use crate::outcome::count;

/// A request under way.
#[derive(Debug)]
pub(crate) struct Asking {
    job: JobId,
    pub(super) attaches: bool,
    /// Actions that it acknowledges.
    acks: Vec<AttachId>,
}

#[derive(Deserialize)]
struct Attempt {
    session_id: AttachId,
    code: Secret,
}

#[derive(Deserialize)]
struct Ack {
    id: AttachId,
    status: ActionStatus,
}

impl Managing {
    /// An agent asks.
    pub(crate) fn asks(&mut self, node: NodeId, job: JobId, request: &HttpRequest) -> Checked {
        let Some(agent) = self.agents.get_mut(&node) else { return Ok(()) };
        let guest = agent.guest;
        let handed = self.handed.get(&node).map_or(&[][..], Vec::as_slice);
        let attaches = request.path.ends_with("/sessions/attach-by-code");
        let mut asking = Asking { job, attaches, acks: Vec::new() };
        let double = attaches && agent.asking.iter().any(|asking| asking.attaches);
        let right = by_what_right(agent, handed, request);
        if attaches {
            count(&mut self.counts, "http_attach");
        } else {
            let session = request.path.strip_prefix("/sessions/").and_then(|rest| rest.split('/').next());
            let attached = agent.attached.as_ref().map(AttachId::as_str);
            if session != attached {
                let path = &request.path;
                return Err(("A3", format!("{guest} asks for {path}, and is attached to {attached:?}")));
            }
        }
        let mut acknowledged = Vec::new();
        if request.path.ends_with("/actions/ack") {
            count(&mut self.counts, "http_ack");
            acknowledged = serde_json::from_slice::<Vec<Ack>>(&request.body.0).unwrap_or_default();
            asking.acks = acknowledged.iter().map(|ack| ack.id.clone()).collect();
        } else if request.path.ends_with("/actions/poll") {
            count(&mut self.counts, "http_poll");
        } else if request.path.ends_with("/lease") {
            count(&mut self.counts, "http_lease");
        }
        agent.asking.push(asking);
        right?;
        if double {
            return Err(("A1", format!("{guest} has two attempts in flight")));
        }
        acknowledged.iter().try_for_each(|ack| self.acknowledges(&ack.id, ack.status))
    }

    /// A request came to nothing.
    pub(crate) fn has_no_answer(&mut self, node: NodeId, job: JobId) -> Checked {
        count(&mut self.counts, "http_no_answer");
        self.ends_asking(node, job);
        Ok(())
    }

    fn ends_asking(&mut self, node: NodeId, job: JobId) -> Option<Asking> {
        let agent = self.agents.get_mut(&node)?;
        let at = agent.asking.iter().position(|asking| asking.job == job)?;
        Some(agent.asking.swap_remove(at))
    }

    /// A request was answered.
    pub(crate) fn is_answered(
        &mut self,
        node: NodeId,
        job: JobId,
        status: u16,
        retry_after: Option<core::time::Duration>,
    ) -> Checked {
        let word = match status {
            200..=299 => "http_2xx",
            400 => "http_400",
            401 => "http_401",
            404 => "http_404",
            409 => "http_409",
            429 => "http_429",
            500..=599 => "http_5xx",
            _ => "http_other",
        };
        count(&mut self.counts, word);
        let Some(asking) = self.ends_asking(node, job) else { return Ok(()) };
        if let Some(series) = self.agents.get_mut(&node).and_then(|agent| agent.series.as_mut())
            && asking.attaches
        {
            series.retry_after = retry_after;
        }
        if status == 200 {
            return asking.acks.iter().try_for_each(|id| self.settles(id));
        }
        Ok(())
    }
}

/// A3 and A4: whether the agent may say this to that manager.
fn by_what_right(agent: &Watched, handed: &[Handed], request: &HttpRequest) -> Checked {
    let guest = agent.guest;
    let to = |url: &ManagerUrl| url.origin() == Some(&request.to);
    let attempt = serde_json::from_slice::<Attempt>(&request.body.0).ok();
    let code_of = |code: Option<&Secret>| attempt.as_ref().is_none_or(|attempt| Some(&attempt.code) == code);
    if let Some(hint) = agent.hint.as_ref().filter(|hint| hint.token == request.bearer)
        && to(&hint.manager)
        && code_of(Some(&hint.code))
    {
        return Ok(());
    }
    let mut rights = handed
        .iter()
        .filter(|handed| {
            handed.token.as_ref() == Some(&request.bearer) && handed.url.as_ref().is_some_and(to)
        })
        .peekable();
    let Some(by) = rights.peek() else {
        return Err(("A4", format!("{guest} sends {} a token that is not for it", shown(&request.to))));
    };
    if !agent.trusting {
        return Err(("A4", format!("{guest} asks by {}, which it may not trust", by.handshake)));
    }
    let Some(attempt) = attempt else { return Ok(()) };
    // A refresh has the same token: perhaps it is still on its way.
    let says_so = |by: &Handed| {
        by.code.as_ref() == Some(&attempt.code)
            && by.session == attempt.session_id
            && request.handshake.as_ref() == Some(&by.handshake)
    };
    if !rights.any(says_so) {
        return Err(("A3", format!("{guest} attaches, and no handshake that it was sent says so")));
    }
    Ok(())
}

fn shown(origin: &Origin) -> String {
    origin.authority()
}
