//! Unit tests of the store: one process, real files.

mod approvals;
mod checks;
mod forged;
mod grants;
mod plans;
mod reverts;

use super::{
    Access, Admission, NewKey, Pin, RecordQuery, ReleaseOf, Store, StoreFault, StoreOptions,
    VerifyFault,
};
use holdpoint_ledger::{LogFault, leaf_hash, open_checkpoint, verify_inclusion};
use holdpoint_types::{
    ActionId, ActionRecord, AgentFacts, Cause, Decision, DecisionRecord, Digest, Door, Epoch,
    Facts, Field, GatewayId, GrantFacts, Lineage, Mode, OutcomeRecord, OutcomeStatus, Reason,
    Record, RecordBody, Request, Ruling, StopScope, TargetFacts, Timestamp, canonical_digest,
};
use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::json;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use tempfile::TempDir;

fn gateway(number: u8) -> GatewayId {
    GatewayId::new(Timestamp(1_000), [number; 10])
}

fn action(number: u8) -> ActionId {
    ActionId::new(Timestamp(2_000), [number; 10])
}

fn open(dir: &Path, number: u8) -> Store {
    Store::open(dir, StoreOptions::new(gateway(number), Access::Govern)).unwrap()
}

fn lineage() -> Lineage {
    let none = || "test".to_owned();
    Lineage {
        user_intent: Field::Absent(none()),
        policy_version: Field::Absent(none()),
        retrieved_context: Field::Absent(none()),
        tool: Field::Present("db__query".parse().unwrap()),
        parameters: Field::Absent(none()),
        target_resource: Field::Present("pg://prod/users".into()),
        tool_output: Field::Absent(none()),
        post_validation: Field::Absent(none()),
    }
}

fn record(at_ms: i64, body: RecordBody) -> Record {
    Record { at_ms: Timestamp(at_ms), gateway: gateway(1), body }
}

fn note(at_ms: i64) -> Record {
    let (version, configuration) = ("0.1.0".to_owned(), Digest::of(b"toml"));
    record(at_ms, RecordBody::Started { version, configuration, in_doubt: vec![] })
}

fn decided(number: u8, ruling: Ruling, at_ms: i64) -> Record {
    let request = Request {
        action: action(number),
        agent: "coder".parse().unwrap(),
        door: Door::McpStdio,
        tool: "db__query".parse().unwrap(),
        parameters: json!({ "sql": "SELECT 1" }),
        task: None,
        intent: None,
        retrieved: vec![],
        host_call: None,
        at: Timestamp(at_ms),
    };
    let target = TargetFacts {
        resource: "pg://prod/users".into(),
        environment: "prod".into(),
        environment_resolved: true,
        surfaces: Default::default(),
    };
    let facts = Facts {
        agent: Some(AgentFacts { owner: None, mode: Mode::Auto }),
        tool: None,
        grant: GrantFacts::default(),
        target,
        effects: Vec::new(),
        freezes: Default::default(),
        freeze_exceptions: Default::default(),
        stops: vec![],
        epoch: Epoch(0),
        findings: vec![],
        preview: None,
        unseen: None,
        approval: None,
        plan: None,
    };
    let decision = Decision::from_iter([Cause::new(ruling, Reason::Stopped, "test")]);
    let (guards, checks) = Default::default();
    let more = DecisionRecord { request, facts, decision, guards, checks, approval: None };
    let agent = "coder".parse().unwrap();
    let body = ActionRecord { action: action(number), agent, lineage: lineage(), more };
    record(at_ms, RecordBody::Decision(Box::new(body)))
}

fn outcome(number: u8, at_ms: i64) -> Record {
    let status = OutcomeStatus::Succeeded;
    let more =
        OutcomeRecord { status, reason: None, detail: None, duration_ms: 1, checks: Vec::new() };
    let agent = "coder".parse().unwrap();
    let body = ActionRecord { action: action(number), agent, lineage: lineage(), more };
    record(at_ms, RecordBody::Outcome(Box::new(body)))
}

fn ana() -> String {
    "ana".to_owned()
}

fn verify(dir: &Path) -> Result<u64, VerifyFault> {
    let key = std::fs::read_to_string(dir.join("ledger.pub")).unwrap();
    let key = key.trim_end().parse().unwrap();
    Store::verify(dir, &key, None).map(|verified| verified.records)
}

