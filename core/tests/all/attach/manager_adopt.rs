//! Adopting, handshakes and codes, as the operator and an agent on its link see them.
#![allow(clippy::unwrap_used)]

use crate::common::ms;
use crate::managing;
use crate::managing::{Shore, code, secs};
use castra_core::boundary::Wakeup;
use serde_json::json;

#[test]
fn a_guest_is_adopted_over_its_link_and_attaches_with_the_code() {
    let mut shore = Shore::new();
    shore.join("web-1");
    let id = shore.order("adopt", json!({"guest": "web-1", "beach_id": "6f1c"}));
    assert_eq!(shore.answer(id), None, "it waits until the guest is attached");
    let told = shore.told("web-1");
    assert_eq!((&*told.beach, &*told.url, &*told.kind), ("6f1c", "link:", "renegotiate"));
    let row = shore.rows().remove(0);
    assert_eq!((&row["stage"], &row["route"]), (&json!("pending"), &json!(null)));
    shore.attach("web-1", &told);
    let heard = shore.hear("web-1");
    let session = &told.session;
    assert_eq!(
        heard,
        [json!({"type": "attached", "session_id": session, "ok": true, "attach_method": "code"})]
    );
    let answer = shore.answer(id).unwrap();
    let expected = json!({
        "guest": "web-1", "session_id": session, "private_beach_id": "6f1c", "manager_url": "link:",
        "handshake_id": told.id, "stage": "attached",
    });
    assert_eq!(answer["data"], expected);
    let row = shore.rows().remove(0);
    assert_eq!((&row["stage"], &row["route"]), (&json!("attached"), &json!("link")));
    assert_eq!(row["lease_expires_in_ms"], 30_000);
    assert_eq!(row["code_expires_in_ms"], 600_000);
    assert_eq!((shore.count("manager.handshake.sent"), shore.count("manager.handshake.accepted")), (1, 1));
}

#[test]
fn the_handshake_is_that_of_the_specification() {
    let mut shore = Shore::new();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let frame = shore.frames("web-1", "manager_handshake").remove(0);
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut expected = vec![
        "type",
        "schema",
        "handshake_id",
        "handshake_kind",
        "session_id",
        "private_beach_id",
        "manager_url",
        "controller_token",
        "lease_expires_at_ms",
        "lease_ttl_ms",
        "controller_auto_attach",
        "stale_session_idle_secs",
        "viewer_health_interval_secs",
    ];
    expected.sort_unstable();
    assert_eq!(keys(&frame), expected);
    let block = &frame["controller_auto_attach"];
    let mut expected =
        vec!["private_beach_id", "attach_code", "manager_url", "issued_at_ms", "expires_at_ms", "ttl_ms"];
    expected.sort_unstable();
    assert_eq!(keys(block), expected);
    assert_eq!((&frame["lease_ttl_ms"], &block["ttl_ms"]), (&json!(30_000), &json!(600_000)));
    let issued = block["issued_at_ms"].as_i64().unwrap();
    assert_eq!(issued, shore.world.now.wall.unix_millis());
    assert_eq!(block["expires_at_ms"], issued + 600_000);
    assert_eq!(frame["lease_expires_at_ms"], issued + 30_000);
    assert_eq!(
        (&frame["stale_session_idle_secs"], &frame["viewer_health_interval_secs"]),
        (&json!(60), &json!(15))
    );
}

