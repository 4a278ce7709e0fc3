//! `docs/status.schema.json` describes what the core writes, and nothing looser.

use castra_core::boundary::{Remote, Transport};
use castra_core::capabilities::Capabilities;
use castra_core::id::{BootTag, Epoch};
use castra_core::status::{
    BrokerState, BrokerStatus, GuestStatus, Reason, SCHEMA, State, StatusOutcome, Warning,
};
use castra_core::time::WallTime;
use jsonschema::Validator;
use serde_json::{Value, json};

fn schema() -> Validator {
    let schema = serde_json::from_str(include_str!("../../../docs/status.schema.json")).expect("JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of draft 2020-12");
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema that can be built")
}

const fn moment() -> WallTime {
    WallTime::from_unix_millis(1_795_188_257_812)
}

/// A row with every optional field null.
fn bare(state: State, reason: Option<Reason>) -> GuestStatus {
    GuestStatus {
        name: "devbox".parse().expect("a name"),
        state,
        reachable: state == State::Reachable,
        reason,
        warnings: Vec::new(),
        proven: false,
        authenticated: false,
        last_handshake_age_ms: None,
        last_handshake_at: None,
        session_age_ms: None,
        window_ms: (state != State::Offline).then_some(15_000),
        interval_ms: (state != State::Offline).then_some(5_000),
        epoch: None,
        boot: None,
        transport: None,
        remote: None,
        rtt_us: None,
        handshakes: 0,
        refusals: 0,
        takeovers: 0,
        capabilities: Capabilities::default(),
        peers: Vec::new(),
        attachment: None,
    }
}

/// A row with every optional field set, at its greatest.
fn full() -> GuestStatus {
    GuestStatus {
        warnings: vec![Warning::Unproven, Warning::NameConflict, Warning::VersionSkew],
        proven: true,
        authenticated: true,
        last_handshake_age_ms: Some(u64::MAX),
        last_handshake_at: Some(moment()),
        session_age_ms: Some(u64::MAX),
        epoch: Some(Epoch(u64::MAX)),
        boot: Some(BootTag([0, 0x11, 0xEE, 0xFF])),
        transport: Some(Transport::Vsock),
        remote: Some(Remote::Vsock { cid: 3, port: u32::MAX }),
        rtt_us: Some(0),
        handshakes: u64::MAX,
        refusals: u64::MAX,
        takeovers: u64::MAX,
        capabilities: Capabilities::parse("metrics,proof-v1,!#$%&'()*+-./:;<=>?@[]^_`{|}~"),
        peers: vec!["a".parse().expect("a name"), "b".repeat(64).parse().expect("a name")],
        attachment: Some(json!({"later": true})),
        ..bare(State::Reachable, None)
    }
}

fn serving() -> BrokerStatus {
    BrokerStatus {
        state: BrokerState::Serving,
        pid: Some(u32::MAX),
        version: Some("0.2.0".to_owned()),
        started_at: Some(moment()),
        incarnation: Some(7),
        listen: vec!["tcp:127.0.0.1:7070".to_owned()],
        guests: 1,
        reachable: 1,
    }
}

fn absent(state: BrokerState) -> BrokerStatus {
    BrokerStatus {
        state,
        pid: None,
        version: None,
        started_at: None,
        incarnation: None,
        listen: Vec::new(),
        guests: 1,
        reachable: 0,
    }
}

fn document(guests: Vec<GuestStatus>, broker: BrokerStatus) -> Value {
    serde_json::to_value(StatusOutcome { schema: SCHEMA, as_of: moment(), guests, broker }).expect("JSON")
}

#[track_caller]
fn valid(schema: &Validator, document: &Value) {
    if let Err(error) = schema.validate(document) {
        panic!("{error} at {}: {document:#}", error.instance_path());
    }
}

#[test]
fn what_the_core_writes_is_valid_with_every_field_null_and_with_every_field_set() {
    let schema = schema();
    valid(&schema, &document(vec![], serving()));
    valid(&schema, &document(vec![full(), bare(State::Waiting, Some(Reason::NeverSeen))], serving()));
    valid(&schema, &document(vec![full()], BrokerStatus { state: BrokerState::Draining, ..serving() }));
    for state in [BrokerState::Offline, BrokerState::NotAnswering] {
        valid(&schema, &document(vec![bare(State::Offline, Some(Reason::NoBroker))], absent(state)));
    }
}

/// The schema without its word that there is nothing else: so reads whoever skips what is new.
fn opened(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("additionalProperties");
            fields.values_mut().for_each(opened);
        }
        Value::Array(items) => items.iter_mut().for_each(opened),
        _ => {}
    }
}

/// Schemas of earlier releases, frozen (docs/RELEASING.md).
const FROZEN: [&str; 1] = [include_str!("../../../compat/v0.2/status.schema.json")];

#[test]
fn a_reader_of_an_earlier_release_accepts_what_the_core_writes_now() {
    for text in FROZEN {
        let mut schema = serde_json::from_str(text).expect("JSON");
        opened(&mut schema);
        let schema = jsonschema::draft202012::options().build(&schema).expect("a schema that can be built");
        valid(&schema, &document(vec![full(), bare(State::Waiting, Some(Reason::NeverSeen))], serving()));
        valid(
            &schema,
            &document(vec![bare(State::Offline, Some(Reason::NoBroker))], absent(BrokerState::Offline)),
        );
        let mut more = document(vec![full()], serving());
        more["guests"][0]["later"] = json!(1);
        valid(&schema, &more);
        for (at, field) in [("/guests/0", "reachable"), ("/broker", "state"), ("", "as_of")] {
            let mut lacking = document(vec![full()], serving());
            lacking.pointer_mut(at).and_then(Value::as_object_mut).expect("an object").remove(field);
            assert!(!schema.is_valid(&lacking), "{at}/{field} may be gone");
        }
    }
    let golden = serde_json::from_str(include_str!("../../../compat/v0.2/status.json")).expect("JSON");
    valid(&schema(), &golden);
}