fn tamper(dir: &Path, sql: &str) {
    let changed = Connection::open(dir.join("ledger.db")).unwrap().execute(sql, []).unwrap();
    assert!(changed > 0, "nothing was changed by `{sql}`");
}

/// A closed store with 600 records, two stops of which one was released, a pin and a key.
async fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let (all, agent) = (StopScope::All, StopScope::Agent("coder".parse().unwrap()));
    store.stop(all.clone(), "why".into(), ana(), Timestamp(10)).await.unwrap();
    store.stop(agent, "why".into(), ana(), Timestamp(11)).await.unwrap();
    let released = ReleaseOf::Scope(all);
    store.release(released, "fixed".into(), ana(), Timestamp(12)).await.unwrap();
    store.pin(pin("one"), ana(), Timestamp(13)).await.unwrap();
    store.issue_key(key(), ana(), Timestamp(14)).await.unwrap();
    store.append(decided(1, Ruling::Permit, 15)).await.unwrap();
    for at in 16..610 {
        store.append_later(note(at)).unwrap();
    }
    store.flush().await.unwrap();
    assert_eq!(store.size(), Ok(600));
    dir
}

fn pin(text: &str) -> Pin {
    let definition = json!({ "name": "query", "description": text });
    let digest = canonical_digest(&definition).unwrap();
    Pin::new("db__query".parse().unwrap(), digest, definition)
}

fn key() -> NewKey {
    NewKey {
        key_id: "k1".into(),
        hash: Digest::of(b"secret"),
        agent: "coder".parse().unwrap(),
        owner: "sre".parse().unwrap(),
    }
}

#[tokio::test]
async fn what_is_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    assert_eq!(store.checkpoint(), Ok(None));
    assert_eq!(store.append(note(5)).await, Ok(0));
    assert_eq!(store.append(decided(1, Ruling::Deny, 6)).await, Ok(1));
    drop(store);
    let store = open(dir.path(), 2);
    assert_eq!(store.append(note(7)).await, Ok(2));
    let records = store.records(&RecordQuery::default()).unwrap();
    let (seqs, records): (Vec<_>, Vec<_>) = records.into_iter().map(|r| (r.seq, r.record)).unzip();
    assert_eq!(seqs, [0, 1, 2]);
    assert_eq!(records, [note(5), decided(1, Ruling::Deny, 6), note(7)]);
    assert_eq!(store.last_at(), Ok(Some(Timestamp(7))));
    assert_eq!(verify(dir.path()), Ok(3));
    let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ledger.key"), mode("run")), (0o600, 0o700));
}

#[tokio::test]
async fn concurrent_appends_share_commits_and_all_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let appends = (0..700_i64).map(|at| {
        let store = store.clone();
        tokio::spawn(async move { store.append(note(at)).await.unwrap() })
    });
    let mut seqs = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        seqs.push(append.await.unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (0..700).collect::<Vec<u64>>());
    assert_eq!(store.changed(), Ok(false));
    drop(store);
    assert_eq!(verify(dir.path()), Ok(700));
    let database = Connection::open(dir.path().join("ledger.db")).unwrap();
    let mut kept = database.prepare("SELECT size FROM checkpoints ORDER BY size").unwrap();
    let kept = kept.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(kept.map(Result::unwrap).collect::<Vec<_>>(), [256, 512]);
}

#[tokio::test]
async fn a_giant_record_is_refused_and_the_log_goes_on() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let body =
        RecordBody::KeysRevoked { agent: "coder".parse().unwrap(), by: "x".repeat(64 << 20) };
    let refused = store.append(record(1_000, body)).await;
    assert!(matches!(refused, Err(StoreFault::TooLarge { .. })), "{refused:?}");
    store.append(note(1_000)).await.unwrap();
}

#[tokio::test]
async fn time_never_goes_backwards_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    for at in [50, 40, 60, -5] {
        store.append(note(at)).await.unwrap();
    }
    let records = store.records(&RecordQuery::default()).unwrap();
    let times: Vec<i64> = records.iter().map(|record| record.record.at_ms.0).collect();
    assert_eq!(times, [50, 50, 60, 60]);
    assert_eq!(verify(dir.path()), Ok(4));
}