#[test]
fn the_address_is_advertised_or_the_guest_s_own_or_its_link() {
    let url = |change: fn(&mut castra_core::config::BrokerConfig), local: &str, link: bool| {
        let mut shore = Shore::with(change);
        shore.world.local = Some(local.parse().unwrap());
        shore.join("web-1");
        shore.ask("adopt", json!({"guest": "web-1", "wait": false, "link": link}));
        shore.told("web-1").url
    };
    let advertised: fn(&mut castra_core::config::BrokerConfig) = |config| {
        config.manager.http = Some("127.0.0.1:7171".parse().unwrap());
        config.manager.advertise = Some("https://manager.example".parse().unwrap());
    };
    assert_eq!(url(advertised, "10.0.2.2:9", false), "https://manager.example:443");
    assert_eq!(url(advertised, "10.0.2.2:9", true), "link:");
    assert_eq!(url(managing::with_http, "10.0.2.2:9", false), "http://10.0.2.2:7171");
    assert_eq!(url(managing::with_http, "[::ffff:10.0.2.2]:9", false), "http://10.0.2.2:7171");
    // Nobody listens at the address that the guest reached.
    assert_eq!(url(managing::with_http, "[2001:db8::1]:9", false), "link:");
    let one: fn(&mut castra_core::config::BrokerConfig) =
        |config| config.manager.http = Some("10.0.2.2:7171".parse().unwrap());
    assert_eq!(url(one, "10.0.2.2:9", false), "http://10.0.2.2:7171");
    assert_eq!(url(one, "127.0.0.1:9", false), "link:");
    let six: fn(&mut castra_core::config::BrokerConfig) =
        |config| config.manager.http = Some("[::]:7171".parse().unwrap());
    assert_eq!(url(six, "[2001:db8::1]:9", false), "http://[2001:db8::1]:7171");
    assert_eq!(url(six, "[fe80::1]:9", false), "link:", "without its zone it leads nowhere");
    assert_eq!(url(|_| {}, "10.0.2.2:9", false), "link:");
}

#[test]
fn a_guest_that_is_unknown_can_t_be_adopted_and_one_that_is_away_is_told_when_it_comes() {
    let mut shore = Shore::with(|config| config.guests = vec!["away".parse().unwrap()]);
    assert_eq!(code(&shore.ask("adopt", json!({"guest": "nobody"}))), "unknown_guest");
    let answer = shore.ask("adopt", json!({"guest": "away", "wait": false}));
    assert_eq!((code(&answer), &answer["data"]["stage"]), ("adopted", &json!("pending")));
    let waits = shore.order("adopt", json!({"guest": "away", "timeout_ms": 60_000}));
    shore.pass(secs(5));
    assert_eq!(shore.answer(waits), None);
    shore.join("away");
    assert!(shore.hear("away").is_empty(), "it may still say that it is attached");
    shore.pass(ms(499));
    assert!(shore.hear("away").is_empty());
    shore.pass(ms(1));
    let told = shore.told("away");
    shore.attach("away", &told);
    assert_eq!(code(&shore.answer(waits).unwrap()), "adopted");
}

#[test]
fn adopting_again_refreshes_and_another_beach_or_way_is_a_conflict() {
    let mut shore = Shore::http();
    shore.join("web-1");
    let id = shore.order("adopt", json!({"guest": "web-1", "beach_id": "one"}));
    let told = shore.told("web-1");
    assert_eq!(shore.post_attach(&told).status, 200);
    assert_eq!(code(&shore.answer(id).unwrap()), "adopted");
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    shore.hear("web-1");
    let again = shore.ask("adopt", json!({"guest": "web-1", "beach_id": "one"}));
    assert_eq!((code(&again), &again["data"]["stage"]), ("adopted", &json!("attached")));
    let fresh = shore.told("web-1");
    assert_eq!(fresh.kind, "refresh");
    assert_eq!((&fresh.token, &fresh.session, &fresh.url), (&told.token, &told.session, &told.url));
    let conflict = shore.ask("adopt", json!({"guest": "web-1", "beach_id": "two"}));
    assert_eq!(code(&conflict), "conflict");
    assert!(conflict["data"]["message"].as_str().unwrap().contains("release it first"), "{conflict}");
    assert_eq!(code(&shore.ask("adopt", json!({"guest": "web-1", "link": true}))), "conflict");
    assert!(shore.hear("web-1").is_empty());
    // It is still attached, and the fast path goes on.
    assert_eq!(shore.rows()[0]["route"], "link");
}

#[test]
fn requests_that_come_together_are_begun_in_their_order() {
    let lines = |shore: &mut Shore, cut: bool| {
        shore.join("web-1");
        let adopt = json!({"id": 1, "method": "adopt", "params": {"guest": "web-1", "wait": false}});
        let forget = json!({"id": 2, "method": "forget", "params": {"guest": "web-1"}});
        let bytes = format!("{adopt}\n{forget}\n");
        let place = if cut { adopt.to_string().len() + 1 } else { 0 };
        for piece in [&bytes[..place], &bytes[place..]] {
            shore.world.write(shore.operator, piece.as_bytes());
        }
        shore.pump();
        [1, 2].map(|id| code(&shore.answer(id).unwrap()).to_owned())
    };
    let [cut, whole] = [true, false].map(|cut| lines(&mut Shore::new(), cut));
    assert_eq!(cut, whole);
    assert_eq!(whole, ["adopted", "forgotten"]);
}

