//! What must hold of whatever a client says on a control socket, and of whatever it is
//! answered.
//!
//! The first byte says who is asked, the next two seed the cuts; the rest is the stream.

use std::collections::BTreeMap;
use std::time::Duration;

use castra_core::boundary::Via;
use castra_core::control::attach::{ActionAnswer, Actions, Adopted, Attachments, Released};
use castra_core::control::reply::{
    Empty, Envelope, ErrorBody, ErrorCode, Events, Gap, GuestOnly, GuestRestored, Inbox, Info, MessageResult,
    PeerChanged, PeersListed, Pong, TokenIssued, TokenListed, Waited,
};
use castra_core::control::request::{
    Command, EVENTS_LIMIT, INBOX_LIMIT, KINDS_MAX, LINE_MAX, NAMES_MAX, Rejected, Request,
};
use castra_core::event::Event;
use castra_core::id::RequestId;
use castra_core::status::BrokerStatus;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::scene::{Outcome, Pieces, agent, agent_config, bring, broker, broker_config};

const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Panics if something that must hold doesn't.
pub(crate) fn check(data: &[u8]) {
    let Some((&[who, high, low], stream)) = data.split_first_chunk::<3>() else { return };
    let lines: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    for line in lines.iter().take(64) {
        check_request(line);
        check_reply(line);
    }
    let seed = u16::from_be_bytes([high, low]);
    let whole = answers(who, stream, Pieces::Whole);
    check_answers(&lines, &whole.0);
    let dripped =
        answers(who, stream, if stream.len() < 1500 { Pieces::Bytes } else { Pieces::Seeded(!seed) });
    let cut = answers(who, stream, Pieces::Seeded(seed));
    check_answers(&lines, &dripped.0);
    check_answers(&lines, &cut.0);
    // Whether what follows is still served depends on whether it is here already.
    let stops = |line: &&[u8]| {
        Request::parse(line, TIMEOUT_MAX).is_ok_and(|request| request.command == Command::Shutdown)
    };
    if !lines.iter().any(stops) {
        same(&whole, &dripped, "byte by byte");
        same(&whole, &cut, "cut");
    }
}

/// Answers are told apart by their ids: which comes first may depend on what was here first.
fn same(whole: &(Vec<u8>, Outcome), other: &(Vec<u8>, Outcome), how: &str) {
    // What a follower hears of depends on what came to its end before it asked.
    let is_answer = |line: &&[u8]| line.starts_with(b"{\"id\"");
    let sorted = |sent: &[u8]| {
        let mut lines: Vec<String> = sent
            .split(|byte| *byte == b'\n')
            .filter(is_answer)
            .map(|line| line.escape_ascii().to_string())
            .collect();
        lines.sort();
        lines
    };
    for (one, other) in sorted(&whole.0).iter().zip(&sorted(&other.0)) {
        assert_eq!(one, other, "whole and {how}");
    }
    let answers = |sent: &[u8]| sent.split(|byte| *byte == b'\n').filter(is_answer).count();
    assert_eq!(answers(&whole.0), answers(&other.0), "whole and {how}");
    // So does which of two requests is carried out first.
    let asked = |outcome: &Outcome| {
        let mut asked = outcome.asked.clone();
        asked.sort();
        asked
    };
    assert_eq!(asked(&whole.1), asked(&other.1), "whole and {how}");
    let rest = |outcome: &Outcome| (outcome.sent.clone(), outcome.open.clone(), outcome.events.clone());
    assert_eq!(rest(&whole.1), rest(&other.1), "whole and {how}");
}

/// What the client got, and everything else that came of it.
fn answers(who: u8, stream: &[u8], pieces: Pieces) -> (Vec<u8>, Outcome) {
    let (conn, mut outcome) = if who.is_multiple_of(2) {
        let mut broker = broker(&broker_config());
        let brought = bring(&mut broker, Via::Control, stream, pieces);
        broker.finish();
        brought
    } else {
        let mut agent = agent(&agent_config("devbox"));
        let brought = bring(&mut agent, Via::Control, stream, pieces);
        agent.finish();
        brought
    };
    (outcome.sent.remove(&conn).unwrap_or_default(), outcome)
}

fn check_request(line: &[u8]) {
    let read = Request::parse(line, TIMEOUT_MAX);
    let padded = [b" \t", line, b" "].concat();
    // It says where what is wrong stands.
    let kind = |read: &Result<Request, Rejected>| match read {
        Ok(request) => Ok(request.clone()),
        Err(Rejected { id, error }) => Err((id.clone(), error.code)),
    };
    let again = Request::parse(&padded, TIMEOUT_MAX);
    assert_eq!(kind(&again), kind(&read), "white space changes nothing");
    match read {
        Ok(request) => check_command(&request),
        Err(Rejected { id, error }) => {
            let ErrorBody { code, message } = error;
            assert!(message.len() < 1500, "{} bytes of a message", message.len());
            assert!(message.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "rule 8: {message}");
            use ErrorCode::{InvalidRequest, TooLarge, UnknownMethod};
            assert!(matches!(code, InvalidRequest | TooLarge | UnknownMethod), "{code}");
            assert!(id.is_none_or(|id| fits(&id)));
        }
    }
}