#[tokio::test]
async fn a_stop_elsewhere_moves_the_epoch_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let here = open(dir.path(), 1);
    let there = Store::open(dir.path(), StoreOptions::new(gateway(2), Access::Operate)).unwrap();
    let admitted = here.admit(decided(1, Ruling::Permit, 5), Epoch(0)).await;
    assert_eq!(admitted, Ok(Admission::Recorded { seq: 0 }));
    assert_eq!(here.changed(), Ok(false));

    let (stop, epoch) =
        there.stop(StopScope::All, "why".into(), ana(), Timestamp(6)).await.unwrap();
    assert_eq!((stop.id, epoch), (1, Epoch(1)));
    assert_eq!(here.changed(), Ok(true));
    let admitted = here.admit(decided(2, Ruling::Permit, 7), Epoch(0)).await;
    assert_eq!(admitted, Ok(Admission::EpochMoved { epoch: Epoch(1) }));
    assert_eq!(here.size(), Ok(2));
    let control = here.control().unwrap();
    assert_eq!((control.epoch, control.stops), (Epoch(1), vec![stop.clone()]));

    let what = ReleaseOf::Id(stop.id);
    let (released, epoch) =
        here.release(what.clone(), "fixed".into(), ana(), Timestamp(8)).await.unwrap();
    assert_eq!((released, epoch), (vec![stop], Epoch(2)));
    let again = here.release(what, "fixed".into(), ana(), Timestamp(9)).await.unwrap();
    assert_eq!(again, (vec![], Epoch(2)));
    let (second, _) = there.stop(StopScope::All, "w".into(), ana(), Timestamp(9)).await.unwrap();
    assert_eq!(second.id, 2, "the numbers of stops are not used again");
    assert_eq!(verify(dir.path()), Ok(4));
}

#[tokio::test]
async fn only_actions_of_dead_processes_are_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    for number in 1..=3 {
        let ruling = if number == 3 { Ruling::Deny } else { Ruling::Permit };
        store.admit(decided(number, ruling, 5), Epoch(0)).await.unwrap();
    }
    store.append_later(outcome(1, 6)).unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.in_doubt(), Ok(vec![]), "its process lives");
    let taken = Store::open(dir.path(), StoreOptions::new(gateway(1), Access::Govern));
    assert!(matches!(taken, Err(StoreFault::GatewayTaken { .. })));
    drop(store);
    let store = open(dir.path(), 2);
    assert_eq!(store.in_doubt(), Ok(vec![action(2)]));
    assert_eq!(store.of_action(action(1)).unwrap().len(), 2);
    assert_eq!(verify(dir.path()), Ok(4));
}

#[tokio::test]
async fn what_a_host_executes_is_in_doubt_after_a_day_whoever_decided_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let id = |number| ActionId::new(Timestamp(1_000), [number; 10]);
    for number in 1..=2 {
        let mut record = decided(number, Ruling::Permit, 1_000);
        let RecordBody::Decision(decided) = &mut record.body else { panic!("no decision") };
        decided.more.request.door = Door::Hook;
        decided.action = id(number);
        store.admit(record, Epoch(0)).await.unwrap();
    }
    drop(store);
    let store = open(dir.path(), 2);
    assert_eq!(store.in_doubt(), Ok(vec![]), "the host may be at it");
    assert_eq!(store.open_actions(), Ok(vec![id(1), id(2)]));
    let mut told = outcome(2, 2_000);
    let RecordBody::Outcome(outcome) = &mut told.body else { panic!("no outcome") };
    outcome.action = id(2);
    assert_eq!(store.append_outcome(id(2), told.clone()).await, Ok(true));
    assert_eq!(store.append_outcome(id(2), told).await, Ok(false), "told twice");
    let day = super::open::HOST_PATIENCE_MS;
    store.append(note(1_000 + day)).await.unwrap();
    assert_eq!(store.in_doubt(), Ok(vec![]));
    store.append(note(1_001 + day)).await.unwrap();
    assert_eq!(store.in_doubt(), Ok(vec![id(1)]));
    drop(store);
    // Also if the process that decided it lives.
    let store = open(dir.path(), 1);
    assert_eq!(store.in_doubt(), Ok(vec![id(1)]));
    assert_eq!(verify(dir.path()), Ok(5));
}

