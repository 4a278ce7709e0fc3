//! What earlier releases wrote, read by this one; and what this one writes, as an earlier
//! release would read it. `compat/` holds one folder for each release; docs/RELEASING.md says
//! how the next one is made, and what may change.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use castra_client::{Client, Error, Info, Pong, StatusOutcome, Waited};
use castra_core::control::attach::{Actions, Attachments};
use castra_core::control::reply::{
    ErrorBody, Events, GuestOnly, Inbox, MessageResult, PeerChanged, PeersListed, TokenIssued, TokenListed,
};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{Broker, PATIENCE, Process, World, until};

/// This one comes first.
const RELEASES: [&str; 1] = ["v0.2"];

fn compat(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("compat").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(compat(name)).unwrap_or_else(|error| panic!("compat/{name}: {error}"))
}

/// Every field of `old` is in `new`, and of the same type; what has no value may have one.
fn keeps(old: &Value, new: &Value, at: &str) {
    match (old, new) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let kept = new.get(key).unwrap_or_else(|| panic!("{at}.{key} is gone: {new:?}"));
                keeps(value, kept, &format!("{at}.{key}"));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            if let (Some(old), Some(new)) = (old.first(), new.first()) {
                keeps(old, new, &format!("{at}[0]"));
            }
        }
        _ => {
            let same = std::mem::discriminant(old) == std::mem::discriminant(new);
            assert!(same, "{at} was {old} and is {new}: another type");
        }
    }
}

/// A world in which everything durable is used once. The agents stay until it is left.
struct Lived {
    broker: Broker,
    devbox: Process,
    /// Left last.
    world: World,
}

impl Lived {
    fn new() -> Self {
        let world = World::new();
        let state = world.state();
        let trace = world.path("trace.jsonl");
        let broker = world.broker(&["--guest", "ghost", "--record", trace.to_str().unwrap()]);
        let issued =
            world.json(&["token", "issue", "devbox", "--json"])["token"].as_str().unwrap().to_owned();
        let (token, inbox) = (world.secret("token", &issued), world.path("inbox"));
        let args = ["--token-file", &token, "--inbox", inbox.to_str().unwrap()];
        let devbox = world.agent("devbox", broker.address(), &args);
        let builder = world.agent("builder", broker.address(), &[]);
        world.wait(&["devbox", "builder"], "reachable");
        world.json(&["peer", "link", "devbox", "builder", "--json"]);
        let sent = world.json(&["peer", "send", "builder", "devbox", "a text that arrived", "--json"]);
        assert_eq!(sent["outcome"], "delivered", "{sent}");
        world.json(&["adopt", "devbox", "--link", "--json"]);
        builder.kill();
        world.wait(&["builder"], "waiting");
        let waits = world.json(&["peer", "send", "devbox", "builder", "a text that waits", "--json"]);
        assert_eq!(waits["outcome"], "queued", "{waits}");
        assert!(until(PATIENCE, || state.join("handshakes/devbox.json").exists()), "no record");
        Self { broker, devbox, world }
    }

    /// One reply of each method, as lines `{"method","event","data"}`.
    fn replies(&self) -> Vec<Value> {
        let mut client = Client::connect(&self.world.state().join("control.sock"), PATIENCE).unwrap();
        let mut lines = vec![];
        for (method, params) in [
            ("info", json!({})),
            ("status", json!({"guests": ["devbox"]})),
            ("wait", json!({"guests": ["devbox"], "for": "reachable"})),
            ("ping", json!({"guest": "devbox"})),
            ("events", json!({"limit": 3})),
            ("token_issue", json!({"guest": "spare"})),
            ("token_list", json!({})),
            ("token_revoke", json!({"guest": "spare"})),
            ("list_peers", json!({"name": "devbox"})),
            ("register_peer", json!({"source": "devbox", "name": "builder"})),
            ("send_to_peer", json!({"from": "devbox", "to": "builder", "text": "once more"})),
            ("inbox", json!({"name": "devbox"})),
            ("unregister_peer", json!({"source": "devbox", "name": "builder"})),
            ("attachments", json!({})),
            ("action_list", json!({})),
            ("forget", json!({"guest": "ghost"})),
            ("ping", json!({"guest": "stranger"})),
            ("reload", json!({})),
        ] {
            let (event, data) = match client.request(method, params, PATIENCE) {
                Ok(reply) => (reply.event, serde_json::from_str(reply.data.get()).unwrap()),
                Err(Error::Refused(body)) => ("error".to_owned(), serde_json::to_value(body).unwrap()),
                Err(error) => panic!("{method}: {error}"),
            };
            lines.push(json!({"method": method, "event": event, "data": data}));
        }
        lines
    }
}