fn fits(id: &RequestId) -> bool {
    if let RequestId::Text(text) = id { text.len() <= RequestId::MAX_TEXT } else { true }
}

fn check_command(request: &Request) {
    let Request { id, command, timeout } = request;
    assert!(id.as_ref().is_none_or(fits) && timeout.is_none_or(|timeout| timeout <= TIMEOUT_MAX));
    match command {
        Command::Wait { guests, .. } => assert!((1..=NAMES_MAX).contains(&guests.len())),
        Command::Status { guests } => assert!(guests.len() <= NAMES_MAX),
        Command::Events { kinds, guests, limit, .. } => {
            assert!(kinds.len() <= KINDS_MAX && guests.len() <= NAMES_MAX && *limit <= EVENTS_LIMIT);
        }
        Command::Inbox { limit, .. } => assert!(*limit <= INBOX_LIMIT),
        Command::ActionSend { kind, payload, .. } => {
            assert!(kind.bytes().all(|byte| byte.is_ascii_graphic()));
            let payload: Value = serde_json::from_str(payload).expect("a payload is JSON");
            assert!(payload.is_object());
        }
        _ => {}
    }
}

/// What a client reads of an answer, it reads again when that is written.
fn check_reply(line: &[u8]) {
    fn comes_back<D: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(line: &[u8]) {
        if let Ok(read) = serde_json::from_slice::<Envelope<D>>(line) {
            let written = serde_json::to_vec(&read).expect("it can be written");
            let again: Envelope<D> = serde_json::from_slice(&written).expect("it can be read again");
            assert_eq!(again, read);
        }
    }
    // One that fits anything would hide the others.
    comes_back::<ErrorBody>(line);
    comes_back::<BrokerStatus>(line);
    comes_back::<Info>(line);
    comes_back::<Waited>(line);
    comes_back::<Pong>(line);
    comes_back::<Events>(line);
    comes_back::<Event>(line);
    comes_back::<Gap>(line);
    comes_back::<TokenIssued>(line);
    comes_back::<GuestOnly>(line);
    comes_back::<TokenListed>(line);
    comes_back::<PeersListed>(line);
    comes_back::<PeerChanged>(line);
    comes_back::<MessageResult>(line);
    comes_back::<Inbox>(line);
    comes_back::<GuestRestored>(line);
    comes_back::<Empty>(line);
    comes_back::<Adopted>(line);
    comes_back::<Released>(line);
    comes_back::<Attachments>(line);
    comes_back::<ActionAnswer>(line);
    comes_back::<Actions>(line);
}

/// Every answer is a line of its own that a client can read, and every request has one (L4).
fn check_answers(lines: &[&[u8]], sent: &[u8]) {
    let mut owed = BTreeMap::<String, usize>::new();
    let mut is_plain = true;
    for line in lines {
        // What comes after these is not answered, or not by lines.
        is_plain &= line.len() < LINE_MAX;
        let id = match Request::parse(line, TIMEOUT_MAX) {
            Ok(Request { id, command, .. }) => {
                is_plain &= !matches!(command, Command::Terminals { .. } | Command::Shutdown);
                id
            }
            Err(Rejected { id, .. }) => id,
        };
        if let Some(id) = id {
            *owed.entry(serde_json::to_string(&id).expect("an id")).or_default() += 1;
        }
    }
    if !is_plain {
        return;
    }
    // The last line never ended: it was no request.
    if let Some(last) = lines.last()
        && let Some(id) = match Request::parse(last, TIMEOUT_MAX) {
            Ok(request) => request.id,
            Err(rejected) => rejected.id,
        }
    {
        *owed.entry(serde_json::to_string(&id).expect("an id")).or_default() -= 1;
    }
    for line in sent.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        check_reply(line);
        let read: Envelope<Value> = serde_json::from_slice(line).expect("an answer is a line of JSON");
        assert!(!read.event.is_empty() && !read.data.is_null());
        if let Some(id) = read.id {
            let id = serde_json::to_string(&id).expect("an id");
            let left = owed.get_mut(&id).filter(|left| **left > 0);
            *left.unwrap_or_else(|| panic!("L4: one answer too many for {id}")) -= 1;
        }
    }
    owed.retain(|_, left| *left > 0);
    assert!(owed.is_empty(), "L4: never answered: {owed:?}");
}