#[test]
fn that_a_guest_gave_up_counts_even_if_its_session_ends_with_the_next_bytes() {
    for cut in [false, true] {
        let mut shore = Shore::new();
        shore.join("web-1");
        shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
        let session = shore.told("web-1").session;
        let state = format!(
            r#"{{"type":"attach_state","session_id":"{session}","attached":false,"attempt":1,"failure_count":1,"last_error":{{"code":"unkeyed_link","message":"no"}}}}"#
        );
        let length = u32::try_from(state.len()).unwrap().to_be_bytes();
        let frames = [&length[..], state.as_bytes(), &[0, 0, 0, 1, b'?']].concat();
        let place = if cut { 4 + state.len() } else { 0 };
        for piece in [&frames[..place], &frames[place..]] {
            shore.world.write(shore.guests["web-1"], piece);
        }
        shore.pump();
        assert_eq!(shore.count("manager.attach.refused"), 1, "cut: {cut}");
    }
}

#[test]
fn a_wait_ends_when_the_guest_gave_up_with_its_reason() {
    let mut shore = Shore::new();
    shore.join("web-1");
    let id = shore.order("adopt", json!({"guest": "web-1"}));
    let told = shore.told("web-1");
    let state = |handshake: &str, next: &str| {
        format!(
            r#"{{"type":"attach_state","session_id":"{}","handshake_id":"{handshake}","attached":false,"attempt":1,"failure_count":1,"next_retry_ms":{next},"last_error":{{"code":"unkeyed_link","message":"say \"trust\"\n"}}}}"#,
            told.session
        )
    };
    shore.say("web-1", &state("another", "null"));
    shore.say("web-1", &state(&told.id, "250"));
    assert_eq!(shore.answer(id), None, "it tries again");
    assert_eq!(shore.rows()[0]["next_retry_ms"], 250);
    shore.say("web-1", &state(&told.id, "null"));
    let answer = shore.answer(id).unwrap();
    assert_eq!(code(&answer), "refused");
    let message = answer["data"]["message"].as_str().unwrap();
    assert!(message.contains("unkeyed_link") && message.contains(r#"say \"trust\"?"#), "{message}");
    let row = shore.rows().remove(0);
    assert_eq!((&row["attempt"], &row["last_error"]["code"]), (&json!(1), &json!("unkeyed_link")));
    assert_eq!(shore.count("manager.attach.refused"), 1);
    // Adopting again starts anew.
    let id = shore.order("adopt", json!({"guest": "web-1"}));
    let fresh = shore.told("web-1");
    assert!(fresh.id != told.id && fresh.code != told.code && fresh.token != told.token);
    shore.attach("web-1", &fresh);
    assert_eq!(code(&shore.answer(id).unwrap()), "adopted");
}

#[test]
fn a_wait_has_a_bound_and_the_adoption_stays() {
    let mut shore = Shore::new();
    shore.join("web-1");
    let id = shore.order("adopt", json!({"guest": "web-1", "timeout_ms": 2000}));
    shore.pass(ms(1999));
    assert_eq!(shore.answer(id), None);
    shore.pass(ms(1));
    let answer = shore.answer(id).unwrap();
    assert_eq!(code(&answer), "timeout");
    assert!(answer["data"]["message"].as_str().unwrap().contains("stays adopted"), "{answer}");
    let told = shore.told("web-1");
    shore.attach("web-1", &told);
    assert_eq!(shore.rows()[0]["stage"], "attached");
}

#[test]
fn an_agent_that_knows_nothing_of_attachments_is_not_adopted() {
    let mut shore = Shore::new();
    shore.join_as("old", "");
    assert_eq!(code(&shore.ask("adopt", json!({"guest": "old"}))), "unsupported");
    assert!(shore.rows().is_empty() && shore.hear("old").is_empty());
}

#[test]
fn whoever_is_attached_says_so_on_a_new_link_and_is_told_nothing_but_its_lease() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.leave("web-1");
    shore.pass(secs(3));
    shore.join("web-1");
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    shore.pass(secs(2));
    assert_eq!(
        shore.hear("web-1"),
        [json!({"type": "lease", "session_id": told.session, "lease_ttl_ms": 30_000})]
    );
    assert_eq!(shore.rows()[0]["handshake_id"], told.id);
    assert_eq!(shore.rows()[0]["route"], "link");
}

#[test]
fn whoever_says_nothing_on_a_new_link_is_told_anew_with_another_token() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.leave("web-1");
    shore.join("web-1");
    shore.pass(ms(500));
    let fresh = shore.told("web-1");
    assert_eq!((&*fresh.kind, &fresh.session, &fresh.beach), ("renegotiate", &told.session, &told.beach));
    assert!(fresh.token != told.token && fresh.code != told.code && fresh.id != told.id);
    assert_eq!(shore.rows()[0]["stage"], "pending");
    // What was right before is wrong now.
    shore.attach("web-1", &told);
    assert_eq!(shore.frames("web-1", "attach_refused")[0]["code"], "invalid_code");
    shore.attach("web-1", &fresh);
    assert_eq!(shore.frames("web-1", "attached").len(), 1);
}

