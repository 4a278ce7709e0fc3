//! A guest with a key, among peers.
#![allow(clippy::unwrap_used)]

use crate::common::name;
use crate::peering::Town;
use castra_core::auth::{Direction, Key, Transcript};
use castra_core::id::{Epoch, Nonce};
use serde_json::{Value, json};

const NONCE: &str = "0f0e0d0c0b0a09080706050403020100";

#[test]
fn its_name_is_authenticated_in_offers_and_messages_and_nobody_else_has_it() {
    let mut town = Town::of(&["a", "b"]);
    let issued = town.ask("token_issue", json!({"guest": "keyed"}));
    let key: Key = issued["data"]["token"].as_str().unwrap().parse().unwrap();
    let (conn, nonce, epoch) = town.world.hello("keyed", &format!(" nonce={NONCE}"));
    let hello = format!("hello vm:keyed capabilities=proof-v1 nonce={NONCE}");
    let (broker, own): (Nonce, Nonce) = (nonce.parse().unwrap(), NONCE.parse().unwrap());
    let transcript = Transcript::new(&name("keyed"), &broker, &own, Epoch(epoch), hello.as_bytes());
    town.world.write(conn, format!("proof {}\n", transcript.guest_proof(&key)).as_bytes());
    town.pump();
    assert!(town.world.line(conn).starts_with("ok session="));
    let session = transcript.session_key(&key);
    let mut count = 0;
    let mut say = |town: &mut Town, frame: Value| {
        let json = frame.to_string();
        let tag = session.tag(Direction::ToBroker, count, json.as_bytes());
        let tag: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        town.world.send(conn, &format!("{json}{tag}"));
        town.pump();
        count += 1;
    };
    say(&mut town, json!({"type": "peer_register", "id": 1, "name": "a"}));
    let offer = town.frames("a", "peer_offer").remove(0);
    assert_eq!((&offer["from"], &offer["from_authenticated"]), (&json!("keyed"), &json!(true)));
    town.say("a", json!({"type": "peer_answer", "id": offer["id"], "accept": true}));
    say(&mut town, json!({"type": "peer_send", "id": 2, "to": "a", "text": "x"}));
    let mail = town.mail("a");
    assert_eq!((&mail[0]["from"], &mail[0]["from_authenticated"]), (&json!("keyed"), &json!(true)));
    // Without the key there is neither the name nor anything in it.
    let stranger = town.world.open(castra_core::boundary::Transport::Tcp);
    town.world.line(stranger);
    town.world.write(stranger, b"hello vm:keyed capabilities=proof-v1,peers-v1\n");
    assert!(town.world.line(stranger).starts_with("error: "));
    assert!(town.world.is_closed(stranger));
    assert_eq!(town.peers(), [("a".into(), "keyed".into())]);
}
