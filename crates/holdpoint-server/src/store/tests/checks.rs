//! Checks after actions: the list of what is due follows from the records.

use super::{action, decided, gateway, note, open, outcome, record, tamper, verify};
use crate::store::{Access, CheckRow, DueQuery, Store, StoreOptions, VerifyFault};
use holdpoint_types::{
    ActionRecord, CheckDue, CheckPlan, CheckRecord, Field, Finding, FindingResult, Reason, Record,
    RecordBody, Ruling, Timestamp,
};
use rusqlite::Connection;
use std::collections::BTreeSet;

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

/// What process `own` wants at `now_ms`, with nobody else alive.
fn wanted(own: u8, now_ms: i64) -> DueQuery {
    DueQuery {
        now: Timestamp(now_ms),
        overdue: Timestamp(now_ms - 60_000),
        own: gateway(own),
        living: BTreeSet::new(),
        able: BTreeSet::from(["rows".to_owned()]),
        busy: BTreeSet::new(),
        most: 9,
    }
}

#[tokio::test]
async fn whose_turn_a_check_is_depends_on_who_lives_and_who_can() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(permitted(1, 10)).await.unwrap();
    store.append(ended(1, 20)).await.unwrap();
    let check = |wanted: DueQuery, found: usize| {
        assert_eq!(store.due_checks(&wanted).unwrap().len(), found, "{wanted:?}");
    };
    let living = BTreeSet::from([gateway(1)]);
    let rows = BTreeSet::from(["rows".to_owned()]);
    let none = BTreeSet::new();
    check(wanted(1, 30), 1);
    // One's own come first, even if nobody can be asked any more.
    check(DueQuery { able: none.clone(), ..wanted(1, 30) }, 1);
    check(DueQuery { busy: rows.clone(), ..wanted(1, 30) }, 0);
    // Another process leaves them to who lives, and to who can ask.
    check(DueQuery { living: living.clone(), ..wanted(2, 30) }, 0);
    check(wanted(2, 30), 1);
    check(DueQuery { able: none.clone(), ..wanted(2, 30) }, 0);
    // What is overdue is everybody's.
    check(DueQuery { living: living.clone(), ..wanted(2, 60_020) }, 1);
    check(DueQuery { able: none, ..wanted(2, 60_020) }, 1);
    check(DueQuery { busy: rows, ..wanted(2, 60_020) }, 0);
    assert_eq!(store.living_checkers(), Ok(living));
}

#[tokio::test]
async fn what_is_due_after_an_action_follows_from_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(permitted(1, 10)).await.unwrap();
    assert_eq!(store.open_checks(), Ok(vec![]));
    store.append(ended(1, 20)).await.unwrap();
    let (now, later) = (row(1, 20, 1), row(1, 60_020, 1));
    assert_eq!(store.due_checks(&wanted(1, 19)), Ok(vec![]));
    assert_eq!(store.due_checks(&wanted(1, 20)), Ok(vec![now.clone()]));
    let one = DueQuery { most: 1, ..wanted(1, 60_020) };
    assert_eq!(store.due_checks(&one), Ok(vec![now.clone()]));
    assert_eq!(store.open_checks(), Ok(vec![now.clone(), later.clone()]));
    assert_eq!(verify(dir.path()), Ok(2));
    // Whoever comes second writes nothing.
    assert!(check(&store, now.clone(), 30).await);
    assert!(!check(&store, now, 31).await);
    assert_eq!((store.open_check_count(), store.size()), (Ok((1, Some(Timestamp(60_020)))), Ok(3)));
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
async fn what_nobody_saw_the_end_of_is_due_from_its_decision_on() {
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
    // Whoever waits for long before starting again gains nothing.
    let adopted = [row(1, 10, 2), row(1, 60_010, 2)];
    let all = vec![adopted[0].clone(), row(2, 310, 1), adopted[1].clone(), row(2, 60_310, 1)];
    assert_eq!(second.open_checks(), Ok(all.clone()));
    // The next starts add nothing, whether some are made or not.
    second.append(started(2_000)).await.unwrap();
    assert_eq!(second.open_checks(), Ok(all));
    for row in adopted {
        assert!(check(&second, row, 62_000).await);
    }
    second.append(started(63_000)).await.unwrap();
    assert_eq!(second.open_check_count().map(|(count, _)| count), Ok(2));
    assert_eq!(verify(dir.path()), Ok(297));
}

#[tokio::test]
async fn a_store_of_the_first_format_is_read_as_it_is_and_carried_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(note(10)).await.unwrap();
    drop(store);
    let database = Connection::open(dir.path().join("ledger.db")).unwrap();
    database
        .execute_batch(
            "DROP TABLE open_checks; DROP TABLE approvals; DROP TABLE grants; \
             DROP TABLE plans; DROP TABLE plan_calls; DROP TABLE plan_looks; \
             DROP TABLE stuck_reverts; DROP INDEX records_of_people; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(database);
    let options = StoreOptions::new(gateway(3), Access::ReadOnly);
    let reader = Store::open(dir.path(), options).unwrap();
    assert_eq!((reader.open_checks(), reader.open_check_count()), (Ok(vec![]), Ok((0, None))));
    assert_eq!((reader.approvals(), reader.grants()), (Ok(vec![]), Ok(vec![])));
    assert_eq!(verify(dir.path()), Ok(1));
    drop(reader);
    let store = open(dir.path(), 2);
    store.append(permitted(1, 20)).await.unwrap();
    store.append(ended(1, 30)).await.unwrap();
    assert_eq!(store.open_check_count(), Ok((2, Some(Timestamp(30)))));
    assert_eq!(verify(dir.path()), Ok(3));
}
