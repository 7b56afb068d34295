//! What somebody does to a store who may write to its files, but has not its key: it is found, and
//! it undoes no stop. And what other users may do: nothing.

use super::{ana, copy, decided, filled, gateway, key, note, open, pin, record, tamper, verify};
use crate::store::{
    Access, NewKey, Pin, ReleaseOf, Store, StoreFault, StoreOptions, VerifyFault, query,
};
use holdpoint_types::{Digest, Epoch, RecordBody, Ruling, StopScope, Timestamp, canonical_digest};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde_json::json;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

/// What somebody may write into the tables that gateways act on, and which list then differs.
const FORGERIES: [(&str, &[&str]); 5] = [
    (
        "list of stops",
        &[
            "UPDATE stops SET since_ms = 9 WHERE id = 1",
            "UPDATE stops SET reason = 'other' WHERE id = 1",
            "UPDATE stops SET by = 'eve' WHERE id = 1",
            "UPDATE stops SET scope = 'agent:x' WHERE id = 1",
            "UPDATE stops SET id = 9 WHERE id = 1",
            "INSERT INTO stops (scope, reason, by, since_ms) VALUES ('all', '', 'eve', 1)",
            "UPDATE sqlite_sequence SET seq = 2",
            "DELETE FROM sqlite_sequence",
        ],
    ),
    (
        "list of pins",
        &[
            "UPDATE pins SET definition = seen, json = seen_json",
            "UPDATE pins SET json = replace(json, 'one', 'two')",
            "UPDATE pins SET by = 'eve'",
            "UPDATE pins SET at_ms = 1",
            "UPDATE pins SET seen = zeroblob(32)",
            "UPDATE pins SET seen = definition, seen_json = json",
            "UPDATE pins SET seen_json = json",
            "UPDATE pins SET seen_ms = 1",
            "UPDATE pins SET tool = 'db__other'",
            "DELETE FROM pins",
        ],
    ),
    (
        "list of keys",
        &[
            "UPDATE keys SET hash = zeroblob(32) WHERE key_id = 'k2'",
            "UPDATE keys SET agent = 'other' WHERE key_id = 'k2'",
            "UPDATE keys SET owner = 'eve' WHERE key_id = 'k2'",
            "UPDATE keys SET issued_ms = 1 WHERE key_id = 'k2'",
            "UPDATE keys SET revoked_ms = 8 WHERE key_id = 'k2'",
            "UPDATE keys SET revoked_ms = NULL WHERE key_id = 'k1'",
            "UPDATE keys SET revoked_ms = 9 WHERE key_id = 'k1'",
            "UPDATE keys SET key_id = 'k3' WHERE key_id = 'k2'",
            "DELETE FROM keys WHERE key_id = 'k2'",
        ],
    ),
    (
        "list of open actions",
        &[
            "DELETE FROM open_actions",
            "UPDATE open_actions SET gateway = action",
            "INSERT INTO open_actions SELECT gateway, gateway FROM open_actions",
        ],
    ),
    (
        "index of actions",
        &[
            "DELETE FROM action_records",
            "UPDATE action_records SET action = 'other'",
            "UPDATE action_records SET seq = 200",
            "INSERT INTO action_records SELECT action, 200 FROM action_records",
        ],
    ),
];

/// A closed store with one of everything that gateways act on, and a whole block of records.
async fn furnished() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    for at in 1..=3 {
        store.stop(StopScope::All, "why".into(), ana(), Timestamp(at)).await.unwrap();
    }
    store.release(ReleaseOf::Id(3), "fixed".into(), ana(), Timestamp(4)).await.unwrap();
    store.pin(pin("one"), ana(), Timestamp(5)).await.unwrap();
    let Pin { tool, definition, json } = pin("two");
    let pinned = pin("one").definition;
    assert_eq!(store.note_quarantine(tool, pinned, definition, json, Timestamp(6)).await, Ok(true));
    store.issue_key(key(), ana(), Timestamp(7)).await.unwrap();
    store.revoke_keys("coder".parse().unwrap(), ana(), Timestamp(8)).await.unwrap();
    let second = NewKey { key_id: "k2".into(), ..key() };
    // Its clock is behind: the log's time counts, for the key as for its record.
    store.issue_key(second, ana(), Timestamp(2)).await.unwrap();
    assert_eq!(store.key("k2").unwrap().unwrap().issued_at, Timestamp(8));
    store.admit(decided(1, Ruling::Permit, 9), Epoch(4)).await.unwrap();
    for at in 10..270 {
        store.append_later(note(at)).unwrap();
    }
    store.flush().await.unwrap();
    dir
}

