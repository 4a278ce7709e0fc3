//! What can be said on a connection: nearly right, so that it gets somewhere.

use castra_core::boundary::Via;

use super::choices::Choices;

const NAMES: [&str; 6] = ["devbox", "keyed", "seen", "ghost", "raw", "revoked"];

/// `A` and `B` stand for names, `N` for a number, `T` for a time in milliseconds.
const CONTROL: [&str; 32] = [
    r#"{"id":N,"method":"status"}"#,
    r#"{"id":N,"method":"status","params":{"guests":["A"]}}"#,
    r#"{"id":N,"method":"wait","params":{"guests":["A","B"],"for":"reachable","timeout_ms":T}}"#,
    r#"{"id":N,"method":"wait","params":{"guests":["A"],"for":"waiting","any":true,"timeout_ms":T}}"#,
    r#"{"id":N,"method":"ping","params":{"guest":"A","timeout_ms":T}}"#,
    r#"{"id":N,"method":"events","params":{"follow":true}}"#,
    r#"{"id":N,"method":"events","params":{"since":"7-N","kinds":["link.*","peer.*"],"guests":["A"],"limit":N}}"#,
    r#"{"id":N,"method":"token_issue","params":{"guest":"A"}}"#,
    r#"{"id":N,"method":"token_revoke","params":{"guest":"A"}}"#,
    r#"{"id":N,"method":"token_list"}"#,
    r#"{"id":N,"method":"forget","params":{"guest":"A"}}"#,
    r#"{"id":N,"method":"list_peers","params":{"name":"A"}}"#,
    r#"{"id":N,"method":"list_peers"}"#,
    r#"{"id":N,"method":"register_peer","params":{"source":"A","name":"B","timeout_ms":T}}"#,
    r#"{"id":N,"method":"register_peer","params":{"name":"B"}}"#,
    r#"{"id":N,"method":"unregister_peer","params":{"source":"A","name":"B"}}"#,
    r#"{"id":N,"method":"send_to_peer","params":{"from":"A","to":"B","text":"hi","key":"k","timeout_ms":T}}"#,
    r#"{"id":N,"method":"send_to_peer","params":{"to":"B","text":"hi","queue":false}}"#,
    r#"{"id":N,"method":"inbox","params":{"name":"A","follow":true,"limit":N}}"#,
    r#"{"id":N,"method":"inbox","params":{"follow":true}}"#,
    r#"{"id":N,"method":"terminals","params":{"guest":"A","timeout_ms":T}}"#,
    r#"{"id":N,"method":"terminals"}"#,
    r#"{"id":N,"method":"restore","params":{"guest":"A","timeout_ms":T}}"#,
    r#"{"id":N,"method":"peer_answer","params":{"name":"A","accept":true}}"#,
    r#"{"id":N,"method":"hold"}"#,
    r#"{"id":N,"method":"resume"}"#,
    r#"{"id":N,"method":"adopt","params":{"guest":"A","link":true,"timeout_ms":T}}"#,
    r#"{"id":N,"method":"adopt","params":{"guest":"A","wait":false}}"#,
    r#"{"id":N,"method":"release","params":{"guest":"A"}}"#,
    r#"{"id":N,"method":"attachments","params":{"wait":true,"timeout_ms":T}}"#,
    r#"{"id":N,"method":"action_send","params":{"guest":"A","action_type":"terminal_write","payload":{"bytes":"x"},"ttl_ms":T}}"#,
    r#"{"id":N,"method":"reload"}"#,
];

