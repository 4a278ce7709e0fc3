//! Requests of the control protocol, and events in both of their forms.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use castra_core::boundary::{Remote, Transport};
use castra_core::capabilities::Capabilities;
use castra_core::control::reply::{ErrorCode, Target};
use castra_core::control::request::{Command, EVENTS_LIMIT, Request};
use castra_core::event::{
    CODE_MAX, Cursor, EVENT_BYTES_MAX, Escaped, Event, Fact, Failure, LinkEnd, MESSAGE_MAX, SessionEnd,
    Storage, TerminalFact, shortened,
};
use castra_core::id::{Epoch, RequestId, TerminalId};
use castra_core::status::{Reason, State};
use castra_core::time::WallTime;
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn parse(line: &str) -> Request {
    Request::parse(line.as_bytes(), DAY).unwrap()
}

#[test]
fn every_method_is_read_with_its_parameters() {
    let guest = "devbox".parse().unwrap();
    let guests = vec![guest, "b".parse().unwrap()];
    let since = Some(Cursor { incarnation: 7, number: 1042 });
    for (method, params, command) in [
        ("info", "null", Command::Info),
        ("status", "{}", Command::Status { guests: vec![] }),
        ("status", r#"{"guests":["devbox","b"]}"#, Command::Status { guests: guests.clone() }),
        (
            "wait",
            r#"{"guests":["devbox","b"],"for":"waiting","any":true}"#,
            Command::Wait { guests: guests.clone(), target: Target::Waiting, any: true },
        ),
        ("ping", r#"{"guest":"devbox"}"#, Command::Ping { guest }),
        (
            "events",
            "{}",
            Command::Events {
                since: None,
                follow: false,
                kinds: vec![],
                guests: vec![],
                limit: EVENTS_LIMIT,
            },
        ),
        (
            "events",
            r#"{"since":"7-1042","follow":true,"kinds":["link.*"],"guests":["devbox","b"],"limit":3}"#,
            Command::Events { since, follow: true, kinds: vec!["link.*".into()], guests, limit: 3 },
        ),
        ("token_issue", r#"{"guest":"devbox"}"#, Command::TokenIssue { guest }),
        ("token_revoke", r#"{"guest":"devbox"}"#, Command::TokenRevoke { guest }),
        ("token_list", "{}", Command::TokenList),
        ("forget", r#"{"guest":"devbox"}"#, Command::Forget { guest }),
        ("reload", "{}", Command::Reload),
        ("shutdown", "{}", Command::Shutdown),
    ] {
        let request = parse(&format!(r#"{{"id":1,"method":"{method}","params":{params},"later":true}}"#));
        assert_eq!(request, Request { id: Some(RequestId::Number(1)), command, timeout: None });
    }
}

#[test]
fn ids_and_timeouts_are_read_within_their_bounds() {
    assert_eq!(parse(r#"{"method":"info"}"#).id, None);
    let longest = "i".repeat(128);
    assert_eq!(parse(&format!(r#"{{"id":"{longest}","method":"info"}}"#)).id, Some(RequestId::Text(longest)));
    assert_eq!(parse(r#"{"method":"info","params":{"timeout_ms":86400000}}"#).timeout, Some(DAY));
    let over =
        Request::parse(br#"{"id":5,"method":"info","params":{"timeout_ms":86400001}}"#, DAY).unwrap_err();
    assert_eq!((over.id, over.error.code), (Some(RequestId::Number(5)), ErrorCode::InvalidRequest));
}

#[test]
fn a_request_names_4096_guests_and_64_kinds_and_no_more() {
    for (key, most) in [("guests", 4096), ("kinds", 64)] {
        for (count, fine) in [(1, true), (most, true), (most + 1, false), (most + 2, false)] {
            let words = vec!["\"x\""; count].join(",");
            let line = format!(r#"{{"id":1,"method":"events","params":{{"{key}":[{words}]}}}}"#);
            assert_eq!(Request::parse(line.as_bytes(), DAY).is_ok(), fine, "{count} {key}");
        }
    }
}

#[test]
fn an_unknown_method_is_repeated_up_to_128_characters() {
    let line = format!(r#"{{"method":"{}"}}"#, "m".repeat(129));
    let message = Request::parse(line.as_bytes(), DAY).unwrap_err().error.message;
    assert!(message.contains(&format!("\"{}\"", "m".repeat(128))), "{message}");
}

#[test]
fn a_rejected_request_keeps_its_id_and_names_its_fault() {
    use ErrorCode::{InvalidRequest, UnknownMethod};
    let many =
        format!(r#"{{"id":1,"method":"status","params":{{"guests":["x"{}]}}}}"#, ",\"x\"".repeat(4096));
    for (line, has_id, code) in [
        ("", false, InvalidRequest),
        ("nonsense", false, InvalidRequest),
        ("[1,\"info\"]", false, InvalidRequest),
        ("{}", false, InvalidRequest),
        (r#"{"id":1}"#, true, InvalidRequest),
        (r#"{"id":1,"method":7}"#, true, InvalidRequest),
        (r#"{"id":1,"method":"ping"}"#, true, InvalidRequest),
        (r#"{"id":1,"method":"wait","params":{"guests":[],"for":"reachable"}}"#, true, InvalidRequest),
        (r#"{"id":1,"method":"wait","params":{"guests":["x"]}}"#, true, InvalidRequest),
        (r#"{"id":1,"method":"wait","params":{"guests":["x"],"for":"offline"}}"#, true, InvalidRequest),
        (r#"{"id":1,"method":"ping","params":{"guest":"../x"}}"#, true, InvalidRequest),
        (r#"{"id":1,"method":"events","params":{"since":"yesterday"}}"#, true, InvalidRequest),
        (r#"{"id":-1,"method":"info"}"#, false, InvalidRequest),
        (r#"{"id":1,"method":"info"} {}"#, false, InvalidRequest),
        (r#"{"id":1,"method":"fly"}"#, true, UnknownMethod),
        (r#"{"id":1,"method":"INFO"}"#, true, UnknownMethod),
        (&many, true, InvalidRequest),
    ] {
        let rejected = Request::parse(line.as_bytes(), DAY).unwrap_err();
        assert_eq!((rejected.id.is_some(), rejected.error.code), (has_id, code), "{line:.80}");
        assert!(rejected.error.message.len() > 10, "{line:.80}");
    }
}

#[test]
fn an_error_message_repeats_hostile_text_shortened_and_escaped() {
    for line in [
        format!(r#"{{"method":"{}"}}"#, "\u{202e}".repeat(80_000)),
        format!(r#"{{"method":"wait","params":{{"for":"{}"}}}}"#, "\u{9b}31m".repeat(40_000)),
    ] {
        let message = Request::parse(line.as_bytes(), DAY).unwrap_err().error.message;
        assert!(
            message.len() < 1500 && message.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{message}"
        );
    }
}

/// Every fact, with the largest fields that the code admits.
fn largest() -> Vec<Fact> {
    let transport = Transport::Serial;
    let remote = Remote::Ip("[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535".parse().unwrap());
    let words = (0..16).map(|n| format!("capa{n:02}")).collect::<Vec<_>>().join(",");
    let capabilities = Capabilities::parse(&words);
    assert_eq!((capabilities.as_str().len(), capabilities.iter().count()), (Capabilities::MAX_BYTES - 1, 16));
    let epoch = Epoch(u64::MAX);
    let most = u64::MAX;
    vec![
        Fact::BrokerStarted { guests: most },
        Fact::BrokerStopping,
        Fact::Terminal(TerminalFact::Refused {
            client: "\"".repeat(64),
            code: "ALREADY_AUTHENTICATED".into(),
        }),
        Fact::Terminal(TerminalFact::Created {
            terminal: TerminalId(u32::MAX),
            pid: u32::MAX,
            key: Some("\\".repeat(64)),
        }),
        Fact::Terminal(TerminalFact::Exited {
            terminal: TerminalId(u32::MAX),
            code: i32::MIN,
            signal: Some(i32::MIN),
            why: Some("\"".repeat(MESSAGE_MAX)),
        }),
        Fact::Terminal(TerminalFact::Owner { terminal: TerminalId(7), owner: None }),
        Fact::Terminal(TerminalFact::Resync {
            terminal: TerminalId(7),
            client: "\"".repeat(64),
            skipped: most,
        }),
        Fact::BrokerStalled { late_ms: most },
        Fact::ClockJumped { late_ms: most, suspended_ms: most },
        Fact::BrokerReloaded,
        Fact::HandshakeStart { transport, remote },
        Fact::HandshakeSuccess {
            epoch,
            transport,
            remote,
            capabilities: capabilities.clone(),
            proven: false,
            authenticated: false,
            once: false,
        },
        Fact::HandshakeFailure { reason: Failure::TokenRequired, transport, remote, capabilities },
        Fact::SessionClosed { epoch, reason: SessionEnd::HeartbeatTimeout, lasted_ms: most },
        Fact::VerdictChanged {
            from: State::Reachable,
            to: State::Reachable,
            reason: Some(Reason::BrokerNotAnswering),
            age_ms: Some(most),
        },
        Fact::NameConflict { transport, remote, takeovers: most },
        Fact::TokenIssued,
        Fact::TokenRevoked,
        Fact::GuestForgotten,
        Fact::StorageFailed {
            what: Storage::Database,
            message: shortened(&"\u{1}\"\\".repeat(99), MESSAGE_MAX),
        },
        Fact::StorageRecovered { what: Storage::Database },
        Fact::LinkDialing { attempt: u32::MAX },
        Fact::LinkUp { epoch, authenticated: false, interval_ms: most, window_ms: most },
        Fact::LinkDown { reason: LinkEnd::Disconnected, retry_ms: Some(most), error: None },
        Fact::LinkRefused { code: shortened(&"\\\u{7f}".repeat(99), CODE_MAX), retry_ms: Some(most) },
        Fact::BrokerUnproven { retry_ms: Some(most) },
    ]
}

/// Each kind with little in it, in the order of [`Fact`].
fn smallest() -> Vec<Fact> {
    let epoch = Epoch::new(7, 3);
    let remote = |text: &str| text.parse().unwrap();
    vec![
        Fact::BrokerStarted { guests: 0 },
        Fact::BrokerStopping,
        Fact::BrokerStalled { late_ms: 0 },
        Fact::ClockJumped { late_ms: 0, suspended_ms: 0 },
        Fact::BrokerReloaded,
        Fact::HandshakeStart { transport: Transport::Unix, remote: Remote::Unknown },
        Fact::HandshakeSuccess {
            epoch,
            transport: Transport::Serial,
            remote: Remote::Process { uid: 0, pid: 1 },
            capabilities: Capabilities::default(),
            proven: false,
            authenticated: false,
            once: true,
        },
        Fact::HandshakeFailure {
            reason: Failure::BadLine,
            transport: Transport::Vsock,
            remote: Remote::Vsock { cid: 3, port: 4 },
            capabilities: Capabilities::parse("b,a"),
        },
        Fact::SessionClosed { epoch, reason: SessionEnd::Goodbye, lasted_ms: 0 },
        Fact::VerdictChanged { from: State::Waiting, to: State::Reachable, reason: None, age_ms: None },
        Fact::NameConflict { transport: Transport::Tcp, remote: remote("[::1]:9"), takeovers: 0 },
        Fact::TokenIssued,
        Fact::TokenRevoked,
        Fact::GuestForgotten,
        Fact::StorageFailed { what: Storage::Log, message: "disk \"full\"".into() },
        Fact::StorageRecovered { what: Storage::Database },
        Fact::LinkDialing { attempt: 0 },
        Fact::LinkUp { epoch, authenticated: true, interval_ms: 0, window_ms: 0 },
        Fact::LinkDown { reason: LinkEnd::Unreachable, retry_ms: None, error: Some("no".into()) },
        Fact::LinkRefused { code: "busy".into(), retry_ms: None },
        Fact::BrokerUnproven { retry_ms: None },
    ]
}

fn event(fact: Fact) -> Event {
    Event {
        cursor: Cursor { incarnation: u32::MAX, number: u64::MAX },
        at: WallTime::from_unix_millis(253_402_207_200_000 - 1),
        guest: Some("n".repeat(64).parse().unwrap()),
        fact,
    }
}

#[test]
fn the_largest_event_of_each_kind_fits_its_bound_and_reads_back() {
    for fact in largest() {
        let kind = fact.kind();
        let event = event(fact);
        let json = serde_json::to_string(&event).unwrap();
        assert!(json.len() <= EVENT_BYTES_MAX, "{kind}: {} bytes: {json}", json.len());
        assert!(json.contains(&format!("\"kind\":\"{kind}\"")), "{json}");
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}

#[test]
fn an_events_log_form_is_one_line_of_printable_ascii() {
    let mut facts = largest();
    facts.push(Fact::StorageFailed {
        what: Storage::Log,
        message: "no\nspace\u{1b}[31m \u{202e}ä\u{0}".into(),
    });
    facts.push(Fact::LinkRefused { code: "x\r\ny\u{85}\u{2028}".into(), retry_ms: None });
    for fact in facts {
        let kind = fact.kind();
        let line = event(fact).to_string();
        assert!(
            !line.is_empty() && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{kind}: {line:?}"
        );
        assert!(line.len() <= 2 * EVENT_BYTES_MAX, "{kind}: {}", line.len());
    }
}

#[test]
fn foreign_text_in_an_event_has_nothing_that_a_terminal_or_a_reader_would_obey() {
    let foreign =
        "a\u{1b}[2J\u{9b}\u{7f}\n\u{85}\u{2028}\u{202e}\u{2066}\u{200b}\u{feff}\u{ad}\u{e0041}ü\u{1f600}";
    assert_eq!(shortened(foreign, MESSAGE_MAX), "a?[2J???????????ü\u{1f600}");
}

#[test]
fn the_appended_json_of_each_kind_is_that_of_serde() {
    let mut facts = largest();
    facts.extend(smallest());
    for fact in facts {
        for guest in [None, Some("devbox".parse().unwrap())] {
            let event = Event { guest, ..event(fact.clone()) };
            let mut json = Vec::new();
            event.append_json(None, &mut json);
            let mut shared = Vec::new();
            event.append_json(Some(&event.at.to_string()), &mut shared);
            assert_eq!(json, shared);
            assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&event).unwrap());
        }
    }
}

#[test]
fn the_log_form_of_each_kind_is_fixed() {
    let lines: Vec<String> = smallest()
        .into_iter()
        .map(|fact| Event { guest: Some("devbox".parse().unwrap()), ..event(fact) }.to_string())
        .collect();
    assert_eq!(
        lines,
        [
            "broker started incarnation=4294967295 guests=0",
            "broker stopping",
            "broker stalled late_ms=0",
            "clock jumped late_ms=0 suspended_ms=0",
            "configuration reloaded",
            "handshake start vm=devbox via=unix remote=-",
            "hello from vm:devbox session=sess-7-3 epoch=30064771075 via=serial remote=uid:0,pid:1 proven=no \
             auth=none once=yes capabilities=[-]",
            "handshake failed vm=devbox reason=bad-line via=vsock remote=cid:3,port:4 capabilities=[a,b]",
            "session closed vm=devbox session=sess-7-3 reason=goodbye lasted_ms=0",
            "verdict vm=devbox from=waiting to=reachable reason=- age_ms=-",
            "name conflict vm=devbox via=tcp remote=[::1]:9 takeovers=0",
            "token issued vm=devbox",
            "token revoked vm=devbox",
            "guest forgotten vm=devbox",
            "storage failed what=log error=\"disk \\\"full\\\"\"",
            "storage recovered what=database",
            "link dialing attempt=0",
            "link up epoch=30064771075 auth=hmac-sha256 interval_ms=0 window_ms=0",
            "link down reason=unreachable retry_ms=- error=\"no\"",
            "link refused code=busy retry_ms=-",
            "broker unproven: it does not know this guest's token retry_ms=-",
        ]
    );
}

#[test]
fn the_log_form_of_a_greeting_is_fixed() {
    let fact = Fact::HandshakeSuccess {
        epoch: Epoch::new(7, 3),
        transport: Transport::Tcp,
        remote: "127.0.0.1:51234".parse().unwrap(),
        capabilities: Capabilities::parse("proof-v1"),
        proven: true,
        authenticated: true,
        once: false,
    };
    let event = Event { guest: Some("devbox".parse().unwrap()), ..event(fact) };
    assert_eq!(
        event.to_string(),
        "hello from vm:devbox session=sess-7-3 epoch=30064771075 via=tcp remote=127.0.0.1:51234 proven=yes \
         auth=hmac-sha256 once=no capabilities=[proof-v1]"
    );
}

proptest! {
    #[test]
    fn escaped_text_is_printable_ascii_whatever_it_was(text: String) {
        let escaped = Escaped(&text).to_string();
        prop_assert!(escaped.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        prop_assert!(!escaped.replace("\\\\", "").replace("\\\"", "").contains('"'));
    }

    #[test]
    fn hostile_requests_are_answers_not_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::parse(&bytes, DAY);
    }

    #[test]
    fn remotes_read_back(uid: u32, pid: u32, cid: u32, port: u32) {
        for remote in [Remote::Process { uid, pid }, Remote::Vsock { cid, port }, Remote::Unknown] {
            prop_assert_eq!(remote.to_string().parse::<Remote>().unwrap(), remote);
        }
    }
}
