//! Checks after actions: the list of what is due follows from the records.

use super::{action, decided, gateway, note, open, outcome, record, tamper, verify};
use crate::store::{Access, CheckRow, Store, StoreOptions, VerifyFault};
use holdpoint_types::{
    ActionRecord, CheckDue, CheckPlan, CheckRecord, Field, Finding, FindingResult, Reason, Record,
    RecordBody, Ruling, Timestamp,
};
use rusqlite::Connection;

fn plan() -> CheckPlan {
    CheckPlan { validator: "rows".to_owned(), after_s: vec![0, 60] }
}

/// A permitted action that needs checks.
fn permitted(number: u8, at_ms: i64) -> Record {
    let mut record = decided(number, Ruling::Permit, at_ms);
    if let RecordBody::Decision(decided) = &mut record.body {
        decided.more.checks = vec![plan()];
    }
    record
}

/// How it ended.
fn ended(number: u8, at_ms: i64) -> Record {
    let mut record = outcome(number, at_ms);
    if let RecordBody::Outcome(ended) = &mut record.body {
        ended.more.checks = plan().due_after(Timestamp(at_ms)).collect();
    }
    record
}

fn row(number: u8, due_ms: i64, by: u8) -> CheckRow {
    let due = CheckDue { due_ms: Timestamp(due_ms), validator: "rows".to_owned() };
    CheckRow { due, action: action(number), gateway: gateway(by) }
}

async fn check(store: &Store, row: CheckRow, at_ms: i64) -> bool {
    let RecordBody::Outcome(ended) = outcome(1, at_ms).body else { unreachable!() };
    let (agent, mut lineage) = (ended.agent, ended.lineage);
    let passes = (FindingResult::Pass, Reason::ValidatorObjects);
    let finding = Finding::new(row.due.validator.clone(), passes, "");
    lineage.post_validation = Field::Present(vec![finding]);
    let (action, more) = (row.action, CheckRecord { due_ms: row.due.due_ms });
    let body = RecordBody::Checked(Box::new(ActionRecord { action, agent, lineage, more }));
    store.checked(row, body, Timestamp(at_ms)).await.unwrap()
}

#[tokio::test]
async fn what_is_due_after_an_action_follows_from_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(permitted(1, 10)).await.unwrap();
    assert_eq!(store.open_checks(), Ok(vec![]));
    store.append(ended(1, 20)).await.unwrap();
    let (now, later) = (row(1, 20, 1), row(1, 60_020, 1));
    assert_eq!(store.due_checks(Timestamp(19), 9), Ok(vec![]));
    assert_eq!(store.due_checks(Timestamp(20), 9), Ok(vec![now.clone()]));
    assert_eq!(store.due_checks(Timestamp(60_020), 1), Ok(vec![now.clone()]));
    assert_eq!(store.open_checks(), Ok(vec![now.clone(), later.clone()]));
    assert_eq!(verify(dir.path()), Ok(2));
    // Whoever comes second writes nothing.
    assert!(check(&store, now.clone(), 30).await);
    assert!(!check(&store, now, 31).await);
    assert_eq!((store.open_check_count(), store.size()), (Ok(1), Ok(3)));
    assert_eq!(verify(dir.path()), Ok(3));
    drop(store);
    for forged in [
        "DELETE FROM open_checks",
        "UPDATE open_checks SET due_ms = due_ms + 1",
        "UPDATE open_checks SET validator = 'other'",
        "INSERT INTO open_checks SELECT due_ms + 1, action, validator, gateway FROM open_checks",
    ] {
        let copy = super::copy(dir.path());
        tamper(copy.path(), forged);
        let what = "list of open checks";
        assert_eq!(verify(copy.path()), Err(VerifyFault::State { what }), "{forged}");
    }
}

#[tokio::test]
async fn what_nobody_saw_the_end_of_is_due_from_the_next_start_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), 1);
    first.append(permitted(1, 10)).await.unwrap();
    // So many records that the action is in the index.
    for at in 11..300 {
        first.append_later(note(at)).unwrap();
    }
    first.append(permitted(2, 300)).await.unwrap();
    first.append(ended(2, 310)).await.unwrap();
    drop(first);
    let second = open(dir.path(), 2);
    let started = |at_ms: i64| {
        let RecordBody::Started { version, configuration, .. } = note(0).body else {
            unreachable!()
        };
        let in_doubt = vec![action(1)];
        let body = RecordBody::Started { version, configuration, in_doubt };
        Record { gateway: gateway(2), ..record(at_ms, body) }
    };
    second.append(started(1_000)).await.unwrap();
    let adopted = [row(1, 1_000, 2), row(1, 61_000, 2)];
    let all = vec![row(2, 310, 1), adopted[0].clone(), row(2, 60_310, 1), adopted[1].clone()];
    assert_eq!(second.open_checks(), Ok(all.clone()));
    // The next starts add nothing, whether some are made or not.
    second.append(started(2_000)).await.unwrap();
    assert_eq!(second.open_checks(), Ok(all));
    for row in adopted {
        assert!(check(&second, row, 62_000).await);
    }
    second.append(started(63_000)).await.unwrap();
    assert_eq!(second.open_check_count(), Ok(2));
    assert_eq!(verify(dir.path()), Ok(297));
}

#[tokio::test]
async fn a_store_of_the_first_format_is_read_as_it_is_and_carried_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(note(10)).await.unwrap();
    drop(store);
    let database = Connection::open(dir.path().join("ledger.db")).unwrap();
    database.execute_batch("DROP TABLE open_checks; PRAGMA user_version = 1").unwrap();
    drop(database);
    let options = StoreOptions::new(gateway(3), Access::ReadOnly);
    let reader = Store::open(dir.path(), options).unwrap();
    assert_eq!((reader.open_checks(), reader.open_check_count()), (Ok(vec![]), Ok(0)));
    assert_eq!(verify(dir.path()), Ok(1));
    drop(reader);
    let store = open(dir.path(), 2);
    store.append(permitted(1, 20)).await.unwrap();
    store.append(ended(1, 30)).await.unwrap();
    assert_eq!(store.open_check_count(), Ok(2));
    assert_eq!(verify(dir.path()), Ok(3));
}
