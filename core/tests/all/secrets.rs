//! What is secret is shown by nothing that holds it.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test reads the source")]

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use castra_core::attach::wire::{AttachRequest, Block, Handshake};
use castra_core::attach::{
    Action, AttachLedger, AttachSettings, Attachment, Body, Hint, HttpRequest, Method, RestoredManager,
    Secret, Stage,
};
use castra_core::auth::{Key, Transcript};
use castra_core::boundary::{Change, Effect, Typed};
use castra_core::config::AgentConfig;
use castra_core::control::reply::TokenIssued;
use castra_core::entropy::Entropy;
use castra_core::id::{Epoch, Nonce};
use castra_core::terminals::wire::{Handshake as Client, Request, Role};
use castra_core::terminals::{Launch, TerminalsConfig, Token};
use castra_core::time::{Now, Time, WallTime};
use castra_core::trace::{Recorded, Seed};
use castra_core::{Agent, Broker, Restored, RestoredAgent};

/// As text, as hex, as a list of numbers: no form of it may be seen.
const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

fn key() -> Key {
    SECRET.parse().unwrap()
}

fn secret() -> Secret {
    SECRET.parse().unwrap()
}

fn hides(value: &(impl Debug + ?Sized)) {
    let bytes = key();
    let numbers: Vec<String> = bytes.expose()[..4].iter().map(ToString::to_string).collect();
    for shown in [format!("{value:?}"), format!("{value:#?}")] {
        let text = SECRET.bytes().take(4).map(|byte| byte.to_string()).collect::<Vec<_>>();
        for form in [&SECRET[..12], &numbers.join(", "), &numbers.join(",\n"), &text.join(", ")] {
            assert!(!shown.contains(form), "{shown}");
        }
        let plain: String = shown.split_whitespace().collect();
        assert!(!plain.contains(&numbers.join(",")) && !plain.contains(&text.join(",")), "{shown}");
    }
}