/// Whether the line can be read as the type that this release has for it.
fn typed(line: &Value) {
    fn is<D: DeserializeOwned>(data: &Value) -> Option<String> {
        serde_json::from_value::<D>(data.clone()).err().map(|error| error.to_string())
    }
    let data = &line["data"];
    let error = match line["event"].as_str().unwrap() {
        "info" => is::<Info>(data),
        "status" => is::<StatusOutcome>(data),
        "waited" => is::<Waited>(data),
        "pong" => is::<Pong>(data),
        "events" => is::<Events>(data),
        "token_issued" => is::<TokenIssued>(data),
        "token_listed" => is::<TokenListed>(data),
        "token_revoked" | "forgotten" => is::<GuestOnly>(data),
        "peers_listed" => is::<PeersListed>(data),
        "peer_registered" | "peer_unregistered" => is::<PeerChanged>(data),
        "peer_message_result" => is::<MessageResult>(data),
        "inbox" => is::<Inbox>(data),
        "attachments" => is::<Attachments>(data),
        "actions" => is::<Actions>(data),
        "error" => is::<ErrorBody>(data),
        "reloaded" => None,
        other => panic!("a reply that nothing checks: {other}"),
    };
    assert_eq!(error, None, "{line}");
}

#[test]
fn replies_keep_every_field_that_an_earlier_release_had_and_its_type() {
    let now = Lived::new().replies();
    for release in RELEASES {
        let golden: Vec<Value> = read(&format!("{release}/control-replies.jsonl"))
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(golden.len(), 18, "{release}");
        for (old, new) in golden.iter().zip(&now) {
            assert_eq!((&old["method"], &old["event"]), (&new["method"], &new["event"]), "{release}");
            typed(old);
            keeps(old, new, &format!("{release} {}", old["method"]));
        }
        let version: Value = serde_json::from_str(&read(&format!("{release}/version.json"))).unwrap();
        keeps(&version, &World::new().json(&["version", "--json"]), release);
    }
}

#[test]
fn a_state_directory_of_an_earlier_release_is_gone_on_with() {
    for release in RELEASES {
        let world = World::new();
        let file = File::open(compat(&format!("{release}/state.tar.gz"))).unwrap();
        tar::Archive::new(GzDecoder::new(file)).unpack(world.path("")).unwrap();
        // It is replayed to its end by the version that wrote it; any other reads it, and says what differs.
        let replayed = world.castra(&["replay", world.path("trace.jsonl").to_str().unwrap()]);
        assert!(replayed.code <= 1, "{release}: {replayed:?}");

        let broker = world.broker(&[]);
        let info = world.json(&["info", "--json"]);
        assert_eq!(info["incarnation"], 2, "{release}: epochs rise");
        let row = world.row("builder");
        assert_eq!(row["reason"], "broker_started", "{release}: {row}");
        assert!(row["last_handshake_at"].is_string(), "{release}: {row}");
        assert_eq!(row["peers"], json!(["devbox"]), "{release}: {row}");
        let tokens = world.json(&["token", "list", "--json"]);
        assert_eq!(tokens["tokens"], json!([{"guest": "devbox", "valid": true}]), "{release}");
        let waits = world.json(&["inbox", "builder", "--json"]);
        assert_eq!(waits["messages"][0]["text"], "a text that waits", "{release}: {waits}");
        let attached = world.json(&["attachments", "--json"]);
        assert!(attached.to_string().contains("devbox"), "{release}: {attached}");

        // The guest's own: its token, and its inbox, from which nothing comes twice.
        let (token, inbox) = (world.path("token"), world.path("inbox"));
        let args = ["--token-file", token.to_str().unwrap(), "--inbox", inbox.to_str().unwrap()];
        let _devbox = world.agent("devbox", broker.address(), &args);
        world.wait(&["devbox"], "reachable");
        assert_eq!(world.row("devbox")["authenticated"], true, "{release}");
        let socket = world.path("devbox.sock");
        let own = world.json(&["--socket", socket.to_str().unwrap(), "inbox", "--json"]);
        let texts: Vec<&Value> =
            own["messages"].as_array().unwrap().iter().map(|message| &message["text"]).collect();
        assert_eq!(texts, ["a text that arrived"], "{release}: {own}");
        let _builder = world.agent("builder", broker.address(), &[]);
        let delivered =
            || world.json(&["inbox", "builder", "--json"])["messages"][0]["delivered_at"].is_string();
        assert!(until(PATIENCE, delivered), "{release}: what waited arrives\n{}", world.log());
    }
}

