//! Tables of a real PostgreSQL that are dropped, and come back.

use super::cluster::{Database, LIMITS, change, execute, must, preview, revert, tool};
use super::permits::NOW;
use holdpoint_resources::resource::{
    Conflict, Proposed, Resource as _, ResourceFault, TargetState,
};
use holdpoint_resources::{Ended, PostgresLimits};
use holdpoint_types::{Reason, Reversibility, Timestamp};
use serde_json::json;

const SHOP: &str = "CREATE TABLE users (id serial PRIMARY KEY, name text UNIQUE);
    CREATE TABLE orders (id int PRIMARY KEY, buyer int REFERENCES users, next int REFERENCES orders);
    CREATE INDEX ON orders (buyer);
    INSERT INTO users (name) VALUES ('ann'), ('bob'); INSERT INTO orders VALUES (1, 1, 1), (2, 2, 1)";

#[tokio::test]
async fn a_dropped_table_comes_back_with_all_that_was_its() {
    let database = Database::new(SHOP).await;
    let postgres = database.postgres();
    let sql = "DROP TABLE IF EXISTS orders, public.\"users\", nowhere";
    let (seen, undo) = change(&postgres, sql).await;
    let undo = undo.unwrap();
    let changed: Vec<&str> = seen.changes.iter().map(|change| change.resource.as_str()).collect();
    assert_eq!(changed, ["pg://shop/public.orders", "pg://shop/public.users"]);
    assert_eq!(
        seen.changes[1].before,
        Some(json!({ "columns": { "id": "integer", "name": "text" } }))
    );
    assert_eq!((seen.guarantee, seen.exact), (Reversibility::ExactUntil, true));
    assert_eq!(undo.until, Some(Timestamp(NOW.0 + 3_600_000)));
    assert_eq!(database.value("SELECT to_regclass('users')").await, "");
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::After);
    let reverted = revert(&postgres, &undo).await;
    assert_eq!((reverted.preview.changes.len(), reverted.conflicts.len()), (2, 0));
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::Before);
    assert_eq!(database.value("INSERT INTO users (name) VALUES ('new') RETURNING id").await, "3");
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(database.value(keys).await, "2");
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'holdpoint%'";
    assert_eq!(database.value(left).await, "0");
    let again = revert(&postgres, &undo).await;
    assert_eq!(
        (again.preview.changes.len(), again.preview.guarantee),
        (0, Reversibility::NoEffect)
    );
    assert_eq!(database.value("SELECT count(*) FROM orders").await, "2");
}

#[tokio::test]
async fn a_table_that_is_away_holds_nothing_of_others() {
    let database = Database::new(SHOP).await;
    let postgres = database.postgres();
    let (_, undo) = change(&postgres, "DROP TABLE orders").await;
    database.run("DELETE FROM users WHERE id = 1").await;
    // What it refers to is gone: it cannot come back as it was, and stays where it is.
    let undo = undo.unwrap();
    let reverting = postgres.revert(&undo, NOW).await.unwrap();
    let call = ("holdpoint_revert", &json!({}));
    let ended = super::cluster::execute_with(&postgres, call, reverting.prepared).await.ended;
    assert!(matches!(ended, Ended::Answered { tool_error: true, .. }), "{ended:?}");
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::After);
    database.run("INSERT INTO users VALUES (1, 'ann')").await;
    revert(&postgres, &undo).await;
    assert_eq!(postgres.verify(&undo).await.unwrap(), TargetState::Before);
}

#[tokio::test]
async fn a_drop_is_looked_at_without_a_lock_and_is_the_same_later() {
    let database = Database::new(SHOP).await;
    let postgres = database.postgres();
    let reader = database.client().await;
    reader.batch_execute("BEGIN; SELECT * FROM orders").await.unwrap();
    let parameters = json!({ "sql": "DROP TABLE orders" });
    let (tool, mut digests) = (tool("sql_execute"), Vec::new());
    for now in [NOW, Timestamp(NOW.0 + 86_400_000)] {
        let proposed = Proposed { tool: &tool, parameters: &parameters, effects: &[], now };
        let (seen, prepared) = postgres.preview(proposed).await.unwrap().unwrap();
        database.run("INSERT INTO orders SELECT count(*) + 1 FROM orders").await;
        digests.push(seen.digest().unwrap());
        drop(prepared);
    }
    assert_eq!(digests[0], digests[1]);
    // Executing it needs the lock, and does not wait for long.
    let (_, prepared) = preview(&postgres, "DROP TABLE orders").await.unwrap();
    let ended = execute(&postgres, "DROP TABLE orders", prepared).await.ended;
    assert!(matches!(ended, Ended::Answered { tool_error: true, .. }), "{ended:?}");
    assert_eq!(database.value("SELECT count(*) FROM orders").await, "4");
}