#[test]
fn every_word_that_the_core_can_say_is_in_the_schema() {
    let schema = schema();
    for reason in [
        Reason::NeverSeen,
        Reason::Handshaking,
        Reason::Stale,
        Reason::Disconnected,
        Reason::Goodbye,
        Reason::Refused,
        Reason::Unproven,
        Reason::BrokerStarted,
        Reason::BrokerStalled,
        Reason::ClockJumped,
        Reason::NameConflict,
        Reason::NoBroker,
        Reason::BrokerNotAnswering,
    ] {
        let (state, broker) = match reason {
            Reason::NoBroker | Reason::BrokerNotAnswering => (State::Offline, absent(BrokerState::Offline)),
            _ => (State::Waiting, serving()),
        };
        valid(&schema, &document(vec![bare(state, Some(reason))], broker));
    }
    for transport in [Transport::Tcp, Transport::Unix, Transport::Vsock, Transport::Serial] {
        valid(&schema, &document(vec![GuestStatus { transport: Some(transport), ..full() }], serving()));
    }
    for remote in ["127.0.0.1:1", "[::1]:65535", "uid:0,pid:0", "-"] {
        let remote = remote.parse().ok();
        valid(&schema, &document(vec![GuestStatus { remote, ..full() }], serving()));
    }
}

#[test]
fn documents_that_contradict_themselves_are_invalid() {
    let schema = schema();
    let row = "/guests/0";
    let cases = [
        ("/schema", json!(2)),
        ("/as_of", json!("yesterday")),
        ("/as_of", json!("2026-11-20T12:00:00.000+01:00")),
        ("/as_of", json!("2026-13-20T12:00:00.000Z")),
        ("/guests/0/name", json!("../etc")),
        ("/guests/0/name", json!("")),
        ("/guests/0/state", json!("maybe")),
        ("/guests/0/state", json!("waiting")),
        ("/guests/0/reachable", json!(false)),
        ("/guests/0/reason", json!("stale")),
        ("/guests/0/reason", json!("no such reason")),
        ("/guests/0/last_handshake_age_ms", json!(-1)),
        ("/guests/0/last_handshake_age_ms", json!(1.5)),
        ("/guests/0/last_handshake_age_ms", json!(null)),
        ("/guests/0/last_handshake_at", json!(null)),
        ("/guests/0/last_handshake_at", json!(1_795_188_257)),
        ("/guests/0/window_ms", json!(-1)),
        ("/guests/0/window_ms", json!(null)),
        ("/guests/0/interval_ms", json!(null)),
        ("/guests/0/boot", json!("00112233445566778899aabbccddeeff")),
        ("/guests/0/transport", json!("carrier pigeon")),
        ("/guests/0/warnings", json!(["unproven", "unproven"])),
        ("/guests/0/warnings", json!(["other"])),
        ("/guests/0/proven", json!(false)),
        ("/guests/0/capabilities", json!(["a,b"])),
        ("/guests/0/capabilities", json!(["\u{1b}[31m"])),
        ("/guests/0/peers", json!(["a b"])),
        ("/guests/0/attachment", json!("x")),
        ("/broker/state", json!("offline")),
        ("/broker/pid", json!(null)),
        ("/broker/version", json!(null)),
        ("/broker/reachable", json!(-1)),
        ("/broker", json!(null)),
        (row, json!({})),
    ];
    for (at, value) in cases {
        let mut document = document(vec![full()], serving());
        *document.pointer_mut(at).expect("it is there") = value.clone();
        assert!(!schema.is_valid(&document), "{at} = {value} is accepted");
    }
}

#[test]
fn every_field_is_required_and_no_other_is_admitted() {
    let schema = schema();
    let whole = document(vec![full()], serving());
    for at in ["", "/guests/0", "/broker"] {
        let fields = whole.pointer(at).and_then(Value::as_object).expect("an object");
        for field in fields.keys() {
            let mut lacking = whole.clone();
            lacking.pointer_mut(at).and_then(Value::as_object_mut).expect("an object").remove(field);
            assert!(!schema.is_valid(&lacking), "{at}/{field} may be absent");
        }
        let mut extended = whole.clone();
        extended
            .pointer_mut(at)
            .and_then(Value::as_object_mut)
            .expect("an object")
            .insert("more".into(), json!(1));
        assert!(!schema.is_valid(&extended), "{at}/more is admitted");
    }
}

#[test]
fn an_offline_broker_has_no_reachable_guest() {
    let schema = schema();
    assert!(!schema.is_valid(&document(vec![full()], absent(BrokerState::Offline))));
    let waiting = bare(State::Waiting, Some(Reason::Stale));
    assert!(!schema.is_valid(&document(vec![waiting.clone()], absent(BrokerState::Offline))));
    assert!(schema.is_valid(&document(vec![waiting], serving())));
    let offline = bare(State::Offline, Some(Reason::NoBroker));
    assert!(!schema.is_valid(&document(vec![offline], serving())));
    let seen =
        GuestStatus { last_handshake_at: Some(moment()), ..bare(State::Waiting, Some(Reason::NeverSeen)) };
    assert!(!schema.is_valid(&document(vec![seen], serving())));
}