#[tokio::test]
async fn an_action_is_found_whatever_block_its_records_are_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    for number in 1..=3 {
        store.admit(decided(number, Ruling::Permit, 5), Epoch(0)).await.unwrap();
    }
    store.append(outcome(1, 6)).await.unwrap();
    for at in 10..300 {
        store.append_later(note(at)).unwrap();
    }
    store.flush().await.unwrap();
    store.append(outcome(2, 300)).await.unwrap();
    store.admit(decided(4, Ruling::Permit, 301), Epoch(0)).await.unwrap();
    let seqs = |number| -> Vec<u64> {
        store.of_action(action(number)).unwrap().iter().map(|record| record.seq).collect()
    };
    assert_eq!([1, 2, 3, 4, 5].map(seqs), [vec![0, 3], vec![1, 294], vec![2], vec![295], vec![]]);
    drop(store);
    let store = open(dir.path(), 2);
    assert_eq!(store.in_doubt(), Ok(vec![action(3), action(4)]));
    assert_eq!(verify(dir.path()), Ok(296));
}

#[tokio::test]
async fn queued_outcomes_are_written_without_anybody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append_later(note(1)).unwrap();
    drop(store);
    assert_eq!(verify(dir.path()), Ok(1));
}

#[tokio::test]
async fn pins_and_quarantines() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let (one, two) = (pin("one"), pin("two"));
    let rows = store.pin_first(vec![one.clone()], Timestamp(1)).await.unwrap();
    assert_eq!((rows[0].definition, rows[0].by.as_str()), (one.definition, "first-sight"));
    let rows = store.pin_first(vec![two.clone()], Timestamp(2)).await.unwrap();
    assert_eq!(rows[0].definition, one.definition, "the first sight stays");

    let note = |pinned: Digest| {
        let Pin { tool, definition, json } = two.clone();
        store.note_quarantine(tool, pinned, definition, json, Timestamp(3))
    };
    assert_eq!(note(two.definition).await, Ok(false), "another pin than the asker knew");
    assert_eq!(note(one.definition).await, Ok(true));
    assert_eq!(note(one.definition).await, Ok(false), "noted before");
    let seen = store.pins().unwrap().remove(0).seen.unwrap();
    assert_eq!(
        (seen.definition, seen.json, seen.at),
        (two.definition, two.json.clone(), Timestamp(3))
    );

    let before = store.pin(two.clone(), ana(), Timestamp(4)).await.unwrap();
    assert_eq!(before, Some(one.definition));
    let row = store.pins().unwrap().remove(0);
    assert_eq!((row.definition, row.seen, row.by), (two.definition, None, ana()));
    assert_eq!(verify(dir.path()), Ok(3));
}

#[tokio::test]
async fn keys_are_issued_once_and_revoked_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.issue_key(key(), ana(), Timestamp(1)).await.unwrap();
    let again = store.issue_key(key(), ana(), Timestamp(2)).await;
    assert_eq!(again, Err(StoreFault::KeyTaken { key_id: "k1".into() }));
    let row = store.key("k1").unwrap().unwrap();
    assert_eq!((row.hash, row.revoked_at), (Digest::of(b"secret"), None));
    let agent = || "coder".parse().unwrap();
    assert_eq!(store.revoke_keys(agent(), ana(), Timestamp(3)).await, Ok(1));
    assert_eq!(store.revoke_keys(agent(), ana(), Timestamp(4)).await, Ok(0));
    assert_eq!(store.keys().unwrap()[0].revoked_at, Some(Timestamp(3)));
    assert_eq!(store.key("k2"), Ok(None));
    assert_eq!(verify(dir.path()), Ok(2));
}

#[tokio::test]
async fn queries_filter() {
    let dir = filled().await;
    let options = StoreOptions::new(gateway(9), Access::ReadOnly);
    let store = Store::open(dir.path(), options).unwrap();
    let seqs = |query: RecordQuery| -> Vec<u64> {
        store.records(&query).unwrap().iter().map(|record| record.seq).collect()
    };
    let all = RecordQuery::default;
    assert_eq!(seqs(RecordQuery { limit: 2, newest_first: true, ..all() }), [599, 598]);
    assert_eq!(seqs(RecordQuery { agent: "coder".parse().ok(), ..all() }), [1, 4, 5]);
    assert_eq!(seqs(RecordQuery { tool: "db__query".parse().ok(), ..all() }), [3, 5]);
    assert_eq!(seqs(RecordQuery { resource: Some("prod/us".into()), ..all() }), [5]);
    assert_eq!(seqs(RecordQuery { resource: Some("%".into()), ..all() }), [0; 0]);
    assert_eq!(seqs(RecordQuery { ruling: Some(Ruling::Permit), ..all() }), [5]);
    assert_eq!(seqs(RecordQuery { kind: Some("released".into()), ..all() }), [2]);
    let (since, until) = (Some(Timestamp(12)), Some(Timestamp(14)));
    assert_eq!(seqs(RecordQuery { since, until, ..all() }), [2, 3]);
    assert_eq!(seqs(RecordQuery { after_seq: Some(597), ..all() }), [598, 599]);
    assert_eq!(store.append(note(1)).await, Err(StoreFault::OpenedReadOnly));
}