#[test]
fn a_configuration_of_an_earlier_release_means_what_it_meant() {
    for release in RELEASES {
        let world = World::new();
        let path = compat(&format!("{release}/castra.toml"));
        let checked = world.castra(&["config", "check", path.to_str().unwrap()]);
        assert_eq!(checked.code, 0, "{release}: {checked:?}");
        let shown = world.json(&["config", "show", "--config", path.to_str().unwrap(), "--json"]);
        let now: BTreeMap<&str, &Value> = shown["settings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| row["source"] == "file")
            .map(|row| (row["name"].as_str().unwrap(), &row["values"]))
            .collect();
        let golden: BTreeMap<String, Value> =
            serde_json::from_str(&read(&format!("{release}/settings.json"))).unwrap();
        let golden: BTreeMap<&str, &Value> =
            golden.iter().map(|(name, values)| (name.as_str(), values)).collect();
        assert_eq!(now, golden, "{release}");
    }
}

#[test]
fn records_of_castra_0_1_are_read_and_its_readers_understand_ours() {
    let world = World::new();
    let records = world.state().join("handshakes");
    fs::create_dir_all(&records).unwrap();
    fs::set_permissions(world.state(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for name in ["devbox-0.json", "builder.json", "handshake-events.jsonl"] {
        fs::copy(compat("v0.1/handshakes").join(name), records.join(name)).unwrap();
    }
    let broker = world.broker(&[]);
    for (name, at) in [("devbox-0", "2026-11-20T15:24:17.000Z"), ("builder", "2026-11-20T15:20:00.000Z")] {
        let row = world.row(name);
        assert_eq!(
            (&row["reason"], &row["last_handshake_at"]),
            (&json!("broker_started"), &json!(at)),
            "{row}"
        );
        assert_eq!(row["last_handshake_age_ms"], Value::Null, "no proof of this broker's");
    }
    let _agent = world.agent("devbox-0", broker.address(), &["--capability", "metrics"]);
    world.wait(&["devbox-0"], "reachable");
    let path = records.join("devbox-0.json");
    let golden: Value = serde_json::from_str(&read("v0.1/handshakes/devbox-0.json")).unwrap();
    let record = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
    assert!(
        until(PATIENCE, || record()["timestamp"].as_u64() > golden["timestamp"].as_u64()),
        "{}",
        record()
    );
    for key in ["vm", "timestamp", "capabilities"] {
        keeps(&golden[key], &record()[key], key);
    }
    assert!(!record()["timestamp"].is_null() && record()["vm"] == "devbox-0", "{}", record());
    let events = || world.read("handshakes/handshake-events.jsonl");
    assert!(until(PATIENCE, || events().lines().count() == 3), "it is appended to: {}", events());
    let lines: Vec<Value> = events().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    keeps(&lines[0], &lines[2], "handshake-events.jsonl");
}

#[test]
#[should_panic(expected = "another type")]
fn a_field_of_another_type_is_found() {
    keeps(&json!({"a": [{"b": 1}]}), &json!({"a": [{"b": "1", "c": 2}]}), "x");
}

#[test]
#[should_panic(expected = "x.a is gone")]
fn a_field_that_is_gone_is_found() {
    keeps(&json!({"a": 1}), &json!({"b": 1}), "x");
}

/// Once for each release, as docs/RELEASING.md says.
#[test]
#[ignore = "writes compat/: cargo test -p castra --test end_to_end -- --ignored write_the_goldens"]
fn write_the_goldens_of_this_release() {
    let folder = RELEASES[0];
    let mut minor = env!("CARGO_PKG_VERSION").rsplitn(2, '.').skip(1);
    assert_eq!(Some(folder), minor.next().map(|minor| format!("v{minor}")).as_deref(), "add it to RELEASES");
    fs::create_dir_all(compat(folder)).unwrap();
    let write = |name: &str, text: &str| fs::write(compat(folder).join(name), text).unwrap();

    let lived = Lived::new();
    let lines: Vec<String> = lived.replies().iter().map(Value::to_string).collect();
    write("control-replies.jsonl", &(lines.join("\n") + "\n"));

    let lived = Lived::new();
    let status = lived.world.castra(&["status", "--json"]);
    write("status.json", &status.out);
    write("version.json", &lived.world.castra(&["version", "--json"]).out);
    drop(lived.devbox);
    assert_eq!(lived.world.castra(&["down"]).code, 0);
    drop(lived.broker);
    let file = File::create(compat(folder).join("state.tar.gz")).unwrap();
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    for name in ["state", "inbox", "token", "trace.jsonl"] {
        let path = lived.world.path(name);
        if path.is_dir() { tar.append_dir_all(name, path) } else { tar.append_path_with_name(path, name) }
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();

    let path = compat(folder).join("castra.toml");
    let shown = World::new().json(&["config", "show", "--config", path.to_str().unwrap(), "--json"]);
    let rows = shown["settings"].as_array().unwrap().iter().filter(|row| row["source"] == "file");
    let settings: BTreeMap<&str, &Value> =
        rows.map(|row| (row["name"].as_str().unwrap(), &row["values"])).collect();
    write("settings.json", &(serde_json::to_string_pretty(&settings).unwrap() + "\n"));
}
