use super::tests::{name, on_a_failing_disk, open, scratch};
use super::*;
use castra_core::peers::{Expiry, Fate, Ledger, Message, MessageId, Pair, Policy, Relation};
use proptest::prelude::*;
use redb::TableHandle;
use std::sync::atomic::Ordering;

fn pair(one: &str, other: &str) -> Pair {
    Pair::new(name(one), name(other)).expect("two names")
}

fn linked(one: &str, other: &str) -> Change {
    Change::SetRelation { pair: pair(one, other), relation: Some(Relation::Linked) }
}

fn message(number: u64, text: &str) -> Message {
    Message {
        number,
        id: MessageId([number as u8; 16]),
        from: name("a"),
        to: name("b"),
        from_authenticated: number.is_multiple_of(2),
        text: text.into(),
        sent_at: WallTime::from_unix_millis(1_800_000_000_123),
        wake: !number.is_multiple_of(3),
        key: number.is_multiple_of(2).then(|| "once".into()),
        fate: Fate::Queued,
    }
}

#[test]
fn relations_policies_messages_and_fates_survive_each_as_it_was() {
    let directory = scratch();
    let (mut store, found) = open(directory.path());
    assert_eq!(found.peers, RestoredPeers::default());
    let at = WallTime::from_unix_millis(1_800_000_001_000);
    let fates = [
        Fate::Queued,
        Fate::Delivered { at },
        Fate::Rejected { at },
        Fate::Expired { at, why: Expiry::Ttl },
        Fate::Expired { at, why: Expiry::Unlinked },
        Fate::Expired { at, why: Expiry::Policy },
        Fate::Expired { at, why: Expiry::Forgotten },
        Fate::Expired { at, why: Expiry::NotQueued },
    ];
    let missing = Relation::Missing(name("b"));
    let mut batch = vec![
        linked("b", "a"),
        Change::SetRelation { pair: pair("b", "c"), relation: Some(missing) },
        linked("c", "d"),
        Change::SetRelation { pair: pair("c", "d"), relation: None },
        Change::SetPolicy { guest: name("c"), policy: Policy::Deny },
        Change::SetPolicy { guest: name("a"), policy: Policy::Ask },
        Change::SetPolicy { guest: name("b"), policy: Policy::Accept },
        Change::SetPolicy { guest: name("b"), policy: Policy::Default },
    ];
    let texts = ["plain", "", "\u{1b}[2J \"quoted\" \\ \u{0} \u{202e} ü 🎈", "two\nlines"];
    let mut messages = Vec::new();
    for (number, fate) in (7..).zip(fates) {
        let message = message(number, texts[number as usize % texts.len()]);
        batch.push(Change::SetMessage(Box::new(message.clone())));
        batch.push(Change::SetFate { number, fate });
        messages.push(Message { fate, ..message });
    }
    // One that nobody decided about yet, one whose text goes, and one that is dropped.
    messages.push(message(40, "waits"));
    batch.push(Change::SetMessage(Box::new(message(40, "waits"))));
    batch.push(Change::SetMessage(Box::new(message(8, ""))));
    messages[1].text = "".into();
    batch.push(Change::DropMessage { number: 9 });
    messages.remove(2);
    store.commit(&[&batch]).expect("a commit");
    // A dropped one's fate went with it: its number could be another's.
    store.commit(&[&vec![Change::SetMessage(Box::new(message(9, "anew")))]]).expect("a commit");
    messages.insert(2, message(9, "anew"));
    drop(store);
    let expected = RestoredPeers {
        relations: vec![(pair("a", "b"), Relation::Linked), (pair("b", "c"), missing)],
        policies: vec![(name("a"), Policy::Ask), (name("c"), Policy::Deny)],
        messages,
    };
    assert_eq!(open(directory.path()).1.peers, expected);
}

#[test]
fn forgetting_a_guest_takes_its_policy_and_leaves_it_missing_to_its_peers() {
    let directory = scratch();
    let (mut store, _) = open(directory.path());
    let forget = |guest| Change::Forget { guest: name(guest) };
    let batch = vec![
        linked("a", "b"),
        linked("b", "c"),
        linked("c", "d"),
        Change::SetPolicy { guest: name("b"), policy: Policy::Deny },
        Change::SetPolicy { guest: name("c"), policy: Policy::Accept },
        forget("b"),
    ];
    store.commit(&[&batch, &vec![forget("a")]]).expect("a commit");
    drop(store);
    let peers = open(directory.path()).1.peers;
    let missing = Relation::Missing(name("b"));
    assert_eq!(peers.relations, [(pair("b", "c"), missing), (pair("c", "d"), Relation::Linked)]);
    assert_eq!(peers.policies, [(name("c"), Policy::Accept)]);
}