#[tokio::test]
async fn inclusion_is_proved() {
    let dir = filled().await;
    let store = open(dir.path(), 3);
    for seq in [0, 255, 599] {
        let proved = store.inclusion(seq).unwrap().unwrap();
        let checkpoint = open_checkpoint(&proved.note, store.verifier()).unwrap();
        let at = (seq, checkpoint.size);
        assert_eq!(verify_inclusion(proved.leaf, at, &proved.proof, checkpoint.root), Ok(()));
    }
    assert_eq!(store.inclusion(600), Ok(None));
}

#[tokio::test]
async fn a_full_store_refuses_and_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(note(1)).await.unwrap();
    let limit = |pages: u32| {
        store.change(move |batch| {
            batch.txn().pragma_update(None, "max_page_count", pages)?;
            Ok(())
        })
    };
    limit(1).await.unwrap();
    let mut large = decided(1, Ruling::Permit, 3);
    if let RecordBody::Decision(decision) = &mut large.body {
        decision.more.request.parameters = json!({ "text": "x".repeat(1 << 20) });
    }
    let refused = store.admit(large.clone(), Epoch(0)).await;
    assert!(matches!(refused, Err(StoreFault::Full { .. })), "{refused:?}");
    assert!(matches!(store.health(), Err(StoreFault::Full { .. })));
    assert_eq!((store.size(), verify(dir.path())), (Ok(1), Ok(1)));
    limit(1 << 20).await.unwrap();
    let admitted = store.admit(large, Epoch(0)).await;
    assert_eq!(admitted, Ok(Admission::Recorded { seq: 1 }));
    assert_eq!((store.health(), verify(dir.path())), (Ok(()), Ok(2)));
}

#[tokio::test]
async fn nobody_waits_for_a_writer_that_died() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let writer = store.inner.writer.as_ref().unwrap();
    let dies = writer.now::<()>(|_| panic!("a fault that nobody foresaw")).unwrap();
    let follows = writer.now(|_| Ok(()));
    assert!(dies.await.is_err());
    if let Ok(follows) = follows {
        assert!(follows.await.is_err());
    }
    assert_eq!(store.append(note(1)).await, Err(StoreFault::Closed));
    assert_eq!(store.append_later(note(1)), Err(StoreFault::Closed));
    assert_eq!(store.health(), Err(StoreFault::Closed));
}

#[tokio::test]
async fn a_replaced_database_is_noticed_and_queued_records_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.append(note(1)).await.unwrap();
    let (here, away) = (dir.path().join("ledger.db"), dir.path().join("away.db"));
    std::fs::rename(&here, &away).unwrap();
    store.append_later(note(2)).unwrap();
    assert!(matches!(store.append(note(3)).await, Err(StoreFault::Replaced { .. })));
    assert!(matches!(store.flush().await, Err(StoreFault::Replaced { .. })));
    assert!(matches!(store.health(), Err(StoreFault::Replaced { .. })));
    std::fs::rename(&away, &here).unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.health(), Ok(()));
    let records = store.records(&RecordQuery::default()).unwrap();
    assert_eq!(records.into_iter().map(|r| r.record).collect::<Vec<_>>(), [note(1), note(2)]);
    drop(store);
    assert_eq!(verify(dir.path()), Ok(2));
}