#[test]
fn no_type_that_holds_a_secret_shows_it() {
    let guest: castra_core::id::GuestName = "devbox".parse().unwrap();
    let id = || "id-1".parse().unwrap();
    let seed = Seed::Seeded(*key().expose());
    let transcript = Transcript::new(&guest, &Nonce([1; 16]), &Nonce([2; 16]), Epoch(3), b"hello");
    // A proof and a session's key in place of the secret that they are made of.
    let (proof, answer, session) = transcript.keys(&key());
    assert_eq!(format!("{proof:?} {answer:?} {session:?}"), "Proof(..) Proof(..) SessionKey(Key(..))");
    hides(&(key(), secret(), seed, Entropy::seeded(*key().expose()), Token::new(SECRET.into())));
    hides(&Change::SetToken { guest, key: Some(key()) });
    hides(&Effect::Persist(vec![Change::SetToken { guest, key: Some(key()) }]));
    let restored = Restored { tokens: vec![(guest, Some(key()))], incarnation: 1, ..Restored::default() };
    hides(&restored);
    hides(&TokenIssued { guest, token: SECRET.into() });
    let url = "http://manager.example:80";
    let hint = Hint { manager: url.parse().unwrap(), beach: id(), code: secret(), token: secret() };
    hides(&hint);
    let attach = AttachSettings {
        managers: vec![url.parse().unwrap()],
        hint: Some(hint),
        ..AttachSettings::default()
    };
    let config = AgentConfig { token: Some(key()), attach, ..AgentConfig::new(guest) };
    hides(&config);
    let attachment = Attachment {
        guest,
        session: id(),
        beach: id(),
        url: url.parse().unwrap(),
        link_only: false,
        handshake: id(),
        token: secret(),
        code: Some(secret()),
        issued_at: WallTime::default(),
        stage: Stage::Pending,
    };
    let action = Action {
        number: 1,
        guest,
        id: id(),
        kind: "terminal_write".into(),
        payload: format!(r#"{{"bytes":"{SECRET}"}}"#),
        queued_at: WallTime::default(),
        ttl_ms: 1,
    };
    hides(&(&attachment, &action));
    hides(&Change::SetAttachment(attachment.clone().into()));
    hides(&Change::SetAction(action.clone().into()));
    let mut ledger = AttachLedger::default();
    ledger.apply(&Change::SetAttachment(attachment.clone().into()));
    hides(&ledger);
    hides(&RestoredManager { attachments: vec![attachment], actions: vec![action] });
    let block = Block { attach_code: Some(secret()), ..Block::default() };
    hides(&Handshake {
        controller_token: Some(secret()),
        controller_auto_attach: Some(block),
        ..Handshake::default()
    });
    hides(&AttachRequest::Attach { session_id: id(), code: secret(), handshake_id: id() });
    let body = Body(SECRET.as_bytes().to_vec());
    hides(&HttpRequest {
        method: Method::Post,
        to: castra_core::attach::Origin { tls: false, host: "manager.example".into(), port: 80 },
        path: "/".into(),
        bearer: secret(),
        handshake: None,
        once: true,
        body,
        deadline: Time::ZERO,
        answer_max: 1,
    });
    hides(&Typed(SECRET.as_bytes().to_vec()));
    hides(&Launch {
        program: "sh".into(),
        args: vec![],
        cwd: String::new(),
        env: vec![("TOKEN".into(), SECRET.into())],
        cols: 80,
        rows: 24,
    });
    hides(&TerminalsConfig { token: Some(Token::new(SECRET.into())), ..TerminalsConfig::default() });
    hides(&Request::Handshake(Client::new(SECRET, "client", Role::Control)));
    let now = Now::default();
    hides(&Broker::new(
        castra_core::config::BrokerConfig::default(),
        restored,
        Entropy::seeded(*key().expose()),
        now,
    ));
    hides(&Agent::new(config.clone(), RestoredAgent::default(), Entropy::seeded(*key().expose()), now));
    hides(&Recorded::agent(config, RestoredAgent::default(), seed, now, None));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// A field that is called like a secret has a type that hides and wipes it.
#[test]
fn no_field_is_a_secret_in_plain_text() {
    let plain = ["String", "&'a str", "Vec<u8>", "[u8; 32]", "[u8; 16]", "Box<str>", "Cow<", "OsString"];
    let names =
        ["token", "secret", "passcode", "bearer", "password", "seed", "attach_code", "controller_token"];
    // Wiped by its own `Drop`, without a word in its own `Debug`; and what a load of `castra bench`
    // draws its own guests from.
    let known = ["control/reply.rs: pub token: String,", "load/fleet.rs: seed: [u8; 32],"];
    let mut found = Vec::new();
    for folder in ["src", "../driver/src"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for path in sources(&folder) {
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines().map(str::trim).filter(|line| line.ends_with(',')) {
                let field = line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
                let Some((name, kind)) = field.trim_start_matches("pub ").split_once(": ") else { continue };
                let kind = kind.trim_start_matches("Option<").trim_start_matches("&'a ");
                if names.contains(&name) && plain.iter().any(|plain| kind.starts_with(plain)) {
                    let file = path.strip_prefix(&folder).unwrap().display().to_string();
                    let line = format!("{file}: {line}");
                    if !known.contains(&line.as_str()) {
                        found.push(line);
                    }
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whoever compares one does it in constant time: through the types' own comparison.
#[test]
fn no_secret_is_compared_byte_by_byte() {
    let mut found = Vec::new();
    for folder in ["src", "../driver/src", "../cli/src"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for path in sources(&folder) {
            let text = fs::read_to_string(&path).unwrap();
            // Tests compare what they made themselves.
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
                let compares = line.contains("==") || line.contains("!=") || line.contains("starts_with(");
                if line.contains("expose") && compares && !line.contains(".len()") {
                    found.push(format!("{}: {line}", path.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
