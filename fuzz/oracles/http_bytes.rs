//! What must hold of whatever an HTTP client says to the manager, and of whatever a
//! manager answers an agent.
//!
//! The first byte says who is spoken to, the next two seed the cuts or choose the answer;
//! the rest is the stream, or the answer's body.

use std::time::Duration;

use castra_core::Agent;
use castra_core::Input;
use castra_core::attach::wire::{AttachRequest, ManagerFrame};
use castra_core::attach::{HttpAnswer, ManagerUrl};
use castra_core::boundary::{Effect, Via};
use castra_core::id::EffectId;
use serde_json::Value;

use super::host::Host;
use super::scene::{CODE, Outcome, Pieces, TOKEN, agent, bring, broker, broker_config, hinted_config};

const ATTACHED: &str =
    r#"{"ok":true,"attach_method":"code","session":{"session_id":"sess-1","private_beach_id":"beach-1"}}"#;
const POLLED: &str = r#"[{"id":"act-1","action_type":"terminal_write","payload":{"bytes":"ls\n"}}]"#;

/// Panics if something that must hold doesn't.
pub(crate) fn check(data: &[u8]) {
    let Some((&[who, high, low], stream)) = data.split_first_chunk::<3>() else { return };
    if who.is_multiple_of(2) {
        check_manager(u16::from_be_bytes([high, low]), stream);
    } else {
        check_agent(who / 2, high, low, stream);
    }
}

fn check_manager(seed: u16, stream: &[u8]) {
    let talk = |pieces| {
        let mut broker = broker(&broker_config());
        let (conn, mut outcome) = bring(&mut broker, Via::Manager, stream, pieces);
        broker.finish();
        (outcome.sent.remove(&conn).unwrap_or_default(), outcome)
    };
    let [whole, dripped, cut] = [Pieces::Whole, Pieces::Bytes, Pieces::Seeded(seed)].map(talk);
    assert_eq!(whole, dripped, "whole and byte by byte");
    assert_eq!(whole, cut, "whole and cut");
    let (sent, outcome): (Vec<u8>, Outcome) = whole;
    assert_eq!(outcome.open, [], "whoever ends its direction is let go");
    let mut rest = &sent[..];
    while !rest.is_empty() {
        rest = check_response(rest);
    }
}

/// One answer, whole; what follows it.
fn check_response(sent: &[u8]) -> &[u8] {
    let end = sent.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
    let (head, rest) = sent.split_at(end);
    let head = str::from_utf8(head).expect("a head is text");
    let mut lines = head.split("\r\n");
    let status: u16 = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line[..3].parse().ok())
        .expect("a status");
    assert!([200, 400, 401, 403, 404, 405, 408, 409, 413, 417, 421, 431, 501, 503].contains(&status));
    let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name));
    let length: usize = field("Content-Length: ").expect("a length").parse().expect("a number");
    let body: Value = serde_json::from_slice(&rest[..length]).expect("a body is JSON");
    if status != 200 {
        assert!(body["error"].is_string() && body["message"].is_string(), "{body}");
    }
    let last = field("Connection: close").is_some();
    assert!(!last || rest.len() == length, "nothing follows the last answer");
    &rest[length..]
}

/// An agent in the middle of attaching, polling, acknowledging or renewing gets an answer.
fn check_agent(scene: u8, status: u8, after: u8, body: &[u8]) {
    check_frames(body);
    let mut agent = agent(&hinted_config());
    let well = |agent: &mut Host<Agent>, path: &str, body: &str| {
        if let Some(effect) = http(agent, path) {
            answer(agent, effect, 200, None, body.as_bytes());
        }
    };
    // What is to be answered by the input.
    let path = match scene % 4 {
        0 => "attach-by-code",
        1 => "poll",
        2 => "ack",
        _ => "lease",
    };
    if !scene.is_multiple_of(4) {
        well(&mut agent, "attach-by-code", ATTACHED);
    }
    if scene % 4 > 1 {
        well(&mut agent, "poll", POLLED);
    }
    const STATUSES: [u16; 12] = [200, 204, 400, 401, 404, 409, 410, 429, 500, 503, 302, 999];
    let status = STATUSES[usize::from(status) % STATUSES.len()];
    let after = (after > 0).then(|| Duration::from_secs(1 << (after % 64)));
    for _ in 0..60 {
        if let Some(effect) = http(&agent, path) {
            answer(&mut agent, effect, status, after, body);
            break;
        }
        let open = agent.effects.front().map(|(effect, what)| (*effect, matches!(what, Effect::Http(_))));
        match open {
            Some((effect, false)) => agent.done(effect, true),
            _ => agent.live(Duration::from_millis(500)),
        }
    }
    // A minute in which everything else goes well.
    for _ in 0..120 {
        let next = agent.effects.front().map(|(effect, what)| (*effect, matches!(what, Effect::Http(_))));
        match next {
            Some((effect, true)) => answer(&mut agent, effect, 200, None, ATTACHED.as_bytes()),
            Some((effect, false)) => agent.done(effect, true),
            None => agent.live(Duration::from_millis(500)),
        }
    }
    agent.finish();
    let said = |secret: &str| body.windows(secret.len()).any(|part| part == secret.as_bytes());
    for secret in [TOKEN, CODE].into_iter().filter(|secret| !said(secret)) {
        let shown = agent.events.iter().chain(&agent.asked).any(|text| text.contains(secret));
        assert!(!shown, "a secret is shown");
    }
}

fn http(agent: &Host<Agent>, path: &str) -> Option<EffectId> {
    agent.effects.iter().find_map(|(id, effect)| match effect {
        Effect::Http(request) if request.path.ends_with(path) => Some(*id),
        _ => None,
    })
}

fn answer(
    agent: &mut Host<Agent>,
    effect: EffectId,
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
) {
    agent.give(Input::Answered { effect, answer: HttpAnswer { status, retry_after, body } });
}

/// The same body as a frame on the link, and as an address.
fn check_frames(body: &[u8]) {
    for kind in [
        "manager_handshake",
        "manager_detach",
        "attached",
        "attach_refused",
        "action",
        "action_settled",
        "lease",
    ] {
        if let Ok(Some(frame)) = ManagerFrame::parse(kind, body)
            && !matches!(frame, ManagerFrame::Malformed)
        {
            let written = serde_json::to_vec(&frame).expect("it can be written");
            let again = ManagerFrame::parse(kind, &written).expect("it can be read again");
            assert_eq!(serde_json::to_vec(&again).expect("it can be written"), written);
        }
    }
    if let Ok(request) = serde_json::from_slice::<AttachRequest>(body) {
        let written = serde_json::to_vec(&request).expect("it can be written");
        let again: AttachRequest = serde_json::from_slice(&written).expect("it can be read again");
        assert_eq!(again, request);
    }
    if let Some(url) = str::from_utf8(body).ok().and_then(|text| text.parse::<ManagerUrl>().ok()) {
        let shown = url.to_string();
        assert!(shown.len() <= ManagerUrl::MAX + "https://".len() + ":65535".len());
        assert_eq!(shown.parse(), Ok(url), "an address has one form");
    }
}