/// Of a guest, then of a broker. The first of each are lines.
const LINK: [&str; 46] = [
    "hello vm:A capabilities=proof-v1\n",
    "hello vm:A capabilities=proof-v1,attach-v1,terminals-v1,peers-v1\n",
    "hello vm:A capabilities=proof-v1 once\n",
    "hello vm:A\n",
    "hello vm:A capabilities=proof-v1 nonce=00000000000000000000000000000001 boot=01010101010101010101010101010101\n",
    "\u{ff}\n",
    "proof 00000000000000000000000000000001\n",
    "castra-broker 0.1 ready\n",
    "challenge abababababababababababababababab epoch=N auth=none\n",
    "challenge abababababababababababababababab epoch=N auth=hmac-sha256\n",
    "ok session=sess-7-N epoch=N interval_ms=5000 window_ms=15000\n",
    "error busy\n",
    "error name_in_use\n",
    r#"{"type":"proof","seq":N,"proof":"abababababababababababababababab"}"#,
    r#"{"type":"goodbye"}"#,
    r#"{"type":"ping","id":N}"#,
    r#"{"type":"pong","id":N}"#,
    r#"{"type":"heartbeat"}"#,
    r#"{"type":"subscribe","topic":"broadcast"}"#,
    r#"{"type":"publish","topic":"broadcast","payload":{"x":N}}"#,
    r#"{"type":"status","id":N,"guests":["A"]}"#,
    r#"{"type":"wait","id":N,"guests":["A"],"for":"reachable","timeout_ms":T}"#,
    r#"{"type":"ping_guest","id":N,"guests":["A"]}"#,
    r#"{"type":"peer_policy","policy":"allow"}"#,
    r#"{"type":"peer_policy","policy":"deny","hold":true}"#,
    r#"{"type":"peer_register","id":N,"name":"A","timeout_ms":T}"#,
    r#"{"type":"peer_unregister","id":N,"name":"A"}"#,
    r#"{"type":"peer_list","id":N}"#,
    r#"{"type":"peer_send","id":N,"to":"A","text":"hi","timeout_ms":T}"#,
    r#"{"type":"peer_answer","id":N,"accept":true}"#,
    r#"{"type":"peer_ack","id":"abababababababababababababababab"}"#,
    r#"{"type":"attached","session_id":"sess-1"}"#,
    r#"{"type":"attach","session_id":"sess-1","code":"CODE-42","handshake_id":"hand-1"}"#,
    r#"{"type":"action_ack","id":"act-1","status":"ok"}"#,
    r#"{"type":"lease_renew","session_id":"sess-1"}"#,
    r#"{"type":"term_opened","stream":N,"window":4096}"#,
    r#"{"type":"term","stream":N,"data":"aGVsbG8="}"#,
    r#"{"type":"term_close","stream":N,"reason":"finished"}"#,
    r#"{"type":"challenge","seq":N,"nonce":"abababababababababababababababab"}"#,
    r#"{"type":"bye","code":"shutdown","retry_after_ms":T}"#,
    r#"{"type":"peer_offer","id":N,"from":"A","from_authenticated":true}"#,
    r#"{"type":"peer_message","id":"abababababababababababababababaN","from":"A","from_authenticated":true,"text":"x","sent_at":"2026-11-20T18:04:17.000Z","wake":true}"#,
    r#"{"type":"manager_handshake","schema":1,"handshake_id":"hand-N","handshake_kind":"renegotiate","session_id":"sess-N","private_beach_id":"beach-1","manager_url":"link:","controller_token":"TOKEN-0123456789","lease_ttl_ms":30000,"controller_auto_attach":{"private_beach_id":"beach-1","attach_code":"CODE-42","manager_url":"link:","ttl_ms":T}}"#,
    r#"{"type":"attached","session_id":"sess-N","ok":true,"attach_method":"code"}"#,
    r#"{"type":"action","id":"act-N","action_type":"terminal_write","payload":{"bytes":"ls\n"},"ttl_ms":T}"#,
    r#"{"type":"term_open","stream":N,"window":4096}"#,
];