fn sql(dir: &Path, sql: &str) {
    Connection::open(dir.join("ledger.db")).unwrap().execute_batch(sql).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn every_forged_column_that_gateways_act_on_is_found() {
    let sound = furnished().await;
    assert_eq!(verify(sound.path()), Ok(270));
    for (what, statements) in FORGERIES {
        for statement in statements {
            let dir = copy(sound.path());
            tamper(dir.path(), statement);
            assert_eq!(verify(dir.path()), Err(VerifyFault::State { what }), "{statement}");
        }
    }
}

#[tokio::test]
async fn a_missing_checkpoint_is_found() {
    let dir = filled().await;
    tamper(dir.path(), "DELETE FROM checkpoints WHERE size = 256");
    assert_eq!(verify(dir.path()), Err(VerifyFault::State { what: "list of checkpoints" }));
}

#[tokio::test]
async fn a_tool_that_is_again_what_was_pinned_verifies() {
    let dir = furnished().await;
    let store = open(dir.path(), 2);
    let Pin { tool, definition, .. } = pin("one");
    store.note_restored(tool, definition).await.unwrap();
    drop(store);
    assert_eq!(verify(dir.path()), Ok(270));
}

#[tokio::test]
async fn a_key_of_a_version_that_did_not_note_its_hash_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let NewKey { key_id, hash, agent, owner } = key();
    let body = RecordBody::KeyIssued { agent, owner, key: key_id, hash: None, by: ana() };
    store.append(record(5, body)).await.unwrap();
    drop(store);
    let insert =
        "INSERT INTO keys (key_id, hash, agent, owner, issued_ms) VALUES (?1, ?2, ?3, ?4, 5)";
    let database = Connection::open(dir.path().join("ledger.db")).unwrap();
    database.execute(insert, ("k1", hash.as_bytes(), "coder", "sre")).unwrap();
    drop(database);
    assert_eq!(verify(dir.path()), Ok(1));
}

#[tokio::test]
async fn a_database_with_objects_of_others_is_refused() {
    let sound = furnished().await;
    let cases = [
        (
            "CREATE TRIGGER zz AFTER INSERT ON stops BEGIN DELETE FROM stops; END",
            "holdpoint did not make its trigger `zz` this way",
        ),
        ("CREATE VIEW seen AS SELECT 1", "holdpoint did not make its view `seen` this way"),
        ("CREATE TABLE \"a\nb\" (a)", "holdpoint did not make its table `a\\nb` this way"),
        (
            "CREATE UNIQUE INDEX once ON stops (scope, since_ms)",
            "holdpoint did not make its index `once` this way",
        ),
        ("DROP TABLE action_records", "its table `action_records` is missing"),
        (
            "CREATE INDEX records_by_time ON records (at_ms) WHERE at_ms > 5",
            "holdpoint did not make its index `records_by_time` this way",
        ),
        (
            "ALTER TABLE keys ADD COLUMN more TEXT",
            "holdpoint did not make its table `keys` this way",
        ),
    ];
    for (statement, expected) in cases {
        let dir = copy(sound.path());
        sql(dir.path(), statement);
        let fault = StoreFault::corrupt(expected);
        assert_eq!(verify(dir.path()), Err(VerifyFault::Store(fault.clone())), "{statement}");
        for access in [Access::Govern, Access::Operate, Access::ReadOnly] {
            let opened = Store::open(dir.path(), StoreOptions::new(gateway(3), access));
            assert_eq!(opened.unwrap_err(), fault, "{statement}");
        }
    }
}

