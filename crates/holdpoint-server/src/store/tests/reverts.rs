//! Stuck reverts: what is listed follows from the records, until somebody took the action back.

use super::{action, open, record, verify};
use crate::store::{Access, Store, StoreOptions, VerifyFault};
use holdpoint_types::{ChangeCounts, RecordBody, RevertRecord, RevertStatus, Timestamp};

fn reverted(number: u8, status: RevertStatus) -> RecordBody {
    RecordBody::Reverted(Box::new(RevertRecord {
        of: action(number),
        agent: "coder".parse().unwrap(),
        action: None,
        status,
        restored: ChangeCounts::default(),
        conflicts: Vec::new(),
        detail: None,
        by: "ada".to_owned(),
        because: "wrong rows".to_owned(),
    }))
}

#[tokio::test]
async fn a_stuck_revert_is_listed_until_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let steps = [
        (1, RevertStatus::Stuck, vec![0]),
        (2, RevertStatus::Stuck, vec![0, 1]),
        (1, RevertStatus::Stuck, vec![2, 1]),
        (3, RevertStatus::Impossible, vec![2, 1]),
        (2, RevertStatus::Partly, vec![2]),
    ];
    for (at_ms, (number, status, listed)) in (10..).zip(steps) {
        store.append(record(at_ms, reverted(number, status))).await.unwrap();
        let stuck = store.stuck_reverts().unwrap();
        assert_eq!(stuck.iter().map(|one| one.seq).collect::<Vec<_>>(), listed);
        assert_eq!(verify(dir.path()), Ok(u64::try_from(at_ms - 9).unwrap()));
    }
    drop(store);
    let database = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    database.execute_batch("DELETE FROM stuck_reverts").unwrap();
    let what = "list of stuck reverts";
    assert_eq!(verify(dir.path()), Err(VerifyFault::State { what }));
    let plan = format!("EXPLAIN QUERY PLAN {}", crate::store::query::OF_PEOPLE);
    let plan: String = database.query_row(&plan, [0], |row| row.get(3)).unwrap();
    assert!(plan.contains("records_of_people"), "{plan}");
    let reader = Store::open(dir.path(), StoreOptions::new(super::gateway(2), Access::ReadOnly));
    let reader = reader.unwrap();
    assert_eq!(reader.stuck_reverts(), Ok(vec![]));
    let said = reader.of_people(Timestamp(12)).unwrap();
    assert_eq!(said.iter().map(|one| one.seq).collect::<Vec<_>>(), [2, 3, 4]);
}
