use super::tests::{name, on_a_failing_disk, open, scratch};
use super::*;
use castra_core::attach::{
    Action, ActionCode, ActionStatus, Applied, AttachId, AttachLedger, Attachment, RestoredManager, Stage,
};
use proptest::prelude::*;
use redb::TableHandle;
use std::sync::atomic::Ordering;

use crate::database::Commit;
use crate::inbox::{INBOX_FILE, InboxStore};

fn id(text: &str) -> AttachId {
    text.parse().expect("an id")
}

fn attachment(guest: &str, number: u64) -> Attachment {
    Attachment {
        link_only: false,
        guest: name(guest),
        session: id(&format!("s-{number}")),
        beach: id("beach"),
        url: if number.is_multiple_of(2) { "link:" } else { "http://10.0.2.2:7171" }.parse().expect("a url"),
        handshake: id(&format!("h-{number}")),
        token: format!("token~{number}").parse().expect("a token"),
        code: number.is_multiple_of(3).then(|| "c\"o\\de".parse().expect("a code")),
        issued_at: WallTime::from_unix_millis(1_800_000_000_000 + number as i64),
        stage: if number.is_multiple_of(2) { Stage::Pending } else { Stage::Attached },
    }
}

fn action(number: u64, guest: &str, payload: &str) -> Action {
    Action {
        number,
        guest: name(guest),
        id: id(&format!("a-{number}")),
        kind: "terminal_write".into(),
        payload: payload.into(),
        queued_at: WallTime::from_unix_millis(1_800_000_000_000),
        ttl_ms: number * 1000,
    }
}

fn set(attachment: Attachment) -> Change {
    Change::SetAttachment(Box::new(attachment))
}

fn add(action: Action) -> Change {
    Change::SetAction(Box::new(action))
}

#[test]
fn attachments_and_actions_survive_each_as_it_was() {
    let directory = scratch();
    let (mut store, found) = open(directory.path());
    assert_eq!(found.manager, RestoredManager::default());
    let texts = ["{}", "{\"bytes\":\"\\u001b[2J ü 🎈\"}", "{\"bytes\":[0,255]}"];
    let attachments: Vec<_> =
        ["a", "b", "c"].into_iter().zip(1..).map(|(guest, number)| attachment(guest, number)).collect();
    let actions: Vec<_> = texts.iter().zip(7..).map(|(text, number)| action(number, "b", text)).collect();
    let changes = attachments.iter().cloned().map(set).chain(actions.iter().cloned().map(add)).collect();
    store.commit(&[&changes]).expect("a commit");
    drop(store);
    assert_eq!(open(directory.path()).1.manager, RestoredManager { attachments, actions });
}

#[test]
fn a_batch_that_fails_leaves_nothing_of_itself() {
    let directory = scratch();
    let (mut store, faults) = on_a_failing_disk(directory.path());
    let before = vec![set(attachment("a", 1)), add(action(1, "a", "{}")), set(attachment("b", 2))];
    let batch = vec![
        Change::DropAttachment { guest: name("a") },
        set(attachment("b", 3)),
        add(action(2, "b", "{}")),
        Change::Forget { guest: name("c") },
    ];
    let mut ledger = AttachLedger::default();
    before.iter().for_each(|change| ledger.apply(change));
    let old = ledger.restored();
    batch.iter().for_each(|change| ledger.apply(change));
    let new = ledger.restored();
    store.commit(&[&before]).expect("a commit");
    let mut nothing = 0;
    for well in 0.. {
        faults.well.store(well, Ordering::SeqCst);
        faults.full.store(1, Ordering::SeqCst);
        let result = store.commit(&[&batch]);
        faults.full.store(0, Ordering::SeqCst);
        let found = store.read().expect("the file is sound").manager;
        if result.is_err() && found == old {
            nothing += 1;
            continue;
        }
        // The last write of all may have come through without anybody hearing of it.
        assert_eq!(found, new);
        break;
    }
    assert!(nothing > 2, "{nothing}");
}

#[test]
fn a_database_of_the_version_before_opens_and_has_no_attachments() {
    let directory = scratch();
    let (mut store, _) = open(directory.path());
    store
        .file
        .transact(|transaction| {
            let tables: Vec<_> = transaction.list_tables()?.collect();
            let ours = |name: &str| ["attachments", "actions"].contains(&name);
            let mut gone = 0;
            for table in tables.into_iter().filter(|table| ours(table.name())) {
                transaction.delete_table(table)?;
                gone += 1;
            }
            assert_eq!(gone, 2);
            Ok(())
        })
        .expect("a commit");
    drop(store);
    let (_, found) = open(directory.path());
    assert_eq!(found.manager, RestoredManager::default());
    assert!(found.set_aside.is_none() && !found.vanished);
}