/// Lets triggers run in the writer, as if they were not switched off.
async fn with_triggers(store: &Store) {
    let enabled = store.change(|batch| {
        Ok(batch.txn().set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true)?)
    });
    assert_eq!(enabled.await, Ok(true));
}

#[tokio::test]
async fn a_trigger_undoes_no_stop() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    sql(dir.path(), "CREATE TRIGGER zz AFTER INSERT ON stops BEGIN DELETE FROM stops; END");
    let stop = |at| store.stop(StopScope::All, "why".into(), ana(), Timestamp(at));
    let (first, _) = stop(1).await.unwrap();
    assert_eq!(store.control().unwrap().stops, std::slice::from_ref(&first), "triggers do not run");

    with_triggers(&store).await;
    let not_kept = |what: &str| StoreFault::corrupt(format!("{what} is not what was just written"));
    assert_eq!(stop(2).await.unwrap_err(), not_kept("stop 2"));
    sql(
        dir.path(),
        "DROP TRIGGER zz; CREATE TRIGGER zz AFTER INSERT ON records BEGIN \
         UPDATE stops SET scope = 'agent:nobody'; END",
    );
    assert_eq!(stop(3).await.unwrap_err(), not_kept("stop 2"));
    sql(
        dir.path(),
        "DROP TRIGGER zz; CREATE TRIGGER zz AFTER UPDATE ON log_state BEGIN \
         UPDATE log_state SET epoch = 1; END",
    );
    assert_eq!(stop(4).await.unwrap_err(), not_kept("the log's end"));
    sql(
        dir.path(),
        "DROP TRIGGER zz; CREATE TRIGGER zz AFTER DELETE ON stops BEGIN \
         INSERT INTO stops VALUES (old.id, old.scope, old.reason, old.by, old.since_ms); END",
    );
    let release = || store.release(ReleaseOf::Id(1), "why".into(), ana(), Timestamp(5));
    assert_eq!(release().await.unwrap_err(), not_kept("stop 1"));
    let control = store.control().unwrap();
    assert_eq!((control.epoch, control.stops), (Epoch(1), vec![first.clone()]));

    sql(dir.path(), "DROP TRIGGER zz");
    assert_eq!(release().await, Ok((vec![first], Epoch(2))));
    assert_eq!(query::stops(&Connection::open(dir.path().join("ledger.db")).unwrap()), Ok(vec![]));
    drop(store);
    assert_eq!(verify(dir.path()), Ok(2));
}

#[tokio::test]
async fn a_stop_and_its_release_in_one_batch_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let stop = store.stop(StopScope::All, "why".into(), ana(), Timestamp(1));
    let what = ReleaseOf::Scope(StopScope::All);
    let release = store.release(what, "fixed".into(), ana(), Timestamp(2));
    let (stopped, released) = tokio::join!(stop, release);
    assert_eq!(released.unwrap().0, [stopped.unwrap().0]);
    assert_eq!(store.control().unwrap().stops, []);
    drop(store);
    assert_eq!(verify(dir.path()), Ok(2));
}