const HTTP: [&str; 6] = [
    "GET /sessions/sess-1/actions/poll HTTP/1.1\r\nHost: 10.0.2.2:7171\r\nAuthorization: Bearer TOKEN-0123456789\r\n\r\n",
    "POST /sessions/sess-1/lease HTTP/1.1\r\nHost: 10.0.2.2:7171\r\nAuthorization: Bearer TOKEN-0123456789\r\n\r\n",
    "POST /private-beaches/beach-1/sessions/attach-by-code HTTP/1.1\r\nHost: 10.0.2.2:7171\r\nAuthorization: Bearer TOKEN-0123456789\r\nx-beach-handshake-id: hand-1\r\nContent-Length: 40\r\n\r\n{\"session_id\":\"sess-1\",\"code\":\"CODE-42\"}",
    "POST /sessions/sess-1/actions/ack HTTP/1.1\r\nHost: 10.0.2.2:7171\r\nAuthorization: Bearer TOKEN-0123456789\r\nContent-Length: 31\r\n\r\n[{\"id\":\"act-1\",\"status\":\"ok\"}]\n",
    "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
    "GET /sessions/sess-1/actions/poll HTTP/1.1\r\nHo",
];

/// Bodies of answers over HTTP; empty: bytes of the input.
pub(crate) const ANSWERS: [&str; 6] = [
    "",
    r#"{"ok":true,"attach_method":"code","session":{"session_id":"sess-1","private_beach_id":"beach-1"}}"#,
    "[]",
    r#"[{"id":"act-1","action_type":"terminal_write","payload":{"bytes":"ls\n"}},{"id":"act-2","action_type":"x","payload":{}}]"#,
    r#"{"lease_expires_at_ms":0,"lease_ttl_ms":30000}"#,
    r#"{"error":"conflict","message":"m","error_code":"missing_lease"}"#,
];

/// Something for a connection of this kind.
pub(crate) fn phrase(via: Option<Via>, choices: &mut Choices<'_>) -> Vec<u8> {
    let (number, one, other) = (choices.byte(), choices.byte(), choices.byte());
    let place = |count: usize| usize::from(number) % count;
    match via {
        Some(Via::Link(_)) => {
            let text = LINK[place(LINK.len())];
            // A byte that no text has asks for another handshake on a serial stream.
            if text == "\u{ff}\n" {
                return b"\xff\n".to_vec();
            }
            let said = filled(text, one, other);
            if said.ends_with(b"\n") {
                return said;
            }
            [&(said.len() as u32).to_be_bytes()[..], &said].concat()
        }
        Some(Via::Manager) => HTTP[place(HTTP.len())].into(),
        _ => [&filled(CONTROL[place(CONTROL.len())], one, other)[..], b"\n"].concat(),
    }
}

fn filled(text: &str, one: u8, other: u8) -> Vec<u8> {
    let name = |byte: u8| NAMES[usize::from(byte) % NAMES.len()];
    let mut said = Vec::with_capacity(text.len() + 32);
    let bytes = text.as_bytes();
    for (place, byte) in bytes.iter().enumerate() {
        let around =
            [place.wrapping_sub(1), place + 1].map(|place| bytes.get(place).copied().unwrap_or(b' '));
        let alone = around.iter().all(|byte| !byte.is_ascii_uppercase());
        match byte {
            b'A' if alone => said.extend_from_slice(name(one).as_bytes()),
            b'B' if alone => said.extend_from_slice(name(other).as_bytes()),
            b'N' if alone => said.extend_from_slice((other % 8).to_string().as_bytes()),
            b'T' if alone => said.extend_from_slice((u32::from(other) * 100).to_string().as_bytes()),
            _ => said.push(*byte),
        }
    }
    said
}

/// The answer to the newest challenge on a link, if there is one; what was sent is taken.
pub(crate) fn proof(sent: &mut Vec<u8>) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(sent).into_owned();
    if let Some((_, rest)) = text.rsplit_once(r#"{"type":"challenge","seq":"#) {
        let (seq, rest) = rest.split_once(r#","nonce":""#)?;
        let json = format!(r#"{{"type":"proof","seq":{seq},"proof":"{}"}}"#, rest.get(..32)?);
        sent.clear();
        return Some([&(json.len() as u32).to_be_bytes()[..], json.as_bytes()].concat());
    }
    let (_, rest) = text.rsplit_once("challenge ")?;
    let line = format!("proof {}\n", rest.get(..32)?);
    sent.clear();
    Some(line.into_bytes())
}
