//! Who gets which credential, and that nobody else ever sees one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::adoption::*;
use crate::support::*;
use castra_core::attach::{AttachSettings, Hint, ManagerUrl};
use castra_core::boundary::EffectErrorKind;
use castra_core::config::AgentConfig;
use castra_core::event::Fact;
use castra_core::{Agent, Engine, Input, Output, RestoredAgent, boundary, entropy};
use proptest::prelude::*;
use serde_json::json;

const SECRETS: [&str; 4] = ["SECRET-TOKEN", "SECRET-CODE", "SECRET-HINT", "SECRET-PASSCODE"];

fn hinted(manager: &str, trusted: bool) -> AgentConfig {
    let manager: ManagerUrl = manager.parse().unwrap();
    let hint = Hint {
        manager: manager.clone(),
        beach: id("beach-9"),
        code: "SECRET-PASSCODE".parse().unwrap(),
        token: "SECRET-HINT".parse().unwrap(),
    };
    let attach = AttachSettings { managers: vec![manager], hint: Some(hint), ..AttachSettings::default() };
    AgentConfig { attach, trust_unkeyed_broker: trusted, ..trusting() }
}

fn secret(json: &str) -> String {
    json.replace(TOKEN, "SECRET-TOKEN").replace(CODE, "SECRET-CODE")
}