#[tokio::test]
async fn what_cannot_be_read_again_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let mut hostile = decided(1, Ruling::Deny, 1);
    if let RecordBody::Decision(decision) = &mut hostile.body {
        let raw = json!({ "$serde_json::private::RawValue": "junk" });
        decision.more.request.parameters = json!({ "x": raw });
    }
    let refused = store.append(hostile.clone()).await;
    assert!(matches!(refused, Err(StoreFault::NotRecordable(_))), "{refused:?}");
    assert!(matches!(store.append_later(hostile), Err(StoreFault::NotRecordable(_))));
    store.append(decided(2, Ruling::Deny, 2)).await.unwrap();
    drop(store);
    assert_eq!(verify(dir.path()), Ok(1));
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_again_is_not_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let hostile = json!({ "a": { "$serde_json::private::RawValue": "{\"b\":1}" } });
    let digest = canonical_digest(&hostile).unwrap();
    let tool = || "db__query".parse().unwrap();
    let wrong = Pin::new(tool(), Digest::of(b"other"), json!({}));
    for pin in [Pin::new(tool(), digest, hostile.clone()), wrong] {
        let refused = store.pin(pin.clone(), ana(), Timestamp(1)).await;
        assert!(matches!(refused, Err(StoreFault::NotRecordable(_))), "{refused:?}");
        let refused = store.pin_first(vec![pin], Timestamp(1)).await;
        assert!(matches!(refused, Err(StoreFault::NotRecordable(_))), "{refused:?}");
    }
    let good = pin("one");
    store.pin(good.clone(), ana(), Timestamp(1)).await.unwrap();
    let noted = store.note_quarantine(tool(), good.definition, digest, hostile, Timestamp(2)).await;
    assert!(matches!(noted, Err(StoreFault::NotRecordable(_))), "{noted:?}");
    drop(store);
    assert_eq!(verify(dir.path()), Ok(1));
}

#[tokio::test]
async fn others_lose_what_they_could_do_in_an_older_store() {
    let dir = furnished().await;
    let store = open(dir.path(), 2);
    let path = |name: &str| dir.path().join(name);
    let parts = ["ledger.db", "ledger.db-wal", "ledger.db-shm"];
    for part in parts {
        assert_eq!(mode(&path(part)), 0o600, "{part}");
        set_mode(&path(part), 0o666);
    }
    set_mode(&path("run"), 0o755);
    set_mode(dir.path(), 0o777);
    let second = open(dir.path(), 3);
    for (part, expected) in parts.map(|part| (part, 0o600)).into_iter().chain([("run", 0o700)]) {
        assert_eq!(mode(&path(part)), expected, "{part}");
    }
    assert_eq!((mode(dir.path()), mode(&path("ledger.key"))), (0o700, 0o600));
    // Both still hold their locks, and write.
    store.append(decided(2, Ruling::Deny, 20)).await.unwrap();
    second.append(decided(3, Ruling::Deny, 21)).await.unwrap();
    drop((store, second));
    assert_eq!(verify(dir.path()), Ok(272));
}

#[test]
fn an_open_folder_becomes_a_store_only_if_it_is_empty() {
    let parent = tempfile::tempdir().unwrap();
    let empty = parent.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    set_mode(&empty, 0o777);
    drop(open(&empty, 1));
    assert_eq!((mode(&empty), mode(&empty.join("ledger.db"))), (0o700, 0o600));

    let shared = parent.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("report.txt"), "of others").unwrap();
    set_mode(&shared, 0o755);
    let options = || StoreOptions::new(gateway(1), Access::Govern);
    let refused = Store::open(&shared, options());
    assert!(matches!(refused, Err(StoreFault::File { .. })), "{refused:?}");
    assert_eq!((mode(&shared), shared.join("run").exists()), (0o755, false));
    set_mode(&shared, 0o700);
    drop(open(&shared, 1));

    // A link to a folder is followed, links in it are not.
    let linked = parent.path().join("linked");
    symlink(&empty, &linked).unwrap();
    drop(open(&linked, 1));
    for part in ["ledger.db-wal", "ledger.key", "run"] {
        let link = empty.join(part);
        let away = parent.path().join("away");
        let moved = std::fs::rename(&link, &away).is_ok();
        symlink(&away, &link).unwrap();
        let refused = Store::open(&empty, options());
        assert!(matches!(refused, Err(StoreFault::File { .. })), "{part}: {refused:?}");
        std::fs::remove_file(&link).unwrap();
        if moved {
            std::fs::rename(&away, &link).unwrap();
        }
    }
    drop(open(&empty, 1));
}