#[tokio::test]
async fn a_log_whose_end_is_not_signed_is_not_written_on() {
    let dir = filled().await;
    let store = open(dir.path(), 3);
    tamper(dir.path(), "UPDATE log_state SET note = replace(note, '600', '601')");
    assert!(store.append(note(900)).await.is_ok(), "its own end is known to be good");
    drop(store);
    tamper(dir.path(), "UPDATE log_state SET note = replace(note, '601', '602')");
    let refused = Store::open(dir.path(), StoreOptions::new(gateway(4), Access::Govern));
    assert!(matches!(refused, Err(StoreFault::Corrupt { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_a_store_is_refused() {
    let dir = filled().await;
    let reopen = |access| Store::open(dir.path(), StoreOptions::new(gateway(3), access));
    tamper(dir.path(), "UPDATE log_state SET frontier = x'00'");
    assert!(matches!(reopen(Access::Govern), Err(StoreFault::Corrupt { .. })));

    let dir = filled().await;
    let reopen = |access| Store::open(dir.path(), StoreOptions::new(gateway(3), access));
    let database = Connection::open(dir.path().join("ledger.db")).unwrap();
    database.pragma_update(None, "user_version", 4).unwrap();
    drop(database);
    for access in [Access::Govern, Access::Operate, Access::ReadOnly] {
        assert_eq!(reopen(access).unwrap_err(), StoreFault::Newer { found: 4, known: 3 });
    }
    let key = dir.path().join("ledger.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(reopen(Access::Govern), Err(StoreFault::KeyUnusable { .. })));
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(reopen(Access::Govern), Err(StoreFault::KeyMissing { .. })));
    std::fs::write(dir.path().join("ledger.db"), "not a database, but long enough to look")
        .unwrap();
    assert!(matches!(reopen(Access::ReadOnly), Err(StoreFault::Corrupt { .. })));

    let absent = dir.path().join("absent");
    let options = StoreOptions::new(gateway(3), Access::ReadOnly);
    assert!(matches!(Store::open(&absent, options), Err(StoreFault::Absent { .. })));
    assert!(!absent.exists());
    let below_a_file = dir.path().join("ledger.pub/store");
    let options = StoreOptions::new(gateway(3), Access::Govern);
    assert!(matches!(Store::open(&below_a_file, options), Err(StoreFault::File { .. })));
}

#[tokio::test]
async fn what_was_done_to_the_database_is_found_and_located() {
    let drop_one = "DELETE FROM records WHERE seq = 300";
    let close_the_gap = "UPDATE records SET seq = seq - 1 WHERE seq > 300";
    let swap = [
        "UPDATE records SET seq = -1 WHERE seq = 311",
        "UPDATE records SET seq = 311 WHERE seq = 400",
        "UPDATE records SET seq = 400 WHERE seq = -1",
    ];
    let cases: [(&[&str], &str); 13] = [
        (
            &["UPDATE records SET body = CAST(body || ' ' AS BLOB) WHERE seq = 300"],
            "record 300 was altered: its bytes do not fit its hash",
        ),
        (
            &["UPDATE records SET leaf = zeroblob(32) WHERE seq = 300"],
            "record 300 was altered: its bytes do not fit its hash",
        ),
        (&[drop_one], "records 300 to 300 are missing"),
        (
            &[drop_one, close_the_gap],
            "records 256 to 511 are not what the checkpoint of 512 records signed: altered, \
             inserted or reordered",
        ),
        (&swap, "record 312 is older than the one before it: reordered"),
        (
            &["DELETE FROM records WHERE seq >= 599"],
            "the log has 599 records, but 600 were signed: some are missing at the end, or \
             anywhere after the first 512",
        ),
        (
            &["UPDATE log_state SET note = NULL"],
            "records 512 to 599 are not covered by any checkpoint: inserted",
        ),
        (
            &["UPDATE records SET agent = 'other' WHERE seq = 5"],
            "record 5 is sound, but the store's index of it says another `agent`",
        ),
        (
            &["UPDATE records SET at_ms = 0 WHERE seq = 5"],
            "record 5 is sound, but the store's index of it says another `at_ms`",
        ),
        (
            &["DELETE FROM stops"],
            "the log is sound, but the store's list of stops does not follow from it",
        ),
        (
            &["UPDATE pins SET json = replace(json, 'one', 'two')"],
            "the log is sound, but the store's list of pins does not follow from it",
        ),
        (
            &["UPDATE keys SET revoked_ms = 1"],
            "the log is sound, but the store's list of keys does not follow from it",
        ),
        (
            &["UPDATE log_state SET epoch = 0"],
            "the log is sound, but the store's end of the log does not follow from it",
        ),
    ];
    let sound = filled().await;
    assert_eq!(verify(sound.path()), Ok(600));
    for (statements, expected) in cases {
        let dir = copy(sound.path());
        for sql in statements {
            tamper(dir.path(), sql);
        }
        assert_eq!(verify(dir.path()).unwrap_err().to_string(), expected, "{statements:?}");
    }
}

#[tokio::test]
async fn a_log_cut_back_to_its_own_checkpoint_needs_a_later_one_to_show() {
    let dir = filled().await;
    let before = copy(dir.path());
    let store = open(dir.path(), 3);
    store.append(note(700)).await.unwrap();
    let later = store.checkpoint().unwrap().unwrap();
    let key = store.verifier().clone();
    drop(store);
    assert_eq!(Store::verify(dir.path(), &key, Some(&later)).map(|ok| ok.records), Ok(601));
    assert_eq!(verify(before.path()), Ok(600));
    let fault = Store::verify(before.path(), &key, Some(&later)).unwrap_err();
    let truncated = LogFault::Truncated { sound: 600, records: 600, promised: 601 };
    assert_eq!(fault, VerifyFault::Log(truncated));
    let forged = later.replace("601", "600");
    let fault = Store::verify(dir.path(), &key, Some(&forged)).unwrap_err();
    assert!(matches!(fault, VerifyFault::Log(LogFault::Forged { .. })));
}

/// Copies a closed store.
fn copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["ledger.db", "ledger.key", "ledger.pub"] {
        std::fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn any_flipped_byte_of_the_file_is_found_or_means_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sound = runtime.block_on(filled());
    let length = sound.path().join("ledger.db").metadata().unwrap().len();
    let what_counts = |dir: &Path| {
        let options = StoreOptions::new(gateway(5), Access::ReadOnly);
        let store = Store::open(dir, options).unwrap();
        let query = RecordQuery { limit: 1_000, ..RecordQuery::default() };
        let records = store.records(&query).unwrap();
        let hashes: Vec<_> = records.iter().map(|record| leaf_hash(&record.bytes)).collect();
        (hashes, store.control(), store.pins(), store.keys())
    };
    let expected = what_counts(sound.path());
    let mut config = ProptestConfig::with_cases(150);
    config.failure_persistence = None;
    proptest!(config, |(at in 0..length, bit in 0..8_u32)| {
        let dir = copy(sound.path());
        let mut file = std::fs::File::options();
        let file = file.read(true).write(true).open(dir.path().join("ledger.db")).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
        drop(file);
        match verify(dir.path()) {
            // Bytes that SQLite does not use, or counters: all that is acted on is the same.
            Ok(records) => {
                prop_assert_eq!(records, 600);
                prop_assert_eq!(what_counts(dir.path()), expected.clone());
            }
            Err(VerifyFault::Store(fault)) => {
                let whole = matches!(fault, StoreFault::Corrupt { .. } | StoreFault::Newer { .. }
                    | StoreFault::NotWritable { .. } | StoreFault::Database { .. });
                prop_assert!(whole, "{}", fault);
            }
            Err(VerifyFault::Log(_) | VerifyFault::Index { .. } | VerifyFault::State { .. }
                | VerifyFault::Damaged { .. }) => {}
        }
    });
}

#[tokio::test]
async fn so_much_waits_for_the_writer_and_nothing_that_was_taken_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let before = store.size().unwrap();
    // While somebody else writes, everything waits.
    let other = Connection::open(dir.path().join("ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let later = (0..6_000).filter(|at| store.append_later(note(*at)).is_ok()).count();
    assert_eq!(later, 4096);
    let appends = futures::future::join_all((0..6_000).map(|at| store.append(note(at))));
    // All of them come before the writer goes on.
    let appends = tokio::task::unconstrained(appends);
    let release = async { other.execute_batch("COMMIT").unwrap() };
    let (appended, ()) = tokio::join!(appends, release);
    let now = appended.iter().filter(|appended| appended.is_ok()).count();
    assert_eq!(now, 4096);
    assert!(appended.iter().all(|one| one.is_ok() || *one == Err(StoreFault::Busy)));
    store.flush().await.unwrap();
    assert_eq!(store.size().unwrap() - before, u64::try_from(later + now).unwrap());
    store.append(note(7_000)).await.unwrap();
}