#[tokio::test]
async fn a_drop_of_what_changed_since_is_not_executed() {
    let database = Database::new(SHOP).await;
    let postgres = database.postgres();
    let sql = "DROP TABLE orders";
    for other in
        ["ALTER TABLE orders ADD more int", "DROP TABLE orders; CREATE TABLE orders (id int)"]
    {
        let (_, prepared) = preview(&postgres, sql).await.unwrap();
        database.run(other).await;
        let ended = execute(&postgres, sql, prepared).await.ended;
        let moved = matches!(ended, Ended::NotSent { reason: Reason::TargetMoved, .. });
        assert!(moved, "{other}: {ended:?}");
    }
    assert_ne!(database.value("SELECT to_regclass('orders')").await, "");
}

#[tokio::test]
async fn what_a_server_would_not_drop_is_refused() {
    let database = Database::new(SHOP).await;
    let postgres = database.postgres();
    database
        .run(
            "CREATE VIEW names AS SELECT name FROM users; CREATE TABLE typed (o orders); \
             CREATE TABLE \"Odd\" (id int)",
        )
        .await;
    for (sql, why) in [
        ("DROP TABLE users", "view names"),
        ("DROP TABLE users, typed, \"Odd\"", "constraint orders_buyer_fkey"),
        ("DROP TABLE orders", "column o of table typed"),
        ("DROP TABLE odd", "there is no table \"odd\""),
        ("DROP TABLE users CASCADE", "CASCADE"),
    ] {
        let fault = preview(&postgres, sql).await.unwrap_err();
        assert!(matches!(&fault, ResourceFault::Refused(_)), "{sql}: {fault:?}");
        assert!(fault.to_string().contains(why), "{sql}: {fault}");
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_said_to_be_gone() {
    let database = Database::new(
        "CREATE TABLE parts (id int) PARTITION BY LIST (id); \
         CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1); CREATE VIEW v AS SELECT 1",
    )
    .await;
    let postgres = database.postgres();
    for sql in ["DROP TABLE parts", "DROP TABLE part1", "DROP TABLE v"] {
        let (seen, prepared) = preview(&postgres, sql).await.unwrap();
        assert_eq!((seen.guarantee, seen.exact), (Reversibility::Irreversible, false), "{sql}");
        assert!(postgres.undo(&prepared).is_none());
    }
    let (_, prepared) = preview(&postgres, "DROP TABLE part1").await.unwrap();
    must(execute(&postgres, "DROP TABLE part1", prepared).await);
    assert_eq!(database.value("SELECT to_regclass('part1')").await, "");
    let (_, prepared) = preview(&postgres, "DROP TABLE v").await.unwrap();
    let ended = execute(&postgres, "DROP TABLE v", prepared).await.ended;
    assert!(matches!(ended, Ended::Answered { tool_error: true, .. }), "{ended:?}");
}

#[tokio::test]
async fn a_table_that_cannot_come_back_is_reported() {
    let database = Database::new(SHOP).await;
    let limits = PostgresLimits { trash_keep: std::time::Duration::from_secs(10), ..LIMITS };
    let postgres = database.postgres_as("app", limits);
    let (_, undo) = change(&postgres, "DROP TABLE orders").await;
    let undo = undo.unwrap();
    let conflict = |why: &str| Conflict {
        resource: "pg://shop/public.orders".to_owned(),
        why: why.to_owned(),
    };
    database.run("CREATE TABLE orders (id int)").await;
    let reverted = revert(&postgres, &undo).await;
    assert_eq!(reverted.conflicts, [conflict("another table has its name now")]);
    let schema = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'holdpoint%'";
    let schema = database.value(schema).await;
    database.run(&format!("DROP TABLE orders; DROP SCHEMA {schema} CASCADE")).await;
    let reverted = revert(&postgres, &undo).await;
    assert_eq!(reverted.conflicts, [conflict("it was dropped for good")]);
    let state = postgres.verify(&undo).await.unwrap();
    assert_eq!(state, TargetState::Changed(vec![conflict("it was dropped for good")]));
    let late = postgres.revert(&undo, Timestamp(NOW.0 + 10_000)).await.unwrap_err();
    assert!(matches!(late, ResourceFault::Impossible(_)), "{late:?}");
}

#[tokio::test]
async fn nobody_shortens_the_time_of_dropped_tables_by_a_statement() {
    let database = Database::new(SHOP).await;
    let postgres = database.postgres();
    change(&postgres, "DROP TABLE orders").await;
    let trash = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'holdpoint\\_trash\\_%'";
    let trash = database.value(trash).await;
    let oid = trash.split('_').nth(2).unwrap();
    for sql in [
        format!("COMMENT ON SCHEMA {trash} IS 'holdpoint: kept until 1, tables {oid}'"),
        format!("COMMENT ON SCHEMA \"{trash}\" IS NULL"),
        format!("ALTER SCHEMA {trash} RENAME TO mine"),
        format!("drop schema Holdpoint_TRASH_{oid}_1 cascade"),
        format!("DROP TABLE {trash}.orders"),
        format!("ALTER TABLE users SET SCHEMA {trash}"),
    ] {
        let fault = match preview(&postgres, &sql).await {
            Err(fault) => fault,
            Ok((_, prepared)) => {
                must(execute(&postgres, &sql, prepared).await);
                let over = postgres.expired(NOW).await.unwrap();
                panic!("{sql} was done; its time is over: {over:?}");
            }
        };
        assert!(matches!(&fault, ResourceFault::Refused(_)), "{sql}: {fault:?}");
    }
    assert_eq!(postgres.expired(NOW).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn dropped_tables_whose_time_is_over_are_deleted_and_nothing_else_is() {
    let database = Database::new(SHOP).await;
    let postgres = database.postgres();
    let (_, undo) = change(&postgres, "DROP TABLE orders, users").await;
    let undo = undo.unwrap();
    let over = undo.until.unwrap();
    let schema = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'holdpoint\\_trash\\_%' \
                  AND obj_description(oid) LIKE '%tables % %'";
    let trash = database.value(schema).await;
    // Others that look like ours: no mark, another name, another owner, another's mark.
    let mark = |name: &str| {
        format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.t (a int);
             COMMENT ON SCHEMA {name} IS 'holdpoint: kept until 1, tables 1'"
        )
    };
    database.run("CREATE SCHEMA holdpoint_trash_1_1").await;
    database.run(&mark("holdpoint_trash_mine")).await;
    database.root().await.batch_execute(&mark("holdpoint_trash_2_2")).await.unwrap();
    database.run(&mark("holdpoint_trash_3_3")).await;
    let others = ["holdpoint_trash_1_1", "holdpoint_trash_mine", "holdpoint_trash_2_2"];
    let address = |schema: &str| format!("pg://shop/{schema}");
    let early = Timestamp(over.0 - 1);
    assert_eq!(postgres.expired(early).await.unwrap(), [address("holdpoint_trash_3_3")]);
    let mut found = [address(&trash), address("holdpoint_trash_3_3")];
    found.sort();
    assert_eq!(postgres.expired(over).await.unwrap(), found);
    assert!(postgres.let_go(&address(&trash), early).await.is_err(), "its time is not over");
    for other in others {
        assert!(postgres.let_go(&address(other), over).await.is_err(), "{other}");
    }
    assert!(postgres.let_go(&format!("pg://other/{trash}"), over).await.is_err());
    // Its mark names no table that is in it.
    assert!(postgres.let_go(&address("holdpoint_trash_3_3"), over).await.is_err());
    // Somebody put something of their own there, or depends on what is there.
    for (own, away) in [
        (format!("CREATE TABLE {trash}.own (a int)"), format!("DROP TABLE {trash}.own")),
        (format!("CREATE VIEW own AS SELECT * FROM {trash}.users"), "DROP VIEW own".to_owned()),
    ] {
        database.run(&own).await;
        assert!(postgres.let_go(&address(&trash), over).await.is_err(), "{own}");
        assert_eq!(database.value(&format!("SELECT count(*) FROM {trash}.users")).await, "2");
        database.run(&away).await;
    }
    postgres.let_go(&address(&trash), over).await.unwrap();
    assert_eq!(database.value(schema).await, "");
    assert_eq!(postgres.expired(over).await.unwrap(), [address("holdpoint_trash_3_3")]);
    assert!(postgres.let_go(&address(&trash), over).await.is_err(), "it is gone");
    let left = "SELECT count(*) FROM pg_class WHERE relname = 't' AND relkind = 'r'";
    assert_eq!(database.value(left).await, "3");
    let gone = postgres.verify(&undo).await.unwrap();
    assert!(matches!(gone, TargetState::Changed(_)), "{gone:?}");
}