#[test]
fn whoever_is_attached_under_another_session_is_detached_and_told_anew() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    shore.leave("web-1");
    shore.join("web-1");
    shore.say("web-1", r#"{"type":"attached","session_id":"stale"}"#);
    let heard = shore.hear("web-1");
    assert_eq!(heard[0], json!({"type": "manager_detach", "session_id": "stale"}));
    assert_eq!((heard.len(), &heard[1]["type"]), (2, &json!("manager_handshake")));
    // One that nobody adopted is detached, too, and that is all.
    shore.join("other");
    shore.say("other", r#"{"type":"attached","session_id":"stale"}"#);
    shore.say("other", r#"{"type":"lease_renew","session_id":"stale"}"#);
    shore.pass(secs(2));
    let detach = json!({"type": "manager_detach", "session_id": "stale"});
    assert_eq!(shore.hear("other"), [detach.clone(), detach]);
}

#[test]
fn an_adoption_that_is_pending_counts_for_nothing_when_the_guest_says_it_is_attached() {
    let mut shore = Shore::new();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    shore.leave("web-1");
    shore.join("web-1");
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    assert!(shore.frames("web-1", "lease").is_empty());
    let fresh = shore.told("web-1");
    assert_ne!(fresh.code, told.code);
    shore.say("web-1", &format!(r#"{{"type":"attached","session_id":"{}"}}"#, told.session));
    shore.pass(secs(2));
    assert!(shore.hear("web-1").is_empty(), "no handshake after the other");
}

#[test]
fn a_code_that_nobody_used_expires_and_is_replaced_if_the_guest_is_there() {
    let mut shore = Shore::new();
    shore.join("web-1");
    shore.ask("adopt", json!({"guest": "web-1", "wait": false}));
    let told = shore.told("web-1");
    shore.pass(secs(599));
    assert_eq!(shore.count("manager.handshake.expired"), 0);
    shore.pass(secs(1));
    assert_eq!(shore.count("manager.handshake.expired"), 1);
    let fresh = shore.told("web-1");
    assert!(fresh.code != told.code && fresh.session == told.session);
    shore.attach("web-1", &told);
    assert_eq!(shore.frames("web-1", "attach_refused")[0]["code"], "invalid_code");
    shore.leave("web-1");
    shore.pass(secs(601));
    assert_eq!(shore.count("manager.handshake.expired"), 2);
    assert_eq!(shore.rows()[0]["code_expires_in_ms"], json!(null));
    assert_eq!(shore.ledger.restored().attachments[0].code, None);
    shore.pass(secs(1200));
    assert_eq!(shore.count("manager.handshake.expired"), 2, "once each");
}

#[test]
fn a_code_that_was_used_is_forgotten_silently_and_until_then_gives_the_same_answer() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.pass(secs(590));
    shore.attach("web-1", &told);
    assert_eq!(shore.frames("web-1", "attached").len(), 1);
    assert_eq!(shore.count("manager.handshake.accepted"), 1);
    shore.pass(secs(20));
    shore.attach("web-1", &told);
    assert_eq!(shore.frames("web-1", "attach_refused")[0]["code"], "invalid_code");
    assert_eq!(
        (shore.count("manager.handshake.expired"), &*shore.rows()[0]["stage"].to_string()),
        (0, "\"attached\"")
    );
}

#[test]
fn a_code_is_good_for_one_session_handshake_and_guest_alone() {
    let mut shore = Shore::new();
    for name in ["a", "b"] {
        shore.join(name);
        shore.ask("adopt", json!({"guest": name, "wait": false}));
    }
    let (a, b) = (shore.told("a"), shore.told("b"));
    let refused = |shore: &mut Shore, name, told: &managing::Told| {
        shore.attach(name, told);
        let mut found = shore.frames(name, "attach_refused");
        assert_eq!(found.len(), 1);
        found.remove(0)["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(&mut shore, "b", &a), "unknown_session");
    assert_eq!(
        refused(&mut shore, "a", &managing::Told { code: b.code.clone(), ..a.clone() }),
        "invalid_code"
    );
    assert_eq!(refused(&mut shore, "a", &managing::Told { id: b.id.clone(), ..a.clone() }), "invalid_code");
    assert_eq!(
        refused(&mut shore, "a", &managing::Told { session: b.session, ..a.clone() }),
        "unknown_session"
    );
    assert!(shore.rows().iter().all(|row| row["stage"] == "pending"));
    shore.attach("a", &a);
    assert_eq!(shore.frames("a", "attached").len(), 1);
}

#[test]
fn attachments_have_a_bound_and_a_released_one_makes_room() {
    let mut shore = Shore::with(|config| config.manager.attachments_max = 1);
    shore.adopted("a");
    shore.join("b");
    assert_eq!(code(&shore.ask("adopt", json!({"guest": "b"}))), "full");
    shore.ask("release", json!({"guest": "a"}));
    assert_eq!(code(&shore.ask("adopt", json!({"guest": "b", "wait": false}))), "adopted");
}

#[test]
fn released_means_detached_and_forgotten() {
    let mut shore = Shore::new();
    let told = shore.adopted("web-1");
    shore.queue("web-1");
    let waits =
        shore.order("action_send", json!({"guest": "web-1", "action_type": "terminal_write", "payload": {}}));
    shore.hear("web-1");
    let answer = shore.ask("release", json!({"guest": "web-1"}));
    assert_eq!(answer["data"], json!({"guest": "web-1", "session_id": told.session, "dropped": 2}));
    assert_eq!(code(&shore.answer(waits).unwrap()), "not_attached");
    assert_eq!(shore.hear("web-1"), [json!({"type": "manager_detach", "session_id": told.session})]);
    assert_eq!(shore.ledger.restored(), Default::default());
    assert_eq!((shore.rows().len(), shore.queued().len()), (0, 0));
    assert_eq!(code(&shore.ask("release", json!({"guest": "web-1"}))), "not_attached");
    assert_eq!(code(&shore.ask("release", json!({"guest": "nobody"}))), "unknown_guest");
    shore.attach("web-1", &told);
    assert_eq!(shore.frames("web-1", "attach_refused")[0]["code"], "unknown_session");
    let next = shore.world.deadline.map(|deadline| deadline.why);
    assert!(next != Some(Wakeup::Attach), "nothing is owed any more");
}

#[test]
fn a_guest_that_is_forgotten_is_released_even_while_it_is_being_adopted() {
    let mut shore = Shore::new();
    shore.adopted("web-1");
    shore.queue("web-1");
    shore.stuck = true;
    let forget = shore.order("forget", json!({"guest": "web-1"}));
    let adopt = shore.order("adopt", json!({"guest": "web-1"}));
    let send = shore.order("action_send", json!({"guest": "web-1", "action_type": "x", "payload": {}}));
    shore.release();
    assert_eq!(code(&shore.answer(forget).unwrap()), "forgotten");
    assert_eq!(code(&shore.answer(adopt).unwrap()), "unknown_guest");
    assert_eq!(code(&shore.answer(send).unwrap()), "unknown_guest");
    assert_eq!(shore.ledger.restored(), Default::default());
    assert!(shore.rows().is_empty());
}