/// Everything goes wrong, and everybody repeats whatever they were told.
#[test]
fn no_event_line_frame_answer_or_debug_output_holds_a_secret() {
    let mut scene = Scene::new(hinted("http://manager.example", true));
    let mut debug = String::new();
    let echo = json!({"ok": false, "message": SECRETS.join(" "), "error": SECRETS[1]}).to_string();
    let client = scene.world.client();
    let note = |scene: &Scene, debug: &mut String| *debug += &format!("{:?}\n", scene.world.agent);
    for status in [500, 401] {
        let (effect, asked) = scene.heard().http.remove(0);
        assert_eq!(asked.bearer, "SECRET-HINT");
        note(&scene, &mut debug);
        scene.answer(effect, status, &echo);
        scene.world.live(seconds(1));
    }
    scene.connect();
    for (number, url) in [(1, URL), (2, "link:"), (3, URL)] {
        scene.say(&secret(&handshake(&format!("hand-{number}"), "sess-1", url)));
        for kind in [EffectErrorKind::Unreachable, EffectErrorKind::BadAnswer] {
            note(&scene, &mut debug);
            if let Some((effect, _)) = scene.heard().http.pop() {
                let message = format!("refused to take {} and {}", SECRETS[0], SECRETS[1]);
                let error = boundary::EffectError { kind, message };
                scene.world.give(Input::Done { effect, result: Err(error) });
                scene.ask(client, r#"{"method":"attachments"}"#);
            } else {
                scene.say(&format!(r#"{{"type":"attach_refused","code":"SECRET-CODE","message":{echo:?}}}"#));
            }
            scene.world.live(millis(600));
        }
    }
    if let Some((effect, _)) = scene.heard().http.pop() {
        scene.answer(effect, 200, &echo.replace("false", "true"));
    }
    scene.say(&action("a1", "SECRET-CODE", 1000));
    note(&scene, &mut debug);
    scene.oblige();
    scene.say(&secret(&handshake("hand-9", "sess-1", "http://user@host")));
    scene.say(&secret(&handshake("hand-9", "sess-1", URL)).replace("SECRET-TOKEN", "SECRET-TOKEN \\n"));
    scene.ask(client, r#"{"method":"attachments","params":{"wait":true,"timeout_ms":100}}"#);
    scene.world.live(millis(200));
    scene.reply(client);
    scene.lose();
    note(&scene, &mut debug);
    let heard = scene.heard();
    if let Some((effect, _)) = heard.http.first() {
        scene.answer(*effect, 409, &echo);
    }
    scene.heard();
    note(&scene, &mut debug);
    assert!(scene.shown.contains("controller.handshake.attach.failure") && scene.shown.len() > 2000);
    for secret in SECRETS {
        assert!(!scene.shown.contains(secret), "{secret} in {}", scene.shown);
        assert!(!debug.contains(secret), "{secret} in the state");
    }
}

/// What the engine asks the shell to do is harmless in a log, too.
#[test]
fn requests_and_typing_show_nothing_of_what_they_carry() {
    let mut agent = Agent::new(
        hinted("http://manager.example", true),
        RestoredAgent::default(),
        entropy::Entropy::chosen(7),
        now(castra_core::time::Time::from_millis(1)),
    );
    let mut effects = vec![];
    loop {
        match agent.poll_output() {
            Output::Wait(_) => break,
            output => effects.push(format!("{output:?}")),
        }
    }
    assert!(effects.iter().any(|effect| effect.contains("attach-by-code")), "{effects:?}");
    assert!(!effects.iter().any(|effect| effect.contains("SECRET")), "{effects:?}");
}

fn origin() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("http://manager.example"),
        Just("http://MANAGER.example:80/"),
        Just("https://manager.example"),
        Just("http://manager.example:8080"),
        Just("http://127.0.0.1:7171"),
        Just("http://[::ffff:127.0.0.1]:7171"),
        Just("http://0.0.0.0:7171"),
        Just("http://evil.example"),
        Just("link:"),
    ]
}

#[derive(Clone, Debug)]
struct Offer {
    block_url: Option<&'static str>,
    outer_url: Option<&'static str>,
    token: bool,
    block: bool,
    schema: u32,
    ttl_ms: u64,
}

fn offers() -> impl Strategy<Value = Offer> {
    let url = || proptest::option::weighted(0.8, origin());
    let block = prop::bool::weighted(0.9);
    let numbers = (prop_oneof![9 => Just(1), 1 => Just(2)], prop_oneof![1 => Just(0), 9 => Just(5_000)]);
    (url(), proptest::option::weighted(0.3, origin()), any::<bool>(), block, numbers).prop_map(
        |(block_url, outer_url, token, block, (schema, ttl_ms))| Offer {
            block_url,
            outer_url,
            token,
            block,
            schema,
            ttl_ms,
        },
    )
}

impl Offer {
    fn json(&self, number: usize) -> String {
        let mut json = json!({
            "type": "manager_handshake", "schema": self.schema, "handshake_id": format!("h{number}"),
            "session_id": format!("s{}", number % 3), "handshake_kind": "renegotiate", "lease_ttl_ms": 30_000,
        });
        if self.token {
            json["controller_token"] = format!("TOKEN-{number}").into();
        }
        if let Some(url) = self.outer_url {
            json["manager_url"] = url.into();
        }
        if self.block {
            json["controller_auto_attach"] = json!({
                "private_beach_id": "beach-1", "attach_code": format!("CODE-{number}"), "ttl_ms": self.ttl_ms,
            });
            if let Some(url) = self.block_url {
                json["controller_auto_attach"]["manager_url"] = url.into();
            }
        }
        json.to_string()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    /// A1 and A4.
    #[test]
    fn a_credential_goes_to_nobody_but_whom_it_is_for(
        offers in proptest::collection::vec((offers(), 0u16..8, 0u64..1500), 1..10),
        configured in prop_oneof![Just("http://manager.example"), Just("http://127.0.0.1:7171")],
        trusted in any::<bool>(),
        seed in any::<u8>(),
    ) {
        let config = AgentConfig { silent_intervals: 10_000, ..hinted(configured, trusted) };
        let mut scene = Scene::seeded(config, [seed; 32]);
        let mut open: Vec<(castra_core::id::EffectId, Asked)> = vec![];
        scene.connect();
        let canonical = |url: &str| url.parse::<ManagerUrl>().unwrap().to_string();
        let mut look = |scene: &mut Scene| -> Result<Vec<(castra_core::id::EffectId, Asked)>, TestCaseError> {
            let heard = scene.heard();
            for (effect, asked) in heard.http {
                let url: String = asked.line.split(' ').nth(1).unwrap().splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
                if asked.bearer == "SECRET-HINT" || asked.body.contains("SECRET-PASSCODE") {
                    prop_assert_eq!(&url, &canonical(configured), "a configured credential");
                } else {
                    prop_assert!(trusted, "an unkeyed link leads to nothing: {:?}", asked);
                    let number: usize = asked.bearer.strip_prefix("TOKEN-").unwrap().parse().unwrap();
                    let offer: &Offer = &offers[number].0;
                    prop_assert_eq!(&url, &canonical(offer.block_url.unwrap_or(configured)), "a handshake's token");
                    let beach = asked.line.contains("attach-by-code");
                    let code = format!("CODE-{number}\"");
                    prop_assert!(!beach || asked.body.contains(&code));
                }
                open.push((effect, asked));
            }
            open.retain(|(effect, _)| !scene.answered.contains(effect));
            let attempts = open.iter().filter(|(_, asked)| asked.line.contains("attach-by-code")).count();
            prop_assert!(attempts <= 1, "A1");
            // A cancelled effect is answered, too.
            for effect in heard.cancelled {
                open.retain(|(other, _)| *other != effect);
                scene.fail(effect, EffectErrorKind::Cancelled);
            }
            Ok(open.clone())
        };
        for (number, (offer, what, wait)) in offers.iter().enumerate() {
            look(&mut scene)?;
            scene.say(&offer.json(number));
            let open_now = look(&mut scene)?;
            if let Some((effect, _)) = open_now.last() {
                match what {
                    0 => scene.answer(*effect, 200, ATTACHED),
                    1 => scene.answer(*effect, 401, "{}"),
                    2 => scene.answer(*effect, 500, "{}"),
                    3 => scene.fail(*effect, EffectErrorKind::Unreachable),
                    _ => {}
                }
            }
            scene.world.live(millis(*wait));
        }
    }
}

#[test]
fn a_frame_that_is_no_frame_costs_no_secret() {
    let mut scene = Scene::up(trusting());
    scene.say(r#"{"type":"attached","session_id":"SECRET CODE"}"#);
    let log = scene.world.take();
    assert!(log.iter().any(|out| matches!(out, Out::Event(Fact::LinkDown { .. }))), "{log:?}");
    assert!(!format!("{log:?}").contains("SECRET"));
}