#[test]
fn a_row_that_makes_no_sense_is_damage_and_its_secrets_are_not_told() {
    let rows = [
        ("the attachment", Some("b"), row(&attachment("a", 3))),
        ("the attachment", Some("a"), b"{\"token\":\"token~3\"}".to_vec()),
        ("the attachment", Some("a"), b"token~3".to_vec()),
        ("the action", None, row(&action(5, "a", "\"token~3\""))),
        ("the action", None, b"{}".to_vec()),
    ];
    for (what, guest, value) in rows {
        let directory = scratch();
        let (mut store, _) = open(directory.path());
        let attachments = TableDefinition::<&str, &[u8]>::new("attachments");
        let actions = TableDefinition::<u64, &[u8]>::new("actions");
        let planted = store.file.transact(|transaction| {
            match guest {
                Some(guest) => {
                    transaction.open_table(attachments)?.insert(guest, value.as_slice())?.is_none()
                }
                None => transaction.open_table(actions)?.insert(4, value.as_slice())?.is_none(),
            };
            Ok(())
        });
        planted.expect("a commit");
        drop(store);
        let (_, damage) = open(directory.path()).1.set_aside.expect("set aside");
        assert!(damage.contains(what) && !damage.contains("token~3"), "{damage}");
    }
}

/// A row as the store writes it.
fn row(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a row")
}

fn any_name() -> impl Strategy<Value = &'static str> {
    // Few, so that they meet; one that is the beginning of another.
    prop::sample::select(vec!["a", "a-", "b", "B"])
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any_name(), 0..6_u64).prop_map(|(guest, number)| set(attachment(guest, number))),
        2 => any_name().prop_map(|guest| Change::DropAttachment { guest: name(guest) }),
        4 => (0..8_u64, any_name(), ".{0,9}").prop_map(|(number, guest, text)| add(action(number, guest, &text))),
        2 => (0..8_u64).prop_map(|number| Change::DropAction { number }),
        1 => any_name().prop_map(|guest| Change::Forget { guest: name(guest) }),
        1 => any_name().prop_map(|guest| Change::SetToken { guest: name(guest), key: None }),
    ]
}

fn any_applied() -> impl Strategy<Value = Change> {
    // One that is the beginning of another; and the two halves of a key could be mixed up.
    let ids = || prop::sample::select(vec!["s", "s-", "S", "1", "1.1"]);
    let outcomes = vec![
        None,
        Some((ActionStatus::Ok, None)),
        Some((ActionStatus::Rejected, Some(ActionCode::Interrupted))),
        Some((ActionStatus::Expired, None)),
        Some((ActionStatus::Preempted, Some(ActionCode::Owned))),
    ];
    let settled = prop::option::of((0..9_i64).prop_map(WallTime::from_unix_millis));
    let applied = (ids(), ids(), prop::sample::select(outcomes), settled).prop_map(
        |(session, action, outcome, settled_at)| {
            let applied = Applied { session: id(session), id: id(action), outcome, settled_at };
            Change::SetApplied(Box::new(applied))
        },
    );
    let dropped = (ids(), ids())
        .prop_map(|(session, action)| Change::DropApplied { session: id(session), id: id(action) });
    prop_oneof![3 => applied, 1 => dropped]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_database_holds_what_the_ledger_says(
        batches in prop::collection::vec(prop::collection::vec(any_change(), 1..12), 1..8)
    ) {
        let directory = scratch();
        let (mut store, _) = open(directory.path());
        let mut ledger = AttachLedger::default();
        for batch in &batches {
            batch.iter().for_each(|change| ledger.apply(change));
            store.commit(&[batch]).expect("a commit");
            prop_assert_eq!(store.read().expect("rows").manager, ledger.restored());
        }
        drop(store);
        prop_assert_eq!(open(directory.path()).1.manager, ledger.restored());
    }

    #[test]
    fn an_agents_database_holds_what_the_ledger_says(
        batches in prop::collection::vec(prop::collection::vec(any_applied(), 1..12), 1..8)
    ) {
        let directory = scratch();
        let now = WallTime::from_unix_millis(1_800_000_000_000);
        let mut ledger = AttachLedger::default();
        for batch in &batches {
            batch.iter().for_each(|change| ledger.apply(change));
            let (mut store, _) = InboxStore::open(directory.path(), &name("devbox"), now).expect("a store");
            store.commit(&[batch]).expect("a commit");
            drop(store);
            let found = InboxStore::open(directory.path(), &name("devbox"), now).expect("a store").1;
            prop_assert_eq!(found.restored.applied, ledger.applied());
        }
    }
}

#[test]
fn an_applied_action_under_a_key_that_is_not_its_own_is_damage() {
    let directory = scratch();
    let now = WallTime::from_unix_millis(1_800_000_000_000);
    let applied = Applied { session: id("s"), id: id("a"), outcome: None, settled_at: None };
    let (mut store, _) = InboxStore::open(directory.path(), &name("devbox"), now).expect("a store");
    store.commit(&[&vec![Change::SetApplied(Box::new(applied.clone()))]]).expect("a commit");
    drop(store);
    let table = TableDefinition::<(&str, &str), &[u8]>::new("applied");
    let database = redb::Database::open(directory.path().join(INBOX_FILE)).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    let row = serde_json::to_vec(&applied).expect("a row");
    transaction.open_table(table).expect("a table").insert(("a", "s"), row.as_slice()).expect("a row");
    transaction.commit().expect("a commit");
    drop(database);
    let (_, damage) = InboxStore::open(directory.path(), &name("devbox"), now)
        .expect("a store")
        .1
        .set_aside
        .expect("set aside");
    assert!(damage.contains("the action"), "{damage}");
}