#[test]
fn a_batch_that_fails_leaves_nothing_of_itself() {
    let directory = scratch();
    let (mut store, faults) = on_a_failing_disk(directory.path());
    let before = vec![linked("a", "b"), Change::SetMessage(Box::new(message(1, "first")))];
    let batch = vec![
        Change::Forget { guest: name("a") },
        Change::SetPolicy { guest: name("b"), policy: Policy::Deny },
        Change::SetMessage(Box::new(message(2, "second"))),
        Change::SetFate { number: 1, fate: Fate::Rejected { at: WallTime::default() } },
    ];
    let mut ledger = Ledger::default();
    before.iter().for_each(|change| ledger.apply(change));
    let old = ledger.restored();
    batch.iter().for_each(|change| ledger.apply(change));
    let new = ledger.restored();
    store.commit(&[&before]).expect("a commit");
    let mut nothing = 0;
    // Whichever write fails. From some number on there is none left to fail.
    for well in 0.. {
        faults.well.store(well, Ordering::SeqCst);
        faults.full.store(1, Ordering::SeqCst);
        let result = store.commit(&[&batch]);
        faults.full.store(0, Ordering::SeqCst);
        let found = store.read().expect("the file is sound").peers;
        match result {
            Err(_) if found == old => nothing += 1,
            // The last write of all may have come through without anybody hearing of it.
            Err(_) => {
                assert_eq!(found, new);
                break;
            }
            Ok(()) => {
                assert_eq!(found, new);
                break;
            }
        }
    }
    assert!(nothing > 2, "{nothing}");
    // A change that can't be written takes its whole transaction with it.
    let alien = vec![linked("x", "y"), Change::DropReceived { number: 1 }];
    let peers = store.read().expect("rows").peers;
    store.commit(&[&vec![linked("v", "w")], &alien]).expect_err("an agent's change");
    assert_eq!(store.read().expect("rows").peers, peers);
}

#[test]
fn a_database_of_the_version_before_opens_and_has_no_peers() {
    let directory = scratch();
    let (mut store, _) = open(directory.path());
    let key = Some(Key::from_bytes([1; 32]));
    store.commit(&[&vec![Change::SetToken { guest: name("a"), key: key.clone() }]]).expect("a commit");
    store
        .file
        .transact(|transaction| {
            let tables: Vec<_> = transaction.list_tables()?.collect();
            for table in tables.into_iter().filter(|table| !["meta", "tokens"].contains(&table.name())) {
                transaction.delete_table(table)?;
            }
            assert_eq!(transaction.list_tables()?.count(), 2);
            Ok(())
        })
        .expect("a commit");
    drop(store);
    let (_, found) = open(directory.path());
    assert_eq!((found.tokens, found.peers), (vec![(name("a"), key)], RestoredPeers::default()));
    assert!(found.set_aside.is_none() && !found.vanished);
}

#[test]
fn a_row_that_makes_no_sense_is_damage() {
    let rows: [(&str, &str, &[u8]); 5] = [
        ("b", "a", b"\"linked\""),
        ("a", "a", b"\"linked\""),
        ("a", "", b"\"linked\""),
        ("a", "b", b"\"married\""),
        ("a", "b", b"{\"missing\":\"c\"}"),
    ];
    for (low, high, value) in rows {
        let directory = scratch();
        let (mut store, _) = open(directory.path());
        let table = TableDefinition::<(&str, &str), &[u8]>::new("relations");
        let planted = store.file.transact(|transaction| {
            transaction.open_table(table)?.insert((low, high), value)?;
            Ok(())
        });
        planted.expect("a commit");
        drop(store);
        let (_, damage) = open(directory.path()).1.set_aside.expect("set aside");
        assert!(damage.contains("the relation"), "{damage}");
    }
}

fn any_name() -> impl Strategy<Value = GuestName> {
    // Few, so that they meet; one that is the beginning of another.
    prop::sample::select(vec!["a", "a-", "b", "B", "c"]).prop_map(name)
}

fn any_pair() -> impl Strategy<Value = Pair> {
    (any_name(), any_name()).prop_filter_map("two names", |(one, other)| Pair::new(one, other))
}

fn any_change() -> impl Strategy<Value = Change> {
    let relation = (any_pair(), 0..4_u8).prop_map(|(pair, kind)| {
        let [low, high] = pair.both();
        let relation = match kind {
            0 => None,
            1 => Some(Relation::Missing(low)),
            2 => Some(Relation::Missing(high)),
            _ => Some(Relation::Linked),
        };
        Change::SetRelation { pair, relation }
    });
    let policies = vec![Policy::Default, Policy::Accept, Policy::Ask, Policy::Deny];
    let policy = (any_name(), prop::sample::select(policies))
        .prop_map(|(guest, policy)| Change::SetPolicy { guest, policy });
    let fate = (0..6_u64, 0..3_i64).prop_map(|(number, at)| {
        let at = WallTime::from_unix_millis(at);
        let fate =
            if number % 2 == 0 { Fate::Delivered { at } } else { Fate::Expired { at, why: Expiry::Ttl } };
        Change::SetFate { number, fate }
    });
    prop_oneof![
        4 => relation,
        2 => policy,
        2 => any_name().prop_map(|guest| Change::Forget { guest }),
        3 => (0..6_u64, ".{0,9}").prop_map(|(number, text)| Change::SetMessage(Box::new(message(number, &text)))),
        2 => fate,
        1 => (0..6_u64).prop_map(|number| Change::DropMessage { number }),
        1 => any_name().prop_map(|guest| Change::SetToken { guest, key: None }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_database_holds_what_the_ledger_says(
        batches in prop::collection::vec(prop::collection::vec(any_change(), 1..12), 1..8)
    ) {
        let directory = scratch();
        let (mut store, _) = open(directory.path());
        let mut ledger = Ledger::default();
        for batch in &batches {
            batch.iter().for_each(|change| ledger.apply(change));
            store.commit(&[batch]).expect("a commit");
            prop_assert_eq!(store.read().expect("rows").peers, ledger.restored());
        }
        drop(store);
        prop_assert_eq!(open(directory.path()).1.peers, ledger.restored());
    }
}
